"""The folder of a gallery: whether one is there, making one, errors of writing in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image2sentence.errors import GalleryError
from image2sentence.gallery.sqlite.database import DATABASE, LOCK
from image2sentence.gallery.sqlite.index_file import NAME as INDEX
from image2sentence.images import display_path


def is_there(folder: Path) -> bool:
    """Whether a gallery is in the folder. Raises GalleryError where that cannot be seen."""
    try:
        return (folder / DATABASE).is_file()
    except OSError as error:
        raise GalleryError(
            f"cannot look into {display_path(folder)} ({error.strerror}): check the permissions"
        ) from error


def make_folder(folder: Path) -> None:
    """Make the folder of a new gallery. Raises GalleryError where it holds something else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = sorted(name for name in os.listdir(folder) if not name.startswith((DATABASE, INDEX, LOCK)))
    except OSError as error:
        raise GalleryError(f"cannot make a gallery in {display_path(folder)} ({error.strerror})") from error
    if others:
        raise GalleryError(
            f"{display_path(folder)} is not empty (it holds {display_path(others[0])}): "
            "choose a new or empty folder for the gallery"
        )


@contextmanager
def writing_errors(folder: Path) -> Iterator[None]:
    """Turn what the system raises about writing in a folder into a GalleryError."""
    try:
        yield
    except OSError as error:
        raise GalleryError(
            f"cannot write in {display_path(folder)} ({error.strerror}): make room or check the permissions"
        ) from error
