"""Hard negatives, single modalities and wordings, counted by hand on a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2sentence.errors import DataError
from image2sentence.evaluation.audit import WORDINGS, audit_attributes
from image2sentence.evaluation.datasets.attributes import (
    attribute_queries,
    hard_negatives,
    load_catalogue,
    similar_references,
)
from image2sentence.evaluation.evaluate import COMPOSED, evaluate
from image2sentence.images import load_image

TYPES = ("bag", "cap")
COLOURS = ("red", "blue", "green")
WORDS = (*TYPES, *COLOURS)
PICTURES = [
    ("1.png", "bag", "red"),
    ("2.png", "bag", "blue"),
    ("3.png", "bag", "green"),
    ("4.png", "cap", "red"),
    ("5.png", "cap", "blue"),
]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def seen(image: Image.Image) -> np.ndarray:
    kind, colour, _ = image.getpixel((0, 0))
    vector = np.zeros(len(WORDS), np.float32)
    vector[[kind, len(TYPES) + colour]] = 1
    return vector


class WordEncoder:
    """One dimension per word; it obeys only modifiers that begin with one of `understood`."""

    fingerprint, width = "words", len(WORDS)

    def __init__(self, understood: Sequence[str] = ("",)) -> None:
        self.understood = tuple(understood)
        self.images = 0
        self.sentences = 0

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.images += len(images)
        return unit(np.stack([seen(image) for image in images]))

    def encode_sentences(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.sentences += len(images)
        return np.stack([seen(image) for image in images])[:, None]

    def encode_queries(self, sentences: np.ndarray | None, texts: Sequence[str]) -> np.ndarray:
        asked = np.array([[float(w in text.split()) for w in WORDS] for text in texts], np.float32) + 1e-3
        if sentences is None:
            return unit(asked)
        shown = sentences[:, 0].copy()
        for row, text in enumerate(texts):
            if text.startswith(self.understood):
                shown[row, len(TYPES) :] = asked[row, len(TYPES) :]
        return unit(shown)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file, kind, colour in PICTURES:
        Image.new("RGB", (8, 8), (TYPES.index(kind), COLOURS.index(colour), 0)).save(tmp_path / file)
    lines = ["file,type,colour", *(",".join(row) for row in PICTURES)]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def audited(folder: Path, composer: WordEncoder):
    catalogue = load_catalogue(folder)
    encoder = WordEncoder()
    benchmark = attribute_queries(catalogue, "colour", "type", queries_per_image=2)

    def open_image(name: str) -> Image.Image:
        return load_image(catalogue.path(name))

    evaluation = evaluate(benchmark, encoder, open_image, composers={COMPOSED: composer})
    before = encoder.images
    audit = audit_attributes(evaluation, catalogue, encoder, open_image, {COMPOSED: composer})
    assert encoder.images == before, "the gallery is not encoded again"
    return audit, benchmark, catalogue


def test_hard_negatives_keep_everything_and_lack_the_change(folder):
    catalogue = load_catalogue(folder)
    benchmark = attribute_queries(catalogue, "colour", "type", queries_per_image=2)
    found = dict(
        zip((query.id for query in benchmark.queries), hard_negatives(catalogue, benchmark), strict=True)
    )
    assert found["1.png|colour=blue"] == ("3.png",)
    assert found["1.png|colour=green"] == ("2.png",)
    assert found["4.png|colour=blue"] == ()
    assert len(found) == 8


def test_a_row_that_obeys_has_no_hard_negative_above_and_one_that_ignores_words_often(folder):
    audit, *_ = audited(folder, WordEncoder())
    assert (audit.queries, audit.hard_negative_queries) == (8, 6)
    assert audit.hard_negatives[COMPOSED].mean == 0
    assert audit.hard_negatives["image only"].mean == 0, "both are equally far: none stands above"
    assert audit.hard_negatives["text only"].mean == 0

    class Wrong(WordEncoder):
        def encode_queries(self, sentences, texts):
            """Takes the colour after the one that is asked for."""
            rows = super().encode_queries(sentences, texts)
            rows[:, len(TYPES) :] = np.roll(rows[:, len(TYPES) :], 1, axis=1)
            return rows

    rate = audited(folder, Wrong())[0].hard_negatives[COMPOSED]
    assert rate.mean == pytest.approx(100 * 3 / 6)
    assert rate.low <= rate.mean <= rate.high


def test_single_modalities_are_counted_apart_and_together(folder):
    audit, *_ = audited(folder, WordEncoder())
    one = audit.single[1]
    assert max(one["image"].mean, one["text"].mean) <= one["either"].mean <= 100
    # Words alone rank the bag of a colour first, in gallery order: right for the six queries of bags.
    assert one["text"].mean == pytest.approx(100 * 6 / 8)
    assert audit.single[10]["either"].mean == 100


def test_six_wordings_of_one_change_have_mean_worst_and_best(folder):
    same, *_ = audited(folder, WordEncoder())
    assert same.wordings[COMPOSED].mean.mean == 100
    assert same.wordings[COMPOSED].changing.mean == 0
    some = WordEncoder(understood=("in ", "but "))
    audit, *_ = audited(folder, some)
    figures = audit.wordings[COMPOSED]
    assert figures.best == 100
    assert figures.best_wording == "{m}"
    assert figures.worst < 100
    assert figures.worst_wording == "the same, {m}"
    assert figures.changing.mean == pytest.approx(100 - figures.worst)
    expected = (2 * 100 + 4 * figures.worst) / 6
    assert figures.mean.mean == pytest.approx(expected)
    assert some.sentences == 2 * 5, "sentences are encoded once for the table and once for all wordings"
    assert len(WORDINGS) == 6


class Misreading(WordEncoder):
    """Takes a picture with a blue pixel for the other type, on the query side."""

    def encode_sentences(self, images):
        rows = super().encode_sentences(images)
        for row, image in zip(rows, images, strict=True):
            if image.getpixel((0, 0))[2]:
                row[0, : len(TYPES)] = row[0, : len(TYPES)][::-1]
        return rows


def test_several_references_make_up_for_one_that_is_misread(tmp_path):
    pictures = [
        ("bag", "red", 255),
        ("bag", "red", 0),
        ("bag", "red", 0),
        ("bag", "blue", 0),
        ("cap", "blue", 0),
    ]
    lines = ["file,type,colour"]
    for number, (kind, colour, odd) in enumerate(pictures):
        colours = (TYPES.index(kind), COLOURS.index(colour), odd)
        Image.new("RGB", (8, 8), colours).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{kind},{colour}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    audit, benchmark, catalogue = audited(tmp_path, Misreading())
    alike = similar_references(catalogue, benchmark, 2)
    found = {query.reference: set(own) for query, own in zip(benchmark.queries, alike, strict=True)}
    assert found["0.png"] == {"1.png", "2.png"}
    assert found["3.png"] == set()
    assert audit.references_queries == 3
    figures = audit.references[COMPOSED]
    assert figures[1].mean == pytest.approx(100 * 2 / 3)
    assert figures[3].mean == 100
    assert (
        "asked with several references, recall@1 (3 queries have 3 pictures of the same values)"
        in audit.as_text()
    )
    assert audit.as_dict()["references"][COMPOSED][3]["mean"] == 100


def test_labels_without_alike_pictures_have_no_figures_of_several_references(folder):
    audit, *_ = audited(folder, WordEncoder())
    assert audit.references == {}
    assert "several references" not in audit.as_text()


def test_the_audit_is_text_and_json(folder):
    audit, *_ = audited(folder, WordEncoder())
    text = audit.as_text()
    assert "(6 of 8 queries have one)" in text
    assert "recall@10: image" in text
    assert "the same changes in 6 wordings, recall@1" in text
    document = audit.as_dict()
    assert document["hard_negatives"][COMPOSED]["mean"] == 0
    assert document["single"]["recall@1"]["either"]["low"] <= 100
    assert document["wordings"][COMPOSED]["mean"]["high"] == 100


def test_an_evaluation_without_vectors_is_refused(folder):
    from dataclasses import replace

    catalogue = load_catalogue(folder)
    benchmark = attribute_queries(catalogue, "colour", "type")

    def open_image(name: str) -> Image.Image:
        return load_image(catalogue.path(name))

    evaluation = replace(evaluate(benchmark, WordEncoder(), open_image), searcher=None)
    with pytest.raises(DataError, match="with its vectors"):
        audit_attributes(evaluation, catalogue, WordEncoder(), open_image, {})
