"""What the server answers, without HTTP: a gallery searched, pictures read, thumbnails made."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import threading
import time
import weakref
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.config import ModelConfig, Preprocessing
from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.encoders.folder import CONFIG, QUERY_IMAGE, QUERY_TEXT, TOKENIZER
from image2sentence.encoders.guide import PHRASES, VECTORS
from image2sentence.encoders.onnx import Explanation
from image2sentence.errors import GalleryError, Image2SentenceError, ImageError, QueryError
from image2sentence.gallery.filters import ColumnType, Value
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.store import DATABASE, Gallery, Picture
from image2sentence.images import decode_image
from image2sentence.places import read_picture
from image2sentence.query import Answer, KnowsWords, Query, QueryEngine, Reference
from image2sentence.server.facets import Facet, facets_of
from image2sentence.server.recent import Recent
from image2sentence.server.wording import NearWord, Wording

UPLOAD_PIXELS = 64_000_000
"""Largest picture that a stranger may have decoded."""

SENTENCES_KEPT = 1_024
JPEG_BYTES_KEPT = 64 << 20
LOOKS_FOR_CHANGES = 1.0
"""Seconds between looks at whether the gallery has changed."""

NEAR_WORDS = 5
DEVICE_FILES = frozenset({CONFIG, TOKENIZER, QUERY_IMAGE, QUERY_TEXT, PHRASES, VECTORS})
"""The query side of a model folder: what a browser needs to encode a query itself."""

_QUALITY = 85
_READING_LOCKS = 64
_log = logging.getLogger("image2sentence.server")
_WHOLE = (0.0, 0.0, 1.0, 1.0)

FileId: TypeAlias = tuple[int, int]


class NotThere(QueryError):
    """Something that the server does not have, cannot show, or no longer remembers."""


class Asked(NamedTuple):
    """The reference of a query, at most one of: a file's content, an item's id, a sentence remembered."""

    picture: bytes | None = None
    item: int | None = None
    sentence: str | None = None


@dataclass(frozen=True)
class ReadPicture:
    """A picture as the model has read it.

    Attributes:
        name: SHA-256 of the file's content, 64 hexadecimal digits.
        sentence: (1, L, w) float32.
        attention: (L, H, W) float32 maps that sum to 1; None where the encoder cannot tell.
        gates: (L,) float32, 0 to 1; None where the encoder cannot tell.
        region: Left, top, width and height of what the maps cover, in parts (0 to 1) of the upright picture.
    """

    name: str
    sentence: Vectors
    attention: Vectors | None
    gates: Vectors | None
    region: tuple[float, float, float, float]

    def reference(self, item: int | None = None, muted: Collection[int] = ()) -> Reference | None:
        """Its sentence without the pseudo-words of these numbers (from 1), to ask with; None where none is left.

        Raises QueryError where it has no pseudo-word of such a number.
        """
        words = len(self.sentence[0])
        if any(number > words for number in muted):
            raise QueryError(f"muted: the sentence has {words} pseudo-words, numbered from 1")
        kept = [row for row in range(words) if row + 1 not in muted]
        if not kept:
            return None
        return Reference(sentence=self.sentence[0, kept], item=item, sha256=bytes.fromhex(self.name))


@runtime_checkable
class Explains(Protocol):
    """An encoder that can tell where each pseudo-word looks."""

    config: ModelConfig

    def explain(self, image: Image.Image) -> Explanation:
        """One RGB picture's sentence with its attention maps and gates."""
        ...


class Holding:
    """A gallery and what is remembered of it: left as a whole where another gallery has come to its place.

    Args:
        encoder: The model.
        gallery: Open.
        file: Which file the gallery was opened from, as `_file_of` tells.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: GalleryStore, file: FileId | None) -> None:
        self.engine = QueryEngine(encoder, gallery)
        self.gallery = gallery
        self.file = file
        self.read_items: Recent[ReadPicture] = Recent(SENTENCES_KEPT)
        self.jpegs: Recent[bytes] = Recent(JPEG_BYTES_KEPT, len)
        self.facets: dict[str, Facet] | None = None

    def refresh(self) -> None:
        """Notice what an indexing run has changed in this gallery."""
        if self.engine.refresh():
            self.facets = None
            self.read_items.clear()
            self.jpegs.clear()


class SearchService:
    """A model and a gallery, held ready for any number of requests. Threads may share it.

    What an indexing run adds or forgets is noticed within a second or so of the next query, and so is another gallery
    in the same folder, which is then opened in place of the first.

    Args:
        encoder: The model.
        gallery: Stays open as long as the service is used; its owner closes it. The service closes it, too, once
            another has taken its place.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: GalleryStore) -> None:
        self._encoder = encoder
        self._held = Holding(encoder, gallery, _file_of(gallery))
        self._turn = threading.RLock()
        self._wording = Wording(encoder)
        self._read: Recent[ReadPicture] = Recent(SENTENCES_KEPT)
        self._reading = [threading.Lock() for _ in range(_READING_LOCKS)]
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self.engine)

    @property
    def engine(self) -> QueryEngine:
        """What ranks the gallery that is held now."""
        return self._held.engine

    def prepare(self) -> None:
        """Load the query side of the model, by asking something small. Raises ModelError."""
        self.engine.prepare()

    def check(self) -> None:
        """Raise GalleryError where the gallery cannot be read any more."""
        self._follow()
        len(self._held.gallery)

    # ---- pictures of the gallery ----

    def item(self, number: int) -> Picture:
        """A picture of the gallery. Raises NotThere."""
        return _ready(self._held.gallery, number)

    def items(self, k: int, offset: int, where: str | None = None) -> tuple[list[Picture], int]:
        """Up to k pictures in gallery order after the first `offset`, of those that meet a condition; and how many do.

        Raises QueryError where the condition cannot be used.
        """
        self._follow()
        held = self._held
        ids = held.engine.searcher.ids if where is None else held.gallery.select(where).tolist()
        page = held.gallery.pictures_of([int(str(number)) for number in ids[offset : offset + k]])
        return [picture for picture in page if picture is not None], len(ids)

    def metadata(self, ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture, the values of its columns that are there."""
        gallery = self._held.gallery
        return gallery.metadata(ids) if gallery.columns() else [{} for _ in ids]

    def facets(self) -> dict[str, Facet]:
        """The gallery's columns, and what values they have; looked up once for each state of the gallery."""
        self._follow()
        held = self._held
        known = held.facets
        if known is None:
            ids = [int(str(one)) for one in held.engine.searcher.ids]
            held.facets = known = facets_of(held.gallery, ids)
        return known

    def columns(self) -> dict[str, ColumnType]:
        """The gallery's metadata columns and their types."""
        return self._held.gallery.columns()

    def copies(self, sha256: str | None) -> list[int]:
        """Ids of the gallery's pictures with this content (hexadecimal); none for None."""
        gallery = self._held.gallery
        content = None if sha256 is None else gallery.find_content(bytes.fromhex(sha256))
        return [] if content is None else gallery.with_content(content)[:1]

    # ---- references ----

    def known(self, asked: Asked) -> ReadPicture | None:
        """What `read` would give, where it is remembered."""
        if asked.picture is not None:
            return None
        if asked.sentence is None:
            return None if asked.item is None else self._held.read_items.get(asked.item)
        return self._read.get(asked.sentence) if asked.item is None else None

    def read(self, asked: Asked) -> ReadPicture:
        """The reference as the model reads it; computed once for each content, while it is remembered.

        Raises:
            QueryError: not exactly one reference.
            NotThere: an unknown item, one whose file is gone, or a sentence no longer remembered.
            ImageError: the picture cannot be read.
        """
        match asked:
            case Asked(None, None, str(sentence)):
                return self._remembered(sentence)
            case Asked(None, int(item), None):
                held = self._held
                read = self._read_content(_content(held.gallery, item))
                held.read_items.put(item, read)
                return read
            case Asked(bytes(data), None, None):
                return self._read_content(data)
            case _:
                raise QueryError("expected one reference: a picture, an item's id, or a sentence's name")

    def near_words(self, read: ReadPicture) -> list[list[NearWord]]:
        """For each pseudo-word the real words nearest in meaning; empty for encoders that do not tell their words."""
        return self._wording.nearest(read.sentence, NEAR_WORDS)

    def learn_words(self) -> None:
        """Compute what `near_words` needs, which it would otherwise do when first asked."""
        self._wording.prepare()

    # ---- queries ----

    def rank_many(self, queries: Sequence[Query]) -> list[Answer | Image2SentenceError]:
        """The answer of each query, or its error; see `QueryEngine.rank_many`. To be called from one thread.

        Raises GalleryError where the gallery has gone, or another that cannot be used is in its place.
        """
        with self._turn:
            self._look_for_changes()
            return self.engine.rank_many(queries)

    def unchanged(self) -> AbstractContextManager[object]:
        """Inside, only this thread looks for changes, so that what is asked in turn is of one gallery."""
        return self._turn

    def device_file(self, name: str) -> bytes:
        """A file of the model folder's query side. Raises NotThere for any other."""
        if name not in DEVICE_FILES or not isinstance(self._encoder, KnowsWords):
            raise NotThere("this is no file of the model's query side")
        folder = self._encoder.folder
        return (folder.path / CONFIG).read_bytes() if name == CONFIG else folder.read(name)

    # ---- pictures to look at ----

    def jpeg_made(self, number: int, side: int) -> bytes | None:
        """What `jpeg` would give, where it has been made lately."""
        return self._held.jpegs.get((number, side))

    def jpeg(self, number: int, side: int) -> bytes:
        """An item's picture as JPEG without metadata, its longer side at most `side` pixels.

        Raises:
            NotThere: an unknown item, or one whose file is gone or damaged.
        """
        held = self._held
        try:
            picture = decode_image(_content(held.gallery, number), at_least=side).picture
        except ImageError as error:
            raise NotThere(f"picture {number} cannot be shown: {error}") from error
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
        made = buffer.getvalue()
        held.jpegs.put((number, side), made)
        return made

    def _look_for_changes(self) -> None:
        if time.monotonic() - self._looked < LOOKS_FOR_CHANGES:
            return
        self._follow()
        self._held.refresh()
        self._looked = time.monotonic()

    def _follow(self) -> None:
        """Open the gallery that is now where the held one was. Raises GalleryError where there is none to be used."""
        if _file_of(self._held.gallery) == self._held.file:
            return
        with self._turn:
            held = self._held
            file = _file_of(held.gallery)  # asked before opening, so that no later file passes for this one
            if file == held.file or not isinstance(held.gallery, Gallery):
                return
            opened = Gallery.open(held.gallery.folder, fingerprint=self._encoder.fingerprint)
            try:
                self._held = Holding(self._encoder, opened, file)
            except GalleryError:
                opened.close()
                raise
            for one in (held, self._held):  # closed when no thread reads from it any more
                weakref.finalize(one, one.gallery.close)
            _log.warning("another gallery is in %s: it is served from now on", held.gallery.name)

    def _read_content(self, data: bytes) -> ReadPicture:
        digest = hashlib.sha256(data)
        with self._reading[digest.digest()[0] % _READING_LOCKS]:
            known = self._read.get(digest.hexdigest())
            if known is None:
                known = self._encoded(digest.hexdigest(), data)
                self._read.put(known.name, known)
        return known

    def _remembered(self, name: str) -> ReadPicture:
        known = self._read.get(name)
        if known is None:
            raise NotThere("this sentence is no longer remembered: send the picture again")
        return known

    def _encoded(self, name: str, data: bytes) -> ReadPicture:
        try:
            picture = decode_image(data, max_pixels=UPLOAD_PIXELS, at_least=AT_LEAST).picture
        except ImageError as error:
            raise ImageError(f"the picture cannot be used: {error}") from error
        if not isinstance(self._encoder, Explains):
            return ReadPicture(name, self._encoder.encode_sentences([picture]), None, None, _WHOLE)
        told = self._encoder.explain(picture)
        region = covered(picture.size, self._encoder.config.query_preprocessing)
        return ReadPicture(name, told.tokens[None], told.attention, told.gates, region)


def _file_of(gallery: GalleryStore) -> FileId | None:
    """Device and inode of the file where a gallery in a folder lies; None for other galleries.

    Another file cannot have the same as long as the gallery is open. Raises GalleryError where there is none.
    """
    if not isinstance(gallery, Gallery):
        return None
    try:
        status = os.stat(gallery.folder / DATABASE)
    except OSError as error:
        raise GalleryError(
            f"the gallery in {gallery.name} cannot be reached any more ({error.strerror}): put it back, or index the "
            "pictures again"
        ) from error
    return status.st_dev, status.st_ino


def _ready(gallery: GalleryStore, number: int) -> Picture:
    """A picture that can be found. Raises NotThere."""
    (found,) = gallery.pictures_of([number])
    if found is None or found.state != "ready":
        raise NotThere(f"the gallery has no picture {number}")
    return found


def _content(gallery: GalleryStore, number: int) -> bytes:
    """The file of an item. Why a local file cannot be read holds no path; what a store says may, and stays here."""
    picture = _ready(gallery, number)
    try:
        return read_picture(picture)
    except ImageError as error:
        if isinstance(picture.path, Path):
            raise NotThere(f"picture {number} cannot be read: {error}") from error
        _log.warning("picture %d: %s", number, error)
        raise NotThere(f"picture {number} cannot be read where it is kept") from error


def vector_of(data: bytes) -> NDArray[np.float32]:
    """(d,) float32 from its little-endian bytes. Raises QueryError where they are not whole, finite numbers."""
    vector = np.frombuffer(data, "<f4").astype(np.float32) if len(data) % 4 == 0 else np.empty(0, np.float32)
    if not len(vector) or not np.isfinite(vector).all():
        raise QueryError("vector: expected finite little-endian float32 numbers")
    return vector


def covered(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Left, top, width and height of what the query encoder sees, in parts of a picture of this size."""
    if preprocessing.fit == "squash":
        return _WHOLE
    width, height = (min(size) / side for side in size)
    return (1 - width) / 2, (1 - height) / 2, width, height
