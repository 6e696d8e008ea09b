"""Following a folder: what comes, changes, moves and goes is in the gallery soon after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread

import pytest
from click.testing import CliRunner

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.errors import ConfigError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import watch as watching
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.indexing.watch import follow

watchfiles = pytest.importorskip("watchfiles")

PATIENCE = 30


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photo(seed), "JPEG"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / "p" / f"{number}.jpg", number)
    return tmp_path / "p"


@pytest.fixture
def reports(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue[IndexReport]]:
    """Reports of a thread that follows the folder into a gallery that lies within it."""
    monkeypatch.setattr(watching, "_SETTLES_MS", 100)
    monkeypatch.setattr(watching, "_WAKES_MS", 50)
    stop, queue = Event(), Queue[IndexReport]()
    encoder = FakeEncoder()

    def work() -> None:
        place = folder / "gallery"
        with Gallery.open_or_create(place, encoder.fingerprint, encoder.width) as gallery:
            for report in follow(folder, place, lambda: index_pictures(folder, gallery, encoder), stop=stop):
                queue.put(report)

    thread = Thread(target=work)
    thread.start()
    yield queue
    stop.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def until(queue: Queue[IndexReport], right: Callable[[IndexReport], bool]) -> None:
    """Wait for a report."""
    while not right(queue.get(timeout=PATIENCE)):
        pass


def test_what_comes_changes_moves_and_goes(folder: Path, reports: Queue[IndexReport]) -> None:
    until(reports, lambda report: report.encoded == 3)
    write(folder / "new" / "deep" / "3.jpg", 3)
    until(reports, lambda report: report.encoded == 1 and report.found == 4)
    write(folder / "1.jpg", 77)
    until(reports, lambda report: report.encoded == 1 and report.found == 4)
    (folder / "new").rename(folder / "renamed.folder")
    until(reports, lambda report: report.moved == 1)
    (folder / "0.jpg").unlink()
    until(reports, lambda report: report.deleted == 1)
    (folder / "half.jpg").write_bytes(encoded(photo(9), "JPEG")[:300])
    until(reports, lambda report: len(report.failed) == 1)
    write(folder / "half.jpg", 9)
    until(reports, lambda report: report.encoded == 1 and not report.failed)
    with Gallery.open(folder / "gallery") as gallery:
        names = {os.fspath(picture.path.relative_to(folder)) for picture in gallery.pictures()}  # type: ignore[union-attr]
    assert names == {"1.jpg", "2.jpg", "half.jpg", os.path.join("renamed.folder", "deep", "3.jpg")}


def test_other_files_and_the_gallery_itself_wake_nobody(folder: Path, reports: Queue[IndexReport]) -> None:
    until(reports, lambda report: report.encoded == 3)
    time.sleep(0.3)  # what the gallery wrote
    while not reports.empty():
        reports.get()
    (folder / ".hidden").mkdir()
    write(folder / ".hidden" / "4.jpg", 4)
    (folder / "gallery" / "some.jpg").write_bytes(b"no picture of the folder")
    with pytest.raises(Empty):
        reports.get(timeout=0.7)


def test_the_folder_is_looked_through_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_WAKES_MS", 20)
    monkeypatch.setattr(watching, "EVERY", 0.05)
    runs = follow(folder, None, lambda: IndexReport(0, 0, 0, 0, 0, 0, [], [], 0, 0.0))
    assert [next(runs).found for _ in range(3)] == [0, 0, 0]


def test_without_watchfiles_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"image2sentence\[watch\]"):
        next(follow(folder, None, lambda: IndexReport(0, 0, 0, 0, 0, 0, [], [], 0, 0.0)))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started now heed SIGINT, although a shell that runs the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process of its own")
@pytest.mark.usefixtures("interruptible")
def test_the_command_follows_refuses_a_second_writer_and_ends_clean(folder: Path, tmp_path: Path) -> None:
    place = os.fspath(tmp_path / "g")
    command = [
        sys.executable,
        "-m",
        "image2sentence",
        "index",
        folder,
        "--gallery",
        place,
        "--watch",
        "--json",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["encoded"] == 3
        other = CliRunner().invoke(cli, ["index", os.fspath(folder), "--gallery", place])
        write(folder / "3.jpg", 3)
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert other.exit_code == 1
    assert f"is being written by process {process.pid} on" in other.output
    assert (told["encoded"], told["pictures"]) == (1, 4)
    assert process.returncode == 0, errors
    assert "Stopped." in errors
    assert "Traceback" not in errors
    with Gallery.open(place) as gallery:
        gallery.verify()
        assert len(gallery) == 4
