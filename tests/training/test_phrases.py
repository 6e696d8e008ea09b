"""Phrase banks: reading, templates, the nearest pseudo-captions, and what does not fit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: phrase banks belong to training")
pytest.importorskip("transformers", reason="transformers is not installed: VL models belong to training")

import torch
from torch.nn import functional

from image2sentence.encoders.guide_files import read_lines
from image2sentence.errors import DataError
from image2sentence.training import phrase_bank as phrases
from image2sentence.training.settings import Target
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from tiny_vl import save_tiny_vl

PHRASES = ["a red mug", "a blue shirt", "a green shirt with long sleeves", "red", "blue"]


@pytest.fixture(scope="module")
def vl(tmp_path_factory: pytest.TempPathFactory) -> VisionLanguageModel:
    return load_vl(str(save_tiny_vl("blip", tmp_path_factory.mktemp("vl"))))


def test_lines_are_read_once_each_in_order(tmp_path: Path) -> None:
    path = tmp_path / "bank.txt"
    path.write_bytes("  a red mug\r\n\n blå kopp \na red mug\n\u00a0\n".encode())
    assert read_lines(path) == ["a red mug", "blå kopp"]


def test_a_bank_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "latin.txt").write_bytes("blå\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"empty\.txt holds no phrase"):
        read_lines(tmp_path / "empty.txt")
    with pytest.raises(DataError, match=r"latin\.txt as UTF-8 text, one phrase a line"):
        read_lines(tmp_path / "latin.txt")
    with pytest.raises(DataError, match=r"missing\.txt"):
        read_lines(tmp_path / "missing.txt")


def test_every_word_meets_every_template() -> None:
    made = phrases.from_words(["red", "{w}"], ["in {w}", "{w} but {w}"])
    assert made == ["in red", "in {w}", "red but red", "{w} but {w}"]
    assert len(phrases.from_words(["a", "b"])) == 2 * len(phrases.DEFAULT_TEMPLATES)


def test_a_bank_holds_the_frozen_models_vectors(vl: VisionLanguageModel) -> None:
    bank = phrases.build_bank(vl, phrases.WordLists(PHRASES, ["in red"]), batch=2)
    with torch.no_grad():
        expected = vl.encode_words(vl.words(PHRASES))
    torch.testing.assert_close(bank.vectors, expected, atol=1e-5, rtol=0)
    assert not bank.vectors.requires_grad


def test_nearest_phrases_are_the_best_by_dot_product(vl: VisionLanguageModel) -> None:
    bank = phrases.build_bank(vl, phrases.WordLists(PHRASES, ["in red"]))
    gallery = torch.randn(5000, vl.width, generator=torch.Generator().manual_seed(0))
    nearest = bank.nearest(gallery, 3)
    scores = gallery @ bank.vectors.T
    assert nearest.shape == (5000, 3)
    for row in (0, 17, 4096, 4999):
        assert nearest[row].tolist() == sorted(range(5), key=lambda i: -float(scores[row, i]))[:3]
    assert bank.nearest(gallery[:2], 99).shape == (2, 5)


def test_a_phrase_finds_itself(vl: VisionLanguageModel) -> None:
    bank = phrases.build_bank(vl, phrases.WordLists(PHRASES, ["in red"]))
    assert bank.nearest(bank.vectors, 1)[:, 0].tolist() == list(range(5))


def test_each_list_has_its_own_modifiers(vl: VisionLanguageModel) -> None:
    shirts = phrases.WordLists(["a red shirt", "a red mug"], ["with long sleeves", "striped"])
    mugs = phrases.WordLists(["a red mug", "a blue mug"], ["in blue"])
    bank = phrases.build_bank(vl, shirts, mugs)
    assert bank.phrases == ["a red shirt", "a red mug", "a blue mug"]  # what both have is the first one's
    drawn = [bank.draw_modifiers([0, 1, 2], random.Random(seed)) for seed in range(50)]
    assert {modifier for first, second, _ in drawn for modifier in (first, second)} == set(shirts.modifiers)
    assert {third for _, _, third in drawn} == {"in blue"}
    assert drawn[7] == bank.draw_modifiers([0, 1, 2], random.Random(7))


def test_targets_are_their_formula_for_each_list(vl: VisionLanguageModel) -> None:
    shirts = phrases.WordLists(["a red shirt", "a red mug"], ["striped"], Target(residual=0.2, push=1.5))
    bank = phrases.build_bank(vl, shirts, phrases.WordLists(["a blue mug"], ["in red"], Target(0.7)))
    changed, gallery = functional.normalize(
        torch.randn(2, 3, vl.width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    plain = bank.vectors
    moved = [
        plain[0] + 1.5 * (changed[0] - plain[0]) + 0.2 * (gallery[0] - plain[0]),
        plain[1] + 1.5 * (changed[1] - plain[1]) + 0.2 * (gallery[1] - plain[1]),
        changed[2] + 0.7 * (gallery[2] - plain[2]),
    ]
    expected = functional.normalize(torch.stack(moved), dim=-1)
    torch.testing.assert_close(bank.targets([0, 1, 2], changed, gallery), expected)


def test_a_target_can_have_a_share_of_the_words_alone(vl: VisionLanguageModel) -> None:
    shirts = phrases.WordLists(["a red shirt"], ["striped"], Target(residual=1.0, push=0.0, alone=0.4))
    bank = phrases.build_bank(vl, shirts, phrases.WordLists(["a blue mug"], ["in red"], Target(0.7)))
    changed, gallery, said = functional.normalize(
        torch.randn(3, 2, vl.width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    plain = bank.vectors[1]
    expected = torch.stack([gallery[0] + 0.4 * said[0], changed[1] + 0.7 * (gallery[1] - plain)])
    found = bank.targets([0, 1], changed, gallery, said)
    torch.testing.assert_close(found, functional.normalize(expected, dim=-1))
    with pytest.raises(ValueError, match="share of the modifiers alone"):
        bank.targets([0, 1], changed, gallery)
    assert not phrases.build_bank(vl, phrases.WordLists(["a blue mug"], ["in red"])).needs_modifiers


def test_a_step_is_no_longer_than_its_reach(vl: VisionLanguageModel) -> None:
    words = phrases.WordLists(["a red shirt"], ["striped"], Target(residual=1.0, push=2.0, reach=0.5))
    bank = phrases.build_bank(vl, words)
    gallery = functional.normalize(
        torch.randn(3, vl.width, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    away = functional.normalize(torch.randn(vl.width, generator=torch.Generator().manual_seed(1)), dim=-1)
    changed = bank.vectors + torch.stack([0 * away, 0.1 * away, 0.9 * away])
    expected = functional.normalize(gallery + torch.stack([0 * away, 0.2 * away, 0.5 * away]), dim=-1)
    torch.testing.assert_close(bank.targets([0, 0, 0], changed, gallery), expected)


def test_each_list_has_its_own_number_of_captions(vl: VisionLanguageModel) -> None:
    shirts = phrases.WordLists(["a red shirt", "a red mug"], ["striped"])
    bank = phrases.build_bank(vl, shirts, phrases.WordLists(["a blue mug"], ["in red"], Target(captions=2)))
    assert bank.captions == 2
    nearest = torch.tensor([[0, 2], [2, 0], [1, 0]])
    drawn = [bank.draw_captions(nearest, random.Random(seed)) for seed in range(50)]
    assert {first for first, _, _ in drawn} == {0}
    assert {second for _, second, _ in drawn} == {2, 0}
    assert {third for _, _, third in drawn} == {1}


def test_phrases_that_cannot_fit_are_an_error_before_training(vl: VisionLanguageModel) -> None:
    long = " ".join(["red"] * 14)
    short = phrases.WordLists(["red"], ["but with long sleeves in"])
    # 14 + 2 + 2 special tokens of 20; the other list's modifiers never meet the long phrase
    phrases.build_bank(vl, phrases.WordLists([long], ["in red"]), short)
    with pytest.raises(DataError, match=r"longest phrase \(14 tokens\) and the longest modifier \(5\)"):
        phrases.build_bank(vl, phrases.WordLists(["red", long], ["in red", "but with long sleeves in"]))
    with pytest.raises(DataError, match="got 0 and 1"):
        phrases.build_bank(vl, phrases.WordLists([], ["in red"]))
