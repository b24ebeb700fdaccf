"""Degradation: what a camera, a screen grab and a web server do to a word crop."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class DegradeOptions:
    """Chances (at severity 0.5, growing with severity) and strengths (at severity 1)."""

    uneven_light: float = 0.35  # chance of a lighting gradient
    glare: float = 0.05  # chance of a bright spot
    scratch: float = 0.05  # chance of thin lines across
    tone: float = 0.5  # chance of a contrast, brightness and gamma change
    blur: float = 0.5  # chance of some blur
    blur_sigma: float = 0.055  # strongest blur, of the image height
    low_resolution: float = 0.35  # chance of losing detail by down- and upsampling
    min_height_px: float = 11.0  # lowest height that low resolution goes down to
    noise: float = 0.28  # chance of sensor noise
    noise_level: float = 20.0  # strongest noise, grey levels
    jpeg: float = 0.5  # chance of JPEG artefacts
    jpeg_quality: tuple[int, int] = (18, 92)  # worst and best quality


def degrade(image: np.ndarray, rng: np.random.Generator, *, severity: float, options: DegradeOptions) -> np.ndarray:
    """Spoil a picture.

    Args:
        image: [H, W, 3] uint8.
        rng: source of all choices.
        severity: 0 (a screen grab) .. 1 (hardly readable).
        options: chances and strengths.

    Returns:
        [H, W, 3] uint8.
    """
    chances = rng.random(8)
    scale = 2.0 * severity
    light = image.astype(np.float32)
    if chances[0] < options.uneven_light * scale:
        light *= _light_field(image.shape, severity, rng)
    if chances[1] < options.glare * scale:
        _add_glare(light, rng)
    if chances[2] < options.scratch * scale:
        _add_scratches(light, rng)
    if chances[3] < options.tone * scale:
        light = _change_tone(light, severity, rng)
    if chances[4] < options.blur * scale:
        light = _blur(light, severity * options.blur_sigma, rng)
    if chances[5] < options.low_resolution * scale:
        light = _lose_detail(light, severity, options.min_height_px, rng)
    if chances[6] < options.noise * scale:
        light += _noise(light, severity * options.noise_level, rng)
    spoiled = np.clip(light, 0, 255).astype(np.uint8)
    if chances[7] < options.jpeg * min(scale, 1.5):
        spoiled = _compress(spoiled, severity, options.jpeg_quality, rng)
    return spoiled


def _light_field(shape: tuple[int, ...], severity: float, rng: np.random.Generator) -> np.ndarray:
    low = 1.0 - 0.75 * severity
    field = rng.uniform(low, 1.15, (2, 3)).astype(np.float32)
    return cv2.resize(field, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)[..., None]  # (H, W, 1)


def _add_glare(light: np.ndarray, rng: np.random.Generator) -> None:
    height, width = light.shape[:2]
    spot = np.zeros((height, width), np.float32)
    centre = (int(rng.integers(width)), int(rng.integers(height)))
    axes = (int(height * rng.uniform(0.15, 0.9)) + 1, int(height * rng.uniform(0.1, 0.5)) + 1)
    cv2.ellipse(spot, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(40, 140)), -1)
    light += cv2.GaussianBlur(spot, (0, 0), height * 0.15 + 0.5)[..., None]


def _add_scratches(light: np.ndarray, rng: np.random.Generator) -> None:
    height, width = light.shape[:2]
    for _ in range(int(rng.integers(1, 4))):
        x0, x1 = (int(v) for v in rng.integers(-width // 4, width + width // 4, 2))
        y0, y1 = (int(v) for v in rng.integers(-height // 4, height + height // 4, 2))
        colour = tuple(float(v) for v in rng.uniform(0, 255, 3))
        cv2.line(light, (x0, y0), (x1, y1), colour, 1 + int(height > 40 and rng.random() < 0.3), cv2.LINE_AA)


def _change_tone(light: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    contrast = rng.uniform(1.0 - 0.75 * severity, 1.2)
    brightness = rng.normal(0, 45 * severity)
    gamma = float(np.exp(rng.normal(0, 0.5 * severity)))
    middle = float(light.mean())
    # A look-up table: 256 powers instead of one for each pixel.
    levels = (np.arange(256, dtype=np.float32) - middle) * contrast + middle + brightness
    table = 255 * (np.clip(levels, 0, 255) / 255) ** gamma
    return cv2.LUT(np.clip(light, 0, 255).astype(np.uint8), table.astype(np.float32))


def _blur(light: np.ndarray, max_sigma: float, rng: np.random.Generator) -> np.ndarray:
    sigma = max(0.35, light.shape[0] * max_sigma * float(rng.uniform(0.2, 1)))
    kind = rng.random()
    if kind < 0.55:
        return cv2.GaussianBlur(light, (0, 0), sigma)
    size = 2 * int(np.ceil(sigma * 1.6)) + 1
    if kind < 0.8:
        kernel = _motion_kernel(size, float(rng.uniform(0, np.pi)))
    else:  # a lens out of focus spreads a point to a disc
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(np.float32)
    return cv2.filter2D(light, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _motion_kernel(size: int, angle: float) -> np.ndarray:
    kernel = np.zeros((size, size), np.float32)
    middle = size // 2
    step = np.array([np.cos(angle), np.sin(angle)]) * middle
    start, end = (tuple(round(middle + sign * v) for v in step) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1)
    return kernel


def _lose_detail(light: np.ndarray, severity: float, min_height_px: float, rng: np.random.Generator) -> np.ndarray:
    height, width = light.shape[:2]
    factor = rng.uniform(max(min_height_px / height, 1 - 0.85 * severity), 1.0) if height > min_height_px else 1.0
    size = (max(4, round(width * factor)), max(4, round(height * factor)))
    down = cv2.INTER_AREA if rng.random() < 0.6 else cv2.INTER_LINEAR
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST)[int(np.searchsorted((0.5, 0.93), rng.random()))]
    return cv2.resize(cv2.resize(light, size, interpolation=down), (width, height), interpolation=up)


def _noise(light: np.ndarray, max_level: float, rng: np.random.Generator) -> np.ndarray:
    level = float(rng.uniform(0.15, 1)) * max_level
    grey = rng.random() < 0.4
    noise = rng.standard_normal(light.shape[:2] + ((1,) if grey else (3,)), np.float32) * np.float32(level)
    kind = rng.random()
    if kind < 0.35:  # ISO noise is blotchy: cameras smooth it
        noise = cv2.GaussianBlur(noise, (0, 0), 0.8).reshape(noise.shape) * np.float32(2)
    elif kind < 0.55:  # speckle grows with the light
        noise = noise * light * np.float32(1 / 128)
    return noise


def _compress(image: np.ndarray, severity: float, quality: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    worst, best = quality
    low = best - severity * (best - worst)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(low, best))])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)
