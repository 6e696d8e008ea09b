"""Reading of regular files, and names as text that can be printed."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import BinaryIO, TypeAlias

from image2sentence.errors import ImageError

MAX_BYTES = 1 << 30
"""Largest picture file read (1 GiB)."""

PathLike: TypeAlias = str | os.PathLike[str]


def content_hash(path: PathLike) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits (what `sha256sum` prints). Raises ImageError."""
    try:
        return hashlib.sha256(read_regular(path)[0]).hexdigest()
    except ImageError as error:
        raise ImageError(f"{display_path(path)}: {error}") from error


def display_path(path: PathLike | bytes) -> str:
    """A path as text that any UTF-8 terminal or JSON writer takes: odd bytes become escapes."""
    text = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return printable(text)


def open_regular(path: PathLike) -> BinaryIO:
    """Open a regular file for reading; never waits on a pipe or a device.

    Raises:
        ImageError: with the bare reason; the caller knows the name.
    """
    # Looking first keeps devices unopened (opening has effects); looking again after opening closes the gap.
    try:
        _require_regular(os.stat(path))
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        raise ImageError(_open_reason(path, error)) from error
    try:
        _require_regular(os.fstat(file.fileno()))
    except ImageError:
        file.close()
        raise
    return file


def read_regular(path: PathLike) -> tuple[bytes, os.stat_result]:
    """The content of a regular file and its status just before. Raises ImageError with the bare reason."""
    with open_regular(path) as file:
        try:
            # In this order: a file changed while it is read then looks changed the next time.
            status = os.fstat(file.fileno())
            return file.read(), status
        except (OSError, MemoryError) as error:
            raise ImageError(f"it cannot be read ({error})") from error


def printable(text: str) -> str:
    """The text with control characters and lone surrogates as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("a pipe, socket or device, not a regular file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"{status.st_size:,} bytes, more than the limit of {MAX_BYTES:,}")


def _open_reason(path: PathLike, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a file that does not exist" if os.path.islink(path) else "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"it cannot be opened ({reason or error})"
