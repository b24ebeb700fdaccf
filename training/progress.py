"""What a run says of itself: averages to a log file, a progress bar and, if wanted, TensorBoard."""

import json
import time
from pathlib import Path
from typing import Protocol

from training.config import ConfigError

EVERY = 50  # steps between two lines


class Bar(Protocol):
    """As much of tqdm as is used."""

    def update(self) -> object: ...

    def set_postfix(self, **values: str) -> object: ...


class Board(Protocol):
    """As much of TensorBoard's SummaryWriter as is used."""

    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def flush(self) -> None: ...


def open_board(folder: Path, step: int) -> Board:
    """Writes for TensorBoard; what an earlier process wrote after `step` is hidden.

    Raises:
        ConfigError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError("--tensorboard: is not installed; pip install tensorboard") from None
    board: Board = SummaryWriter(folder, purge_step=step + 1)
    return board


class Report:
    """Averages the losses of some steps, words a second and the time left; without a log file it says nothing."""

    def __init__(
        self, log: Path | None, bar: Bar, board: Board | None = None, *, steps: int, words: int, every: int = EVERY
    ) -> None:
        self._log, self._bar, self._board = log, bar, board
        self._total, self._words, self._every = steps, words, every
        self._sums: dict[str, float] = {}
        self._steps, self._lr, self._since = 0, 0.0, time.perf_counter()

    def add(self, step: int, losses: dict[str, float], *, lr: float) -> None:
        """One step, `step` being their number with it."""
        self._sums = {key: self._sums.get(key, 0.0) + value for key, value in losses.items()}
        self._steps, self._lr = self._steps + 1, lr
        self._bar.update()
        if step % self._every == 0:
            self.write(step)

    def write(self, step: int) -> None:
        """One line on the steps since the last."""
        if not self._steps:
            return
        pace = (time.perf_counter() - self._since) / self._steps  # seconds a step
        line = {key: total / self._steps for key, total in self._sums.items()}
        line |= {"lr": self._lr, "words_per_s": self._words / pace, "left_s": pace * (self._total - step)}
        self.note(step, line)
        self._bar.set_postfix(loss=f"{line['loss']:.3f}", words_per_s=f"{line['words_per_s']:.0f}")
        self._sums, self._steps, self._since = {}, 0, time.perf_counter()

    def note(self, step: int, values: dict[str, float]) -> None:
        """A line of these numbers, and the same for TensorBoard."""
        if self._log:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **{key: round(value, 7) for key, value in values.items()}}) + "\n")
        if self._board:
            for key, value in values.items():
                self._board.add_scalar(key, value, step)
            self._board.flush()
