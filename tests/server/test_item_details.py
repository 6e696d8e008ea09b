"""What a visitor learns about one picture: its file, its path where the owner allows it, what it is like."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

import uvicorn
from fastapi.testclient import TestClient
from test_server import COLOURS, Shop, form, plate

from benchmarks.server.process import free_port
from image2sentence.server.app import Deployment, create_app
from image2sentence.server.connections import bounded_protocol
from image2sentence.server.requests import text_of
from image2sentence.server.security import AllowedHosts

HERE = ("127.0.0.1", 50_000)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    with shop.gallery:
        yield shop


def client_of(shop: Shop, show_paths: bool | None, client: tuple[str, int] = HERE) -> TestClient:
    app = create_app(shop.service, deployment=Deployment(show_paths=show_paths))
    return TestClient(app, base_url="http://localhost", client=client)


def test_paths_are_told_where_the_owner_allows_it(shop: Shop) -> None:
    number, path = shop.ids["green"], str(shop.pictures / "green.png")
    for shown in (True, False):
        with client_of(shop, shown) as client:
            one = client.get(f"/v1/items/{number}").json()
            listed = client.get("/v1/items").json()["items"]
            found = client.post("/v1/search", **form(text="green", k=1)).json()["results"]
            similar = client.get(f"/v1/items/{number}/similar").json()["similar"]
            assert client.get("/v1/gallery").json()["originals"] is shown
        assert (one["name"], one["path"]) == ("green.png", path if shown else None)
        assert (found[0]["name"], found[0]["path"]) == ("green.png", path if shown else None)
        assert {one["path"] is not None for one in listed + similar} == {shown}


def test_places_are_asked_for_where_they_are_told(shop: Shop) -> None:
    for where in (
        f"path like '{shop.pictures}/%'",
        "not (@folder = 'x') or name = 'green.png'",
        "@path > ''",
    ):
        for shown in (True, False):
            with client_of(shop, shown) as client:
                answers = [
                    client.get("/v1/items", params={"where": where}),
                    client.post("/v1/search", **form(text="green", where=where)),
                ]
            assert {answer.status_code for answer in answers} == {200 if shown else 422}, where
            assert shown or all("--show-paths" in answer.json()["error"] for answer in answers)
    with client_of(shop, False) as client:
        found = client.get("/v1/items", params={"where": "@name = 'green.png' and size > 0"}).json()
    assert found["total"] == 1


@pytest.mark.parametrize(
    ("client", "headers", "shown"),
    [
        (HERE, {}, True),
        (HERE, {"Host": "127.0.0.1:8000"}, True),
        (("::1", 1), {"Host": "[::1]:8000"}, True),
        (("192.168.1.9", 1), {}, False),
        (HERE, {"X-Forwarded-For": "203.0.113.5"}, False),
        (HERE, {"Via": "1.1 proxy"}, False),
        (HERE, {"Host": "photos.example.org"}, False),
    ],
)
def test_by_default_those_on_this_computer_see_paths(
    shop: Shop, client: tuple[str, int], headers: dict[str, str], shown: bool
) -> None:
    number = shop.ids["green"]
    with client_of(shop, None, client) as asking:
        shown_path = asking.get(f"/v1/items/{number}", headers=headers).json()["path"]
        original = asking.get(f"/v1/items/{number}/original", headers=headers)
    assert (shown_path is not None, original.status_code) == (shown, 200 if shown else 403)


ASK = """
import os, socket, sys
family, kind, *_, place = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_STREAM)[0]
os.setuid(int(sys.argv[3]))
with socket.socket(family, kind) as connection:
    connection.connect(place)
    connection.sendall(b"GET /v1/items/1 HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    while piece := connection.recv(4096):
        sys.stdout.buffer.write(piece)
"""
NOBODY = 65_534


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0,
    reason="only Linux tells accounts, and only root may take another",
)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize(("user", "shown"), [(0, True), (NOBODY, False)], ids=["own", "another"])
def test_a_program_of_another_account_sees_no_paths(shop: Shop, address: str, user: int, shown: bool) -> None:
    app = create_app(shop.service, hosts=AllowedHosts.of("::1"), deployment=Deployment(show_paths=None))
    config = uvicorn.Config(app, http=bounded_protocol([]), log_level="critical")
    server = uvicorn.Server(config)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        port = str(listening.getsockname()[1])
        asked = subprocess.run(  # like a proxy that passes no name and adds no header
            [sys.executable, "-I", "-c", ASK, address, port, str(user)], capture_output=True, text=True
        )
        server.should_exit = True
        thread.join()
    assert (json.loads(asked.stdout.rpartition("\n\n")[2])["path"] is not None) is shown, asked.stderr


def test_an_original_is_the_file_itself(shop: Shop) -> None:
    with client_of(shop, True) as client:
        answer = client.get(f"/v1/items/{shop.ids['red']}/original")
        assert answer.content == plate("red")
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''red.png"
        assert client.get("/v1/items/999/original").status_code == 404
        (shop.pictures / "blue.png").unlink()
        gone = client.get(f"/v1/items/{shop.ids['blue']}/original")
        assert (gone.status_code, str(shop.pictures) in gone.text) == (404, False)


def test_an_original_is_no_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = replace(shop.gallery.picture(shop.ids["red"]), path=shop.pictures / 'a"\r\nX: y.html')
    monkeypatch.setattr(shop.gallery, "pictures_of", lambda numbers: [odd])
    monkeypatch.setattr("image2sentence.server.service.read_picture", lambda picture: b"<script>")
    with client_of(shop, True) as client:
        answer = client.get(f"/v1/items/{odd.id}/original")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].endswith("''a%22%0D%0AX%3A%20y.html")
    assert "x" not in answer.headers


def test_near_duplicates_are_told_from_what_is_only_similar(shop: Shop) -> None:
    with client_of(shop, False) as client:
        answer = client.get(f"/v1/items/{shop.ids['red']}/similar", params={"k": 4}).json()
        names = {kind: [shop.names[one["id"]] for one in answer[kind]] for kind in answer}
        assert names["near_duplicates"] == ["zz-red-again"]
        assert answer["near_duplicates"][0]["score"] == pytest.approx(1, abs=1e-3)
        assert len(names["similar"]) == 3
        assert set(names["similar"]) < set(COLOURS) - {"red"}
        scores = [one["score"] for one in answer["similar"]]
        assert scores == sorted(scores, reverse=True)
        assert answer["similar"][0]["metadata"]["name"] == names["similar"][0]
        assert client.get("/v1/items/999/similar").status_code == 404
        assert client.get(f"/v1/items/{shop.ids['red']}/similar", params={"k": 999}).status_code == 422


def test_a_full_server_looks_for_nothing_similar(shop: Shop) -> None:
    with client_of(shop, False) as client:
        admission = client.app.state.serving.admission  # type: ignore[attr-defined]
        path = f"/v1/items/{shop.ids['red']}/similar"
        with ExitStack() as taken:
            for _ in range(33):
                taken.enter_context(admission.place())
            refused = client.get(path)
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    ("name", "text"),
    [("a\u202fb.png", "a\u202fb.png"), ("tab\t.png", "tab\t.png"), ("odd\udcff.png", "odd\\xff.png")],
)
def test_names_are_told_as_they_are(name: str, text: str) -> None:
    assert text_of(name) == text
    text_of(name).encode("utf-8")


def test_serve_tells_paths_on_this_computer_only(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn
    from click.testing import CliRunner

    from image2sentence import encoders
    from image2sentence.cli.main import cli

    made: list[Any] = []
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **__: shop.encoder)
    monkeypatch.setattr(uvicorn, "Config", lambda app, **options: made.append(app.state.show_paths))
    monkeypatch.setattr("image2sentence.server.connections.EndingServer.run", lambda server, sockets: None)
    monkeypatch.setattr(
        "image2sentence.server.connections.EndingServer.__init__", lambda server, config: None
    )
    expected = {
        (): None,
        ("--root-path", "/pictures"): False,
        ("--allow-host", "photos.example.org"): False,
        ("--host", "0.0.0.0"): False,
        ("--host", "0.0.0.0", "--show-paths"): True,
        ("--hide-paths",): False,
    }
    for options in expected:
        command = ["serve", "--gallery", str(shop.gallery.folder), "--port", str(free_port()), *options]
        ran = CliRunner().invoke(cli, command)
        assert ran.exit_code == 0
        noted = "--hide-paths" in ran.stdout
        assert noted is (not options)  # where somebody could be taken for a visitor on this computer
    assert made == list(expected.values())


def test_an_item_whose_file_is_gone_says_so(shop: Shop) -> None:
    (shop.pictures / "green.png").unlink()
    with client_of(shop, show_paths=False) as client:
        items = client.get("/v1/items").json()["items"]
        one = client.get(f"/v1/items/{shop.ids['green']}").json()
    assert {item["name"]: item["missing"] for item in items}["green.png"] is True
    assert sum(item["missing"] for item in items) == 1
    assert one["missing"] is True
