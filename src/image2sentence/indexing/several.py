"""Indexing of several folders, between which pictures may move."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from image2sentence.errors import StorageAwayError
from image2sentence.gallery.locations import Identity, Place, as_place, identity
from image2sentence.indexing.report import IndexReport


class IndexOne(Protocol):
    """Brings a gallery up to date with one place; as `index_pictures` with `forget`."""

    def __call__(self, place: Place, *, forget: Collection[int] | None) -> IndexReport:
        """The report of the run."""
        ...


@dataclass(frozen=True)
class Indexed:
    """What became of one place: a report, or the reason why nothing of it was forgotten or looked at."""

    place: Place
    report: IndexReport | None = None
    away: StorageAwayError | None = None


def outermost(places: Sequence[Place]) -> list[Place]:
    """The places, each once, without those that lie within another one of them."""
    named = {place: identity(place) for place in map(as_place, places)}
    first: dict[Place | Identity, Place] = {}
    for place, own in named.items():
        first.setdefault(own or place, place)
    distinct = set(first.values())
    # A link to a folder above lies in that folder and is the same one.
    within = {place for place in distinct if any(first.get(above, place) != place for above in _above(place))}
    return [place for place in named if place in distinct and place not in within]


def _above(place: Place) -> set[Place | Identity]:
    """The places that a place lies within, by name and by device and inode, links followed."""
    if not isinstance(place, Path):
        parts = place.split("/")
        return {"/".join(parts[:end]) for end in range(3, len(parts))}
    real = map(identity, Path(os.path.realpath(place)).parents)
    named = map(identity, place.parents)
    return {*place.parents, *(one for one in (*real, *named) if one is not None)}


def index_several(
    places: Sequence[Place], index_one: IndexOne, *, beside: Sequence[Place] = (), careful: bool = False
) -> list[Indexed]:
    """Bring a gallery up to date with places; one that is away does not stop the others.

    A picture is forgotten only when its file has been looked for in all places after it was found missing, and is
    missing still: it may have moved while they were looked through.

    Args:
        places: None within another; see `outermost`.
        index_one: Indexes one place.
        beside: Other places that files may have moved to.
        careful: Look twice where there is one place only, too.

    Returns:
        What became of each of the places, in their order, and of those beside where pictures came to.

    Raises:
        Exception: whatever `index_one` raises, except for StorageAwayError.
    """
    if len(places) + len(beside) == 1 and not careful:
        return [_indexed(places[0], index_one, None)]
    done = {place: _indexed(place, index_one, ()) for place in places}
    missing = {place: one.report.missing for place, one in done.items() if one.report and one.report.missing}
    if missing and len(places) + len(beside) > 1:
        for place in (*places, *beside):
            looked = _indexed(place, index_one, ())
            if place in done:
                done[place] = _merged(done[place], looked)
            elif looked.report is not None and (looked.report.encoded or looked.report.moved):
                done[place] = looked
    for place, picture_ids in missing.items():
        done[place] = _merged(done[place], _indexed(place, index_one, picture_ids))
    return list(done.values())


def _indexed(place: Place, index_one: IndexOne, forget: Collection[int] | None) -> Indexed:
    try:
        return Indexed(place, report=index_one(place, forget=forget))
    except StorageAwayError as error:
        return Indexed(place, away=error)


def _merged(before: Indexed, later: Indexed) -> Indexed:
    """One result for two runs over a place."""
    first, last = before.report, later.report
    if first is None or last is None:
        return later
    encoded, moved = first.encoded + last.encoded, first.moved + last.moved
    duplicates = first.duplicates + last.duplicates
    report = replace(
        last,
        encoded=encoded,
        moved=moved,
        duplicates=duplicates,
        unchanged=max(0, last.found - encoded - moved - duplicates - len(last.failed)),
        undated=first.undated + last.undated,
        seconds=first.seconds + last.seconds,
    )
    return replace(later, report=report)
