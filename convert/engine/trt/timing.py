"""What a word takes on the GPU here, with several engines in turns."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from robustscanner.preprocess import load_image
from robustscanner.recognizer import Recognizer
from robustscanner.session import GpuOptions, SessionOptions

_WORDS, _ROUNDS = 16, 10


def read_in_turns(engines: Sequence[Path], crops: Sequence[Path]) -> list[float]:
    """Median milliseconds of each engine for one word at a time, from pixels to text.

    Args:
        engines: bundles that were built here, and so may run what code they carry.
        crops: picture files; the first few are read, again and again.
    """
    pictures = [load_image(crop) for crop in crops[:_WORDS]]
    options = SessionOptions(gpu=GpuOptions(host_code=True))
    times: list[list[float]] = [[] for _ in engines]
    with ExitStack() as stack:
        readers = [stack.enter_context(Recognizer(engine, options=options)) for engine in engines]
        for number in range(_ROUNDS + 1):
            for picture in pictures:
                for reader, found in zip(readers, times, strict=True):
                    began = time.perf_counter()
                    reader.read(picture)
                    found += [time.perf_counter() - began] if number else []  # the first round warms up
    return [1e3 * median(found) for found in times]
