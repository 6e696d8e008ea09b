"""The starter model's tower: two parts of unit length, of which the head changes one, and what its head reads."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the visual tower needs the [train] extra")
pytest.importorskip("transformers", reason="the visual tower needs the [train] extra")

import torch
from torch import nn

from image2sentence.training.vl.load import load_vl
from image2sentence.training.vl.mobile_blip import (
    MobileBlipForImageTextRetrieval,
    MobileVisionModel,
    mobile_blip_config,
    pyramid,
    pyramid_width,
)
from image2sentence.training.vl.mobilenet import POOLED, MobileNetV2, TwoDepths
from recipes.towers import save_model
from recipes.vocabulary import word_tokenizer

SIDE, KINDS, LOOKS = 64, 12, 8


def pixels(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def tower() -> MobileVisionModel:
    torch.manual_seed(0)
    return MobileVisionModel(KINDS, LOOKS, 16).eval()


def test_what_there_is_stays_to_the_number_whatever_the_head_learns(tower: MobileVisionModel) -> None:
    with torch.no_grad():
        before = tower(pixels()).pooler_output
        last = tower.looks.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.neg_()
        after = tower(pixels()).pooler_output
    assert before.shape == (2, KINDS + LOOKS)
    for part in (before[:, :KINDS], before[:, KINDS:]):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))
    assert torch.equal(before[:, :KINDS], after[:, :KINDS])
    assert not torch.allclose(before[:, KINDS:], after[:, KINDS:])


def test_the_head_reads_where_things_are_in_maps_of_all_depths() -> None:
    network = MobileNetV2(pooled=True).eval()
    with torch.no_grad():
        numbers, last = pyramid(network, pixels())
        assert numbers.shape == (2, pyramid_width())
        assert last.shape == (2, 320, SIDE // 32, SIDE // 32)
        torch.testing.assert_close(numbers[:, :POOLED], network.pool(last))
        stem = network.stem(pixels())
        cells = numbers[:, POOLED : POOLED + 32 * 16].reshape(2, 32, 4, 4)
        torch.testing.assert_close(cells, nn.functional.avg_pool2d(stem, SIDE // 8), atol=1e-5, rtol=1e-4)


def test_the_light_encoder_sees_fine_and_coarse_maps_side_by_side() -> None:
    body = TwoDepths().eval()
    with torch.no_grad():
        found, maps = body(pixels()), body.network.maps(pixels())
    assert found.shape == (2, 96 + 320, SIDE // 16, SIDE // 16)
    torch.testing.assert_close(found[:, :96], maps[5])


def test_saved_towers_load_as_any_model_of_the_hub_does(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(["a red dog"])
    torch.manual_seed(0)
    config = mobile_blip_config(
        tokenizer.get_vocab_size(), image_size=SIDE, kinds=KINDS, looks=LOOKS, looks_hidden=16, text_width=32
    )
    model = MobileBlipForImageTextRetrieval(config).eval()
    with torch.no_grad():
        expected = nn.functional.normalize(model.vision_model(pixels()).pooler_output, dim=-1)
    save_model(model, tokenizer, tmp_path / "model", SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    vl = load_vl(str(tmp_path / "model"))
    assert (vl.width, vl.preprocessing.size, vl.preprocessing.mean) == (KINDS + LOOKS, SIDE, (0.5, 0.5, 0.5))
    with torch.no_grad():
        found = vl.encode_images(pixels()).vectors
        words = vl.encode_words(vl.words(["a red dog"]))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)  # weights are stored in float16
    assert words.shape == (1, KINDS + LOOKS)
