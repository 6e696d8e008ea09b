"""Composition of a picture's vector and its modifier's without training.

With v the picture's vector, t that of the words and w the words' weight, both of length 1:

    sum:    unit((1 - w) v + w t)
    slerp:  (sin((1 - w) a) v + sin(w a) t) / sin(a), a being the angle between v and t
            (Shoemake, SIGGRAPH 1985; for composed retrieval Jang et al., ECCV 2024)

Either is one query vector, and a picture's own vector stands where a sentence does: one row of the vectors' width. A
model with guiding phrases (`image2sentence.encoders.phrase_guide`) goes by what words make of the phrases nearest to
the picture, and by this composition where no phrase describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from image2sentence.encoders.config import COMPOSITION_KINDS, CompositionConfig
from image2sentence.encoders.interpolation import slerp, weighted_sum
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, QueryError


class TrainingFreeEncoder(OnnxEncoder):
    """A model folder without a light side as an `Encoder`: a reference's sentence is its gallery vector, (1, d)."""

    _read_by_pictures = ("_gallery_image", "_guide")

    @property
    def composition(self) -> CompositionConfig:
        """How pictures and words are composed."""
        assert self.config.composition is not None
        return self.config.composition

    def load(self, *, pictures: bool, words: bool) -> None:
        """See `SupportsLoading.load`. Both graphs at once: a large one takes a second, mostly of one core."""
        if pictures and words:
            with ThreadPoolExecutor(1) as beside:
                seen = beside.submit(getattr, self, "_gallery_image")
                super().load(pictures=False, words=True)
                seen.result()
        super().load(pictures=pictures, words=words)

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures -> (n, 1, d) float32 unit rows, through the visual encoder of the gallery side."""
        return self.encode_images(images)[:, None, :]

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        """Sentences (n, 1, d) and n modifiers -> (n, d) float32 unit rows; an empty modifier leaves the picture alone.

        `sentences=None` is text-to-image search. Raises QueryError as `OnnxEncoder.encode_queries` does.
        """
        if sentences is None:
            return super().encode_queries(None, texts)
        if sentences.shape != (len(texts), 1, self.width):
            raise QueryError(
                f"expected sentences of shape ({len(texts)}, 1, {self.width}) for {len(texts)} texts, got "
                f"{sentences.shape}"
            )
        queries = np.array(sentences[:, 0], np.float32)
        rows = [row for row, text in enumerate(texts) if text.strip()]
        if rows:
            queries[rows] = self._composed(queries[rows], [texts[row] for row in rows])
        return queries

    def _composed(self, pictures: Vectors, texts: Sequence[str]) -> Vectors:
        """Unit rows of pictures (n, d) and n modifiers, none of them empty -> (n, d) unit rows."""
        composed = compose_vectors(self.composition, pictures, super().encode_queries(None, texts))
        self._guide_rows(composed, texts, lambda rows: pictures[rows])
        return composed

    explain = None  # type: ignore[assignment]  # there are no pseudo-words: it is not one of those that `Explains`


def compose_vectors(how: CompositionConfig, pictures: Vectors, words: Vectors) -> Vectors:
    """Unit rows (n, d) of pictures and of words -> (n, d) float32 unit rows.

    Where both are opposite and cancel out, the words alone.
    """
    return COMPOSITIONS[how.kind](pictures, words, how.weight)


Compose = Callable[[Vectors, Vectors, float], Vectors]
"""Unit rows (n, d) of pictures, of words, and the words' weight 0..1 -> unit rows (n, d)."""

COMPOSITIONS: dict[str, Compose] = {"sum": weighted_sum, "slerp": slerp}


def register_composition(name: str, compose: Compose) -> None:
    """Make a composition of one's own known as `composition.kind`. Raises ConfigError for a name that is taken."""
    if name in COMPOSITIONS:
        raise ConfigError(f"there is a composition {name!r} already: give yours another name")
    COMPOSITIONS[name] = compose
    COMPOSITION_KINDS.append(name)
