"""What a picture's sentence reads as: phrases that are near, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient
from PIL import Image

from fakes import FakeEncoder
from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.gallery import Gallery
from image2sentence.images import load_image
from image2sentence.indexing import index_pictures
from image2sentence.server.app import create_app
from image2sentence.server.sentence_phrases import MIN_FALL, SentencePhrases
from image2sentence.server.service import SearchService

DRAWN = 40
KINDS = {"sweater": "jumper", "pillow": "cushion", "cup": "mug", "handbag": "bag", "coat": "jacket"}


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return load_encoder(threads=1)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[str, Image.Image]]]:
    """Titles and pictures of drawn products."""
    import csv

    folder = write_catalogue(tmp_path_factory.mktemp("drawn"), DRAWN, 9)
    with (folder / "attributes.csv").open(encoding="utf-8") as file:
        yield [(row["title"], load_image(folder / row["file"])) for row in csv.DictReader(file)]


def test_phrases_name_what_a_picture_shows(
    encoder: OnnxEncoder, drawn: list[tuple[str, Image.Image]]
) -> None:
    phrases = SentencePhrases(encoder)
    readings = [(title, phrases.read(encoder.encode_sentences([image]))) for title, image in drawn]
    shown = [(title, reading.phrases) for title, reading in readings if reading.phrases]
    assert len(shown) >= DRAWN / 8
    right = 0
    for title, found in shown:
        thing = found[0].word.split()[-1].rstrip("s")
        right += KINDS.get(thing, thing) in title
        assert [one.nearness for one in found] == sorted((one.nearness for one in found), reverse=True)
    assert right >= 0.6 * len(shown), [(title, [one.word for one in found]) for title, found in shown]


def test_what_is_added_is_part_of_what_is_read(
    encoder: OnnxEncoder, drawn: list[tuple[str, Image.Image]]
) -> None:
    phrases = SentencePhrases(encoder)
    for _, image in drawn:
        sentence = encoder.encode_sentences([image])
        reading = phrases.read(sentence)
        said = {word for one in reading.phrases for word in one.word.split()}
        assert len(reading.added) == sentence.shape[1]
        for added in reading.added:
            assert {one.word for one in added} <= said
            assert all(one.nearness >= MIN_FALL for one in added)


def test_noise_reads_as_nothing(encoder: OnnxEncoder) -> None:
    phrases = SentencePhrases(encoder)
    scale = encoder.encode_sentences([Image.new("RGB", (64, 64), "grey")]).std()
    draws = np.random.default_rng(0).normal(
        0, scale, (12, 1, 4, encoder.encode_sentences([Image.new("RGB", (9, 9))]).shape[2])
    )
    readings = [phrases.read(one.astype(np.float32)) for one in draws]
    assert sum(bool(one.phrases) for one in readings) <= 3
    assert phrases.read(np.ones((1, 1, draws.shape[3]), np.float32)).added == [[]]


def test_an_encoder_without_a_vocabulary_reads_nothing() -> None:
    reading = SentencePhrases(FakeEncoder()).read(np.zeros((1, 2, 49), np.float32))
    assert (reading.phrases, reading.added) == ([], [[], []])


def test_the_server_tells_what_a_sentence_reads_as(encoder: OnnxEncoder, tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "drawn", 6, 9)
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(folder, gallery, encoder)
        with TestClient(create_app(SearchService(encoder, gallery))) as client:
            answers = [
                client.post("/v1/sentence", json={"item": picture.id}).json()
                for picture in gallery.pictures("ready")
            ]
    expected = SentencePhrases(encoder)
    assert len(answers) == 6
    for answer in answers:
        assert all(set(one) == {"word", "nearness"} for one in answer["reads_as"])
        assert all("adds" in one for one in answer["pseudo_words"])
    first = expected.read(encoder.encode_sentences([load_image(sorted(folder.rglob("*.jpg"))[0])]))
    assert [one["word"] for one in answers[0]["reads_as"]] == [one.word for one in first.phrases]
