"""The addresses of galleries in Milvus.

milvus://HOST[:PORT]/COLLECTION               a server
milvus+https://HOST[:PORT]/COLLECTION         the same, encrypted
milvus+file:///PATH/FILE.db?collection=NAME   Milvus Lite: a file of this machine
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from image2sentence.errors import GalleryError
from image2sentence.images import display_path, printable

TOKEN_VARIABLE = "IMAGE2SENTENCE_MILVUS_TOKEN"
"""Environment variable with the server's token (`user:password` or an API key)."""

INDEXES = ("AUTOINDEX", "FLAT", "HNSW", "IVF_FLAT", "IVF_SQ8", "DISKANN")
COLLECTION = "pictures"
PORT = 19530

_SERVERS = {"milvus": "http", "milvus+http": "http", "milvus+https": "https"}
_FILE = "milvus+file"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
_FORMS = "milvus://HOST:PORT/COLLECTION or milvus+file:///PATH/FILE.db?collection=NAME"


@dataclass(frozen=True)
class MilvusAddress:
    """Where a gallery is, without secrets; `str()` of it may be shown.

    Attributes:
        uri: What pymilvus connects to: http(s)://host:port, or the path of Milvus Lite's file.
        collection: The collection that holds the pictures.
        database: The server's database; empty for its default one.
        index: Index of the vectors where the gallery is made anew; empty for the default (AUTOINDEX on
            a server, FLAT in a file, which is exact).
    """

    uri: str
    collection: str
    database: str = ""
    index: str = ""

    @property
    def file(self) -> Path | None:
        """Milvus Lite's file; None for a server."""
        return None if self.uri.startswith(("http://", "https://")) else Path(self.uri)

    def __str__(self) -> str:
        if self.file is not None:
            return f"{_FILE}://{display_path(self.file)}?collection={self.collection}"
        scheme = "milvus" if self.uri.startswith("http://") else "milvus+https"
        database = f"?database={self.database}" if self.database else ""
        return f"{scheme}://{self.uri.partition('://')[2]}/{self.collection}{database}"

    @classmethod
    def parse(cls, address: str) -> MilvusAddress:
        """Read an address. Raises GalleryError saying what was expected; a password in it is not repeated."""
        parts = urlsplit(address)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(options.keys() - {"collection", "database", "index"})
        if unknown or parts.fragment:
            raise _wrong(f"unknown part {printable((unknown or [parts.fragment])[0])!r}")
        if parts.scheme == _FILE:
            uri, collection = _file(parts.netloc + parts.path), options.get("collection", COLLECTION)
        elif parts.scheme in _SERVERS:
            uri = _server(_SERVERS[parts.scheme], parts.netloc)
            collection = options.get("collection") or parts.path.strip("/")
        else:
            raise _wrong(f"unknown scheme {printable(parts.scheme)!r}")
        database, index = options.get("database", ""), options.get("index", "").upper()
        for name in filter(None, (collection or "?", database)):
            if not _NAME.fullmatch(name):
                raise _wrong(f"{printable(name)!r} is no name: letters, digits and _, not a digit first")
        if index and index not in INDEXES:
            raise _wrong(f"index {printable(index)!r} is none of {', '.join(INDEXES)}")
        return cls(uri, collection, database, index)


def is_milvus(name: str | os.PathLike[str]) -> bool:
    """Whether a gallery's name is an address of Milvus."""
    scheme, separator, _ = os.fspath(name).partition("://")
    return bool(separator) and (scheme in _SERVERS or scheme == _FILE)


def _file(path: str) -> str:
    if not path.endswith(".db"):
        raise _wrong("Milvus Lite's file must be named FILE.db")
    return os.path.abspath(unquote(path))


def _server(scheme: str, place: str) -> str:
    if "@" in place:
        raise _wrong(f"it holds a user or password; put the token into ${TOKEN_VARIABLE}")
    parts = urlsplit(f"//{place}")
    try:
        host, port = parts.hostname, parts.port or PORT
    except ValueError as error:
        raise _wrong(str(error)) from error
    if not host:
        raise _wrong("the host is missing")
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _wrong(problem: str) -> GalleryError:
    return GalleryError(f"this is no address of a gallery in Milvus ({problem}): expected {_FORMS}")
