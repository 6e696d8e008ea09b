"""Sources of pictures: folders, URLs and tar shards (WebDataset).

The identity of a picture is its root, as it was named when it was indexed, and its path below the root. A member of
a shard is named `SHARD.tar/NAME-IN-THE-SHARD`; names only label what was read from the tar, and never lead anywhere.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from image2sentence.errors import GalleryError, ImageError, StorageAwayError
from image2sentence.gallery.locations import (
    REMOTE_ERRORS,
    SHARD,
    Place,
    as_place,
    file_system,
    joined,
    may_exist,
    open_place,
    read_url,
)
from image2sentence.images import EXTENSIONS, display_path, ending_of, printable, read_regular
from image2sentence.indexing.exclusions import Exclusions
from image2sentence.indexing.walk import UNSEEN, FoundFile, Passed, Walk, walk

MAX_MEMBER_BYTES = 128 << 20
"""Bytes of a shard's member, and of the headers before it."""

MAX_MEMBERS = 1_000_000
"""Members of one shard."""

_MAX_NAME_BYTES = 4_096
_READ_AHEAD = 8 << 20
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
_MARKS = ("ETag", "etag", "md5Hash", "checksum")


@dataclass(frozen=True)
class Member:
    """A picture in a shard: its name there, where its bytes begin, and the bytes or why there are none."""

    name: str
    offset: int
    size: int
    data: bytes = b""
    reason: str | None = None


@dataclass(frozen=True)
class Source:
    """A place to index: a folder, a URL with objects below it, or (`shard`) one tar file in either."""

    place: Place
    shard: bool

    def walk(
        self, skip: Path | None, passed: Passed | None = None, exclusions: Exclusions | None = None
    ) -> Walk:
        """What lies there, without opening any file; see `walk`. Raises GalleryError where it cannot be listed."""
        if self.shard:
            return Walk(shards=[self._shard()])
        exclusions = Exclusions() if exclusions is None else exclusions
        if isinstance(self.place, Path):
            return walk(self.place, skip, passed, exclusions)
        return _walk_url(self.place, exclusions)

    def read(self, file: FoundFile) -> tuple[bytes, FoundFile]:
        """A file's bytes, and its size and time as they were when it was read. Raises ImageError."""
        place = joined(self.place, file.path)
        if not isinstance(place, Path):
            return read_url(place), file
        data, status = read_regular(place)
        return data, FoundFile(file.path, status.st_size, status.st_mtime_ns)

    def members(self, shard: FoundFile) -> Iterator[Member]:
        """The pictures of a shard, in their order. Raises ImageError where it breaks off or is none."""
        return read_members(joined(self.place, shard.path))

    def _shard(self) -> FoundFile:
        if isinstance(self.place, Path):
            status = self.place.stat()
            return FoundFile("", status.st_size, status.st_mtime_ns)
        system, path = file_system(self.place)
        try:
            return _found("", system.info(path))
        except REMOTE_ERRORS as error:
            raise _unlisted(self.place, error) from error


def open_source(pictures: str | os.PathLike[str]) -> Source:
    """What PICTURES names. Raises GalleryError where there is nothing of the kind."""
    place = as_place(pictures)
    named_so = str(place).lower().endswith(SHARD)
    if not isinstance(place, Path):
        return Source(place, named_so)
    if not may_exist(place):
        raise StorageAwayError(
            f"there is no folder {display_path(place)}: name the folder, .tar file or URL that holds the pictures"
        )
    return Source(place, not os.path.isdir(place))


def shard_path(path: str) -> str | None:
    """The shard that a known path lies in, if its name says so: `a/000.tar/b.jpg` -> `a/000.tar`."""
    end = path.lower().find(SHARD + "/")
    return None if end < 0 else path[: end + len(SHARD)]


def member_path(shard: FoundFile, name: str) -> str:
    """The path of a member below the root."""
    return f"{shard.path}/{name}" if shard.path else name


def read_members(place: Place) -> Iterator[Member]:
    """The members of a tar file whose names end like pictures, in their order.

    Nothing is written anywhere. Compressed tars are refused, and so are members that are not plain files, are
    sparse or too large, have a name that leads out of the shard, or have one that came before.

    Raises:
        ImageError: with the bare reason: it cannot be opened, is no tar, or breaks off; members before are given.
    """
    options = {} if isinstance(place, Path) else {"block_size": _READ_AHEAD}
    try:
        with open_place(place, **options) as file:
            bounded = cast("BinaryIO", _Bounded(file))
            with tarfile.open(fileobj=bounded, mode="r:", errorlevel=2) as tar:
                yield from _members(tar, bounded)
    except (tarfile.TarError, RecursionError, *REMOTE_ERRORS) as error:
        detail = printable(str(error))[:200] or type(error).__name__
        raise ImageError(f"it is no tar shard, or damaged ({detail})") from error


class _Bounded:
    """A file that refuses to read more at once than a member may have: a header can announce any size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError(f"{size:,} bytes announced, the limit is {MAX_MEMBER_BYTES:,}")
        return self._file.read(size)


def _members(tar: tarfile.TarFile, file: BinaryIO) -> Iterator[Member]:
    before, seen = -1, set[str]()
    for number, info in enumerate(_headers(tar)):
        if number >= MAX_MEMBERS or info.offset <= before or info.size < 0:
            raise tarfile.ReadError(
                "too many members" if number >= MAX_MEMBERS else "a header leads backwards"
            )
        before = info.offset
        name = info.name.removeprefix("./")
        if info.isdir() or name.rpartition("/")[2].startswith("."):
            continue
        if ending_of(name) in EXTENSIONS:
            reason = _refusal(info, name) or (f"{printable(name)} came before" if name in seen else None)
            seen.add(name)
            yield _member(info, name, file, reason)


def _headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # otherwise it keeps them all
        yield info


def _member(info: tarfile.TarInfo, name: str, file: BinaryIO, reason: str | None) -> Member:
    if reason is not None:
        return Member(f"[member at byte {info.offset_data}]", info.offset_data, info.size, reason=reason)
    file.seek(info.offset_data)
    data = file.read(info.size)
    if len(data) != info.size:
        raise tarfile.ReadError("unexpected end of data")
    return Member(name, info.offset_data, info.size, data)


def _refusal(info: tarfile.TarInfo, name: str) -> str | None:
    """Why a member is not read."""
    shown = printable(name)[:200]
    if not info.isreg() or info.issparse():
        return f"{shown} is a link, device or sparse file, not a plain file"
    if info.size > MAX_MEMBER_BYTES:
        return f"{shown} has {info.size:,} bytes, more than the limit of {MAX_MEMBER_BYTES:,}"
    parts = name.split("/")
    if len(name) > _MAX_NAME_BYTES or "\0" in name or any(part in ("", ".", "..") for part in parts):
        return f"its name leads out of the shard or is too long: {shown}"
    return None


def _walk_url(url: str, exclusions: Exclusions) -> Walk:
    """The objects below a URL, by path; hidden ones are passed over."""
    found = Walk()
    for path, info in sorted(_listing(url).items()):
        ending = ending_of(path)
        if any(part.startswith(".") for part in path.split("/")):
            continue
        if (pattern := exclusions.pattern_for_object(path)) is not None:
            found.excluded[path] = pattern
            continue
        if ending in EXTENSIONS:
            found.files.append(_found(path, info))
        elif ending == SHARD:
            found.shards.append(_found(path, info))
        else:
            found.others[ending] += 1
    return found


def _listing(url: str) -> dict[str, Mapping[str, Any]]:
    """What the store says of each object below a URL, by path relative to it. Raises GalleryError."""
    system, root = file_system(url)
    try:
        system.invalidate_cache()
        listing: Mapping[str, Mapping[str, Any]] = system.find(root, detail=True)
        there = bool(listing) or system.isdir(root)
    except REMOTE_ERRORS as error:
        raise _unlisted(url, error) from error
    if not there:
        raise StorageAwayError(f"there is nothing at {printable(url)}: check the URL")
    return {path.removeprefix(root.rstrip("/") + "/"): info for path, info in listing.items()}


def _found(path: str, info: Mapping[str, Any]) -> FoundFile:
    size = info.get("size")
    stamp = _stamp(info)
    return (
        FoundFile(path, UNSEEN, UNSEEN)
        if size is None or stamp is None
        else FoundFile(path, int(size), stamp)
    )


def _stamp(info: Mapping[str, Any]) -> int | None:
    """A number that changes with an object: from its content's mark, else its time in ns; None without either."""
    for key in _MARKS:
        if isinstance(info.get(key), str):
            return int.from_bytes(hashlib.sha256(info[key].encode()).digest()[:7], "big")
    for key in _TIMES:
        time = info.get(key)
        if isinstance(time, datetime):
            return round(time.timestamp() * 1e6) * 1_000
        if isinstance(time, int | float):
            return round(time * 1e6) * 1_000
    return None


def _unlisted(url: str, error: Exception) -> GalleryError:
    return StorageAwayError(
        f"{printable(url)} cannot be listed ({type(error).__name__}: {printable(str(error))[:300]})"
    )
