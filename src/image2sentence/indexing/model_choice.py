"""Which of the package's models a new gallery is made with: the first whose scope takes in most of its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice

from PIL import Image

from image2sentence import encoders
from image2sentence.encoders import OnnxEncoder
from image2sentence.encoders.model_folder import ModelFolder, bundled
from image2sentence.encoders.onnx_encoder import MODEL_VARIABLE
from image2sentence.encoders.scope import MIN_PICTURES, read_scope
from image2sentence.errors import GalleryError, ImageError
from image2sentence.gallery.locations import Place
from image2sentence.gallery.opening import is_database, open_gallery
from image2sentence.hub.table import BUNDLED, EVERYDAY
from image2sentence.images import MIN_DECODE_SIDE, own_pool
from image2sentence.indexing.sources import Source, open_source
from image2sentence.indexing.walk import FoundFile

LOOKED_AT = 48
"""Pictures that the choice looks at, drawn evenly from all places."""


def encoder_for(
    model: str | os.PathLike[str] | None,
    gallery: str | os.PathLike[str] | None,
    places: Sequence[Place],
    threads: int = 0,
    device: str | None = None,
) -> OnnxEncoder:
    """What to index with: the model named, else the one that made the gallery, else `choose_bundled`.

    Args:
        model: A folder or name, see `load_encoder`; None where none was named, in $IMAGE2SENTENCE_MODEL neither.
        gallery: Its folder or address, whether it is there or not; None for a new one.
        places: What is to be indexed.
        threads: Of ONNX Runtime; 0: one for each core.
        device: See `load_encoder`.
    """
    if model or os.environ.get(MODEL_VARIABLE):
        return encoders.load_encoder(model, threads, device=device)
    space = space_of(gallery)
    if space is None:
        return encoders.load_encoder(choose_bundled(places, threads).path, threads, device=device)
    return encoders.load_encoder(None, threads, device=device, space=space)


def space_of(gallery: str | os.PathLike[str] | None) -> str | None:
    """The fingerprint of the encoder that made a gallery; None where there is none that can be opened."""
    if gallery is None or not (is_database(gallery) or os.path.exists(gallery)):
        return None
    try:
        with open_gallery(gallery) as opened:
            return opened.fingerprint
    except GalleryError:
        return None  # what is wrong is said where it is opened for use


def choose_bundled(places: Sequence[Place], threads: int = 0) -> ModelFolder:
    """The starter model, or the one for everyday photographs where most of the pictures look like nothing it knows.

    Only folders of this machine are looked at. Where fewer than `MIN_PICTURES` can be read, the starter model.
    """
    starter = ModelFolder.open(bundled())
    scope, pictures = read_scope(starter), list(islice(_readable(places), LOOKED_AT))
    if scope is None or len(pictures) < MIN_PICTURES:
        return starter
    vectors = OnnxEncoder(starter, threads, device="cpu").encode_images(pictures)
    return ModelFolder.open(bundled(BUNDLED[EVERYDAY])) if scope.mostly_outside(vectors) else starter


def _readable(places: Sequence[Place]) -> Iterator[Image.Image]:
    """Pictures that can be read, of files spread evenly over the places."""
    for source, file in _spread(places):
        try:
            data, _ = source.read(file)
            yield own_pool().decode(data, at_least=MIN_DECODE_SIDE).picture
        except ImageError:
            continue  # indexing names it


def _spread(places: Sequence[Place]) -> Iterator[tuple[Source, FoundFile]]:
    """Twice as many files as are looked at, evenly drawn; indexing itself says what is wrong with a place."""
    found = []
    for place in places:
        try:
            source = open_source(place)
            if not source.shard and not isinstance(source.place, str):
                found += [(source, file) for file in source.walk(None).files]
        except GalleryError:
            continue
    count = min(len(found), 2 * LOOKED_AT)
    order = [found[number * len(found) // count] for number in range(count)] if count else []
    yield from order[::2]
    yield from order[1::2]
