"""Words a second that an LMDB streams into training batches (read, decode, draw the canvas), plain and augmented.

The LMDB is made for the occasion in a temporary folder: a few hundred words are rendered and degraded, and each is
encoded again and again, at another JPEG quality, until there are as many records as asked for. So the records differ
and are as many and as large as real ones, but not as various as their number says. The file was just written and lies
in the page cache: a disk that is read for the first time is not measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.program import exit_status

if TYPE_CHECKING:
    from training.data.stream import MixedStream

RENDERED = 500  # words that are drawn; all others are encoded from them
BATCH = 32  # words, as in training/configs/edge.yaml
BUCKET = 8  # batches, likewise
EPILOG = """examples:
  python benchmarks/lmdb_stream.py --words words.txt -o benchmarks/results/lmdb-stream.json
  python benchmarks/lmdb_stream.py --words words.txt --records 2000 --seconds 2
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0], epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=Path, required=True, metavar="FILE", help="word list for rendering")
    parser.add_argument("--records", type=int, default=100_000, metavar="N", help="in the LMDB (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="of a round (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="of each kind, in turn (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="reading processes (default: all cores)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write the figures there")
    return parser.parse_args()


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: measure(arguments))


def measure(arguments: argparse.Namespace) -> None:
    """Makes the LMDB, times plain and augmented rounds in turn, and prints the medians."""
    from statistics import median

    from benchmarks.result import begin_result, write_result
    from robustscanner.cpu import available_cores
    from training.data.lmdb_set import write_lmdb

    result = begin_result("stream", __doc__, arguments.output)
    workers = arguments.workers if arguments.workers is not None else available_cores()
    rates: dict[str, list[float]] = {"plain": [], "augmented": []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "words.lmdb"
        write_lmdb(path, records(arguments.words, arguments.records))
        size_mib = (path / "data.mdb").stat().st_size / 2**20
        for _ in range(arguments.rounds):
            for name, found in rates.items():
                found.append(words_per_s(open_stream(path, augmented=name == "augmented"), workers, arguments.seconds))
    medians = {name: round(median(found)) for name, found in rates.items()}
    for name, rate in medians.items():
        print(f"{name:<10}{rate:>8} words/s")
    result |= {"records": arguments.records, "size_mib": round(size_mib, 1), "workers": workers}
    rounds = {name: [round(rate) for rate in found] for name, found in rates.items()}
    write_result(arguments.output, result | {"words_per_s": medians, "rounds_words_per_s": rounds})


def records(words: Path, count: int) -> Iterator[tuple[bytes, str]]:
    """Encoded pictures and labels, the same at each run on a machine."""
    import cv2
    import numpy as np

    from robustscanner.spec import DICT90
    from training.data.render.synth import WordSynthesizer
    from training.data.source import read_words

    synthesizer, rng = WordSynthesizer(read_words(words), characters=DICT90), np.random.default_rng(0)
    drawn = [synthesizer.sample(rng) for _ in range(min(RENDERED, count))]
    for index in range(count):
        picture, label = drawn[index % len(drawn)]
        quality = 60 + index // len(drawn) % 40
        yield cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes(), label


def open_stream(path: Path, *, augmented: bool) -> "MixedStream":
    """Batches of the shipped model's kind, from this LMDB alone."""
    from robustscanner.charset import Charset
    from robustscanner.spec import InputSpec, ModelSpec
    from training.data.augment import AugmentOptions
    from training.data.lmdb_set import LmdbSet
    from training.data.source import AugmentedCrops
    from training.data.stream import MixedStream

    spec = ModelSpec("benchmark", input=InputSpec(resize="area"))
    options = AugmentOptions() if augmented else None
    crops = AugmentedCrops(LmdbSet(path), Charset(spec.charset), spec.network.max_length, options=options)
    return MixedStream(spec, [(crops, 1.0)], batch_size=BATCH, bucket_batches=BUCKET, seed=1)


def words_per_s(stream: "MixedStream", workers: int, seconds: float) -> float:
    """Rate over whole buckets, without the first of each worker: starting processes is not streaming."""
    batches = stream.batches(workers=workers)
    for _ in islice(batches, BUCKET * max(1, workers)):
        pass
    words, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        words += sum(len(batch.images) for batch in islice(batches, BUCKET))
    batches.close()
    return words / passed


if __name__ == "__main__":
    sys.exit(main())
