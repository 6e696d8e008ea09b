"""A filter as a Milvus expression.

Metadata lie in the collection's dynamic field, `$meta`, under their column's name with `PREFIX` before it, so that a
column may be called `path` or `id`. Names and values enter the expression as escaped string literals only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from image2sentence.errors import QueryError
from image2sentence.gallery.filters.language import (
    FACTS,
    And,
    Comparison,
    Condition,
    Membership,
    Missing,
    Or,
    Pattern,
    Test,
    Value,
)

PREFIX = "m_"

MAX_WILDCARDS = 3
"""Groups of `%` in one pattern; the time that Milvus Lite takes grows with a text's length to their power."""

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def compile_filter(condition: Condition, facts: Callable[[Test], str] | None = None) -> str:
    """A checked condition as a boolean expression of Milvus; `facts` gives that of a test of a stored fact."""
    if isinstance(condition, And | Or):
        word = " and " if isinstance(condition, And) else " or "
        return "(" + word.join(compile_filter(part, facts) for part in condition.parts) + ")"
    if facts is not None and condition.column in FACTS:
        return facts(condition)
    key = f"$meta[{literal(PREFIX + condition.column)}]"
    if isinstance(condition, Missing):
        return f"exists {key}" if condition.negated else f"(not (exists {key}))"
    if isinstance(condition, Comparison):
        operator = "==" if condition.operator == "=" else condition.operator
        return _where_present(key, f"{key} {operator} {literal(condition.value)}", operator == "!=")
    if isinstance(condition, Membership):
        # One by one: Milvus Lite knows `in` for columns of the schema only.
        operator, word = ("!=", " and ") if condition.negated else ("==", " or ")
        tests = word.join(f"{key} {operator} {literal(value)}" for value in condition.values)
        return _where_present(key, f"({tests})", condition.negated)
    return _pattern(key, condition)


def literal(value: Value) -> str:
    """A value as Milvus writes it; text in double quotes with everything that could end it escaped."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    return repr(value)


def any_of(field: str, values: Iterable[Value]) -> str:
    """`field in [...]` for a column of the schema."""
    return f"{field} in [{', '.join(map(literal, values))}]"


def _pattern(key: str, test: Pattern) -> str:
    if len(re.findall(r"(?<!\\)(?:\\\\)*%+", test.pattern)) > MAX_WILDCARDS:
        raise QueryError(
            f"a pattern for a gallery in Milvus has at most {MAX_WILDCARDS} groups of %, whose places it tries one by "
            "one: use several tests joined by `and`"
        )
    alike = f"{key} like {literal(test.pattern)}"
    return _where_present(key, f"not ({alike})" if test.negated else alike, test.negated)


def _where_present(key: str, test: str, needed: bool) -> str:
    """A negative test does not hold for missing values, which servers see in different ways."""
    return f"(exists {key} and {test})" if needed else test
