"""All attacks at once in a short form; `python -m tests.stress.crowd` is the long one."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from tests.stress import crowd
from tests.stress.attacks import make_gallery

MEMORY = 1_024


@pytest.mark.skipif(sys.platform != "linux", reason="memory of processes is read from /proc")
def test_honest_clients_are_served_while_all_attacks_go_on_in_one_gibibyte(tmp_path: Path) -> None:
    outcome = crowd.run(make_gallery(tmp_path / "g", entries=500, letters=2_000), 8.0, MEMORY)
    assert not outcome.problems(MEMORY), outcome
    assert outcome.attacked.statuses[200], outcome


def test_what_must_not_be_is_named() -> None:
    fine = crowd.Served(Counter({200: 9, 429: 1}), 0.01, 0.02)
    failed = crowd.Served(Counter({200: 9, 500: 1, 0: 1}), 0.01, 0.02)
    assert crowd.Outcome(failed, fine, 900.0, True, True).problems(MEMORY) == []
    assert len(crowd.Outcome(fine, failed, 1_100.0, False, False).problems(MEMORY)) == 3
