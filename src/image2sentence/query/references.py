"""Loading of reference images from files, contents and gallery items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ImageError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import read_picture
from image2sentence.gallery.records import Picture
from image2sentence.images import (
    MIN_DECODE_SIDE,
    DecodeLimits,
    PathLike,
    decode_image,
    display_path,
    read_regular,
)
from image2sentence.query.query import Reference

MAX_REFERENCE_PIXELS = 400_000_000
"""Largest picture that a user may ask with; one of the gallery may be larger, as it was let in before."""


@dataclass(eq=False)
class LoadedReference:
    """A reference as it is asked with: a sentence, or a picture that has still to be read into one.

    `content` is the id of its content in the gallery; None where it has none there.
    """

    weight: float
    picture: Image.Image | None
    sentence: Vectors | None
    item: int | None
    content: int | None


def load_reference(
    reference: Reference, items: Mapping[int, Picture], gallery: GalleryStore
) -> LoadedReference:
    """Read and decode what a reference needs; `items` has the gallery's picture where it names one.

    Raises ImageError naming a picture that cannot be read.
    """
    item = None if reference.item is None else items[reference.item]
    picture, sha256 = None, reference.sha256
    if reference.sentence is None:
        picture, found = _decoded(item if reference.picture is None else reference.picture)
        sha256 = sha256 or found
    content = gallery.find_content(sha256) if sha256 is not None else None
    if content is None and item is not None:
        content = item.content_id
    return LoadedReference(reference.weight, picture, reference.sentence, reference.item, content)


def _decoded(source: object) -> tuple[Image.Image, bytes | None]:
    if isinstance(source, Image.Image):
        return source.convert("RGB"), None
    assert isinstance(source, (bytes, str, Picture)) or hasattr(source, "__fspath__")
    try:
        data = _content(source)
        limits = DecodeLimits(MAX_REFERENCE_PIXELS)
        if isinstance(source, Picture):
            limits = limits.for_picture(source.width, source.height)
        decoded = decode_image(data, at_least=MIN_DECODE_SIDE, limits=limits)
        return decoded.picture, hashlib.sha256(data).digest()
    except ImageError as error:
        raise ImageError(f"{_named(source)}: {error}") from error


def _content(source: PathLike | bytes | Picture) -> bytes:
    """The bytes of a picture. Only the gallery's own may lie behind a URL; what a user names is a file here."""
    if isinstance(source, Picture):
        return read_picture(source)
    return source if isinstance(source, bytes) else read_regular(source)[0]


def _named(source: PathLike | bytes | Picture) -> str:
    if isinstance(source, bytes):
        return "the picture"
    return display_path(source.path if isinstance(source, Picture) else source)
