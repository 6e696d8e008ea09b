"""What an evaluation found, read back: per-query values by row, seeds averaged, with intervals and ratios."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from image2sentence.evaluation.evaluate import FULL_TEXT, SUM
from image2sentence.evaluation.metrics import Interval, bootstrap_interval

Values = NDArray[np.float64]

_LABEL = re.compile(r"(?P<study>.+?): (?P<name>.+) \(seed (?P<seed>\d+)\)")
_SAMPLES = 2_000


@dataclass(frozen=True)
class Outcome:
    """One row of a task: (seeds, queries) percent for each metric."""

    name: str
    study: str
    note: str
    values: dict[str, Values]

    @property
    def seeds(self) -> int:
        """How many runs the row is the mean of."""
        return len(next(iter(self.values.values())))

    def interval(self, metric: str) -> Interval:
        """Mean over seeds and queries, with the bootstrap interval over queries."""
        return bootstrap_interval(self.values[metric].mean(0))

    def of_seeds(self, metric: str) -> list[float]:
        """The mean of each seed."""
        means: list[float] = self.values[metric].mean(1).tolist()
        return means


@dataclass(frozen=True)
class TaskOutcomes:
    """All rows of one task."""

    facts: dict[str, str]
    rows: dict[tuple[str, str], Outcome]

    def __getitem__(self, key: tuple[str, str]) -> Outcome:
        return self.rows[key]

    def get(self, study: str, name: str) -> Outcome | None:
        """A row by its study and name; None where it has not been run."""
        return self.rows.get((study, name))

    @cached_property
    def sum(self) -> Outcome:
        """The image + text sum."""
        return self.rows["", SUM]

    @cached_property
    def full_text(self) -> Outcome:
        """The oracle."""
        return self.rows["", FULL_TEXT]


def ratio(first: Outcome, second: Outcome, metric: str) -> Interval:
    """Mean of one row over that of another, and its paired bootstrap interval (the same queries drawn for both)."""
    a, b = (outcome.values[metric].mean(0) for outcome in (first, second))
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(a), size=(_SAMPLES, len(a)))
    low, high = np.quantile(a[drawn].mean(1) / b[drawn].mean(1), (0.025, 0.975))
    return Interval(float(a.mean() / b.mean()), float(low), float(high))


def read(path: Path) -> TaskOutcomes:
    """A task's outcomes from the JSON that `recipes.miniature.evaluate` wrote."""
    document = json.loads(path.read_text(encoding="utf-8"))
    seeds: defaultdict[tuple[str, str], list[dict[str, list[float]]]] = defaultdict(list)
    notes: dict[tuple[str, str], str] = {}
    for row in document["rows"]:
        match = _LABEL.fullmatch(row["name"])
        key = (match["study"], match["name"]) if match else ("", row["name"])
        seeds[key].append(row["values"])
        notes[key] = row["note"]
    rows = {
        (study, name): Outcome(name, study, notes[study, name], _stacked(runs))
        for (study, name), runs in seeds.items()
    }
    return TaskOutcomes(document["facts"], rows)


def _stacked(runs: list[dict[str, list[float]]]) -> dict[str, Values]:
    shared = set.intersection(*(set(run) for run in runs))  # runs of another day may know other metrics
    return {metric: np.array([run[metric] for run in runs]) for metric in runs[0] if metric in shared}
