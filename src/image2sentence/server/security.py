"""Access control and browser security: tokens, host names, origins, headers."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from image2sentence.server.admission import Rates, client_of

WRONG_TOKENS = 5.0
"""Wrong tokens a second from one client, and twice as many at once."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANOTHER_USER = "is_of_another_user"
"""The state of a request has under this name what tells whether another account's program sends it."""

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


@dataclass(frozen=True)
class AllowedHosts:
    """Names a server may be called by (`Host` header).

    A page elsewhere can point its own name at this computer and would then share an origin with the server (DNS
    rebinding); its requests still carry that name. An address cannot be pointed elsewhere, so that a server which
    listens beyond this computer may be called by any.

    Attributes:
        names: Lower case, without ports.
        addresses: Whether any IP address will do.
        named: Those of `names` that the owner allowed; pages of these hosts may send forms, whatever their port.
    """

    names: frozenset[str]
    addresses: bool = False
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, host: str, allowed: Iterable[str] = ()) -> AllowedHosts:
        """For a server that listens at `host`; `allowed` are more names, "*" for any."""
        named = frozenset(host_name(name) for name in allowed)
        if host in LOOPBACK:
            return cls(LOOPBACK | named, named=named)
        own = socket.gethostname().lower()
        return cls(LOOPBACK | {host.lower(), own, f"{own}.local"} | named, addresses=True, named=named)

    def allows(self, name: str) -> bool:
        """Whether the server may be called by a name or address."""
        return name in self.names or "*" in self.named or (self.addresses and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Puts the security headers on every answer, and refuses foreign host names and requests by other sites' pages.

    Args:
        app: What to guard.
        hosts: Names the server may be called by; None for any.
        headers: Put on every answer.
        origins: Origins whose pages may send requests; "*" for any.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: AllowedHosts | None,
        headers: Mapping[str, str],
        origins: Collection[str] = frozenset(),
    ) -> None:
        self._app = app
        self._origins = origins
        self._headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        self._names = frozenset(name for name, _ in self._headers)
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [header for header in message.get("headers", ()) if header[0] not in self._names]
                message = {**message, "headers": [*kept, *self._headers]}
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        called = headers.getlist("host")
        if self._hosts is not None and (len(called) != 1 or not self._hosts.allows(host_name(called[0]))):
            text = "this server is not called by that host name; its owner may allow it: --allow-host NAME"
            return JSONResponse({"error": text}, 400)
        named = frozenset() if self._hosts is None else self._hosts.named
        if is_cross_site(str(scope["method"]), headers, named, self._origins):
            return JSONResponse({"error": "this server takes no requests from the pages of other sites"}, 403)
        return None


def is_cross_site(
    method: str,
    headers: Headers,
    named: frozenset[str] = frozenset(),
    origins: Collection[str] = frozenset(),
) -> bool:
    """Whether a page of another origin had a browser send this request.

    Browsers say so in `Sec-Fetch-Site`, and older ones, and all without TLS beyond this computer, in `Origin` wherever
    something is sent. Following a link from elsewhere is allowed; programs send neither header.

    Args:
        method: "GET", "POST", ...
        headers: Of the request.
        named: Host names whose pages may send requests from any port.
        origins: Origins whose pages may send requests; "*" for any.
    """
    origin = headers.get("origin")
    if origin is not None and (origin in origins or "*" in origins):
        return False
    if origin is not None and (_origin_host(origin) or "") in named:
        return False
    reads = method in ("GET", "HEAD")
    site = headers.get("sec-fetch-site")
    if site is not None:
        follows_link = reads and headers.get("sec-fetch-mode") == "navigate"
        return site not in ("same-origin", "none") and not follows_link
    return not reads and origin is not None and not _is_own(origin, headers.get("host", ""))


def _origin_host(origin: str) -> str | None:
    """The host name of an origin, lower case; None where it has none or is not well formed."""
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _is_own(origin: str, host: str) -> bool:
    """Whether an `Origin` is that of the host asked; the scheme is the proxy's where one ends TLS."""
    try:
        parts = urlsplit(origin)
        port = parts.port
        asked = urlsplit(f"//{host}")
        asked_port = asked.port
    except ValueError:
        return False
    default = {"http": 80, "https": 443}.get(parts.scheme)
    same = parts.hostname is not None and parts.hostname == asked.hostname
    return same and (port or default) == (asked_port or default)


def host_name(header: str) -> str:
    """The name in a Host header, without port: "localhost:8000" -> "localhost", "[::1]:8000" -> "::1"."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()


_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")


def is_on_this_computer(request: Request) -> bool:
    """Whether a request comes from this computer itself, and not through a proxy on it, as far as that can be seen.

    A proxy is seen by what it adds, by the name that it passes on, or by the account under which it runs.
    """
    client = request.client.host if request.client is not None else ""
    called = host_name(request.headers.get("host", ""))
    direct = (
        not any(name in request.headers for name in _FORWARDED) and request.scope["http_version"] != "1.0"
    )
    if not (direct and client in LOOPBACK and called in LOOPBACK):
        return False
    of_another_user: Callable[[], bool] | None = getattr(request.state, ANOTHER_USER, None)
    return of_another_user is None or not of_another_user()


async def require_token(request: Request) -> None:
    """Raise HTTPException 401 unless the request brings the server's token, where it has one.

    Raises Busy, before a token is looked at, where the client has brought too many wrong ones.
    """
    token: str | None = request.app.state.token
    if token is None:
        return
    rates: Rates = request.app.state.wrong_tokens
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if given:
        rates.spend(client_of(request))
    right = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())  # headers come as latin-1
    if scheme.lower() != "bearer" or not right:
        raise HTTPException(
            401, "this server wants its token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
        )
    rates.spend(client_of(request), -1.0)
