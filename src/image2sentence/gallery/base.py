"""Interface of a gallery, and what its backends share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import GalleryError, QueryError
from image2sentence.gallery.filters.language import ColumnType, Filter, Value
from image2sentence.gallery.locations import Identity, Place
from image2sentence.gallery.records import Content, FileEntry, KnownFile, Picture
from image2sentence.gallery.search.base import VectorSearch

if TYPE_CHECKING:
    from image2sentence.gallery.sqlite.index import IndexState

Self = TypeVar("Self", bound="GalleryStore")
Own = TypeVar("Own", bound="BaseGallery")


class GalleryStore(Protocol):
    """A gallery: `Gallery` in a folder, `MilvusGallery` in a database.

    Every method may raise GalleryError: the store is damaged, gone, or cannot be reached. What each promises
    beyond its line here is said where `Gallery` has it.
    """

    @property
    def name(self) -> str:
        """The folder or address, without secrets, ready to be shown."""
        ...

    @property
    def own_folder(self) -> Path | None:
        """The folder or file that it takes up on this machine, which holds no pictures to index."""
        ...

    @property
    def keeps_contents(self) -> bool:
        """Whether contents stay, without a picture too, until the next `delete`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the vector space."""
        ...

    @property
    def width(self) -> int:
        """Width d of the vectors."""
        ...

    @property
    def created(self) -> str:
        """Time of creation, ISO 8601."""
        ...

    @property
    def id(self) -> str:
        """Tells it from a gallery that was in the same place before; empty for folders of format 1."""
        ...

    @property
    def readonly(self) -> bool:
        """Whether it was opened for reading only."""
        ...

    def __len__(self) -> int: ...

    def __enter__(self: Self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Let another writer in; calling again does nothing."""
        ...

    def require(self, fingerprint: str, width: int | None = None) -> None:
        """Raise GalleryError unless the gallery was made with this encoder."""
        ...

    # What is there

    def roots(self) -> dict[int, Place]:
        """The places that were indexed, by id."""
        ...

    def pictures(self, state: str | None = None) -> list[Picture]:
        """All pictures by id, or those in one state."""
        ...

    def picture(self, picture_id: int) -> Picture:
        """The picture with this id. Raises QueryError when there is none."""
        ...

    def pictures_of(self, picture_ids: Sequence[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for those that are not there (any more)."""
        ...

    def find_content(self, sha256: bytes) -> int | None:
        """Id of the content with this SHA-256, None when the gallery does not hold it."""
        ...

    def with_content(self, content: int) -> list[int]:
        """Ids of the ready pictures that have this content, ascending."""
        ...

    def hashes_of(self, picture_ids: Sequence[int]) -> list[bytes | None]:
        """SHA-256 of the content of each of these pictures."""
        ...

    def verify(self) -> None:
        """Check everything that can be checked; raises GalleryError at the first damage."""
        ...

    def generation(self) -> int:
        """A number that grows with every change."""
        ...

    def snapshot(self) -> AbstractContextManager[object]:
        """Reads inside it see one state of the gallery, where the backend can promise that."""
        ...

    def file_identity(self) -> Identity | None:
        """Device and inode of the gallery's file; None where it is no file."""
        ...

    # Searching

    def refresh_index(self) -> None:
        """Make the approximate index where one is needed and is not made by the backend itself."""
        ...

    def index_state(self, *, thorough: bool = False) -> IndexState | None:
        """Whether there is an index file that serves; None where the backend looks after its index."""
        ...

    def searcher(self) -> VectorSearch:
        """What ranks the ready pictures; its ids are the pictures' ids."""
        ...

    def vectors(self) -> tuple[NDArray[np.int64], Vectors]:
        """Ids (n,) and vectors (n, d) float32 of the ready pictures, by id."""
        ...

    def columns(self) -> dict[str, ColumnType]:
        """The metadata columns and their types."""
        ...

    def select(self, where: str | Filter) -> NDArray[np.int64]:
        """Ascending ids of the ready pictures that a filter holds for. Raises QueryError."""
        ...

    def metadata(self, picture_ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture's id, the values that are there by column."""
        ...

    def find_words(self, words: Sequence[str], most: int) -> dict[str, NDArray[np.int64]]:
        """Ascending ids of the pictures in whose name or text metadata a word is, for words that up to `most` have."""
        ...

    # Writing

    def known(self, root: int) -> dict[str, KnownFile]:
        """What is known of the files below a root, by path relative to it."""
        ...

    def gone(self, root: int) -> dict[int, deque[int]]:
        """Ready pictures of other roots that no longer exist: content id -> picture ids."""
        ...

    def add_root(self, folder: Place) -> int:
        """The id of an indexed place, new or known."""
        ...

    def move_root(self, root: int, into: int, prefix: str) -> None:
        """Make a root's pictures those of another one, at `prefix` below it; ids and metadata stay.

        The other root must not know a file of any of the new paths. Afterwards the root is no more.
        """
        ...

    def remove_root(self, root: int) -> None:
        """Forget a root that has no pictures."""
        ...

    def commit(self, root: int, contents: Sequence[Content], entries: Sequence[FileEntry]) -> None:
        """Write contents and the entries that refer to them."""
        ...

    def notes(self, kind: str) -> dict[str, Any]:
        """The notes of a kind by name: JSON values that are no pictures' metadata."""
        ...

    def set_notes(self, kind: str, values: Mapping[str, Any]) -> None:
        """Set notes of a kind by name; None takes one away."""
        ...

    def delete(self, pictures: Sequence[int]) -> None:
        """Forget pictures."""
        ...

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Make the metadata columns that are not there yet. Raises DataError."""
        ...

    def change_column(
        self, name: str, kind: ColumnType | None, values: Iterable[tuple[int, Value | None]]
    ) -> None:
        """Give a column another type (None: take it away), and pictures these values of it. Raises DataError."""
        ...

    def set_metadata(self, rows: Iterable[tuple[int, Mapping[str, Value | None]]]) -> int:
        """Set metadata of pictures (None takes a value away); gives how many changed. Raises DataError."""
        ...


class BaseGallery(ABC):
    """What the backends have in common."""

    fingerprint: str
    width: int
    place: ClassVar[str]
    """What holds one gallery: a folder, or a collection of a database."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The folder or address, without secrets, ready to be shown."""

    @abstractmethod
    def pictures_of(self, picture_ids: Sequence[int]) -> list[Picture | None]:
        """The pictures with these ids, in their order; None for those that are not there (any more)."""

    @abstractmethod
    def close(self) -> None:
        """Let another writer in; calling again does nothing."""

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def require(self, fingerprint: str, width: int | None = None) -> None:
        """Raise GalleryError unless the gallery was made with this encoder."""
        if fingerprint != self.fingerprint or (width is not None and width != self.width):
            raise GalleryError(
                f"the gallery {self.name} was made with the encoder {self.fingerprint} "
                f"(vectors of width {self.width}), not with {fingerprint}"
                f"{'' if width is None else f' (width {width})'}: "
                f"use that model, or index the pictures into another {self.place}"
            )

    def required(self: Own, fingerprint: str, width: int) -> Own:
        """This gallery, if it was made with this encoder; else it is closed. Raises GalleryError as `require`."""
        try:
            self.require(fingerprint, width)
        except GalleryError:
            self.close()
            raise
        return self

    def picture(self, picture_id: int) -> Picture:
        """The picture with this id. Raises QueryError when there is none, GalleryError where damaged."""
        (found,) = self.pictures_of([picture_id])
        if found is None:
            raise QueryError(f"the gallery {self.name} has no picture {picture_id}")
        return found

    def snapshot(self) -> AbstractContextManager[object]:
        """See `GalleryStore.snapshot`: nothing is promised."""
        return nullcontext()

    def file_identity(self) -> Identity | None:
        """See `GalleryStore.file_identity`: it is no file."""
        return None

    def find_words(self, words: Sequence[str], most: int) -> dict[str, NDArray[np.int64]]:
        """See `GalleryStore.find_words`: the backend keeps no words."""
        return {}

    def refresh_index(self) -> None:
        """See `GalleryStore.refresh_index`: the backend looks after its index."""
        return

    def index_state(self, *, thorough: bool = False) -> IndexState | None:
        """See `GalleryStore.index_state`: the backend looks after its index."""
        return None


def duplicates(gallery: GalleryStore) -> list[list[Picture]]:
    """Groups of pictures whose files have the same content, each by id; those that waste most bytes first.

    Raises:
        GalleryError: the gallery is damaged or cannot be reached.
    """
    groups: dict[int | None, list[Picture]] = {}
    for picture in gallery.pictures("ready"):
        groups.setdefault(picture.content_id, []).append(picture)
    repeated = [group for group in groups.values() if len(group) > 1]
    return sorted(repeated, key=lambda group: (-wasted(group), group[0].id))


def wasted(group: list[Picture]) -> int:
    """Bytes that the copies take beside the first."""
    return sum(max(picture.size, 0) for picture in group[1:])
