"""What Python makes of pictures, words and pixels, for the JavaScript tests to compare with.

    python js/test/expected.py FOLDER

writes the pictures, and expected.json: sentences, vectors, tokens. Raw arrays lie beside it.
"""

from __future__ import annotations

import io
import json
import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps
from tokenizers import Tokenizer

from image2sentence.catalogue import draw, sample
from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.config import LearnerConfig, ModelConfig, Preprocessing
from image2sentence.encoders.phrase_guide import Guide
from image2sentence.encoders.preprocess import fit, to_pixels
from image2sentence.images import MIN_DECODE_SIDE, decode_image
from image2sentence.images.colour import ground_of
from image2sentence.query import compose, words_not_understood

TIE = 0.005  # dot products nearer than this may change places in the browser's arithmetic
WORDS = (
    "in red",
    "",
    "but with long sleeves and on a white background",
    "costs $20, [SEP] {sentence}",
    "Periwinkle ÜNÏCÖDÉ 赤い xyzzy xyzzy\u00ad!",
)


def drawn(seed: int, width: int, height: int | None = None) -> Image.Image:
    """A drawn product, stretched where it is not to be square."""
    picture = draw(sample(random.Random(seed)), min(width, 512))
    return picture if height is None else picture.resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, kind: str, **how: Any) -> bytes:
    """The picture as a file of this format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def turned(orientation: int) -> Image.Exif:
    """EXIF data that says how a picture is to be turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def turned_long(orientation: int, order: str = ">") -> bytes:
    """The same with the number as LONG, which is not by the standard, and which Pillow reads."""
    head = b"Exif\0\0" + (b"MM\0*" if order == ">" else b"II*\0")
    return head + struct.pack(f"{order}IHHHIII", 8, 1, ExifTags.Base.Orientation, 4, 1, orientation, 0)


def with_alpha(picture: Image.Image) -> Image.Image:
    """More and more transparent from left to right."""
    ramp = Image.linear_gradient("L").rotate(90).resize(picture.size)
    return Image.merge("RGBA", (*picture.split(), ramp))


def red_and_blue_exchanged() -> bytes:
    """A colour profile that nobody can overlook."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.find(b"rXYZ"), profile.find(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


def files() -> Iterator[tuple[str, bytes]]:
    """Named pictures of every kind that browsers and Python both read."""
    picture = drawn(1, 220, 180)
    white = Image.new("RGB", picture.size, "white")
    yield "plain.png", encoded(picture, "PNG")
    yield "small.png", encoded(drawn(2, 40), "PNG")
    yield "one-pixel.png", encoded(Image.new("RGB", (1, 1), (9, 99, 199)), "PNG")
    yield "tall.png", encoded(drawn(3, 90, 700), "PNG")
    yield "wide.png", encoded(drawn(4, 700, 60), "PNG")
    yield "large.png", encoded(drawn(5, 1111, 1603), "PNG")
    yield "alpha.png", encoded(with_alpha(picture), "PNG")
    yield "grey.png", encoded(picture.convert("L"), "PNG")
    yield "grey-alpha.png", encoded(with_alpha(picture).convert("LA"), "PNG")
    yield "white-sticker.png", encoded(Image.merge("RGBA", [*white.split(), picture.convert("L")]), "PNG")
    yield "palette.png", encoded(picture.quantize(60), "PNG", transparency=3)
    yield "one-bit.png", encoded(picture.convert("1"), "PNG")
    yield "deep-grey.png", encoded(Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 200), "PNG")
    yield "photo.jpg", encoded(drawn(6, 640, 480), "JPEG", quality=85)
    yield "fine.jpg", encoded(picture, "JPEG", quality=95, subsampling=0)
    yield "progressive.jpg", encoded(picture, "JPEG", progressive=True)
    yield "grey.jpg", encoded(picture.convert("L"), "JPEG")
    yield "cmyk.jpg", encoded(ImageOps.invert(picture).convert("CMYK"), "JPEG", quality=95)
    yield "large.jpg", encoded(drawn(7, 2400, 1700), "JPEG", quality=85)
    for orientation in range(1, 9):
        yield f"turned-{orientation}.jpg", encoded(picture, "JPEG", quality=95, exif=turned(orientation))
    yield "turned.png", encoded(picture, "PNG", exif=turned(6))
    for orientation in range(2, 9):
        yield f"turned-{orientation}.webp", encoded(picture, "WEBP", lossless=True, exif=turned(orientation))
    yield "turned-long.jpg", encoded(picture, "JPEG", quality=95, exif=turned_long(6))
    yield "turned-long-little.jpg", encoded(picture, "JPEG", quality=95, exif=turned_long(7, "<"))
    yield "turned-long.png", encoded(picture, "PNG", exif=turned_long(8))
    yield "turned-long.webp", encoded(picture, "WEBP", lossless=True, exif=turned_long(6))
    yield "lossy.webp", encoded(picture, "WEBP", quality=80)
    yield "alpha.webp", encoded(with_alpha(picture), "WEBP", lossless=True)
    yield (
        "moving.gif",
        encoded(picture.quantize(200), "GIF", save_all=True, append_images=[drawn(8, 220, 180)]),
    )
    yield "profile.jpg", encoded(picture, "JPEG", quality=95, icc_profile=red_and_blue_exchanged())
    yield "plain.bmp", encoded(picture, "BMP")


def pictures(encoder: OnnxEncoder, folder: Path) -> list[dict[str, Any]]:
    """Each picture's file, its sentence, and its query vectors with all words.

    `trust` is that in its guiding phrases. Where rounding may choose the other one of two, `otherwise` has the vectors
    with that one.
    """
    found = []
    for name, content in files():
        (folder / name).write_bytes(content)
        picture = decode_image(content, at_least=MIN_DECODE_SIDE).picture
        seen = np.asarray(fit(picture, encoder.config.query_preprocessing).convert("RGBA"))
        explained = encoder.explain(picture)
        queries = encoder.encode_queries(np.repeat(explained.tokens[None], len(WORDS), 0), WORDS)
        parts = {
            "seen": seen,
            "tokens": explained.tokens,
            "attention": explained.attention,
            "gates": explained.gates,
        }
        found.append({"name": name, **{key: part.ravel().tolist() for key, part in parts.items()}})
        found[-1]["queries"] = queries.tolist()
        found[-1]["trust"] = trust(encoder, explained.tokens)
        other = second_choice(encoder, explained.tokens)
        if other is not None:
            queries = other.encode_queries(np.repeat(explained.tokens[None], len(WORDS), 0), WORDS)
        found[-1]["otherwise"] = queries.tolist()
    return found


def trust(encoder: OnnxEncoder, tokens: NDArray[np.float32]) -> float:
    """How far this sentence's guiding phrases are trusted, 0 to 1."""
    guide = Guide.read(encoder.folder)
    assert guide is not None
    return float(guide.near(encoder.unguided().encode_queries(tokens[None], [""])).trust[0])


def second_choice(encoder: OnnxEncoder, tokens: NDArray[np.float32]) -> OnnxEncoder | None:
    """The encoder without the phrase nearest to this sentence, if the next one is as near but for rounding."""
    guide = Guide.read(encoder.folder)
    assert guide is not None
    sentence_embeddings = encoder.unguided().encode_queries(tokens[None], [""])
    scores = sentence_embeddings[0] @ guide.vectors.T
    best, second = np.argsort(-scores)[:2]
    if scores[best] - scores[second] > TIE:
        return None
    rest = np.arange(len(scores)) != best
    phrases = [phrase for phrase, stays in zip(guide.phrases, rest, strict=True) if stays]
    other = load_encoder()
    other.__dict__["_guide"] = Guide(phrases, guide.vectors[rest], guide.settings)
    return other


def resizings(folder: Path) -> list[dict[str, Any]]:
    """Noise, where a difference in rounding shows most, as RGBA files: before, fitted, normalised, reduced."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(42):
        width, height = (int(side) for side in rng.integers(1, 500 if number % 3 else 40, 2))
        if number >= 36:  # so long that only the crop is computed
            width, height = ((30 * width + 300, 1 + height % 3), (1 + width % 3, 30 * height + 300))[
                number % 2
            ]
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        picture = Image.fromarray(np.where(noise > 127, 255, 0).astype(np.uint8) if number % 2 else noise)
        resample, way = ("bilinear", "bicubic", "lanczos")[number % 3], ("squash", "crop")[number // 3 % 2]
        size = int(rng.integers(1, 200))
        how = Preprocessing(size=size, fit=way, resample=resample, resize=size + 9 if number % 5 == 4 else 0)
        factor = int(rng.integers(2, 9))
        for kind, array in {
            "before": np.asarray(picture.convert("RGBA")),
            "fitted": np.asarray(fit(picture, how).convert("RGBA")),
            "pixels": to_pixels([picture], how),
            "reduced": np.asarray(picture.reduce(factor).convert("RGBA")),
        }.items():
            array.tofile(folder / f"{number}.{kind}")
        found.append({"width": width, "height": height, "factor": factor, "how": vars(how)})
    return found


def grounds(folder: Path) -> list[dict[str, Any]]:
    """Transparent noise, mostly of one kind of colour, as RGBA files: before, and on its ground."""
    rng = np.random.default_rng(1)
    found = []
    for number, (low, high) in enumerate(((0, 256), (215, 256), (0, 40), (90, 160), (180, 256), (0, 1))):
        noise = rng.integers(low, high, (30, 40, 4), np.uint8)
        noise[..., 3] = rng.integers(0, 256, (30, 40)) * (high > 1)
        noise[:12, :, :3] = rng.integers(0, 256, (12, 40, 1)) if number % 2 else noise[:12, :, :3]
        noise.tofile(folder / f"ground-{number}.before")
        picture = Image.fromarray(noise)
        np.asarray(decode_image(encoded(picture, "PNG")).picture.convert("RGBA")).tofile(
            folder / f"ground-{number}.after"
        )
        found.append({"width": 40, "height": 30, "ground": ground_of(picture)[0]})
    return found


def odd_texts(words: list[str]) -> Iterator[str]:
    """Known words, their capitals, and characters from everywhere, with and without spaces between."""
    rng = random.Random(0)
    planes = [
        (0x20, 0x7F),
        (0x20, 0x600),
        (0x600, 0x3400),
        (0xA000, 0xD800),
        (0xE000, 0x10000),
        (0x10000, 0x1FFFF),
    ]

    def odd() -> str:
        return "".join(chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randrange(1, 9)))

    for _ in range(4000):
        parts = (rng.choice([str.lower, str.upper, lambda _: odd()])(rng.choice(words)) for _ in range(5))
        yield "".join(part + rng.choice([" ", " ", "", "\u00a0", "\t"]) for part in parts)
    for point in [*range(0xD800), *range(0xE000, 0x20000)]:
        if not 0x3400 <= point < 0xAC00:
            yield f"red{chr(point)}blue"
    yield "x" * 64 + " " + "x" * 65


def tokens(encoder: OnnxEncoder) -> list[list[Any]]:
    """Texts, their ids, and the words in them that are not known."""
    tokenizer = Tokenizer.from_str(encoder.folder.read("tokenizer.json").decode())
    tokenizer.encode_special_tokens = True
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha())
    return [[text, tokenizer.encode(text).ids, encoder.unknown_words(text)] for text in odd_texts(words)]


def spellings(encoder: OnnxEncoder) -> list[list[Any]]:
    """Misspelt words with the known ones that are near."""
    texts = ["purpel", "blouze", "strypes", "sneeker", "wihte", "Jumpr", "zzzzzz", "shooes", "a", "handbgs"]
    return [
        [text, [[one.word, list(one.near)] for one in words_not_understood(encoder, text)]] for text in texts
    ]


def main(folder: Path) -> None:
    """Write everything."""
    encoder = load_encoder(threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    expected: dict[str, Any] = {
        "keys": {
            kind.__name__: [f.name for f in fields(kind)]
            for kind in (ModelConfig, LearnerConfig, Preprocessing)
        },
        "words": WORDS,
        "pictures": pictures(encoder, folder),
        "resizings": resizings(folder),
        "grounds": grounds(folder),
        "tokens": tokens(encoder),
        "spellings": spellings(encoder),
        "texts": [text for text in WORDS if text],
        "text_queries": encoder.encode_queries(None, [text for text in WORDS if text]).tolist(),
    }
    two = [decode_image((folder / name).read_bytes()).picture for name in ("plain.png", "photo.jpg")]
    expected["composed"] = [
        {"options": options, "vector": compose(encoder, two, "in red", **options)[0].tolist()}
        for options in (
            {},
            {"weights": [1, 3]},
            {"balance": 0.2},
            {"balance": 0.9, "weights": [2, 1]},
            {"balance": 1},
        )
    ]
    rest = encoder.encode_sentences(two[:1])[:, 1:]
    expected["without_first"] = encoder.encode_queries(rest, ["in red"])[0].tolist()
    (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
