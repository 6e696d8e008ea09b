"""MobileNetV2's first thirteen blocks, from the TFLite file of the shared data: a teacher of general shapes.

What a network has learned from photographs of everything is in its maps halfway up, place by place. Its weights are
others' (Apache-2.0, github.com/google-coral/test_data) and do not ship; train_shapes.py has a branch of the tower
imitate its maps. The file's numbers are 8-bit; here they are read back as float32 (Sandler et al., "MobileNetV2", CVPR
2018, table 2; TensorFlow's SAME padding).
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

CHANNELS = 96
_STAGES = ((1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1))  # widening, blocks, stride of the first
_PREFIX = "MobilenetV2/"
_ENDS = {"weights": ("/weights_quant/FakeQuantWithMinMaxVars", 4), "bias": ("/BatchNorm_Fold/bias", 1)}

Weights = dict[tuple[str, str], NDArray[np.float32]]


def read_weights(path: Path) -> Weights:
    """Each convolution's weights and bias by (its name, "weights" or "bias").

    Raises:
        click.ClickException: there is no such file, or no reader for it is installed.
    """
    if not path.is_file():
        raise click.ClickException(f"expected MobileNetV2 at {path}; see docs/data.md for what belongs there")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise click.ClickException("reading TFLite files needs: pip install ai-edge-litert") from error
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found: Weights = {}
    for tensor in interpreter.get_tensor_details():
        name = tensor["name"].split(";")[-1]
        for part, (end, dimensions) in _ENDS.items():  # maps have names of biases, too
            if name.startswith(_PREFIX) and name.endswith(end) and len(tensor["shape"]) == dimensions:
                values = interpreter.get_tensor(tensor["index"]).astype(np.float64)
                scale, zero = (tensor["quantization_parameters"][key][0] for key in ("scales", "zero_points"))
                layer = name[len(_PREFIX) : -len(end)]
                found[layer, part] = ((values - zero) * scale).astype(np.float32)
    return found


class _Convolution(nn.Module):
    """A 1 x 1 or 3 x 3 convolution with bias, and ReLU6 where `bounded`."""

    def __init__(self, weights: Weights, name: str, stride: int, bounded: bool = True) -> None:
        super().__init__()
        depthwise = name.endswith("depthwise")
        kernel = (
            torch.from_numpy(weights[name, "weights"]).permute(3, 0, 1, 2)
            if depthwise
            else (torch.from_numpy(weights[name, "weights"]).permute(0, 3, 1, 2))
        )
        self.kernel = nn.Parameter(kernel.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.from_numpy(weights[name, "bias"]))
        self.stride, self.bounded, self.groups = stride, bounded, len(kernel) if depthwise else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel.shape[-1] == 3:
            x = functional.pad(x, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))  # SAME, of an even side
        x = functional.conv2d(x, self.kernel, self.bias, self.stride, groups=self.groups)
        return x.clamp(0, 6) if self.bounded else x


class _Block(nn.Module):
    def __init__(self, weights: Weights, name: str, widens: bool, stride: int, shortcut: bool) -> None:
        super().__init__()
        wide = [_Convolution(weights, f"{name}/expand", 1)] if widens else []
        depthwise = _Convolution(weights, f"{name}/depthwise", stride)
        self.layers = nn.Sequential(
            *wide, depthwise, _Convolution(weights, f"{name}/project", 1, bounded=False)
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class Shapes(nn.Module):
    """Pixels (B, 3, S, S) uint8, S a multiple of 16 -> the map behind the thirteenth block (B, 96, S / 16, S / 16)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Convolution(weights, "Conv", 2)]
        for widening, blocks, stride in _STAGES:
            for block in range(blocks):
                number = len(layers) - 1
                name = f"expanded_conv_{number}" if number else "expanded_conv"
                layers.append(_Block(weights, name, widening > 1, stride if block == 0 else 1, block > 0))
        self.layers = nn.Sequential(*layers).requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        shapes: Tensor = self.layers(scaled)
        return shapes


def load_shapes(data: Path) -> Shapes:
    """The teacher in the shared data folder `data`."""
    return Shapes(read_weights(data / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite"))
