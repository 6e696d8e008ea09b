"""Hints on words that a model cannot follow as they are meant: negation."""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

_NEGATION = re.compile(
    r"""\b(?:(?:is|are|was|does|do|has|have)n['\N{RIGHT SINGLE QUOTATION MARK}]?t | not | no | without
      | except(?:\ for)? | excluding | lacking | free\ of | other\ than | rather\ than | instead\ of | neither )\s+
      (?:(?:have|has|show|having|being|any|a|an|the|in|with)\s+)*
      (?P<unwanted>[^\W_][\w'-]*(?:\s+(?!(?:and|or|but|with|in|on|nor|that|which|than)\b)[^\W_][\w'-]*){0,2})""",
    re.IGNORECASE | re.VERBOSE,
)
MAX_HINTS = 5


class NegationHint(NamedTuple):
    """A negation in the words of a query, such as `without sleeves`, and what it says is not wanted."""

    phrase: str
    unwanted: str


def negation_hints(words: str) -> tuple[NegationHint, ...]:
    """The negations in some words, in their order; models put what is named into the query, wanted or not."""
    found = _NEGATION.finditer(words[:10_000])
    return tuple(NegationHint(match[0], match["unwanted"]) for match in islice(found, MAX_HINTS))
