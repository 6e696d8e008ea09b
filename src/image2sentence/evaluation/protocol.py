"""Benchmark: its queries, its gallery and its rules.

Loaders build these objects and nothing else; `scoring` reads them and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from image2sentence.errors import DataError

ReferenceRule = Literal["removed", "kept", "outside"]
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True)
class Query:
    """One question: a reference picture, words, and the pictures that answer it."""

    id: str
    reference: str
    texts: tuple[str, ...]
    """Phrasings of the modifier; several are encoded one by one, averaged and normalised again."""
    answers: tuple[str, ...] = ()
    """Every right answer; empty where the dataset hides them."""
    target: str | None = None
    """The single answer that recall counts; None: recall counts the best-placed of `answers`."""
    subset: tuple[str, ...] = ()
    """The pictures among which subset recall ranks, with the reference still in it."""
    gallery: tuple[str, ...] = ()
    """The query's own gallery; empty: the whole gallery of the benchmark."""
    aspects: tuple[str, ...] = ()
    """Groups in which this query is also reported on its own."""
    caption: str = ""
    """Full text of a right answer, where labels give one: the oracle row searches with it."""


@dataclass(frozen=True)
class Protocol:
    """Which pictures are compared and which figures are taken."""

    reference: ReferenceRule
    """removed: the reference leaves the ranking; kept: it stays; outside: it is no gallery picture."""
    recall_at: tuple[int, ...] = ()
    coverage_at: tuple[int, ...] = ()
    """Cut-offs of hits over all right answers, reported as `recall@k` (never together with `recall_at`)."""
    subset_recall_at: tuple[int, ...] = ()
    map_at: tuple[int, ...] = ()
    by_aspect: tuple[str, ...] = ()
    """Metrics that are also reported per aspect, as `metric/aspect`."""
    averages: tuple[tuple[str, str], ...] = ()
    """Pairs of metrics whose per-query mean is also reported, as `mean(a,b)`."""

    @property
    def depth(self) -> int:
        """Number of places of the ranking that the figures need."""
        return max(*self.recall_at, *self.coverage_at, *self.map_at, 1, 1)


@dataclass(frozen=True)
class Benchmark:
    """A dataset split with its protocol."""

    name: str
    split: str
    queries: tuple[Query, ...]
    protocol: Protocol
    gallery_ids: tuple[str, ...] | None = None
    """Exactly the pictures of the gallery; None: the annotations do not list it, any superset is taken."""
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Picture id -> places, relative to the dataset's folder, where downloads keep it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Named choices that peers make differently; printed with every result."""
    numeric_ids: bool = False
    """Pictures are COCO numbers: 42, "42" and "000000000042" name the same one."""
    crops: Mapping[str, Box] = field(default_factory=dict)
    """Pictures of which only a part counts, as the dataset cuts it out."""

    @property
    def hidden(self) -> bool:
        """Whether the right answers are kept by an evaluation server."""
        return not any(query.answers for query in self.queries)

    def needed_ids(self) -> tuple[str, ...]:
        """Ids that a gallery must hold for this benchmark, each once, in the order of the annotations."""
        if self.gallery_ids is not None:
            return self.gallery_ids
        return tuple(dict.fromkeys(image for query in self.queries for image in self._named_by(query)))

    def _named_by(self, query: Query) -> list[str]:
        reference = [] if self.protocol.reference == "outside" else [query.reference]
        return [*reference, *query.answers, *query.subset, *query.gallery]

    def image_id(self, value: object) -> str:
        """The canonical form of a picture id given by a caller or an annotation file."""
        return picture_number(value) if self.numeric_ids else plain_id(value)


def picture_places(benchmark: Benchmark) -> frozenset[str]:
    """Every place, relative to the dataset's folder, where one of its pictures is looked for."""
    return frozenset(place for places in benchmark.images.values() for place in places)


def needed_images(benchmark: Benchmark) -> list[str]:
    """Every picture that a run has to open, each once: the gallery, then references outside it."""
    references = (query.reference for query in benchmark.queries)
    return list(dict.fromkeys([*benchmark.needed_ids(), *references]))


def locate_image(benchmark: Benchmark, image: str, root: Path) -> Path | None:
    """The file of a picture, in whichever of the places that downloads use; None if it is in none."""
    places = (root / place for place in benchmark.images.get(image, ()))
    return next((path for path in places if path.is_file()), None)


def plain_id(value: object) -> str:
    """An id as text: strings stay, integers become decimal; anything else is a DataError."""
    if isinstance(value, str):
        return value
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise DataError(f"expected an id as text or integer, got {value!r}")


def picture_number(value: object) -> str:
    """A COCO picture number without leading zeros; file endings and signs are a DataError."""
    text = plain_id(value)
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"expected a COCO picture number such as 42 or '000000000042', got {value!r}")
    return str(int(text))


def named(ids: Sequence[str], limit: int = 3) -> str:
    """The first few ids, quoted, with the count of the rest: for messages."""
    shown = ", ".join(repr(item) for item in ids[:limit])
    return shown + (f" and {len(ids) - limit} more" if len(ids) > limit else "")


def repeated(ids: Sequence[str]) -> list[str]:
    """Ids that occur more than once, each once, in order of first appearance."""
    seen: set[str] = set()
    twice: dict[str, None] = {}
    for item in ids:
        if item in seen:
            twice[item] = None
        seen.add(item)
    return list(twice)
