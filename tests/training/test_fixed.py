"""Query graphs of fixed shape answer as the ordinary ones do, whatever is in the padding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

import onnxruntime  # noqa: E402

from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.encoders.model_folder import ModelFolder, bundled  # noqa: E402
from image2sentence.encoders.onnx_encoder import OnnxEncoder  # noqa: E402
from image2sentence.errors import ConfigError, QueryError  # noqa: E402
from image2sentence.images import load_image  # noqa: E402
from image2sentence.training import trained_model  # noqa: E402
from image2sentence.training.export.fixed_shape import FIXED_IMAGE, FIXED_TEXT, FixedEncoder  # noqa: E402
from image2sentence.training.export.graphs import FixedTextGraph, QueryTextGraph  # noqa: E402
from image2sentence.training.export.model_folder import ExportOptions  # noqa: E402
from image2sentence.training.export.parity import DriftError, Floors, check_parity  # noqa: E402
from image2sentence.training.vl.base import ABSENT  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

WORDS = 12
TEXTS = ["in red", "", "but with long sleeves and stripes"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("drawn"), 3, 3, 112) / "images"


@pytest.fixture(scope="module")
def folder(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """The bundled model with fixed graphs, in float32."""
    out = tmp_path_factory.mktemp("fixed") / "model"
    options = ExportOptions(int8_text=False, fixed=WORDS)
    trained_model.export_and_compare(bundled(), out, pictures, None, options)
    return ModelFolder.open(out)


def test_they_answer_as_the_ordinary_graphs(folder: ModelFolder, pictures: Path) -> None:
    shown = [load_image(file) for file in sorted(pictures.iterdir())]
    ordinary, fixed = (e.encode_queries(e.encode_sentences(shown), TEXTS) for e in encoders(folder))
    assert np.allclose(ordinary, fixed, atol=1e-4)
    assert folder.config.parity["fixed_query"]["words"] == WORDS
    assert folder.config.parity["fixed_query"]["min"] > 0.999


def encoders(folder: ModelFolder) -> tuple[OnnxEncoder, FixedEncoder]:
    return OnnxEncoder(folder, guided=False), FixedEncoder(folder)


def test_no_axis_is_free(folder: ModelFolder) -> None:
    for name in (FIXED_IMAGE, FIXED_TEXT):
        graph = onnxruntime.InferenceSession(folder.read(name), providers=["CPUExecutionProvider"])
        for value in (*graph.get_inputs(), *graph.get_outputs()):
            assert all(isinstance(length, int) for length in value.shape), (name, value.name, value.shape)


def test_padding_is_not_read(folder: ModelFolder) -> None:
    encoder = FixedEncoder(folder)
    sentence = np.random.default_rng(0).standard_normal((1, 4, folder.config.sentence_width), np.float32)
    sentence[..., -1] = -0.1
    asked = encoder.padded("in red")
    other = {**asked, "ids": np.where(asked["bias"] < 0, 7, asked["ids"]).astype(np.int32)}
    assert (asked["ids"] != other["ids"]).any()
    first, second = (
        encoder._fixed_text.run(None, {"sentence": sentence, **feed})[0] for feed in (asked, other)
    )
    assert np.allclose(first, second, atol=1e-6)


def test_what_does_not_fit_is_named(folder: ModelFolder, pictures: Path, tmp_path: Path) -> None:
    encoder = FixedEncoder(folder)
    sentences = encoder.encode_sentences([load_image(next(pictures.iterdir()))])
    with pytest.raises(QueryError, match="room for 12"):
        encoder.encode_queries(sentences, ["red " * 12])
    with pytest.raises(QueryError, match="give a picture"):
        encoder.encode_queries(None, ["red"])
    with pytest.raises(ConfigError, match="2 to 60 token ids beside the sentence, got 99"):
        trained_model.export_and_compare(bundled(), tmp_path / "m", pictures, None, ExportOptions(fixed=99))


@pytest.mark.parametrize("kind", ["blip", "clip", "siglip"])
@torch.no_grad()
def test_every_text_encoder_ignores_padding(kind: str, tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl(kind, tmp_path)))
    tower, sentence = vl.text_tower(), torch.randn(1, 2, vl.word_width)
    ids = torch.tensor([vl.tokenizer.encode("in red").ids], dtype=torch.int32)
    longer = torch.cat([ids, torch.full((1, 3), 5, dtype=torch.int32)], 1)
    bias = torch.zeros(longer.shape)
    bias[:, -3:] = ABSENT
    plain = QueryTextGraph(tower, vl.word_width, vl.start_tokens, gated=False)
    fixed = FixedTextGraph(tower, vl.word_width, vl.start_tokens, gated=False)
    assert torch.allclose(plain(sentence, ids.long()), fixed(sentence, longer, bias), atol=1e-5)


def test_drift_of_the_fixed_graphs_is_refused() -> None:
    with pytest.raises(DriftError, match="mean cosine of fixed_query"):
        check_parity({"fixed_query": {"min": 1.0, "mean": 0.9}, "top10_overlap": 1.0}, Floors())
