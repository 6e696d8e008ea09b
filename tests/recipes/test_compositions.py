"""Compositions without training: how they rank, what is chosen, and when the fallback is worth having."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

from image2sentence.encoders.config import FallbackConfig
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from recipes import fallback
from recipes.compositions import PHRASED, Asked, Corpus, Reader, basic, measure, table_row, ways
from recipes.fallback import Measured, choose, report, value

WIDTH = 6
AXES = np.eye(WIDTH, dtype=np.float32)


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def gallery() -> np.ndarray:
    """Things on axes 0 and 1, colours on axes 2 and 3, a background that all share on axis 5."""
    things = np.repeat(AXES[[0, 1]], 2, axis=0)
    colours = np.tile(AXES[[2, 3]], (2, 1))
    return unit(things + colours + 2 * AXES[[5] * 4])


def asked(composed: np.ndarray) -> Asked:
    """Of each of the four pictures: the same thing in the other colour."""
    pictures, words = gallery(), AXES[[3, 2, 3, 2]]
    right = [frozenset({other}) for other in (1, 0, 3, 2)]
    changed = unit(pictures + 2 * words - 2 * AXES[[2, 3, 2, 3]])  # what phrases would make of it
    by_phrases = dict.fromkeys(PHRASED, changed)
    return Asked(pictures, pictures, words, words, pictures, composed, np.arange(4), right, by_phrases)


def corpus() -> Corpus:
    return Corpus(AXES[[0, 1]], AXES[[2, 3]], ["a thing", "another"])


def test_the_reference_is_left_out_and_right_answers_count_by_place() -> None:
    scores = np.array([[9, 2, 1, 0], [1, 9, 2, 0], [0, 1, 9, 2], [0, 1, 2, 9]], np.float32)
    assert asked(gallery()).precision(scores).tolist() == [1, 0.5, 1, 1]


def test_basic_compares_pictures_without_what_all_of_them_share() -> None:
    scores = basic(asked(gallery()), corpus(), False, 2, 0.0)
    assert asked(gallery()).precision(scores).tolist() == [1, 1, 1, 1]


def test_every_way_gives_a_score_for_every_picture() -> None:
    for settings in ways().values():
        for way in settings:
            scores = way(asked(gallery()), corpus())
            assert scores.shape == (4, 4)
            assert np.isfinite(scores).all()


class _Read:
    """An encoder that knows two texts."""

    def encode_queries(self, sentences: None, texts: list[str]) -> np.ndarray:
        """n texts -> (n, 6) unit rows."""
        return AXES[[{"a thing green": 3, "another green": 4}[text] for text in texts]]


def test_phrases_are_read_with_the_words_and_keep_what_they_leave_unsaid() -> None:
    reader = Reader(cast(OnnxEncoder, _Read()), Path())
    found = reader._by_phrases(gallery()[:1], ["green"], corpus())
    assert set(found) == set(PHRASED)
    expected = unit((AXES[3] + 0.5 * (gallery()[0] - AXES[0]))[None])
    np.testing.assert_allclose(found[1, 0.5], expected, atol=1e-6)


class Recorded:
    """A reader that knows two benchmarks' vectors."""

    def asked(self, task, benchmark, most, corpus) -> Asked:  # type: ignore[no-untyped-def]
        return benchmark


class Task:
    name = "toy"

    def __init__(self, composed: np.ndarray) -> None:
        self.tuning = self.reported = asked(composed)


def test_settings_are_chosen_for_each_way_and_the_line_holds_all_of_them() -> None:
    right = gallery()[[1, 0, 3, 2]]
    found = measure(Task(right), Recorded(), corpus())  # type: ignore[arg-type]
    assert set(found) == set(ways())
    assert found["ISA"][0].tolist() == [1, 1, 1, 1]
    assert found["weighted sum"][0].mean() == 1
    line = table_row("toy", found)
    assert line.count("|") == len(found) + 5
    assert "100.0 (100.0 to 100.0)" in line


def test_a_fallback_is_chosen_where_new_words_need_it() -> None:
    """Words unlike training's are composed wrongly, and those of training rightly."""
    wrong, right = gallery()[[2, 3, 0, 1]], gallery()[[1, 0, 3, 2]]
    new, known = asked(wrong), asked(right)
    modifiers = AXES[[4]]
    assert value(new, modifiers, None) < value(new, modifiers, FallbackConfig(0.5, 0.8, 0.5)) == 100
    how = choose([Measured("new", new, new), Measured("known", known, known)], modifiers)
    assert how in fallback.GRID
    line = report(Measured("new", new, new), modifiers, how)
    assert line.startswith("| new | 4 |")
    assert " 100.0 | " in line


def test_a_fallback_leaves_words_of_training_alone() -> None:
    known, modifiers = asked(gallery()[[1, 0, 3, 2]]), AXES[[2, 3]]
    assert value(known, modifiers, FallbackConfig()) == value(known, modifiers, None) == 100
