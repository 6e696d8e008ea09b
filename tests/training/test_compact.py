"""VL models whose weights lie compactly beside the graphs of their model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch

from image2sentence.encoders.model_folder import GALLERY_IMAGE, ModelFolder, bundled
from image2sentence.errors import ModelError
from image2sentence.training import checkpoint as state
from image2sentence.training.export import quantize as quantise
from image2sentence.training.export.graphs import GalleryImageGraph, trace
from image2sentence.training.export.vl_folder import write_vl
from image2sentence.training.trained_model import Trained
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.compact import FILE
from image2sentence.training.vl.load import load_vl
from tiny_vl import save_tiny_vl

TEXTS = ("a red dress", "two mugs", "in blue")


def write_gallery_graph(vl: VisionLanguageModel, model: Path) -> None:
    """The int8 gallery graph of `vl`, as export writes it."""
    path = model / GALLERY_IMAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"pixels": {0: "rows"}}
    size = vl.preprocessing.size
    trace(GalleryImageGraph(vl, False), (torch.rand(2, 3, size, size),), path, ["pixels"], ["vectors"], rows)
    quantise.in_place(path, quantise.store_int8)
    quantise.in_place(path, quantise.store_half)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A VL model with batch norms that have seen pictures, some with a negative factor."""
    folder = save_tiny_vl("conv_blip", tmp_path / "source")
    model = load_vl(str(folder)).model
    for part in model.vision_model.body.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(part.weight)
            torch.nn.init.uniform_(part.running_var, 0.5, 2.0)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def model(source: Path, tmp_path: Path) -> Path:
    """A model folder, so far as the gallery graph and the VL model go."""
    write_gallery_graph(load_vl(str(source)), tmp_path / "model")
    write_vl(source, tmp_path / "model")
    return tmp_path / "model"


def test_the_model_stays_itself_and_gives_the_same_vectors(source: Path, model: Path) -> None:
    before, after = load_vl(str(source)), load_vl(str(model / "vl"))
    assert after.record.fingerprint == before.record.fingerprint
    shown = torch.rand(4, 3, *2 * (before.preprocessing.size,))
    seen, again = before.encode_images(shown), after.encode_images(shown)
    words, read = before.encode_words(before.words(TEXTS)), after.encode_words(after.words(TEXTS))
    assert torch.cosine_similarity(seen.vectors, again.vectors).min() > 0.999
    assert torch.cosine_similarity(words, read).min() > 0.999
    assert {one.dtype for one in after.model.parameters()} == {torch.float32}


def test_codes_of_the_gallery_graph_are_not_stored_again(model: Path) -> None:
    tensors, record = state.load_tensors(model / "vl" / FILE)
    assert {"vision_model.body.4.second.weight", "vision_model.body.5.second.weight"} <= set(record["shared"])
    assert not [name for name in record["shared"] if f"{name}.int8" in tensors]
    matrices = [one for name, one in tensors.items() if one.numel() >= 1024 and "embeddings" not in name]
    assert {one.dtype for one in matrices} <= {torch.int8}


def test_without_a_gallery_graph_in_int8_all_codes_are_there(source: Path, model: Path) -> None:
    shutil.rmtree(model / "vl")
    other = load_vl(str(save_tiny_vl("conv_blip", model.parent / "other", seed=1)))
    write_gallery_graph(other, model)
    write_vl(source, model)
    assert not state.load_tensors(model / "vl" / FILE)[1]["shared"]
    (model / GALLERY_IMAGE).unlink()  # not needed
    assert load_vl(str(model / "vl")).record.fingerprint == load_vl(str(source)).record.fingerprint


def test_a_gallery_graph_that_is_missing_damaged_or_another_is_named(model: Path) -> None:
    path = model / GALLERY_IMAGE
    path.write_bytes(b"no graph at all")
    with pytest.raises(ModelError, match="gallery_image"):
        load_vl(str(model / "vl"))
    path.unlink()
    with pytest.raises(ModelError, match="copy the whole model folder"):
        load_vl(str(model / "vl"))
    write_gallery_graph(load_vl(str(save_tiny_vl("conv_blip", model.parent / "other", seed=1))), model)
    with pytest.raises(ModelError, match="damaged or was changed"):
        load_vl(str(model / "vl"))


def test_other_weights_or_preprocessing_are_refused(model: Path) -> None:
    settings = model / "vl" / "preprocessor_config.json"
    kept = settings.read_text()
    settings.write_text(json.dumps(json.loads(kept) | {"image_mean": [0.1, 0.2, 0.3]}))
    with pytest.raises(ModelError, match="damaged or was changed"):
        load_vl(str(model / "vl"))
    settings.write_text(kept)
    tensors, record = state.load_tensors(model / "vl" / FILE)
    tensors["text_proj.bias"][0] += 1
    state.save_tensors(model / "vl" / FILE, tensors, record)
    with pytest.raises(ModelError, match="damaged or was changed"):
        load_vl(str(model / "vl"))


def test_a_record_that_does_not_fit_is_an_error(model: Path) -> None:
    tensors, record = state.load_tensors(model / "vl" / FILE)
    for wrong in ({}, record | {"more": 1}, record | {"shared": {"text_proj.weight": "nothing"}}):
        state.save_tensors(model / "vl" / FILE, tensors, wrong)
        with pytest.raises(ModelError):
            load_vl(str(model / "vl"))


def test_the_shipped_one_is_that_of_the_shipped_model() -> None:
    folder = ModelFolder.open(bundled())
    opened = Trained.open(folder.path)  # raises where it is another one
    assert opened.vl.record.fingerprint == folder.config.vl.fingerprint
    record = state.load_tensors(folder.path / "vl" / FILE)[1]
    assert len(record["shared"]) > 15
