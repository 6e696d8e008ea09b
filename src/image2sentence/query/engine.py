"""The engine that answers queries: a model and a gallery, held ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.errors import Image2SentenceError, QueryError
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.searcher import Hit, VectorSearch
from image2sentence.gallery.store import Picture
from image2sentence.query.answer import Answer, Result
from image2sentence.query.background import LEAST, Background, Usual
from image2sentence.query.candidates import Candidates, fetch
from image2sentence.query.composition import Part, Spoken, blend, compose, mix
from image2sentence.query.description import Asked, Query
from image2sentence.query.reading import Opened, open_reference
from image2sentence.query.rerank import Matched, in_new_order, matched, matcher_of
from image2sentence.query.selection import BLOCK, Placed, hide_near_duplicates, spread_out
from image2sentence.query.unwanted import POOL, Unwanted
from image2sentence.query.vocabulary import words_not_understood


@dataclass(eq=False)
class _Task:
    """A query on its way to an answer; what each stage found out."""

    query: Query
    references: list[Opened] = field(default_factory=list)
    against: list[Opened] = field(default_factory=list)
    candidates: Candidates | None = None
    unwanted: Unwanted | None = None
    best_fit: float | None = None
    reranked: list[Matched] | None = None
    rerank_ms: float = 0.0
    answer: Answer | Image2SentenceError | None = None

    @property
    def opened(self) -> list[Opened]:
        return [*self.references, *self.against]


class QueryEngine:
    """A model and a gallery, held ready: the gallery's vectors are read once, when the engine is made.

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
        self._read_vectors()

    def __len__(self) -> int:
        return len(self._ids)

    def refresh(self) -> bool:
        """Read the vectors anew if the gallery has changed since they were read; whether it had."""
        changed = self.gallery.generation() != self._generation
        if changed:
            self._read_vectors()
        return changed

    def prepare(self, *, pictures: bool = True) -> None:
        """Load what a query needs of the model, by asking something small; `pictures` False: words only."""
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
        tasks = [_Task(query) for query in queries]
        spent: dict[str, float] = {}
        with _timed(spent, "read_ms"):
            _together(tasks, self._read)
        with _timed(spent, "encode_ms"):
            _together(tasks, self._encode)
        with _timed(spent, "search_ms"):
            _together(tasks, self._fetch)
            _together(tasks, self._answer)
        for task in tasks:
            if isinstance(task.answer, Answer):
                task.answer.milliseconds.update(_stages(spent, tasks))
        return [task.answer for task in tasks if task.answer is not None]

    def _read_vectors(self) -> None:
        self._generation = self.gallery.generation()
        self.searcher: VectorSearch = self.gallery.searcher()
        self._ids: NDArray[np.int64] = np.array(self.searcher.ids, np.int64)
        self._background = Background(self.searcher)
        self._forgotten: set[int] = set()

    def _read(self, tasks: Sequence[_Task]) -> None:
        """Files to pictures to sentences."""
        named = [one for task in tasks for one in (*task.query.references, *task.query.not_references)]
        items = self._items([one.item for one in named if one.item is not None])
        for task in tasks:
            if task.query.rerank:
                matcher_of(self.encoder)  # before anything is computed in vain
            task.references = [open_reference(one, items, self.gallery) for one in task.query.references]
            task.against = [open_reference(one, items, self.gallery) for one in task.query.not_references]
        unread = [one for task in tasks for one in task.opened if one.sentence is None]
        pictures = [one.picture for one in unread if one.picture is not None]
        if pictures:
            for one, sentence in zip(unread, self.encoder.encode_sentences(pictures), strict=True):
                one.sentence = sentence

    def _encode(self, tasks: Sequence[_Task]) -> None:
        """Sentences and words to a query vector each."""
        wanted = [task for task in tasks if task.query.vector is None]
        against = [_against(task) for task in tasks]
        blends = [_wanted(task) for task in wanted] + [blend for blends in against for blend in blends]
        vectors = iter(mix(self.encoder, blends))
        given = {id(task): next(vectors) for task in wanted}
        for task, unwanted in zip(tasks, against, strict=True):
            vector = given[id(task)] if id(task) in given else self._checked(task.query.vector)
            if unwanted:
                task.unwanted = Unwanted(vector, [next(vectors) for _ in unwanted], self._background)
                vector = task.unwanted.turned
            task.candidates = Candidates(vector, self._left_out(task), task.query.where)

    def _checked(self, vector: Vectors | None) -> Vectors:
        assert vector is not None
        if vector.size != self.encoder.width or vector.ndim > 2:
            raise QueryError(
                f"expected a query vector of width {self.encoder.width}, got one of shape {vector.shape}"
            )
        wide = vector.reshape(1, -1).astype(np.float64)
        wide /= np.abs(wide).max()  # so that no square is too large or too small for its type
        return np.asarray(wide / np.linalg.norm(wide), np.float32)

    def _left_out(self, task: _Task) -> Collection[int]:
        """Ids that may not appear, among those that the searcher knows."""
        query = task.query
        ids = set(query.exclude) | self._forgotten
        contents = [picture.content_id for picture in self._items(query.exclude).values()]
        if query.leaves_references_out:
            ids |= {one.item for one in task.references if one.item is not None}
            contents += [one.content for one in task.references]
        for content in contents:
            ids |= set(self.gallery.with_content(content)) if content is not None else set()
        return self._known(ids)

    def _known(self, ids: Collection[int]) -> list[int]:
        wanted = np.fromiter(ids, np.int64, len(ids))
        places = np.searchsorted(self._ids, wanted)
        return sorted(wanted[np.isin(wanted, self._ids[places[places < len(self._ids)]])].tolist())

    def _fetch(self, tasks: Sequence[_Task]) -> None:
        """What most queries need, for all of them in one search."""
        candidates = [task.candidates for task in tasks if task.candidates is not None]
        fetch(self.searcher, candidates, max(_depth(task.query) for task in tasks))

    def _answer(self, tasks: Sequence[_Task]) -> None:
        """The pictures of all pages are looked up at once."""
        placed = [self._arranged(task) for task in tasks]
        pages = [_page(task.query, found) for task, found in zip(tasks, placed, strict=True)]
        pictures = self._ready({int(one.hit.id) for page in pages for one in page})
        for task, found, page in zip(tasks, placed, pages, strict=True):
            if all(int(one.hit.id) in pictures for one in page):
                task.answer = self._answered(task, found, [(one, pictures[int(one.hit.id)]) for one in page])
            else:  # an indexing run has forgotten some since the engine read the vectors
                task.candidates = Candidates(_candidates(task).vector, self._left_out(task), task.query.where)
                self._answer([task])

    def _answered(
        self, task: _Task, placed: Sequence[Placed], page: Sequence[tuple[Placed, Picture]]
    ) -> Answer:
        query = task.query
        return Answer(
            query=query,
            references=_pictures(task.references),
            against=_pictures(task.against),
            results=tuple(
                _result(rank, *shown, self._background.pairs)
                for rank, shown in enumerate(page, query.offset + 1)
            ),
            total=self._total(_candidates(task)),
            more=len(placed) > query.offset + query.k,
            best_fit=task.best_fit,
            not_understood=words_not_understood(self.encoder, " ".join((query.words, *query.not_words))),
            milliseconds={},
        )

    def _arranged(self, task: _Task) -> list[Placed]:
        """Everything up to the page and one more, where there is as much, in its order."""
        query, candidates = task.query, _candidates(task)
        pairs = self._background.pairs
        floor = _floor(query, pairs)
        depth = wanted = _depth(query)
        while True:
            hits = self._scored(task, candidates.best(self.searcher, depth))
            task.best_fit = _fit(hits[0], pairs) if hits else None
            kept = [hit for hit in hits if hit.score >= floor]
            placed = self._without_near_duplicates(query, self._reranked(task, kept))
            if len(placed) >= wanted or len(hits) < depth or hits[-1].score < floor:
                return self._spread_out(query, placed)
            depth *= 2

    def _scored(self, task: _Task, hits: Sequence[Hit]) -> Sequence[Hit]:
        return task.unwanted.sorted(hits, self._vectors(hits)) if task.unwanted and hits else hits

    def _reranked(self, task: _Task, hits: Sequence[Hit]) -> list[Matched]:
        count = task.query.rerank
        if count and task.reranked is None:
            start = time.perf_counter()
            weights = [one.weight for one in task.references] or [1.0]
            matcher = matcher_of(self.encoder)
            looked_at = matched(matcher, self.gallery, _spoken(task), weights, hits[:count])
            task.reranked = in_new_order(looked_at)
            task.rerank_ms = 1000 * (time.perf_counter() - start)
        first = task.reranked or []
        return [*first, *(Matched(hit, None) for hit in hits[len(first) :])]

    def _without_near_duplicates(self, query: Query, found: Sequence[Matched]) -> list[Placed]:
        if query.near_duplicates is None:
            return [Placed(one.hit, (), one.match) for one in found]
        hits = [one.hit for one in found]
        behind = hide_near_duplicates(self._vectors(hits), query.near_duplicates)
        return [
            Placed(hits[row], tuple(hits[one].id for one in hidden), found[row].match)
            for row, hidden in behind.items()
        ]

    def _spread_out(self, query: Query, placed: list[Placed]) -> list[Placed]:
        if not query.diversity:
            return placed
        hits = [one.hit for one in placed]
        scores = sorted((hit.score for hit in hits), reverse=True)  # by place, where the order is not theirs
        order = spread_out(self._vectors(hits), scores, query.diversity, query.offset + query.k + 1)
        return [placed[row] for row in order]

    def _vectors(self, hits: Sequence[Hit]) -> Vectors:
        return self.searcher.vectors_of([hit.id for hit in hits])

    def _items(self, numbers: Collection[int]) -> dict[int, Picture]:
        """Pictures that a query names, by id. Raises QueryError where one is not there."""
        found = dict(zip(numbers, self.gallery.pictures_of(list(numbers)), strict=True)) if numbers else {}
        missing = [number for number, picture in found.items() if picture is None]
        if missing:
            raise QueryError(f"the gallery has no picture {missing[0]}")
        return {number: picture for number, picture in found.items() if picture is not None}

    def _ready(self, ids: Collection[int]) -> dict[int, Picture]:
        """The pictures with these ids; those that the gallery has forgotten are left out from now on."""
        found = self.gallery.pictures_of(list(ids))
        ready = {picture.id: picture for picture in found if picture is not None and picture.state == "ready"}
        self._forgotten |= set(ids) - set(ready)
        return ready

    def _total(self, candidates: Candidates) -> int:
        if candidates.where is None:
            return len(self) - len(candidates.exclude)
        chosen = self.gallery.select(candidates.where)
        return len(np.setdiff1d(chosen, np.array(candidates.exclude, np.int64)))


def _together(tasks: Sequence[_Task], step: Callable[[Sequence[_Task]], object]) -> None:
    """One step for all tasks that are still going; where it fails, one by one, so that only the culprit fails."""
    going = [task for task in tasks if not isinstance(task.answer, Image2SentenceError)]
    try:
        if going:
            step(going)
    except Image2SentenceError as error:
        if len(going) == 1:
            going[0].answer = error
            return
        for task in going:
            _together([task], step)


def _stages(spent: dict[str, float], tasks: Sequence[_Task]) -> dict[str, float]:
    """Milliseconds by stage, reranking apart from the rest of the search."""
    if not any(task.query.rerank for task in tasks):
        return spent
    rerank_ms = sum(task.rerank_ms for task in tasks)
    return spent | {"search_ms": spent["search_ms"] - rerank_ms, "rerank_ms": rerank_ms}


def _spoken(task: _Task) -> list[Spoken]:
    """The query in words: with each sentence, or alone."""
    words = task.query.words.strip()
    return [Spoken(one.sentence, words) for one in task.references] or [Spoken(None, words)]


def _wanted(task: _Task) -> tuple[Part, ...]:
    sentences = [one.sentence for one in task.references if one.sentence is not None]
    return blend(sentences, [one.weight for one in task.references], task.query.words, task.query.balance)


def _against(task: _Task) -> list[tuple[Part, ...]]:
    """What is not wanted, each a vector of its own."""
    pictures = [blend([one.sentence], [1.0], "", 0.5) for one in task.against if one.sentence is not None]
    return pictures + [blend([], [], words, 0.5) for words in task.query.not_words]


def _candidates(task: _Task) -> Candidates:
    assert task.candidates is not None
    return task.candidates


def _page(query: Query, placed: Sequence[Placed]) -> Sequence[Placed]:
    return placed[query.offset : query.offset + query.k]


def _depth(query: Query) -> int:
    """Candidates that a query needs at first: its page, one more, and whole blocks where they are reordered."""
    need = max(query.offset + query.k + 1, query.rerank)
    block = POOL if query.not_references or query.not_words else BLOCK if query.diversity else 1
    return -(-need // block) * block


def _floor(query: Query, pairs: Usual | None) -> float:
    if query.min_fit is None:
        return -np.inf
    if pairs is None:
        raise QueryError(
            f"a cut-off needs a gallery of at least {LEAST} different pictures, to know what is usual: "
            "leave min_fit out"
        )
    return pairs.middle + query.min_fit * pairs.spread


def _result(rank: int, placed: Placed, picture: Picture, pairs: Usual | None) -> Result:
    shown = picture.id, picture.path, picture.width, picture.height
    told = _fit(placed.hit, pairs), placed.alike, placed.match
    return Result(rank, placed.hit.score, *shown, *told, picture.size, picture.offset)


def _fit(hit: Hit, pairs: Usual | None) -> float | None:
    return None if pairs is None else (hit.score - pairs.middle) / pairs.spread


def _pictures(opened: Sequence[Opened]) -> tuple[Image.Image, ...]:
    return tuple(one.picture for one in opened if one.picture is not None)


@contextmanager
def _timed(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
