"""Compact storage of a VL model's weights beside the graphs of a model folder: int8, and nothing twice.

MODEL/vl then has `int8.safetensors` in place of `model.safetensors`. Of a matrix NAME it holds `NAME.int8`, codes, and
`NAME.scale`, one number for each channel, whose product is the matrix. Codes that the gallery graph holds already are
read from there: a batch norm that the export folds into a convolution changes the scale of a channel and no code.
Embedding tables and whatever is small are float16. Loaded, everything is float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import TensorProto, numpy_helper
from torch import Tensor

from image2sentence.encoders.config import VLRecord
from image2sentence.encoders.model_folder import GALLERY_IMAGE
from image2sentence.errors import ConfigError, ModelError
from image2sentence.strict_json import from_dict, to_dict
from image2sentence.training import checkpoint as state
from image2sentence.training.vl.base import VisionLanguageModel, weights_fingerprint

FILE = "int8.safetensors"
SMALL = 1024
"""Tensors of fewer values stay float16."""
_CODES, _SCALE = ".int8", ".scale"
_LARGEST = 127
_NEAR = 0.75
"""Steps between weights and codes: half a one for rounding, the rest for scales stored as float16."""


@dataclass(frozen=True)
class CompactRecord:
    """What a compact file says of itself.

    `of` is the fingerprint of the weights before they were rounded, which the model keeps as ONNX graphs keep theirs;
    `stored` that of the weights it holds; `shared` the name of the gallery graph's codes for each matrix whose codes
    are there.
    """

    of: str
    stored: str
    shared: dict[str, str] = field(default_factory=dict)


def is_compact(folder: Path) -> bool:
    """Whether a VL model's folder holds its weights in the compact form."""
    return (folder / FILE).is_file()


def write_compact(vl: VisionLanguageModel, folder: Path) -> None:
    """Writes the weights of `vl` to `folder`, a subfolder of the model folder whose gallery graph was made of `vl`.

    Raises ModelError where the graph is damaged or the file cannot be written.
    """
    graph = _graph_codes(folder)
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    for name, values in vl.model.state_dict().items():
        if not _is_matrix(name, values):
            tensors[name] = values.half() if values.is_floating_point() else values
            continue
        twin = next(_twins(values, graph), None)
        if twin is None:
            tensors[name + _CODES], tensors[name + _SCALE] = _by_channel(values)
        else:
            shared[name], tensors[name + _SCALE] = twin
    rounded = copy.deepcopy(vl.model)
    rounded.load_state_dict(_weights(tensors, shared, graph))
    record = CompactRecord(vl.record.fingerprint, weights_fingerprint(rounded, vl.preprocessing), shared)
    state.save_tensors(folder / FILE, tensors, to_dict(record))


def load_compact(cls: Any, config: Any, folder: Path) -> Any:
    """`cls(config)` with the weights of `folder`, in float32.

    Raises ModelError where the file or the gallery graph beside it is missing or damaged, RuntimeError where the
    weights are those of another model.
    """
    tensors, _ = state.load_tensors(folder / FILE)
    shared = _record(folder).shared
    model = cls(config)
    model.load_state_dict(_weights(tensors, shared, _graph_codes(folder) if shared else {}))
    return model


def with_identity(record: VLRecord, folder: Path) -> VLRecord:
    """`record`, whose fingerprint is that of the stored weights, with the fingerprint of those they were made of.

    Raises ModelError where the stored weights or the preprocessing are not what the file was written with.
    """
    found = _record(folder)
    if record.fingerprint != found.stored:
        raise ModelError(
            f"{folder} is damaged or was changed: its weights and preprocessing are not those that {FILE} was "
            f"written with; restore the model folder, {GALLERY_IMAGE} in it too"
        )
    return replace(record, fingerprint=found.of)


def _record(folder: Path) -> CompactRecord:
    _, record = state.load_tensors(folder / FILE)
    try:
        return from_dict(CompactRecord, record, str(folder / FILE))
    except ConfigError as error:
        raise ModelError(f"{error}; the file was made by another version or changed by hand") from error


def _graph_codes(folder: Path) -> dict[str, Tensor]:
    """The int8 tensors of the gallery graph of the model folder that `folder` lies in."""
    path = folder.parent / GALLERY_IMAGE
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except (OSError, DecodeError) as error:
        raise ModelError(
            f"cannot read {path}, which holds weights of {folder}: {error}; restore it, or copy the whole model folder"
        ) from error
    found = (one for one in graph.initializer if one.data_type == TensorProto.INT8)
    return {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in found}


def _is_matrix(name: str, values: Tensor) -> bool:
    """Whether it is stored as int8. A row of an embedding table is a whole word: its rounding does not average out."""
    return (
        values.is_floating_point()
        and values.ndim > 1
        and values.numel() >= SMALL
        and "embeddings" not in name
    )


def _weights(
    tensors: Mapping[str, Tensor], shared: Mapping[str, str], graph: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What was stored, by the names of the model's weights, in float32."""
    weights = {}
    for name, values in tensors.items():
        base = name.removesuffix(_SCALE)
        if name.endswith(_SCALE) and (base in shared or base + _CODES in tensors):
            codes = graph[shared[base]] if base in shared else tensors[base + _CODES]
            weights[base] = codes.float() * values
        elif not name.endswith(_CODES):
            weights[name] = values.float() if values.is_floating_point() else values
    return weights


def _by_channel(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and the scale of each output channel."""
    others = tuple(range(1, values.ndim))
    scale = values.abs().amax(others, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny) / _LARGEST
    return torch.round(values / scale).to(torch.int8), scale


def _twins(values: Tensor, graph: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Names of codes that are those of `values`, and the scales of output or input channels that they take."""
    for name, codes in graph.items():
        for channel in (0, values.ndim - 1) if codes.shape == values.shape else ():
            others = tuple(axis for axis in range(values.ndim) if axis != channel)
            steps = codes.float()
            size = steps.square().sum(others, keepdim=True).clamp(min=1)
            scale = (values * steps).sum(others, keepdim=True) / size
            if ((values - steps * scale).abs() <= _NEAR * scale.abs()).all():
                yield name, scale
