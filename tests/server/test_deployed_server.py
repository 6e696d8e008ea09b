"""The server below a path prefix, for other origins' pages, and as caches, logs and generated clients see it."""

from __future__ import annotations

import gzip
import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

import click
from fastapi.testclient import TestClient
from test_server import PAGE, Shop, form

from image2sentence.cli import addresses, serve
from image2sentence.cli.addresses import network_host, path_prefix, qr_code, web_origin
from image2sentence.server.app import Deployment, create_app
from image2sentence.server.page_files import accepts_gzip
from image2sentence.server.security import AllowedHosts

PREFIX = "/pictures"
ADDRESS = re.compile(r'(?:href|src)="([^"#]+)"')


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    with shop.gallery:
        yield shop


@contextmanager
def deployed(shop: Shop, token: str | None = None, **where: Any) -> Iterator[TestClient]:
    hosts = AllowedHosts.of("127.0.0.1", ["testserver"])
    app = create_app(shop.service, token=token, hosts=hosts, deployment=Deployment(**where))
    with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


@pytest.mark.parametrize("kept", [PREFIX, ""], ids=["the proxy keeps the prefix", "the proxy takes it off"])
def test_everything_is_reached_below_a_prefix(shop: Shop, kept: str) -> None:
    with deployed(shop, prefix=PREFIX) as client:
        page = client.get(f"{kept}/")
        linked = [one for one in ADDRESS.findall(page.text) if not one.endswith(f"{PREFIX}/")]
        assert len(linked) >= 4
        assert all(one.startswith(f"{PREFIX}/static/") for one in linked)
        for one in linked:
            assert client.get(kept + one.removeprefix(PREFIX)).status_code == 200
        for path in (
            "/health",
            "/ready",
            "/metrics",
            "/openapi.json",
            "/v1/gallery",
            "/v1/items/1/thumbnail",
        ):
            assert client.get(kept + path).status_code == 200, path
        assert shop.found(client.post(f"{kept}/v1/search", **form(text="green")))[0] == "green"
        assert client.get(f"{kept}/v1/nothing").status_code == 404
        foreign = client.get(f"{kept}/v1/items", headers={"Host": "evil.example"})
        assert foreign.status_code == 400
        assert client.get(f"{kept}/v1/items", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_a_prefix_without_its_slash_leads_to_the_page(shop: Shop) -> None:
    with deployed(shop, prefix=PREFIX) as client:
        moved = client.get(PREFIX)
        assert (moved.status_code, moved.headers["location"]) == (308, f"{PREFIX}/")
        assert client.get("/picturesque").status_code == 404
        routes = re.findall(r'requests_total\{route="([^"]+)"', client.get("/metrics").text)
        assert not [route for route in routes if PREFIX in route]


def test_without_a_prefix_the_page_names_nothing_absolute(shop: Shop) -> None:
    with deployed(shop) as client:
        assert not [one for one in ADDRESS.findall(client.get("/").text) if one.startswith("/")]
        names = [one.name for one in PAGE.iterdir() if one.suffix in (".js", ".css")]
        assert {"app.js", "state.js", "search.js", "view.js", "style.css"} <= set(names)
        for name in names:
            assert not re.search(r"""["'`(]/(?:v1|runtime)/""", client.get(f"/static/{name}").text), name


@pytest.mark.parametrize(
    "path",
    ["/", "/health", "/ready", "/metrics", "/openapi.json", "/v1/gallery", "/v1/items", "/v1/items/1"]
    + ["/v1/items/1/thumbnail", "/v1/items/1/image", "/static/app.js", "/v1/items/999", "/nothing"],
)
def test_head_answers_as_get_without_content(shop: Shop, path: str) -> None:
    with deployed(shop, prefix=PREFIX) as client:
        whole, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    if path != "/metrics":  # which counts its own requests
        assert head.headers["content-length"] == whole.headers["content-length"]


def test_head_is_no_way_to_search(shop: Shop) -> None:
    with deployed(shop) as client:
        assert client.head("/v1/search").status_code == 405


def test_static_files_are_compressed_and_kept_for_ever_by_version(shop: Shop) -> None:
    with deployed(shop) as client:
        page = client.get("/")
        (script,) = re.findall(r'src="(static/\w+/app\.js)"', page.text)
        plain = client.get(f"/{script}", headers={"Accept-Encoding": "identity"})
        small = client.get(f"/{script}", headers={"Accept-Encoding": "br, gzip;q=0.8"})
        assert "immutable" in small.headers["cache-control"]
        assert small.headers["vary"] == "Accept-Encoding"
        assert int(small.headers["content-length"]) < 0.6 * int(plain.headers["content-length"])
        assert small.content == plain.content
        assert len(gzip.compress(plain.content)) < len(plain.content)
        assert small.headers["etag"] != plain.headers["etag"]
        older = re.sub(r"static/\w+/", "static/000000000000/", script)
        assert client.get(f"/{older}").status_code == 404
        for path in ("/", "/static/style.css", "/static/device/index.js"):
            first = client.get(path)
            assert first.headers["cache-control"] == "no-cache"
            again = client.get(path, headers={"If-None-Match": f'W/{first.headers["etag"]}, "other"'})
            assert (again.status_code, again.content) == (304, b"")


def test_pictures_that_a_client_has_are_not_sent_again(shop: Shop) -> None:
    with deployed(shop) as client:
        for path in ("/v1/items/1/thumbnail", "/v1/items/1/image"):
            first, other = client.get(path), client.get(path.replace("/1/", "/2/"))
            tag = first.headers["etag"]
            again = client.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == first.headers["cache-control"]
            assert other.headers["etag"] != tag
            changed = client.get(path, headers={"If-None-Match": other.headers["etag"]})
            assert (changed.status_code, changed.content) == (200, first.content)


def test_another_method_is_told_which_one_to_use(shop: Shop) -> None:
    with deployed(shop) as client:
        for method, path, allowed in (("GET", "/v1/search", "POST"), ("DELETE", "/v1/items/1", "GET, HEAD")):
            refused = client.request(method, path)
            assert (refused.status_code, refused.headers["allow"]) == (405, allowed)
            assert refused.json() == {"error": "Method Not Allowed"}


def test_gzip_is_sent_only_where_it_is_taken() -> None:
    taken = {"gzip": True, "deflate, GZIP": True, "*": True, "gzip;q=0.5": True, "gzip; q=1": True}
    refused = {"": False, "identity": False, "gzip;q=0": False, "gzip;q=0.0": False, "br": False}
    for header, expected in (taken | refused).items():
        assert accepts_gzip(header) is expected, header


def test_pages_of_allowed_origins_may_ask(shop: Shop) -> None:
    origin = "https://shop.example.org"
    own = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
    other = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with deployed(shop, prefix=PREFIX, origins=frozenset({origin})) as client:
        path = f"{PREFIX}/v1/search"
        allowed = client.options(path, headers=own | asks)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
        answer = client.post(path, headers=own, **form(text="red"))
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, origin)
        assert client.options(path, headers=other | asks).status_code == 403
        assert client.post(path, headers=other, **form(text="red")).status_code == 403
    with deployed(shop) as client:
        refused = client.post("/v1/search", headers=own, **form(text="red"))
        assert (refused.status_code, "access-control-allow-origin" in refused.headers) == (403, False)


def test_a_shared_link_of_another_origin_is_not_a_token(shop: Shop) -> None:
    with deployed(shop, token="secret", origins=frozenset({"*"})) as client:
        away = {"Origin": "https://any.example", "Sec-Fetch-Site": "cross-site"}
        assert client.post("/v1/search", headers=away, **form(text="red")).status_code == 401
        right = away | {"Authorization": "Bearer secret"}
        assert client.post("/v1/search", headers=right, **form(text="red")).status_code == 200


def test_each_request_has_an_id_and_a_line_in_the_log(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "image2sentence.access")
    with deployed(shop, prefix=PREFIX, access_log="json") as client:
        given = client.get(f"{PREFIX}/v1/items?where=hue%20%3E%201", headers={"X-Request-ID": "abc-1"})
        forged = client.get("/health", headers={"X-Request-ID": 'a" evil'})
        client.get('/v1/odd%0aname"')
    assert given.headers["x-request-id"] == "abc-1"
    assert re.fullmatch(r"[0-9a-f]{32}", forged.headers["x-request-id"])
    first, second, third = (json.loads(line) for line in caplog.messages)
    assert (first["method"], first["path"], first["status"]) == ("GET", f"{PREFIX}/v1/items", 200)
    assert (first["request_id"], first["bytes"]) == ("abc-1", len(given.content))
    assert second["request_id"] == forged.headers["x-request-id"]
    assert third["status"] == 404
    caplog.clear()
    with deployed(shop, access_log="text") as client:
        client.get('/v1/odd%0aname"')
    (line,) = caplog.messages
    assert '"/v1/odd\\nname\\"" 404' in line
    caplog.clear()
    with deployed(shop) as client:
        client.get("/health")
    assert not caplog.messages


@pytest.mark.parametrize("token", [None, "secret"])
def test_openapi_says_where_and_how_to_ask(shop: Shop, token: str | None) -> None:
    with deployed(shop, token=token, prefix=PREFIX) as client:
        described = client.get("/openapi.json").json()
    assert described["servers"] == [{"url": PREFIX}]
    operations = {path: one for path, ways in described["paths"].items() for one in ways.values()}
    names = [one["operationId"] for one in operations.values()]
    assert len(set(names)) == len(names)
    assert {"search", "sentence", "gallery", "items", "item", "thumbnail", "image", "health"} <= set(names)
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    wanted = [{"token": []}] if token else [{}, {"token": []}]
    assert operations["/v1/search"]["security"] == operations["/metrics"]["security"] == wanted
    assert "security" not in operations["/health"]
    picture = operations["/v1/items/{number}/thumbnail"]["responses"]["200"]["content"]
    assert list(picture) == ["image/jpeg"]


def test_openapi_has_one_type_of_content_for_each_operation(shop: Shop) -> None:
    with deployed(shop) as client:
        described = client.get("/openapi.json").json()
    operations = [one for ways in described["paths"].values() for one in ways.values()]
    for one in operations:
        answers = [answer.get("content", {}) for answer in one["responses"].values()]
        bodies = one.get("requestBody", {}).get("content", {})
        assert max(len(content) for content in (*answers, bodies)) == 1, one["operationId"]
        assert len(one["tags"]) == 1, one["operationId"]
    bodies = {
        one["operationId"]: one["requestBody"]["content"]
        for one in operations
        if "search" in one["tags"] and "requestBody" in one
    }
    named = {
        name: (*content, *one["schema"].values())
        for name, content in bodies.items()
        for one in content.values()
    }
    schemas = "#/components/schemas/"
    assert named == {
        "search": ("multipart/form-data", f"{schemas}SearchForm"),
        "search_json": ("application/json", f"{schemas}SearchFields"),
        "sentence": ("multipart/form-data", f"{schemas}ReferenceForm"),
        "sentence_json": ("application/json", f"{schemas}ReferenceFields"),
    }
    form, fields = (described["components"]["schemas"][name] for name in ("SearchForm", "SearchFields"))
    assert set(form["properties"]) - set(fields["properties"]) == {"picture"}
    assert "required" not in form
    assert not [
        name for one in (form, fields) for name, field in one["properties"].items() if "default" in field
    ]
    assert fields["properties"]["k"]["description"].endswith("Default: 24.")


@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/json"])
def test_both_addresses_take_a_form_and_json(shop: Shop, path: str) -> None:
    with deployed(shop) as client:
        assert shop.found(client.post(path, json={"text": "green", "k": 1})) == ["green"]
        assert shop.found(client.post(path, **form(text="green", k=1))) == ["green"]
        named = client.post("/v1/sentence/json", json={"item": shop.ids["red"]})
        assert named.json() == client.post("/v1/sentence", **form(item=shop.ids["red"])).json()


def test_a_prefix_is_checked() -> None:
    assert [path_prefix(one) for one in ("", "/", "/pictures/", "/a/b-c")] == ["", "", "/pictures", "/a/b-c"]
    for wrong in ("pictures", "/a//b", "/a/../b", "/a b", "/static", "/v1/x", "//evil.example", "/a?b"):
        with pytest.raises(click.BadParameter):
            path_prefix(wrong)


def test_an_origin_is_checked() -> None:
    assert web_origin("https://Shop.example.org:443/") == "https://shop.example.org"
    assert web_origin("http://localhost:3000") == "http://localhost:3000"
    assert web_origin("*") == "*"
    for wrong in ("null", "shop.example.org", "ftp://a.b", "https://a.b/path", "https://a:x", "https://"):
        with pytest.raises(click.BadParameter):
            web_origin(wrong)


def test_an_address_for_other_devices_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert network_host("127.0.0.1") is network_host("192.168.1.7") is None
    assert network_host("0.0.0.0") not in ("0.0.0.0", "127.0.0.1")
    monkeypatch.setattr(serve, "network_host", lambda host: "192.168.1.7" if host == "0.0.0.0" else None)
    serve._say_where(6, "0.0.0.0", 8000, PREFIX)
    printed = capsys.readouterr().out
    assert "http://localhost:8000/pictures/" in printed
    assert "On other devices of this network: http://192.168.1.7:8000/pictures/" in printed
    assert "█" not in printed  # no terminal
    monkeypatch.setattr(serve, "can_show_qr_code", lambda: True)
    serve._say_where(6, "0.0.0.0", 8000, "")
    assert qr_code("http://192.168.1.7:8000/") in capsys.readouterr().out
    serve._say_where(6, "127.0.0.1", 8000, "")
    assert capsys.readouterr().out == "6 pictures at http://127.0.0.1:8000 (Ctrl-C stops)\n"


def test_a_qr_code_wants_a_terminal_that_can_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for encoding, able in (("utf-8", True), ("UTF-8", True), ("cp1252", False)):
        monkeypatch.setattr(addresses.sys, "stdout", Terminal(encoding))
        assert addresses.can_show_qr_code() is able


class Terminal:
    def __init__(self, encoding: str) -> None:
        self.encoding = encoding

    def isatty(self) -> bool:
        return True
