"""Following a folder: a gallery is brought up to date whenever the pictures below it change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from image2sentence.errors import ConfigError
from image2sentence.gallery.locations import SHARD
from image2sentence.images import EXTENSIONS
from image2sentence.indexing.index_pictures import IndexReport

if TYPE_CHECKING:
    from watchfiles import Change

EVERY = 600.0
"""Seconds after which the folder is looked through although nothing was reported: systems drop events when many come,
and report none behind links and on some network disks."""

_SETTLES_MS = 1_600
_WAKES_MS = 500


def follow(
    folder: Path, own: Path | None, bring_up_to_date: Callable[[], IndexReport], *, stop: Event | None = None
) -> Iterator[IndexReport]:
    """Bring a gallery up to date now, and after every change of the pictures below a folder.

    Args:
        folder: The folder.
        own: The gallery's own folder, whose changes mean nothing.
        bring_up_to_date: Does it, and says what was done.
        stop: Ends it once set; else it goes on until a KeyboardInterrupt.

    Yields:
        What each run found and did.

    Raises:
        ConfigError: watchfiles is not installed.
        Exception: whatever `bring_up_to_date` raises.
    """
    try:
        from watchfiles import watch
    except ModuleNotFoundError as error:
        raise ConfigError(
            "following a folder needs watchfiles: pip install 'image2sentence[watch]'"
        ) from error
    changes = watch(
        folder,
        watch_filter=_Relevant(folder, own),
        debounce=_SETTLES_MS,
        rust_timeout=_WAKES_MS,
        yield_on_timeout=True,
        stop_event=stop,
    )
    due = 0.0
    # The first round comes once changes are being noticed, so that none falls between it and the second.
    for changed in changes:
        if changed or time.monotonic() >= due:
            yield bring_up_to_date()
            due = time.monotonic() + EVERY


class _Relevant:
    """Whether a change can be one of the pictures."""

    def __init__(self, folder: Path, own: Path | None) -> None:
        self._folder = os.path.realpath(folder)
        self._own = None if own is None else os.path.realpath(own)

    def __call__(self, change: Change, path: str) -> bool:
        """False for the gallery's files, hidden ones, and the content of other files."""
        if self._own is not None and (path == self._own or path.startswith(self._own + os.sep)):
            return False
        if any(part.startswith(".") for part in Path(os.path.relpath(path, self._folder)).parts):
            return False
        # A folder may have any name, and is reported when it comes or goes.
        return change.name != "modified" or os.path.splitext(path)[1].lower() in (*EXTENSIONS, SHARD)
