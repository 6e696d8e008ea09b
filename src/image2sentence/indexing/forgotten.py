"""Metadata of forgotten pictures, kept by content for a while."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.facts import TAKEN
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.metadata import checked_value

KEPT_DAYS = 90
"""Days for which the metadata of forgotten pictures is kept."""

MAX_KEPT = 100_000
"""Contents whose metadata is kept; the oldest go first."""

_KIND = "forgotten"
_BATCH = 1_000


def remember(gallery: GalleryStore, pictures: Sequence[int]) -> None:
    """Keep the metadata of pictures that are about to be forgotten, by the SHA-256 of their content.

    A copy that stays and has no values but its date gets them. Else there is a note for each content: `since` in
    seconds since 1970, and `values`, one object for each picture.
    """
    now = time.time()
    heirs = _Heirs(gallery, pictures)
    notes: dict[str, Any] = gallery.notes(_KIND)
    before = dict(notes)
    for start in range(0, len(pictures), _BATCH):
        some = pictures[start : start + _BATCH]
        for sha256, values in zip(gallery.hashes_of(some), gallery.metadata(some), strict=True):
            if sha256 is not None and values and not heirs.take(sha256, values):
                held = _values(notes.get(sha256.hex()))
                notes[sha256.hex()] = {"since": now, "values": [*held, values]}
    young = {name: note for name, note in notes.items() if now - _since(note) < KEPT_DAYS * 86_400}
    kept = dict(sorted(young.items(), key=lambda one: -_since(one[1]))[:MAX_KEPT])
    changes = {name: note for name, note in kept.items() if note is not before.get(name)}
    changes |= dict.fromkeys(before.keys() - kept.keys())
    if changes:
        gallery.set_notes(_KIND, changes)
    heirs.save()


class _Heirs:
    """Copies of forgotten pictures that stay in the gallery, and have no values of their own."""

    def __init__(self, gallery: GalleryStore, forgotten: Sequence[int]) -> None:
        self._gallery = gallery
        self._forgotten = set(forgotten)
        self._given: dict[int, Mapping[str, Value]] = {}

    def take(self, sha256: bytes, values: Mapping[str, Value]) -> bool:
        """Give values to a copy of a content; whether there is one that takes them."""
        content = self._gallery.find_content(sha256) if values.keys() - {TAKEN} else None
        copies = [] if content is None else self._gallery.with_content(content)
        free = [one for one in copies if one not in self._forgotten and one not in self._given]
        for picture, own in zip(free, self._gallery.metadata(free), strict=True):
            if not own.keys() - {TAKEN}:
                self._given[picture] = values
                return True
        return False

    def save(self) -> None:
        """Write what was given."""
        self._gallery.set_metadata(self._given.items())


class Forgotten:
    """Gives new pictures the metadata that was kept of forgotten ones with the same content."""

    def __init__(self, gallery: GalleryStore) -> None:
        self._gallery = gallery
        self._used: dict[str, Any] = {}

    @cached_property
    def _notes(self) -> dict[str, Any]:
        return self._gallery.notes(_KIND)

    def take(self, sha256: bytes) -> dict[str, Value]:
        """The metadata kept of a content, once for each picture that had it; {} where there is none (any more).

        Values whose column is gone or has another type now are left out.
        """
        note = self._notes.get(sha256.hex())
        kept = _values(note)
        if not kept:
            return {}
        values, *rest = kept
        self._notes[sha256.hex()] = {"since": _since(note), "values": rest}
        self._used[sha256.hex()] = {"since": _since(note), "values": rest} if rest else None
        return self._fitting(values)

    def save(self) -> None:
        """Note what was given, so that no other picture gets it."""
        if self._used:
            self._gallery.set_notes(_KIND, self._used)
            self._used = {}

    def _fitting(self, values: Mapping[str, Value]) -> dict[str, Value]:
        columns = self._gallery.columns()
        fitting = {}
        for name, value in values.items():
            try:
                checked = checked_value(name, columns[name], value) if name in columns else None
            except DataError:
                continue  # the column was made anew with another type
            if checked is not None:
                fitting[name] = checked
        return fitting


def _values(note: Any) -> list[dict[str, Value]]:
    values = note.get("values") if isinstance(note, dict) else None
    return [one for one in values if isinstance(one, dict)] if isinstance(values, list) else []


def _since(note: Any) -> float:
    since = note.get("since") if isinstance(note, dict) else None
    return float(since) if isinstance(since, int | float) else 0.0
