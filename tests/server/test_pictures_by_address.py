"""Pictures fetched by address: from named hosts alone, bounded, and only where they are pictures."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import click
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient

from fakes import FakeEncoder, encoded
from image2sentence.cli.addresses import fetched_host
from image2sentence.errors import QueryError
from image2sentence.gallery import Gallery
from image2sentence.server import fetching
from image2sentence.server.app import Deployment, create_app
from image2sentence.server.fetching import Fetcher
from image2sentence.server.service import SearchService

HOST = "images.example.org"
PICTURE = encoded(Image.new("RGB", (60, 40), "red"), "PNG")


class Site(BaseHTTPRequestHandler):
    """A site with a picture, a text, a redirect and something endless; keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        kind = self.path.partition("?")[0]
        self.send_response({"/moved": 302, "/gone": 404}.get(kind, 200))
        self.send_header("Location", "/red.png")
        self.end_headers()
        if kind == "/endless":
            try:
                while True:
                    self.wfile.write(bytes(4096))
            except OSError:
                return
        self.wfile.write(PICTURE if kind == "/red.png" else b"a secret")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[int]:
    Site.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def reach(port: int, host: str) -> http.client.HTTPConnection:
    assert host == HOST
    return http.client.HTTPConnection("127.0.0.1", port, timeout=5)


def fetcher(port: int) -> Fetcher:
    return Fetcher(frozenset({HOST}), 1 << 20, partial(reach, port))


def test_a_picture_of_a_named_host_is_fetched(site: int) -> None:
    assert fetcher(site).content(f"https://{HOST}/red.png?size=2#here") == PICTURE
    assert Site.asked == ["/red.png?size=2"]


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("http://images.example.org/red.png", "https://HOST"),
        ("https://images.example.org:8443/red.png", "https://HOST"),
        ("https://me@images.example.org/red.png", "https://HOST"),
        ("https://images.example.org/red.png\r\nX: y", "https://HOST"),
        ("https://images.example.org/a b", "https://HOST"),
        ("https://[::1/", "https://HOST"),
        ("file:///etc/passwd", "https://HOST"),
        ("red.png", "https://HOST"),
        ("https://127.0.0.1/red.png", "from images.example.org only"),
        ("https://images.example.org.evil.example/red.png", "from images.example.org only"),
    ],
)
def test_no_other_address_is_asked(site: int, address: str, part: str) -> None:
    with pytest.raises(QueryError, match=part):
        fetcher(site).content(address)
    assert Site.asked == []


@pytest.mark.parametrize(
    ("path", "part"), [("moved", "answered 302"), ("gone", "answered 404"), ("endless", "larger than")]
)
def test_what_is_answered_is_bounded_and_not_followed(site: int, path: str, part: str) -> None:
    with pytest.raises(QueryError, match=part):
        fetcher(site).content(f"https://{HOST}/{path}")
    assert Site.asked == [f"/{path}"]


def test_a_host_that_drips_is_given_up(site: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "SECONDS", 0.0)
    with pytest.raises(QueryError, match="took longer"):
        fetcher(site).content(f"https://{HOST}/endless")


def test_a_server_fetches_only_where_its_owner_says_so(
    site: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as gallery:
        service = SearchService(encoder, gallery)
        wanted = {"url": f"https://{HOST}/red.png"}
        with TestClient(create_app(service)) as client:
            assert client.get("/v1/gallery").json()["fetches_from"] == []
            assert client.post("/v1/fetch", json=wanted).status_code == 403
        assert Site.asked == []
        app = create_app(service, deployment=Deployment(fetch_from=frozenset({HOST})))
        with TestClient(app) as client:
            monkeypatch.setattr(app.state.fetcher, "_connect", partial(reach, site))
            assert client.get("/v1/gallery").json()["fetches_from"] == [HOST]
            answer = client.post("/v1/fetch", json=wanted)
            assert (answer.status_code, answer.content) == (200, PICTURE)
            text = client.post("/v1/fetch", json={"url": f"https://{HOST}/text"})
            assert (text.status_code, b"secret" in text.content) == (422, False)
            assert client.post("/v1/fetch", json={"url": "https://127.0.0.1/"}).status_code == 422


def test_hosts_are_plain_names() -> None:
    assert fetched_host("Images.Example.org.") == "images.example.org"
    for wrong in ("", "https://x.org", "x.org:80", "x.org/y", "*", ".", "a b", "[::1]"):
        with pytest.raises(click.BadParameter):
            fetched_host(wrong)
