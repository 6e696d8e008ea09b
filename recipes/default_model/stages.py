"""Runs the recipe's stages: each writes its result whole and is skipped while what it was made from is the same."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import click

RECORD = "stage.json"


def digest(*parts: Any) -> str:
    """SHA-256 of settings, strings and files' contents."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            found.update(part.read_bytes())
        else:
            plain = asdict(part) if is_dataclass(part) and not isinstance(part, type) else part
            found.update(json.dumps(plain, sort_keys=True).encode())
    return found.hexdigest()


def stage(folder: Path, made_from: str, make: Callable[[Path], None]) -> str:
    """Has `make` fill `folder` unless it was filled from the same already; returns `made_from`, for what comes next.

    `make` may go on with what an interruption has left in `folder`; what it leaves counts once it returns.
    """
    record = folder / RECORD
    if record.is_file() and json.loads(record.read_text())["made_from"] == made_from:
        click.echo(f"{folder.name}: as it was")
        return made_from
    record.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    make(folder)
    minutes = (time.monotonic() - started) / 60
    draft = record.with_suffix(".draft")
    draft.write_text(json.dumps({"made_from": made_from, "minutes": round(minutes, 1)}) + "\n")
    draft.replace(record)
    click.echo(f"{folder.name}: {minutes:.1f} minutes")
    return made_from
