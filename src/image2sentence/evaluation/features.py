"""Vectors of a benchmark's gallery and queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeVar

import numpy as np
from PIL import Image

from image2sentence.encoders.composition import TrainingFreeEncoder
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError, QueryError
from image2sentence.evaluation.kept_sentences import KeptSentences
from image2sentence.evaluation.protocol import Benchmark
from image2sentence.gallery.search.searcher import Searcher

BATCH = 32

_Item = TypeVar("_Item")

Opener = Callable[[str], Image.Image]
"""Picture id -> RGB picture."""
Distortion = Callable[[Image.Image], Image.Image]


class Features:
    """Vectors of a benchmark's gallery and queries, each encoded once and only when a row asks for it.

    Args:
        benchmark: Its gallery and queries.
        encoder: Gives the vectors.
        open_image: Opens a picture by its id.
        distort: Changes every reference; the gallery stays as it is.
        kept: Gallery-side vectors (d,) by picture id, of the gallery and of references outside it; these pictures
            are not encoded again.
        sentences: The same for the references' sentences.
        shorten: Texts too long for the encoder lose their last words; `shortened` names them. Else they are an error.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        encoder: Encoder,
        open_image: Opener,
        distort: Distortion | None = None,
        kept: Mapping[str, Vectors] | None = None,
        sentences: KeptSentences | None = None,
        shorten: bool = False,
    ) -> None:
        self.shortened: set[str] = set()
        self._shorten = shorten
        self.benchmark = benchmark
        self.gallery = benchmark.needed_ids()
        self._kept = kept
        self._kept_sentences = sentences
        self._last: tuple[Encoder, Vectors] | None = None
        self._encoder = encoder
        self._open = open_image
        self._distort = distort
        names = dict.fromkeys(query.reference for query in benchmark.queries)
        self._references = tuple(names)
        at = {name: row for row, name in enumerate(names)}
        self._reference_of = np.array([at[query.reference] for query in benchmark.queries])

    def for_queries_of(self, benchmark: Benchmark) -> Features:
        """The same for other queries; a gallery of the same pictures is not encoded again."""
        made = Features(
            benchmark,
            self._encoder,
            self._open,
            self._distort,
            self._kept,
            self._kept_sentences,
            self._shorten,
        )
        if made.gallery == self.gallery:
            made._gallery_vectors = self._gallery_vectors
        return made

    def take_gallery(self, searcher: Searcher) -> None:
        """Use the vectors of this searcher in place of encoding the gallery again."""
        if set(searcher.ids) != set(self.gallery):
            raise DataError(f"the clean evaluation of {self.benchmark.name} has another gallery")
        self._gallery_vectors = searcher.vectors_of(self.gallery)

    @cached_property
    def searcher(self) -> Searcher:
        return Searcher(self.gallery, self._gallery_vectors)

    @cached_property
    def _gallery_vectors(self) -> Vectors:
        if self._kept is not None:
            return np.stack([self._kept[image] for image in self.gallery])
        return in_batches(self.gallery, lambda ids: self._encoder.encode_images([self._open(i) for i in ids]))

    @cached_property
    def images(self) -> Vectors:
        """(q, d): the reference of every query."""
        return np.asarray(self._reference_vectors[self._reference_of], dtype=np.float32)

    @cached_property
    def _reference_vectors(self) -> Vectors:
        if self._kept is not None and self._distort is None:
            return np.stack([self._kept[name] for name in self._references])
        at = {name: row for row, name in enumerate(self.gallery)}
        if self._distort is None and all(name in at for name in self._references):
            return self._gallery_vectors[[at[name] for name in self._references]]
        return in_batches(self._references, lambda ids: self._encoder.encode_images(self._opened(ids)))

    @cached_property
    def texts(self) -> Vectors:
        """(q, d): the modifier of every query."""
        return mean_of_phrasings([self.encode_texts(texts) for texts in self._phrasings()])

    @cached_property
    def full_texts(self) -> Vectors:
        """(q, d): the caption of every query."""
        return self.encode_texts([query.caption for query in self.benchmark.queries])

    def composed(self, encoder: Encoder, texts: Sequence[str] | None = None) -> Vectors:
        """(q, d): sentence of the reference + modifier, by `encoder`; `texts`: other modifiers, one for each query."""
        phrasings = self._phrasings() if texts is None else [list(texts)]
        sentences = self._sentences(encoder)
        return mean_of_phrasings([self._compose(encoder, sentences, own) for own in phrasings])

    def _sentences(self, encoder: Encoder) -> Vectors:
        """Sentences of the references, those of the encoder that was asked last kept."""
        if self._last is None or self._last[0] is not encoder:
            self._last = (encoder, self._encode_sentences(encoder))
        return self._last[1]

    def _encode_sentences(self, encoder: Encoder) -> Vectors:
        if isinstance(encoder, TrainingFreeEncoder):  # there, a sentence is the picture's own vector
            return self._reference_vectors[:, None, :]
        if self._kept_sentences is not None and self._distort is None:
            return self._kept_sentences.of(encoder, self._references, self._open)
        return in_batches(
            self._references, lambda ids: np.asarray(encoder.encode_sentences(self._opened(ids)))
        )

    def _compose(self, encoder: Encoder, sentences: Vectors, texts: Sequence[str]) -> Vectors:
        def encode(rows: Sequence[int]) -> Vectors:
            return self._fitting(
                lambda some, words: encoder.encode_queries(sentences[self._reference_of[some]], words),
                rows,
                [texts[row] for row in rows],
            )

        return in_batches(range(len(texts)), encode)

    def _fitting(
        self, encode: Callable[[Sequence[int], list[str]], Vectors], rows: Sequence[int], texts: list[str]
    ) -> Vectors:
        """`encode` of rows and their texts; where `shorten`, a text too long for it loses its last words."""
        try:
            return encode(rows, texts)
        except QueryError:
            if not self._shorten:
                raise
        if len(rows) > 1:
            half = len(rows) // 2
            parts = slice(0, half), slice(half, None)
            return np.concatenate([self._fitting(encode, rows[part], texts[part]) for part in parts])
        self.shortened.add(texts[0])
        return _longest_that_fits(lambda words: encode(rows, [words]), texts[0])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(n, d): any texts, each different one encoded once."""
        different = list(dict.fromkeys(texts))

        def encode(rows: Sequence[int]) -> Vectors:
            words = [different[row] for row in rows]
            return self._fitting(lambda _, some: self._encoder.encode_queries(None, some), rows, words)

        vectors = in_batches(range(len(different)), encode)
        at = {text: row for row, text in enumerate(different)}
        return np.asarray(vectors[[at[text] for text in texts]], dtype=np.float32)

    def _phrasings(self) -> list[list[str]]:
        """First, second ... phrasing of every query; one rule words all queries, so the counts agree."""
        return [list(texts) for texts in zip(*(query.texts for query in self.benchmark.queries), strict=True)]

    def _opened(self, ids: Sequence[str]) -> list[Image.Image]:
        pictures = [self._open(image) for image in ids]
        return pictures if self._distort is None else [self._distort(picture) for picture in pictures]


def _longest_that_fits(encode: Callable[[str], Vectors], text: str) -> Vectors:
    """`encode` of a text without as many of its last words as it takes; the first one alone is tried last."""
    words = text.split()
    for count in range(len(words) - 1, 1, -1):
        try:
            return encode(" ".join(words[:count]))
        except QueryError:
            continue
    return encode(words[0])


def mean_of_phrasings(vectors: Sequence[Vectors]) -> Vectors:
    return vectors[0] if len(vectors) == 1 else unit(np.mean(vectors, axis=0))


def unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def in_batches(items: Sequence[_Item], encode: Callable[[Sequence[_Item]], Vectors]) -> Vectors:
    parts = [encode(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    return np.concatenate(parts)
