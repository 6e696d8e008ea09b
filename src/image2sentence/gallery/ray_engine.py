"""Indexing on a Ray cluster: Ray Data reads in tasks and encodes in actors, and one process writes.

The driver lists what is there and knows the gallery; it hands out files in groups, and shards one by one. Reading tasks
give the bytes of pictures, which cross the cluster compressed as they are; the actors decode and encode them; vectors
come back to the driver, which sorts and commits them as the ordinary engine does. Tasks and actors that die are
started again by Ray and do their share anew. Nothing depends on the order in which rows come back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from image2sentence.encoders.base import Encoder
from image2sentence.errors import ConfigError, GalleryError, ImageError
from image2sentence.gallery.indexing import (
    AT_LEAST,
    IndexReport,
    Inputs,
    Loaded,
    Outcome,
    Progress,
    Run,
    ShardEnd,
    picture_source,
    read_item,
    read_shards,
)
from image2sentence.gallery.pipeline import EncodeAndWrite
from image2sentence.gallery.protocol import GalleryStore
from image2sentence.gallery.sources import Source
from image2sentence.gallery.store import Content
from image2sentence.gallery.walk import UNSEEN, FoundFile
from image2sentence.images import MAX_PIXELS, decode_image, printable

Row: TypeAlias = dict[str, Any]

FILES_AT_ONCE = 64
"""Files that one reading task reads."""

_DECODERS = 2
_BLOCK_BYTES = 16 << 20  # small, so that actors begin early and little is read twice when a node dies


def index_on_ray(
    pictures: str | os.PathLike[str],
    gallery: GalleryStore,
    encoder: Encoder,
    *,
    make_encoder: Callable[[], Encoder],
    workers: int | None = None,
    batch_size: int = 32,
    at_least: int = AT_LEAST,
    max_pixels: int = MAX_PIXELS,
    retry_failed: bool = False,
    shards: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """As `index_pictures`, with the reading and encoding on a Ray cluster.

    Uses the cluster that this process is connected to, else that of $RAY_ADDRESS, else starts one here. The
    pictures must be readable under the same name from every node, and the package and model be there.

    Args:
        pictures: A folder, URL or .tar file, as for `index_pictures`.
        gallery: Opened for writing, made with this encoder.
        encoder: Its identity; it encodes nothing here.
        make_encoder: Makes the same encoder in each actor; sent there by Ray.
        workers: Actors that encode, one processor core each; None takes one per core of the cluster but one.
        batch_size: Pictures encoded and committed at once.
        at_least, max_pixels, retry_failed, shards, progress: As for `index_pictures`.

    Raises:
        GalleryError: as `index_pictures`; or the cluster failed: what was committed before stays.
        ConfigError: `workers` or `batch_size` is less than 1.
    """
    start = perf_counter()
    if batch_size < 1 or (workers is not None and workers < 1):
        raise ConfigError(f"workers and batch_size must be at least 1, got {workers} and {batch_size}")
    gallery.require(encoder.fingerprint, encoder.width)
    source = picture_source(pictures, gallery)
    found = source.walk(gallery.own_folder)
    with closing(EncodeAndWrite(1)) as line:
        run = Run(source.place, gallery, Inputs(encoder), batch_size, found, line, shards=shards)
        changed = [file for file in found.files if run.is_changed(file, retry_failed)]
        opened = [shard for shard in run.shards if run.is_changed_shard(shard, retry_failed)]
        units = _units(changed, opened)
        if units:
            encode = (make_encoder, encoder.fingerprint, at_least, max_pixels)
            for done, row in enumerate(_rows(source, units, encode, workers, batch_size), 1):
                run.take(_outcome(row, opened))
                if progress is not None:
                    progress(done, max(done, len(changed)))
        run.finish()
    return run.report(perf_counter() - start)


def _units(files: Sequence[FoundFile], shards: Sequence[FoundFile]) -> list[Row]:
    """What the reading tasks are given: groups of files, and single shards."""
    groups = [files[start : start + FILES_AT_ONCE] for start in range(0, len(files), FILES_AT_ONCE)]
    return [_unit(-1, group) for group in groups] + [
        _unit(place, [shard]) for place, shard in enumerate(shards)
    ]


def _unit(shard: int, files: Sequence[FoundFile]) -> Row:
    return {
        "shard": shard,
        "paths": [os.fsencode(file.path) for file in files],
        "sizes": [file.size for file in files],
        "times": [file.mtime_ns for file in files],
    }


def _rows(
    source: Source,
    units: list[Row],
    encode: tuple[Callable[[], Encoder], str, int, int],
    workers: int | None,
    batch_size: int,
) -> Iterator[Row]:
    import ray
    import ray.data

    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False)
    cores = ray.cluster_resources().get("CPU", 2)  # type: ignore[no-untyped-call]
    actors = workers or max(1, int(cores) - 1)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = _BLOCK_BYTES
    rows = (
        ray.data.from_items(units, override_num_blocks=len(units))
        .flat_map(partial(_read_unit, source), num_cpus=0.25)
        .map_batches(
            _Encoding,
            fn_constructor_args=encode,
            batch_size=batch_size,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
    )
    try:
        yield from rows.iter_rows()
    except ray.exceptions.RayError as error:
        reason = printable(str(getattr(error, "cause", None) or error))[-500:]
        raise GalleryError(
            f"indexing stopped on the Ray cluster; what was committed is kept, run again to go on ({reason})"
        ) from error


def _read_unit(source: Source, unit: Row) -> Any:
    """Read a unit into rows, one for each picture and one for the end of each shard (in a Ray task)."""
    files = [
        FoundFile(os.fsdecode(path), int(size), int(time))
        for path, size, time in zip(unit["paths"], unit["sizes"], unit["times"], strict=True)
    ]
    if unit["shard"] < 0:
        return (_file_row(source, file) for file in files)
    return (_member_row(source, item, int(unit["shard"])) for item in read_shards(source, files))


def _file_row(source: Source, file: FoundFile) -> Row:
    try:
        data, outcome = read_item(source, file)
    except ImageError as error:
        return _row(FoundFile(file.path, UNSEEN, UNSEEN), reason=str(error))
    return _row(outcome.file, data=data, sha256=outcome.sha256 or b"")


def _member_row(source: Source, item: Loaded | ShardEnd, shard: int) -> Row:
    if isinstance(item, ShardEnd):
        return _row(item.shard, shard=shard, end=item.members, reason=item.reason or "")
    data, outcome = read_item(source, item)
    return _row(
        outcome.file,
        data=data,
        sha256=outcome.sha256 or b"",
        reason=outcome.reason or "",
        shard=shard,
        offset=item.member.offset,
    )


def _row(file: FoundFile, **given: Any) -> Row:
    """A row of the reading tasks; what is not given is empty, or -1."""
    return {
        "path": os.fsencode(file.path),
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "data": b"",
        "sha256": b"",
        "reason": "",
        "shard": -1,
        "offset": -1,
        "end": -1,
        **given,
    }


class _Encoding:
    """Decodes and encodes batches (an actor)."""

    def __init__(
        self, make_encoder: Callable[[], Encoder], fingerprint: str, at_least: int, max_pixels: int
    ) -> None:
        self._encoder = make_encoder()
        if self._encoder.fingerprint != fingerprint:
            raise GalleryError(
                f"the model on this node is {self._encoder.fingerprint}, expected {fingerprint}: install the same one"
            )
        self._inputs = Inputs(self._encoder)
        self._at_least = at_least
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(_DECODERS)

    def __call__(self, batch: Any) -> Row:
        rows = list(self._pool.map(self._decoded, batch.to_pylist()))
        waiting = [row for row in rows if row["input"] is not None]
        vectors = np.zeros((len(rows), self._encoder.width), np.float32)
        places = [place for place, row in enumerate(rows) if row["input"] is not None]
        vectors[places] = self._inputs.encoded([row["input"] for row in waiting])
        names = [name for name in rows[0] if name not in ("input", "data")]
        return {**{name: [row[name] for row in rows] for name in names}, "vector": vectors}

    def _decoded(self, row: Row) -> Row:
        decoded = {**row, "width": -1, "height": -1, "taken": "", "input": None}
        if not row["sha256"]:
            return decoded
        try:
            picture, width, height, taken = decode_image(
                row["data"], max_pixels=self._max_pixels, at_least=self._at_least
            )
        except ImageError as error:
            return {**decoded, "sha256": b"", "reason": str(error)}
        seen = {"width": width, "height": height, "taken": taken or "", "input": self._inputs.of(picture)}
        return {**decoded, **seen}


def _outcome(row: Mapping[str, Any], shards: Sequence[FoundFile]) -> Outcome | ShardEnd:
    """A row that came back, as the run takes it."""
    shard = None if row["shard"] < 0 else shards[row["shard"]]
    if shard is not None and row["end"] >= 0:
        return ShardEnd(shard, int(row["end"]), row["reason"] or None)
    file = FoundFile(os.fsdecode(row["path"]), int(row["size"]), int(row["mtime_ns"]))
    offset = None if row["offset"] < 0 else int(row["offset"])
    if not row["sha256"]:
        return Outcome(file, reason=row["reason"], shard=shard, offset=offset)
    vector = np.asarray(row["vector"], np.float32)
    content = Content(row["sha256"], int(row["width"]), int(row["height"]), vector)
    found = Outcome(file, row["sha256"], content, shard=shard, offset=offset)
    return replace(found, taken=row["taken"] or None)
