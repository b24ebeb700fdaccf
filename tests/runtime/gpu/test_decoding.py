"""Driving the steps: when to stop, which bucket, how many steps to a launch."""

import pytest

from robustscanner.gpu.decoding import (
    Schedule,
    StepTimes,
    batch_buckets,
    bucket_for,
    choose_schedule,
    chunks,
    decode,
    expected_us,
)


class Recorder:
    """A machine whose rows have all ended after the given block; writes down what is asked of it."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def queue(self, block: int) -> None:
        self.calls.append(f"queue {block}")

    def going(self, block: int) -> bool:
        self.calls.append(f"going {block}")
        return block < self.last


def test_looks_at_each_block_before_the_next() -> None:
    machine = Recorder(last=1)
    assert decode(machine, 4, lookahead=0) == 2
    assert machine.calls == ["start", "queue 0", "going 0", "queue 1", "going 1"]


def test_stays_one_block_ahead() -> None:
    machine = Recorder(last=1)
    assert decode(machine, 4, lookahead=1) == 3
    assert machine.calls == ["start", "queue 0", "queue 1", "going 0", "queue 2", "going 1"]


@pytest.mark.parametrize("lookahead", [0, 1])
def test_never_queues_or_awaits_more_than_there_is(lookahead: int) -> None:
    machine = Recorder(last=99)
    assert decode(machine, 3, lookahead=lookahead) == 3
    assert machine.calls[-1] == "queue 2"  # nobody needs the message of the last block


@pytest.mark.parametrize("lookahead", [0, 1])
def test_one_block_needs_no_message(lookahead: int) -> None:
    machine = Recorder(last=0)
    assert decode(machine, 1, lookahead=lookahead) == 1
    assert machine.calls == ["start", "queue 0"]


@pytest.mark.parametrize(
    ("smallest", "largest", "buckets"),
    [
        (1, 1, (1,)),
        (1, 8, (1, 2, 4, 8)),
        (1, 12, (1, 2, 4, 8, 12)),
        (3, 12, (3, 4, 8, 12)),
        (4, 4, (4,)),
        (5, 7, (5, 7)),
    ],
)
def test_buckets(smallest: int, largest: int, buckets: tuple[int, ...]) -> None:
    assert batch_buckets(smallest, largest) == buckets


def test_smallest_bucket_that_holds_the_batch() -> None:
    assert [bucket_for(count, (3, 4, 8)) for count in range(1, 9)] == [3, 3, 3, 4, 8, 8, 8, 8]


@pytest.mark.parametrize(
    ("count", "runs"),
    [(0, []), (1, [(0, 1)]), (4, [(0, 4)]), (5, [(0, 4), (4, 5)]), (9, [(0, 4), (4, 8), (8, 9)])],
)
def test_chunks(count: int, runs: list[tuple[int, int]]) -> None:
    assert [(run.start, run.stop) for run in chunks(count, 4)] == runs


@pytest.mark.parametrize(
    ("times", "schedule"),
    [
        # Asking costs nothing: look after every step, and never begin one in vain.
        (StepTimes(step_us=20, launch_us=0, wait_us=0, one_launch=True), Schedule(1, 0)),
        # Asking costs more than all steps together: two blocks at once, so that nothing is asked.
        (StepTimes(step_us=1, launch_us=0, wait_us=1000, one_launch=True), Schedule(20, 1)),
        # Asking costs about a step: better one step in vain than the device idle between any two.
        (StepTimes(step_us=20, launch_us=0, wait_us=18, one_launch=True), Schedule(1, 1)),
        # Launching costs more than the steps of a block: several to a launch …
        (StepTimes(step_us=5, launch_us=30, wait_us=1, one_launch=True), Schedule(10, 0)),
        # … but that buys nothing where each step is a launch of its own.
        (StepTimes(step_us=5, launch_us=30, wait_us=1, one_launch=False), Schedule(1, 1)),
    ],
)
def test_schedule(times: StepTimes, schedule: Schedule) -> None:
    assert choose_schedule(times, 40) == schedule


@pytest.mark.parametrize("steps", [1, 7, 12, 40])
def test_blocks_divide_the_steps(steps: int) -> None:
    for wait_us in (0.0, 5.0, 50.0, 5000.0):
        times = StepTimes(step_us=10, launch_us=3, wait_us=wait_us, one_launch=True)
        assert steps % choose_schedule(times, steps).steps_per_launch == 0


def test_expected_time_by_hand() -> None:
    """Blocks of 4 in 12 steps: 3 and 4 steps end in the first, 5 … 8 in the second, 9 … 12 and 13 in the third."""
    times = StepTimes(step_us=10, launch_us=1, wait_us=5, one_launch=True)
    block = 1 + 40 + 5  # launch, run, know
    by_blocks = {1: block, 2: 2 * block, 3: 3 * block}
    mean = (2 * by_blocks[1] + 4 * by_blocks[2] + 5 * by_blocks[3]) / 11
    # An end within the first or second block is known when its message is, and waited for once more with the result.
    assert expected_us(Schedule(4, 0), times, 12) == pytest.approx(mean + 5 * 6 / 11)
