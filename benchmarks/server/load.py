"""A server under load: latency, throughput, and what micro-batching is worth, ours against itself without it.

    python -m benchmarks.server.load GALLERY [--clients 32] [--seconds 60] [--compare-seconds 20] [--before SRC]

Starts `image2sentence serve` on this computer, asks it from many connections at once (each sends its next query when
it has the answer to the last), and prints p50 and p99, throughput, statuses, and memory before and after. Queries are
the gallery's own pictures by id with drawn words, so the picture's sentence is remembered after its first use, as it
is on the page. Then a server with `--batch 32` and one with `--batch 1` are asked in turns, `--compare-seconds` each
in all, so that what else happens on the computer meets both; the ratio is the median of the turns. With `--before`,
the `src` folder of an earlier checkout, that version and this one are asked in such turns instead.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from benchmarks.server.process import ServerProcess, processor_seconds, resident, server

COLOURS = [
    "red",
    "blue",
    "green",
    "black",
    "white",
    "yellow",
    "pink",
    "navy",
    "brown",
    "orange",
    "purple",
    "grey",
]
PATTERNS = ("", " with stripes", " with dots", " with a checked pattern", " on a white background")


TURNS = 5


class Run(NamedTuple):
    """What one run of clients saw; seconds of each answered query."""

    statuses: Counter[int]
    times: list[float]
    wall: float

    @property
    def rate(self) -> float:
        """Answered queries a second."""
        return len(self.times) / self.wall

    def percentile(self, part: float) -> float:
        """Milliseconds within which this part of the queries was answered."""
        ordered = sorted(self.times)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Turn(NamedTuple):
    """A run, and milliseconds of the server's processor time for each of its queries."""

    run: Run
    cost: float


def json_request(path: str, fields: dict[str, object]) -> bytes:
    """A POST with a JSON body, on a connection that stays open."""
    body = json.dumps(fields).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def queries(ids: list[int], seed: int) -> Iterator[bytes]:
    """Endless queries: a picture of the gallery, and words."""
    rng = random.Random(seed)
    while True:
        words = f"in {rng.choice(COLOURS)}{rng.choice(PATTERNS)}"
        yield json_request("/v1/search", {"item": rng.choice(ids), "text": words, "k": 10})


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bytes]:
    """Status and body of one request on an open connection."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    return int(head[9:12]), await reader.readexactly(length)


async def client(
    port: int, asked: Iterator[bytes], until: float, statuses: Counter[int], times: list[float]
) -> None:
    """One client: the next query as soon as the last is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        start = time.perf_counter()
        status, _ = await exchange(reader, writer, next(asked))
        statuses[status] += 1
        if status == 200:
            times.append(time.perf_counter() - start)
        elif status == 429:
            await asyncio.sleep(0.1)
    writer.close()


async def load(port: int, ids: list[int], clients: int, seconds: float) -> Run:
    """Many clients at once, for some seconds."""
    statuses: Counter[int] = Counter()
    times: list[float] = []
    start = time.perf_counter()
    asked = (queries(ids, seed) for seed in range(clients))
    await asyncio.gather(*(client(port, one, start + seconds, statuses, times) for one in asked))
    return Run(statuses, times, time.perf_counter() - start)


async def item_ids(port: int, most: int = 100) -> list[int]:
    """Ids of the gallery's first pictures."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, body = await exchange(
        reader, writer, f"GET /v1/items?k={most} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    writer.close()
    return [item["id"] for item in json.loads(body)["items"]]


def measured(gallery: Path, clients: int, seconds: float, *options: str) -> Run:
    """One server, warmed up for 2 s, then measured; prints what it saw."""
    with server(gallery, *options) as (port, process, ready):
        ids = asyncio.run(item_ids(port))
        asyncio.run(load(port, ids, clients, 2))
        before = resident(process.pid)
        run = asyncio.run(load(port, ids, clients, seconds))
        after = resident(process.pid)
    name = " ".join(options) or "default"
    print(
        f"{name:<12} {told(run)}   memory {before:.0f} -> {after:.0f} MiB   ready in {ready:.2f} s",
        flush=True,
    )
    return run


def compared(gallery: Path, clients: int, seconds: float) -> None:
    """Servers with and without micro-batching, in turns; also by processor time, which other programs hardly change."""
    with server(gallery, "--batch", "32") as together, server(gallery, "--batch", "1") as alone:
        ids = asyncio.run(item_ids(together.port))
        for one in (together, alone):
            asyncio.run(load(one.port, ids, clients, 2))
        turns = [
            [_turn(one, ids, clients, seconds / TURNS) for one in (together, alone)] for _ in range(TURNS)
        ]
    ratios = [batched.run.rate / single.run.rate for batched, single in turns]
    for (batched, single), ratio in zip(turns, ratios, strict=True):
        print(
            f"  with micro-batching {batched.run.rate:5.0f} queries/s, {batched.cost:.2f} ms of processor each"
            f"   without {single.run.rate:5.0f} queries/s, {single.cost:.2f} ms   ratio {ratio:.2f}"
        )
    costs = statistics.median(single.cost / batched.cost for batched, single in turns if batched.cost)
    print(
        f"ratio with / without micro-batching: {statistics.median(ratios):.2f}; by processor time {costs:.2f}"
    )


def _turn(one: ServerProcess, ids: list[int], clients: int, seconds: float) -> Turn:
    start = processor_seconds(one.process.pid)
    run = asyncio.run(load(one.port, ids, clients, seconds))
    return Turn(run, 1000 * (processor_seconds(one.process.pid) - start) / max(len(run.times), 1))


def versus(galleries: tuple[Path, Path], source: Path, clients: int, seconds: float) -> None:
    """This version and another one, in turns, under load and with one client; `galleries`: this one's, the other's."""
    with server(galleries[0]) as now, server(galleries[1], source=source) as before:
        ids = {one.port: asyncio.run(item_ids(one.port)) for one in (now, before)}
        for number in (clients, 1):
            for one in (now, before):
                asyncio.run(load(one.port, ids[one.port], number, 2))
            turns = [
                [_turn(one, ids[one.port], number, seconds / TURNS) for one in (now, before)]
                for _ in range(TURNS)
            ]
            compare(turns, number)


def compare(turns: Sequence[Sequence[Turn]], clients: int) -> None:
    """Print what both versions did, and the medians of the turns' ratios."""
    for place, name in enumerate(("now", "before")):
        run = joined([turn[place].run for turn in turns])
        print(f"{name:<7} {clients:3} clients {told(run)}")
    for part in (0.5, 0.95, 0.99):
        ratio = statistics.median(a.run.percentile(part) / b.run.percentile(part) for a, b in turns)
        print(f"  p{100 * part:.0f} now / before: {ratio:.2f}")
    ratio = statistics.median(a.cost / b.cost for a, b in turns if b.cost)
    costs = [statistics.median(turn[place].cost for turn in turns) for place in (0, 1)]
    print(f"  processor time of a query: {costs[0]:.2f} ms now, {costs[1]:.2f} ms before, ratio {ratio:.2f}")


def joined(runs: Sequence[Run]) -> Run:
    """What several runs saw together."""
    return Run(
        sum((run.statuses for run in runs), Counter()),
        [one for run in runs for one in run.times],
        sum(run.wall for run in runs),
    )


def told(run: Run) -> str:
    """A run in one line."""
    statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(run.statuses.items()))
    parts = "   ".join(f"p{100 * part:.0f} {run.percentile(part):6.1f} ms" for part in (0.5, 0.95, 0.99))
    return f"{run.rate:7.0f} queries/s   {parts}   {statuses}"


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.option("--clients", default=32, show_default=True)
@click.option("--seconds", default=60.0, show_default=True, help="Of the main run; 0 leaves it out.")
@click.option(
    "--compare-seconds",
    default=20.0,
    show_default=True,
    help="With and without batches, each; 0 leaves it out.",
)
@click.option(
    "--before", type=click.Path(exists=True, path_type=Path), help="The src folder of an earlier checkout."
)
@click.option(
    "--before-gallery", type=click.Path(exists=True, path_type=Path), help="Its gallery; default: GALLERY."
)
def main(
    gallery: Path,
    clients: int,
    seconds: float,
    compare_seconds: float,
    before: Path | None,
    before_gallery: Path | None,
) -> None:
    """Measure a server over GALLERY; with --before only against an earlier version, in turns."""
    if before is not None:
        versus((gallery, before_gallery or gallery), before, clients, seconds)
        return
    if seconds:
        run = measured(gallery, clients, seconds)
        bad = sum(count for status, count in run.statuses.items() if status not in (200, 429))
        print(f"errors other than 429: {bad}")
    if compare_seconds:
        compared(gallery, clients, compare_seconds)


if __name__ == "__main__":
    main()
