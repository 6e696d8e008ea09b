"""Locations of pictures: local files, URLs, members of tar shards.

A place is a `Path` for what lies on this machine and a `str` for a URL, because a `Path` would eat one of its slashes.
A member of a shard is named as if the shard were a folder: `/data/000.tar/cat.jpg`, `s3://bucket/000.tar/cat.jpg`.

Only what an indexing run has found is read through this module; what a user brings to a query is read by
`image2sentence.images`, which fetches no URLs.
"""

from __future__ import annotations

import ntpath
import os
import posixpath
import re
import tarfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias
from urllib.parse import urlsplit

from image2sentence.errors import GalleryError, ImageError
from image2sentence.images import MAX_BYTES, open_regular, printable, read_regular

Place: TypeAlias = Path | str
"""A local path, or a URL such as `s3://bucket/folder/cat.jpg`."""

Identity: TypeAlias = tuple[int, int]
"""Device and inode of a file or folder."""

SHARD = ".tar"

_CLOUD = "abfs abfss adl az b2 box cos dropbox gcs gdrive gs hf oci oss r2 s3 s3a"
PROTOCOLS = frozenset([*_CLOUD.split(), "memory"])
"""Protocols of URLs that are read: stores that this computer is set up for. With others (`http`, `sftp`, `smb`) the
URL chooses the host, so that a gallery would have this computer sign in there, or ask what it alone may."""

PROTOCOLS_VARIABLE = "IMAGE2SENTENCE_PROTOCOLS"
"""Environment variable with more of them, apart by spaces."""

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_SEPARATOR = re.compile(r"[/\\]" if os.name == "nt" else "/")
_ROOTS = ("/", "\\") if os.name == "nt" else ("/",)
_TAR_BLOCK = 512
# What the file systems of fsspec raise when something is missing, refused or broken off.
REMOTE_ERRORS = (OSError, ValueError, EOFError, RuntimeError)


class Located(Protocol):
    """What is needed of a picture to read its file; `image2sentence.gallery.records.Picture` has it."""

    @property
    def path(self) -> Place:
        """Its place."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def offset(self) -> int | None:
        """Where its bytes begin in its shard; None for what is a file of its own."""
        ...


def is_url(name: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL; `file://` is one too."""
    return isinstance(name, str) and _URL.match(name) is not None


def as_place(name: str | os.PathLike[str]) -> Place:
    """A name as a place: URLs as they are, all else as an absolute path.

    Raises:
        GalleryError: a URL that holds a password, several URLs chained, or a protocol that is not allowed.
    """
    if not is_url(name):
        return _absolute(os.fspath(name))
    url = os.fspath(name)
    if url.lower().startswith("file://") and "::" not in url:
        return _absolute(url[len("file://") :])
    check_url(url)
    return url.rstrip("/") if url.rstrip("/").partition("://")[2] else url


def _absolute(name: str) -> Path:
    """An absolute path without `..`, which behind a link means the folder above the one that the link leads to."""
    lexical, parts = Path(os.path.abspath(name)), Path(name).parts
    if ".." in parts:
        end = len(parts) - parts[::-1].index("..")
        real = Path(os.path.realpath(Path(*parts[:end])), *parts[end:])
        if identity(real) not in (None, identity(lexical)):
            return real
    return lexical


def check_url(url: str) -> None:
    """Raise GalleryError for a URL with a password, several URLs chained, or a protocol that is not allowed."""
    if "::" in url:
        raise GalleryError(f"{printable(url)}: chained URLs are not supported; name one folder or shard")
    try:
        password = urlsplit(url).password
    except ValueError as error:
        raise GalleryError(f"{printable(url)} is no URL: {error}") from error
    if password is not None:
        raise GalleryError("the URL holds a password, which a gallery would keep: configure fsspec instead")
    protocol = url.partition("://")[0].lower()
    if protocol not in PROTOCOLS and protocol not in _more_protocols():
        raise GalleryError(
            f"{printable(url)}: {protocol}:// is not among the protocols that are read; to allow it, for this and "
            f"every gallery that is opened: {PROTOCOLS_VARIABLE}={protocol}"
        )


def _more_protocols() -> list[str]:
    return os.environ.get(PROTOCOLS_VARIABLE, "").lower().split()


def is_share_or_device(name: str) -> bool:
    """Whether Windows would take a name for a network share or a device, such as `//host/x` or one with `?`.

    Opening such a name sends this computer's credentials to a host that somebody else chose.
    """
    plain = name.replace("\\", "/")
    return plain.startswith(("//", "/??/"))


def stored_place(name: str) -> Place:
    """A place as a gallery has kept it, held to what `as_place` gives: somebody else may have made the gallery.

    Raises:
        GalleryError: what `as_place` would not have given.
    """
    if os.name == "nt" and is_share_or_device(name) and "unc" not in _more_protocols():
        raise GalleryError(
            f"the gallery names a network share or device, {printable(name)[:200]!r}: give the share a drive letter "
            f"and index that, or allow shares for every gallery that is opened: {PROTOCOLS_VARIABLE}=unc"
        )
    place = as_place(name) if is_url(name) else Path(name)
    # A gallery that was made on another system names its folders by the rules there.
    absolute = any(rules.isabs(name) and rules.normpath(name) == name for rules in (posixpath, ntpath))
    if os.fspath(place) != name or not (is_url(name) or absolute):
        raise GalleryError(
            f"the gallery names a place that indexing never writes, {printable(name)[:200]!r}: do not use it"
        )
    return place


def may_exist(place: Place) -> bool:
    """Whether an indexed place is still there; what is behind a URL is not asked, and taken to be."""
    # A share that is away may give any error; `Path.is_dir` raises some of them.
    return not isinstance(place, Path) or os.path.isdir(place) or _is_local_shard(place)


def file_may_exist(place: Place) -> bool:
    """Whether a picture's file, or the shard that it lies in, is there; what is behind a URL is taken to be."""
    if not isinstance(place, Path):
        return True
    try:
        return os.path.exists(place) or any(map(_is_local_shard, place.parents))
    except (OSError, ValueError):
        return False


def identity(place: Place) -> Identity | None:
    """What tells files and folders apart whatever they are called; None for URLs and for what is not there."""
    if not isinstance(place, Path):
        return None
    try:
        status = os.stat(place)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if status.st_ino else None


def known_as(place: Place, roots: Iterable[Place]) -> Place | None:
    """The root that a place is, under whatever name: through a link, a second mount, in capitals; None: none."""
    candidates = list(roots)
    if place in candidates:
        return place
    own = identity(place)
    return next((root for root in candidates if own is not None and identity(root) == own), None)


def lies_within(inner: Place, outer: Place) -> bool:
    """Whether a place is below another one, links and mounts followed where both are there."""
    if isinstance(inner, Path) and isinstance(outer, Path):
        own = identity(outer)
        real = Path(os.path.realpath(inner))
        return inner != outer and (
            inner.is_relative_to(outer)
            or any(own is not None and identity(above) == own for above in real.parents)
        )
    return str(inner).startswith(str(outer).rstrip("/") + "/")


def joined(root: Place, path: str) -> Place:
    """The place of what lies at a relative path below a root; the root itself for the empty path.

    Raises:
        GalleryError: the path leads out of the root.
    """
    if not path:
        return root
    absolute = isinstance(root, Path) and (path.startswith(_ROOTS) or os.path.isabs(path))
    if absolute or (".." in path and ".." in _SEPARATOR.split(path)):
        raise GalleryError(
            f"the gallery names a file outside its folder, {printable(path)[:200]!r}: do not use it"
        )
    return root / path if isinstance(root, Path) else f"{root.rstrip('/')}/{path}"


def place_name(place: Place) -> str:
    """The last part of a place, such as `cat.jpg`."""
    return place.name if isinstance(place, Path) else place.rstrip("/").rpartition("/")[2]


def seen_from(folder: Path, place: Place) -> Place:
    """A place as it is called within a folder: relative to it where it lies below."""
    if isinstance(place, Path) and place.is_relative_to(folder):
        return place.relative_to(folder)
    return place


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it.

    Raises GalleryError for URLs that are not read, see `check_url`, and where a package is missing.
    """
    check_url(url)
    try:
        import fsspec

        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise GalleryError(f"{printable(url)} cannot be reached: {error}") from error
    return found


def read_picture(picture: Located) -> bytes:
    """The bytes of a gallery's picture. Raises ImageError with the bare reason."""
    if isinstance(picture.path, str) and "::" in picture.path:
        raise ImageError("its name holds `::`, by which fsspec chains URLs")
    if picture.offset is not None:
        return _read_member(picture.path, picture.offset, picture.size)
    if isinstance(picture.path, Path):
        return read_regular(picture.path)[0]
    return read_url(picture.path)


def read_url(url: str) -> bytes:
    """The bytes behind a URL, at most `MAX_BYTES`. Raises ImageError with the bare reason."""
    try:
        with open_place(url) as file:
            data = file.read(MAX_BYTES + 1)
    except REMOTE_ERRORS as error:
        raise ImageError(
            f"it cannot be read ({type(error).__name__}: {printable(str(error))[:200]})"
        ) from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"more than the limit of {MAX_BYTES:,} bytes")
    return data


def open_place(place: Place, **options: Any) -> AbstractContextManager[BinaryIO]:
    """Open for reading; closing is the caller's. Raises ImageError for paths, fsspec's errors for URLs."""
    if isinstance(place, Path):
        return open_regular(place)
    system, path = file_system(place)
    opened: AbstractContextManager[BinaryIO] = system.open(path, "rb", **options)
    return opened


def shard_of(place: Place) -> Place:
    """The tar file that a member lies in. Raises ImageError where none is there any more."""
    found: Place | None
    if isinstance(place, Path):
        found = next((above for above in reversed(place.parents) if _is_local_shard(above)), None)
    else:
        system, _ = file_system(place)
        ends = (match.end() - 1 for match in re.finditer(re.escape(SHARD) + "/", place, re.IGNORECASE))
        found = next((place[:end] for end in ends if system.isfile(place[:end])), None)
    if found is None:
        raise ImageError("its shard is gone")
    return found


def _is_local_shard(path: Path) -> bool:
    return path.name.lower().endswith(SHARD) and os.path.isfile(path)


def _read_member(place: Place, offset: int, size: int) -> bytes:
    """One range of a shard, if the header before it still announces a member of this size."""
    if not 0 <= size <= MAX_BYTES or offset < _TAR_BLOCK:
        raise ImageError(f"more than the limit of {MAX_BYTES:,} bytes, or before the beginning of its shard")
    try:
        with open_place(shard_of(place)) as file:
            file.seek(offset - _TAR_BLOCK)
            header = tarfile.TarInfo.frombuf(file.read(_TAR_BLOCK), "utf-8", "surrogateescape")
            data = file.read(size) if header.size == size else b""
    except (tarfile.HeaderError, *REMOTE_ERRORS) as error:
        raise ImageError(
            f"its shard was changed or cannot be read ({printable(str(error))[:200]})"
        ) from error
    if len(data) != size:
        raise ImageError("its shard was changed since it was indexed")
    return data
