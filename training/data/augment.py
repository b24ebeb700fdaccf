"""Real crops varied: another cut, another angle, other light, and what cameras do to them."""

import cv2
import numpy as np

from training.data.degrade import DegradeOptions, degrade

_LIGHT = DegradeOptions(scratch=0.02, low_resolution=0.2)  # they went through a camera already


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A variation of a crop, uint8 [H, W, 3] -> uint8 [H', W', 3], still showing the whole word."""
    if rng.random() < 0.75:
        image = _warp(image, rng)
    if rng.random() < 0.15:
        image = 255 - image
    if rng.random() < 0.2:
        image = np.ascontiguousarray(image[:, :, rng.permutation(3)])
    if rng.random() < 0.6:
        image = degrade(image, rng, severity=float(rng.uniform(0.05, 0.45)), options=_LIGHT)
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
