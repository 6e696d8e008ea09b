"""Reranking of the best results with the matching encoder.

A query vector and a picture's vector were made without knowing of each other. The matching encoder reads the words and
the sentence with the picture's patch features before it (cross-attention), and says how well they belong together. It
is too slow for a gallery, and right for its best few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Encoder, SupportsMatching, Vectors
from image2sentence.errors import ImageError, QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import read_picture
from image2sentence.gallery.search.base import Hit
from image2sentence.images import MIN_DECODE_SIDE, DecodeLimits, decode_image
from image2sentence.query.candidates import RankedHit
from image2sentence.query.composition import TextInput

BATCH = 16
"""Pictures that go through the large encoder together: their patch features are large."""


def require_matching(encoder: Encoder) -> SupportsMatching:
    """The encoder as one that can match. Raises QueryError where its model has no matching encoder."""
    if not isinstance(encoder, SupportsMatching) or not encoder.can_match:
        raise QueryError(
            "the model has no matching encoder to rerank with: leave rerank out, or export the model with it"
        )
    return encoder


def score_matches(
    encoder: SupportsMatching,
    gallery: GalleryStore,
    inputs: Sequence[TextInput],
    weights: Sequence[float],
    hits: Sequence[Hit],
) -> list[RankedHit]:
    """What the matching encoder says of each hit, in their order.

    Args:
        encoder: Has a matching encoder.
        gallery: Knows where the pictures' files are; they are read again.
        inputs: The query: words with the sentence of each of its pictures, or words only; at least one.
        weights: The share of each of these in the logit.
        hits: Pictures of the gallery.
    """
    result: list[RankedHit] = []
    for start in range(0, len(hits), BATCH):
        block = hits[start : start + BATCH]
        pictures = [_picture(gallery, hit.id) for hit in block]
        seen = [picture for picture in pictures if picture is not None]
        logits = iter(_logits(encoder, inputs, weights, seen).tolist() if seen else ())
        for hit, picture in zip(block, pictures, strict=True):
            result.append(RankedHit(hit, None if picture is None else _probability(next(logits))))
    return result


def sort_by_match(scored: Sequence[RankedHit]) -> list[RankedHit]:
    """By match; what could not be looked at keeps its place."""
    seen = iter(sorted((one for one in scored if one.match is not None), key=_by_match))
    return [one if one.match is None else next(seen) for one in scored]


def _by_match(one: RankedHit) -> float:
    assert one.match is not None
    return -one.match


def _logits(
    encoder: SupportsMatching, inputs: Sequence[TextInput], weights: Sequence[float], pictures: Sequence[Any]
) -> NDArray[np.float64]:
    patches = encoder.encode_patches(pictures)
    rows = [_of_one(encoder, one, patches) for one in inputs]
    return np.average(np.stack(rows), axis=0, weights=weights)


def _of_one(encoder: SupportsMatching, one: TextInput, patches: Vectors) -> Vectors:
    count = len(patches)
    sentences = None if one.sentence is None else np.repeat(one.sentence[None], count, axis=0)
    return encoder.match(sentences, [one.words] * count, patches)


def _picture(gallery: GalleryStore, picture_id: int) -> Any:
    try:
        picture = gallery.picture(picture_id)
        limits = DecodeLimits().for_picture(picture.width, picture.height)
        return decode_image(read_picture(picture), at_least=MIN_DECODE_SIDE, limits=limits).picture
    except (ImageError, QueryError):
        return None  # the file is gone or damaged since it was indexed: it keeps its place


def _probability(logit: float) -> float:
    """Of a logit, without overflow."""
    return float(0.5 * (1 + np.tanh(0.5 * logit)))
