"""Export of towers alone: a folder without a light side, in the vector space of the VL model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [train] extra")

from PIL import Image

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import CompositionConfig, OriginRecord
from image2sentence.encoders.scope import name_of, what_it_knows
from image2sentence.errors import ModelError
from image2sentence.training.export.towers import export_towers
from image2sentence.training.vl.load import load_vl
from tiny_vl import save_tiny_vl

TEXTS = ["a red shirt", "blue", "striped shirt"]


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (48, 40, 3), np.uint8)) for _ in range(4)]


def test_towers_alone_are_a_model_folder_that_composes_by_the_sum(tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    origin = OriginRecord("trained", "Apache-2.0", "noise")
    out = tmp_path / "model"
    parity = export_towers(vl, "noisy", out, CompositionConfig("sum", 0.25), origin, pictures(), TEXTS)
    encoder = load_encoder(out)
    assert parity["gallery_image"]["min"] > 0.99
    assert not encoder.folder.has_light_side
    assert (name_of(encoder.folder), what_it_knows(encoder.folder)) == ("noisy", "noise")
    assert encoder.fingerprint == vl.record.fingerprint
    seen, read = encoder.encode_images(pictures()[:3]), encoder.encode_queries(None, TEXTS)
    expected = 0.75 * seen + 0.25 * read
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = encoder.encode_queries(encoder.encode_sentences(pictures()[:3]), TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_nothing_is_written_over_what_is_no_model(tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(ModelError):
        export_towers(
            vl, "x", tmp_path / "own", CompositionConfig(), OriginRecord("trained"), pictures(), TEXTS
        )
    assert (tmp_path / "own" / "photo.jpg").read_bytes() == b"mine"
