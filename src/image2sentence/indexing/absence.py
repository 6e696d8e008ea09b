"""Known pictures without a file: which are gone, and which are away.

A file that is not there has been deleted, or its storage is not connected. Taken for away is what lies below a link
that leads nowhere, in a folder without any file, or where a disk was mounted and is not now; and everything where most
of a root is missing.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from image2sentence.errors import StorageAwayError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place, joined
from image2sentence.gallery.records import KnownFile
from image2sentence.images import display_path
from image2sentence.indexing.walk import Walk

MAX_FORGOTTEN_SHARE = 0.5
"""Share of a root's files that a run forgets without `--allow-empty`."""

_MIN_REFUSED = (
    10  # files; where fewer are missing, and others are there, they are forgotten whatever their share
)
_MOUNTS = "mounts"


@dataclass(frozen=True)
class Missing:
    """A known picture without a file; `away` is the folder whose storage may be away, with the reason."""

    known: KnownFile
    away: tuple[str, str] | None


def find_missing(
    known: Mapping[str, KnownFile], found: Walk, members: Collection[str], mounts: Iterable[str]
) -> list[Missing]:
    """Known files that are no longer there.

    Those below a folder that cannot be listed, or that is passed over, may well be there and are left out. What a
    shard that is there still has, only reading it can tell: `members` are left out too.

    Args:
        known: What the gallery knows below the root, by path.
        found: What is there.
        members: Paths of known members of shards that are there.
        mounts: Folders that were mounts before.
    """
    present = {file.path for file in found.files}
    unlisted = [*(path for path, _ in found.unreadable), *found.elsewhere]
    hidden = tuple("" if path == "." else os.path.join(path, "") for path in unlisted)
    away = _away(found, mounts)
    return [
        Missing(entry, _above(path, away))
        for path, entry in known.items()
        if path not in present and path not in members and not path.startswith(hidden)
    ]


def _away(found: Walk, mounts: Iterable[str]) -> dict[str, str]:
    """The folders whose storage may be away, with the reason."""
    bare: set[str] = set() if "" in found.bare else found.bare
    return {
        **dict.fromkeys(bare, "the folder has no files: a disk that is not mounted?"),
        **dict.fromkeys(set(mounts) - set(found.mounts), "no disk is mounted there now"),
        **dict.fromkeys(found.dangling, "a link that leads nowhere"),
    }


def _above(path: str, away: Mapping[str, str]) -> tuple[str, str] | None:
    """The outermost folder above a path that may be away, with the reason."""
    outermost = None
    while path := os.path.dirname(path):
        outermost = path if path in away else outermost
    return None if outermost is None else (outermost, away[outermost])


def check_forgetting(missing: int, known: int, place: Place, excluded: int = 0) -> None:
    """Raise StorageAwayError where so much is missing that its disk is more likely away than its files deleted.

    Of those missing, `excluded` are passed over by exclusions, perhaps of more than was meant.
    """
    most = missing >= _MIN_REFUSED and missing > MAX_FORGOTTEN_SHARE * known
    nothing_left = missing > 0 and missing == known
    if (most or nothing_left) and excluded:
        raise StorageAwayError(
            f"exclusions name {excluded:,} of {known:,} pictures known below {display_path(place)}, and "
            f"{missing - excluded:,} are not there: nothing was forgotten. If this is what you want, index with "
            "--allow-empty (allow_empty=True); else change --exclude or .image2sentenceignore"
        )
    if most or nothing_left:
        raise StorageAwayError(
            f"{missing:,} of {known:,} pictures known below {display_path(place)} are not there: nothing was "
            "forgotten. If their disk is away, connect it and index again; if they are gone for good, index with "
            "--allow-empty (allow_empty=True)"
        )


def kept_reasons(place: Place, kept: Iterable[tuple[str, str]]) -> list[tuple[Place, str]]:
    """For each folder with pictures that are kept, how many and why."""
    counts: dict[tuple[str, str], int] = {}
    for away in kept:
        counts[away] = counts.get(away, 0) + 1
    return [
        (joined(place, folder), f"{count:,} kept: {reason}")
        for (folder, reason), count in sorted(counts.items())
    ]


def read_mounts(gallery: GalleryStore, root: int) -> list[str]:
    """The folders below a root on which disks were mounted in its last runs."""
    names = gallery.notes(_MOUNTS).get(str(root), [])
    return [os.fsdecode(str(name).encode("latin-1", "replace")) for name in names]


def add_mounts(gallery: GalleryStore, root: int, mounts: Collection[str]) -> list[str]:
    """Remember folders on which disks are mounted, beside those known before, which are given."""
    before = read_mounts(gallery, root)
    if not set(mounts) <= set(before):
        write_mounts(gallery, root, [*before, *mounts])
    return before


def write_mounts(gallery: GalleryStore, root: int, mounts: Iterable[str]) -> None:
    """Remember the folders below a root on which disks are mounted, or were and may be again."""
    names = sorted(set(mounts))
    if names != sorted(read_mounts(gallery, root)):
        # JSON and databases take no names that are not text; Latin-1 has a character for each byte.
        gallery.set_notes(
            _MOUNTS, {str(root): [os.fsencode(name).decode("latin-1") for name in names] or None}
        )
