"""Colours of letters and of what is behind them."""

from functools import lru_cache

import numpy as np

PALETTE_SIZE = 8192
_HUE_SHARES = (0.2, 0.1, 0.15, 0.12, 0.1, 0.04, 0.14, 0.12, 0.03)
SEED = 20


def colour_pair(rng: np.random.Generator, *, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Two RGB colours about `distance` apart (0..255), in random order: (3,) float32 each."""
    colours = random_colours(10, rng)
    brightness = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=2) / np.sqrt(3)
    # Brightness carries most of the legibility; colour alone (red on green) some.
    apart = 0.6 * np.abs(brightness[:, None] - brightness[None]) + 0.4 * apart
    first, second = np.unravel_index(np.argmin(np.abs(apart - distance)), apart.shape)
    if rng.random() < 0.5:
        first, second = second, first
    return colours[first], colours[second]


def random_colours(count: int, rng: np.random.Generator) -> np.ndarray:
    """Colours as on signs: (count, 3) float32."""
    return _palette()[rng.integers(PALETTE_SIZE, size=count)]


@lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    """Near white, near black, greys, dull tones and paints: (n, 3) float32."""
    rng = np.random.default_rng(SEED)
    values = rng.random((PALETTE_SIZE, 3))
    kind = rng.choice(5, PALETTE_SIZE, p=(0.2, 0.2, 0.15, 0.23, 0.22))
    low, reach = np.array([0.8, 0.0, 0.15, 0.15, 0.35])[kind], np.array([0.2, 0.25, 0.7, 0.75, 0.65])[kind]
    value = low + reach * values[:, 0]
    saturation = values[:, 1] * np.array([0.12, 0.4, 0.12, 0.55, 0.35])[kind] + 0.65 * (kind == 4)
    # Red to yellow, green and blue are the colours of signs; violet is rare.
    hue = rng.choice((0.0, 0.1, 0.6, 1.0, 2.0, 2.6, 3.4, 3.8, 5.1), PALETTE_SIZE, p=_HUE_SHARES)
    hue = (hue + rng.normal(0, 0.18, PALETTE_SIZE))[:, None] + np.array([5.0, 3.0, 1.0])  # HSV to RGB, closed form
    wave = np.clip(np.minimum(hue % 6, 4 - hue % 6), 0, 1)
    return (255 * value[:, None] * (1 - saturation[:, None] * wave)).astype(np.float32)
