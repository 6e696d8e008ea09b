"""Guiding phrases: how they change a query vector, and how a damaged guide is refused."""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from image2sentence.catalogue import draw, sample
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import GuideConfig
from image2sentence.encoders.guide_files import (
    HIGH_QUANTILE,
    LOW_QUANTILE,
    add_guide,
    calibrate_trust,
    read_phrases,
)
from image2sentence.encoders.model_folder import CONFIG, ModelFolder
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.phrase_guide import PHRASES, VECTORS, Guide
from image2sentence.encoders.vector_table import read_vector_table
from image2sentence.errors import ConfigError, DataError, ModelError, QueryError

AXES = np.eye(4, dtype=np.float32)
SETTINGS = GuideConfig(neighbours=2, temperature=0.1, low=0.5, high=0.9, residual=0.0)


def toward(first: float, second: float) -> Any:
    """(1, 4) unit row with these first two values; the rest of its length lies on the fourth axis."""
    return np.array([[first, second, 0, np.sqrt(1 - first**2 - second**2)]], np.float32)


def test_the_nearest_phrases_are_weighed_and_trusted_by_their_similarity() -> None:
    guide = Guide(["a", "b", "c"], AXES[:3] * 100, SETTINGS)
    near = guide.near(toward(0.7, 0.6))
    assert near.phrases.tolist() == [[0, 1]]
    assert near.weights[0] == pytest.approx([1 / (1 + np.exp(-1)), 1 - 1 / (1 + np.exp(-1))], abs=1e-5)
    assert near.trust[0] == pytest.approx(0.5)
    assert guide.near(toward(0.4, 0.3)).trust[0] == 0
    assert guide.near(toward(0.95, 0.1)).trust[0] == 1


def test_a_query_lies_between_sentence_and_phrases() -> None:
    guide = Guide(["a", "b", "c"], AXES[:3], SETTINGS)
    asked = []

    def speak(texts: Any) -> Any:
        asked.extend(texts)
        return np.tile(AXES[2], (len(texts), 1))

    sentence_vectors = np.concatenate([toward(0.7, 0.6), toward(0.4, 0.3), toward(0.95, 0.1)])
    plain = np.tile(AXES[3], (3, 1))
    result = guide.apply(plain, sentence_vectors, ["in red", "in blue", "in green"], speak)
    assert asked == ["a in red", "b in red", "a in green", "b in green"]
    assert result == pytest.approx(np.array([[0, 0, 0.5, 0.5], [0, 0, 0, 1], [0, 0, 1, 0]]), abs=1e-5)


def test_what_a_phrase_leaves_unsaid_is_kept() -> None:
    guide = Guide(["a"], AXES[:1], GuideConfig(1, 0.1, -0.5, 0.5, residual=0.5))
    sentence_vectors = toward(0.6, 0.0)
    words = AXES[1] + 0.5 * (sentence_vectors[0] - AXES[0])
    result = guide.apply(AXES[3:], sentence_vectors, ["in red"], lambda texts: AXES[1:2])
    assert result[0] == pytest.approx(words / np.linalg.norm(words), abs=1e-5)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """The bundled model with three phrases, trusted from the first."""
    out = tmp_path_factory.mktemp("models") / "guided"
    phrases = ["a red plain mug", "a navy striped shirt", "a green dotted dress"]
    add_guide(load_encoder().unguided(), phrases, GuideConfig(2, 0.05, -0.9, -0.8), out)
    return load_encoder(out)


def sentence_of(encoder: OnnxEncoder) -> Any:
    return encoder.encode_sentences([draw(sample(random.Random(3)), 128)])


def test_the_runtime_follows_the_formula(guided: OnnxEncoder) -> None:
    plain = guided.unguided()
    assert guided.is_guided
    assert not plain.is_guided
    sentence = sentence_of(guided)
    sentence_vectors = plain.encode_queries(sentence, [""])
    phrases = read_phrases(guided.folder.path / PHRASES)
    scores = plain.encode_queries(None, phrases) @ sentence_vectors[0]
    best = np.argsort(-scores)[:2]
    weights = np.exp(scores[best] / 0.05)
    said = plain.encode_queries(None, [f"{phrases[i]} in yellow" for i in best])
    unsaid = sentence_vectors - plain.encode_queries(None, [phrases[i] for i in best])
    expected = (weights / weights.sum()) @ (said + 0.3 * unsaid)
    query = guided.encode_queries(sentence, ["in yellow"])[0]
    assert query == pytest.approx(
        expected / np.linalg.norm(expected), abs=5e-3
    )  # the phrases' vectors are int8
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-5)


def test_guides_are_heard_only_where_a_sentence_meets_words(guided: OnnxEncoder) -> None:
    plain, sentence = guided.unguided(), sentence_of(guided)
    long = "in red and " * (guided.config.max_length // 5)
    for sentences, texts in ((None, ["in red"]), (sentence, [""]), (sentence, [long])):
        assert np.array_equal(guided.encode_queries(sentences, texts), plain.encode_queries(sentences, texts))
    both = guided.encode_queries(np.concatenate([sentence, sentence]), ["", "in red"])
    assert both[0] == pytest.approx(plain.encode_queries(sentence, [""])[0], abs=1e-5)
    assert both[1] == pytest.approx(guided.encode_queries(sentence, ["in red"])[0], abs=1e-5)
    assert np.abs(both[1] - plain.encode_queries(sentence, ["in red"])[0]).max() > 0.01


def test_a_guide_changes_the_query_side_and_not_the_galleries(guided: OnnxEncoder) -> None:
    before = load_encoder().unguided().config
    assert guided.fingerprint == before.fingerprint
    assert guided.config.query_fingerprint != before.query_fingerprint


def test_a_guide_may_be_put_into_the_models_own_folder(guided: OnnxEncoder, tmp_path: Path) -> None:
    shutil.copytree(guided.folder.path, tmp_path / "m")
    (tmp_path / "phrases").write_text("a red  mug\n\na red mug\na blue mug\n", encoding="utf-8")
    command = [
        "guide",
        str(tmp_path / "phrases"),
        "--model",
        str(tmp_path / "m"),
        "--out",
        str(tmp_path / "m"),
    ]
    result = CliRunner().invoke(cli, [*command, "--neighbours", "1"])
    assert result.exit_code == 0, result.output
    assert "2 guiding phrases" in result.output
    assert (tmp_path / "m" / PHRASES).read_text(encoding="utf-8") == "a red mug\na blue mug\n"
    encoder = load_encoder(tmp_path / "m")
    assert encoder.config.guide == GuideConfig(1, 0.05, 0.6, 0.8)
    assert encoder.encode_queries(sentence_of(encoder), ["in red"]).shape == (1, encoder.width)
    assert not list(tmp_path.glob(".m*"))


def write(folder: Path, name: str, content: bytes) -> None:
    """Another content for a file of a model folder, listed as what it is."""
    (folder / name).write_bytes(content)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["files"][name] = hashlib.sha256(content).hexdigest()
    config.pop("checksum", None)
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")


def table(values: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=values.dtype == object)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (b"no table", "not a table"),
        (table(np.ones((3, 256), np.int8))[:200], "not a table"),
        (table(np.array([{}], object)), "not a table"),
        (table(np.ones((3, 256), np.float32)), "of int8"),
        (table(np.ones((2, 256), np.int8)), r"\(2, 256\)"),
        (table(np.zeros((3, 256), np.int8)), "zeros"),
    ],
)
def test_a_damaged_guide_is_refused(
    guided: OnnxEncoder, tmp_path: Path, vectors: bytes, message: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(guided.folder.path, folder)
    write(folder, VECTORS, vectors)
    with pytest.raises(ModelError, match=message):
        Guide.read(ModelFolder.open(folder))
    (folder / VECTORS).write_bytes(b"changed")
    with pytest.raises(ModelError, match="damaged"):
        Guide.read(ModelFolder.open(folder))


@pytest.mark.parametrize("content", ["precious", '{"model_type": "blip"}'])
def test_a_folder_that_holds_something_else_is_left_alone(
    guided: OnnxEncoder, tmp_path: Path, content: str
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.json").write_text(content)
    (tmp_path / "phrases").write_text("a red mug\n")
    args = ["guide", str(tmp_path / "phrases"), "--model", str(guided.folder.path), "--out"]
    result = CliRunner().invoke(cli, [*args, str(tmp_path / "home")])
    assert (result.exit_code, "no model folder: choose a new folder" in result.output) == (1, True)
    assert (tmp_path / "home" / "config.json").read_text() == content
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(cli, [*args, str(tmp_path / "empty")]).exit_code == 0


def test_phrases_that_cannot_be_used_are_refused(guided: OnnxEncoder, tmp_path: Path) -> None:
    for content in (b"", b"\n \n", b"\xff\xfe\x00"):
        (tmp_path / "phrases").write_bytes(content)
        with pytest.raises(DataError, match="phrases"):
            read_phrases(tmp_path / "phrases")
    with pytest.raises(QueryError, match="half of what the model reads"):
        add_guide(guided, ["red " * 60], GuideConfig(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_model_that_was_there(
    guided: OnnxEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(guided.folder.path, folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ModelError, match="No space left"):
        add_guide(load_encoder(folder), ["a red mug"], GuideConfig(), folder)
    assert load_encoder(folder).config == guided.config
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_settings_that_mean_nothing_are_refused() -> None:
    good = GuideConfig()
    for change in (
        {"neighbours": 0},
        {"temperature": 0.0},
        {"residual": -0.1},
        {"low": 0.8, "high": 0.8},
        {"high": 1.5},
    ):
        with pytest.raises(ConfigError):
            replace(good, **change)  # type: ignore[arg-type]


def test_thresholds_are_calibrated_by_quantiles_of_ones_own_pictures(
    guided: OnnxEncoder, tmp_path: Path
) -> None:
    plain = guided.unguided()
    phrases = ["a red shirt", "a blue mug", "a green dress", "a yellow sofa"]
    images = [draw(sample(random.Random(seed)), 64) for seed in range(40)]
    settings = calibrate_trust(plain, phrases, images, GuideConfig(2, 0.1, -0.9, -0.8, 0.4))
    sentences = plain.encode_queries(plain.encode_sentences(images), [""] * 40)
    nearest = (sentences @ plain.encode_queries(None, phrases).T).max(axis=1)
    expected = np.quantile(nearest, [LOW_QUANTILE, HIGH_QUANTILE])
    assert [settings.low, settings.high] == pytest.approx(expected, abs=0.01)
    assert (settings.neighbours, settings.temperature, settings.residual) == (2, 0.1, 0.4)
    with pytest.raises(DataError, match="at least 20 pictures to calibrate with, got 7"):
        calibrate_trust(plain, phrases, images[:7], settings)
    with pytest.raises(DataError, match="equally near"):
        calibrate_trust(plain, phrases, images[:1] * 20, settings)


def test_guide_calibrates_from_a_folder_and_names_what_it_leaves_out(
    guided: OnnxEncoder, tmp_path: Path
) -> None:
    (tmp_path / "phrases.txt").write_text("a red shirt\na blue mug\n")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(25):
        draw(sample(random.Random(seed)), 64).save(pictures / f"{seed}.png")
    (pictures / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    args = ["guide", str(tmp_path / "phrases.txt"), "--model", str(guided.folder.path), "--out", str(out)]
    result = CliRunner().invoke(cli, [*args, "--calibrate", str(pictures)])
    assert result.exit_code == 0, result.output
    assert "broken.png" in result.stderr
    config = json.loads((out / CONFIG).read_text())["guide"]
    assert -1 < config["low"] < config["high"] < 1
    assert f"begin to count at {config['low']} and count alone at {config['high']}" in result.stdout


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|i1', 'fortran_order': False, 'shape': (1000000000000, 4)}",
        "{'descr': '|i1', 'fortran_order': False, 'shape': (-1, -12)}",
        "{'descr': '|i1', 'fortran_order': True, 'shape': (3, 4)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1)}",
        "{'descr': '|i1', 'fortran_order': False, 'shape': (12,)}",
        "(" * 5_000,
        "-" * 9_000 + "1",
    ],
)
def test_a_table_of_vectors_has_what_its_header_says(header: str) -> None:
    text = header.encode() + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(12)
    with pytest.raises(ValueError, match=r"expected a \.npy file|as many values"):
        read_vector_table(content)
    buffer = io.BytesIO()
    np.save(buffer, np.arange(12, dtype=np.int8).reshape(3, 4))
    assert read_vector_table(buffer.getvalue()).tolist()[2] == [8, 9, 10, 11]
