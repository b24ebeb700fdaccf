"""Draws a contact sheet: what was read, below each picture. Like `photo`, uses OpenCV by way of `preprocess`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robustscanner.errors import ImageError
from robustscanner.letters import Letter
from robustscanner.preprocess import Image, cv2, load_image
from robustscanner.recognizer import Reading

MAX_CELLS = 1000  # larger sheets open nowhere
LOW_SCORE = 0.5  # red below it

_PICTURE_PX = (64, 208)  # height and width that a picture is fitted into
_MARGIN_PX = 16
_TEXT_PX, _SMALL_PX = 34, 22  # height of a line
_CELL_PX = (_PICTURE_PX[0] + _TEXT_PX + 2 * _SMALL_PX + 2 * _MARGIN_PX, _PICTURE_PX[1] + _MARGIN_PX)
_ASPECT = 1.5  # width to height of a whole sheet

# RGB
_WHITE, _FRAME, _GREY, _BLACK, _RED = (255,) * 3, (210,) * 3, (120,) * 3, (24,) * 3, (200, 24, 24)
_GREEN = (16, 140, 60)


@dataclass(frozen=True)
class Cell:
    """One picture of the sheet."""

    path: str
    result: Reading | ImageError
    letters: Sequence[Letter] = ()  # shown where they stand


def draw_sheet(cells: Sequence[Cell]) -> Image:
    """A sheet of all cells in order, uint8 RGB [H, W, 3]."""
    columns = min(len(cells), math.ceil(math.sqrt(len(cells) * _ASPECT * _CELL_PX[0] / _CELL_PX[1])))
    rows = math.ceil(len(cells) / columns)
    size_px = (rows * _CELL_PX[0] + _MARGIN_PX, columns * _CELL_PX[1] + _MARGIN_PX, 3)
    sheet = np.full(size_px, _WHITE, np.uint8)
    for index, cell in enumerate(cells):
        top = _MARGIN_PX + index // columns * _CELL_PX[0]
        left = _MARGIN_PX + index % columns * _CELL_PX[1]
        _draw_cell(sheet[top : top + _CELL_PX[0], left : left + _PICTURE_PX[1]], cell)
    return sheet


def encode_sheet(sheet: Image, suffix: str) -> bytes:
    """A sheet as the bytes of a picture file; the suffix (.png, .jpg, .webp) says of which kind."""
    _, data = cv2.imencode(suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    return bytes(data)


def _draw_cell(cell_px: Image, cell: Cell) -> None:
    height = _PICTURE_PX[0]
    if isinstance(cell.result, Reading):
        scale = _place(load_image(cell.path), cell_px[:height])
        _underline(cell_px[:height], cell.letters, scale)
        low = cell.result.score < LOW_SCORE
        _write(cell_px[height:], cell.result.text or "(nothing)", _TEXT_PX, _RED if low else _BLACK)
        _write(cell_px[height + _TEXT_PX :], f"{cell.result.score:.4f}", _SMALL_PX, _RED if low else _GREY)
    else:
        _write(cell_px[height:], "not readable", _TEXT_PX, _RED)
    _write(cell_px[height + _TEXT_PX + _SMALL_PX :], _file_name(cell.path), _SMALL_PX, _GREY)


def _place(image: Image, space_px: Image) -> float:
    """Fits a picture into a space, at its lower left, in a thin frame that shows where a white one ends; its scale."""
    scale: float = min(space_px.shape[0] / image.shape[0], space_px.shape[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    space_px[-height:, :width] = cv2.resize(image, (width, height), interpolation=mode)
    bottom = space_px.shape[0] - 1
    cv2.rectangle(space_px, (0, bottom - height + 1), (width - 1, bottom), _FRAME)
    return scale


def _underline(picture_px: Image, letters: Sequence[Letter], scale: float) -> None:
    """A line below each letter, as wide as it is, with a dot at its centre; red below `LOW_SCORE`."""
    bottom = picture_px.shape[0] - 3
    for letter in letters:
        if letter.left is None or letter.centre is None or letter.right is None:
            continue
        colour = _RED if letter.probability < LOW_SCORE else _GREEN
        left, centre, right = (round(scale * px) for px in (letter.left, letter.centre, letter.right))
        cv2.line(picture_px, (left + 1, bottom), (max(left + 1, right - 2), bottom), colour, 2)
        cv2.circle(picture_px, (centre, bottom), 3, colour, cv2.FILLED, cv2.LINE_AA)


def _write(line_px: Image, text: str, height_px: int, colour: tuple[int, int, int]) -> None:
    """Writes on the first line of a cell, smaller if it would not fit; OpenCV's font is ASCII, the rest becomes "?"."""
    text = text.encode("ascii", "replace").decode()
    font, thickness = cv2.FONT_HERSHEY_SIMPLEX, 2 if height_px == _TEXT_PX else 1
    scale = height_px / 40  # a capital letter fills half the line
    width = cv2.getTextSize(text, font, scale, thickness)[0][0]
    scale *= min(1, line_px.shape[1] / max(width, 1))
    cv2.putText(line_px, text, (0, height_px * 3 // 4), font, scale, colour, thickness, cv2.LINE_AA)


def _file_name(path: str) -> str:
    name = path.replace("\\", "/").rsplit("/", 1)[-1]
    return name if len(name) <= 28 else f"{name[:12]}...{name[-13:]}"
