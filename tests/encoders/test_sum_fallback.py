"""The fallback to the weighted sum: whom it changes, by how much, and how a damaged one is refused."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image2sentence.catalogue import draw, sample
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import FallbackConfig
from image2sentence.encoders.guide_files import add_fallback, hand_on_guide
from image2sentence.encoders.model_folder import CONFIG, FALLBACK, ModelFolder, file_checksum
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.sum_fallback import SumFallback
from image2sentence.errors import ConfigError, DataError, ModelError

AXES = np.eye(4, dtype=np.float32)
SETTINGS = FallbackConfig(low=0.5, high=0.9, weight=0.25)


def toward(first: float) -> Any:
    """(4,) unit row with this first value; the rest of its length lies on the fourth axis."""
    return np.array([first, 0, 0, np.sqrt(1 - first**2)], np.float32)


def unit(row: Any) -> Any:
    return row / np.linalg.norm(row)


def test_the_nearest_modifier_of_training_decides_the_trust() -> None:
    fallback = SumFallback(AXES[:2] * 100, SETTINGS)
    words = np.stack([toward(0.3), toward(0.7), toward(0.95), AXES[1]])
    assert fallback.trust(words).tolist() == pytest.approx([0, 0.5, 1, 1], abs=1e-6)


def test_only_words_unlike_those_of_training_are_changed() -> None:
    fallback = SumFallback(AXES[:1], SETTINGS)
    words, composed = np.stack([toward(0.3), toward(0.7), AXES[0]]), np.tile(AXES[1], (3, 1))
    asked: list[list[int]] = []

    def sentences(rows: Any) -> Any:
        asked.append(rows.tolist())
        return np.tile(AXES[2], (len(rows), 1))

    found = fallback.apply(composed, words, sentences)
    assert asked == [[0, 1]]  # no more is read than is needed
    sums = [unit(0.75 * AXES[2] + 0.25 * row) for row in words]
    assert found[0] == pytest.approx(sums[0], abs=1e-6)
    assert found[1] == pytest.approx(unit(0.5 * sums[1] + 0.5 * AXES[1]), abs=1e-6)
    assert np.array_equal(found[2], composed[2])


def test_settings_that_mean_nothing_are_refused() -> None:
    for low, high, weight in ((0.8, 0.8, 0.4), (0.5, 1.1, 0.4), (0.5, 0.8, 1.1), (0.5, 0.8, -0.1)):
        with pytest.raises(ConfigError):
            FallbackConfig(low, high, weight)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """The bundled model, as if trained with two modifiers, and without guiding phrases."""
    out = tmp_path_factory.mktemp("models") / "fallback"
    add_fallback(load_encoder(), ["in red", "in blue"], FallbackConfig(0.5, 0.95, 0.4), out)
    return load_encoder(out).unguided()


@pytest.fixture(scope="module")
def plain(model: OnnxEncoder) -> OnnxEncoder:
    """The same without the fallback."""
    return OnnxEncoder(ModelFolder(model.folder.path, replace(model.config, fallback=None)), guided=False)


def sentence_of(encoder: OnnxEncoder) -> Any:
    return encoder.encode_sentences([draw(sample(random.Random(3)), 128)])


def test_the_runtime_follows_the_formula(model: OnnxEncoder, plain: OnnxEncoder) -> None:
    sentence, text = sentence_of(model), "with long sleeves"
    composed = plain.encode_queries(sentence, [text])
    words, alone = plain.encode_queries(None, [text]), plain.encode_queries(sentence, [""])
    nearest = (words @ plain.encode_queries(None, ["in red", "in blue"]).T).max()
    assert nearest < 0.9
    trust = min(1, max(0, (nearest - 0.5) / 0.45))
    expected = unit((1 - trust) * unit(0.6 * alone + 0.4 * words) + trust * composed)
    found = model.encode_queries(sentence, [text])
    assert found == pytest.approx(expected, abs=5e-3)  # the modifiers' vectors are int8
    assert np.abs(found - composed).max() > 0.01
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_known_words_words_alone_and_pictures_alone_stay_as_they_are(
    model: OnnxEncoder, plain: OnnxEncoder
) -> None:
    sentence = sentence_of(model)
    for sentences, text in ((sentence, "in red"), (sentence, ""), (None, "with long sleeves")):
        found, before = (one.encode_queries(sentences, [text]) for one in (model, plain))
        assert np.array_equal(found, before)


def test_it_belongs_to_the_query_side_and_goes_along(model: OnnxEncoder, tmp_path: Path) -> None:
    before = load_encoder().config
    assert model.fingerprint == before.fingerprint
    assert model.config.query_fingerprint != before.query_fingerprint
    add_fallback(load_encoder(), ["in green"], FallbackConfig(), tmp_path / "other")
    hand_on_guide(model.folder, ModelFolder.open(tmp_path / "other"))
    again = ModelFolder.open(tmp_path / "other")
    assert again.config.fallback == model.config.fallback
    assert again.read(FALLBACK) == model.folder.read(FALLBACK)


@pytest.mark.parametrize(
    "rows", [np.ones((2, 3), np.int8), np.ones((2, 256), np.float32), np.zeros((1, 256), np.int8)]
)
def test_a_table_that_does_not_fit_is_refused(model: OnnxEncoder, rows: Any, tmp_path: Path) -> None:
    add_fallback(model, ["in red"], FallbackConfig(), tmp_path / "m")
    np.save(tmp_path / "m" / FALLBACK, rows)
    config = json.loads((tmp_path / "m" / CONFIG).read_text())
    config["files"][FALLBACK] = file_checksum(tmp_path / "m" / FALLBACK)
    del config["checksum"]
    (tmp_path / "m" / CONFIG).write_text(json.dumps(config))
    encoder = load_encoder(tmp_path / "m")
    with pytest.raises(ModelError, match="vectors"):
        encoder.encode_queries(sentence_of(encoder), ["in red"])


def test_no_modifiers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="modifiers"):
        add_fallback(load_encoder(), [], FallbackConfig(), tmp_path / "m")
