"""What every inference session can do, whichever library is behind it."""

import os
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from robustscanner.errors import EngineError
from robustscanner.spec import ModelSpec

Images = npt.NDArray[np.uint8]  # (N, height, width, 3) RGB
Widths = npt.NDArray[np.int32]  # (N,) pixels of each canvas that hold the word
Tokens = npt.NDArray[np.int32]  # (N, T)
Scores = npt.NDArray[np.float32]  # (N, T) probabilities of the tokens

MAX_THREADS = 1024


def available_cores() -> int:
    """Logical cores that this process may use: less than the machine has under taskset or in many containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class SessionOptions:
    """How to run an engine, as opposed to what it is."""

    threads: int = field(default_factory=available_cores)  # that share one operator; of the CPU only
    spinning: bool = True  # idle threads wait busily, for the sake of one word's latency; False spares a shared CPU

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= MAX_THREADS:
            raise EngineError(f"threads is {self.threads}; give a number from 1 to {MAX_THREADS}")


class Session(Protocol):
    """An opened engine. Whoever opened it closes it."""

    @property
    def spec(self) -> ModelSpec:
        """The model inside."""

    @property
    def max_batch(self) -> int | None:
        """The most pictures of one run; None when there is no limit."""

    def run(self, images: Images, valid_width: Widths) -> tuple[Tokens, Scores]:
        """Reads canvases.

        Args:
            images: uint8 [N, height, width, 3], RGB.
            valid_width: int32 [N].

        Returns:
            Tokens int32 [N, T] and their probabilities float32 [N, T]; behind a row's end token, pad and 1.

        Raises:
            EngineError: the run failed, or the result is no probability.
        """

    def close(self) -> None:
        """Frees what the session holds; further calls are harmless."""
