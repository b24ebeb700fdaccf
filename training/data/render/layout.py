"""Layout: from letters to coverage masks, and the plane that they are seen on."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

MASK_MARGIN_PX = 2
MAX_MASK_WIDTH_PX = 3000


@dataclass(frozen=True)
class Canvas:
    """The picture's place on the plane of the text."""

    matrix: np.ndarray  # (3, 3) float64, from mask pixels to canvas pixels
    width: int  # pixels
    height: int  # pixels

    def project(self, mask: np.ndarray, *, offset: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
        """Draw a mask that lies `offset` (x, y) mask pixels from the word: (H, W) uint8."""
        move = np.array([[1, 0, offset[0]], [0, 1, offset[1]], [0, 0, 1]], np.float64)
        return cv2.warpPerspective(mask, self.matrix @ move, (self.width, self.height), flags=cv2.INTER_LINEAR)

    def points(self, corners: np.ndarray) -> np.ndarray:
        """Where mask points (N, 2) fall: (N, 2) float64 canvas pixels."""
        return _apply(self.matrix, corners)


def draw_text(text: str, font: ImageFont.FreeTypeFont, *, spacing_px: float = 0.0) -> np.ndarray:
    """Coverage of a line of text, cut to its ink plus a margin: [h, w] uint8.

    A spacing of 0 draws the string at once, with the font's kerning and joined script.
    """
    room = 1.4
    ink = _draw_line(text, font, spacing_px, room)
    if ink[:, -1].any():  # wider than nearly all fonts; measuring first would cost as much as drawing
        ink = _draw_line(text, font, spacing_px, 3 * room)
    return _trim(ink)


def _draw_line(text: str, font: ImageFont.FreeTypeFont, spacing_px: float, room: float) -> np.ndarray:
    size = font.size
    width = int((room * size + max(0.0, spacing_px)) * (len(text) + 1))
    image = Image.new("L", (min(width, MAX_MASK_WIDTH_PX), int(2.6 * size)))
    draw = ImageDraw.Draw(image)
    x, y = size / 2, 1.6 * size
    for piece in (text,) if spacing_px == 0 else text:
        draw.text((x, y), piece, fill=255, font=font, anchor="ls")
        x += (font.getlength(piece) + spacing_px) if spacing_px else 0
    return np.asarray(image)


def bend(mask: np.ndarray, angle: float) -> np.ndarray:
    """Set a line of text on an arc of `angle` radians; positive is a rainbow, negative a smile: [h', w'] uint8."""
    height, width = mask.shape
    radius = width / abs(angle)
    half = min(abs(angle) / 2, np.pi * 0.6)
    outer = radius + height / 2
    out_width = int(2 * outer * np.sin(min(half, np.pi / 2))) + 4
    out_height = int(outer - (radius - height / 2) * np.cos(half)) + 4
    x = np.arange(out_width, dtype=np.float32)[None] - out_width / 2
    y = np.float32(outer + 2) - np.arange(out_height, dtype=np.float32)[:, None]
    source_x = np.arctan2(x, y) * np.float32(radius) + np.float32(width / 2)
    source_y = np.float32(outer) - np.sqrt(x * x + y * y)
    if angle < 0:  # the same arc upside down, so that the letters stay upright
        source_x, source_y = source_x[::-1], height - 1 - source_y[::-1]
    return _trim(cv2.remap(mask, np.ascontiguousarray(source_x), np.ascontiguousarray(source_y), cv2.INTER_LINEAR))


def wave(mask: np.ndarray, amplitude_px: float, periods: float, phase: float) -> np.ndarray:
    """Shift the columns of a mask up and down along a sine: [h', w] uint8."""
    height, width = mask.shape
    extra = int(np.ceil(abs(amplitude_px)))
    shift = amplitude_px * np.sin(np.linspace(0, 2 * np.pi * periods, width) + phase)
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height + 2 * extra, dtype=np.float32))
    return _trim(cv2.remap(mask, x, y - extra + shift.astype(np.float32)[None], cv2.INTER_LINEAR))


def plane_matrix(
    size: tuple[int, int], *, scale: tuple[float, float], rotation: float, shear: float, tilt: tuple[float, float]
) -> np.ndarray:
    """Matrix of a plane seen at an angle.

    Args:
        size: (width, height) of the mask, pixels.
        scale: stretch along x and y.
        rotation: radians.
        shear: horizontal shift per unit of height.
        tilt: relative change of size from the middle to the edge, along x and y (perspective).

    Returns:
        (3, 3) float64 about the mask's centre.
    """
    width, height = size
    to_centre = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    cos, sin = np.cos(rotation), np.sin(rotation)
    # Rotation @ shear @ scale, multiplied out.
    turned = [[cos * scale[0], (cos * shear - sin) * scale[1], 0], [sin * scale[0], (sin * shear + cos) * scale[1], 0]]
    affine = np.array([*turned, [0, 0, 1]]) @ to_centre
    half_width, half_height = width * scale[0] / 2, height * scale[1] / 2
    reach = max(half_width, half_height)
    return np.array([[1, 0, 0], [0, 1, 0], [tilt[0] / reach, tilt[1] / reach, 1]]) @ affine


def place(mask: np.ndarray, matrix: np.ndarray, pads: np.ndarray) -> Canvas:
    """Canvas around a projected mask; `pads` (left, top, right, bottom) in pixels may be negative."""
    height, width = mask.shape
    margin = MASK_MARGIN_PX
    corners = np.array([(margin, margin), (width - margin, margin), (width - margin, height - margin)], np.float64)
    corners = np.vstack([corners, (margin, height - margin)])
    seen = _apply(matrix, corners)
    low, high = seen.min(axis=0) - pads[:2], seen.max(axis=0) + pads[2:]
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    out_width, out_height = (max(6, round(v)) for v in high - low)
    return Canvas(shift @ matrix, out_width, out_height)


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ matrix.T  # (N, 3)
    return homogeneous[:, :2] / homogeneous[:, 2:]


def _trim(mask: np.ndarray) -> np.ndarray:
    x, y, width, height = cv2.boundingRect(mask)
    if width == 0 or height == 0:
        return np.zeros((8, 8), np.uint8)
    ink = mask[y : y + height, x : x + width]
    return cv2.copyMakeBorder(ink, *(MASK_MARGIN_PX,) * 4, cv2.BORDER_CONSTANT)
