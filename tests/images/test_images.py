"""Decoding: every kind of file comes out right or is refused with a reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from fakes import animated_gif, deep_grey_png, encoded, photo, png_bomb, png_chunk, quadrants, rotated_jpeg
from image2sentence.errors import ConfigError, ImageError
from image2sentence.images import containers, content_hash, decode_image, display_path, files, load_image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def assert_close(image: Image.Image, expected: Image.Image, tolerance: int) -> None:
    assert image.mode == "RGB"
    assert image.size == expected.size
    assert np.abs(pixels(image) - pixels(expected)).max() <= tolerance


MODES = {
    "PNG": "1 L LA P RGB RGBA",
    "BMP": "1 L P RGB RGBA",
    "TIFF": "1 L LA P RGB RGBA CMYK",
    "GIF": "1 L LA P RGB RGBA",
    "WEBP": "L LA P RGB RGBA CMYK",
    "JPEG": "1 L RGB CMYK YCbCr",
}


@pytest.mark.parametrize(("file_format", "mode"), [(f, m) for f in MODES for m in MODES[f].split()])
def test_each_format_and_mode_gives_the_same_rgb(file_format: str, mode: str) -> None:
    source = quadrants().convert(mode)
    content = encoded(source, file_format, lossless=True, quality=95, subsampling=0)
    colours = 16 if file_format == "JPEG" or mode == "YCbCr" else 4
    assert_close(load_image(content), source.convert("RGB"), colours)


def test_a_path_bytes_and_an_open_file_give_the_same(tmp_path: Path) -> None:
    content = encoded(photo(0), "PNG")
    path = tmp_path / "photo.png"
    path.write_bytes(content)
    for source in (path, str(path), content, io.BytesIO(content)):
        assert_close(load_image(source), photo(0), 0)


def test_all_exif_orientations_come_out_upright() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
        stored = quadrants() if undo is None else quadrants().transpose(Image.Transpose(undo))
        for file_format in ("PNG", "TIFF", "WEBP"):
            decoded = decode_image(encoded(stored, file_format, exif=exif, lossless=True))
            assert_close(decoded.picture, quadrants(), 0)
            assert (decoded.width, decoded.height) == quadrants().size


def test_a_rotated_photo_is_upright_and_keeps_no_orientation() -> None:
    image = load_image(rotated_jpeg())
    assert_close(image, quadrants(), 40)
    assert not image.getexif()
    assert not image.info


def test_a_damaged_exif_block_does_not_matter() -> None:
    content = rotated_jpeg()
    start = content.index(b"Exif\0\0") + 6
    image = load_image(content[:start] + b"\xff" * 12 + content[start + 12 :])
    assert image.size == quadrants().size[::-1]


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    assert pixels(load_image(deep_grey_png()))[0, :, 0].tolist() == list(range(256))
    big_endian = Image.fromarray(np.tile((np.arange(256) * 257).astype(">u2"), (4, 1)))
    assert pixels(load_image(encoded(big_endian, "TIFF")))[0, :, 0].tolist() == list(range(256))


def test_sixteen_bit_transparent_grey_is_white() -> None:
    content = deep_grey_png()
    end_of_header = 8 + 25
    transparent = png_chunk(b"tRNS", (257).to_bytes(2, "big"))
    grey = pixels(load_image(content[:end_of_header] + transparent + content[end_of_header:]))[0, :, 0]
    assert grey[:3].tolist() == [0, 255, 2]


def test_float_grey_is_stretched() -> None:
    values = np.linspace(-3, 7, 256, dtype=np.float32).reshape(16, 16)
    grey = pixels(load_image(encoded(Image.fromarray(values), "TIFF")))[..., 0]
    assert grey.ravel().tolist() == list(range(256))
    nothing = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ImageError, match="no finite pixel"):
        load_image(encoded(nothing, "TIFF"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white(mode: str) -> None:
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 10, 10))
    out = load_image(encoded(image.convert(mode), "PNG"))
    assert out.getpixel((2, 2)) == (0, 0, 0)
    assert out.getpixel((15, 5)) == (255, 255, 255)


def test_half_transparent_is_mixed_with_white() -> None:
    out = load_image(encoded(Image.new("RGBA", (4, 4), (200, 0, 0, 128)), "PNG"))
    assert out.getpixel((0, 0)) == pytest.approx((227, 127, 127), abs=1)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    assert load_image(animated_gif()).getpixel((20, 15)) == (255, 0, 0)
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    for file_format in ("WEBP", "PNG", "TIFF"):
        content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
        assert load_image(content).getpixel((20, 15)) == (255, 0, 0)


def test_a_cmyk_jpeg_has_its_colours() -> None:
    content = encoded(quadrants().convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert_close(load_image(content), quadrants(), 12)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_at_least_reduces_but_never_below(file_format: str) -> None:
    content = encoded(photo(7, (1000, 700)), file_format)
    for at_least in (10, 64, 100, 350, 500, 5000):
        decoded = decode_image(content, at_least=at_least)
        assert (decoded.width, decoded.height) == (1000, 700)
        smaller = min(decoded.picture.size)
        assert smaller == 700 if at_least > 350 else at_least <= smaller < 2 * at_least + 8
        assert decoded.picture.width / decoded.picture.height == pytest.approx(10 / 7, rel=0.06)
    small = photo(7, (1000, 700)).resize((50, 35), Image.Resampling.BOX)
    assert_close(load_image(content, at_least=70).resize((50, 35), Image.Resampling.BOX), small, 6)


def test_a_bomb_is_refused_by_its_header_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"30,000 x 30,000 = 900,000,000 pixels.*limit of 120,000,000"):
            load_image(png_bomb())
        with pytest.raises(ImageError, match="40 x 30 = 1,200 pixels, more than the limit of 1,000"):
            load_image(animated_gif(), max_pixels=1000)


@pytest.mark.parametrize("kind", ["VP8 ", "VP8L", "VP8X"])
def test_webp_sizes_are_read_from_the_header(kind: str) -> None:
    exif = b"Exif\0\0II*\0" if kind == "VP8X" else b""
    content = encoded(photo(1, (300, 200)), "WEBP", lossless=kind == "VP8L", exif=exif)
    assert content[12:16] == kind.encode()
    assert containers.webp_size(content[:32]) == (300, 200)


def test_an_allowed_large_picture_gives_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file_format in ("TIFF", "PNG", "JPEG", "WEBP"):
            assert load_image(encoded(photo(1), file_format)).size == (48, 40)


def test_pillow_settings_stay_as_they_are() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    load_image(encoded(photo(1), "JPEG"))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_refused(file_format: str) -> None:
    content = encoded(photo(4, (400, 300)), file_format)
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_image(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"plain text", "whatever its name says"), (b"\xff\xd8\xff", "damaged")],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"picture\.png: .*{reason}"):
        load_image(path)


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    expected = {
        tmp_path: "a folder",
        tmp_path / "pipe.png": "a pipe",
        Path("/dev/null"): "device",
        tmp_path / "dangling.jpg": "a link to a file that does not exist",
        tmp_path / "circle.jpg": "it cannot be opened",
        tmp_path / "missing.jpg": "no such file",
        tmp_path / "zero\0byte.jpg": "it cannot be opened",
    }
    for path, reason in expected.items():
        with pytest.raises(ImageError, match=reason):
            load_image(path)


def test_no_permission_and_failing_disks_are_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photo(1), "JPEG"))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(ImageError, match="no permission to read it"):
            load_image(path)
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    with pytest.raises(ImageError, match="more than the limit of 100"):
        load_image(path)


def decodes(content: bytes) -> bool:
    try:
        return load_image(content, max_pixels=1_000_000).mode == "RGB"
    except ImageError:
        return False


def test_mutated_files_decode_or_are_refused() -> None:
    rng = np.random.default_rng(0)
    originals = [encoded(photo(3, (64, 64)), f) for f in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")]
    originals += [rotated_jpeg(), deep_grey_png(), animated_gif()]
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for number in range(1500):
            content = bytearray(originals[number % len(originals)])
            for place in rng.integers(0, len(content), rng.integers(1, 8)):
                content[place] = rng.integers(0, 256)
            refused += not decodes(bytes(content))
    assert 100 < refused < 1500


def test_a_side_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least 1, got 0"):
        load_image(encoded(photo(1), "PNG"), at_least=0)


def test_content_hash_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"content")
    assert content_hash(path) == hashlib.sha256(b"content").hexdigest()
    with pytest.raises(ImageError, match="no such file"):
        content_hash(tmp_path / "b.jpg")


def test_names_that_are_not_utf8_work_and_can_be_shown(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    path = tmp_path / name
    path.write_bytes(encoded(photo(1), "PNG"))
    assert load_image(path).size == (48, 40)
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError) as caught:
        load_image(path)
    shown = display_path(name)
    assert shown == r"caf\xe9\n.jpg"
    assert shown in str(caught.value)
    json.dumps(shown).encode("utf-8")
    assert display_path("été 日本.jpg") == "été 日本.jpg"
