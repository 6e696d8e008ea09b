"""Words of a query that the model does not know."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from image2sentence.encoders.protocols import Encoder, KnowsWords

_NEAR_SPELLINGS = 3


class UnknownWord(NamedTuple):
    """A word of the query that the model does not know, and known words that are spelt alike."""

    word: str
    near: tuple[str, ...]


def words_not_understood(encoder: Encoder, words: str) -> tuple[UnknownWord, ...]:
    """The words that the encoder does not know, with near spellings; empty for encoders that cannot tell."""
    if not words or not isinstance(encoder, KnowsWords):
        return ()
    unknown = encoder.unknown_words(words)
    return tuple(UnknownWord(word, _near(word, encoder.known_words())) for word in unknown)


def _near(word: str, known: Sequence[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(word.lower(), known, n=_NEAR_SPELLINGS, cutoff=0.7))
