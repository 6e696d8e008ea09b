"""From pictures and words to one query vector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.errors import QueryError
from image2sentence.query.description import NEUTRAL, check_words

_SHORTEST_MEAN = 1e-4


class Spoken(NamedTuple):
    """What the text encoder reads at once: the sentence of a picture (L, w), or none, and words."""

    sentence: Vectors | None
    words: str


class Part(NamedTuple):
    """One of the things that a query vector is the mean of."""

    share: float
    spoken: tuple[Spoken, ...]
    weights: tuple[float, ...]


def blend(
    sentences: Sequence[Vectors], weights: Sequence[float], words: str, balance: float
) -> tuple[Part, ...]:
    """The parts of a query vector: from the pictures alone over the composition to the words alone.

    With p, c and t the vectors of these three, the query vector is (1 - 2b) p + 2b c up to the neutral balance
    b = 0.5, and (2 - 2b) c + (2b - 1) t beyond it, scaled to length 1.
    """
    words = words.strip()
    text = (Spoken(None, words),), (1.0,)
    alone = tuple(Spoken(sentence, "") for sentence in sentences), tuple(weights)
    composed = tuple(Spoken(sentence, words) for sentence in sentences), tuple(weights)
    if not sentences:
        return (Part(1.0, *text),)
    if not words:
        return (Part(1.0, *alone),)
    lean = 2 * (balance - NEUTRAL)
    other = Part(abs(lean), *(text if lean > 0 else alone))
    return tuple(part for part in (Part(1 - abs(lean), *composed), other) if part.share > 0)


def mix(encoder: Encoder, blends: Sequence[Sequence[Part]]) -> list[Vectors]:
    """The (1, d) float32 vector of length 1 of each blend; all are read by the text encoder together.

    Raises QueryError where words are too long, or where pictures cancel out.
    """
    spoken = [one for parts in blends for part in parts for one in part.spoken]
    rows = iter(read_aloud(encoder, spoken))
    mixed = []
    for parts in blends:
        vectors = [_mean(np.stack([next(rows) for _ in part.spoken]), part.weights) for part in parts]
        mixed.append(_mean(np.stack(vectors), [part.share for part in parts])[None])
    return mixed


def read_aloud(encoder: Encoder, spoken: Sequence[Spoken]) -> Vectors:
    """(n, d) float32 unit rows; what has sentences of one length goes through the encoder in one call."""
    vectors = np.empty((len(spoken), encoder.width), np.float32)
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(spoken):
        by_length[0 if one.sentence is None else len(one.sentence)].append(place)
    for length, places in by_length.items():
        sentences = [s for s in (spoken[place].sentence for place in places) if s is not None]
        vectors[places] = encoder.encode_queries(
            np.stack(sentences) if length else None, [spoken[place].words for place in places]
        )
    return vectors


def compose(
    encoder: Encoder,
    pictures: Sequence[Image.Image],
    words: str,
    *,
    weights: Sequence[float] | None = None,
    balance: float = NEUTRAL,
) -> Vectors:
    """Pictures and words -> (1, d) float32 query vector of length 1.

    Without pictures this is text-to-image search, without words image search. Each of several pictures is
    composed with the words, and the query is the weighted mean of these vectors, scaled to length 1; see `blend` for
    the balance.

    Raises QueryError where neither is given, where the words are too long or not in UTF-8, or where the pictures cancel
    out.
    """
    check_words(words)
    if not pictures and not words.strip():
        raise QueryError("expected a picture, words, or both; got neither")
    sentences = list(encoder.encode_sentences(pictures)) if pictures else []
    return mix(encoder, [blend(sentences, weights or [1.0] * len(pictures), words, balance)])[0]


def _mean(vectors: Vectors, weights: Sequence[float]) -> Vectors:
    """(n, d) -> (d,) float32 of length 1; a single vector stays what it is, to the last bit."""
    if len(vectors) == 1:
        only: Vectors = vectors[0]
        return only
    mean = np.average(vectors, axis=0, weights=weights)
    if np.linalg.norm(mean) < _SHORTEST_MEAN:
        raise QueryError("the pictures have nothing in common (their mean is zero): ask with fewer of them")
    return _unit(mean)


def _unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
