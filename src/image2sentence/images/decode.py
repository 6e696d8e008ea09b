"""Safe decoding of picture files that anyone may have made.

Whatever the file, the picture comes out in one form: RGB, 8 bit, sRGB, upright, first frame, on an opaque ground.
What cannot be decoded is an `ImageError` with a short reason. Pillow's global settings are left as they are.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from image2sentence.errors import ConfigError, ImageError
from image2sentence.images import tags
from image2sentence.images.colour import to_rgb
from image2sentence.images.containers import Container
from image2sentence.images.dates import date_of
from image2sentence.images.files import MAX_BYTES, PathLike, display_path, open_regular, printable
from image2sentence.images.formats import open_pixels, take_apart

MAX_PIXELS = 120_000_000
"""Largest picture decoded by default: above the 108 megapixels of large phone cameras."""

MAX_STATED_PIXELS = 1 << 30
"""Largest picture of a gallery that is shown or asked with: 9 times the largest read by default."""

MIN_DECODE_SIDE = 512
"""Smallest side in pixels to which large pictures may be reduced while decoding, by default."""

NO_MEMORY = "not enough memory to decode it"
_PIXEL_BYTES = 16
_DETAIL_CHARACTERS = 200
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
# What Pillow's decoders are known to raise on damaged input.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# What follows the pixels of a JPEG that has no end mark: where they are whole, it does not matter what.
_AFTERMATHS = (b"\xff\xd9", b"\x5a" * 4096 + b"\xff\xd9", b"\xa7\x13" * 2048 + b"\xff\xd9")
_WARNING_FILTERS = threading.Lock()
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodeLimits:
    """What decoding one picture may take.

    Attributes:
        max_pixels: Largest width x height.
        max_memory: Bytes of its decoded pixels, and of what its decoder holds beside them; None: 16 for each of
            `max_pixels`.
        seconds: Time, where a `DecodePool` decodes.
    """

    max_pixels: int = MAX_PIXELS
    max_memory: int | None = None
    seconds: float = 60.0

    @property
    def memory(self) -> int:
        """Bytes that decoding may take."""
        return _PIXEL_BYTES * self.max_pixels if self.max_memory is None else self.max_memory

    def for_picture(self, width: int | None, height: int | None) -> DecodeLimits:
        """These limits, raised so far that a picture of this size, which was let in before, is within them.

        A gallery may say any size: no more than `MAX_STATED_PIXELS` are believed.
        """
        stated = min((width or 0) * (height or 0), MAX_STATED_PIXELS)
        return replace(self, max_pixels=max(self.max_pixels, stated))

    def check(self, container: Container, at_least: int | None) -> None:
        """Raise ImageError where a picture is too large, by what its file says."""
        _check_size((container.width, container.height), self.max_pixels)
        memory = container.memory(at_least)
        if memory > self.memory:
            raise ImageError(
                f"it needs {memory / 1e6:,.0f} MB to decode, more than the limit of {self.memory / 1e6:,.0f} MB"
            )


def load_image(
    source: PathLike | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """Decode one picture: RGB, 8 bit, sRGB, upright by its EXIF orientation, first frame, on an opaque ground.

    The format is recognised by content, never by name. 16-bit grey is scaled (65535 -> 255); 32-bit and float grey
    is stretched from its own smallest to its largest value. Colour profiles are applied. Transparent pictures are put
    on white, or on black or grey where they would be lost on white (see `images.colour.ground_of`). Of raw files the
    largest embedded preview is taken. What is wrong beside the pixels (texts, checksums of them, EXIF, profile) does
    not matter.

    Args:
        source: A path, the encoded bytes, or a binary file that can seek (read from its start).
        max_pixels: Largest width x height, checked on the header before any pixel is decoded.
        at_least: Smallest side, in pixels, that the caller needs. Larger pictures may come out reduced by a
            whole factor that keeps both sides at or above it, which for JPEG saves most of the decoding. None
            keeps the full size.

    Returns:
        A picture without metadata (no EXIF position, no colour profile).

    Raises:
        ImageError: the file is missing, not a regular file, unreadable, damaged, not of a format that is read here
            (the reason names it, and what to install), or larger than `max_pixels`.
        ConfigError: `at_least` is less than 1.
    """
    if not isinstance(source, str | os.PathLike):
        return decode_image(source, max_pixels=max_pixels, at_least=at_least).picture
    try:
        with open_regular(source) as file:
            return decode_image(file, max_pixels=max_pixels, at_least=at_least).picture
    except ImageError as error:
        raise ImageError(f"{display_path(source)}: {error}") from error


class Decoded(NamedTuple):
    """A decoded picture, its width and height in pixels, upright, before any reduction, and its date.

    `taken` is the date and time of the original by the camera's clock, `2026-11-21T09:30:00`; None where unknown.
    """

    picture: Image.Image
    width: int
    height: int
    taken: str | None = None


def decode_image(
    source: bytes | BinaryIO,
    *,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    limits: DecodeLimits | None = None,
    weighed: Callable[[int], None] | None = None,
) -> Decoded:
    """As `load_image`, with the full size; an ImageError here is the bare reason. `limits` go before `max_pixels`.

    `weighed` is called before anything is decoded, with the bytes that this takes, by what the file says.
    """
    if at_least is not None and at_least < 1:
        raise ConfigError(f"at_least is a side in pixels: expected at least 1, got {at_least}")
    bounds = limits or DecodeLimits(max_pixels)
    data = source if isinstance(source, bytes) else _read(source)
    try:
        container = take_apart(data)
        bounds.check(container, at_least)
        if weighed is not None:
            weighed(container.memory(at_least))
        picture = _loaded(container, at_least, bounds.max_pixels)
        return _decoded(container, picture, at_least)
    except ImageError:
        raise
    except _DAMAGE as error:
        raise ImageError(_damage_reason(error)) from error


def date_taken(data: bytes) -> str | None:
    """`Decoded.taken` without decoding; None as well for what is no picture."""
    try:
        container = take_apart(data)
    except (ImageError, *_DAMAGE):
        return None
    return date_of(container.exif, container.xmp, container.dates)


def _read(file: BinaryIO) -> bytes:
    file.seek(0)
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"more than the limit of {MAX_BYTES:,} bytes")
    return data


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{width:,} x {height:,} = {width * height:,} pixels, more than the limit of {max_pixels:,}"
        )


def _loaded(container: Container, at_least: int | None, max_pixels: int) -> Image.Image:
    """The picture with its pixels decoded; a JPEG perhaps at 1/2, 1/4 or 1/8."""
    if container.is_whole:
        return _load(container, container.pixels, at_least, max_pixels)
    first, *others = (_load(container, container.pixels + end, at_least, max_pixels) for end in _AFTERMATHS)
    if any(not np.array_equal(np.asarray(first), np.asarray(other)) for other in others):
        raise ImageError("the file is damaged or cut short (it ends within its pixels)")
    return first


def _load(container: Container, pixels: bytes, at_least: int | None, max_pixels: int) -> Image.Image:
    with _noted_warnings(container):
        picture = open_pixels(container, io.BytesIO(pixels))
        _check_size(picture.size, max_pixels)
        if container.is_scalable and at_least is not None:
            picture.draft(None, (at_least, at_least))
        picture.load()
    return picture


@contextmanager
def _noted_warnings(container: Container) -> Iterator[None]:
    """Keep what the library warns about from the terminal; it is in the log, and never decides."""
    if container.format in ("JPEG", "PNG", "GIF", "WebP"):
        yield  # of what is left of such a file nothing is warned about
        return
    with _WARNING_FILTERS, warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        yield
    for one in noted:
        _log.info("%s: %s", container.format, printable(str(one.message))[:_DETAIL_CHARACTERS])


def _decoded(container: Container, picture: Image.Image, at_least: int | None) -> Decoded:
    exif = container.exif or _bytes(picture, "exif")
    width, height = (container.width, container.height) if container.is_scalable else picture.size
    rgb = to_rgb(picture, at_least, container.icc or _bytes(picture, "icc_profile"))
    orientation = 1 if container.is_upright else tags.orientation(exif)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    if orientation in _ON_ITS_SIDE:
        width, height = height, width
    rgb.info.clear()
    return Decoded(
        rgb, width, height, date_of(exif, container.xmp or _bytes(picture, "xmp"), container.dates)
    )


def _bytes(picture: Image.Image, name: str) -> bytes:
    found = picture.info.get(name)
    return found.removeprefix(b"Exif\0\0") if isinstance(found, bytes) else b""


def _damage_reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return NO_MEMORY
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to decode safely ({error})"
    detail = printable(str(error))[:_DETAIL_CHARACTERS] or type(error).__name__
    return f"the file is damaged or cut short ({detail})"
