"""ONNX Runtime sessions of a model folder's graphs."""

from __future__ import annotations

import mmap
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.config import ModelConfig
from image2sentence.encoders.devices import CPU, DIRECTML, configure, providers, require_started
from image2sentence.encoders.graph_file import largest_folded
from image2sentence.encoders.known_files import known
from image2sentence.encoders.memory import free_memory
from image2sentence.encoders.model_folder import CONFIG, GALLERY_IMAGE, bundled
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ModelError

_LOCATION = b"location"
_BEFORE = re.compile(rb"(?:\x0a|\x8a\x80*\x00)(?:\x08|\x88\x80*\x00)\Z")
"""What stands before the key of a tensor's external file in a graph's protocol buffer: field 1 of 8 bytes, in any
varint."""
_LONGEST_VARINT = 10
BETWEEN_OPERATORS = {
    "session.intra_op.spin_duration_us": "100",
    "session.force_spinning_stop": "1",
}
"""Threads spin from one operator to the next, and sleep when a run ends: waking them for each of a transformer's
operators takes time that nothing is computed in, and threads that spin after it take the cores from what follows. An
ONNX Runtime that does not know the first entry passes it over, and spins within a run as long as it does by default."""


_MEMORY_SHARE = 0.8
"""Of the memory that is free before the first graph of others is loaded, for all of them together."""
_RUN_SECONDS = 60.0
"""Time for each row that a graph of others is run with; it is looked at between operators."""
_FOLDED = "optimization.constant_folding_max_output_size_in_bytes"
_BOUNDS_FOLDING = (1, 27)
"""The first ONNX Runtime that knows the entry above; older ones compute nothing of others' graphs while they load."""
_LOOK_SECONDS = 0.2
_WATCH_LOCK = threading.Lock()
_running: dict[Any, float] = {}
"""Options of runs, and when each has to be done."""
_watched: list[int] = []
"""The process whose runs are watched: a fork has no such thread."""
_ARENA_LOCK = threading.Lock()
_arena: list[bool] = []


def require_self_contained(path: Path, content: bytes | None) -> None:
    """Raises ModelError for a graph that names other files to read its weights from: a checksum does not cover them.

    `content` None: the graph is read from `path`.
    """
    if _names_files(content) if content is not None else known(path, "names_files", _file_names_files):
        raise ModelError(
            f"{path} reads weights from other files (ONNX external data), which no checksum covers: save the graph "
            "with its weights in it, or let image2sentence make a folder of the model"
        )


def _file_names_files(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return _names_files(mapped)


def _names_files(content: bytes | mmap.mmap) -> bool:
    """Whether the key occurs. The word is looked for first: a pattern takes a second for 200 MB, `find` none."""
    at = content.find(_LOCATION)
    while at >= 0:
        if _BEFORE.search(content[max(0, at - 2 * _LONGEST_VARINT) : at]):
            return True
        at = content.find(_LOCATION, at + 1)
    return False


def load_session(
    path: Path, content: bytes | None, threads: int, spin: bool = True, device: str = CPU
) -> Any:
    """A session of a graph on a device (`image2sentence.encoders.devices`).

    `spin=False`: its threads wait actively between a run's operators only, not after the run.

    Raises ModelError where ONNX Runtime refuses the graph, it names other files, or the device does not start.
    """
    require_self_contained(path, content)
    is_own = path.is_relative_to(bundled().parent)
    folded = None if is_own else _folded(path, content)
    import onnxruntime  # the heaviest import of a query: only when a graph is really needed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # ONNX Runtime's own format is one that it trusts, and takes by the file's first bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for name, value in ({} if spin else BETWEEN_OPERATORS).items():
        options.add_session_config_entry(name, value)
    if folded is not None:
        options.add_session_config_entry(_FOLDED, str(folded))
        if _has_arena():
            options.add_session_config_entry("session.use_env_allocators", "1")
    on = providers(device)
    configure(options, on)
    try:
        given = str(path) if content is None else content
        left_out = [] if folded is None or _version() >= _BOUNDS_FOLDING else ["ConstantFolding"]
        session = onnxruntime.InferenceSession(given, options, providers=on, disabled_optimizers=left_out)
    except _refusals() as error:
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    require_started(session, device, on)
    return Session(session, path, None if is_own else _RUN_SECONDS)


def _version() -> tuple[int, ...]:
    import onnxruntime

    return tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


def _refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its classes have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as engine

    return (
        *(engine.Fail, engine.InvalidProtobuf, engine.InvalidGraph, engine.InvalidArgument),
        *(engine.NotImplemented, engine.RuntimeException),
    )


def _folded(path: Path, content: bytes | None) -> int:
    """`largest_folded` of a graph; going through the operators of a large one takes a tenth of a second."""
    if content is not None:
        return largest_folded(content, path)
    return int(known(path, "largest_folded", lambda file: str(largest_folded(_mapped(file), file))))


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _has_arena() -> bool:
    """Whether there is a place with a limit that all graphs of others take their memory from."""
    with _ARENA_LOCK:
        if not _arena:
            free = free_memory()
            if free is not None:
                _make_arena(int(_MEMORY_SHARE * free))
            _arena.append(free is not None)
        return _arena[0]


def _make_arena(limit: int) -> None:
    import onnxruntime as runtime

    kind = runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    about = runtime.OrtMemoryInfo("Cpu", kind, 0, runtime.OrtMemType.DEFAULT)
    runtime.create_and_register_allocator(about, runtime.OrtArenaCfg(limit, -1, -1, -1))


def require_shapes(session: Any, folder: Path, name: str, config: ModelConfig) -> None:
    """Raises ModelError where a graph of a model folder reads or gives other shapes than the config says."""
    how = config.gallery_preprocessing if name == GALLERY_IMAGE else config.query_preprocessing
    expected = {"pixels": [how.size] * 2, "sentence": [config.sentence_width], "vectors": [config.width]}
    for one in (*session.get_inputs(), *session.get_outputs()):
        last = expected.get(one.name, [])
        found = one.shape[len(one.shape) - len(last) :]
        if any(isinstance(has, int) and has != wanted for has, wanted in zip(found, last, strict=True)):
            raise ModelError(
                f"{folder / CONFIG} does not fit {name}: it says {one.name} of {last}, the graph has {found}; "
                "restore both, or export the model again"
            )


def by_length(
    sentences: Vectors, ids: Sequence[Sequence[int]]
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[Any]]]]:
    """For each length of `ids`: the rows that have it, and what a text graph reads of them."""
    lengths = np.array([len(row) for row in ids], np.int64)
    for length in sorted(set(lengths.tolist())):
        rows = np.flatnonzero(lengths == length)
        yield rows, {"sentence": sentences[rows], "ids": np.array([ids[int(row)] for row in rows], np.int64)}


def run(session: Any, output: str, feed: dict[str, NDArray[Any]]) -> Vectors:
    """One output for all rows; a graph that reads one row at a time is run as often as there are rows."""
    if session.get_inputs()[0].shape[0] != 1:
        return np.asarray(session.run([output], feed)[0], np.float32)
    count = len(next(iter(feed.values())))
    rows = ({name: value[at : at + 1] for name, value in feed.items()} for at in range(count))
    return np.concatenate([np.asarray(session.run([output], row)[0], np.float32) for row in rows])


def _start_watching() -> None:
    """One thread ends what takes too long: a timer for each run would cost more than a small graph's run."""
    if _watched != [os.getpid()]:
        _watched[:] = [os.getpid()]
        threading.Thread(target=_watch, name="graph-watch", daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        with _WATCH_LOCK:
            for options, end in _running.items():
                if time.monotonic() > end:
                    options.terminate = True


class Session:
    """An ONNX Runtime session whose errors are ModelErrors.

    Args:
        session: ONNX Runtime's own. Of DirectML one thread at a time runs it, as ONNX Runtime documents.
        path: The graph's file, for messages.
        seconds: Time that a run has for each of its rows; None: any.
    """

    def __init__(self, session: Any, path: Path, seconds: float | None) -> None:
        self._session, self._path, self._seconds = session, path, seconds
        alone = DIRECTML in session.get_providers()
        self._turn: AbstractContextManager[object] = threading.Lock() if alone else nullcontext()

    def run(self, names: Sequence[str] | None, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """As the session's own. Raises ModelError where it fails, or does not end in time."""
        with self._turn:
            try:
                if self._seconds is None:
                    return self._session.run(names, feed)  # type: ignore[no-any-return]
                return self._run_in_time(names, feed, self._seconds * len(next(iter(feed.values()))))
            except _refusals() as error:
                raise ModelError(f"ONNX Runtime cannot run {self._path}: {str(error)[:500]}") from error

    def _run_in_time(
        self, names: Sequence[str] | None, feed: dict[str, NDArray[Any]], seconds: float
    ) -> list[NDArray[Any]]:
        import onnxruntime

        options = onnxruntime.RunOptions()
        with _WATCH_LOCK:
            _running[options] = time.monotonic() + seconds
        _start_watching()
        try:
            return self._session.run(names, feed, options)  # type: ignore[no-any-return]
        finally:
            with _WATCH_LOCK:
                del _running[options]

    def get_inputs(self) -> Any:
        """As the session's own."""
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        """As the session's own."""
        return self._session.get_outputs()

    def get_providers(self) -> Any:
        """As the session's own."""
        return self._session.get_providers()
