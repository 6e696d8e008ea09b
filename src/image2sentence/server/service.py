"""What the server answers, without HTTP: a gallery searched, pictures read, thumbnails made."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.config import ModelConfig, Preprocessing
from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.encoders.folder import CONFIG, QUERY_IMAGE, QUERY_TEXT, TOKENIZER
from image2sentence.encoders.guide import PHRASES, VECTORS
from image2sentence.encoders.onnx import Explanation
from image2sentence.errors import Image2SentenceError, ImageError, QueryError
from image2sentence.gallery.filters import ColumnType, Value
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.store import Picture
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


class SearchService:
    """A model and a gallery, held ready for any number of requests. Threads may share it.

    What an indexing run adds or forgets is noticed within a second or so of the next query.

    Args:
        encoder: The model.
        gallery: Stays open as long as the service is used; its owner closes it.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: GalleryStore) -> None:
        self.engine = QueryEngine(encoder, gallery)
        self._encoder = encoder
        self._gallery = gallery
        self._wording = Wording(encoder)
        self._read: Recent[ReadPicture] = Recent(SENTENCES_KEPT)
        self._read_items: Recent[ReadPicture] = Recent(SENTENCES_KEPT)
        self._reading = [threading.Lock() for _ in range(_READING_LOCKS)]
        self._jpegs: Recent[bytes] = Recent(JPEG_BYTES_KEPT, len)
        self._facets: dict[str, Facet] | None = None
        self._looked = time.monotonic()

    def __len__(self) -> int:
        return len(self.engine)

    def prepare(self) -> None:
        """Load the query side of the model, by asking something small. Raises ModelError."""
        self.engine.prepare()

    def check(self) -> None:
        """Raise GalleryError where the gallery cannot be read any more."""
        len(self._gallery)

    # ---- pictures of the gallery ----

    def item(self, number: int) -> Picture:
        """A picture of the gallery. Raises NotThere."""
        (found,) = self._gallery.pictures_of([number]) if number < 2**63 else [None]
        if found is None or found.state != "ready":
            raise NotThere(f"the gallery has no picture {number}")
        return found

    def items(self, k: int, offset: int, where: str | None = None) -> tuple[list[Picture], int]:
        """Up to k pictures in gallery order after the first `offset`, of those that meet a condition; and how many do.

        Raises QueryError where the condition cannot be used.
        """
        ids = self.engine.searcher.ids if where is None else self._gallery.select(where).tolist()
        page = self._gallery.pictures_of([int(str(number)) for number in ids[offset : offset + k]])
        return [picture for picture in page if picture is not None], len(ids)

    def metadata(self, ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture, the values of its columns that are there."""
        return self._gallery.metadata(ids) if self._gallery.columns() else [{} for _ in ids]

    def facets(self) -> dict[str, Facet]:
        """The gallery's columns, and what values they have; looked up once for each state of the gallery."""
        known = self._facets
        if known is None:
            self._facets = known = facets_of(
                self._gallery, [int(str(one)) for one in self.engine.searcher.ids]
            )
        return known

    def columns(self) -> dict[str, ColumnType]:
        """The gallery's metadata columns and their types."""
        return self._gallery.columns()

    def copies(self, sha256: str | None) -> list[int]:
        """Ids of the gallery's pictures with this content (hexadecimal); none for None."""
        content = None if sha256 is None else self._gallery.find_content(bytes.fromhex(sha256))
        return [] if content is None else self._gallery.with_content(content)[:1]

    # ---- references ----

    def known(self, asked: Asked) -> ReadPicture | None:
        """What `read` would give, where it is remembered."""
        if asked.picture is not None:
            return None
        if asked.sentence is None:
            return None if asked.item is None else self._read_items.get(asked.item)
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
                read = self._read_content(self._content(item))
                self._read_items.put(item, read)
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
        """The answer of each query, or its error; see `QueryEngine.rank_many`. To be called from one thread."""
        self._look_for_changes()
        return self.engine.rank_many(queries)

    def device_file(self, name: str) -> bytes:
        """A file of the model folder's query side. Raises NotThere for any other."""
        if name not in DEVICE_FILES or not isinstance(self._encoder, KnowsWords):
            raise NotThere("this is no file of the model's query side")
        folder = self._encoder.folder
        return (folder.path / CONFIG).read_bytes() if name == CONFIG else folder.read(name)

    # ---- pictures to look at ----

    def jpeg_made(self, number: int, side: int) -> bytes | None:
        """What `jpeg` would give, where it has been made lately."""
        return self._jpegs.get((number, side))

    def jpeg(self, number: int, side: int) -> bytes:
        """An item's picture as JPEG without metadata, its longer side at most `side` pixels.

        Raises:
            NotThere: an unknown item, or one whose file is gone or damaged.
        """
        try:
            picture = decode_image(self._content(number), at_least=side).picture
        except ImageError as error:
            raise NotThere(f"picture {number} cannot be shown: {error}") from error
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
        made = buffer.getvalue()
        self._jpegs.put((number, side), made)
        return made

    def _look_for_changes(self) -> None:
        if time.monotonic() - self._looked < LOOKS_FOR_CHANGES:
            return
        if self.engine.refresh():
            self._facets = None
            self._read_items.clear()
            self._jpegs.clear()
        self._looked = time.monotonic()

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

    def _content(self, number: int) -> bytes:
        """The file of an item. Why a local file cannot be read holds no path; what a store says may, and stays here."""
        picture = self.item(number)
        try:
            return read_picture(picture)
        except ImageError as error:
            if isinstance(picture.path, Path):
                raise NotThere(f"picture {number} cannot be read: {error}") from error
            _log.warning("picture %d: %s", number, error)
            raise NotThere(f"picture {number} cannot be read where it is kept") from error

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
