"""A teacher's answers: their divergence, and which teachers are taken."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from robustscanner.errors import SpecError
from robustscanner.spec import CharsetSpec, InputSpec, NetworkSpec
from tests.training.small import make_batch, small_config
from training.checkpoint import save_checkpoint
from training.distill import Lesson, divergence, load_teacher
from training.learner import Learner
from training.model.robustscanner import RobustScanner
from training.trainer import Trainer


def test_divergence_is_zero_for_the_same_answers_and_positive_for_others() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    assert divergence(logits, logits + 7, 2.0).item() == pytest.approx(0, abs=1e-6)
    other = torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, 5.0]])
    p, q = logits[0].softmax(-1), other[0].softmax(-1)
    assert divergence(other, logits, 1.0).item() == pytest.approx(float((p * (p / q).log()).sum() / 2), rel=1e-5)


def test_its_gradient_keeps_its_size_at_high_temperature() -> None:
    sizes = []
    for temperature in (50.0, 100.0):
        logits = torch.zeros(1, 3, requires_grad=True)
        divergence(logits, torch.tensor([[1.0, 2.0, 3.0]]), temperature).backward()
        sizes.append(float(logits.grad.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.02)


def test_padding_teaches_nothing() -> None:
    config = small_config()
    learner = Learner(RobustScanner(config.spec), 0.0).eval()
    batch = make_batch(config, 0)
    taught = torch.randn(*batch.tokens[:, 1:].shape, config.spec.charset.class_count)
    longer = batch._replace(tokens=F.pad(batch.tokens, (0, 2), value=config.spec.charset.pad_id))
    with torch.no_grad():
        short = learner(batch, Lesson(taught, None, taught)).distill
        long = learner(longer, Lesson(F.pad(taught, (0, 0, 0, 2)), None, taught)).distill
    assert short.item() == pytest.approx(long.item(), rel=1e-4)


def test_a_student_comes_closer_to_its_teacher() -> None:
    apart = []
    for weight in (1e-9, 10.0):
        config = small_config(steps=20, learning_rate=1e-2, distill_weight=weight, ctc_weight=0.0)
        torch.manual_seed(5)
        teacher = RobustScanner(config.spec).eval().requires_grad_(False)
        teacher.decoder.prediction.bias += torch.randn(config.spec.charset.class_count)  # opinions of its own
        before = [weight.clone() for weight in teacher.parameters()]
        trainer = Trainer(config, Path("unused"), [], teacher=teacher)
        apart.append([trainer.train_step(make_batch(config, 0))["distill"] for _ in range(20)][-1])
        assert all(torch.equal(a, b) for a, b in zip(before, teacher.parameters(), strict=True))
    assert apart[1] < 0.5 * apart[0]


def test_answers_that_do_not_count_are_not_computed() -> None:
    config = small_config(distill_weight=0.0, features_weight=1.0)
    teacher = RobustScanner(config.spec).eval().requires_grad_(False)
    teacher.decoder.prediction.forward = None  # type: ignore[assignment]
    losses = Trainer(config, Path("unused"), [], teacher=teacher).train_step(make_batch(config, 0))
    assert losses["distill"] == 0
    assert losses["features"] > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charset": CharsetSpec.of("xyz")}, "other characters"),
        ({"input": InputSpec(resize="area")}, "canvases"),
        ({"network": NetworkSpec("edge", 16, 5, (8, 8, 16, 16))}, "max_length"),
    ],
)
def test_teachers_that_do_not_fit_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    student = small_config().spec
    save_checkpoint(tmp_path / "t.safetensors", RobustScanner(replace(student, **change)), [])
    with pytest.raises(SpecError, match=message):
        load_teacher(tmp_path / "t.safetensors", student)


def test_a_teacher_may_be_larger_and_read_further(tmp_path: Path) -> None:
    student = small_config().spec
    larger = replace(student, name="big", network=NetworkSpec("edge", 24, 12, (8, 8, 16, 32)))
    save_checkpoint(tmp_path / "t.safetensors", RobustScanner(larger), [])
    teacher = load_teacher(tmp_path / "t.safetensors", student)
    assert teacher.spec.name == "big"
    assert not teacher.training
