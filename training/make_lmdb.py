"""Packs labelled crops, rendered words, or both into one LMDB."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "training"

from robustscanner.program import exit_status

if TYPE_CHECKING:
    from tqdm import tqdm  # type: ignore[import-untyped]

    from training.data.record import CropSet, Skipped

EPILOG = """examples:
  python training/make_lmdb.py crops/iiit5k crops/ic15 -o real.lmdb
  python training/make_lmdb.py --render 100000 --words words.txt -o rendered.lmdb
  python training/make_lmdb.py part1.lmdb part2.lmdb -o whole.lmdb

Pictures are taken over as they are; those that cannot be read, or have no label, are left out and counted.
"""


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", type=Path, nargs="*", metavar="SET", help="folder with labels.tsv, or LMDB")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="NAME.lmdb", help="folder, gets data.mdb")
    parser.add_argument("--render", type=int, default=0, metavar="N", help="add N rendered words of --words")
    parser.add_argument("--words", type=Path, metavar="FILE", help="word list, one a line, that texts are made from")
    parser.add_argument("--seed", type=int, default=20, metavar="N", help="same seed and fonts, same words")
    parser.add_argument("-f", "--force", action="store_true", help="replace an LMDB that is there")
    arguments = parser.parse_args()
    if not arguments.sets and not arguments.render:
        parser.error("nothing to pack: name folders, or use --render")
    if bool(arguments.render) != bool(arguments.words):
        parser.error("--render and --words need each other")
    return arguments


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    arguments = parse_arguments()
    return exit_status(lambda: make(arguments))


def make(arguments: argparse.Namespace) -> None:
    """Writes the LMDB and says what went in, and what did not."""
    from tqdm import tqdm

    from training.data.crop_set import open_crop_set
    from training.data.lmdb_set import write_lmdb
    from training.data.record import describe_skipped

    sets = [open_crop_set(path) for path in arguments.sets]
    skipped: Skipped = Counter()
    with tqdm(total=sum(map(len, sets)) + arguments.render, unit="word", disable=None) as bar:
        count = write_lmdb(arguments.output, watch(records(arguments, sets, skipped), bar), force=arguments.force)
    for line in describe_skipped(skipped):
        print(line, file=sys.stderr)
    print(f"{arguments.output}: {count} words")


def records(arguments: argparse.Namespace, sets: "list[CropSet]", skipped: "Skipped") -> Iterator[tuple[bytes, str]]:
    """Encoded pictures and labels, the sets' first."""
    from training.data.record import good_records

    for crops in sets:
        for _, label, data, _ in good_records(crops, skipped):
            yield data, label
    if arguments.render:
        yield from rendered(arguments.words, arguments.render, arguments.seed)


def rendered(words: Path, count: int, seed: int) -> Iterator[tuple[bytes, str]]:
    """Rendered words as JPEG."""
    import cv2
    import numpy as np

    from robustscanner.spec import DICT90
    from training.data.render.synth import WordSynthesizer
    from training.data.source import read_words

    synthesizer, rng = WordSynthesizer(read_words(words), characters=DICT90), np.random.default_rng(seed)
    for _ in range(count):
        picture, label = synthesizer.sample(rng)
        # A quality that adds nothing to what the renderer degraded on purpose.
        yield cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), label


def watch(items: Iterable[tuple[bytes, str]], bar: "tqdm[None]") -> Iterator[tuple[bytes, str]]:
    """Passes on and counts."""
    for item in items:
        yield item
        bar.update()


if __name__ == "__main__":
    sys.exit(main())
