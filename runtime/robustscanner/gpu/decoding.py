"""How decoding is driven: which batch runs in which bucket, how many steps a launch holds, and when to stop.

Whoever owns the device says how to queue work on it; what is decided here needs no device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

# Expected times are averaged over these word lengths: a word of a sign rarely has more letters, and a schedule chosen
# for the longest possible word would run thirty steps to read "EXIT".
TYPICAL_LETTERS = range(2, 13)


class Machine(Protocol):
    """One batch bucket on a device that works through a queue while the host goes on."""

    def start(self) -> None:
        """Queues the encoder and a fresh decoding state."""

    def queue(self, block: int) -> None:
        """Queues a block of steps and, after it, the message whether any row still runs."""

    def going(self, block: int) -> bool:
        """Waits for the message of a block."""


@dataclass(frozen=True)
class Schedule:
    """How the steps are handed to the device."""

    steps_per_launch: int  # k, of one block; divides the model's max_length
    lookahead: int  # blocks queued beyond the one whose message is awaited: with 1 the device never idles meanwhile


@dataclass(frozen=True)
class StepTimes:
    """What a step costs here."""

    step_us: float  # on the device
    launch_us: float  # of the host, to queue a step, or a whole block when that is one launch
    wait_us: float  # from the end of a block until the host knows
    one_launch: bool  # a block is one launch (a CUDA graph), not one for each step


def decode(machine: Machine, blocks: int, *, lookahead: int) -> int:
    """Runs blocks until no row is left that still reads.

    Args:
        machine: its input is in place; its result may be fetched afterwards.
        blocks: the most there may be.
        lookahead: see `Schedule`.

    Returns:
        the blocks that were queued.
    """
    machine.start()
    for block in range(blocks):
        known = block - 1 - lookahead
        if known >= 0 and not machine.going(known):
            return block
        machine.queue(block)
    return blocks


def batch_buckets(smallest: int, largest: int) -> tuple[int, ...]:
    """Batch sizes to prepare, ascending: the powers of two between the bounds, and the bounds."""
    powers = {1 << exponent for exponent in range(largest.bit_length())}
    return tuple(sorted({smallest, largest} | {size for size in powers if smallest < size < largest}))


def bucket_for(count: int, buckets: Sequence[int]) -> int:
    """The smallest of the ascending buckets that holds `count` pictures, at most the last one's."""
    return next(bucket for bucket in buckets if bucket >= count)


def chunks(count: int, largest: int) -> list[slice]:
    """Cuts a batch into runs of at most `largest` pictures."""
    return [slice(start, min(start + largest, count)) for start in range(0, count, largest)]


def divisors(steps: int) -> list[int]:
    """The block sizes that leave no remainder, ascending: a step beyond the last would write outside its buffers."""
    return [size for size in range(1, steps + 1) if steps % size == 0]


def choose_schedule(
    times: StepTimes, steps: int, *, steps_per_launch: int | None = None, lookahead: int | None = None
) -> Schedule:
    """The schedule that reads typical words soonest; of equal ones that with the shortest blocks.

    Args:
        times: measured on this machine.
        steps: the model's max_length.
        steps_per_launch: when that is decided already; divides `steps`.
        lookahead: likewise.
    """
    sizes = divisors(steps) if steps_per_launch is None else [steps_per_launch]
    lookaheads = (0, 1) if lookahead is None else (lookahead,)
    candidates = [Schedule(size, ahead) for size in sizes for ahead in lookaheads]
    return min(candidates, key=lambda schedule: expected_us(schedule, times, steps))


def expected_us(schedule: Schedule, times: StepTimes, steps: int) -> float:
    """Mean time of decoding words of `TYPICAL_LETTERS`, all equally likely."""
    needed = [min(letters + 1, steps) for letters in TYPICAL_LETTERS]  # one more for the end token
    return sum(_decode_us(schedule, times, steps, count) for count in needed) / len(needed)


def _decode_us(schedule: Schedule, times: StepTimes, steps: int, needed: int) -> float:
    """Plays `decode` with two clocks, of the host and of the device, for a word that ends at step `needed`."""
    clock = _Clock(schedule.steps_per_launch, times, needed)
    decode(clock, steps // schedule.steps_per_launch, lookahead=schedule.lookahead)
    return max(clock.host_us, clock.ends_us[-1]) + times.wait_us


class _Clock:
    """A machine that only counts time."""

    def __init__(self, steps_per_launch: int, times: StepTimes, needed: int) -> None:
        self.steps_per_launch, self.times, self.needed = steps_per_launch, times, needed
        self.host_us = 0.0
        self.ends_us: list[float] = []  # of the blocks, on the device

    def start(self) -> None:
        pass

    def queue(self, block: int) -> None:
        times, busy_until = self.times, self.ends_us[-1] if self.ends_us else 0.0
        launches = 1 if times.one_launch else self.steps_per_launch
        for _ in range(launches):
            self.host_us += times.launch_us
            busy_until = max(busy_until, self.host_us) + times.step_us * self.steps_per_launch / launches
        self.ends_us.append(busy_until)

    def going(self, block: int) -> bool:
        self.host_us = max(self.host_us, self.ends_us[block]) + self.times.wait_us
        return (block + 1) * self.steps_per_launch < self.needed
