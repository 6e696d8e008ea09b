"""Mutated uploads and filters against a running server: no 5xx, no late answer.

    python -m tests.stress.fuzz [--uploads 10000] [--filters 5000] [--seed 1]

Each upload is a valid picture of a large kind, changed in a few places; each filter is a valid one, changed likewise.
Both follow from the seed and their number alone. What is answered with 5xx, late or not at all is kept in a folder, and
the command ends with 1.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo

from tests.stress.attacks import TOKEN, make_gallery, serving

DEADLINE = 20.0
"""Seconds in which every answer must come: ten to wait for a decoder, five to decode, and some for a slow machine."""
CLIENTS = 4
BOUNDARY = "----mutation"
MOST_LETTERS = 20_000
"""Of a filter, which is longer than the server reads."""

Request = Callable[[int], tuple[str, str, bytes, dict[str, str]]]
"""From a number to method, address, body and headers."""


class Answers(NamedTuple):
    """What a number of requests were answered with.

    Attributes:
        statuses: Statuses and their number; 0 for none.
        slowest: Seconds of the slowest answer.
        seconds: Seconds of all.
        bad: Numbers of the requests that had a 5xx, a late answer or none.
    """

    statuses: Counter[int]
    slowest: float
    seconds: float
    bad: list[int]

    def __str__(self) -> str:
        statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(self.statuses.items()))
        return f"{statuses}; slowest {self.slowest:.2f} s; {self.seconds:.0f} s in all; bad: {self.bad or 'none'}"


# ---- uploads ----


def large_picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Smooth colours with some noise, so that no format makes it tiny."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).resize(size)
    noisy = np.asarray(coarse, np.int16) + rng.integers(-6, 7, (size[1], size[0], 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@cache
def pictures() -> dict[str, bytes]:
    """A valid file of each kind, with metadata."""
    one, other = large_picture(1, (900, 700)), large_picture(2, (500, 400))
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x0132: "2021:05:06 07:08:09", 0x010E: "a description " * 40})
    profile = b"\0" * 36 + b"acsp" + b"\0" * 500
    text = PngInfo()
    text.add_text("Comment", "words " * 200, zip=True)
    text.add_itxt("Description", "wörds " * 100, lang="de", zip=True)
    made = {
        "progressive JPEG": _file(one, "JPEG", progressive=True, quality=85, exif=exif, comment=b"c" * 500),
        "JPEG with a profile": _file(other, "JPEG", icc_profile=profile, exif=exif),
        "PNG with metadata": _file(other, "PNG", pnginfo=text, exif=exif, icc_profile=profile),
        "PNG with a palette": _file(one.quantize(32), "PNG", transparency=3, optimize=True),
        "PNG of 16 bits": _file(Image.fromarray(np.asarray(other.convert("L"), np.uint16) * 257), "PNG"),
        "TIFF of strips": _file(other, "TIFF", compression="tiff_lzw", exif=exif),
        "TIFF of pages": _file(
            other, "TIFF", save_all=True, append_images=[other], compression="tiff_deflate"
        ),
        "TIFF of floats": _file(other.convert("F"), "TIFF"),
        "GIF that moves": _file(other, "GIF", save_all=True, append_images=[other.rotate(9)] * 3, loop=0),
        "WebP": _file(one, "WEBP", quality=70, exif=exif.tobytes(), xmp=b"<x/>" * 90, icc_profile=profile),
        "WebP without loss": _file(other.convert("RGBA"), "WEBP", lossless=True),
        "WebP that moves": _file(other, "WEBP", save_all=True, append_images=[other.rotate(9)] * 2),
        "BMP": _file(other, "BMP"),
    }
    if features.check("avif"):
        made["AVIF"] = _file(one, "AVIF", exif=exif.tobytes(), speed=10)
    return made


def _file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A file changed in 1 to 6 places, half of them in its first kilobyte."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        end = min(len(changed), 1_024) if draw.random() < 0.5 else len(changed)
        at = draw.randrange(max(1, end))
        match draw.randrange(8):
            case 0:
                changed[at : at + 1] = bytes([changed[at] ^ (1 << draw.randrange(8))])
            case 1:
                changed[at : at + 1] = bytes([draw.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))])
            case 2:
                number = draw.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 65_500, 1 << 24))
                changed[at : at + 4] = number.to_bytes(4, draw.choice(("big", "little")))
            case 3:
                del changed[at : at + draw.randint(1, 2_000)]
            case 4:
                changed[at:at] = changed[at : at + draw.randint(1, 2_000)] * draw.randint(1, 5)
            case 5:
                changed[at : at + 200] = draw.randbytes(draw.randint(1, 200))
            case 6:
                start = draw.randrange(len(changed))
                changed[at:at] = changed[start : start + draw.randint(1, 5_000)]
            case _ if draw.random() < 0.3:
                del changed[max(64, at) :]
        if len(changed) < 64:
            return bytes(changed) + bytes(64)
    return bytes(changed)


def upload(number: int, seed: int) -> bytes:
    """The picture of an upload."""
    draw = random.Random(f"{seed} upload {number}")
    kinds = sorted(pictures())
    return mutated(pictures()[kinds[number % len(kinds)]], draw)


def upload_request(seed: int) -> Request:
    """Searches with a picture and words."""

    def made(number: int) -> tuple[str, str, bytes, dict[str, str]]:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        words = f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="text"\r\n\r\nin red\r\n--{BOUNDARY}--\r\n'
        body = head.encode() + upload(number, seed) + words.encode()
        return "POST", "/v1/search", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    return made


# ---- filters ----

PIECES = (
    "and", "or", "not", "in", "like", "contains", "between", "is null", "is not null", "=", "!=", "<", "<=", ">",
    ">=", "(", ")", "((", "))", ",", "'", "''", '"', '""', "%", "_", "\\", "\\%", "--", ";", "/*", "*/", "?", "*", "[",
    "]", "\0", "\n", "\t", "\u200b", "\u202e", "ﬁ", "ı", "İ", "é", "e\u0301", "😀", "0", "-1", "1e308", "1e999", "nan",
    "0x10", "9" * 400, "true", "null", "caption", "'caption'", '"caption"', "nothing", "id", "rowid", "2021-02-30",
)  # fmt: skip


def valid_filter(draw: random.Random, depth: int = 0) -> str:
    """A filter that the gallery's columns fit."""
    if depth < 4 and draw.random() < 0.4:
        parts = [valid_filter(draw, depth + 1) for _ in range(draw.randint(2, 4))]
        return f"({draw.choice((' and ', ' or ')).join(parts)})"
    word = "".join(draw.choices("ab%_é", k=draw.randint(1, 12)))
    return draw.choice(("", "", "not ")) + draw.choice(
        (
            f"caption = '{word}'",
            f"caption like '{word}%{word}'",
            f"caption contains '{word}'",
            f"caption in ('{word}', 'a', 'b')",
            f"caption >= '{word}'",
            "caption is null",
            f"caption not like '%{word}_{word}%'",
        )
    )


def mutated_filter(number: int, seed: int) -> str:
    """A valid filter changed in a few places, some of them many times over."""
    draw = random.Random(f"{seed} filter {number}")
    text = valid_filter(draw)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        at, to = sorted((draw.randrange(len(text) + 1), draw.randrange(len(text) + 1)))
        match draw.randrange(7):
            case 0:
                text = text[:at] + draw.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[to:]
            case 2:  # inside a text, which most often stays a filter
                quoted = text.find("'") + 1
                text = text[:quoted] + draw.choice(PIECES) * draw.choice((1, 1, 40)) + text[quoted:]
            case 3:
                text = text[:at] + text[at:to] * draw.randint(2, 6) + text[to:]
            case 4:
                depth = draw.choice((2, 30, 500, 4_900))
                text = draw.choice(("(", "not (", "not ")) * depth + text + ")" * draw.choice((0, depth))
            case 5:
                text = draw.choice((" and ", " or ", " ")).join([text] * draw.choice((2, 9, 200)))
            case _:
                text = (
                    text[:at]
                    + chr(draw.choice((draw.randrange(1, 0xD800), draw.randrange(0x10000))))
                    + text[at:]
                )
        text = text[:MOST_LETTERS]  # after each change: five in a row may make gigabytes
    return text


def filter_request(seed: int) -> Request:
    """Searches with words and a filter; one in four lists the gallery instead."""

    def made(number: int) -> tuple[str, str, bytes, dict[str, str]]:
        where = mutated_filter(number, seed)
        if number % 4 == 0:
            address = quote(where[:1_500], errors="surrogatepass")
            return "GET", f"/v1/items?where={address}", b"", {}
        body = json.dumps({"text": "red", "where": where}).encode()
        return "POST", "/v1/search", body, {"Content-Type": "application/json"}

    return made


# ---- sending ----


def send(port: int, requests: Request, count: int) -> Answers:
    """Send the requests of numbers below `count` from a few clients."""
    numbers = iter(range(count))
    taking = threading.Lock()
    times: dict[int, tuple[int, float]] = {}

    def taken() -> Iterator[int]:
        while True:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            yield number

    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * DEADLINE)
        for number in taken():
            method, address, body, headers = requests(number)
            start = time.monotonic()
            status = _status(client, method, address, body, headers)
            times[number] = (status, time.monotonic() - start)
        client.close()

    start = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    bad = [
        number
        for number, (status, taken) in sorted(times.items())
        if not 200 <= status < 500 or taken > DEADLINE
    ]
    slowest = max((taken for _, taken in times.values()), default=0.0)
    return Answers(Counter(status for status, _ in times.values()), slowest, time.monotonic() - start, bad)


def _status(
    client: http.client.HTTPConnection, method: str, address: str, body: bytes, headers: dict[str, str]
) -> int:
    """The status of an answer; asked once more on a new connection where the server has closed an idle one."""
    for _ in range(2):
        try:
            client.request(method, address, body, headers | {"Authorization": f"Bearer {TOKEN}"})
            answer = client.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            client.close()
    return 0


def main() -> int:
    """Print what both kinds were answered with; 1 where an answer was bad."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--uploads", type=int, default=10_000, help="how many pictures")
    parser.add_argument("--filters", type=int, default=5_000, help="how many filters")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="the folder for what was answered badly")
    options = parser.parse_args()
    kept = options.keep or Path(tempfile.mkdtemp(prefix="mutations-"))
    bad = 0
    with tempfile.TemporaryDirectory() as folder, serving(make_gallery(Path(folder))) as (port, _):
        for name, count, requests in (
            ("filters", options.filters, filter_request(options.seed)),
            ("uploads", options.uploads, upload_request(options.seed)),
        ):
            answers = send(port, requests, count)
            print(f"{name}: {answers}", flush=True)
            bad += len(answers.bad)
            for number in answers.bad:
                _, address, body, _ = requests(number)
                (kept / f"{name}-{number}").write_bytes(body or address.encode())
    if bad:
        print(f"{bad} bad answers; what was sent is in {kept}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
