"""Reads the same pictures once for every line of stdin and prints their times: the Python side of `native.py`."""

import argparse
import json
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from robustscanner.preprocess import Image, load_image
from robustscanner.program import exit_status
from robustscanner.recognizer import Recognizer
from robustscanner.session import SessionOptions


def main() -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("pictures", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--engine", type=Path, required=True, metavar="PATH")
    parser.add_argument("--threads", type=int, required=True, metavar="N")
    arguments = parser.parse_args()
    return exit_status(lambda: take_turns(arguments.engine, arguments.threads, arguments.pictures))


def take_turns(engine: Path, threads: int, paths: list[Path]) -> None:
    """Milliseconds of each picture, a JSON list for every line of stdin."""
    images = [load_image(path) for path in paths]
    with Recognizer(engine, options=SessionOptions(threads=threads, spinning=False)) as recognizer:
        for _ in sys.stdin:
            print(json.dumps([_read_ms(recognizer, image) for image in images]), flush=True)


def _read_ms(recognizer: Recognizer, image: Image) -> float:
    begin = time.perf_counter()
    recognizer.read(image)
    return 1e3 * (time.perf_counter() - begin)


if __name__ == "__main__":
    sys.exit(main())
