"""One indexing run in a process of its own, beside a server that goes on answering.

    python -m image2sentence.server.local.index_process

A `Job` comes as one line of JSON on standard input; what happens goes as lines of JSON to standard output. When
standard input ends, the run is interrupted: what was finished is in the gallery, and the next run goes on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.encoders.protocols import Encoder
from image2sentence.encoders.scope import read_scope
from image2sentence.errors import Image2SentenceError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.files.metadata import MetadataFile, MetadataReport, apply_metadata
from image2sentence.gallery.locations import Place
from image2sentence.gallery.opening import open_or_create_gallery
from image2sentence.images import display_path, printable
from image2sentence.indexing import index_pictures
from image2sentence.indexing.index_pictures import IndexReport
from image2sentence.indexing.model_choice import encoder_for
from image2sentence.strict_json import from_dict

MAX_LISTED = 200
"""Files that could not be read that are told with their reasons; the others are counted."""
INTERRUPTED = 3
"""Exit code of a run that was interrupted."""
_TELL_SECONDS = 0.25
_ENDING_SECONDS = 8.0
_NICE = 10
_COUNTS = ("found", "encoded", "unchanged", "moved", "duplicates", "deleted")


@dataclass(frozen=True)
class Job:
    """What to index into which gallery, with which model and device; `table` is a file of metadata."""

    folder: str
    gallery: str
    model: str | None = None
    device: str = "auto"
    table: str | None = None


def main() -> int:
    """Read a job and do it; the exit code."""
    job = from_dict(Job, json.loads(sys.stdin.readline()), "the job")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a server in the background has it ignored
    threading.Thread(target=_interrupt_at_end, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(_NICE)
    try:
        _index(job)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Image2SentenceError as error:
        _tell(error=printable(str(error)))
        return 1
    return 0


def _interrupt_at_end() -> None:
    """When the server closes standard input, or is gone, interrupt the run as Ctrl-C does."""
    while sys.stdin.readline():
        pass
    timer = threading.Timer(_ENDING_SECONDS, os._exit, (INTERRUPTED,))
    timer.daemon = True
    timer.start()
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)  # to the process: a waiting main thread wakes up
    else:
        signal.raise_signal(signal.SIGINT)


def _index(job: Job) -> None:
    folder, said = Path(job.folder), 0.0
    encoder = encoder_for(job.model, job.gallery, [folder], device=job.device)

    def show(done: int, total: int) -> None:
        nonlocal said
        if done == total or time.monotonic() - said >= _TELL_SECONDS:
            said = time.monotonic()
            _tell(done=done, total=total)

    with open_or_create_gallery(job.gallery, encoder.fingerprint, encoder.width) as gallery:
        table = None if job.table is None else MetadataFile(job.table, gallery.columns())
        if table is not None:
            gallery.add_columns(table.columns)  # before indexing, which makes `taken` where it is not there
        _tell(begun=True)
        try:
            report = index_pictures(folder, gallery, encoder, progress=show)
        except KeyboardInterrupt:
            _tell(**_reasons([(one.path, one.reason or "") for one in gallery.pictures("failed")]))
            raise
        gallery.refresh_index()
        _tell(counts={name: getattr(report, name) for name in _COUNTS}, **_reasons(_unread(report)))
        _tell(outside=_share_outside(encoder, report))
        if table is not None:
            _tell(table=_joined(gallery, folder, table))


def _unread(report: IndexReport) -> list[tuple[Place, str]]:
    return [*report.failed, *report.unreadable_folders, *report.away]


def _reasons(failed: Sequence[tuple[Place, str]]) -> dict[str, Any]:
    listed = [[display_path(path), printable(reason)] for path, reason in failed[:MAX_LISTED]]
    return {"failed": len(failed), "reasons": listed}


def _share_outside(encoder: Encoder, report: IndexReport) -> float | None:
    """The share of the pictures encoded that look like nothing the model knows, where that is most of them."""
    folder = getattr(encoder, "folder", None)
    scope = read_scope(folder) if isinstance(folder, ModelFolder) else None
    if scope is None or not scope.mostly_outside(report.sample):
        return None
    return scope.share_outside(report.sample)


def _joined(gallery: GalleryStore, folder: Path, table: MetadataFile) -> dict[str, Any]:
    done: MetadataReport = apply_metadata(gallery, folder, table)
    return {
        "rows": done.matched,
        "changed": done.changed,
        "unmatched": done.unmatched,
        "examples": [printable(name) for name in done.examples],
        "columns": [[printable(name), kind] for name, kind in done.columns.items()],
    }


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main())
