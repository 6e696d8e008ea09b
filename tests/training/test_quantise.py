"""Quantised exports: what changes in the graphs, what stays in the answers, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="export needs the [train] extra")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.encoders import load_encoder  # noqa: E402
from image2sentence.encoders.model_folder import GRAPHS, QUERY_IMAGE, QUERY_TEXT, bundled  # noqa: E402
from image2sentence.errors import DataError, ModelError  # noqa: E402
from image2sentence.training import trained_model  # noqa: E402
from image2sentence.training.export.model_folder import ExportOptions  # noqa: E402
from image2sentence.training.export.parity import (  # noqa: E402
    DriftError,
    Floors,
    benchmark_change,
    check_parity,
    measure_parity,
)
from image2sentence.training.export.quantize import store_int8  # noqa: E402
from image2sentence.training.vl.base import WholeTextTower, Words  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("drawn") / "catalogue", 40, 5, 128) / "images"


@pytest.fixture(scope="module")
def quantised(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with its light encoder in int8, calibrated with drawn pictures."""
    out = tmp_path_factory.mktemp("int8") / "model"
    folder = tmp_path_factory.mktemp("others")
    write_catalogue(folder / "catalogue", 40, 6, 128)
    trained_model.export_and_compare(bundled(), out, drawn, folder / "catalogue", ExportOptions(benchmark=40))
    return out


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_convolutions_and_text_compute_in_int8(quantised: Path) -> None:
    nodes = onnx.load(quantised / QUERY_IMAGE).graph.node
    light = [node for node in nodes if node.op_type == "Conv" and "/light/" in node.name]
    assert len(light) == 23
    assert all("Dequantize" in name for node in light for name in node.input[:2])
    assert not any("Quantize" in n.op_type for n in nodes if "/learner/" in n.output[0])
    assert "QuantizeLinear" not in operators(bundled() / QUERY_IMAGE)
    assert operators(quantised / QUERY_TEXT) & {"DynamicQuantizeLinear", "MatMulInteger"}


def test_the_report_lies_beside_the_model(quantised: Path) -> None:
    report = json.loads((quantised / "parity.json").read_text())
    assert report["precision"] == {
        "query_image": "int8",
        "query_text": "int8",
        "gallery_image": "float16",
    }
    assert report["bytes"] == {name: (quantised / name).stat().st_size for name in GRAPHS}
    assert report["benchmark"]["recall@10"]["change"][0] >= Floors().recall
    assert report["top10_overlap"] >= Floors().top10_overlap
    assert load_encoder(quantised).config.parity == report


def test_the_quantised_query_side_asks_the_same_galleries(quantised: Path, drawn: Path) -> None:
    pictures = trained_model._load(sorted(drawn.iterdir())[:12])
    first, second = load_encoder(), load_encoder(quantised)
    parity = measure_parity(first, second, pictures, ["in red", "", "with long sleeves"])
    assert first.fingerprint == second.fingerprint
    assert parity["composed_query"]["mean"] > 0.99
    assert parity["composed_query"]["min"] < 0.99999  # or nothing was quantised


def test_calibration_that_does_not_fit_is_refused(drawn: Path, tmp_path: Path) -> None:
    from PIL import Image

    dark = tmp_path / "dark"
    dark.mkdir()
    Image.new("RGB", (64, 64)).save(dark / "night.png")
    with pytest.raises(DriftError, match="cosine of gallery_image"):  # which has sentences in it
        trained_model.export_and_compare(bundled(), tmp_path / "out", drawn, dark, ExportOptions())
    assert not (tmp_path / "out").exists()


def test_calibration_needs_pictures_of_its_own(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures but those compared on"):
        trained_model.export_and_compare(bundled(), tmp_path / "out", drawn, drawn, ExportOptions())


def test_the_benchmark_sees_what_cosines_hide() -> None:
    encoder = load_encoder()

    class Deaf:
        """Answers as if no words had been said."""

        fingerprint, width = encoder.fingerprint, encoder.width
        encode_images, encode_sentences = encoder.encode_images, encoder.encode_sentences

        def encode_queries(self, sentences: np.ndarray, texts: list[str]) -> np.ndarray:
            return encoder.encode_queries(sentences, [""] * len(texts))

    change = benchmark_change(encoder, Deaf(), 60)["recall@1"]["change"]  # type: ignore[arg-type]
    assert change[0] < -20
    assert change[1] <= change[0] <= change[2]


@pytest.mark.parametrize("name", ["gallery_image", "composed_query", "text_query", "top10_overlap"])
def test_each_floor_is_held(name: str) -> None:
    fine = {"min": 1.0, "mean": 1.0}
    parity = {"gallery_image": fine, "composed_query": fine, "text_query": fine, "top10_overlap": 1.0}
    check_parity(parity, Floors())
    worse = parity | {name: 0.5 if name == "top10_overlap" else {"min": 0.5, "mean": 0.99}}
    with pytest.raises(ModelError, match=name):
        check_parity(worse, Floors())
    nothing = parity | {name: float("nan") if name == "top10_overlap" else {"min": float("nan"), "mean": 1.0}}
    with pytest.raises(ModelError, match=name):
        check_parity(nothing, Floors())


@pytest.mark.parametrize("kind", ["blip", "conv_blip"])
@torch.no_grad()
def test_the_lean_text_tower_gives_the_same_vectors(kind: str, tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl(kind, tmp_path / "vl")))
    words = Words(torch.randn(3, 7, vl.word_width), torch.tensor([0.0, -0.5, -1e4]).repeat(3, 3)[:, :7])
    unmasked = Words(words.embeddings, torch.zeros(3, 7))
    lean = vl.text_tower()
    assert not isinstance(lean, WholeTextTower)
    assert torch.allclose(lean(words), vl.encode_words(words), atol=1e-5)
    assert torch.allclose(lean(unmasked, masked=False), vl.encode_words(unmasked), atol=1e-5)
    assert torch.equal(lean.embed(torch.tensor([[2, 5]])), vl.embed(torch.tensor([[2, 5]])))


@pytest.mark.parametrize("zero", [0, 37, 200])
def test_weights_that_have_8_bit_steps_are_stored_on_these(zero: int, tmp_path: Path) -> None:
    """Read out of a TFLite file, shifted by its zero point."""
    rng = np.random.default_rng(zero)
    codes = np.clip(rng.normal(zero, 30, (64, 32, 1, 1)).round(), 0, 255)
    exact = (codes - zero) * 0.0137
    steps = exact.astype(np.float16).astype(np.float32)
    assert np.abs(_stored(steps, tmp_path) - exact).max() < 0.0137 / 8
    between = steps + rng.uniform(-0.003, 0.003, steps.shape).astype(np.float32)
    assert np.abs(_stored(between, tmp_path) - between).max() <= np.abs(between).max() / 250


def _stored(weight: np.ndarray, folder: Path) -> np.ndarray:
    """A weight as ONNX Runtime reads it back from a graph that `store_int8` has written."""
    tensor = onnx.numpy_helper.from_array(weight, "w")
    node = onnx.helper.make_node("Identity", ["w"], ["y"])
    value = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, weight.shape)
    graph = onnx.helper.make_graph([node], "g", [], [value], [tensor])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "whole.onnx")
    store_int8(folder / "whole.onnx", folder / "stored.onnx")
    session = onnxruntime.InferenceSession(folder / "stored.onnx", providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {})[0])
