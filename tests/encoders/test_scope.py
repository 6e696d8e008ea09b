"""What a model knows, and whether pictures lie outside of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from image2sentence.catalogue import write_catalogue
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.encoders.model_folder import SCOPE, ModelFolder, bundled
from image2sentence.encoders.scope import (
    MIN_PICTURES,
    Scope,
    add_scope,
    hand_on_scope,
    read_scope,
    what_it_knows,
)
from image2sentence.errors import ConfigError, ModelError
from image2sentence.hub.table import GENERAL
from image2sentence.indexing.report import SAMPLE, VectorSample

WIDTH = ModelFolder.open(bundled()).config.width
EVERYTHING = Scope("nothing at all", (0.0,) * WIDTH, 1.0)
NOTHING = Scope("all there is", (0.0,) * WIDTH, -1.0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def indexed(model: Path, pictures: Path, *more: str) -> Result:
    """What `index` says of pictures in a gallery of the test's own."""
    result = CliRunner().invoke(cli, ["index", str(pictures), "--model", str(model), *more])
    assert result.exit_code == 0, result.output
    return result


def test_most_is_told_of_enough_pictures() -> None:
    scope = Scope("a", (1.0, 0.0), -0.5)
    rows = np.array([[1, 0]] * 14 + [[0, 1]] * 6, np.float32)
    assert scope.share_outside(rows) == pytest.approx(0.7)
    assert scope.mostly_outside(rows)
    assert not scope.mostly_outside(rows[: MIN_PICTURES - 1])
    assert not scope.mostly_outside(rows[::-1][:20] * -1)
    assert not scope.mostly_outside(np.concatenate([rows, rows[14:], rows[14:]]))
    with pytest.raises(ConfigError, match="finite weights"):
        Scope("a", (float("nan"),), 0.0)


def test_a_scope_changes_neither_vectors_nor_fingerprints(tmp_path: Path) -> None:
    before = ModelFolder.open(bundled())
    add_scope(before, EVERYTHING, tmp_path / "model")
    after = ModelFolder.open(tmp_path / "model")
    assert read_scope(after) == EVERYTHING
    assert what_it_knows(after) == "nothing at all"
    assert after.config.fingerprint == before.config.fingerprint
    assert after.config.query_fingerprint == before.config.query_fingerprint
    assert {name for name in after.config.files if name != SCOPE} == before.config.files.keys() - {SCOPE}


def test_index_says_what_the_model_knows_and_calls_out_other_pictures(tmp_path: Path) -> None:
    folder = ModelFolder.open(bundled())
    write_catalogue(tmp_path / "drawn", MIN_PICTURES, 1, 32)
    for name, scope in (("outside", EVERYTHING), ("inside", NOTHING)):
        add_scope(folder, scope, tmp_path / name)
    told = indexed(tmp_path / "outside", tmp_path / "drawn").output
    assert "which knows nothing at all" in told
    assert "100 % of these pictures" in told
    assert f"image2sentence index PICTURES --model {GENERAL}" in told
    again = indexed(tmp_path / "outside", tmp_path / "drawn").output
    assert "of these pictures" not in again  # nothing was encoded
    shutil.rmtree(tmp_path / ".image2sentence")
    told = indexed(tmp_path / "inside", tmp_path / "drawn").output
    assert "which knows all there is" in told
    assert "of these pictures" not in told
    shown = json.loads(CliRunner().invoke(cli, ["info", "--model", "inside", "--json"]).stdout)
    assert (shown["model"]["name"], shown["model"]["knows"]) == ("inside", "all there is")


def test_programs_are_told_which_model_answers(tmp_path: Path) -> None:
    add_scope(ModelFolder.open(bundled()), EVERYTHING, tmp_path / "outside")
    write_catalogue(tmp_path / "drawn", MIN_PICTURES, 1, 32)
    about = {"name": "outside", "knows": "nothing at all"}
    first = json.loads(indexed(tmp_path / "outside", tmp_path / "drawn", "--json").stdout)
    assert first["model"] == about | {"share_outside": 1.0, "mostly_outside": True}
    again = json.loads(indexed(tmp_path / "outside", tmp_path / "drawn", "--json").stdout)
    assert again["model"] == about | {"share_outside": None, "mostly_outside": False}
    asked = ["search", "a shirt", "--model", str(tmp_path / "outside"), "--json"]
    found = CliRunner().invoke(cli, [*asked, "--gallery", str(tmp_path / ".image2sentence")])
    assert json.loads(found.stdout)["about_model"] == about


def test_the_page_is_told_which_model_answers(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    from image2sentence.encoders import load_encoder
    from image2sentence.gallery import Gallery
    from image2sentence.server.app import create_app
    from image2sentence.server.service import SearchService

    encoder = load_encoder()
    with (
        Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery,
        TestClient(create_app(SearchService(encoder, gallery))) as client,
    ):
        told = client.get("/v1/gallery").json()["model"]
    assert told == {"name": "starter", "knows": what_it_knows(encoder.folder)}


def test_a_scope_goes_along_where_gallery_vectors_stay(tmp_path: Path) -> None:
    add_scope(ModelFolder.open(bundled()), EVERYTHING, tmp_path / "known")
    source = ModelFolder.open(tmp_path / "known")
    for name, fingerprint in (("same", source.config.fingerprint), ("other", "another")):
        files = {name: digest for name, digest in source.config.files.items() if name != SCOPE}
        shutil.copytree(source.path, tmp_path / name)
        (tmp_path / name / SCOPE).unlink()
        config = replace(source.config, files=files, fingerprint=fingerprint)
        target = ModelFolder(tmp_path / name, config)
        assert hand_on_scope(source, target) is (name == "same")
        assert (tmp_path / name / SCOPE).exists() is (name == "same")
    assert read_scope(ModelFolder.open(tmp_path / "same")) == EVERYTHING


def test_a_damaged_scope_is_refused(tmp_path: Path) -> None:
    folder = ModelFolder.open(bundled())
    add_scope(folder, replace(EVERYTHING, weights=(1.0,)), tmp_path / "narrow")
    with pytest.raises(ModelError, match="of another model"):
        read_scope(ModelFolder.open(tmp_path / "narrow"))
    add_scope(folder, EVERYTHING, tmp_path / "model")
    (tmp_path / "model" / SCOPE).write_text("{}")
    with pytest.raises(ModelError, match="damaged"):
        read_scope(ModelFolder.open(tmp_path / "model"))


def test_the_sample_is_drawn_evenly() -> None:
    sample = VectorSample()
    for number in range(10 * SAMPLE):
        sample.add(np.array([number], np.float32))
    rows = sample.rows()
    assert rows.shape == (SAMPLE, 1)
    assert abs(rows.mean() - 5 * SAMPLE) < SAMPLE
    assert VectorSample().rows().shape == (0, 0)


def test_the_bundled_model_tells_its_kind_of_pictures_from_others(shared_data: Path) -> None:
    """Pictures of fashion were not calibrated on; of everyday things other ones were."""
    from image2sentence.images import load_image

    encoder = load_encoder()
    scope = read_scope(encoder.folder)
    assert scope is not None
    assert "garments" in what_it_knows(encoder.folder)
    for name, outside in (("everyday", True), ("fashion", False)):
        files = sorted((shared_data / name / "images").iterdir())[:: 4206 // 30][:30]
        rows = encoder.encode_images([load_image(file, at_least=512) for file in files])
        assert scope.mostly_outside(rows) == outside, name
