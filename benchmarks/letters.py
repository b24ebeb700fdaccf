"""How well letters are placed: words drawn where the truth is known, and the time that letters take."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import numpy as np
import numpy.typing as npt

from benchmarks.arguments import engine_parser, session_options
from robustscanner.program import exit_status, whole_number

if TYPE_CHECKING:
    from robustscanner.recognizer import Recognizer

EPILOG = """examples:
  python benchmarks/letters.py build/small-int8.engine build/edge-int8.engine -o benchmarks/results/letters.json

Straight words of 2 to 12 signs in the fonts that come with Matplotlib, blurred and noisy. A letter's true place is
its advance in the font. Errors are shares of that word's mean letter.
"""
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
)
SEED = 23

# Picture, text, and where its letters begin, and the last one ends.
Word = tuple[npt.NDArray[np.uint8], str, npt.NDArray[np.float64]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument("--count", type=whole_number, default=500, metavar="N", help="words (default: 500)")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Every engine on the same words."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from robustscanner.recognizer import Recognizer

    result = begin_result("letters", __doc__, arguments.output) | {"count": arguments.count, "engines": {}}
    words = draw_words(arguments.count)
    for path in arguments.engines:
        with Recognizer(path, options=session_options(arguments)) as recognizer:
            report_progress(f"placing letters with {path.name}")
            row = place(recognizer, words)
        print(path.name, row)
        result["engines"][path.name] = engine_facts(path) | row
    write_result(arguments.output, result)


def draw_words(count: int) -> list[Word]:
    """Words whose letters stand where they were drawn."""
    import matplotlib

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = [folder / f"{name}.ttf" for name in FONTS]
    rng = np.random.default_rng(SEED)
    return [_draw(fonts[rng.integers(len(fonts))], rng) for _ in range(count)]


def _draw(font_file: Path, rng: np.random.Generator) -> Word:
    from PIL import Image, ImageDraw, ImageFilter, ImageFont

    text = "".join(rng.choice(list(SIGNS), rng.integers(2, 13)))
    font, margin = ImageFont.truetype(str(font_file), int(rng.integers(20, 64))), int(rng.integers(2, 16))
    edges = np.array([margin + font.getlength(text[:end]) for end in range(len(text) + 1)])
    dark, light = rng.integers(0, 90, 3), rng.integers(165, 256, 3)
    ink, ground = (dark, light) if rng.random() < 0.7 else (light, dark)
    image = Image.new("RGB", (round(edges[-1]) + margin, sum(font.getmetrics()) + 4), tuple(ground.tolist()))
    ImageDraw.Draw(image).text((margin, 2), text, tuple(ink.tolist()), font)
    blurred = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.2))), np.float64)
    noisy = blurred + rng.normal(0, rng.uniform(0, 10), blurred.shape)
    return noisy.clip(0, 255).astype(np.uint8), text, edges


def place(recognizer: "Recognizer", words: Sequence[Word]) -> dict[str, Any]:
    """Errors of centres and edges over all words, as shares of a letter, and both times in turn."""
    centres: list[npt.NDArray[np.float64]] = []
    edges: list[npt.NDArray[np.float64]] = []
    seconds: dict[str, list[float]] = {"read": [], "letters": []}
    for picture, text, truth in words:
        started = time.perf_counter()
        recognizer.read(picture)
        between = time.perf_counter()
        letters = recognizer.letters(picture, text)
        seconds["letters"].append(time.perf_counter() - between)
        seconds["read"].append(between - started)
        size = np.diff(truth).mean()
        found = np.array([[letter.left, letter.centre, letter.right] for letter in letters], np.float64)
        centres.append(np.abs(found[:, 1] - (truth[1:] + truth[:-1]) / 2) / size)
        edges.append(np.abs(found[1:, 0] - truth[1:-1]) / size)
    return {
        "letters": sum(map(len, centres)),
        "centre": _summary(np.concatenate(centres)),
        "edge": _summary(np.concatenate(edges)),
        "median_ms": {name: round(1e3 * median(times), 2) for name, times in seconds.items()},
    }


def _summary(errors: npt.NDArray[np.float64]) -> dict[str, float]:
    return {
        "median": round(float(np.median(errors)), 3),
        "p95": round(float(np.quantile(errors, 0.95)), 3),
        "within_half_percent": round(100 * float((errors < 0.5).mean()), 1),
    }


if __name__ == "__main__":
    sys.exit(main())
