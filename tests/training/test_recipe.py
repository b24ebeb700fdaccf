"""«From nothing to a good reader» of docs/training.md, for a few steps of a few words."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from training import adopt_encoder, release, train
from training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
FEW = ("batch_size=4", "bucket_batches=2", "warmup_steps=5", "ema_decay=0.8", "photo_pattern=", "held_out_share=0.1")


def run_training(monkeypatch: pytest.MonkeyPatch, config: str, output: Path, *arguments: str, steps: int) -> None:
    settings = [part for setting in (*FEW, f"steps={steps}", f"validate_every={steps}") for part in ("--set", setting)]
    machine = ["--workers", "0", "--threads", str(torch.get_num_threads()), "--device", "cpu"]
    program = ["train.py", str(CONFIGS / config), "-o", str(output)]
    monkeypatch.setattr("sys.argv", [*program, *machine, *settings, *arguments])
    assert train.main() == 0


@pytest.mark.skipif(find_spec("rapidocr") is None, reason="rapidocr, whose wheel holds the encoder, is not installed")
def test_from_the_borrowed_encoder_to_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    start, first, second = tmp_path / "start.safetensors", tmp_path / "first", tmp_path / "second"
    words = tmp_path / "words.txt"
    words.write_text("EXIT\nBakery\n24\n")
    data = ("--words", str(words), "--crops", str(ROOT / "calib_data"))

    monkeypatch.setattr("sys.argv", ["adopt_encoder.py", "-o", str(start)])
    assert adopt_encoder.main() == 0
    run_training(monkeypatch, "small.yaml", first, *data, "--init-from", str(start), steps=30)
    run_training(monkeypatch, "small-all.yaml", second, *data, "--init-from", str(first / "best.safetensors"), steps=2)
    monkeypatch.setattr(
        "sys.argv", ["release.py", str(second / "best.safetensors"), "-o", str(tmp_path / "r.safetensors")]
    )
    assert release.main() == 0

    log = [json.loads(line) for line in (first / "log.jsonl").read_text().splitlines()]
    assert max(line.get("held_out", 0) for line in log) > 0.5  # CTC is borrowed whole; a decoder of noise reads nothing
    model, history = load_checkpoint(tmp_path / "r.safetensors")
    assert model.spec.network.ctc_weight > 0
    assert "PP-OCRv6" in json.dumps(history)
