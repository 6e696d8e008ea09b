"""Following of folders: the gallery is updated when pictures change."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, TypeAlias

from image2sentence.errors import ConfigError
from image2sentence.gallery.locations import SHARD, Identity, Place, identity
from image2sentence.images import EXTENSIONS, ending_of
from image2sentence.indexing.several import Indexed

if TYPE_CHECKING:
    from watchfiles import Change
    from watchfiles.main import FileChange

_log = logging.getLogger(__name__)

EVERY = 600.0
"""Seconds after which a folder is looked through although nothing was reported: systems drop events when many come,
and report none behind links and on some network disks."""

_SETTLES_MS = 1_600
_WAKES_MS = 500
_PAUSE_S = 2.0

Update: TypeAlias = Callable[[Sequence[Path]], Iterable[Indexed]]
"""Brings a gallery up to date with some of the followed folders, and says what became of each."""


def follow(
    folders: Sequence[Path], own: Path | None, bring_up_to_date: Update, *, stop: Event | None = None
) -> Iterator[Indexed]:
    """Bring a gallery up to date now, and after every change of the pictures below some folders.

    A folder that is away, or has lost most of its pictures, is waited for: that is yielded once, and its reports again
    when it is back.

    Args:
        folders: The folders.
        own: The gallery's own folder, whose changes mean nothing.
        bring_up_to_date: Does it, and says what was done; see `index_several`.
        stop: Ends it once set; else it goes on until a KeyboardInterrupt.

    Yields:
        What each run found and did in a folder, or that it is away.

    Raises:
        ConfigError: watchfiles is not installed.
        Exception: whatever `bring_up_to_date` raises.
    """
    if find_spec("watchfiles") is None:
        raise ConfigError("following a folder needs watchfiles: pip install 'image2sentence[watch]'")
    stop = Event() if stop is None else stop
    followed = [_Followed(folder) for folder in folders]
    by_folder = {one.folder: one for one in followed}
    while not stop.is_set():
        for one in followed:
            one.begin()
        # The first round comes once changes are being noticed, so that none falls between it and the second.
        for changed in _changes(followed, own, stop):
            due = [one.folder for one in followed if one.is_due(changed)]
            for indexed in bring_up_to_date(due) if due else ():
                if by_folder[Path(indexed.place)].is_news(indexed):
                    yield indexed
            if any(one.is_other() for one in followed):
                break


class _Followed:
    """A folder that is followed: what it was when last looked at, and when its next round is due."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = {os.fspath(folder), os.path.realpath(folder)}
        self._due = 0.0
        self._away = False
        self._places: dict[Place, tuple[Identity | None, bool]] = {}
        self._watched: Sequence[Place] = [folder]

    def begin(self) -> None:
        """Note what the folder, and places below it that were away, are now; a round is due at once.

        What changes while no watcher is at work is reported by none.
        """
        self._due = 0.0
        self._places = {place: _seen(place) for place in self._watched}
        self._names.add(os.path.realpath(self.folder))

    def is_other(self) -> bool:
        """Whether the folder, or a place below it that was away, has become another one, come or gone."""
        return any(_seen(place) != before for place, before in self._places.items())

    def is_due(self, changed: set[FileChange]) -> bool:
        """Whether the folder has to be looked through."""
        return time.monotonic() >= self._due or any(self.contains(path) for _, path in changed)

    def contains(self, path: str) -> bool:
        """Whether a reported path lies in the folder."""
        return any(_lies_in(path, name) for name in self._names)

    def is_news(self, indexed: Indexed) -> bool:
        """Take a round's result in; whether it has to be reported: that a folder is away, once."""
        unsure = indexed.report is not None and indexed.report.missing
        self._due = 0.0 if unsure else time.monotonic() + EVERY
        was_away, self._away = self._away, indexed.report is None
        below = [place for place, _ in indexed.report.away] if indexed.report is not None else []
        self._watched = [self.folder, *below]
        self._places |= {place: _seen(place) for place in below if place not in self._places}
        return not (was_away and self._away)


def _seen(place: Place) -> tuple[Identity | None, bool]:
    """What a place is, and whether anything is in it."""
    try:
        with os.scandir(place) as entries:
            return identity(place), next(entries, None) is not None
    except OSError:
        return identity(place), False


def _changes(followed: Sequence[_Followed], own: Path | None, stop: Event) -> Iterator[set[FileChange]]:
    """Sets of changes, and empty ones now and then, for as long as the watcher works."""
    from watchfiles import watch
    from watchfiles._rust_notify import WatchfilesRustInternalError

    there = [one.folder for one in followed if os.path.isdir(one.folder)]
    if not there:
        stop.wait(_WAKES_MS / 1_000)
        yield set()
        return
    changes = watch(
        *there,
        watch_filter=_Relevant(there, own),
        debounce=_SETTLES_MS,
        rust_timeout=_WAKES_MS,
        yield_on_timeout=True,
        stop_event=stop,
    )
    with closing(changes):
        while (changed := _next(changes, (FileNotFoundError, WatchfilesRustInternalError))) is not None:
            yield changed
    if not stop.is_set():  # a folder went while it was being watched
        stop.wait(_PAUSE_S)


def _next(changes: Iterator[set[FileChange]], ending: tuple[type[Exception], ...]) -> set[FileChange] | None:
    """The next changes; None where the watcher was stopped, or ended by an error of these types."""
    try:
        return next(changes, None)
    except ending as error:
        _log.warning("watching is begun again: %s", error)
        return None
    except OSError as error:
        raise ConfigError(
            f"the system does not report what changes ({error}): allow it more (on Linux fs.inotify.max_user_watches), "
            "or run `image2sentence index` by a timer"
        ) from error


class _Relevant:
    """Whether a change can be one of the pictures."""

    def __init__(self, folders: Sequence[Path], own: Path | None) -> None:
        names = {os.path.realpath(folder) for folder in folders} | {os.fspath(folder) for folder in folders}
        self._folders = sorted(names, key=len, reverse=True)
        self._own = None if own is None else os.path.realpath(own)

    def __call__(self, change: Change, path: str) -> bool:
        """False for the gallery's files, hidden ones, and the content of other files."""
        if self._own is not None and (path == self._own or path.startswith(self._own + os.sep)):
            return False
        folder = next((one for one in self._folders if _lies_in(path, one)), None)
        below = path if folder is None else os.path.relpath(path, folder)
        if below != "." and any(part.startswith(".") for part in Path(below).parts):
            return False
        # A folder may have any name, and is reported when it comes or goes.
        return change.name != "modified" or ending_of(path) in (*EXTENSIONS, SHARD)


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))
