"""Picture to feature map: the paper's ResNet31, and a light backbone that shrinks the picture early."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustscanner.spec import NetworkSpec
from training.model.small import SmallNet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected where the channel count changes."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module = nn.Identity()
        if in_channels != channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.relu2 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        y = self.relu1(self.bn1(self.conv1(x)))
        out: Tensor = self.relu2(self.bn2(self.conv2(y)) + self.downsample(x))
        return out


def _conv_bn_relu(
    in_channels: int, channels: int, *, stride: int | tuple[int, int] = 1, kernel: int = 3
) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


def _blocks(in_channels: int, channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(BasicBlock(in_channels if i == 0 else channels, channels) for i in range(count)))


class ResNet31(nn.Module):
    """The backbone of SAR and RobustScanner, (N, 3, H, W) -> (N, 512, H/8, W/4); names as in MMOCR and PaddleOCR."""

    channels = 512
    shrink = (8, 4)  # height, width

    def __init__(self) -> None:
        super().__init__()
        # These convolutions have a bias although BN follows: the published checkpoints hold one.
        self.conv1_1, self.bn1_1 = nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64)
        self.conv1_2, self.bn1_2 = nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.block2 = _blocks(128, 256, 1)
        self.conv2, self.bn2 = nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256)
        self.block3 = _blocks(256, 256, 2)
        self.conv3, self.bn3 = nn.Conv2d(256, 256, 3, padding=1), nn.BatchNorm2d(256)
        self.block4 = _blocks(256, 512, 5)
        self.conv4, self.bn4 = nn.Conv2d(512, 512, 3, padding=1), nn.BatchNorm2d(512)
        self.block5 = _blocks(512, 512, 3)
        self.conv5, self.bn5 = nn.Conv2d(512, 512, 3, padding=1), nn.BatchNorm2d(512)
        self.relu1_1, self.relu1_2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.relu2, self.relu3 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
        self.relu4, self.relu5 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, H, W)
        x = self.relu1_1(self.bn1_1(self.conv1_1(x)))
        x = self.relu1_2(self.bn1_2(self.conv1_2(x)))
        x = F.max_pool2d(x, 2, 2)  # (N, 128, H/2, W/2)
        x = self.relu2(self.bn2(self.conv2(self.block2(x))))
        x = F.max_pool2d(x, 2, 2)  # (N, 256, H/4, W/4)
        x = self.relu3(self.bn3(self.conv3(self.block3(x))))
        x = F.max_pool2d(x, (2, 1), (2, 1))  # (N, 256, H/8, W/4)
        x = self.relu4(self.bn4(self.conv4(self.block4(x))))
        out: Tensor = self.relu5(self.bn5(self.conv5(self.block5(x))))  # (N, 512, H/8, W/4)
        return out


class EdgeNet(nn.Module):
    """Plain 3x3 convolutions, (N, 3, H, W) -> (N, 160, H/16, W/4) with the default widths.

    Only convolution, BN, ReLU and residual sums, every channel count a multiple of 32 after the stem: all of it has
    fast INT8 kernels on CPUs and in TensorRT, and no depthwise layer whose weight ranges quantise badly.
    Strides instead of pooling, and the first one at once, because the full-resolution layers cost most in training.
    """

    shrink = (16, 4)  # height, width

    def __init__(self, widths: tuple[int, ...] = (32, 64, 96, 160)) -> None:
        super().__init__()
        half, quarter, eighth, self.channels = widths
        self.layers = nn.Sequential(
            _conv_bn_relu(3, half, stride=2),  # (N, 32, H/2, W/2)
            _conv_bn_relu(half, half),
            _conv_bn_relu(half, quarter, stride=2),  # (N, 64, H/4, W/4)
            BasicBlock(quarter, quarter),
            _conv_bn_relu(quarter, eighth, stride=(2, 1)),  # (N, 96, H/8, W/4)
            BasicBlock(eighth, eighth),
            _conv_bn_relu(eighth, self.channels, stride=(2, 1)),  # (N, 160, H/16, W/4)
            _conv_bn_relu(self.channels, self.channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def build_backbone(spec: NetworkSpec) -> ResNet31 | EdgeNet | SmallNet:
    """The backbone a spec asks for."""
    if spec.backbone == "r31":
        return ResNet31()
    if spec.backbone == "small":
        return SmallNet(spec.blocks)
    return EdgeNet(spec.widths) if spec.widths else EdgeNet()


def initialise(module: nn.Module) -> None:
    """He initialisation of convolutions (arXiv:1502.01852), BN as identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, BasicBlock):
                layer.bn2.weight.fill_(0.5)  # a quiet residual branch at the start trains more evenly
