"""Queries that are answered together, though their sentences have different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2sentence.encoders.protocols import Vectors
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
from image2sentence.query import Query, QueryEngine
from image2sentence.query.query import Reference
from tests.fakes import FakeEncoder, encoded, photo


class ThreeWords(FakeEncoder):
    """The fake encoder with sentences of three different pseudo-words; counts its calls."""

    calls = 0

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        return np.concatenate(
            [np.roll(super(ThreeWords, self).encode_sentences(images), n, -1) for n in range(3)], 1
        )

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        return super().encode_queries(sentences, texts)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[QueryEngine]:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(8):
        (folder / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = ThreeWords()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(folder, gallery, encoder)
        yield QueryEngine(encoder, gallery)


def test_whole_and_shortened_sentences_in_one_batch_are_answered_as_alone(engine: QueryEngine) -> None:
    whole = engine.encoder.encode_sentences([photo(1), photo(2)])
    sentences = [whole[0], whole[1, :1], whole[1], whole[0, 1:], None, whole[0, :1]]
    queries = [
        Query(references=() if one is None else (Reference(sentence=one),), words="red", k=8)
        for one in sentences
    ]
    alone = [engine.rank_many([query])[0] for query in queries]
    before = engine.encoder.calls  # type: ignore[attr-defined]
    together = engine.rank_many(queries)
    assert engine.encoder.calls - before == 4  # type: ignore[attr-defined]  # lengths 3, 1, 2 and none
    assert [[hit.score for hit in one.results] for one in together] == [
        [pytest.approx(hit.score, abs=1e-6) for hit in one.results] for one in alone
    ]
    assert [[hit.id for hit in one.results] for one in together] == [
        [hit.id for hit in one.results] for one in alone
    ]
