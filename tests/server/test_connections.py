"""Connections: heads, waiting, places and the end of the process are bounded before a request is read."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")
import uvicorn
from click import BadParameter

from image2sentence.cli.serve import networks
from image2sentence.server import connections
from image2sentence.server.connections import MAX_HEAD, bounded_protocol

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
PATIENCE = 10.0


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers 40 MB at /large, what it was sent otherwise, without reading it at /unread."""
    if scope["type"] != "http":
        return
    body, more = b"", scope["path"] != "/unread"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    body = bytes(40_000_000) if scope["path"] == "/large" else body
    length = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running(*proxies: str) -> Iterator[int]:
    """The port of a server in a thread."""
    config = uvicorn.Config(
        app,
        http=bounded_protocol([ip_network(one) for one in proxies]),
        port=0,
        lifespan="off",
        log_level="critical",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)
    assert not thread.is_alive()


def connected(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def answer(connection: socket.socket, count: int = 1 << 20) -> bytes:
    """What arrives until the server closes, or until `count` bytes are there."""
    read = b""
    try:
        while len(read) < count and (more := connection.recv(1 << 16)):
            read += more
    except ConnectionError:
        pass
    return read


def is_served(port: int) -> bool:
    with connected(port) as connection:
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        return answer(connection).startswith(b"HTTP/1.1 200")


def sent_until_closed(connection: socket.socket, piece: bytes, most: int) -> int:
    sent = 0
    try:
        while sent < most:
            connection.sendall(piece)
            sent += len(piece)
    except ConnectionError:
        pass
    return sent


@pytest.mark.parametrize("piece", [b"x: y\r\n" * 1_000, b"y" * 6_000], ids=["many headers", "one header"])
def test_endless_headers_are_refused(piece: bytes) -> None:
    with running() as port, connected(port) as connection:
        connection.sendall(GET + b"z: ")
        assert sent_until_closed(connection, piece, 100 << 20) < 20 << 20
        assert is_served(port)


def test_headers_a_little_too_large_are_told_so() -> None:
    with running() as port, connected(port) as connection:
        connection.sendall(GET + b"z: ")
        for _ in range(MAX_HEAD // 1_024 + 1):
            connection.sendall(b"y" * 1_024)
            time.sleep(0.001)
        head, _, content = answer(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431")
    assert "larger than the limit of 65,536 bytes" in json.loads(content)["error"]


def test_endless_trailers_are_refused() -> None:
    with running() as port, connected(port) as connection:
        connection.sendall(GET + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        assert sent_until_closed(connection, b"x: y\r\n" * 1_000, 100 << 20) < 20 << 20
        assert is_served(port)


def test_large_bodies_and_requests_behind_one_another_are_no_headers() -> None:
    body = bytes(3_000_000)
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + body
    with running() as port, connected(port) as connection:
        for _ in range(3):
            connection.sendall(request)
            assert answer(connection, 3_000_050).startswith(b"HTTP/1.1 200")
        connection.sendall((GET + b"\r\n") * 20 + GET)
        time.sleep(0.2)
        connection.sendall(b"Connection: close\r\n\r\n")
        assert answer(connection).count(b"HTTP/1.1 200") == 21


def test_no_more_requests_wait_on_a_connection_than_may() -> None:
    with running() as port:
        with connected(port) as connection:
            connection.sendall((GET + b"\r\n") * 3_000)
            assert answer(connection).count(b"HTTP/1.1 ") < 3_000
        with connected(port) as connection:
            connection.sendall((GET + b"\r\n") * 30 + b"nonsense\r\n\r\n")
            assert b"HTTP/1.1 400" not in answer(connection)
        assert is_served(port)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", b""),
        (b"\r\n", b"HTTP/1.1 408"),
        (GET, b"HTTP/1.1 408"),
        (b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1", b"HTTP/1.1 200"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1", b""),
    ],
    ids=["nothing", "a line break", "half a head", "half a body unread", "half a body"],
)
def test_what_does_not_arrive_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, first: bytes, expected: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "BODY_SECONDS", 0.3)
    with running() as port, connected(port) as connection:
        start = time.monotonic()
        connection.sendall(first)
        assert answer(connection)[:12] == expected
        assert time.monotonic() - start < PATIENCE / 2


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALL_SECONDS", 0.3)
    with running() as port, connected(port) as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(1.0)
        assert len(answer(connection, 50_000_000)) < 40_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address")
def test_one_client_does_not_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CLIENT_CONNECTIONS", 4)
    with running() as port:
        taken = [connected(port, "127.0.0.2") for _ in range(6)]
        time.sleep(0.2)
        assert [answer(one)[:12] for one in taken[4:]] == [b"HTTP/1.1 503"] * 2
        assert is_served(port)
        for one in taken:
            one.close()
        time.sleep(0.2)
        with connected(port, "127.0.0.2") as again:
            again.sendall(GET + b"Connection: close\r\n\r\n")
            assert answer(again).startswith(b"HTTP/1.1 200")
    with running("127.0.0.0/30") as port:
        taken = [connected(port, "127.0.0.2") for _ in range(6)]
        for one in taken:
            one.sendall(GET + b"Connection: close\r\n\r\n")
        assert all(answer(one).startswith(b"HTTP/1.1 200") for one in taken)
        for one in taken:
            one.close()


def test_proxies_are_addresses_and_networks() -> None:
    assert networks(None) is networks("") is None
    assert networks("10.0.0.1, fd00::/8") == [ip_network("10.0.0.1/32"), ip_network("fd00::/8")]
    for wrong in ("*", "proxy.example", "10.0.0.1/8", "10.0.0.1,"):
        with pytest.raises(BadParameter, match="expected IP addresses"):
            networks(wrong)


def test_the_process_ends_whatever_runs() -> None:
    script = """
import os, signal, threading, time, uvicorn
from image2sentence.server.connections import EndingServer
EndingServer.seconds = 1.0
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive(); await send({"type": "lifespan.startup.complete"})
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        await receive(); time.sleep(60)
EndingServer(uvicorn.Config(app, port=0, log_level="critical")).run()
"""
    start = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], timeout=50).returncode == 1
    assert time.monotonic() - start < 30
