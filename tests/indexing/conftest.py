"""Mounts for the tests of indexing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Mounts for a test; skips it where they are not permitted."""
    mounted: list[Path] = []

    def mount_at(place: Path, *options: str) -> None:
        done = subprocess.run(["mount", *options, os.fspath(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        mounted.append(place)

    if not sys.platform.startswith("linux"):
        pytest.skip("mounts of Linux")
    yield mount_at
    for place in reversed(mounted):
        subprocess.run(["umount", os.fspath(place)], check=False, capture_output=True)
