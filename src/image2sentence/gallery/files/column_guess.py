"""Types and styles of a table's columns, guessed by all of their cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from image2sentence.gallery.files.cells import STYLES, Style, from_native, from_text, is_ambiguous, unit_of
from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.gallery.metadata import text_problem

_WIDEST: ColumnType = "text"
_NARROW: tuple[ColumnType, ...] = ("number", "date", "boolean")


class ColumnGuess:
    """The narrowest type that all cells of a column have had, and the style in which they are written."""

    def __init__(self, textual: bool, known: ColumnType | None) -> None:
        self._read = from_text if textual else from_native
        self._known = known
        self._possible: list[ColumnType] = ["boolean", "number", "date", _WIDEST]
        self._styles = dict(STYLES)
        self._ambiguous: dict[ColumnType, tuple[int, Any]] = {}
        self._units: set[str] = set()
        self._has_values = False
        self._narrow = self._count = 0
        self._first_text: tuple[int, Any] | None = None
        self._if_empty: ColumnType = _WIDEST

    @property
    def type(self) -> ColumnType:
        """The type that is known, else the narrowest; where every cell is empty, number after NaN, else text."""
        return self._known or self._narrowest

    @property
    def style(self) -> Style | None:
        """The style in which its cells are read; None where there is but one."""
        return next(iter(self._styles.get(self.type, ())), None)

    @property
    def _narrowest(self) -> ColumnType:
        if not self._has_values:
            return self._if_empty
        return next(kind for kind in self._possible if not self._is_unsure(kind))

    def _is_unsure(self, kind: ColumnType) -> bool:
        """Whether a cell has two readings, and no other cell tells which it is."""
        return kind in self._ambiguous and len(self._styles[kind]) > 1

    @property
    def unsure_line(self) -> int:
        """The line of the first such cell of the known type; 0 where there is none."""
        return self._ambiguous[self._known][0] if self._known in self._ambiguous else 0

    @property
    def kept_as_text(self) -> bool:
        """Whether the column is known as text, but would be something else by its cells."""
        return self._known == _WIDEST and self._has_values and self._narrowest != _WIDEST

    @property
    def text_because(self) -> str | None:
        """The first cell, with its line, by which a column is text although half of them have a narrower type."""
        if self.type != _WIDEST or 2 * self._narrow < self._count:
            return None
        unsure = [self._ambiguous[kind] for kind in self._possible if self._is_unsure(kind)]
        line, cell = self._first_text or (unsure[0] if unsure else (0, None))
        return f"line {line}: {str(cell)[:80]!r}" if line else None

    def look(self, line: int, cell: Any) -> None:
        """Take one cell. Raises ValueError where no type is left."""
        problem = text_problem(cell) if isinstance(cell, str) else None
        if problem is not None:
            raise ValueError(problem)
        left = [kind for kind in self._possible if self._fits(kind, cell)]
        wanted = self._possible if self._known is None else [self._known]
        fitting = [kind for kind in wanted if kind in left]
        if not fitting:
            raise ValueError(f"expected the type {' or '.join(wanted)}, got {cell!r:.80}")
        if self._value(fitting[0], cell) is not None:
            self._has_values, self._possible = True, left
            self._note(line, cell, left)
        elif isinstance(cell, float):
            self._if_empty = "number"

    def settle(self) -> None:
        """Raise ValueError where the known type is one of which a cell has two readings."""
        if self._known is not None and self._is_unsure(self._known):
            self._read(self._known, self._ambiguous[self._known][1])  # says both

    def _value(self, kind: ColumnType, cell: Any) -> Value | None:
        """What a cell is, in a style that is left. Raises ValueError."""
        return self._read(kind, cell, next(iter(self._styles.get(kind, ())), None))

    def _fits(self, kind: ColumnType, cell: Any) -> bool:
        """Whether a cell can be of a type, in a style in which those before can be too; narrows the styles down."""
        styles = self._styles.get(kind)
        if styles is None or not isinstance(cell, str) or not cell.strip():
            return _reads(self._read, kind, cell)
        if kind == "number":
            self._units.add(unit_of(cell))
        left = tuple(style for style in styles if _reads(self._read, kind, cell, style))
        if not left or (kind == "number" and len(self._units - {""}) > 1):
            return False
        self._styles[kind] = left
        return True

    def _note(self, line: int, cell: Any, fitting: list[ColumnType]) -> None:
        """Count cells of a type narrower than text, and keep the first of none, and of two readings."""
        unsure = [kind for kind in STYLES if is_ambiguous(kind, cell)]
        for kind in unsure:
            self._ambiguous.setdefault(kind, (line, cell))
        narrow = unsure or fitting[0] != _WIDEST or any(_reads(self._read, kind, cell) for kind in _NARROW)
        self._count += 1
        self._narrow += bool(narrow)
        if not narrow and self._first_text is None:
            self._first_text = (line, cell)


def _reads(
    read: Callable[..., Value | None], kind: ColumnType, cell: Any, style: Style | None = None
) -> bool:
    try:
        read(kind, cell, style)
    except ValueError:
        return False
    return True
