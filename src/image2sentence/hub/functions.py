"""Functions of published ONNX graphs, which are put in the place of their calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image2sentence.encoders.graph_file import MAX_NODES
from image2sentence.errors import ModelError

_MAX_CALLS = 50
"""Functions in functions."""


def require_few_calls(model: Any, path: Path) -> None:
    """Raises ModelError where inlining its functions would make too many operators, or never end."""
    own = {(one.domain, one.name, getattr(one, "overload", "")): one for one in model.functions}
    known: dict[tuple[str, str, str], int] = {}

    def operators(nodes: Any, around: tuple[tuple[str, str, str], ...]) -> int:
        return sum(
            of_call(node, around) + sum(within(one, around) for one in node.attribute) for node in nodes
        )

    def within(attribute: Any, around: tuple[tuple[str, str, str], ...]) -> int:
        return sum(operators(one.node, around) for one in (attribute.g, *attribute.graphs))

    def of_call(node: Any, around: tuple[tuple[str, str, str], ...]) -> int:
        name = (node.domain, node.op_type, getattr(node, "overload", ""))
        if name not in own:
            return 1
        if name in around or len(around) > _MAX_CALLS:
            raise ModelError(f"{path} has functions that call each other without end: fetch it again")
        if name not in known:
            known[name] = operators(own[name].node, (*around, name))
        return known[name]

    if operators(model.graph.node, ()) > MAX_NODES:
        raise ModelError(f"{path} has more than {MAX_NODES:,} operators once its functions are put in place")
