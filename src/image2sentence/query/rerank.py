"""Looking at the best results again, with the matching encoder on the gallery side.

A query vector and a picture's vector were made without knowing of each other. The matching encoder reads the words and
the sentence with the picture's patch features before it (cross-attention), and says how well they belong together. It
is too slow for a gallery, and right for its best few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.base import Encoder, Matches, Vectors
from image2sentence.errors import ImageError, QueryError
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.searcher import Hit
from image2sentence.images import decode_image
from image2sentence.places import read_picture
from image2sentence.query.composition import Spoken

AT_ONCE = 16
"""Pictures that go through the large encoder together: their patch features are large."""


class Matched(NamedTuple):
    """A hit, and the probability that it belongs to the query; None where its file cannot be read now."""

    hit: Hit
    match: float | None


def matcher_of(encoder: Encoder) -> Matches:
    """The encoder as one that can match. Raises QueryError where its model has no matching encoder."""
    if not isinstance(encoder, Matches) or not encoder.can_match:
        raise QueryError(
            "the model has no matching encoder to rerank with: leave rerank out, or export the model with it"
        )
    return encoder


def matched(
    encoder: Matches,
    gallery: GalleryStore,
    spoken: Sequence[Spoken],
    weights: Sequence[float],
    hits: Sequence[Hit],
) -> list[Matched]:
    """What the matching encoder says of each hit, in their order.

    Args:
        encoder: Has a matching encoder.
        gallery: Knows where the pictures' files are; they are read again.
        spoken: The query: words with the sentence of each of its pictures, or words only; at least one.
        weights: The share of each of these in the logit.
        hits: Pictures of the gallery.
    """
    result: list[Matched] = []
    for start in range(0, len(hits), AT_ONCE):
        block = hits[start : start + AT_ONCE]
        pictures = [_picture(gallery, hit.id) for hit in block]
        seen = [picture for picture in pictures if picture is not None]
        logits = iter(_logits(encoder, spoken, weights, seen).tolist() if seen else ())
        for hit, picture in zip(block, pictures, strict=True):
            result.append(Matched(hit, None if picture is None else _probability(next(logits))))
    return result


def in_new_order(looked_at: Sequence[Matched]) -> list[Matched]:
    """By match; what could not be looked at keeps its place."""
    seen = iter(sorted((one for one in looked_at if one.match is not None), key=_by_match))
    return [one if one.match is None else next(seen) for one in looked_at]


def _by_match(one: Matched) -> float:
    assert one.match is not None
    return -one.match


def _logits(
    encoder: Matches, spoken: Sequence[Spoken], weights: Sequence[float], pictures: Sequence[Any]
) -> NDArray[np.float64]:
    patches = encoder.encode_patches(pictures)
    rows = [_of_one(encoder, one, patches) for one in spoken]
    return np.average(np.stack(rows), axis=0, weights=weights)


def _of_one(encoder: Matches, one: Spoken, patches: Vectors) -> Vectors:
    count = len(patches)
    sentences = None if one.sentence is None else np.repeat(one.sentence[None], count, axis=0)
    return encoder.match(sentences, [one.words] * count, patches)


def _picture(gallery: GalleryStore, number: int) -> Any:
    try:
        return decode_image(read_picture(gallery.picture(number)), at_least=AT_LEAST).picture
    except (ImageError, QueryError):
        return None  # the file is gone or damaged since it was indexed: it keeps its place


def _probability(logit: float) -> float:
    """Of a logit, without overflow."""
    return float(0.5 * (1 + np.tanh(0.5 * logit)))
