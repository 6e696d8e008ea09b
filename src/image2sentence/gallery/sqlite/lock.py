"""Writer's lock of a gallery, held by the operating system.

The system frees it however the writer ends.

The lock's file also holds what the last writer committed, apart from SQLite's own files: that is how commits are missed
which a damaged log lost without a word.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from image2sentence.errors import GalleryError
from image2sentence.images import display_path

if sys.platform == "win32":
    import msvcrt

    # Windows locks bytes, and locked bytes cannot be read: lock one far behind the owner's name.
    _LOCKED_BYTE = 1 << 20

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_MARK = re.compile(r"^(committed (\d{20}) of ([0-9a-f]{32})), ([0-9a-f]{8})$", re.MULTILINE)
_MAX_BYTES = 1_000
# What a lock that another process holds is answered by; all else means that there are no locks.
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK})


class Mark(NamedTuple):
    """The last commit of a gallery: its generation, and the gallery's id."""

    generation: int
    gallery: str


def read_mark(file: Path) -> Mark | None:
    """What the lock's file says of the last commit; None where it says nothing or cannot be read."""
    try:
        with file.open("rb") as stream:
            return _as_mark(stream.read(_MAX_BYTES))
    except OSError:
        return None  # a copy of a gallery may come without it, and a reader need not be let at it


def _as_mark(data: bytes) -> Mark | None:
    found = _MARK.search(data.decode("utf-8", errors="replace"))
    if found is None or _sum(found[1]) != found[4]:
        return None
    return Mark(int(found[2]), found[3])


def _as_text(mark: Mark) -> str:
    committed = f"committed {mark.generation:020} of {mark.gallery}"
    return f"{committed}, {_sum(committed)}\n"


def _sum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


class WriterLock:
    """Holds a gallery for writing from construction to `release`.

    Raises:
        GalleryError: another writer holds it (the message names it), or the folder cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise self._cannot_write(error) from error
        before = os.read(self._descriptor, _MAX_BYTES)
        try:
            _lock(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno not in _HELD:
                raise GalleryError(
                    f"cannot lock {display_path(file)} ({error.strerror}): the file system gives no locks (some "
                    "network disks need a lock service or an option for it); keep the gallery on another disk, or "
                    "open it read-only"
                ) from error
            owner = before.decode("utf-8", errors="replace").partition("\n")[0]
            raise GalleryError(
                f"{display_path(file.parent)} is being written by {owner or 'another process'}: "
                "wait until it ends, or stop it; reading goes on meanwhile"
            ) from error
        since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._owner = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        mark = read_mark(file)
        try:
            self._write(mark)
        except GalleryError:
            self.release()
            raise

    def record(self, mark: Mark) -> None:
        """Note what has been committed. Raises GalleryError where it cannot be written."""
        self._write(mark)

    def _write(self, mark: Mark | None) -> None:
        text = f"{self._owner}\n{'' if mark is None else _as_text(mark)}".encode()
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, text)
            os.ftruncate(self._descriptor, len(text))
        except OSError as error:
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> GalleryError:
        return GalleryError(
            f"cannot write in {display_path(self._file.parent)} ({error.strerror}): "
            "open the gallery read-only, make the folder writable, or make room on the disk"
        )

    def release(self) -> None:
        """Give the gallery free; calling again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
