"""Opening of a gallery by its folder or its database's address."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from image2sentence.errors import GalleryError
from image2sentence.gallery.locations import is_url
from image2sentence.gallery.milvus.address import is_milvus
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.images import printable

if TYPE_CHECKING:
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.gallery.milvus.gallery import MilvusGallery


def open_gallery(
    name: str | os.PathLike[str], *, readonly: bool = True, fingerprint: str | None = None
) -> GalleryStore:
    """Open a gallery.

    Args:
        name: A folder, or an address such as `milvus://localhost:19530/pictures`.
        readonly: False to write; one writer at a time.
        fingerprint: Identity of the encoder it will be used with; None to take any.

    Raises:
        GalleryError: there is none, it cannot be reached, it is damaged, of another format version or another
            model, or another process is writing.
    """
    if is_database(name):
        return _database().open(os.fspath(name), readonly=readonly, fingerprint=fingerprint)
    return Gallery.open(name, readonly=readonly, fingerprint=fingerprint)


def open_or_create_gallery(name: str | os.PathLike[str], fingerprint: str, width: int) -> GalleryStore:
    """Open for writing; make it first where there is none. Raises GalleryError as `open_gallery`."""
    if is_database(name):
        return _database().open_or_create(os.fspath(name), fingerprint, width)
    return Gallery.open_or_create(name, fingerprint, width)


def is_database(name: str | os.PathLike[str]) -> bool:
    """Whether a name is the address of a database. Raises GalleryError for addresses of another kind."""
    if is_url(name) and not is_milvus(name):
        raise GalleryError(
            f"{printable(os.fspath(name))} is no gallery: expected a folder, or milvus://HOST:PORT/COLLECTION, "
            "or milvus+file:///PATH/FILE.db?collection=NAME"
        )
    return is_url(name)


def _database() -> type[MilvusGallery]:
    from image2sentence.gallery.milvus.gallery import MilvusGallery

    return MilvusGallery
