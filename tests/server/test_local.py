"""What the page may do on the server's computer: list folders, index one, open files; and who may not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the server needs the [server] extra")

from fastapi.testclient import TestClient
from test_serve_process import until
from test_server import Shop, plate

from fakes import encoded, photo
from image2sentence.encoders import load_encoder
from image2sentence.errors import QueryError
from image2sentence.gallery.sqlite.database import DATABASE
from image2sentence.server.app import create_app
from image2sentence.server.local import folders, index_job, programs
from image2sentence.server.local.awaited import awaited_gallery
from image2sentence.server.local.folders import list_folder
from image2sentence.server.local.index_job import IndexJob
from image2sentence.server.local.routes import Local
from image2sentence.server.service import SearchService

HERE = ("127.0.0.1", 50_000)
KILLED_AFTER = 60.0
"""Seconds that a run is given to stop by itself; a busy machine needs some."""
ROUTES = [
    ("GET", "/v1/local"),
    ("GET", "/v1/local/progress"),
    ("GET", "/v1/local/folders"),
    ("POST", "/v1/local/index"),
    ("POST", "/v1/local/stop"),
    ("POST", "/v1/local/items/1/open"),
    ("POST", "/v1/local/items/1/show"),
]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    shop = Shop(tmp_path)
    with shop.gallery:
        yield shop


def client_of(
    shop: Shop, *, local: bool = True, client: tuple[str, int] = HERE, **options: Any
) -> TestClient:
    here = Local(shop.service, shop.gallery.folder) if local else None
    app = create_app(shop.service, local=here, **options)
    return TestClient(app, base_url="http://localhost", client=client)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nobody_elsewhere_and_no_other_site_may_do_anything_here(shop: Shop, method: str, path: str) -> None:
    body = {"json": {"folder": str(shop.pictures)}} if method == "POST" else {}
    elsewhere = client_of(shop, client=("192.168.1.9", 1))
    assert elsewhere.request(method, path, **body).status_code == 403
    with client_of(shop) as here:
        for headers in (
            {"X-Forwarded-For": "127.0.0.1"},
            {"Host": "photos.example.org"},
            {"Sec-Fetch-Site": "cross-site", "Origin": "https://example.org"},
            {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        ):
            assert here.request(method, path, headers=headers, **body).status_code == 403, headers
    with client_of(shop, local=False) as readonly:
        assert readonly.request(method, path, **body).status_code == 403
        assert readonly.get("/v1/gallery").json()["local"] is False
    with client_of(shop, token="secret") as locked:
        assert locked.request(method, path, **body).status_code == 401


def test_a_form_of_another_page_starts_nothing(shop: Shop) -> None:
    with client_of(shop) as here:
        plain = here.post(
            "/v1/local/index", content=b'{"folder": "/"}', headers={"Content-Type": "text/plain"}
        )
        assert plain.status_code == 422
        assert here.get("/v1/local/progress").json()["state"] == "none"


def test_a_folder_is_listed_with_its_tables_and_how_many_pictures_it_has(tmp_path: Path) -> None:
    for name in ("b", "A", ".hidden"):
        (tmp_path / name).mkdir()
    for name in ("1.jpg", "2.PNG", "prices.csv", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "linked").symlink_to(tmp_path / "b")
    found = list_folder(str(tmp_path))
    assert (found.path, found.parent) == (str(tmp_path), str(tmp_path.parent))
    assert (found.folders, found.tables, found.pictures) == (("A", "b", "linked"), ("prices.csv",), 2)
    assert found.whole
    assert list_folder("/").parent is None


def test_a_listing_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        (tmp_path / str(number)).mkdir()
    monkeypatch.setattr(folders, "MAX_SHOWN", 4)
    found = list_folder(str(tmp_path))
    assert (len(found.folders), found.whole) == (4, False)
    monkeypatch.setattr(folders, "MAX_ENTRIES", 3)
    found = list_folder(str(tmp_path))
    assert (len(found.folders), found.whole) == (3, False)


@pytest.mark.parametrize(
    "name", ["pictures", "../x", "/no/such/folder", "\0", "/" + "x" * 5_000, "~nobody/x"]
)
def test_what_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(QueryError):
        list_folder(name)


def test_a_file_of_the_gallery_is_opened_without_a_shell(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(programs, "run_first", lambda commands: ran.extend(commands))
    monkeypatch.setattr(programs.sys, "platform", "linux")
    path = shop.pictures / "green.png"
    with client_of(shop) as here:
        assert here.post(f"/v1/local/items/{shop.ids['green']}/open").status_code == 204
        assert ran == [["xdg-open", str(path)]]
        assert here.post(f"/v1/local/items/{shop.ids['green']}/show").status_code == 204
        assert f"array:string:file://{path}" in ran[1]
        assert ran[2] == ["xdg-open", str(shop.pictures)]
        assert here.post("/v1/local/items/999/open").status_code == 404
        path.unlink()
        assert here.post(f"/v1/local/items/{shop.ids['green']}/open").status_code == 422
    assert len(ran) == 3


@pytest.mark.parametrize("name", ["green.desktop", "green.exe", "green", "green.png.sh"])
def test_only_what_is_called_a_picture_is_opened(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A gallery from somebody else may name any file of this computer, and a desktop runs some."""
    ran: list[list[str]] = []
    monkeypatch.setattr(programs, "run_first", lambda commands: ran.extend(commands))
    (shop.pictures / name).write_bytes((shop.pictures / "green.png").read_bytes())
    named = replace(shop.service.item(shop.ids["green"]), path=shop.pictures / name)
    monkeypatch.setattr(shop.service, "item", lambda picture_id: named)
    with client_of(shop) as here:
        assert here.post(f"/v1/local/items/{shop.ids['green']}/open").status_code == 422
    assert not ran


def test_names_cannot_become_other_arguments() -> None:
    (shown, _) = programs.show_commands(Path('/a,b/c d;$(x)".png'))
    assert "array:string:file:///a%2Cb/c%20d%3B%24%28x%29%22.png" in shown


def test_a_program_that_fails_is_followed_by_the_next(tmp_path: Path) -> None:
    made = tmp_path / "made"
    fails = [sys.executable, "-c", "raise SystemExit(1)"]
    works = [sys.executable, "-c", f"open({str(made)!r}, 'w')"]
    programs.run_first([["no-such-program"], fails, works])
    assert made.exists()
    with pytest.raises(QueryError, match="copy the path"):
        programs.run_first([["no-such-program"], fails])


def pictures_in(folder: Path, count: int) -> Path:
    folder.mkdir()
    for seed in range(count):
        (folder / f"{seed:03}.png").write_bytes(encoded(photo(seed), "PNG"))
    return folder


def ended(job: IndexJob) -> dict[str, Any]:
    until(lambda: job.progress()["state"] not in ("starting", "running", "stopping"))
    return job.progress()


def test_a_server_without_a_gallery_indexes_a_folder_and_goes_on_with_it(tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path / "pictures", 3)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    table = tmp_path / "prices.csv"
    table.write_text("file,price\n000.png,5\n001.png,7.5\nelse.png,1\n")
    place, encoder = tmp_path / "gallery", load_encoder(threads=1)
    with awaited_gallery(place, encoder) as empty:
        service = SearchService(encoder, empty)
        local = Local(service, place)
        with TestClient(create_app(service, local=local), base_url="http://localhost", client=HERE) as client:
            assert client.get("/v1/items").json()["total"] == 0
            here = client.get("/v1/local").json()
            assert here["model"] == {"name": "starter", "knows": "garments, drawn products and emoji"}
            assert here["indexed"] == []
            assert not place.exists()
            wanted = {"folder": str(pictures), "table": str(table)}
            assert client.post("/v1/local/index", json=wanted).status_code == 202
            again = client.post("/v1/local/index", json=wanted)
            assert (again.status_code, "already" in again.json()["error"]) == (422, True)
            done = ended(local.job)
            assert (done["state"], done["error"]) == ("done", None)
            assert (done["done"], done["total"]) == (4, 4)
            assert (done["counts"]["encoded"], done["failed"]) == (3, 1)
            assert "broken.jpg" in done["reasons"][0][0]
            assert (done["columns"]["rows"], done["columns"]["unmatched"]) == (2, 1)
            until(lambda: client.get("/v1/items").json()["total"] == 3)
            found = client.get("/v1/items", params={"where": "price > 6"}).json()["items"]
            assert [one["name"] for one in found] == ["001.png"]
            (column,) = client.get("/v1/gallery").json()["columns"]
            assert (column["name"], column["least"], column["greatest"]) == ("price", 5, 7.5)
            assert client.get("/v1/local").json()["indexed"] == [str(pictures)]
    assert (place / DATABASE).exists()


COUNT = 600  # more than are indexed before the first word of how far it is


def test_an_interrupted_run_keeps_what_it_has_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_job, "STOPPING_SECONDS", KILLED_AFTER)
    pictures = pictures_in(tmp_path / "pictures", COUNT)
    place = tmp_path / "gallery"
    job = IndexJob(place)
    job.start(str(pictures))
    until(lambda: job.progress()["done"] >= 40)
    start = time.monotonic()
    job.stop()
    stopped = ended(job)
    assert (stopped["state"], time.monotonic() - start < KILLED_AFTER) == ("stopped", True)
    job.start(str(pictures))
    done = ended(job)
    assert done["state"] == "done"
    assert 0 < done["counts"]["unchanged"] < COUNT
    assert done["counts"]["unchanged"] + done["counts"]["encoded"] + done["counts"]["duplicates"] == COUNT


def test_a_run_ends_when_its_server_is_gone(tmp_path: Path) -> None:
    pictures = pictures_in(tmp_path / "pictures", 150)
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from image2sentence.server.local.index_job import IndexJob\n"
        "job = IndexJob(Path(sys.argv[2])); job.start(sys.argv[1])\n"
        "while job.progress()['done'] < 40: time.sleep(0.05)\n"
        "print(job._process.pid, flush=True); os._exit(0)\n"
    )
    command = [sys.executable, "-c", script, str(pictures), str(tmp_path / "gallery")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    until(lambda: not is_running(int(ran.stdout)))


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_cannot_be_indexed_says_why(tmp_path: Path) -> None:
    job = IndexJob(tmp_path / "gallery")
    for folder, table in ((tmp_path / "none", None), (tmp_path, "/no/table.csv")):
        with pytest.raises(QueryError, match="no such"):
            job.start(str(folder), table)
    broken = tmp_path / "broken.csv"
    broken.write_text("name,price\n1,2\n")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(plate("red"))
    job.start(str(tmp_path / "pictures"), str(broken))
    failed = ended(job)
    assert failed["state"] == "failed"
    assert "broken.csv" in failed["error"]
