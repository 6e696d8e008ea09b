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
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.search.base import Hit
from image2sentence.query.hints import negation_hints
from image2sentence.query.query import Query
from image2sentence.query.unknown_words import FUNCTION_WORDS

WORDS_WEIGHT = 8.0
"""Of words alone. Chosen, as the next, on queries that are not reported: `python -m benchmarks.query.titles`."""

COMPOSED_WEIGHT = 3.0
"""Of words beside pictures, which ask for a change of what the pictures show."""

MOST = 20_000
"""Pictures that may have a word; one that more have is too common to tell them apart."""

MAX_WORDS = 16
_ROWS = 1_024
_NOTHING = FUNCTION_WORDS | {"image", "images", "img", "photo", "photos", "picture", "pictures"}
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, eq=False)
class TextMatches:
    """Pictures whose text holds words of a query.

    Attributes:
        ids: (m,) int64, ascending.
        shares: (m,) float64, -1 to 1, none of them 0.
        words: The words, of those wanted, that some picture has.
    """

    ids: NDArray[np.int64]
    shares: NDArray[np.float64]
    words: frozenset[str] = frozenset()

    def among(
        self, ids: NDArray[np.int64], excluded: Collection[int], least: float = -1.0
    ) -> TextMatches | None:
        """Those among some ids that are not excluded and have a share of more than `least`; None for none.

        Of more than `MOST` those of the greatest shares.
        """
        kept = np.isin(self.ids, ids) & ~np.isin(self.ids, list(excluded)) & (self.shares >= least)
        places = np.flatnonzero(kept)
        if len(places) > MOST:
            places = np.sort(places[np.argsort(-np.abs(self.shares[places]), kind="stable")[:MOST]])
        return TextMatches(self.ids[places], self.shares[places], self.words) if len(places) else None

    def ranked(self, scores: NDArray[np.float64], unit: float) -> list[Hit]:
        """The pictures by their (m,) scores with what their text adds, best first; `unit` is what a share of 1 adds."""
        scores = scores + unit * self.shares
        order = np.argsort(-scores, kind="stable")
        return [Hit(int(self.ids[place]), float(scores[place])) for place in order]


def wanted_words(text: str) -> tuple[str, ...]:
    """The different words of a text that say something and are not negated, in lower case; at most `MAX_WORDS`."""
    for hint in negation_hints(text):
        text = text.replace(hint.phrase, " ")
    found = dict.fromkeys(_WORD.findall(text.lower()))
    telling = (word for word in found if word not in _NOTHING and (len(word) > 1 or word.isdecimal()))
    return tuple(islice(telling, MAX_WORDS))


def match_text(gallery: GalleryStore, words: str, unwanted: Sequence[str]) -> TextMatches | None:
    """The pictures in whose text words of a query stand; None where there are none."""
    wanted = wanted_words(words)
    against = [wanted_words(one) for one in unwanted]
    asked = dict.fromkeys(word for group in (wanted, *against) for word in group)
    found = gallery.find_words(list(asked), MOST) if asked else {}
    if not found:
        return None
    ids = np.unique(np.concatenate(list(found.values())))
    count = max(len(gallery), 1)
    shares = _shares(wanted, found, ids, count)
    if against:
        shares -= np.max([_shares(group, found, ids, count) for group in against], axis=0)
    kept = shares != 0
    return TextMatches(ids[kept], shares[kept], frozenset(wanted) & found.keys())


def weight_of(query: Query) -> float:
    """What a picture gains in fit that has all words of a query in its text."""
    return COMPOSED_WEIGHT if query.references else WORDS_WEIGHT


def scores_of(vectors: Vectors, query: Vectors) -> NDArray[np.float64]:
    """(m,) dot products of (m, d) vectors and a (1, d) query, to the last bit those of a search."""
    wide = query[0].astype(np.float64)
    blocks = range(0, len(vectors), _ROWS)
    return np.concatenate([(vectors[start : start + _ROWS] * wide).sum(axis=1) for start in blocks])


def merge(hits: Sequence[Hit], matched: Sequence[Hit], *, complete: bool) -> list[Hit]:
    """One ranking of the best by vectors, and of those whose text matches, which take their places by score.

    Args:
        hits: In their order, among them pictures that are in `matched` too.
        matched: All that match, best first.
        complete: Whether `hits` are all pictures. If not, what scores less than the last of them is left out, because
            others belong before it.
    """
    known = {hit.id for hit in matched}
    others = (hit for hit in hits if hit.id not in known)
    merged = list(heapq.merge(others, matched, key=lambda hit: (-hit.score, hit.id)))
    if complete or not hits:
        return merged
    while merged and merged[-1].id in known and merged[-1].score < hits[-1].score:
        merged.pop()
    return merged


def _shares(
    words: Sequence[str], found: dict[str, NDArray[np.int64]], ids: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    shares = np.zeros(len(ids))
    weights = {word: float(np.log1p(count / len(found[word]))) for word in words if word in found}
    for word, weight in weights.items():
        shares[np.searchsorted(ids, found[word])] += weight / sum(weights.values())
    return shares * (len(weights) / max(len(words), 1))
