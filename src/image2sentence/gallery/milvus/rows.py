"""Rows of the pictures' collection, made from what indexing writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.gallery.locations import Place, joined
from image2sentence.gallery.metadata import checked_value
from image2sentence.gallery.milvus import layout
from image2sentence.gallery.milvus.bookkeeping import Failed, Ids
from image2sentence.gallery.milvus.database import Fields
from image2sentence.gallery.records import Content, FileEntry, Picture


def last_of_each(entries: Sequence[FileEntry]) -> list[FileEntry]:
    """One entry for each path: the last one, which keeps the id that an earlier one was to keep."""
    last: dict[str, FileEntry] = {}
    for entry in entries:
        earlier = last.get(entry.path)
        if earlier is not None and earlier.moved_from is not None and entry.moved_from is None:
            entry = replace(entry, moved_from=earlier.moved_from)
        last[entry.path] = entry
    return list(last.values())


def content_fields(content: Content) -> Fields:
    """Content, size and vector, as the row has them."""
    return {
        "content": content.sha256.hex(),
        "width": content.width,
        "height": content.height,
        "vector": content.vector,
    }


def id_of(entry: FileEntry, row: Fields | None, failed: Mapping[str, Failed], ids: Ids) -> int:
    """The id that a file has, or a new one."""
    if row is not None:
        return int(row["id"])
    return failed[entry.path].id if entry.path in failed else ids.take()


def picture_row(
    picture_id: int, root: int, entry: FileEntry, contents: Mapping[str, Fields], kept: Fields | None
) -> Fields:
    """A picture's row: its content, its file, and its metadata, those it had and those it is given."""
    assert entry.sha256 is not None
    metadata: dict[str, Any] = {} if kept is None else {**layout.metadata_of(kept)}
    metadata |= entry.metadata
    return {
        **contents[entry.sha256.hex()],
        "id": picture_id,
        "root": root,
        "path": layout.stored_path(entry.path),
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "offset": layout.NO_OFFSET if entry.offset is None else entry.offset,
        **layout.as_fields(metadata),
    }


def changed_row(
    row: Fields, values: Mapping[str, Value | None], columns: Mapping[str, ColumnType]
) -> Fields | None:
    """A picture's row with other metadata (None takes a value away); None where nothing changes. Raises DataError."""
    given = {name: checked_value(name, columns[name], value) for name, value in values.items()}
    before = layout.metadata_of(row)
    if all(before.get(name) == value for name, value in given.items()):
        return None
    # A null takes a value away; leaving it out would not, because Milvus Lite merges what it is given.
    return row | layout.as_fields(given)


def check_metadata(rows: Sequence[Fields], read_columns: Callable[[], Mapping[str, ColumnType]]) -> None:
    """Check that all metadata fit their columns, which are read only where there is metadata. Raises DataError."""
    metadata = [layout.metadata_of(row) for row in rows]
    columns = read_columns() if any(metadata) else {}
    for values in metadata:
        for name, value in values.items():
            checked_value(name, columns[name], value)


def as_failed(
    entry: FileEntry, root: int, ready: Mapping[str, Fields], known: Mapping[str, Failed], ids: Ids
) -> Failed:
    """A failure with the id that the file has, if it has one."""
    picture_id = id_of(entry, ready.get(entry.path), known, ids)
    return Failed(picture_id, root, entry.path, entry.size, entry.mtime_ns, entry.reason or "", entry.offset)


def as_failed_picture(failed: Failed, roots: Mapping[int, Place]) -> Picture:
    """A failed file as a picture of the gallery."""
    return Picture(
        id=failed.id,
        path=joined(roots[failed.root], failed.path),
        state="failed",
        reason=failed.reason,
        size=failed.size,
        mtime_ns=failed.mtime_ns,
        content_id=None,
        width=None,
        height=None,
        offset=failed.offset,
    )
