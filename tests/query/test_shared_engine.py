"""The query engine as notebooks and services use it: several threads, asyncio, and processes that are started anew."""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from fakes import encoded, photo
from image2sentence import Gallery, QueryEngine, index_pictures, load_encoder

WORDS = ("in red", "a blue shirt", "striped", "without dots", "green")
TIMES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery of six pictures."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "pictures").mkdir()
    for seed in range(6):
        (folder / "pictures" / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = load_encoder(threads=1)
    with Gallery.create(folder / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(folder / "pictures", made, encoder)
    return folder / "gallery"


@pytest.fixture
def engine(folder: Path) -> Iterator[QueryEngine]:
    with Gallery.open(folder) as gallery:
        yield QueryEngine(load_encoder(threads=1), gallery)


def ranked(engine: QueryEngine, words: str) -> list[int]:
    return [result.id for result in engine.search(words=words, k=6).results]


def ranked_anew(folder: Path, words: str) -> list[int]:
    """What a process finds that opens gallery and model itself."""
    with Gallery.open(folder) as gallery:
        return ranked(QueryEngine(load_encoder(threads=1), gallery), words)


def test_threads_may_share_an_engine(engine: QueryEngine) -> None:
    expected = {words: ranked(engine, words) for words in WORDS}
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda words: (words, ranked(engine, words)), WORDS * TIMES))
    assert len(found) == TIMES * len(WORDS)
    assert all(ids == expected[words] for words, ids in found)


def test_asyncio_asks_in_threads(engine: QueryEngine) -> None:
    async def all_at_once() -> list[list[int]]:
        return await asyncio.gather(*(asyncio.to_thread(ranked, engine, words) for words in WORDS))

    assert asyncio.run(all_at_once()) == [ranked(engine, words) for words in WORDS]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_open_gallery_and_model_themselves(engine: QueryEngine, folder: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"{sys.platform} starts no processes by {method}")
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as processes:
        found = processes.submit(ranked_anew, folder, WORDS[0]).result(120)
    assert found == ranked(engine, WORDS[0])
