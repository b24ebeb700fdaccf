"""Engines under load: several callers at once, and the same work for minutes."""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.machine import clock_mhz, power, temperature_c
from benchmarks.reader import Reader

WINDOWS = 8  # of a soak; the last is compared with the first

Row = dict[str, object]


def call_at_once(reader: Reader, pictures: Sequence[bytes], *, callers: int, seconds: float) -> dict[str, float]:
    """`callers` threads share one reader, each with one word at a time: words a second, and the time of a word."""
    times: list[list[float]] = [[] for _ in range(callers)]
    end = time.perf_counter() + seconds

    def call(number: int) -> None:
        index = number  # not all the same word at the same time
        while not times[number] or time.perf_counter() < end:
            begin = time.perf_counter()
            reader.read([pictures[index % len(pictures)]])
            times[number].append(1e3 * (time.perf_counter() - begin))
            index += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - begin
    everything = np.concatenate(times)
    p50, p99 = np.percentile(everything, [50, 99])
    return {name: round(float(value), 3) for name, value in (("p50", p50), ("p99", p99))} | {
        "words_per_s": round(len(everything) / passed, 1)
    }


def soak(reader: Reader, pictures: Sequence[bytes], *, minutes: float) -> Row:
    """Word after word for minutes: latency, memory, clock and temperature in windows of equal time."""
    windows = [_window(reader, pictures, seconds=60 * minutes / WINDOWS) for _ in range(WINDOWS)]
    first, last = windows[0], windows[-1]
    return {
        "minutes": minutes,
        "drift": round(last["p50"] / first["p50"] - 1, 4),  # of the median: 0.1 is 10 % slower at the end
        "growth_mib": round(last["memory_mib"] - first["memory_mib"], 1),
        "windows": windows,
        "power": power(),
    }


def resident_mib(process: int | str = "self") -> float:
    """Memory of this process, or one by its number, at this moment; 0 where the system does not tell."""
    statm = Path(f"/proc/{process}/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if statm.exists() else 0.0


def _window(reader: Reader, pictures: Sequence[bytes], *, seconds: float) -> dict[str, float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        reader.read([pictures[len(times) % len(pictures)]])
        times.append(1e3 * (time.perf_counter() - begin))
    p50, p99 = np.percentile(times, [50, 99])
    facts = {"p50": p50, "p99": p99, "words": len(times), "memory_mib": resident_mib()}
    facts |= {"clock_mhz": clock_mhz() or 0, "temperature_c": temperature_c() or 0}
    return {name: round(float(value), 3) for name, value in facts.items()}
