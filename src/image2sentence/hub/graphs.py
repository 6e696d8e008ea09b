"""Rewriting of published ONNX graphs into those of a model folder.

The vision graph gets the model folder's names. The text graph is cut behind its embedding table so that it takes
pseudo-words beside token ids: `sentence` (n, L, w) stands after the first `head` ids, and its rows go where the rows of
the embedding table would. Needs the package `onnx`, once for each model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.errors import ModelError
from image2sentence.hub.functions import require_few_calls

MAX_GRAPH_BYTES = 2 * 2**30 - 2**20
"""What a file of ONNX holds, which is a message of protobuf, less what the cut adds."""
VECTOR_NAMES = ("image_embeds", "text_embeds", "embedding", "sentence_embedding", "pooler_output", "vectors")
"""What the output that is a vector is called, the first that is there."""
_PASSES = ("Cast", "Reshape", "Identity", "Unsqueeze", "Squeeze", "Flatten")
_FUSED = ("EmbedLayerNormalization", "GatherBlockQuantized")
_PREFIX = "i2s_"
_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class VisionGraph:
    """A rewritten vision graph (onnx.ModelProto), `pixels` (n, 3, s, s) -> `vectors` (n, d).

    None is what the graph leaves open.
    """

    model: Any
    size: int | None
    width: int | None
    rows: int | None


@dataclass(frozen=True)
class TextGraph:
    """A cut text graph (onnx.ModelProto), `sentence` (n, L, w) and `ids` (n, t) -> `vectors` (n, d).

    `words` (v, w) float32 is its embedding table; `length` the tokens that it always reads, None where it reads any
    number; `rows` the texts that it always reads, None where any number.
    """

    model: Any
    words: NDArray[np.float32]
    length: int | None
    rows: int | None


def load(path: Path) -> Any:
    """A graph, as onnx.ModelProto, with its external data and its functions inlined.

    Raises ModelError where it cannot be read, or is too large.
    """
    require_content(path)
    onnx = require_onnx()
    from google.protobuf.message import DecodeError
    from onnx.checker import ValidationError

    try:
        model = onnx.load(str(path))
    except (OSError, ValueError, DecodeError, ValidationError) as error:
        raise ModelError(
            f"{path} cannot be read as an ONNX graph with the data beside it: {error}; fetch it again"
        ) from error
    if not len(model.graph.node):
        raise ModelError(f"{path} is an empty graph: fetch it again")
    if model.ByteSize() > MAX_GRAPH_BYTES:
        raise ModelError(
            f"{path} has {model.ByteSize() / 1e9:.1f} GB of weights, and a model folder's graph holds 2: "
            "choose the file in fp16 or int8"
        )
    if len(model.functions):
        from onnx.inliner import inline_local_functions

        require_few_calls(model, path)
        model = inline_local_functions(model)
    return model


def require_content(path: Path) -> None:
    """Raises ModelError for a file that cannot be read, and for one of Git LFS that only stands for another."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_POINTER))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}; fetch it again") from error
    if start == _POINTER:  # `git clone` leaves it so where git-lfs is not installed
        raise ModelError(
            f"{path} only says where its content is (Git LFS): run `git lfs pull` in its folder, or fetch the file "
            "from the model's page"
        )


def require_onnx() -> Any:
    """The package `onnx`. Raises ModelError, saying how to install it, where it is missing."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ModelError(
            "making a model folder of another program's graphs needs the package onnx, once for each model: "
            "pip install 'image2sentence[hub]'"
        ) from error
    return onnx


def vision(path: Path) -> VisionGraph:
    """Rewrites a vision graph. Raises ModelError where its input or output is not what a vision graph has."""
    onnx = require_onnx()
    model = load(path)
    graph = model.graph
    pictures = [one for one in _inputs(graph) if len(_shape(one)) == 4]
    if len(pictures) != 1 or len(_inputs(graph)) != 1:
        raise ModelError(
            f"{path}: expected one input of pictures (n, 3, s, s), found {_described(_inputs(graph))}; "
            "a graph that reads words as well cannot be cut"
        )
    rows, channels, height, width = _shape(pictures[0])
    if channels not in (3, None) or (height and width and height != width):
        raise ModelError(f"{path}: expected square pictures of 3 channels, found {_described(pictures)}")
    output = _vectors(graph, path)
    given = pictures[0].type.tensor_type.elem_type
    _rename_input(
        graph, pictures[0].name, "pixels", [rows or "rows", 3, height or "side", width or "side"], given
    )
    _keep_output(graph, output, "vectors", onnx)
    return VisionGraph(model, height, _shape(output)[1], rows)


def text(path: Path, head: int, pad: int | None, length: int | None) -> TextGraph:
    """Cuts a text graph.

    Args:
        path: The graph: token ids in, a vector out.
        head: Tokens that stand before the sentence.
        pad: Id that texts are filled up with. None: they are not, where the graph reads any number of tokens.
        length: What they are filled up to, where the graph does not say.

    Raises:
        ModelError: not exactly one embedding table, a fused graph, or unknown inputs.
    """
    onnx = require_onnx()
    model = load(path)
    graph = model.graph
    ids, masks = _text_inputs(graph, path)
    rows, fixed = _shape(ids)
    output = _vectors(graph, path)
    embedded, words = _embedding(graph, ids.name, path)
    fill = fixed if fixed is not None else length if pad is not None else None
    _cut(onnx, graph, ids, masks, embedded, words.shape[1], head, pad or 0, fill, rows or "rows")
    _keep_output(graph, output, "vectors", onnx)
    return TextGraph(model, words, fill, rows)


# --- inputs and outputs ---------------------------------------------------------------------------------------------


def _inputs(graph: Any) -> list[Any]:
    """What has to be fed: older exports list weights as inputs, too."""
    weights = {one.name for one in graph.initializer}
    return [one for one in graph.input if one.name not in weights]


def _shape(value: Any) -> list[int | None]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def _described(values: Sequence[Any]) -> str:
    shown = (f"{one.name} ({', '.join(str(n or '?') for n in _shape(one))})" for one in values)
    return ", ".join(shown) or "none"


def _text_inputs(graph: Any, path: Path) -> tuple[Any, list[Any]]:
    """The token ids, and attention masks, which are then always ones."""
    whole = [one for one in _inputs(graph) if len(_shape(one)) == 2]
    masks = [one for one in whole if "mask" in one.name]
    ids = [
        one
        for one in whole
        if "mask" not in one.name and "position" not in one.name and "type" not in one.name
    ]
    if len(ids) != 1 or len(ids) + len(masks) != len(_inputs(graph)):
        raise ModelError(
            f"{path}: expected one input of token ids (n, t), with an attention mask at most, found "
            f"{_described(_inputs(graph))}"
        )
    return ids[0], masks


def _vectors(graph: Any, path: Path) -> Any:
    """The output that is a vector: by name, else the only one."""
    outputs = {one.name: one for one in graph.output}
    named = [outputs[name] for name in VECTOR_NAMES if name in outputs]
    flat = [one for one in graph.output if len(_shape(one)) == 2]
    chosen = (
        named[0] if named else flat[0] if len(flat) == 1 else graph.output[0] if len(outputs) == 1 else None
    )
    if chosen is None or len(_shape(chosen)) not in (0, 2):
        raise ModelError(
            f"{path}: expected an output of vectors (n, d) called one of {', '.join(VECTOR_NAMES)}, found "
            f"{_described(graph.output)}"
        )
    return chosen


def _rename_input(graph: Any, old: str, new: str, shape: Sequence[int | str], kind: int) -> None:
    """The input `new` in float32, cast to what the graph reads."""
    from onnx import TensorProto, helper

    kept = [one for one in graph.input if one.name != old]
    del graph.input[:]
    graph.input.extend([helper.make_tensor_value_info(new, TensorProto.FLOAT, shape), *kept])
    name = "Identity" if kind == TensorProto.FLOAT else "Cast"
    more: dict[str, Any] = {} if kind == TensorProto.FLOAT else {"to": kind}
    graph.node.insert(0, helper.make_node(name, [new], [old], f"{_PREFIX}{new}", **more))


def _keep_output(graph: Any, output: Any, name: str, onnx: Any) -> None:
    """One output in float32, and no node that it does not need."""
    from onnx import TensorProto, helper

    kind, found = output.type.tensor_type.elem_type, output.name
    width = _shape(output)[1] if _shape(output) else None
    if found == name:
        found = f"{_PREFIX}own_{name}"
        for node in graph.node:
            node.output[:] = [found if one == name else one for one in node.output]
            node.input[:] = [found if one == name else one for one in node.input]
    more: dict[str, Any] = {} if kind == TensorProto.FLOAT else {"to": TensorProto.FLOAT}
    graph.node.append(
        helper.make_node("Cast" if more else "Identity", [found], [name], f"{_PREFIX}{name}", **more)
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", width or "width"]))
    del graph.value_info[:]  # shapes before the cut
    _prune(graph)


def _prune(graph: Any) -> None:
    wanted = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            kept.append(node)
            wanted.update(_read(node))
    nodes = list(reversed(kept))
    del graph.node[:]
    graph.node.extend(nodes)
    for at in reversed(range(len(graph.initializer))):  # a list that is made anew holds all weights twice
        if graph.initializer[at].name not in wanted:
            del graph.initializer[at]
    inputs = [one for one in graph.input if one.name in wanted or one.name in ("sentence", "ids", "pixels")]
    del graph.input[:]
    graph.input.extend(inputs)


def _read(node: Any) -> Iterator[str]:
    """All names that a node reads, those of its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read(inner)
            yield from (one.name for one in graph.output)


# --- the cut --------------------------------------------------------------------------------------------------------


def _embedding(graph: Any, ids: str, path: Path) -> tuple[str, NDArray[np.float32]]:
    """The name of the embedded ids and the table (v, w) they are taken from: a structural test, no node is named."""
    if fused := [node.op_type for node in graph.node if node.op_type in _FUSED]:
        raise ModelError(
            f"{path} has a node {fused[0]}: it was optimised by ONNX Runtime, which hides the embedding table. "
            "Choose the graph as it was exported, in fp32, fp16 or int8"
        )
    made = {name: node for node in graph.node for name in node.output}
    weights = {one.name: one for one in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "Gather" and _comes_from(node.input[1], ids, made):
            table = _table(node.input[0], made, weights)
            if table is not None and table.ndim == 2:
                found.append((node, table))
    if len(found) != 1:
        raise ModelError(
            f"{path}: expected one embedding table that token ids are looked up in, found {len(found)}; "
            "choose another export of the model"
        )
    node, table = found[0]
    embedded = node.output[0]
    after = [one for one in graph.node if embedded in one.input]
    if len(after) == 1 and after[0].op_type == "DequantizeLinear":
        embedded = after[0].output[0]
        table = _dequantised(table, after[0], made, weights)
    return embedded, np.asarray(table, np.float32)


def _comes_from(name: str, ids: str, made: dict[str, Any]) -> bool:
    while name != ids:
        node = made.get(name)
        if node is None or node.op_type not in _PASSES:
            return False
        name = node.input[0]
    return True


def _table(name: str, made: dict[str, Any], weights: dict[str, Any]) -> NDArray[Any] | None:
    from onnx import numpy_helper

    if name in weights:
        return np.asarray(numpy_helper.to_array(weights[name]))
    node = made.get(name)
    if node is None:
        return None
    if node.op_type == "Constant":
        value = next((one for one in node.attribute if one.name == "value"), None)
        return None if value is None else np.asarray(numpy_helper.to_array(value.t))
    if node.op_type in ("Cast", "Identity"):
        return _table(node.input[0], made, weights)
    if node.op_type == "DequantizeLinear":
        stored = _table(node.input[0], made, weights)
        return None if stored is None else _dequantised(stored, node, made, weights)
    return None


def _dequantised(
    table: NDArray[Any], node: Any, made: dict[str, Any], weights: dict[str, Any]
) -> NDArray[np.float32]:
    scale, zero = (_table(name, made, weights) if name else None for name in (*node.input[1:3], "", "")[:2])
    axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
    if scale is None:
        raise ModelError("the embedding table's scale is no constant of the graph: choose another export")
    shape = [-1 if place == axis % 2 else 1 for place in range(2)] if scale.size > 1 else [1, 1]
    low = 0 if zero is None else zero.astype(np.float32).reshape(shape if zero.size > 1 else [1, 1])
    return np.asarray((table.astype(np.float32) - low) * scale.astype(np.float32).reshape(shape), np.float32)


def _cut(
    onnx: Any,
    graph: Any,
    ids: Any,
    masks: Collection[Any],
    embedded: str,
    width: int,
    head: int,
    pad: int,
    fill: int | None,
    count: int | str,
) -> None:
    """Adds the nodes that put `sentence` among the embedded ids, and ids of 0 where it stands."""
    from onnx import TensorProto, helper

    made = next(node for node in graph.node if embedded in node.output)
    kind = _embedded_kind(onnx, graph, made)
    parts = _Parts(graph)
    zero, one = parts.constant("zero", [0]), parts.constant("one", [1])
    many, begin = parts.constant("many", [2**62]), parts.constant("head", [head])
    shape = parts.node("Shape", ["sentence"])
    rows = parts.node("Slice", [shape, zero, one, zero])
    tokens = parts.node("Slice", [shape, one, parts.constant("two", [2]), zero])
    before = parts.node("Slice", ["ids", zero, begin, one])
    after = parts.node("Slice", ["ids", begin, many, one])
    blank = parts.node(
        "ConstantOfShape",
        [parts.node("Concat", [rows, tokens], axis=0)],
        value=helper.make_tensor("value", TensorProto.INT64, [1], [0]),
    )
    whole = [before, blank, after]
    if fill is not None:
        padding = parts.constant("padding", [[pad] * fill])
        size = parts.node("Concat", [rows, parts.constant("length", [fill])], axis=0)
        whole.append(parts.node("Expand", [padding, size]))
    filled = parts.node("Concat", whole, axis=1)
    if fill is not None:
        filled = parts.node("Slice", [filled, zero, parts.constant("length", [fill]), one])
    parts.node("Cast", [filled], ids.name, to=ids.type.tensor_type.elem_type)
    for mask in masks:
        ones = parts.node(
            "ConstantOfShape",
            [parts.node("Shape", [filled])],
            value=helper.make_tensor("value", TensorProto.INT64, [1], [1]),
        )
        parts.node("Cast", [ones], mask.name, to=mask.type.tensor_type.elem_type)
    first = list(parts.nodes)
    del parts.nodes[:]
    said = "sentence" if kind == TensorProto.FLOAT else parts.node("Cast", ["sentence"], to=kind)
    own = f"{_PREFIX}embedded"
    end = parts.node("Add", [begin, tokens])
    words_before = parts.node("Slice", [own, zero, begin, one])
    words_after = parts.node("Slice", [own, end, many, one])
    parts.node("Concat", [words_before, said, words_after], embedded, axis=1)
    made.output[:] = [own if name == embedded else name for name in made.output]
    nodes = list(graph.node)
    place = next(at for at, node in enumerate(nodes) if own in node.output) + 1
    del graph.node[:]
    graph.node.extend([*first, *nodes[:place], *parts.nodes, *nodes[place:]])
    kept = [one for one in graph.input if one.name not in {ids.name, *(mask.name for mask in masks)}]
    del graph.input[:]
    graph.input.extend(
        [
            helper.make_tensor_value_info("sentence", TensorProto.FLOAT, [count, "tokens", width]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, [count, "words"]),
            *kept,
        ]
    )


def _embedded_kind(onnx: Any, graph: Any, made: Any) -> int:
    """The type of what a Gather or DequantizeLinear gives: that of its table or its scale."""
    weights = {one.name: one.data_type for one in graph.initializer}
    nodes = {name: node for node in graph.node for name in node.output}
    name = made.input[1] if made.op_type == "DequantizeLinear" else made.input[0]
    while name not in weights:
        node = nodes[name]
        if node.op_type == "Constant":
            return int(next(one.t.data_type for one in node.attribute if one.name == "value"))
        if node.op_type == "Cast":
            return int(next(one.i for one in node.attribute if one.name == "to"))
        name = node.input[1] if node.op_type == "DequantizeLinear" else node.input[0]
    return int(weights[name])


class _Parts:
    """Nodes and constants that are added to a graph, each under a name of its own."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants: dict[str, str] = {}
        self.nodes: list[Any] = []
        self._count = 0

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        self._count += 1
        name = output or f"{_PREFIX}{kind.lower()}_{self._count}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [name], f"{_PREFIX}node_{self._count}", **attributes)
        )
        return name

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants[name] = f"{_PREFIX}{name}"
            self._graph.initializer.append(
                numpy_helper.from_array(np.array(value, np.int64), self._constants[name])
            )
        return self._constants[name]
