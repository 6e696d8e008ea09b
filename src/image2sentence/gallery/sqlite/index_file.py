"""Index file of a large gallery: mapped vectors and FAISS index.

    bytes 0-15    `i2s gallery idx\\n`
    8 bytes       length of the header, little-endian
    32 bytes      SHA-256 of the header
    header        JSON: `Header`, and where the sections lie with the SHA-256 of each 32 MiB of them
    sections      each at a multiple of 64 bytes: pairs, vectors, index

`pairs` are (picture id, content id) as little-endian int64, ascending; `vectors` their rows as little-endian float32;
`index` is what FAISS writes. Everything is checked before anything is used: FAISS trusts its input.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, GalleryError
from image2sentence.gallery.search.faiss_index import AnnIndex, AnnParameters, AnnSettings
from image2sentence.images import display_path

NAME = "gallery.index"
FORMAT = 1

_MAGIC = b"i2s gallery idx\n"
_FRONT = len(_MAGIC) + 8 + 32
_MAX_HEADER_BYTES = 16 << 20
_ALIGNED = 64
_BLOCK = 32 << 20
_ROWS = 16_384
_SECTIONS = ("pairs", "vectors", "index")


class UnusableIndex(Exception):
    """The file is damaged, of another gallery or of another format; the gallery itself is not affected."""


@dataclass(frozen=True)
class Header:
    """What an index file says of itself.

    Attributes:
        gallery: The gallery's id.
        token: Random; the gallery's table `derived` names the one that belongs to it.
        generation: The gallery's when its vectors were read.
        count: Vectors.
        width: Their width.
        longest: Length of the longest of them.
        settings: What was asked for.
        parameters: What was made of it.
    """

    gallery: str
    token: str
    generation: int
    count: int
    width: int
    longest: float
    settings: AnnSettings
    parameters: AnnParameters


@dataclass(frozen=True)
class IndexFile:
    """An index file that has been checked: (n, 2) int64 pairs, (n, d) float32 vectors (mapped), the index."""

    header: Header
    pairs: NDArray[np.int64]
    vectors: Vectors
    index: AnnIndex


def write_index_file(
    file: Path, header: Header, pairs: NDArray[np.int64], vectors: Vectors, index: AnnIndex
) -> None:
    """Write the file; it appears under its name complete or not at all. Raises GalleryError."""
    unfinished = file.with_name(file.name + ".new")
    views = [
        _bytes_of(pairs.astype("<i8")),
        _bytes_of(vectors.astype("<f4", copy=False)),
        _bytes_of(index.to_bytes()),
    ]
    try:
        with unfinished.open("wb") as stream:
            _write(stream, header, views)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(unfinished, file)
    except OSError as error:
        raise GalleryError(
            f"cannot write {display_path(file)} ({error.strerror}): the gallery is complete without it, and "
            "searched exactly; make room or check the permissions, then `image2sentence gallery index`"
        ) from error
    finally:
        remove_unfinished(file)


def remove_unfinished(file: Path) -> None:
    """Remove what a killed process has left of writing the file; for the one writer only."""
    with suppress(OSError):
        file.with_name(file.name + ".new").unlink(missing_ok=True)


def read_header(file: Path) -> Header:
    """The header, checked. Raises UnusableIndex, FileNotFoundError."""
    with _opened(file) as stream:
        return _header(_read_header(stream))


def read_index_file(file: Path) -> IndexFile:
    """The whole file, checked. Raises UnusableIndex, FileNotFoundError."""
    with _opened(file) as stream:
        raw = _read_header(stream)
        header = _header(raw)
        try:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UnusableIndex(f"it cannot be mapped into memory ({error})") from error
    pairs, vectors, index = _checked_sections(memoryview(mapped), raw)
    n, d = header.count, header.width
    if len(pairs) != 16 * n or len(vectors) != 4 * n * d:
        raise UnusableIndex("its sections are not as long as its header says")
    try:
        read = AnnIndex.from_bytes(np.frombuffer(index, np.uint8), header.parameters, n, d)
    except ValueError as error:
        raise UnusableIndex(f"its FAISS index is none that is written here ({error})") from error
    except (RuntimeError, TypeError, MemoryError) as error:  # what FAISS's binding raises
        raise UnusableIndex("FAISS cannot read it") from error
    if not read.fits(n, d):
        raise UnusableIndex("its FAISS index is not one of its vectors")
    rows = np.frombuffer(vectors, "<f4").reshape(n, d)
    if not all(np.isfinite(rows[start : start + _ROWS]).all() for start in range(0, n, _ROWS)):
        raise UnusableIndex("it holds a vector that is not finite")
    return IndexFile(header, np.frombuffer(pairs, "<i8").reshape(n, 2), rows, read)


def _bytes_of(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableIndex(f"it cannot be read ({error.strerror})") from error


def _write(stream: BinaryIO, header: Header, sections: list[memoryview]) -> None:
    places = []
    digests = [list(_digests(section)) for section in sections]
    start = 0
    for section in sections:
        places.append((start, len(section)))
        start += -(-len(section) // _ALIGNED) * _ALIGNED
    described = {
        name: {"start": place[0], "bytes": place[1], "sha256": sums}
        for name, place, sums in zip(_SECTIONS, places, digests, strict=True)
    }
    text = json.dumps({"format": FORMAT, **asdict(header), "sections": described}).encode()
    text += b" " * (-(len(text) + _FRONT) % _ALIGNED)
    stream.write(_MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text)
    for section in sections:
        stream.write(section)
        stream.write(bytes(-len(section) % _ALIGNED))


def _read_header(stream: BinaryIO) -> dict[str, Any]:
    front = stream.read(_FRONT)
    length = int.from_bytes(front[len(_MAGIC) : len(_MAGIC) + 8], "little")
    if len(front) < _FRONT or not front.startswith(_MAGIC) or length > _MAX_HEADER_BYTES:
        raise UnusableIndex("it is not an index file")
    text = stream.read(length)
    if hashlib.sha256(text).digest() != front[-32:]:
        raise UnusableIndex("its header is damaged")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnusableIndex("its header is not JSON") from error
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise UnusableIndex("it is of another format version")
    raw["end"] = _FRONT + length
    return raw


def _header(raw: dict[str, Any]) -> Header:
    try:
        known = {name: raw[name] for name in Header.__dataclass_fields__}
        settings = AnnSettings(**known.pop("settings"))
        parameters = AnnParameters.from_dict(known.pop("parameters"))
    except (KeyError, TypeError, AttributeError, ConfigError) as error:
        raise UnusableIndex("its header was not written by image2sentence") from error
    whole = all(type(known[name]) is int and known[name] >= 0 for name in ("generation", "count", "width"))
    longest = known["longest"]
    if not whole or not known["width"] or not isinstance(longest, float) or not 0 <= longest < math.inf:
        raise UnusableIndex("its header was not written by image2sentence")
    return Header(**known, settings=settings, parameters=parameters)


def _checked_sections(mapped: memoryview, raw: dict[str, Any]) -> list[memoryview]:
    sections = []
    for name in _SECTIONS:
        try:
            place = raw["sections"][name]
            start, length, sums = raw["end"] + place["start"], place["bytes"], place["sha256"]
            section = mapped[start : start + length] if min(start, length) >= 0 else mapped[:0]
        except (KeyError, TypeError) as error:
            raise UnusableIndex("its header was not written by image2sentence") from error
        if len(section) != length or list(_digests(section)) != sums:
            raise UnusableIndex(f"its section `{name}` is damaged")
        sections.append(section)
    return sections


def _digests(section: memoryview) -> Iterator[str]:
    """SHA-256 of each block, computed on all cores."""
    blocks = [section[start : start + _BLOCK] for start in range(0, len(section), _BLOCK)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield from pool.map(lambda block: hashlib.sha256(block).hexdigest(), blocks)
