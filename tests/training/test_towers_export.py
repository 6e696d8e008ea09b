"""Export of towers alone: a folder without a light side, in the vector space of the VL model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [train] extra")

from PIL import Image

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import CompositionConfig, GuideConfig, OriginRecord
from image2sentence.encoders.guide_files import add_guide
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


def test_guiding_phrases_take_the_place_of_the_sum_where_they_describe_the_picture(tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    origin, plain, guided = OriginRecord("trained"), tmp_path / "plain", tmp_path / "guided"
    export_towers(vl, "noisy", plain, CompositionConfig("sum", 0.25), origin, pictures(), TEXTS)
    add_guide(load_encoder(plain), TEXTS, GuideConfig(1, residual=0.2, low=-1.0, high=-0.9), guided)
    encoder = load_encoder(guided)
    assert encoder.is_guided
    assert not encoder.unguided().is_guided
    assert encoder.fingerprint == load_encoder(plain).fingerprint, "galleries stay valid"
    seen = encoder.encode_sentences(pictures()[:1])
    phrases = encoder.encode_queries(None, TEXTS)
    nearest = int(np.argmax(phrases @ seen[0, 0]))
    expected = encoder.encode_queries(None, [f"{TEXTS[nearest]} blue"])[0]
    expected = expected + 0.2 * (seen[0, 0] - phrases[nearest])
    found = encoder.encode_queries(seen, ["blue"])[0]
    np.testing.assert_allclose(
        found, expected / np.linalg.norm(expected), atol=0.02
    )  # phrases are kept in int8
    np.testing.assert_allclose(encoder.encode_queries(seen, [" "])[0], seen[0, 0], atol=1e-6)
    composed = load_encoder(plain).encode_queries(seen, ["blue"])
    np.testing.assert_allclose(encoder.unguided().encode_queries(seen, ["blue"]), composed, atol=1e-6)
    assert np.abs(found - composed[0]).max() > 0.05, "and that is not what the sum says"


def test_pictures_that_no_phrase_describes_are_left_to_the_sum(tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    origin, plain, guided = OriginRecord("trained"), tmp_path / "plain", tmp_path / "guided"
    export_towers(vl, "noisy", plain, CompositionConfig("sum", 0.25), origin, pictures(), TEXTS)
    add_guide(load_encoder(plain), TEXTS, GuideConfig(low=0.99, high=1.0), guided)
    seen = load_encoder(plain).encode_sentences(pictures()[:3])
    found = [load_encoder(folder).encode_queries(seen, TEXTS) for folder in (plain, guided)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_nothing_is_written_over_what_is_no_model(tmp_path: Path) -> None:
    vl = load_vl(str(save_tiny_vl("conv_blip", tmp_path / "vl")))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(ModelError):
        export_towers(
            vl, "x", tmp_path / "own", CompositionConfig(), OriginRecord("trained"), pictures(), TEXTS
        )
    assert (tmp_path / "own" / "photo.jpg").read_bytes() == b"mine"
