"""Words of a query that the model does not know."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from image2sentence.encoders.protocols import Encoder, KnowsWords

MAX_SUGGESTIONS = 3
_MAX_WORD_LENGTH = 40
_SHORT, _LONG = 4, 8
_CONFUSED = ("aeiouy", "sczx", "ckq", "ptbd", "fvw", "mn", "gj", "lr")
_FUNCTION = "a an and as at but by for from in is it its my no not of on one or some than that the this to with without"
FUNCTION_WORDS = frozenset(_FUNCTION.split())
"""Words that say nothing of what is to be seen."""

_WORD = re.compile(r"[^\W_]+")
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


class UnknownWord(NamedTuple):
    """A word of the query that the model does not know, and the known words that it may be a misspelling of."""

    word: str
    near: tuple[str, ...]


def words_not_understood(encoder: Encoder, words: str) -> tuple[UnknownWord, ...]:
    """The words that the encoder does not know, with likely spellings; empty for encoders that cannot tell."""
    if not words or not isinstance(encoder, KnowsWords):
        return ()
    unknown = encoder.unknown_words(words)
    return tuple(UnknownWord(word, likely_spellings(word, encoder.known_words())) for word in unknown)


def is_understood(encoder: Encoder, words: str) -> bool:
    """Whether the encoder knows any of the words that say something; True for encoders that cannot tell.

    What is asked with words that are all unknown has a vector, which says nothing of what was meant.
    """
    if not isinstance(encoder, KnowsWords):
        return True
    unknown = {word for one in encoder.unknown_words(words) for word in _WORD.findall(one.lower())}
    return not unknown or not set(_WORD.findall(words.lower())) <= unknown | FUNCTION_WORDS


def likely_spellings(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Up to three known words that a word is a likely misspelling of, those of fewest mistakes first.

    A mistake is two letters swapped, a letter left out or too many, or one in place of another that is near it on the
    keyboard or sounds like it. Words that only share letters mean something else ("adidas" and "aids") and are not
    offered: one mistake is allowed, two in words of 8 letters and more, and in words of up to 4 letters only swapped
    and doubled ones. The first letter is right, or swapped with the second.
    """
    wanted = word.lower()
    if not 1 < len(wanted) <= _MAX_WORD_LENGTH:
        return ()
    allowed = 2 if len(wanted) >= _LONG else 1
    near = [one for one in known if one != wanted and _may_be(wanted, one, allowed)]
    ranked = sorted(
        (0 if _is_misspelt(wanted, one, 1) else 1, one) for one in near if _is_misspelt(wanted, one, allowed)
    )
    return tuple(one for _, one in ranked[:MAX_SUGGESTIONS])


def _may_be(word: str, known: str, allowed: int) -> bool:
    if abs(len(word) - len(known)) > allowed or len(known) < 2:
        return False
    return word[0] == known[0] or (word[0] == known[1] and word[1] == known[0])


def _is_misspelt(word: str, known: str, mistakes: int, at: int = 0, other: int = 0) -> bool:
    """Whether `word` from `at` on is `known` from `other` on with at most so many mistakes."""
    while at < len(word) and other < len(known) and word[at] == known[other]:
        at, other = at + 1, other + 1
    here, there = word[at:], known[other:]
    if not here or not there:
        rest = here or there
        short = len(word) <= _SHORT
        before = (word[:at] if here else known[:other])[-1:]
        return len(rest) <= mistakes and (not short or all(letter == before for letter in rest))
    if not mistakes:
        return False
    swapped = len(here) > 1 < len(there) and here[0] == there[1] and here[1] == there[0]
    if swapped and _is_misspelt(word, known, mistakes - 1, at + 2, other + 2):
        return True
    short = len(word) <= _SHORT
    if (not short or _is_doubled(word, at)) and _is_misspelt(word, known, mistakes - 1, at + 1, other):
        return True
    if (not short or _is_doubled(known, other)) and _is_misspelt(word, known, mistakes - 1, at, other + 1):
        return True
    replaced = not short and _are_confused(here[0], there[0])
    return replaced and _is_misspelt(word, known, mistakes - 1, at + 1, other + 1)


def _is_doubled(word: str, at: int) -> bool:
    return word[at] in (word[at - 1 : at], word[at + 1 : at + 2])


def _are_confused(letter: str, other: str) -> bool:
    """Whether one letter is easily written for another: by its sound, or beside it on the keyboard."""
    alike = any(letter in group and other in group for group in _CONFUSED)
    return alike or any(letter + other in row or other + letter in row for row in _KEYBOARD)
