"""Small JPEGs of the gallery's pictures on disk, by the content that they were made from."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from image2sentence.errors import Image2SentenceError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.records import Picture

NAME = "thumbnails.sqlite"
MIB = 1 << 20
_SCHEMA = """
CREATE TABLE IF NOT EXISTS thumbnails (sha256 BLOB PRIMARY KEY, jpeg BLOB NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS thumbnails_by_use ON thumbnails (used);
"""
_FULL = 0.9
_FRESH_SECONDS = 3_600.0
_BUSY_SECONDS = 1.0

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The user's folder for what can be made again: `$XDG_CACHE_HOME/image2sentence`, or what the system has for it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "image2sentence"


def wipe(folder: Path) -> None:
    """Delete what is kept in a folder. Raises OSError where that cannot be done."""
    for ending in ("", "-wal", "-shm"):
        (folder / f"{NAME}{ending}").unlink(missing_ok=True)


class Thumbnails:
    """Keeps JPEGs up to a number of bytes; those not used for longest go first. Threads and processes may share it.

    Where the disk cannot be written, nothing is kept and a warning is logged, once. What is kept serves any gallery.

    Args:
        folder: Where the file lies; made where it is not there.
        limit: Most bytes of all JPEGs together, more than 0.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._bytes = 0
        self._database: sqlite3.Connection | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = folder / NAME
            self._database = sqlite3.connect(file, timeout=_BUSY_SECONDS, check_same_thread=False)
            file.chmod(0o600)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.executescript(_SCHEMA)
            self._bytes = self._total()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @property
    def has_room(self) -> bool:
        """Whether more can be made ahead without pushing out what is there."""
        return self._database is not None and self._bytes < _FULL * self._limit

    def get(self, sha256: bytes) -> bytes | None:
        """The JPEG made from a content; None where there is none."""
        with self._lock:
            if self._database is None:
                return None
            try:
                row = self._database.execute(
                    "SELECT jpeg, used FROM thumbnails WHERE sha256 = ?", (sha256,)
                ).fetchone()
                if row is not None and time.time() - row[1] > _FRESH_SECONDS:
                    with self._database:
                        self._database.execute(
                            "UPDATE thumbnails SET used = ? WHERE sha256 = ?", (time.time(), sha256)
                        )
            except sqlite3.Error as error:
                self._give_up(error)
                return None
            return None if row is None else bytes(row[0])

    def of(self, gallery: GalleryStore, picture_id: int) -> bytes | None:
        """A picture's JPEG; None where there is none, or its file is not what was indexed any more."""
        (picture,), (sha256,) = gallery.pictures_of([picture_id]), gallery.hashes_of([picture_id])
        if picture is None or sha256 is None or not _is_as_indexed(picture):
            return None
        return self.get(sha256)

    def put(self, sha256: bytes, jpeg: bytes) -> None:
        """Keep the JPEG made from a content, and let go of others where there are too many."""
        with self._lock:
            if self._database is None or len(jpeg) > self._limit:
                return
            try:
                with self._database:
                    added = self._database.execute(
                        "INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?)", (sha256, jpeg, time.time())
                    ).rowcount
                    self._bytes += len(jpeg) * added
                    if self._bytes > self._limit:
                        self._let_go()
            except sqlite3.Error as error:
                self._give_up(error)

    def close(self) -> None:
        """Close the file; nothing is kept from then on."""
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _total(self) -> int:
        assert self._database is not None
        return int(
            self._database.execute("SELECT coalesce(sum(length(jpeg)), 0) FROM thumbnails").fetchone()[0]
        )

    def _let_go(self) -> None:
        """Delete those not used for longest until a tenth is free."""
        assert self._database is not None
        self._bytes = self._total()  # others may have written, too
        oldest = self._database.execute(
            "SELECT sha256, length(jpeg) FROM thumbnails ORDER BY used"
        ).fetchall()
        for sha256, size in oldest:
            if self._bytes <= _FULL * self._limit:
                break
            self._database.execute("DELETE FROM thumbnails WHERE sha256 = ?", (sha256,))
            self._bytes -= size

    def _give_up(self, error: Exception) -> None:
        _log.warning("thumbnails are kept in memory only: %s", error)
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
            self._database = None


def make_ahead(
    kept: Thumbnails,
    gallery: GalleryStore,
    ids: Sequence[int],
    make: Callable[[int], object],
    stop: threading.Event,
    is_busy: Callable[[], bool],
) -> None:
    """Have those pictures made that are not kept, in their order, while there is room.

    Args:
        kept: Where they are kept.
        gallery: Whose pictures.
        ids: Which of them.
        make: Makes and keeps one; a picture that cannot be made is left out.
        stop: Ends it.
        is_busy: Asked before each; it waits as long as somebody else is served. It takes half of the time at most.
    """
    for one in ids:
        while is_busy() and not stop.is_set():
            stop.wait(_BUSY_SECONDS / 5)
        if stop.is_set() or not kept.has_room:
            return
        start = time.monotonic()
        try:
            if kept.of(gallery, one) is not None:
                continue
            make(one)
        except Image2SentenceError as error:
            _log.debug("no thumbnail ahead of picture %d: %s", one, error)
        stop.wait(time.monotonic() - start)


def _is_as_indexed(picture: Picture) -> bool:
    """Whether a file has the size and time with which it was indexed; taken as given for URLs."""
    if not isinstance(picture.path, Path):
        return True
    try:
        status = os.stat(picture.path)
    except OSError:  # it is gone, or a member of a shard
        return picture.offset is not None
    return (status.st_size, status.st_mtime_ns) == (picture.size, picture.mtime_ns)
