"""Runs `convert/sensitivity.py`, with its arguments, and adds to the figures what they were measured on."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # by path or with -m: PEP 366
    sys.path[:0] = [str(Path(__file__).parents[1] / "runtime"), str(Path(__file__).parents[1])]
    __package__ = "benchmarks"

from convert import sensitivity


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on what to fix."""
    from benchmarks.machine import describe

    return sensitivity.main(arguments, about={"machine": describe()})


if __name__ == "__main__":
    sys.exit(main())
