"""A folder of odd but valid picture files, each made here, with the colours that it has to show.

Every file shows the same four coloured rectangles, 48 x 32 upright, whatever it is made of: so a decoder is held to the
construction, not to another decoder.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, TiffImagePlugin, features

SIZE = (48, 32)
COLOURS = ((208, 48, 48), (48, 160, 64), (48, 64, 208), (224, 192, 48))
GREYS = (40, 104, 168, 232)
NEUTRAL = tuple((grey, grey, grey) for grey in GREYS)


class OddPicture(NamedTuple):
    """A file's name, its content, and the colours of its quarters: upper left and right, lower left and right."""

    name: str
    content: bytes
    colours: tuple[tuple[int, int, int], ...] = COLOURS
    tolerance: int = 3


def quarters(
    colours: tuple[tuple[int, int, int], ...] = COLOURS, size: tuple[int, int] = SIZE
) -> Image.Image:
    """Four rectangles."""
    picture = Image.new("RGB", size)
    width, height = size[0] // 2, size[1] // 2
    for number, colour in enumerate(colours):
        x, y = width * (number % 2), height * (number // 2)
        picture.paste(colour, (x, y, x + width, y + height))
    return picture


def saved(picture: Image.Image, kind: str, **how: Any) -> bytes:
    """A picture as a file of this format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def jpeg(picture: Image.Image | None = None, **how: Any) -> bytes:
    """A JPEG whose colours are nearly those of the picture."""
    return saved(picture or quarters(), "JPEG", **{"quality": 98, "subsampling": 0, **how})


def exif(orientation: int | None = None, date: str | None = None, **dates: str) -> Image.Exif:
    """An EXIF block with an orientation and dates: of the file, `original` and `digitized`."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    if date is not None:
        block[0x0132] = date
    inner = block.get_ifd(0x8769)
    for tag, name in ((0x9003, "original"), (0x9004, "digitized")):
        if name in dates:
            inner[tag] = dates[name]
    return block


_UNDO = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}


def stored(orientation: int, picture: Image.Image | None = None) -> Image.Image:
    """A picture as a camera stores it that was held so."""
    upright = picture or quarters()
    return upright.transpose(Image.Transpose(_UNDO[orientation])) if orientation in _UNDO else upright


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def after_start(content: bytes, *segments: bytes) -> bytes:
    """A JPEG with these segments right after its start."""
    return content[:2] + b"".join(segments) + content[2:]


def png_chunk(name: bytes, body: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG, with another checksum where one is given."""
    checksum = zlib.crc32(name + body) if crc is None else crc
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def with_chunks(content: bytes, *chunks: bytes) -> bytes:
    """A PNG with these chunks right after its header."""
    return content[:33] + b"".join(chunks) + content[33:]


# ---- colour profiles: three primaries (rows: X, Y, Z of red, green, blue by D50) and a curve ----

_SRGB = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
_P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
_PROPHOTO = ((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249))
_ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
_WHITE = (0.9642, 1.0, 0.8249)


def _tagged(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    table, bodies, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for name, body in tags:
        body += bytes(-len(body) % 4)
        table += name + struct.pack(">II", offset + len(bodies), len(body))
        bodies += body
    size = offset + len(bodies)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    head = head.ljust(68, b"\0") + _fixed(*_WHITE)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + bodies


def _fixed(*numbers: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * number)) for number in numbers)


def _common(gamma: float, name: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma))
    text = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(1 + 4 + 4 + 2 + 1 + 67)
    return [
        (b"desc", text),
        (b"cprt", b"text" + bytes(4) + b"none\0"),
        (b"wtpt", b"XYZ \0\0\0\0" + _fixed(*_WHITE)),
    ], curve


def rgb_profile(
    primaries: tuple[tuple[float, float, float], ...], gamma: float, name: bytes = b"made here"
) -> bytes:
    """An RGB profile of these primaries and one curve."""
    tags, curve = _common(gamma, name)
    for channel, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags += [(channel + b"XYZ", b"XYZ \0\0\0\0" + _fixed(*primary)), (channel + b"TRC", curve)]
    return _tagged(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    """A profile for grey."""
    tags, curve = _common(gamma, b"grey made here")
    return _tagged(b"GRAY", [*tags, (b"kTRC", curve)])


def p3_profile() -> bytes:
    """Display P3, with a plain curve."""
    return rgb_profile(_P3, 2.2)


def swapped_profile() -> bytes:
    """One that calls the first channel green, the second blue and the third red."""
    return rgb_profile((_SRGB[1], _SRGB[2], _SRGB[0]), 2.2)


def _linear(values: np.ndarray) -> np.ndarray:
    part = values / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def seen_with(
    colours: tuple[tuple[int, int, int], ...], primaries: tuple[tuple[float, float, float], ...], gamma: float
) -> tuple[tuple[int, int, int], ...]:
    """What colours show in sRGB that are stored by these primaries: by the definition of both."""
    xyz = (np.array(colours) / 255) ** gamma @ np.array(primaries)
    linear = np.clip(xyz @ np.linalg.inv(np.array(_SRGB)), 0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(tuple(round(255 * value) for value in row) for row in coded)  # type: ignore[misc]


def grey_seen(gamma: float) -> tuple[tuple[int, int, int], ...]:
    """What `GREYS` show in sRGB that are stored with this curve."""
    return tuple((int(v), int(v), int(v)) for v, *_ in seen_with(NEUTRAL, _SRGB, gamma))


# ---- transparent pictures ----


def sticker(colour: tuple[int, int, int], shape: str = "quarters") -> Image.Image:
    """One colour on transparent: an upper left and lower right rectangle, or the other two."""
    picture = Image.new("RGBA", SIZE, (*colour, 0))
    width, height = SIZE[0] // 2, SIZE[1] // 2
    for number in (0, 3) if shape == "quarters" else (1, 2):
        x, y = width * (number % 2), height * (number // 2)
        picture.paste((*colour, 255), (x, y, x + width, y + height))
    return picture


def _on(colour: tuple[int, int, int], ground: tuple[int, int, int]) -> tuple[tuple[int, int, int], ...]:
    return colour, ground, ground, colour


# ---- kinds ----


def of_jpeg() -> Iterator[OddPicture]:
    """JPEG in all its forms."""
    plain = jpeg()
    yield OddPicture("plain.jpg", plain)
    yield OddPicture("progressive.jpeg", jpeg(progressive=True))
    yield OddPicture("progressive without end.jpg", jpeg(progressive=True)[:-2])
    yield OddPicture("grey.jpg", jpeg(quarters(NEUTRAL).convert("L")), NEUTRAL)
    yield OddPicture("cmyk.jpg", jpeg(quarters().convert("CMYK")), tolerance=4)
    yield OddPicture("without end.jpg", plain[:-2])
    yield OddPicture("padded.jpg", plain[:2] + b"\xff" * 5_000 + plain[2:])
    yield OddPicture("film behind it.jpg", plain + b"\0\0\0\x18ftypmp42" + b"\xff\xd8\xff\xda" * 500)
    yield OddPicture("commented.jpg", after_start(plain, *[segment(0xFE, b"c" * 60_000)] * 40))
    yield OddPicture(
        "broken exif.jpg",
        after_start(plain, segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x07" * 90)),
    )
    yield OddPicture("broken profile.jpg", jpeg(icc_profile=b"\0\0\2\0lcms" + b"\x11" * 500))
    yield OddPicture("grey profile on colours.jpg", jpeg(icc_profile=grey_profile(1.0)))
    yield OddPicture(
        "srgb profile.jpg",
        jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    )
    for orientation in range(1, 9):
        yield OddPicture(f"held {orientation}.jpg", jpeg(stored(orientation), exif=exif(orientation)))


def of_png() -> Iterator[OddPicture]:
    """PNG in all its forms."""
    plain = saved(quarters(), "PNG")
    yield OddPicture("plain.png", plain)
    yield OddPicture("palette.png", saved(quarters().quantize(4), "PNG"))
    yield OddPicture("palette with alpha.png", saved(quarters().quantize(5), "PNG", transparency=4))
    black_and_white = ((0, 0, 0), (255, 255, 255), (255, 255, 255), (0, 0, 0))
    yield OddPicture("one bit.png", saved(quarters(black_and_white).convert("1"), "PNG"), black_and_white)
    deep = np.asarray(quarters(NEUTRAL).convert("L")).astype(np.uint16) * 257
    yield OddPicture("sixteen bits grey.png", saved(Image.fromarray(deep), "PNG"), NEUTRAL)
    yield OddPicture("sixteen bits.png", _deep_png())
    yield OddPicture("opaque alpha.png", saved(quarters().convert("RGBA"), "PNG"))
    yield OddPicture("grey alpha.png", saved(quarters(NEUTRAL).convert("LA"), "PNG"), NEUTRAL)
    yield OddPicture("interlaced.png", _interlaced_png())
    yield OddPicture(
        "text.png", with_chunks(plain, png_chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(2 << 20))))
    )
    yield OddPicture("wrong text checksum.png", with_chunks(plain, png_chunk(b"tEXt", b"a\0b", crc=7)))
    yield OddPicture("many texts.png", with_chunks(plain, *[png_chunk(b"tEXt", b"key\0value")] * 20_000))
    yield OddPicture(
        "wrong gamma checksum.png", with_chunks(plain, png_chunk(b"gAMA", b"\0\0\xb1\x8f", crc=1))
    )
    yield OddPicture("without end.png", plain[:-12])
    yield OddPicture("held 6.png", saved(stored(6), "PNG", exif=exif(6)))
    frames = [quarters(), Image.new("RGB", SIZE, "blue")]
    yield OddPicture("moving.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    for name, primaries, gamma in (("p3", _P3, 2.2), ("prophoto", _PROPHOTO, 1.8)):
        content = saved(quarters(), "PNG", icc_profile=rgb_profile(primaries, gamma))
        yield OddPicture(f"{name}.png", content, seen_with(COLOURS, primaries, gamma))
    profile = png_chunk(b"iCCP", b"p3\0\0" + zlib.compress(p3_profile()))
    yield OddPicture("deep p3.png", with_chunks(_deep_png(), profile), seen_with(COLOURS, _P3, 2.2))
    content = saved(quarters(), "PNG", icc_profile=swapped_profile())
    yield OddPicture("swapped.png", content, seen_with(COLOURS, (_SRGB[1], _SRGB[2], _SRGB[0]), 2.2))
    content = saved(quarters(NEUTRAL).convert("L"), "PNG", icc_profile=grey_profile(1.0))
    yield OddPicture("linear grey.png", content, grey_seen(1.0))
    white, black = (255, 255, 255), (0, 0, 0)
    yield OddPicture("white sticker.png", saved(sticker(white), "PNG"), _on(white, black))
    yield OddPicture("other white sticker.png", saved(sticker(white, "others"), "PNG"), _on(black, white))
    yield OddPicture("black sticker.png", saved(sticker(black), "PNG"), _on(black, white))
    yield OddPicture("red sticker.png", saved(sticker((208, 48, 48)), "PNG"), _on((208, 48, 48), white))


def of_others() -> Iterator[OddPicture]:
    """GIF, WebP, BMP, TIFF, AVIF."""
    frames = [quarters().quantize(4), Image.new("RGB", SIZE, "blue").quantize(2)]
    gif = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], comment=b"c" * 5_000)
    yield OddPicture("moving.gif", gif)
    yield OddPicture("gif named jpg.jpg", gif)
    yield OddPicture("plain.webp", saved(quarters(), "WEBP", lossless=True))
    yield OddPicture(
        "moving.webp", saved(quarters(), "WEBP", lossless=True, save_all=True, append_images=[frames[1]])
    )
    yield OddPicture("held 8.webp", saved(stored(8), "WEBP", lossless=True, exif=exif(8)))
    yield OddPicture(
        "p3.webp",
        saved(quarters(), "WEBP", lossless=True, icc_profile=p3_profile()),
        seen_with(COLOURS, _P3, 2.2),
    )
    yield OddPicture("plain.bmp", saved(quarters(), "BMP"))
    yield OddPicture("plain.tif", saved(quarters(), "TIFF"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield OddPicture(f"{compression}.tiff", saved(quarters(), "TIFF", compression=compression))
    yield OddPicture("held 5.tiff", saved(stored(5), "TIFF", exif=exif(5)))
    adobe = jpeg(icc_profile=rgb_profile(_ADOBE, 2.2))
    yield OddPicture("adobe.jpg", adobe, seen_with(COLOURS, _ADOBE, 2.2))
    adobe = saved(quarters(), "TIFF", icc_profile=rgb_profile(_ADOBE, 2.2), compression="tiff_lzw")
    yield OddPicture("adobe.tif", adobe, seen_with(COLOURS, _ADOBE, 2.2))
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    yield OddPicture("lab.tif", saved(ImageCms.applyTransform(quarters(), lab), "TIFF"), tolerance=10)
    yield OddPicture(
        "two.mpo.jpg",
        saved(
            quarters(),
            "MPO",
            save_all=True,
            append_images=[frames[1].convert("RGB")],
            quality=98,
            subsampling=0,
        ),
    )
    yield OddPicture("cmyk.tif", saved(quarters().convert("CMYK"), "TIFF"))
    deep = np.asarray(quarters(NEUTRAL).convert("L")).astype(np.uint16) * 257
    yield OddPicture("sixteen bits grey.tif", saved(Image.fromarray(deep), "TIFF"), NEUTRAL)
    floats = Image.fromarray((np.asarray(quarters(NEUTRAL).convert("L")) / 255).astype(np.float32))
    stretched = tuple((grey, grey, grey) for grey in (0, 85, 170, 255))
    yield OddPicture("floats.tif", saved(floats, "TIFF"), stretched)
    yield OddPicture("big.tif", saved(quarters(), "TIFF", big_tiff=True))
    yield OddPicture("pages.tif", saved(quarters(), "TIFF", save_all=True, append_images=[frames[1]] * 3))
    yield OddPicture("many tags.tif", _many_tags())
    if features.check("avif"):
        yield OddPicture("plain.avif", saved(quarters(), "AVIF", quality=100, subsampling="4:4:4"))
        yield OddPicture(
            "held 6.avif", saved(stored(6), "AVIF", quality=100, subsampling="4:4:4", exif=exif(6))
        )
    yield OddPicture("raw.dng", raw_file())


def of_names() -> Iterator[OddPicture]:
    """Names that are valid, and that programs get wrong."""
    for number, name in enumerate(
        (
            "Screenshot 2026-11-21 at 9.30.00\u202fPM.png",
            "no\u00a0break.png",
            "wide\u3000space.png",
            "family \U0001f468\u200d\U0001f469\u200d\U0001f467.png",
            "a\ttab.png",
            "a\nline.png",
            "e\u0301.png",
            "\u00fc.png",
            "-dash.png",
            "%41 #?&.png",
            "'quoted' \"twice\".png",
            "back\\slash.png",
            "rtl \u05d0\u202e.png",
            "UPPER.PNG",
        )
    ):
        # One pixel differs, so that none counts as a copy of another.
        picture = quarters()
        picture.putpixel((number, 0), (209, 48, 48))
        yield OddPicture(name, saved(picture, "PNG"))


def all_pictures() -> list[OddPicture]:
    """Every odd picture, under names that differ."""
    return [one for kind in (of_jpeg, of_png, of_others, of_names) for one in kind()]


def _deep_png() -> bytes:
    """16 bits a channel, which Pillow does not write."""
    deep = (np.asarray(quarters()).astype(">u2") * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    head = struct.pack(">IIBBBBB", *SIZE, 16, 2, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _interlaced_png() -> bytes:
    """In seven passes, which Pillow does not write."""
    pixels = np.asarray(quarters())
    passes = (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    )
    rows = b"".join(
        b"\0" + row.tobytes()
        for x, y, across, down in passes
        for row in pixels[y::down, x::across]
        if row.size
    )
    head = struct.pack(">IIBBBBB", *SIZE, 8, 2, 0, 0, 1)
    chunks = (png_chunk(b"IHDR", head), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _many_tags() -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in range(40_000, 40_900):
        directory[tag] = "x" * 40
        directory.tagtype[tag] = 2
    return saved(quarters(), "TIFF", tiffinfo=directory)


def raw_file(orientation: int = 1) -> bytes:
    """A raw file: a small preview, the sensor's values by a colour filter, and a large preview."""
    small = jpeg(quarters(size=(16, 12)))
    large = jpeg(stored(orientation))
    sensor = bytes(range(256)) * 6
    entries = [
        (256, 4, 1, SIZE[0]),
        (257, 4, 1, SIZE[1]),
        (262, 3, 1, 32803),
        (274, 3, 1, orientation),
        (306, 2, 20, 8 + 2 + 12 * 6 + 4),
        (50706, 1, 4, 0x00000401),
    ]
    body = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack("<HHII", tag, kind, count, value)
    date = b"2026:11:21 09:30:00\0"
    return b"II*\0" + struct.pack("<I", 8) + body + bytes(4) + date + small + sensor + large
