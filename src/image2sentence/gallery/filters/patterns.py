"""Matching of `like` patterns in linear time.

A pattern is cut at its `%` signs. The first piece has to stand at the beginning of the text and the last one at its
end; each piece between them is searched leftmost, behind the one before. Leftmost is never wrong, since it leaves the
most text for what follows, so nothing is ever tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_PIECES = re.compile(r"\\.|.", re.DOTALL)


@dataclass(frozen=True)
class _Piece:
    """Text between two `%` signs: `length` characters; `expression` where some of them are `_`."""

    text: str
    length: int
    expression: re.Pattern[str] | None = None

    def stands_at(self, text: str, start: int) -> bool:
        if self.expression is None:
            return text.startswith(self.text, start)
        return self.expression.match(text, start) is not None

    def find(self, text: str, start: int, end: int) -> int:
        """Where it stands first in text[start:end]; -1 where it does not."""
        if self.expression is None:
            return text.find(self.text, start, end)
        found = self.expression.search(text, start, end)
        return -1 if found is None else found.start()


class LikePattern:
    r"""One `like` pattern: % is any text, _ any one character, \ takes the next character as it is.

    Attributes:
        searches: Searches through one text, at most.
        cost: Character comparisons for each character of a text, at most.
    """

    def __init__(self, pattern: str) -> None:
        pieces: list[list[str]] = [[]]
        for part in _PIECES.findall(pattern):
            if part == "%":
                pieces.append([])
            else:
                pieces[-1].append(part)
        self._pieces = [_piece(parts) for parts in pieces]
        self._length = sum(piece.length for piece in self._pieces)
        self.searches = max(1, len(self._pieces) - 2)
        self.cost = 1 + sum(piece.length for piece in self._pieces if piece.expression is not None)

    def matches(self, text: str) -> bool:
        """Whether the whole of a text fits, case-sensitive."""
        first, last = self._pieces[0], self._pieces[-1]
        if len(text) < self._length or not first.stands_at(text, 0):
            return False
        if first is last:
            return len(text) == self._length
        end = len(text) - last.length
        return last.stands_at(text, end) and self._inner(text, first.length, end)

    def matching(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of some texts fits."""
        if len(self._pieces) == 3 and all(piece.expression is None for piece in self._pieces):
            before, inside, after = (piece.text for piece in self._pieces)
            if not before and not after:
                return [inside in text for text in texts]
        return [self.matches(text) for text in texts]

    def _inner(self, text: str, start: int, end: int) -> bool:
        for piece in self._pieces[1:-1]:
            at = piece.find(text, start, end)
            if at < 0:
                return False
            start = at + piece.length
        return True


def _piece(parts: Sequence[str]) -> _Piece:
    text = "".join(part[-1] for part in parts)
    if "_" not in parts:
        return _Piece(text, len(parts))
    expression = "".join("." if part == "_" else re.escape(part[-1]) for part in parts)
    return _Piece(text, len(parts), re.compile(expression, re.DOTALL))
