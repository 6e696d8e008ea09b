"""The same folder through a link, a mount or another spelling is one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import FakeEncoder, encoded, photo
from image2sentence.errors import GalleryError
from image2sentence.gallery.files.metadata import MetadataFile, apply_metadata
from image2sentence.gallery.locations import as_place
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import IndexReport, index_pictures


def write(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))


def run(folder: Path | str, gallery: Path) -> IndexReport:
    encoder = FakeEncoder()
    with Gallery.open_or_create(gallery, encoder.fingerprint, encoder.width) as opened:
        return index_pictures(folder, opened, encoder, threads=2)


def known(gallery: Path) -> dict[str, int]:
    with Gallery.open(gallery) as opened:
        return {str(picture.path): picture.id for picture in opened.pictures()}


@pytest.mark.parametrize("way", ["link", "link to a link", "slash", "dots", "dots behind a link", "relative"])
def test_another_name_of_an_indexed_folder_is_that_folder(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "p", 0, 3)
    run(tmp_path / "p", tmp_path / "g")
    before = known(tmp_path / "g")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    (tmp_path / "again").symlink_to(tmp_path / "link")
    (tmp_path / "far").mkdir()
    (tmp_path / "p" / "sub").mkdir()
    (tmp_path / "far" / "link").symlink_to(tmp_path / "p" / "sub")
    monkeypatch.chdir(tmp_path)
    names = {
        "link": tmp_path / "link",
        "link to a link": tmp_path / "again",
        "slash": f"{tmp_path}/p//",
        "dots": f"{tmp_path}/far/../p/./",
        "dots behind a link": f"{tmp_path}/far/link/..",
        "relative": "p",
    }
    report = run(names[way], tmp_path / "g")
    assert (report.unchanged, report.found) == (3, 3)
    assert known(tmp_path / "g") == before
    with Gallery.open(tmp_path / "g") as opened:
        assert list(opened.roots().values()) == [tmp_path / "p"]


def test_a_root_indexed_through_a_link_is_its_target_too(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 3)
    (tmp_path / "link").symlink_to(tmp_path / "p")
    run(tmp_path / "link", tmp_path / "g")
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 3
    assert list(known(tmp_path / "g")) == [str(tmp_path / "link" / f"{number}.jpg") for number in range(3)]


def test_overlap_shows_through_links(tmp_path: Path) -> None:
    write(tmp_path / "p" / "sub", 0, 2)
    (tmp_path / "p" / "out").symlink_to(tmp_path / "other")
    write(tmp_path / "other" / "deep", 5, 2)
    run(tmp_path / "p", tmp_path / "g")
    (tmp_path / "to sub").symlink_to(tmp_path / "p" / "sub")
    for inside in (tmp_path / "to sub", tmp_path / "other", tmp_path / "other" / "deep"):
        with pytest.raises(GalleryError, match="overlaps"):
            run(inside, tmp_path / "g")
    assert len(known(tmp_path / "g")) == 4


def test_a_link_into_another_indexed_folder_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "p" / "sub", 0, 2)
    run(tmp_path / "p", tmp_path / "g")
    write(tmp_path / "q", 7, 1)
    (tmp_path / "q" / "all").symlink_to(tmp_path / "p")
    (tmp_path / "q" / "part").symlink_to(tmp_path / "p" / "sub")
    report = run(tmp_path / "q", tmp_path / "g")
    assert (report.found, report.duplicates) == (1, 0)
    assert report.elsewhere == [tmp_path / "q" / "all", tmp_path / "q" / "part"]
    (tmp_path / "q" / "later").symlink_to(tmp_path / "p")
    assert run(tmp_path / "q", tmp_path / "g").found == 1
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 2
    assert len(known(tmp_path / "g")) == 3


def test_links_to_folders_above_end(tmp_path: Path) -> None:
    write(tmp_path / "p" / "a" / "b", 0, 2)
    (tmp_path / "p" / "a" / "b" / "up").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "self").symlink_to(tmp_path / "p" / "self")
    assert run(tmp_path / "p", tmp_path / "g").encoded == 2
    assert run(tmp_path / "p" / "a" / "b" / "up", tmp_path / "g").unchanged == 2


def test_a_second_mount_of_a_folder_is_that_folder(tmp_path: Path, mount: Callable[..., None]) -> None:
    write(tmp_path / "p" / "sub", 0, 3)
    for name in ("whole", "part"):
        (tmp_path / name).mkdir()
    run(tmp_path / "p", tmp_path / "g")
    mount(tmp_path / "whole", "--bind", str(tmp_path / "p"))
    mount(tmp_path / "part", "--bind", str(tmp_path / "p" / "sub"))
    assert run(tmp_path / "whole", tmp_path / "g").unchanged == 3
    with pytest.raises(GalleryError, match="overlaps"):
        run(tmp_path / "part", tmp_path / "g")
    assert len(known(tmp_path / "g")) == 3


def test_capitals_make_no_second_folder_where_the_system_sees_none(tmp_path: Path) -> None:
    write(tmp_path / "Photos", 0, 2)
    if not (tmp_path / "PHOTOS").exists():
        pytest.skip("this file system tells capitals apart")
    run(tmp_path / "Photos", tmp_path / "g")
    assert run(tmp_path / "PHOTOS", tmp_path / "g").unchanged == 2


def test_metadata_is_joined_under_every_name_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "p", 0, 2)
    run(tmp_path / "p", tmp_path / "g")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    (tmp_path / "t.csv").write_text("file,price\n0.jpg,5\n1.jpg,6\n")
    with Gallery.open(tmp_path / "g", readonly=False) as opened:
        values = MetadataFile(tmp_path / "t.csv", opened.columns())
        assert apply_metadata(opened, tmp_path / "link", values).matched == 2


def test_names_with_dots_that_lead_nowhere_stay_as_they_are(tmp_path: Path) -> None:
    assert as_place(f"{tmp_path}/a..b/../c..d") == tmp_path / "c..d"
    assert as_place(f"{tmp_path}/x/../y") == tmp_path / "y"
