"""Timing in turn: every contestant in every round, so that a machine that slows down slows all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Times = dict[str, list[list[float]]]  # contestant -> round -> milliseconds of each item

LEAST_ROUNDS = 2


def interleave(
    contestants: Mapping[str, Callable[[Item], object]], items: Sequence[Item], *, rounds: int, seconds: float
) -> Times:
    """Times each item with each contestant, round by round.

    The first round warms up and does not count; in the others, a contestant begins with an item that is not timed, as
    the one before has filled the caches with its own weights. Ends with the round in which the time is up.
    """
    times: Times = {name: [] for name in contestants}
    begin = time.perf_counter()
    for number in range(rounds + 1):
        for name, run in contestants.items():
            run(items[0])
            times[name].append([_milliseconds(run, item) for item in items])
        if number >= LEAST_ROUNDS and time.perf_counter() - begin > seconds:
            break
    return {name: found[1:] for name, found in times.items()}


def summarise(times_ms: Sequence[Sequence[float]], *, batch: int = 1) -> dict[str, float]:
    """Percentiles in milliseconds, and words a second over all of the time.

    Args:
        times_ms: rounds of batches.
        batch: words in each.
    """
    values = np.array(times_ms)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    rate = 1e3 * batch * values.size / values.sum()
    figures = {"p50": p50, "p90": p90, "p99": p99, "words_per_s": rate}
    return {name: round(float(value), 3) for name, value in figures.items()} | {"runs": int(values.size)}


def by_length(times_ms: Sequence[Sequence[float]], texts: Sequence[str]) -> dict[int, dict[str, float]]:
    """Median milliseconds of a word by the number of its characters: rounds of one word each against what was read."""
    medians = np.median(np.array(times_ms), axis=0)  # (words,)
    lengths = np.array([len(text) for text in texts])
    found = {int(length): medians[lengths == length] for length in np.unique(lengths)}
    return {n: {"p50": round(float(np.median(ms)), 3), "words": len(ms)} for n, ms in found.items()}


def line_through(points: Mapping[int, Mapping[str, float]]) -> dict[str, float] | None:
    """What a word costs at any length, and what each character adds, by least squares; None with too few lengths."""
    if len(points) < 3:
        return None
    slope, start = np.polyfit(list(points), [point["p50"] for point in points.values()], 1)
    return {"start_ms": round(float(start), 3), "character_ms": round(float(slope), 4)}


def _milliseconds(run: Callable[[Item], object], item: Item) -> float:
    begin = time.perf_counter()
    run(item)
    return 1e3 * (time.perf_counter() - begin)
