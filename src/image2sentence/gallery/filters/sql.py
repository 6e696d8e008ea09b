"""Filter as parameterised SQL for SQLite.

No word of the filter's text gets into the statement.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from image2sentence.gallery.filters.language import (
    And,
    Comparison,
    Condition,
    Membership,
    Missing,
    Or,
    Pattern,
    Value,
)

_PIECES = re.compile(r"\\(.)|(.)", re.DOTALL)
_WILDCARDS = {"%": "*", "_": "?"}


def compile_filter(condition: Condition, places: Mapping[str, str]) -> tuple[str, list[Value]]:
    """A checked condition as an SQL expression and the values of its `?` marks.

    Args:
        condition: The root of a checked filter.
        places: For each column's name, the (safe) SQL name under which it is stored.
    """
    values: list[Value] = []
    return _compiled(condition, places, values), values


def _compiled(condition: Condition, places: Mapping[str, str], values: list[Value]) -> str:
    if isinstance(condition, And | Or):
        word = " AND " if isinstance(condition, And) else " OR "
        return "(" + word.join(_compiled(part, places, values) for part in condition.parts) + ")"
    place = places[condition.column]
    if isinstance(condition, Missing):
        return f"{place} IS {'NOT ' if condition.negated else ''}NULL"
    if isinstance(condition, Comparison):
        values.append(condition.value)
        return f"{place} {condition.operator} ?"
    turned = "NOT " if condition.negated else ""
    if isinstance(condition, Membership):
        values += condition.values
        return f"{place} {turned}IN ({', '.join('?' * len(condition.values))})"
    values.append(as_glob(condition))
    return f"{place} {turned}GLOB ?"


def as_glob(test: Pattern) -> str:
    """A `like` pattern as one for GLOB, which unlike SQLite's LIKE tells capitals from small letters."""
    return "".join(_glob_piece(*piece.groups()) for piece in _PIECES.finditer(test.pattern))


def _glob_piece(escaped: str | None, plain: str | None) -> str:
    character = escaped or plain or ""
    if escaped is None and character in _WILDCARDS:
        return _WILDCARDS[character]
    return f"[{character}]" if character in "*?[" else character
