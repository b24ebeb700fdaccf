"""The program: wrong use in one line, a run, its resumption, and a start from another model."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from robustscanner.spec import CharsetSpec, ModelSpec
from training.checkpoint import load_checkpoint
from training.config import load_config
from training.train import main

SETTINGS = "name: t\ncharacters: abc\nprecision: fp32\nbatch_size: 2\nbucket_batches: 1\nwarmup_steps: 1\nsteps: 2\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with settings and labelled crops, to stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (tmp_path / "c.yaml").write_text(SETTINGS)
    (tmp_path / "crops").mkdir()
    for name in "abcd":
        cv2.imwrite(str(tmp_path / "crops" / f"{name}.png"), np.full((20, 30, 3), ord(name), np.uint8))
    (tmp_path / "crops" / "labels.tsv").write_text("a.png\ta\nb.png\tbc\nc.png\tcab\nd.png\tacb\n")
    return tmp_path


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    threads = str(torch.get_num_threads())
    options = ["c.yaml", "-o", "run", "--workers", "0", "--threads", threads, "--device", "cpu", *arguments]
    monkeypatch.setattr("sys.argv", ["train.py", *options])
    return main()


def test_trains_resumes_and_starts_anew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = project / "run"
    assert train(monkeypatch, "--crops", "crops", "--set", "seed=3") == 0
    assert load_config(run / "config.yaml") == load_config(project / "c.yaml", ["seed=3"])
    assert train(monkeypatch, "--crops", "crops") == 1
    assert train(monkeypatch, "--crops", "crops", "--set", "seed=3", "--set", "steps=3", "--resume") == 0
    assert [path.name for path in sorted(run.glob("step-*"))] == [
        "step-00000002.safetensors",
        "step-00000003.safetensors",
    ]
    steps = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if "loss" in line] == [2, 3]
    assert train(monkeypatch, "--crops", "crops", "--set", "steps=1", "--force") == 0
    assert [path.name for path in run.glob("step-*")] == ["step-00000001.safetensors"]


def test_starts_from_a_model_with_other_characters(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert train(monkeypatch, "--data", "crops") == 0
    (project / "run").rename(project / "first")
    options = ["--set", "characters=acz", "--set", "steps=1", "--init-from", "first/best.safetensors"]
    with caplog.at_level("INFO"):
        assert train(monkeypatch, "--data", "crops=2", *options) == 0
    assert "keeps 2 characters and all weights that depend on none; 1 are new: z; forgets 1: b" in caplog.text
    model, history = load_checkpoint(project / "run" / "best.safetensors")
    assert model.spec == ModelSpec("t", CharsetSpec.of("acz"), model.spec.input, model.spec.network)
    assert [step["steps"] for step in history] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no source of training words"),
        (["--crops", "crops", "--data", "crops"], "leave out --words and --crops"),
        (["--crops", "crops", "--set", "qat=true"], "--init-from"),
        (["--crops", "crops", "--resume"], "no state of a run"),
        (["--crops", "crops", "--set", "steps=x"], "not a whole number"),
        (["--crops", "crops", "--teacher", "none.safetensors"], "none.safetensors"),
    ],
)
def test_wrong_use_is_one_line(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert train(monkeypatch, *arguments) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not (project / "run").exists()
