"""The one protocol in which training, runtime, evaluation and serving meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from image2sentence.encoders.model_folder import ModelFolder

Vectors = NDArray[np.float32]


def with_sentences(vectors: Vectors, sentence_embeddings: Vectors, share: float) -> Vectors:
    """Gallery vectors that hold a share of the pictures' own sentences: unit((1 - share) v + share T(s)).

    Args:
        vectors: (n, d) unit rows v, the VL model's.
        sentence_embeddings: (n, d) unit rows T(s), the pictures' sentences without words.
        share: 0 to 1.

    Returns:
        (n, d) float32 unit rows.
    """
    rows = (1 - share) * vectors + share * sentence_embeddings
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@runtime_checkable
class Encoder(Protocol):
    """A gallery encoder and a query encoder that share one vector space.

    Scores are dot products: every vector returned has length 1.
    """

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space (all that gallery vectors depend on); galleries record it and refuse another."""
        ...

    @property
    def width(self) -> int:
        """Width d of gallery and query vectors."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Gallery side: n RGB pictures -> (n, d) float32 unit rows, through the large visual encoder."""
        ...

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """Query side: n RGB pictures -> (n, L, w) float32 pseudo-words, through the light encoder."""
        ...

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        """Sentences (n, L, w) and n modifiers -> (n, d) float32 unit rows.

        `sentences=None` gives text-to-image search; an empty modifier gives image search.
        """
        ...


@runtime_checkable
class SupportsMatching(Protocol):
    """An encoder whose vision-language model can look at a query and a picture together (a matching encoder)."""

    @property
    def can_match(self) -> bool:
        """Whether this model has one."""
        ...

    def encode_patches(self, images: Sequence[Image.Image]) -> Vectors:
        """Gallery side: n RGB pictures -> (n, N, C) float32 patch features, through the large visual encoder."""
        ...

    def match(self, sentences: Vectors | None, texts: Sequence[str], patches: Vectors) -> Vectors:
        """n queries, as `Encoder.encode_queries` takes them, and patches (n, N, C) -> (n,) float32 match logits."""
        ...


@runtime_checkable
class SupportsPreparing(Protocol):
    """An encoder whose `encode_images` is `encode_prepared` of each picture's `prepare`.

    Both are safe to call from several threads at once. What preparing (resizing, normalising) gives is small, whatever
    the picture's size.
    """

    @property
    def parallel(self) -> int:
        """How many calls of `encode_prepared` at once use the whole machine, at least 1."""
        ...

    def prepare(self, image: Image.Image) -> NDArray[np.float32]:
        """Gallery side: an RGB picture -> the encoder's input for it, of one shape for all pictures."""
        ...

    def encode_prepared(self, rows: Sequence[NDArray[np.float32]]) -> Vectors:
        """Gallery side: n prepared pictures -> (n, d) float32 unit rows."""
        ...


@runtime_checkable
class SupportsLoading(Protocol):
    """An encoder that can load what its query side needs without asking anything."""

    def load(self, *, pictures: bool, words: bool) -> None:
        """Load what queries of pictures, of words, or of both need."""
        ...


@runtime_checkable
class SupportsMemory(Protocol):
    """An encoder that can remember what queries have in common, which is encoded once then."""

    def remember_texts(self, limit: int) -> None:
        """Keep up to `limit` vectors of sentences alone and of words alone, those asked for last, from now on."""
        ...


@runtime_checkable
class SupportsGuidance(Protocol):
    """An encoder in whose queries guiding phrases may be applied (`image2sentence.encoders.phrase_guide`)."""

    @property
    def is_guided(self) -> bool:
        """Whether they do."""
        ...

    def unguided(self) -> Encoder:
        """The same encoder without them."""
        ...


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that can tell which words it does not know."""

    folder: ModelFolder

    def unknown_words(self, text: str) -> list[str]:
        """The words that are not in the vocabulary, in order, once each."""
        ...

    def known_words(self) -> Sequence[str]:
        """The words of the vocabulary, sorted."""
        ...
