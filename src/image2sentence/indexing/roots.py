"""Roots of a gallery: listing, forgetting, widening and moving them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from image2sentence.errors import GalleryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import (
    Place,
    as_place,
    file_may_exist,
    joined,
    known_as,
    lies_within,
    may_exist,
)
from image2sentence.gallery.records import KnownFile
from image2sentence.images import display_path
from image2sentence.indexing.absence import read_mounts, write_mounts
from image2sentence.indexing.forgotten import remember
from image2sentence.indexing.sources import open_source

_LOOKED_FOR = 1_000


@dataclass(frozen=True)
class Root:
    """A place that was indexed.

    Attributes:
        place: The folder, shard or URL, as it was named.
        pictures: Pictures below it that can be found.
        failed: Files below it that could not be read.
        reachable: Whether it is there now; None for a URL, which is not asked.
    """

    place: Place
    pictures: int
    failed: int
    reachable: bool | None


def list_roots(gallery: GalleryStore) -> list[Root]:
    """The roots of a gallery, in the order in which they came. Raises GalleryError."""
    roots = []
    for root_id, place in gallery.roots().items():
        known = gallery.known(root_id)
        ready = sum(one.reason is None for one in known.values())
        reachable = may_exist(place) if isinstance(place, Path) else None
        roots.append(Root(place, ready, len(known) - ready, reachable))
    return roots


@dataclass(frozen=True)
class Below:
    """What a gallery knows in a place and below it: ids of pictures, and ids of roots that lie there wholly."""

    pictures: Sequence[int]
    roots: Sequence[int]


def find_below(gallery: GalleryStore, place: str | os.PathLike[str]) -> Below:
    """What is known in a place and below it, whether or not it is there now.

    Args:
        gallery: The gallery.
        place: A root, a folder or file below one, or a folder above several.

    Raises:
        GalleryError: the gallery knows nothing there.
    """
    named = as_place(place)
    pictures: list[int] = []
    roots: list[int] = []
    for root_id, root in gallery.roots().items():
        if known_as(named, [root]) is not None or lies_within(root, named):
            roots.append(root_id)
            pictures += [one.id for one in gallery.known(root_id).values()]
        elif lies_within(named, root):
            path = relative_path(named, root)
            inside = os.path.join(path, "")
            known = gallery.known(root_id).items()
            pictures += [one.id for file, one in known if file == path or file.startswith(inside)]
    if not roots and not pictures:
        raise GalleryError(
            f"the gallery {gallery.name} has no pictures in {display_path(named)}: `image2sentence gallery roots` "
            "lists its folders"
        )
    return Below(pictures, roots)


def forget(gallery: GalleryStore, below: Below) -> None:
    """Forget what was found by `find_below`; the pictures' metadata is kept by content for a while.

    Raises:
        GalleryError: the gallery cannot be written, or is damaged.
    """
    if below.pictures:
        remember(gallery, below.pictures)
        gallery.delete(below.pictures)
    for root in below.roots:
        write_mounts(gallery, root, [])
        gallery.remove_root(root)


def take_in_roots(gallery: GalleryStore, place: Place) -> int:
    """The id of a root, new or known, after making the roots that lie below it a part of it.

    Ids and metadata stay. Roots that are not there now stay by themselves. Raises GalleryError.
    """
    inside = [
        root_id
        for root_id, root in gallery.roots().items()
        if root != place and may_exist(root) and lies_within(root, place)
    ]
    into = gallery.add_root(place)
    for root_id in inside:
        _join(gallery, root_id, into, relative_path(gallery.roots()[root_id], place))
    return into


def move_root(gallery: GalleryStore, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
    """Say that the pictures of a root are in another place now; gives how many.

    Ids and metadata stay, and nothing is read: where files changed meanwhile, indexing the new place finds out.

    Args:
        gallery: Opened for writing.
        old: A root, as the gallery names it, whether or not it is there.
        new: The folder, shard or URL that it is now; it may have been indexed already.

    Raises:
        GalleryError: `old` is no root; `new` is not there, overlaps another root, or has none of the pictures.
    """
    roots = gallery.roots()
    before = known_as(as_place(old), roots.values())
    if before is None:
        raise GalleryError(
            f"{display_path(as_place(old))} is no folder of the gallery {gallery.name}: "
            "`image2sentence gallery roots` lists them"
        )
    root_id = next(root_id for root_id, root in roots.items() if root == before)
    place = open_source(new).place
    place = known_as(place, (root for root in roots.values() if root != before)) or place
    if place == before:
        return 0
    for root in roots.values():
        if root not in (before, place) and (lies_within(place, root) or lies_within(root, place)):
            raise GalleryError(
                f"{display_path(place)} overlaps {display_path(root)}, which this gallery holds already: "
                "index that folder instead, which finds moved pictures by their content"
            )
    known = gallery.known(root_id)
    _require_files(place, list(known), before)
    _join(gallery, root_id, gallery.add_root(place), "")
    return len(known)


def relative_path(inner: Place, outer: Place) -> str:
    """The path of a place below another one that it lies within."""
    if isinstance(inner, str) or isinstance(outer, str):
        return str(inner)[len(str(outer).rstrip("/")) + 1 :]
    if inner.is_relative_to(outer):
        return os.fspath(inner.relative_to(outer))
    real = Path(os.path.realpath(inner))
    above = next(one for one in real.parents if known_as(one, [outer]) is not None)
    return os.fspath(real.relative_to(above))


def _require_files(place: Place, paths: Sequence[str], before: Place) -> None:
    """Raise GalleryError where a folder has none of the known files; of many, some are looked for."""
    if not isinstance(place, Path) or not os.path.isdir(place) or not paths:
        return
    some = paths[:: -(-len(paths) // _LOOKED_FOR)]
    if not any(file_may_exist(joined(place, path)) for path in some):
        raise GalleryError(
            f"{display_path(place)} has none of the pictures known below {display_path(before)}: name the folder that "
            "these lie in now, by the same paths; or index it, which finds moved pictures by their content"
        )


def _join(gallery: GalleryStore, root: int, into: int, prefix: str) -> None:
    """Make a root a part of another one; a file that both know stays the older picture, with the metadata of both."""
    there = gallery.known(into)
    twice = [
        (one, there[path])
        for name, one in gallery.known(root).items()
        if (path := os.path.join(prefix, name)) in there
    ]
    _merge(gallery, twice)
    mounts = [os.path.join(prefix, mount) for mount in read_mounts(gallery, root)]
    write_mounts(gallery, into, [*read_mounts(gallery, into), *mounts])
    write_mounts(gallery, root, [])
    gallery.move_root(root, into, prefix)


def _merge(gallery: GalleryStore, twice: Sequence[tuple[KnownFile, KnownFile]]) -> None:
    pairs = [sorted((one.id, other.id)) for one, other in twice]
    older, newer = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    values = zip(older, gallery.metadata(older), gallery.metadata(newer), strict=True)
    gallery.set_metadata((picture_id, {**given, **own}) for picture_id, own, given in values if given)
    if newer:
        gallery.delete(newer)
