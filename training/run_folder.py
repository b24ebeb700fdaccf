"""The folder of a run: its settings, its log, states to resume from, and the best model."""

import json
from collections.abc import Iterator
from pathlib import Path

_STATES = "step-*.safetensors"


class RunFolder:
    """Names and housekeeping; what is in the files is the trainer's business."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best = path / "best.safetensors"  # the model to ship
        self.log = path / "log.jsonl"  # losses
        self.config = path / "config.yaml"  # the settings in full
        self.tensorboard = path / "tensorboard"

    def state(self, step: int) -> Path:
        """Where the state after `step` steps goes."""
        return self.path / f"step-{step:08d}.safetensors"

    def states(self) -> list[Path]:
        """States to resume from, the newest last; runs of before there were several hold `last.safetensors`."""
        return [*self.path.glob("last.safetensors"), *sorted(self.path.glob(_STATES))]

    def rotate(self, keep: int) -> None:
        """Removes all states but the newest."""
        for old in self.states()[:-keep]:
            old.unlink()

    def clear(self) -> None:
        """Removes an earlier run, so that none of it is taken for this one's."""
        events = self.tensorboard.glob("events.*")
        for path in [*self.states(), self.best, self.log, self.config, *events]:
            path.unlink(missing_ok=True)

    def rewind_log(self, step: int) -> None:
        """Cuts off what a killed run logged after the state it resumes from."""
        if self.log.exists():
            kept = [line for line in _complete_lines(self.log) if json.loads(line)["step"] <= step]
            self.log.write_text("".join(kept), encoding="utf-8")


def _complete_lines(log: Path) -> Iterator[str]:
    """A kill may cut the last line short."""
    return (line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n"))
