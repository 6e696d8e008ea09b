"""Records of pictures and files in a gallery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import Place


@dataclass(frozen=True)
class Picture:
    """One picture that a gallery knows.

    Attributes:
        id: Stays with the picture when its file is renamed or moved; never given to another picture.
        path: Absolute path, or URL, when the picture was indexed; see `image2sentence.gallery.locations`.
        state: "ready" (can be found) or "failed" (could not be read).
        reason: Why it failed; None when ready.
        size: Bytes of the file; -1 when it could not be looked at.
        mtime_ns: Modification time in nanoseconds since 1970; -1 when it could not be looked at.
        content_id: Id of its content; pictures that share it are duplicates. None when failed.
        width: Pixels across, upright, before any reduction; None when failed.
        height: Pixels down; None when failed.
        offset: Where its bytes begin in an archive; None for a file of its own.
    """

    id: int
    path: Place
    state: str
    reason: str | None
    size: int
    mtime_ns: int
    content_id: int | None
    width: int | None
    height: int | None
    offset: int | None = None


@dataclass(frozen=True)
class Content:
    """A picture's content, to be written: SHA-256 (32 bytes), full size in pixels, vector ((d,) float32)."""

    sha256: bytes
    width: int
    height: int
    vector: Vectors


@dataclass(frozen=True)
class FileEntry:
    """A file's state, to be written: ready with the SHA-256 of a stored content, or failed with a reason.

    `moved_from` is the id of a picture whose file has gone and whose content this is: it keeps that id.
    `metadata` are values by column to set (None takes one away); other columns keep theirs. `offset` is where
    the bytes of a member of an archive begin in it.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: bytes | None = None
    reason: str | None = None
    moved_from: int | None = None
    metadata: Mapping[str, Value | None] = field(default_factory=dict)
    offset: int | None = None


@dataclass(frozen=True)
class KnownFile:
    """What a gallery knows of one file below a root."""

    id: int
    size: int
    mtime_ns: int
    reason: str | None
    content_id: int | None
