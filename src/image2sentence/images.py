"""Safe decoding of picture files that anyone may have made.

Whatever the file, the picture comes out in one form: RGB, 8 bit, upright, first frame, transparency on white.
What cannot be decoded is an `ImageError` with a short reason. Pillow's global settings are left as they are.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import BinaryIO, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from image2sentence.errors import ConfigError, ImageError

MAX_PIXELS = 120_000_000
"""Largest picture decoded unless told otherwise: above the 108 megapixels of large phone cameras."""

MAX_BYTES = 1 << 30
"""Largest picture file read (1 GiB)."""

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
)
"""Lower-case file name endings that promise a picture. Only indexing looks at names; decoding, at content."""

FORMATS = "JPEG, PNG, GIF, WebP, BMP or TIFF"

PathLike: TypeAlias = str | os.PathLike[str]

_HEAD_BYTES = 32
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
_WARNING_FILTERS = threading.Lock()


def load_image(
    source: PathLike | bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Image.Image:
    """Decode one picture: RGB, 8 bit, upright by its EXIF orientation, first frame, transparency on white.

    The format is told by content, never by name. 16-bit grey is scaled (65535 -> 255); 32-bit and float grey
    is stretched from its own smallest to its largest value. Colour profiles are not applied.

    Args:
        source: A path, the encoded bytes, or a binary file that can seek (read from its start).
        max_pixels: Largest width x height, checked on the header before any pixel is decoded.
        at_least: Smallest side, in pixels, that the caller needs. Larger pictures may come out reduced by a
            whole factor that keeps both sides at or above it, which for JPEG saves most of the decoding. None
            keeps the full size.

    Returns:
        A picture without metadata (no EXIF position, no colour profile).

    Raises:
        ImageError: the file is missing, not a regular file, unreadable, damaged, not JPEG, PNG, GIF, WebP,
            BMP or TIFF, or larger than `max_pixels`.
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
    """A decoded picture, its width and height in pixels, upright, before any reduction, and its EXIF date.

    `taken` is the date and time of the original by the camera's clock, `2026-11-21T09:30:00`; None where unknown.
    """

    picture: Image.Image
    width: int
    height: int
    taken: str | None = None


def decode_image(
    source: bytes | BinaryIO, *, max_pixels: int = MAX_PIXELS, at_least: int | None = None
) -> Decoded:
    """As `load_image`, with the full size; an ImageError here is the bare reason."""
    if at_least is not None and at_least < 1:
        raise ConfigError(f"at_least is a side in pixels: expected at least 1, got {at_least}")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    reader = _reader(head)
    _check_size(_webp_size(head), max_pixels)
    file.seek(0)
    try:
        picture = reader(file)
        _check_size(picture.size, max_pixels)
        return _decoded(picture, at_least)
    except _DAMAGE as error:
        raise ImageError(_damage_reason(error)) from error


def date_taken(data: bytes) -> str | None:
    """`Decoded.taken` without decoding; None as well for what is no picture."""
    try:
        return _taken(_exif(_reader(data[:_HEAD_BYTES])(io.BytesIO(data))))
    except (ImageError, *_DAMAGE):
        return None


def content_hash(path: PathLike) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits (what `sha256sum` prints). Raises ImageError."""
    try:
        return hashlib.sha256(read_regular(path)[0]).hexdigest()
    except ImageError as error:
        raise ImageError(f"{display_path(path)}: {error}") from error


def display_path(path: PathLike | bytes) -> str:
    """A path as text that any UTF-8 terminal or JSON writer takes: odd bytes become escapes."""
    text = os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return printable(text)


def open_regular(path: PathLike) -> BinaryIO:
    """Open a regular file for reading; never waits on a pipe or a device.

    Raises:
        ImageError: with the bare reason; the caller knows the name.
    """
    # Looking first keeps devices unopened (opening has effects); looking again after opening closes the gap.
    try:
        _require_regular(os.stat(path))
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
    except (OSError, ValueError) as error:
        raise ImageError(_open_reason(path, error)) from error
    try:
        _require_regular(os.fstat(file.fileno()))
    except ImageError:
        file.close()
        raise
    return file


def read_regular(path: PathLike) -> tuple[bytes, os.stat_result]:
    """The content of a regular file and its status just before. Raises ImageError with the bare reason."""
    with open_regular(path) as file:
        try:
            # In this order: a file changed while it is read then looks changed the next time.
            status = os.fstat(file.fileno())
            return file.read(), status
        except (OSError, MemoryError) as error:
            raise ImageError(f"it cannot be read ({error})") from error


def printable(text: str) -> str:
    """The text with control characters and lone surrogates as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("a pipe, socket or device, not a regular file")
    if status.st_size > MAX_BYTES:
        raise ImageError(f"{status.st_size:,} bytes, more than the limit of {MAX_BYTES:,}")


def _open_reason(path: PathLike, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "a link to a file that does not exist" if os.path.islink(path) else "no such file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    reason = error.strerror if isinstance(error, OSError) else None
    return f"it cannot be opened ({reason or error})"


def _reader(head: bytes) -> Callable[[BinaryIO], ImageFile.ImageFile]:
    """The Pillow reader for a file that begins so.

    `Image.open` would do, but it warns and raises on sizes by a global limit before the caller sees them.
    """
    if not head:
        raise ImageError("the file is empty")
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.jpeg_factory
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImagePlugin.GifImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    if head.startswith(b"BM"):
        return BmpImagePlugin.BmpImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImagePlugin.TiffImageFile
    raise ImageError(f"its content is not a {FORMATS} picture, whatever its name says")


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height in a WebP header, (1, 1) for other files: Pillow allocates the canvas on opening."""
    kind = head[12:16] if head[8:12] == b"WEBP" else b""
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return 1, 1


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{width:,} x {height:,} = {width * height:,} pixels, more than the limit of {max_pixels:,}"
        )


def _decoded(picture: ImageFile.ImageFile, at_least: int | None) -> Decoded:
    width, height = picture.size
    if at_least is not None:
        picture.draft(None, (at_least, at_least))  # JPEG: decodes at 1/2, 1/4 or 1/8; other formats ignore it
    with _size_warnings_off(picture):
        picture.load()
    if picture.format == "TIFF":
        width, height = picture.size  # Pillow has turned it upright while loading
    exif = _exif(picture)
    orientation = exif.get(ExifTags.Base.Orientation, 1)
    rgb = _rgb(picture)
    if at_least is not None and (factor := min(rgb.size) // at_least) > 1:
        rgb = rgb.reduce(factor)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    rgb.info.clear()
    if orientation in _ON_ITS_SIDE:
        width, height = height, width
    return Decoded(rgb, width, height, _taken(exif))


@contextmanager
def _size_warnings_off(picture: Image.Image) -> Iterator[None]:
    """Keep Pillow from warning about a large size that the caller has allowed (TIFF warns while loading)."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or picture.width * picture.height <= limit:
        yield
        return
    with _WARNING_FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def _exif(picture: Image.Image) -> dict[int, object]:
    """The EXIF fields that are used here; empty where the block is missing or damaged."""
    try:
        exif = picture.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)} if exif else {}
    except _DAMAGE:
        return {}


def _taken(exif: dict[int, object]) -> str | None:
    """Date and time of the original; of digitising, or of the last change, where that is all there is."""
    for tag in (ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized, ExifTags.Base.DateTime):
        value = exif.get(tag)
        try:
            return datetime.strptime(str(value).strip(" \0"), "%Y:%m:%d %H:%M:%S").isoformat()
        except ValueError:
            continue
    return None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _deep_grey(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGB", picture.size, "white")
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _deep_grey(picture: Image.Image) -> Image.Image:
    """Grey of more than 8 bits as RGB; Pillow's own conversion would clip it."""
    values = np.asarray(picture)
    # Pillow before 11 opens 16-bit PNG as 32-bit "I".
    if values.dtype.kind == "u" or picture.format == "PNG":
        table = ((np.arange(1 << 16) + 128) // 257).astype(np.uint8)
        grey = table[np.clip(values, 0, 65535)]
    else:
        grey = _stretched(values.astype(np.float32))
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _stretched(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    finite = np.isfinite(values)
    if not finite.any():
        raise ValueError("no finite pixel value")
    low, high = float(values[finite].min()), float(values[finite].max())
    scaled = (np.where(finite, values, low) - low) * (255.0 / ((high - low) or 1.0))
    return np.round(scaled).astype(np.uint8)


def _damage_reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, Image.DecompressionBombError):
        return f"too large to decode safely ({error})"
    detail = printable(str(error))[:_DETAIL_CHARACTERS] or type(error).__name__
    return f"the file is damaged or cut short ({detail})"
