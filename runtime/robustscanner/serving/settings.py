"""What a server may be told, and what holds where it is told nothing."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchOptions:
    """How requests become batches."""

    max_batch: int = 16  # pictures of one run
    max_wait_s: float = 0.002  # that the first picture of a run waits for others
    max_queue: int = 256  # pictures that wait at most
    workers: int = 1  # sessions that read side by side


@dataclass(frozen=True)
class Limits:
    """How much a request may hold."""

    body_bytes: int = 16 * 1024**2
    pictures: int = 64
    seconds: float = 10  # until its answer
