"""Mutated uploads and filters in a short form; `python -m tests.stress.fuzz` is the long one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from tests.stress import fuzz
from tests.stress.attacks import make_gallery, serving

UPLOADS = int(os.environ.get("I2S_FUZZED_UPLOADS", "200"))
FILTERS = int(os.environ.get("I2S_FUZZED_FILTERS", "300"))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    gallery = make_gallery(tmp_path_factory.mktemp("fuzzed"), entries=200, letters=1_000)
    with serving(gallery) as (port, _):
        yield port


def test_mutated_uploads_are_answered_in_time_and_without_5xx(port: int) -> None:
    answers = fuzz.send(port, fuzz.upload_request(7), UPLOADS)
    assert not answers.bad, answers
    assert answers.statuses[200], answers
    assert answers.statuses[422], answers


def test_mutated_filters_are_answered_in_time_and_without_5xx(port: int) -> None:
    answers = fuzz.send(port, fuzz.filter_request(7), FILTERS)
    assert not answers.bad, answers
    assert answers.statuses[200], answers
    assert answers.statuses[422], answers
