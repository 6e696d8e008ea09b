"""Answers to requests: threads, queues and counts around the service."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from image2sentence.errors import QueryError
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import file_may_exist, place_name
from image2sentence.gallery.records import Picture
from image2sentence.query import Answer, Query, Reference
from image2sentence.query import Result as Ranked
from image2sentence.query.hints import negation_hints
from image2sentence.server.admission import Admission, Rates
from image2sentence.server.batching import Batcher
from image2sentence.server.forms import UploadLimits
from image2sentence.server.gallery_session import ReadPicture
from image2sentence.server.metrics import Metrics
from image2sentence.server.nearest_words import NearWord
from image2sentence.server.schemas import (
    MAX_REFERENCES,
    About,
    Answering,
    Column,
    Item,
    Items,
    Near,
    Negation,
    NotUnderstood,
    PseudoWord,
    ReferenceFields,
    Result,
    SearchAnswer,
    SearchFields,
    SentenceAnswer,
    Similar,
    SimilarItem,
    Values,
)
from image2sentence.server.service import Asked, SearchService, vector_of
from image2sentence.server.thread_pool import Workers

READERS = 2
"""Threads that read references. The image graph gains nothing from batches, so each picture is read by itself."""

PATIENCE = 10.0
"""Seconds that a picture waits for one of them."""

WAITING_FOR_PICTURES = 512
AHEAD_SECONDS = 3.0
"""Between looks for pictures whose thumbnails are to be made ahead."""
NEAR_DUPLICATE = 0.98
"""Dot product from which a picture is shown as a near-duplicate: another size or quality of the same one."""


@dataclass(frozen=True)
class Load:
    """How much at once, and how fast.

    Attributes:
        waiting: Queries that may be inside beside the one being answered, from before their body is read; one more
            is answered 429.
        bodies: Bytes that their bodies may hold together.
        batch: Most queries answered in one call of the model; 1 answers each alone.
        rate: Queries a second from one client; 0 counts nobody.
    """

    waiting: int = 32
    bodies: int = 100 << 20
    batch: int = 32
    rate: float = 0.0


@dataclass(frozen=True)
class Page:
    """A page of the gallery: k pictures after the first `offset` that meet `where`, in the order of a column."""

    k: int
    offset: int
    where: str | None = None
    sort: str | None = None
    descending: bool = False


class Serving:
    """A service behind its queues. Used from one event loop.

    Args:
        service: The model and the gallery; its owner prepares and closes them.
        limits: Largest and slowest request body.
        load: How much at once, and how fast.
        runtime: Folder of the ONNX runtime for browsers; None where they are not to encode queries themselves.
    """

    def __init__(
        self, service: SearchService, limits: UploadLimits, load: Load, runtime: Path | None = None
    ) -> None:
        self.service = service
        self.limits = limits
        self.runtime = runtime
        self.admission = Admission(1 + load.waiting, load.bodies)
        self.rates = Rates(load.rate)
        self.metrics = Metrics()
        self._ending = threading.Event()
        self.pictures = Workers(2, WAITING_FOR_PICTURES)
        self._readers = Workers(READERS, load.waiting + 1, PATIENCE)
        self._queries: Batcher[Query, Answer] = Batcher(
            self.service.rank_many, load.batch, self.metrics.batches.observe
        )
        gauge = self.metrics.gauge
        gauge("queries_inside", "Queries waiting or being answered.", lambda: self.admission.inside)
        gauge("body_bytes_held", "Bytes of requests held in memory.", lambda: self.admission.held)
        gauge("gallery_pictures", "Pictures that can be found.", lambda: len(service))

    def start(self) -> None:
        """Get ready what is not needed at once: words that pseudo-words are compared with."""
        self._learning = asyncio.ensure_future(self._readers.run(self.service.learn_words))
        threading.Thread(target=self._make_thumbnails, daemon=True).start()

    def _make_thumbnails(self) -> None:
        """Ahead of being asked for, and again after changes."""
        made = -1
        while not self._ending.wait(AHEAD_SECONDS):
            if made != (made := len(self.service)):
                self.service.make_thumbnails(self._ending, lambda: self.admission.inside > 0)

    def close(self) -> None:
        """Let running calls finish, but for what is being decoded, and drop those that wait."""
        self._ending.set()
        self._readers.drop()
        self.pictures.drop()
        self.service.interrupt()
        self._queries.close()
        self._readers.close()
        self.pictures.close()

    async def search(
        self, fields: SearchFields, picture: bytes | None, with_paths: bool = False
    ) -> SearchAnswer:
        """Rank the gallery; `with_paths` tells where the results lie. Raises QueryError, ImageError, NotThere, Busy."""
        start = time.perf_counter()
        if fields.where and not with_paths:
            await self.pictures.run(self.service.check_where, fields.where)
        asked = Asked(picture, fields.item, fields.sentence)
        read = None if asked == Asked() else await self._read(asked)
        also = [await self._also(one) for one in _further(fields, asked != Asked())]
        for item in fields.exclude:
            await self.pictures.run(self.service.item, item)  # raises where there is none
        against = [(await self._read(Asked(item=item))).reference(item) for item in fields.not_item]
        excluded = [*fields.exclude, *self.service.copies(fields.exclude_content)]
        references = _references(fields, read, also)
        query = _query(fields, references, [one for one in against if one is not None], excluded)
        read_ms = 1000 * (time.perf_counter() - start)
        answer = await self._queries.ask(query)
        spent = answer.milliseconds | {"read_ms": read_ms}
        self.metrics.query(spent)
        return _answer(answer, read, spent, with_paths)

    async def sentence(self, fields: ReferenceFields, picture: bytes | None) -> SentenceAnswer:
        """Where each pseudo-word of a reference looks, and which words it is near. Raises as `search`."""
        read = await self._read(Asked(picture, fields.item, fields.sentence))
        words, phrases = await self._readers.run(self._pseudo_words, read)
        return SentenceAnswer(sentence=read.name, reads_as=phrases, pseudo_words=words, region=read.region)

    async def check_upload(self, picture: bytes) -> None:
        """Read a picture that will be asked with. Raises ImageError where it cannot be used, and Busy."""
        await self._read(Asked(picture))

    async def items(self, page: Page, with_paths: bool = False) -> Items:
        """A page of the gallery. Raises QueryError."""
        return await self.pictures.run(self._items, page, with_paths)

    async def values(self, column: str, wanted: str, k: int) -> Values:
        """Values of a column. Raises QueryError."""
        found, distinct = await self.pictures.run(self.service.values, column, wanted, k)
        return Values(values=found, distinct=distinct)

    async def item(self, picture_id: int, with_paths: bool = False) -> Item:
        """One picture. Raises NotThere."""
        return await self.pictures.run(self._item, picture_id, with_paths)

    async def similar(self, picture_id: int, k: int, with_paths: bool = False) -> Similar:
        """Up to k pictures that are like one of the gallery, by their gallery vectors. Raises NotThere, Busy."""
        vector = await self.pictures.run(self.service.vector, picture_id)
        answer = await self._queries.ask(Query(vector=vector, k=k + 1))
        near: list[SimilarItem] = []
        others: list[SimilarItem] = []
        for found in answer.results:
            if found.id != picture_id:
                item = SimilarItem(
                    score=round(found.score, 5), **_described(found, found.metadata, with_paths)
                )
                (near if item.score >= NEAR_DUPLICATE else others).append(item)
        return Similar(near_duplicates=near, similar=others[: k - len(near)])

    async def original(self, picture_id: int) -> tuple[str, bytes]:
        """Name and content of a picture's file. Raises NotThere."""
        return await self.pictures.run(self.service.original, picture_id)

    async def about(self, with_originals: bool = False, local: bool = False) -> About:
        """The gallery, and what can be asked of it."""
        return await self.pictures.run(self._about, with_originals, local)

    async def jpeg(self, picture_id: int, side: int) -> bytes:
        """A picture to look at. Raises NotThere."""
        made = self.service.jpeg_made(picture_id, side)
        return made if made is not None else await self.pictures.run(self.service.jpeg, picture_id, side)

    async def _read(self, asked: Asked) -> ReadPicture:
        known = self.service.known(asked)
        return known if known is not None else await self._readers.run(self.service.read, asked)

    async def _also(self, asked: Asked) -> Reference:
        reference = (await self._read(asked)).reference(asked.item)
        assert reference is not None  # nothing of it is muted
        return reference

    def _pseudo_words(self, read: ReadPicture) -> tuple[list[PseudoWord], list[Near]]:
        """Empty where the encoder cannot tell where it looks."""
        if read.attention is None or read.gates is None:
            return [], []
        near = self.service.near_words(read) or [[] for _ in read.gates]
        reading = self.service.reading(read)
        words = [
            PseudoWord(
                attention=attention.astype(float).round(6).tolist(),
                gate=round(float(gate), 4),
                near=_near(words),
                adds=_near(added),
            )
            for attention, gate, words, added in zip(
                read.attention, read.gates, near, reading.added, strict=True
            )
        ]
        return words, _near(reading.phrases)

    def _items(self, asked: Page, with_paths: bool) -> Items:
        if not with_paths:
            self.service.check_where(asked.where)
        page, total = self.service.items(asked.k, asked.offset, asked.where, asked.sort, asked.descending)
        metadata = self.service.metadata([picture.id for picture in page])
        return Items(
            total=total, items=[_item(*pair, with_paths) for pair in zip(page, metadata, strict=True)]
        )

    def _item(self, picture_id: int, with_paths: bool) -> Item:
        return _item(self.service.item(picture_id), self.service.metadata([picture_id])[0], with_paths)

    def _about(self, with_originals: bool, local: bool) -> About:
        columns = [
            Column(
                name=name,
                type=one.type,
                least=one.least,
                greatest=one.greatest,
                values=list(one.values),
                many=one.many,
            )
            for name, one in self.service.facets().items()
        ]
        on_device = self.runtime is not None and self.service.has_light_side
        pictures = len(self.service)
        about = self.service.about_model
        return About(
            pictures=pictures,
            columns=columns,
            device=on_device,
            originals=with_originals,
            local=local,
            model=None if about is None else Answering(name=about.name, knows=about.knows),
        )


def _near(words: Sequence[NearWord]) -> list[Near]:
    return [Near(word=one.word, nearness=round(one.nearness, 3)) for one in words]


def _further(fields: SearchFields, has_own: bool) -> list[Asked]:
    """The references beside the one of the query itself. Raises QueryError where there are too many."""
    further = [Asked(item=item) for item in fields.also_item]
    further += [Asked(sentence=name) for name in fields.also_sentence]
    count = len(further) + has_own
    if count > MAX_REFERENCES:
        raise QueryError(f"at most {MAX_REFERENCES} references can be asked with, got {count}")
    if fields.weight and len(fields.weight) != count:
        raise QueryError(f"weight: expected one for each of {count} references, got {len(fields.weight)}")
    return further


def _references(
    fields: SearchFields, read: ReadPicture | None, also: Sequence[Reference]
) -> tuple[Reference, ...]:
    """The references with their weights; without the query's own where all of its pseudo-words are muted."""
    own = [] if read is None else [read.reference(fields.item, fields.muted)]
    weights = fields.weight or [1.0] * (len(own) + len(also))
    found = tuple(
        replace(one, weight=weight)
        for one, weight in zip([*own, *also], weights, strict=True)
        if one is not None
    )
    if own and not found and not fields.text.strip():
        raise QueryError("every pseudo-word is switched off and there are no words: nothing is asked")
    return found


def _query(
    fields: SearchFields,
    references: tuple[Reference, ...],
    against: Sequence[Reference],
    exclude: Sequence[int],
) -> Query:
    return Query(
        references=references,
        words=fields.text.strip(),
        not_references=tuple(against),
        not_words=tuple(fields.not_text),
        balance=fields.balance,
        vector=_vector(fields.vector),
        k=fields.k,
        offset=fields.offset,
        where=fields.where or None,
        exclude=tuple(exclude),
        min_fit=fields.min_fit,
        near_duplicates=fields.near_duplicates,
        diversity=fields.diversity,
        titles=fields.titles,
    )


def _vector(given: bytes | list[float] | None) -> np.ndarray[tuple[int], np.dtype[np.float32]] | None:
    if given is None:
        return None
    if isinstance(given, bytes):
        return vector_of(given)
    with np.errstate(over="ignore"):  # to infinity, which `vector_of` refuses
        return vector_of(np.array(given, "<f4").tobytes())


def _answer(
    answer: Answer, read: ReadPicture | None, milliseconds: dict[str, float], with_paths: bool
) -> SearchAnswer:
    return SearchAnswer(
        sentence=None if read is None else read.name,
        total=answer.total,
        offset=answer.query.offset,
        more=answer.more,
        fits=answer.fits,
        fits_from=answer.fits_from,
        best_fit=None if answer.best_fit is None else round(answer.best_fit, 3),
        understood=answer.understood,
        results=[_result(found, with_paths) for found in answer.results],
        hints=[Negation(phrase=one.phrase, not_text=one.unwanted) for one in negation_hints(answer.words)],
        not_understood=[NotUnderstood(word=u.word, near=list(u.near)) for u in answer.not_understood],
        milliseconds={stage: round(spent, 1) for stage, spent in milliseconds.items()},
    )


def _result(found: Ranked, with_paths: bool) -> Result:
    return Result(
        rank=found.rank,
        score=round(found.score, 5),
        fit=None if found.fit is None else round(found.fit, 3),
        alike=list(found.alike),
        **_described(found, found.metadata, with_paths),
    )


def _item(picture: Picture, metadata: dict[str, Value], with_paths: bool) -> Item:
    return Item(**_described(picture, metadata, with_paths), missing=not file_may_exist(picture.path))


def _described(picture: Picture | Ranked, metadata: dict[str, Value], with_paths: bool) -> dict[str, Any]:
    """The fields of an `Item`."""
    return {
        "id": picture.id,
        "name": text_of(place_name(picture.path)),
        "path": text_of(str(picture.path)) if with_paths else None,
        "size": picture.size if picture.size >= 0 else None,
        "width": picture.width,
        "height": picture.height,
        "metadata": metadata,
    }


def text_of(path: str) -> str:
    """A path or file name as it is, but for bytes that are no UTF-8, which become escapes."""
    return path if path.isascii() else os.fsencode(path).decode("utf-8", errors="backslashreplace")
