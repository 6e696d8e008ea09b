"""Dates as people write them."""

from __future__ import annotations

import re
from datetime import date, datetime, timezone

from image2sentence.gallery.filters.language import canonical_date

_CLOCK = (
    r"(?:(?:[Tt]|,? +)(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,]\d{1,9})?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)? ?(?P<zone>[Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?"
)
_MONTH = r"(?P<name>[A-Za-z]{3,9})\.?"
_FORMS = [
    re.compile(form + _CLOCK, re.ASCII)
    for form in (
        r"(?P<year>\d{4})(?P<mark>[-/.:])(?P<month>\d\d?)(?P=mark)(?P<day>\d\d?)",
        r"(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?P<year>\d{4})",
        r"(?P<first>\d\d?)/(?P<second_>\d\d?)/(?P<year>\d{4})",
        rf"(?P<day>\d\d?)[ -]{_MONTH}[ -](?P<year>\d{{4}})",
        rf"{_MONTH} (?P<day>\d\d?),? (?P<year>\d{{4}})",
    )
]
_START = re.compile(r"\d{1,2}[-./ ]|\d{4}[-/.:]|[A-Za-z]{3,9}\.? \d", re.ASCII)
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)


def read_date(text: str, month_first: bool) -> str | None:
    """A date as columns keep it; times with a zone in UTC, fractions of a second left out; None where it is none.

    Years come first, or last after days and months: `2026-11-21`, `2026/11/21`, `2026:11:21`, `21.11.2026`,
    `21 Nov 2026`, `November 21, 2026`, and `11/21/2026` in either order. A time may follow, by 12 or 24 hours.
    """
    if (plain := canonical_date(text)) is not None:
        return plain
    if _START.match(text) is None:
        return None
    for form in _FORMS:
        if (found := form.fullmatch(text)) is not None:
            return _moment(found.groupdict(), month_first)
    return None


def _moment(parts: dict[str, str | None], month_first: bool) -> str | None:
    days = (parts.get("first"), parts.get("second_"))
    month, day = days if month_first else days[::-1]
    month, day = parts.get("month") or month or _month_of(parts.get("name") or ""), parts.get("day") or day
    hour, half = int(parts["hour"] or 0), (parts["half"] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0) if 1 <= hour <= 12 else 24
    clock = f"{hour:02}:{parts['minute'] or '00'}:{parts['second'] or '00'}"
    try:
        whole = (
            f"{parts['year']}-{int(month or 0):02}-{int(day or 0):02}T{clock}{_offset(parts['zone'] or '')}"
        )
        return as_iso(datetime.fromisoformat(whole))
    except (ValueError, OverflowError):
        return None


def _month_of(name: str) -> str:
    """The number of an English month, whole or its first three letters (Sept too); 0 for none."""
    wanted = name.lower()
    short = (one for one in _MONTHS if wanted in (one, one[:3], one[:4]) and wanted)
    month = next(short, None)
    return str(_MONTHS.index(month) + 1) if month else "0"


def _offset(zone: str) -> str:
    if not zone or zone.upper() in ("Z", "UTC", "GMT"):
        return "+00:00" if zone else ""
    return zone if ":" in zone else f"{zone[:3]}:{zone[3:] or '00'}"


def as_iso(moment: datetime | date) -> str:
    """A date or time as columns keep it, in UTC where it has a zone."""
    if not isinstance(moment, datetime):
        return f"{moment.isoformat()}T00:00:00"
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return moment.isoformat(timespec="seconds")
