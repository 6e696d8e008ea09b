"""Weighted sum and spherical interpolation of unit rows."""

from __future__ import annotations

import numpy as np

from image2sentence.encoders.protocols import Vectors

_PARALLEL = 1e-4


def weighted_sum(pictures: Vectors, words: Vectors, weight: float | Vectors) -> Vectors:
    """unit((1 - weight) pictures + weight words), rows (n, d); `weight` may be one of each row, (n, 1)."""
    rows = (1 - weight) * pictures + weight * words
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    safe = np.where(lengths > _PARALLEL, rows, words)
    return np.asarray(safe / np.linalg.norm(safe, axis=1, keepdims=True), np.float32)


def slerp(pictures: Vectors, words: Vectors, weight: float) -> Vectors:
    """Spherical interpolation of unit rows (n, d), `weight` of the way from pictures to words."""
    cosine = np.clip(np.sum(pictures * words, axis=1, keepdims=True), -1, 1)
    angle = np.arccos(cosine)
    sine = np.sin(angle)
    flat = sine < _PARALLEL  # parallel: the sum is the same; opposite: any way is as short
    shares = [np.sin(share * angle) / np.where(flat, 1, sine) for share in (1 - weight, weight)]
    rows = np.asarray(shares[0] * pictures + shares[1] * words, np.float32)
    return np.where(flat, weighted_sum(pictures, words, weight), rows)
