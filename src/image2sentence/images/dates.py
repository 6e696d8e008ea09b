"""Dates of pictures, from EXIF, XMP, PNG and file names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from image2sentence.images import tags

_DATE = re.compile(
    r"\s*(\d{4})[-:/.](\d{1,2})[-:/.](\d{1,2})"
    r"(?:[\sT]+(\d{1,2})[:.](\d{2})(?:[:.](\d{2})(?:[.,]\d+)?)?\s*(?:([AP])M)?)?"
    r"\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?\s*",
    re.ASCII | re.IGNORECASE,
)
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)[\sT]?(?:(\d\d)(\d\d)(\d\d))?()(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII)
_DAY_FIRST = re.compile(
    r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:\s+(\d{1,2}):(\d{2})(?::(\d{2}))?)?()", re.ASCII
)  # with points, days come first everywhere
_MONTH = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_RFC_1123 = re.compile(
    rf"\s*(?:\w{{3}},\s*)?(\d{{1,2}})\s+({_MONTH})\w*\s+(\d{{4}})(?:\s+(\d{{1,2}}):(\d{{2}})(?::(\d{{2}}))?)?"
    r"\s*(?:\w{1,4}|[+-]\d{4})?\s*",
    re.ASCII | re.IGNORECASE,
)
_CTIME = re.compile(
    rf"(?:\w{{3}}\s+)?({_MONTH})\w*\s+(\d{{1,2}})\s+(\d{{1,2}}):(\d{{2}}):(\d{{2}})\s+(\d{{4}})",
    re.ASCII | re.IGNORECASE,
)
_XMP_KEYS = (b"exif:DateTimeOriginal", b"photoshop:DateCreated", b"xmp:CreateDate", b"exif:DateTimeDigitized")
_XMP_VALUE = rb"\s*(?:=\s*[\"']|>)\s*([0-9T:.+Z -]{8,40})"
_XMP_BYTES = 1 << 20

# A day, and after one of the separators that programs use perhaps a time: 20261121_093000, 2026-11-21 at 9.30.00 PM.
_NAME_DAY = r"(?<!\d)((?:19|20)\d{2})[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])"
_NAME_TIME = r"(\d{2}|\d(?=[.:]))[-_.:]?([0-5]\d)(?:[-_.:]?([0-5]\d))?(?:[-_.:]?\d{3})?(?!\d)\s*(?:([AP])M)?"
_NAME = re.compile(
    rf"{_NAME_DAY}(?:[-_.\sT]+(?:[^\W\d]{{1,3}}\.?\s+)?{_NAME_TIME}|(\d{{2}})([0-5]\d)([0-5]\d)(?:\d{{3}})?(?!\d)|(?!\d))",
    re.IGNORECASE,
)

# Messengers that name pictures by the seconds, or milliseconds, since 1970.
_SECONDS = re.compile(
    r"(?:FB_IMG_|mmexport|wx_camera_|microMsg\.|Snapchat-|line_)(\d{10})(?:\d{3})?(?!\d)", re.IGNORECASE
)


def parse_date(text: str) -> str | None:
    """A date as cameras and programs write it, as `2026-11-21T09:30:00`; None where it is none.

    The time is the camera's own: a zone behind it is left out. A date without a time is its midnight.
    """
    plain = text.strip("\0 ")
    if (found := _DATE.fullmatch(plain) or _COMPACT.fullmatch(plain)) is not None:
        year, month, day, hour, minute, second, half = found.groups()
        return _iso(year, month, day, _of_day(hour, half), minute, second)
    if (found := _DAY_FIRST.fullmatch(plain)) is not None:
        day, month, year, *clock, _ = found.groups()
        return _iso(year, month, day, *clock)
    if (found := _CTIME.fullmatch(plain)) is not None:
        name, day, hour, minute, second, year = found.groups()
        return _iso(year, _month_number(name), day, hour, minute, second)
    if (found := _RFC_1123.fullmatch(plain)) is not None:
        day, name, year, hour, minute, second = found.groups()
        return _iso(year, _month_number(name), day, hour, minute, second)
    return None


def _month_number(name: str) -> str:
    return str(_MONTH.lower().split("|").index(name.lower()) + 1)


def _of_day(hour: str | None, half: str | None) -> str | None:
    """An hour of 24 where it was one of 12."""
    return hour if hour is None or not half else str(int(hour) % 12 + (12 if half.upper() == "P" else 0))


def date_of(exif: bytes, xmp: bytes = b"", texts: Iterable[str] = ()) -> str | None:
    """When a picture was taken, by what its file says: the original's time, else that of digitising or change.

    Args:
        exif: Its EXIF block, from the byte order mark on; may be damaged.
        xmp: Its XMP packet.
        texts: Other dates in the file, such as those of a PNG, the best first.
    """
    original, changed = exif_dates(exif)
    for text in (*original, *_xmp_dates(xmp), *changed, *texts):
        date = parse_date(text)
        if date is not None:
            return date
    return None


def date_in_name(name: str) -> str | None:
    """The date that cameras, phones and messengers put into a file's name; None where there is none.

    Understood are a day as `20260101` or `2026-01-01`, with or without a time: IMG-20260101-WA0001.jpg,
    PXL_20260101_093000123.jpg, Screenshot 2026-11-21 at 9.30.00 PM.png, signal-2026-01-01-093000.jpg.
    """
    for found in _NAME.finditer(name.rpartition("/")[2]):
        year, month, day, *spaced, half, joined_hour, joined_minute, joined_second = found.groups()
        hour, minute, second = spaced if joined_hour is None else (joined_hour, joined_minute, joined_second)
        date = _iso(year, month, day, _of_day(hour, half), minute, second) or _iso(
            year, month, day, None, None, None
        )
        if date is not None:
            return date
    seconds = _SECONDS.search(name.rpartition("/")[2])
    return None if seconds is None else datetime.fromtimestamp(int(seconds[1]), timezone.utc).isoformat()[:19]


def exif_dates(exif: bytes) -> tuple[list[str], list[str]]:
    """The texts of an EXIF block's dates: of the original and of digitising; of the last change."""
    try:
        reader = tags.TagReader(exif)
    except ValueError:
        return [], []
    main = reader.directory(reader.first)
    inner = reader.directory(reader.number(main[tags.EXIF])) if tags.EXIF in main else {}
    both = {**main, **inner}
    original = [reader.text(both.get(tag)) for tag in (tags.DATE_ORIGINAL, tags.DATE_DIGITIZED)]
    return original, [reader.text(both.get(tags.DATE_TIME))]


def _xmp_dates(xmp: bytes) -> list[str]:
    packet = xmp[:_XMP_BYTES]
    found = (re.search(re.escape(key) + _XMP_VALUE, packet) for key in _XMP_KEYS)
    return [match.group(1).decode("ascii") for match in found if match is not None]


def _iso(
    year: str, month: str, day: str, hour: str | None, minute: str | None, second: str | None
) -> str | None:
    numbers = [int(part or 0) for part in (year, month, day, hour, minute, second)]
    midnight = numbers[3:] == [24, 0, 0]  # of the next day
    numbers[3:] = [0, 0, 0] if midnight else [*numbers[3:5], 59 if numbers[5] == 60 else numbers[5]]
    try:
        moment = datetime(*numbers) + timedelta(days=midnight)  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return moment.isoformat() if numbers[0] >= 1000 else None
