"""ASGI layers around the routes: path prefix, HEAD requests, access log."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from datetime import datetime, timezone
from typing import Any, Literal, TypeAlias

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LogFormat: TypeAlias = Literal["text", "json"]
REQUEST_ID = "X-Request-ID"
ACCESS_LOGGER = "image2sentence.access"
MAX_LOGGED_PATH = 300
"""Characters of a path in the access log."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_access = logging.getLogger(ACCESS_LOGGER)


class PathPrefix:
    """Takes a path prefix from requests, where a proxy in front has left it on.

    Args:
        app: Gets paths without the prefix in `get_route_path`, and the prefix as `root_path`.
        prefix: Such as "/pictures".
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == self._prefix:  # addresses relative to the page would lead beside the prefix
            await RedirectResponse(f"{self._prefix}/", 308)(scope, receive, send)
            return
        below = path if path.startswith(f"{self._prefix}/") else self._prefix + path
        await self._app({**scope, "root_path": self._prefix, "path": below}, receive, send)


class HeadRequests:
    """Answers HEAD as GET without its content, at every address."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_content(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        asked = {**scope, "method": "GET"}
        await self._app(asked, receive, without_content)
        scope["route"] = asked.get("route")


class RequestIds:
    """Gives each request an id, returned as `X-Request-ID`, and writes the access log where one is wanted.

    A client's own id is kept where it is up to 64 letters, digits, dots, hyphens and underscores. Addresses are logged
    without what follows "?", which may hold conditions that people ask with.

    Args:
        app: What answers.
        log: Form of the access log's lines; None for no log.
    """

    def __init__(self, app: ASGIApp, log: LogFormat | None) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        start, status, size = time.perf_counter(), 500, 0

        async def noted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            if self._log is not None:
                milliseconds = round(1000 * (time.perf_counter() - start), 1)
                _access.info(access_line(scope, request_id, status, size, milliseconds, self._log))


def access_line(
    scope: Scope, request_id: str, status: int, size: int, milliseconds: float, form: LogFormat
) -> str:
    """One line of the access log; `size` in bytes of content. Control characters of a path are escaped."""
    client = scope.get("client")
    fields: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "client": client[0] if client else "-",
        "method": scope["method"],
        "path": str(scope["path"])[:MAX_LOGGED_PATH],
        "status": status,
        "bytes": size,
        "ms": milliseconds,
        "request_id": request_id,
    }
    if form == "json":
        return json.dumps(fields)
    fields["path"] = json.dumps(fields["path"])
    return " ".join(str(value) for value in fields.values())
