"""What a stranger may send: mutated uploads, a shutdown under load, and many requests; nothing breaks or grows.

    python -m benchmarks.server.abuse GALLERY PICTURES [--uploads 10000] [--requests 10000]

Starts `image2sentence serve` on this computer and prints, for each part, what was answered and the memory of the
process before and after:

- mutated uploads: pictures cut short, with changed bytes, bombs, pictures with an archive or a script behind them,
  files of other kinds, damaged forms. No answer may be 5xx, and a good query in between is answered each time.
- many requests: the memory after each tenth of them.
- SIGTERM under load: every request that was sent before is answered, the process ends by itself, and a new one is
  ready again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks.server.load import exchange, item_ids, json_request, load, queries
from benchmarks.server.process import resident, server

SIDE = 30_000
GOOD_EVERY = 50
Mutation = Callable[[random.Random, bytes], bytes]


def form(content: bytes, rng: random.Random) -> bytes:
    """A search with a picture and words."""
    boundary = f"{rng.getrandbits(64):x}".encode()
    body = (
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="text"\r\n\r\nin red\r\n'
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n" + content + b"\r\n--" + boundary + b"--\r\n"
    )
    return posted(body, b"multipart/form-data; boundary=" + boundary)


def posted(body: bytes, kind: bytes) -> bytes:
    """A POST of any body to the search."""
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: " + kind
    return head + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body


def cut(rng: random.Random, picture: bytes) -> bytes:
    """The picture's beginning."""
    return picture[: rng.randrange(len(picture))]


def changed(rng: random.Random, picture: bytes) -> bytes:
    """Some bytes of the picture are others."""
    damaged = bytearray(picture)
    for _ in range(rng.randint(1, 40)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def bomb(rng: random.Random, picture: bytes) -> bytes:
    """A PNG that says it is huge, with as many or as few pixels as it likes."""
    width, height = rng.choice([(SIDE, SIDE), (2**31 - 1, 1), (0, 0), (8_000, 8_001), (1, 2**31 - 1)])
    header = struct.pack(">IIBBBBB", width, height, rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 6]), 0, 0, 0)
    pixels = zlib.compress(bytes(rng.choice([0, 1_000, 1_000_000])), 9)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def polyglot(rng: random.Random, picture: bytes) -> bytes:
    """A picture with something else before or behind it."""
    other = rng.choice(
        [b"PK\x03\x04" + bytes(200), b"<script>alert(1)</script>", b"%PDF-1.7\n", b"#!/bin/sh\nid\n", picture]
    )
    return picture + other if rng.random() < 0.5 else other + picture


def other_kind(rng: random.Random, picture: bytes) -> bytes:
    """No picture at all, or the head of a format and noise."""
    heads = (
        b"GIF89a",
        b"RIFF\xff\xff\xff\xffWEBP",
        b"II*\x00",
        b"\x00\x00\x00\x18ftypavif",
        b"BM",
        b"%!PS-Adobe",
        b"<svg>",
        b"",
    )
    return rng.choice(heads) + rng.randbytes(rng.randrange(4_000))


def damaged_form(rng: random.Random, picture: bytes) -> bytes:
    """A form whose parts are not what forms are made of."""
    request = form(picture, rng)
    head, _, body = request.partition(b"\r\n\r\n")
    kind = head.partition(b"Content-Type: ")[2].partition(b"\r\n")[0]
    return posted(
        changed(rng, body[: rng.randrange(1, len(body))]),
        rng.choice([kind, b"application/json", b"text/plain"]),
    )


MUTATIONS: tuple[Mutation, ...] = (cut, changed, bomb, polyglot, other_kind)


def upload(rng: random.Random, pictures: list[bytes]) -> tuple[str, bytes]:
    """One mutated upload, and what was done to it."""
    picture = rng.choice(pictures)
    mutation = rng.choice((*MUTATIONS, damaged_form))
    content = mutation(rng, picture)
    return mutation.__name__, content if mutation is damaged_form else form(content, rng)


async def send_uploads(port: int, pictures: list[bytes], count: int, seed: int) -> tuple[Counter[str], int]:
    """What each kind of upload was answered, and how many good queries between them were."""
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    good = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in range(count):
        name, request = upload(rng, pictures)
        status, _ = await exchange(reader, writer, request)
        seen[f"{name} {status}"] += 1
        if number % GOOD_EVERY == GOOD_EVERY - 1:
            status, _ = await exchange(reader, writer, json_request("/v1/search", {"text": "in red"}))
            good += status == 200
    writer.close()
    return seen, good


def uploads(gallery: Path, pictures: list[bytes], count: int) -> None:
    """The mutated uploads, from four connections; fails on a 5xx answer, and on a good query left unanswered."""
    seen: Counter[str] = Counter()
    good = 0
    with server(gallery) as (port, process, _):
        asyncio.run(_many(port, pictures, count // 10, 10))
        sizes = [resident(process.pid)]
        start = time.perf_counter()
        for tenth in range(10):
            for answers, answered in asyncio.run(_many(port, pictures, count // 10, tenth)):
                seen += answers
                good += answered
            sizes.append(resident(process.pid))
        spent = time.perf_counter() - start
    print(f"{seen.total():,} mutated uploads in {spent:.0f} s; memory, MiB: {in_row(sizes)}")
    for what, times in sorted(seen.items()):
        print(f"  {what:<20} {times:6,}")
    failed = sum(times for what, times in seen.items() if what.split()[-1].startswith("5"))
    expected = 10 * 4 * (count // 40 // GOOD_EVERY)
    print(f"answers 5xx: {failed}; good queries in between answered: {good} of {expected}")
    if failed or good < expected:
        raise SystemExit(1)


def in_row(sizes: list[float]) -> str:
    """The sizes beside each other."""
    return " ".join(f"{size:.1f}" for size in sizes)


async def _many(port: int, pictures: list[bytes], count: int, seed: int) -> list[tuple[Counter[str], int]]:
    seeds = range(4 * seed, 4 * seed + 4)
    return await asyncio.gather(*(send_uploads(port, pictures, count // 4, one) for one in seeds))


def many_requests(gallery: Path, count: int) -> None:
    """Memory after each tenth of the requests."""
    with server(gallery) as (port, process, _):
        ids = asyncio.run(item_ids(port))
        asyncio.run(_ask(port, ids, 500, 1_000))
        sizes = [resident(process.pid)]
        for seed in range(10):
            asyncio.run(_ask(port, ids, count // 10, seed))
            sizes.append(resident(process.pid))
    print(f"memory over {count:,} requests, MiB: {in_row(sizes)}")


async def _ask(port: int, ids: list[int], count: int, seed: int) -> None:
    async def client(share: int, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = queries(ids, 100 * seed + number)
        for _ in range(share):
            status, _ = await exchange(reader, writer, next(asked))
            assert status == 200, status
        writer.close()

    await asyncio.gather(*(client(count // 8, number) for number in range(8)))


async def _cut_off(port: int, ids: list[int], clients: int, stop: Callable[[], None]) -> tuple[int, int]:
    """Ask from many connections, stop the server meanwhile: requests answered, and those left without an answer.

    A request counts as left where the connection breaks after the server has begun to answer others on it and the
    request was sent before the stop.
    """
    answered = left = 0
    stopped = asyncio.Event()

    async def client(number: int) -> None:
        nonlocal answered, left
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked = queries(ids, number)
        while not stopped.is_set():
            request = next(asked)
            sent_before = not stopped.is_set()
            try:
                status, _ = await asyncio.wait_for(exchange(reader, writer, request), 20)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError):
                left += sent_before
                return
            answered += status == 200
        writer.close()

    async def stopper() -> None:
        await asyncio.sleep(1.5)
        stopped.set()
        stop()

    await asyncio.gather(stopper(), *(client(number) for number in range(clients)))
    return answered, left


def shutdown(gallery: Path, clients: int = 32) -> None:
    """SIGTERM while many ask, and a new start."""
    with server(gallery) as (port, process, _):
        ids = asyncio.run(item_ids(port))
        asyncio.run(load(port, ids, clients, 1))
        answered, left = asyncio.run(
            _cut_off(port, ids, clients, lambda: process.send_signal(signal.SIGTERM))
        )
        start = time.perf_counter()
        code = process.wait(30)
        ended = time.perf_counter() - start
    with server(gallery) as (_, _, ready):
        pass
    print(
        f"SIGTERM under {clients} clients: {answered:,} answered, {left} sent before it and not answered; "
        f"ended {ended:.2f} s after the last answer with {code}; ready again in {ready:.2f} s"
    )


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--uploads", "upload_count", default=10_000, show_default=True)
@click.option("--requests", "request_count", default=10_000, show_default=True)
def main(gallery: Path, folder: Path, upload_count: int, request_count: int) -> None:
    """Abuse a server over GALLERY with pictures of FOLDER."""
    pictures = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))[:50]]
    shutdown(gallery)
    if request_count:
        many_requests(gallery, request_count)
    if upload_count:
        uploads(gallery, pictures, upload_count)


if __name__ == "__main__":
    main()
