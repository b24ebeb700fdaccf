"""What it is worth to say what a text may be: plates, meters, amounts and codes, read freely and under constraints."""

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

import numpy as np

from benchmarks.arguments import engine_parser, session_options
from robustscanner.constraint import Constraint
from robustscanner.program import exit_status, whole_number

if TYPE_CHECKING:
    from robustscanner.recognizer import Recognizer

EPILOG = """examples:
  python benchmarks/constraints.py build/small-int8.engine -o benchmarks/results/constraints.json
"""
LETTERS, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
SEED = 17


@dataclass(frozen=True)
class Kind:
    """Texts of one sort, and what may be known of them."""

    draw: Callable[[np.random.Generator], str]
    characters: str
    pattern: str


def plate(rng: np.random.Generator) -> str:
    """Two letters, two digits, three letters."""
    return _some(LETTERS, 2, rng) + _some(DIGITS, 2, rng) + _some(LETTERS, 3, rng)


def meter(rng: np.random.Generator) -> str:
    """A number, most with a decimal point or comma."""
    whole = _some(DIGITS, int(rng.integers(1, 7)), rng)
    if rng.random() < 0.3:
        return whole
    return whole + str(rng.choice([",", "."])) + _some(DIGITS, int(rng.integers(1, 4)), rng)


def run(rng: np.random.Generator) -> str:
    """The same digit five times."""
    return 5 * _some(DIGITS, 1, rng)


def amount(sign: str) -> Callable[[np.random.Generator], str]:
    """Amounts whose two last digits come after a comma, or after a point."""
    return lambda rng: _some(DIGITS, int(rng.integers(1, 5)), rng) + sign + _some(DIGITS, 2, rng)


def container(rng: np.random.Generator) -> str:
    """An owner, a category and a serial number, with the check digit of ISO 6346."""
    code = _some(LETTERS, 3, rng) + str(rng.choice(list("UJZ"))) + _some(DIGITS, 6, rng)
    return code + str(check_digit(code))


def check_digit(code: str) -> int:
    """Of the first ten characters of a container code, by ISO 6346: letters count 10, 12, … without multiples of 11."""
    values = [value for value in range(10, 39) if value % 11]
    numbers = [values[LETTERS.index(c)] if c in LETTERS else int(c) for c in code[:10]]
    return sum(number << place for place, number in enumerate(numbers)) % 11 % 10


KINDS = {
    "plates": Kind(plate, "0-9A-Z", r"[A-Z]{2}\d{2}[A-Z]{3}"),
    "meters": Kind(meter, "0-9.,", r"\d{1,6}([.,]\d{1,3})?"),
    "commas": Kind(amount(","), "0-9.,", r"\d{1,4}[.,]\d\d"),
    "points": Kind(amount("."), "0-9.,", r"\d{1,4}[.,]\d\d"),
    "runs": Kind(run, "0-9", r"\d{5}"),
    "containers": Kind(container, "0-9A-Z", r"[A-Z]{3}[UJZ]\d{7}"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument(
        "--count", type=whole_number, default=500, metavar="N", help="words of each kind (default: 500)"
    )
    parser.add_argument("--noise", type=whole_number, default=10_000, metavar="N", help="pictures of noise")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Accuracy and time of every kind, and whether noise ever gives a text that is not allowed."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from robustscanner.recognizer import Recognizer

    result = begin_result("constraints", __doc__, arguments.output) | {"count": arguments.count, "engines": {}}
    words = {name: render(kind, arguments.count) for name, kind in KINDS.items()}
    for path in arguments.engines:
        with Recognizer(path, options=session_options(arguments)) as recognizer:
            report_progress(f"reading {len(words)} kinds of words with {path.name}")
            rows = {name: read_kind(recognizer, KINDS[name], *pair) for name, pair in words.items()}
            report_progress(f"reading {arguments.noise} pictures of noise with {path.name}")
            noise = {name: invalid(recognizer, kind, arguments.noise) for name, kind in KINDS.items()}
        result["engines"][path.name] = engine_facts(path) | {"kinds": rows, "invalid_in_noise": noise}
        for name, row in rows.items():
            print(f"{path.name}  {name:10}  {row}  not allowed, of {arguments.noise} of noise: {noise[name]}")
    write_result(arguments.output, result | {"noise": arguments.noise})


def render(kind: Kind, count: int) -> tuple[list[Any], list[str]]:
    """Pictures and their texts, in fonts that training never draws with where the system has such."""
    from robustscanner.spec import DICT90
    from training.data.render.fonts import find_fonts, split_fonts
    from training.data.render.synth import LEGIBLE_CODES, WordSynthesizer

    rng = np.random.default_rng(SEED)
    texts = [kind.draw(rng) for _ in range(count)]
    fonts = split_fonts(find_fonts())[1] or None
    synthesizer = WordSynthesizer(texts, characters=DICT90, fonts=fonts, options=LEGIBLE_CODES)
    return [synthesizer.render(text, rng) for text in texts], texts


def read_kind(recognizer: "Recognizer", kind: Kind, pictures: list[Any], texts: list[str]) -> dict[str, Any]:
    """Words right in percent and the median time of one, freely, by characters and by pattern."""
    ways = {"free": None, "characters": Constraint(kind.characters), "pattern": Constraint(pattern=kind.pattern)}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    read: dict[str, list[str]] = {way: [] for way in ways}
    for picture in pictures:
        for way, constraint in ways.items():  # in turn, so that a busy moment hurts all of them
            started = time.perf_counter()
            read[way].append(recognizer.read(picture, constraint=constraint).text)
            seconds[way].append(time.perf_counter() - started)
    right = {
        way: round(100 * float(np.mean([a == b for a, b in zip(read[way], texts, strict=True)])), 1) for way in ways
    }
    row: dict[str, Any] = {"right_percent": right}
    row["median_ms"] = {way: round(1e3 * median(seconds[way]), 2) for way in ways}
    if kind.draw is container:
        row["check_digit"] = checked(read["pattern"], texts)
    return row


def checked(read: list[str], texts: list[str]) -> dict[str, int]:
    """What the check digit, looked at afterwards, makes of container codes."""
    passed = [check_digit(text) == int(text[10]) for text in read]
    right = [a == b for a, b in zip(read, texts, strict=True)]
    return {"passed": sum(passed), "passed_and_right": sum(map(all, zip(passed, right, strict=True)))}


def invalid(recognizer: "Recognizer", kind: Kind, count: int) -> int:
    """Texts that are not allowed, of pictures in which there is nothing to read."""
    rng, pattern, found = np.random.default_rng(SEED), re.compile(kind.pattern), 0
    for start in range(0, count, 64):
        sizes = rng.integers(4, 32, min(64, count - start))
        pictures = [rng.integers(0, 256, (12, 2 * size, 3), np.uint8).repeat(4, 0).repeat(4, 1) for size in sizes]
        readings = recognizer.read_batch(pictures, constraint=Constraint(pattern=kind.pattern))
        found += sum(pattern.fullmatch(reading.text) is None for reading in readings)
    return found


def _some(characters: str, count: int, rng: np.random.Generator) -> str:
    return "".join(rng.choice(list(characters), count))


if __name__ == "__main__":
    sys.exit(main())
