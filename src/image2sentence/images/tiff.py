"""TIFF files, and raw files of cameras that are built like them."""

from __future__ import annotations

import struct

from image2sentence.errors import ImageError
from image2sentence.images import tags
from image2sentence.images.containers import MAX_METADATA, Container, largest_jpeg, read_jpeg
from image2sentence.images.tags import Entry, TagReader

MAX_STRIPS = 1_000_000
"""Strips or tiles of a TIFF."""

_MAX_VALUES = 3 << 16
_POSITIONS = (tags.STRIP_OFFSETS, tags.STRIP_BYTES, tags.TILE_OFFSETS, tags.TILE_BYTES)
# What decides the pixels: layout, compression and its tables, colours.
_KEPT = frozenset(
    {
        *(tags.IMAGE_WIDTH, tags.IMAGE_LENGTH, tags.BITS, tags.COMPRESSION, tags.PHOTOMETRIC, tags.SAMPLES),
        *(tags.ROWS_PER_STRIP, tags.SAMPLE_FORMAT, tags.TILE_WIDTH, tags.TILE_LENGTH, *_POSITIONS),
        *(
            266,
            284,
            292,
            293,
            317,
            320,
            332,
            338,
            347,
        ),  # fill order, planes, fax, predictor, palette, inks, extra
        *range(512, 522),  # the old way to hold JPEG
        *range(529, 533),  # YCbCr
    }
)
_COLOUR_FILTER, _LINEAR_RAW = 32803, 34892
_RAW_HEADS = {
    b"FUJIFILMCCD-RAW": "RAF",
    b"FOVb": "X3F",
    b"IIRO": "ORF",
    b"IIRS": "ORF",
    b"MMOR": "ORF",
    b"IIU\0": "RW2",
    b"\0MRM": "MRW",
}


def raw_name(data: bytes) -> str | None:
    """What kind of raw file this is; None where it is none."""
    for head, name in _RAW_HEADS.items():
        if data.startswith(head):
            return name
    if data[4:8] == b"ftyp" and data[8:12] == b"crx ":
        return "CR3"
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    if data[8:10] == b"CR":
        return "CR2"
    reader = TagReader(data)
    for directory in reader.directories():
        if tags.DNG_VERSION in directory:
            return "DNG"
        if reader.number(directory.get(tags.PHOTOMETRIC)) in (_COLOUR_FILTER, _LINEAR_RAW):
            return "raw"
    return None


def read_raw(data: bytes, name: str) -> Container:
    """The largest JPEG preview inside a raw file, with the orientation and date of the whole. Raises ImageError."""
    for preview in largest_jpeg(data):
        try:
            found = read_jpeg(preview)
        except ImageError:
            continue
        return Container(**{**vars(found), "exif": found.exif or _exif_of_raw(data)})
    raise ImageError(f"the {name} file holds no JPEG preview: export it as JPEG or TIFF")


def _exif_of_raw(data: bytes) -> bytes:
    if data[:2] in (b"II", b"MM"):
        return data
    canon = data.find(b"CMT1", 0, 1 << 16)
    return data[canon + 4 : canon + 4 + (1 << 16)] if canon > 0 else b""


def read_tiff(data: bytes) -> Container:
    """A TIFF of its first page, with the tags that decide its pixels. Raises ImageError."""
    try:
        reader = TagReader(data)
    except ValueError as error:
        raise ImageError(f"the file is damaged or cut short ({error})") from error
    page = reader.directory(reader.first)
    for tag, entry in page.items():
        most = MAX_STRIPS if tag in _POSITIONS else _MAX_VALUES
        if tag in _KEPT and entry.values > most:
            raise ImageError(f"the file has {entry.values:,} values of TIFF tag {tag}, more than {most:,}")
    width, height = (reader.number(page.get(tag)) for tag in (tags.IMAGE_WIDTH, tags.IMAGE_LENGTH))
    samples = min(reader.number(page.get(tags.SAMPLES), 1), 16)
    bits = min(max(reader.numbers(page.get(tags.BITS), 16), default=1), 64)
    block = _block_pixels(reader, page, width, height)
    profile, xmp = (reader.raw(page.get(tag)) for tag in (tags.ICC_PROFILE, tags.XMP))
    return Container(
        "TIFF",
        width,
        height,
        _rebuilt(reader, {tag: entry for tag, entry in page.items() if tag in _KEPT}),
        4 if samples > 1 or bits > 16 else 2 if bits > 8 else 1,
        block * max(1, samples * bits // 8),
        exif=data,
        icc=profile if len(profile) <= MAX_METADATA else b"",
        xmp=xmp if len(xmp) <= MAX_METADATA else b"",
    )


def _block_pixels(reader: TagReader, page: dict[int, Entry], width: int, height: int) -> int:
    """Pixels of a strip or tile, which the decoder holds beside the picture."""
    if tags.TILE_WIDTH in page:
        return reader.number(page[tags.TILE_WIDTH]) * reader.number(page.get(tags.TILE_LENGTH))
    return width * min(height, reader.number(page.get(tags.ROWS_PER_STRIP), height))


def _rebuilt(reader: TagReader, page: dict[int, Entry]) -> bytes:
    """The file with one directory, which has these entries, at its end."""
    order, data = reader.order, reader.data
    head, form, room = ("Q", "HHQ", 8) if reader.is_big else ("H", "HHI", 4)
    entries = [struct.pack(order + head, len(page))]
    for tag, entry in sorted(page.items()):
        entries.append(struct.pack(order + form + form[-1], tag, entry.kind, entry.values, entry.start))
        if entry.size <= room:
            entries[-1] = entries[-1][:-room] + reader.raw(entry).ljust(room, b"\0")
    entries.append(bytes(room))
    padding = bytes(-len(data) % 8)
    first = struct.pack(order + form[2:], len(data) + len(padding))
    start = data[:8] + first if reader.is_big else data[:4] + first
    return b"".join((start, memoryview(data)[len(start) :], padding, *entries))
