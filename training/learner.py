"""The model with what only training needs: its losses and an auxiliary CTC head."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from training.data.stream import Batch
from training.distill import divergence
from training.model.robustscanner import RobustScanner
from training.qat import Quantisation


class Losses(NamedTuple):
    """Of one step; scalars."""

    read: Tensor  # cross entropy, mean over the characters
    ctc: Tensor
    distill: Tensor  # divergence from the teacher, mean over the characters


class Learner(nn.Module):
    """Computes the losses of a batch."""

    def __init__(
        self, model: RobustScanner, ctc_weight: float, *, temperature: float = 1.0, quantised: bool = False
    ) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature
        # Joint CTC and attention training aligns the features long before attention alone would (arXiv:1609.06773).
        self.ctc_head = nn.Linear(model.backbone.channels, len(model.spec.charset.tokens) + 1)
        self.uses_ctc = ctc_weight > 0
        self.ctc_head.requires_grad_(self.uses_ctc)
        self.quantisation = Quantisation(model) if quantised else None

    def forward(self, batch: Batch, taught: Tensor | None = None) -> Losses:
        """All losses; `taught` are a teacher's logits (N, T, classes) for the same batch."""
        inputs, targets = batch.tokens[:, :-1], batch.tokens[:, 1:]
        features = self.model.features(batch.images)  # (N, C, H, W)
        memory = self.model.remember(features, batch.valid_width, inputs.shape[1])
        logits = self.model.decoder(inputs, memory)[0].float()  # (N, T, classes)
        pad = self.model.spec.charset.pad_id
        # The classifier need not be able to emit pad, so ignored targets must not be checked against its classes.
        read = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=pad)
        ctc = self._ctc(features, batch) if self.uses_ctc else read.new_zeros(())
        if taught is None:
            return Losses(read, ctc, read.new_zeros(()))
        counted = targets != pad  # (N, T)
        return Losses(read, ctc, divergence(logits[counted], taught[counted], self.temperature))

    def _ctc(self, features: Tensor, batch: Batch) -> Tensor:
        charset = self.model.spec.charset
        columns = self.ctc_head(features.mean(2).transpose(1, 2)).float()  # (N, W, tokens + blank)
        labels = batch.tokens[:, 1:].clone()
        is_character = (labels != charset.end_id) & (labels != charset.pad_id)
        return F.ctc_loss(
            columns.log_softmax(-1).transpose(0, 1),  # (W, N, tokens + blank)
            labels,
            batch.valid_width.long() // self.model.backbone.shrink[1],
            is_character.sum(1),
            blank=columns.shape[2] - 1,
            zero_infinity=True,  # a label longer than its picture has columns teaches nothing
        )
