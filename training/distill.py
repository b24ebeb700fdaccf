"""Distillation: a student learns what a larger model answers, its doubts included."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from robustscanner.errors import SpecError
from robustscanner.spec import InputSpec, ModelSpec
from training.checkpoint import load_checkpoint
from training.data.stream import Batch
from training.model.robustscanner import RobustScanner


def load_teacher(path: Path, student: ModelSpec) -> RobustScanner:
    """A checkpoint that can teach the student, in evaluation mode and without gradients.

    Raises:
        SpecError: not a checkpoint, another charset, other canvases, or fewer decoding steps.
    """
    model, _ = load_checkpoint(path)
    if model.spec.charset != student.charset:
        raise SpecError(f"{path}: reads other characters than the student; give the student the same characters")
    sees, shown = _canvas(model.spec.input), _canvas(student.input)
    if sees != shown:
        raise SpecError(f"{path}: was trained on canvases {sees}, the student's are {shown}; use the same")
    if model.spec.network.max_length < student.network.max_length:
        raise SpecError(f"{path}: reads {model.spec.network.max_length} steps; give the student the same max_length")
    return model.requires_grad_(False)


@torch.no_grad()
def teach(teacher: RobustScanner, batch: Batch) -> Tensor:
    """The teacher's logits (N, T, classes) after the same label."""
    logits: Tensor = teacher(batch.images, batch.valid_width, batch.tokens[:, :-1])
    return logits.float()


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of flattened distributions (arXiv:1503.02531), both (characters, classes); a scalar.

    Times the squared temperature, so that its gradient keeps its size beside the cross entropy's.
    """
    expected, got = (taught / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    return F.kl_div(got, expected, reduction="batchmean", log_target=True) * temperature**2


def _canvas(spec: InputSpec) -> tuple[object, ...]:
    """What decides the pixels; how they become numbers is each model's own."""
    return spec.height_px, spec.width_px, spec.min_width_px, spec.width_multiple_px, spec.width_rule, spec.resize
