"""The words of a photo: places from a file that any detector wrote, and the photo with what was read drawn on it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import ImageError, MissingPackageError
from robustscanner.letters import Letter, as_json
from robustscanner.preprocess import Image, cv2
from robustscanner.recognizer import Reading, Recognizer
from robustscanner.regions import cut, describe, part
from robustscanner.sheet import LOW_SCORE
from robustscanner.spec import InputSpec

_GREEN, _RED = (0, 140, 60), (200, 24, 24)  # RGB

Quad = npt.NDArray[np.float64]  # (4, 2): points (x, y), clockwise from where the word begins at its top


@dataclass(frozen=True)
class PhotoLetter:
    """A letter and where it stands; None where the model does not say."""

    letter: Letter
    quad: Quad | None

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return as_json(self.letter, None if self.quad is None else self.quad.tolist())


@dataclass(frozen=True)
class PhotoWord:
    """A word and where it stands."""

    quad: Quad
    reading: Reading
    letters: tuple[PhotoLetter, ...] | None = None  # None: nobody asked for them


def load_quads(path: Path) -> list[Quad]:
    """A JSON list of boxes [x, y, width, height] and quadrilaterals [[x, y], …] in pixels, in the file's order.

    Raises:
        ImageError: no such file, or not such a list.
    """
    try:
        regions = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}; check the path") from None
    except (ValueError, RecursionError):
        raise ImageError(f"{path}: not JSON; give a list of [x, y, width, height] or of four points [x, y]") from None
    return quads_of(regions, str(path))


def quads_of(regions: object, name: str) -> list[Quad]:
    """Likewise, of a list from anywhere; errors begin with its name."""
    if not isinstance(regions, list):
        raise ImageError(f"{name}: not a list; give one of [x, y, width, height] or of four points [x, y]")
    return [_quad(region, f"{name}: region {number}") for number, region in enumerate(regions)]


def detect_quads(picture: Image) -> list[Quad]:
    """Where RapidOCR's detector finds words in a photo, uint8 RGB [H, W, 3], in its reading order.

    Raises:
        MissingPackageError: RapidOCR is not installed.
    """
    try:
        from rapidocr import RapidOCR
    except ImportError as error:
        raise MissingPackageError(f"--detect needs rapidocr ({error}): pip install 'robustscanner[detect]'") from None
    detector: Any = RapidOCR(params={"Global.log_level": "error"})
    boxes = detector(np.ascontiguousarray(picture[:, :, ::-1]), use_cls=False, use_rec=False).boxes
    return [] if boxes is None else [_as_read(np.asarray(box, np.float64)) for box in boxes]


def _as_read(quad: Quad) -> Quad:
    """A tall word is taken to run downwards, as RapidOCR takes it."""
    across, down = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
    return np.roll(quad, -1, 0) if down >= 1.5 * across else quad


def read_photo(
    recognizer: Recognizer, picture: Image, quads: Sequence[Quad], *, letters: bool = False
) -> list[PhotoWord]:
    """Reads the words of a photo, uint8 RGB [H, W, 3], in the order of `quads`; `letters`: and finds their letters.

    Raises:
        ImageError: a quadrilateral without area, or far outside the photo.
        ConstraintError: the engine is not one for letters.
    """
    if not quads:
        return []
    check_within(picture, quads)
    spec = recognizer.spec.input
    crops = cut(picture, quads, spec)
    words = [PhotoWord(*pair) for pair in zip(quads, recognizer.read_batch(crops), strict=True)]
    if not letters:
        return words
    found = [recognizer.letters(crop, word.reading.text) for crop, word in zip(crops, words, strict=True)]
    return [
        replace(word, letters=place_letters(picture, word.quad, some, spec))
        for word, some in zip(words, found, strict=True)
    ]


def check_within(picture: Image, quads: Sequence[Quad]) -> None:
    """Raises ImageError for a quadrilateral that is far outside the photo: its crop could fill the memory."""
    longest = max(picture.shape[:2])
    for number, quad in enumerate(quads):
        if quad.min() < -longest or (quad.max(0) > (picture.shape[1] + longest, picture.shape[0] + longest)).any():
            raise ImageError(f"region {number} is not within the photo; give pixels of the photo as it is shown")


def place_letters(picture: Image, quad: Quad, letters: Sequence[Letter], spec: InputSpec) -> tuple[PhotoLetter, ...]:
    """Letters that were found in a word's crop, where they stand in the photo."""
    (word,) = describe([quad], picture.shape[0], picture.shape[1], spec)

    def place(letter: Letter) -> Quad | None:
        return None if letter.left is None or letter.right is None else part(word, letter.left, letter.right)

    return tuple(PhotoLetter(letter, place(letter)) for letter in letters)


def draw_photo(picture: Image, words: Sequence[PhotoWord]) -> Image:
    """A copy of the photo, uint8 RGB [H, W, 3]: words framed, their text above, red where the score is low."""
    drawn: Image = picture.copy()
    size = max(0.4, max(picture.shape[:2]) / 2000)
    for word in words:
        colour = _RED if word.reading.score < LOW_SCORE else _GREEN
        points = np.rint(word.quad).astype(np.int32)
        cv2.polylines(drawn, [points], True, colour, max(1, round(2 * size)), cv2.LINE_AA)
        for letter in word.letters or ():
            if letter.quad is not None:  # its end
                ends = np.rint(letter.quad[1:3]).astype(int).tolist()
                cv2.line(drawn, ends[0], ends[1], colour, 1, cv2.LINE_AA)
        text = word.reading.text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
        left, top = int(points[:, 0].min()), max(int(points[:, 1].min()) - 3, round(24 * size))
        cv2.putText(
            drawn, text, (left, top), cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(1, round(2 * size)), cv2.LINE_AA
        )
    return drawn


def _quad(region: object, name: str) -> Quad:
    try:
        numbers = np.asarray(region, np.float64)
    except (ValueError, TypeError, OverflowError):
        numbers = np.empty(0)
    if numbers.shape not in ((4,), (4, 2)) or not np.isfinite(numbers).all():
        raise ImageError(f"{name} is neither [x, y, width, height] nor four points [x, y]")
    if numbers.shape == (4, 2):
        return numbers
    x, y, width, height = numbers
    if width < 1 or height < 1:
        raise ImageError(f"{name} is empty; width and height are at least 1")
    right, bottom = x + width - 1, y + height - 1  # centres of the pixels at the corners
    return np.array([(x, y), (right, y), (right, bottom), (x, bottom)])
