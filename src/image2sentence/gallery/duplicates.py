"""Pictures that a gallery holds more than once."""

from __future__ import annotations

from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.store import Picture


def duplicates(gallery: GalleryStore) -> list[list[Picture]]:
    """Groups of pictures whose files have the same content, each by id; those that waste most bytes first.

    Raises:
        GalleryError: the gallery is damaged or cannot be reached.
    """
    groups: dict[int | None, list[Picture]] = {}
    for picture in gallery.pictures("ready"):
        groups.setdefault(picture.content_id, []).append(picture)
    repeated = [group for group in groups.values() if len(group) > 1]
    return sorted(repeated, key=lambda group: (-wasted(group), group[0].id))


def wasted(group: list[Picture]) -> int:
    """Bytes that the copies take beside the first."""
    return sum(max(picture.size, 0) for picture in group[1:])
