"""What the server answers, without HTTP: a gallery searched, pictures read, thumbnails made."""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

from PIL import Image

from image2sentence.config import ModelConfig, Preprocessing
from image2sentence.encoders.base import Encoder, Vectors
from image2sentence.encoders.onnx import Explanation
from image2sentence.errors import ImageError, QueryError
from image2sentence.gallery.indexing import AT_LEAST
from image2sentence.gallery.store import Gallery, Picture
from image2sentence.images import decode_image, read_regular
from image2sentence.query import Answer, Query, QueryEngine, Reference
from image2sentence.server.recent import Recent

UPLOAD_PIXELS = 64_000_000
"""Largest picture that a stranger may have decoded."""

SENTENCES_KEPT = 1_024
JPEG_BYTES_KEPT = 64 << 20

_QUALITY = 85
_WHOLE = (0.0, 0.0, 1.0, 1.0)


class NotThere(QueryError):
    """An item that the gallery does not have or cannot show, or a sentence that is no longer remembered."""


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


class Found(NamedTuple):
    """An answer, and what its reference was read as; None without one."""

    read: ReadPicture | None
    answer: Answer


@runtime_checkable
class Explains(Protocol):
    """An encoder that can tell where each pseudo-word looks."""

    config: ModelConfig

    def explain(self, image: Image.Image) -> Explanation:
        """One RGB picture's sentence with its attention maps and gates."""
        ...


class SearchService:
    """A model and a gallery, held ready for any number of requests.

    What it holds of the gallery (paths, sizes, vectors) is read once, when it is made. `search` and `read` are
    meant to be called from one thread, so that a picture asked for twice at once is still read once.

    Args:
        encoder: The model.
        gallery: Stays open as long as the service is used; its owner closes it.

    Raises:
        GalleryError: the gallery is of another model, or damaged.
    """

    def __init__(self, encoder: Encoder, gallery: Gallery) -> None:
        self.engine = QueryEngine(encoder, gallery)
        self._encoder = encoder
        self._gallery = gallery
        # Read after the engine's vectors: whatever it finds and the gallery still has is among these.
        self._items = {picture.id: picture for picture in gallery.pictures("ready")}
        self._read: Recent[ReadPicture] = Recent(SENTENCES_KEPT)
        self._jpegs: Recent[bytes] = Recent(JPEG_BYTES_KEPT, len)

    def __len__(self) -> int:
        return len(self._items)

    def prepare(self) -> None:
        """Load the query side of the model, by asking something small. Raises ModelError."""
        self._encoder.encode_queries(self._encoder.encode_sentences([Image.new("RGB", (8, 8))]), ["a"])

    def check(self) -> None:
        """Raise GalleryError where the gallery's file cannot be read any more."""
        len(self._gallery)

    def item(self, number: int) -> Picture:
        """A picture of the gallery. Raises NotThere."""
        found = self._items.get(number)
        if found is None:
            raise NotThere(f"the gallery has no picture {number}")
        return found

    def items(self, k: int, offset: int) -> list[Picture]:
        """Up to k pictures in gallery order, after the first `offset`."""
        return list(islice(self._items.values(), offset, offset + k))

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
                data = self._content(item)
            case Asked(bytes(data), None, None):
                pass
            case _:
                raise QueryError("expected one reference: a picture, an item's id, or a sentence's name")
        name = hashlib.sha256(data).hexdigest()
        known = self._read.get(name)
        if known is None:
            known = self._encoded(name, data)
            self._read.put(name, known)
        return known

    def search(self, asked: Asked, words: str, k: int, offset: int = 0) -> Found:
        """Results `offset + 1` to `offset + k` for a reference, words, or both.

        With words, the reference and its duplicates are left out: who asks for a change does not ask for the
        same picture.

        Raises:
            QueryError: neither reference nor words, two references, or words too long; and as `read`.
        """
        start = time.perf_counter()
        read = None if asked == Asked() else self.read(asked)
        read_ms = 1000 * (time.perf_counter() - start)
        references = () if read is None else (_reference(read, asked.item),)
        answer = self.engine.rank(Query(references=references, words=words.strip(), k=k, offset=offset))
        return Found(read, replace(answer, milliseconds=answer.milliseconds | {"read_ms": read_ms}))

    def jpeg_made(self, number: int, side: int) -> bytes | None:
        """What `jpeg` would give, where it has been made lately. Raises NotThere."""
        return self._jpegs.get((self.item(number).id, side))

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

    def _remembered(self, name: str) -> ReadPicture:
        known = self._read.get(name)
        if known is None:
            raise NotThere("this sentence is no longer remembered: send the picture again")
        return known

    def _content(self, number: int) -> bytes:
        """The file of an item; the reasons that `read_regular` gives hold no path."""
        picture = self.item(number)
        try:
            return read_regular(picture.path)[0]
        except ImageError as error:
            raise NotThere(f"picture {number} cannot be read: {error}") from error

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


def covered(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Left, top, width and height of what the query encoder sees, in parts of a picture of this size."""
    if preprocessing.fit == "squash":
        return _WHOLE
    width, height = (min(size) / side for side in size)
    return (1 - width) / 2, (1 - height) / 2, width, height


def _reference(read: ReadPicture, item: int | None) -> Reference:
    return Reference(sentence=read.sentence[0], item=item, sha256=bytes.fromhex(read.name))
