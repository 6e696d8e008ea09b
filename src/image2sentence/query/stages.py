"""Four stages of a query, each with a typed input and output.

    load_references   Query          -> LoadedQuery     files to images to sentences
    encode            LoadedQuery    -> EncodedQuery    sentences and words to a query vector
    retrieve          EncodedQuery   -> RetrievedQuery  the nearest pictures
    postprocess       RetrievedQuery -> Answer          negatives, cut-off, reranking, near-duplicates, diversity, page

Every stage takes what all queries of a batch need at once: one call of an encoder, one search, one look-up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import Image2SentenceError, QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.records import Picture
from image2sentence.gallery.search.base import Hit, VectorSearch
from image2sentence.query.candidates import Candidates, RankedHit, fetch
from image2sentence.query.composition import (
    TextInput,
    WeightedInputs,
    embed_composition,
    plan_composition,
)
from image2sentence.query.diversity import BLOCK, hide_near_duplicates, spread_out
from image2sentence.query.negatives import POOL, NegativeQuery
from image2sentence.query.picture_rows import PictureRows
from image2sentence.query.query import Query
from image2sentence.query.references import LoadedReference, load_reference
from image2sentence.query.rerank import require_matching, score_matches, sort_by_match
from image2sentence.query.results import Answer, Result
from image2sentence.query.score_statistics import MIN_PICTURES, RobustScale, ScoreStatistics
from image2sentence.query.text_matches import MatchedRanking, TextIndex, TextMatches, wanted_words, weight_of
from image2sentence.query.unknown_words import is_understood, words_not_understood

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False)
class Context:
    """The model, the gallery, and what was read from it: all that stages share.

    Attributes:
        ids: (n,) ascending ids of the pictures that the searcher knows.
        forgotten: Ids that the gallery has lost since.
    """

    encoder: Encoder
    gallery: GalleryStore
    generation: object
    searcher: VectorSearch
    ids: NDArray[np.int64]
    statistics: ScoreStatistics
    texts: TextIndex
    forgotten: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._rows = PictureRows(self.gallery)

    @classmethod
    def read(cls, encoder: Encoder, gallery: GalleryStore) -> Context:
        """Read a gallery's vectors."""
        generation = gallery.generation()
        searcher = gallery.searcher()
        ids = np.array(searcher.ids, np.int64)
        statistics, texts = ScoreStatistics(searcher), TextIndex(gallery, ids)
        return cls(encoder, gallery, generation, searcher, ids, statistics, texts)

    def named_pictures(self, ids: Collection[int]) -> dict[int, Picture]:
        """Pictures that a query names, by id. Raises QueryError where one is not there."""
        found = dict(zip(ids, self.gallery.pictures_of(list(ids)), strict=True)) if ids else {}
        missing = [picture_id for picture_id, picture in found.items() if picture is None]
        if missing:
            raise QueryError(f"the gallery has no picture {missing[0]}")
        return {picture_id: picture for picture_id, picture in found.items() if picture is not None}

    def ready_pictures(self, ids: Collection[int]) -> dict[int, Picture]:
        """The pictures with these ids; those that the gallery has lost are left out of results from now on."""
        found = self._rows.pictures(ids)
        ready = {picture.id: picture for picture in found if picture is not None and picture.state == "ready"}
        self.forgotten |= set(ids) - set(ready)
        return ready

    def metadata(self, ids: Collection[int]) -> dict[int, dict[str, Value]]:
        """The metadata of pictures, by id; empty where a picture has none."""
        return dict(zip(ids, self._rows.metadata(ids), strict=True)) if ids else {}

    def known_ids(self, ids: Collection[int]) -> list[int]:
        """Those of the ids that the searcher knows, ascending."""
        wanted = np.fromiter(ids, np.int64, len(ids))
        positions = np.searchsorted(self.ids, wanted)
        return sorted(wanted[np.isin(wanted, self.ids[positions[positions < len(self.ids)]])].tolist())


@dataclass(frozen=True, eq=False)
class LoadedQuery:
    """A query whose references have their sentences."""

    query: Query
    references: list[LoadedReference]
    negatives: list[LoadedReference]


@dataclass(frozen=True, eq=False)
class EncodedQuery:
    """A query with its vector, (1, d) float32, and what is taken off for negatives."""

    loaded: LoadedQuery
    vector: Vectors
    negative: NegativeQuery | None


@dataclass(frozen=True, eq=False)
class RetrievedQuery:
    """A query with its best candidates, more of which can be fetched.

    `matches` are the pictures whose text has words of the query, None where there are none. They alone are ranked where
    the query is not `understood`: words alone, of which the model knows none. `chosen` are the ids that its filter
    holds for, where they have been looked up.
    """

    encoded: EncodedQuery
    candidates: Candidates
    matches: TextMatches | None
    understood: bool
    chosen: NDArray[np.int64] | None = None

    @property
    def query(self) -> Query:
        """What was asked."""
        return self.encoded.loaded.query


def run_stage(
    stage: Callable[[Context, Sequence[In]], list[Out]],
    context: Context,
    inputs: Sequence[In | Image2SentenceError],
) -> list[Out | Image2SentenceError]:
    """One stage for all queries that have not failed before.

    Where the batch fails, each query goes alone, so that the error stays with the one that caused it.
    """
    outputs: list[Out | Image2SentenceError | None] = [
        one if isinstance(one, Image2SentenceError) else None for one in inputs
    ]
    rows = [row for row, one in enumerate(inputs) if not isinstance(one, Image2SentenceError)]
    batch = [one for one in inputs if not isinstance(one, Image2SentenceError)]
    try:
        results: Sequence[Out | Image2SentenceError] = stage(context, batch) if batch else []
    except Image2SentenceError as error:
        results = [error] if len(batch) == 1 else [run_stage(stage, context, [one])[0] for one in batch]
    for row, result in zip(rows, results, strict=True):
        outputs[row] = result
    return [one for one in outputs if one is not None]


# --- load references ---


def load_references(context: Context, queries: Sequence[Query]) -> list[LoadedQuery]:
    """Read and decode the references of all queries, and encode their images to sentences in one call."""
    named = [one for query in queries for one in (*query.references, *query.not_references)]
    items = context.named_pictures([one.item for one in named if one.item is not None])
    loaded = []
    for query in queries:
        if query.rerank:
            require_matching(context.encoder)  # before anything is computed in vain
        references = [load_reference(one, items, context.gallery) for one in query.references]
        negatives = [load_reference(one, items, context.gallery) for one in query.not_references]
        loaded.append(LoadedQuery(query, references, negatives))
    unread = [
        one for query in loaded for one in (*query.references, *query.negatives) if one.sentence is None
    ]
    images = [one.picture for one in unread if one.picture is not None]
    if images:
        for one, sentence in zip(unread, context.encoder.encode_sentences(images), strict=True):
            one.sentence = sentence
    return loaded


# --- encode ---


def encode(context: Context, queries: Sequence[LoadedQuery]) -> list[EncodedQuery]:
    """Embed all queries and all their negatives in one call of the text encoder."""
    composed = [one for one in queries if one.query.vector is None]
    negatives = [_plan_negatives(one) for one in queries]
    plans = [_plan_query(one) for one in composed] + [plan for plans in negatives for plan in plans]
    vectors = iter(embed_composition(context.encoder, plans))
    composed_vectors = {id(one): next(vectors) for one in composed}
    encoded = []
    for one, plans_of_negatives in zip(queries, negatives, strict=True):
        given = one.query.vector
        vector = composed_vectors[id(one)] if given is None else _unit_vector(given, context.encoder.width)
        negative = None
        if plans_of_negatives:
            negative = NegativeQuery(vector, [next(vectors) for _ in plans_of_negatives], context.statistics)
        encoded.append(EncodedQuery(one, vector, negative))
    return encoded


def _plan_query(one: LoadedQuery) -> tuple[WeightedInputs, ...]:
    sentences = [reference.sentence for reference in one.references if reference.sentence is not None]
    weights = [reference.weight for reference in one.references]
    return plan_composition(sentences, weights, one.query.words, one.query.balance)


def _plan_negatives(one: LoadedQuery) -> list[tuple[WeightedInputs, ...]]:
    """Each negative is a vector of its own."""
    sentences = [reference.sentence for reference in one.negatives if reference.sentence is not None]
    images = [plan_composition([sentence], [1.0], "", 0.5) for sentence in sentences]
    return images + [plan_composition([], [], words, 0.5) for words in one.query.not_words]


def _unit_vector(vector: Vectors, width: int) -> Vectors:
    """A ready query vector, (d,) or (1, d) -> (1, d) float32 of length 1."""
    if vector.size != width or vector.ndim > 2:
        raise QueryError(f"expected a query vector of width {width}, got one of shape {vector.shape}")
    wide = vector.reshape(1, -1).astype(np.float64)
    wide /= np.abs(wide).max()  # so that no square is too large or too small for its type
    return np.asarray(wide / np.linalg.norm(wide), np.float32)


# --- retrieve ---


def retrieve(context: Context, queries: Sequence[EncodedQuery]) -> list[RetrievedQuery]:
    """Fetch as many candidates as most queries need, for all of them in one search."""
    retrieved = [_retrieved(context, one) for one in queries]
    fetch(
        context.searcher, [one.candidates for one in retrieved], max(_depth(one.query) for one in retrieved)
    )
    return retrieved


def _retrieved(context: Context, one: EncodedQuery) -> RetrievedQuery:
    query = one.loaded.query
    vector = one.negative.retrieval_vector if one.negative else one.vector
    excluded = _excluded_ids(context, one.loaded)
    understood = _is_understood(context, query)
    matches = context.texts.match(query.words, query.not_words) if query.titles else None
    chosen = None
    if matches is not None:
        chosen = None if query.where is None else context.searcher.select(query.where)
        matches = matches.among(chosen, excluded, wanted=not understood)
    return RetrievedQuery(one, Candidates(vector, excluded, query.where), matches, understood, chosen)


def _excluded_ids(context: Context, loaded: LoadedQuery) -> Collection[int]:
    """Ids that may not appear: excluded pictures and left out references with their copies, and lost pictures."""
    query = loaded.query
    ids = set(query.exclude) | context.forgotten
    contents = [picture.content_id for picture in context.named_pictures(query.exclude).values()]
    if query.leaves_references_out:
        ids |= {one.item for one in loaded.references if one.item is not None}
        contents += [one.content for one in loaded.references]
    for content in contents:
        ids |= set(context.gallery.with_content(content)) if content is not None else set()
    return context.known_ids(ids)


def _depth(query: Query) -> int:
    """Candidates that a query needs at first: its page, one more, and whole blocks where they are reordered."""
    need = max(query.offset + query.k + 1, query.rerank)
    block = POOL if query.not_references or query.not_words else BLOCK if query.diversity else 1
    return -(-need // block) * block


# --- postprocess ---


@dataclass(eq=False)
class _Ranking:
    """The ranked pictures of a query, up to its page and one more, where there is as much."""

    best_fit: float | None
    hits: list[RankedHit]
    rerank_ms: float
    scale: RobustScale | None


def postprocess(context: Context, queries: Sequence[RetrievedQuery]) -> list[Answer]:
    """Rank candidates as each query says; the pictures of all pages are looked up at once."""
    rankings = [_rank(context, one) for one in queries]
    pages = [
        ranking.hits[one.query.offset : one.query.offset + one.query.k]
        for one, ranking in zip(queries, rankings, strict=True)
    ]
    pictures = context.ready_pictures({int(ranked.hit.id) for page in pages for ranked in page})
    metadata = context.metadata(pictures)
    answers = []
    for one, ranking, page in zip(queries, rankings, pages, strict=True):
        if all(int(ranked.hit.id) in pictures for ranked in page):
            results = _results(ranking.scale, page, one.query.offset + 1, pictures, metadata)
            answers.append(_answer(context, one, ranking, results))
        else:  # an indexing run has deleted some since the vectors were read: again, without them
            answers += postprocess(context, [_retrieved(context, one.encoded)])
    return answers


def _rank(context: Context, one: RetrievedQuery) -> _Ranking:
    query, scale = one.query, _scale(context, one.encoded)
    min_score = _min_score(query, scale)
    matched = _matched(context, one, scale)
    depth = wanted = _depth(query)
    reranked: list[RankedHit] = []
    rerank_ms = 0.0
    while True:
        fetched = one.candidates.best(context.searcher, depth) if one.understood else ()
        hits = fetched
        if one.encoded.negative and hits:
            hits = one.encoded.negative.rescore(hits, _vectors(context, hits))
        if matched is not None:
            hits = matched.merge(hits, depth, complete=len(fetched) < depth)
        kept = [hit for hit in hits if hit.score >= min_score]
        if query.rerank and not reranked:
            start = time.perf_counter()
            reranked = _rerank(context, one.encoded.loaded, kept[: query.rerank])
            rerank_ms = 1000 * (time.perf_counter() - start)
        ranked = [*reranked, *(RankedHit(hit) for hit in kept[len(reranked) :])]
        if query.near_duplicates is not None:
            ranked = _hide_near_duplicates(context, ranked, query.near_duplicates)
        if len(ranked) >= wanted or len(fetched) < depth or hits[-1].score < min_score:
            break
        depth *= 2
    if query.diversity:
        ranked = _diversify(context, ranked, query)
    return _Ranking(_fit(hits[0], scale) if hits else None, ranked, rerank_ms, scale)


def _matched(context: Context, one: RetrievedQuery, scale: RobustScale | None) -> MatchedRanking | None:
    """The pictures whose text matches, with what that adds to their scores."""
    if one.matches is None:
        return None
    encoded = one.encoded
    scale = scale or context.statistics.scale_of(encoded.vector)
    unit = weight_of(one.query) * scale.spread if scale else 0.0
    return MatchedRanking(
        one.matches, context.searcher, encoded.vector, unit, encoded.negative, one.candidates.scores
    )


def _scale(context: Context, encoded: EncodedQuery) -> RobustScale | None:
    """The scale of `Result.fit`: the pictures' own scores for words alone, else those of pairs of pictures."""
    statistics = context.statistics
    if encoded.loaded.query.references or encoded.loaded.query.vector is not None:
        return statistics.pair_scale
    return statistics.scale_of(encoded.vector) if len(statistics.vectors) >= MIN_PICTURES else None


def _is_understood(context: Context, query: Query) -> bool:
    """Whether anything was asked that the model knows: pictures, a vector, or a word."""
    asked_otherwise = bool(query.references) or query.vector is not None
    return asked_otherwise or is_understood(context.encoder, query.words)


def _min_score(query: Query, scale: RobustScale | None) -> float:
    if query.min_fit is None:
        return -np.inf
    if scale is None:
        raise QueryError(
            f"a cut-off needs a gallery of at least {MIN_PICTURES} different pictures to compare with: "
            "leave min_fit out"
        )
    return scale.median + query.min_fit * scale.spread


def _rerank(context: Context, loaded: LoadedQuery, hits: Sequence[Hit]) -> list[RankedHit]:
    words = loaded.query.words.strip()
    inputs = [TextInput(one.sentence, words) for one in loaded.references] or [TextInput(None, words)]
    weights = [one.weight for one in loaded.references] or [1.0]
    matching = require_matching(context.encoder)
    return sort_by_match(score_matches(matching, context.gallery, inputs, weights, hits))


def _hide_near_duplicates(
    context: Context, ranked: Sequence[RankedHit], similarity: float
) -> list[RankedHit]:
    behind = hide_near_duplicates(_vectors(context, [one.hit for one in ranked]), similarity)
    return [
        ranked[row]._replace(alike=tuple(ranked[other].hit.id for other in hidden))
        for row, hidden in behind.items()
    ]


def _diversify(context: Context, ranked: Sequence[RankedHit], query: Query) -> list[RankedHit]:
    hits = [one.hit for one in ranked]
    scores = sorted((hit.score for hit in hits), reverse=True)  # by place, where the order is not theirs
    order = spread_out(_vectors(context, hits), scores, query.diversity, query.offset + query.k + 1)
    return [ranked[row] for row in order]


def _vectors(context: Context, hits: Sequence[Hit]) -> Vectors:
    return context.searcher.vectors_of([hit.id for hit in hits])


def _answer(
    context: Context,
    one: RetrievedQuery,
    ranking: _Ranking,
    results: tuple[Result, ...],
) -> Answer:
    query, loaded = one.query, one.encoded.loaded
    matched = one.matches.words if one.matches else frozenset()
    unknown = words_not_understood(context.encoder, " ".join((query.words, *query.not_words)))
    return Answer(
        query=query,
        references=_images(loaded.references),
        against=_images(loaded.negatives),
        results=results,
        total=_total(context, one),
        more=len(ranking.hits) > query.offset + query.k,
        best_fit=ranking.best_fit,
        not_understood=tuple(word for word in unknown if not matched.issuperset(wanted_words(word.word))),
        milliseconds={"rerank_ms": ranking.rerank_ms} if query.rerank else {},
        understood=one.understood or bool(matched),
    )


def _results(
    scale: RobustScale | None,
    page: Sequence[RankedHit],
    first_rank: int,
    pictures: Mapping[int, Picture],
    metadata: Mapping[int, dict[str, Value]],
) -> tuple[Result, ...]:
    ids = [int(ranked.hit.id) for ranked in page]
    return tuple(
        _result(rank, ranked, pictures[picture_id], metadata[picture_id], scale)
        for rank, (picture_id, ranked) in enumerate(zip(ids, page, strict=True), first_rank)
    )


def _result(
    rank: int, ranked: RankedHit, picture: Picture, metadata: dict[str, Value], scale: RobustScale | None
) -> Result:
    return Result(
        rank=rank,
        score=ranked.hit.score,
        id=picture.id,
        path=picture.path,
        width=picture.width,
        height=picture.height,
        metadata=metadata,
        fit=_fit(ranked.hit, scale),
        alike=ranked.alike,
        match=ranked.match,
        size=picture.size,
        offset=picture.offset,
    )


def _fit(hit: Hit, scale: RobustScale | None) -> float | None:
    return None if scale is None else (hit.score - scale.median) / scale.spread


def _total(context: Context, one: RetrievedQuery) -> int:
    """Pictures that were ranked."""
    candidates = one.candidates
    if not one.understood and one.matches is not None:
        return len(one.matches)
    if candidates.where is None:
        return len(context.ids) - len(candidates.exclude)
    chosen = context.searcher.select(candidates.where) if one.chosen is None else one.chosen
    return len(np.setdiff1d(chosen, np.array(candidates.exclude, np.int64)))


def _images(references: Sequence[LoadedReference]) -> tuple[Image.Image, ...]:
    return tuple(one.picture for one in references if one.picture is not None)
