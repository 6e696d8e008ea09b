"""Which words of a query the model does not know."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from image2sentence.encoders.base import Encoder
from image2sentence.encoders.folder import ModelFolder

_NEAR_SPELLINGS = 3


class UnknownWord(NamedTuple):
    """A word of the query that the model does not know, and known words that are spelt alike."""

    word: str
    near: tuple[str, ...]


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that can tell which words it does not know."""

    folder: ModelFolder

    def unknown_words(self, text: str) -> list[str]:
        """The words that are not in the vocabulary, in order, once each."""
        ...

    def known_words(self) -> Sequence[str]:
        """The words of the vocabulary, sorted."""
        ...


def words_not_understood(encoder: Encoder, words: str) -> tuple[UnknownWord, ...]:
    """The words that the encoder does not know, with near spellings; empty for encoders that cannot tell."""
    if not words or not isinstance(encoder, KnowsWords):
        return ()
    unknown = encoder.unknown_words(words)
    return tuple(UnknownWord(word, _near(word, encoder.known_words())) for word in unknown)


def _near(word: str, known: Sequence[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(word.lower(), known, n=_NEAR_SPELLINGS, cutoff=0.7))
