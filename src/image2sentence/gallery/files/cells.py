"""Values of table cells: numbers, dates and truth values."""

from __future__ import annotations

import math
import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, cast

from image2sentence.gallery.files.dates import as_iso, read_date
from image2sentence.gallery.filters.language import ColumnType, Value

_Given = TypeVar("_Given")

_BOOLEANS = {"true": True, "false": False}
# What spreadsheets of other languages write for them.
_BOOLEANS |= dict.fromkeys(("wahr", "vrai", "verdadero", "vero", "verdadeiro", "waar", "sant"), True)
_BOOLEANS |= dict.fromkeys(("falsch", "faux", "falso", "onwaar", "falskt"), False)
_LONGEST = 100  # characters of a number or date
_DIGIT = re.compile(r"\d")
_UNITS = r"[$€£¥₹₩₽₺₪₫₴₱฿%]|US\$|zł|Kč|kr\.?|CHF|EUR|USD|GBP|JPY|CNY|INR|CAD|AUD|SEK|NOK|DKK|PLN|CZK|HUF"
_AMOUNT = re.compile(rf"([+-]?)({_UNITS})?\s?([+-]?)([\d.,].*?)\s?({_UNITS})?")
_PLAIN = r"(?:\d+{0}?\d*|{0}\d+)(?:[eE][+-]?\d{{1,4}})?"
_GROUPS = r"[1-9]\d{{0,2}}(?:([ \u00a0\u2009\u202f'\u2019]|{1})\d{{3}})(?:\1\d{{3}})*(?:{0}\d+)?"
_FORMS = {
    point: re.compile(f"(?:{_PLAIN}|{_GROUPS})".format(re.escape(point), re.escape(comma)))
    for point, comma in (".,", ",.")
}


class Style(NamedTuple):
    """How a column writes what can be read in two ways."""

    decimal: str = "."
    month_first: bool = False


STYLES: dict[ColumnType, tuple[Style, ...]] = {
    "number": (Style("."), Style(",")),
    "date": (Style(), Style(month_first=True)),
}
"""The styles of a type, the usual one first."""


def from_text(kind: ColumnType, cell: Any, style: Style | None = None) -> Value | None:
    """A cell of a text table; None for an empty one.

    Without a style there must be one reading; but a single point is a decimal point. Raises ValueError.
    """
    text = str(cell).strip()
    if not text or kind == "text":
        return text or None
    if kind == "boolean":
        return _expect(_BOOLEANS.get(text.lower()), "true or false", text)
    what = "a date such as 2026-11-21" if kind == "date" else "a number"
    readings: list[Value | None] = [_read(kind, text, one) for one in ((style,) if style else STYLES[kind])]
    if style is None and is_ambiguous(kind, text):
        raise ValueError(f"expected {what}, got {text!r:.80}, which may be {readings[0]} or {readings[1]}")
    found: Value | None = next((one for one in readings if one is not None), None)
    return cast("Value", _expect(found, what, text))


def is_ambiguous(kind: ColumnType, cell: Any) -> bool:
    """Whether a text has two readings of a type, none of which is the usual one."""
    if not isinstance(cell, str) or not ("," in cell if kind == "number" else "/" in cell):
        return False
    readings = {_read(kind, cell.strip(), style) for style in STYLES[kind]}
    return len(readings) > 1 and None not in readings


def unit_of(cell: Any) -> str:
    """The currency or percent sign beside a number; empty where there is none."""
    if str(cell)[-1:].isdigit() and str(cell)[:1].isdigit():
        return ""
    found = _AMOUNT.fullmatch(str(cell).strip().replace("\u2212", "-"))
    return "" if found is None else found[2] or found[5] or ""


def convert(kind: ColumnType, value: Value) -> Value:
    """A value of one type as one of another. Raises ValueError where it is none."""
    if kind == "boolean" and not isinstance(value, bool | str):
        return bool(_expect(value if value in (0, 1) else None, "0 or 1", value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    found: Value | None = text if kind == "text" else from_text(kind, text)
    return cast("Value", _expect(found, f"the type {kind}", value))


def _read(kind: ColumnType, text: str, style: Style) -> Value | None:
    if len(text) > _LONGEST or _DIGIT.search(text) is None:
        return None
    return _number_of(text, style) if kind == "number" else read_date(text, style.month_first)


def _number_of(text: str, style: Style) -> int | float | None:
    amount = _AMOUNT.fullmatch(text.replace("\u2212", "-"))
    if amount is None or (amount[1] and amount[3]) or (amount[2] and amount[5]):
        return None
    digits = amount[4]
    if _FORMS[style.decimal].fullmatch(digits) is None or (digits[0] == "0" and digits[1:2].isdigit()):
        return None  # 00123 is a name made of digits
    comma = "," if style.decimal == "." else "."
    plain = re.sub(rf"[\s'\u2019{re.escape(comma)}]", "", digits).replace(",", ".")
    number = int(plain) if plain.isdigit() else float(plain)
    number = -number if "-" in (amount[1], amount[3]) else number
    return number if abs(number) < 2**63 else None


def from_native(kind: ColumnType, cell: Any, style: Style | None = None) -> Value | None:
    """A value of JSON or Parquet; `style` as in `from_text`, for dates. Raises ValueError."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, datetime | date):
        cell = as_iso(cell)
    if isinstance(cell, Decimal):
        cell = float(cell)
    if kind == "date" and isinstance(cell, str):
        return from_text("date", _expect(cell or None, "a date such as 2026-11-21", cell), style)
    fits: dict[ColumnType, bool] = {
        "boolean": isinstance(cell, bool),
        "date": False,
        "text": isinstance(cell, str),
    }
    number = isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) < 2**63
    value: Any = cell if fits.get(kind, number) else None
    return cast("Value", _expect(value, f"the type {kind}", cell))


def _expect(value: _Given | None, what: str, came: Any) -> _Given:
    if value is None:
        raise ValueError(f"expected {what}, got {came!r:.80}")
    return value
