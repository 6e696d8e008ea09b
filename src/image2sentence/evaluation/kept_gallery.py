"""Gallery-side vectors of a benchmark's pictures, encoded once and kept."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError, ImageError
from image2sentence.evaluation.datasets.elsewhere import advice
from image2sentence.evaluation.datasets.genecis import dilated_crop
from image2sentence.evaluation.protocol import (
    Benchmark,
    Box,
    locate_image,
    named,
    needed_images,
    picture_places,
)
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.opening import open_or_create_gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.images import MIN_DECODE_SIDE, decode_image, load_image, read_regular
from image2sentence.indexing.pipeline import ReadAhead
from image2sentence.indexing.reader import BATCH_BYTES, Decoded, Inputs
from image2sentence.indexing.walk import FoundFile

BATCH = 32
DEFAULT_FOLDER = ".image2sentence-kept"
"""Below the dataset's folder: where galleries are kept unless another place is named."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class PictureFile:
    """Where a benchmark's picture lies below its folder; `box` is the part of it that counts, None: all of it."""

    path: str
    box: Box | None = None

    @property
    def key(self) -> str:
        """What the gallery calls it: its path, and the part after a `#`."""
        if self.box is None:
            return self.path
        return f"{self.path}#{','.join(f'{edge:g}' for edge in self.box)}"

    def open(self, root: Path) -> Image.Image:
        """The RGB picture. Raises ImageError."""
        image = load_image(root / self.path)
        return image if self.box is None else dilated_crop(image, self.box)


@dataclass(frozen=True)
class KeptVectors:
    """Vectors (d,) and SHA-256 of the content (32 bytes) by picture id, and the gallery's folder.

    `encoded` is how many pictures had to be encoded for them.
    """

    vectors: Mapping[str, Vectors]
    contents: Mapping[str, bytes]
    encoded: int
    folder: Path

    def of(self, ids: Sequence[str]) -> Vectors:
        """(n, d) float32 unit rows of n picture ids."""
        return np.stack([self.vectors[image] for image in ids])


def picture_files(benchmark: Benchmark, root: Path) -> dict[str, PictureFile]:
    """Every picture that a run opens, by id. Raises DataError naming those missing, and what can be done."""
    found = {image: locate_image(benchmark, image, root) for image in needed_images(benchmark)}
    if missing := [image for image, file in found.items() if file is None]:
        places = benchmark.images.get(missing[0], ())
        raise DataError(
            f"{benchmark.name} {benchmark.split}: {len(missing)} pictures missing: {named(missing)}; of {len(found)} "
            f"needed below {root} (looked for {', '.join(places[:3])}){advice(root, places, picture_places(benchmark))}"
        )
    return {
        image: PictureFile(file.relative_to(root).as_posix(), benchmark.crops.get(image))
        for image, file in found.items()
        if file is not None
    }


def kept_folder(folder: Path, fingerprint: str) -> Path:
    """The gallery below `folder` of one vector space."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", fingerprint)[:40].strip(".-")
    return folder / (name or hashlib.sha256(fingerprint.encode()).hexdigest()[:16])


def keep_vectors(
    files: Mapping[str, PictureFile],
    root: Path,
    encoder: Encoder,
    folder: Path,
    progress: Progress | None = None,
) -> KeptVectors:
    """Gallery-side vectors of all `files` (picture id -> file below `root`), encoding those not kept yet.

    They are kept in a gallery below `folder`, one for each vector space, in which each batch of 32 is committed: an
    interrupted run goes on from there. A file is read again when its size or time has changed.

    Raises:
        DataError: a picture is missing or cannot be read; those encoded before it are kept.
        GalleryError: the gallery cannot be written, or another process is writing to it.
    """
    place = kept_folder(folder, encoder.fingerprint)
    root = root.absolute()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot keep vectors in {folder} ({error.strerror}): name another folder with --gallery"
        ) from error
    unique = {file.key: file for file in files.values()}
    with open_or_create_gallery(place, encoder.fingerprint, encoder.width) as gallery:
        gallery.require(encoder.fingerprint, encoder.width)
        root_id = gallery.add_root(root)
        encoded = _Keeping(gallery, root_id, root, Inputs(encoder)).run(unique, progress)
        known = gallery.known(root_id)
        ids, rows = gallery.vectors()
        hashes = gallery.hashes_of(ids.tolist())
    at = {int(one): row for row, one in enumerate(ids)}
    places = {name: at[known[file.key].id] for name, file in files.items()}
    contents = {name: sha256 for name, row in places.items() if (sha256 := hashes[row]) is not None}
    return KeptVectors({name: rows[row] for name, row in places.items()}, contents, encoded, place)


@dataclass(frozen=True)
class _Read:
    """A picture after reading: its hash, and where the gallery lacks it the encoder's input."""

    found: FoundFile
    sha256: bytes
    decoded: Decoded | None

    def bytes(self) -> int:
        return 0 if self.decoded is None else self.decoded.bytes


@dataclass
class _Keeping:
    gallery: GalleryStore
    root_id: int
    root: Path
    inputs: Inputs

    def run(self, files: Mapping[str, PictureFile], progress: Progress | None) -> int:
        """Encode what is not kept; gives how many were encoded."""
        wanted = [file for file in files.values() if not self._is_kept(file)]
        kept = len(files) - len(wanted)
        ahead = ReadAhead(self._read, None, 2 * BATCH, _Read.bytes, BATCH_BYTES)
        encoded, batch = 0, list[_Read]()
        with closing(ahead.over(wanted)) as outcomes:
            try:
                for done, outcome in enumerate(outcomes, kept + 1):
                    batch.append(outcome)
                    if len(batch) == BATCH:
                        encoded += self._commit(batch)
                        batch.clear()
                    if progress is not None:
                        progress(done, len(files))
            except DataError:
                self._commit(batch)
                raise
        return encoded + self._commit(batch)

    def _is_kept(self, file: PictureFile) -> bool:
        known = self._known.get(file.key)
        if known is None or known.content_id is None:
            return False
        try:
            status = (self.root / file.path).stat()
        except OSError as error:
            raise DataError(f"picture {file.path} cannot be looked at in {self.root}: {error}") from error
        return (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def __post_init__(self) -> None:
        self._known = self.gallery.known(self.root_id)

    def _read(self, file: PictureFile) -> _Read:
        path = self.root / file.path
        try:
            data, status = read_regular(path)
            part = b"" if file.box is None else f"#{file.key}".encode()
            sha256 = hashlib.sha256(data + part).digest()
            found = FoundFile(file.key, status.st_size, status.st_mtime_ns)
            if self.gallery.find_content(sha256) is not None:
                return _Read(found, sha256, None)
            decoded = decode_image(data, at_least=MIN_DECODE_SIDE if file.box is None else None)
        except ImageError as error:
            raise DataError(f"picture {file.path} in {self.root} cannot be read: {error}") from error
        image = decoded.picture if file.box is None else dilated_crop(decoded.picture, file.box)
        return _Read(found, sha256, Decoded(self.inputs.of(image), decoded.width, decoded.height))

    def _commit(self, batch: Sequence[_Read]) -> int:
        fresh = {one.sha256: one.decoded for one in batch if one.decoded is not None}
        fresh = {sha: one for sha, one in fresh.items() if self.gallery.find_content(sha) is None}
        vectors = self.inputs.encoded([one.input for one in fresh.values()])
        contents = [
            Content(sha256, one.width, one.height, vector)
            for (sha256, one), vector in zip(fresh.items(), vectors, strict=True)
        ]
        entries = [FileEntry(one.found.path, one.found.size, one.found.mtime_ns, one.sha256) for one in batch]
        if batch:
            self.gallery.commit(self.root_id, contents, entries)
        return len(contents)
