"""What to do about a file of a download that is not where it is looked for: packed, elsewhere, or named otherwise."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from image2sentence.evaluation.protocol import named

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".7z")
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
MOST_FILES = 1_000_000
"""So many files below the dataset's folder are looked at, at most: some seconds."""


def advice(root: Path | str, places: Sequence[str], others: Container[str] = ()) -> str:
    """What a person can do about a file that is at none of `places` below `root`; empty where nothing is known.

    Looks through `root` for the file in another folder, with an ending of other letters, or for archives. `others` are
    the places of files that may have the same name.
    """
    wanted = {_plain(PurePosixPath(place)) for place in places}
    archives = []
    for file in islice(_files(Path(root)), MOST_FILES):
        if _plain(file) in wanted and str(file) not in others:
            return f"; {_placed(file, places)}"
        if file.name.lower().endswith(ARCHIVES):
            archives.append(str(file))
    return f"; unpack {named(sorted(archives))} first" if archives else ""


def _placed(file: PurePosixPath, places: Sequence[str]) -> str:
    """How a file that was found comes to be where it is looked for."""
    for place in map(PurePosixPath, places):
        if file.parent == place.parent and file.suffix.lower() == place.suffix:
            return f"{file} is there: rename such files to end in {place.suffix}"
    own = [place for place in places if PurePosixPath(place).suffix == file.suffix.lower()]
    return f"{file} is there: move or link it, and those beside it, to be {(own or places)[-1]}"


def _plain(file: PurePosixPath) -> str:
    """A name in small letters; of pictures without the ending."""
    name = file.name.lower()
    return file.stem.lower() if name.endswith(PICTURES) else name


def _files(root: Path) -> Iterator[PurePosixPath]:
    """Files below a folder, relative to it, in a fixed order; hidden folders are left out."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from (below / name for name in sorted(names))
