"""Overlap of indexed folders, by another name or inside one another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from image2sentence.errors import GalleryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Identity, Place, identity, known_as, lies_within, may_exist
from image2sentence.images import display_path
from image2sentence.indexing.exclusions import Exclusions
from image2sentence.indexing.roots import take_in_roots
from image2sentence.indexing.sources import Source, open_source
from image2sentence.indexing.walk import Walk


class OtherRoots:
    """The folders that other roots of a gallery hold pictures of; found when they are first asked for.

    A folder of which this root knows pictures too is not among them: galleries that held one folder twice keep it.
    """

    def __init__(self, gallery: GalleryStore, place: Place) -> None:
        self._gallery = gallery
        self._place = place
        self._is_new = place not in gallery.roots().values()

    def passed(self, folder: Identity, is_link: bool) -> bool:
        """Whether indexing passes over a folder below: another root has it, under whatever name.

        Once the root has been indexed, only links can lead to what others have, and only they are looked at.
        """
        return (is_link or self._is_new) and self.name_elsewhere(folder) is not None

    def name_elsewhere(self, folder: Identity) -> Path | None:
        """The name under which another root holds this folder; None where none does."""
        return self._folders.get(folder)

    @cached_property
    def _folders(self) -> dict[Identity, Path]:
        folders: dict[Identity, Path] = {}
        own: set[Identity] = set()
        for root_id, root in self._gallery.roots().items():
            if isinstance(root, Path) and os.path.isdir(root):
                held = _identities(root, self._gallery.known(root_id))
                if root == self._place:
                    own = set(held)
                else:
                    folders |= held
        return {one: path for one, path in folders.items() if one not in own}


def picture_source(pictures: str | os.PathLike[str], gallery: GalleryStore) -> Source:
    """What PICTURES names, under the name that the gallery has for it.

    Raises:
        GalleryError: there is nothing of the kind, or it lies within a root of the gallery.
    """
    source = open_source(pictures)
    roots = gallery.roots().values()
    place = known_as(source.place, roots)
    if place is not None:
        source = replace(source, place=place)
    held: Place | None = next(
        (
            root
            for root in roots
            if root != source.place and may_exist(root) and lies_within(source.place, root)
        ),
        None,
    )
    if place is None and held is None and (own := identity(source.place)) is not None:
        held = OtherRoots(gallery, source.place).name_elsewhere(own)
    if held is not None:
        raise GalleryError(
            f"{display_path(source.place)} overlaps {display_path(held)}, which this gallery holds already: "
            "index that folder, or make another gallery"
        )
    return source


def walk_root(
    pictures: str | os.PathLike[str], gallery: GalleryStore, exclude: Sequence[str] = ()
) -> tuple[Source, Walk]:
    """What PICTURES names and what lies there, after roots below it have become a part of it.

    Raises:
        GalleryError: as `picture_source`; or it cannot be listed.
        ConfigError: `exclude` or an ignore file holds what is no pattern.
    """
    exclusions = Exclusions(exclude)
    source = picture_source(pictures, gallery)
    others = OtherRoots(gallery, source.place)
    take_in_roots(gallery, source.place)
    return source, source.walk(gallery.own_folder, others.passed, exclusions)


def _identities(root: Path, known: Iterable[str]) -> dict[Identity, Path]:
    """The root and the folders below it that hold known files."""
    folders = {""}
    for path in known:
        folder = os.path.dirname(path)
        while folder not in folders:
            folders.add(folder)
            folder = os.path.dirname(folder)
    found = ((identity(root / folder), root / folder) for folder in folders)
    return {one: path for one, path in found if one is not None}
