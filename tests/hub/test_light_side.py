"""A light side for an adapted model, trained a few steps: it searches the gallery that is there already."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch

from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.encoders.model_folder import GALLERY_IMAGE
from image2sentence.evaluation import latency
from image2sentence.images import load_image
from tests.hub.exports import publish, tiny

WORDS = ["a red dress", "two dogs on the beach", "a blue dress with long sleeves"]
SETTINGS = [
    "steps=4",
    "batch=8",
    "warmup=1",
    "lar_batch=4",
    "validation=6",
    "modifier_weight=0",
    "caption_weight=0",
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of random colours, not square."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(40):
        low = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(low).resize((60, 50)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where models and what is trained of them lie."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small models are no faster on more, and wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def place(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder of the test's own, and the module's cache."""
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(folder / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """A CLIP model's graphs and weights."""
    return publish_with_weights("clip", folder / "clip")


@pytest.fixture
def light(clip: Path, pictures: Path, folder: Path) -> Path:
    """A light side for it; trained once."""
    if not (folder / "run/model").is_dir():
        trained(pictures, clip, folder / "run")
    return folder / "run/model"


def publish_with_weights(kind: str, folder: Path, seed: int = 0) -> Path:
    """A model's graphs, and its weights beside them."""
    made = tiny(kind, seed, text_length=40)
    publish(made, folder)
    made.model.save_pretrained(folder)
    return folder


def run(*words: str | Path, code: int = 0) -> Result:
    """A command that ends with `code`."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def trained(pictures: Path, model: Path, out: str | Path, *more: str | Path, code: int = 0) -> Result:
    """`train` with few steps."""
    changes = [word for change in SETTINGS for word in ("--set", change)]
    asked = ["train", pictures, "--model", model, "--light", "tiny/64", "--out", out, *changes, *more]
    return run(*asked, code=code)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_light_side_searches_the_gallery_that_is_there(kind: str, pictures: Path, place: Path) -> None:
    model = publish_with_weights(kind, place / kind)
    run("index", pictures, "--model", model)
    trained(pictures, model, "run")
    before, after = load_encoder(model), load_encoder("run/model")
    assert before.folder.path != after.folder.path
    assert after.folder.has_light_side
    assert not before.folder.has_light_side
    assert after.fingerprint == before.fingerprint
    assert after.config.files[GALLERY_IMAGE] == before.config.files[GALLERY_IMAGE]
    picture = load_image(pictures / "07.png")
    assert np.array_equal(after.encode_images([picture]), before.encode_images([picture]))
    read = [encoder.encode_queries(None, WORDS) for encoder in (before, after)]
    assert np.sum(read[0] * read[1], axis=1).min() > 0.98
    output = run("search", pictures / "07.png", "in blue", "--model", "run/model", "--json").stdout
    assert json.loads(output)["results"]
    assert json.loads(run("index", pictures, "--model", "run/model", "--json").stdout)["encoded"] == 0


def test_a_gallery_of_another_model_is_refused(light: Path, pictures: Path, place: Path) -> None:
    run("index", pictures, "--model", publish_with_weights("clip", place / "other", seed=1))
    assert "use that model" in run("search", "in blue", "--model", light, code=1).output


def test_an_export_keeps_the_gallery_side(light: Path, pictures: Path) -> None:
    run("export", light, "--pictures", pictures, "--out", "again", "--benchmark", "0")
    one, other = load_encoder(light), load_encoder("again")
    assert one.fingerprint == other.fingerprint
    assert one.config.files[GALLERY_IMAGE] == other.config.files[GALLERY_IMAGE]
    asked = ["export", light, "--pictures", pictures, "--out", "shared", "--sentence-share", "0.2"]
    assert "keeps its own gallery side" in run(*asked, code=1).output


def test_weights_of_another_model_are_refused(pictures: Path, place: Path) -> None:
    model = publish(tiny("clip", text_length=40), place / "clip")
    assert "name them with --vl" in trained(pictures, model, "run", code=1).output
    other = publish_with_weights("clip", place / "other", seed=1)
    output = trained(pictures, model, "run", "--vl", other, code=1).output
    assert "are not those of the graphs" in output
    assert "mean cosine of pictures" in output
    siglip = publish_with_weights("siglip", place / "siglip")
    assert "are not those of the graphs" in trained(pictures, model, "run", "--vl", siglip, code=1).output
    assert not (place / "run" / "model").exists()
    folder = load_encoder().folder.path
    assert "was not adapted" in trained(pictures, folder, "run", code=1).output


def test_bench_shows_what_the_light_side_saves(
    clip: Path, light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "cold_query", lambda *_: (0.5, None))
    found = json.loads(run("bench", light, "--model", clip, "--rounds", "1", "--json").stdout)
    with_light, without = found[str(light)], found[str(clip)]
    assert with_light["stages"]["image"] > 0
    assert with_light["symmetric"] > 0
    assert "image" not in without["stages"]
    assert "symmetric / composed" in run("bench", light, "--model", clip, "--rounds", "1").output


def test_words_lying_in_the_current_folder_are_not_taken(clip: Path, pictures: Path, place: Path) -> None:
    (place / "phrases.txt").write_text("a red dress\n")
    (place / "modifiers.txt").write_text("in red\n")
    asked = ["train", pictures, "--light", "tiny/64", "--out", "run", "--set", "steps=2"]
    for named in (["--model", clip], ["--vl", clip]):
        assert "give --phrases FILE" in run(*asked, *named, code=1).output
