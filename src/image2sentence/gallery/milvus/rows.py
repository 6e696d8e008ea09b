"""Rows of the pictures' collection, made from what indexing writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from image2sentence.gallery.locations import Place, joined
from image2sentence.gallery.milvus import layout
from image2sentence.gallery.milvus.bookkeeping import Failed, Ids
from image2sentence.gallery.milvus.database import Fields
from image2sentence.gallery.records import Content, Entry, Picture


def last_of_each(entries: Sequence[Entry]) -> list[Entry]:
    """One entry for each path: the last one, which keeps the id that an earlier one was to keep."""
    last: dict[str, Entry] = {}
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


def id_of(entry: Entry, row: Fields | None, failed: Mapping[str, Failed], ids: Ids) -> int:
    """The id that a file has, or a new one."""
    if row is not None:
        return int(row["id"])
    return failed[entry.path].id if entry.path in failed else ids.take()


def picture_row(
    number: int, root: int, entry: Entry, contents: Mapping[str, Fields], kept: Fields | None
) -> Fields:
    """A picture's row: its content, its file, and its metadata, those it had and those it is given."""
    assert entry.sha256 is not None
    metadata: dict[str, Any] = {} if kept is None else {**layout.metadata_of(kept)}
    metadata |= entry.metadata
    return {
        **contents[entry.sha256.hex()],
        "id": number,
        "root": root,
        "path": layout.stored_path(entry.path),
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "offset": layout.NO_OFFSET if entry.offset is None else entry.offset,
        **layout.as_fields(metadata),
    }


def as_failed(
    entry: Entry, root: int, ready: Mapping[str, Fields], known: Mapping[str, Failed], ids: Ids
) -> Failed:
    """A failure with the id that the file has, if it has one."""
    number = id_of(entry, ready.get(entry.path), known, ids)
    return Failed(number, root, entry.path, entry.size, entry.mtime_ns, entry.reason or "", entry.offset)


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
