"""Folders of this computer, listed for choosing one; bounded in entries and time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from image2sentence.errors import QueryError
from image2sentence.gallery.files.metadata import ENDINGS
from image2sentence.images import EXTENSIONS

MAX_ENTRIES = 20_000
"""Entries of a folder that are looked at."""
MAX_SHOWN = 500
"""Folders, and tables, that are listed."""
SECONDS = 2.0
"""How long a folder is looked through."""
MAX_PATH = 4_096

USUAL = ("Pictures", "Desktop", "Downloads", "Documents")
"""Folders of one's home that are offered where they are there."""


@dataclass(frozen=True)
class Listing:
    """What is in a folder.

    Attributes:
        path: Its absolute path.
        parent: The folder above; None where there is none.
        folders: Names of folders in it, without hidden ones.
        tables: Names of files in it that may be metadata.
        pictures: How many files in it have a picture's ending.
        whole: Whether all of it was looked at, and all folders and tables are listed.
    """

    path: str
    parent: str | None
    folders: tuple[str, ...]
    tables: tuple[str, ...]
    pictures: int
    whole: bool


def as_folder(name: str) -> Path:
    """A folder of this computer by its absolute path, or one that begins with `~`. Raises QueryError."""
    if len(name) > MAX_PATH or "\0" in name:
        raise QueryError("this is no path")
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:
        raise QueryError(f"this computer has no home of that name: {error}") from error
    if not path.is_absolute():
        raise QueryError("expected the whole path of a folder, from the root on")
    return Path(os.path.abspath(path))


def list_folder(name: str) -> Listing:
    """What is in a folder; links are followed. Raises QueryError where it cannot be listed."""
    path = as_folder(name)
    folders: list[str] = []
    tables: list[str] = []
    seen = pictures = 0
    deadline = time.monotonic() + SECONDS
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                seen += 1
                if seen > MAX_ENTRIES or time.monotonic() > deadline:
                    break
                ending = os.path.splitext(entry.name)[1].lower()
                if _is_folder(entry):
                    if not entry.name.startswith(".") and _is_text(entry.name):
                        folders.append(entry.name)
                elif ending in EXTENSIONS:
                    pictures += 1
                elif ending in ENDINGS and _is_text(entry.name):
                    tables.append(entry.name)
            else:
                seen = 0
    except OSError as error:
        raise QueryError(f"this folder cannot be listed: {error.strerror or error}") from error
    parent = None if path.parent == path else str(path.parent)
    whole = not seen and max(len(folders), len(tables)) <= MAX_SHOWN
    return Listing(str(path), parent, _first(folders), _first(tables), pictures, whole)


def usual_folders() -> list[tuple[str, str]]:
    """(name, path) of folders to begin at: where the server was started, home, and what is usually in it."""
    here, home = Path.cwd(), Path(os.path.expanduser("~"))
    named = [("Here", here), ("Home", home), *((name, home / name) for name in USUAL)]
    return [(name, str(path)) for name, path in named if path.is_dir()]


def _first(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=str.casefold)[:MAX_SHOWN])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to what cannot be looked at
        return False


def _is_text(name: str) -> bool:
    """Whether a name can be sent as JSON and comes back the same."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
