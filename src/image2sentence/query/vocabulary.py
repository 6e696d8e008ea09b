"""Which words of a query the model does not know."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from tokenizers import Tokenizer

from image2sentence.encoders.base import Encoder
from image2sentence.encoders.folder import TOKENIZER, ModelFolder

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


def words_not_understood(encoder: Encoder, words: str) -> tuple[UnknownWord, ...]:
    """The words that the encoder does not know, with near spellings; empty for encoders that cannot tell."""
    if not words or not isinstance(encoder, KnowsWords):
        return ()
    unknown = encoder.unknown_words(words)
    known = _vocabulary(encoder.folder) if unknown else []
    return tuple(UnknownWord(word, _near(word, known)) for word in unknown)


def _vocabulary(folder: ModelFolder) -> list[str]:
    tokens = Tokenizer.from_str(folder.read(TOKENIZER).decode("utf-8")).get_vocab()
    return sorted(token for token in tokens if token.isalpha())


def _near(word: str, known: Sequence[str]) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(word.lower(), known, n=_NEAR_SPELLINGS, cutoff=0.7))
