"""Files of the page, compressed once, with addresses that hold their version."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path

from fastapi import Request
from fastapi.responses import Response

STATIC = "static"
VERSION_DIGITS = 12
MIN_COMPRESSED_BYTES = 512
FOREVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_TEXTS = frozenset({"text/css", "text/html", "text/javascript"})


class StaticFile:
    """A file's content with its type, its digest and, where that is smaller, its compressed form.

    Args:
        name: File name; its ending says the type.
        content: Whole content; kept in memory.
    """

    def __init__(self, name: str, content: bytes) -> None:
        ending = Path(name).suffix.lower()
        self.content = content
        self.media_type = _TYPES.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.digest = hashlib.sha256(content).hexdigest()

    @cached_property
    def compressed(self) -> bytes | None:
        """The content as gzip; None where that saves nothing."""
        if len(self.content) < MIN_COMPRESSED_BYTES:
            return None
        small = gzip.compress(self.content, mtime=0)
        return small if len(small) < len(self.content) else None

    def response(self, request: Request, caching: str = ASK_AGAIN) -> Response:
        """The file, compressed where the client takes that; 304 without content where it has this version."""
        compressed = self.compressed if accepts_gzip(request.headers.get("accept-encoding", "")) else None
        tag = f'"{self.digest[:32]}{"-gz" if compressed is not None else ""}"'
        headers = {"ETag": tag, "Cache-Control": caching, "Vary": "Accept-Encoding"}
        if has_version(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=headers)
        kind = f"{self.media_type}; charset=utf-8" if self.media_type in _TEXTS else self.media_type
        if compressed is None:
            return Response(self.content, headers=headers, media_type=kind)
        return Response(compressed, headers=headers | {"Content-Encoding": "gzip"}, media_type=kind)


class PageFiles:
    """The page with its scripts and styles, read once.

    Scripts and styles are served at `static/VERSION/NAME`, which may be kept for ever since VERSION is the digest of
    all of them, and at `static/NAME`. The page names them relative to its own address, so that it works below any path
    prefix; where the prefix is known, it names them with it, so that the page also works without a slash at its end.

    Args:
        prefix: Path below which the server is reached, such as "/pictures"; "" for none.
    """

    def __init__(self, prefix: str = "") -> None:
        self._files = _read(page_folder()) | {
            f"device/{name}": file for name, file in _read(browser_module()).items()
        }
        self.version = _version(self._files)
        page = self._files.pop("index.html").content.decode("utf-8")
        base = f"{prefix}/" if prefix else "./"
        page = page.replace('href="./"', f'href="{base}"')
        page = page.replace(f'="{STATIC}/', f'="{prefix and base}{STATIC}/{self.version}/')
        self.page = StaticFile("index.html", page.encode("utf-8"))

    def file(self, name: str) -> tuple[StaticFile, str] | None:
        """A file by what follows `static/` in its address, and how long it may be kept; None for an unknown one."""
        version, _, rest = name.partition("/")
        if version == self.version and rest in self._files:
            return self._files[rest], FOREVER
        found = self._files.get(name)
        return None if found is None else (found, ASK_AGAIN)


def page_folder() -> Path:
    """The folder of the page's own files."""
    return Path(str(resources.files("image2sentence"))) / "server" / STATIC


def browser_module() -> Path:
    """The scripts of js/src: in the page's folder where the package was built, in js/src of a clone."""
    built = page_folder() / "device"
    return built if built.is_dir() else Path(str(resources.files("image2sentence"))).parents[1] / "js" / "src"


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` header takes gzip."""
    for one in header.lower().split(","):
        coding, _, weight = one.replace(" ", "").partition(";")
        if coding in ("gzip", "*"):
            return weight.partition("=")[2].strip("0.") != "" if weight else True
    return False


def _read(folder: Path) -> dict[str, StaticFile]:
    return {
        path.name: StaticFile(path.name, path.read_bytes())
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in _TYPES
    }


def _version(files: Mapping[str, StaticFile]) -> str:
    listed = "\n".join(f"{name} {file.digest}" for name, file in sorted(files.items()))
    return hashlib.sha256(listed.encode()).hexdigest()[:VERSION_DIGITS]


def has_version(header: str, tag: str) -> bool:
    """Whether an `If-None-Match` header names a version."""
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in tags or "*" in tags
