"""How a gallery lies in Milvus: two collections, documented in `docs/formats.md`.

COLLECTION has one row for each picture that can be found. COLLECTION_ledger has what else a gallery remembers: format,
fingerprint and width, roots, metadata columns, files that failed, the next id, and who is writing.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import unquote_to_bytes

from image2sentence.errors import GalleryError
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.filters.milvus import PREFIX
from image2sentence.gallery.locations import Place, joined
from image2sentence.gallery.records import Picture
from image2sentence.images import printable

FORMAT = 1
LEDGER = "_ledger"

PICTURE_FIELDS = ("id", "root", "path", "size", "mtime_ns", "content", "width", "height", "offset")
NO_OFFSET = -1

_DIGITS = 15
_MAX_PATH_BYTES = 65_535
_ODD_BYTES = re.compile("[\udc80-\udcff]")


def new_about(fingerprint: str, width: int) -> dict[str, Any]:
    """What a new gallery says of itself."""
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    about = {"format": FORMAT, "fingerprint": fingerprint, "width": width, "created": created}
    return {**about, "id": uuid.uuid4().hex}


def checked_about(about: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """What a gallery says of itself, of this format. Raises GalleryError."""
    version = None if about is None else about.get("format")
    if about is None or version is None:
        raise GalleryError(f"{name} is a collection, but no gallery of image2sentence: choose another name")
    if version != FORMAT:
        raise GalleryError(
            f"{name} has format {version}, this version of image2sentence reads format {FORMAT}: install the "
            "version that wrote it, or index into a new collection"
        )
    return about


def pictures_schema(width: int, index: str) -> tuple[Any, Any]:
    """Schema and indexes of the pictures' collection, for pymilvus."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("path", DataType.VARCHAR, max_length=_MAX_PATH_BYTES)
    schema.add_field("content", DataType.VARCHAR, max_length=64)
    for name in ("root", "size", "mtime_ns", "width", "height", "offset"):
        schema.add_field(name, DataType.INT64)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type=index, metric_type="IP", params=BUILD.get(index, {}))
    for name in ("content", "path"):
        indexes.add_index(name, index_type="INVERTED")
    return schema, indexes


BUILD: Mapping[str, dict[str, int]] = {
    "HNSW": {"M": 32, "efConstruction": 200},
    "IVF_FLAT": {"nlist": 1024},
    "IVF_SQ8": {"nlist": 1024},
}
"""Parameters with which an index is built."""


def ledger_schema() -> tuple[Any, Any]:
    """Schema and indexes of the ledger. Milvus wants a vector in every collection: here one that says nothing."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=128)
    schema.add_field("kind", DataType.VARCHAR, max_length=16)
    schema.add_field("root", DataType.INT64)
    schema.add_field("value", DataType.JSON)
    schema.add_field("nothing", DataType.FLOAT_VECTOR, dim=2)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("nothing", index_type="FLAT", metric_type="IP")
    return schema, indexes


def stored_path(path: str) -> str:
    """A path as text: bytes that are not UTF-8 become %XX, and % becomes %25."""
    text = _ODD_BYTES.sub(lambda odd: f"%{ord(odd[0]) - 0xDC00:02X}", path.replace("%", "%25"))
    if len(text.encode()) > _MAX_PATH_BYTES:
        raise GalleryError(f"the path {printable(path)[:100]}... is longer than Milvus takes")
    return text


def read_path(stored: str) -> str:
    """What `stored_path` was given."""
    return os.fsdecode(unquote_to_bytes(stored))


def moved_row(row: Mapping[str, Any], root: int, prefix: str) -> dict[str, Any]:
    """A picture's row with another root, at `prefix` below it."""
    return {**row, "root": root, "path": stored_path(os.path.join(prefix, read_path(row["path"])))}


def content_id_of(sha256: str) -> int:
    """The id of a content: the first 60 bits of its SHA-256 (hexadecimal)."""
    return int(sha256[:_DIGITS], 16)


def content_prefix(content_id: int) -> str:
    """How the SHA-256 of the content with this id begins (hexadecimal)."""
    return f"{content_id:0{_DIGITS}x}"


def as_picture(row: Mapping[str, Any], roots: Mapping[int, Place]) -> Picture:
    """A ready picture from its row."""
    return Picture(
        id=int(row["id"]),
        path=joined(roots[int(row["root"])], read_path(row["path"])),
        state="ready",
        reason=None,
        size=int(row["size"]),
        mtime_ns=int(row["mtime_ns"]),
        content_id=content_id_of(row["content"]),
        width=int(row["width"]),
        height=int(row["height"]),
        offset=None if int(row["offset"]) == NO_OFFSET else int(row["offset"]),
    )


def metadata_of(row: Mapping[str, Any]) -> dict[str, Value]:
    """A row's metadata by column: the values that are there."""
    return {
        name[len(PREFIX) :]: value
        for name, value in row.items()
        if name.startswith(PREFIX) and value is not None
    }


def as_fields(metadata: Mapping[str, Value | None]) -> dict[str, Value | None]:
    """Metadata as fields of a row."""
    return {PREFIX + name: value for name, value in metadata.items()}
