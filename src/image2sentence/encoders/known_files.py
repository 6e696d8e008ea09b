"""What was found out about large files before: they are read again only where they changed.

That is told by a file's size, its times and its place on the disk, as version control tells it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

CACHE_VARIABLE = "IMAGE2SENTENCE_CACHE"
LARGE = 64 * 2**20
"""Bytes from which reading a file takes so long that what was found is kept."""
_SETTLED_SECONDS = 2.0
"""A file that changed later than this before it was read may change again within the clock's grain."""

Found = TypeVar("Found", str, bool)


def cache() -> Path:
    """Where this program keeps what it can make anew: $IMAGE2SENTENCE_CACHE, else a folder of its own in the user's."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "image2sentence"


def known(path: Path, fact: str, find: Callable[[Path], Found]) -> Found:
    """`find(path)`, a text or truth value; of a large file, what it was when the file was as it is now.

    Raises OSError where the file cannot be read. Where nothing can be kept, it is read each time.
    """
    about = path.stat()
    if about.st_size < LARGE:
        return find(path)
    seen = [about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino, about.st_dev]
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    record = cache() / "checked" / f"{name}.{fact}.json"
    with contextlib.suppress(
        OSError, ValueError, KeyError, TypeError
    ):  # not there, or not a record: made anew
        kept = json.loads(record.read_text(encoding="ascii"))
        if kept["seen"] == seen:
            found: Found = kept["found"]
            return found
    found = find(path)
    if time.time() - max(about.st_mtime, about.st_ctime) > _SETTLED_SECONDS:
        _keep(record, json.dumps({"seen": seen, "found": found}))
    return found


def _keep(record: Path, content: str) -> None:
    draft = record.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # the next time costs what this one did
        record.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(content, encoding="ascii")
        draft.replace(record)
