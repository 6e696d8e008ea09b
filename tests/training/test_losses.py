"""The losses against explicit loops, closed forms and torch's own."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="torch is not installed: losses belong to training")

import torch
from torch import Tensor
from torch.nn import functional

from image2sentence.training import losses


def rows(*shape: int, seed: int = 0) -> Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=-1)


def looped_info_nce(queries: Tensor, targets: Tensor, pool: Tensor, temperature: float) -> float:
    total = 0.0
    for i in range(len(queries)):
        scores = [math.exp(float(queries[i] @ other) / temperature) for other in pool]
        total -= math.log(math.exp(float(queries[i] @ targets[i]) / temperature) / sum(scores))
    return total / len(queries)


def test_info_nce_is_its_formula() -> None:
    queries, targets = rows(6, 8), rows(6, 8, seed=1)
    ours = losses.info_nce(queries, targets, 0.1)
    assert ours.item() == pytest.approx(looped_info_nce(queries, targets, targets, 0.1), rel=1e-5)


def test_symmetric_info_nce_is_the_mean_of_both_ways() -> None:
    queries, targets = rows(6, 8), rows(6, 8, seed=1)
    there = looped_info_nce(queries, targets, targets, 0.1)
    back = looped_info_nce(targets, queries, queries, 0.1)
    ours = losses.info_nce(queries, targets, 0.1, symmetric=True)
    assert ours.item() == pytest.approx((there + back) / 2, rel=1e-5)


def test_a_queue_is_a_bigger_batch_for_these_rows() -> None:
    queries, targets, queue = rows(4, 8), rows(4, 8, seed=1), rows(9, 8, seed=2)
    queued = losses.info_nce(queries, targets, 0.1, queue=queue)
    assert queued.item() == pytest.approx(
        looped_info_nce(queries, targets, torch.cat([targets, queue]), 0.1), rel=1e-5
    )
    assert queued > losses.info_nce(queries, targets, 0.1)


def test_symmetric_info_nce_queues_only_targets() -> None:
    queries, targets, queue = rows(4, 8), rows(4, 8, seed=1), rows(9, 8, seed=2)
    there = losses.info_nce(queries, targets, 0.1, queue=queue)
    back = losses.info_nce(targets, queries, 0.1)
    both = losses.info_nce(queries, targets, 0.1, symmetric=True, queue=queue)
    assert both.item() == pytest.approx((there + back).item() / 2, rel=1e-6)


def test_a_learned_temperature_gets_a_gradient() -> None:
    temperature = torch.tensor(0.1, requires_grad=True)
    losses.info_nce(rows(6, 8), rows(6, 8, seed=1), temperature).backward()
    step = 1e-3
    up, down = (losses.info_nce(rows(6, 8), rows(6, 8, seed=1), 0.1 + sign * step).item() for sign in (1, -1))
    assert temperature.grad is not None
    assert temperature.grad.item() == pytest.approx((up - down) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("temperature", [0.1, 1.0])  # at 0.1 a row is nearly all its own target
def test_kl_is_zero_for_equals_and_its_formula_otherwise(temperature: float) -> None:
    queries, targets = rows(5, 8), rows(5, 8, seed=1)
    assert losses.similarity_kl(targets, targets, temperature).item() == pytest.approx(0, abs=1e-6)
    expected = 0.0
    for i in range(5):
        teacher = torch.softmax(targets[i] @ targets.T / temperature, -1)
        student = torch.softmax(queries[i] @ targets.T / temperature, -1)
        expected += float((teacher * (teacher / student).log()).sum()) / 5
    assert losses.similarity_kl(queries, targets, temperature).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 0


def test_squared_distance_of_unit_rows_is_two_minus_two_cosines() -> None:
    queries, targets = rows(7, 8), rows(7, 8, seed=1)
    expected = (2 - 2 * (queries * targets).sum(-1)).mean()
    torch.testing.assert_close(losses.mean_squared(queries, targets), expected)


def test_matching_is_torchs_binary_cross_entropy() -> None:
    positive, negative = torch.tensor([3.0, -1.0, 80.0]), torch.tensor([0.5, -60.0, 2.0])
    logits, truth = torch.cat([positive, negative]), torch.tensor([1.0] * 3 + [0.0] * 3)
    expected = functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(losses.matching(positive, negative), expected)


def test_hard_negatives_are_never_the_picture_itself() -> None:
    targets = torch.eye(6)
    queries = torch.full(
        (6, 6), 6**-0.5
    )  # every target equally near: the diagonal is as tempting as the rest
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([losses.hard_negatives(queries, targets, 0.05, generator) for _ in range(200)])
    assert not (drawn == torch.arange(6)).any()
    assert all(len(set(column.tolist())) == 5 for column in drawn.T)


def twice(once: Tensor) -> Tensor:
    """Each row and, behind them all, each row again."""
    return torch.cat([once, once])


def test_a_copy_is_never_a_hard_negative() -> None:
    targets = twice(rows(4, 8))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([losses.hard_negatives(targets, targets, 0.01, generator) for _ in range(200)])
    own = torch.arange(8)
    assert not (drawn % 4 == own % 4).any()


def test_a_batch_of_one_picture_has_no_hard_negative_and_a_finite_loss() -> None:
    same = rows(1, 8).expand(6, 8)
    drawn = losses.hard_negatives(same, same, 0.05)
    assert drawn.tolist() == [-1] * 6
    logits = torch.tensor([3.0, -1.0])
    loss = losses.matching(logits, torch.zeros(2)[drawn[:2] >= 0])
    torch.testing.assert_close(loss, functional.softplus(-logits).mean() / 2)
    assert losses.info_nce(same, same, 0.05).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("symmetric", [False, True])
def test_copies_in_batch_and_queue_are_not_contrasted(symmetric: bool) -> None:
    queries, targets = rows(4, 8), rows(4, 8, seed=1)
    once = losses.info_nce(queries, targets, 0.1, symmetric=symmetric)
    queued = losses.info_nce(queries, targets, 0.1, symmetric=symmetric, queue=targets[:1])
    pool = [torch.cat([targets, targets[:1]])] * 4
    pool[0] = targets
    expected = (
        sum(looped_info_nce(queries[i : i + 1], targets[i : i + 1], pool[i], 0.1) for i in range(4)) / 4
    )
    if symmetric:
        expected = (expected + looped_info_nce(targets, queries, queries, 0.1)) / 2
    assert queued.item() == pytest.approx(expected, rel=1e-5)
    pairs = losses.info_nce(twice(targets), twice(targets), 0.001, symmetric=symmetric)
    assert pairs.item() == pytest.approx(0, abs=1e-5), "copies that count as wrong would leave log 2"
    assert torch.isfinite(once)


def test_copies_are_left_out_of_local_alignment() -> None:
    patches = twice(rows(3, 5, 8, seed=1))
    attention = torch.eye(5)[[0, 3]].expand(6, 2, 5)
    own = rows(3, 4, seed=3)
    copies = losses.same_rows(twice(own), twice(own))
    with_copies = losses.local_alignment(patches[:, [0, 3]], patches, attention, 0.001)
    without = losses.local_alignment(patches[:, [0, 3]], patches, attention, 0.001, copies)
    assert with_copies.item() == pytest.approx(math.log(2), rel=1e-3)
    assert without.item() == pytest.approx(0, abs=1e-4)


def test_what_is_a_copy_is_told_in_float32() -> None:
    near = rows(1, 64)
    other = functional.normalize(near + 0.02 * rows(1, 64, seed=5), dim=-1)
    both = torch.cat([near, other])
    with torch.autocast("cpu", torch.bfloat16):
        assert not losses.same_rows(both, both).any()
        assert losses.same_rows(twice(both), twice(both)).sum() == 4


def test_hard_negatives_are_near() -> None:
    targets = functional.normalize(
        torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 0.1, 0.9]]), dim=-1
    )
    drawn = losses.hard_negatives(targets, targets, 0.02, torch.Generator().manual_seed(0))
    assert drawn.tolist() == [1, 0, 3, 2]


def test_local_alignment_is_its_formula() -> None:
    tokens, patches = rows(3, 2, 8), rows(3, 5, 8, seed=1)
    attention = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(2))
    expected = 0.0
    for place in range(2):
        described = functional.normalize((attention[:, place, :, None] * patches).sum(1), dim=-1)
        expected += looped_info_nce(tokens[:, place], described, described, 0.1) / 2
    ours = losses.local_alignment(tokens, patches, attention, 0.1)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


def test_local_alignment_is_lower_where_tokens_are_their_patches() -> None:
    patches = rows(4, 6, 8, seed=1)
    attention = torch.eye(6)[[0, 3]].expand(4, 2, 6)
    own = losses.local_alignment(patches[:, [0, 3]], patches, attention, 0.1)
    others = losses.local_alignment(patches[:, [1, 2]], patches, attention, 0.1)
    swapped = losses.local_alignment(patches[:, [3, 0]], patches, attention, 0.1)
    assert own < 0.5 * others
    assert own < 0.5 * swapped


def test_resized_attention_keeps_its_place_and_its_sum() -> None:
    attention = torch.zeros(1, 2, 4, 4)
    attention[0, 0, 0, 0] = attention[0, 1, 3, 1] = 1.0
    for side in (3, 4, 9):
        resized = losses.resize_attention(attention, side)
        assert resized.shape == (1, 2, side * side)
        torch.testing.assert_close(resized.sum(-1), torch.ones(1, 2))
        row, column = divmod(int(resized[0, 1].argmax()), side)
        assert resized[0, 0].argmax() == 0
        assert row == side - 1
        assert column in (1, 2, 3)
    torch.testing.assert_close(losses.resize_attention(attention, 4), attention.flatten(2))


def test_hard_negatives_are_drawn_by_softmax_over_the_targets_of_a_row() -> None:
    targets = torch.eye(3)
    queries = functional.normalize(torch.tensor([[1.0, 0.6, 0.2], [0.1, 1.0, 0.5], [0.9, 0.1, 1.0]]), dim=-1)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([losses.hard_negatives(queries, targets, 0.5, generator) for _ in range(3_000)])
    for row, (one, other) in enumerate([(1, 2), (0, 2), (0, 1)]):
        odds = math.exp(float(queries[row, one] - queries[row, other]) / 0.5)
        share = float((drawn[:, row] == one).float().mean())
        assert share == pytest.approx(odds / (1 + odds), abs=0.03)
