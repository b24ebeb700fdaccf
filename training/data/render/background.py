"""Background: cheap procedural surfaces behind words."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

TILE_HEIGHT_PX, TILE_WIDTH_PX = 160, 512
TILE_COUNT = 96
TILE_SEED = 20


@lru_cache(maxsize=1)
def texture_tiles() -> tuple[np.ndarray, ...]:
    """Grey textures, each [160, 512] uint8 over the full range; the same in every process."""
    rng = np.random.default_rng(TILE_SEED)
    makers = (_cloud, _grain, _stripes, _bricks, _wood, _shapes, _shapes, _edges)
    return tuple(makers[i % len(makers)](rng) for i in range(TILE_COUNT))


def cut(tile: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A random piece of a tile, [h, w] or [h, w, 3], at a random zoom, resized to `shape` (height, width)."""
    height, width = shape
    room = min(tile.shape[0] / height, tile.shape[1] / width)  # the largest piece with the wanted aspect
    zoom = room * float(rng.uniform(0.25, 1.0))
    h, w = max(2, int(height * zoom)), max(2, int(width * zoom))
    y = int(rng.integers(max(1, tile.shape[0] - h)))
    x = int(rng.integers(max(1, tile.shape[1] - w)))
    piece = cv2.resize(tile[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.flip(piece, int(rng.integers(-1, 2))) if rng.random() < 0.7 else piece


def mix(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend two colours or pictures, (3,) or (H, W, 3), by a share (H, W) in 0..1: (H, W, 3) float32."""
    # Plane by plane: NumPy's broadcast over three channels takes ten times as long.
    if low.ndim == 1 and high.ndim == 1:
        return cv2.merge([share * np.float32(b - a) + np.float32(a) for a, b in zip(low, high, strict=True)])
    return cv2.blendLinear(plain(high, share.shape), plain(low, share.shape), share, 1 - share)


def plain(colour: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A colour (3,) spread over (H, W), or a picture as it is: (H, W, 3) float32."""
    if colour.ndim == 3:
        return colour.astype(np.float32, copy=False)
    return cv2.merge([np.full(shape, channel, np.float32) for channel in colour])


def gradient(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A smooth field, (H, W) float32 in 0..1."""
    corners = rng.random((2, 2)).astype(np.float32)
    if rng.random() < 0.5:  # straight down, as in buttons and posters
        corners[:, 1] = corners[:, 0]
    return cv2.resize(corners, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def usable_pictures(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """RGB pictures large enough to cut from."""
    return [p for p in pictures if p.ndim == 3 and p.shape[2] == 3 and min(p.shape[:2]) >= 8]


def _stretch(field: np.ndarray) -> np.ndarray:
    return cv2.normalize(field, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def _noise(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    small = rng.random((rows, columns)).astype(np.float32)
    return cv2.resize(small, (TILE_WIDTH_PX, TILE_HEIGHT_PX), interpolation=cv2.INTER_CUBIC)


def _cloud(rng: np.random.Generator) -> np.ndarray:
    octaves = [_noise(2 << k, 6 << k, rng) / float(1.6**k) for k in range(6)]
    return _stretch(np.sum(octaves, axis=0))


def _grain(rng: np.random.Generator) -> np.ndarray:
    return _stretch(_noise(80, 256, rng) + _noise(160, 512, rng) + 2 * _noise(4, 10, rng))


def _stripes(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[:TILE_HEIGHT_PX, :TILE_WIDTH_PX].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 60)
    phase = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
    return _stretch(np.tanh(np.sin(phase) * rng.uniform(0.5, 6)) + 0.4 * _noise(10, 30, rng))


def _bricks(rng: np.random.Generator) -> np.ndarray:
    height, width = int(rng.integers(10, 36)), int(rng.integers(24, 80))
    wall = np.zeros((TILE_HEIGHT_PX, TILE_WIDTH_PX), np.float32)
    for row, y in enumerate(range(0, TILE_HEIGHT_PX, height)):
        for x in range(-(row % 2) * width // 2, TILE_WIDTH_PX, width):
            cv2.rectangle(wall, (x + 1, y + 1), (x + width - 2, y + height - 2), float(rng.uniform(0.5, 1)), -1)
    return _stretch(cv2.GaussianBlur(wall, (0, 0), 0.8) + 0.3 * _noise(80, 256, rng))


def _wood(rng: np.random.Generator) -> np.ndarray:
    warp = _noise(4, 6, rng) * 6 + _noise(40, 12, rng) * 2
    y = np.arange(TILE_HEIGHT_PX, dtype=np.float32)[:, None] / float(rng.uniform(4, 14))
    return _stretch(np.sin(y + warp) + 0.5 * _noise(160, 24, rng))


def _shapes(rng: np.random.Generator) -> np.ndarray:
    scene = np.full((TILE_HEIGHT_PX, TILE_WIDTH_PX), float(rng.random()), np.float32)
    for _ in range(int(rng.integers(6, 40))):
        centre = rng.uniform((0, 0), (TILE_WIDTH_PX, TILE_HEIGHT_PX))
        corners = centre + rng.normal(0, rng.uniform(10, 80), (int(rng.integers(3, 6)), 2))
        cv2.fillPoly(scene, [corners.astype(np.int32)], float(rng.random()), cv2.LINE_AA)
    return _stretch(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.6, 9))) + 0.05 * _noise(80, 256, rng))


def _edges(rng: np.random.Generator) -> np.ndarray:
    scene = _noise(2, 3, rng)
    for _ in range(int(rng.integers(2, 12))):
        start, end = (rng.uniform((0, 0), (TILE_WIDTH_PX, TILE_HEIGHT_PX)).astype(int).tolist() for _ in range(2))
        cv2.line(scene, start, end, float(rng.uniform(-0.5, 1.5)), int(rng.integers(1, 9)), cv2.LINE_AA)
    return _stretch(cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.5, 3))))
