"""Indexing: incremental, interruptible, and stopped by no file."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fakes import FakeEncoder, awkward_folder, encoded, photo
from image2sentence import images
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import ConfigError, GalleryError, ModelError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.indexing.pipeline import ReadAhead


def write_photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.jpg" for number in range(first, first + count)]
    for number, path in enumerate(paths, first):
        path.write_bytes(encoded(photo(number), "JPEG"))
    return paths


def run(folder: Path, gallery: Path, encoder: FakeEncoder | None = None, **options: object) -> IndexReport:
    encoder = encoder or FakeEncoder()
    with Gallery.open_or_create(gallery, encoder.fingerprint, encoder.width) as opened:
        options = {"batch_size": 4, "threads": 2, **options}
        report = index_pictures(folder, opened, encoder, **options)  # type: ignore[arg-type]
        opened.verify()
    counted = report.encoded + report.unchanged + report.moved + report.duplicates + len(report.failed)
    assert report.found == counted
    return report


def state(gallery: Path) -> dict[Path, tuple[str, str | None, bytes]]:
    """Everything that searching sees: path -> state, reason, vector."""
    with Gallery.open(gallery) as opened:
        opened.verify()
        ids, vectors = opened.vectors()
        rows = dict(zip(ids.tolist(), vectors, strict=True))
        return {
            p.path: (p.state, p.reason, rows[p.id].tobytes() if p.id in rows else b"")
            for p in opened.pictures()
        }


def ids(gallery: Path) -> dict[str, int]:
    with Gallery.open(gallery) as opened:
        return {p.path.name: p.id for p in opened.pictures()}


def later(path: Path) -> None:
    """Give a file a new modification time, as an edit does."""
    stamp = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(stamp, stamp))


def test_pictures_are_indexed_and_found_by_colour(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in ("red", "lime", "blue"):
        Image.new("RGB", (40, 40), colour).save(folder / f"{colour}.png")
    report = run(folder, tmp_path / "g")
    assert (report.found, report.encoded, report.failed) == (3, 3, [])
    with Gallery.open(tmp_path / "g") as gallery:
        query = FakeEncoder().encode_queries(None, ["blue"])
        best = gallery.searcher().search(query, 1)[0][0]
        assert gallery.picture(best.id).path == folder / "blue.png"


def test_awkward_files_are_indexed_rightly_or_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pictures"
    ready, reasons = awkward_folder(folder)
    really_open = os.open

    def open_as_a_common_user(path: str | bytes | os.PathLike[str], *rest: int) -> int:
        if os.fsencode(path).endswith(b"unreadable.jpg"):
            raise PermissionError(13, "Permission denied")
        return really_open(path, *rest)

    monkeypatch.setattr(os, "open", open_as_a_common_user)
    report = run(folder, tmp_path / "g")
    assert {path.name for path, _ in report.failed} == set(reasons)
    for path, reason in report.failed:
        assert reasons[path.name] in reason
    assert report.encoded == len(ready)
    with Gallery.open(tmp_path / "g") as gallery:
        stored = {p.path.name: p for p in gallery.pictures("ready")}
        assert set(stored) == ready
        assert (stored["rotated.jpg"].width, stored["rotated.jpg"].height) == (64, 48)
        rows, vectors = gallery.vectors()
        for number, vector in zip(rows.tolist(), vectors, strict=True):
            picture = images.load_image(gallery.picture(number).path)
            assert np.array_equal(vector, FakeEncoder().encode_images([picture])[0])
    text = json.dumps(report.as_dict())
    text.encode("utf-8")
    assert "dangling.jpg" in text
    again = FakeEncoder()
    second = run(folder, tmp_path / "g", again)
    assert again.batches == []
    assert second.failed == report.failed
    assert second.unchanged == len(ready)


def test_an_unchanged_folder_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photos(tmp_path / "p", 10)
    (tmp_path / "p" / "bad.jpg").write_bytes(b"bad")
    first = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", first)
    assert (report.encoded, first.encoded) == (10, 10)
    assert first.batches == [4, 4, 2]
    opened: list[object] = []
    monkeypatch.setattr("image2sentence.indexing.sources.read_regular", opened.append)
    second = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", second)
    assert (report.unchanged, report.encoded, second.batches, opened) == (10, 0, [], [])
    assert [path.name for path, _ in report.failed] == ["bad.jpg"]


def test_new_changed_and_deleted_files(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "p", 6)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    paths[0].unlink()
    paths[1].write_bytes(encoded(photo(100), "JPEG"))
    later(paths[2])
    write_photos(tmp_path / "p", 1, first=50)
    encoder = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.encoded, report.unchanged, report.deleted, report.moved) == (2, 4, 1, 0)
    assert encoder.encoded == 2
    after = ids(tmp_path / "g")
    assert "000.jpg" not in after
    assert after["001.jpg"] == before["001.jpg"]
    assert after["050.jpg"] not in before.values()
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 6
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def undisturbed(folder: Path, gallery: Path) -> dict[Path, tuple[str, str | None, bytes]]:
    run(folder, gallery)
    return state(gallery)


def test_renamed_and_moved_files_keep_their_id_and_are_not_encoded(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "p", 5)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    (tmp_path / "p" / "deep" / "er").mkdir(parents=True)
    paths[0].rename(tmp_path / "p" / "renamed.jpg")
    paths[1].rename(tmp_path / "p" / "deep" / "er" / "moved.jpg")
    paths[2].rename(paths[3])
    later(paths[3])
    encoder = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.moved, report.deleted, report.encoded, encoder.batches) == (3, 0, 0, [])
    after = ids(tmp_path / "g")
    assert after["renamed.jpg"] == before["000.jpg"]
    assert after["moved.jpg"] == before["001.jpg"]
    assert after["003.jpg"] == before["002.jpg"]
    assert len(after) == 4
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def shuffled(folder: Path, names: dict[str, str]) -> None:
    """Renames files all at once: new name -> old name."""
    for new, old in names.items():
        (folder / old).rename(folder / f"{new}.tmp")
    for new in names:
        (folder / f"{new}.tmp").rename(folder / new)
        later(folder / new)


@pytest.mark.parametrize(
    "names",
    [
        {"005.jpg": "004.jpg", "004.jpg": "003.jpg", "003.jpg": "002.jpg"},  # up by one
        {"0.jpg": "000.jpg", "000.jpg": "001.jpg", "001.jpg": "002.jpg"},  # down by one
        {"001.jpg": "000.jpg", "002.jpg": "001.jpg"},
        {"000.jpg": "001.jpg", "001.jpg": "000.jpg"},
        {"000.jpg": "004.jpg", "004.jpg": "002.jpg", "002.jpg": "000.jpg", "zz.jpg": "003.jpg"},
    ],
)
def test_ids_and_metadata_go_where_the_contents_go(tmp_path: Path, names: dict[str, str]) -> None:
    write_photos(tmp_path / "p", 5)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    with Gallery.open(tmp_path / "g", readonly=False) as gallery:
        gallery.add_columns({"price": "number"})
        gallery.set_metadata((number, {"price": number}) for number in before.values())
    shuffled(tmp_path / "p", names)
    encoder = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.moved, report.duplicates, encoder.batches) == (len(names), 0, [])
    expected = {name: number for name, number in before.items() if name not in names.values()}
    expected |= {new: before[old] for new, old in names.items()}
    assert ids(tmp_path / "g") == expected
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.metadata(list(expected.values())) == [{"price": n} for n in expected.values()]
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


@pytest.mark.parametrize("name", ["0.jpg", "zz.jpg"])  # read before and after the file whose name it had
def test_a_new_picture_under_an_old_name_is_another_one(tmp_path: Path, name: str) -> None:
    paths = write_photos(tmp_path / "p", 3)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    paths[1].rename(tmp_path / "p" / name)
    paths[1].write_bytes(encoded(photo(77), "JPEG"))
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.moved, report.encoded, report.deleted) == (1, 1, 0)
    after = ids(tmp_path / "g")
    assert after[name] == before["001.jpg"]
    assert after["001.jpg"] not in before.values()
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def test_an_edited_picture_and_one_that_was_copied_over_keep_their_ids(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "p", 4)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    paths[0].write_bytes(encoded(photo(77), "JPEG"))
    shutil.copy(paths[1], paths[2])
    later(paths[2])
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.encoded, report.duplicates, report.moved, report.deleted) == (1, 1, 0, 0)
    assert ids(tmp_path / "g") == before
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def test_a_run_that_ends_before_all_is_settled_has_kept_what_it_encoded(tmp_path: Path, monkeypatch) -> None:
    paths = write_photos(tmp_path / "p", 6)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    for number, path in enumerate(paths):
        path.write_bytes(encoded(photo(100 + number), "JPEG"))
    with monkeypatch.context() as patch:
        patch.setattr("image2sentence.indexing.run.Run._settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "p", tmp_path / "g")
    encoder = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.found, encoder.batches) == (6, [])
    assert ids(tmp_path / "g") == before
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def dated(number: int, date: str) -> bytes:
    """A JPEG with an EXIF date."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    return encoded(photo(number), "JPEG", exif=exif)


def test_a_date_corrected_by_hand_stays_until_the_picture_is_another(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "p", 2)
    paths[1].write_bytes(dated(5, "2001:02:03 04:05:06"))
    run(tmp_path / "p", tmp_path / "g")
    (first, second) = ids(tmp_path / "g").values()
    corrected = {"taken": "2020-01-01T00:00:00"}
    with Gallery.open(tmp_path / "g", readonly=False) as gallery:
        assert gallery.metadata([first, second]) == [{}, {"taken": "2001-02-03T04:05:06"}]
        gallery.set_metadata([(first, corrected), (second, corrected)])
    for path in paths:
        later(path)
    paths[1].rename(tmp_path / "p" / "renamed.jpg")
    assert run(tmp_path / "p", tmp_path / "g").unchanged == 1
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.metadata([first, second]) == [corrected, corrected]
    paths[0].write_bytes(encoded(photo(6), "JPEG"))
    (tmp_path / "p" / "renamed.jpg").write_bytes(dated(7, "2002:02:03 04:05:06"))
    assert run(tmp_path / "p", tmp_path / "g").encoded == 2
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.metadata([first, second]) == [{}, {"taken": "2002-02-03T04:05:06"}]


def test_a_gallery_with_no_room_for_another_column_has_no_dates(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("image2sentence.indexing.run.MAX_COLUMNS", 1)
    (path,) = write_photos(tmp_path / "p", 1)
    run(tmp_path / "p", tmp_path / "g")
    with Gallery.open(tmp_path / "g", readonly=False) as gallery:
        gallery.add_columns({"price": "number"})
    path.write_bytes(dated(5, "2001:02:03 04:05:06"))
    assert run(tmp_path / "p", tmp_path / "g").encoded == 1
    with Gallery.open(tmp_path / "g") as gallery:
        assert list(gallery.columns()) == ["price"]


def test_a_renamed_folder_is_recognised(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 5)
    run(tmp_path / "p", tmp_path / "g")
    before = ids(tmp_path / "g")
    (tmp_path / "p").rename(tmp_path / "q")
    encoder = FakeEncoder()
    report = run(tmp_path / "q", tmp_path / "g", encoder)
    assert (report.moved, encoder.batches) == (5, [])
    assert ids(tmp_path / "g") == before
    assert all(path.parent == tmp_path / "q" for path in state(tmp_path / "g"))


def test_duplicates_share_one_encoding(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "p", 3)
    shutil.copy(paths[0], tmp_path / "p" / "copy a.jpg")
    shutil.copy(paths[0], tmp_path / "p" / "copy b.jpg")
    encoder = FakeEncoder()
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.encoded, report.duplicates, encoder.encoded) == (3, 2, 3)
    shutil.copy(paths[1], tmp_path / "p" / "copy c.jpg")
    report = run(tmp_path / "p", tmp_path / "g", encoder)
    assert (report.duplicates, report.unchanged, encoder.encoded) == (1, 5, 3)
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == len(gallery.searcher()) == 6
        contents = {p.path.name: p.content_id for p in gallery.pictures()}
    assert contents["copy a.jpg"] == contents["copy b.jpg"] == contents["000.jpg"] != contents["copy c.jpg"]
    paths[0].unlink()
    assert run(tmp_path / "p", tmp_path / "g", encoder).deleted == 1
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


def test_failures_are_retried_when_they_change_or_on_request(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 2)
    bad = tmp_path / "p" / "bad.jpg"
    bad.write_bytes(b"bad")
    run(tmp_path / "p", tmp_path / "g")
    report = run(tmp_path / "p", tmp_path / "g", max_pixels=100, retry_failed=True)
    assert [path for path, _ in report.failed] == [bad]
    bad.write_bytes(encoded(photo(9), "JPEG"))
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.encoded, report.failed) == (1, [])
    bad.write_bytes(b"bad again")
    assert len(run(tmp_path / "p", tmp_path / "g").failed) == 1
    assert state(tmp_path / "g")[bad][0] == "failed"


def test_a_link_that_comes_to_life_is_indexed(tmp_path: Path) -> None:
    (target,) = write_photos(tmp_path / "elsewhere", 1)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "link.jpg").symlink_to(target)
    hidden = target.rename(target.with_suffix(".hidden"))
    assert len(run(tmp_path / "p", tmp_path / "g").failed) == 1
    hidden.rename(target)
    assert run(tmp_path / "p", tmp_path / "g").encoded == 1


def test_folders_are_walked_in_order_without_loops(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write_photos(folder / "b", 1, first=1)
    write_photos(folder / "a" / "deep", 1, first=2)
    write_photos(folder / ".hidden", 1, first=3)
    write_photos(tmp_path / "elsewhere", 1, first=4)
    (folder / "a" / "up").symlink_to(folder)
    (folder / "c").symlink_to(tmp_path / "elsewhere")
    (folder / "notes.txt").write_text("no picture")
    (folder / "movie.mp4").write_bytes(b"")
    (folder / ".hidden.jpg").write_bytes(b"")
    upper = write_photos(folder, 1, first=5)[0].rename(folder / "UPPER.JPG")
    report = run(folder, folder / "gallery")
    assert (report.found, report.encoded, report.skipped_other, report.failed) == (4, 4, 2, [])
    expected = [upper, folder / "a/deep/002.jpg", folder / "b/001.jpg", folder / "c/004.jpg"]
    assert list(state(folder / "gallery")) == expected


def test_a_folder_that_cannot_be_listed_keeps_its_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "p" / "a", 2)
    write_photos(tmp_path / "p" / "b", 2, first=2)
    run(tmp_path / "p", tmp_path / "g")
    before = state(tmp_path / "g")
    really_scan = os.scandir

    def scan_as_a_common_user(path: Path) -> object:
        if path == tmp_path / "p" / "a":
            raise PermissionError(13, "Permission denied")
        return really_scan(path)

    monkeypatch.setattr(os, "scandir", scan_as_a_common_user)
    report = run(tmp_path / "p", tmp_path / "g")
    assert report.unreadable_folders == [(tmp_path / "p" / "a", "Permission denied")]
    assert (report.found, report.unchanged, report.deleted) == (2, 2, 0)
    assert state(tmp_path / "g") == before


def test_several_folders_share_a_gallery(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 2)
    write_photos(tmp_path / "q", 2, first=2)
    run(tmp_path / "p", tmp_path / "g")
    assert run(tmp_path / "q", tmp_path / "g").deleted == 0
    assert len(state(tmp_path / "g")) == 4
    write_photos(tmp_path / "p" / "inside", 1, first=7)
    with pytest.raises(GalleryError, match="overlaps"):
        run(tmp_path / "p" / "inside", tmp_path / "g")
    with pytest.raises(GalleryError, match="there is no folder"):
        run(tmp_path / "nowhere", tmp_path / "g")


def test_large_photos_are_reduced_and_sizes_kept(tmp_path: Path) -> None:
    class Looking(FakeEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
            assert [min(image.size) for image in images] == [120]
            return super().encode_images(images)

    (tmp_path / "p").mkdir()
    photo(1, (1280, 960)).save(tmp_path / "p" / "large.jpg")
    assert run(tmp_path / "p", tmp_path / "g", Looking(), at_least=100).encoded == 1
    with Gallery.open(tmp_path / "g") as gallery:
        assert [(p.width, p.height) for p in gallery.pictures()] == [(1280, 960)]


def test_progress_counts_the_files_to_read(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 5)
    seen: list[tuple[int, int]] = []
    run(tmp_path / "p", tmp_path / "g", progress=lambda done, of: seen.append((done, of)))
    assert seen == [(i, 5) for i in range(1, 6)]


class Stumbling(FakeEncoder):
    """Raises in its third batch."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        if len(self.batches) == 2:
            raise self.error
        return super().encode_images(images)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_error_in_the_encoder_is_raised_and_commits_stay(tmp_path: Path, error: BaseException) -> None:
    write_photos(tmp_path / "p", 30)
    with pytest.raises(type(error)):
        run(tmp_path / "p", tmp_path / "g", Stumbling(error))
    assert len(state(tmp_path / "g")) == 8
    report = run(tmp_path / "p", tmp_path / "g")
    assert (report.encoded, report.unchanged) == (22, 8)
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")


@pytest.mark.parametrize("factor", [0.0, 0.5, np.nan])
def test_vectors_that_are_not_unit_are_refused(tmp_path: Path, factor: float) -> None:
    class Wrong(FakeEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
            vectors = super().encode_images(images)
            vectors *= factor
            return vectors

    write_photos(tmp_path / "p", 2)
    with pytest.raises(ModelError, match="expected length 1"):
        run(tmp_path / "p", tmp_path / "g", Wrong())
    assert state(tmp_path / "g") == {}


def test_vectors_of_a_wrong_shape_are_refused(tmp_path: Path) -> None:
    class Wrong(FakeEncoder):
        def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
            return super().encode_images(images)[:, 1:]

    write_photos(tmp_path / "p", 2)
    with pytest.raises(ModelError, match=r"shape \(2, 48\), expected float32 of shape \(2, 49\)"):
        run(tmp_path / "p", tmp_path / "g", Wrong())


@pytest.mark.parametrize("name", ["batch_size", "threads", "at_least"])
def test_settings_below_one_are_refused(tmp_path: Path, name: str) -> None:
    write_photos(tmp_path / "p", 1)
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, got 0"):
        run(tmp_path / "p", tmp_path / "g", None, **{name: 0})


class Preparing(FakeEncoder):
    """Takes pictures prepared in the reading threads, several batches at once."""

    parallel = 2

    def prepare(self, image: Image.Image) -> Vectors:
        return super().encode_images([image])[0]

    def encode_prepared(self, rows: Sequence[Vectors]) -> Vectors:
        time.sleep(0.002 * (len(self.batches) % 3))
        return np.stack(rows)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        raise AssertionError("prepared pictures are not encoded as pictures")


def test_an_encoder_that_prepares_gives_the_same_gallery(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 30)
    shutil.copy(tmp_path / "p" / "003.jpg", tmp_path / "p" / "copy.jpg")
    shutil.copy(tmp_path / "p" / "003.jpg", tmp_path / "p" / "003 copy.jpg")
    report = run(tmp_path / "p", tmp_path / "g", Preparing())
    assert (report.encoded, report.duplicates) == (30, 2)
    assert state(tmp_path / "g") == undisturbed(tmp_path / "p", tmp_path / "fresh")
    assert list(state(tmp_path / "g")) == sorted(state(tmp_path / "g"))


def test_the_exif_date_is_kept_and_follows_the_file(tmp_path: Path) -> None:
    def dated(seed: int, year: int | None) -> bytes:
        exif = Image.Exif()
        if year is not None:
            exif[0x0132] = f"{year}:01:02 03:04:05"
        return encoded(photo(seed), "JPEG", exif=exif)

    def years() -> dict[str, str | None]:
        with Gallery.open(tmp_path / "g") as gallery:
            pictures = gallery.pictures()
            found = zip(pictures, gallery.metadata([picture.id for picture in pictures]), strict=True)
            return {picture.path.stem: str(values.get("taken"))[:4] for picture, values in found}

    folder = tmp_path / "p"
    folder.mkdir()
    for name, year in (("a", 2001), ("b", None), ("c", 2003)):
        (folder / f"{name}.jpg").write_bytes(dated(ord(name), year))
    run(folder, tmp_path / "g")
    assert years() == {"a": "2001", "b": "None", "c": "2003"}
    (folder / "a.jpg").write_bytes(dated(7, None))
    (folder / "b.jpg").write_bytes(dated(8, 2008))
    shutil.copy(folder / "c.jpg", folder / "d.jpg")
    (folder / "c.jpg").rename(folder / "e.jpg")
    run(folder, tmp_path / "g")
    assert years() == {"a": "None", "b": "2008", "d": "2003", "e": "2003"}
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery.select("taken = '2003-01-02'")) == 2


def test_a_column_taken_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0132] = "2001:01:02 03:04:05"
    (folder / "a.jpg").write_bytes(encoded(photo(1), "JPEG", exif=exif))
    with Gallery.create(tmp_path / "g", FakeEncoder.fingerprint, FakeEncoder.width) as gallery:
        gallery.add_columns({"taken": "text"})
    run(folder, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.metadata([1]) == [{}]


@pytest.mark.parametrize(("room", "most"), [(10**9, 11), (25, 2), (0, 2)])
def test_reading_ahead_stays_within_its_room(room: int, most: int) -> None:
    taken = 0
    furthest = 0

    def work(item: int) -> int:
        nonlocal furthest
        furthest = max(furthest, item - taken)
        time.sleep(0.001)
        return item

    for result in ReadAhead(work, 2, 11, lambda _: 10, room).over(range(60)):
        assert result == taken
        time.sleep(0.003)
        taken += 1
    assert furthest <= most


@pytest.mark.parametrize(("held", "most"), [(0, 10), (10, 3)])
def test_items_that_wait_take_room_too(held: int, most: int) -> None:
    go = threading.Event()
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        while drawn < 60:
            drawn += 1
            yield drawn

    def work(item: int) -> int:
        if item > 1:
            go.wait(10)
        return item

    results = ReadAhead(work, 2, 9, lambda _: 0, 25, lambda _: held).over(items())
    assert next(results) == 1
    threading.Timer(0.2, go.set).start()
    assert next(results) == 2
    assert drawn <= most + 1
    assert list(results) == list(range(3, 61))


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 2)
    encoder = FakeEncoder()
    with (
        Gallery.create(tmp_path / "g", "another-model", encoder.width) as gallery,
        pytest.raises(GalleryError, match=r"another-model.*fake-colour-grid"),
    ):
        index_pictures(tmp_path / "p", gallery, encoder)
    assert encoder.batches == []


INDEX_SLOWLY = """
import sys
import threading
from fakes import FakeEncoder
from image2sentence.indexing.index_pictures import index_pictures
from image2sentence.gallery.sqlite.gallery import Gallery

encoder = FakeEncoder(pause=0.01)
with Gallery.open_or_create(sys.argv[2], encoder.fingerprint, encoder.width) as gallery:


    def show(done, total):
        if done == 6:
            print("started", flush=True)  # the decoders have, and batches are on their way

    index_pictures(sys.argv[1], gallery, encoder, batch_size=2, threads=2, progress=show)
    print("started", flush=True)  # where next to nothing was left
"""


def index_and_kill(folder: Path, gallery: Path, after: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INDEX_SLOWLY, folder, gallery],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    time.sleep(after)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_killed_at_random_moments_nothing_committed_is_lost(tmp_path: Path) -> None:
    folder, gallery = tmp_path / "p", tmp_path / "g"
    write_photos(folder, 120)
    (folder / "bad.jpg").write_bytes(b"bad")
    shutil.copy(folder / "000.jpg", folder / "copy.jpg")
    expected = undisturbed(folder, tmp_path / "fresh")
    moments = random.Random(1)
    committed: dict[Path, tuple[str, str | None, bytes]] = {}
    partial = 0
    for _ in range(6):
        index_and_kill(folder, gallery, moments.uniform(0.0, 0.5))
        found = state(gallery)
        assert committed.items() <= found.items() <= expected.items()
        partial += 0 < len(found) < len(expected)
        committed = found
    assert partial > 0
    report = run(folder, gallery)
    assert report.encoded <= 120 - sum(1 for s, _, _ in committed.values() if s == "ready") + 1
    assert state(gallery) == expected
