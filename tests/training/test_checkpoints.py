"""Checkpoints as they lie on the Hub: weights as .bin, crops, SigLIP 2's tokenizer, code beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
import torch

from image2sentence.encoders import load_encoder
from image2sentence.errors import ModelError
from image2sentence.training.vl.load import load_preprocessing, load_vl
from tests.hub.exports import publish, tiny
from tiny_vl import save_tiny_vl


def change(file: Path, **values: object) -> None:
    """Sets values of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_weights_as_bin_are_read_without_the_rest_of_the_pickle(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = save_tiny_vl("clip", tmp_path / "clip")
    expected = load_vl(str(folder)).record.fingerprint
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert load_vl(str(folder)).record.fingerprint == expected

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))  # type: ignore[return-value]

    torch.save(tensors | {"code": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="something else than weights"):
        load_vl(str(folder))
    assert not (tmp_path / "ran").exists()


def test_a_crop_smaller_than_the_resized_side_is_read(tmp_path: Path) -> None:
    folder = save_tiny_vl("clip", tmp_path / "clip")
    settings = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    change(folder / "preprocessor_config.json", do_center_crop=True, **settings)
    how = load_preprocessing(str(folder), None)
    assert (how.size, how.resize, how.fit) == (32, 40, "crop")


def test_code_beside_a_model_is_neither_run_nor_asked_about(tmp_path: Path) -> None:
    folder = save_tiny_vl("clip", tmp_path / "clip")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    named = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": ["own.Tokens", None]}
    change(folder / "config.json", auto_map=named)
    change(folder / "tokenizer_config.json", auto_map=named)
    change(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "own.Processor"})
    assert load_vl(str(folder)).record.kind == "clip"
    change(folder / "config.json", model_type="own")
    with pytest.raises(ModelError):
        load_vl(str(folder))
    assert not (tmp_path / "ran").exists()


def test_siglip2_reads_words_as_the_adapted_graphs_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGE2SENTENCE_CACHE", str(tmp_path / "cache"))
    made = tiny("siglip2", text_length=40)
    folder = publish(made, tmp_path / "siglip2")
    made.model.save_pretrained(folder)
    texts = ["A Red DRESS", "two dogs on the beach"]
    vl, encoder = load_vl(str(folder)), load_encoder(folder)
    with torch.no_grad():
        read = vl.encode_words(vl.words(texts)).numpy()
    assert np.abs(read - encoder.encode_queries(None, texts)).max() < 1e-3
