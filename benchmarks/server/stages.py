"""Where a batch saves time: milliseconds a query of each stage, answered alone and together, without HTTP.

    python -m benchmarks.server.stages GALLERY [--batch 1 --batch 8 --batch 32]

The model on one thread, as `image2sentence serve` has it. The last row is what HTTP costs beside it: processor time of
the application from a request to its answer where the answer is ready at once, without sockets.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server does, before numpy comes

import numpy as np

from benchmarks.server.load import COLOURS, PATTERNS
from image2sentence.encoders import load_encoder
from image2sentence.encoders.protocols import Encoder
from image2sentence.gallery.opening import open_gallery
from image2sentence.query import Answer, Query
from image2sentence.server.app import Deployment, create_app
from image2sentence.server.security import AllowedHosts
from image2sentence.server.service import Asked, SearchService

QUERIES = 256


def drawn(service: SearchService, count: int) -> list[Query]:
    """Queries as `server_load` asks them: a picture of the gallery whose sentence is known, and words."""
    rng = random.Random(0)
    ids = [int(str(number)) for number in service.engine.searcher.ids[:100]]
    found = []
    for _ in range(count):
        item = rng.choice(ids)
        reference = service.read(Asked(item=item)).reference(item)
        assert reference is not None
        words = f"in {rng.choice(COLOURS)}{rng.choice(PATTERNS)}"
        found.append(Query(references=(reference,), words=words, k=10))
    return found


def milliseconds(call: Callable[[], object], queries: int) -> float:
    """Of one query, the best of five passes over as many calls as make up `QUERIES`."""
    calls = max(1, QUERIES // queries)
    passes = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        passes.append(time.perf_counter() - start)
    return 1000 * min(passes) / (calls * queries)


def stages(service: SearchService, encoder: Encoder, size: int) -> str:
    """What queries cost that are answered `size` at once."""
    queries = drawn(service, size)
    sentences = np.stack([one.references[0].sentence for one in queries])
    words = [one.words for one in queries]
    shown = [result.id for answer in service.rank_many(queries) for result in answer.results]
    encode = milliseconds(lambda: encoder.encode_queries(sentences, words), size)
    rank = milliseconds(lambda: service.rank_many(queries), size)
    metadata = milliseconds(lambda: service.metadata(shown), size)
    return (
        f"{size:3} at once: text encoder {encode:.2f}   engine beside it {rank - encode:.2f}"
        f"   metadata {metadata:.2f}   together {rank + metadata:.2f} ms a query"
    )


def http(service: SearchService) -> float:
    """Milliseconds of processor time of one query's HTTP side, the best of five passes."""
    app = create_app(service, hosts=AllowedHosts.of("127.0.0.1"), deployment=Deployment(show_paths=None))
    query = drawn(service, 1)[0]
    ready = service.rank_many([query])[0]
    assert isinstance(ready, Answer)

    async def answered(asked: Query) -> Answer:
        return ready

    async def passes() -> list[float]:
        app.state.serving._queries.ask = answered
        found = []
        for _ in range(5):
            start = time.process_time()
            for _ in range(QUERIES):
                assert (
                    await status_of(app, {"item": query.references[0].item, "text": query.words, "k": 10})
                    == 200
                )
            found.append(time.process_time() - start)
        return found

    return 1000 * min(asyncio.run(passes())) / QUERIES


async def status_of(app: Any, fields: dict[str, object]) -> int:
    """The status of a search in JSON, asked of the application itself."""
    body = json.dumps(fields).encode()
    headers = {
        b"host": b"localhost",
        b"content-type": b"application/json",
        b"content-length": b"%d" % len(body),
    }
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/search",
        "query_string": b"",
    }
    arriving = [{"type": "http.request", "body": body}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return arriving.pop() if arriving else await asyncio.get_running_loop().create_future()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope | {"headers": list(headers.items()), "client": ("127.0.0.1", 1)}, receive, send)
    return statuses[0]


@click.command()
@click.argument("gallery", type=click.Path(exists=True, path_type=Path))
@click.option("--batch", "batches", multiple=True, default=(1, 8, 32), show_default=True)
def main(gallery: Path, batches: tuple[int, ...]) -> None:
    """Stages of a query over GALLERY."""
    encoder = load_encoder(threads=1)
    with open_gallery(gallery) as opened:
        service = SearchService(encoder, opened)
        service.prepare()
        for size in batches:
            print(stages(service, encoder, size))
        print(f"HTTP beside it {http(service):.2f} ms a query")


if __name__ == "__main__":
    main()
