"""Captions out of labels, with what they claim, and the words without pictures that the query side learns from."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from image2sentence.evaluation.datasets.attributes import FALLBACK_TEMPLATE, TEMPLATES
from recipes.miniature.worlds import Record, World

JOINTS = (" but ", ", ", " ", ", but ", " now ")
ASKED = ("in {v}", "{v}", "{v} instead", "make it {v}", "but {v}")
TITLES = 0.2  # share of captions that are the picture's own title, where it has one


@dataclass(frozen=True)
class Claim:
    """A text and what has to hold of a picture for it to be true; `group` where it names one product."""

    text: str
    holds: dict[str, str] = field(default_factory=dict)
    group: str = ""


class Speaker:
    """Says true things of a world's records: descriptions, and edits of descriptions of something else."""

    def __init__(self, world: World, rows: Sequence[Record], edits: float = 0.4) -> None:
        self.world, self.edits = world, edits
        # Other values are drawn as often as they occur, so that an edit asks for what people may ask for.
        self.values = {name: [row[name] for row in rows if row[name]] for name in world.shares}

    def caption(self, record: Record, rng: random.Random) -> Claim:
        """One true caption."""
        if rng.random() < self.edits:
            return self.edit(record, rng)
        return self.describe(record, rng)

    def describe(self, record: Record, rng: random.Random) -> Claim:
        """Some of the record's values, mostly in the order of the table, or its title."""
        if record.get("title") and rng.random() < TITLES:
            holds = {name: record[name] for name in self.world.listed if record[name]}
            return Claim(record["title"], holds, record["group"])
        named = self._named(record, rng)
        return Claim(said(record, named), {name: record[name] for name in named})

    def edit(self, record: Record, rng: random.Random) -> Claim:
        """A description of another picture that ends with what to change."""
        editable = [name for name in self.world.editable if record[name]]
        if not editable:
            return self.describe(record, rng)
        changed = rng.sample(editable, min(len(editable), rng.choices((1, 2), (0.75, 0.25))[0]))
        start = record | {name: self._other(name, record[name], rng) for name in changed}
        named = self._named(start, rng)
        asked = " and ".join(self.asked(name, record[name], rng) for name in changed)
        holds = {name: record[name] for name in {*named, *changed}}
        return Claim(said(start, named) + rng.choice(JOINTS) + asked, holds)

    def asked(self, name: str, value: str, rng: random.Random) -> str:
        """Words that ask for a value."""
        template = TEMPLATES.get(name, FALLBACK_TEMPLATE) if rng.random() < 0.6 else rng.choice(ASKED)
        template = template.replace("{attribute}", worded(name)).replace("{v}", "{value}")
        return template.replace("{value}", worded(value))

    def _named(self, record: Record, rng: random.Random) -> list[str]:
        named = [name for name, share in self.world.shares.items() if record[name] and rng.random() < share]
        if not named:
            named = [next(name for name in self.world.shares if record[name])]
        if rng.random() < 0.4:
            rng.shuffle(named)
        return named

    def _other(self, name: str, value: str, rng: random.Random) -> str:
        while (other := rng.choice(self.values[name])) == value:
            pass
        return other


def worded(value: str) -> str:
    """As the benchmarks say a value: lower-case, underscores as spaces."""
    return value.replace("_", " ").lower()


def said(record: Record, named: Iterable[str]) -> str:
    """The named values, in that order."""
    return " ".join(worded(record[name]) for name in named)


class Judge:
    """Which claims are true of which pictures."""

    def __init__(self, rows: Sequence[Record]) -> None:
        names = rows[0].keys()
        self._codes = {
            name: {v: i for i, v in enumerate(sorted({row[name] for row in rows}))} for name in names
        }
        self._facts = {
            name: np.array([codes[row[name]] for row in rows]) for name, codes in self._codes.items()
        }

    def verdicts(self, index: NDArray[np.int64], claims: Sequence[Claim]) -> NDArray[np.int64]:
        """(pictures, claims): 1 true, 0 false, -1 unknown, which is a title of another product with the same values."""
        out = np.ones((len(index), len(claims)), np.int64)
        for column, claim in enumerate(claims):
            for name, value in claim.holds.items():
                out[self._facts[name][index] != self._codes[name].get(value, -1), column] = 0
            if claim.group:
                elsewhere = self._facts["group"][index] != self._codes["group"][claim.group]
                out[elsewhere & (out[:, column] == 1), column] = -1
        return out


def modifiers(world: World, rows: Sequence[Record], count: int = 6_000) -> list[str]:
    """Words that ask for changes, drawn without looking at any picture."""
    speaker, rng = Speaker(world, rows), random.Random(5)

    def one() -> str:
        names = rng.sample(world.editable, rng.choices((1, 2), (0.75, 0.25))[0])
        return " and ".join(speaker.asked(name, rng.choice(speaker.values[name]), rng) for name in names)

    return list(dict.fromkeys(one() for _ in range(count)))


def phrases(world: World, rows: Sequence[Record], values_each: int = 2_000) -> list[str]:
    """Every combination of the listed attributes' values (the empty one where some have none), commonest first."""
    lists = []
    for name in world.listed:
        counts = Counter(row[name] for row in rows)
        lists.append([worded(value) for value, _ in counts.most_common(values_each)])
    return list(
        dict.fromkeys(" ".join(part for part in parts if part) for parts in itertools.product(*lists))
    )
