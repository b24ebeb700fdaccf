"""WordSynthesizer: pictures of words as they are found on signs, shop fronts, posters and web pages."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from training.data.render.background import (
    cut,
    gradient,
    mix,
    plain,
    texture_tiles,
    usable_pictures,
)
from training.data.render.colours import colour_pair, random_colours
from training.data.render.degrade import DegradeOptions, degrade
from training.data.render.fonts import (
    PUNCTUATION,
    FontError,
    FontFace,
    draws_mark,
    find_fonts,
    font_weights,
    inspect_font,
    load_font,
)
from training.data.render.layout import Canvas, bend, draw_text, place, plane_matrix, wave
from training.data.render.text import CONTEXTLESS, DEFAULT_CHARACTERS, FUNCTION_WORDS, CaseMix, TextMix, Vocabulary

__all__ = ["FontError", "SynthOptions", "WordSynthesizer", "find_fonts"]

logger = logging.getLogger(__name__)

FONT_SIZE_PX = 44  # one size, so that opened fonts are found again; the canvas scales it
MAX_WORK_WIDTH_PX = 640
MAX_ASPECT = 16.0


@dataclass(frozen=True)
class SynthOptions:
    """Proportions (chances, 0..1) and ranges of what is drawn."""

    text: TextMix = field(default_factory=TextMix)  # kinds of text
    cases: CaseMix = field(default_factory=CaseMix)  # letter cases of words
    degrade: DegradeOptions = field(default_factory=DegradeOptions)  # camera and compression
    max_length: int = 25  # longest text, characters
    height_px: tuple[int, int] = (14, 64)  # lowest and highest picture
    typical_height_px: float = 34.0  # median height of pictures
    clean: float = 0.3  # share without degradation, as born-digital pictures
    hard: float = 0.06  # share with strong degradation
    bold: float = 0.25  # letters fattened, since most signs are bold and most fonts are not
    spaced: float = 0.2  # letters set apart or tightened
    arc: float = 0.06  # text on an arc
    wave: float = 0.03  # text on a wave
    rotated: float = 0.4  # turned by some degrees
    max_rotation_deg: float = 28.0  # of ordinary samples; hard ones double it
    sheared: float = 0.25  # slanted
    tilted: float = 0.3  # perspective
    stretched: float = 0.45  # condensed or wide
    loose: float = 0.35  # crops with much space around the word
    bitten: float = 0.12  # crops that cut into the letters
    weak_contrast: float = 0.1  # foreground close to the background
    textured: float = 0.4  # background with structure
    outline: float = 0.12  # letters with an outline
    shadow: float = 0.14  # drop shadow
    extrude: float = 0.05  # letters with depth
    emboss: float = 0.05  # lit edges
    glow: float = 0.03  # neon
    fancy_fill: float = 0.16  # gradient or texture within the letters
    underline: float = 0.03  # a line under the word
    border: float = 0.05  # a frame around the word
    plate: float = 0.08  # a plate behind the word
    neighbours: float = 0.2  # other words near the edges


# As codes, meters and plates are photographed to be read: on a straight line, in one piece, not across a shop front.
LEGIBLE_CODES = SynthOptions(
    text=CONTEXTLESS,
    hard=0.0,
    weak_contrast=0.0,
    arc=0.0,
    wave=0.0,
    spaced=0.1,
    max_rotation_deg=8.0,
    bitten=0.0,
    height_px=(20, 64),
)


class WordSynthesizer:
    """Draws words; picklable, and usable in any process since font files are opened when first drawn with."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        characters: str = DEFAULT_CHARACTERS,
        fonts: Sequence[Path] | None = None,
        options: SynthOptions = SynthOptions(),
        backgrounds: Sequence[np.ndarray] = (),
    ) -> None:
        """Prepare fonts and words.

        Args:
            words: word list, any case.
            characters: the only characters ever produced.
            fonts: font files; None searches the system, and an empty result falls back to Pillow's own font.
            options: proportions and ranges.
            backgrounds: RGB pictures [H, W, 3] uint8 without text, to cut backgrounds from.

        Raises:
            FontError: fonts are given but none of them can draw Latin letters and digits.
        """
        self._options = options
        self._vocabulary = Vocabulary(
            words, characters=characters, mix=options.text, cases=options.cases, max_length=options.max_length
        )
        self._faces = _load_faces(fonts)
        self._bounds = np.cumsum(font_weights(self._faces))
        self._backgrounds = usable_pictures(backgrounds)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """A picture, [H, W, 3] uint8 RGB, and the text on it."""
        text = self._vocabulary.sample(rng)
        return self.render(text, rng), text

    def render(self, text: str, rng: np.random.Generator) -> np.ndarray:
        """A picture of a text: [H, W, 3] uint8 RGB.

        Raises:
            ValueError: the text is empty.
        """
        if not text:
            raise ValueError("cannot render an empty text: pass at least one character")
        options = self._options
        fate = rng.random()
        hard = fate < options.hard
        severity = 0.0 if fate > 1 - options.clean else float(rng.uniform(0.65, 1.0) if hard else rng.uniform(0.1, 0.6))
        low, high = options.height_px
        height = int(np.clip(options.typical_height_px * np.exp(rng.normal(0, 0.36)), low, high))
        scene = _Scene(self._face_for(text, rng), text, height, hard, options, rng)
        picture = scene.paint(self._surface(scene.canvas, scene.colours, rng))
        picture = _fit_height(picture, height)
        return degrade(picture, rng, severity=severity, options=options.degrade) if severity else picture

    def _face_for(self, text: str, rng: np.random.Generator) -> FontFace:
        marks = set(text).intersection(PUNCTUATION)
        has_lower = any(c.islower() for c in text)
        face = self._faces[0]
        for _ in range(40):
            face = self._faces[min(int(np.searchsorted(self._bounds, rng.random())), len(self._faces) - 1)]
            if not (has_lower and face.caps_only) and all(draws_mark(face.path, mark) for mark in marks):
                break
        return face

    def _surface(self, canvas: Canvas, colours: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Background of the scene in about the second colour: (H, W, 3) float32."""
        shape = (canvas.height, canvas.width)
        base = colours[1]
        if rng.random() >= self._options.textured:
            other = np.clip(base + rng.normal(0, 18, 3), 0, 255).astype(np.float32)
            return mix(base, other, gradient(shape, rng))
        if self._backgrounds and rng.random() < 0.5:
            picture = cut(self._backgrounds[int(rng.integers(len(self._backgrounds)))], shape, rng).astype(np.float32)
            return picture + (base - picture.mean(axis=(0, 1))) * np.float32(rng.uniform(0.5, 1))
        tiles = texture_tiles()
        share = cut(tiles[int(rng.integers(len(tiles)))], shape, rng).astype(np.float32) / 255
        # The texture runs from the base towards another colour, but seldom as far as the letters' colour.
        other = base + (random_colours(1, rng)[0] - base) * np.float32(rng.beta(1.5, 2.5))
        return mix(base, other, share)


class _Scene:
    """One word on its plane: masks, colours, and the layers in the order of painting."""

    def __init__(
        self, face: FontFace, text: str, height: int, hard: bool, options: SynthOptions, rng: np.random.Generator
    ) -> None:
        self._rng = rng
        self._options = options
        self._font = load_font(face.path, FONT_SIZE_PX)
        shown = text.capitalize() if face.caps_only and text.isupper() and rng.random() < 0.4 else text
        self._mask = self._shape_word(shown)
        self.canvas = self._choose_canvas(min(max(height * 1.25, 26), 64), hard)
        weak = rng.random() < options.weak_contrast
        distance = float(rng.uniform(30, 60) if weak else rng.uniform(65, 240))
        self.colours = np.stack(colour_pair(rng, distance=distance))  # (2, 3): letters, background

    def paint(self, surface: np.ndarray) -> np.ndarray:
        """Put the layers over the background: [H, W, 3] uint8."""
        options, rng = self._options, self._rng
        chance = rng.random(8)
        letters = self.canvas.project(self._mask)
        ink = self.colours[0]
        if chance[0] < options.plate:
            self._paint_plate(surface)
        if chance[1] < options.neighbours:
            surface = mix(surface, ink, self._neighbour_mask())
        if chance[2] < options.underline + options.border:
            surface = mix(surface, ink, self._line_mask(border=chance[2] < options.border))
        if chance[3] < options.shadow:
            surface = self._with_shadow(surface, letters)
        if chance[4] < options.extrude:
            surface = mix(surface, ink * np.float32(rng.uniform(0.2, 0.7)), self._depth(letters))
        if chance[5] < options.glow:
            surface = mix(surface, ink, _share(cv2.GaussianBlur(letters, (0, 0), self.canvas.height * 0.07)))
        elif chance[5] < options.glow + options.outline:
            surface = self._with_outline(surface, letters)
        fill = self._fill(letters, fancy=chance[6] < options.fancy_fill, lit=chance[7] < options.emboss)
        opacity = np.float32(1.0 if rng.random() < 0.8 else rng.uniform(0.7, 1.0))
        return np.clip(mix(surface, fill, _share(letters) * opacity), 0, 255).astype(np.uint8)

    def _shape_word(self, text: str) -> np.ndarray:
        options, rng = self._options, self._rng
        spacing = 0.0
        if rng.random() < options.spaced:
            spacing = self._font.size * float(rng.uniform(-0.05, 0.0) if rng.random() < 0.25 else rng.exponential(0.1))
        mask = draw_text(text, self._font, spacing_px=min(spacing, self._font.size * 0.6))
        if rng.random() < options.bold:
            thickness = 2 + int(rng.random() < 0.4)
            mask = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thickness, thickness)))
        kind = rng.random()
        long_enough = mask.shape[1] > 1.5 * mask.shape[0]
        if kind < options.arc and long_enough:
            sign = 1 if rng.random() < 0.7 else -1
            return bend(mask, sign * float(rng.uniform(0.3, 1.9)))
        if kind < options.arc + options.wave and long_enough:
            return wave(mask, mask.shape[0] * float(rng.uniform(0.05, 0.2)), rng.uniform(0.4, 1.3), rng.uniform(0, 6))
        return mask

    def _choose_canvas(self, work_height: float, hard: bool) -> Canvas:
        options, rng = self._options, self._rng
        height, width = self._mask.shape
        force = 2.0 if hard else 1.0
        chance = rng.random(4)
        turn = np.radians(options.max_rotation_deg) * force
        rotation = float(np.clip(rng.normal(0, turn / 2.5), -turn, turn)) if chance[0] < options.rotated else 0.0
        shear = float(rng.normal(0, 0.18)) if chance[1] < options.sheared else 0.0
        tilt = rng.uniform(-0.12, 0.12, 2) * force if chance[2] < options.tilted else np.zeros(2)
        stretch = float(np.exp(rng.normal(0, 0.24))) if chance[3] < options.stretched else 1.0
        # Rotation and padding add to the height; what matters is the size of the letters in the crop.
        scale_y = min(work_height / height, 1.8)
        scale_x = min(scale_y * stretch, MAX_WORK_WIDTH_PX / width)
        matrix = plane_matrix(
            (width, height), scale=(scale_x, scale_y), rotation=rotation, shear=shear, tilt=(tilt[0], 0.5 * tilt[1])
        )
        return place(self._mask, matrix, self._pads(height * scale_y))

    def _pads(self, letter_height: float) -> np.ndarray:
        options, rng = self._options, self._rng
        kind = rng.random()
        if kind < options.bitten:
            return rng.uniform(-0.08, 0.06, 4) * letter_height
        if kind < options.bitten + options.loose:
            return rng.uniform(0.05, 0.38, 4) * letter_height
        return rng.uniform(0.0, 0.13, 4) * letter_height

    def _paint_plate(self, surface: np.ndarray) -> None:
        corners = self._box(self._rng.uniform(0.05, 0.3))
        tint = self.colours[1] + self._rng.normal(0, 20, 3)
        surface[:] = random_colours(1, self._rng)[0] * 0.6 + surface * 0.4
        cv2.fillConvexPoly(surface, corners, tint.clip(0, 255).tolist(), cv2.LINE_AA)

    def _box(self, reach: float) -> np.ndarray:
        """Corners of a frame `reach` letter heights around the word, on the canvas: (4, 2) int32."""
        height, width = self._mask.shape
        pad = reach * height
        corners = np.array([(-pad, -pad), (width + pad, -pad), (width + pad, height + pad), (-pad, height + pad)])
        return self.canvas.points(corners).round().astype(np.int32)

    def _line_mask(self, *, border: bool) -> np.ndarray:
        lines = np.zeros((self.canvas.height, self.canvas.width), np.uint8)
        corners = self._box(float(self._rng.uniform(0.04, 0.25)))
        thickness = max(1, int(self.canvas.height * self._rng.uniform(0.02, 0.07)))
        cv2.polylines(lines, [corners if border else corners[2:4]], border, 255, thickness, cv2.LINE_AA)
        return _share(lines)

    def _neighbour_mask(self) -> np.ndarray:
        rng = self._rng
        word = FUNCTION_WORDS[int(rng.integers(len(FUNCTION_WORDS)))]
        other = draw_text(word.upper() if rng.random() < 0.5 else word.capitalize(), self._font)
        height, width = self._mask.shape
        gap = height * float(rng.uniform(0.1, 0.4))
        places = (
            (-other.shape[1] - gap, height - other.shape[0]),
            (width + gap, height - other.shape[0]),
            (float(rng.uniform(-0.3, 0.5)) * width, -other.shape[0] - gap * 0.5),
            (float(rng.uniform(-0.3, 0.5)) * width, height + gap * 0.5),
        )
        return _share(self.canvas.project(other, offset=places[int(rng.integers(4))]))

    def _with_shadow(self, surface: np.ndarray, letters: np.ndarray) -> np.ndarray:
        rng = self._rng
        reach = max(1.0, self.canvas.height * 0.07)
        moved = _shift(letters, *(rng.uniform(-reach, reach, 2) + np.sign(rng.normal(size=2))))
        if rng.random() < 0.6:
            moved = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.5, 0.5 * reach + 0.5)))
        tone = np.zeros(3, np.float32) if rng.random() < 0.75 else random_colours(1, rng)[0]
        return mix(surface, tone, _share(moved) * np.float32(rng.uniform(0.35, 0.9)))

    def _depth(self, letters: np.ndarray) -> np.ndarray:
        steps = int(self._rng.integers(2, max(3, self.canvas.height // 10)))
        way = 2 * self._rng.integers(0, 2, 2) - 1
        deep = letters
        for step in range(1, steps + 1):
            deep = np.maximum(deep, _shift(letters, *(way * step)))
        return _share(deep)

    def _with_outline(self, surface: np.ndarray, letters: np.ndarray) -> np.ndarray:
        width = 2 * int(self._rng.integers(1, max(2, self.canvas.height // 18) + 1)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        around = cv2.dilate(letters, kernel)
        candidates = random_colours(6, self._rng)
        # An outline of about the colour of the letters would only fatten them.
        far = np.abs(candidates - self.colours[0]).sum(axis=1).argmax()
        return mix(surface, candidates[far], _share(around))

    def _fill(self, letters: np.ndarray, *, fancy: bool, lit: bool) -> np.ndarray:
        fill = self.colours[0]
        if fancy:
            tiles = texture_tiles()
            tile = tiles[int(self._rng.integers(len(tiles)))]
            smooth = self._rng.random() < 0.6
            share = gradient(letters.shape, self._rng) if smooth else _share(cut(tile, letters.shape, self._rng))
            other = self.colours[0] + (random_colours(1, self._rng)[0] - self.colours[0]) * np.float32(0.5)
            fill = mix(self.colours[0], other, share)
        if lit:
            way = 2.0 * self._rng.integers(0, 2, 2) - 1.0
            relief = _shift(letters, *way).astype(np.float32) - _shift(letters, *-way)
            fill = plain(fill, letters.shape) + (relief * np.float32(0.4))[..., None]
        return fill


def _load_faces(fonts: Sequence[Path] | None) -> list[FontFace]:
    paths = find_fonts() if fonts is None else list(fonts)
    faces = [face for face in map(inspect_font, paths) if face is not None]
    if not faces and paths:
        raise FontError(
            f"none of the {len(paths)} fonts draws Latin letters and digits: pass other files or fonts=None"
        )
    if not faces:
        logger.warning("no usable font on this system, falling back to Pillow's own: install some TrueType fonts")
        faces = [face for face in (inspect_font(None),) if face is not None]
    if not faces:
        raise FontError("Pillow has no embedded font: install Pillow with FreeType, or some TrueType fonts")
    return faces


def _share(mask: np.ndarray) -> np.ndarray:
    return mask.astype(np.float32) * np.float32(1 / 255)


def _shift(mask: np.ndarray, dx: float, dy: float) -> np.ndarray:
    return cv2.warpAffine(mask, np.array([[1, 0, dx], [0, 1, dy]], np.float64), mask.shape[1::-1])


def _fit_height(picture: np.ndarray, height: int) -> np.ndarray:
    width = round(picture.shape[1] * height / picture.shape[0])
    width = max(6, min(width, int(height * MAX_ASPECT)))
    # The area filter costs eight times as much, and pays only for strong reduction.
    strong = picture.shape[0] > 1.8 * height
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if strong else cv2.INTER_LINEAR)


def draw_sheet(synthesizer: WordSynthesizer, *, seed: int, rows: int = 14, columns: int = 9) -> np.ndarray:
    """Contact sheet of samples with their labels below: [H, W, 3] uint8 RGB."""
    cell_height, cell_width, caption = 64, 170, 14
    sheet = np.full((rows * (cell_height + caption), columns * cell_width, 3), 40, np.uint8)
    for index in range(rows * columns):
        picture, text = synthesizer.sample(np.random.default_rng((seed, index)))
        scale = min((cell_width - 6) / picture.shape[1], (cell_height - 4) / picture.shape[0])
        size = (max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale)))
        y, x = (index // columns) * (cell_height + caption), (index % columns) * cell_width
        sheet[y : y + size[1], x : x + size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        corner = (x, y + cell_height + caption - 5)
        cv2.putText(sheet, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 160), 1, cv2.LINE_AA)
    return sheet


def main() -> None:
    """Write a contact sheet, to look at."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--sheet", type=Path, required=True, help="picture file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--words", type=Path, help="word list, one a line; default: a few function words")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    words = arguments.words.read_text().split() if arguments.words else FUNCTION_WORDS
    synthesizer = WordSynthesizer(words, characters=DEFAULT_CHARACTERS)
    cv2.imwrite(str(arguments.sheet), draw_sheet(synthesizer, seed=arguments.seed)[..., ::-1])


if __name__ == "__main__":
    main()
