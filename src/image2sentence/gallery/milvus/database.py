"""One connection to Milvus, its errors made this package's own."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from image2sentence.errors import GalleryError
from image2sentence.gallery.milvus.address import TOKEN_VARIABLE, MilvusAddress

Fields: TypeAlias = dict[str, Any]

SECONDS = 30.0
"""How long the server may take to answer."""

ROW_BATCH = 1_000

_open_files: Counter[str] = Counter()
_opening = threading.Lock()


class Database:
    """The collections of one Milvus database, reached through pymilvus.

    Raises (from every method):
        GalleryError: the server cannot be reached, refuses the token, or reports an error; or Milvus Lite's
            file is held by another process. pymilvus is missing.
    """

    def __init__(self, address: MilvusAddress) -> None:
        self.name = str(address)
        self._file = address.file
        token = os.environ.get(TOKEN_VARIABLE, "")
        with self._errors(), _opening:
            from pymilvus import MilvusClient

            # Every error is raised too, and raised errors are shown once, without the traceback.
            for package in ("pymilvus", "milvus_lite", "grpc"):
                logging.getLogger(package).setLevel(logging.CRITICAL)
            self._client = MilvusClient(address.uri, token=token, db_name=address.database, timeout=SECONDS)
            if self._file is not None:
                _open_files[address.uri] += 1

    def close(self) -> None:
        """Hang up, and let other processes have Milvus Lite's file; calling again does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        client.close()
        if self._file is not None:
            with _opening:
                _open_files[str(self._file)] -= 1
                if not _open_files[str(self._file)]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(str(self._file))

    @property
    def client(self) -> Any:
        """pymilvus's client, for `with database.errors():`."""
        if self._client is None:
            raise GalleryError(f"the gallery {self.name} has been closed")
        return self._client

    def has(self, collection: str) -> bool:
        """Whether there is a collection of this name."""
        with self._errors():
            return bool(self.client.has_collection(collection))

    def create(self, collection: str, schema: Any, indexes: Any) -> None:
        """Make a collection and load it."""
        with self._errors():
            self.client.create_collection(collection, schema=schema, index_params=indexes)

    def drop(self, collection: str) -> None:
        """Delete a collection."""
        with self._errors():
            self.client.drop_collection(collection)

    def load(self, collection: str) -> None:
        """Make a collection searchable (servers keep that; Milvus Lite forgets it)."""
        with self._errors():
            self.client.load_collection(collection)

    def index_type(self, collection: str, field: str) -> str:
        """Kind of a field's index, such as HNSW."""
        with self._errors():
            names = self.client.list_indexes(collection, field_name=field)
            return str(self.client.describe_index(collection, names[0])["index_type"]) if names else ""

    def count(self, collection: str) -> int:
        """Number of rows."""
        with self._errors():
            rows = self.client.query(
                collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
            )
            return int(rows[0]["count(*)"])

    def rows(self, collection: str, condition: str, fields: Sequence[str]) -> Iterator[Fields]:
        """All rows for which an expression holds (empty: all), as of the last commit, in no order."""
        with self._errors():
            walk = self.client.query_iterator(
                collection,
                batch_size=ROW_BATCH,
                filter=condition,
                output_fields=list(fields),
                consistency_level="Strong",
            )
            try:
                while batch := walk.next():
                    yield from batch
            finally:
                walk.close()

    def find(self, collection: str, condition: str, fields: Sequence[str], most: int) -> list[Fields]:
        """At most `most` rows for which an expression holds, as of the last commit; cheaper than `rows`."""
        with self._errors():
            found: list[Fields] = self.client.query(
                collection,
                filter=condition,
                output_fields=list(fields),
                limit=most,
                consistency_level="Strong",
            )
            return found

    def upsert(self, collection: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, in place of those with the same primary key."""
        with self._errors():
            for start in range(0, len(rows), ROW_BATCH):
                self.client.upsert(collection, [dict(row) for row in rows[start : start + ROW_BATCH]])

    def delete(self, collection: str, keys: Sequence[int] | Sequence[str]) -> None:
        """Delete rows by primary key; keys that are not there are passed over."""
        with self._errors():
            for start in range(0, len(keys), ROW_BATCH):
                self.client.delete(collection, ids=list(keys[start : start + ROW_BATCH]))

    def search(self, collection: str, **arguments: Any) -> list[list[Fields]]:
        """pymilvus's `search`: for each query its hits, each with `id`, `distance` and `entity`."""
        with self._errors():
            found: list[list[Fields]] = self.client.search(collection, **arguments)
            return found

    def flush(self, collection: str) -> None:
        """Seal what was written, so that it is indexed (Milvus Lite does so only on request)."""
        with self._errors():
            self.client.flush(collection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            from grpc import RpcError
            from pymilvus.exceptions import MilvusException
        except ModuleNotFoundError as error:
            raise GalleryError(
                f"a gallery in Milvus needs {error.name}: pip install 'image2sentence[milvus]'"
            ) from error
        try:
            yield
        except (MilvusException, RpcError) as error:
            raise GalleryError(f"{self.name}: {self._advice(error)}") from error

    def _advice(self, error: Exception) -> str:
        said = str(getattr(error, "message", "") or error)
        lowered = said.lower()
        if "open local milvus failed" in lowered:
            return (
                "Milvus Lite cannot open its file. Another process may hold it (it takes one at a time; "
                "`milvus-lite server` lets several in), or it is no file of this version of Milvus Lite, "
                "or the folder above is missing or cannot be written"
            )
        if "unauthenticated" in lowered or "auth check" in lowered:
            return f"the server refuses the token: set ${TOKEN_VARIABLE} to user:password or an API key"
        if "connecting" in lowered or "unavailable" in lowered or "deadline" in lowered:
            return f"the server does not answer ({said}): start it, or check host and port"
        return f"Milvus reports: {said}"
