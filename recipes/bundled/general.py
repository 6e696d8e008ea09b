"""MobileNetV2's first thirteen blocks, from the TFLite file of the shared data: a teacher of general shapes.

What a network has learned from photographs of everything is in its maps halfway up, place by place. Its weights are
others' (Apache-2.0, github.com/google-coral/test_data) and do not ship; train_shapes.py has a branch of the tower
imitate its maps. The network is transformers'; the file's numbers are 8-bit, and read back as float32.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import MobileNetV2Config, MobileNetV2Model
from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import MobileNetV2ConvLayer

FILE = Path("mobilenet_v2") / "mobilenet_v2_1.0_224_quant.tflite"  # in the shared data
CHANNELS = 96
_LAYERS = 12  # of transformers' sixteen; its stem holds the first block
_PREFIX = "MobilenetV2/"
_ENDS = {"weights": ("/weights_quant/FakeQuantWithMinMaxVars", 4), "bias": ("/BatchNorm_Fold/bias", 1)}

Weights = dict[tuple[str, str], NDArray[np.float32]]


def read_weights(path: Path) -> Weights:
    """Each convolution's weights and bias by (its name, "weights" or "bias").

    Raises:
        click.ClickException: there is no such file, or no reader for it is installed.
    """
    if not path.is_file():
        raise click.ClickException(
            f"expected MobileNetV2 at {path}; see CONTRIBUTING.md for what belongs there"
        )
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


class Shapes(nn.Module):
    """Pixels (B, 3, S, S) uint8, S a multiple of 16 -> the map behind the thirteenth block (B, 96, S / 16, S / 16)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.network = MobileNetV2Model(MobileNetV2Config(tf_padding=True), add_pooling_layer=False)
        self.network.layer, self.network.conv_1x1 = self.network.layer[:_LAYERS], nn.Identity()
        stem = self.network.conv_stem
        _fill(stem.first_conv, weights, "Conv")
        _fill(stem.conv_3x3, weights, "expanded_conv/depthwise")
        _fill(stem.reduce_1x1, weights, "expanded_conv/project")
        for number, block in enumerate(self.network.layer, 1):
            parts = {"expand": block.expand_1x1, "depthwise": block.conv_3x3, "project": block.reduce_1x1}
            for part, layer in parts.items():
                _fill(layer, weights, f"expanded_conv_{number}/{part}")
        self.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        scaled = (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        shapes: Tensor = self.network(scaled).last_hidden_state
        return shapes


def _fill(layer: MobileNetV2ConvLayer, weights: Weights, name: str) -> None:
    """The file has each normalisation within its convolution: what is left of it here is the bias."""
    kernel = torch.from_numpy(weights[name, "weights"])
    depthwise = layer.convolution.groups > 1
    norm = layer.normalization
    with torch.no_grad():
        layer.convolution.weight.copy_(
            kernel.permute(3, 0, 1, 2) if depthwise else kernel.permute(0, 3, 1, 2)
        )
        norm.bias.copy_(torch.from_numpy(weights[name, "bias"]))
        norm.running_var.fill_(1 - norm.eps)


def load_shapes(data: Path) -> Shapes:
    """The teacher in the shared data folder `data`."""
    return Shapes(read_weights(data / FILE))
