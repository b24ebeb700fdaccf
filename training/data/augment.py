"""Real crops varied: another cut, another angle, other light, and what cameras do to them."""

from dataclasses import dataclass

import cv2
import numpy as np

from training.data.render.degrade import DegradeOptions, degrade


@dataclass(frozen=True)
class AugmentOptions:
    """Chances (0…1) and strengths of what is done to a crop."""

    warp: float = 0.75  # corners moved: shift, shear, rotation, perspective and aspect at once
    curve: float = 0.1  # set on an arc
    max_curve: float = 0.35  # rise of the arc, of the height
    cut: float = 0.12  # sides cut off, into the outer letters at most
    max_cut: float = 0.1  # of the height, on each side
    invert: float = 0.15  # negative
    channels: float = 0.2  # colour channels exchanged
    shrink: float = 0.25  # made as small as words far away are, and left so: the canvas enlarges both alike
    shrunk_height_px: tuple[int, int] = (11, 24)  # lowest and highest outcome
    degrade: float = 0.6  # light, blur, noise and compression
    severity: tuple[float, float] = (0.05, 0.45)  # of that
    # They went through a camera already.
    degrading: DegradeOptions = DegradeOptions(scratch=0.02, low_resolution=0.2)


def augment(image: np.ndarray, rng: np.random.Generator, *, options: AugmentOptions = AugmentOptions()) -> np.ndarray:
    """A variation of a crop, uint8 [H, W, 3] -> uint8 [H', W', 3], still showing the word."""
    chances = rng.random(7)
    if chances[0] < options.warp:
        image = _warp(image, rng)
    if chances[1] < options.curve and image.shape[1] > 1.5 * image.shape[0]:
        image = _curve(image, float(rng.uniform(-options.max_curve, options.max_curve)))
    if chances[2] < options.cut:
        image = _cut(image, rng.uniform(0, options.max_cut, 4) * image.shape[0])
    if chances[3] < options.invert:
        image = 255 - image
    if chances[4] < options.channels:
        image = np.ascontiguousarray(image[:, :, rng.permutation(3)])
    if chances[5] < options.shrink:
        image = _shrink(image, np.exp(rng.uniform(*np.log(options.shrunk_height_px))), rng)
    if chances[6] < options.degrade:
        image = degrade(image, rng, severity=float(rng.uniform(*options.severity)), options=options.degrading)
    return image


def _warp(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moves the four corners independently: cut, shift, shear, rotation, perspective and aspect at once."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    reach = np.array([min(0.06 * width, 0.2 * height), 0.1 * height], np.float32)
    # Mostly outwards: the surroundings are mirrored in, letters are seldom cut.
    outwards = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float32)
    source = corners + outwards * reach * rng.uniform(-0.35, 1, (4, 2)).astype(np.float32)
    stretch = float(np.exp(rng.normal(0, 0.12)))
    size = (max(4, round(width * stretch)), height)
    target = corners * np.array([size[0] / width, 1], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _curve(image: np.ndarray, rise: float) -> np.ndarray:
    """Bends the line to a parabola that rises (or sags) by a share of the height; the picture grows by as much."""
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    drop = np.float32(abs(rise) * height) * (x * x if rise > 0 else 1 - x * x)  # (W) pixels, 0…rise
    rows = np.arange(round(height * (1 + abs(rise))), dtype=np.float32)[:, None] - drop  # (H', W)
    columns = np.broadcast_to(np.arange(width, dtype=np.float32), rows.shape)
    return cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _cut(image: np.ndarray, sides_px: np.ndarray) -> np.ndarray:
    """Cuts off left, top, right and bottom."""
    left, top, right, bottom = (round(side) for side in sides_px.tolist())
    rest = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
    return rest if min(rest.shape[:2]) >= 4 else image


def _shrink(image: np.ndarray, height_px: float, rng: np.random.Generator) -> np.ndarray:
    """Scales a higher picture down; sampling without averaging aliases as cheap scalers do."""
    scale = height_px / image.shape[0]
    if scale >= 1:
        return image
    size = (max(4, round(image.shape[1] * scale)), round(height_px))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR)
