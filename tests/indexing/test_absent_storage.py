"""Storage that is away: what lies on a disk that is not there is not forgotten."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.errors import GalleryError, ImageError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import IndexReport, forgotten, index_pictures, sources
from image2sentence.indexing import walk as walking
from image2sentence.indexing.forgotten import remember


def write(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))


def run(folder: Path, gallery: Path, **options: bool) -> IndexReport:
    encoder = FakeEncoder()
    with Gallery.open_or_create(gallery, encoder.fingerprint, encoder.width) as opened:
        return index_pictures(folder, opened, encoder, threads=2, **options)  # type: ignore[arg-type]


def known(gallery: Path) -> dict[str, int]:
    with Gallery.open(gallery) as opened:
        opened.verify()
        return {str(picture.path): picture.id for picture in opened.pictures()}


def test_an_empty_mount_point_is_refused_and_nothing_is_forgotten(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    (tmp_path / "p").rename(tmp_path / "away")
    (tmp_path / "p").mkdir()
    with pytest.raises(GalleryError, match=r"4 of 4 pictures.*--allow-empty"):
        run(tmp_path / "p", tmp_path / "g")
    assert known(tmp_path / "g") == before
    (tmp_path / "p").rmdir()
    (tmp_path / "away").rename(tmp_path / "p")
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 4
    assert known(tmp_path / "g") == before


def test_forgetting_most_of_a_folder_is_refused_unless_allowed(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 9)
    write(tmp_path / "p" / "disk", 9, 11)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    shutil.rmtree(tmp_path / "p" / "disk")
    write(tmp_path / "p", 30, 1)
    with pytest.raises(GalleryError, match="11 of 20"):
        run(tmp_path / "p", tmp_path / "g")
    after = known(tmp_path / "g")
    assert before.items() <= after.items()
    assert len(after) == 21  # the new one is in
    assert run(tmp_path / "p", tmp_path / "g", allow_empty=True).deleted == 11
    assert len(known(tmp_path / "g")) == 10


def test_the_command_takes_allow_empty(tmp_path: Path) -> None:
    described = CliRunner().invoke(cli, ["index", "--help"]).output
    assert "--allow-empty" in described


def test_pictures_below_a_link_that_leads_nowhere_are_kept(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 8)
    write(tmp_path / "disk", 8, 3)
    (tmp_path / "p" / "link").symlink_to(tmp_path / "disk")
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    assert len(before) == 11
    (tmp_path / "disk").rename(tmp_path / "away")
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.deleted, report.kept) == (0, 3)
    assert report.away == [(tmp_path / "p" / "link", "3 kept: a link that leads nowhere")]
    assert known(tmp_path / "g") == before
    assert run(tmp_path / "p", tmp_path / "g", allow_empty=True).deleted == 3


def test_pictures_of_a_folder_that_is_empty_now_are_kept_and_said(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 8)
    write(tmp_path / "p" / "disk" / "deep", 8, 3)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    (tmp_path / "p" / "disk").rename(tmp_path / "away")
    (tmp_path / "p" / "disk" / ".hidden").mkdir(parents=True)
    for command in range(2):
        report = run(tmp_path / "p", tmp_path / "g")
        assert (report.deleted, report.kept, report.unchanged) == (0, 3, 8), command
        assert [place for place, _ in report.away] == [tmp_path / "p" / "disk"]
    assert known(tmp_path / "g") == before
    shutil.rmtree(tmp_path / "p" / "disk")
    (tmp_path / "away").rename(tmp_path / "p" / "disk")
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 11
    shutil.rmtree(tmp_path / "p" / "disk" / "deep")
    assert run(tmp_path / "p", tmp_path / "g", allow_empty=True).deleted == 3
    assert len(known(tmp_path / "g")) == 8


def test_files_moved_out_of_a_folder_that_is_empty_now_keep_their_ids(tmp_path: Path) -> None:
    write(tmp_path / "p" / "old", 0, 3)
    write(tmp_path / "p" / "new", 3, 1)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    for number in range(3):
        (tmp_path / "p" / "old" / f"{number}.jpg").rename(tmp_path / "p" / "new" / f"{number}.jpg")
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.moved, report.kept, report.away) == (3, 0, [])
    assert sorted(known(tmp_path / "g").values()) == sorted(before.values())


def test_a_link_to_a_file_that_is_away_keeps_its_picture(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 2)
    write(tmp_path / "disk", 2, 1)
    (tmp_path / "p" / "2.jpg").symlink_to(tmp_path / "disk" / "2.jpg")
    run(tmp_path / "p", tmp_path / "g")
    (tmp_path / "disk").rename(tmp_path / "away")
    report = run(tmp_path / "p", tmp_path / "g")
    assert [reason for _, reason in report.failed] == ["a link to a file that does not exist"]
    with Gallery.open(tmp_path / "g") as opened:
        assert len(opened.pictures("ready")) == 3
    (tmp_path / "away").rename(tmp_path / "disk")
    assert run(tmp_path / "p", tmp_path / "g").encoded == 0


@pytest.mark.parametrize("left", ["folder gone", "other files there"])
def test_pictures_of_a_disk_mounted_below_are_kept(
    tmp_path: Path, left: str, mount: Callable[..., None]
) -> None:
    write(tmp_path / "p", 0, 8)
    disk = tmp_path / "p" / "disk"
    disk.mkdir()
    mount(disk, "-t", "tmpfs", "tmpfs")
    write(disk, 8, 3)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    subprocess.run(["umount", str(disk)], check=True)
    if left == "folder gone":
        disk.rmdir()
    else:
        write(disk, 30, 1)
    for _ in range(2):
        report = run(tmp_path / "p", tmp_path / "g")
        assert (report.deleted, report.kept) == (0, 3)
        assert report.away == [(disk, "3 kept: no disk is mounted there now")]
    assert before.items() <= known(tmp_path / "g").items()
    disk.mkdir(exist_ok=True)
    mount(disk, "-t", "tmpfs", "tmpfs")
    write(disk, 8, 3)
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.encoded, report.kept, report.deleted) == (0, 0, int(left != "folder gone"))
    assert known(tmp_path / "g") == before


def test_what_was_set_by_hand_comes_back_with_the_content(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 3)
    (tmp_path / "p" / "copy.jpg").write_bytes((tmp_path / "p" / "2.jpg").read_bytes())
    run(tmp_path / "p", tmp_path / "g")
    with Gallery.open(tmp_path / "g", readonly=False) as opened:
        opened.add_columns({"price": "number", "note": "text"})
        opened.set_metadata([(1, {"price": 5, "note": "mine"}), (3, {"price": 7}), (4, {"price": 8})])
    for name in ("0.jpg", "2.jpg", "copy.jpg"):
        (tmp_path / "p" / name).rename(tmp_path / name)
    assert run(tmp_path / "p", tmp_path / "g").deleted == 3
    for name in ("0.jpg", "2.jpg", "copy.jpg"):
        (tmp_path / name).rename(tmp_path / "p" / f"again {name}")
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.encoded, report.duplicates) == (2, 1)
    with Gallery.open(tmp_path / "g") as opened:
        opened.verify()
        values = {
            picture.path.name: value  # type: ignore[union-attr]
            for picture, value in zip(
                opened.pictures(), opened.metadata([one.id for one in opened.pictures()]), strict=True
            )
        }
        assert opened.notes("forgotten") == {}
    assert values["again 0.jpg"] == {"price": 5, "note": "mine"}
    assert sorted(values[f"again {name}"]["price"] for name in ("2.jpg", "copy.jpg")) == [7, 8]  # type: ignore[type-var]
    assert values["1.jpg"] == {}
    write(tmp_path / "p", 0, 1)  # a second picture with the content gets nothing
    run(tmp_path / "p", tmp_path / "g")
    with Gallery.open(tmp_path / "g") as opened:
        (new,) = [p.id for p in opened.pictures() if p.path.name == "0.jpg"]  # type: ignore[union-attr]
        assert opened.metadata([new]) == [{}]


def test_what_was_set_by_hand_is_kept_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    with Gallery.open(tmp_path / "g", readonly=False) as opened:
        opened.add_columns({"price": "number"})
        opened.set_metadata([(number, {"price": number}) for number in (1, 2, 3)])
        now = time.time()
        monkeypatch.setattr("time.time", lambda: now - 91 * 86_400)
        remember(opened, [1])
        monkeypatch.setattr("time.time", lambda: now)
        remember(opened, [2])
        assert [note["values"] for note in opened.notes("forgotten").values()] == [[{"price": 2}]]
        monkeypatch.setattr(forgotten, "MAX_KEPT", 1)
        monkeypatch.setattr("time.time", lambda: now + 1)
        remember(opened, [3])
        assert [note["values"] for note in opened.notes("forgotten").values()] == [[{"price": 3}]]


@pytest.mark.parametrize("seed", range(20))
def test_scripted_absences_and_renames_lose_no_picture_and_no_id(tmp_path: Path, seed: int) -> None:
    root, away = tmp_path / "p", tmp_path / "away"
    write(root / "a", 0, 3)
    write(root / "b", 3, 3)
    run(root, tmp_path / "g")
    before = sorted(known(tmp_path / "g").values())
    rng = random.Random(seed)
    for step in range(4):
        kind = rng.choice(("unmounted", "missing", "renamed"))
        if kind == "renamed":
            folder = rng.choice(sorted(root.iterdir()))
            folder.rename(root / f"renamed {step}")
            assert run(root, tmp_path / "g").deleted == 0
        else:
            root.rename(away)
            if kind == "unmounted":
                root.mkdir()
            with pytest.raises(GalleryError):
                run(root, tmp_path / "g")
            if kind == "unmounted":
                root.rmdir()
            away.rename(root)
        assert sorted(known(tmp_path / "g").values()) == before
    assert run(root, tmp_path / "g").unchanged == 6


def test_a_disk_that_answers_with_errors_loses_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    for number in range(3):
        os.utime(tmp_path / "p" / f"{number}.jpg", (1, 1))
    (tmp_path / "p" / "new.jpg").write_bytes(b"")

    def fail(path: Path) -> tuple[bytes, os.stat_result]:
        raise ImageError("it cannot be read ([Errno 5] Input/output error)")

    with monkeypatch.context() as patch:
        patch.setattr(sources, "read_regular", fail)
        report = run(tmp_path / "p", tmp_path / "g")
    assert (report.deleted, len(report.failed)) == (0, 4)
    assert known(tmp_path / "g").items() >= before.items()
    with Gallery.open(tmp_path / "g") as opened:
        assert len(opened) == 4
    assert (
        run(tmp_path / "p", tmp_path / "g").unchanged,
        known(tmp_path / "g").items() >= before.items(),
    ) == (
        4,
        True,
    )


def test_files_that_are_empty_now_are_no_edited_pictures(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    contents = {file: file.read_bytes() for file in (tmp_path / "p").iterdir()}
    for file in contents:
        file.write_bytes(b"")
    report = run(tmp_path / "p", tmp_path / "g")
    assert {reason for _, reason in report.failed} == {"the file is empty"}
    assert known(tmp_path / "g") == before
    with Gallery.open(tmp_path / "g") as opened:
        assert len(opened) == 4
    for file, content in contents.items():
        file.write_bytes(content)
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.unchanged, report.encoded, known(tmp_path / "g")) == (4, 0, before)
    (tmp_path / "p" / "0.jpg").write_bytes(b"")
    run(tmp_path / "p", tmp_path / "g", allow_empty=True)
    with Gallery.open(tmp_path / "g") as opened:
        assert len(opened) == 3


def test_a_folder_whose_disk_does_not_answer_is_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "p" / "net", 0, 3)
    write(tmp_path / "p", 3, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    real = walking._is_folder

    def no_answer(entry: os.DirEntry[str]) -> bool:
        if entry.name == "net":
            raise OSError(107, "Transport endpoint is not connected")
        return real(entry)

    monkeypatch.setattr(walking, "_is_folder", no_answer)
    report = run(tmp_path / "p", tmp_path / "g")
    assert report.unreadable_folders == [(tmp_path / "p" / "net", "Transport endpoint is not connected")]
    assert (report.deleted, known(tmp_path / "g")) == (0, before)


@pytest.mark.parametrize("kind", ["file", "pipe", "link that leads nowhere", "link to itself"])
def test_something_else_in_place_of_a_root_is_no_deletion(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    (tmp_path / "p").rename(tmp_path / "away")
    if kind == "pipe":
        os.mkfifo(tmp_path / "p")
    elif kind == "file":
        (tmp_path / "p").write_bytes(b"")
    else:
        (tmp_path / "p").symlink_to(tmp_path / ("p" if "itself" in kind else "nowhere"))
    with pytest.raises(GalleryError, match="there is no folder"):
        run(tmp_path / "p", tmp_path / "g")
    assert known(tmp_path / "g") == before


@pytest.mark.parametrize("moment", [-1e9, 0, 3_600, 4e9])
def test_times_of_files_that_jump_change_nothing(tmp_path: Path, moment: float) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    for file in (tmp_path / "p").iterdir():
        os.utime(file, (moment, moment))
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.unchanged, report.encoded, known(tmp_path / "g")) == (4, 0, before)


def test_names_in_other_capitals_keep_their_ids(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 4)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    for file in list((tmp_path / "p").iterdir()):
        file.rename(file.with_suffix(".JPG"))
    assert run(tmp_path / "p", tmp_path / "g").encoded == 0
    assert known(tmp_path / "g") == {name.replace(".jpg", ".JPG"): one for name, one in before.items()}
