"""Addresses at which a server is reached, and their QR codes."""

from __future__ import annotations

import io
import socket
import sys
from urllib.parse import urlsplit

import click

_EVERYWHERE = {"0.0.0.0": (socket.AF_INET, "192.0.2.1"), "::": (socket.AF_INET6, "2001:db8::1")}
_OWN_ROUTES = ("health", "metrics", "openapi.json", "ready", "runtime", "static", "v1")
_PATH_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~")


def address(host: str, port: int) -> str:
    """The URL to open; IPv6 addresses stand in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def network_host(host: str) -> str | None:
    """The address by which others on the network reach a server that listens at every address.

    It is that of the interface which leads out; nothing is sent to find it. None where `host` is one address itself,
    or the computer is in no network.
    """
    if host not in _EVERYWHERE:
        return None
    family, elsewhere = _EVERYWHERE[host]
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((elsewhere, 9))
            found = str(probe.getsockname()[0])
    except OSError:
        return None
    return found if found not in ("127.0.0.1", "::1", host) else None


def qr_code(text: str) -> str:
    """A QR code to print in a terminal, half a line a row."""
    import segno

    drawn = io.StringIO()
    segno.make(text, micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue()


def can_show_qr_code() -> bool:
    """Whether standard output is a terminal that has the characters of a QR code."""
    return sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def path_prefix(given: str) -> str:
    """A path below which a server is reached, without a slash at its end: "/pictures/" -> "/pictures", "/" -> "".

    Raises BadParameter for what is no path, or begins like an address of the server's own.
    """
    prefix = given.rstrip("/")
    segments = prefix.split("/")[1:]
    plain = all(one.strip(".") and set(one) <= _PATH_LETTERS for one in segments)
    if prefix and (not prefix.startswith("/") or not plain):
        raise click.BadParameter(
            "expected a path of letters, digits, '-', '.', '_' and '~', such as /pictures"
        )
    if segments and segments[0] in _OWN_ROUTES:
        raise click.BadParameter(f"/{segments[0]} is an address of the server's own: choose another path")
    return prefix


def fetched_host(given: str) -> str:
    """A host that pictures are fetched from, in lower case. Raises BadParameter for anything but a plain name."""
    name = given.lower().rstrip(".")
    if not name or set(name) - _PATH_LETTERS or set(name) & set("_~") or name.startswith("."):
        raise click.BadParameter(f"{given!r} is no host: expected a name such as images.example.org")
    return name


def web_origin(given: str) -> str:
    """An origin as browsers send it: scheme, host and port if it is not the scheme's own; "*" for any.

    Raises BadParameter for anything else.
    """
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise click.BadParameter(f"{given!r} is no origin: {error}") from error
    if given == "*":
        return given
    if parts.scheme not in ("http", "https") or not parts.hostname or given.rstrip("/").count("/") != 2:
        raise click.BadParameter(
            f"{given!r} is no origin: expected one such as https://shop.example.org, or '*'"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = port is not None and port != {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}:{port}" if shown else f"{parts.scheme}://{host}"
