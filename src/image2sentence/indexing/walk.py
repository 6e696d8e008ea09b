"""Finding the picture files below a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from image2sentence.gallery.locations import SHARD, Identity
from image2sentence.images import EXTENSIONS, ending_of
from image2sentence.indexing.exclusions import Exclusions

UNSEEN = -1
"""Size and time of a file that could not be looked at: equal to no real file's, so it is retried."""


@dataclass(frozen=True)
class FoundFile:
    """A file with a picture's ending: path relative to the folder, bytes, modification time in ns."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class Walk:
    """What lies below a place, without opening any file; paths are relative to it.

    Attributes:
        files: Picture files.
        shards: Tar files.
        others: Other files by ending.
        unreadable: Folders that cannot be listed, with the reason.
        dangling: Links that lead nowhere; what they led to may have been folders.
        elsewhere: Folders passed over because another root of the gallery holds them.
        mounts: Folders on another device than the folder above, but for links.
        bare: Folders without a visible file in them or below.
        excluded: Files and folders that exclusions pass over, with the pattern; folders end in a slash.
    """

    files: list[FoundFile] = field(default_factory=list)
    shards: list[FoundFile] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    bare: set[str] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)

    def is_excluded(self, path: str) -> bool:
        """Whether a path, or a folder above it, is passed over by exclusions."""
        ends = (end + 1 for end, character in enumerate(path) if character == os.sep or character == "/")
        return bool(self.excluded) and (
            path in self.excluded or any(path[:end] in self.excluded for end in ends)
        )


Passed: TypeAlias = Callable[[Identity, bool], bool]
"""Whether a folder is passed over, by its device and inode and whether it is a link."""


def walk(
    folder: Path, skip: Path | None, passed: Passed | None = None, exclusions: Exclusions | None = None
) -> Walk:
    """List the picture files below `folder`, sorted within each folder, without opening any.

    Names that begin with a dot, the folder `skip`, what `exclusions` (None: the ordinary ones) name and folders for
    which `passed` holds are passed over. Raises ConfigError on an ignore file that cannot be used.
    Links to folders are followed, but each real folder is entered once, so loops end. Paths keep names that are not
    UTF-8 (surrogateescape).
    """
    found = Walk()
    exclusions = Exclusions() if exclusions is None else exclusions
    entered = {_identity(skip)} if skip is not None and os.path.isdir(skip) else set()
    waiting: list[tuple[str, int | None]] = [("", None)]
    while waiting:
        relative, device = waiting.pop()
        try:
            own = _identity(folder / relative)
            if own in entered:
                continue
            entered.add(own)
            is_link = bool(relative) and os.path.islink(folder / relative)
            if relative and passed is not None and passed(own, is_link):
                found.elsewhere.append(relative)
                continue
            if device not in (None, own[0]) and not is_link:
                found.mounts.append(relative)
            subfolders = list(_list_folder(folder, relative, found, exclusions))
        except OSError as error:
            found.unreadable.append((relative or ".", error.strerror or str(error)))
            _fill(found.bare, relative)
            continue
        waiting += [(subfolder, own[0]) for subfolder in reversed(subfolders)]
    return found


def _identity(folder: Path) -> Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _fill(bare: set[str], folder: str) -> None:
    """Note that there is a file in a folder."""
    while folder in bare:
        bare.discard(folder)
        folder = os.path.dirname(folder)


def _list_folder(folder: Path, relative: str, found: Walk, exclusions: Exclusions) -> Iterator[str]:
    """Add one folder's files to `found`; give its subfolders."""
    exclusions.enter(folder / relative, relative)
    with os.scandir(folder / relative) as entries:
        visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    found.bare.add(relative)
    for entry in visible:
        path = os.path.join(relative, entry.name)
        try:
            is_folder = _is_folder(entry)
        except OSError as error:  # what is known below it may be there
            found.unreadable.append((path, error.strerror or str(error)))
            _fill(found.bare, relative)
            continue
        if (pattern := exclusions.pattern_for(path, is_folder=is_folder)) is not None:
            found.excluded[os.path.join(path, "") if is_folder else path] = pattern
            _fill(found.bare, relative)
            continue
        if is_folder:
            yield path
            continue
        _fill(found.bare, relative)
        if entry.is_symlink() and not os.path.exists(entry.path):
            found.dangling.append(path)
        if (ending := ending_of(entry.name)) in EXTENSIONS:
            found.files.append(_found_file(path, entry))
        elif ending == SHARD:
            found.shards.append(_found_file(path, entry))
        else:
            found.others[ending] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        if not entry.is_symlink():
            raise
        return False  # a link that leads in a circle: reading it as a file gives the reason


def _found_file(path: str, entry: os.DirEntry[str]) -> FoundFile:
    try:
        status = entry.stat()
    except OSError:
        return FoundFile(path, UNSEEN, UNSEEN)
    return FoundFile(path, status.st_size, status.st_mtime_ns)
