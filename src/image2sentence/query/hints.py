"""Hints on words that a model cannot follow as they are meant: negation."""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

_NEGATION = re.compile(
    r"""\b(?:(?:is|are|was|does|do|has|have)n['\N{RIGHT SINGLE QUOTATION MARK}]?t | not | no | without | nor | never
      | except(?:\ for)? | excluding | lacking | minus | sans | free\ of | hardly\ any | (?:any|every)thing\ but
      | all\ but | nothing | other\ than | rather\ than | instead\ of | neither )\s+
      (?:(?:have|has|show|having|being|any|a|an|the|in|with)\s+)*
      (?!(?:only|just|too|more|less|fewer|as)\b|\d)
      (?P<unwanted>[^\W_][\w'-]*(?:\s+(?!(?:and|or|but|with|in|on|nor|that|which|than)\b)[^\W_][\w'-]*){0,2})
      | (?:\bnon-\s?|(?<!\S)[-!])(?P<one>[^\W\d_][\w']*)""",
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
    return tuple(
        NegationHint(match[0], match["unwanted"] or match["one"]) for match in islice(found, MAX_HINTS)
    )
