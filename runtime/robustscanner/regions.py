"""Words within a picture: upright boxes, or quadrilaterals, as detectors give them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robustscanner.errors import ImageError
from robustscanner.preprocess import Image, cv2, fitted_width
from robustscanner.spec import InputSpec

# Of a word, as runtime/cuda/resize.cu reads it.
WORD = np.dtype([("matrix", "f8", 9), ("width", "i4"), ("height", "i4"), ("valid", "i4"), ("is_upright", "i4")])
Words = npt.NDArray[np.void]  # (N,) of WORD


def describe(regions: Sequence[Any], height: int, width: int, spec: InputSpec) -> Words:
    """What the GPU has to know of each word.

    Args:
        regions: boxes (x, y, width, height) in whole pixels, or four points (x, y) clockwise from where the word begins
            at its top: centres of the pixels at the corners.
        height: of the picture.
        width: of the picture.
        spec: of the model.

    Raises:
        ImageError: a region of another form, empty, or a box that leaves the picture.
    """
    words = np.zeros(len(regions), WORD)
    for number, (word, region) in enumerate(zip(words, regions, strict=True)):
        shape = np.shape(region)
        if shape == (4,):
            x, y, across, down = (int(value) for value in region)
            if min(x, y, across - 1, down - 1) < 0 or x + across > width or y + down > height:
                raise ImageError(f"region {number}: {tuple(region)} is empty, or not within {width} x {height} pixels")
            word["matrix"], word["is_upright"] = (1, 0, x, 0, 1, y, 0, 0, 1), 1
        elif shape == (4, 2):
            across, down = _sides(np.asarray(region, np.float64))
            word["matrix"] = _perspective(np.asarray(region, np.float64), across, down, number).ravel()
        else:
            raise ImageError(f"region {number} has shape {list(shape)}; expected (x, y, width, height) or four points")
        word["width"], word["height"], word["valid"] = across, down, fitted_width(down, across, spec)
    return words


def cut(picture: Image, regions: Sequence[Any], spec: InputSpec) -> list[Image]:
    """Each word as a picture of its own, uint8 RGB [height, width, 3], upright and without perspective.

    Args:
        picture: uint8 RGB [H, W, 3].
        regions: see `describe`.
        spec: of the model.

    Raises:
        ImageError: see `describe`.
    """
    crops: list[Any] = []
    for word in describe(regions, picture.shape[0], picture.shape[1], spec):
        matrix, size = word["matrix"].reshape(3, 3), (int(word["width"]), int(word["height"]))
        if word["is_upright"]:
            left, top = int(matrix[0, 2]), int(matrix[1, 2])
            crops.append(picture[top : top + size[1], left : left + size[0]])
        else:
            how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            crops.append(cv2.warpPerspective(picture, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE))
    return crops


def part(word: np.void, left: float, right: float) -> npt.NDArray[np.float64]:
    """The four points in the picture of a part of a word.

    Args:
        word: one of what `describe` gives.
        left: where the part begins in the picture that `cut` makes of the word, in pixels.
        right: where it ends.
    """
    top, bottom, right = 0, int(word["height"]) - 1, max(left, right - 1)  # centres of the pixels at the corners
    corners = np.array([(left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)], np.float64)
    points = corners @ word["matrix"].reshape(3, 3).T
    return np.asarray(points[:, :2] / points[:, 2:])


def _sides(points: npt.NDArray[np.float64]) -> tuple[int, int]:
    """Width and height in pixels of the rectangle that a quadrilateral becomes: its longer sides."""
    lengths = np.linalg.norm(points - np.roll(points, -1, 0), axis=1)  # top, right, bottom, left
    return max(2, round(max(lengths[0], lengths[2])) + 1), max(2, round(max(lengths[1], lengths[3])) + 1)


def _perspective(points: npt.NDArray[np.float64], across: int, down: int, number: int) -> npt.NDArray[np.float64]:
    """The 3 x 3 matrix from pixels of the rectangle to the picture's."""
    corners = np.array([(0, 0), (across - 1, 0), (across - 1, down - 1), (0, down - 1)], np.float64)
    rows = []
    for (u, v), (x, y) in zip(corners, points, strict=True):
        rows.append([u, v, 1, 0, 0, 0, -u * x, -v * x])
        rows.append([0, 0, 0, u, v, 1, -u * y, -v * y])
    try:
        solved = np.linalg.solve(np.array(rows), points.ravel())
    except np.linalg.LinAlgError:
        raise ImageError(f"region {number}: its four points span no area") from None
    return np.append(solved, 1).reshape(3, 3)
