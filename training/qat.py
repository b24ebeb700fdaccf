"""Quantisation-aware training: the backbone computes with the 8 bits that convert/int8 will write.

Weights int8 per output channel, activations uint8 per tensor, both rounded in the forward pass and passed straight
through in the backward one (arXiv:1712.05877). The encoder's and the decoder's convolutions stay float, as there.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model.backbone import BasicBlock
from training.model.robustscanner import RobustScanner

OBSERVED_SHARE = 0.5  # of the steps, in which ranges follow the activations; the rest learns to live with them
_FOLLOWING = 0.05  # how much of a batch's range goes into the running one
_LEVELS = 255  # of uint8, beside zero
_WEIGHT_LIMIT = 127


class Quantisation(nn.Module):
    """Turns a trained model into one that rounds, and knows the ranges of its activations.

    Batch normalisation is folded into the convolutions first and becomes an identity with a bias, so that what is
    rounded here is what the exporter folds and convert/int8 rounds.
    The model's tensors keep their names and shapes.
    """

    def __init__(self, model: RobustScanner) -> None:
        super().__init__()
        _fold_batch_norm(model.backbone)
        _round_weights(model.backbone)
        sites = dict(_sites(model.backbone, "/backbone"))
        self.names = list(sites)
        roundings = [Rounding() for _ in sites]
        self.roundings = nn.ModuleList(roundings)
        for site, rounding in zip(sites.values(), roundings, strict=True):
            site.register_forward_hook(rounding.replace_output)

    def observe(self, wanted: bool) -> None:
        """Whether ranges follow the activations of training batches."""
        for rounding in self._all():
            rounding.observing = wanted

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value by the tensor's name in the exported graph."""
        limits = [(rounding.low.item(), rounding.high.item()) for rounding in self._all()]
        return dict(zip(self.names, limits, strict=True))

    def _all(self) -> Iterator["Rounding"]:
        return (module for module in self.roundings if isinstance(module, Rounding))


class Rounding(nn.Module):
    """An activation rounded to 256 levels over its range, zero among them."""

    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.observing = True

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.observing:
            self._follow(x.detach())
        scale = (self.high - self.low) / _LEVELS
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # before the first batch, and where all is zero
        zero = (-self.low / scale).round().clamp(0, _LEVELS).int()
        return torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, _LEVELS)

    def replace_output(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        """As a hook on another module."""
        rounded: Tensor = self(output)
        return rounded

    def _follow(self, x: Tensor) -> None:
        low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
        share = torch.where(self.high > self.low, _FOLLOWING, 1.0)
        self.low += share * (low - self.low)
        self.high += share * (high - self.high)


class RoundingConv2d(nn.Conv2d):
    """A convolution with weights rounded per output channel."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        largest = self.weight.detach().abs().amax((1, 2, 3))  # (C out)
        scale = torch.where(largest > 0, largest / _WEIGHT_LIMIT, torch.ones_like(largest))
        zero = torch.zeros_like(scale, dtype=torch.int32)
        weight = torch.fake_quantize_per_channel_affine(self.weight, scale, zero, 0, -_WEIGHT_LIMIT, _WEIGHT_LIMIT)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class FoldedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that normalises nothing any more, and keeps a bias to train."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


@torch.no_grad()
def _fold_batch_norm(backbone: nn.Module) -> None:
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for conv, norm in zip(layers[::2], layers[1::2], strict=True):  # each convolution is followed by its own
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()  # (C)
        conv.weight.mul_(gain[:, None, None, None])
        mean = norm.running_mean.clone()
        if conv.bias is not None:
            mean.sub_(conv.bias)
            conv.bias.zero_().requires_grad_(False)
        norm.bias.sub_(mean * gain)
        norm.weight.fill_(1).requires_grad_(False)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)
        norm.__class__ = FoldedBatchNorm2d


def _round_weights(backbone: nn.Module) -> None:
    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels >= 4:  # the layer that sees pixels stays float
            layer.__class__ = RoundingConv2d


def _sites(module: nn.Module, scope: str) -> Iterator[tuple[str, nn.Module]]:
    """Modules whose outputs pass through 8 bits, by the name of that tensor in the exported graph.

    These are the tensors that `place` of convert/int8 chooses: outputs of ReLUs, and of the convolutions that a
    residual sum reads.
    """
    if isinstance(module, nn.ReLU):
        yield f"{scope}/Relu_output_0", module
    if isinstance(module, BasicBlock):
        yield f"{scope}/conv2/Conv_output_0", module.bn2
        if isinstance(module.downsample, nn.Sequential):
            yield f"{scope}/downsample/downsample.0/Conv_output_0", module.downsample
    for name, child in module.named_children():
        # The exporter names what lies in a sequence after the sequence.
        prefix = f"{scope.rpartition('/')[2]}." if isinstance(module, nn.Sequential) else ""
        yield from _sites(child, f"{scope}/{prefix}{name}")
