"""Last search of each gallery, for queries like "result 3".

Kept is which picture had which rank: numbers only, no words, names or pictures, in a file of one's own account that
nobody else can read. An id of a gallery is never given to another picture, so an old rank leads to the picture it
meant or to none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from image2sentence.gallery.base import GalleryStore
    from image2sentence.query import Answer

STATE_VARIABLE = "IMAGE2SENTENCE_STATE"

_MAX_BYTES = 1 << 20


def state_folder() -> Path:
    """$IMAGE2SENTENCE_STATE, else where this system keeps what programs remember for their user."""
    return Path(os.environ.get(STATE_VARIABLE) or click.get_app_dir("image2sentence"))


def remember(gallery: GalleryStore, answer: Answer) -> None:
    """Keep the ranks of an answer in place of those of the search before; says so where that cannot be done."""
    ranks = {str(result.rank): result.id for result in answer.results}
    file = _file(gallery)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="ascii") as draft:
            json.dump({"gallery": _identity(gallery), "ranks": ranks}, draft)
        os.replace(draft.name, file)
    except OSError as error:
        click.echo(f"--like cannot refer to this search: {file}: {error.strerror}", err=True)


def recall(gallery: GalleryStore, ranks: Sequence[int]) -> list[int]:
    """The ids of the pictures with these ranks in the last search. Raises ClickException for one that had none."""
    if not ranks:
        return []
    known = _read(gallery)
    missing = [rank for rank in ranks if not isinstance(known.get(str(rank)), int)]
    if missing:
        shown = (
            f"it showed ranks {min(map(int, known))} to {max(map(int, known))}" if known else "none is known"
        )
        raise click.ClickException(
            f"the last search of this gallery has no result {missing[0]} ({shown}): search first, or name a picture "
            "with --image FILE or --item ID"
        )
    return [known[str(rank)] for rank in ranks]


def _read(gallery: GalleryStore) -> dict[str, Any]:
    """Ranks and ids; empty where nothing is known, or what is known is of a gallery that was here before."""
    file = _file(gallery)
    try:
        with open(file, encoding="ascii") as stream:
            kept = json.loads(stream.read(_MAX_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise click.ClickException(f"{file} cannot be read ({error}): delete it, and search again") from error
    same = isinstance(kept, dict) and kept.get("gallery") == _identity(gallery)
    ranks = kept.get("ranks") if same else None
    return (
        {rank: picture_id for rank, picture_id in ranks.items() if rank.isdecimal()}
        if isinstance(ranks, dict)
        else {}
    )


def _identity(gallery: GalleryStore) -> str:
    """Tells a gallery from another that was in the same place before."""
    return gallery.id or gallery.created


def _file(gallery: GalleryStore) -> Path:
    name = hashlib.sha256(gallery.name.encode()).hexdigest()[:32]
    return state_folder() / "last" / f"{name}.json"
