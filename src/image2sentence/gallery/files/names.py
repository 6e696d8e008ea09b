"""Which picture of an indexed folder a name in a table means."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place, known_as
from image2sentence.images import display_path, printable

_LISTED = 5


class Names:
    """The pictures below one root by relative path, and by bare name.

    A name is looked up as it is; with `/` for backslashes; with letters and accents composed or apart (NFC, NFD);
    without the path of the root, or the part of it up to the root's own name, before it; and as a bare name.
    """

    def __init__(self, gallery: GalleryStore, folder: Place) -> None:
        roots = gallery.roots()
        name = known_as(folder, roots.values())
        root = next((number for number, path in roots.items() if path == name), None)
        known = gallery.known(root) if root is not None else {}
        self._paths = {path.replace(os.sep, "/"): entry.id for path, entry in known.items()}
        self._composed = _grouped((_composed(path), path) for path in self._paths)
        self._bare = _grouped((_composed(path.rpartition("/")[2]), path) for path in self._paths)
        self._prefixes = self._prefixes_of(folder if name is None else name)
        self._own = _composed(os.fspath(folder).replace("\\", "/").rstrip("/").rpartition("/")[2])

    @property
    def example(self) -> str:
        """A path that is known; empty where there is none."""
        return next(iter(self._paths), "")

    def find(self, name: str) -> int | None:
        """The picture's id, None where there is none. Raises DataError where the name means several."""
        for path in self._readings(name):
            if path in self._paths:
                return self._paths[path]
            if (several := self._composed.get(_composed(path))) is not None:
                return self._only(name, several)
        bare = _plain(name)
        if "/" in bare:
            return None
        several = self._bare.get(_composed(bare), [])
        return self._only(name, several) if several else None

    def _readings(self, name: str) -> Iterable[str]:
        """The relative paths that a name can mean, the most exact first."""
        yield PurePosixPath(name).as_posix()
        yield (path := _plain(name))
        composed = _composed(path)
        for prefix in self._prefixes:
            if composed.startswith(f"{prefix}/"):
                yield composed[len(prefix) + 1 :]
        parts = composed.split("/")
        if self._own in parts[:-1]:
            yield "/".join(parts[parts.index(self._own) + 1 :])
        yield composed.lstrip("/")

    def _only(self, name: str, paths: list[str]) -> int:
        if len(paths) > 1:
            shown = ", ".join(display_path(one) for one in paths[:_LISTED])
            raise DataError(
                f"the name {printable(name)!r} means several pictures ({shown}): give their paths"
            )
        return self._paths[paths[0]]

    @staticmethod
    def _prefixes_of(root: Place) -> list[str]:
        names = [os.fspath(root)] + ([os.path.realpath(root)] if isinstance(root, Path) else [])
        return list(dict.fromkeys(_composed(name.replace(os.sep, "/").rstrip("/")) for name in names))


def _plain(name: str) -> str:
    """A path with `/` between its parts, without `.` among them."""
    path = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
    return path.removeprefix("./")


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, path in pairs:
        groups.setdefault(key, []).append(path)
    return groups
