"""Serialised FAISS indexes, read so far that FAISS may be given them.

FAISS believes what it reads: older versions make room for any length that a file says, and every version opens the
files that lists "on disk" name. So only the two forms that are written here are let through, and only where every
length and every label is what it has to be. In little-endian order:

    index       `IwSq` or `IwPQ`, header, lists and probes (u64), quantiser, direct map, code, inverted lists
    header      width (i32), vectors (i64), 16 bytes, trained (u8), metric (i32)
    quantiser   `IxFI`, header, number of values (u64), float32 values
    direct map  kind (u8) 0, entries (u64) 0
    code        IwSq: kind, range and its argument (4 bytes each), width, bytes of a code, number of values (u64),
                float32 values, bytes of a code (u64), by residual (u8)
                IwPQ: by residual (u8), bytes of a code, width, parts, bits, number of values (u64), float32 values
    lists       `ilar`, lists, bytes of a code (u64), `full`, number (u64), length of each (u64), or `sprs`, twice the
                number (u64), place and length of each that is not empty (u64); then of each its codes and labels (i64)
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct("<iqqqBi")
_INNER_PRODUCT = 0


def require_own_form(data: NDArray[np.uint8], code: str, lists: int, count: int, width: int) -> None:
    """Raise ValueError unless these are the bytes of such an index of `count` vectors, labelled 0 to count - 1.

    Args:
        data: The bytes.
        code: "sq8" or "pq".
        lists: Its inverted lists.
        count: Its vectors.
        width: Their width.
    """
    reader = _Reader(data)
    reader.expect(b"IwSq" if code == "sq8" else b"IwPQ")
    reader.header(width, count)
    if reader.number() != lists or not 0 < lists <= max(count, 1):
        raise ValueError("another number of lists")
    reader.number()  # probes: every search says how many
    reader.expect(b"IxFI")
    reader.header(width, lists)
    reader.values(lists * width)
    if reader.byte() or reader.number():
        raise ValueError("a map from labels to places")
    size = width if code == "sq8" else width // 4
    (_scalar_code if code == "sq8" else _product_code)(reader, width, size)
    _require_labels(reader.labels(lists, size), count)
    if reader.left:
        raise ValueError("something after its end")


def _scalar_code(reader: _Reader, width: int, size: int) -> None:
    kind = int.from_bytes(reader.take(12)[:4], "little")
    if kind != 0 or (reader.number(), reader.number()) != (width, size):
        raise ValueError("another scalar code")
    reader.values(2 * width)
    if reader.number() != size or reader.byte() > 1:
        raise ValueError("another scalar code")


def _product_code(reader: _Reader, width: int, size: int) -> None:
    residual, found = reader.byte(), [reader.number() for _ in range(4)]
    if residual > 1 or found != [size, width, size, 8]:
        raise ValueError("another product code")
    reader.values(256 * width)


def _require_labels(labels: NDArray[np.int64], count: int) -> None:
    if len(labels) != count or (count and not 0 <= labels.min() <= labels.max() < count):
        raise ValueError("labels of other vectors")
    seen = np.zeros(count, bool)
    seen[labels] = True
    if not seen.all():
        raise ValueError("a label given twice")


class _Reader:
    """Takes fields of the bytes one after the other; ValueError where they end before."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data, self._at = np.ascontiguousarray(data).data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> memoryview:
        if not 0 <= size <= self.left:
            raise ValueError("a length beyond its end")
        self._at += size
        return self._data[self._at - size : self._at]

    def expect(self, word: bytes) -> None:
        if self.take(4) != word:
            raise ValueError(f"no {word.decode()} where one has to be")

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def numbers(self, count: int) -> NDArray[np.uint64]:
        return np.frombuffer(self.take(8 * count), "<u8")

    def header(self, width: int, count: int) -> None:
        found = _HEADER.unpack(self.take(_HEADER.size))
        if (found[0], found[1], found[4], found[5]) != (width, count, 1, _INNER_PRODUCT):
            raise ValueError("a header of other vectors")

    def values(self, count: int) -> None:
        if self.number() != count:
            raise ValueError("another number of values")
        self.take(4 * count)

    def labels(self, lists: int, size: int) -> NDArray[np.int64]:
        """The labels of all inverted lists, whose codes have `size` bytes."""
        self.expect(b"ilar")
        if (self.number(), self.number()) != (lists, size):
            raise ValueError("other inverted lists")
        form, number = bytes(self.take(4)), self.number()
        if form == b"full" and number == lists:
            lengths = self.numbers(lists)
        elif form == b"sprs" and number % 2 == 0 and number <= 2 * lists:
            places, lengths = self.numbers(number).reshape(-1, 2).T
            if (places >= lists).any() or (np.diff(places.astype(np.int64)) <= 0).any():
                raise ValueError("inverted lists out of order")
        else:
            raise ValueError("other inverted lists")
        found = [np.empty(0, np.int64)]
        for length in lengths.tolist():
            self.take(size * length)
            found.append(np.frombuffer(self.take(8 * length), "<i8"))
        return np.concatenate(found)
