"""Strided depthwise convolutions in float32 on a CPU, whatever the precision of a run.

oneDNN has no fast backward pass for them in bfloat16: it takes 2 to 12 times as long as in float32, and was a third
of what a light encoder costs to train.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Float32Conv2d(nn.Conv2d):
    """A convolution that autocast leaves in float32 on a CPU; what comes out has the type of what went in."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float()).to(x.dtype)


def strided_in_float32(body: nn.Module) -> None:
    """Replaces each strided depthwise convolution within `body` by a `Float32Conv2d` of the same weights."""
    for parent in list(body.modules()):
        for name, child in parent.named_children():
            if type(child).forward is nn.Conv2d.forward and _is_strided_depthwise(child):
                setattr(parent, name, _of(child))


def _is_strided_depthwise(conv: nn.Module) -> bool:
    assert isinstance(conv, nn.Conv2d)
    return conv.groups == conv.in_channels > 1 and max(conv.stride) > 1


def _of(conv: nn.Module) -> Float32Conv2d:
    assert isinstance(conv, nn.Conv2d)
    made = Float32Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        conv.stride,  # type: ignore[arg-type]
        conv.padding,  # type: ignore[arg-type]
        conv.dilation,  # type: ignore[arg-type]
        conv.groups,
        conv.bias is not None,
        conv.padding_mode,
        device="meta",  # no weights are drawn, which would change those of what is built next
    )
    made.weight, made.bias = conv.weight, conv.bias
    return made.train(conv.training)
