"""Clients made of the OpenAPI description by openapi-python-client and openapi-typescript ask a composed query.

`make clients` installs the generators, each in a folder of its own; without them these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from benchmarks.server.process import server
from fakes import encoded, photo
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
from tests.conftest import REPOSITORY

CLIENTS = REPOSITORY / "tests" / "server" / "clients"
MODULES = CLIENTS / "node_modules"
GENERATOR = REPOSITORY / ".cache" / "clients" / "bin" / "openapi-python-client"
PREFIX, TOKEN = "/pictures", "correct-horse"
PICTURES = 4


class Served(NamedTuple):
    """Address and description of a server, a picture to ask with, and what a plain request was answered."""

    address: str
    described: Path
    picture: Path
    expected: list[int]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server below a prefix that wants a token."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "pictures").mkdir()
    for seed in range(PICTURES):
        (folder / "pictures" / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = load_encoder(threads=1)
    with Gallery.create(folder / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(folder / "pictures", made, encoder)
    token = {"IMAGE2SENTENCE_TOKEN": TOKEN}
    with server(folder / "gallery", "--root-path", PREFIX, environment=token) as one:
        described = folder / "openapi.json"
        described.write_bytes(asked(one.port, "GET", "/openapi.json"))
        body = json.dumps({"item": 1, "text": "in red", "not_text": ["blue", "dots"], "k": 3})
        expected = [
            found["id"] for found in json.loads(asked(one.port, "POST", "/v1/search", body))["results"]
        ]
        yield Served(
            f"http://localhost:{one.port}{PREFIX}", described, folder / "pictures" / "0.png", expected
        )


def asked(port: int, method: str, path: str, body: str | None = None) -> bytes:
    """The content of a successful answer."""
    connection = HTTPConnection("localhost", port, timeout=30)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, PREFIX + path, body, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return content


def ran(command: list[str | Path], folder: Path, **environment: str) -> str:
    """What a program printed."""
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def check(answers: dict[str, Any], served: Served) -> None:
    """What ask.py and ask.ts print."""
    assert len(served.expected) == 3
    assert answers["form"] == served.expected
    assert len(answers["json"]) == 3
    assert served.expected[0] not in answers["json"]  # with words, the reference itself is left out
    assert len(answers["sentence"]) == 64
    assert "999999" in answers["refused"]
    assert answers["thumbnail"] == "ffd8ff"  # a JPEG


def test_a_python_client_asks_a_composed_query(served: Served, tmp_path: Path) -> None:
    if not GENERATOR.exists():
        pytest.skip("openapi-python-client is not installed (make clients): no Python client is generated")
    settings = tmp_path / "settings.yaml"
    settings.write_text("content_type_overrides: {image/jpeg: application/octet-stream}\n")
    generate = [GENERATOR, "generate", "--path", served.described, "--output-path", tmp_path / "client"]
    said = ran([*generate, "--config", settings, "--fail-on-warning"], tmp_path, PATH=path_with(GENERATOR))
    assert "warning" not in said.lower()
    python = GENERATOR.with_name("python")
    asking: list[str | Path] = [python, CLIENTS / "ask.py", served.address, TOKEN, served.picture]
    check(json.loads(ran(asking, tmp_path, PYTHONPATH=str(tmp_path / "client"))), served)


def path_with(program: Path) -> str:
    """PATH with the folder of a program, which finds its formatter there."""
    return f"{program.parent}{os.pathsep}{os.environ['PATH']}"


def test_a_typescript_client_asks_a_composed_query(served: Served, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not MODULES.is_dir():
        pytest.skip(
            "node or openapi-typescript is not installed (make clients): no TypeScript client is generated"
        )
    (tmp_path / "node_modules").symlink_to(MODULES)
    for name in ("ask.ts", "package.json"):
        shutil.copy(CLIENTS / name, tmp_path)
    generator = MODULES / "openapi-typescript" / "bin" / "cli.js"
    ran([node, generator, served.described, "-o", "schema.d.ts"], tmp_path)
    strict = ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext"]
    ran([node, MODULES / "typescript" / "bin" / "tsc", *strict, "--types", "node", "ask.ts"], tmp_path)
    check(json.loads(ran([node, "ask.js", served.address, TOKEN, served.picture], tmp_path)), served)
