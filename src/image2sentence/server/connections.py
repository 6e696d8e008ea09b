"""Bounds of HTTP connections before a request is read: heads, deadlines, places."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import threading
from collections.abc import Sequence
from types import FrameType
from typing import TypeAlias

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from image2sentence.server.admission import client_name
from image2sentence.server.peer import is_of_another_user
from image2sentence.server.security import ANOTHER_USER

MAX_HEAD = 64 << 10
"""Bytes of a request line with all headers; as much again, beside the body itself, for what frames a body."""
HEAD_SECONDS = 10.0
"""From the connection, or the first byte of a further request, to the end of its headers."""
BODY_SECONDS = 45.0
"""From the end of the headers to the end of the body, read or not; forms have a shorter deadline of their own."""
STALL_SECONDS = 30.0
"""How long a client may leave an answer unread that does not fit into the socket's buffers."""
MAX_PIPELINED = 32
"""Requests that may wait on one connection for the answer to the one before: a client sends 14,000 in one packet."""
MAX_CONNECTIONS = 1_000
MAX_CLIENT_CONNECTIONS = 128
"""Open connections of one client (see `client_name`); those of a trusted proxy only count among all."""

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_BUSY = "too many connections: try again in a moment"


class _TooManyWaitError(Exception):
    """More requests wait on one connection than may."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the size of heads, on waiting, and on connections.

    httptools keeps headers of any size, and uvicorn waits for them, for bodies that nobody reads and for readers of its
    answers without end.
    """

    proxies: Sequence[Network] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection's place, or close it where there is none."""
        super().connection_made(transport)
        self._another_user: bool | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._begun = self._in_body = False
        self._framing = self._body = self._chunk_body = 0
        self._completed = False
        if self._has_place():
            self._wait(HEAD_SECONDS)
        else:
            self._refuse(503, _BUSY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the connection's place back."""
        self._stop()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and count what of it is no body."""
        if self.transport.is_closing():
            return
        self._begun = True
        if self._timer is None:
            self._wait(HEAD_SECONDS)
        self._chunk_body, self._completed = 0, False
        super().data_received(data)
        self._framing = 0 if self._completed else self._framing + len(data) - self._chunk_body
        if self._timer is not None and self._framing > MAX_HEAD + self._body:
            self._refuse(431, f"the headers are larger than the limit of {MAX_HEAD:,} bytes")

    def on_message_begin(self) -> None:
        """A request begins: it can be told whose program sends it."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _TooManyWaitError  # the parser ends with it, and `send_400_response` is called
        super().on_message_begin()
        self.scope.setdefault("state", {})[ANOTHER_USER] = self._is_of_another_user

    def send_400_response(self, msg: str) -> None:
        """What was sent is no request: say so, unless another answer is under way, which ends here."""
        if self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self._stop()
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """The head is there: wait for the body."""
        self._in_body = True
        self._framing = self._body = 0
        self._wait(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._body += len(body)
        self._chunk_body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there as a whole."""
        super().on_message_complete()
        self._stop()
        self._begun = self._in_body = False
        self._completed = True

    def on_response_complete(self) -> None:
        """The answer is written, though perhaps not read."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """Nothing more was asked."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads on."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _is_of_another_user(self) -> bool:
        """Looked up once for each connection, and only where it is asked for."""
        if self._another_user is None:
            client, own = (self.transport.get_extra_info(name) for name in ("peername", "sockname"))
            self._another_user = is_of_another_user(client[:2], own[:2])
        return self._another_user

    def _has_place(self) -> bool:
        if len(self.connections) > MAX_CONNECTIONS:
            return False
        if self.client is None or any(_address(self.client[0]) in one for one in self.proxies):
            return True
        name = client_name(self.client[0])
        peers = (getattr(one, "client", None) for one in self.connections)
        own = sum(1 for peer in peers if peer is not None and client_name(peer[0]) == name)
        return own <= MAX_CLIENT_CONNECTIONS

    def _wait(self, seconds: float) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        if self._begun:
            self._refuse(408, "the request took too long to arrive")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """End the connection, with an answer where none has begun."""
        self._stop()
        if self._in_body or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.abort()
            return
        content = json.dumps({"error": message}).encode()
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        )
        self.transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        self.transport.close()
        self.loop.call_later(STALL_SECONDS, self.transport.abort)


_REASONS = {408: "Request Timeout", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def bounded_protocol(proxies: Sequence[Network]) -> type[BoundedProtocol]:
    """The protocol for uvicorn; `proxies` are networks whose connections are many clients'."""
    return type("BoundedProtocol", (BoundedProtocol,), {"proxies": tuple(proxies)})


class EndingServer(uvicorn.Server):
    """uvicorn's server, which ends within `seconds` of the first signal whatever still runs."""

    seconds = 10.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, and end the process later if that does not."""
        if not self.should_exit:
            timer = threading.Timer(self.seconds, os._exit, (1,))
            timer.daemon = True
            timer.start()
        super().handle_exit(sig, frame)
