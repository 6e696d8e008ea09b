"""Engine that answers queries to one gallery with one model.

A query passes four stages (`image2sentence.query.stages`): load references, encode, retrieve, postprocess. Queries that
are asked together pass each stage together, and an error in one of them stays with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image

from image2sentence.encoders.protocols import Encoder, SupportsLoading
from image2sentence.errors import Image2SentenceError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.search.base import VectorSearch
from image2sentence.query.composition import compose
from image2sentence.query.query import Asked, Query
from image2sentence.query.results import Answer
from image2sentence.query.stages import (
    Context,
    encode,
    load_references,
    postprocess,
    retrieve,
    run_stage,
)


class QueryEngine:
    """A model and a gallery: the gallery's vectors are read once, when the engine is made.

    Args:
        encoder: The model.
        gallery: Stays open as long as the engine is used; its owner closes it.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: GalleryStore) -> None:
        gallery.require(encoder.fingerprint, encoder.width)
        self.encoder = encoder
        self.gallery = gallery
        self._context = Context.read(encoder, gallery)

    def __len__(self) -> int:
        return len(self._context.ids)

    @property
    def searcher(self) -> VectorSearch:
        """Search over the gallery's vectors as they were last read."""
        return self._context.searcher

    def refresh(self) -> bool:
        """Read the vectors anew if the gallery has changed since they were read; whether it had."""
        changed = self.gallery.generation() != self._context.generation
        if changed:
            self._context = Context.read(self.encoder, self.gallery)
        return changed

    def prepare(self, *, pictures: bool = True, words: bool = True) -> None:
        """Load what queries of pictures, of words, or of both need of the model.

        An encoder that does not load without being asked (`SupportsLoading`) is asked something small.
        """
        if isinstance(self.encoder, SupportsLoading):
            self.encoder.load(pictures=pictures, words=words)
            return
        blank = [Image.new("RGB", (8, 8))] if pictures else []
        compose(self.encoder, blank, "a")

    def search(
        self,
        pictures: Sequence[Asked] = (),
        words: str = "",
        k: int = 10,
        *,
        keep_references: bool | None = None,
    ) -> Answer:
        """The k best pictures for some pictures, some words, or both: short for `rank` of such a query."""
        return self.rank(Query.of(pictures, words, k=k, keep_references=keep_references))

    def rank(self, query: Query) -> Answer:
        """Rank the gallery by a query.

        Raises:
            ImageError: a picture cannot be read.
            QueryError: words too long, pictures that cancel out, an unknown id, a condition that cannot be read, or a
                cut-off in a gallery too small to have one.
        """
        (answer,) = self.rank_many([query])
        if isinstance(answer, Image2SentenceError):
            raise answer
        return answer

    def rank_many(self, queries: Sequence[Query]) -> list[Answer | Image2SentenceError]:
        """The answer of each query, or the error that it alone raised.

        Their pictures go through the light encoder together, their words through the text encoder, and their vectors
        through the gallery; `Answer.milliseconds` is what all of them took.
        """
        context = self._context
        spent: dict[str, float] = {}
        with _timed(spent, "read_ms"):
            loaded = run_stage(load_references, context, queries)
        with _timed(spent, "encode_ms"):
            encoded = run_stage(encode, context, loaded)
        with _timed(spent, "search_ms"):
            retrieved = run_stage(retrieve, context, encoded)
            outcomes = run_stage(postprocess, context, retrieved)
        _record_times(outcomes, spent)
        return outcomes


def _record_times(outcomes: Sequence[Answer | Image2SentenceError], spent: dict[str, float]) -> None:
    """Milliseconds by stage into each answer; reranking, which postprocessing measures, apart from the search."""
    answers = [one for one in outcomes if isinstance(one, Answer)]
    if any(one.query.rerank for one in answers):
        rerank_ms = sum(one.milliseconds.get("rerank_ms", 0.0) for one in answers)
        spent = spent | {"search_ms": spent["search_ms"] - rerank_ms, "rerank_ms": rerank_ms}
    for one in answers:
        one.milliseconds.update(spent)


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
