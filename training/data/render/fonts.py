"""Fonts: which files of the system can draw Latin words, and FreeType objects for them."""

import logging
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

logger = logging.getLogger(__name__)

SYSTEM_FONT_FOLDERS = (
    Path("/usr/share/fonts"),
    Path("/usr/local/share/fonts"),
    Path.home() / ".fonts",
    Path.home() / ".local/share/fonts",
    Path("/Library/Fonts"),
    Path("C:/Windows/Fonts"),
)
FONT_SUFFIXES = frozenset({".ttf", ".otf", ".ttc"})
# Pictures, bar codes and scripts whose Latin is a stand-in; most others are caught by their shapes.
UNWANTED_NAMES = ("emoji", "barcode", "braille", "dingbat", "blank", "lastresort", "symbol", "music", "math")

PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]_`~"
MISSING_CHARACTER = "\uffff"  # a noncharacter: every font draws its .notdef glyph for it
# Letters whose two cases differ in shape; C, O, S, ... look alike in every font.
CASED_LETTERS = "abdefghnqrt"
# Looked at in every font; the other letters are taken to be like them, punctuation is looked at when first needed.
INSPECTED = CASED_LETTERS.upper() + string.digits + CASED_LETTERS
CAPITALS_AND_DIGITS_COUNT = len(CASED_LETTERS) + len(string.digits)

INSPECT_SIZE_PX = 30
CELL_PX = 64
SHAPE_PX = 12
SAME_SHAPE = 0.86  # correlation above which a lower-case letter is a (scaled) capital
# Chance is 0.03; Greek drawn in place of ASCII reaches 0.47, plain fonts 0.6 and more.
MIN_RECOGNISED = 0.5  # share of letters and digits that are nearest to their own reference shape
HELD_OUT_EVERY = 25  # font families
CACHED_FONTS = 400  # each holds a file descriptor, so far below the usual limit of 1024


class FontError(ValueError):
    """No font can draw what was asked for."""


@dataclass(frozen=True)
class FontFace:
    """What is known of one font file without holding it open; cheap to pickle."""

    path: Path | None  # None is the font embedded in Pillow
    family: str  # family name written in the font
    caps_only: bool  # lower-case letters are drawn as (small) capitals
    resemblance: float  # 0..1, how close its letters are to a plain sans-serif


@lru_cache(maxsize=CACHED_FONTS)
def load_font(path: Path | None, size_px: int) -> ImageFont.FreeTypeFont:
    """Open a font file, or the embedded font for None; kept per process, never pickled."""
    if path is None:
        return ImageFont.load_default(size=size_px)
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


@cache
def inspect_font(path: Path | None) -> FontFace | None:
    """Look at the glyphs of a font.

    Returns:
        The face, or None when the file is broken, lacks letters or digits, or draws other things in their place.
    """
    try:
        font = _open_for_inspection(path)
        if not _drawn_characters(_draw_glyphs(font, "Ag5" + MISSING_CHARACTER)).issuperset("Ag5"):
            return None  # the many fonts of other scripts leave early
        glyphs = _draw_glyphs(font, INSPECTED + MISSING_CHARACTER)
        family = font.getname()[0] or "unnamed"
    except (OSError, ValueError, UnicodeError, MemoryError) as error:
        logger.debug("font %s left out: %s", path, error)
        return None
    if not _drawn_characters(glyphs).issuperset(INSPECTED):
        return None
    shapes = _shapes(glyphs)
    caps_only = _has_only_capitals(shapes)
    recognised, resemblance = _compare_with_reference(shapes, caps_only)
    if recognised < MIN_RECOGNISED or not _are_distinct(glyphs):
        return None
    return FontFace(path, family, caps_only, resemblance)


@cache
def draws_mark(path: Path | None, mark: str) -> bool:
    """Whether a usable font has a glyph of its own for a punctuation mark."""
    return mark in _drawn_characters(_draw_glyphs(load_font(path, INSPECT_SIZE_PX), mark + MISSING_CHARACTER))


def find_fonts(folders: Sequence[Path] = SYSTEM_FONT_FOLDERS) -> list[Path]:
    """List the usable font files below some folders, in a stable order."""
    paths = {p for folder in folders for p in _walk(Path(folder)) if p.suffix.lower() in FONT_SUFFIXES}
    wanted = sorted(p for p in paths if not any(word in p.name.lower() for word in UNWANTED_NAMES))
    usable = [path for path in wanted if inspect_font(path) is not None]
    logger.info("%d of %d font files are usable", len(usable), len(paths))
    return usable


def split_fonts(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Fonts to train with, and those that only ever measure: every 25th family, whatever else is installed."""
    kept: dict[bool, list[Path]] = {True: [], False: []}
    for path in paths:
        face = inspect_font(path)
        family = face.family if face else path.stem
        kept[zlib.crc32(family.encode()) % HELD_OUT_EVERY == 0].append(path)
    return kept[False], kept[True]


def font_weights(faces: Sequence[FontFace]) -> np.ndarray:
    """Probability of each face.

    A family of n files gets n**0.4 shares instead of n, and plain faces get more than fanciful ones: collections
    on a Linux system are mostly decorative, signs and shop fronts are mostly not.

    Returns:
        (F,) float64, sum 1.
    """
    sizes: dict[str, int] = {}
    for face in faces:
        sizes[face.family] = sizes.get(face.family, 0) + 1
    weights = np.array([sizes[f.family] ** -0.6 * max(f.resemblance, 0.1) ** 2 for f in faces])
    return weights / weights.sum()


def _walk(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []


def _open_for_inspection(path: Path | None) -> ImageFont.FreeTypeFont:
    # Past the cache, so that looking at 1000 files leaves none of them open.
    return load_font.__wrapped__(path, INSPECT_SIZE_PX)


def _draw_glyphs(font: ImageFont.FreeTypeFont, characters: str) -> dict[str, np.ndarray]:
    strip = Image.new("L", (CELL_PX * len(characters), CELL_PX))
    draw = ImageDraw.Draw(strip)
    for index, character in enumerate(characters):
        draw.text((CELL_PX * (index + 0.5), CELL_PX * 0.68), character, fill=255, font=font, anchor="ms")
    pixels = np.asarray(strip).reshape(CELL_PX, len(characters), CELL_PX)  # (H, n, W)
    return {character: pixels[:, index] for index, character in enumerate(characters)}


def _drawn_characters(glyphs: dict[str, np.ndarray]) -> frozenset[str]:
    missing = glyphs[MISSING_CHARACTER]
    return frozenset(c for c, g in glyphs.items() if g.max() > 64 and not np.array_equal(g, missing)) - {
        MISSING_CHARACTER
    }


def _shapes(glyphs: dict[str, np.ndarray]) -> np.ndarray:
    """Letters and digits, each stretched to one small square, centred and of unit length: (32, 144) float32."""
    rows = []
    for character in INSPECTED:
        glyph = np.ascontiguousarray(glyphs[character])
        x, y, w, h = cv2.boundingRect(glyph)
        rows.append(cv2.resize(glyph[y : y + h, x : x + w], (SHAPE_PX, SHAPE_PX), interpolation=cv2.INTER_AREA))
    shapes = np.stack(rows).reshape(len(rows), -1).astype(np.float32)
    shapes -= shapes.mean(axis=1, keepdims=True)
    return shapes / np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-3)


def _has_only_capitals(shapes: np.ndarray) -> bool:
    lower = [INSPECTED.index(c) for c in CASED_LETTERS]
    upper = [INSPECTED.index(c.upper()) for c in CASED_LETTERS]
    same = np.sum(shapes[lower] * shapes[upper], axis=1) > SAME_SHAPE
    return bool(same.mean() > 0.6)


def _are_distinct(glyphs: dict[str, np.ndarray]) -> bool:
    # Honest fonts may draw O as 0 or l as I, neither of which is looked at together.
    kinds = (CASED_LETTERS.upper(), string.digits, CASED_LETTERS)
    return all(len({glyphs[c].tobytes() for c in kind}) == len(kind) for kind in kinds)


@lru_cache(maxsize=1)
def _reference_shapes() -> np.ndarray:
    """Pillow's own sans-serif, upright and slanted, plain and bold: (4, 32, 144) float32."""
    glyphs = _draw_glyphs(_open_for_inspection(None), INSPECTED)
    slant = np.array([[1, -0.22, 0.22 * CELL_PX * 0.68], [0, 1, 0]])
    kernel = np.ones((3, 3), np.uint8)
    styles = []
    for move in (np.eye(2, 3), slant):
        moved = {c: cv2.warpAffine(np.ascontiguousarray(g), move, (CELL_PX, CELL_PX)) for c, g in glyphs.items()}
        styles += [_shapes(moved), _shapes({c: cv2.dilate(g, kernel) for c, g in moved.items()})]
    return np.stack(styles)


def _compare_with_reference(shapes: np.ndarray, caps_only: bool) -> tuple[float, float]:
    """Share of characters nearest to their own reference, and mean correlation with it; both 0..1.

    The style of the reference that fits the font best counts.
    """
    count = CAPITALS_AND_DIGITS_COUNT if caps_only else len(INSPECTED)
    results = []
    for reference in _reference_shapes()[:, :count]:
        own = np.sum(shapes[:count] * reference, axis=1)  # (count,)
        # Without what all letters have in common, which letter it is shows better.
        contrast = shapes[:count] @ (reference - reference.mean(axis=0)).T  # (count, count)
        recognised = float(np.mean(np.diagonal(contrast) >= contrast.max(axis=1)))
        results.append((recognised, float(np.clip(own.mean(), 0, 1))))
    return max(results)
