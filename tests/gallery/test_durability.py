"""Galleries on disks that fail: a damaged log, no room left, a read-only folder. Named, and nothing destroyed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_indexing import undisturbed, write_photos

from image2sentence.errors import GalleryError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite.gallery import DATABASE, LOCK, Gallery
from image2sentence.gallery.sqlite.lock import Mark, read_mark

WIDTH = 6
LOG = f"{DATABASE}-wal"


def content(number: int) -> Content:
    vector = np.zeros(WIDTH, np.float32)
    vector[number % WIDTH] = 1
    return Content(bytes([number]) * 32, 30 + number, 20, vector)


def commit(gallery: Gallery, number: int) -> None:
    entry = FileEntry(f"{number}.jpg", 100 + number, 1_000 + number, content(number).sha256)
    gallery.commit(gallery.add_root(Path("/pictures")), [content(number)], [entry])


def paths(gallery: Gallery) -> list[str]:
    return [os.fspath(picture.path) for picture in gallery.pictures()]


def snapshot(gallery: Gallery) -> tuple[object, ...]:
    ids, vectors = gallery.vectors()
    return gallery.pictures(), ids.tolist(), vectors.tobytes()


def killed(folder: Path, *, checkpointed: bool) -> Path:
    """What a writer of 12 commits leaves when it is killed: commits in the log, some of them in the file too."""
    with Gallery.create(folder / "alive", "model-a", WIDTH) as gallery:
        for number in range(12):
            commit(gallery, number)
            if checkpointed and number == 8:
                gallery._database.connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        (folder / "dead").mkdir()
        for name in (DATABASE, LOG, LOCK):
            shutil.copy(folder / "alive" / name, folder / "dead")
    return folder / "dead"


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files but the one that SQLite makes of the log for its own use."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-shm")}


def damage_is_named(folder: Path, expected: tuple[object, ...]) -> bool:
    """True when verifying says that something is wrong; where it does not, everything must be as expected."""
    try:
        with Gallery.open(folder) as gallery:
            gallery.verify()
            seen = snapshot(gallery)
    except GalleryError as error:
        return DATABASE in str(error)
    assert seen == expected
    return False


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_flipped_byte_in_the_log_is_named_and_nothing_is_destroyed(
    tmp_path: Path, checkpointed: bool
) -> None:
    dead = killed(tmp_path, checkpointed=checkpointed)
    with Gallery.open(shutil.copytree(dead, tmp_path / "sound")) as gallery:
        gallery.verify()
        expected, every = snapshot(gallery), paths(gallery)
    log = (dead / LOG).read_bytes()
    rng = np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(log, np.uint8))
    named = 0
    for case, place in enumerate([0, 20, *rng.choice(used, 60, replace=False).tolist()]):
        folder = Path(shutil.copytree(dead, tmp_path / str(case)))
        damaged = bytearray(log)
        damaged[place] ^= int(rng.integers(1, 256))
        (folder / LOG).write_bytes(damaged)
        before = files(folder)
        if not damage_is_named(folder, expected):
            continue
        named += 1
        assert files(folder) == before
        try:
            with Gallery.open(folder, readonly=False) as gallery:
                gallery.verify()
                left = paths(gallery)
                commit(gallery, 77)
        except GalleryError:
            assert files(folder) | {LOCK: b""} == before | {LOCK: b""}  # refused, and left as it was
            continue
        assert left == every[: len(left)]
        assert (folder / f"{LOG}.lost").read_bytes() == damaged
        with Gallery.open(folder) as gallery:
            gallery.verify()
    assert named > (20 if checkpointed else 45)


def test_lost_commits_are_counted_and_the_next_writer_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dead = killed(tmp_path, checkpointed=True)
    (dead / LOG).unlink()
    with Gallery.open(dead) as gallery:
        assert gallery.lost_commits() == 3  # pictures; the root was there before
    assert "has lost the last" in caplog.text
    caplog.clear()
    with Gallery.open(dead, readonly=False) as gallery:
        assert "Index the folders again" in caplog.text
        assert gallery.lost_commits() == 0
        commit(gallery, 50)
    caplog.clear()
    with Gallery.open(dead) as gallery:
        gallery.verify()
    assert not caplog.records


def test_a_sound_gallery_is_opened_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dead = killed(tmp_path, checkpointed=False)
    with caplog.at_level(logging.DEBUG):
        for _ in range(2):
            with Gallery.open(dead) as gallery:
                assert len(gallery) == 12
        with Gallery.open(dead, readonly=False) as gallery:
            gallery.verify()
    assert not caplog.records
    with Gallery.open(dead) as gallery:
        assert read_mark(dead / LOCK) == Mark(gallery.generation(), gallery.id)


def test_the_mark_of_another_gallery_or_none_says_nothing(tmp_path: Path) -> None:
    dead = killed(tmp_path, checkpointed=False)
    for text in ("process 1\ncommitted 00000000000000009999 of " + "0" * 32, "", "committed 99 of x"):
        (dead / LOCK).write_text(text)
        with Gallery.open(dead) as gallery:
            assert gallery.lost_commits() == 0
    (dead / LOCK).unlink()
    with Gallery.open(dead) as gallery:
        gallery.verify()


def test_a_flipped_byte_in_the_lock_file_is_no_false_alarm(tmp_path: Path) -> None:
    dead = killed(tmp_path, checkpointed=False)
    data = (dead / LOCK).read_bytes()
    with Gallery.open(dead) as gallery:
        right = read_mark(dead / LOCK)
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= 1
            (dead / LOCK).write_bytes(damaged)
            assert read_mark(dead / LOCK) in (None, right)
            assert gallery.lost_commits() == 0


ON_A_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from fakes import FakeEncoder
from image2sentence.errors import GalleryError
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.gallery.sqlite.gallery import Gallery

pictures, disk = map(Path, sys.argv[1:])
if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True).returncode:
    sys.exit(77)
encoder = FakeEncoder()
report = {}

def index():
    with Gallery.open_or_create(disk / "g", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(pictures, gallery, encoder, batch_size=4, threads=2)

def compact():
    with Gallery.open(disk / "g", readonly=False) as gallery:
        gallery.compact()

def ready():
    with Gallery.open(disk / "g") as gallery:
        gallery.verify()
        ids, vectors = gallery.vectors()
        pictures = gallery.pictures_of(ids.tolist())
        return {p.path.name: v.tobytes().hex() for p, v in zip(pictures, vectors, strict=True)}

def tried(name, work):
    try:
        work()
    except GalleryError as error:
        report[name] = str(error)

def fill(name, keep=0):
    room = disk / "room"
    room.write_bytes(bytes(keep))
    try:
        with (disk / name).open("wb", buffering=0) as stream:
            while stream.write(bytes(4096)):
                pass
    except OSError:
        room.unlink()

fill("filler", 400_000)
tried("index", index)
report["partial"] = len(ready())
fill("more")
tried("index again", index)
for name in ("filler", "more"):
    (disk / name).unlink()
index()
report["whole"] = ready()
fill("filler", 20_000)
tried("compact", compact)
report["after compact"] = ready() == report["whole"]
(disk / "filler").unlink()
compact()
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
before = {f.name: f.read_bytes() for f in (disk / "g").iterdir()}
tried("read-only", index)
report["after read-only"] = ready() == report["whole"]
report["untouched"] = before == {f.name: f.read_bytes() for f in (disk / "g").iterdir()}
print(json.dumps(report))
"""


def test_a_disk_that_is_full_or_read_only(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare here: a small disk cannot be mounted")
    folder, disk = tmp_path / "p", tmp_path / "disk"
    write_photos(folder, 130)
    disk.mkdir()
    expected = undisturbed(folder, tmp_path / "fresh")
    result = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-c", ON_A_SMALL_DISK, folder, disk],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SQLITE_TMPDIR": str(disk)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode == 77 or result.stderr.startswith("unshare:"):
        pytest.skip("no small disk can be mounted here")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    for work in ("index", "index again", "compact"):
        assert "Nothing committed is lost" in report[work] or "No space left" in report[work]
    assert 0 < report["partial"] < 130
    assert report["whole"] == {path.name: vector.hex() for path, (_, _, vector) in expected.items()}
    assert report["after compact"]
    assert report["after read-only"]
    assert report["untouched"]
    assert "cannot write in" in report["read-only"]


DIES = """
import os, signal, sys
from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite import gallery as store
from image2sentence.gallery.sqlite import index, index_file

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

with store.Gallery.open(sys.argv[1], readonly=False) as gallery:
    if sys.argv[2] == "rebuild":
        index_file.os.fsync = die
        index.make_index(gallery, AnnSettings(exact_below=10, lists=4, probes=4, rerank=20))
    elif sys.argv[2] == "commit":
        gallery._database.writer_lock.record = die
        gallery.delete([1])
    else:
        gallery._database.connection.set_progress_handler(die, 500)
        gallery.compact()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("work", ["rebuild", "compact", "commit"])
def test_killed_in_the_middle_of_a_work(tmp_path: Path, work: str, caplog: pytest.LogCaptureFixture) -> None:
    if work == "rebuild":
        pytest.importorskip("faiss")
    folder = tmp_path / "g"
    with Gallery.create(folder, "model-a", WIDTH) as gallery:
        for number in range(200):
            commit(gallery, number)
        gallery.delete(range(101, 201))
        expected = snapshot(gallery)
    command = [sys.executable, "-c", DIES, os.fspath(folder), work]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.verify()
        if work == "commit":
            assert len(gallery) == 99
        else:
            assert snapshot(gallery) == expected
        before = (folder / DATABASE).stat().st_size
        gallery.compact()
        assert (folder / DATABASE).stat().st_size < before
    assert not caplog.records
