"""One writer at a time: a lock of the operating system, which frees it however the writer ends."""

from __future__ import annotations

import os
import socket
import sys
from datetime import datetime, timezone
from pathlib import Path

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


class WriterLock:
    """Holds a gallery for writing from construction to `release`.

    Raises:
        GalleryError: another writer holds it (the message names it), or the folder cannot be written.
    """

    def __init__(self, file: Path) -> None:
        try:
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise GalleryError(
                f"cannot write in {display_path(file.parent)} ({error.strerror}): "
                "open the gallery read-only, or make the folder writable"
            ) from error
        try:
            _lock(self._descriptor)
        except OSError as error:
            owner = os.read(self._descriptor, 200).decode("utf-8", errors="replace").strip()
            os.close(self._descriptor)
            raise GalleryError(
                f"{display_path(file.parent)} is being written by {owner or 'another process'}: "
                "wait until it ends, or stop it; reading goes on meanwhile"
            ) from error
        self._write_owner()

    def _write_owner(self) -> None:
        since = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        os.ftruncate(self._descriptor, 0)
        owner = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
        os.write(self._descriptor, owner.encode())

    def release(self) -> None:
        """Give the gallery free; calling again does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
