"""Timing in turn, and what is made of the times."""

import pytest

from benchmarks.rounds import LEAST_ROUNDS, by_length, interleave, line_through, summarise


def test_every_contestant_runs_in_every_round() -> None:
    log: list[str] = []
    contestants = {name: (lambda item, name=name: log.append(f"{name}{item}")) for name in "ab"}
    times = interleave(contestants, [1, 2], rounds=3, seconds=60)
    assert log == ["a1", "a1", "a2", "b1", "b1", "b2"] * 4  # an untimed item first; one round more, to warm up
    assert {name: [len(row) for row in rows] for name, rows in times.items()} == {"a": [2, 2, 2], "b": [2, 2, 2]}


def test_ends_with_the_round_in_which_time_is_up() -> None:
    assert len(interleave({"a": lambda _: None}, [1], rounds=100, seconds=0)["a"]) == LEAST_ROUNDS


def test_words_a_second_count_whole_batches() -> None:
    row = summarise([[100.0, 300.0], [100.0, 300.0]], batch=8)
    assert (row["p50"], row["words_per_s"], row["runs"]) == (200, 40, 4)


def test_cost_of_a_character() -> None:
    rows = by_length([[5.0, 6.0, 7.0, 7.0], [5.0, 6.0, 9.0, 7.0]], ["a", "ab", "abc", "xyz"])
    assert rows == {1: {"p50": 5, "words": 1}, 2: {"p50": 6, "words": 1}, 3: {"p50": 7.5, "words": 2}}
    line = line_through({1: {"p50": 5.0}, 3: {"p50": 6.0}, 9: {"p50": 9.0}})
    assert line == {"start_ms": pytest.approx(4.5), "character_ms": pytest.approx(0.5)}
    assert line_through({1: {"p50": 5.0}, 2: {"p50": 6.0}}) is None
