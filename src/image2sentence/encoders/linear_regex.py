"""Regular expressions of published tokenizers, told from those that backtrack without end.

Steps are bounded by the square of the text that one match starts in: what is repeated is no group, at most two pieces
of an alternative are repeated without a small bound, and the ways through its groups and options are few.
"""

from __future__ import annotations

import re
from itertools import pairwise

_MAX_LENGTH = 5_000
_MAX_ALTERNATIVES = 200
_MAX_REPEATED = 2
_MAX_PAIRS = 8
"""Alternatives in which two pieces are repeated."""
_MAX_WAYS = 256
_SMALL = 4
_ESCAPE = re.compile(r"\\(?:[pP]\{\^?\w*\}|x\{[0-9A-Fa-f]*\}|[^gk1-9])", re.DOTALL)
_GROUP = re.compile(r"\((?:\?(?:[imx-]*:|=|!|<=|<!|>|<[A-Za-z]\w*>))?(?!\?|\*)")
_FLAGS = re.compile(r"\(\?[imx-]+\)")
_COUNTS = re.compile(r"\{(\d*)(,?)(\d*)\}")
_EDGES = "bBAzZG"


def require_bounded(pattern: str) -> None:
    """Raises ValueError for an Oniguruma pattern that may take more than some millions of steps for a short text."""
    if len(pattern) > _MAX_LENGTH:
        raise ValueError(f"a regular expression has {len(pattern):,} letters")
    signs = _signs(pattern)
    for one, after in pairwise(signs):
        stacked = (one in "*+?PQq" and after in "*PQq") or (one in "PQq" and after == "+")
        if stacked or (one == ")" and after in "*+PQq"):
            raise ValueError(f"a regular expression repeats what is repeated, or a group: {pattern!r:.80}")
    alternatives = _alternatives(signs)
    repeated = [sum(one in "*+PQ" for one in _without_modes(each)) for each in alternatives]
    if (
        len(alternatives) > _MAX_ALTERNATIVES
        or max(repeated) > _MAX_REPEATED
        or repeated.count(_MAX_REPEATED) > _MAX_PAIRS
        or max(map(_ways, alternatives)) > _MAX_WAYS
    ):
        raise ValueError(f"a regular expression has too many ways to match: {pattern!r:.80}")


def consumes(pattern: str) -> bool:
    """Whether a match has a letter, whatever the text."""
    return all(_has_letter(each) for each in _alternatives(_signs(pattern)))


def _signs(pattern: str) -> str:
    """The pattern with a sign for each piece.

    x a letter or class, ^ a place, ( ) | as they are; * + ? repeated; q a few times, P at least once, Q perhaps never.
    """
    found, at = [], 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at, sign = _after(_ESCAPE, pattern, at), "^" if pattern[at + 1 : at + 2] in _EDGES else "x"
        elif letter == "[":
            at, sign = _after_class(pattern, at), "x"
        elif letter == "(" and (flags := _FLAGS.match(pattern, at)):
            at, sign = flags.end(), ""
        elif letter == "(":
            at, sign = _after(_GROUP, pattern, at), "("
        elif letter == "{" and (counts := _COUNTS.match(pattern, at)):
            at, sign = counts.end(), _count_sign(*counts.groups())
        else:
            at, sign = at + 1, letter if letter in ")|*+?" else "^" if letter in "^$" else "x"
        found.append(sign)
    return "".join(found)


def _after(form: re.Pattern[str], pattern: str, at: int) -> int:
    found = form.match(pattern, at)
    if found is None:
        raise ValueError(f"a regular expression has what is not known here: {pattern[at : at + 40]!r}")
    return found.end()


def _after_class(pattern: str, start: int) -> int:
    """Behind the class that begins here; classes may hold classes."""
    at, depth = start, 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "[":
            depth += 1
            at += 1 + pattern.startswith("^", at + 1)
            at += pattern.startswith("]", at)
            continue
        at += 2 if letter == "\\" else 1
        depth -= letter == "]"
        if not depth:
            return at
    raise ValueError("a regular expression has a class without end")


def _count_sign(least: str, comma: str, most: str) -> str:
    bound = most if comma else least
    if bound and len(bound) < 3 and int(bound) <= _SMALL:
        return "q"
    return "P" if least.strip("0") else "Q"


def _alternatives(signs: str) -> list[str]:
    """Split at the bars outside of groups."""
    found, depth = [""], 0
    for one in signs:
        depth += (one == "(") - (one == ")")
        if one == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += one
    return found


def _without_modes(signs: str) -> str:
    """Without what makes a repetition lazy or possessive."""
    return re.sub(r"([*+?PQq])[?+]", r"\1", signs)


def _ways(signs: str) -> int:
    """Ways through the options and groups of an alternative."""
    plain, ways, depth, bars = _without_modes(signs), 1, 0, 0
    for one in plain:
        if one == "(":
            bars, depth = bars if depth else 0, depth + 1
        elif one == ")":
            depth -= 1
            ways *= 1 if depth else bars + 1
        elif one == "|":
            bars += 1
        elif one in "?q":
            ways *= 2 if one == "?" else _SMALL
        ways = min(ways, 2 * _MAX_WAYS)
    return ways


def _has_letter(signs: str) -> bool:
    depth = 0
    for one, after in pairwise(f"{_without_modes(signs)} "):
        depth += (one == "(") - (one == ")")
        if one == "x" and depth == 0 and after not in "*?Qq":
            return True
    return False
