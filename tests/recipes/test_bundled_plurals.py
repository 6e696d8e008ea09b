"""Nouns in the plural, read as in the singular."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")
pytest.importorskip("inflect", reason="plurals need the [recipes] or the [dev] extra")

import torch

from image2sentence.training.vl.load import load_vl
from recipes.bundled.plurals import add_words, read_alike
from recipes.towers import save_model
from tiny_vl import SIZE, save_tiny_vl

EMOJI = [
    {"thing": "{g} in suit levitating"},
    {"thing": "thumbs up"},
    {"thing": "beverage box"},
    {"thing": "red wolf"},
]


def test_nouns_get_the_number_that_the_vocabulary_lacks() -> None:
    known = [
        "mug",
        "mugs",
        "dress",
        "shoe",
        "stripes",
        "trousers",
        "up",
        "levitating",
        "box",
        "wolf",
        "red",
        "scissors",
        "colour",
    ]
    found = read_alike(EMOJI, known)
    assert found == {
        "color": "colour",
        "colors": "colour",
        "colours": "colour",
        "boxes": "box",
        "dresses": "dress",
        "shoes": "shoe",
        "stripe": "stripes",
        "wolves": "wolf",
    }


def test_both_numbers_are_read_alike_and_all_else_as_before(tmp_path: Path) -> None:
    save_tiny_vl("conv_blip", tmp_path / "vl")
    vl = load_vl(str(tmp_path / "vl"))
    texts = ["a red shirt with stripes", "mug", "something unknown"]
    before = vl.encode_words(vl.words(texts))
    tokenizer = add_words(vl.model, vl.tokenizer, {"mugs": "mug", "shirts": "shirt"})
    save_model(vl.model, tokenizer, tmp_path / "more", SIZE)
    more = load_vl(str(tmp_path / "more"))
    assert more.tokenizer.get_vocab_size() == load_vl(str(tmp_path / "vl")).tokenizer.get_vocab_size() + 2
    torch.testing.assert_close(
        more.encode_words(more.words(texts)), before, atol=2e-3, rtol=0
    )  # stored as float16
    words = more.words(["a red shirts with stripes", "mugs", "something unknown"])
    assert torch.equal(more.encode_words(words), more.encode_words(more.words(texts)))
    assert more.tokenizer.encode("mugs and stripe").tokens[1:-1] == ["mugs", "and", "[UNK]"]


def test_words_that_are_there_already_are_not_added_again(tmp_path: Path) -> None:
    save_tiny_vl("conv_blip", tmp_path)
    vl = load_vl(str(tmp_path))
    first = read_alike(EMOJI, vl.tokenizer.get_vocab())
    again = read_alike(EMOJI, add_words(vl.model, vl.tokenizer, first).get_vocab())
    assert "shirts" in first
    assert again == {}
