"""Bounded reader of TIFF structures: EXIF blocks, TIFF and raw files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAX_ENTRIES = 4_096
"""Entries read of one directory; files of cameras have fewer than 200."""

MAX_DIRECTORIES = 64
"""Directories read of one file."""

IMAGE_WIDTH, IMAGE_LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, ORIENTATION, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES = 273, 274, 277, 278, 279
DATE_TIME, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 306, 322, 323, 324, 325
SUB_DIRECTORIES, SAMPLE_FORMAT, XMP, EXIF, ICC_PROFILE = 330, 339, 700, 34665, 34675
DATE_ORIGINAL, DATE_DIGITIZED, DNG_VERSION = 36867, 36868, 50706

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TEXT_BYTES = 64
_MAGIC = {42, 43, 0x55, 0x4F52, 0x5352}  # TIFF, BigTIFF, Panasonic, Olympus


class Entry(NamedTuple):
    """One value of a directory: its field type, how many numbers it has, and where its bytes lie in the file."""

    kind: int
    values: int
    start: int
    size: int


class TagReader:
    """Directories of a TIFF structure, read one by one and never out of bounds.

    Args:
        data: From its byte order mark on.

    Raises:
        ValueError: it is no TIFF structure.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        if not self.order or len(data) < 8 or self._number("H", 2) not in _MAGIC:
            raise ValueError("no TIFF structure")
        self.is_big = self._number("H", 2) == 43
        self.first = self._number("Q", 8) if self.is_big else self._number("I", 4)

    def directory(self, offset: int) -> dict[int, Entry]:
        """The first `MAX_ENTRIES` entries of a directory by tag; those that point outside of the file are left out."""
        return self._directory(offset)[0]

    def directories(self) -> Iterator[dict[int, Entry]]:
        """The directories of the main chain, each followed by those below it; at most `MAX_DIRECTORIES`."""
        waiting, seen = [self.first], set[int]()
        while waiting and len(seen) < MAX_DIRECTORIES:
            offset = waiting.pop(0)
            if offset in seen or not 8 <= offset < len(self.data):
                continue
            seen.add(offset)
            entries, following = self._directory(offset)
            yield entries
            waiting[:0] = self.numbers(entries.get(SUB_DIRECTORIES), MAX_DIRECTORIES)
            waiting.append(following)

    def numbers(self, entry: Entry | None, most: int) -> list[int]:
        """The first numbers of an entry; empty where there is none, or it holds no whole numbers."""
        if entry is None or entry.kind not in _NUMBERS:
            return []
        count = min(entry.values, most)
        return list(struct.unpack_from(f"{self.order}{count}{_NUMBERS[entry.kind]}", self.data, entry.start))

    def number(self, entry: Entry | None, default: int = 0) -> int:
        """The first number of an entry."""
        found = self.numbers(entry, 1)
        return found[0] if found else default

    def text(self, entry: Entry | None) -> str:
        """A short text, such as a date; empty where there is none."""
        if entry is None or entry.kind != 2:
            return ""
        return self.raw(entry)[:_TEXT_BYTES].partition(b"\0")[0].decode("ascii", "replace").strip()

    def raw(self, entry: Entry | None) -> bytes:
        """The bytes of an entry."""
        return b"" if entry is None else self.data[entry.start : entry.start + entry.size]

    def _number(self, kind: str, offset: int) -> int:
        if offset + struct.calcsize(kind) > len(self.data):
            return 0
        found: int = struct.unpack_from(self.order + kind, self.data, offset)[0]
        return found

    def _directory(self, offset: int) -> tuple[dict[int, Entry], int]:
        head, entry_form = ("Q", "HHQ") if self.is_big else ("H", "HHI")
        start = offset + struct.calcsize("=" + head)
        inline = struct.calcsize("=" + entry_form[2:])
        length = 4 + 2 * inline
        count = self._number(head, offset) if offset < len(self.data) else 0
        entries: dict[int, Entry] = {}
        for place in range(start, start + min(count, MAX_ENTRIES) * length, length):
            if place + length > len(self.data):
                break
            tag, kind, values = struct.unpack_from(self.order + entry_form, self.data, place)
            size = _SIZES.get(kind, 0) * values
            value = place + 4 + inline
            value = value if size <= inline else self._number(entry_form[2:], value)
            if size and value + size <= len(self.data):
                entries.setdefault(tag, Entry(kind, values, value, size))
        return entries, self._number(entry_form[2:], start + count * length)


def orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 1 where it is missing or damaged."""
    try:
        reader = TagReader(exif)
    except ValueError:
        return 1
    found = reader.number(reader.directory(reader.first).get(ORIENTATION), 1)
    return found if 1 <= found <= 8 else 1
