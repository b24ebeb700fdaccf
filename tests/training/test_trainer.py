"""The loop: it learns, it resumes where it stopped, and what it writes can be read again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from robustscanner.errors import SpecError
from robustscanner.labels import LabelledCrop
from robustscanner.spec import CharsetSpec, ModelSpec, NetworkSpec
from tests.training.small import batches, make_batch, make_crops, run, small_config, weights
from training.checkpoint import load_checkpoint, load_ranges, load_tensors, save_checkpoint, save_tensors
from training.config import ConfigError
from training.data.folder import HoldOut
from training.learner import Learner
from training.model.robustscanner import RobustScanner
from training.precision import trains_in_bfloat16
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def crops(tmp_path: Path) -> list[LabelledCrop]:
    return make_crops(tmp_path)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the other process has: sums in another order differ in the last bit
    yield
    torch.set_num_threads(threads)


def log_of(trainer: Trainer) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in trainer.folder.log.read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in lines]


def test_learns_a_batch_by_heart() -> None:
    config = small_config(learning_rate=1e-2, steps=30, warmup_steps=4)
    trainer = Trainer(config, Path("unused"), [])
    batch = make_batch(config, 0)
    losses = [trainer.train_step(batch) for _ in range(30)]
    assert losses[-1]["loss"] < 0.7 * losses[0]["loss"]
    assert losses[-1]["ctc"] < losses[0]["ctc"]


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    config = small_config(validate_every=1)
    whole = Trainer(config, tmp_path / "whole", crops)
    run(whole)
    first = Trainer(config, tmp_path / "parts", crops)
    for batch in list(batches(config))[:2]:
        first.train_step(batch)
    first.save()
    second = Trainer(config, tmp_path / "parts", crops)
    second.resume()
    assert second.step == 2
    run(second)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))
    best, again = (load_tensors(trainer.folder.best)[0] for trainer in (whole, second))
    assert all(torch.equal(best[name], again[name]) for name in best)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_continues_on_the_same_curve(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    config = small_config(steps=24)
    whole = Trainer(config, tmp_path / "whole", crops)
    run(whole)
    command = [sys.executable, "-m", "tests.training.small", str(tmp_path), str(config.steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(ROOT)])}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        log = tmp_path / "run" / "log.jsonl"
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 5):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "it ended before it could be killed"
    second = Trainer(config, tmp_path / "run", crops)
    second.resume()
    assert 0 < second.step < config.steps
    second.folder.rewind_log(second.step)
    run(second)
    assert log_of(second) == log_of(whole)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(second), strict=True))


def test_an_older_state_without_average_resumes(tmp_path: Path) -> None:
    trainer = Trainer(small_config(ema_decay=0.0), tmp_path, [])
    trainer.train_step(make_batch(trainer.config, 0))
    trainer.save()
    tensors, metadata = load_tensors(trainer.folder.states()[-1])
    trainer.folder.states()[-1].unlink()
    kept = {key: metadata[key] for key in ("step", "best", "robustscanner.spec")}
    save_tensors(tmp_path / "last.safetensors", tensors, kept)
    later = Trainer(small_config(), tmp_path, [])
    later.resume()
    assert later.step == 1
    assert later.average is not None
    assert torch.equal(later.average.tensors["encoder.weight"], trainer.model.encoder.weight)


def test_keeps_the_newest_states_and_the_best_model(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    run(Trainer(small_config(steps=6, checkpoint_every=1, keep_checkpoints=2), tmp_path / "run", crops))
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["best.safetensors", "log.jsonl", "step-00000005.safetensors", "step-00000006.safetensors"]


def test_writes_a_best_checkpoint_and_a_log(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    trainer = Trainer(small_config(), tmp_path, crops)
    run(trainer)
    model, history = load_checkpoint(tmp_path / "best.safetensors")
    assert model.spec == trainer.config.spec
    assert history[0]["held_out"]["words"] == 3
    assert [line["step"] for line in log_of(trainer) if "loss" in line] == [1, 2, 3, 4]
    assert [line for line in log_of(trainer) if "loss" not in line] == [
        {"step": 2, "held_out": 0.0},
        {"step": 4, "held_out": 0.0},
    ]


def test_what_is_validated_and_shipped_is_the_average(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    trainer = Trainer(small_config(ema_decay=0.9), tmp_path, crops)
    run(trainer)
    shipped, _ = load_checkpoint(trainer.folder.best)
    assert trainer.average is not None
    assert torch.equal(shipped.encoder.weight, trainer.average.tensors["encoder.weight"])
    assert not torch.equal(shipped.encoder.weight, trainer.model.encoder.weight)


def test_resume_refuses_another_model(tmp_path: Path) -> None:
    Trainer(small_config(), tmp_path, []).save()
    with pytest.raises(SpecError, match="another model"):
        Trainer(small_config(name="other"), tmp_path, []).resume()
    with pytest.raises(SpecError, match="no state"):
        Trainer(small_config(), tmp_path / "elsewhere", []).resume()


def test_loss_that_is_no_number_stops_the_run() -> None:
    trainer = Trainer(small_config(), Path("unused"), [])
    with torch.no_grad():
        trainer.model.encoder.weight.fill_(float("nan"))
    with pytest.raises(SpecError, match="loss is nan"):
        trainer.train_step(make_batch(trainer.config, 0))


def test_precisions_of_a_cpu() -> None:
    half = Trainer(small_config(precision="bf16"), Path("unused"), [])
    full = Trainer(small_config(), Path("unused"), [])
    first, second = (trainer.train_step(make_batch(half.config, 0))["loss"] for trainer in (half, full))
    assert first == pytest.approx(second, rel=0.02)
    assert (first != second) == trains_in_bfloat16()
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        Trainer(small_config(precision="fp16"), Path("unused"), [])


def test_gradients_are_clipped() -> None:
    moved = []
    for norm in (0.0, 1e-9):  # Adam's own epsilon is 1e-8: gradients below it hardly move anything
        trainer = Trainer(small_config(clip_norm=norm, weight_decay=0.0, warmup_steps=0), Path("unused"), [])
        before = trainer.model.encoder.weight.detach().clone()
        trainer.train_step(make_batch(trainer.config, 0))
        moved.append(float((trainer.model.encoder.weight - before).abs().mean().detach()))
    assert moved[1] < 0.1 * moved[0]


def test_padding_does_not_change_the_loss() -> None:
    config = small_config()
    learner = Learner(RobustScanner(config.spec), 0.3).eval()
    batch = make_batch(config, 0)
    pad = config.spec.charset.pad_id
    longer = batch._replace(tokens=torch.cat([batch.tokens, torch.full((4, 2), pad)], 1))
    for short, long in zip(learner(batch), learner(longer), strict=True):
        assert torch.allclose(short, long, atol=1e-5)


def spec() -> ModelSpec:
    return ModelSpec("c", CharsetSpec.of("abc"), network=NetworkSpec("edge", 16, 6, (8, 8, 16, 16)))


def test_checkpoint_holds_its_spec(tmp_path: Path) -> None:
    model = RobustScanner(spec()).eval()
    save_checkpoint(tmp_path / "m.safetensors", model, [{"step": "train"}])
    loaded, history = load_checkpoint(tmp_path / "m.safetensors")
    assert loaded.spec == spec()
    assert history == [{"step": "train"}]
    assert load_ranges(tmp_path / "m.safetensors") == {}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_bad_checkpoints_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = RobustScanner(spec())
    save_checkpoint(path, model, [])
    tensors, metadata = load_tensors(path)
    cases = {
        "NaN or infinity": (tensors | {"encoder.bias": tensors["encoder.bias"] * float("nan")}, metadata),
        "do not fit the spec": ({k: v for k, v in tensors.items() if k != "encoder.bias"}, metadata),
        "holds no model spec": (tensors, {}),
    }
    for message, (bad, about) in cases.items():
        save_tensors(path, bad, about)
        with pytest.raises(SpecError, match=message) as error:
            load_checkpoint(path)
        assert "\n" not in str(error.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SpecError, match="no readable safetensors"):
        load_checkpoint(path)


def test_held_out_part_is_stable_and_about_as_large_as_asked() -> None:
    crops = [LabelledCrop(Path("set/images") / f"{i}.png", "x") for i in range(2000)]
    held = [HoldOut(0.1).keeps(crop) for crop in crops]
    assert 140 < sum(held) < 260
    assert held == [HoldOut(0.1).keeps(crop) for crop in crops]


def test_crops_of_one_photo_are_held_out_together() -> None:
    held_out = HoldOut(0.3, r"\d+(?=_\d+\.)")
    crops = [LabelledCrop(Path("set/images") / f"{photo}_{i}.png", "x") for photo in range(50) for i in range(5)]
    kept = {photo: {held_out.keeps(crop) for crop in crops[5 * photo : 5 * photo + 5]} for photo in range(50)}
    assert all(len(answers) == 1 for answers in kept.values())
    assert 5 < sum(answers == {True} for answers in kept.values()) < 25


def test_a_run_without_validation_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Trainer(small_config(), tmp_path, [])
    assert [message.split(":")[0] for message in caplog.messages] == ["no held-out words"]


def test_validation_that_would_measure_nothing_is_refused(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    foreign = [LabelledCrop(crop.path, "где") for crop in crops]
    with pytest.raises(
        ConfigError, match="validation: none of 3 labels has a character that counts by --protocol alpha"
    ):
        Trainer(small_config(protocol="alphanumeric"), tmp_path, foreign)


def test_labels_that_nobody_can_read_are_told(
    tmp_path: Path, crops: list[LabelledCrop], caplog: pytest.LogCaptureFixture
) -> None:
    trainer = Trainer(small_config(), tmp_path, [*crops, LabelledCrop(crops[0].path, "1€")])
    assert "1 of 4 labels hold characters that this model cannot read, such as '€' (U+20AC)" in caplog.messages[0]
    run(trainer)
    history = load_checkpoint(trainer.folder.best)[1]
    assert history[-1]["protocol"] == "ignore-case"
