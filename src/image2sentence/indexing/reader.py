"""Reading of files to encoder inputs, and of inputs to vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.protocols import Encoder, SupportsPreparing, Vectors
from image2sentence.errors import ImageError, ModelError
from image2sentence.gallery.records import Content
from image2sentence.images import DecodeLimits, date_taken, own_pool
from image2sentence.images.dates import date_in_name
from image2sentence.indexing.pipeline import ReadAhead
from image2sentence.indexing.sources import Member, Source, member_path
from image2sentence.indexing.walk import UNSEEN, FoundFile

MIN_DECODE_SIDE = 512
"""Smallest side in pixels to which large pictures may be reduced while decoding, by default."""

BATCH_BYTES = 256 << 20
"""Memory that pictures waiting to be encoded may take."""

Input: TypeAlias = Image.Image | NDArray[np.float32]
"""What the encoder takes: a picture, or what the encoder has prepared of one."""

_NORM_TOLERANCE = 1e-3


class Inputs:
    """An encoder's input and output: prepared in the reading threads where the encoder can."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._prepares = encoder if isinstance(encoder, SupportsPreparing) else None
        self.parallel = 1 if self._prepares is None else self._prepares.parallel

    def of(self, picture: Image.Image) -> Input:
        """What is encoded of a picture."""
        return picture if self._prepares is None else self._prepares.prepare(picture)

    def encoded(self, inputs: Sequence[Input]) -> Vectors:
        """(n, d) float32 unit vectors of n inputs, checked. Raises ModelError."""
        if not inputs:
            return np.empty((0, self._encoder.width), np.float32)
        if self._prepares is None:
            vectors = self._encoder.encode_images(cast("Sequence[Image.Image]", inputs))
        else:
            vectors = self._prepares.encode_prepared(cast("Sequence[NDArray[np.float32]]", inputs))
        check_vectors(self._encoder, vectors, len(inputs))
        return vectors


@dataclass(frozen=True)
class Decoded:
    """A picture that the gallery lacks: the encoder's input, and its full size in pixels."""

    input: Input
    width: int
    height: int

    @property
    def bytes(self) -> int:
        """Memory that the input takes."""
        if isinstance(self.input, Image.Image):
            return 3 * self.input.width * self.input.height
        return self.input.nbytes


@dataclass(frozen=True)
class Loaded:
    """A shard's member, read and not yet decoded."""

    shard: FoundFile
    member: Member

    @property
    def file(self) -> FoundFile:
        """Its path below the root and its size; its time is the shard's."""
        return FoundFile(member_path(self.shard, self.member.name), self.member.size, self.shard.mtime_ns)


@dataclass(frozen=True)
class ShardEnd:
    """All of a shard has been read: how many pictures it has; or why the rest of it could not be read."""

    shard: FoundFile
    members: int
    reason: str | None = None

    def bytes(self) -> int:
        """None to speak of."""
        return 0


@dataclass(frozen=True)
class Outcome:
    """A file after reading: its content's hash and date, and where the gallery lacks it the picture; or a reason.

    The picture comes as the encoder's input, or from elsewhere as a finished content. `shard` and `offset` are
    given for members of shards.
    """

    file: FoundFile
    sha256: bytes | None = None
    decoded: Decoded | Content | None = None
    taken: str | None = None
    reason: str | None = None
    shard: FoundFile | None = None
    offset: int | None = None

    def bytes(self) -> int:
        """Memory that the picture takes."""
        return self.decoded.bytes if isinstance(self.decoded, Decoded) else 0


def read_shards(source: Source, shards: Sequence[FoundFile]) -> Iterator[Loaded | ShardEnd]:
    """The members of shards one after the other, and the end of each."""
    for shard in shards:
        count = 0
        try:
            for member in source.members(shard):
                count += 1
                yield Loaded(shard, member)
        except ImageError as error:
            yield ShardEnd(shard, count, str(error))
        else:
            yield ShardEnd(shard, count)


@dataclass(frozen=True)
class Reader:
    """Reads, hashes and prepares files one by one, in threads; decodes them in processes.

    Attributes:
        is_known: Whether the gallery has the content of a hash: it is not decoded then.
        at_least, max_pixels: see `load_image`.
    """

    source: Source
    inputs: Inputs
    is_known: Callable[[bytes], bool]
    at_least: int
    max_pixels: int

    def read(self, item: FoundFile | Loaded | ShardEnd) -> Outcome | ShardEnd:
        """What became of a file, or of a shard's member; the end of a shard as it is."""
        if isinstance(item, ShardEnd):
            return item
        if isinstance(item, Loaded):
            return self._decoded(item.member.data, _member_outcome(item))
        try:
            data, seen = self.source.read(item)
        except ImageError as error:
            # Permissions and links are put right without a trace in size or time: such a file is always retried.
            return Outcome(FoundFile(item.path, UNSEEN, UNSEEN), reason=str(error))
        return self._decoded(data, Outcome(seen, hashlib.sha256(data).digest()))

    def _decoded(self, data: bytes, outcome: Outcome) -> Outcome:
        if outcome.sha256 is None:
            return outcome
        if self.is_known(outcome.sha256):
            return replace(outcome, taken=date_taken(data) or date_in_name(outcome.file.path))
        try:
            picture, width, height, taken = own_pool().decode(
                data, at_least=self.at_least, limits=DecodeLimits(self.max_pixels)
            )
        except ImageError as error:
            return replace(outcome, sha256=None, reason=str(error))
        return replace(
            outcome,
            decoded=Decoded(self.inputs.of(picture), width, height),
            taken=taken or date_in_name(outcome.file.path),
        )


def read_ahead(
    reader: Reader, threads: int | None, batch_size: int
) -> ReadAhead[FoundFile | Loaded | ShardEnd, Outcome | ShardEnd]:
    """A reader in threads (None: one per core, at most 8), two batches and `BATCH_BYTES` ahead."""
    return ReadAhead(
        reader.read,
        threads,
        2 * batch_size,
        lambda outcome: outcome.bytes(),
        BATCH_BYTES,
        lambda item: len(item.member.data) if isinstance(item, Loaded) else 0,
    )


def _member_outcome(item: Loaded) -> Outcome:
    """What is known of a member before it is decoded: its hash, or why it was refused."""
    member = item.member
    sha256 = hashlib.sha256(member.data).digest() if member.reason is None else None
    return Outcome(item.file, sha256, reason=member.reason, shard=item.shard, offset=member.offset)


def check_vectors(encoder: Encoder, vectors: Vectors, count: int) -> None:
    """Raise ModelError unless these are `count` float32 unit vectors of the encoder's width."""
    expected = (count, encoder.width)
    if vectors.shape != expected or vectors.dtype != np.float32:
        raise ModelError(
            f"the encoder {encoder.fingerprint} returned {vectors.dtype} of shape {vectors.shape}, "
            f"expected float32 of shape {expected}"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    if not (np.abs(lengths - 1) < _NORM_TOLERANCE).all():
        raise ModelError(
            f"the encoder {encoder.fingerprint} returned vectors of length {lengths.min()} to "
            f"{lengths.max()}, expected length 1"
        )
