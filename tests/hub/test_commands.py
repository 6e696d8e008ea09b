"""Every command that takes --model, with published pairs of graphs, which have no light side."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("onnx")

from image2sentence.cli.main import cli
from image2sentence.encoders import OnnxEncoder
from image2sentence.evaluation import latency
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from tests.hub.exports import publish, tiny

COUNT = 12


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model, published for transformers.js."""
    return publish(tiny(request.param), tmp_path_factory.mktemp("models") / request.param)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of random colours, with a table of labels."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(COUNT):
        low = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(low).resize((60, 50)).save(folder / f"{number:02d}.png")
        rows.append([f"{number:02d}.png", ("red", "blue")[number % 2], ("dress", "dog")[number // 2 % 2]])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "colour", "type"], *rows])
    return folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder and a cache of the test's own."""
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str | Path, code: int = 0) -> Result:
    """A command that ends with `code`."""
    result = CliRunner().invoke(cli, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_pictures_are_indexed_searched_and_shown(model: Path, pictures: Path) -> None:
    with_model = ("--model", model)
    assert json.loads(run("index", pictures, *with_model, "--json").stdout)["encoded"] == COUNT
    picture = pictures / "03.png"
    for question in (
        ["--image", picture],
        ["--text", "a red dress"],
        [
            "--image",
            picture,
            "--text",
            "in blue",
            "--not",
            "red",
            "--balance",
            "0.4",
            "--near-duplicates",
            "0.99",
        ],
        ["--image", picture, "--image", pictures / "04.png", "--weights", "2,1", "--text", "in blue"],
    ):
        found = json.loads(run("search", *question, *with_model, "--json").stdout)
        assert found["results"], question
    alone = json.loads(run("search", picture, *with_model, "--json").stdout)
    assert Path(alone["results"][0]["path"]).name == "03.png"
    result = json.loads(run("info", *with_model, "--json").stdout)
    assert result["model"]["fingerprint"] == result["gallery"]["fingerprint"]
    assert result["gallery"]["pictures"] == COUNT
    unnamed = json.loads(
        run("search", picture, "--json").stdout
    )  # the model that made the gallery, found here
    assert unnamed["results"] == alone["results"]
    assert "use that model" in run("search", picture, "--model", "starter", code=1).output


@pytest.mark.parametrize("asked", [("--model", "half:fp16"), ()])
def test_workers_of_a_cluster_load_the_model_wherever_they_are(
    asked: tuple[str, ...], pictures: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tiny("clip"), place / "half", precision="fp16")
    empty = place / "empty"
    empty.mkdir()
    run("index", empty, "--gallery", "gallery", *(asked or ("--model", "everyday")))
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()

    def on_cluster(
        folder: Any, gallery: Any, encoder: Any, *, make_encoder: Callable[[], OnnxEncoder], **options: Any
    ) -> IndexReport:
        assert options.pop("workers") == 2
        with monkeypatch.context() as patch:
            patch.chdir(elsewhere)
            made = make_encoder()
        assert made.fingerprint == encoder.fingerprint
        return index_pictures(folder, gallery, made, **options)

    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setattr("image2sentence.indexing.ray.index_on_ray", on_cluster)
    cluster = ("--engine", "ray", "--workers", "2")
    assert (
        f"encoded {COUNT}" in run("index", pictures, "--gallery", place / "gallery", *asked, *cluster).output
    )


def test_vectors_are_exported_and_imported(model: Path, pictures: Path, place: Path) -> None:
    run("index", pictures, "--model", model)
    run("gallery", "export", "vectors")
    result = run(
        "gallery", "import", "vectors", pictures, "--gallery", place / "other", "--model", model, "--json"
    )
    assert json.loads(result.stdout)["imported"] == COUNT


def test_it_is_evaluated(model: Path, pictures: Path, place: Path) -> None:
    asked = ["evaluate", "attributes", "--data", pictures, "--change", "colour", "--keep", "type"]
    shown = run(*asked, "--model", model, "--json", place / "report.json", "--pictures", place / "drawn")
    assert "composed" in shown.output
    report = json.loads((place / "report.json").read_text())
    assert report
    assert list((place / "drawn").glob("*.png"))


@pytest.mark.parametrize("named", [True, False])
def test_a_query_is_timed(named: bool, model: Path) -> None:
    asked = [
        "bench",
        *(["--model", model] if named else [model]),
        "--rounds",
        "1",
        "--gallery-size",
        "10",
        "--json",
    ]
    (measured,) = json.loads(run(*asked).stdout).values()
    assert measured["composed"] == measured["symmetric"] > 0
    assert "image" not in measured["stages"]
    assert measured["cold_seconds"] > 0
    assert set(measured["bytes"]) == {"onnx/query_text.onnx", "onnx/gallery_image.onnx"}


def test_models_stand_beside_each_other_in_one_table(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "cold_query", lambda *_: (0.5, None))  # measured in the test above
    picture = latency.drawn_picture(64)
    shown = latency.table(latency.measure({"pair": model, "bundled": None}, picture, gallery=10, rounds=1))
    (line,) = (line for line in shown.splitlines() if "light encoder" in line)
    assert line.split()[-2] == "none"
    assert float(line.split()[-1]) > 0


def test_it_is_served(model: Path, pictures: Path, place: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from image2sentence.encoders import load_encoder
    from image2sentence.gallery.opening import open_gallery
    from image2sentence.server.app import create_app
    from image2sentence.server.service import SearchService

    run("index", pictures, "--model", model)
    with open_gallery(place / ".image2sentence") as gallery:
        service = SearchService(load_encoder(model, 1), gallery)
        with TestClient(create_app(service)) as client:
            found = client.post("/v1/search", json={"text": "a red dress"})
            assert found.status_code == 200, found.text
            assert found.json()["results"]


def test_a_published_model_takes_guiding_phrases(model: Path, pictures: Path, place: Path) -> None:
    (place / "phrases.txt").write_text("a red dress\na blue bag\n")
    assert "2 guiding phrases" in run("guide", "phrases.txt", "--model", model, "--out", "guided").output
    run("index", pictures, "--model", model)
    shown = next(pictures.rglob("*.png"))
    for chosen in (model, "guided"):
        assert run("search", shown, "but blue", "--model", chosen, "--json").output


@pytest.mark.parametrize("command", ["export", "train-text", "bench --variants"])
def test_what_needs_a_light_side_is_refused(command: str, model: Path, pictures: Path, place: Path) -> None:
    asked: dict[str, list[str | Path]] = {
        "export": ["export", model, "--pictures", pictures, "--out", "out"],
        "train-text": ["train-text", model, "--pictures", pictures, "--out", "out"],
        "bench --variants": ["bench", model, "--variants", "--rounds", "1"],
    }
    result = run(*asked[command], code=1).output
    assert "has no light query side" in result
    assert "image2sentence train PICTURES --model MODEL" in result
    assert not list(place.glob("out*/*"))
