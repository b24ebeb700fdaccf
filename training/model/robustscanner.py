"""The whole recogniser, from uint8 pixels to logits, built from a spec."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustscanner.spec import ModelSpec
from training.model import joint
from training.model.backbone import build_backbone, initialise
from training.model.decoder import Decoder, Memory
from training.model.small import Seen, SmallNet

MASKED = -1e30  # finite: softmax of a row of -inf is NaN, and half precision clips it to its own -inf


class RobustScanner(nn.Module):
    """RobustScanner (arXiv:2007.07542) as PaddleOCR and MMOCR implement it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.network)
        self.encoder = nn.Conv2d(self.backbone.channels, spec.network.hidden_size, 1)
        self.decoder = Decoder(spec, self.backbone.channels)
        self.ctc_head: nn.Linear | None = None
        if spec.network.ctc_weight:
            self.ctc_head = nn.Linear(self.column_channels, spec.charset.class_count + 1)  # the blank last
        initialise(self.backbone)

    @property
    def column_channels(self) -> int:
        """Channels of what CTC reads."""
        return self.backbone.column_channels if isinstance(self.backbone, SmallNet) else self.spec.network.hidden_size

    @property
    def column_px(self) -> int:
        """Pixels of the canvas that one of CTC's columns stands for."""
        return self.backbone.shrink[1] * (1 if self.ctc_head is None and not isinstance(self.backbone, SmallNet) else 2)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 RGB canvases (N, H, W, 3) to float (N, 3, H, W)."""
        pixels = images.permute(0, 3, 1, 2).float()
        return (pixels - self.spec.input.mean) / self.spec.input.scale

    def mask(self, valid_width: Tensor, height: int, width: int) -> Tensor:
        """Valid widths (N) in pixels to what is added to attention scores of a feature map, (N, 1, height * width).

        A column of the feature map counts if its centre lies in the word: PaddleOCR's `int(W * ratio + 0.5)` columns.
        """
        across = self.backbone.shrink[1]
        centres = torch.arange(width, device=valid_width.device) * across + across // 2
        outside = centres.unsqueeze(0) > valid_width.unsqueeze(1)  # (N, W)
        columns = outside.to(torch.float32).unsqueeze(1) * MASKED  # (N, 1, W)
        return columns.repeat(1, 1, height)  # positions are rows first: (N, 1, H * W)

    def see(self, images: Tensor) -> Seen:
        """uint8 RGB canvases (N, H, W, 3) to the backbone's feature map (N, C, H', W'), and what it says of columns."""
        seen: Tensor | Seen = self.backbone(self.normalise(images))
        return seen if isinstance(seen, Seen) else Seen(seen)

    def remember(self, seen: Seen, valid_width: Tensor, length: int) -> Memory:
        """What was seen and valid widths (N) in pixels to the decoder's memory for `length` steps."""
        mask = self.mask(valid_width, *seen.features.shape[2:])
        return self.decoder.remember(seen.features, self.encoder(seen.features), mask, length)

    def columns(self, seen: Seen, memory: Memory | None) -> Tensor:
        """What CTC reads, (N, U, E). Where it has a say, pairs of columns become one: a quarter of the cost."""
        if seen.columns is not None:
            return seen.columns
        if self.ctc_head is None:
            return memory.columns
        return F.avg_pool1d(memory.columns.transpose(1, 2), 2).transpose(1, 2)

    def align(self, columns: Tensor) -> joint.Columns | None:
        """CTC's share of the memory, which only reading needs; None where CTC has no say."""
        if self.ctc_head is None:
            return None
        return joint.align(self.ctc_head(columns).float().softmax(-1), self.spec.charset.end_id)

    def forward(self, images: Tensor, valid_width: Tensor, tokens: Tensor) -> Tensor:
        """Teacher-forced logits (N, T, classes); position t predicts label t + 1.

        Args:
            images: uint8 RGB (N, H, W, 3).
            valid_width: (N), pixels of the canvas that hold the word.
            tokens: (N, T), the start token and the label's ids, padded.
        """
        memory = self.remember(self.see(images), valid_width, tokens.shape[1])
        logits: Tensor = self.decoder(tokens, memory)[0]
        return logits

    @torch.no_grad()
    def greedy(self, images: Tensor, valid_width: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Reads: logits (N, steps, classes) and tokens (N, steps), all steps, whatever follows the end token kept."""
        steps = steps or self.spec.network.max_length
        seen = self.see(images)
        memory = self.remember(seen, valid_width, steps)
        memory = memory._replace(ctc=self.align(self.columns(seen, memory)))
        network, charset = self.spec.network, self.spec.charset
        return self.decoder.greedy(memory, charset.start_id, steps, ctc_weight=network.ctc_weight)
