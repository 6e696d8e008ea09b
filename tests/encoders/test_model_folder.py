"""Damage and changes in model folders: each is found by name, or harmless."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import settings_digest
from image2sentence.encoders.model_folder import CONFIG, ModelFolder, bundled, file_checksum, write_sealed
from image2sentence.encoders.onnx_session import load_session, require_self_contained
from image2sentence.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed copy of the bundled model without what only training reads."""
    copy = tmp_path / "model"
    shutil.copytree(bundled(), copy, ignore=shutil.ignore_patterns("vl"))
    config = ModelFolder.open(copy).config
    values = json.loads((copy / CONFIG).read_text()) | {"space_settings": settings_digest(config)}
    write_sealed(copy / CONFIG, values)
    return copy


def flipped(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def unsealed(folder: Path, **changes: object) -> None:
    config = json.loads((folder / CONFIG).read_text()) | changes
    del config["checksum"]
    (folder / CONFIG).write_text(json.dumps(config))


def test_every_flipped_bit_of_a_config_is_found_by_name(folder: Path) -> None:
    rng = random.Random(3)
    content = (folder / CONFIG).read_bytes()
    for _ in range(1_500):
        (folder / CONFIG).write_bytes(flipped(content, rng))
        with pytest.raises(ModelError, match=r"config\.json"):
            ModelFolder.open(folder)


def test_every_flipped_bit_of_a_listed_file_is_found_by_name(folder: Path) -> None:
    rng = random.Random(4)
    for name in ModelFolder.open(folder).config.files:
        content = (folder / name).read_bytes()
        for _ in range(4):
            (folder / name).write_bytes(flipped(content, rng))
            with pytest.raises(ModelError, match=name):
                ModelFolder.open(folder).read(name)
        (folder / name).write_bytes(content)


def test_folders_without_a_checksum_are_read_as_before(folder: Path) -> None:
    before = ModelFolder.open(folder).config.fingerprint
    config = json.loads((folder / CONFIG).read_text())
    del config["checksum"], config["space_settings"]
    (folder / CONFIG).write_text(json.dumps(config, indent=1))
    assert ModelFolder.open(folder).config.fingerprint == before


def test_a_sealed_folder_keeps_the_fingerprint_that_galleries_recorded(folder: Path) -> None:
    assert load_encoder(folder).fingerprint == json.loads((bundled() / CONFIG).read_text())["fingerprint"]


def test_the_model_that_comes_with_the_package_is_sealed() -> None:
    config = ModelFolder.open(bundled()).config
    assert config.checksum
    assert config.space_settings == settings_digest(config)


def test_changed_preprocessing_is_another_vector_space(folder: Path) -> None:
    before = load_encoder(folder).fingerprint
    how = json.loads((folder / CONFIG).read_text())["gallery_preprocessing"]
    unsealed(folder, gallery_preprocessing=how | {"mean": [0.48145466, 0.4578275, 0.90821073]})
    changed = load_encoder(folder).fingerprint
    assert changed != before
    assert load_encoder(folder).fingerprint == changed


def test_a_changed_template_is_another_vector_space_where_sentences_are_in_it(folder: Path) -> None:
    before = ModelFolder.open(folder).config
    assert before.sentence_share
    unsealed(folder, template="a picture of {sentence} {modifier}")
    assert ModelFolder.open(folder).config.fingerprint != before.fingerprint


@pytest.mark.parametrize("key", [b"\x0a\x08location", b"\x8a\x00\x08location", b"\x0a\x88\x80\x00location"])
def test_a_graph_that_reads_other_files_is_refused(tmp_path: Path, key: bytes) -> None:
    graph = tmp_path / "gallery_image.onnx"
    graph.write_bytes(b"\x08\x07" + key + b"\x12\x0b/etc/passwd")
    for content in (graph.read_bytes(), None):
        with pytest.raises(ModelError, match=r"gallery_image\.onnx reads weights from other files"):
            require_self_contained(graph, content)
        with pytest.raises(ModelError, match="external data"):
            load_session(graph, content, 1)


def test_external_data_as_onnx_writes_it_is_refused(tmp_path: Path, folder: Path) -> None:
    onnx = pytest.importorskip("onnx")
    name = "onnx/query_image.onnx"
    graph = onnx.load(folder / name)
    onnx.save(graph, folder / name, save_as_external_data=True, location="weights.bin", size_threshold=0)
    files = json.loads((folder / CONFIG).read_text())["files"]
    unsealed(folder, files=files | {name: file_checksum(folder / name)})
    with pytest.raises(ModelError, match="external data"):
        load_encoder(folder).encode_sentences([Image.new("RGB", (9, 9))])


@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX systems")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "onnx/query_text.onnx"])
def test_links_to_files_without_an_end_are_refused(folder: Path, name: str) -> None:
    opened = ModelFolder.open(folder)
    read = opened.checked_path if name.endswith(".onnx") else opened.read
    if name == CONFIG:
        read = lambda _: ModelFolder.open(folder)  # noqa: E731
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=f"{name}.* no regular file"):
        read(name)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name}.* no regular file"):
        read(name)


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 10**12},
        {"width": 0},
        {"word_width": 10**12},
        {"max_length": 10**12},
        {"max_length": -1},
        {"head_length": -1},
        {"word_norm": float("nan")},
        {"learner": {"tokens": 10**9}},
        {"learner": {"blocks": 10**9}},
        {"guide": {"neighbours": 200_000}},
        {"guide": {"temperature": float("inf")}},
        {"gallery_preprocessing": {"mean": [float("nan"), 0.5, 0.5]}},
        {"gallery_preprocessing": {"std": [float("inf"), 0.5, 0.5]}},
    ],
    ids=str,
)
def test_numbers_that_no_model_has_are_refused(folder: Path, changed: dict[str, Any]) -> None:
    config = json.loads((folder / CONFIG).read_text())
    unsealed(folder, **{k: config[k] | v if isinstance(v, dict) else v for k, v in changed.items()})
    with pytest.raises(ModelError, match=r"config\.json"):
        ModelFolder.open(folder)
