"""Reranking: the matching encoder puts the best few in a new order, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, photo
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import QueryError
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
from image2sentence.query import Query, QueryEngine, Reference

COUNT = 30


class Matcher(FakeEncoder):
    """The fake encoder, which also finds that a picture matches the better the bluer it is."""

    can_match = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int | None, str, int]] = []

    def encode_patches(self, images: Sequence[Image.Image]) -> Vectors:
        means = [np.asarray(image, np.float32).mean(axis=(0, 1)) for image in images]
        return np.stack(means)[:, None, :]

    def match(self, sentences: Vectors | None, texts: Sequence[str], patches: Vectors) -> Vectors:
        self.seen.append((None if sentences is None else len(sentences), texts[0], len(patches)))
        logits: Vectors = patches[:, 0, 2] / 32 - 4
        return logits


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[QueryEngine]:
    """An engine over pictures of smooth random colours."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(COUNT):
        photo(seed).save(photos / f"{seed}.png")
    encoder = Matcher()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(photos, gallery, encoder)
        yield QueryEngine(encoder, gallery)


def blueness(path: Path) -> float:
    return float(np.asarray(Image.open(path).convert("RGB"), np.float32)[..., 2].mean())


def test_the_best_are_ordered_by_match_and_the_rest_stay(engine: QueryEngine) -> None:
    before = engine.rank(Query(words="red", k=COUNT)).results
    after = engine.rank(Query(words="red", k=COUNT, rerank=8)).results
    assert {one.id for one in after[:8]} == {one.id for one in before[:8]}
    assert [one.id for one in after[8:]] == [one.id for one in before[8:]]
    blue = [blueness(one.path) for one in after[:8]]
    assert blue == sorted(blue, reverse=True)
    assert [one.match for one in after[8:]] == [None] * (COUNT - 8)
    expected = 1 / (1 + np.exp(-(np.array(blue) / 32 - 4)))
    np.testing.assert_allclose([one.match for one in after[:8]], expected, atol=0.02)
    scores = {one.id: one.score for one in before}
    assert [one.score for one in after] == [scores[one.id] for one in after]


def test_it_reads_the_words_with_each_reference_or_alone(engine: QueryEngine) -> None:
    encoder: Any = engine.encoder
    engine.rank(Query(words=" red ", rerank=20))
    assert encoder.seen == [(None, "red", 16), (None, "red", 4)]
    encoder.seen.clear()
    references = (Reference(photo(90)), Reference(photo(91)))
    answer = engine.rank(Query(references=references, words="red", rerank=5))
    assert encoder.seen == [(5, "red", 5)] * 2
    assert set(answer.milliseconds) == {"read_ms", "encode_ms", "search_ms", "rerank_ms"}


def test_the_logit_is_the_mean_of_those_of_the_references_by_their_weights(engine: QueryEngine) -> None:
    class ByReference(Matcher):
        """The logit is what stands in the sentence."""

        def match(self, sentences: Vectors | None, texts: Sequence[str], patches: Vectors) -> Vectors:
            assert sentences is not None
            return sentences[:, 0, 0]

    sentences = [np.full((1, FakeEncoder.width), value, np.float32) for value in (1.0, -2.0)]
    references = [
        Reference(sentence=one, weight=weight) for one, weight in zip(sentences, (3, 1), strict=True)
    ]
    queries = [
        Query(references=tuple(asked), words="red", rerank=2) for asked in (references, references[1:])
    ]
    by_reference = QueryEngine(ByReference(), engine.gallery)
    both, other = (by_reference.rank(query).results[0].match for query in queries)
    assert both == pytest.approx(1 / (1 + np.exp(-(3 * 1.0 + 1 * -2.0) / 4)))
    assert other == pytest.approx(1 / (1 + np.exp(2.0)))


def test_the_time_of_reranking_is_told_apart_from_the_search(
    engine: QueryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter(
        [0.0, 1.0, 2.0, 4.0, 10.0, 13.0, 18.0, 30.0]
    )  # read 1 s, encode 2 s, search 20 s, of which 5 s
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    answer = engine.rank(Query(words="red", rerank=5))
    assert answer.milliseconds == {
        "read_ms": 1_000,
        "encode_ms": 2_000,
        "search_ms": 15_000,
        "rerank_ms": 5_000,
    }


def test_pages_fit_together_and_duplicates_stay_hidden(engine: QueryEngine) -> None:
    options: dict[str, Any] = {"words": "red", "rerank": 10, "near_duplicates": 0.9, "diversity": 0.2}
    whole = engine.rank(Query(k=COUNT, **options)).results
    paged = [
        one
        for offset in range(0, COUNT, 4)
        for one in engine.rank(Query(k=4, offset=offset, **options)).results
    ]
    assert [one.id for one in paged] == [one.id for one in whole]


def test_a_picture_whose_file_is_gone_keeps_its_place(engine: QueryEngine) -> None:
    before = engine.rank(Query(words="red", k=6)).results
    before[2].path.unlink()
    after = engine.rank(Query(words="red", k=6, rerank=6)).results
    assert after[2].id == before[2].id
    assert after[2].match is None
    assert all(one.match is not None for place, one in enumerate(after) if place != 2)


def test_a_model_without_a_matching_encoder_is_refused(engine: QueryEngine) -> None:
    encoder: Any = engine.encoder
    encoder.can_match = False
    with pytest.raises(QueryError, match="no matching encoder"):
        engine.rank(Query(words="red", rerank=5))
    with pytest.raises(QueryError, match="a ready vector does not have"):
        Query(vector=np.ones(3, np.float32), rerank=5)
