"""Stored facts of pictures, as filters and lists name them.

| fact | what it is |
| --- | --- |
| `path` | where the picture lies, as JSON has it |
| `folder` | its folder below the indexed one, with `/` between; empty for the indexed folder itself |
| `name` | the last part of its path |
| `size` | bytes of its file |
| `width`, `height` | pixels, upright |
| `date` | the date in its column `taken`, else the modification time of its file in UTC; not for URLs |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from image2sentence.gallery.filters.in_memory import tests_of
from image2sentence.gallery.filters.language import FACTS, ColumnType, Filter, Value, as_filter
from image2sentence.gallery.locations import Place, place_name
from image2sentence.gallery.records import Picture
from image2sentence.strict_json import valid_text

TAKEN = "taken"
"""The metadata column with the date on which a picture was taken."""

_EPOCH = datetime(1970, 1, 1)
_UNSEEN = -1


def path_of(root: Place, path: str) -> str:
    """The fact `path` of what lies at a relative path below a root."""
    if not path:
        return valid_text(os.fspath(root))
    base = os.fspath(root).rstrip("/")
    return valid_text(os.path.join(base or "/", path) if isinstance(root, Path) else f"{base}/{path}")


def folder_of(path: str) -> str:
    """The fact `folder` of a relative path."""
    return valid_text(_slashes(path).rpartition("/")[0])


def name_of(root: Place, path: str) -> str:
    """The fact `name`."""
    return valid_text(_slashes(path).rpartition("/")[2] if path else place_name(root))


def date_of(root: Place, mtime_ns: int) -> str | None:
    """The modification time as a date in UTC; None for URLs, whose objects have marks instead, and where unknown."""
    if not isinstance(root, Path) or mtime_ns == _UNSEEN:
        return None
    try:
        return (_EPOCH + timedelta(seconds=mtime_ns // 1_000_000_000)).isoformat(timespec="seconds")
    except OverflowError:
        return None


def nanoseconds(date: str) -> int:
    """Nanoseconds since 1970 of a date in the form in which columns keep it."""
    return round((datetime.fromisoformat(date) - _EPOCH) / timedelta(seconds=1)) * 1_000_000_000


def facts_of(
    picture: Picture, roots: Iterable[Place], metadata: Mapping[str, Value]
) -> dict[str, Value | None]:
    """All facts of a picture below one of the roots of its gallery."""
    root, path = _below(picture.path, roots)
    taken = metadata.get(TAKEN)
    return {
        "path": path_of(root, path),
        "folder": folder_of(path),
        "name": name_of(root, path),
        "size": picture.size if picture.size >= 0 else None,
        "width": picture.width,
        "height": picture.height,
        "date": taken if taken is not None else date_of(root, picture.mtime_ns),
    }


def facts_asked(where: str | Filter, columns: Mapping[str, ColumnType]) -> set[str]:
    """The facts, without `@`, that a filter asks for. Raises QueryError."""
    tests = tests_of(as_filter(where).condition)
    names = {test.column for test in tests if test.column not in columns}
    return {name.removeprefix("@") for name in names} & {fact[1:] for fact in FACTS}


def _below(place: Place, roots: Iterable[Place]) -> tuple[Place, str]:
    """The innermost root that a place lies below, and its path relative to it."""
    name = os.fspath(place)
    for root in sorted(roots, key=lambda root: -len(os.fspath(root))):
        start = os.fspath(root).rstrip("/" + os.sep)
        if name == os.fspath(root) or name.startswith((f"{start}/", f"{start}{os.sep}")):
            return root, name[len(start) + 1 :]
    return place, ""


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")
