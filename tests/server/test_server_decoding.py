"""Uploads that are made to stop a server: refused in time, while others are answered, and it still ends."""

from __future__ import annotations

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient
from PIL import Image
from test_decode_pool import SLOW, slow_jpeg
from test_serve_process import gallery as gallery
from test_serve_process import until
from test_server import Reader, Shop, form, plate
from test_server import shop as shop

from benchmarks.server.process import server, status
from fakes import encoded
from image2sentence.gallery import Gallery
from image2sentence.images import DecodeLimits, pool
from image2sentence.indexing import index_pictures
from image2sentence.server.app import create_app
from image2sentence.server.service import SearchService


def test_an_upload_that_takes_too_long_is_refused_while_others_are_answered(shop: Shop) -> None:
    service = SearchService(shop.encoder, shop.gallery, DecodeLimits(seconds=0.5))
    with TestClient(create_app(service), raise_server_exceptions=False) as client:
        answers: list[object] = []
        sent = threading.Thread(target=lambda: answers.append(client.post("/v1/search", **form(SLOW))))
        sent.start()
        assert client.get("/health").status_code == 200
        assert shop.found(client.post("/v1/search", **form(plate("red"))))[:1] == ["red"]
        sent.join(20)
    (answer,) = answers
    assert answer.status_code == 422  # type: ignore[attr-defined]
    assert "it took longer than 0.5 s to decode" in answer.text  # type: ignore[attr-defined]


def test_uploads_that_wait_too_long_are_told_to_come_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.untrusted_pool(), "_patience", 0.2)
    monkeypatch.setattr(pool.untrusted_pool(), "_processes", 0)
    with TestClient(create_app(shop.service), raise_server_exceptions=False) as client:
        answer = client.post("/v1/search", **form(plate("red")))
    assert answer.status_code == 429
    assert "Retry-After" in answer.headers


def test_a_picture_of_the_gallery_is_not_held_to_the_limits_for_strangers(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    large = encoded(Image.new("L", (9_000, 8_000), 200), "PNG")
    (tmp_path / "p" / "large.png").write_bytes(large)
    encoder = Reader()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as opened:
        index_pictures(tmp_path / "p", opened, encoder)
        (item,) = opened.vectors()[0].tolist()
        with TestClient(create_app(SearchService(encoder, opened)), raise_server_exceptions=False) as client:
            assert client.post("/v1/search", **form(item=item)).status_code == 200
            assert client.get(f"/v1/items/{item}/image").status_code == 200
            refused = client.post("/v1/search", **form(encoded(Image.new("L", (9_000, 8_000), 100), "PNG")))
    assert refused.status_code == 422
    assert "72,000,000 pixels, more than the limit of 64,000,000" in refused.text


def test_a_server_ends_while_it_decodes(gallery: Path) -> None:
    bomb = slow_jpeg(90, 7_900)
    with server(gallery) as (port, process, _):
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        body = (
            b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
            + bomb
            + b"\r\n--x--\r\n"
        )
        head = (
            "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        )
        for one in sockets:
            one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: status(port, "/health") == 200)
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        assert time.monotonic() - start < 12
        for one in sockets:
            one.close()
