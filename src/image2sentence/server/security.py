"""Who may ask, and what browsers are told: tokens, host names, headers."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_CONTENT = (
    "default-src 'none'; script-src 'self'{wasm}; worker-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "geolocation=(), microphone=()",
}


def security_headers(runs_model: bool = False) -> dict[str, str]:
    """What every answer carries; `runs_model` where the page may compile WebAssembly, to encode queries itself."""
    wasm = " 'wasm-unsafe-eval'" if runs_model else ""
    return {"Content-Security-Policy": _CONTENT.format(wasm=wasm), **_HEADERS}


class Guard:
    """Puts the security headers on every answer, and refuses requests made under a foreign host name.

    A page elsewhere can point its own name at 127.0.0.1 and would then share an origin with a server on the
    loopback (DNS rebinding); its requests still carry that name.

    Args:
        app: What to guard.
        hosts: Names the server may be called by; None for any.
        headers: Put on every answer.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        app = self._app if self._may(scope) else _foreign_host
        await app(scope, receive, guarded)

    def _may(self, scope: Scope) -> bool:
        return self._hosts is None or host_name(Headers(scope=scope).get("host", "")) in self._hosts


async def _foreign_host(scope: Scope, receive: Receive, send: Send) -> None:
    answer = JSONResponse({"error": "this server is not called by that host name"}, 400)
    await answer(scope, receive, send)


def host_name(header: str) -> str:
    """The name in a Host header, without port: "localhost:8000" -> "localhost", "[::1]:8000" -> "::1"."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


async def require_token(request: Request) -> None:
    """Raise HTTPException 401 unless the request brings the server's token, where it has one."""
    token: str | None = request.app.state.token
    if token is None:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())  # headers come as latin-1
    if scheme.lower() != "bearer" or not right:
        raise HTTPException(
            401, "this server wants its token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )
