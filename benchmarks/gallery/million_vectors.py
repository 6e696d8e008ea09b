"""Vectors to measure large galleries with: synthetic clusters, and real ones expanded.

**clusters**: a mixture of Gaussians on the sphere. Centres are drawn around the centres of a tenth as many groups,
cluster sizes fall as 1 / rank, and the noise's length is about that of the distance to the centre's group.

**photos**: vectors of the bundled model (or of `--model`) for real photographs, expanded. A new vector is

    unit(a + t (b - a) + d),

with a the vector of a photograph, b that of one of its ten nearest neighbours, t uniform in 0..1/2, and d the
difference that a random crop, flip and change of brightness made to the vector of some *other* photograph. So all
directions and lengths are ones that real pictures have; nothing is assumed to be Gaussian. Queries are of photographs
that were kept out: half of them composed queries ("in red"), half the photographs' own vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance

from image2sentence.encoders import Encoder
from image2sentence.encoders.protocols import Vectors
from image2sentence.images import load_image
from image2sentence.indexing.walk import walk

QUERIES = 1_000
WORDS = ("in red", "in blue", "in black", "striped", "with long sleeves", "a dress", "shoes", "for women")

_NEIGHBOURS = 10
_BLOCK = 50_000
_BATCH = 64
_AT_LEAST = 512


class Material(NamedTuple):
    """(n, d) gallery vectors and (q, d) query vectors, float32 of length 1."""

    gallery: Vectors
    queries: Vectors


def clusters(count: int, width: int, seed: int = 0) -> Material:
    """`count` vectors in count / 250 clusters, and queries near further points of the same clusters."""
    rng = np.random.default_rng(seed)
    centres = max(count // 250, 16)
    groups = unit(rng.standard_normal((max(centres // 10, 4), width)))
    middles = unit(groups[rng.integers(len(groups), size=centres)] + _noise(rng, centres, width))
    share = 1 / np.arange(1, centres + 1)

    def points(number: int) -> Vectors:
        chosen = rng.choice(centres, number, p=share / share.sum())
        return unit(middles[chosen] + 0.7 * _noise(rng, number, width))

    return Material(_filled(count, width, points), points(QUERIES))


def photos(encoder: Encoder, folders: Sequence[Path], count: int, seed: int = 0) -> Material:
    """`count` vectors like those of the photographs in the folders."""
    rng = np.random.default_rng(seed)
    files = [folder / file.path for folder in folders for file in walk(folder, folder / ".none").files]
    order = rng.permutation(len(files))
    asked, kept = order[: QUERIES // 2], order[QUERIES // 2 :]
    base = _encoded(encoder, (_read(files[i]) for i in kept))
    varied = _encoded(encoder, (vary(_read(files[i]), rng) for i in kept))
    differences = varied - base
    near = _nearest(base)

    def points(number: int) -> Vectors:
        a = rng.integers(len(base), size=number)
        b = near[a, rng.integers(near.shape[1], size=number)]
        t = rng.uniform(0, 0.5, (number, 1)).astype(np.float32)
        return unit(base[a] + t * (base[b] - base[a]) + differences[rng.integers(len(base), size=number)])

    queries = _queries(encoder, [_read(files[i]) for i in asked])
    return Material(_filled(count, encoder.width, points), queries)


def vary(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A random crop of at least 60 % of each side, flipped half of the time, 0.7 to 1.3 times as bright."""
    width, height = (round(side * rng.uniform(0.6, 1)) for side in picture.size)
    left, top = (
        int(rng.integers(whole - part + 1)) for whole, part in zip(picture.size, (width, height), strict=True)
    )
    cut = picture.crop((left, top, left + width, top + height))
    turned = cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else cut
    return ImageEnhance.Brightness(turned).enhance(rng.uniform(0.7, 1.3))


def unit(rows: Vectors) -> Vectors:
    """The rows scaled to length 1, float32."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _noise(rng: np.random.Generator, count: int, width: int) -> Vectors:
    """Rows of length about 1."""
    return np.asarray(rng.standard_normal((count, width), np.float32) / np.sqrt(width), np.float32)


def _filled(count: int, width: int, points) -> Vectors:  # type: ignore[no-untyped-def]
    rows = np.empty((count, width), np.float32)
    for start in range(0, count, _BLOCK):
        rows[start : start + _BLOCK] = points(min(_BLOCK, count - start))
    return rows


def _queries(encoder: Encoder, pictures: Sequence[Image.Image]) -> Vectors:
    sentences = encoder.encode_sentences(pictures)
    words = [WORDS[place % len(WORDS)] for place in range(len(pictures))]
    return np.concatenate([encoder.encode_queries(sentences, words), _encoded(encoder, iter(pictures))])


def _encoded(encoder: Encoder, pictures: Iterator[Image.Image]) -> Vectors:
    blocks = []
    batch: list[Image.Image] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == _BATCH:
            blocks.append(encoder.encode_images(batch))
            batch = []
    return np.concatenate([*blocks, encoder.encode_images(batch)])


def _nearest(base: Vectors) -> np.ndarray:
    near = np.empty((len(base), min(_NEIGHBOURS, len(base) - 1)), np.int64)
    for start in range(0, len(base), 1024):
        scores = base[start : start + 1024] @ base.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -2
        near[start : start + 1024] = np.argpartition(-scores, near.shape[1], axis=1)[:, : near.shape[1]]
    return near


def _read(path: Path) -> Image.Image:
    return load_image(path, at_least=_AT_LEAST)
