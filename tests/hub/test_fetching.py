"""Models fetched from the Hub: what is said before, what goes on, what is refused."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("onnx")
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.errors import ModelError
from image2sentence.hub import download, find
from tests.hub.endpoint import COMMIT, Endpoint, endpoint
from tests.hub.exports import publish, tiny

NAME = "somebody/clip"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A Hub with one model, caches of the test's own, and no other place to go."""
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path / "made"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.chdir(tmp_path)
    with endpoint() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        where = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", where)
        served.repositories[NAME] = publish(tiny("clip"), tmp_path / "published")
        yield served


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on nothing is asked of the Hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def bodies(hub: Endpoint) -> list[tuple[str, str | None]]:
    """Files that were asked for, and from where on."""
    return [
        (path.partition(COMMIT + "/")[2], part)
        for way, path, part in hub.asked
        if way == "GET" and "/resolve/" in path
    ]


def test_bytes_and_licence_are_told_before(hub: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "image2sentence"):
        encoder = load_encoder(NAME)
    assert f"fetching {NAME} at 0123456789ab" in caplog.text
    assert "MB, licence mit" in caplog.text
    assert encoder.config.vl.revision == COMMIT
    assert encoder.config.origin is not None
    assert encoder.config.origin.license == "mit"
    assert {name for name, _ in bodies(hub)} == {*encoder.config.origin.files}


def test_a_licence_that_is_not_known_is_told(hub: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    hub.license = None
    load_encoder(NAME)
    assert "licence not stated: look at the model's page before you use it" in caplog.text


def test_the_second_time_nothing_is_asked(hub: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_encoder(NAME)
    asked = len(hub.asked)
    offline(monkeypatch)
    second = load_encoder(NAME)
    assert len(hub.asked) == asked
    assert second.folder.path == first.folder.path


def test_an_interrupted_fetch_goes_on_where_it_stopped(hub: Endpoint, tmp_path: Path) -> None:
    hub.cut_at = 10_000
    with pytest.raises(ModelError, match=r"ended after 10,000 of .* goes on where it stopped"):
        load_encoder(NAME)
    assert not list((tmp_path / "made").rglob("config.json"))
    load_encoder(NAME)
    assert ("onnx/vision_model.onnx", "bytes=10000-") in bodies(hub)
    assert not list((tmp_path / "hub").rglob("*.incomplete"))


def test_what_is_damaged_on_the_way_is_thrown_away(hub: Endpoint, tmp_path: Path) -> None:
    hub.damage = True
    with pytest.raises(ModelError, match="not what the Hub says it is"):
        load_encoder(NAME)
    assert not [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    hub.damage = False
    load_encoder(NAME)


def test_a_file_that_changed_behind_its_commit_is_refused(hub: Endpoint, tmp_path: Path) -> None:
    made = load_encoder(NAME).folder.path
    shutil.rmtree(made)
    shutil.rmtree(tmp_path / "hub")
    publish(tiny("clip", seed=1), hub.repositories[NAME])
    with pytest.raises(ModelError, match=r"is not what it was when it was first used.* remove .*pins"):
        load_encoder(NAME)
    assert not made.exists()
    shutil.rmtree(tmp_path / "made" / "pins")
    assert load_encoder(NAME).folder.path != made


def test_offline_a_new_model_is_brought_by_hand(hub: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(ModelError, match=r"HF_HUB_OFFLINE is set.*Bring it by hand: .*--model"):
        load_encoder(NAME)
    assert not hub.asked


def test_offline_another_programs_copy_is_taken(
    hub: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download

    for path in sorted(hub.repositories[NAME].rglob("*")):
        if path.is_file():
            file = path.relative_to(hub.repositories[NAME]).as_posix()
            hf_hub_download(NAME, file, endpoint=hub.url, cache_dir=str(tmp_path / "hub"))
    offline(monkeypatch)
    encoder = load_encoder(NAME)
    assert encoder.config.vl.revision == COMMIT
    assert np.isfinite(encoder.encode_queries(None, ["a dog"])).all()


def test_no_connection_is_told(hub: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelError, match=r"cannot be reached.*Bring it by hand"):
        load_encoder(NAME)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", r"there is no model nobody/nothing on the Hub \(http://127"),
        (f"{NAME}@v9", "has no revision v9"),
    ],
)
def test_what_is_not_there_is_told(hub: Endpoint, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_encoder(name)


@pytest.mark.parametrize("gated", ["all", "files"])
def test_terms_have_to_be_accepted(hub: Endpoint, gated: Any) -> None:
    hub.gated = gated
    with pytest.raises(ModelError, match="accept them on its page, and set HF_TOKEN"):
        load_encoder(NAME)


def test_the_token_is_sent(hub: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    load_encoder(NAME)
    assert set(hub.tokens) == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("tokenizer.json", "no tokenizer: expected tokenizer.json"),
        ("onnx/text_model.onnx", "is in no known layout"),
        ("preprocessor_config.json", "nothing of how pictures are prepared"),
    ],
)
def test_a_repository_that_lacks_something_is_refused(
    hub: Endpoint, gone: str, message: str, tmp_path: Path
) -> None:
    (hub.repositories[NAME] / gone).unlink()
    with pytest.raises(ModelError, match=message):
        load_encoder(NAME)
    assert not list((tmp_path / "made").rglob("config.json"))
    if gone != "preprocessor_config.json":
        assert not bodies(hub)[1:]


def test_a_full_disk_is_told_before_anything_is_fetched(
    hub: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(ModelError, match=r"needs .* MB, and the disk of .* set HF_HOME"):
        load_encoder(NAME)
    assert not [name for name, _ in bodies(hub) if name.endswith(".onnx")]


def test_a_disk_that_fills_up_meanwhile_is_told(
    hub: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(ModelError, match=r"the disk is full: .* goes on where it stopped"):
        load_encoder(NAME)
    monkeypatch.undo()
    assert not list((tmp_path / "made").rglob("config.json"))


def test_a_model_folder_that_does_not_fit_is_told(
    hub: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name == "query_text.onnx":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        ModelError, match=r"could not write the model folder .*No space left.*IMAGE2SENTENCE_CACHE"
    ):
        load_encoder(NAME)
    assert not list((tmp_path / "made" / "models").iterdir())


def test_two_repositories_make_one_model(hub: Endpoint, tmp_path: Path) -> None:
    pair = publish(tiny("clip"), tmp_path / "pair", "fastembed")
    hub.repositories["somebody/clip-vision"] = pair / "clip-vision"
    hub.repositories["somebody/clip-text"] = pair / "clip-text"
    encoder = load_encoder("somebody/clip-vision")
    assert encoder.config.origin is not None
    assert encoder.config.origin.layout == "fastembed"
    assert encoder.config.vl.name == "somebody/clip-vision"


def test_a_short_name_is_one_folder_of_a_repository(hub: Endpoint, tmp_path: Path) -> None:
    folder = "ViT-B-32-256-datacomp_s34b_b86k"
    publish(tiny("clip"), tmp_path / "many" / folder, "rclip")
    publish(tiny("clip", seed=1), tmp_path / "many" / "another", "rclip")
    hub.repositories["yurijmikhalevich/rclip-models"] = tmp_path / "many"
    encoder = load_encoder("clip-b32-datacomp")
    assert encoder.config.origin is not None
    assert encoder.config.origin.knows == "photographs of anything"
    assert {path.partition("/")[0] for path, _ in bodies(hub)} == {folder}
    assert encoder.config.gallery_preprocessing.fit == "crop"


def test_a_model_is_brought_by_hand_as_it_is_told(
    hub: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    with pytest.raises(ModelError) as told:
        load_encoder("clip-b32-datacomp")
    folder = "ViT-B-32-256-datacomp_s34b_b86k"
    assert f"fetch the folder {folder}, the folder tokenizer from " in str(told.value)
    brought = publish(tiny("clip"), tmp_path / "brought" / folder, "rclip")
    shutil.move(brought / "tokenizer", tmp_path / "brought")
    found = load_encoder(tmp_path / "brought")
    assert found.config.origin is not None
    assert found.config.origin.layout == "rclip"
    assert set(found.config.origin.files) == {
        f"{folder}/visual.onnx",
        f"{folder}/textual.onnx",
        "tokenizer/bpe_simple_vocab_16e6.txt.gz",
    }
    with pytest.raises(ModelError, match=r"no vision and text graph in fp16: found ViT.*another precision"):
        load_encoder(f"{tmp_path / 'brought'}:fp16")


@pytest.mark.parametrize("held", ["nothing", "pictures"])
def test_a_folder_without_a_model_is_told(held: str, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    if held == "pictures":
        (tmp_path / "own" / "photo.jpg").write_bytes(b"a photograph")
    with pytest.raises(ModelError, match=r"own holds no model: expected .* `image2sentence models`"):
        load_encoder(tmp_path / "own")


def test_models_are_listed_with_what_is_here(hub: Endpoint) -> None:
    before = json.loads(CliRunner().invoke(cli, ["models", "--json"]).output)
    assert {"starter", "clip-b32-datacomp", "siglip2-b16"} <= {row["name"] for row in before}
    assert [row["name"] for row in before if row["here"]] == ["starter", "everyday"]
    assert all(row["license"] and row["knows"] and row["languages"] for row in before)
    shown = CliRunner().invoke(cli, ["models"])
    assert shown.exit_code == 0
    assert "photographs of anything" in shown.output


def test_an_unknown_short_name_is_told(hub: Endpoint) -> None:
    with pytest.raises(ModelError, match=r"is clip-b32 meant\? `image2sentence models`"):
        load_encoder("clip-b33")
    with pytest.raises(ModelError, match="`image2sentence models` lists names"):
        load_encoder("something")


def test_a_repository_of_torch_weights_leads_to_its_graphs(hub: Endpoint, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"):
        (tmp_path / "torch" / name).write_text('{"model_type": "clip"}')
    hub.repositories["openai/clip-vit-base-patch32"] = tmp_path / "torch"
    with pytest.raises(ModelError, match=r"holds torch weights .* known here as clip-b32: --model clip-b32"):
        load_encoder("openai/clip-vit-base-patch32")
    with pytest.raises(ModelError, match=r"holds torch weights \(model.safetensors\) and no ONNX graphs"):
        load_encoder(tmp_path / "torch")


def test_a_precision_is_part_of_the_name(hub: Endpoint, tmp_path: Path) -> None:
    plain = load_encoder(NAME)
    with pytest.raises(ModelError, match=r"no vision and text graph in fp16: found onnx/text_model.onnx"):
        load_encoder(f"{NAME}:fp16")
    half = publish(tiny("clip"), tmp_path / "half", precision="fp16")
    for graph in (half / "onnx").iterdir():
        shutil.copy(graph, hub.repositories[NAME] / "onnx")
    found = load_encoder(f"{NAME}:fp16")
    assert found.config.origin is not None
    assert {name for name in found.config.origin.files if name.endswith(".onnx")} == {
        "onnx/text_model_fp16.onnx",
        "onnx/vision_model_fp16.onnx",
    }
    assert found.fingerprint != plain.fingerprint
    near = found.encode_queries(None, ["a dog"]) @ plain.encode_queries(None, ["a dog"]).T
    assert float(near[0, 0]) > 0.999
    assert load_encoder(f"{half}:fp16").fingerprint == found.fingerprint


def test_a_name_that_is_no_folder_is_said_to_go_to_the_hub_before_it_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path))
    said: list[str] = []

    def asked(repository: str, revision: str | None, *, inside: str) -> None:
        said.append(caplog.text)
        raise ModelError("the Hub was asked")

    monkeypatch.setattr(find, "list_repository", asked)
    with caplog.at_level(logging.WARNING), pytest.raises(ModelError, match="the Hub was asked"):
        load_encoder("models/shop")
    (before,) = said
    assert "there is no folder models/shop here: asking the Hub" in before
