"""Indexing on a Ray cluster: workers encode, one process writes.

The driver lists what is there and knows the gallery; it hands out files in groups, and shards one by one. A worker (an
actor of one core) reads, decodes and encodes its unit, and streams back what came of each picture, in the unit's order:
vectors cross the network, pictures do not. The driver sorts and commits this as the ordinary engine does. When a
worker or its node dies, another goes on with the unit after the last picture that came back.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from time import perf_counter
from typing import Any, TypeAlias

from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import ConfigError, GalleryError, Image2SentenceError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place, joined
from image2sentence.gallery.records import Content
from image2sentence.images import MAX_PIXELS, MIN_DECODE_SIDE, printable
from image2sentence.indexing.index_pictures import Progress
from image2sentence.indexing.overlap import walk_root
from image2sentence.indexing.pipeline import EncodeAndWrite
from image2sentence.indexing.reader import (
    BATCH_BYTES,
    Decoded,
    Inputs,
    Outcome,
    Reader,
    ShardEnd,
    read_ahead,
    read_shards,
)
from image2sentence.indexing.report import IndexReport
from image2sentence.indexing.run import Run
from image2sentence.indexing.sources import Source
from image2sentence.indexing.walk import FoundFile

FILE_BATCH = 256
"""Files in a unit, at most."""

ATTEMPTS = 3
"""Workers that may die in a row at the same place of a unit before the run stops."""

PATIENCE = 300
"""Seconds without any worker before the run stops."""

_CONNECT_SECONDS = 10
_SHARES = 4  # units per worker at least, so that all end at about the same time
_READERS = 4  # threads of a worker: it waits for storage more than it computes in them
_AHEAD = 4  # batches that wait to be taken from a worker before it pauses

_Outcomes: TypeAlias = list[Outcome | ShardEnd]


def index_on_ray(
    pictures: str | os.PathLike[str],
    gallery: GalleryStore,
    encoder: Encoder,
    *,
    make_encoder: Callable[[], Encoder],
    workers: int | None = None,
    batch_size: int = 32,
    at_least: int = MIN_DECODE_SIDE,
    max_pixels: int = MAX_PIXELS,
    retry_failed: bool = False,
    shards: bool = False,
    allow_empty: bool = False,
    exclude: Sequence[str] = (),
    forget: Collection[int] | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """As `index_pictures`, with the reading and encoding on a Ray cluster.

    Uses the cluster that this process is connected to, else that of $RAY_ADDRESS, else starts one here. The
    pictures must be readable under the same name from every node, and the package and model be there. Only this
    process writes. Moved and copied files are recognised, but encoded before they are.

    Args:
        pictures: A folder, URL or .tar file, as for `index_pictures`.
        gallery: Opened for writing, made with this encoder.
        encoder: Its identity; it encodes nothing here.
        make_encoder: Makes the same encoder in each worker; sent there by Ray.
        workers: Workers, one processor core each; None takes one per core of the cluster.
        batch_size: Pictures encoded and committed at once.
        at_least, max_pixels, retry_failed, shards, allow_empty, exclude, forget, progress: As for `index_pictures`.

    Raises:
        GalleryError: as `index_pictures`; or the cluster cannot be reached, or failed: what was committed stays.
        ConfigError: `workers` or `batch_size` is less than 1.
        Image2SentenceError: whatever a worker raises, such as a ModelError.
    """
    start = perf_counter()
    if batch_size < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"workers and batch_size must be at least 1, got {workers} and {batch_size}")
    gallery.require(encoder.fingerprint, encoder.width)
    source, found = walk_root(pictures, gallery, exclude)
    task = Task(source, make_encoder, encoder.fingerprint, batch_size, at_least, max_pixels)
    with closing(EncodeAndWrite(1)) as line:
        run = Run(
            source.place,
            gallery,
            Inputs(encoder),
            batch_size,
            found,
            line,
            shards=shards,
            allow_empty=allow_empty,
            forget=forget,
        )
        changed = [file for file in found.files if run.is_changed(file, retry_failed)]
        opened = [shard for shard in run.shards if run.is_changed_shard(shard, retry_failed)]
        for done, outcome in enumerate(_outcomes(task, changed, opened, workers), 1):
            run.take(outcome)
            if progress is not None:
                progress(done, max(done, len(changed)))
        run.finish()
    return run.report(perf_counter() - start)


@dataclass(frozen=True)
class Task:
    """What every worker is given."""

    source: Source
    make_encoder: Callable[[], Encoder]
    fingerprint: str
    batch_size: int
    at_least: int
    max_pixels: int


class Worker:
    """Reads and encodes units (an actor)."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def prepare(self) -> None:
        """Load the model. Raises GalleryError where it is not the driver's."""
        task = self._task
        encoder = task.make_encoder()
        if encoder.fingerprint != task.fingerprint:
            raise GalleryError(
                f"the model on this node is {encoder.fingerprint}, expected {task.fingerprint}: install the same one"
            )
        self._inputs = Inputs(encoder)
        reader = Reader(task.source, self._inputs, lambda _: False, task.at_least, task.max_pixels)
        self._ahead = read_ahead(reader, _READERS, task.batch_size)

    def work(self, files: Sequence[FoundFile], shard: FoundFile | None, skip: int) -> Iterator[_Outcomes]:
        """What came of a unit's pictures, in their order, in batches, without the first `skip`."""
        items = chain(files, read_shards(self._task.source, [] if shard is None else [shard]))
        batch: _Outcomes = []
        with closing(self._ahead.over(islice(items, skip, None))) as outcomes:
            for outcome in outcomes:
                batch.append(outcome)
                if len(batch) == self._task.batch_size or _bytes(batch) > BATCH_BYTES:
                    yield self._encoded(batch)
                    batch = []
        yield self._encoded(batch)

    def _encoded(self, batch: _Outcomes) -> _Outcomes:
        """The batch with vectors in the place of pictures."""
        decoded = [one.decoded for one in batch if isinstance(one, Outcome)]
        vectors = iter(self._inputs.encoded([one.input for one in decoded if isinstance(one, Decoded)]))
        return [
            replace(one, decoded=Content(one.sha256, one.decoded.width, one.decoded.height, next(vectors)))
            if isinstance(one, Outcome) and isinstance(one.decoded, Decoded) and one.sha256 is not None
            else one
            for one in batch
        ]


def _bytes(batch: _Outcomes) -> int:
    return sum(outcome.bytes() for outcome in batch)


@dataclass
class _Unit:
    """Files or a shard for one worker; how many pictures of it have come back; deaths since the last of them."""

    files: Sequence[FoundFile]
    shard: FoundFile | None = None
    done: int = 0
    deaths: int = 0

    def place(self, root: Place) -> Place:
        """Where the next picture is."""
        file = self.shard or self.files[min(self.done, len(self.files) - 1)]
        return joined(root, file.path)


def _units(files: Sequence[FoundFile], shards: Sequence[FoundFile], workers: int) -> list[_Unit]:
    """Shards first, as they take longest; small groups of files where there are few."""
    size = max(1, min(FILE_BATCH, len(files) // (_SHARES * workers)))
    groups = [_Unit(files[start : start + size]) for start in range(0, len(files), size)]
    return [_Unit((), shard) for shard in shards] + groups


def _outcomes(
    task: Task, files: Sequence[FoundFile], shards: Sequence[FoundFile], workers: int | None
) -> Iterator[Outcome | ShardEnd]:
    """What came of all files and shards, in no order between units."""
    if not files and not shards:
        return
    with _connected() as cores:
        wanted = workers or max(1, cores)
        units = _units(files, shards, wanted)
        with closing(_Pool(task, units, min(wanted, len(units)))) as pool:
            yield from pool.outcomes()


@contextmanager
def _connected() -> Iterator[int]:
    """Connect to a cluster, or start one for as long as it is needed; gives its cores. Raises GalleryError."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        address = os.environ.get("RAY_ADDRESS") or "local"
        try:
            _reach(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise GalleryError(
                f"no Ray cluster at {printable(address)}: expected HOST:PORT of its head in RAY_ADDRESS "
                f"({printable(str(error))[:300]})"
            ) from error
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if ours:
            ray.shutdown()


def _reach(address: str) -> None:
    """Raise what is wrong with the address of a cluster at once; Ray itself goes on trying for minutes."""
    if "://" in address:
        raise ValueError("run the command on a node of the cluster")
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()


@dataclass
class _Job:
    """What a worker is doing: getting ready, or a unit."""

    worker: Any
    unit: _Unit | None = None


class _Pool:
    """Workers, and the units that they have yet to do."""

    def __init__(self, task: Task, units: Sequence[_Unit], workers: int) -> None:
        self._task = task
        self._units = deque(units)
        self._jobs: dict[Any, _Job] = {}  # by what is waited for: the worker's answer, or stream of answers
        self._stillborn = 0  # workers that died before they were ready, in a row
        self._workers = workers
        for _ in range(workers):
            self._hire()

    def close(self) -> None:
        """Stop all workers."""
        import ray

        for job in self._jobs.values():
            ray.kill(job.worker)
        self._jobs.clear()

    def outcomes(self) -> Iterator[Outcome | ShardEnd]:
        """What comes back, until every unit is done."""
        while self._units or any(job.unit is not None for job in self._jobs.values()):
            yield from self._next()

    def _hire(self) -> None:
        import ray

        actor = ray.remote(num_cpus=1, max_restarts=0, scheduling_strategy="SPREAD")(Worker)
        worker = actor.remote(self._task)
        self._jobs[worker.prepare.remote()] = _Job(worker)

    def _assign(self, worker: Any) -> None:
        import ray

        if not self._units:
            ray.kill(worker)  # its core may be needed by one that takes a lost worker's place
            return
        unit = self._units.popleft()
        stream = worker.work.options(num_returns="streaming", _generator_backpressure_num_objects=_AHEAD)
        self._jobs[stream.remote(unit.files, unit.shard, unit.done)] = _Job(worker, unit)

    def _next(self) -> _Outcomes:
        """Wait for one answer, and give its worker more to do."""
        import ray

        answer = self._wait()
        job = self._jobs[answer]
        try:
            return self._answered(answer, job)
        except ray.exceptions.RayTaskError as error:
            raise _cause(error) from error
        except ray.exceptions.RayError as error:
            del self._jobs[answer]
            self._lost(job.unit, error)
            return []

    def _wait(self) -> Any:
        import ray

        working = any(job.unit is not None for job in self._jobs.values())
        ready, _ = ray.wait(list(self._jobs), timeout=None if working else PATIENCE, fetch_local=False)
        if not ready:
            raise GalleryError(
                f"no core of the Ray cluster became free within {PATIENCE} s: see `ray status`"
            )
        return ready[0]

    def _answered(self, answer: Any, job: _Job) -> _Outcomes:
        import ray

        outcomes: _Outcomes = []
        unit = job.unit
        if unit is None:
            ray.get(answer)
            self._stillborn = 0
        else:
            reference = next(answer, None)
            if reference is not None:
                outcomes = ray.get(reference)
                unit.done, unit.deaths = unit.done + len(outcomes), 0
                return outcomes
        del self._jobs[answer]
        self._assign(job.worker)
        return outcomes

    def _lost(self, unit: _Unit | None, error: Exception) -> None:
        """Hire another worker, which goes on where the lost one stopped."""
        if unit is None:
            self._stillborn += 1
        else:
            unit.deaths += 1
            self._units.appendleft(unit)
        if self._stillborn >= ATTEMPTS * self._workers:
            raise _stopped("workers die before they are ready", error)
        if unit is not None and unit.deaths >= ATTEMPTS:
            place = printable(str(unit.place(self._task.source.place)))
            raise _stopped(f"{ATTEMPTS} workers in a row died at or after {place}", error)
        self._hire()


def _cause(error: Exception) -> Image2SentenceError:
    """What a worker raised, with its own class where it was raised on purpose."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Image2SentenceError) else _stopped("a worker failed", cause or error)


def _stopped(what: str, error: object) -> GalleryError:
    reason = printable(" ".join(str(error).split()))[:500]
    return GalleryError(
        f"indexing stopped, {what}; what was committed is kept, run again to go on ({reason})"
    )
