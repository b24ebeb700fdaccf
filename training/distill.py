"""Distillation: a student learns what a larger model answers, its doubts included."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from robustscanner.errors import SpecError
from robustscanner.spec import InputSpec, ModelSpec
from training.checkpoint import load_checkpoint
from training.data.stream import Batch
from training.model.robustscanner import RobustScanner
from training.model.small import SmallNet


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


class Lesson(NamedTuple):
    """What a teacher makes of a batch."""

    logits: Tensor | None  # (N, T, classes), after the same label, where they were asked for
    columns: Tensor | None  # (N, U, classes + 1) logits of its CTC classifier, if CTC has a say in what it reads
    features: Tensor  # (N, C, H', W'), of the borrowed part of `small`


@torch.no_grad()
def teach(teacher: RobustScanner, batch: Batch, *, answers: bool = True) -> Lesson:
    """What the teacher sees, and its answers where they count; they cost as much as the rest of a small teacher."""
    if isinstance(teacher.backbone, SmallNet):
        features, columns = teacher.backbone.see(teacher.normalise(batch.images))
        seen = teacher.backbone.merge(features, columns)
    else:
        seen = teacher.see(batch.images)
        features = seen.features
    memory = None
    if answers or seen.columns is None:
        memory = teacher.remember(seen, batch.valid_width, batch.tokens.shape[1] - 1)
    logits = teacher.decoder(batch.tokens[:, :-1], memory).logits.float() if answers else None
    heard = teacher.ctc_head(teacher.columns(seen, memory)).float() if teacher.ctc_head else None
    return Lesson(logits, heard, features.float())


def column_divergence(logits: Tensor, taught: Tensor, inside: Tensor) -> Tensor:
    """Mean over columns of the divergence from a teacher's columns, of which each stands for one or more of ours.

    Args:
        logits: (N, U, classes + 1).
        taught: (N, U / k, classes + 1) for a whole k.
        inside: (N, U), which columns count.
    """
    taught = taught.repeat_interleave(logits.shape[1] // taught.shape[1], 1)
    apart = F.kl_div(logits.log_softmax(-1), taught.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return (apart * inside).sum() / inside.sum()


def feature_distance(features: Tensor, taught: Tensor) -> Tensor:
    """Mean squared distance of feature maps (N, C, H, W), in units of the teacher's variance."""
    return F.mse_loss(features, taught) / taught.var().clamp_min(1e-6)


def divergence(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of flattened distributions (arXiv:1503.02531), both (characters, classes); a scalar.

    Times the squared temperature, so that its gradient keeps its size beside the cross entropy's.
    """
    expected, got = (taught / temperature).log_softmax(-1), (logits / temperature).log_softmax(-1)
    return F.kl_div(got, expected, reduction="batchmean", log_target=True) * temperature**2


def _canvas(spec: InputSpec) -> tuple[object, ...]:
    """What decides the pixels; how they become numbers is each model's own."""
    sizes = (spec.height_px, spec.width_px, spec.min_width_px, spec.width_multiple_px, spec.width_rule, spec.resize)
    return *sizes, spec.canvas_step_px, spec.canvas_margin_px
