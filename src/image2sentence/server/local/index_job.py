"""The indexing run that the page has started, one at a time, and how far it is."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

from image2sentence.errors import QueryError
from image2sentence.server.local.folders import as_folder
from image2sentence.server.local.index_process import INTERRUPTED, Job

State: TypeAlias = Literal["none", "starting", "running", "stopping", "done", "stopped", "failed"]
BUSY: frozenset[State] = frozenset({"starting", "running", "stopping"})

ENDING_SECONDS = 1.5
"""How long a server that shuts down waits for the run to end; it ends by itself later, too."""
STOPPING_SECONDS = 10.0
"""After that a run that was told to stop is ended; what it has committed stays."""
_LINES_KEPT = 20
_RATE_SECONDS = 20.0

_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is, and what it has found.

    Attributes:
        state: "none" before the first run; "done", "stopped" and "failed" after one.
        folder: What is indexed.
        table: The file of metadata; None without one.
        done: Files dealt with, of `total`, which is 0 while the folder is being looked through.
        rate: Files a second, lately.
        seconds: Since the start.
        left: Seconds that what is left takes at this rate; None where that cannot be told.
        counts: Pictures by what became of them, when it has ended.
        failed: How many files could not be read; `reasons` has path and reason of the first.
        outside: The share, 0 to 1, of new pictures that look like nothing the model knows; None where it is not most.
        columns: What the table gave: `rows` of pictures, `unmatched` ones, `examples` of these, `columns` and types.
        error: Why it failed.
    """

    state: State = "none"
    folder: str = ""
    table: str | None = None
    done: int = 0
    total: int = 0
    rate: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    counts: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    reasons: list[tuple[str, str]] = field(default_factory=list)
    outside: float | None = None
    columns: dict[str, Any] | None = None
    error: str | None = None


class IndexJob:
    """Starts, watches and stops indexing runs into one gallery. Threads may share it.

    Args:
        gallery: Folder of the gallery, which the first run makes.
        model: The server's model; None for the default one.
        device: What large graphs run on.
    """

    def __init__(self, gallery: Path, model: Path | None = None, device: str = "auto") -> None:
        self._gallery, self._model, self._device = gallery.absolute(), model, device
        self._lock = threading.Lock()
        self._progress = Progress()
        self._process: subprocess.Popen[str] | None = None
        self._watcher: threading.Thread | None = None
        self._begun = 0.0
        self._marks: deque[tuple[float, int]] = deque()

    def start(self, folder: str, table: str | None = None) -> None:
        """Begin to index a folder. Raises QueryError where one is being indexed, or folder or table are not there."""
        place = as_folder(folder)
        if not place.is_dir():
            raise QueryError("there is no such folder on this computer")
        file = None if not table else as_folder(table)
        if file is not None and not file.is_file():
            raise QueryError("there is no such table on this computer")
        model = None if self._model is None else str(self._model)
        named = None if file is None else str(file)
        with self._lock:
            if self._progress.state in BUSY:
                raise QueryError("a folder is being indexed already: stop that first, or wait for it")
            self._progress = Progress("starting", str(place), named)
            self._begun = time.monotonic()
            self._marks.clear()
            self._process = process = _start(Job(str(place), str(self._gallery), model, self._device, named))
            self._watcher = threading.Thread(target=self._watch, args=(process,), daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """Interrupt the run, where there is one: what it has finished stays."""
        with self._lock:
            process = self._process
            if self._progress.state not in BUSY or process is None:
                return
            self._progress.state = "stopping"
        _close(process.stdin)
        timer = threading.Timer(STOPPING_SECONDS, process.kill)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """Interrupt the run and wait a moment for it."""
        self.stop()
        if self._watcher is not None:
            self._watcher.join(ENDING_SECONDS)

    def progress(self) -> dict[str, Any]:
        """The fields of `Progress` as they are now."""
        with self._lock:
            if self._progress.state in BUSY:
                self._progress.seconds = round(time.monotonic() - self._begun, 1)
            return asdict(self._progress)

    def _watch(self, process: subprocess.Popen[str]) -> None:
        """Take what the run tells, until it ends."""
        assert process.stdout is not None
        assert process.stderr is not None
        said: deque[str] = deque(maxlen=_LINES_KEPT)
        errors = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
        errors.start()
        for line in process.stdout:
            with self._lock:
                self._take(json.loads(line))
        code = process.wait()
        errors.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            _close(pipe)
        with self._lock:
            self._end(code, "".join(said))

    def _take(self, told: dict[str, Any]) -> None:
        progress = self._progress
        if "done" in told:
            progress.done, progress.total = told["done"], told["total"]
            self._measure(progress)
        elif "begun" in told and progress.state == "starting":
            progress.state = "running"
        progress.counts = told.get("counts", progress.counts)
        progress.failed = told.get("failed", progress.failed)
        progress.reasons = [(path, reason) for path, reason in told.get("reasons", progress.reasons)]
        progress.outside = told.get("outside", progress.outside)
        progress.columns = told.get("table", progress.columns)
        progress.error = told.get("error", progress.error)

    def _measure(self, progress: Progress) -> None:
        """The rate of the last seconds, and what is left at it."""
        now = time.monotonic()
        self._marks.append((now, progress.done))
        while now - self._marks[0][0] > _RATE_SECONDS:
            self._marks.popleft()
        since, done = self._marks[0]
        passed = now - since
        progress.rate = round((progress.done - done) / passed, 1) if passed > 0 else 0.0
        left = progress.total - progress.done
        progress.left = round(left / progress.rate, 0) if progress.rate else None

    def _end(self, code: int, said: str) -> None:
        progress = self._progress
        progress.seconds, progress.left = round(time.monotonic() - self._begun, 1), None
        if progress.state == "stopping" and code != 0:
            progress.state = "stopped"
        elif code == 0:
            progress.state = "done"
        elif code == INTERRUPTED:
            progress.state = "stopped"
        else:
            progress.state = "failed"
            progress.error = progress.error or "indexing ended unexpectedly; the server's log says why"
            if said:
                _log.error("indexing %s ended with %d:\n%s", progress.folder, code, said)


def _start(job: Job) -> subprocess.Popen[str]:
    """The process, with its job. In a session of its own: Ctrl-C is the server's, which then stops it."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-m", "image2sentence.server.local.index_process"],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(job)) + "\n")
    process.stdin.flush()
    return process


def _close(pipe: IO[str] | None) -> None:
    """Close a pipe, whose other end may be gone."""
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        return
