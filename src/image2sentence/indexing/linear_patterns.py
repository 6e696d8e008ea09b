"""Patterns of ignore files that are matched without trying anything twice.

pathspec makes a regular expression of each pattern, which backtracks: `*a*a*a*a*a*a*a*b` takes years for a long name.
Each piece between two `*` may stand where it first can, and so may the folders between two `**`: that leaves the most
for what follows. Here the expressions are rewritten so, with lookaheads, out of which nothing is taken back.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pathspec import GitIgnoreSpec

_ANY_FOLDERS, _ANY_ABOVE = "(?:/.+)?", "^(?:.+/)?"
_STAR, _ONE = "\0", "\1"
_TAIL = re.compile(r"(?:\(\?:)?\(\?P<ps_d>/\)|\.\*\$?\Z|\$\Z|\Z")


def make_linear(spec: GitIgnoreSpec) -> GitIgnoreSpec:
    """The same patterns, whose expressions are rewritten."""
    patterns: Iterable[Any] = spec.patterns  # some versions type expressions as constant
    for pattern in patterns:
        expression = getattr(pattern, "regex", None)
        if expression is not None:
            pattern.regex = re.compile(linear(expression.pattern))
    return spec


def linear(expression: str) -> str:
    """An expression of pathspec that takes, for a path of n characters, no more than n² steps or so."""
    tail = _TAIL.search(expression)
    if tail is None or not expression.startswith("^"):
        return expression  # of `**/`: it tries nothing twice
    body, end = expression[: tail.start()], expression[tail.start() :]
    anywhere = body.startswith(_ANY_ABOVE)
    body = body.removeprefix(_ANY_ABOVE if anywhere else "^")
    names = (f"once{number}" for number in count())
    # A class never means the separator, though pathspec's [^a] would take one.
    runs = [
        _run(one, names)
        for one in body.replace("[^/]*", _STAR).replace("[^/]", _ONE).replace("[^", "[^/").split(_ANY_FOLDERS)
    ]
    made = _ANY_ABOVE if anywhere else "^"
    for number, run in enumerate(runs):
        before = ("(?:.+?/)??" if anywhere else "") if number == 0 else "(?:/.+?)??"
        if number == len(runs) - 1:
            made += ("" if number == 0 else _ANY_FOLDERS) + run
        elif number == 0:
            made = "^" + _once(before + run + "(?=/)", names)
        else:
            made += _once(before + run + "(?=/)", names)
    return made.replace(_STAR, "[^/]*").replace(_ONE, "[^/]") + end


def _run(folders: str, names: Iterator[str]) -> str:
    """Folders between two `**`, in each of which all stars but the last take as little as they can."""
    return "/".join(_name(one, names) for one in folders.split("/"))


def _name(one: str, names: Iterator[str]) -> str:
    first, *pieces = re.sub(f"{_STAR}+", _STAR, one).split(_STAR)
    if not pieces:
        return first
    *between, last = pieces
    return first + "".join(_once(f"{_ONE}*?{piece}", names) for piece in between) + _STAR + last


def _once(expression: str, names: Iterator[str]) -> str:
    name = next(names)
    return f"(?=(?P<{name}>{expression}))(?P={name})"
