"""Files that have moved from one root of a gallery to another one, found before their pictures are forgotten."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

from image2sentence.errors import ConfigError, GalleryError, ImageError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place
from image2sentence.gallery.records import FileEntry, Picture
from image2sentence.indexing.overlap import OtherRoots
from image2sentence.indexing.sources import Source
from image2sentence.indexing.walk import FoundFile


def follow_to_other_roots(gallery: GalleryStore, place: Place, lost: Collection[int]) -> set[int]:
    """Note for pictures whose files are gone from a place where another root has them now.

    The folders of the other roots are listed; of their files, those that are not known yet and have the size of a lost
    one are read. Nothing is encoded, and no other new file is taken in.

    Args:
        gallery: Opened for writing.
        place: The root that the pictures are known below.
        lost: Their ids.

    Returns:
        Those that were found; they keep ids and metadata, and lie below another root now.

    Raises:
        GalleryError: the gallery cannot be written, or is damaged.
    """
    waiting = _by_content(gallery, sorted(lost))
    sizes = {picture.size for pictures in waiting.values() for picture in pictures}
    found: set[int] = set()
    for root_id, root in gallery.roots().items() if waiting else ():
        if root == place or not isinstance(root, Path) or not os.path.isdir(root):
            continue
        source = Source(root, shard=False)
        entries = []
        for file, sha256 in _new_files(gallery, root_id, source, sizes):
            if waiting.get(sha256):
                moved = waiting[sha256].popleft().id
                found.add(moved)
                entries.append(FileEntry(file.path, file.size, file.mtime_ns, sha256, moved_from=moved))
        if entries:
            gallery.commit(root_id, [], entries)
    return found


def _by_content(gallery: GalleryStore, lost: list[int]) -> dict[bytes, deque[Picture]]:
    """Ready pictures by the SHA-256 of their content, without members of shards."""
    waiting: dict[bytes, deque[Picture]] = {}
    for picture, sha256 in zip(gallery.pictures_of(lost), gallery.hashes_of(lost), strict=True):
        if picture is not None and sha256 is not None and picture.offset is None:
            waiting.setdefault(sha256, deque()).append(picture)
    return waiting


def _new_files(
    gallery: GalleryStore, root_id: int, source: Source, sizes: Collection[int]
) -> Iterator[tuple[FoundFile, bytes]]:
    """Files of these sizes below a root that the gallery does not know, as they were read, with their SHA-256."""
    known = gallery.known(root_id)
    try:
        found = source.walk(gallery.own_folder, OtherRoots(gallery, source.place).passed)
    except (ConfigError, GalleryError):
        return  # indexing that root will say what is wrong with it
    for file in found.files:
        if file.size in sizes and file.path not in known:
            try:
                data, seen = source.read(file)
            except ImageError:
                continue  # likewise
            yield seen, hashlib.sha256(data).digest()
