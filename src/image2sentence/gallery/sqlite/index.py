"""Index of a large gallery: making, checking and searching it.

Nothing here is needed to get a gallery's results right: without a file, or with one that is damaged or of another
gallery, search is exact; with one that is older than the gallery, what came later is compared one by one and what is
gone is left out.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError
from image2sentence.gallery.filters.in_memory import ColumnCache, ColumnSource
from image2sentence.gallery.search.faiss_index import AnnParameters, AnnSettings, build, faiss_module
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.gallery.search.vectors import Nearby, Rows
from image2sentence.gallery.sqlite.index_file import (
    NAME,
    Header,
    IndexFile,
    UnusableIndex,
    read_header,
    read_index_file,
    remove_unfinished,
    write_index_file,
)
from image2sentence.images import display_path

OUTDATED = 0.1
"""Share of the pictures that may be newer than the index, or gone from it, before it should be made again."""

State: TypeAlias = Literal["none", "current", "behind", "outdated", "unusable"]

_log = logging.getLogger(__name__)


class IndexedGallery(ColumnSource, Protocol):
    """What an index file is made from and held against: a gallery in a folder."""

    folder: Path
    id: str
    width: int

    def __len__(self) -> int: ...

    def derived_token(self, name: str) -> bytes | None:
        """The token of the derived file that belongs to this gallery; None where there is none."""
        ...

    def set_derived_token(self, name: str, token: bytes | None) -> None:
        """Say which derived file belongs to this gallery; None for no such file."""
        ...

    def snapshot(self) -> AbstractContextManager[object]:
        """Reads inside it see one state of the gallery."""
        ...

    def pairs(self) -> NDArray[np.int64]:
        """(n, 2) int64: ids of the ready pictures, ascending, and the ids of their contents."""
        ...

    def vectors(self, picture_ids: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) and vectors (n, d) float32 of the ready pictures, in gallery order."""
        ...


@dataclass(frozen=True)
class IndexState:
    """Whether a gallery has an index file that serves.

    Attributes:
        state: "none", "current", "behind" (a few pictures newer or gone, which is taken into account), "outdated" (so
            many that it should be made again) or "unusable".
        detail: Why it is unusable; else empty.
        header: What the file says of itself, where it can be read.
    """

    state: State
    detail: str = ""
    header: Header | None = None


def index_state(gallery: IndexedGallery, *, thorough: bool = False) -> IndexState:
    """Look at a gallery's index file: its header, or with `thorough` all of it."""
    token = gallery.derived_token(NAME)
    file = gallery.folder / NAME
    if token is None and not file.exists():
        return IndexState("none")
    try:
        header = read_index_file(file).header if thorough else read_header(file)
        _check_owner(gallery, header, token)
    except FileNotFoundError:
        return IndexState("unusable", "it is missing")
    except (UnusableIndex, ConfigError) as error:
        return IndexState("unusable", str(error))
    if header.generation == gallery.generation():
        return IndexState("current", header=header)
    changed = abs(len(gallery) - header.count) / max(len(gallery), 1)
    return IndexState("outdated" if changed > OUTDATED else "behind", header=header)


def needs_index(gallery: IndexedGallery) -> bool:
    """Whether a gallery is large enough for an index and has none that serves well."""
    found = index_state(gallery)
    return len(gallery) >= _settings(found).exact_below and found.state not in ("current", "behind")


def settings_of(gallery: IndexedGallery) -> AnnSettings:
    """How its index file was asked for; the default settings where there is none."""
    return _settings(index_state(gallery))


def _settings(found: IndexState) -> AnnSettings:
    return AnnSettings() if found.header is None else found.header.settings


def make_index(gallery: IndexedGallery, settings: AnnSettings | None = None) -> AnnParameters | None:
    """Make the index file of a gallery opened for writing; None (and no file) where it is too small to need one.

    Args:
        settings: How; None takes those of the file that is there, else the default ones.

    Raises:
        ConfigError: FAISS is not installed.
        GalleryError: the file cannot be written, or the gallery is damaged.
    """
    settings = settings or settings_of(gallery)
    if len(gallery) < settings.exact_below:
        gallery.set_derived_token(NAME, None)
        (gallery.folder / NAME).unlink(missing_ok=True)
        return None
    with gallery.snapshot():
        generation, pairs = gallery.generation(), gallery.pairs()
        _, vectors = gallery.vectors()
    longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max(initial=0.0)))
    index = build(vectors, settings)
    token = secrets.token_bytes(16)
    about = (
        gallery.id,
        token.hex(),
        generation,
        len(pairs),
        gallery.width,
        longest,
        settings,
        index.parameters,
    )
    write_index_file(gallery.folder / NAME, Header(*about), pairs, vectors, index)
    gallery.set_derived_token(NAME, token)
    return index.parameters


def refresh_index(gallery: IndexedGallery) -> None:
    """Make the index file where a gallery needs one and has none that serves; without FAISS, say how to install it.

    Raises:
        GalleryError: as `make_index`.
    """
    remove_unfinished(gallery.folder / NAME)
    if not needs_index(gallery):
        return
    if faiss_module() is None:
        _log.warning(
            "%s pictures are compared one by one, which is slow; pip install 'image2sentence[faiss]' and "
            "`image2sentence gallery index` make an index of them",
            f"{len(gallery):,}",
        )
        return
    make_index(gallery)


def open_searcher(gallery: IndexedGallery) -> Searcher:
    """A Searcher over the ready pictures as they are now, with the index file where it serves."""
    file = _usable(gallery)
    if file is None:
        ids, vectors = gallery.vectors()
        return Searcher(ids, vectors, select=ColumnCache(gallery, ids).select)
    with gallery.snapshot():
        pairs = gallery.pairs()
        if file.header.generation == gallery.generation() and np.array_equal(pairs, file.pairs):
            newer = None
        else:
            places, late = _places(file.pairs, pairs)
            newer = gallery.vectors(pairs[late, 0])[1]
    ids = np.ascontiguousarray(pairs[:, 0])
    select = ColumnCache(gallery, ids).select
    if newer is None:
        nearby = Nearby(file.index, None, np.empty(0, np.int64), len(ids))
        return Searcher.over(ids, Rows(file.vectors), file.header.longest, select, nearby)
    longest = max(file.header.longest, float(np.linalg.norm(newer, axis=1).max(initial=0.0)))
    position_of = np.full(len(file.pairs), -1, np.int64)
    position_of[places[~late]] = np.flatnonzero(~late)
    nearby = Nearby(file.index, position_of, np.flatnonzero(late), len(ids))
    return Searcher.over(ids, Rows(file.vectors, newer, places), longest, select, nearby)


def _places(stored: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """For each (picture, content) of now its place in the file, or after it; and which come after it."""
    places = np.minimum(np.searchsorted(stored[:, 0], now[:, 0]), max(len(stored) - 1, 0))
    late = (stored[places] != now).any(axis=1) if len(stored) else np.ones(len(now), bool)
    places[late] = len(stored) + np.arange(int(late.sum()))
    return places, late


def _usable(gallery: IndexedGallery) -> IndexFile | None:
    token = gallery.derived_token(NAME)
    if token is None:
        return None
    file = gallery.folder / NAME
    try:
        _check_owner(gallery, read_header(file), token)
        if faiss_module() is None:
            raise UnusableIndex("FAISS is not installed: pip install 'image2sentence[faiss]'")
        return read_index_file(file)
    except FileNotFoundError:
        reason = "it is missing"
    except UnusableIndex as error:
        reason = str(error)
    _log.warning(
        "%s is not used, %s; searching exactly, which is slower. `image2sentence gallery index` makes it again",
        display_path(file),
        reason,
    )
    return None


def _check_owner(gallery: IndexedGallery, header: Header, token: bytes | None) -> None:
    if (
        header.gallery != gallery.id
        or token is None
        or header.token != token.hex()
        or header.width != gallery.width
    ):
        raise UnusableIndex("it does not belong to this gallery as it is now")
