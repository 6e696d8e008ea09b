"""A small stand-in for the Hugging Face Hub on the loopback interface."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096
"""Bytes from which a file is kept as large ones are, with its SHA-256."""


@dataclass
class Endpoint:
    """What is given out, and what was asked."""

    url: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    license: str | None = "mit"
    cut_at: int | None = None
    """The next body ends after so many bytes."""
    damage: bool = False
    gated: Literal["", "all", "files"] = ""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and range of each request."""
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Serves until the block ends."""
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            state.asked.append((self.command, path, self.headers.get("Range")))
            state.tokens.append(self.headers.get("Authorization"))
            if path.startswith("/api/models/"):
                self._info(path.removeprefix("/api/models/").partition("/revision/"))
            elif "/resolve/" in path:
                name, _, rest = path.strip("/").partition("/resolve/")
                self._file(name, rest.partition("/")[2], body)
            else:
                self._refuse("RepoNotFound")

        def _info(self, parts: tuple[str, str, str]) -> None:
            name, _, revision = parts
            folder = state.repositories.get(name)
            if state.gated == "all":
                self._refuse("GatedRepo", 403)
            elif folder is None:
                self._refuse("RepoNotFound", 401)
            elif revision not in ("", "main", COMMIT):
                self._refuse("RevisionNotFound")
            else:
                files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
                about: dict[str, Any] = {
                    "id": name,
                    "sha": COMMIT,
                    "siblings": [_sibling(path, folder) for path in files],
                    "tags": [],
                }
                if state.license:
                    about["cardData"] = {"license": state.license}
                self._send(json.dumps(about).encode(), {"Content-Type": "application/json"})

        def _file(self, name: str, file: str, body: bool) -> None:
            path = state.repositories.get(name, Path("/nowhere")) / file
            if state.gated:
                self._refuse("GatedRepo", 403)
                return
            if not path.is_file():
                self._refuse("EntryNotFound")
                return
            content = path.read_bytes()
            headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            if state.damage and body:
                content = content[:-1] + bytes([content[-1] ^ 1])
            status = 206 if start else 200
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], headers, status, body)

        def _send(
            self, content: bytes, headers: dict[str, str], status: int = 200, body: bool = True
        ) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body and self.command == "GET":
                if state.cut_at is not None and len(content) > state.cut_at:
                    self.wfile.write(content[: state.cut_at])
                    state.cut_at, self.close_connection = None, True
                else:
                    self.wfile.write(content)

        def _refuse(self, code: str, status: int = 404) -> None:
            self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def _etag(content: bytes) -> str:
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _sibling(path: Path, folder: Path) -> dict[str, Any]:
    content = path.read_bytes()
    about: dict[str, Any] = {
        "rfilename": path.relative_to(folder).as_posix(),
        "size": len(content),
        "blobId": hashlib.sha1(content).hexdigest(),
    }
    if len(content) >= LARGE:
        about["lfs"] = {"sha256": _etag(content), "size": len(content), "pointerSize": 130}
    return about
