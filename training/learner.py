"""The model with what only training needs: its losses and an auxiliary CTC head."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.alignment import align_letters, guidance
from training.data.stream import Batch
from training.distill import Lesson, column_divergence, divergence, feature_distance
from training.model.robustscanner import RobustScanner
from training.model.small import Seen, SmallNet
from training.qat import Quantisation


class Losses(NamedTuple):
    """Of one step; scalars."""

    read: Tensor  # cross entropy, mean over the characters
    ctc: Tensor
    guide: Tensor  # how far attention is from the letters, mean over the characters
    distill: Tensor  # divergence from the teacher, mean over the characters
    columns: Tensor  # divergence from what the teacher's CTC says of each column
    features: Tensor  # distance from the teacher's features


def borrowed(model: RobustScanner) -> Iterator[nn.Parameter]:
    """What a start from `training/adopt_encoder.py` has learnt already; the whole backbone of other networks."""
    backbone = model.backbone
    for name, parameter in backbone.named_parameters():
        if not (isinstance(backbone, SmallNet) and name.startswith(SmallNet.own)):
            yield parameter
    if model.ctc_head is not None:
        yield from model.ctc_head.parameters()


class Learner(nn.Module):
    """Computes the losses of a batch."""

    def __init__(
        self,
        model: RobustScanner,
        ctc_weight: float,
        *,
        temperature: float = 1.0,
        quantised: bool = False,
        frozen: bool = False,
        guided: bool = False,
        teacher_channels: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.temperature, self.frozen, self.guided = model, temperature, frozen, guided
        self.uses_ctc = ctc_weight > 0
        if model.ctc_head is None:
            # Joint CTC and attention training aligns the features long before attention alone would
            # (arXiv:1609.06773); this head is thrown away afterwards.
            self.ctc_head = nn.Linear(model.column_channels, len(model.spec.charset.tokens) + 1)
            self.ctc_head.requires_grad_(self.uses_ctc)
        if frozen:
            for parameter in borrowed(model):
                parameter.requires_grad_(False)
        # From our features to the teacher's: thrown away afterwards.
        self.imitate = nn.Conv2d(model.backbone.channels, teacher_channels, 1) if teacher_channels else None
        self.quantisation = Quantisation(model) if quantised else None

    def forward(self, batch: Batch, lesson: Lesson | None = None) -> Losses:
        """All losses; the lesson is a teacher's, of the same batch."""
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        seen = self._see(batch.images)
        memory = self.model.remember(seen, batch.valid_width, inputs.shape[1])
        step = self.model.decoder(inputs, memory)
        logits = step.logits.float()  # (N, T, classes)
        pad = self.model.spec.charset.pad_id
        # The classifier need not be able to emit pad, so ignored targets must not be checked against its classes.
        read = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad)
        none = read.new_zeros(())
        is_heard = self.uses_ctc or self.guided or lesson is not None
        heard = self._head(self.model.columns(seen, memory)).float() if is_heard else none  # (N, U, classes + blank)
        ctc = self._ctc(heard, batch) if self.uses_ctc else none
        guide = self._guide(seen, heard, batch, (memory.weights, step.weights)) if self.guided else none
        if lesson is None:
            return Losses(read, ctc, guide, none, none, none)
        counted = targets != pad  # (N, T)
        distill = none
        if lesson.logits is not None:
            distill = divergence(logits[counted], lesson.logits[counted], self.temperature)
        columns = (
            none if lesson.columns is None else column_divergence(heard, lesson.columns, self._inside(heard, batch))
        )
        features = feature_distance(self.imitate(seen.features).float(), lesson.features) if self.imitate else none
        return Losses(read, ctc, guide, distill, columns, features)

    def _inside(self, heard: Tensor, batch: Batch) -> Tensor:
        """Which columns (N, U) hold some of the word, or stand next to it."""
        lefts = torch.arange(heard.shape[1], device=heard.device) * self.model.column_px
        return lefts < batch.valid_width[:, None] + self.model.column_px

    def _guide(self, seen: Seen, heard: Tensor, batch: Batch, weights: tuple[Tensor | None, ...]) -> Tensor:
        """Both branches' attention against the columns where CTC sees the letters."""
        labels, is_character = self._characters(batch)
        letters = align_letters(heard.detach().log_softmax(-1), labels, is_character.sum(1))
        letters = letters._replace(found=letters.found & is_character)
        height, scale = seen.features.shape[2], seen.features.shape[3] // heard.shape[1]
        losses = [guidance(each, letters, height, scale) for each in weights if each is not None]
        return torch.stack(losses).mean()

    @property
    def _head(self) -> nn.Module:
        return self.ctc_head if self.model.ctc_head is None else self.model.ctc_head

    def _characters(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels (N, T) without the start token, and where they are characters."""
        charset, labels = self.model.spec.charset, batch.tokens[:, 1:]
        return labels, (labels != charset.end_id) & (labels != charset.pad_id)

    def _see(self, images: Tensor) -> Seen:
        backbone = self.model.backbone
        if not self.frozen or not isinstance(backbone, SmallNet):
            return self.model.see(images)
        with torch.no_grad():
            seen = backbone.see(self.model.normalise(images))
        return backbone.merge(*seen)

    def _ctc(self, columns: Tensor, batch: Batch) -> Tensor:
        across = self.model.column_px
        labels, is_character = self._characters(batch)
        return F.ctc_loss(
            columns.log_softmax(-1).transpose(0, 1),  # (U, N, classes + blank)
            labels,
            (-(-batch.valid_width.long() // across)).clamp_max(columns.shape[1]),
            is_character.sum(1),
            blank=columns.shape[2] - 1,
            zero_infinity=True,  # a label longer than its picture has columns teaches nothing
        )
