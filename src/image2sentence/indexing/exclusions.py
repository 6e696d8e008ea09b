"""Exclusion of files and folders from indexing, by name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from image2sentence.errors import ConfigError
from image2sentence.images import display_path, printable
from image2sentence.indexing.linear_patterns import make_linear

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".image2sentenceignore"
"""A file of patterns, one a line as in `.gitignore`, for the folder in which it lies and those below."""

EXCLUDED_FOLDERS = frozenset(
    {
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "__macosx",
        "~snapshot",
        "found.000",
        "lost+found",
        "network trash folder",
        "recycler",
        "system volume information",
        "temporary items",
    }
)
"""Folders passed over unless a pattern takes them back, in capitals or not: thumbnails and bins of disks."""

EXCLUDED_ENDINGS = (
    ".photoslibrary",
    ".photolibrary",
    ".migratedphotolibrary",
    ".aplibrary",
    ".lrdata",
    ".lrlibrary",
)
"""Endings of folders passed over unless a pattern takes them back: insides of photo libraries and previews."""

MAX_IGNORE_BYTES = 64 << 10
MAX_PATTERNS = 1_000
MAX_PATTERN_LENGTH = 500
MAX_STARS = 8
"""Groups of `*` in one pattern."""


class Exclusions:
    """Patterns given by hand, those of ignore files, and the folders that are passed over anyway.

    The last pattern that fits decides, and `!` before it takes back: first the folders above, then ignore files from
    the outermost folder inwards, last the patterns given. What lies in an excluded folder cannot be taken back.

    Args:
        patterns: As in `.gitignore`, relative to the indexed folder.

    Raises:
        ConfigError: a pattern is none.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self._given = _spec(patterns, "--exclude") if patterns else None
        self._files: dict[str, GitIgnoreSpec] = {}

    def enter(self, folder: Path, relative: str) -> None:
        """Read the ignore file of a folder, where there is one. Raises ConfigError."""
        file = folder / IGNORE_FILE
        if not file.is_file():
            return
        try:
            with file.open("rb") as opened:
                data = opened.read(MAX_IGNORE_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{display_path(file)} cannot be read ({error.strerror})") from error
        if len(data) > MAX_IGNORE_BYTES:
            raise ConfigError(f"{display_path(file)} has more than {MAX_IGNORE_BYTES:,} bytes")
        lines = data.decode("utf-8-sig", "surrogateescape").splitlines()
        self._files[relative] = _spec(lines, display_path(file))

    def pattern_for(self, path: str, *, is_folder: bool) -> str | None:
        """The pattern by which a path below the indexed folder is passed over; None where it is not."""
        name = path.replace(os.sep, "/")
        found = _default_for(name.rpartition("/")[2]) if is_folder else None
        ending = "/" if is_folder else ""
        for above in _folders_above(name) if self._files else ():
            if (spec := self._files.get(above.replace("/", os.sep))) is not None:
                found = _decided(spec, name[len(above) + 1 if above else 0 :] + ending, found)
        return found if self._given is None else _decided(self._given, name + ending, found)

    def pattern_for_object(self, path: str) -> str | None:
        """The same for an object behind a URL, whose folders are parts of its name; ignore files are not read."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            if (found := self.pattern_for("/".join(parts[:end]), is_folder=True)) is not None:
                return found
        return self.pattern_for(path, is_folder=False)


def _folders_above(path: str) -> list[str]:
    """The folders above a path, outermost first, from the indexed one, which is empty."""
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(len(parts))]


def _default_for(name: str) -> str | None:
    lowered = name.lower()
    if lowered in EXCLUDED_FOLDERS:
        return name
    return next((f"*{ending}" for ending in EXCLUDED_ENDINGS if lowered.endswith(ending)), None)


def _decided(spec: GitIgnoreSpec, path: str, before: str | None) -> str | None:
    """What patterns say of a path, after what was said before."""
    result = spec.check_file(path)
    if result.include is None or result.index is None:
        return before
    return str(getattr(spec.patterns[result.index], "pattern", path)) if result.include else None


def _spec(lines: Sequence[str], source: str) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    if len(lines) > MAX_PATTERNS:
        raise ConfigError(f"{source}: expected at most {MAX_PATTERNS:,} patterns, got {len(lines):,}")
    for number, line in enumerate(lines, 1):
        long = len(line) > MAX_PATTERN_LENGTH or len(_stars(line)) > MAX_STARS
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError as error:
            raise ConfigError(f"{source}, pattern {number}: {printable(line)!r} is no pattern") from error
        if long:
            raise ConfigError(
                f"{source}, pattern {number}: expected at most {MAX_PATTERN_LENGTH} characters and {MAX_STARS} "
                f"groups of *, got {printable(line)[:80]!r}"
            )
    return make_linear(GitIgnoreSpec.from_lines(lines))


def _stars(line: str) -> list[str]:
    """The groups of `*` in a line."""
    return "".join(c if c == "*" else " " for c in line).split()
