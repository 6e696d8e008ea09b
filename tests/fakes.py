"""A small deterministic encoder, and picture files of every awkward kind."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor

from image2sentence.encoders.config import LearnerConfig, ModelConfig, Preprocessing, VLRecord
from image2sentence.encoders.protocols import Vectors

GRID = 4
WIDTH = 3 * GRID * GRID + 1


class FakeEncoder:
    """Encodes a picture by its mean colours on a grid, and words by the colours they name.

    Counts what it encodes. `pause` seconds pass in each batch, for tests that interrupt.
    """

    fingerprint = "fake-colour-grid"
    width = WIDTH

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.batches: list[int] = []

    @property
    def encoded(self) -> int:
        """Pictures encoded for the gallery so far."""
        return sum(self.batches)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        time.sleep(self.pause)
        self.batches.append(len(images))
        return _unit(np.stack([_colours(image) for image in images]))

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        return _unit(np.stack([_colours(image) for image in images]))[:, None, :]

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        words = np.stack([_words(text) for text in texts])
        return _unit(words if sentences is None else words + sentences.mean(axis=1))


def _colours(image: Image.Image) -> Vectors:
    small = image.convert("RGB").resize((GRID, GRID), Image.Resampling.BOX)
    return np.append(np.asarray(small, np.float32).ravel() / 255 - 0.5, np.float32(0.25))


def _words(text: str) -> Vectors:
    vector = np.full(WIDTH, 0.01, np.float32)
    for word in text.lower().split():
        if word in ImageColor.colormap:
            vector += _colours(Image.new("RGB", (GRID, GRID), word))
    return vector


def _unit(rows: Vectors) -> Vectors:
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def photo(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture of smooth random colours, different for each seed."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    """The bytes of a picture file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def quadrants() -> Image.Image:
    """Red, green / blue, white quarters of a 64 x 48 picture: its orientation shows anywhere."""
    image = Image.new("RGB", (64, 48), "white")
    for colour, corner in (("red", (0, 0)), ("lime", (32, 0)), ("blue", (0, 24))):
        image.paste(colour, (*corner, corner[0] + 32, corner[1] + 24))
    return image


def deep_grey_png() -> bytes:
    """A 16-bit grey ramp from 0 to 65535, 256 x 4 pixels."""
    ramp = np.tile((np.arange(256) * 257).astype(np.uint16), (4, 1))
    return encoded(Image.fromarray(ramp), "PNG")


def png_bomb(side: int = 30_000) -> bytes:
    """A valid 1-bit PNG of side x side black pixels in well under a megabyte."""
    squeeze = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file, with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def rotated_jpeg() -> bytes:
    """`quadrants` as a camera held sideways stores it: turned, with EXIF orientation 6 to turn it back."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(
        quadrants().transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0, exif=exif
    )


def animated_gif() -> bytes:
    """Three frames: red, lime, blue."""
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


def awkward_folder(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Fill a folder with awkward files: the names that index, and those that fail with a part of the reason.

    "unreadable.jpg" is made without permissions, which stops everyone but the superuser.
    """
    folder.mkdir()
    ready = {
        "animated.gif": animated_gif(),
        "cmyk.jpg": encoded(photo(1).convert("CMYK"), "JPEG"),
        "rotated.jpg": rotated_jpeg(),
        "deep.png": deep_grey_png(),
        "really-a-jpeg.png": encoded(photo(2), "JPEG"),
        os.fsdecode(b"caf\xe9 \xff.jpg"): encoded(photo(3), "JPEG"),
    }
    failing = {
        "truncated.jpg": (encoded(photo(4, (400, 300)), "JPEG")[:2000], "cut short"),
        "empty.jpg": (b"", "empty"),
        "text.png": (b"this is no picture\n", "whatever its name says"),
        "bomb.png": (png_bomb(), "30,000 x 30,000"),
        "unreadable.jpg": (encoded(photo(5), "JPEG"), "no permission"),
    }
    for name, content in (ready | {name: content for name, (content, _) in failing.items()}).items():
        (folder / name).write_bytes(content)
    (folder / "unreadable.jpg").chmod(0)
    (folder / "dangling.jpg").symlink_to(folder / "nothing.jpg")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.jpg").mkdir()
    reasons = {name: reason for name, (_, reason) in failing.items()}
    return set(ready), reasons | {"dangling.jpg": "does not exist", "pipe.png": "pipe"}


def model_config(**changes: object) -> ModelConfig:
    """What a model folder would say of the fake encoder."""
    side = Preprocessing(32)
    config = ModelConfig(
        vl=VLRecord("a large model", "r1", "blip", "vl-print"),
        light="a light model",
        learner=LearnerConfig(tokens=1),
        template="{sentence} {modifier}",
        gallery_preprocessing=side,
        query_preprocessing=side,
        width=FakeEncoder.width,
        word_width=FakeEncoder.width,
        word_norm=1.0,
        head_length=1,
        max_length=32,
        fingerprint=FakeEncoder.fingerprint,
    )
    return replace(config, **changes)  # type: ignore[arg-type]
