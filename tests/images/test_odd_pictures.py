"""Odd but valid picture files: each is read, shows its colours, and keeps its name."""

from __future__ import annotations

import logging
import struct
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, features

from image2sentence.errors import ImageError
from image2sentence.images import (
    EXTENSIONS,
    DecodeLimits,
    containers,
    date_taken,
    decode_image,
    formats,
    load_image,
)
from tests import odd_pictures
from tests.odd_pictures import (
    COLOURS,
    SIZE,
    OddPicture,
    jpeg,
    png_chunk,
    quarters,
    saved,
    segment,
    with_chunks,
)

ODD = odd_pictures.all_pictures()


def middle_colours(image: Image.Image) -> np.ndarray:
    """(4, 3): the colour in the middle of each quarter."""
    width, height = image.size
    places = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    return np.array([image.getpixel(place) for place in places])


def assert_shows(image: Image.Image, colours: object, tolerance: int) -> None:
    assert image.mode == "RGB"
    assert np.abs(middle_colours(image) - np.array(colours)).max() <= tolerance, middle_colours(image)


def test_there_are_sixty_of_them_and_more() -> None:
    assert len({one.name for one in ODD}) == len(ODD) >= 60


@pytest.mark.parametrize("one", ODD, ids=[one.name for one in ODD])
def test_an_odd_but_valid_file_shows_its_colours(one: OddPicture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_image(one.content)
    assert (decoded.width, decoded.height) == decoded.picture.size == SIZE
    assert_shows(decoded.picture, one.colours, one.tolerance)
    reduced = decode_image(one.content, at_least=16)
    assert (reduced.width, reduced.height) == SIZE
    assert reduced.picture.size == (24, 16)
    assert_shows(reduced.picture, one.colours, one.tolerance)


# ---- what is beside the pixels does not matter, and what is of them does ----


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("missing", [3, 10, 100, 1000])
def test_a_jpeg_cut_within_its_pixels_is_refused(progressive: bool, missing: int) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (120, 160, 3), np.uint8))
    whole = jpeg(noise, progressive=progressive)
    assert np.array_equal(np.asarray(load_image(whole[:-2])), np.asarray(load_image(whole)))
    with pytest.raises(ImageError, match="cut short"):
        load_image(whole[: -2 - missing])


def test_a_progressive_jpeg_cut_between_scans_is_refused() -> None:
    whole = jpeg(progressive=True)
    last_scan = whole.rfind(b"\xff\xda")
    with pytest.raises(ImageError, match="cut short"):
        load_image(whole[: whole.rfind(b"\xff\xc4", 0, last_scan)])


def test_a_png_cut_within_its_pixels_is_refused() -> None:
    rng = np.random.default_rng(0)
    whole = saved(Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)), "PNG")
    for missing in (30, 200, 5_000):
        with pytest.raises(ImageError, match="damaged or cut short"):
            load_image(whole[:-missing])


def test_library_warnings_are_logged_and_never_printed(caplog: pytest.LogCaptureFixture) -> None:
    content = bytearray(saved(quarters(), "TIFF"))
    with warnings.catch_warnings(record=True) as leaked, caplog.at_level(logging.INFO, "image2sentence"):
        warnings.simplefilter("always")
        for odd in ODD:
            load_image(odd.content)
        for start in range(0, len(content), 7):  # damage of every kind
            damaged = bytes(content[:start]) + b"\xff\xff" + bytes(content[start + 2 :])
            try:
                load_image(damaged, max_pixels=10_000)
            except ImageError:
                continue
    assert not leaked


def test_a_webp_whose_size_is_wrong_is_read_and_one_cut_within_its_pixels_is_refused() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    block = odd_pictures.exif(date="2026:11:21 09:30:00")
    for how in ({"lossless": True}, {"quality": 90}, {"lossless": True, "exif": block}):
        whole = saved(noise, "WEBP", **how)  # type: ignore[arg-type]
        pixels = np.asarray(load_image(whole))
        for size in (b"\xff\xff\xff\x7f", b"\xff\xff\0\0"):
            assert np.array_equal(np.asarray(load_image(whole[:4] + size + whole[8:])), pixels)
        for missing in (200, 1_000):
            with pytest.raises(ImageError, match="cut short"):
                load_image(whole[:-missing])
    assert np.array_equal(np.asarray(load_image(whole[:-20])), pixels)  # of its EXIF


@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * 300])
def test_transparency_that_cannot_be_is_beside_the_pixels(body: bytes) -> None:
    for picture in (quarters(), quarters(odd_pictures.NEUTRAL).convert("L"), quarters().convert("RGBA")):
        plain = saved(picture, "PNG")
        odd = load_image(with_chunks(plain, png_chunk(b"tRNS", body)))
        assert np.array_equal(np.asarray(odd), np.asarray(load_image(plain)))


# ---- bounds before decoding ----


def test_empty_scans_of_a_jpeg_are_counted_before_decoding() -> None:
    whole = jpeg(Image.new("RGB", (64, 64)), progressive=True)
    last = whole.rfind(b"\xff\xda")
    scan = whole[last:-2]
    load_image(whole[:-2] + scan * 20 + whole[-2:])
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(whole[:-2] + scan * 2_000 + whole[-2:])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (odd_pictures.after_start(jpeg(), *[segment(0xFE, b"")] * 20_000), "more than 10,000 segments"),
        (
            with_chunks(saved(quarters(), "PNG"), png_chunk(b"tEXt", b"") * 600_000),
            "more than 500,000 chunks",
        ),
        (
            saved(quarters().quantize(4), "GIF").replace(b",", b"!\xfe\x01c\x00" * 600_000 + b",", 1),
            "before its first",
        ),
    ],
    ids=["JPEG", "PNG", "GIF"],
)
def test_structures_are_counted_before_decoding(content: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load_image(content)


def test_tags_of_a_tiff_are_counted_before_decoding() -> None:
    content = saved(quarters(), "TIFF")
    directory = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, directory)[0]
    for number in range(count):
        place = directory + 2 + 12 * number
        if struct.unpack_from("<H", content, place)[0] == 273:
            strips = (
                content[:place]
                + struct.pack("<HHII", 273, 4, 2_000_000, 0)
                + content[place + 12 :]
                + bytes(8 << 20)
            )
            with pytest.raises(ImageError, match=r"2,000,000 values of TIFF tag 273"):
                load_image(strips)
            return
    pytest.fail("the file has no strips")


def test_a_million_exif_tags_are_not_read() -> None:
    block = b"II*\0\x08\0\0\0" + struct.pack("<H", 65_535) + struct.pack("<HHII", 0x0112, 3, 1, 6) * 65_535
    content = with_chunks(saved(odd_pictures.stored(6), "PNG"), png_chunk(b"eXIf", block))
    assert load_image(content).size == SIZE


@pytest.mark.parametrize(
    ("mode", "kind", "pixel_bytes"),
    [
        ("RGBA", "PNG", 4),
        ("L", "PNG", 1),
        ("F", "TIFF", 4),
        ("I;16", "TIFF", 2),
        ("I;16", "PNG", 2),
        ("RGB", "WEBP", 16),
    ],
)
def test_decode_memory_is_weighed_by_bytes(mode: str, kind: str, pixel_bytes: int) -> None:
    content = (
        saved(Image.new(mode, (200, 100)), kind, compression="tiff_lzw")
        if kind == "TIFF"
        else saved(Image.new(mode, (200, 100)), kind)
    )
    enough = pixel_bytes * 20_000 + (20_000 * pixel_bytes if kind == "TIFF" else 0)
    decode_image(content, limits=DecodeLimits(20_000, enough))
    with pytest.raises(ImageError, match="MB to decode, more than the limit of"):
        decode_image(content, limits=DecodeLimits(20_000, pixel_bytes * 20_000 - 1))


def test_a_reduced_baseline_jpeg_is_weighed_as_it_is_reduced() -> None:
    big = Image.new("RGB", (2_000, 1_600))
    limits = DecodeLimits(max_memory=4 * 2_000 * 1_600 // 16)
    assert decode_image(jpeg(big), at_least=350, limits=limits).picture.size == (500, 400)
    for content, at_least in ((jpeg(big), 1_600), (jpeg(big, progressive=True), 350)):
        with pytest.raises(ImageError, match="MB to decode"):
            decode_image(content, at_least=at_least, limits=limits)


def test_the_size_of_a_webp_is_checked_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(Image.new("RGB", (300, 200)), "WEBP")
    opened = []
    monkeypatch.setitem(formats._OPENERS, "WebP", opened.append)
    with pytest.raises(ImageError, match="300 x 200 = 60,000 pixels, more than the limit of 59,999"):
        load_image(content, max_pixels=59_999)
    assert not opened


# ---- formats by what a file is ----


def test_heic_is_read_with_its_package() -> None:
    plugin = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
    plugin.register_heif_opener()
    content = saved(quarters(size=(96, 64)), "HEIF", quality=-1, chroma=444)
    assert_shows(load_image(content), COLOURS, 3)
    turned = saved(
        odd_pictures.stored(6, quarters(size=(96, 64))),
        "HEIF",
        quality=-1,
        exif=odd_pictures.exif(6).tobytes(),
    )
    decoded = decode_image(turned)
    assert (decoded.width, decoded.height) == (96, 64)
    assert_shows(decoded.picture, COLOURS, 3)
    with pytest.raises(ImageError, match="96 x 64"):
        load_image(content, max_pixels=100)


def test_jpeg_xl_is_read_with_its_package() -> None:
    pytest.importorskip("pillow_jxl", reason="the extra `jxl` is not installed")
    for container in (False, True):
        content = saved(quarters(), "JXL", lossless=True, use_container=container)
        assert formats.jxl_size(content) == SIZE
        assert_shows(load_image(content), COLOURS, 0)
    for size in ((1, 1), (64, 48), (256, 8), (1000, 999), (3, 2000)):
        assert formats.jxl_size(saved(Image.new("RGB", size), "JXL")) == size


@pytest.mark.parametrize(
    ("brand", "reason"),
    [
        (b"heic", r"HEIC pictures need pillow-heif: pip install 'image2sentence\[heic\]'"),
        (b"mp42", "a video"),
    ],
)
def test_a_format_that_is_not_installed_is_named(
    brand: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl.JpegXLImagePlugin", None)
    content = b"\0\0\0\x18ftyp" + brand + bytes(4) + b"mif1" * (brand == b"heic") + brand + bytes(200)
    with pytest.raises(ImageError, match=reason):
        load_image(content)
    with pytest.raises(ImageError, match=r"JPEG XL pictures need .*\[jxl\]"):
        load_image(b"\xff\x0a" + bytes(40))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"8BPS", "Photoshop"),
        (b"  <svg xmlns=", "SVG"),
        (b"PK\3\4", "ZIP"),
        (b"hello", "whatever"),
    ],
)
def test_what_is_no_picture_is_named(content: bytes, name: str) -> None:
    with pytest.raises(ImageError, match=name):
        load_image(content)


def test_the_largest_preview_of_a_raw_file_is_taken_with_the_orientation_of_the_whole() -> None:
    for orientation in (1, 3, 6, 8):
        decoded = decode_image(odd_pictures.raw_file(orientation))
        assert (decoded.width, decoded.height) == SIZE
        assert_shows(decoded.picture, COLOURS, 3)
    assert date_taken(odd_pictures.raw_file()) == "2026-11-21T09:30:00"
    with pytest.raises(ImageError, match="DNG file holds no JPEG preview"):
        load_image(odd_pictures.raw_file()[:110])


def test_endings_of_every_format_are_known() -> None:
    assert {".heic", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".jpg"} <= EXTENSIONS


# ---- transparency and colours ----


def test_stickers_that_differ_come_out_different() -> None:
    one, other = (
        load_image(saved(odd_pictures.sticker((255, 255, 255), shape), "PNG")) for shape in ("quarters", "x")
    )
    assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).mean() > 200


def test_black_and_white_on_transparent_is_put_on_grey() -> None:
    picture = odd_pictures.sticker((255, 255, 255))
    picture.paste((0, 0, 0, 255), (0, 0, 24, 16))
    assert load_image(saved(picture, "PNG")).getpixel((40, 4)) == (128, 128, 128)


def test_a_ground_is_chosen_alike_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    from image2sentence.images import colour

    big = odd_pictures.sticker((250, 250, 250)).resize((640, 480))
    whole = np.asarray(load_image(saved(big, "PNG"), at_least=100))
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 5_000)
    assert np.array_equal(np.asarray(load_image(saved(big, "PNG"), at_least=100)), whole)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "F"])
def test_strips_change_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from image2sentence.images import colour

    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (100, 130, 3), np.uint8))
    deep = Image.fromarray(rng.integers(0, 65_536, (100, 130), np.uint16))
    picture = deep if mode == "I;16" else noise.convert(mode)
    content = saved(picture, "TIFF")
    whole = np.asarray(load_image(content, at_least=33))
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 1_000)
    assert np.array_equal(np.asarray(load_image(content, at_least=33)), whole)


def test_a_hostile_profile_is_passed_over() -> None:
    huge = saved(quarters(), "PNG", icc_profile=odd_pictures.p3_profile() + bytes(5 << 20))
    assert_shows(load_image(huge), COLOURS, 0)
    assert containers.MAX_METADATA == 4 << 20


def test_a_cmyk_profile_is_applied() -> None:
    profile = _cmyk_profile()
    picture = Image.new("CMYK", SIZE, (200, 30, 100, 20))
    plain, managed = (load_image(saved(picture, "TIFF", **how)) for how in ({}, {"icc_profile": profile}))
    assert plain.getpixel((5, 5)) != managed.getpixel((5, 5))


def _cmyk_profile() -> bytes:
    """A profile with a coarse table: grey by black alone."""
    corners = np.array([[(15 - sum(map(int, f"{n:04b}"))) for n in range(16)]])
    table = bytearray()
    for n in range(16):
        lightness = 255 - 60 * bin(n).count("1")
        table += bytes((max(0, lightness), 128, 128))
    assert corners.size == 16
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + odd_pictures._fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += ramp * 4 + bytes(table) + ramp * 3
    tags, _ = odd_pictures._common(1.0, b"ink made here")
    profile = odd_pictures._tagged(b"CMYK", [*tags, (b"A2B0", lut)])
    return profile[:12] + b"prtr" + profile[16:20] + b"Lab " + profile[24:]


# ---- dates ----


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026:11:21 09:30:00", "2026-11-21T09:30:00"),
        ("2026-11-21 09:30:00", "2026-11-21T09:30:00"),
        ("2026-11-21T09:30:00Z", "2026-11-21T09:30:00"),
        ("2026:11:21 09:30:00+02:00", "2026-11-21T09:30:00"),
        ("2026:11:21 09:30", "2026-11-21T09:30:00"),
        ("2026:11:21", "2026-11-21T00:00:00"),
        ("2026:11:21 24:00:00", "2026-11-22T00:00:00"),
        ("2026:11:21 09:30:60", "2026-11-21T09:30:59"),
        ("2026:11:21 09.30.00", "2026-11-21T09:30:00"),
        ("2026:11:21 09:30:00 PM", "2026-11-21T21:30:00"),
        ("20261121 093000", "2026-11-21T09:30:00"),
        ("20261121T093000+0100", "2026-11-21T09:30:00"),
        ("21.11.2026 09:30", "2026-11-21T09:30:00"),
        ("Sat Nov 21 09:30:00 2026", "2026-11-21T09:30:00"),
        ("31.11.2026", None),
        ("0000:00:00 00:00:00", None),
        ("2026:13:41 09:30:00", None),
    ],
)
def test_exif_dates_are_read_as_cameras_write_them(text: str, date: str | None) -> None:
    content = jpeg(exif=odd_pictures.exif(original=text))
    assert date_taken(content) == date
    assert decode_image(content).taken == date


def test_the_time_of_the_original_goes_before_others() -> None:
    block = odd_pictures.exif(
        date="2026:03:03 03:03:03", digitized="2026:02:02 02:02:02", original="2026:01:01 01:01:01"
    )
    assert date_taken(jpeg(exif=block)) == "2026-01-01T01:01:01"
    assert date_taken(jpeg(exif=odd_pictures.exif(date="2026:03:03 03:03:03"))) == "2026-03-03T03:03:03"


def test_dates_of_xmp_and_png_are_read() -> None:
    for xmp in (
        b'<x exif:DateTimeOriginal="2026-11-21T09:30:00+01:00"/>',
        b"<photoshop:DateCreated>2026-11-21T09:30:00</",
    ):
        assert date_taken(
            odd_pictures.after_start(jpeg(), segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))
        )
        packet = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        assert date_taken(with_chunks(saved(quarters(), "PNG"), packet)) == "2026-11-21T09:30:00"
    time = png_chunk(b"tIME", struct.pack(">H5B", 2026, 11, 21, 9, 30, 0))
    assert date_taken(with_chunks(saved(quarters(), "PNG"), time)) == "2026-11-21T09:30:00"
    text = png_chunk(b"tEXt", b"Creation Time\0Sat, 21 Nov 2026 09:30:00 +0100")
    assert date_taken(with_chunks(saved(quarters(), "PNG"), text, time)) == "2026-11-21T09:30:00"


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("IMG-20260101-WA0001.jpg", "2026-01-01T00:00:00"),
        ("PXL_20260101_093000123.jpg", "2026-01-01T09:30:00"),
        ("Screenshot 2026-11-21 at 9.30.00\u202fPM.png", "2026-11-21T21:30:00"),
        ("Screenshot_20260101-093000_App.jpg", "2026-01-01T09:30:00"),
        ("signal-2026-01-01-093000.jpg", "2026-01-01T09:30:00"),
        ("WhatsApp Image 2026-01-01 at 09.30.00.jpeg", "2026-01-01T09:30:00"),
        ("photo_2026-01-01_09-30-00.jpg", "2026-01-01T09:30:00"),
        ("IMG20260101093000.jpg", "2026-01-01T09:30:00"),
        ("VID_20260101_093001.jpg", "2026-01-01T09:30:01"),
        ("IMG_20260101_12345.jpg", "2026-01-01T00:00:00"),
        ("Bildschirmfoto 2026-01-01 um 09.30.00.png", "2026-01-01T09:30:00"),
        ("FB_IMG_1767259800123.jpg", "2026-01-01T09:30:00"),
        ("mmexport1767259800123.jpg", "2026-01-01T09:30:00"),
        ("1767259800123.jpg", None),
        ("20260101/photo.jpg", None),
        ("IMG_1234.jpg", None),
        ("120260101.jpg", None),
        ("20269901.jpg", None),
    ],
)
def test_dates_in_names_are_those_of_cameras_and_messengers(name: str, date: str | None) -> None:
    from image2sentence.images.dates import date_in_name

    assert date_in_name(name) == date


def test_this_pillow_reads_avif_or_says_what_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(ImageError, match=r"AVIF pictures need a newer Pillow"):
        load_image(b"\0\0\0\x18ftypavif" + bytes(4) + b"mif1avif" + bytes(100))
