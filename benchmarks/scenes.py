"""Scenes: photos of walls with painted words and signs, drawn here, so that each word and its place are known."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from robustscanner.photo import Quad
from robustscanner.preprocess import Image
from training.data.render.background import gradient, mix, plain, texture_tiles
from training.data.render.colours import colour_pair, random_colours
from training.data.render.degrade import DegradeOptions, degrade
from training.data.render.fonts import FontFace, find_fonts, inspect_font, load_font
from training.data.render.layout import MASK_MARGIN_PX, draw_text, plane_matrix

WIDTH_PX, HEIGHT_PX = 960, 720
COLUMNS, ROWS = 3, 4  # a word has a cell to itself, for RapidOCR joins words that stand close on a line
CELL_PX = np.array([WIDTH_PX / COLUMNS, HEIGHT_PX / ROWS])
FONT_SIZE_PX = 64
LETTER_HEIGHT_PX = (24, 60)
MARGIN = 0.25  # of the height of the ink: what belongs to a word, as people who mark words on photos do
SIGN = 0.6  # share of words on a sign, the others are on the wall
# Of a whole photo: what the renderer blurs and loses is meant for one word.
CAMERA = DegradeOptions(glare=0, scratch=0, low_resolution=0, blur_sigma=0.003, noise_level=12, jpeg_quality=(40, 92))

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scene:
    """A photo and the truth about it."""

    picture: Image  # [HEIGHT_PX, WIDTH_PX, 3] uint8 RGB
    words: tuple[str, ...]
    quads: tuple[Quad, ...]  # of each word: its ink and MARGIN around it


def draw_scenes(count: int, vocabulary: Sequence[str], seed: int) -> list[Scene]:
    """Scenes of 5 to 12 words, each word in a font of this system; equal for equal fonts, words and seed."""
    faces = [face for face in map(inspect_font, find_fonts() or [None]) if face]
    return [_draw(vocabulary, faces, np.random.default_rng((seed, number))) for number in range(count)]


def _draw(vocabulary: Sequence[str], faces: Sequence[FontFace], rng: np.random.Generator) -> Scene:
    words = rng.choice(vocabulary, int(rng.integers(5, COLUMNS * ROWS + 1)), replace=False).tolist()
    cells = rng.permutation(COLUMNS * ROWS)[: len(words)]
    picture, quads = _wall(rng), []
    for word, cell in zip(words, cells, strict=True):
        mask = draw_text(word, load_font(faces[rng.integers(len(faces))].path, FONT_SIZE_PX))
        matrix = _place(mask.shape, np.array([cell % COLUMNS, cell // COLUMNS]), rng)
        picture = _paint(picture, mask, matrix, rng)
        quads.append(_corners(mask.shape, MARGIN * mask.shape[0] - MASK_MARGIN_PX, matrix))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    return Scene(degrade(picture, rng, severity=rng.uniform(0.1, 0.5), options=CAMERA), tuple(words), tuple(quads))


def _wall(rng: np.random.Generator) -> Floats:
    """A few textured fields beside and over one another: (HEIGHT_PX, WIDTH_PX, 3) float32."""
    wall = _texture(rng)
    for _ in range(int(rng.integers(1, 4))):
        left, top = rng.uniform(0, 0.7, 2) * (WIDTH_PX, HEIGHT_PX)
        field = np.zeros((HEIGHT_PX, WIDTH_PX), np.float32)
        size = rng.uniform(0.3, 0.8, 2) * (WIDTH_PX, HEIGHT_PX)
        cv2.rectangle(field, (int(left), int(top)), (int(left + size[0]), int(top + size[1])), 1, -1)
        wall = mix(wall, _texture(rng), field)
    return wall


def _texture(rng: np.random.Generator) -> Floats:
    tiles = texture_tiles()
    base, other = random_colours(2, rng)
    zoom = float(rng.uniform(1, 2.5))
    tile = cv2.resize(tiles[int(rng.integers(len(tiles)))], None, fx=zoom, fy=zoom)
    missing = ((0, HEIGHT_PX - tile.shape[0]), (0, max(0, WIDTH_PX - tile.shape[1])))
    grain = np.pad(tile, missing, mode="symmetric")[:, :WIDTH_PX].astype(np.float32) / 255
    share = 0.7 * grain + 0.3 * gradient(grain.shape, rng)
    return mix(base, base + (other - base) * np.float32(rng.uniform(0.1, 0.5)), share)


def _place(shape: tuple[int, ...], cell: Floats, rng: np.random.Generator) -> Floats:
    """From pixels of the mask to those of the photo, somewhere in its cell: (3, 3)."""
    height, width = shape
    room = CELL_PX * (0.8, 0.5)
    scale = min(float(rng.uniform(*LETTER_HEIGHT_PX)) / height, room[0] / width)
    tilt = rng.uniform(-0.12, 0.12, 2)
    matrix = plane_matrix(
        (width, height),
        scale=(scale, scale),
        rotation=float(np.radians(np.clip(rng.normal(0, 5), -12, 12))),
        shear=float(rng.normal(0, 0.08)),
        tilt=(tilt[0], tilt[1]),
    )
    free = np.maximum(room - scale * np.array([width, height]), 0)
    centre = (cell + 0.5) * CELL_PX + rng.uniform(-0.5, 0.5, 2) * free
    return np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]]) @ matrix


def _paint(picture: Floats, mask: npt.NDArray[np.uint8], matrix: Floats, rng: np.random.Generator) -> Floats:
    """The picture with a word on it: (HEIGHT_PX, WIDTH_PX, 3) float32."""
    size = (WIDTH_PX, HEIGHT_PX)
    letters = cv2.warpPerspective(mask, matrix, size, flags=cv2.INTER_AREA).astype(np.float32) / 255
    ink, ground = colour_pair(rng, distance=float(rng.uniform(80, 220)))
    if rng.random() < SIGN:
        sign = np.zeros(letters.shape, np.float32)
        corners = _corners(mask.shape, float(rng.uniform(0.15, 0.6)) * mask.shape[0], matrix)
        cv2.fillConvexPoly(sign, corners.round().astype(np.int32), 1, cv2.LINE_AA)
        picture = mix(picture, plain(ground, letters.shape), sign)
    else:
        behind = cv2.mean(picture, (letters > 0.5).astype(np.uint8))[:3]
        apart = [float(np.abs(colour - behind).sum()) for colour in (ink, ground)]
        ink = ink if apart[0] > apart[1] else ground
    return mix(picture, plain(ink, letters.shape), letters)


def _corners(shape: tuple[int, ...], reach_px: float, matrix: Floats) -> Quad:
    """Of a box `reach_px` pixels of the mask around it, in pixels of the photo: (4, 2)."""
    left, top, right, bottom = -reach_px, -reach_px, shape[1] - 1 + reach_px, shape[0] - 1 + reach_px
    box = np.array([[(left, top), (right, top), (right, bottom), (left, bottom)]], np.float64)
    return np.asarray(cv2.perspectiveTransform(box, matrix)[0])
