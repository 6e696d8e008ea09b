"""Formats of picture files: recognised by content, with the decoder of each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, BinaryIO

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from image2sentence.errors import ImageError
from image2sentence.images import containers, tiff
from image2sentence.images.containers import Container

RAW_EXTENSIONS = frozenset(
    {
        ".3fr",
        ".arw",
        ".cr2",
        ".cr3",
        ".dcr",
        ".dng",
        ".erf",
        ".iiq",
        ".kdc",
        ".mef",
        ".mos",
        ".mrw",
        ".nef",
        ".nrw",
    }
    | {".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)

EXTENSIONS = RAW_EXTENSIONS | frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".hif", ".jxl"}
)
"""Lower-case file name endings that promise a picture. Only indexing looks at names; decoding, at content."""

FORMATS = "JPEG, PNG, GIF, WebP, BMP, TIFF, AVIF, HEIC, JPEG XL or raw"

_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_ISPE = re.compile(rb"ispe\0{4}(.{8})", re.DOTALL)
_META_BYTES = 1 << 20
_AVIF_PIXEL_BYTES, _HEIC_PIXEL_BYTES, _JXL_PIXEL_BYTES = 10, 13, 16  # measured
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# What people take for pictures and is none here, by how it begins.
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file, perhaps an SVG drawing"),
    (b"\0\0\1\0", "an icon"),
    (b"v/1\1", "an OpenEXR picture"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"gimp xcf", "a GIMP file"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"PK\3\4", "a ZIP archive"),
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
)


def ending_of(path: str) -> str:
    """The ending of a file's name in lower case, such as ".jpg"; white space behind it does not count."""
    return os.path.splitext(path)[1].rstrip().lower()


def take_apart(data: bytes) -> Container:
    """A picture file's container, whatever its name. Raises ImageError with the bare reason."""
    head = data[:32]
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(b"\xff\xd8\xff"):
        return containers.read_jpeg(data)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return containers.read_png(data)
    if head.startswith((b"GIF87a", b"GIF89a")):
        return containers.read_gif(data)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return containers.read_webp(data)
    raw = tiff.raw_name(data)
    if raw is not None:
        return tiff.read_raw(data, raw)
    if head.startswith(_TIFF_HEADS):
        return tiff.read_tiff(data)
    if head[4:8] == b"ftyp":
        return _read_boxed(data)
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        width, height = jxl_size(data)
        return Container("JPEG XL", width, height, data, _JXL_PIXEL_BYTES, is_upright=True)
    if head.startswith(b"BM"):
        return containers.read_bmp(data)
    raise ImageError(_refusal(head))


def open_pixels(container: Container, file: BinaryIO) -> Image.Image:
    """The pixels of a container as a lazy Pillow picture.

    `Image.open` would do, but it warns and raises on sizes by a global limit before the caller sees them.

    Raises:
        ImageError: nothing that decodes this format is installed; the reason says how to install it.
        Exception: whatever the decoder raises on damaged files.
    """
    return _OPENERS[container.format](file)


def _open_avif(file: BinaryIO) -> Image.Image:
    if not features.check("avif"):
        raise ImageError("AVIF pictures need a newer Pillow: pip install --upgrade 'pillow>=11.3'")
    opened: Image.Image = import_module("PIL.AvifImagePlugin").AvifImageFile(file)
    return opened


def _open_heic(file: BinaryIO) -> Image.Image:
    plugin = _optional("pillow_heif.as_plugin", "HEIC", "pillow-heif", "heic")
    opened: Image.Image = plugin.HeifImageFile(file)
    return opened


def _open_jxl(file: BinaryIO) -> Image.Image:
    plugin = _optional("pillow_jxl.JpegXLImagePlugin", "JPEG XL", "pillow-jxl-plugin", "jxl")
    opened: Image.Image = plugin.JXLImageFile(file)
    return opened


_OPENERS: dict[str, Callable[[BinaryIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": _open_avif,
    "HEIC": _open_heic,
    "JPEG XL": _open_jxl,
}


def _optional(module: str, name: str, package: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImageError(
            f"{name} pictures need {package}: pip install 'image2sentence[{extra}]', and to index those that were "
            "refused before: index --retry-failed"
        ) from error


def _read_boxed(data: bytes) -> Container:
    """An AVIF or HEIC file: both are boxes, of one of which the first lists what the file is compatible with."""
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in range(8, max(length, 12), 4)}
    sizes = [_sides(found.group(1)) for found in _ISPE.finditer(data[:_META_BYTES])]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if brands & _AVIF_BRANDS:
        return Container("AVIF", width, height, data, _AVIF_PIXEL_BYTES)
    if brands & _HEIC_BRANDS or b"mif1" in brands:
        return Container("HEIC", width, height, data, _HEIC_PIXEL_BYTES, is_upright=True)
    raise ImageError(f"it is a video, or another file of the MP4 family, not a {FORMATS} picture")


def _sides(ispe: bytes) -> tuple[int, int]:
    return int.from_bytes(ispe[:4], "big"), int.from_bytes(ispe[4:], "big")


def jxl_size(data: bytes) -> tuple[int, int]:
    """Width and height in the header of a JPEG XL file, which is decoded as soon as it is opened. Raises ImageError."""
    codestream = data[:64] if data[:2] == b"\xff\x0a" else _jxl_codestream(data)
    if codestream[:2] != b"\xff\x0a" or len(codestream) < 12:
        raise ImageError("the file is damaged or cut short (it has no size)")
    bits = _Bits(codestream[2:12])
    is_small = bits.read(1)
    height = _jxl_side(bits, is_small)
    ratio = bits.read(3)
    if ratio == 0:
        return _jxl_side(bits, is_small), height
    across, down = _JXL_RATIOS[ratio - 1]
    return height * across // down, height


def _jxl_codestream(data: bytes) -> bytes:
    """The beginning of the codestream in a file of boxes."""
    for name, start in _boxes(data):
        if name in (b"jxlc", b"jxlp"):
            start += 4 if name == b"jxlp" else 0
            return data[start : start + 64]
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and start of the content of the first boxes of a file."""
    position = 0
    for _ in range(1_000):
        if position + 16 > len(data):
            return
        length, name = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        head = 16 if length == 1 else 8
        length = int.from_bytes(data[position + 8 : position + 16], "big") if length == 1 else length
        yield name, position + head
        if length < head:
            return
        position += length


class _Bits:
    """Bits of a JPEG XL header, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def read(self, count: int) -> int:
        found = self._bits & ((1 << count) - 1)
        self._bits >>= count
        return found


def _jxl_side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return 8 * (bits.read(5) + 1)
    return 1 + bits.read((9, 13, 18, 30)[bits.read(2)])


def _refusal(head: bytes) -> str:
    for start, name in _OTHERS:
        if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(start):
            return f"it is {name}, not a {FORMATS} picture"
    return f"its content is not a {FORMATS} picture, whatever its name says"
