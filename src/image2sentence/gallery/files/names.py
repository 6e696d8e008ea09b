"""Which picture of indexed folders a name in a table means."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place, known_as
from image2sentence.images import EXTENSIONS, display_path, ending_of, printable

_LISTED = 5


class Names:
    """The pictures below some roots by relative path, and by bare name.

    A name is looked up as it is; with `/` for backslashes; with letters and accents composed or apart (NFC, NFD);
    without the path of the root, or the part of it up to the root's own name, before it; and, where it is no path, as
    a bare name. Where no picture has it so, it is taken without percent signs of URLs, in other capitals, and without
    the pictures' endings where it has none.
    """

    def __init__(self, gallery: GalleryStore, folders: Sequence[Place]) -> None:
        self._roots = [_RootNames(gallery, folder, exact=len(folders) > 1) for folder in folders]

    @property
    def example(self) -> str:
        """A path that is known; empty where there is none."""
        return next((root.example for root in self._roots if root.example), "")

    def find(self, name: str) -> int | None:
        """The picture's id, None where there is none. Raises DataError where the name means several."""
        for look in (_RootNames.by_path, _RootNames.by_bare_name, _RootNames.by_other_name):
            found = {picture: path for root in self._roots for path, picture in look(root, name).items()}
            if len(found) > 1:
                shown = ", ".join(map(display_path, list(found.values())[:_LISTED]))
                raise DataError(
                    f"the name {printable(name)!r} means several pictures ({shown}): give their paths"
                )
            if found:
                return next(iter(found))
        return None


class _RootNames:
    """The pictures below one root; what a name can mean is given as ids by path, `exact` with that of the root."""

    def __init__(self, gallery: GalleryStore, folder: Place, *, exact: bool) -> None:
        roots = gallery.roots()
        name = known_as(folder, roots.values())
        root = next((number for number, path in roots.items() if path == name), None)
        known = gallery.known(root) if root is not None else {}
        self._paths = {path.replace(os.sep, "/"): entry.id for path, entry in known.items()}
        self._composed = _grouped((_composed(path), path) for path in self._paths)
        self._bare = _grouped((_composed(path.rpartition("/")[2]), path) for path in self._paths)
        self._prefixes = self._prefixes_of(folder if name is None else name)
        self._shown = f"{os.fspath(folder).rstrip('/')}/" if exact else ""
        self._own = _composed(os.fspath(folder).replace("\\", "/").rstrip("/").rpartition("/")[2])

    @property
    def example(self) -> str:
        """A path that is known; empty where there is none."""
        return next(iter(self._paths), "")

    def by_path(self, name: str) -> dict[str, int]:
        """The pictures that a name means as a path: by the most exact reading, one or none of most."""
        for path in self._readings(name):
            if path in self._paths:
                return self._found([path])
            if (several := self._composed.get(_composed(path))) is not None:
                return self._found(several)
        return {}

    def by_other_name(self, name: str) -> dict[str, int]:
        """The pictures that a name means as a URL, in other capitals, or without the picture's ending."""
        for reading in dict.fromkeys((name, _unquoted(name))):
            found = self.by_path(reading) or self.by_bare_name(reading) if reading != name else {}
            plain = _folded(_plain(reading))
            paths = [_folded(path) for path in self._readings(reading)]
            for known in (self._capitals, {} if _has_ending(plain) else self._stems):
                for path in paths:
                    found = found or self._found(known.get(path, []))
                found = found or self._found([] if "/" in plain else known.get(f"*/{plain}", []))
            if found:
                return found
        return {}

    @cached_property
    def _capitals(self) -> dict[str, list[str]]:
        """Paths, and bare names after `*/`, without regard to capitals."""
        return _grouped(pair for path in self._paths for pair in _as_named(path, path))

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """The same without endings."""
        return _grouped(pair for path in self._paths for pair in _as_named(os.path.splitext(path)[0], path))

    def by_bare_name(self, name: str) -> dict[str, int]:
        """The pictures that have this name, whatever folder they lie in."""
        bare = _plain(name)
        return {} if "/" in bare else self._found(self._bare.get(_composed(bare), []))

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

    def _found(self, paths: list[str]) -> dict[str, int]:
        return {f"{self._shown}{path}": self._paths[path] for path in paths}

    @staticmethod
    def _prefixes_of(root: Place) -> list[str]:
        names = [os.fspath(root)] + ([os.path.realpath(root)] if isinstance(root, Path) else [])
        return list(dict.fromkeys(_composed(name.replace(os.sep, "/").rstrip("/")) for name in names))


def _plain(name: str) -> str:
    """A path with `/` between its parts, without `.` among them."""
    path = PurePosixPath(name.strip().replace("\\", "/")).as_posix()
    return path.removeprefix("./")


def _unquoted(name: str) -> str:
    """A name that was part of a URL, as it is on the disk."""
    path = re.sub(r"^file://[^/]*", "", name.strip(), flags=re.IGNORECASE)
    return unquote(path, errors="surrogateescape")


def _has_ending(name: str) -> bool:
    return ending_of(name) in EXTENSIONS


def _folded(text: str) -> str:
    return _composed(text).casefold()


def _as_named(name: str, path: str) -> Iterator[tuple[str, str]]:
    """Both names of a path without regard to capitals: below its root, and bare after `*/`."""
    folded = _folded(name)
    yield folded, path
    yield f"*/{folded.rpartition('/')[2]}", path


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, path in pairs:
        groups.setdefault(key, []).append(path)
    return groups
