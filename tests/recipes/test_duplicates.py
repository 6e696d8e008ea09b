"""Copies of a picture in training: what is compared, and that copies are left out where they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the recipes need the [train] extra")

import torch

from image2sentence.catalogue import write_catalogue
from image2sentence.training import losses
from recipes.miniature import duplicates
from recipes.miniature.duplicates import ONCE, ROWS, TWICE, UNMASKED, compare, prepare, table
from tiny_vl import save_tiny_vl


def test_copies_lie_beside_their_pictures_and_no_picture_asked_with_is_trained_on(tmp_path: Path) -> None:
    source = write_catalogue(tmp_path / "drawn", 12, 1, size=64) / "images"
    made = prepare(source, tmp_path / "work")
    once, twice, held = (sorted(folder.iterdir()) for folder in (made.once, made.twice, made.held))
    assert (len(once), len(twice), len(held)) == (9, 18, 3)
    contents = [file.read_bytes() for file in once]
    assert sorted(contents * 2) == sorted(file.read_bytes() for file in twice)
    assert not {file.read_bytes() for file in held} & set(contents)


def test_copies_are_negatives_inside_and_not_afterwards() -> None:
    rows = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=-1)
    pair = torch.tensor([[False, True, False], [True, False, False], [False, False, False]])
    assert torch.equal(losses.same_rows(rows, rows), pair)
    with duplicates.copies_as_negatives(True):
        assert not losses.same_rows(rows, rows).any()
    assert torch.equal(losses.same_rows(rows, rows), pair)


def test_every_row_is_trained_and_compared_with_each_once(tmp_path: Path) -> None:
    vl = save_tiny_vl("conv_blip", tmp_path / "vl", length=64)
    made = prepare(write_catalogue(tmp_path / "drawn", 16, 1, size=64) / "images", tmp_path / "work")
    few = {"steps": 2, "save_every": 2, "warmup": 1, "batch": 8, "lar_batch": 4, "precision": "no"}
    found = compare(made, str(vl), "tiny/32", tmp_path / "work", [0], **few)
    assert tuple(found) == ROWS
    assert all(len(values) == 4 and set(values) <= {0.0, 100.0} for values in found.values())
    again = compare(made, str(vl), "tiny/32", tmp_path / "work", [0], **few)
    assert all(np.array_equal(found[row], again[row]) for row in ROWS)


def test_the_table_has_paired_differences() -> None:
    text = table({ONCE: np.array([100.0, 0, 0, 0]), TWICE: np.array([100.0, 0, 0, 0]), UNMASKED: np.zeros(4)})
    assert f"| {ONCE} | 25.0 (0.0 to 75.0) |  |" in text
    assert f"| {TWICE} | 25.0 (0.0 to 75.0) | +0.0 (+0.0 to +0.0) |" in text
    assert f"| {UNMASKED} | 0.0 (0.0 to 0.0) | -25.0 " in text
