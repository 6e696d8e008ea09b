"""What the text tower learns from: texts and the vectors that they should have, all known beforehand.

Nouns point to their closed form (nouns.py), words of pictures to the means of those pictures (centroids.py). A change
of a description points to what is there after it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import inflect
import numpy as np
from numpy.typing import NDArray

from recipes.bundled import data as subjects_of
from recipes.bundled import language, words
from recipes.default_model.centroids import caption_vectors
from recipes.default_model.nouns import Nouns
from recipes.default_model.pictures import TRAIN, Picture
from recipes.default_model.shop import ALIASES, COLOURS, PHRASES

Vectors = NDArray[np.float32]
GROUPS = ("nouns", "everyday", "captions", "changes", "colours", "looks")
FRAMES = ("{x}", "{x}", "a {x}", "a photo of a {x}", "the {x}", "a picture of {x}", "one {x}")
CHANGES = (
    "as a {x}",
    "as an {x}",
    "but a {x}",
    "but {x}",
    "{x} instead",
    "a {x} instead",
    "make it a {x}",
    "with {x} instead",
    "not that but a {x}",
)
DESCRIBED = {"drawn": 12_000, "photo": 6_000, "emoji": 14_000}
CHANGED = 10_000
COLOURED = 6_000
_WORD = re.compile(r"[a-z0-9'’-]+")
_LABEL_PRIOR = 2.0  # how many pictures a label's closed form counts as
_HEAD = 0.7  # of a phrase of several words, the share of the last one


@dataclass(frozen=True)
class Lessons:
    """`texts`, their unit `targets` (n, d), and of which of `GROUPS` each is (n,)."""

    texts: list[str]
    targets: Vectors
    groups: NDArray[np.int64]


class Writer:
    """Makes the lessons; `vectors` (n, d) are those of `pictures`, `kinds` of d say what there is.

    Everything depends on the seed alone. Pictures that are not to train on are not looked at.
    """

    def __init__(
        self,
        pictures: Sequence[Picture],
        vectors: Vectors,
        nouns: Nouns,
        kinds: int,
        captions: dict[str, list[str]],
        seed: int = 0,
    ) -> None:
        self.rows = [row for row, picture in enumerate(pictures) if picture.part == TRAIN]
        self.pictures = [pictures[row] for row in self.rows]
        self.vectors, self.nouns, self.kinds, self.seed = vectors[self.rows], nouns, kinds, seed
        self.captions = captions
        self._found: list[tuple[str, Vectors, int]] = []

    def write(self, shop: Sequence[str] = PHRASES) -> Lessons:
        """All lessons."""
        labels = self._labels()
        for number, group in enumerate(GROUPS):
            rng = random.Random(f"{group} {self.seed}")
            for text, target in getattr(self, f"_{group}")(rng, labels, shop):
                self._found.append((text, target, number))
        texts = [text for text, _, _ in self._found]
        targets = np.stack([target for _, target, _ in self._found])
        return Lessons(texts, unit(targets), np.array([number for _, _, number in self._found]))

    def _nouns(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        for word in self.nouns.words:
            target = self.whole(self.nouns.word(word))
            for _ in range(2):
                yield framed(word, rng), target
            yield framed(plural(word), rng), target
        for phrase in shop:
            target = phrase_vector(self.nouns, ALIASES.get(phrase, phrase))
            if target is not None:
                yield from ((framed(phrase, rng), self.whole(target)) for _ in range(6))

    def _everyday(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        for label, target in labels.items():
            yield from ((framed(label, rng), target) for _ in range(12))
            yield from ((framed(plural(label), rng), target) for _ in range(4))
        for picture, vector in zip(self.pictures, self.vectors, strict=True):
            for text in self.captions.get(picture.name, ()):
                yield text.strip().rstrip(".").lower(), vector

    def _captions(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        for source, count in DESCRIBED.items():
            rows = self._of(source)
            records = [self.pictures[row].record for row in rows]
            written = [
                (language.edit if rng.random() < 0.45 else language.describe)(rng.choice(records), rng)
                for _ in range(count if records else 0)
            ]
            if written:
                numbers = subjects_of.subjects(map(dict, records))
                targets = caption_vectors(written, records, self.vectors[rows], numbers)
                yield from zip((caption.text for caption in written), targets, strict=True)

    def _changes(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        nouns = self.nouns.words[:4_000]
        own = list(labels)
        for number in range(CHANGED):
            if own and number % 2:
                before, after = rng.choice(own), rng.choice(own)
                target = labels[after]
            else:
                before, after = rng.choice(nouns), rng.choice(nouns)
                target = self.whole(self.nouns.word(after))
            yield f"{framed(before, rng)} {rng.choice(CHANGES).replace('{x}', after)}", target

    def _colours(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        """A noun in a colour: what it is by its name, how it looks by photographs of that colour."""
        looks = self._colour_looks()
        nouns = [*labels, *self.nouns.words[:2_000]]
        for _ in range(COLOURED if looks else 0):
            word, colour = rng.choice(nouns), rng.choice(list(looks))
            kind = labels[word][: self.kinds] if word in labels else self.nouns.word(word)
            target = np.concatenate([unit(kind), unit(looks[colour])])
            text = rng.choice(
                (f"{colour} {word}", f"a {colour} {word}", f"{word} in {colour}", f"{word} but {colour}")
            )
            yield text, target

    def _looks(self, rng, labels, shop):  # type: ignore[no-untyped-def]
        """Garments in colours that the catalogue does not name: mixtures of those it does, by likeness to the eye."""
        for source in ("drawn", "photo"):
            rows = self._of(source)
            if not rows:
                continue
            records = [self.pictures[row].record for row in rows]
            for colour, parts in COLOURS.items():
                kinds = rng.sample(sorted({record["type"] for record in records}), 8)
                for kind in [None, None, *kinds]:
                    captions = [_coloured(source, kind, part) for part in parts]
                    means = caption_vectors(captions, records, self.vectors[rows], {})
                    shares = np.array(list(parts.values()), np.float32)
                    noun = words.SYNONYMS["type"].get(kind, (kind,))[0] if kind else ""
                    yield framed(f"{colour} {noun}".strip(), rng), shares @ means

    def whole(self, kind: Vectors) -> Vectors:
        """A vector that says what there is and nothing of how it looks."""
        return np.concatenate([unit(kind), np.zeros(self.vectors.shape[1] - self.kinds, np.float32)])

    def _of(self, source: str) -> list[int]:
        return [row for row, picture in enumerate(self.pictures) if picture.record["source"] == source]

    def _labels(self) -> dict[str, Vectors]:
        """The mean of each label's pictures, with what its words alone say."""
        rows: dict[str, list[int]] = {}
        for row in self._of("everyday"):
            record = self.pictures[row].record
            rows.setdefault(record["label"], []).append(row)
            rows.setdefault(record["broader"], []).append(row)
        found = {}
        for label, own in rows.items():
            total, said = self.vectors[own].sum(0), phrase_vector(self.nouns, label)
            found[label] = unit(total if said is None else total + _LABEL_PRIOR * self.whole(said))
        return found

    def _colour_looks(self) -> dict[str, Vectors]:
        rows: dict[str, list[int]] = {}
        for row in self._of("photo"):
            if colour := self.pictures[row].record.get("colour"):
                rows.setdefault(colour, []).append(row)
        basic = {colour: self.vectors[own].mean(0)[self.kinds :] for colour, own in rows.items()}
        mixed = {
            name: sum(share * basic[part] for part, share in parts.items())
            for name, parts in COLOURS.items()
            if all(part in basic for part in parts)
        }
        return {**basic, **mixed}


def phrase_vector(nouns: Nouns, phrase: str) -> Vectors | None:
    """What a phrase's words say together, the last noun the most; None where WordNet knows none of them."""
    whole = nouns.word(phrase) if phrase in nouns.wordnet.senses else None
    if whole is not None:
        return whole
    found = []
    for word in _WORD.findall(phrase.lower()):
        vector = _word_vector(nouns, word)
        if vector is not None:
            found.append(vector)
    if len(found) < 2:
        return found[0] if found else None
    return unit(_HEAD * found[-1] + (1 - _HEAD) * np.mean(found[:-1], axis=0))


_SAID_BY_ANYTHING = frozenset(
    ["a", "an", "the", "of", "in", "on", "at", "with", "and", "for", "to", "by", "or", "from", "as", "is"]
)


def _word_vector(nouns: Nouns, word: str) -> Vectors | None:
    if word in _SAID_BY_ANYTHING:
        return None
    single = singular(word)
    for candidate in (word, single):
        found = nouns.word(candidate)
        if found is not None:
            return found
    return nouns.described(word)


def framed(text: str, rng: random.Random) -> str:
    """The text as people write it."""
    return rng.choice(FRAMES).replace("{x}", text)


_ENGINE = inflect.engine()


@lru_cache(maxsize=50_000)
def plural(text: str) -> str:
    """The last word in the plural."""
    return str(_ENGINE.plural_noun(text) or text)  # type: ignore[arg-type]


@lru_cache(maxsize=50_000)
def singular(word: str) -> str:
    """The word in the singular, itself if it is no plural."""
    return str(_ENGINE.singular_noun(word) or word)  # type: ignore[arg-type]


def unit(rows: Vectors) -> Vectors:
    """Rows, or one row, of unit length."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9), np.float32)


def _coloured(source: str, kind: str | None, colour: str) -> language.Caption:
    allowed = {"colour": frozenset({colour})} | ({"type": frozenset({kind})} if kind else {})
    return language.Caption("", source, allowed)


def read_shop(path: Path) -> list[str]:
    """The words of a list, one a line."""
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
