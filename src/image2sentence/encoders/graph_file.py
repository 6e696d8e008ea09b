"""ONNX graphs of others, read so far that loading and running them has a bound.

A graph without loops runs each operator once. What is left is how large a tensor it makes, which the memory limit of
`image2sentence.encoders.onnx_session` bounds, and what is computed of weights alone while it is loaded. Only the parts
of the protocol buffer that say so are looked at; weights are passed over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from image2sentence.errors import ModelError

MAX_NODES = 20_000
"""Operators: the largest towers in use have 4,000."""
MAX_DEPTH = 4
"""Branches in branches."""
MAX_FOLDED = 200
"""Products of weights with weights, which are computed while the graph is loaded."""
_WIDENED = 8
"""How many times more bytes weights may take than they are stored in: 4 bits as float32."""
_LEAST_FOLDED = 2**20
_LOOPS = frozenset(
    {"Loop", "Scan", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"}
)
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_PRODUCTS = ("MatMul", "Gemm", "Conv", "Einsum", "LSTM", "GRU", "RNN", "Attention", "QLinear", "Det")
_OF_SHAPES = ("Shape", "Size")

# Numbers of fields in ONNX's messages.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_NODES, _WEIGHTS, _INPUTS, _SPARSE_WEIGHTS = 1, 5, 11, 15
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_TENSOR, _GRAPH, _TENSORS, _GRAPHS, _SPARSE, _SPARSES = 5, 6, 10, 11, 22, 23
_TENSOR_NAME, _INPUT_NAME = 8, 1

Bytes = bytes | mmap.mmap


class _Field(NamedTuple):
    """A field of a message: its number, and where its content begins and ends; both 0 for a number."""

    number: int
    start: int
    end: int


def largest_folded(content: Bytes, path: Path) -> int:
    """Bytes that what is computed while a graph is loaded may have: in proportion to its largest weight.

    Raises ModelError, naming `path`, for a graph with loops, functions or sparse weights of its own, with operators of
    others, with too many operators, and for what is no graph.
    """
    try:
        walk = _Walk(content)
        for field in _fields(content, 0, len(content)):
            if field.number == _MODEL_FUNCTIONS:
                raise ModelError("has functions of its own, which may call each other without end")
            if field.number == _MODEL_GRAPH:
                walk.graph(field, 0, set())
    except (IndexError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is no ONNX graph that can be read: restore or export it again") from error
    except ModelError as error:
        raise ModelError(
            f"{path} {error}; use a model folder that you trust, or export the model again"
        ) from error
    return max(_LEAST_FOLDED, _WIDENED * walk.largest)


class _Walk:
    """Goes through a graph and the branches in it. Raises ModelError, IndexError and UnicodeDecodeError."""

    def __init__(self, content: Bytes) -> None:
        self._content, self._nodes, self._folded, self.largest = content, 0, 0, 0

    def graph(self, graph: _Field, depth: int, outer: set[str]) -> None:
        """`outer`: names around it that depend on what is fed."""
        if depth > MAX_DEPTH:
            raise ModelError("has branches in branches in branches")
        weights, inputs, nodes = set[str](), set[str](), list[_Field]()
        for field in self._inside(graph):
            if field.number == _NODES:
                nodes.append(field)
            elif field.number == _WEIGHTS:
                self._weigh(field)
                weights.update(self._texts(field, _TENSOR_NAME))
            elif field.number == _INPUTS:
                inputs.update(self._texts(field, _INPUT_NAME))
            elif field.number == _SPARSE_WEIGHTS:
                raise ModelError("has sparse weights, which may be of any size")
        fed = outer | (inputs - weights)
        for node in nodes:
            self._node(node, depth, fed)

    def _node(self, node: _Field, depth: int, fed: set[str]) -> None:
        read, given, operator, domain = list[str](), list[str](), "", ""
        branches = list[_Field]()
        for number, start, end in self._inside(node):
            if number == _NODE_ATTRIBUTE:
                branches += self._attribute(_Field(number, start, end))
            elif number in (_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_DOMAIN):
                text = self._content[start:end].decode()
                if number == _NODE_INPUT:
                    read.append(text)
                elif number == _NODE_OUTPUT:
                    given.append(text)
                elif number == _NODE_OPERATOR:
                    operator = text
                else:
                    domain = text
        self._nodes += 1
        if operator in _LOOPS:
            raise ModelError(f"has an operator that repeats others ({operator})")
        if domain not in _DOMAINS:
            raise ModelError(f"has an operator of {domain!r:.80}, which is not known here")
        is_fed = operator not in _OF_SHAPES and (bool(branches) or not fed.isdisjoint(read))
        self._folded += not is_fed and any(word in operator for word in _PRODUCTS)
        if self._nodes > MAX_NODES or self._folded > MAX_FOLDED:
            raise ModelError(
                f"has more than {MAX_NODES:,} operators, or {MAX_FOLDED} products of weights with weights"
            )
        if is_fed:
            fed.update(given)
        for branch in branches:
            self.graph(branch, depth + 1, fed)

    def _attribute(self, attribute: _Field) -> Iterator[_Field]:
        """The graphs in an attribute."""
        for field in self._inside(attribute):
            if field.number in (_TENSOR, _TENSORS):
                self._weigh(field)
            elif field.number in (_GRAPH, _GRAPHS):
                yield field
            elif field.number in (_SPARSE, _SPARSES):
                raise ModelError("has sparse weights, which may be of any size")

    def _weigh(self, tensor: _Field) -> None:
        self.largest = max(self.largest, tensor.end - tensor.start)

    def _texts(self, message: _Field, number: int) -> Iterator[str]:
        for field in self._inside(message):
            if field.number == number:
                yield self._content[field.start : field.end].decode()

    def _inside(self, message: _Field) -> Iterator[_Field]:
        return _fields(self._content, message.start, message.end)


def _fields(content: Bytes, at: int, end: int) -> Iterator[_Field]:
    """Fields of the message that lies there; IndexError where it is none."""
    if end > len(content):
        raise IndexError
    while at < end:
        key, at = _number(content, at)
        kind = key & 7
        if kind == 2:
            size, at = _number(content, at)
            if size > end - at:
                raise IndexError
            yield _Field(key >> 3, at, at + size)
            at += size
        elif kind == 0:
            _, at = _number(content, at)
            yield _Field(key >> 3, 0, 0)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
            yield _Field(key >> 3, 0, 0)
        else:
            raise IndexError


def _number(content: Bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = content[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    for shift in range(7, 70, 7):
        more = content[at]
        at += 1
        value |= (more & 127) << shift
        if more < 128:
            return value, at
    raise IndexError
