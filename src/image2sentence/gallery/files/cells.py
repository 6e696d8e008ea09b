"""Values of table cells: numbers, dates and truth values."""

from __future__ import annotations

import math
import re
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import Any, TypeVar, cast

from image2sentence.gallery.filters.language import ColumnType, Value, canonical_date

_Given = TypeVar("_Given")

_BOOLEANS = {"true": True, "false": False}
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,]\d{1,9})? ?([Zz]|[+-]\d\d(?::?\d\d)?)?", re.ASCII
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d{1,15},(?:\d{1,2}|\d{4,15})", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}(?:\.\d{3}){1,5},\d{1,15}", re.ASCII)
_GROUPED_POINT = re.compile(r"[+-]?\d{1,3}(?:,\d{3}){1,5}\.\d{1,15}", re.ASCII)


def from_text(kind: ColumnType, cell: Any) -> Value | None:
    """A cell of a CSV file. Raises ValueError."""
    text = str(cell).strip()
    if not text or kind == "text":
        return text or None
    if kind == "boolean":
        return _expect(_BOOLEANS.get(text.lower()), "true or false", text)
    if kind == "date":
        return _expect(read_date(text), "a date such as 2026-11-21", text)
    return _expect(_number(text), "a number", text)


def convert(kind: ColumnType, value: Value) -> Value:
    """A value of one type as one of another. Raises ValueError where it is none."""
    if kind == "boolean" and not isinstance(value, bool | str):
        return bool(_expect(value if value in (0, 1) else None, "0 or 1", value))
    text = str(value).lower() if isinstance(value, bool) else str(value)
    found: Value | None = text if kind == "text" else from_text(kind, text)
    return cast("Value", _expect(found, f"the type {kind}", value))


def _number(text: str) -> int | float | None:
    if _DECIMAL_COMMA.fullmatch(text) or _GROUPED.fullmatch(text):
        text = text.replace(".", "").replace(",", ".")
    elif _GROUPED_POINT.fullmatch(text):
        text = text.replace(",", "")
    digits = text.lstrip("+-")
    if (digits[:1] == "0" and digits[1:2].isdigit()) or "_" in text:
        return None  # 00123 is a name made of digits
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if abs(number) < 2**63 else None
    return None


def from_native(kind: ColumnType, cell: Any) -> Value | None:
    """A value of JSON or Parquet. Raises ValueError."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, datetime | date):
        cell = _as_iso(cell)
    if isinstance(cell, Decimal):
        cell = float(cell)
    if kind == "date" and isinstance(cell, str):
        return _expect(read_date(cell), "a date such as 2026-11-21", cell)
    fits: dict[ColumnType, bool] = {
        "boolean": isinstance(cell, bool),
        "date": False,
        "text": isinstance(cell, str),
    }
    number = isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) < 2**63
    value: Any = cell if fits.get(kind, number) else None
    return cast("Value", _expect(value, f"the type {kind}", cell))


def read_date(text: str) -> str | None:
    """A date as columns keep it; times with a zone in UTC, fractions of a second left out; None where it is none."""
    if (plain := canonical_date(text)) is not None:
        return plain
    found = _MOMENT.fullmatch(text)
    if found is None:
        return None
    day, time, zone = found.groups()
    offset = "" if zone is None else zone.upper().replace("Z", "+00:00")
    if offset and ":" not in offset:
        offset = f"{offset[:3]}:{offset[3:] or '00'}"
    try:
        return _as_iso(datetime.fromisoformat(f"{day}T{time}{offset}"))
    except (ValueError, OverflowError):
        return None


def _as_iso(moment: datetime | date) -> str:
    if not isinstance(moment, datetime):
        return f"{moment.isoformat()}T00:00:00"
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds")


def _expect(value: _Given | None, what: str, came: Any) -> _Given:
    if value is None:
        raise ValueError(f"expected {what}, got {came!r:.80}")
    return value
