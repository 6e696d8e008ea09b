"""Rules of metadata columns and values in every gallery backend."""

from __future__ import annotations

import re
from collections.abc import Mapping

from image2sentence.errors import DataError
from image2sentence.gallery.filters.language import FACTS, ColumnType, Value, canonical_date
from image2sentence.images import printable

MAX_COLUMNS = 500
"""Metadata columns of one gallery."""


MAX_NAME_LENGTH = 100
"""Characters of a column's name."""


MAX_TEXT_LENGTH = 100_000
"""Characters of a value."""


_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def is_new_column(known: Mapping[str, ColumnType], name: str, kind: ColumnType) -> bool:
    """Whether a column has yet to be made. Raises DataError on another type, a bad name, or too many."""
    if name in known:
        if known[name] != kind:
            raise DataError(
                f"the column {printable(name)!r} of this gallery holds the type {known[name]}, "
                f"the new values are of the type {kind}: give the new column another name"
            )
        return False
    if name in FACTS:
        raise DataError(f"{name!r} cannot be the name of a column: it is a fact that every picture has")
    if not name.strip() or len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise DataError(
            f"{printable(name)[:MAX_NAME_LENGTH]!r} cannot be the name of a column: expected 1 to {MAX_NAME_LENGTH} "
            "printable characters"
        )
    if len(known) >= MAX_COLUMNS:
        raise DataError(f"a gallery has at most {MAX_COLUMNS} metadata columns; {name!r} is one too many")
    return True


def checked_value(name: str, kind: ColumnType, value: Value | None) -> Value | None:
    """The value, if a column takes it. Raises DataError."""
    if value is None or _fits(kind, value):
        return value
    problem = text_problem(value) if kind == "text" and isinstance(value, str) else None
    if problem is not None:
        raise DataError(f"the column {printable(name)!r} cannot hold it: {problem}")
    raise DataError(f"the column {printable(name)!r} holds the type {kind}, got {value!r:.80}")


def text_problem(text: str) -> str | None:
    """Why no column holds this text; None where one can."""
    if len(text) > MAX_TEXT_LENGTH:
        return f"expected a text of at most {MAX_TEXT_LENGTH:,} characters, got {len(text):,}"
    odd = _NOT_STORABLE.search(text)
    return None if odd is None else f"expected a text without the character {printable(odd[0])}"


def _fits(kind: ColumnType, value: Value) -> bool:
    if kind == "boolean" or isinstance(value, bool):
        return kind == "boolean" and isinstance(value, bool)
    if kind == "number":
        # NaN equals nothing, and SQLite's integers have 64 bits.
        return isinstance(value, int | float) and abs(value) < 2.0**63
    if not isinstance(value, str) or text_problem(value) is not None:
        return False
    return kind == "text" or canonical_date(value) == value
