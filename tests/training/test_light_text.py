"""The light text encoder: it learns what the frozen one says, takes its place in the graph, and survives a kill."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the [train] extra")

from image2sentence.catalogue import write_catalogue  # noqa: E402
from image2sentence.encoders import load_encoder  # noqa: E402
from image2sentence.encoders.model_folder import GALLERY_IMAGE, QUERY_TEXT, TEXT_WEIGHTS, ModelFolder, bundled  # noqa: E402
from image2sentence.errors import ConfigError, DataError, ModelError  # noqa: E402
from image2sentence.images import load_image  # noqa: E402
from image2sentence.training import checkpoint as state  # noqa: E402
from image2sentence.training import trained_model  # noqa: E402
from image2sentence.training.export.model_folder import ExportOptions  # noqa: E402
from image2sentence.training.models.text_student import LightText, LightTextConfig  # noqa: E402
from image2sentence.training.text_distillation import (  # noqa: E402
    Distiller,
    DistillSettings,
    Material,
    require_room,
    restore_text,
)
from image2sentence.training.train_text import TextRequest, train_text  # noqa: E402
from image2sentence.training.vl.base import VisionLanguageModel, Words  # noqa: E402
from image2sentence.training.vl.load import load_vl  # noqa: E402
from tiny_vl import save_tiny_vl  # noqa: E402

SETTINGS = DistillSettings(
    text=LightTextConfig(width=16, layers=1, heads=2), steps=6, batch=8, warmup=1, save_every=2
)
PHRASES, MODIFIERS = ["a red shirt", "a blue mug"], ["in blue", "but green", "with long sleeves"]


@pytest.fixture(scope="module")
def vl(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return load_vl(str(save_tiny_vl("blip", tmp_path_factory.mktemp("vl"))))


def material(vl: VisionLanguageModel, count: int = 40) -> Material:
    torch.manual_seed(0)
    tokens = torch.randn(count, 2, vl.word_width)
    return Material(tokens, torch.ones(count, 2), PHRASES, MODIFIERS)


def distiller(vl: VisionLanguageModel, out: Path, **changes: object) -> Distiller:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
    return Distiller(vl, "{sentence} {modifier}", material(vl), settings, out, "material")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with a text encoder distilled for a few steps."""
    out = tmp_path_factory.mktemp("text")
    write_catalogue(out / "drawn", 24, 3, 112)
    train_text(TextRequest(bundled(), out / "drawn", out / "run", SETTINGS, ExportOptions()))
    return out


def test_it_learns_what_the_frozen_encoder_says(vl: VisionLanguageModel, tmp_path: Path) -> None:
    before = distiller(vl, tmp_path / "none").validate()["cosine"]
    run = distiller(vl, tmp_path, steps=150, learning_rate=5e-3, precision="no", average=0.9)
    assert run.run()["validation"]["cosine"] > max(0.8, before + 0.2)


def test_the_frozen_encoder_stays_as_it_is(vl: VisionLanguageModel, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in vl.state_dict().items()}
    run = distiller(vl, tmp_path)
    first = {key: value.clone() for key, value in run.student.named_parameters()}
    run._step(3)
    assert all(torch.equal(before[key], value) for key, value in vl.state_dict().items())
    assert [key for key, value in run.student.named_parameters() if torch.equal(first[key], value)] == []


def test_a_killed_run_goes_on_bit_for_bit(
    vl: VisionLanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distiller(vl, tmp_path / "whole")
    whole.run()
    step = Distiller._step

    def dies(self: Distiller, number: int) -> float:
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "_step", dies)
        with pytest.raises(KeyboardInterrupt):
            distiller(vl, tmp_path / "broken").run()
    resumed = distiller(vl, tmp_path / "broken")
    resumed.run()
    first, second = whole.student.state_dict(), resumed.student.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(ConfigError, match="another run"):
        distiller(vl, tmp_path / "broken", seed=4).run()


@torch.no_grad()
def test_folding_the_vocabulary_changes_nothing(vl: VisionLanguageModel) -> None:
    text = LightText(SETTINGS.text, vl).eval()
    ids = torch.tensor([[2, 5, 7, 3]])
    bias = torch.tensor([[0.0, -0.7, 0.0, -1e4]])
    wide = text.read(Words(vl.embed(ids), bias))
    text.fold()
    assert torch.allclose(text(Words(text.embed(ids), bias)), wide, atol=1e-6)
    short = text.read(Words(vl.embed(ids[:, :3]), bias[:, :3]))
    assert torch.allclose(wide, short, atol=1e-6)  # what is absent has no part in the mean


def test_the_folder_asks_the_same_galleries_with_another_text_graph(trained: Path) -> None:
    model, full = load_encoder(trained / "run" / "model"), load_encoder()
    assert model.fingerprint == full.fingerprint
    assert model.config.query_fingerprint != full.config.query_fingerprint
    sizes = [(e.folder.path / QUERY_TEXT).stat().st_size for e in (model, full)]
    assert sizes[0] < sizes[1] / 5
    picture = load_image(next((trained / "drawn" / "images").iterdir()))
    for encoder in (model, full):
        vectors = encoder.encode_queries(encoder.encode_sentences([picture]), ["in red"])
        assert np.isclose(np.linalg.norm(vectors), 1, atol=1e-5)
    parity = model.config.parity
    assert parity["composed_query"]["min"] > 0.99  # the graph is the torch student
    assert parity["full_text"]["composed_query"]["mean"] < 0.99  # which has learned next to nothing
    assert model.config.training["text"]["pictures"] + 4 == 24


def test_exporting_again_keeps_the_light_text_encoder(trained: Path, tmp_path: Path) -> None:
    pictures = trained / "drawn" / "images"
    options = ExportOptions(int8_text=False)
    trained_model.export_and_compare(trained / "run" / "model", tmp_path / "again", pictures, None, options)
    folder = ModelFolder.open(tmp_path / "again")
    assert TEXT_WEIGHTS in folder.config.files
    assert folder.config.files[GALLERY_IMAGE]
    assert (folder.path / QUERY_TEXT).stat().st_size < 1_000_000


def test_damaged_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run" / "model", tmp_path / "model")
    path = tmp_path / "model" / TEXT_WEIGHTS
    path.write_bytes(path.read_bytes()[:-9])
    vl = load_vl(str(bundled() / "vl"))
    with pytest.raises(ModelError, match="damaged"):
        restore_text(ModelFolder.open(tmp_path / "model"), vl)
    assert restore_text(ModelFolder.open(bundled()), vl) is None
    tensors, record = state.load_tensors(trained / "run" / "model" / TEXT_WEIGHTS)
    assert record["text"]["width"] == 16
    assert "table" not in tensors


def test_mistakes_are_named(vl: VisionLanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="heads divide"):
        LightTextConfig(width=10, heads=4)
    with pytest.raises(ConfigError, match="precision"):
        DistillSettings(precision="fp8")
    with pytest.raises(DataError, match="longer than"):
        require_room(vl, 2, ["red " * 12], ["in blue " * 6])
    with pytest.raises(ConfigError, match="too few"):
        Distiller(vl, "{sentence} {modifier}", material(vl, 3), SETTINGS, tmp_path, "x")
    asked = TextRequest(bundled(), tmp_path, tmp_path, SETTINGS, ExportOptions())
    with pytest.raises(DataError, match="no pictures"):
        train_text(asked)
    (tmp_path / "empty.txt").write_text("\n")
    wordless = replace(asked, phrases=tmp_path / "empty.txt", modifiers=tmp_path / "empty.txt")
    with pytest.raises(DataError, match="no phrase"):
        train_text(wordless)
