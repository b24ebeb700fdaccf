"""The loop: it learns, it resumes where it stopped, and what it writes can be read again."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from robustscanner.charset import Charset
from robustscanner.errors import SpecError
from robustscanner.spec import CharsetSpec, ModelSpec, NetworkSpec
from training.checkpoint import load_checkpoint, load_tensors, save_checkpoint, save_tensors
from training.config import ConfigError, TrainConfig, load_config
from training.data.folder import LabelledCrop, is_held_out
from training.data.stream import Batch, WordStream, encode_label
from training.data.synth import WordSynthesizer
from training.model.robustscanner import RobustScanner
from training.trainer import Learner, Report, Trainer

ROOT = Path(__file__).parents[2]


class SilentBar:
    def update(self) -> None: ...
    def set_postfix(self, **values: str) -> None: ...


def small_config(**changes: object) -> TrainConfig:
    settings = {
        "batch_size": 4,
        "steps": 4,
        "warmup_steps": 2,
        "validate_every": 2,
        "checkpoint_every": 2,
        "max_length": 8,
    }
    return TrainConfig(**{"name": "small", "characters": "0123456789ab", "precision": "fp32", **settings, **changes})


def batches(config: TrainConfig, count: int) -> list[Batch]:
    rng, charset = np.random.default_rng(0), config.spec.charset
    made = []
    for _ in range(count):
        images = [rng.integers(0, 256, (30, int(rng.integers(30, 90)), 3), np.uint8) for _ in range(config.batch_size)]
        labels = [Charset(charset).encode("".join(rng.choice(list(config.characters), 3))) for _ in images]
        made.append(Batch.of(images, labels, config.spec))
    return made


@pytest.fixture
def crops(tmp_path: Path) -> list[LabelledCrop]:
    path = tmp_path / "word.png"
    cv2.imwrite(str(path), np.full((20, 50, 3), 200, np.uint8))
    return [LabelledCrop(path, "12")]


def run(trainer: Trainer, data: list[Batch], log: Path) -> None:
    trainer.folder.mkdir(exist_ok=True)
    trainer.run(iter(data[trainer.step :]), Report(log, SilentBar(), every=1))


def test_learns_a_batch_by_heart() -> None:
    config = small_config(learning_rate=3e-3, steps=20, warmup_steps=4)
    trainer = Trainer(config, Path("unused"), [])
    batch = batches(config, 1)[0]
    losses = [trainer.train_step(batch) for _ in range(20)]
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < losses[0][1]


def test_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    config = small_config()
    data = batches(config, 4)
    whole = Trainer(config, tmp_path / "whole", crops)
    run(whole, data, tmp_path / "log")
    first = Trainer(small_config(steps=2), tmp_path / "parts", crops)
    first.config = config  # stopped half-way, not planned shorter: the schedule is the whole run's
    for batch in data[:2]:
        first.train_step(batch)
    first.save()
    second = Trainer(config, tmp_path / "parts", crops)
    second.resume()
    assert second.step == 2
    run(second, data, tmp_path / "log")
    for a, b in zip(whole.learner.state_dict().values(), second.learner.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_writes_a_best_checkpoint_and_a_log(tmp_path: Path, crops: list[LabelledCrop]) -> None:
    config = small_config()
    trainer = Trainer(config, tmp_path, crops)
    run(trainer, batches(config, 4), tmp_path / "log.jsonl")
    model, history = load_checkpoint(tmp_path / "best.safetensors")
    assert model.spec == config.spec
    assert history[0]["held_out"]["words"] == 1
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [1, 2, 3, 4]


def test_resume_refuses_another_model(tmp_path: Path) -> None:
    trainer = Trainer(small_config(), tmp_path, [])
    trainer.save()
    other = Trainer(small_config(name="other"), tmp_path, [])
    with pytest.raises(SpecError, match="another model"):
        other.resume()


def test_loss_that_is_no_number_stops_the_run() -> None:
    config = small_config()
    trainer = Trainer(config, Path("unused"), [])
    with torch.no_grad():
        trainer.model.encoder.weight.fill_(float("nan"))
    with pytest.raises(SpecError, match="loss is nan"):
        trainer.train_step(batches(config, 1)[0])


def test_padding_does_not_change_the_loss() -> None:
    config = small_config()
    learner = Learner(RobustScanner(config.spec), 0.3).eval()
    batch = batches(config, 1)[0]
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


def test_config_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: x\nsteps: 5\n")
    assert load_config(path, ["steps=7", "resize=linear"]).steps == 7
    for overrides, message in [(["stepz=7"], "stepz"), (["steps=many"], "steps"), (["precision=fp8"], "precision")]:
        with pytest.raises(ConfigError, match=message):
            load_config(path, overrides)
    for shipped in (ROOT / "training" / "configs").glob("*.yaml"):
        load_config(shipped)


def test_labels_lose_spaces_and_unknown_ones_are_left_out() -> None:
    charset = Charset(CharsetSpec.of("ab"))
    assert encode_label("a b", charset, 9) == [0, 1]
    assert encode_label("äb", charset, 9) is None
    assert encode_label("", charset, 9) is None
    assert encode_label("a" * 9, charset, 9) is None


def test_held_out_part_is_stable_and_about_as_large_as_asked() -> None:
    crops = [LabelledCrop(Path("set/images") / f"{i}.png", "x") for i in range(2000)]
    held = [is_held_out(crop, 0.1) for crop in crops]
    assert 140 < sum(held) < 260
    assert held == [is_held_out(crop, 0.1) for crop in crops]


def test_stream_is_seeded(tmp_path: Path) -> None:
    words = WordSynthesizer(["cab", "bac"], characters="abc", fonts=[])
    model = spec()

    def first(seed: int) -> Batch:
        return next(iter(WordStream(model, words, [], real_share=0.5, batch_size=3, bucket_batches=2, seed=seed)))

    assert torch.equal(first(1).images, first(1).images)
    assert not torch.equal(first(1).images, first(2).images)
