"""What a list of words is worth: sets of crops read freely, and with lists that hold the word among others."""

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

from benchmarks.arguments import add_sets, engine_parser, session_options
from robustscanner.program import exit_status

if TYPE_CHECKING:
    from robustscanner.labels import LabelledCrop
    from robustscanner.recognizer import Recognizer
    from robustscanner.words import WordList

EPILOG = """examples:
  python benchmarks/lexicon.py build/small-int8.engine --data sets/iiit5k --vocabulary words.txt \\
    -o benchmarks/results/lexicon.json

As the classic papers do: a list of 50 and one of 1,000 for each word, with other words of the set and of the
vocabulary; and one for all, «full», with all words of the set and the vocabulary. Each word stands there in capitals,
in small letters and as a name.
"""
SIZES = (50, 1000)
SEED = 31


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = engine_parser(__doc__, EPILOG)
    add_sets(parser)
    parser.add_argument("--vocabulary", type=Path, metavar="FILE", help="more words, one a line")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: measure(parsed))


def measure(arguments: argparse.Namespace) -> None:
    """Every engine on every set: words right and the time of one, by size of the list."""
    from benchmarks.reader import engine_facts
    from benchmarks.result import begin_result, report_progress, write_result
    from benchmarks.sample import readable_crops, thin
    from robustscanner.recognizer import Recognizer

    result = begin_result("lexicon", __doc__, arguments.output) | {"engines": {}}
    others = arguments.vocabulary.read_text(encoding="utf-8").split() if arguments.vocabulary else []
    for path in arguments.engines:
        rows = {}
        with Recognizer(path, options=session_options(arguments)) as recognizer:
            for folder in arguments.data:
                report_progress(f"reading {folder.name} with {path.name}")
                crops = readable_crops(folder)
                rows[folder.name] = read_set(recognizer, crops, others, thin(crops, arguments.words))
                print(path.name, folder.name, rows[folder.name])
        result["engines"][path.name] = engine_facts(path) | {"sets": rows}
    write_result(arguments.output, result)


def read_set(
    recognizer: "Recognizer", crops: Sequence["LabelledCrop"], others: Sequence[str], read: Sequence["LabelledCrop"]
) -> dict[str, Any]:
    """The chosen crops, freely and with every list in turn, so that a busy moment hurts all of them."""
    from robustscanner.metrics import normalise
    from robustscanner.picture import pixels_of
    from robustscanner.words import MOST_WORDS

    rng = np.random.default_rng(SEED)
    labels = sorted({crop.label for crop in crops})
    pool = np.array(sorted({*labels, *others}))
    full = listed(recognizer, rng.permutation(pool)[: MOST_WORDS // 3 - len(labels)].tolist() + labels)
    right: dict[str, int] = {}
    seconds: dict[str, list[float]] = {}
    sizes = {"full": len(full.words)}
    for crop in read:
        picture = pixels_of(crop.path)
        lists: dict[str, WordList | None] = {"free": None}
        for size in SIZES:
            lists[str(size)] = listed(recognizer, [crop.label, *rng.choice(pool, size - 1, replace=len(pool) < size)])
        for name, words in (lists | {"full": full}).items():
            started = time.perf_counter()
            text = recognizer.read(picture, constraint=words).text
            seconds.setdefault(name, []).append(time.perf_counter() - started)
            right[name] = right.get(name, 0) + (normalise(text) == normalise(crop.label))
    row: dict[str, Any] = {"words": len(read), "listed": sizes}
    row["right_percent"] = {name: round(100 * count / len(read), 1) for name, count in right.items()}
    row["median_ms"] = {name: round(1e3 * median(times), 2) for name, times in seconds.items()}
    row["mean_ms"] = {name: round(1e3 * float(np.mean(times)), 2) for name, times in seconds.items()}
    return row


def listed(recognizer: "Recognizer", words: Sequence[str]) -> "WordList":
    """In the ways in which signs show them, as far as the model can write them; ready for the model."""
    from robustscanner.charset import Charset
    from robustscanner.words import WordList

    charset, most = Charset(recognizer.spec.charset), recognizer.spec.network.max_length - 1
    forms = {form for word in words for form in (word.upper(), word.lower(), word.capitalize())}
    found = WordList(form for form in forms if not charset.missing(form) and len(form) <= most)
    found.automaton(recognizer.spec)
    return found


if __name__ == "__main__":
    sys.exit(main())
