"""Composition of reference images and words to one query vector."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import QueryError
from image2sentence.query.query import NEUTRAL, check_words

_MIN_MEAN_NORM = 1e-4


class TextInput(NamedTuple):
    """One input of the text encoder: the sentence of an image (L, w), or none, and words."""

    sentence: Vectors | None
    words: str


class WeightedInputs(NamedTuple):
    """Text inputs with their weights, and the share of their mean in a query vector."""

    share: float
    inputs: tuple[TextInput, ...]
    weights: tuple[float, ...]


def plan_composition(
    sentences: Sequence[Vectors], weights: Sequence[float], words: str, balance: float
) -> tuple[WeightedInputs, ...]:
    """The parts of a query vector: from the pictures alone over the composition to the words alone.

    With p, c and t the vectors of these three, the query vector is (1 - 2b) p + 2b c up to the neutral balance
    b = 0.5, and (2 - 2b) c + (2b - 1) t beyond it, scaled to length 1.
    """
    words = words.strip()
    text = (TextInput(None, words),), (1.0,)
    alone = tuple(TextInput(sentence, "") for sentence in sentences), tuple(weights)
    composed = tuple(TextInput(sentence, words) for sentence in sentences), tuple(weights)
    if not sentences:
        return (WeightedInputs(1.0, *text),)
    if not words:
        return (WeightedInputs(1.0, *alone),)
    lean = 2 * (balance - NEUTRAL)
    other = WeightedInputs(abs(lean), *(text if lean > 0 else alone))
    return tuple(part for part in (WeightedInputs(1 - abs(lean), *composed), other) if part.share > 0)


def embed_composition(encoder: Encoder, plans: Sequence[Sequence[WeightedInputs]]) -> list[Vectors]:
    """The (1, d) float32 vector of length 1 of each plan; all are read by the text encoder together.

    Raises QueryError where words are too long, or where pictures cancel out.
    """
    inputs = [one for parts in plans for part in parts for one in part.inputs]
    rows = iter(encode_text_inputs(encoder, inputs))
    mixed = []
    for parts in plans:
        vectors = [_mean(np.stack([next(rows) for _ in part.inputs]), part.weights) for part in parts]
        mixed.append(_mean(np.stack(vectors), [part.share for part in parts])[None])
    return mixed


def encode_text_inputs(encoder: Encoder, inputs: Sequence[TextInput]) -> Vectors:
    """(n, d) float32 unit rows; what has sentences of one length goes through the encoder in one call."""
    vectors = np.empty((len(inputs), encoder.width), np.float32)
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, one in enumerate(inputs):
        by_length[0 if one.sentence is None else len(one.sentence)].append(row)
    for length, rows in by_length.items():
        sentences = [s for s in (inputs[row].sentence for row in rows) if s is not None]
        vectors[rows] = encoder.encode_queries(
            np.stack(sentences) if length else None, [inputs[row].words for row in rows]
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
    composed with the words, and the query is the weighted mean of these vectors, scaled to length 1; see
    `plan_composition` for the balance.

    Raises QueryError where neither is given, where the words are too long or not in UTF-8, or where the pictures cancel
    out.
    """
    check_words(words)
    if not pictures and not words.strip():
        raise QueryError("expected a picture, words, or both; got neither")
    sentences = list(encoder.encode_sentences(pictures)) if pictures else []
    return embed_composition(
        encoder, [plan_composition(sentences, weights or [1.0] * len(pictures), words, balance)]
    )[0]


def _mean(vectors: Vectors, weights: Sequence[float]) -> Vectors:
    """(n, d) -> (d,) float32 of length 1; a single vector stays what it is, to the last bit."""
    if len(vectors) == 1:
        only: Vectors = vectors[0]
        return only
    mean = np.average(vectors, axis=0, weights=weights)
    if np.linalg.norm(mean) < _MIN_MEAN_NORM:
        raise QueryError("the pictures have nothing in common (their mean is zero): ask with fewer of them")
    return _unit(mean)


def _unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
