"""The loss that teaches what pictures show and what captions allow, against its formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

import torch

from recipes.bundled import language
from recipes.bundled.attribute_loss import AttributeLoss, AttributeTable

SUBJECTS = {"{g} running": 0, "red apple": 1}
DRAWN = {"source": "drawn", "type": "shirt", "colour": "red", "pattern": "plain", "pattern_colour": ""}
PHOTO = {"source": "photo", "type": "Shirt", "kids": "True"}
EMOJI = {"source": "emoji", "thing": "red apple", "style": "noto", "skin_tone": ""}
SCALE = 15.0  # where the learned one starts


@pytest.fixture
def table() -> AttributeTable:
    return AttributeTable([DRAWN, PHOTO, EMOJI], SUBJECTS)


@pytest.fixture
def loss(table: AttributeTable) -> AttributeLoss:
    """Every value has an axis of its own, so that dot products can be written down."""
    made = AttributeLoss(table, sum(table.sizes), 1.0)
    with torch.no_grad():
        made.values.copy_(torch.eye(sum(table.sizes)))
    return made


def axis(table: AttributeTable, name: str, value: str) -> int:
    options = tuple(SUBJECTS) if name == "thing" else language.VALUES[name.split(" ")[0]]
    return sum(table.sizes[: table.names.index(name)]) + options.index(value)


def cross_entropy(table: AttributeTable, name: str, product: float, right: int = 1) -> float:
    """`right` values of `name` have a dot product of `product`, its others of 0."""
    mass = right * math.exp(SCALE * product)
    return math.log((mass + table.sizes[table.names.index(name)] - right) / mass)


def test_unknown_and_inapplicable_values_are_not_taught(table: AttributeTable) -> None:
    known = [{table.names[c] for c in np.flatnonzero(row >= 0)} for row in table.shown]
    assert known == [{"type of drawn", "colour", "pattern"}, {"type of photo", "kids"}, {"thing", "style"}]


def test_a_picture_is_pulled_to_each_of_its_own_values(table: AttributeTable, loss: AttributeLoss) -> None:
    vector = torch.zeros(1, sum(table.sizes))
    for name in ("type of drawn", "colour"):
        vector[0, axis(table, name, DRAWN[name.split(" ")[0]])] = math.sqrt(0.5)
    said = table.of_captions([language.Caption("one", "drawn")])
    expected = sum(cross_entropy(table, name, math.sqrt(0.5)) for name in ("type of drawn", "colour"))
    expected += cross_entropy(table, "pattern", 0.0)  # nothing of it in the vector: as likely as any
    got = loss(vector, torch.zeros_like(vector), table.of_pictures(np.array([0])), *said)
    assert got.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_a_caption_may_mean_any_value_that_it_allows(table: AttributeTable, loss: AttributeLoss) -> None:
    two = frozenset({"red", "navy"})
    caption = language.Caption("red or navy", "drawn", {"colour": two})
    vector = torch.zeros(1, sum(table.sizes))
    for value in two:
        vector[0, axis(table, "colour", value)] = math.sqrt(0.5)
    nothing = torch.full((1, len(table.names)), -1)
    got = loss(torch.zeros_like(vector), vector, nothing, *table.of_captions([caption]))
    assert got.item() == pytest.approx(
        cross_entropy(table, "colour", math.sqrt(0.5), right=2), rel=1e-5, abs=1e-6
    )


def test_the_two_ways_to_name_a_type_do_not_meet(table: AttributeTable) -> None:
    drawn, photo = (
        language.Caption("a shirt", source, {"type": frozenset({value})})
        for source, value in (("drawn", "shirt"), ("photo", "Shirt"))
    )
    allowed, stated = table.of_captions([drawn, photo])
    assert [allowed[row].nonzero().flatten().tolist() for row in range(2)] == [
        [axis(table, "type of drawn", "shirt")],
        [axis(table, "type of photo", "Shirt")],
    ]
    assert [table.names[int(row.nonzero())] for row in stated] == ["type of drawn", "type of photo"]


def test_what_nobody_speaks_about_has_no_gradient(table: AttributeTable, loss: AttributeLoss) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, sum(table.sizes)), dim=-1).requires_grad_()
    captions = [
        language.Caption("nothing", "emoji", {}, ""),
        language.Caption("apple", "emoji", {}, "red apple"),
    ]
    texts = torch.nn.functional.normalize(torch.randn(2, sum(table.sizes)), dim=-1).requires_grad_()
    loss(vectors, texts, table.of_pictures(np.arange(3)), *table.of_captions(captions)).backward()
    assert vectors.grad is not None
    assert texts.grad is not None
    assert torch.isfinite(vectors.grad).all()
    assert torch.isfinite(texts.grad).all()
    assert not texts.grad[0].any()
    assert texts.grad[1].any()
