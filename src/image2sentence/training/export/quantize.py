"""Quantisation of graphs: int8 weights, float16 storage.

Static int8 (ranges fixed from calibration pictures) pays for plain convolutions; dynamic int8 (ranges taken from each
input) pays for the text tower's matrix products and would slow convolutions down. float16 halves the file and costs
nothing: ONNX Runtime casts the weights back once, when it loads the graph.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

SMALL = 1024
"""Tensors of fewer values stay float32: nothing would be saved, and norms and biases live there."""
_CONVOLUTIONAL = ["Conv", "Relu", "Clip", "Add", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat"]


def in_place(path: Path, change: Callable[[Path, Path], None]) -> None:
    """Runs a change from file to file on one file."""
    changed = path.with_suffix(".changed")
    change(path, changed)
    changed.replace(path)


def dynamic_int8(source: Path, target: Path) -> None:
    """Weights of matrix products in int8 with a scale for each column; what they meet is scaled as it comes."""
    with _quiet():
        quantize_dynamic(
            source, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"], per_channel=True
        )


def static_int8(source: Path, target: Path, pixels: Sequence[NDArray[np.float32]], keep: str = "") -> None:
    """Convolutions in int8, a scale for each output channel; activations by the ranges that `pixels` give.

    Args:
        source: A graph with one input.
        target: Where the changed graph goes.
        pixels: Inputs of the graph, (1, 3, s, s) each, such as real queries have.
        keep: Nodes whose names contain this stay float; empty: none.
    """
    with tempfile.TemporaryDirectory() as name, _quiet():
        prepared = Path(name, "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        quantize_static(
            prepared,
            target,
            _Inputs(graph.input[0].name, pixels),
            nodes_to_exclude=[node.name for node in graph.node if keep and keep in node.name],
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_CONVOLUTIONAL,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True, "CalibMovingAverageConstant": 0.05},
        )


def store_half(source: Path, target: Path) -> None:
    """Large float32 weights as float16, each with a cast back that ONNX Runtime folds away when it loads the graph."""
    model = onnx.load(source)
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALL:
            continue
        values = numpy_helper.to_array(weight)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    _put_first(model, casts)
    onnx.save(model, target)


def store_int8(source: Path, target: Path) -> None:
    """Large float32 weights as int8 with a scale for each output channel, computed in float32.

    Convolutions have their output channels first, matrix products last. A tensor that has 8-bit steps already, as
    weights read out of a TFLite file do, keeps these: another grid would round it a second time. As with `store_half`,
    ONNX Runtime works the weights out once, when it loads the graph.
    """
    model = onnx.load(source)
    nodes, scales = [], []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < SMALL or len(weight.dims) < 2:
            continue
        values, name = numpy_helper.to_array(weight), weight.name
        stored, zero, scale = _evenly_spaced(values) or _by_channel(values)
        weight.CopyFrom(numpy_helper.from_array(stored, f"{name}.int8"))
        scales.append(numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"))
        nodes.append(onnx.helper.make_node("Cast", [f"{name}.int8"], [f"{name}.whole"], to=TensorProto.FLOAT))
        whole = f"{name}.whole"
        if zero:
            scales.append(numpy_helper.from_array(np.array(zero, np.float32), f"{name}.zero"))
            nodes.append(onnx.helper.make_node("Sub", [whole, f"{name}.zero"], [f"{name}.centred"]))
            whole = f"{name}.centred"
        nodes.append(onnx.helper.make_node("Mul", [whole, f"{name}.scale"], [name]))
    model.graph.initializer.extend(scales)
    _put_first(model, nodes)
    onnx.save(model, target)


def _by_channel(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], float, NDArray[np.float32]]:
    """Codes, their zero point and the scale of each output channel."""
    channel = 0 if values.ndim > 2 else values.ndim - 1
    others = tuple(axis for axis in range(values.ndim) if axis != channel)
    scale = np.maximum(np.abs(values).max(axis=others, keepdims=True), np.finfo(np.float32).tiny) / 127
    return np.round(values / scale).astype(np.int8), 0.0, scale


def _evenly_spaced(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], float, NDArray[np.float32]] | None:
    """Codes, zero point and scale of a tensor of at most 256 evenly spaced values (up to float16), else None."""
    levels = np.unique(values)
    if not 2 < len(levels) <= 256:
        return None
    span = float(levels[-1]) - float(levels[0])
    for count in range(len(levels) - 1, 256):
        scale = np.float32(span / count)
        zero = round(-float(levels[0] / scale)) - 128
        near = np.abs(np.round(levels / scale) * scale - levels)
        codes = np.round(values / scale) + zero
        if (near <= 2.0**-10 * np.abs(levels) + scale / 64).all() and codes.max() <= 127:
            return codes.astype(np.int8), float(zero), scale.reshape(())
    return None


def _put_first(model: Any, nodes: Sequence[Any]) -> None:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    """Calibration inputs one by one, as the quantiser asks for them."""

    def __init__(self, name: str, pixels: Sequence[NDArray[np.float32]]) -> None:
        self.name, self.rest = name, iter(pixels)

    def get_next(self) -> dict[str, Any] | None:
        """The next input, None after the last."""
        row = next(self.rest, None)
        return None if row is None else {self.name: row}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice on preparing graphs, which goes to the root logger."""

    def not_advice(entry: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in entry.getMessage()

    root = logging.getLogger()
    root.addFilter(not_advice)
    try:
        yield
    finally:
        root.removeFilter(not_advice)
