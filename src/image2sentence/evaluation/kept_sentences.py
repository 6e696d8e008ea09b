"""Sentences of reference images, encoded once and kept beside the gallery-side vectors."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from image2sentence.encoders.config import ModelConfig
from image2sentence.encoders.model_folder import QUERY_IMAGE
from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.errors import DataError
from image2sentence.images import display_path

FILE = "sentences.sqlite"
FORMAT = 1
BATCH = 32
_TABLE = (
    "CREATE TABLE IF NOT EXISTS sentences (model TEXT NOT NULL, sha256 BLOB NOT NULL, length INTEGER NOT NULL, "
    "sentence BLOB NOT NULL, PRIMARY KEY (model, sha256)) WITHOUT ROWID"
)

Progress = Callable[[int, int], None]


@runtime_checkable
class _HasConfig(Protocol):
    config: ModelConfig


def sentence_fingerprint(encoder: Encoder) -> str | None:
    """SHA-256, hexadecimal, of all that a picture's sentence depends on: the light side's graph and its preprocessing.

    None for an encoder of one's own that is no model folder.
    """
    if not isinstance(encoder, _HasConfig) or QUERY_IMAGE not in encoder.config.files:
        return None
    seen = json.dumps(asdict(encoder.config.query_preprocessing), sort_keys=True)
    return hashlib.sha256(f"{encoder.config.files[QUERY_IMAGE]}\n{seen}".encode()).hexdigest()


class KeptSentences:
    """Sentences by query model and picture content, in a file that any number of vector spaces share.

    Args:
        folder: Where `sentences.sqlite` lies, or will; each batch of 32 is committed to it.
        contents: SHA-256 of a picture's content (32 bytes) by picture id.
        progress: Called with how many of how many sentences are there.

    `encoded` counts the pictures that the light side had to see. Raises DataError where the file is damaged, of another
    format, or cannot be written.
    """

    def __init__(self, folder: Path, contents: Mapping[str, bytes], progress: Progress | None = None) -> None:
        self.encoded = 0
        self._file, self._contents, self._progress = folder / FILE, contents, progress

    def of(
        self, encoder: Encoder, images: Sequence[str], open_image: Callable[[str], Image.Image]
    ) -> Vectors:
        """(n, L, w) float32 sentences of n pictures by `encoder`, encoding those that are not kept."""
        model = sentence_fingerprint(encoder)
        known = {} if model is None else self._read(model, images)
        wanted = {self._contents[image]: image for image in images if self._contents[image] not in known}
        fresh = list(wanted.items())
        for start in range(0, len(fresh), BATCH):
            batch = fresh[start : start + BATCH]
            rows = np.asarray(encoder.encode_sentences([open_image(image) for _, image in batch]), np.float32)
            made = {sha256: row for (sha256, _), row in zip(batch, rows, strict=True)}
            if model is not None:
                self._write(model, made)
            known |= made
            self.encoded += len(made)
            if self._progress is not None:
                self._progress(len(known), len(known) + len(fresh) - start - len(batch))
        return np.stack([known[self._contents[image]] for image in images])

    def _read(self, model: str, images: Sequence[str]) -> dict[bytes, Vectors]:
        wanted = {self._contents[image] for image in images}
        with self._open() as connection:
            rows = connection.execute(
                "SELECT sha256, length, sentence FROM sentences WHERE model = ?", (model,)
            )
            found = {sha256: (length, data) for sha256, length, data in rows if sha256 in wanted}
        return {sha256: self._sentence(*row) for sha256, row in found.items()}

    def _sentence(self, length: int, data: bytes) -> Vectors:
        if length < 1 or len(data) % (4 * length) or not data:
            raise DataError(f"{display_path(self._file)} is damaged: delete it, and run again")
        return np.frombuffer(data, "<f4").reshape(length, -1).astype(np.float32)

    def _write(self, model: str, sentences: Mapping[bytes, Vectors]) -> None:
        rows = [(model, sha256, len(own), own.astype("<f4").tobytes()) for sha256, own in sentences.items()]
        with self._open() as connection:
            connection.executemany("INSERT OR REPLACE INTO sentences VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, in one transaction."""
        try:
            connection = sqlite3.connect(self._file, timeout=30)
            try:
                connection.execute("PRAGMA trusted_schema = OFF")
                self._require_format(connection)
                with connection:
                    connection.execute(_TABLE)
                    yield connection
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise DataError(
                f"{display_path(self._file)}: {error}; make room or mend its permissions, or if it is damaged delete "
                "it, and run again"
            ) from error

    def _require_format(self, connection: sqlite3.Connection) -> None:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        elif found != FORMAT:
            raise DataError(
                f"{display_path(self._file)} is of format {found}, expected {FORMAT}: delete it, and run again"
            )
