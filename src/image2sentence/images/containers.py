"""Structure of picture files: size, metadata, and what decides the pixels.

Each reader walks the structure of one format, without decoding, within bounds. What lies beside the pixels (texts,
thumbnails, further frames, checksums of these) is not handed to the decoder, so it can neither break nor stop it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from image2sentence.errors import ImageError

MAX_SCANS = 100
"""Scans of a progressive JPEG; encoders write 10 or so. Each costs a pass over all pixels, though it be empty."""

MAX_SEGMENTS = 10_000
"""Segments of a JPEG, chunks of a WebP."""

MAX_CHUNKS = 500_000
"""Chunks of a PNG, small blocks of a GIF before its first frame."""

MAX_METADATA = 4 << 20
"""Bytes of a colour profile or EXIF block, and of a text that is unpacked; larger ones are passed over."""

_BASELINE, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_NO_FRAME_HEADER = (0xC4, 0xC8, 0xCC)
_EOI, _SOS = 0xD9, 0xDA
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_MARKER_BETWEEN_SCANS = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_START = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")
_KEPT_SEGMENTS = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, 0xE0, 0xEE})
_ICC, _XMP_HEAD, _EXIF_HEAD = b"ICC_PROFILE\0", b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
_MAX_PREVIEWS, _MAX_PREVIEW_SEGMENTS = 1_000, 500  # their headers may overlap: every byte may begin one

_PNG_CHANNEL_BYTES = {0: 1, 2: 4, 3: 1, 4: 4, 6: 4}
_PNG_KEPT = (b"PLTE", b"tRNS")
_PNG_DATES = (b"Creation Time", b"creation time", b"date:create", b"exif:DateTimeOriginal")
_RAW_EXIF = b"Raw profile type exif"


@dataclass(frozen=True)
class Container:
    """A picture file without its pixels decoded.

    Attributes:
        format: Its name, such as "JPEG".
        width: Pixels across as they are stored; 0 where only the decoder can tell.
        height: Pixels down.
        pixels: The file, or one like it that shows the same.
        pixel_bytes: Memory that the decoder takes for each pixel.
        fixed_bytes: Memory that it takes beside that, at any scale.
        is_scalable: Whether the decoder can reduce while it decodes (JPEG).
        is_whole: False where the file ends without its end mark, so that its pixels may be cut short.
        is_upright: Whether the decoder turns it upright.
        exif: Its EXIF block from the byte order mark on; may be damaged. As are:
        icc: its colour profile,
        xmp: its XMP packet,
        dates: and other texts that may be dates, the best first.
    """

    format: str
    width: int
    height: int
    pixels: bytes
    pixel_bytes: float
    fixed_bytes: int = 0
    is_scalable: bool = False
    is_whole: bool = True
    is_upright: bool = False
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dates: tuple[str, ...] = ()

    def memory(self, at_least: int | None) -> int:
        """Bytes that decoding takes, the file's own not counted."""
        scale = 1
        if self.is_scalable and at_least is not None:
            room = min(self.width, self.height) // at_least
            scale = next(one for one in (8, 4, 2, 1) if one <= max(room, 1))
        return self.fixed_bytes + int(self.pixel_bytes * self.width * self.height / scale**2)


# ---- JPEG ----


@dataclass(frozen=True)
class _JpegHeader:
    """What stands before the first scan of a JPEG."""

    kept: list[bytes]
    scan: int
    frame: int
    size: tuple[int, int]
    samplings: list[tuple[int, int, int]]
    exif: bytes
    xmp: bytes
    icc: bytes


def read_jpeg(data: bytes) -> Container:
    """A JPEG without thumbnails, comments, padding and what follows it. Raises ImageError."""
    header = _jpeg_header(data, 0)
    width, height = header.size
    buffered = header.frame in _PROGRESSIVE or data[header.scan + 4] < len(header.samplings)
    if buffered:
        end, is_whole = _end_of_scans(data, header)
    else:
        end = data.find(b"\xff\xd9", header.scan) + 2
        end, is_whole = (end, True) if end > 1 else (len(data), False)
    return Container(
        "JPEG",
        width,
        height,
        b"".join((b"\xff\xd8", *header.kept, memoryview(data)[header.scan : end])),
        1 if len(header.samplings) == 1 else 4,
        _coefficients(width, height, header.samplings) if buffered else 0,
        is_scalable=True,
        is_whole=is_whole,
        exif=header.exif,
        icc=header.icc,
        xmp=header.xmp,
    )


def largest_jpeg(data: bytes) -> Iterator[bytes]:
    """The JPEG pictures inside another file, the largest first: the previews of raw files."""
    found: list[tuple[int, int]] = []
    for number, start in enumerate(_JPEG_START.finditer(data)):
        if number == _MAX_PREVIEWS:
            break
        try:
            header = _jpeg_header(data, start.start(), _MAX_PREVIEW_SEGMENTS)
        except ImageError:
            continue
        if header.frame in (0xC0, 0xC1, 0xC2) and len(header.samplings) in (1, 3):
            found.append((header.size[0] * header.size[1], start.start()))
    for _, start_of_jpeg in sorted(found, reverse=True)[:3]:
        yield data[start_of_jpeg:]


def _jpeg_header(data: bytes, start: int, most: int = MAX_SEGMENTS) -> _JpegHeader:
    kept: list[bytes] = []
    profile: dict[int, bytes] = {}
    exif = xmp = b""
    frame, size, samplings = 0, (0, 0), list[tuple[int, int, int]]()
    position = start + 2
    for _ in range(most):
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            raise _cut_short()
        marker, position = data[found.end() - 1], found.end()
        if marker == _EOI:
            raise ImageError("the file is damaged or cut short (it ends before its pixels)")
        if marker in (0x01, *range(0xD0, 0xD9)):
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise _cut_short()
        segment = data[position + 2 : position + length]
        if marker == _SOS:
            if not samplings or not segment:
                raise ImageError("the file is damaged or cut short (it has pixels of no size)")
            icc = b"".join(profile[number] for number in sorted(profile))
            return _JpegHeader(kept, found.start(), frame, size, samplings, exif, xmp, icc)
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME_HEADER and len(segment) >= 6:
            frame = marker
            size = (int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big"))
            parts = [segment[at : at + 3] for at in range(6, min(len(segment), 6 + 3 * segment[5]) - 2, 3)]
            samplings = [(part[0], part[1] >> 4, part[1] & 15) for part in parts]
        if marker in _KEPT_SEGMENTS:
            kept.append(data[found.start() : position + length])
        elif marker == 0xE1 and segment.startswith(_EXIF_HEAD):
            exif = exif or segment[len(_EXIF_HEAD) :]
        elif marker == 0xE1 and segment.startswith(_XMP_HEAD):
            xmp = xmp or segment[len(_XMP_HEAD) :]
        elif marker == 0xE2 and segment.startswith(_ICC) and len(segment) > len(_ICC) + 2:
            profile.setdefault(segment[len(_ICC)], segment[len(_ICC) + 2 :])
        position += length
    raise ImageError(f"the file has more than {most:,} segments before its pixels")


def _end_of_scans(data: bytes, header: _JpegHeader) -> tuple[int, bool]:
    """Where the last scan ends, and whether the file says so; counts the scans."""
    # For each coefficient of each component how many of its bits are still to come.
    missing = {component: [64] * 64 for component, _, _ in header.samplings}
    position, scans = header.scan, 0
    for _ in range(MAX_SEGMENTS):
        found = _MARKER_BETWEEN_SCANS.search(data, position)
        if found is None:
            if any(map(any, missing.values())):
                raise _cut_short()
            return len(data), False
        marker, position = data[found.end() - 1], found.end()
        if marker == _EOI:
            return position, True
        if marker == _SOS:
            scans += 1
            _note_scan(data[position + 2 : position + 16], missing, header.frame)
        if scans > MAX_SCANS:
            raise ImageError(f"the file has more than {MAX_SCANS} scans, each of them over all pixels")
        position += int.from_bytes(data[position : position + 2], "big")
    raise ImageError(f"the file has more than {MAX_SEGMENTS:,} segments between its scans")


def _note_scan(scan: bytes, missing: dict[int, list[int]], frame: int) -> None:
    count = scan[0] if scan else 0
    if len(scan) < 1 + 2 * count + 3:
        return
    first, last, bits = scan[1 + 2 * count : 4 + 2 * count]
    if frame not in _PROGRESSIVE:
        first, last, bits = 0, 63, 0
    for component in scan[1 : 1 + 2 * count : 2]:
        if component in missing and first <= last < 64:
            missing[component][first : last + 1] = [bits & 15] * (last + 1 - first)


def _coefficients(width: int, height: int, samplings: list[tuple[int, int, int]]) -> int:
    """Bytes of a JPEG's coefficients, which are all kept where there are several scans."""
    most = max((across * down for _, across, down in samplings), default=1) or 1
    return sum(2 * width * height * across * down // most for _, across, down in samplings)


def _cut_short() -> ImageError:
    return ImageError("the file is damaged or cut short (it ends within its header)")


# ---- PNG ----


def read_png(data: bytes) -> Container:
    """A PNG of its critical chunks and one animation frame. Raises ImageError."""
    chunks: list[memoryview] = []
    kept: dict[bytes, bytes] = {}
    exif = icc = xmp = raw_exif = b""
    texts: dict[bytes, str] = {}
    # Profile and keywords that were read: the first counts, or a file of small bombs takes minutes to unpack.
    read: set[bytes] = set()
    for name, body in _png_chunks(data):
        if name == b"IDAT":
            chunks.append(body)
        elif name == b"IHDR" or (name in _PNG_KEPT and not chunks):
            kept.setdefault(name, bytes(body))
        elif len(body) > MAX_METADATA:
            continue
        elif name == b"eXIf":
            exif = exif or bytes(body).removeprefix(_EXIF_HEAD)
        elif name == b"iCCP" and name not in read:
            read.add(name)
            icc = _unpacked(bytes(body).partition(b"\0")[2][1:])
        elif name == b"tIME" and len(body) == 7:
            texts.setdefault(name, "{}-{}-{} {}:{:02}:{:02}".format(*struct.unpack(">H5B", body)))
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            key, text = _png_text(name, bytes(body), read)
            if not text:
                continue
            if key == _RAW_EXIF:
                raw_exif = _hexadecimal(text)
            elif key == b"XML:com.adobe.xmp":
                xmp = text
            elif key in _PNG_DATES:
                texts.setdefault(key, text[:64].decode("latin-1"))
    header = kept.get(b"IHDR", b"")
    if len(header) != 13:
        raise _cut_short()
    width, height, bits, kind = struct.unpack(">IIBB", header[:10])
    if not _is_transparency(kept.get(b"tRNS", b""), kind):
        kept.pop(b"tRNS", None)
    whole = [(name, kept[name]) for name in (b"IHDR", *_PNG_KEPT) if name in kept]
    whole += [(b"IDAT", b"".join(chunks)), (b"IEND", b"")]
    return Container(
        "PNG",
        width,
        height,
        b"".join((data[:8], *(part for chunk in whole for part in _png_chunk(*chunk)))),
        2 if (kind, bits) == (0, 16) else _PNG_CHANNEL_BYTES.get(kind, 4),
        exif=exif or raw_exif,
        icc=icc,
        xmp=xmp,
        dates=tuple(texts[key] for key in (*_PNG_DATES, b"tIME") if key in texts),
    )


def _is_transparency(body: bytes, kind: int) -> bool:
    """Whether a tRNS chunk is one of a picture of this colour type; else it says nothing."""
    return len(body) == {0: 2, 2: 6}.get(kind, -1) or (kind == 3 and 0 < len(body) <= 256)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view = memoryview(data)
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IEND":
            return
        yield name, view[position + 8 : position + 8 + length]
        position += 12 + length
    raise ImageError(f"the file has more than {MAX_CHUNKS:,} chunks")


def _png_chunk(name: bytes, body: bytes) -> tuple[bytes, ...]:
    return struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))


def _png_text(name: bytes, body: bytes, read: set[bytes]) -> tuple[bytes, bytes]:
    """Keyword and text of a text chunk; no text where its keyword is of no use, or was read before."""
    key, _, rest = body.partition(b"\0")
    if key in read or key not in (*_PNG_DATES, _RAW_EXIF, b"XML:com.adobe.xmp"):
        return key, b""
    read.add(key)
    if name == b"zTXt":
        return key, _unpacked(rest[1:])
    if name == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        return key, _unpacked(rest) if packed else rest
    return key, rest


def _unpacked(data: bytes) -> bytes:
    """A text or profile unpacked, if it is whole and no larger than `MAX_METADATA`."""
    unpack = zlib.decompressobj()
    try:
        text = unpack.decompress(data, MAX_METADATA)
    except zlib.error:
        return b""
    return text if unpack.eof else b""


def _hexadecimal(text: bytes) -> bytes:
    """An EXIF block as ImageMagick writes it: a name, a length, and hexadecimal digits."""
    digits = b"".join(text.split()[2:])
    try:
        return bytes.fromhex(digits.decode("ascii")).removeprefix(_EXIF_HEAD)
    except ValueError:
        return b""


# ---- GIF, WebP, BMP ----


def read_gif(data: bytes) -> Container:
    """A GIF without what stands before its first frame. Raises ImageError."""
    if len(data) < 13:
        raise _cut_short()
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = head = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    control = b""
    for _ in range(MAX_CHUNKS):
        kind = data[position : position + 1]
        if kind == b",":
            pixels = b"".join((data[:head], control, memoryview(data)[position:]))
            return Container("GIF", width, height, pixels, 3)
        if kind != b"!":
            raise ImageError("the file is damaged or cut short (it has no frame)")
        start, position = position, position + 2
        while position < len(data) and data[position]:
            position += 1 + data[position]
            if position - start > MAX_METADATA:
                raise ImageError(
                    f"the file has more than {MAX_METADATA:,} bytes of notes before its first frame"
                )
        position += 1
        if data[start + 1 : start + 2] == b"\xf9":
            control = data[start:position]
    raise ImageError(f"the file has more than {MAX_CHUNKS:,} blocks before its first frame")


def read_webp(data: bytes) -> Container:
    """A WebP, with its metadata read. Raises ImageError."""
    found: dict[bytes, bytes] = {}
    position = whole = 12
    for _ in range(MAX_SEGMENTS):
        if position + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, position)
        if name in (b"ICCP", b"EXIF", b"XMP ") and length <= MAX_METADATA:
            found.setdefault(name, data[position + 8 : position + 8 + length])
        position += 8 + length + (length & 1)
        whole = position if position <= len(data) else whole
    if int.from_bytes(data[4:8], "little") + 8 > len(
        data
    ):  # more is announced than there is: take what is whole
        data = data[:4] + struct.pack("<I", whole - 8) + data[8:whole]
    width, height = webp_size(data[:32])
    return Container(
        "WebP",
        width,
        height,
        data,
        WEBP_PIXEL_BYTES,
        exif=found.get(b"EXIF", b"").removeprefix(_EXIF_HEAD),
        icc=found.get(b"ICCP", b""),
        xmp=found.get(b"XMP ", b""),
    )


WEBP_PIXEL_BYTES = 16
"""The animation's canvas, the one before, their bytes, and the picture."""


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height in the first 32 bytes of a WebP, whose decoder allocates on opening. Raises ImageError."""
    kind = head[12:16]
    if len(head) < 30:
        raise _cut_short()
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def read_bmp(data: bytes) -> Container:
    """A BMP. Raises ImageError."""
    if len(data) < 30:
        raise _cut_short()
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    return Container("BMP", abs(width), abs(height), data, 1 if bits <= 8 else 4)
