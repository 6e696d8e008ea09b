"""Storage that is away: what lies on a disk that is not there is not forgotten."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.errors import GalleryError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing.index_pictures import IndexReport, index_pictures


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
    assert run(tmp_path / "p", tmp_path / "g").deleted == 0
    assert known(tmp_path / "g") == before


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
