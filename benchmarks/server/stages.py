"""Where a batch saves time: milliseconds a query of each stage, answered alone and together, without HTTP.

    python -m benchmarks.server.stages GALLERY [--batch 1 --batch 8 --batch 32]

The model on one thread, as `image2sentence serve` has it. What a query costs over HTTP beyond this is what
`benchmarks.server.load` shows beside it.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import click

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the server does, before numpy comes

import numpy as np

from benchmarks.server.load import COLOURS, PATTERNS
from image2sentence.encoders import load_encoder
from image2sentence.encoders.protocols import Encoder
from image2sentence.gallery.opening import open_gallery
from image2sentence.query import Query
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


if __name__ == "__main__":
    main()
