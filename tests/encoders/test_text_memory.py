"""What a text encoder remembers: that it is encoded once, and that no answer depends on what was asked before."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from image2sentence.catalogue import draw, sample
from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.encoders.protocols import SupportsMemory, Vectors
from image2sentence.encoders.text_memory import TextMemory

WORDS = ["in red", "with stripes", "for women", "as a mug on a white background"]


@pytest.fixture(scope="module")
def sentences() -> Vectors:
    rng = random.Random(3)
    pictures = [draw(sample(rng), 128) for _ in WORDS]
    return load_encoder(threads=1).encode_sentences(pictures)


def remembering(limit: int = 64) -> OnnxEncoder:
    encoder = load_encoder(threads=1)
    assert isinstance(encoder, SupportsMemory)
    encoder.remember_texts(limit)
    return encoder


def test_a_query_gets_the_same_vector_whatever_was_asked_before(sentences: Vectors) -> None:
    plain, encoder = load_encoder(threads=1), remembering()
    encoder.encode_queries(sentences, WORDS)  # together: an int8 graph reads them otherwise than alone
    for _ in range(2):
        for row, words in enumerate(WORDS):
            alone = sentences[row : row + 1]
            for asked in ((alone, [words]), (None, [words])):
                assert np.array_equal(encoder.encode_queries(*asked), plain.encode_queries(*asked))


def test_what_comes_again_is_not_encoded_again(sentences: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = remembering()
    asked: list[int] = []
    encode = encoder._encode_ids

    def counted(some: Vectors, ids: Sequence[Sequence[int]]) -> Any:
        asked.append(len(ids))
        return encode(some, ids)

    monkeypatch.setattr(encoder, "_encode_ids", counted)
    encoder.encode_queries(sentences[:1], ["in red"])
    first = len(asked)
    encoder.encode_queries(sentences[:1], ["in red"])
    assert len(asked) == first + 1  # the two together, which no other query has
    encoder.encode_queries(None, ["in red"])
    assert len(asked) <= first + 2


def test_no_more_is_kept_than_was_allowed_and_what_is_given_is_not_shared() -> None:
    encoded: list[tuple[int, ...]] = []

    def encode(sentences: Vectors, ids: Sequence[Sequence[int]]) -> Vectors:
        encoded.extend(tuple(one) for one in ids)
        return np.full((len(ids), 2), float(sum(ids[0])), np.float32)

    memory, nothing = TextMemory(2), np.empty((3, 0, 2), np.float32)
    found = memory.vectors(nothing, [[1], [2], [3]], encode)
    assert found[:, 0].tolist() == [1, 2, 3]
    found[:] = 9
    assert memory.vectors(nothing[:2], [[2], [3]], encode)[:, 0].tolist() == [2, 3]
    assert encoded == [(1,), (2,), (3,)]
    memory.vectors(nothing[:1], [[1]], encode)
    assert encoded[3:] == [(1,)]


def test_sentences_of_the_same_words_are_told_apart() -> None:
    memory = TextMemory(9)
    sentences = np.stack([np.zeros((2, 3)), np.ones((2, 3))]).astype(np.float32)
    found = memory.vectors(sentences, [[5], [5]], lambda some, ids: some[:, 0])
    assert found[:, 0].tolist() == [0, 1]
