"""BASIC: product of image and text similarity, without training.

After Psomas et al., "Instance-Level Composed Image Retrieval", NeurIPS 2025. With v a gallery vector, x the
reference's, t the modifier's, m_v and m_t the means of gallery and corpus, P the projection below, each score
divided after subtracting its minimum, and negative values cut off:

    s_x = (P (x - m_v)) . (v - m_v),   s_t = (t - m_t) . (v - m_v),   s = s_x s_t - 0.1 (s_x + s_t)^2

P is the projection on the (at most 250) principal directions with positive eigenvalue of 0.8 S_subjects - 0.2
S_styles, the scatter matrices of two text corpora. What differs here from the published program: the corpora
(`basic_corpus.json`, ours), means and minima (from the gallery and the corpora, not from LAION and generated
pictures), no expansion of the query, and no context around the words.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np

from image2sentence.encoders.protocols import Vectors

STYLE_SHARE = 0.2
COMPONENTS = 250
PENALTY = 0.1
SAMPLE = 1_000
"""Gallery pictures from which the smallest scores are estimated."""
DESCRIPTION = (
    f"subjects and styles of basic_corpus.json, at most {COMPONENTS} components, penalty {PENALTY}, means and "
    "minima from gallery and corpus, no query expansion, no context"
)

EncodeTexts = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Basic:
    """What BASIC scores a gallery with; made by `fit`."""

    gallery: Vectors
    """(n, d): centred."""
    image_mean: Vectors
    text_mean: Vectors
    projection: Vectors
    """(d, d)"""
    image_least: float
    text_least: float

    @classmethod
    def fit(cls, gallery: Vectors, encode_texts: EncodeTexts) -> Basic:
        """From the gallery's unit rows (n, d) and an encoder of texts."""
        subjects, styles = (encode_texts(words) for words in corpora())
        image_mean, text_mean = gallery.mean(axis=0), subjects.mean(axis=0)
        centred = np.asarray(gallery - image_mean, np.float32)
        projection = contrastive_projection(subjects - text_mean, styles - text_mean)
        sample = centred[:: max(1, len(centred) // SAMPLE)]
        image_least = float((sample @ projection @ sample.T).min())
        text_least = float(((subjects - text_mean) @ sample.T).min())
        return cls(centred, image_mean, text_mean, projection, image_least, text_least)

    def scores(self, images: Vectors, texts: Vectors) -> Vectors:
        """(b, n) scores of references (b, d) and modifiers (b, d)."""
        by_image = (images - self.image_mean) @ self.projection @ self.gallery.T
        by_text = (texts - self.text_mean) @ self.gallery.T
        first = _from_zero(by_image, self.image_least)
        second = _from_zero(by_text, self.text_least)
        return np.asarray(first * second - PENALTY * (first + second) ** 2, np.float32)


def contrastive_projection(subjects: Vectors, styles: Vectors) -> Vectors:
    """(d, d) projection on what varies among subjects (n, d) more than among styles (m, d), both centred."""
    scatter = [rows.T @ rows / max(1, len(rows) - 1) for rows in (subjects, styles)]
    values, vectors = np.linalg.eigh((1 - STYLE_SHARE) * scatter[0] - STYLE_SHARE * scatter[1])
    largest = np.argsort(-values)[:COMPONENTS]
    chosen = vectors[:, largest[values[largest] > 0]]
    return np.asarray(chosen @ chosen.T, np.float32)


def corpora() -> tuple[list[str], list[str]]:
    """Names of subjects, and of styles, that come with the package."""
    text = resources.files("image2sentence.evaluation").joinpath("basic_corpus.json").read_text("utf-8")
    value = json.loads(text)
    return value["subjects"], value["styles"]


def _from_zero(scores: Vectors, least: float) -> Vectors:
    return np.asarray(np.maximum((scores - least) / max(abs(least), 1e-6), 0), np.float32)
