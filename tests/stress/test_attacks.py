"""The attacks of `tests.stress.attacks` in a short form: each is refused or answered, and costs little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from tests.stress import attacks, by_files

NEEDED = {by_files.hostile_graphs: ("onnx",), by_files.hostile_indexes: ("faiss",)}

MEMORY = 700.0
"""MiB that any attack may take: pictures that are decoded at once have 400 MB, and the processes that do it some."""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacks.make_gallery(tmp_path_factory.mktemp("attacked"))


@pytest.mark.parametrize(
    ("attack", "size", "expected"),
    [
        (attacks.endless_headers, 4, {0, 431}),
        (attacks.idle_connections, 4, {-1, 0, 503}),
        (attacks.slow_heads, 1, {0, 408}),
        (attacks.like_patterns, 2, {200, 422}),
        (attacks.many_likes, 2, {200, 422}),
        (attacks.listed_likes, 2, {422}),
        (attacks.slow_pictures, 2, {200, 422, 429}),  # a fast machine decodes them in time
        (attacks.large_pictures, 2, {200, 422, 429}),
        (attacks.small_bombs, 1, {200, 422, 429}),
        (attacks.pipelined_requests, 4, {0, 200}),
        (attacks.heads_of_parts, 1, {0, 400}),
        (attacks.parts_by_the_thousand, 1, {0, 400, 422}),
        (attacks.odd_json, 1, {422}),
        (attacks.heavy_lists, 1, {200, 422}),
        (attacks.odd_words, 1, {200, 422}),
        (attacks.other_sites, 2, {403}),
        (attacks.rebound_names, 2, {400}),
        (attacks.guessed_tokens, 20, {200, 401, 429}),  # the right one, where a place is free again
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_an_attack_is_refused_and_others_are_answered(
    gallery: Path, attack: Callable[[int, int], list[int]], size: int, expected: set[int]
) -> None:
    cost = attacks.cost_of(attack, gallery, size)
    assert set(cost.answers) <= expected, cost
    assert cost.health is not None, cost
    assert cost.memory < MEMORY, cost
    if attack is attacks.guessed_tokens:
        assert cost.answers[401] <= 10 + 5 * (cost.seconds + 1), cost


@pytest.mark.parametrize("attack", by_files.ATTACKS, ids=lambda one: one.__name__)
def test_files_of_others_are_refused_or_read_in_bounds(gallery: Path, attack: by_files.Attack) -> None:
    for module in NEEDED.get(attack, ()):
        pytest.importorskip(module)
    cost = by_files.cost_of(attack, gallery)
    assert set(cost.answers) <= {"answered", "refused"}, cost
    assert cost.memory < MEMORY, cost
