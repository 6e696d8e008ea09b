"""Negation in words is noticed, and what is not wanted is named."""

from __future__ import annotations

import time

import pytest

from image2sentence.query.hints import MAX_HINTS, negation_hints


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        ("a dress that is not red", ["red"]),
        ("without sleeves", ["sleeves"]),
        ("no logo", ["logo"]),
        ("No logo, please", ["logo"]),
        ("a shirt with no buttons and without a collar", ["buttons", "collar"]),
        ("a dress that isn't red", ["red"]),
        ("a dress that isn\N{RIGHT SINGLE QUOTATION MARK}t very long", ["very long"]),
        ("everything except dark blue jeans", ["dark blue jeans"]),
        ("in blue instead of red", ["red"]),
        ("does not have any stripes", ["stripes"]),
        ("a non-red dress", ["red"]),
        ("anything but red", ["red"]),
        ("a dress minus the belt", ["belt"]),
        ("neither red nor blue", ["red", "blue"]),
        ("hardly any stripes, never dots", ["stripes", "dots"]),
        ("a dress -red !blue", ["red", "blue"]),
        ("not only red, not too long, no. 5", []),
        ("a t-shirt, semi-formal - red", []),
        ("a red dress", []),
        ("a knot, notes and a notebook", []),
        ("a northern norwegian sweater", []),
        ("a shirt without étoiles", ["étoiles"]),
        ("sleeveless", []),
        ("not", []),
        ("", []),
    ],
)
def test_negations_are_found(words: str, unwanted: list[str]) -> None:
    assert [hint.unwanted for hint in negation_hints(words)] == unwanted


def test_long_texts_take_no_time() -> None:
    start = time.perf_counter()
    assert len(negation_hints("not red " * 100_000)) == MAX_HINTS
    negation_hints("not " + "in " * 100_000)
    negation_hints("not a" + " a" * 100_000)
    assert time.perf_counter() - start < 2
