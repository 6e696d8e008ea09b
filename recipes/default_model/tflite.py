"""MobileNetV2's weights out of an 8-bit TFLite file, as float tensors.

The file is google-coral's `mobilenet_v2_1.0_224_quant.tflite` (Apache-2.0): weights of ImageNet's 1,000 classes, batch
norms folded. A real value is (stored - zero point) * scale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from image2sentence.errors import ModelError
from image2sentence.training.vl.mobilenet import STAGES, MobileNetV2

FILE, LABELS = "mobilenet_v2_1.0_224_quant.tflite", "imagenet_labels.txt"
_LAYER = re.compile(
    r"MobilenetV2/(?P<layer>Conv|Conv_1|expanded_conv(?:_\d+)?/(?:expand|depthwise|project))/"
)
_CLASSIFIER = "MobilenetV2/Logits/Conv2d_1c_1x1"


@dataclass(frozen=True)
class ImageNet:
    """The network, its classifier (1000, 1280), and each class's names as ImageNet lists them."""

    network: MobileNetV2
    classifier: Tensor
    names: tuple[tuple[str, ...], ...]


def read_imagenet(folder: Path) -> ImageNet:
    """Reads the weights and the names in `folder`.

    Raises:
        ModelError: a file is missing, or holds something else than MobileNetV2 1.0.
    """
    for name in (FILE, LABELS):
        if not (folder / name).is_file():
            raise ModelError(f"expected MobileNetV2's {name} in {folder}")
    tensors = _constants(folder / FILE)
    network = MobileNetV2(pooled=True)
    try:
        network.load_state_dict({name: _find(tensors, name) for name in network.state_dict()})
        rows = tensors[f"{_CLASSIFIER}.weight"]
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{folder / FILE} is not MobileNetV2 1.0 for ImageNet: {error}") from error
    lines = (folder / LABELS).read_text(encoding="utf-8").splitlines()
    if len(lines) != len(rows):
        raise ModelError(f"{folder / LABELS} has {len(lines)} names, the network {len(rows)} classes")
    names = tuple(tuple(name.strip() for name in line.split(",")) for line in lines[1:])
    return ImageNet(network.eval().requires_grad_(False), rows[1:, :, 0, 0], names)  # row 0 is "background"


def _constants(path: Path) -> dict[str, Tensor]:
    """ "LAYER.weight" (out, in / groups, kh, kw) and "LAYER.bias" of every layer, by TensorFlow's names."""
    from ai_edge_litert.interpreter import Interpreter  # the recipes extra has it

    reader = Interpreter(model_path=str(path))
    reader.allocate_tensors()
    found = {}
    for detail in reader.get_tensor_details():
        name = detail["name"].rpartition(";")[2] if detail["dtype"] == np.int32 else detail["name"]
        layer = _layer(name)
        is_bias = detail["dtype"] == np.int32 and len(detail["shape"]) == 1
        if layer and (is_bias or "weights_quant" in name or (layer == _CLASSIFIER and "weights" in name)):
            found[f"{layer}.{'bias' if is_bias else 'weight'}"] = _real(
                reader.get_tensor(detail["index"]), detail
            )
    return found


def _layer(name: str) -> str:
    if name.startswith(_CLASSIFIER):
        return _CLASSIFIER
    match = _LAYER.match(name)
    return match["layer"] if match else ""


def _real(stored: Any, detail: Any) -> Tensor:
    scale, zero = detail["quantization"]
    values = torch.from_numpy((stored.astype(np.float32) - zero) * np.float32(scale))
    if values.ndim != 4:
        return values
    depthwise = "/depthwise/" in detail["name"].partition(";")[0]
    return values.permute(3, 0, 1, 2) if depthwise else values.permute(0, 3, 1, 2)


def _find(tensors: dict[str, Tensor], name: str) -> Tensor:
    """The tensor that MobileNetV2 here calls `name`, such as "stages.1.0.expand.conv.weight"."""
    head, _, kind = name.replace(".conv.", ".").rpartition(".")
    parts = head.split(".")
    if parts[0] in ("stem", "last"):
        return tensors[f"{'Conv' if parts[0] == 'stem' else 'Conv_1'}.{kind}"]
    number = sum(blocks for _, _, blocks, _ in STAGES[: int(parts[1])]) + int(parts[2])
    return tensors[f"expanded_conv{f'_{number}' if number else ''}/{parts[3]}.{kind}"]
