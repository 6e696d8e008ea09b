"""`image2sentence serve` as a process of its own: it finishes what it has begun, ends, and starts again."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from benchmarks.server.process import PATIENCE, server, status
from fakes import encoded, photo
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures

CLIENTS = 4
HEAD = "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
QUERY = b'{"text": "in red"}'


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(3):
        (pictures / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = load_encoder(threads=1)
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(pictures, made, encoder)
    return tmp_path / "gallery"


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, "this takes too long"
        time.sleep(0.02)


def inside(port: int) -> int:
    """Queries that the server has begun."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith("image2sentence_queries_inside "))
    return int(float(line.split()[1]))


def begun(port: int) -> socket.socket:
    """A connection that has sent half of a query."""
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(HEAD.format(len(QUERY)).encode() + QUERY[:5])
    return connection


def finished(connection: socket.socket) -> int:
    """The status of the query, after its other half."""
    with connection:
        connection.sendall(QUERY[5:])
        answer = HTTPResponse(connection)
        answer.begin()
        assert b"results" in answer.read()
        return answer.status


def test_what_is_begun_is_answered_after_sigterm_and_a_new_server_takes_over(gallery: Path) -> None:
    with server(gallery, stderr=subprocess.PIPE) as (port, process, _):
        connections = [begun(port) for _ in range(CLIENTS)]
        until(lambda: inside(port) == CLIENTS)
        process.send_signal(signal.SIGTERM)
        until(lambda: status(port, "/health") is None)
        assert [finished(connection) for connection in connections] == [200] * CLIENTS
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    with server(gallery, port=port):
        assert status(port, "/ready") == 200
