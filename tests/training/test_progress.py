"""What a run says of itself, and how its folder is kept."""

import json
import sys
from pathlib import Path

import pytest

from tests.training.small import SilentBar
from training.config import ConfigError
from training.progress import Report, open_board
from training.run_folder import RunFolder


def lines(log: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_averages_over_the_steps_between_two_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    report = Report(log, SilentBar(), steps=100, words=8, every=2)
    for step, loss in enumerate((1.0, 3.0, 5.0), 1):
        report.add(step, {"loss": loss, "ctc": 2 * loss}, lr=0.1 * step)
    report.write(3)
    report.write(3)  # nothing new
    first, second = lines(log)
    assert (first["step"], first["loss"], first["ctc"], first["lr"]) == (2, 2.0, 4.0, 0.2)
    assert (second["step"], second["loss"]) == (3, 5.0)
    assert first["words_per_s"] > 0
    assert first["left_s"] == pytest.approx(98 * 8 / first["words_per_s"], rel=1e-3)


def test_numbers_go_to_tensorboard_as_well(tmp_path: Path) -> None:
    class Board:
        def __init__(self) -> None:
            self.seen: dict[tuple[str, int], float] = {}

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            self.seen[tag, step] = value

        def flush(self) -> None: ...

    board = Board()
    report = Report(tmp_path / "log.jsonl", SilentBar(), board, steps=9, words=8, every=1)
    report.add(1, {"loss": 0.5}, lr=0.1)
    report.note(1, {"held_out": 0.25})
    assert {tag: board.seen[tag, 1] for tag in ("loss", "lr", "held_out")} == {"loss": 0.5, "lr": 0.1, "held_out": 0.25}


def test_tensorboard_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        open_board(tmp_path, 0)


def test_tensorboard_gets_a_file(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = open_board(tmp_path / "board", 0)
    board.add_scalar("loss", 1.0, 1)
    board.flush()
    assert list((tmp_path / "board").glob("events.*"))


def test_a_log_is_rewound_to_the_state_and_loses_a_torn_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    folder.rewind_log(2)
    assert folder.log.read_text() == '{"step": 1}\n{"step": 2}\n'
    RunFolder(tmp_path / "empty").rewind_log(2)


def test_newest_state_is_last_and_an_old_runs_file_first(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.state(100), folder.state(20), tmp_path / "last.safetensors"):
        path.touch()
    assert folder.states() == [tmp_path / "last.safetensors", folder.state(20), folder.state(100)]
    folder.rotate(1)
    assert folder.states() == [folder.state(100)]


def test_clearing_leaves_foreign_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.state(1), folder.best, folder.log, folder.config, tmp_path / "mine.txt"):
        path.touch()
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
