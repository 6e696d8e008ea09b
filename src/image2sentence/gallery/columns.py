"""Looking after metadata columns: how full they are, another type, taking them away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.files.cells import convert
from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.images import printable

_BATCH = 10_000
_LISTED = 5


@dataclass(frozen=True)
class ColumnState:
    """A metadata column: its name, type, and how many pictures have a value."""

    name: str
    type: ColumnType
    values: int


def list_columns(gallery: GalleryStore) -> list[ColumnState]:
    """The columns in the order in which they came. Raises GalleryError."""
    types = gallery.columns()
    counts = dict.fromkeys(types, 0)
    for _, row in _rows(gallery):
        for name in row:
            counts[name] += 1
    return [ColumnState(name, kind, counts[name]) for name, kind in types.items()]


def retype_column(gallery: GalleryStore, name: str, kind: ColumnType, *, discard: bool = False) -> int:
    """Give a column another type, its values converted.

    Args:
        gallery: Opened for writing.
        name: The column.
        kind: Its new type.
        discard: Take values away that the new type cannot hold, instead of refusing.

    Returns:
        How many values were taken away.

    Raises:
        DataError: there is no such column, or a value cannot be converted; nothing is changed.
        GalleryError: it cannot be written.
    """
    _require(gallery, name)
    values: list[tuple[int, Value | None]] = []
    lost: list[Value] = []
    for picture_id, row in _rows(gallery):
        if name in row:
            try:
                values.append((picture_id, convert(kind, row[name])))
            except ValueError:
                values.append((picture_id, None))
                lost.append(row[name])
    if lost and not discard:
        shown = ", ".join(f"{value!r:.40}" for value in list(dict.fromkeys(lost))[:_LISTED])
        raise DataError(
            f"{len(lost):,} of the {len(values):,} values of {printable(name)!r} are no {kind}: {shown}; correct them "
            "with a metadata file, or discard them (--discard)"
        )
    gallery.change_column(name, kind, values)
    return len(lost)


def drop_column(gallery: GalleryStore, name: str) -> int:
    """Take a column and its values away; gives how many there were. Raises DataError where there is none."""
    _require(gallery, name)
    values: list[tuple[int, Value | None]] = [(number, None) for number, row in _rows(gallery) if name in row]
    gallery.change_column(name, None, values)
    return len(values)


def _require(gallery: GalleryStore, name: str) -> None:
    known = gallery.columns()
    if name not in known:
        shown = ", ".join(map(printable, list(known)[:20])) or "none"
        raise DataError(f"there is no metadata column {printable(name)!r}; there are: {shown}")


def _rows(gallery: GalleryStore) -> Iterator[tuple[int, dict[str, Value]]]:
    """Pictures' ids with the values that are there."""
    ids = [picture.id for picture in gallery.pictures()]
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        yield from zip(batch, gallery.metadata(batch), strict=True)
