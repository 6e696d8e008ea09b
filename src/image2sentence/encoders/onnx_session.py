"""ONNX Runtime sessions of a model folder's graphs."""

from __future__ import annotations

import mmap
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.config import ModelConfig
from image2sentence.encoders.devices import CPU, DIRECTML, configure, providers, require_started
from image2sentence.encoders.known_files import known
from image2sentence.encoders.model_folder import CONFIG, GALLERY_IMAGE
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
    import onnxruntime  # the heaviest import of a query: only when a graph is really needed
    from onnxruntime.capi import onnxruntime_pybind11_state as engine

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    # ONNX Runtime's own format is one that it trusts, and takes by the file's first bytes.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    for name, value in ({} if spin else BETWEEN_OPERATORS).items():
        options.add_session_config_entry(name, value)
    on = providers(device)
    configure(options, on)
    refusals = (engine.Fail, engine.InvalidProtobuf, engine.InvalidGraph, engine.InvalidArgument)
    try:
        given = str(path) if content is None else content
        session = onnxruntime.InferenceSession(given, options, providers=on)
    except (*refusals, engine.NotImplemented, engine.RuntimeException) as error:
        raise ModelError(f"ONNX Runtime cannot load {path}: {error}") from error
    require_started(session, device, on)
    return OneAtATime(session) if DIRECTML in session.get_providers() else session


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


class OneAtATime:
    """A session that one thread at a time runs: DirectML's runs must not overlap, as ONNX Runtime documents."""

    def __init__(self, session: Any) -> None:
        self._session, self._lock = session, threading.Lock()

    def run(self, *asked: Any) -> Any:
        """As the session's own."""
        with self._lock:
            return self._session.run(*asked)

    def get_inputs(self) -> Any:
        """As the session's own."""
        return self._session.get_inputs()

    def get_outputs(self) -> Any:
        """As the session's own."""
        return self._session.get_outputs()

    def get_providers(self) -> Any:
        """As the session's own."""
        return self._session.get_providers()
