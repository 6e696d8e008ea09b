"""Words of a query that stand in pictures' names and text metadata, and what they add to scores.

The score of a picture becomes

    q . v + weight * spread * (share(words) - largest share(unwanted words))

The share of a picture, 0 to 1, is the part of the words that stand in its text, each word counting log(1 + n / m) where
m of n pictures have it: rare words count more. It is scaled by the part of the words that any picture has; one that
more than `MOST` have counts as one that none has. The spread is that of the scale of `Result.fit`: a picture that has
all words gains `weight` in fit. Pictures without any of the words keep their scores, and without any match the ranking
is the one by vectors, to the last bit.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.search.base import Hit, VectorSearch
from image2sentence.lru_cache import LruCache
from image2sentence.query.hints import negation_hints
from image2sentence.query.negatives import NegativeQuery
from image2sentence.query.query import Query
from image2sentence.query.unknown_words import FUNCTION_WORDS

WORDS_WEIGHT = 12.0
"""Of words alone. Chosen, as the next, on queries that are not reported: `python -m benchmarks.query.titles`."""

COMPOSED_WEIGHT = 3.0
"""Of words beside pictures, which ask for a change of what the pictures show."""

MOST = 20_000
"""Pictures that may have a word; one that more have is too common to tell them apart."""

MAX_WORDS = 16
REMEMBERED = 256
REMEMBERED_MATCHES = 250_000  # pictures, 24 bytes each
_ROUNDING = 1e-4  # of float32 scores, and more
_EPS, _MORE = (
    float(np.finfo(np.float32).eps),
    8,
)  # two float32 scores of unit rows are off by less than eps (d + 8)
Rows: TypeAlias = NDArray[np.int64]
Ids: TypeAlias = NDArray[np.int64]
_NOTHING = FUNCTION_WORDS | {"image", "images", "img", "photo", "photos", "picture", "pictures"}
_WORD = re.compile(r"[^\W_]+")


class TextIndex:
    """Words of a gallery's texts, as the gallery was when it was made; words asked before are remembered.

    Args:
        gallery: Keeps the words.
        ids: (n,) ascending ids of the pictures that can be found.
    """

    def __init__(self, gallery: GalleryStore, ids: NDArray[np.int64]) -> None:
        self.ids = ids
        self._gallery = gallery
        self._known: dict[str, Rows | None] = {}
        self._matched: LruCache[TextMatches] = LruCache(REMEMBERED_MATCHES, weigh=len)

    def rows(self, words: Sequence[str]) -> dict[str, Rows]:
        """For each word that pictures have, their rows among `ids`, ascending."""
        new = [word for word in words if word not in self._known]
        found = self._gallery.find_words(new, MOST) if new else {}
        if len(self._known) + len(new) > REMEMBERED:
            self._known = {word: self._known[word] for word in words if word in self._known}
        for word in new:
            ids = found.get(word)
            self._known[word] = None if ids is None else _rows_of(self.ids, ids)
        asked = ((word, self._known[word]) for word in words)
        return {word: rows for word, rows in asked if rows is not None and len(rows)}

    def match(self, words: str, unwanted: Sequence[str]) -> TextMatches | None:
        """The pictures in whose text words of a query stand; None where there are none."""
        wanted = wanted_words(words)
        against = [wanted_words(one) for one in unwanted]
        asked = (wanted, *against)
        known = self._matched.get(asked)
        if known is not None:
            return known
        found = self.rows(list(dict.fromkeys(word for group in asked for word in group)))
        if not found:
            return None
        shares = self._shares(wanted, found)
        if against:
            shares -= np.max([self._shares(group, found) for group in against], axis=0)
        rows = np.flatnonzero(shares != 0)  # faster than of the numbers themselves
        matches = TextMatches(self.ids[rows], shares[rows], frozenset(wanted) & found.keys(), rows)
        self._matched.put(asked, matches)
        return matches

    def _shares(self, words: Sequence[str], found: dict[str, Rows]) -> NDArray[np.float64]:
        shares = np.zeros(len(self.ids))
        weights = {word: float(np.log1p(len(self.ids) / len(found[word]))) for word in words if word in found}
        scale = len(weights) / max(len(words), 1) / (sum(weights.values()) or 1.0)
        for word, weight in weights.items():
            shares[found[word]] += weight * scale
        return shares


@dataclass(frozen=True, eq=False)
class TextMatches:
    """What the words of a query add to the pictures whose text has any of them.

    Attributes:
        ids: (m,) int64, ascending.
        shares: (m,) float64, -1 to 1, none of them 0.
        words: The words, of those wanted, that some picture has.
        rows: (m,) int64, where the ids stand among those of the gallery; None where that is not known.
    """

    ids: NDArray[np.int64]
    shares: NDArray[np.float64]
    words: frozenset[str] = frozenset()
    rows: Rows | None = None

    def among(
        self, ids: NDArray[np.int64] | None, excluded: Collection[int], *, wanted: bool = False
    ) -> TextMatches | None:
        """Those among some ids (None: all; ascending) that are not excluded; None for none.

        `wanted`: those alone whose share is positive. Of more than `MOST` those of the greatest shares are left.
        """
        if ids is None and not excluded and not wanted and len(self) <= MOST:
            return self
        kept = self.shares > 0 if wanted else np.ones(len(self.ids), bool)
        if ids is not None:
            kept &= is_among(self.ids, ids)
        if excluded:
            kept &= ~is_among(self.ids, np.unique(np.fromiter(excluded, np.int64, len(excluded))))
        left = np.flatnonzero(kept)
        if len(left) > MOST:
            left = np.sort(left[np.argsort(-np.abs(self.shares[left]), kind="stable")[:MOST]])
        rows = None if self.rows is None else self.rows[left]
        return TextMatches(self.ids[left], self.shares[left], self.words, rows) if len(left) else None

    def __len__(self) -> int:
        """Pictures that match."""
        return len(self.ids)


class MatchedRanking:
    """The pictures whose text matches, ranked by their scores with what their text adds.

    Args:
        matches: At least one.
        searcher: Has their vectors.
        query: (1, d) float32.
        unit: What a share of 1 adds.
        negative: What is taken off for what is not wanted.
        scores: (n,) float32 of the whole gallery by `query`, where they are known; then fewer vectors are read.
    """

    def __init__(
        self,
        matches: TextMatches,
        searcher: VectorSearch,
        query: Vectors,
        unit: float,
        negative: NegativeQuery | None,
        scores: Vectors | None = None,
    ) -> None:
        self.ids, self._shares = matches.ids, matches.shares
        self._rough: NDArray[np.float64] | None = None
        if scores is not None and matches.rows is not None and negative is None:
            self._rough = scores[matches.rows] + unit * matches.shares
        self._searcher, self._unit = searcher, unit
        self._query, self._negative = query, negative

    def best(self, count: int, highest: float = np.inf) -> list[Hit]:
        """The best `count`.

        Those whose text adds most are looked at first, until no picture of the next, whose score by vectors is at most
        `highest`, can be among the best.
        """
        ids, scores = self._best_by_level(count, highest) if self._rough is None else self._best_known(count)
        order = np.lexsort((ids, -scores))[:count]
        return [Hit(*pair) for pair in zip(ids[order].tolist(), scores[order].tolist(), strict=True)]

    def _best_known(self, count: int) -> tuple[Ids, NDArray[np.float64]]:
        assert self._rough is not None
        rows = self._near(self._rough, count)
        ids = self.ids[rows]
        return ids, self._exact(self._vectors(ids)) + self._unit * self._shares[rows]

    def _best_by_level(self, count: int, highest: float) -> tuple[Ids, NDArray[np.float64]]:
        ids, scores = self.ids[:0], np.empty(0)
        for level, gains in self._levels(count):
            if len(scores) >= count:
                least = float(np.partition(scores, -count)[-count]) - _ROUNDING
                if highest + float(gains.max()) < least:
                    break
            level, ranked = self._best_of(level, gains, count)
            ids, scores = np.concatenate([ids, level]), np.concatenate([scores, ranked])
        return ids, scores

    def _levels(self, count: int) -> Iterator[tuple[Ids, NDArray[np.float64]]]:
        """Pictures and what their text adds, those first that it adds most to; none is split where it adds the same.

        At least `count` at first, and twice as many each time. Where something is taken off, each gain is a level: that
        product of matrices depends, in its last bits, on the other rows.
        """
        ids, gains = self.ids, self._unit * self._shares
        if self._negative:
            for gain in np.unique(gains)[::-1]:
                level = gains == gain
                yield ids[level], gains[level]
            return
        while len(gains) > count:
            level = gains >= np.partition(gains, -count)[-count]
            yield ids[level], gains[level]
            ids, gains, count = ids[~level], gains[~level], 2 * count
        if len(gains):
            yield ids, gains

    def _best_of(self, ids: Ids, gains: NDArray[np.float64], count: int) -> tuple[Ids, NDArray[np.float64]]:
        """Those of some pictures that can be among the best `count` of them, and their scores."""
        vectors = self._vectors(ids)
        if self._negative:
            return ids, self._negative.scores(vectors) + gains
        if len(ids) > count:
            rows = self._near(vectors @ self._query[0] + gains, count)
            ids, gains, vectors = ids[rows], gains[rows], vectors[rows]
        return ids, self._exact(vectors) + gains

    def _near(self, rough: NDArray[np.float64], count: int) -> Rows:
        """Rows of the scores, off by rounding, that can be among the best `count` of them."""
        if len(rough) <= count:
            return np.arange(len(rough))
        margin = _EPS * (len(self._query[0]) + _MORE)
        return np.flatnonzero(rough >= np.partition(rough, -count)[-count] - margin)

    def _exact(self, vectors: Vectors) -> NDArray[np.float64]:
        products = vectors * self._query[0].astype(np.float64)
        return np.asarray(products.sum(axis=1), np.float64)  # as a search sums

    def _vectors(self, ids: Ids) -> Vectors:
        return self._searcher.vectors_of(ids)  # type: ignore[arg-type]  # an array is looked up at once

    def merge(self, hits: Sequence[Hit], count: int, *, complete: bool) -> list[Hit]:
        """One ranking of the best by vectors, and of the matches, which take their places by score.

        Args:
            hits: In their order, matches among them.
            count: How many of the matches can matter.
            complete: Whether `hits` are all pictures. If not, a match that scores less than the last of them is left
                out, because others belong before it.
        """
        matched = is_among(np.array([hit.id for hit in hits], np.int64), self.ids)
        others = [hit for hit, known in zip(hits, matched, strict=True) if not known]
        highest = np.inf if self._negative or not hits else hits[0].score
        best = self.best(max(len(self.ids), 1) if complete else count, highest)
        if hits and not complete:
            best = [hit for hit in best if hit.score >= hits[-1].score]
        return list(heapq.merge(others, best, key=lambda hit: (-hit.score, hit.id)))


def is_among(ids: Ids, others: Ids) -> NDArray[np.bool_]:
    """For each of (n,) ids whether it is one of (m,) ascending ones."""
    if not len(others):
        return np.zeros(len(ids), bool)
    places = np.searchsorted(others, ids)
    return np.asarray(others[np.minimum(places, len(others) - 1)] == ids)


def _rows_of(ids: Ids, some: Ids) -> Rows:
    """Rows of those of some ids, ascending, that are among (n,) ascending ones."""
    rows = np.searchsorted(ids, some)
    known = ids.take(rows, mode="clip") == some if len(ids) else np.zeros(len(some), bool)
    return np.asarray(rows[known], np.int64)


def wanted_words(text: str) -> tuple[str, ...]:
    """The different words of a text that say something and are not negated, in lower case; at most `MAX_WORDS`."""
    for hint in negation_hints(text):
        text = text.replace(hint.phrase, " ")
    found = dict.fromkeys(_WORD.findall(text.lower()))
    telling = (word for word in found if word not in _NOTHING and (len(word) > 1 or word.isdecimal()))
    return tuple(islice(telling, MAX_WORDS))


def weight_of(query: Query) -> float:
    """What a picture gains in fit that has all words of a query in its text."""
    return COMPOSED_WEIGHT if query.references else WORDS_WEIGHT
