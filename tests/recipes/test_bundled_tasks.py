"""Tasks as vectors: what the studies of targets and sentences ask."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

import torch

from image2sentence.evaluation.protocol import Query
from image2sentence.training.settings import Target
from recipes.bundled import targets
from recipes.bundled.both_sides import cell
from recipes.bundled.evaluate import CHANGES
from recipes.bundled.targets import TARGETS
from recipes.bundled.tasks import Task


def query(reference: str, *answers: str) -> Query:
    return Query(f"about {reference}", reference, ("in red",), answers)


def task() -> Task:
    gallery = np.eye(4, dtype=np.float32)
    return Task("emoji", "style", ["a", "b", "c", "d"], gallery, [query("b", "a"), query("c", "d")])


def test_references_are_the_gallerys_vectors() -> None:
    assert task().name == "emoji: style"
    assert task().places == [1, 2]
    assert torch.equal(task().references, torch.eye(4)[1:3])


def test_the_reference_is_left_out_of_the_ranking() -> None:
    nearest_is_itself = torch.tensor([[0.5, 0.9, 0.1, 0.2], [0.1, 0.2, 0.9, 0.5]])
    assert task().recall(nearest_is_itself) == 100
    assert task().recall(torch.tensor([[0.5, 0.9, 0.1, 0.2], [0.6, 0.2, 0.9, 0.5]])) == 50


def test_an_answer_counts_among_as_many_as_are_asked_for() -> None:
    second_and_third = torch.tensor([[0.4, 0.9, 0.1, 0.5], [0.6, 0.5, 0.9, 0.4]])
    assert [task().recall(second_and_third, k) for k in (1, 2, 3)] == [0, 50, 100]


def test_average_precision_counts_the_places_of_right_answers() -> None:
    second_and_first = torch.tensor([[0.4, 0.9, 0.1, 0.5], [0.4, 0.5, 0.9, 0.6]])
    assert task().average_precision(second_and_first) == 75


def test_a_gallery_may_hold_a_share_of_other_vectors() -> None:
    queries = torch.tensor([[0.5, 0.0, 0.1, 0.2], [0.1, 0.2, 0.0, 0.5]])
    swapped = task().gallery[[1, 0, 3, 2]]  # as if every picture were described as its neighbour
    cells = [cell(task(), queries, swapped, share) for share in (0.0, 0.4, 1.0)]
    assert cells == ["100.0 · 100.0 · 100.0", "100.0 · 100.0 · 100.0", "0.0 · 100.0 · 33.3"]


def test_the_shipped_settings_are_among_what_the_study_asks() -> None:
    asked = {(target.residual, target.push, target.alone, target.captions) for target in TARGETS}
    shipped = json.loads((Path(targets.__file__).parent / "query.json").read_text())["targets"]
    for target in (Target(**settings) for settings in shipped):
        assert (target.residual, target.push, target.alone, target.captions) in asked
    assert len(asked) == len(TARGETS) == 126
    assert {f"{kind}: {change}" for kind, changes in CHANGES.items() for change, _ in changes} >= {
        "emoji: style"
    }
