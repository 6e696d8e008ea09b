"""Bringing a gallery up to date with a folder: only what is new or changed is read and encoded.

Files are read, hashed, decoded and made the encoder's input in threads; the calling thread sorts the outcomes into
batches; further threads encode the batches, and one writes them in their order.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.encoders.base import Encoder, Prepares, Vectors
from image2sentence.errors import ConfigError, GalleryError, ImageError, ModelError
from image2sentence.gallery.filters import Value
from image2sentence.gallery.pipeline import EncodeAndWrite, ReadAhead
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.sources import Member, Source, member_path, open_source, shard_path
from image2sentence.gallery.store import Content, Entry, Known
from image2sentence.gallery.walk import UNSEEN, FoundFile, Walk
from image2sentence.images import MAX_PIXELS, date_taken, decode_image, display_path
from image2sentence.places import Place, joined, may_exist

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (files dealt with, files to deal with) as the run goes on."""

AT_LEAST = 512
"""Smallest side in pixels to which large pictures may be reduced while decoding, unless told otherwise."""

TAKEN = "taken"
"""The metadata column that holds the EXIF date."""

_ENTRIES_AT_ONCE = 1_024
BATCH_BYTES = 256 << 20
_NORM_TOLERANCE = 1e-3

Input: TypeAlias = Image.Image | NDArray[np.float32]
"""What the encoder takes: a picture, or what the encoder has prepared of one."""


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

    @property
    def rate(self) -> float:
        """Pictures encoded per second of the whole run."""
        return self.encoded / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, object]:
        """All fields and the rate, ready for JSON; paths as `display_path` shows them."""
        shown = {
            "failed": _shown(self.failed),
            "unreadable_folders": _shown(self.unreadable_folders),
            "rate": self.rate,
        }
        return {**vars(self), **shown}


def _shown(reasons: list[tuple[Place, str]]) -> list[list[str]]:
    return [[display_path(path), reason] for path, reason in reasons]


def index_pictures(
    pictures: str | os.PathLike[str],
    gallery: GalleryStore,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    threads: int | None = None,
    at_least: int = AT_LEAST,
    max_pixels: int = MAX_PIXELS,
    retry_failed: bool = False,
    shards: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring a gallery up to date with the pictures below a folder or URL, or in a tar shard.

    Files whose size and modification time are as before are not opened. Moved and duplicate files are
    recognised by content and not encoded again. Every batch is committed, so a run that is killed or
    interrupted loses only the batches being encoded or written at that moment, and the next run goes on.
    The EXIF date of each picture is kept as its metadata `taken`.

    Args:
        pictures: A folder, a URL that fsspec reads, or a .tar file in either. A gallery can hold several, none
            inside another.
        gallery: Opened for writing, made with this encoder.
        encoder: Gives the vectors.
        batch_size: Pictures encoded and committed at once; fewer where they are so large that they take more
            than 256 MiB.
        threads: Decoding threads; None takes one per processor core, at most 8.
        at_least: Smallest side the encoder needs, see `load_image`. Vectors depend (slightly) on it: keep it.
        max_pixels: Largest picture decoded, see `load_image`.
        retry_failed: Read again files that failed before and have not changed since.
        shards: Take the .tar files there as shards of pictures; always so where it was done before.
        progress: Told how far the run is.

    Returns:
        What was found and done. Pictures that cannot be read are listed there; they never stop the run.

    Raises:
        GalleryError: the folder is missing or overlaps an indexed one; the gallery is of another model,
            read-only or damaged; the disk is full.
        ModelError: the encoder returned something other than finite unit vectors.
        ConfigError: `batch_size`, `threads` or `at_least` is less than 1.
        Exception: whatever the encoder raises; batches committed before stay.
    """
    start = time.perf_counter()
    for name, value in (("batch_size", batch_size), ("threads", threads), ("at_least", at_least)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    gallery.require(encoder.fingerprint, encoder.width)
    source = picture_source(pictures, gallery)
    found = source.walk(gallery.own_folder)
    inputs = Inputs(encoder)
    reader = Reader(
        source, inputs, lambda sha256: gallery.find_content(sha256) is not None, at_least, max_pixels
    )
    ahead = ReadAhead(reader.read, threads, 2 * batch_size, lambda outcome: outcome.bytes(), BATCH_BYTES)
    with closing(EncodeAndWrite(inputs.parallel)) as line:
        run = Run(source.place, gallery, inputs, batch_size, found, line, shards=shards)
        changed = [file for file in found.files if run.is_changed(file, retry_failed)]
        opened = [shard for shard in run.shards if run.is_changed_shard(shard, retry_failed)]
        with closing(ahead.over(chain(changed, read_shards(source, opened)))) as outcomes:
            for done, outcome in enumerate(outcomes, 1):
                run.take(outcome)
                if progress is not None:
                    progress(done, max(done, len(changed)))
        run.finish()
    return run.report(time.perf_counter() - start)


class Inputs:
    """An encoder's input and output: prepared in the reading threads where the encoder can."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._prepares = encoder if isinstance(encoder, Prepares) else None
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
    """Reads, hashes, decodes and prepares files one by one, in threads.

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
            return replace(outcome, taken=date_taken(data))
        try:
            picture, width, height, taken = decode_image(
                data, max_pixels=self.max_pixels, at_least=self.at_least
            )
        except ImageError as error:
            return replace(outcome, sha256=None, reason=str(error))
        return replace(outcome, decoded=Decoded(self.inputs.of(picture), width, height), taken=taken)


def _member_outcome(item: Loaded) -> Outcome:
    """What is known of a member before it is decoded: its hash, or why it was refused."""
    member = item.member
    sha256 = hashlib.sha256(member.data).digest() if member.reason is None else None
    return Outcome(item.file, sha256, reason=member.reason, shard=item.shard, offset=member.offset)


@dataclass
class _Batch:
    """Outcomes that wait to be encoded and committed."""

    entries: list[Entry] = field(default_factory=list)
    contents: dict[bytes, Decoded | Content] = field(default_factory=dict)
    bytes: int = 0

    def inputs(self) -> list[Input]:
        """The inputs of those that have yet to be encoded."""
        return [one.input for one in self.contents.values() if isinstance(one, Decoded)]


@dataclass
class _Shard:
    """What is known of a shard's members, and how far it has been taken in this run.

    Until all of it has been taken, its first member is kept without the shard's time: so a run that is killed
    leaves a shard that looks changed, and the next one reads it again.
    """

    file: FoundFile
    known: dict[str, Known]
    seen: set[str] = field(default_factory=set)
    first: Outcome | None = None
    end: ShardEnd | None = None

    def taken(self, outcome: Outcome) -> Outcome:
        """Note a member; gives it as it is to be written."""
        self.seen.add(outcome.file.path)
        if self.first is not None:
            return outcome
        self.first = outcome
        return replace(outcome, file=replace(outcome.file, mtime_ns=UNSEEN))


class Run:
    """One indexing run: what the gallery knew, what waits, and what has been done."""

    def __init__(
        self,
        place: Place,
        gallery: GalleryStore,
        inputs: Inputs,
        batch_size: int,
        found: Walk,
        line: EncodeAndWrite,
        *,
        shards: bool,
    ) -> None:
        self._place = place
        self._gallery = gallery
        self._inputs = inputs
        self._line = line
        self._batch_size = batch_size
        self._found = found
        self._root = gallery.add_root(place)
        self._known = gallery.known(self._root)
        members = _by_shard(self._known, found)
        only = [shard.path for shard in found.shards] == [""]
        self.shards = found.shards if shards or members or only else []
        self._shards = {shard.path: _Shard(shard, members.get(shard.path, {})) for shard in self.shards}
        missing = _missing(
            self._known, found, {path for shard in self._shards.values() for path in shard.known}
        )
        self._missing = {known.id for known in missing}
        self._movable = gallery.gone(self._root)
        for known in missing:
            if known.content_id is not None:
                self._movable.setdefault(known.content_id, deque()).append(known.id)
        self._batch = _Batch()
        self._under_way: deque[set[bytes]] = deque(maxlen=inputs.parallel + 2)
        self._dates = gallery.columns().get(TAKEN)
        self._counts: Counter[str] = Counter()
        self._failed: list[tuple[Place, str]] = []
        self._relinked = False

    def is_changed(self, file: FoundFile, retry_failed: bool) -> bool:
        """Whether a file must be read; counts it as unchanged or failed where not."""
        known = self._known.get(file.path)
        if known is None or file.size == UNSEEN or (file.size, file.mtime_ns) != (known.size, known.mtime_ns):
            return True
        if known.reason is None:
            self._counts["unchanged"] += 1
            return False
        if not retry_failed:
            self._failed.append((joined(self._place, file.path), known.reason))
        return retry_failed

    def is_changed_shard(self, file: FoundFile, retry_failed: bool) -> bool:
        """Whether a shard must be read; counts what is known of its members where not."""
        shard = self._shards[file.path]
        reasons = {path: known.reason for path, known in shard.known.items() if known.reason is not None}
        complete = bool(shard.known) and all(k.mtime_ns == file.mtime_ns for k in shard.known.values())
        if not complete or file.size == UNSEEN or (retry_failed and reasons):
            return True
        self._counts["unchanged"] += len(shard.known) - len(reasons)
        self._counts["members"] += len(shard.known)
        self._failed += [(joined(self._place, path), reason) for path, reason in reasons.items()]
        return False

    def take(self, outcome: Outcome | ShardEnd) -> None:
        """Sort one file in; encode and commit when enough wait."""
        if isinstance(outcome, ShardEnd):
            self._shards[outcome.shard.path].end = outcome
            self._finish_shard(outcome.shard)
            return
        if outcome.shard is not None:
            self._counts["members"] += 1
            outcome = self._shards[outcome.shard.path].taken(outcome)
        if outcome.sha256 is None:
            self._add(outcome)
            self._failed.append((joined(self._place, outcome.file.path), outcome.reason or ""))
        else:
            self._take_content(outcome, outcome.sha256)
        if outcome.shard is not None:
            self._finish_shard(outcome.shard)
        self._commit_when_full()

    def _finish_shard(self, file: FoundFile) -> None:
        """Where all of a shard has been taken: forget what it no longer has, and note that it is complete."""
        shard = self._shards[file.path]
        if shard.end is None or len(shard.seen) < shard.end.members:
            return
        if shard.end.reason is not None:
            self._counts["broken"] += 1
            self._failed.append((joined(self._place, file.path), shard.end.reason))
            return
        self._missing |= {known.id for path, known in shard.known.items() if path not in shard.seen}
        if shard.first is not None:
            self._add(replace(shard.first, decoded=None))
            self._commit_when_full()

    def _commit_when_full(self) -> None:
        batch = self._batch
        full = len(batch.contents) == self._batch_size or batch.bytes > BATCH_BYTES
        if full or len(batch.entries) >= _ENTRIES_AT_ONCE:
            self._commit()

    def finish(self) -> None:
        """Commit what waits and forget the pictures whose files are gone."""
        self._commit()
        self._line.wait()
        if self._missing or self._relinked:
            self._gallery.delete(sorted(self._missing))
        self._counts["deleted"] = len(self._missing)

    def report(self, seconds: float) -> IndexReport:
        """The run in numbers."""
        return IndexReport(
            found=len(self._found.files) + self._counts["members"] + self._counts["broken"],
            encoded=self._counts["encoded"],
            unchanged=self._counts["unchanged"],
            moved=self._counts["moved"],
            duplicates=self._counts["duplicates"],
            deleted=self._counts["deleted"],
            failed=sorted(self._failed, key=lambda reason: str(reason[0])),
            unreadable_folders=[
                (joined(self._place, path), reason) for path, reason in self._found.unreadable
            ],
            skipped_other=self._found.others + len(self._found.shards) - len(self.shards),
            seconds=seconds,
        )

    def _take_content(self, outcome: Outcome, sha256: bytes) -> None:
        content = self._gallery.find_content(sha256)
        before = self._known.get(outcome.file.path)
        moved_from = None
        waiting = sha256 in self._batch.contents or any(sha256 in batch for batch in self._under_way)
        if content is None and outcome.decoded is not None and not waiting:
            self._batch.contents[sha256] = outcome.decoded
            self._batch.bytes += outcome.bytes()
            kind = "encoded"
        elif content is not None and before is not None and before.content_id == content:
            kind = "unchanged"
        elif content is not None and self._movable.get(content):
            moved_from = self._movable[content].popleft()
            self._missing.discard(moved_from)
            kind = "moved"
        else:
            kind = "duplicates"
        self._counts[kind] += 1
        self._add(outcome, moved_from)

    def _add(self, outcome: Outcome, moved_from: int | None = None) -> None:
        file = outcome.file
        before = self._known.get(file.path)
        self._relinked |= before is not None and before.content_id is not None
        self._batch.entries.append(
            Entry(
                file.path,
                file.size,
                file.mtime_ns,
                outcome.sha256,
                outcome.reason,
                moved_from,
                self._metadata(outcome, known=before is not None),
                outcome.offset,
            )
        )

    def _metadata(self, outcome: Outcome, known: bool) -> dict[str, Value | None]:
        if outcome.taken is not None and self._dates is None:
            self._gallery.add_columns({TAKEN: "date"})
            self._dates = "date"
        # A column of that name and another type is the user's own.
        changes = outcome.taken is not None or (known and outcome.sha256 is not None)
        return {TAKEN: outcome.taken} if self._dates == "date" and changes else {}

    def _commit(self) -> None:
        batch, self._batch = self._batch, _Batch()
        if batch.entries:
            self._line.submit(
                lambda: self._inputs.encoded(batch.inputs()),
                lambda vectors: self._write(batch, vectors),
            )
            self._under_way.append(set(batch.contents))

    def _write(self, batch: _Batch, vectors: Vectors) -> None:
        rows = iter(vectors)
        contents = [
            given if isinstance(given, Content) else Content(sha256, given.width, given.height, next(rows))
            for sha256, given in batch.contents.items()
        ]
        self._gallery.commit(self._root, contents, batch.entries)


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


def picture_source(pictures: str | os.PathLike[str], gallery: GalleryStore) -> Source:
    """What PICTURES names, if it overlaps nothing that the gallery holds. Raises GalleryError."""
    source = open_source(pictures)
    for root in gallery.roots().values():
        if (
            root != source.place
            and may_exist(root)
            and (_within(root, source.place) or _within(source.place, root))
        ):
            raise GalleryError(
                f"{display_path(source.place)} overlaps {display_path(root)}, which this gallery holds already: "
                "index that folder, or make another gallery"
            )
    return source


def _within(inner: Place, outer: Place) -> bool:
    if isinstance(inner, Path) and isinstance(outer, Path):
        return inner.is_relative_to(outer)
    return str(inner).startswith(str(outer).rstrip("/") + "/")


def _by_shard(known: Mapping[str, Known], found: Walk) -> dict[str, dict[str, Known]]:
    """Known members by the shard that they lie in."""
    members: dict[str, dict[str, Known]] = {}
    whole = [shard.path for shard in found.shards] == [""]
    for path, entry in known.items():
        shard = "" if whole else shard_path(path)
        if shard is not None:
            members.setdefault(shard, {})[path] = entry
    return members


def _missing(known: Mapping[str, Known], found: Walk, members: Collection[str]) -> list[Known]:
    """Known files that are no longer there; those below a folder that cannot be listed may well be.

    What a shard that is there still has, only reading it can tell: `members` are left out.
    """
    present = {file.path for file in found.files}
    hidden = tuple("" if path == "." else os.path.join(path, "") for path, _ in found.unreadable)
    return [
        entry
        for path, entry in known.items()
        if path not in present and path not in members and not path.startswith(hidden)
    ]
