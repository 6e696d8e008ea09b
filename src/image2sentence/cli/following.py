"""`image2sentence index --watch`: what is said while a folder is followed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image2sentence.errors import ConfigError

if TYPE_CHECKING:
    from image2sentence.gallery.indexing import IndexReport
    from image2sentence.gallery.protocol import GalleryStore
    from image2sentence.places import Place

_CHANGES = ("encoded", "moved", "duplicates", "deleted")


def follow_and_tell(
    pictures: Place,
    gallery: GalleryStore,
    run: Callable[[], IndexReport],
    show: Callable[[IndexReport], None],
    as_json: bool,
) -> None:
    """Follow a folder until Ctrl-C: the first run is shown in full, of later ones what they changed."""
    from image2sentence.gallery.watching import follow

    if not isinstance(pictures, Path) or not pictures.is_dir():
        raise ConfigError(f"--watch follows a folder of this machine, and {pictures} is none")
    told = _Told()
    try:
        for number, report in enumerate(follow(pictures, gallery.own_folder, run)):
            if as_json:
                click.echo(
                    json.dumps({"gallery": gallery.name, "pictures": len(gallery), **report.as_dict()})
                )
            elif number == 0:
                show(report)
                click.echo("following the folder; Ctrl-C ends it", err=True)
            told.tell(report, aloud=number > 0 and not as_json)
    except KeyboardInterrupt:
        click.echo("\nStopped. Everything that was finished is in the gallery.", err=True)


class _Told:
    """The failures that have been told."""

    def __init__(self) -> None:
        self._failed: set[tuple[Place, str]] = set()

    def tell(self, report: IndexReport, *, aloud: bool) -> None:
        """Say what changed in a run, if anything did."""
        from image2sentence.images import display_path

        new = [failed for failed in report.failed if failed not in self._failed]
        self._failed = set(report.failed)
        counts = [f"{name} {getattr(report, name):,}" for name in _CHANGES if getattr(report, name)]
        if aloud and (counts or new):
            click.echo(f"{datetime.now():%H:%M:%S} " + " · ".join([*counts, *(["failed"] if new else [])]))
            for path, reason in new:
                click.echo(f"  {display_path(path)}: {reason}")
