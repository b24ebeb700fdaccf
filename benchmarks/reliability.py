"""Whether scores can be trusted: how often a reading is right at each score, and what a threshold keeps."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
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
  python benchmarks/reliability.py build/small-int8.engine --data sets/ic13 --fit held_out \\
    -o benchmarks/results/reliability.json

--fit names crops that neither training nor the tables have seen. The temperature that suits them goes into the model
with training/release.py --score-temperature; it changes scores, never texts.
"""
BINS = 15  # of the expected calibration error, as in arXiv:1706.04599
WANTED = (0.95, 0.98, 0.99, 0.995)  # shares of kept readings that are right
SEED = 23

Scores = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    parser.add_argument(
        "--fit", type=Path, nargs="+", default=[], metavar="DIR", help="folders to fit a temperature on"
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders with labels.tsv")
    parser.add_argument(
        "--nothing", type=whole_number, default=500, metavar="N", help="pictures of each kind without a word"
    )
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Every engine on every set, and on pictures in which there is nothing to read."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from robustscanner.recognizer import Recognizer

    result = begin_result("reliability", __doc__, arguments.output) | {"bins": BINS, "engines": {}}
    nothing = without_words(arguments.nothing)
    for path in arguments.engines:
        with Recognizer(path, options=session_options(arguments)) as recognizer:
            temperature = recognizer.spec.network.score_temperature
            row: dict[str, Any] = {"temperature": temperature, "sets": {}, "nothing": {}}
            if arguments.fit:
                report_progress(f"fitting with {path.name}")
                parts = [read(recognizer, folder) for folder in arguments.fit]
                score, right = (np.concatenate(part) for part in zip(*parts, strict=True))
                row |= {"fitted": fit(score**temperature, right), "fitted_on": len(right)}
            for folder in arguments.data:
                report_progress(f"reading {folder.name} with {path.name}")
                row["sets"][folder.name] = describe(*read(recognizer, folder), temperature)
            for name, pictures in nothing.items():
                scores = np.array([reading.score for reading in recognizer.read_batch(pictures)])
                row["nothing"][name] = {
                    f"{level:g}": float(np.mean(scores >= level)) for level in (0.5, 0.9, 0.95, 0.99)
                }
        result["engines"][path.name] = engine_facts(path) | row
        print(path.name, row)
    write_result(arguments.output, result | {"pictures_of_nothing": arguments.nothing})


def read(recognizer: "Recognizer", folder: Path) -> tuple[Scores, Right]:
    """Scores (N,), and whether the texts are right by the tables' protocol."""
    from robustscanner.labels import read_labels
    from robustscanner.scoring import ALPHANUMERIC

    crops = [crop for crop in read_labels(folder) if ALPHANUMERIC.reduce(crop.label)]
    readings = recognizer.read_batch([crop.path for crop in crops])
    right = [
        ALPHANUMERIC.reduce(reading.text) == ALPHANUMERIC.reduce(crop.label)
        for reading, crop in zip(readings, crops, strict=True)
    ]
    return np.array([reading.score for reading in readings]), np.array(right)


def fit(products: Scores, right: Right) -> float:
    """The temperature from 0.2 to 10 with the lowest Brier score: the mean squared distance of score and being right.

    Log loss would follow the few words that are right by the protocol, but whose case or punctuation the model doubts.
    """
    candidates = np.exp(np.arange(np.log(0.2), np.log(10), 0.01))
    best = min(candidates, key=lambda temperature: float(np.mean((products ** (1 / temperature) - right) ** 2)))
    return round(float(best), 2)


def calibration_error(scores: Scores, right: Right) -> float:
    """Expected calibration error (arXiv:1706.04599): how far scores are from shares of right readings, by bin."""
    place = bins(scores)
    apart = np.abs(np.bincount(place, scores, BINS) - np.bincount(place, right, BINS))
    return float(apart.sum() / len(scores))


def bins(scores: Scores) -> npt.NDArray[np.intp]:
    """Which of the BINS each score is in."""
    return np.minimum((scores * BINS).astype(np.intp), BINS - 1)


def describe(scores: Scores, right: Right, temperature: float) -> dict[str, Any]:
    """What scores say of one set, with and without the temperature, and what thresholds keep."""
    place = bins(scores)
    return {
        "words": len(right),
        "right": float(right.mean()),
        "error_before": round(calibration_error(scores**temperature, right), 4),
        "error": round(calibration_error(scores, right), 4),
        "diagram": [
            [int((place == bin_).sum()), float(scores[place == bin_].mean()), float(right[place == bin_].mean())]
            for bin_ in range(BINS)
            if (place == bin_).any()
        ],
        "thresholds": {f"{share:g}": threshold(scores, right, share) for share in WANTED},
    }


def threshold(scores: Scores, right: Right, share: float) -> dict[str, float] | None:
    """The lowest score from which on so many readings are right, and the share of readings that have it."""
    order = np.argsort(-scores, kind="stable")
    rates = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
    good = np.flatnonzero(rates >= share)
    if not len(good):
        return None
    return {"score": round(float(scores[order[good[-1]]]), 4), "kept": round(float((good[-1] + 1) / len(right)), 4)}


def without_words(count: int) -> dict[str, list[Any]]:
    """Pictures without a word: noise, smooth textures, and letters of which most is cut away."""
    from robustscanner.spec import DICT90
    from training.data.render.fonts import find_fonts
    from training.data.render.synth import LEGIBLE_CODES, WordSynthesizer

    rng = np.random.default_rng(SEED)
    noise = [rng.integers(0, 256, (48, int(width), 3), np.uint8) for width in rng.integers(40, 200, count)]
    blocks = [rng.integers(0, 256, (4, int(width), 3), np.uint8) for width in rng.integers(4, 16, count)]
    textures = [block.repeat(12, 0).repeat(12, 1) for block in blocks]
    synthesizer = WordSynthesizer(["WORD"], characters=DICT90, fonts=find_fonts(), options=LEGIBLE_CODES)
    letters = ["".join(rng.choice(list("ABCDEFGHIKLMNPRSTUVXYZ"), 5)) for _ in range(count)]
    cut = [picture[: max(4, len(picture) // 4)] for picture in (synthesizer.render(text, rng) for text in letters)]
    return {"noise": noise, "textures": textures, "cut letters": cut}


if __name__ == "__main__":
    sys.exit(main())
