"""The whole recogniser, from uint8 pixels to logits, built from a spec."""

import torch
from torch import Tensor, nn

from robustscanner.spec import ModelSpec
from training.model.backbone import build_backbone, initialise
from training.model.decoder import Decoder, Memory

MASKED = -1e30  # finite: softmax of a row of -inf is NaN, and half precision clips it to its own -inf


class RobustScanner(nn.Module):
    """RobustScanner (arXiv:2007.07542) as PaddleOCR and MMOCR implement it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.network)
        self.encoder = nn.Conv2d(self.backbone.channels, spec.network.hidden_size, 1)
        self.decoder = Decoder(spec, self.backbone.channels)
        initialise(self.backbone)

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

    def features(self, images: Tensor) -> Tensor:
        """uint8 RGB canvases (N, H, W, 3) to the backbone's feature map (N, C, H', W')."""
        feature_map: Tensor = self.backbone(self.normalise(images))
        return feature_map

    def remember(self, features: Tensor, valid_width: Tensor, length: int) -> Memory:
        """Feature map and valid widths (N) in pixels to the decoder's memory for `length` steps."""
        mask = self.mask(valid_width, *features.shape[2:])
        return self.decoder.remember(features, self.encoder(features), mask, length)

    def forward(self, images: Tensor, valid_width: Tensor, tokens: Tensor) -> Tensor:
        """Teacher-forced logits (N, T, classes); position t predicts label t + 1.

        Args:
            images: uint8 RGB (N, H, W, 3).
            valid_width: (N), pixels of the canvas that hold the word.
            tokens: (N, T), the start token and the label's ids, padded.
        """
        memory = self.remember(self.features(images), valid_width, tokens.shape[1])
        logits: Tensor = self.decoder(tokens, memory)[0]
        return logits

    @torch.no_grad()
    def greedy(self, images: Tensor, valid_width: Tensor, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """Reads: logits (N, steps, classes) and tokens (N, steps), all steps, whatever follows the end token kept."""
        steps = steps or self.spec.network.max_length
        memory = self.remember(self.features(images), valid_width, steps)
        return self.decoder.greedy(memory, self.spec.charset.start_id, steps)
