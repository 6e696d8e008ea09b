"""A model folder by its name on the Hub: through the Hub's own cache, without a connection."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.encoders.model_folder import CARD, CONFIG, bundled, split_revision
from image2sentence.errors import ModelError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """somebody/model as huggingface_hub keeps it once it was downloaded, and no way to download anything."""
    repository = tmp_path / "cache" / "models--somebody--model"
    folder = repository / "snapshots" / COMMIT
    shutil.copytree(bundled(), folder, ignore=shutil.ignore_patterns("vl"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("name", "revision"),
    [("somebody/model", None), ("somebody/model", COMMIT), (f"somebody/model@{COMMIT}", None)],
)
def test_a_model_by_its_hub_id(snapshot: Path, name: str, revision: str | None) -> None:
    encoder = load_encoder(name, revision=revision)
    assert encoder.folder.path == snapshot
    picture = [Image.new("RGB", (20, 20), (200, 10, 10))]
    same = load_encoder().encode_sentences(picture)  # graphs of others are folded less by older versions
    assert np.abs(encoder.encode_sentences(picture) - same).max() < 1e-5


def test_all_that_a_folder_has_is_fetched_and_nothing_else(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads((snapshot / CONFIG).read_text())
    config.pop("checksum", None)
    config["files"]["*"] = config["files"]["training.log"] = "0" * 64
    (snapshot / CONFIG).write_text(json.dumps(config))
    asked: list[list[str]] = []

    def fetched(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        for file in allow_patterns:
            (tmp_path / "got" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(snapshot / file, tmp_path / "got" / file)
        return str(tmp_path / "got")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    encoder = load_encoder("somebody/model")
    assert encoder.is_guided
    sentence = encoder.encode_sentences([Image.new("RGB", (20, 20), (200, 10, 10))])
    expected = load_encoder().encode_queries(sentence, ["but blue"])
    assert np.array_equal(encoder.encode_queries(sentence, ["but blue"]), expected)
    assert set(asked[0]) == {CONFIG, CARD, *load_encoder().config.files}


def test_a_folder_comes_before_the_hub(snapshot: Path) -> None:
    shutil.copytree(bundled(), Path("somebody") / "model")
    assert load_encoder("somebody/model").folder.path == Path("somebody/model")


def test_damage_is_found(snapshot: Path) -> None:
    graph = snapshot / "onnx" / "query_image.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(ModelError, match="damaged"):
        load_encoder("somebody/model").encode_sentences([Image.new("RGB", (9, 9))])


@pytest.mark.parametrize("content", [{"model_type": "bert"}, {"files": []}, []])
def test_another_kind_of_model_is_refused(snapshot: Path, content: object) -> None:
    (snapshot / CONFIG).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no image2sentence model"):
        load_encoder("somebody/model")


@pytest.mark.parametrize("name", ["nobody/nothing", "somebody/model@v9", "runs/mine"])
def test_what_cannot_be_had_is_named(snapshot: Path, name: str) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*, and no model of this name could be had"):
        load_encoder(name)


def test_the_command_line_says_so(snapshot: Path) -> None:
    done = CliRunner().invoke(cli, ["info", "--model", "nobody/nothing"])
    assert done.exit_code == 1
    assert "there is no folder nobody/nothing" in done.output
    assert CliRunner().invoke(cli, ["info", "--model", "somebody/model"]).exit_code == 0


def test_without_the_hubs_package_a_folder_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match=r"no folder somebody/model, and .* pip install huggingface-hub"):
        load_encoder("somebody/model")


def test_revisions_are_split_off_names_only() -> None:
    assert split_revision("org/name@v1.0") == ("org/name", "v1.0")
    assert split_revision("org/name") == ("org/name", None)
    assert split_revision("/models/mine@home") == ("/models/mine@home", None)
