"""Search service without HTTP: queries, pictures, thumbnails."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.config import ModelConfig, Preprocessing
from image2sentence.encoders.model_folder import CONFIG, FALLBACK, QUERY_IMAGE, QUERY_TEXT, TOKENIZER
from image2sentence.encoders.onnx_encoder import Explanation
from image2sentence.encoders.phrase_guide import PHRASES, VECTORS
from image2sentence.encoders.protocols import Encoder, SupportsMemory, Vectors
from image2sentence.encoders.scope import AboutModel, about_model
from image2sentence.errors import Image2SentenceError, ImageError, QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.facts import facts_asked
from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.gallery.locations import Place, place_name, read_picture
from image2sentence.gallery.opening import open_gallery
from image2sentence.gallery.records import Picture
from image2sentence.images import MIN_DECODE_SIDE, DecodeLimits, DecodersBusyError, own_pool, untrusted_pool
from image2sentence.images.pool import UNTRUSTED_MEMORY
from image2sentence.lru_cache import LruCache
from image2sentence.query import Answer, KnowsWords, Query, QueryEngine
from image2sentence.server.admission import Busy
from image2sentence.server.facets import Facet, counted, facets_of, matching
from image2sentence.server.gallery_session import SENTENCES_KEPT, GallerySession, ReadPicture
from image2sentence.server.nearest_words import NearestWords, NearWord
from image2sentence.server.sentence_phrases import Reading, SentencePhrases
from image2sentence.server.sorting import sorted_ids
from image2sentence.server.thumbnails import Thumbnails, make_ahead

UPLOAD_PIXELS = 64_000_000
"""Largest picture that a stranger may have decoded."""

UPLOADS = DecodeLimits(UPLOAD_PIXELS, UNTRUSTED_MEMORY, seconds=5.0)
"""What decoding a stranger's picture may take."""
LOOKS_FOR_CHANGES = 1.0
"""Seconds between looks at whether the gallery has changed."""
THUMBNAIL_SIDE = 384

NEAR_WORDS = 5
DEVICE_FILES = frozenset({CONFIG, TOKENIZER, QUERY_IMAGE, QUERY_TEXT, PHRASES, VECTORS, FALLBACK})
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


@runtime_checkable
class Explains(Protocol):
    """An encoder that can tell where each pseudo-word looks."""

    config: ModelConfig

    def explain(self, image: Image.Image) -> Explanation:
        """One RGB picture's sentence with its attention maps and gates."""
        ...


class SearchService:
    """A model and a gallery, held ready for any number of requests. Threads may share it.

    What an indexing run adds or forgets is noticed within a second or so of the next query, and so is another gallery
    in the same folder, which is then opened in place of the first.

    Args:
        encoder: The model.
        gallery: Stays open as long as the service is used; its owner closes it. The service closes it, too, once
            another has taken its place.
        uploads: What decoding a stranger's picture may take.
        encoder_of: Gives the encoder of a vector space, by its fingerprint, for a gallery of another space that comes
            to the first one's place; None: such a gallery is refused.
        thumbnails: Where thumbnails are kept on disk; its owner closes it. None to keep them in memory only.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(
        self,
        encoder: Encoder,
        gallery: GalleryStore,
        uploads: DecodeLimits = UPLOADS,
        encoder_of: Callable[[str], Encoder] | None = None,
        thumbnails: Thumbnails | None = None,
    ) -> None:
        self._uploads, self._encoder_of, self._thumbnails = uploads, encoder_of, thumbnails
        self._use(encoder)
        self._session = GallerySession(encoder, gallery, gallery.file_identity())
        self._lock = threading.RLock()
        self._reading = [threading.Lock() for _ in range(_READING_LOCKS)]
        self._looked = time.monotonic()

    def _use(self, encoder: Encoder) -> None:
        self._encoder = encoder
        if isinstance(encoder, SupportsMemory):
            encoder.remember_texts(2 * SENTENCES_KEPT)  # of sentences alone, and of words alone
        self.about_model: AboutModel | None = about_model(encoder)
        self._nearest_words = NearestWords(encoder)
        self._phrases = SentencePhrases(encoder)
        self._readings: LruCache[Reading] = LruCache(SENTENCES_KEPT)
        self._read: LruCache[ReadPicture] = LruCache(SENTENCES_KEPT)

    def __len__(self) -> int:
        return len(self.engine)

    @property
    def engine(self) -> QueryEngine:
        """What ranks the gallery that is in use now."""
        return self._session.engine

    def roots(self) -> list[Place]:
        """The places that were indexed."""
        return list(self._session.gallery.roots().values())

    def prepare(self) -> None:
        """Load the query side of the model. Raises ModelError."""
        self.engine.prepare()

    def check(self) -> None:
        """Raise GalleryError where the gallery cannot be read any more."""
        self._follow()
        len(self._session.gallery)

    # ---- pictures of the gallery ----

    def item(self, picture_id: int) -> Picture:
        """A picture of the gallery. Raises NotThere."""
        return _ready(self._session.gallery, picture_id)

    def items(
        self, k: int, offset: int, where: str | None = None, sort: str | None = None, descending: bool = False
    ) -> tuple[list[Picture], int]:
        """Up to k pictures after the first `offset`, of those that meet a condition; and how many do.

        They come in gallery order, or in that of a column or fact, see `sorted_ids`. Raises QueryError where the
        condition cannot be used, or there is no such column.
        """
        self._look()
        session = self._session
        ids = self._ordered(session, where, sort, descending)
        page = session.gallery.pictures_of([int(str(picture_id)) for picture_id in ids[offset : offset + k]])
        return [picture for picture in page if picture is not None], len(ids)

    def _ordered(
        self, session: GallerySession, where: str | None, sort: str | None, descending: bool
    ) -> Sequence[Hashable] | NDArray[np.int64]:
        searcher = session.engine.searcher
        if sort is None:
            return searcher.ids if where is None else searcher.select(where).tolist()
        key = (where, sort, descending)
        order = session.orders.get(key)
        if order is None:
            ids = searcher.ids if where is None else searcher.select(where).tolist()
            order = sorted_ids(session.gallery, [int(str(one)) for one in ids], sort, descending=descending)
            session.orders.put(key, order)
        return order

    def values(self, column: str, wanted: str, k: int) -> tuple[list[tuple[Value, int]], int]:
        """Up to k values of a column that hold a text, with how often they come; and how many different ones there are.

        Raises QueryError where there is no such column.
        """
        self._look()
        session = self._session
        if column not in session.gallery.columns():
            raise QueryError(f"there is no column {column!r}")
        counts = session.counts.get(column)
        if counts is None:
            ids = [int(str(one)) for one in session.engine.searcher.ids]
            session.counts.put(column, counts := counted(session.gallery, ids, column))
        return matching(counts, wanted, k), len(counts)

    def check_where(self, where: str | None) -> None:
        """Raise QueryError where a filter asks for places, which its client may not see."""
        asked = (
            set()
            if where is None
            else {"path", "folder"} & facts_asked(where, self._session.gallery.columns())
        )
        if asked:
            raise QueryError(
                f"this server does not tell the {asked.pop()} of pictures; its owner may: --show-paths"
            )

    def metadata(self, ids: Sequence[int]) -> list[dict[str, Value]]:
        """For each picture, the values of its columns that are there."""
        gallery = self._session.gallery
        return gallery.metadata(ids) if gallery.columns() else [{} for _ in ids]

    def facets(self) -> dict[str, Facet]:
        """The gallery's columns, and what values they have; looked up once for each state of the gallery."""
        self._look()
        session = self._session
        known = session.facets
        if known is None:
            ids = [int(str(one)) for one in session.engine.searcher.ids]
            session.facets = known = facets_of(session.gallery, ids)
        return known

    def columns(self) -> dict[str, ColumnType]:
        """The gallery's metadata columns and their types."""
        return self._session.gallery.columns()

    def vector(self, picture_id: int) -> Vectors:
        """(d,) float32: a picture's vector in the gallery. Raises NotThere."""
        session = self._session
        _ready(session.gallery, picture_id)
        try:
            return np.asarray(session.engine.searcher.vectors_of([picture_id])[0], np.float32)
        except QueryError as error:  # indexed or forgotten since the vectors were read
            raise NotThere(f"the gallery has no picture {picture_id}") from error

    def original(self, picture_id: int) -> tuple[str, bytes]:
        """Name and content of a picture's file, as it is. Raises NotThere."""
        gallery = self._session.gallery
        return place_name(_ready(gallery, picture_id).path), _content(gallery, picture_id)

    def copies(self, digests: Sequence[str]) -> list[int]:
        """The id of one of the gallery's pictures with each of these contents (SHA-256, hexadecimal), if any."""
        gallery = self._session.gallery
        contents = [gallery.find_content(bytes.fromhex(digest)) for digest in digests]
        return [copy for one in contents if one is not None for copy in gallery.with_content(one)[:1]]

    # ---- references ----

    def known(self, asked: Asked) -> ReadPicture | None:
        """What `read` would give, where it is remembered."""
        if asked.picture is not None:
            return None
        if asked.sentence is None:
            return None if asked.item is None else self._session.read_items.get(asked.item)
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
                session = self._session
                read = self._read_content(_content(session.gallery, item), _own(session.gallery, item))
                session.read_items.put(item, read)
                return read
            case Asked(bytes(data), None, None):
                return self._read_content(data)
            case _:
                raise QueryError("expected one reference: a picture, an item's id, or a sentence's name")

    def near_words(self, read: ReadPicture) -> list[list[NearWord]]:
        """For each pseudo-word the real words nearest in meaning; empty for encoders that do not tell their words."""
        return self._nearest_words.nearest(read.sentence, NEAR_WORDS) if read.attention is not None else []

    def reading(self, read: ReadPicture) -> Reading:
        """Phrases that the whole sentence is near to, and what each pseudo-word adds."""
        known = self._readings.get(read.name)
        if known is None:
            known = self._phrases.read(read.sentence)
            self._readings.put(read.name, known)
        return known

    def learn_words(self) -> None:
        """Compute what `near_words` needs, which it would otherwise do when first asked."""
        if isinstance(self._encoder, Explains):
            self._nearest_words.prepare()

    def interrupt(self) -> None:
        """End what is being decoded; whoever waits for it gets an error."""
        untrusted_pool().interrupt()
        own_pool().interrupt()

    # ---- queries ----

    def rank_many(self, queries: Sequence[Query]) -> list[Answer | Image2SentenceError]:
        """The answer of each query, or its error; see `QueryEngine.rank_many`. To be called from one thread.

        Raises GalleryError where the gallery has gone, or another that cannot be used is in its place.
        """
        with self._lock:
            self._look_for_changes()
            return self.engine.rank_many(queries)

    @property
    def has_light_side(self) -> bool:
        """Whether the model has graphs of the query side that a browser can run."""
        return isinstance(self._encoder, KnowsWords) and QUERY_IMAGE in self._encoder.folder.config.files

    def device_file(self, name: str) -> bytes:
        """A file of the model folder's query side. Raises NotThere for any other."""
        if name not in DEVICE_FILES or not self.has_light_side or not isinstance(self._encoder, KnowsWords):
            raise NotThere("this is no file of the model's query side")
        folder = self._encoder.folder
        return (folder.path / CONFIG).read_bytes() if name == CONFIG else folder.read(name)

    # ---- pictures to look at ----

    def jpeg_made(self, picture_id: int, side: int) -> bytes | None:
        """What `jpeg` would give, where it has been made lately."""
        return self._session.jpegs.get((picture_id, side))

    def jpeg(self, picture_id: int, side: int) -> bytes:
        """An item's picture as JPEG without metadata, its longer side at most `side` pixels.

        Raises:
            NotThere: an unknown item, or one whose file is gone or damaged.
        """
        session = self._session
        on_disk = self._thumbnails if side == THUMBNAIL_SIDE else None
        if on_disk is not None and (kept := on_disk.of(session.gallery, picture_id)) is not None:
            session.jpegs.put((picture_id, side), kept)
            return kept
        try:
            content, limits = _content(session.gallery, picture_id), _own(session.gallery, picture_id)
            picture = own_pool().decode(content, at_least=side, limits=limits).picture
        except ImageError as error:
            raise NotThere(f"picture {picture_id} cannot be shown: {error}") from error
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY)
        made = buffer.getvalue()
        session.jpegs.put((picture_id, side), made)
        if on_disk is not None:
            on_disk.put(hashlib.sha256(content).digest(), made)
        return made

    def make_thumbnails(self, stop: threading.Event, is_busy: Callable[[], bool]) -> None:
        """Make the gallery's thumbnails ahead, in its order; see `make_ahead`."""
        if self._thumbnails is not None:
            ids = [int(str(one)) for one in self._session.engine.searcher.ids]
            make, gallery = partial(self.jpeg, side=THUMBNAIL_SIDE), self._session.gallery
            make_ahead(self._thumbnails, gallery, ids, make, stop, is_busy)

    def _look(self) -> None:
        """Notice changes, where no query that runs will."""
        self._follow()
        if self._lock.acquire(blocking=False):
            try:
                self._look_for_changes()
            finally:
                self._lock.release()

    def _look_for_changes(self) -> None:
        if time.monotonic() - self._looked < LOOKS_FOR_CHANGES:
            return
        self._follow()
        self._session.refresh()
        self._looked = time.monotonic()

    def _follow(self) -> None:
        """Open the gallery that is now where the one in use was. Raises GalleryError where there is none to be used."""
        if self._session.gallery.file_identity() == self._session.file:
            return
        with self._lock:
            session = self._session
            file = session.gallery.file_identity()  # before opening: no later file passes for this one
            folder = session.gallery.own_folder
            if file == session.file or folder is None:
                return
            opened = open_gallery(folder)
            encoder = self._encoder
            try:
                if self._encoder_of is not None and opened.fingerprint != encoder.fingerprint:
                    encoder = self._encoder_of(opened.fingerprint)
                self._session = GallerySession(encoder, opened, file)
            except Image2SentenceError:
                opened.close()
                raise
            if encoder is not self._encoder:
                self._use(encoder)
            for one in (session, self._session):  # closed when no thread reads from it any more
                weakref.finalize(one, one.gallery.close)
            _log.warning("another gallery is in %s: it is served from now on", session.gallery.name)

    def _read_content(self, data: bytes, own: DecodeLimits | None = None) -> ReadPicture:
        """A content as the model reads it; `own`: the limits of the gallery's own pictures, None for an upload."""
        digest = hashlib.sha256(data)
        with self._reading[digest.digest()[0] % _READING_LOCKS]:
            known = self._read.get(digest.hexdigest())
            if known is None:
                known = self._encoded(digest.hexdigest(), data, own)
                self._read.put(known.name, known)
        return known

    def _remembered(self, name: str) -> ReadPicture:
        known = self._read.get(name)
        if known is None:
            raise NotThere("this sentence is no longer remembered: send the picture again")
        return known

    def _encoded(self, name: str, data: bytes, own: DecodeLimits | None) -> ReadPicture:
        pool = untrusted_pool() if own is None else own_pool()
        try:
            picture = pool.decode(data, at_least=MIN_DECODE_SIDE, limits=own or self._uploads).picture
        except DecodersBusyError as error:
            raise Busy(str(error)) from error
        except ImageError as error:
            raise ImageError(f"the picture cannot be used: {error}") from error
        if not isinstance(self._encoder, Explains):
            return ReadPicture(name, self._encoder.encode_sentences([picture]), None, None, _WHOLE)
        explained = self._encoder.explain(picture)
        region = covered(picture.size, self._encoder.config.query_preprocessing)
        return ReadPicture(name, explained.tokens[None], explained.attention, explained.gates, region)


def _ready(gallery: GalleryStore, picture_id: int) -> Picture:
    """A picture that can be found. Raises NotThere."""
    (found,) = gallery.pictures_of([picture_id])
    if found is None or found.state != "ready":
        raise NotThere(f"the gallery has no picture {picture_id}")
    return found


def _own(gallery: GalleryStore, picture_id: int) -> DecodeLimits:
    """What decoding a picture of the gallery may take: it was let in before."""
    picture = _ready(gallery, picture_id)
    return DecodeLimits().for_picture(picture.width, picture.height)


def _content(gallery: GalleryStore, picture_id: int) -> bytes:
    """The file of an item. Why a local file cannot be read holds no path; what a store says may, and stays here."""
    picture = _ready(gallery, picture_id)
    try:
        return read_picture(picture)
    except ImageError as error:
        if isinstance(picture.path, Path):
            raise NotThere(f"picture {picture_id} cannot be read: {error}") from error
        _log.warning("picture %d: %s", picture_id, error)
        raise NotThere(f"picture {picture_id} cannot be read where it is kept") from error


def vector_of(data: bytes) -> NDArray[np.float32]:
    """(d,) float32 from its little-endian bytes. Raises QueryError where they are not whole, finite numbers."""
    vector = np.frombuffer(data, "<f4").astype(np.float32) if len(data) % 4 == 0 else np.empty(0, np.float32)
    if not len(vector) or not np.isfinite(vector).all():
        raise QueryError("vector: expected finite little-endian float32 numbers")
    return vector


def covered(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Left, top, width and height of what the query encoder sees, in parts of a picture of this size."""
    share = preprocessing.size / (preprocessing.resize or preprocessing.size)
    if preprocessing.fit == "squash":
        width = height = share
    else:
        width, height = (share * min(size) / side for side in size)
    return (1 - width) / 2, (1 - height) / 2, width, height
