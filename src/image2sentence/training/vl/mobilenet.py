"""MobileNetV2 with folded batch norms, as TensorFlow's weights need it.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018. ReLU6 after every convolution but a
block's last; padding is TensorFlow's SAME, which at stride 2 is uneven. Batch norms are part of weights and biases, so
what is trained from here on is trained without them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# (expansion, width, blocks, stride of the first): table 2 of the paper
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM = 32
POOLED = 1280
"""Channels of the last convolution, whose mean over places is the network's feature."""


class SameConv(nn.Module):
    """A convolution with a bias and SAME padding; `active` puts a ReLU6 behind it."""

    def __init__(
        self,
        width_in: int,
        width: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> None:
        super().__init__()
        around = kernel // 2 if stride == 1 else 0  # as much on each side, whatever the picture's size
        self.conv = nn.Conv2d(width_in, width, kernel, stride, around, groups=groups)
        self.kernel, self.stride, self.active = kernel, stride, active
        with (
            torch.no_grad()
        ):  # no batch norm keeps the signal's size: He's deviation instead of PyTorch's own
            self.conv.weight.mul_(math.sqrt(6 if active else 3))
            self.conv.bias.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        side = int(x.shape[-1])
        total = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
        if total and self.stride > 1:
            before, after = total // 2, total - total // 2
            x = functional.pad(x, (before, after, before, after))
        y: Tensor = self.conv(x)
        return functional.relu6(y) if self.active else y


class Block(nn.Module):
    """Expand, filter each channel, project back; the input is added where shapes allow."""

    def __init__(self, width_in: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width_in * expansion
        self.expand = SameConv(width_in, inner) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(inner, inner, 3, stride, groups=inner)
        self.project = SameConv(inner, width, active=False)
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Pixels (B, 3, S, S), values in -1..1 -> the map of the last stage (B, 320, S / 32, S / 32).

    `stages` cuts the network off after so many of `STAGES`. `pooled=True` has the last convolution, which `pool` reads.
    """

    def __init__(self, stages: int = len(STAGES), pooled: bool = False) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        width_in = STEM
        for expansion, width, blocks, stride in STAGES[:stages]:
            steps = [stride] + [1] * (blocks - 1)
            widths = [width_in] + [width] * (blocks - 1)
            stage = [Block(w, width, s, expansion) for w, s in zip(widths, steps, strict=True)]
            self.stages.append(nn.Sequential(*stage))
            width_in = width
        self.width = width_in
        self.last = SameConv(width_in, POOLED) if pooled else None

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """The stem's map and each stage's, in order."""
        found = [self.stem(pixels)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found

    def pool(self, features: Tensor) -> Tensor:
        """The last stage's map -> the pooled feature (B, 1280)."""
        assert self.last is not None
        pooled: Tensor = self.last(features).mean((2, 3))
        return pooled

    def forward(self, pixels: Tensor) -> Tensor:
        return self.maps(pixels)[-1]


class TwoDepths(nn.Module):
    """Pixels (B, 3, S, S) -> a map (B, 416, S / 16, S / 16): the fifth stage's, beside the last one's, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MobileNetV2()

    def forward(self, pixels: Tensor) -> Tensor:
        maps = self.network.maps(pixels)
        fine, coarse = maps[5], maps[-1]
        enlarged = functional.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, enlarged], 1)
