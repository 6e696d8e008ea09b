"""Filter language, read into a tree that each backend compiles.

For example `price < 50 and colour = 'red'`:

    condition  = every ("or" every)*
    every      = one ("and" one)*
    one        = "not" one | "(" condition ")" | test
    test       = column                                        of booleans
               | column ("=" | "!=" | "<" | "<=" | ">" | ">=") value
               | column ["not"] "in" "(" value ("," value)* ")"
               | column ["not"] ("like" | "contains") text
               | column "is" ["not"] "null"
    column     = name | "name" in double quotes | a stored fact: path, folder, name, size, width, height, date
    value      = number | 'text' in single quotes, '' for a quote | true | false

A test of a value that is missing holds for `is null` only; its negation does not hold either, as in SQL. Reading
moves every `not` into the tests, which keeps that rule and leaves a tree of `and`, `or` and tests, each true or false.
"""

from __future__ import annotations

import calendar
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, NoReturn, TypeAlias, get_args

from image2sentence.errors import QueryError
from image2sentence.images import printable

ColumnType: TypeAlias = Literal["number", "text", "boolean", "date"]
"""Types of metadata columns; dates are kept as text, `2026-11-21T09:30:00`, which sorts by time."""

Value: TypeAlias = str | int | float | bool
"""A value of a metadata column."""

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">="]

MAX_FILTER_LENGTH = 10_000
"""Characters of a filter."""

MAX_TESTS = 500
"""Tests in one filter, and values in one list."""

MAX_DEPTH = 50
"""Parentheses and `not` inside one another."""

FACTS: dict[str, ColumnType] = {
    "@path": "text",
    "@folder": "text",
    "@name": "text",
    "@size": "number",
    "@width": "number",
    "@height": "number",
    "@date": "date",
}
"""What a gallery knows of every picture, see `image2sentence.gallery.facts`. The `@` may be left out where no metadata
column has the name."""

_OPPOSITE: dict[Operator, Operator] = {"=": "!=", "!=": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_SPELLINGS: dict[str, Operator] = {
    **{operator: operator for operator in get_args(Operator)},
    "==": "=",
    "<>": "!=",
}
_WORDS = frozenset({"and", "or", "not", "in", "like", "contains", "is", "null", "true", "false"})
_TOKEN = re.compile(
    r"""(?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?!\w))
      | (?P<name>@?[^\W\d]\w*)
      | (?P<quoted>"(?:[^"]|"")*")
      | (?P<text>'(?:[^']|'')*')
      | (?P<operator><=|>=|!=|<>|==|=|<|>)
      | (?P<mark>[(),])""",
    re.VERBOSE,
)
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d))?)?)?)?")
_MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True)
class Comparison:
    """`column operator value`; numbers by size, text by its characters' code points, dates by time."""

    column: str
    operator: Operator
    value: Value
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Membership:
    """`column in (values)`, or not in."""

    column: str
    values: tuple[Value, ...]
    negated: bool = False
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Pattern:
    r"""`column like pattern`, or not: % is any text, _ any character, \ takes the next one as it is."""

    column: str
    pattern: str
    negated: bool = False
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class Missing:
    """`column is null`, or not."""

    column: str
    negated: bool = False
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class And:
    """All parts hold."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class Or:
    """At least one part holds."""

    parts: tuple[Condition, ...]


Test: TypeAlias = Comparison | Membership | Pattern | Missing
Condition: TypeAlias = And | Or | Test


@dataclass(frozen=True)
class Filter:
    """A filter that has been read: its text, and the tree. `checked` holds it to a gallery's columns."""

    text: str
    condition: Condition

    def checked(self, columns: Mapping[str, ColumnType]) -> Filter:
        """The filter with every test held to its column's type, dates made bounds in the form they are kept in.

        Raises:
            QueryError: a column that is not there, or a value of another type; with its place in the text.
        """
        return replace(self, condition=_Checker(self.text, columns).condition(self.condition))


def parse_filter(text: str) -> Filter:
    """Read a filter. Raises QueryError, with the place in the text, where it is not one."""
    if len(text) > MAX_FILTER_LENGTH:
        raise QueryError(f"a filter has at most {MAX_FILTER_LENGTH:,} characters, this one has {len(text):,}")
    odd = next((at for at, one in enumerate(text) if "\ud800" <= one <= "\udfff"), None)
    if odd is not None:
        _refuse(text, odd, "half a character (a lone surrogate), which no text has")
    return Filter(text, _Parser(text).whole())


def as_filter(where: str | Filter) -> Filter:
    """A filter from its text, or the filter itself. Raises QueryError."""
    return parse_filter(where) if isinstance(where, str) else where


def canonical_date(text: str) -> str | None:
    """A date (`2026-11-21`) or time (`2026-11-21 09:30`, `...T09:30:15`) as it is kept; None where it is neither."""
    found = _DATE.fullmatch(text)
    period = _period(text) if found is not None and found[3] is not None else None
    return None if period is None else period[0]


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int

    @property
    def word(self) -> str:
        """The keyword, in small letters; empty for what is none."""
        lowered = self.text.lower()
        return lowered if self.kind == "name" and lowered in _WORDS else ""


def _refuse(text: str, at: int, problem: str) -> NoReturn:
    """Raise a QueryError that shows the filter with a mark below the place."""
    start = max(0, at - 60)
    shown, before = printable(text[start : at + 60]), printable(text[start:at])
    raise QueryError(
        f"the filter cannot be used: {problem}\n  {shown}\n  {' ' * len(before)}^ column {at + 1}"
    )


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            _refuse(text, at, _strange(text[at]))
        found.append(_Token(str(match.lastgroup), match[0], at))
        at = match.end()
    return [*found, _Token("end", "", len(text.rstrip()))]


def _strange(character: str) -> str:
    if character in "'\"":
        return f"the quote {character} has no second one"
    return f"{printable(character)} means nothing here; text is written in 'single quotes'"


class _Parser:
    """Recursive descent over the tokens of one filter; `negated` is what the `not`s above come to."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._waiting = _tokens(text)
        self._waiting.reverse()
        self._depth = 0
        self._tests = 0

    def whole(self) -> Condition:
        """The condition that the whole text is."""
        condition = self._any(negated=False)
        if self._next.kind != "end":
            self._expected("`and`, `or` or the end")
        return condition

    @property
    def _next(self) -> _Token:
        return self._waiting[-1]

    def _take(self) -> _Token:
        return self._waiting.pop()

    def _take_word(self, *words: str) -> str:
        return self._take().text.lower() if self._next.word in words else ""

    def _take_mark(self, mark: str) -> None:
        if self._next.text != mark:
            self._expected(f"`{mark}`")
        self._take()

    def _expected(self, what: str) -> NoReturn:
        came = f"`{self._next.text}`" if self._next.kind != "end" else "the end of the filter"
        _refuse(self._text, self._next.at, f"expected {what}, got {came}")

    def _any(self, negated: bool) -> Condition:
        return self._joined("or", And if negated else Or, lambda: self._every(negated))

    def _every(self, negated: bool) -> Condition:
        return self._joined("and", Or if negated else And, lambda: self._one(negated))

    def _joined(self, word: str, kind: type[And | Or], part: Callable[[], Condition]) -> Condition:
        parts = [part()]
        while self._take_word(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else kind(tuple(parts))

    def _one(self, negated: bool) -> Condition:
        if self._next.word != "not" and self._next.text != "(":
            return self._test(negated)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _refuse(self._text, self._next.at, f"more than {MAX_DEPTH} parentheses inside one another")
        if self._take().text != "(":
            condition = self._one(not negated)
        else:
            condition = self._any(negated)
            self._take_mark(")")
        self._depth -= 1
        return condition

    def _test(self, negated: bool) -> Test:
        self._tests += 1
        if self._tests > MAX_TESTS:
            _refuse(self._text, self._next.at, f"more than {MAX_TESTS} tests")
        at = self._next.at
        column = self._column()
        if self._next.kind == "operator":
            operator = _SPELLINGS[self._take().text]
            return Comparison(column, _OPPOSITE[operator] if negated else operator, self._value(), at)
        if self._take_word("is"):
            negated ^= bool(self._take_word("not"))
            if not self._take_word("null"):
                self._expected("`null`")
            return Missing(column, negated, at)
        return self._listed_or_alike(column, negated, at)

    def _listed_or_alike(self, column: str, negated: bool, at: int) -> Test:
        turned = bool(self._take_word("not"))
        word = self._take_word("in", "like", "contains")
        if word == "in":
            return Membership(column, self._values(), negated ^ turned, at)
        if word:
            text = self._literal_text()
            pattern = text if word == "like" else f"%{_escaped(text)}%"
            return Pattern(column, pattern, negated ^ turned, at)
        if turned or (self._next.kind in ("name", "number", "text", "quoted") and not self._next.word):
            self._expected("a comparison such as `=`, `<`, `in`, `like` or `is null`")
        return Comparison(column, "=", not negated, at)

    def _column(self) -> str:
        if self._next.kind == "quoted":
            return self._take().text[1:-1].replace('""', '"')
        if self._next.kind != "name" or self._next.word:
            self._expected("the name of a column")
        return self._take().text

    def _values(self) -> tuple[Value, ...]:
        self._take_mark("(")
        values = [self._value()]
        while self._next.text == ",":
            self._take()
            values.append(self._value())
            if len(values) > MAX_TESTS:
                _refuse(self._text, self._next.at, f"more than {MAX_TESTS} values in a list")
        self._take_mark(")")
        return tuple(values)

    def _value(self) -> Value:
        if self._next.kind == "text":
            return self._literal_text()
        if self._next.kind == "number":
            return self._number()
        if self._next.word in ("true", "false"):
            return self._take().word == "true"
        if self._next.word == "null":
            _refuse(self._text, self._next.at, "nothing equals null: say `is null` or `is not null`")
        if self._next.kind in ("name", "quoted"):
            self._expected("a value (text is written in 'single quotes')")
        self._expected("a value")

    def _literal_text(self) -> str:
        if self._next.kind != "text":
            self._expected("text in 'single quotes'")
        return self._take().text[1:-1].replace("''", "'")

    def _number(self) -> int | float:
        token = self._take()
        try:
            whole = int(token.text)
        except ValueError:
            whole = None
        number = float(token.text) if whole is None else whole
        finite = math.isfinite(number) if whole is None else abs(whole) <= _MAX_INTEGER
        if not finite:
            _refuse(self._text, token.at, f"{token.text[:30]} is too large a number")
        return number


def _escaped(text: str) -> str:
    return re.sub(r"([%_\\])", r"\\\1", text)


class _Checker:
    """Holds the tests of one filter to the types of a gallery's columns."""

    def __init__(self, text: str, columns: Mapping[str, ColumnType]) -> None:
        self._text = text
        self._columns = columns

    def condition(self, condition: Condition) -> Condition:
        """The condition with its tests checked."""
        if isinstance(condition, And | Or):
            return replace(condition, parts=tuple(self.condition(part) for part in condition.parts))
        fact = f"@{condition.column}"
        if condition.column not in self._columns and fact in FACTS:
            condition = replace(condition, column=fact)
        kind = FACTS.get(condition.column) or self._columns.get(condition.column)
        if kind is None:
            _refuse(self._text, condition.at, self._no_column(condition.column))
        if isinstance(condition, Missing):
            return condition
        return self._date(condition) if kind == "date" else self._plain(condition, kind)

    def _no_column(self, name: str) -> str:
        facts = [fact[1:] for fact in FACTS]
        near = difflib.get_close_matches(name, [*self._columns, *facts], n=3)
        known = near or [*sorted(self._columns)[:20], *facts]
        hint = ("did you mean " if near else "there are ") + ", ".join(known)
        return f"there is no column {printable(name)!r} ({hint})"

    def _plain(self, test: Comparison | Membership | Pattern, kind: ColumnType) -> Condition:
        for value in _values_of(test):
            if _type_of(value) != kind:
                self._wrong_type(test, kind, value)
        if kind == "boolean" and isinstance(test, Comparison) and test.operator not in ("=", "!="):
            _refuse(
                self._text, test.at, f"{test.column} is true or false: it can be compared by = and != only"
            )
        return test

    def _wrong_type(self, test: Test, kind: ColumnType, value: Value) -> NoReturn:
        came = "is asked to be true or false" if isinstance(value, bool) else f"is compared with {value!r}"
        _refuse(self._text, test.at, f"the column {test.column} holds {_PLURAL[kind]}, and {came}")

    def _date(self, test: Comparison | Membership | Pattern) -> Condition:
        if isinstance(test, Pattern):
            _refuse(self._text, test.at, f"{test.column} is a date: compare it by =, <, > and the like")
        if isinstance(test, Comparison):
            return self._within(test, test.operator, test.value)
        parts = tuple(self._within(test, "!=" if test.negated else "=", value) for value in test.values)
        return And(parts) if test.negated else Or(parts)

    def _within(self, test: Comparison | Membership, operator: Operator, value: Value) -> Condition:
        """A comparison with a period (a year, a month, a day, a moment) as one with its first moments."""
        period = _period(value) if isinstance(value, str) else None
        if period is None:
            _refuse(
                self._text,
                test.at,
                f"the column {test.column} holds dates: expected one such as '2026', '2026-11', '2026-11-21' or "
                f"'2026-11-21 09:30:00', got {value!r}",
            )
        start, end = period
        bounds: dict[Operator, tuple[Operator, str]] = {
            "<": ("<", start),
            ">=": (">=", start),
            "<=": ("<", end),
            ">": (">=", end),
        }
        if operator in bounds:
            return Comparison(test.column, *bounds[operator], test.at)
        first = Comparison(test.column, ">=" if operator == "=" else "<", start, test.at)
        last = Comparison(test.column, "<" if operator == "=" else ">=", end, test.at)
        return And((first, last)) if operator == "=" else Or((first, last))


_PLURAL = {"number": "numbers", "text": "text", "boolean": "true or false", "date": "dates"}


def _values_of(test: Comparison | Membership | Pattern) -> Sequence[Value]:
    if isinstance(test, Comparison):
        return (test.value,)
    return test.values if isinstance(test, Membership) else (test.pattern,)


def _type_of(value: Value) -> ColumnType:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"


def _period(text: str) -> tuple[str, str] | None:
    """First moment of a year, month, day, minute or second, and of the next; None where the text is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (None if part is None else int(part) for part in found.groups())
    try:
        start = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0)
        end = start + _length(start, month, day, hour, second)
    except (ValueError, OverflowError):
        return None
    return start.isoformat(timespec="seconds"), end.isoformat(timespec="seconds")


def _length(
    start: datetime, month: int | None, day: int | None, hour: int | None, second: int | None
) -> timedelta:
    if month is None:
        return timedelta(days=365 + calendar.isleap(start.year))
    if day is None:
        return timedelta(days=calendar.monthrange(start.year, start.month)[1])
    if hour is None:
        return timedelta(days=1)
    return timedelta(minutes=1) if second is None else timedelta(seconds=1)
