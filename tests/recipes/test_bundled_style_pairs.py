"""The loss that teaches what two drawings of one thing have in common, and where its pairs come from."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

import torch

from recipes.bundled import data
from recipes.bundled.style_pairs import StylePairLoss, StylePairTable
from recipes.bundled.train_vl import Batches, Settings

TONES = ("light skin tone", "dark skin tone")
DRAWN = {"source": "drawn", "type": "shirt", "colour": "red", "pattern": "plain", "pattern_colour": ""}


def emoji(thing: str, style: str, tone: str = "", gender: str = "") -> dict[str, str]:
    return {"source": "emoji", "thing": thing, "style": style, "skin_tone": tone, "gender_word": gender}


RECORDS = [
    DRAWN,
    *[emoji("waving hand", style, tone) for tone in TONES for style in ("noto", "fluent_3d", "fluent_flat")],
    emoji("{g} running", "noto", gender="man"),
    emoji("{g} running", "fluent_flat", gender="woman"),  # another person: nobody's pair
    emoji("red apple", "noto"),
    emoji("red apple", "fluent_3d"),
]


def identity(row: int) -> tuple[str, ...]:
    record = RECORDS[row]
    return record["thing"], record["skin_tone"], record["gender_word"]


def test_pairs_are_one_emoji_in_two_styles() -> None:
    table = StylePairTable(RECORDS)
    seen = set()
    for seed in range(50):
        pairs = table.draw(3, np.random.default_rng(seed))
        assert pairs.shape == (2, 3)
        for first, second in pairs.T:
            assert identity(first) == identity(second)
            assert RECORDS[first]["style"] != RECORDS[second]["style"]
        assert len({identity(row) for row in pairs[0]}) == 3
        seen |= set(pairs.reshape(-1).tolist())
    assert seen == {1, 2, 3, 4, 5, 6, 9, 10}


def test_more_pairs_than_there_are_is_an_error() -> None:
    with pytest.raises(ValueError, match="asked for 4 emoji in 2 styles"):
        StylePairTable(RECORDS).draw(4, np.random.default_rng(0))


def test_the_loss_is_infonce_from_the_moved_picture_to_its_pair() -> None:
    loss = StylePairLoss(styles=2, width=4, weight=0.5, temperature=0.25)
    with torch.no_grad():
        loss.styles.copy_(torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 1.0]]))
    pictures = torch.eye(4)[[0, 1, 2]]  # the third has no pair, and is a wrong answer
    got = loss(pictures, torch.tensor([0, 1, -1]), torch.tensor([[1], [0], [-1]]))
    # Neither resembles its pair: moved by (0, 0, 0, 1) or back, each is as near to it as to the third.
    assert got.item() == pytest.approx(0.5 * math.log(2), rel=1e-5)
    pictures = torch.stack(
        [torch.eye(4)[0], (torch.eye(4)[0] + torch.eye(4)[3]) / math.sqrt(2), torch.eye(4)[2]]
    )
    got = loss(pictures, torch.tensor([0, 1, -1]), torch.tensor([[1], [0], [-1]]))
    there = 1.0  # the dot product of the first, moved, with the second: the same vector
    back = 1 / math.sqrt(2) / math.sqrt(0.5 + (1 / math.sqrt(2) - 1) ** 2)
    expected = [math.log(1 + math.exp(-dot / 0.25)) for dot in (there, back)]
    assert got.item() == pytest.approx(0.5 * sum(expected) / 2, rel=1e-5)


def test_a_batch_without_pairs_costs_nothing() -> None:
    loss = StylePairLoss(styles=2, width=4, weight=1.0)
    got = loss(torch.eye(4), torch.full((4,), -1), torch.full((4, 1), -1))
    assert got.item() == 0


def test_a_batch_says_where_each_pictures_pair_is() -> None:
    records = [*RECORDS, {"source": "photo", "type": "Shirt", "kids": "False"}]
    pictures = data.Pictures(np.zeros((len(records), data.SIDE, data.SIDE, 3), np.uint8), records)
    batches = Batches(pictures, Settings(batch=5, shares=(0.0, 0.0, 1.0), style_pairs=1.0))
    batch = batches.draw(0)
    index, captions, _ = batches.words_only(0)
    pairs = batch.extras[-1][:, 0].tolist()
    assert [caption.text for caption in batch.captions] == [caption.text for caption in captions]
    assert sorted(pairs) == [-1, 1, 2, 3, 4]
    for row, pair in enumerate(pairs):
        if pair >= 0:
            assert pairs[pair] == row
            assert identity(int(index[row])) == identity(int(index[pair]))


def test_rare_types_are_drawn_more_often_than_their_count_says() -> None:
    photos = [{"source": "photo", "type": kind, "kids": "False"} for kind in ["Shirt"] * 90 + ["Polo"] * 10]
    pictures = data.Pictures(np.zeros((100, data.SIDE, data.SIDE, 3), np.uint8), photos)
    drawn = {}
    for balance in (0.0, 1.0):
        settings = Settings(batch=100, shares=(0.0, 1.0, 0.0), balance=balance)
        batches = Batches(pictures, settings)
        drawn[balance] = np.mean([batches.words_only(step)[0] >= 90 for step in range(20)])
    assert drawn[0.0] == pytest.approx(0.1, abs=0.03)
    assert drawn[1.0] == pytest.approx(0.5, abs=0.04)


def test_all_styles_of_an_emoji_come_together_and_each_is_asked_for() -> None:
    pictures = data.Pictures(np.zeros((len(RECORDS), data.SIDE, data.SIDE, 3), np.uint8), RECORDS)
    settings = Settings(batch=6, shares=(0.0, 0.0, 1.0), style_pairs=1.0, drawings=3)
    batch = Batches(pictures, settings).draw(0)
    index, _, _ = Batches(pictures, settings).words_only(0)
    pairs = batch.extras[-1]
    assert pairs.shape == (6, 2)
    for row, others in enumerate(pairs.tolist()):
        assert sorted([row, *others]) == sorted({row, *others})
        shown = [RECORDS[int(index[place])] for place in (row, *others)]
        assert {record["style"] for record in shown} == {"noto", "fluent_3d", "fluent_flat"}
        assert len({record["skin_tone"] for record in shown}) == 1


def test_invented_subjects_come_in_all_styles_without_name_or_caption() -> None:
    things = [f"thing {number}" for number in range(8)]
    styles = ("noto", "fluent_3d", "fluent_flat")
    records = [emoji(thing, style, "dark skin tone") for thing in things for style in styles]
    pixels = np.random.default_rng(0).integers(0, 256, (len(records), data.SIDE, data.SIDE, 3), np.uint8)
    settings = Settings(batch=18, shares=(0.0, 0.0, 1.0), style_pairs=1.0, drawings=3, invented=4)
    batches = Batches(data.Pictures(pixels, records), settings)
    batch = batches.draw(0)
    shown, pairs = batch.extras[0], batch.extras[-1]
    assert len(batch.pixels) == len(batch.verdicts) == len(shown) == len(pairs) == 18 + 3 * 4
    assert len(batch.captions) == 18 * settings.captions
    assert (batch.verdicts[18:] == -1).all()
    assert ((shown[18:] >= 0).sum(1) == 1).all()
    for row, others in enumerate(pairs.tolist()):
        assert sorted(shown[[row, *others], batches.style].tolist()) == [0, 1, 2]
        assert (row >= 18) == all(other >= 18 for other in others)
    assert torch.equal(batch.pixels, batches.draw(0).pixels)


def test_emoji_that_look_alike_are_drawn_together() -> None:
    things = [f"thing {number}" for number in range(40)]
    records = [emoji(thing, style) for thing in things for style in ("noto", "fluent_3d")]
    angles = np.repeat(np.arange(40) * 2 * math.pi / 40, 2)  # a ring: neighbours in number look alike
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    def mean_distance(table: StylePairTable) -> float:
        nearest = []
        for seed in range(30):
            numbers = table.draw(6, np.random.default_rng(seed))[0] // 2
            apart = np.abs(numbers[:, None] - numbers)
            apart = np.minimum(apart, 40 - apart) + 40 * np.eye(6)
            nearest.append(apart.min(1).mean())
        return float(np.mean(nearest))

    assert mean_distance(StylePairTable(records, vectors=vectors)) < 0.7 * mean_distance(
        StylePairTable(records)
    )
