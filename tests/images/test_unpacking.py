"""Compressed texts and profiles of a PNG, each a small bomb: one of a kind is unpacked, whatever their number."""

from __future__ import annotations

import io
import struct
import time
import zlib

import pytest
from PIL import Image, ImageCms

from image2sentence.images import containers
from image2sentence.images.formats import take_apart

BOMB = zlib.compress(bytes(5 << 20), 9)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(*chunks: bytes) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    head, rest = file.getvalue()[:33], file.getvalue()[33:]
    return head + b"".join(chunks) + rest


@pytest.mark.parametrize(
    "one",
    [
        chunk(b"iCCP", b"x\0\0" + BOMB),
        chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + BOMB),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
        chunk(b"iTXt", b"date:create\0\1\0\0\0" + BOMB),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    ],
    ids=["profile", "zTXt", "iTXt", "date", "EXIF"],
)
def test_small_bombs_are_not_unpacked_one_after_the_other(
    one: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    unpack = containers._unpacked
    monkeypatch.setattr(containers, "_unpacked", lambda data: unpacked.append(1) or unpack(data))
    began = time.process_time()
    container = take_apart(with_chunks(*[one] * 2_000))
    assert (container.width, container.height, len(unpacked)) == (8, 6, 1)
    assert time.process_time() - began < 5


def test_the_first_text_and_profile_of_a_kind_count() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = [
        chunk(b"tEXt", b"Creation Time\0" + b"2026:11:21 09:30:00"),
        chunk(b"tEXt", b"Creation Time\0" + b"2001:01:01 00:00:00"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x>1</x>"),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x>2</x>"),
        chunk(b"iCCP", b"x\0\0" + zlib.compress(profile)),
        chunk(b"iCCP", b"y\0\0" + zlib.compress(b"other")),
    ]
    container = take_apart(with_chunks(*texts))
    assert (container.dates, container.xmp) == (("2026:11:21 09:30:00",), b"<x>1</x>")
    assert container.icc == profile


def test_previews_of_a_raw_file_are_looked_for_in_bounded_time() -> None:
    # Each of the first thousand begins a header that runs through all that follow.
    content = b"FUJIFILMCCD-RAW " + b"\xff\xd8\xff\xc4\0\2" * 60_000
    began = time.process_time()
    assert list(containers.largest_jpeg(content)) == []
    assert time.process_time() - began < 4
