"""Export of vectors from a gallery, and import into one."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError, GalleryError, ImageError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.facts import TAKEN
from image2sentence.gallery.files.vectors import (
    About,
    Block,
    VectorFile,
    VectorRow,
    check_unit,
    write_vectors,
)
from image2sentence.gallery.locations import Place, is_url
from image2sentence.gallery.records import Content, FileEntry, KnownFile, Picture
from image2sentence.images import MIN_DECODE_SIDE, display_path, load_image, own_pool, printable, read_regular
from image2sentence.indexing.overlap import picture_source
from image2sentence.indexing.pipeline import ReadAhead
from image2sentence.indexing.roots import take_in_roots
from image2sentence.indexing.run import DateColumn

CHECKED = 16
"""Vectors that are computed again, to see whether they are the model's."""

ALIKE = 0.98
"""Least cosine between a vector and what the model gives for its picture: other hardware and precision differ less."""

_BATCH = 1_024
_AHEAD_BYTES = 256 << 20

Progress = Callable[[int, int], None]


@dataclass
class ImportReport:
    """What became of the rows of a file of vectors.

    Attributes:
        imported: Pictures with a vector that the gallery did not have.
        unchanged: Pictures that the gallery had with the same content.
        duplicates: Pictures whose content the gallery had under another name: they share its vector.
        missing: Rows whose picture is not there.
        changed: Pictures that are not the ones that the vectors were computed from, by their SHA-256.
        failed: Files that cannot be read as pictures, with the reason.
        least_alike: Smallest cosine between a checked vector and the model's own; None where none was checked.
    """

    imported: int = 0
    unchanged: int = 0
    duplicates: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    least_alike: float | None = None


def export_vectors(gallery: GalleryStore, out: Path) -> int:
    """Write path, vector and metadata of every ready picture; gives how many.

    Args:
        gallery: Opened for reading or writing.
        out: A name that ends in `.parquet` for a file, any other for a folder with an `.npy` file.

    Raises:
        DataError: something of that name is there, it cannot be written, or pyarrow is missing.
        GalleryError: the gallery is damaged.
    """
    with _snapshot(gallery):
        ids, vectors = gallery.vectors()
        about = About(gallery.width, gallery.fingerprint, gallery.columns())
        write_vectors(out, about, _blocks(gallery, ids.tolist(), vectors))
    return len(ids)


def import_vectors(
    gallery: GalleryStore,
    vectors: VectorFile,
    encoder: Encoder,
    pictures: Path | None = None,
    *,
    check: int = CHECKED,
    progress: Progress | None = None,
) -> ImportReport:
    """Take vectors into a gallery that were computed elsewhere, so that indexing need not encode their pictures.

    Each picture is read and hashed, because a vector is kept with the content that it is of. The whole file is
    looked at before anything is written, and some of its vectors are computed again and compared.

    Args:
        gallery: Opened for writing, made with this encoder.
        vectors: Of `image2sentence.gallery.files.vectors.open_vectors`.
        encoder: Of the model that the vectors are of.
        pictures: The folder that the rows' paths start from; None where the rows name it themselves.
        check: How many vectors are computed again.
        progress: Called with how far the import is.

    Raises:
        DataError: the file is damaged, or its vectors are not this model's.
        GalleryError: the gallery, or the file, is of another model; the gallery cannot be written.
    """
    gallery.require(encoder.fingerprint, encoder.width)
    _require_space(vectors, encoder)
    report = ImportReport()
    drawn = set(np.random.default_rng(0).permutation(len(vectors))[: 4 * check].tolist())
    _Check(vectors, encoder, pictures, check, report).run(drawn)
    gallery.add_columns(vectors.about.columns)
    run = _Import(gallery, pictures, report)
    done = 0
    for rows, block in vectors.blocks():
        run.take(rows, check_unit(display_path(vectors.path), rows, block))
        done += len(rows)
        if progress is not None:
            progress(done, len(vectors))
    return report


def _require_space(vectors: VectorFile, encoder: Encoder) -> None:
    about = vectors.about
    if about.fingerprint not in (None, encoder.fingerprint) or (
        len(vectors) and about.width != encoder.width
    ):
        raise GalleryError(
            f"{display_path(vectors.path)} holds vectors of the encoder "
            f"{printable(about.fingerprint or 'unknown')} (width {about.width}), not of {encoder.fingerprint} "
            f"(width {encoder.width}): name their model with --model, or index the pictures"
        )


class _Check:
    """The look at a whole file before anything is written."""

    def __init__(
        self,
        vectors: VectorFile,
        encoder: Encoder,
        pictures: Path | None,
        check: int,
        report: ImportReport,
    ) -> None:
        self._vectors = vectors
        self._encoder = encoder
        self._pictures = pictures
        self._left = check
        self._report = report

    def run(self, drawn: set[int]) -> None:
        """Read every row; compare the vectors of some of those drawn whose pictures can be read."""
        seen: set[tuple[str | None, str]] = set()
        number = 0
        for rows, block in self._vectors.blocks():
            unit = check_unit(display_path(self._vectors.path), rows, block)
            for row, vector in zip(rows, unit, strict=True):
                _folder_of(row, self._pictures)
                if (row.root, row.file) in seen:
                    raise DataError(
                        f"{display_path(self._vectors.path)}: {printable(row.file)!r} is there twice"
                    )
                seen.add((row.root, row.file))
                if number in drawn and self._left:
                    self._compare(row, vector)
                number += 1

    def _compare(self, row: VectorRow, vector: Vectors) -> None:
        try:
            picture = load_image(_folder_of(row, self._pictures) / row.file, at_least=MIN_DECODE_SIDE)
        except ImageError:
            return  # it is listed when its turn comes
        self._left -= 1
        alike = float(self._encoder.encode_images([picture])[0] @ vector)
        least = self._report.least_alike
        self._report.least_alike = alike if least is None else min(alike, least)
        if alike < ALIKE:
            raise DataError(
                f"{display_path(self._vectors.path)}: the vector of {printable(row.file)!r} is not what this model "
                f"gives for the picture (cosine {alike:.3f}, expected at least {ALIKE}): name its model with --model, "
                "or index the pictures"
            )


class _Read(NamedTuple):
    """A row's picture after reading: its hash, size in pixels and date; or why not."""

    row: VectorRow
    vector: Vectors
    size: int = -1
    mtime_ns: int = -1
    sha256: bytes | None = None
    width: int = 0
    height: int = 0
    taken: str | None = None
    problem: str | None = None


class _Import:
    """Rows on their way into a gallery."""

    def __init__(self, gallery: GalleryStore, pictures: Path | None, report: ImportReport) -> None:
        self._gallery = gallery
        self._pictures = pictures
        self._report = report
        self._roots: dict[Path, int] = {}
        self._known: dict[int, dict[str, KnownFile]] = {}
        self._dates = DateColumn(gallery)

    def take(self, rows: Sequence[VectorRow], vectors: Vectors) -> None:
        """Read the pictures of a block of rows, and commit what can be taken."""
        ahead = ReadAhead(self._read, None, _BATCH, lambda _: 0, _AHEAD_BYTES)
        with closing(ahead.over(zip(rows, vectors, strict=True))) as outcomes:
            read = list(outcomes)
        by_root: dict[int, list[_Read]] = {}
        for one in read:
            if self._usable(one):
                by_root.setdefault(self._root(_folder_of(one.row, self._pictures)), []).append(one)
        for root, some in by_root.items():
            self._commit(root, some)

    def _read(self, item: tuple[VectorRow, Vectors]) -> _Read:
        row, vector = item
        path = _folder_of(row, self._pictures) / row.file
        if _is_missing(path):
            return _Read(row, vector)
        try:
            data, status = read_regular(path)
            # The vector is there: of the picture only what its header says is wanted.
            picture = own_pool().decode(data, at_least=1)
        except ImageError as error:
            return _Read(row, vector, problem=str(error))
        sha256 = hashlib.sha256(data).digest()
        size = (status.st_size, status.st_mtime_ns)
        return _Read(row, vector, *size, sha256, picture.width, picture.height, picture.taken)

    def _usable(self, read: _Read) -> bool:
        if read.problem is not None:
            self._report.failed.append((read.row.file, read.problem))
        elif read.sha256 is None:
            self._report.missing.append(read.row.file)
        elif read.row.sha256 not in (None, read.sha256):
            self._report.changed.append(read.row.file)
        else:
            return True
        return False

    def _root(self, folder: Path) -> int:
        if folder not in self._roots:
            root = take_in_roots(self._gallery, picture_source(folder, self._gallery).place)
            self._roots[folder] = root
            self._known[root] = self._gallery.known(root)
        return self._roots[folder]

    def _commit(self, root: int, some: list[_Read]) -> None:
        contents: dict[bytes, Content] = {}
        entries = []
        counts: Counter[str] = Counter()
        for read in some:
            assert read.sha256 is not None
            held = self._gallery.find_content(read.sha256)
            before = self._known[root].get(os.path.normpath(read.row.file))
            if held is None and read.sha256 not in contents:
                contents[read.sha256] = Content(read.sha256, read.width, read.height, read.vector)
                counts["imported"] += 1
            elif held is not None and before is not None and before.content_id == held:
                counts["unchanged"] += 1
            else:
                counts["duplicates"] += 1
            entries.append(self._entry(read))
        self._gallery.commit(root, list(contents.values()), entries)
        for name, count in counts.items():
            setattr(self._report, name, getattr(self._report, name) + count)

    def _entry(self, read: _Read) -> FileEntry:
        values = dict(read.row.values)
        if read.taken is not None and self._dates.takes(read.taken):
            values.setdefault(TAKEN, read.taken)
        path = os.path.normpath(read.row.file)
        return FileEntry(path, read.size, read.mtime_ns, read.sha256, metadata=values)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file; what cannot be said (no permission, too long a name) reading tells."""
    try:
        return not path.exists()
    except OSError:
        return False


def _folder_of(row: VectorRow, pictures: Path | None) -> Path:
    """The folder that a row's path starts from. Raises DataError where it leads out of it or is not said."""
    path = Path(os.path.normpath(row.file))
    if path.is_absolute() or path.parts[:1] == ("..",):
        raise DataError(f"{printable(row.file)!r}: expected a path below the folder of the pictures")
    if pictures is not None:
        return Path(os.path.abspath(pictures))
    if row.root is None or is_url(row.root):
        raise DataError(
            f"{printable(row.file)!r}: the vectors do not say in which folder of this machine the pictures are; "
            "name it: image2sentence gallery import VECTORS PICTURES"
        )
    return Path(row.root)


def _snapshot(gallery: GalleryStore) -> AbstractContextManager[Any]:
    return gallery.snapshot()


def _blocks(gallery: GalleryStore, picture_ids: list[int], vectors: Vectors) -> Iterator[Block]:
    roots = list(gallery.roots().values())
    for start in range(0, len(picture_ids), _BATCH):
        wanted = picture_ids[start : start + _BATCH]
        pictures = gallery.pictures_of(wanted)
        parts = zip(pictures, gallery.hashes_of(wanted), gallery.metadata(wanted), strict=True)
        rows = [_row(picture, roots, sha256, values) for picture, sha256, values in parts if picture]
        # A database has no snapshot: what was deleted meanwhile is left out.
        yield rows, vectors[start : start + _BATCH][[picture is not None for picture in pictures]]


def _row(picture: Picture, roots: Sequence[Place], sha256: bytes | None, values: Any) -> VectorRow:
    root, file = _below(picture.path, roots)
    return VectorRow(file, root, sha256, picture.width, picture.height, values)


def _below(place: Place, roots: Sequence[Place]) -> tuple[str, str]:
    """The root that a place lies below, and its path from there."""
    for root in roots:
        if isinstance(place, Path) and isinstance(root, Path) and place.is_relative_to(root):
            return os.fspath(root), os.fspath(place.relative_to(root))
        prefix = f"{str(root).rstrip('/')}/"
        if isinstance(place, str) and isinstance(root, str) and place.startswith(prefix):
            return root, place[len(prefix) :]
    raise GalleryError(f"{display_path(place)} lies below no folder of the gallery: index again")
