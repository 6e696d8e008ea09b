"""The plan of a query vector, and the vector that it makes, against the formula."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import QueryError
from image2sentence.query.composition import TextInput, embed_composition, plan_composition
from tests.fakes import WIDTH, FakeEncoder

SENTENCES = list(np.random.default_rng(2).normal(size=(2, 1, WIDTH)).astype(np.float32))


class Counting(FakeEncoder):
    """The fake encoder; keeps what its text encoder was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[list[str]] = []

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        self.texts.append(list(texts))
        return super().encode_queries(sentences, texts)


def unit(vector: Vectors) -> Vectors:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def embedded(words: str, balance: float, weights: Sequence[float] = (1.0, 3.0)) -> Vectors:
    plan = plan_composition(SENTENCES, weights, words, balance)
    return embed_composition(FakeEncoder(), [plan])[0]


def weighted(words: str) -> Vectors:
    """The composed vectors of both sentences, the second counting three times."""
    one, other = FakeEncoder().encode_queries(np.stack(SENTENCES), [words, words])
    return unit(one + 3 * other)


@pytest.mark.parametrize("balance", [0.0, 0.1, 0.25, 0.5, 0.6, 0.75, 1.0])
def test_the_vector_is_that_of_the_documented_shares(balance: float) -> None:
    pictures, composed = weighted(""), weighted("red")
    text = FakeEncoder().encode_queries(None, ["red"])[0]
    if balance <= 0.5:
        expected = (1 - 2 * balance) * pictures + 2 * balance * composed
    else:
        expected = (2 - 2 * balance) * composed + (2 * balance - 1) * text
    found = embedded(" red ", balance)
    assert found.shape == (1, WIDTH)
    np.testing.assert_allclose(found[0], unit(expected), atol=1e-6)


@pytest.mark.parametrize("balance", [0.0, 0.2, 0.5, 0.9])
def test_of_one_kind_alone_the_balance_says_nothing(balance: float) -> None:
    np.testing.assert_allclose(embedded(" \n", balance)[0], weighted(""), atol=1e-6)
    (only,) = plan_composition([], [], " red", balance)
    assert only == (1.0, (TextInput(None, "red"),), (1.0,))


def test_parts_without_a_share_are_not_encoded() -> None:
    parts = [plan_composition(SENTENCES, (1, 1), "red", balance) for balance in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert [[part.share for part in one] for one in parts] == [[1], [0.5, 0.5], [1], [0.5, 0.5], [1]]
    assert [{text.words for part in one for text in part.inputs} for one in parts] == [
        {""},
        {"red", ""},
        {"red"},
        {"red"},
        {"red"},
    ]


def test_queries_of_one_batch_are_encoded_in_one_call_for_each_length() -> None:
    encoder = Counting()
    plans = [plan_composition(SENTENCES, (1, 1), word, 0.5) for word in ("red", "blue")]
    plans.append(plan_composition([], [], "lime", 0.5))
    vectors = embed_composition(encoder, plans)
    assert encoder.texts == [["red", "red", "blue", "blue"], ["lime"]]
    for plan, vector in zip(plans, vectors, strict=True):
        np.testing.assert_allclose(vector, embed_composition(FakeEncoder(), [plan])[0], atol=1e-6)


def test_pictures_that_nearly_cancel_out_are_refused() -> None:
    class Opposite(FakeEncoder):
        """The rows lie opposite of each other but for a little: their mean has half of it as its length."""

        width = 2
        little = 0.0

        def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
            return np.array([[1, 0], [-1, self.little]], np.float32)

    encoder = Opposite()
    plan = plan_composition(SENTENCES, (1, 1), "", 0.5)
    for encoder.little in (0.0, 0.00019):
        with pytest.raises(QueryError, match="nothing in common"):
            embed_composition(encoder, [plan])
    encoder.little = 0.00021
    np.testing.assert_allclose(embed_composition(encoder, [plan])[0], [[0, 1]], atol=1e-6)
