"""Following a folder: what comes, changes, moves and goes is in the gallery soon after."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Event, Thread, Timer

import pytest
from click.testing import CliRunner

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.encoders import load_encoder
from image2sentence.errors import ConfigError
from image2sentence.gallery.locations import Place
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import watch as watching
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.indexing.several import Indexed, index_several
from image2sentence.indexing.watch import Update, follow

watchfiles = pytest.importorskip("watchfiles")

PATIENCE = 30


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photo(seed), "JPEG"))


def updating(gallery: Gallery, encoder: FakeEncoder, folders: list[Path]) -> Update:
    """Indexes what is due."""

    def index_one(place: Place, *, forget: Collection[int] | None) -> IndexReport:
        return index_pictures(place, gallery, encoder, forget=forget, threads=2)

    def update(due: Sequence[Path]) -> list[Indexed]:
        beside = [folder for folder in folders if folder not in due]
        return index_several(due, index_one, beside=beside, careful=True)

    return update


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / "p" / f"{number}.jpg", number)
    return tmp_path / "p"


@contextmanager
def following(folders: list[Path], place: Path) -> Iterator[Queue[Indexed]]:
    """What a thread that follows folders says."""
    stop, queue = Event(), Queue[Indexed]()
    encoder = FakeEncoder()

    def work() -> None:
        with Gallery.open_or_create(place, encoder.fingerprint, encoder.width) as gallery:
            for indexed in follow(folders, place, updating(gallery, encoder, folders), stop=stop):
                queue.put(indexed)

    thread = Thread(target=work)
    thread.start()
    try:
        yield queue
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are noticed soon."""
    monkeypatch.setattr(watching, "_SETTLES_MS", 100)
    monkeypatch.setattr(watching, "_WAKES_MS", 50)
    monkeypatch.setattr(watching, "_PAUSE_S", 0.1)


def known(place: Path) -> dict[str, int]:
    with Gallery.open(place) as gallery:
        return {str(picture.path): picture.id for picture in gallery.pictures("ready")}


@pytest.fixture
def reports(folder: Path, quick: None) -> Iterator[Queue[Indexed]]:
    """Reports of a thread that follows the folder into a gallery that lies within it."""
    with following([folder], folder / "gallery") as queue:
        yield queue


def until(queue: Queue[Indexed], right: Callable[[IndexReport], bool]) -> None:
    """Wait for a report."""
    while (report := queue.get(timeout=PATIENCE).report) is None or not right(report):
        pass


def until_away(queue: Queue[Indexed]) -> Path:
    """Wait until a folder is said to be away."""
    while (indexed := queue.get(timeout=PATIENCE)).away is None:
        pass
    return Path(indexed.place)


def test_what_comes_changes_moves_and_goes(folder: Path, reports: Queue[Indexed]) -> None:
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


def test_other_files_and_the_gallery_itself_wake_nobody(folder: Path, reports: Queue[Indexed]) -> None:
    until(reports, lambda report: report.encoded == 3)
    time.sleep(0.3)  # what the gallery wrote
    while not reports.empty():
        reports.get()
    (folder / ".hidden").mkdir()
    write(folder / ".hidden" / "4.jpg", 4)
    (folder / "gallery" / "some.jpg").write_bytes(b"no picture of the folder")
    with pytest.raises(Empty):
        reports.get(timeout=0.7)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stand_in", ["nothing", "an empty folder"])
def test_a_folder_that_is_away_is_waited_for(folder: Path, tmp_path: Path, stand_in: str) -> None:
    with following([folder], tmp_path / "g") as queue:
        until(queue, lambda report: report.encoded == 3)
        before = known(tmp_path / "g")
        for seed in (10, 11):
            folder.rename(tmp_path / "away")
            if stand_in != "nothing":
                folder.mkdir()
            assert until_away(queue) == folder
            time.sleep(0.3)
            assert queue.empty()  # it is said once
            assert before.items() <= known(tmp_path / "g").items()
            if stand_in != "nothing":
                folder.rmdir()
            (tmp_path / "away").rename(folder)
            until(queue, lambda report: report.unchanged >= 3 and report.deleted == 0)
            write(folder / f"{seed}.jpg", seed)
            until(queue, lambda report: report.encoded == 1)
    assert len(known(tmp_path / "g")) == 5


@pytest.mark.usefixtures("quick")
def test_a_folder_that_is_mounted_again_is_another_one(tmp_path: Path, mount: Callable[..., None]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, "-t", "tmpfs", "tmpfs")
    write(disk / "0.jpg", 0)
    with following([disk], tmp_path / "g") as queue:
        until(queue, lambda report: report.encoded == 1)
        before = known(tmp_path / "g")
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
        assert until_away(queue) == disk
        mount(disk, "-t", "tmpfs", "tmpfs")
        write(disk / "0.jpg", 0)
        until(queue, lambda report: report.found == 1 and report.encoded == 0)
        write(disk / "1.jpg", 1)
        until(queue, lambda report: report.encoded == 1)
        assert before.items() <= known(tmp_path / "g").items()


@pytest.mark.usefixtures("quick")
def test_a_folder_below_that_was_empty_is_looked_at_when_it_fills(folder: Path, tmp_path: Path) -> None:
    write(folder / "disk" / "9.jpg", 9)
    with following([folder], tmp_path / "g") as queue:
        until(queue, lambda report: report.encoded == 4)
        before = known(tmp_path / "g")
        (folder / "disk").rename(tmp_path / "away")
        (folder / "disk").mkdir()
        until(queue, lambda report: report.kept == 1)
        (folder / "disk").rmdir()
        (tmp_path / "away").rename(folder / "disk")
        until(queue, lambda report: report.unchanged == 4 and report.kept == 0)
    assert known(tmp_path / "g") == before


@pytest.mark.usefixtures("quick")
def test_several_folders_are_followed_and_pictures_move_between_them(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "q"
    for number in range(10, 13):
        write(other / f"{number}.jpg", number)
    with following([folder, other], tmp_path / "g") as queue:
        until(queue, lambda report: report.encoded == 3)
        until(queue, lambda report: report.encoded == 3)
        before = known(tmp_path / "g")
        (folder / "1.jpg").rename(other / "moved.jpg")
        until(queue, lambda report: report.moved == 1)
        (other / "10.jpg").rename(folder / "10.jpg")
        until(queue, lambda report: report.moved == 1)
        folder.rename(tmp_path / "away")
        assert until_away(queue) == folder
        write(other / "20.jpg", 20)
        until(queue, lambda report: report.encoded == 1)  # the other one is followed meanwhile
        (tmp_path / "away").rename(folder)
        until(queue, lambda report: report.unchanged == 3)
    after = known(tmp_path / "g")
    assert after[str(other / "moved.jpg")] == before[str(folder / "1.jpg")]
    assert after[str(folder / "10.jpg")] == before[str(other / "10.jpg")]
    assert set(before.values()) < set(after.values())
    assert len(after) == 7


def test_the_folder_is_looked_through_unasked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_WAKES_MS", 20)
    monkeypatch.setattr(watching, "EVERY", 0.05)
    nothing = IndexReport(0, 0, 0, 0, 0, 0, [], [], 0, 0.0)
    runs = follow([folder], None, lambda due: [Indexed(one, nothing) for one in due])
    assert [next(runs).report for _ in range(3)] == [nothing] * 3


def test_without_watchfiles_it_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ConfigError, match=r"image2sentence\[watch\]"):
        next(follow([folder], None, lambda due: iter([])))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes started now heed SIGINT, although a shell that runs the tests in the background has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_system_that_reports_no_changes_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> Iterator[object]:
        raise OSError("OS file watch limit reached")
        yield

    monkeypatch.setattr(watchfiles, "watch", full)
    with pytest.raises(ConfigError, match="watch limit reached"):
        next(follow([folder], None, lambda due: []))


def test_an_end_of_the_watcher_is_outlived(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "_PAUSE_S", 0.01)
    rounds: list[int] = []

    def ending(*_: object, **__: object) -> Iterator[set[object]]:
        rounds.append(1)
        if len(rounds) == 2:
            raise FileNotFoundError("it went while the watcher was set up")
        yield set()
        raise watchfiles._rust_notify.WatchfilesRustInternalError("error in underlying watcher")

    monkeypatch.setattr(watchfiles, "watch", ending)
    nothing = IndexReport(0, 0, 0, 0, 0, 0, [], [], 0, 0.0)
    runs = follow([folder], None, lambda due: [Indexed(one, nothing) for one in due])
    assert [next(runs).report for _ in range(3)] == [nothing] * 3
    assert len(rounds) == 4
    assert "watching is begun again" in caplog.text


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process of its own")
def test_the_command_waits_for_a_folder_that_is_away(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "g"
    command = [sys.executable, "-m", "image2sentence", "index", folder, "--gallery", place, "--watch"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with Gallery.create(place, load_encoder().fingerprint, load_encoder().width):
        pass
    folder.rename(tmp_path / "away")
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        limit = Timer(2 * PATIENCE, process.kill)
        limit.start()
        try:
            assert any("waiting for" in line and "there is no folder" in line for line in lines)
            (tmp_path / "away").rename(folder)
            assert any("is back" in line for line in lines)
            assert any("encoded 3" in line for line in lines)
            process.send_signal(signal.SIGINT)
            assert any("Stopped." in line for line in lines)
        finally:
            limit.cancel()
            process.kill()
    with Gallery.open(place) as gallery:
        assert len(gallery) == 3


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
        report = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert other.exit_code == 1
    assert f"is being written by process {process.pid} on" in other.output
    assert (report["encoded"], report["pictures"]) == (1, 4)
    assert process.returncode == 0, errors
    assert "Stopped." in errors
    assert "Traceback" not in errors
    with Gallery.open(place) as gallery:
        gallery.verify()
        assert len(gallery) == 4
