"""Bringing a gallery up to date with a folder: only what is new or changed is read and encoded.

Files are read, hashed, decoded and made the encoder's input in threads; the calling thread sorts the outcomes into
batches; further threads encode the batches, and one writes them in their order.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
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
from image2sentence.gallery.store import Content, Entry, Known
from image2sentence.gallery.walk import UNSEEN, FoundFile, Walk, walk
from image2sentence.images import MAX_PIXELS, date_taken, decode_image, display_path, read_regular

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (files dealt with, files to deal with) as the run goes on."""

AT_LEAST = 512
"""Smallest side in pixels to which large pictures may be reduced while decoding, unless told otherwise."""

TAKEN = "taken"
"""The metadata column that holds the EXIF date."""

_ENTRIES_AT_ONCE = 1_024
_BATCH_BYTES = 256 << 20
_NORM_TOLERANCE = 1e-3

Input: TypeAlias = Image.Image | NDArray[np.float32]
"""What the encoder takes: a picture, or what the encoder has prepared of one."""


@dataclass(frozen=True)
class IndexReport:
    """What an indexing run found and did. found = encoded + unchanged + moved + duplicates + len(failed).

    Attributes:
        found: Files with a picture's ending below the folder.
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
    failed: list[tuple[Path, str]]
    unreadable_folders: list[tuple[Path, str]]
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


def _shown(reasons: list[tuple[Path, str]]) -> list[list[str]]:
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
    progress: Progress | None = None,
) -> IndexReport:
    """Bring a gallery up to date with the pictures below a folder.

    Files whose size and modification time are as before are not opened. Moved and duplicate files are
    recognised by content and not encoded again. Every batch is committed, so a run that is killed or
    interrupted loses only the batches being encoded or written at that moment, and the next run goes on.
    The EXIF date of each picture is kept as its metadata `taken`.

    Args:
        pictures: The folder. A gallery can hold several, none inside another.
        gallery: Opened for writing, made with this encoder.
        encoder: Gives the vectors.
        batch_size: Pictures encoded and committed at once; fewer where they are so large that they take more
            than 256 MiB.
        threads: Decoding threads; None takes one per processor core, at most 8.
        at_least: Smallest side the encoder needs, see `load_image`. Vectors depend (slightly) on it: keep it.
        max_pixels: Largest picture decoded, see `load_image`.
        retry_failed: Read again files that failed before and have not changed since.
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
    folder = _picture_folder(pictures, gallery)
    found = walk(folder, gallery.own_folder)
    inputs = _Inputs(encoder)
    read = partial(_read, folder, gallery, inputs, at_least, max_pixels)
    ahead = ReadAhead(read, threads, 2 * batch_size, _Outcome.bytes, _BATCH_BYTES)
    with closing(EncodeAndWrite(inputs.parallel)) as line:
        run = _Run(folder, gallery, inputs, batch_size, found, line)
        changed = [file for file in found.files if run.is_changed(file, retry_failed)]
        with closing(ahead.over(changed)) as outcomes:
            for done, outcome in enumerate(outcomes, 1):
                run.take(outcome)
                if progress is not None:
                    progress(done, len(changed))
        run.finish()
    return run.report(time.perf_counter() - start)


class _Inputs:
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
class _Decoded:
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
class _Outcome:
    """A file after reading: its content's hash and date, and where the gallery lacks it the picture; or a reason."""

    file: FoundFile
    sha256: bytes | None = None
    decoded: _Decoded | None = None
    taken: str | None = None
    reason: str | None = None

    def bytes(self) -> int:
        """Memory that the picture takes."""
        return 0 if self.decoded is None else self.decoded.bytes


def _read(
    folder: Path, gallery: GalleryStore, inputs: _Inputs, at_least: int, max_pixels: int, file: FoundFile
) -> _Outcome:
    """Read, hash, decode and prepare one file (in a thread)."""
    try:
        data, status = read_regular(folder / file.path)
    except ImageError as error:
        # Permissions and links are put right without a trace in size or time: such a file is always retried.
        return _Outcome(FoundFile(file.path, UNSEEN, UNSEEN), reason=str(error))
    seen = FoundFile(file.path, status.st_size, status.st_mtime_ns)
    sha256 = hashlib.sha256(data).digest()
    if gallery.find_content(sha256) is not None:
        return _Outcome(seen, sha256, taken=date_taken(data))
    try:
        picture, width, height, taken = decode_image(data, max_pixels=max_pixels, at_least=at_least)
    except ImageError as error:
        return _Outcome(seen, reason=str(error))
    return _Outcome(seen, sha256, _Decoded(inputs.of(picture), width, height), taken)


@dataclass
class _Batch:
    """Outcomes that wait to be encoded and committed."""

    entries: list[Entry] = field(default_factory=list)
    contents: dict[bytes, _Decoded] = field(default_factory=dict)
    bytes: int = 0


class _Run:
    """One indexing run: what the gallery knew, what waits, and what has been done."""

    def __init__(
        self,
        folder: Path,
        gallery: GalleryStore,
        inputs: _Inputs,
        batch_size: int,
        found: Walk,
        line: EncodeAndWrite,
    ) -> None:
        self._folder = folder
        self._gallery = gallery
        self._inputs = inputs
        self._line = line
        self._batch_size = batch_size
        self._found = found
        self._root = gallery.add_root(folder)
        self._known = gallery.known(self._root)
        missing = _missing(self._known, found)
        self._missing = {known.id for known in missing}
        self._movable = gallery.gone(self._root)
        for known in missing:
            if known.content_id is not None:
                self._movable.setdefault(known.content_id, deque()).append(known.id)
        self._batch = _Batch()
        self._under_way: deque[set[bytes]] = deque(maxlen=inputs.parallel + 2)
        self._dates = gallery.columns().get(TAKEN)
        self._counts: Counter[str] = Counter()
        self._failed: list[tuple[Path, str]] = []
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
            self._failed.append((self._folder / file.path, known.reason))
        return retry_failed

    def take(self, outcome: _Outcome) -> None:
        """Sort one file in; encode and commit when enough wait."""
        if outcome.sha256 is None:
            self._add(outcome)
            self._failed.append((self._folder / outcome.file.path, outcome.reason or ""))
        else:
            self._take_content(outcome, outcome.sha256)
        batch = self._batch
        full = len(batch.contents) == self._batch_size or batch.bytes > _BATCH_BYTES
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
            found=len(self._found.files),
            encoded=self._counts["encoded"],
            unchanged=self._counts["unchanged"],
            moved=self._counts["moved"],
            duplicates=self._counts["duplicates"],
            deleted=self._counts["deleted"],
            failed=sorted(self._failed),
            unreadable_folders=[(self._folder / path, reason) for path, reason in self._found.unreadable],
            skipped_other=self._found.others,
            seconds=seconds,
        )

    def _take_content(self, outcome: _Outcome, sha256: bytes) -> None:
        content = self._gallery.find_content(sha256)
        before = self._known.get(outcome.file.path)
        moved_from = None
        waiting = sha256 in self._batch.contents or any(sha256 in batch for batch in self._under_way)
        if content is None and outcome.decoded is not None and not waiting:
            self._batch.contents[sha256] = outcome.decoded
            self._batch.bytes += outcome.decoded.bytes
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

    def _add(self, outcome: _Outcome, moved_from: int | None = None) -> None:
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
            )
        )

    def _metadata(self, outcome: _Outcome, known: bool) -> dict[str, Value | None]:
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
                lambda: self._inputs.encoded([decoded.input for decoded in batch.contents.values()]),
                lambda vectors: self._write(batch, vectors),
            )
            self._under_way.append(set(batch.contents))

    def _write(self, batch: _Batch, vectors: Vectors) -> None:
        contents = [
            Content(sha256, decoded.width, decoded.height, vector)
            for (sha256, decoded), vector in zip(batch.contents.items(), vectors, strict=True)
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


def _picture_folder(pictures: str | os.PathLike[str], gallery: GalleryStore) -> Path:
    folder = Path(os.path.abspath(pictures))
    if not folder.is_dir():
        raise GalleryError(
            f"there is no folder {display_path(folder)}: name the folder that holds the pictures"
        )
    for root in gallery.roots().values():
        if isinstance(root, str):
            continue
        if root != folder and (root in folder.parents or folder in root.parents) and root.is_dir():
            raise GalleryError(
                f"{display_path(folder)} overlaps {display_path(root)}, which this gallery holds already: "
                "index that folder, or make another gallery"
            )
    return folder


def _missing(known: dict[str, Known], found: Walk) -> list[Known]:
    """Known files that are no longer there; those below a folder that cannot be listed may well be."""
    present = {file.path for file in found.files}
    hidden = tuple("" if path == "." else os.path.join(path, "") for path, _ in found.unreadable)
    return [entry for path, entry in known.items() if path not in present and not path.startswith(hidden)]
