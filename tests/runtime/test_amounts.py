"""Amounts and repeated digits as the shipped model reads them: a comma is no point, and no digit is lost or added."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from robustscanner import Recognizer

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FACES = ["DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono"]
SIZE_PX, MARGIN_PX = 40, 8
WORDS = 20

rng = random.Random(0)


@pytest.fixture(scope="module")
def shipped() -> Iterator[Recognizer]:
    with Recognizer() as recognizer:
        yield recognizer


def picture(text: str, face: str) -> np.ndarray:
    """Dark on light [H, W, 3]."""
    font = ImageFont.truetype(str(FONTS / f"{face}.ttf"), SIZE_PX)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("RGB", (round(right - left) + 2 * MARGIN_PX, round(bottom - top) + 2 * MARGIN_PX), (235,) * 3)
    ImageDraw.Draw(image).text((MARGIN_PX - left, MARGIN_PX - top), text, (20,) * 3, font)
    return np.asarray(image)


def digits(count: int) -> str:
    """Without a zero in front."""
    return str(rng.randrange(10 ** (count - 1), 10**count))


def with_run(length: int, run: int) -> str:
    """Digits of which only one repeats, so many times in a row."""
    text = digits(1)
    while len(text) <= length - run:
        text += rng.choice([digit for digit in "0123456789" if digit != text[-1]])
    at = rng.randrange(len(text))
    return text[:at] + text[at] * run + text[at + 1 :]


KINDS: dict[str, Callable[[], str]] = {
    "1,234": lambda: f"{digits(1)},{digits(3)}",
    "12,34": lambda: f"{digits(2)},{digits(2)}",
    "12.34": lambda: f"{digits(2)}.{digits(2)}",
    "6 digits": lambda: digits(6),
    "10 digits": lambda: digits(10),
    "16 digits": lambda: digits(16),
    "one digit, again and again": lambda: digits(1) * rng.randint(5, 10),
    "Hi,there": lambda: f"Hi,{rng.choice(['there', 'you', 'all'])}",
    **{f"{n} digits, {run} alike": lambda n=n, run=run: with_run(n, run) for n in (5, 8) for run in range(1, 5)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_is_read_as_it_is(shipped: Recognizer, kind: str) -> None:
    rng.seed(0)
    texts = [KINDS[kind]() for _ in range(WORDS)]
    pictures = [picture(text, FACES[index % len(FACES)]) for index, text in enumerate(texts)]
    assert [reading.text for reading in shipped.read_batch(pictures)] == texts
