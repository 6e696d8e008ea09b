"""The server behind nginx and Caddy with TLS and a path prefix: page, uploads, health."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from benchmarks.server.process import PATIENCE, free_port, server
from fakes import encoded, photo
from image2sentence.encoders import load_encoder
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures

PREFIX = "/pictures"
NAME = "photos.example.org"
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        client_max_body_size 25m;
        location {prefix}/ {{
            proxy_pass http://127.0.0.1:{upstream}{end};
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"""
CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
https://:{port} {{
    bind 127.0.0.1
    tls {folder}/certificate.pem {folder}/key.pem
    {directive} {prefix}* {{
        reverse_proxy 127.0.0.1:{upstream}
    }}
}}
"""


def program(name: str) -> str:
    """Path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: the server is not tested behind it")
    return found


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A process that listens at a port; ended afterwards."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None:
                assert process.stderr is not None
                pytest.fail(process.stderr.read().decode(errors="replace"))
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "this takes too long"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server with three pictures that is given its prefix and name."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "pictures").mkdir()
    for seed in range(3):
        (folder / "pictures" / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    encoder = load_encoder(threads=1)
    with Gallery.create(folder / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(folder / "pictures", made, encoder)
    with server(folder / "gallery", "--root-path", PREFIX, "--allow-host", NAME) as one:
        yield one.port


def certificate(folder: Path) -> None:
    """A certificate for one day, signed by itself."""
    subprocess.run(
        [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        + ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME},DNS:localhost"]
        + ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")],
        check=True,
        capture_output=True,
    )


@pytest.fixture(params=["nginx", "nginx keeps the prefix", "caddy", "caddy keeps the prefix"])
def proxy(request: pytest.FixtureRequest, upstream: int, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy with TLS in front of the server."""
    kind, _, keeps = request.param.partition(" ")
    found, port = program(kind), free_port()
    certificate(tmp_path)
    places = {"folder": tmp_path, "port": port, "upstream": upstream, "prefix": PREFIX}
    settings = tmp_path / "settings"
    if kind == "nginx":
        settings.write_text(NGINX.format(end="" if keeps else "/", **places))
        command = [found, "-c", str(settings), "-p", str(tmp_path), "-e", str(tmp_path / "error.log")]
    else:
        settings.write_text(CADDY.format(directive="handle" if keeps else "handle_path", **places))
        command = [found, "run", "--config", str(settings), "--adapter", "caddyfile"]
    with running(command, port):
        yield port


def ask(
    port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[HTTPResponse, bytes]:
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with closing(HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=trusting)) as connection:
        connection.request(method, path, body, {"Host": NAME} | (headers or {}))
        answer = connection.getresponse()
        return answer, answer.read()


def test_page_uploads_and_health_work_behind_a_proxy(proxy: int) -> None:
    page, html = ask(proxy, "GET", f"{PREFIX}/")
    assert page.status == 200
    script = html.decode().partition('type="module" src="')[2].partition('"')[0]
    assert ask(proxy, "GET", script)[0].status == 200
    assert ask(proxy, "HEAD", f"{PREFIX}/health")[0].status == 200
    own = {"Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-origin"}
    boundary = "----boundary"
    parts = f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    body = parts.encode() + encoded(photo(1), "PNG") + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer, found = ask(proxy, "POST", f"{PREFIX}/v1/search", body, own | kind)
    assert answer.status == 200, found
    assert len(json.loads(found)["results"]) == 3
    foreign = own | {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"} | kind
    assert ask(proxy, "POST", f"{PREFIX}/v1/search", body, foreign)[0].status == 403


def test_the_page_shows_pictures_behind_a_proxy(proxy: int) -> None:
    browser = program("chromium")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--ignore-certificate-errors",
        "--disable-dev-shm-usage",
    ]
    for path in (f"{PREFIX}/#text=red", PREFIX):
        ran = subprocess.run(
            [
                browser,
                *options,
                "--virtual-time-budget=15000",
                "--dump-dom",
                f"https://localhost:{proxy}{path}",
            ],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
        assert ran.stdout.count(f"{PREFIX}/v1/items/") == 3, ran.stdout[-2000:]
