"""The report of an indexing run."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery.locations import Place

SAMPLE = 256
"""Vectors that a report keeps of those encoded."""


class VectorSample:
    """Up to `SAMPLE` of the rows that come, each as likely as any other (Vitter's algorithm R)."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._seen = 0
        self._draw = random.Random(0)

    def add(self, row: NDArray[np.float32]) -> None:
        """One more vector (d,)."""
        self._seen += 1
        if len(self._rows) < SAMPLE:
            self._rows.append(row)
        elif (place := self._draw.randrange(self._seen)) < SAMPLE:
            self._rows[place] = row

    def rows(self) -> Vectors:
        """(n, d) float32."""
        return np.stack(self._rows) if self._rows else np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class IndexReport:
    """What an indexing run found and did. found = encoded + unchanged + moved + duplicates + len(failed).

    Attributes:
        found: Files with a picture's ending below the folder, and members of shards.
        encoded: Pictures encoded and committed.
        unchanged: Known pictures with the same content as before; not opened unless time or size changed.
        moved: Pictures known under a name that is gone; they keep their id.
        duplicates: New or changed files whose content the gallery holds already; they share its vector.
        deleted: Pictures forgotten because their file is gone.
        failed: Files that cannot be read as pictures, with the reason, including those that failed before.
        unreadable_folders: Folders that cannot be listed, with the reason; what is known below them is kept.
        skipped_other: Files without a picture's ending.
        seconds: Time from start to end.
        undated: Pictures read in this run that have no date, neither in the file nor in its name.
        passed_over: The files counted as `skipped_other` by their ending, the most frequent first.
        excluded: Files and folders passed over by exclusions, by pattern; a folder counts once.
        deleted_excluded: Those of `deleted` whose file is there, but excluded now.
        left: Pictures whose files lie below another root of the gallery now; they keep their id.
        missing: Ids of pictures whose files are gone, and which the run was not to forget.
        kept: Pictures without a file that are kept, since their disk may be away.
        away: The folders that these lie in, with how many and the reason.
        elsewhere: Folders passed over because another indexed folder of the gallery holds them.
        sample: (n, d) float32 gallery vectors of up to `SAMPLE` pictures of those encoded, drawn evenly.
    """

    found: int
    encoded: int
    unchanged: int
    moved: int
    duplicates: int
    deleted: int
    failed: list[tuple[Place, str]]
    unreadable_folders: list[tuple[Place, str]]
    skipped_other: int
    seconds: float
    undated: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    deleted_excluded: int = 0
    left: int = 0
    missing: list[int] = field(default_factory=list)
    kept: int = 0
    away: list[tuple[Place, str]] = field(default_factory=list)
    elsewhere: list[Place] = field(default_factory=list)
    sample: Vectors = field(default_factory=lambda: np.empty((0, 0), np.float32), repr=False, compare=False)

    @property
    def rate(self) -> float:
        """Pictures encoded per second of the whole run."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, object]:
        """All fields but the sample, and the rate, ready for JSON; paths exactly (odd bytes as lone surrogates)."""
        shown = {
            "failed": _exact(self.failed),
            "unreadable_folders": _exact(self.unreadable_folders),
            "away": _exact(self.away),
            "elsewhere": [os.fspath(place) for place in self.elsewhere],
            "rate": self.rate,
        }
        return {name: value for name, value in vars(self).items() if name != "sample"} | shown


def _exact(reasons: list[tuple[Place, str]]) -> list[list[str]]:
    return [[os.fspath(path), reason] for path, reason in reasons]
