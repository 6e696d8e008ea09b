"""Vectors out of a gallery and into another; what is wrong with a file of them is named before anything is written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, encoded, photo
from image2sentence.errors import DataError, GalleryError
from image2sentence.gallery import metadata
from image2sentence.gallery.base import duplicates, wasted
from image2sentence.gallery.files.vectors import ABOUT, PICTURES, VECTORS, open_vectors
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import run as index_run
from image2sentence.indexing.import_export import ImportReport, export_vectors, import_vectors
from image2sentence.indexing.index_pictures import index_pictures

KINDS = ["npy", "parquet"]
VALUES = {"price": 9.5, "colour": "größe", "sale": True, "day": "2026-11-21T09:30:00"}
COLUMNS = {"price": "number", "colour": "text", "sale": "boolean", "day": "date"}
COUNT = 12


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures, two of the same content, one that is none."""
    folder = tmp_path / "p" / "sub"
    folder.mkdir(parents=True)
    for number in range(COUNT):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))
    shutil.copy(folder / "0.jpg", folder.parent / "copy.jpg")
    (folder / "bad.jpg").write_bytes(b"bad")
    return folder.parent


def indexed(folder: Path, place: Path) -> Gallery:
    gallery = Gallery.create(place, FakeEncoder.fingerprint, FakeEncoder.width)
    gallery.add_columns(COLUMNS)  # type: ignore[arg-type]
    index_pictures(folder, gallery, FakeEncoder(), threads=1)
    gallery.set_metadata([(gallery.pictures("ready")[2].id, VALUES)])
    return gallery


def export(folder: Path, tmp_path: Path, kind: str) -> Path:
    out = tmp_path / ("out.parquet" if kind == "parquet" else "out")
    with indexed(folder, tmp_path / "first") as gallery:
        assert export_vectors(gallery, out) == COUNT + 1
    return out


def imported(out: Path, place: Path, pictures: Path | None = None, **options: Any) -> ImportReport:
    encoder = options.pop("encoder", FakeEncoder())
    with Gallery.open_or_create(place, encoder.fingerprint, encoder.width) as gallery:
        return import_vectors(gallery, open_vectors(out), encoder, pictures, **options)


def state(place: Path, folder: Path) -> dict[str, tuple[object, ...]]:
    with Gallery.open(place) as gallery:
        gallery.verify()
        ids, vectors = gallery.vectors()
        pictures = gallery.pictures_of(ids.tolist())
        rows = zip(pictures, vectors, gallery.metadata(ids.tolist()), strict=True)
        return {
            os.fspath(p.path.relative_to(folder)): (
                p.width,
                p.height,
                p.size,
                p.mtime_ns,
                v.tobytes(),
                values,
            )  # type: ignore[union-attr]
            for p, v, values in rows
        }


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_is_imported_the_same(folder: Path, tmp_path: Path, kind: str) -> None:
    out = export(folder, tmp_path, kind)
    report = imported(out, tmp_path / "second")
    assert (report.imported, report.duplicates, report.missing, report.failed) == (COUNT, 1, [], [])
    assert report.least_alike is not None
    assert report.least_alike > 0.999
    assert state(tmp_path / "second", folder) == state(tmp_path / "first", folder)
    again = imported(out, tmp_path / "second")
    assert (again.imported, again.unchanged, again.duplicates) == (0, COUNT + 1, 0)
    encoder = FakeEncoder()
    with Gallery.open(tmp_path / "second", readonly=False) as gallery:
        assert index_pictures(folder, gallery, encoder).unchanged == COUNT + 1
    assert encoder.encoded == 0


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_moved_changed_or_are_gone(folder: Path, tmp_path: Path, kind: str) -> None:
    out = export(folder, tmp_path, kind)
    moved = folder.rename(tmp_path / "moved")
    (moved / "sub" / "1.jpg").write_bytes(encoded(photo(99), "JPEG"))
    (moved / "sub" / "2.jpg").unlink()
    (moved / "sub" / "3.jpg").write_bytes(b"none")
    report = imported(out, tmp_path / "second", moved, check=0)
    assert report.imported == COUNT - 3
    assert report.changed == ["sub/1.jpg"]
    assert report.missing == ["sub/2.jpg"]
    assert [name for name, _ in report.failed] == ["sub/3.jpg"]
    assert state(tmp_path / "second", moved).keys() == {"copy.jpg"} | {
        f"sub/{number}.jpg" for number in range(COUNT) if number not in (1, 2, 3)
    }


def foreign(place: Path, folder: Path, vectors: Any, names: list[str] | None = None) -> Path:
    """Vectors of another program: names and numbers, and no more."""
    place.mkdir()
    np.save(place / VECTORS, vectors)
    lines = [{"file": name} for name in names or [f"sub/{number}.jpg" for number in range(COUNT)]]
    (place / PICTURES).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def right_vectors(folder: Path) -> Any:
    from image2sentence.images import load_image

    return FakeEncoder().encode_images([load_image(folder / "sub" / f"{n}.jpg") for n in range(COUNT)])


def test_vectors_of_another_program(folder: Path, tmp_path: Path) -> None:
    vectors = right_vectors(folder)
    place = foreign(tmp_path / "mine", folder, (7 * vectors).astype(np.float16))
    report = imported(place, tmp_path / "g", folder)
    assert report.imported == COUNT
    with Gallery.open(tmp_path / "g") as gallery:
        found = gallery.vectors()[1]
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert np.allclose(found, vectors, atol=2e-3)


def test_vectors_of_another_program_in_parquet(folder: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [f"sub/{number}.jpg" for number in range(COUNT)]
    rows = right_vectors(folder).astype(np.float64).tolist()
    parquet.write_table(
        pyarrow.table({"vector": rows, "file": names, "more": names}), tmp_path / "mine.parquet"
    )
    assert imported(tmp_path / "mine.parquet", tmp_path / "g", folder).imported == COUNT
    rows[5] = rows[5][:-1]
    parquet.write_table(pyarrow.table({"vector": rows, "file": names}), tmp_path / "short.parquet")
    with pytest.raises(DataError, match=r"row 6: expected a vector of \d+ numbers, got \d+"):
        imported(tmp_path / "short.parquet", tmp_path / "g", folder)
    parquet.write_table(pyarrow.table({"path": names}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"columns `file` and `vector`; it has path"):
        open_vectors(tmp_path / "other.parquet")
    data = (tmp_path / "mine.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a Parquet file that can be read"):
        open_vectors(tmp_path / "cut.parquet")


def test_vectors_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wrong = foreign(tmp_path / "wrong", folder, rng.standard_normal((COUNT, FakeEncoder.width)))
    with pytest.raises(DataError, match=r"not what this model gives.*cosine -?0\.\d+.*--model"):
        imported(wrong, tmp_path / "g", folder)
    narrow = foreign(tmp_path / "narrow", folder, rng.standard_normal((COUNT, 5)))
    with pytest.raises(GalleryError, match=r"width 5\), not of fake-colour-grid"):
        imported(narrow, tmp_path / "g", folder)
    out = export(folder, tmp_path, "npy")
    about = json.loads((out / ABOUT).read_text())
    (out / ABOUT).write_text(json.dumps({**about, "fingerprint": "another"}))
    with pytest.raises(GalleryError, match="of the encoder another"):
        imported(out, tmp_path / "g")
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 0


def spoil_count(out: Path) -> None:
    (out / PICTURES).write_text("".join((out / PICTURES).read_text().splitlines(True)[:-2]))


def spoil_line(out: Path) -> None:
    lines = (out / PICTURES).read_text().splitlines(True)
    (out / PICTURES).write_text("".join([*lines[:3], '{"file": 7}\n', *lines[4:]]))


def spoil_path(out: Path) -> None:
    lines = (out / PICTURES).read_text().splitlines(True)
    (out / PICTURES).write_text("".join([*lines[:3], '{"file": "../../etc/x.jpg"}\n', *lines[4:]]))


def spoil_twice(out: Path) -> None:
    lines = (out / PICTURES).read_text().splitlines(True)
    (out / PICTURES).write_text("".join([*lines[:3], lines[2], *lines[4:]]))


def spoil_nan(out: Path) -> None:
    vectors = np.load(out / VECTORS)
    vectors[4, 2] = np.nan
    np.save(out / VECTORS, vectors)


def spoil_pickle(out: Path) -> None:
    np.save(out / VECTORS, np.array([{"a": 1}], object), allow_pickle=True)


def spoil_format(out: Path) -> None:
    (out / ABOUT).write_text('{"format": 2}')


def line_with(**changes: Any) -> Callable[[Path], None]:
    """Spoils the cells of the fourth line; `day` is a column of dates, `price` one of numbers."""

    def spoil(out: Path) -> None:
        lines = (out / PICTURES).read_text().splitlines(True)
        lines[3] = json.dumps({**json.loads(lines[3]), **changes}) + "\n"
        (out / PICTURES).write_text("".join(lines))

    return spoil


def columns_of(columns: Any) -> Callable[[Path], None]:
    def spoil(out: Path) -> None:
        about = json.loads((out / ABOUT).read_text())
        (out / ABOUT).write_text(json.dumps({**about, "columns": columns}))

    return spoil


def spoil_digits(out: Path) -> None:
    lines = (out / PICTURES).read_text().splitlines(True)
    (out / PICTURES).write_text("".join([*lines[:3], '{"file": ' + "1" * 5_000 + "}\n", *lines[4:]]))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (spoil_count, "13 vectors.*only 11 lines"),
        (spoil_line, "line 4: expected the path"),
        (spoil_path, "expected a path below"),
        (spoil_twice, "is there twice"),
        (spoil_nan, "sub/.*zero or not finite"),
        (spoil_pickle, "cannot be read as vectors"),
        (spoil_format, "format 1, got 2"),
        (lambda out: (out / PICTURES).unlink(), "cannot be read as vectors"),
        (lambda out: (out / ABOUT).write_text("["), "cannot be read as vectors"),
        (
            lambda out: np.savez(out / "a.npz") or (out / "a.npz").replace(out / VECTORS),
            "cannot be read as vec",
        ),
        (spoil_digits, r"pictures\.jsonl, line 4 cannot be read as JSON: .*digits"),
        (line_with(file="a" * 5_000), r"pictures\.jsonl, line 4: expected the path of a picture"),
        (line_with(file="\ud800"), "line 4: expected the path of a picture"),
        (line_with(file="a\0"), "line 4: expected the path of a picture"),
        (line_with(root="\ud800"), "line 4: expected the path of a folder"),
        (line_with(root="a" * 5_000), "line 4: expected the path of a folder"),
        (line_with(sha256=5), "line 4: expected 64 hexadecimal digits as `sha256`, got 5"),
        (line_with(sha256="no"), "line 4: expected 64 hexadecimal digits as `sha256`, got 'no'"),
        (line_with(metadata=[1, 2]), r"line 4: expected an object as `metadata`, got \[1, 2\]"),
        (line_with(metadata={"day": 3}), "line 4: expected a date in 'day', got 3"),
        (line_with(metadata={"price": "x"}), "line 4: the column 'price' holds the type number, got 'x'"),
        (line_with(metadata={"colour": "\0"}), "line 4: the column 'colour' cannot hold it"),
        (columns_of({"day": ["x"]}), r"about\.json: .*as the type of the column 'day', got \['x'\]"),
        (columns_of({"day": "nonsense"}), r"about\.json: .*as the type of the column 'day', got 'nonsense'"),
        (columns_of({"a\tb": "text"}), r"about\.json: .* cannot be the name of a column"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(
    folder: Path, tmp_path: Path, spoil: Any, named: str
) -> None:
    out = export(folder, tmp_path, "npy")
    spoil(out)
    with pytest.raises(DataError, match=named):
        imported(out, tmp_path / "g", check=0)
    if (tmp_path / "g").exists():
        with Gallery.open(tmp_path / "g") as gallery:
            assert (len(gallery), gallery.roots(), gallery.columns()) == (0, {}, {})


def test_a_damaged_parquet_file_is_named_with_its_row(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file, vectors = tmp_path / "m.parquet", [[1.0], [2.0]]
    days = pyarrow.StructArray.from_arrays([pyarrow.array([0, 10**13], pyarrow.timestamp("s"))], ["day"])
    parquet.write_table(pyarrow.table({"file": ["a", "b"], "metadata": days, "vector": vectors}), file)
    with pytest.raises(DataError, match=r"m\.parquet, row 2: a value cannot be read"):
        list(open_vectors(file).blocks())
    parquet.write_table(pyarrow.table({"file": ["a"], "vector": [3]}), file)
    with pytest.raises(DataError, match=r"m\.parquet: expected lists of numbers as `vector`, got int64"):
        open_vectors(file)


def test_whole_numbers_that_parquet_would_round_are_not_exported(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with indexed(folder, tmp_path / "g") as gallery:
        gallery.set_metadata([(1, {"price": 2**60 + 1})])
        with pytest.raises(DataError, match=r"does not fit Parquet.*export into a folder instead"):
            export_vectors(gallery, tmp_path / "out.parquet")
        assert not (tmp_path / "out.parquet").exists()
        export_vectors(gallery, tmp_path / "out")


def test_a_picture_that_cannot_be_looked_for_is_listed(folder: Path, tmp_path: Path) -> None:
    names = [f"sub/{number}.jpg" for number in range(COUNT - 1)]
    place = foreign(tmp_path / "mine", folder, right_vectors(folder), [*names, "a" * 300])
    report = imported(place, tmp_path / "g", folder)
    assert report.imported == COUNT - 1
    assert [name for name, _ in report.failed] == ["a" * 300]


def test_an_import_into_a_gallery_without_room_for_dates(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[306] = "2020:01:02 03:04:05"
    (folder / "sub" / "0.jpg").write_bytes(encoded(photo(0), "JPEG", exif=exif))
    place = foreign(tmp_path / "mine", folder, right_vectors(folder))
    for module in (metadata, index_run):
        monkeypatch.setattr(module, "MAX_COLUMNS", 0)
    assert imported(place, tmp_path / "full", folder).imported == COUNT
    monkeypatch.undo()
    imported(place, tmp_path / "g", folder)
    with Gallery.open(tmp_path / "full") as full, Gallery.open(tmp_path / "g") as gallery:
        assert (full.columns(), gallery.columns()) == ({}, {"taken": "date"})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_folder", [True, False])
def test_an_export_leaves_what_stands_beside_it(
    folder: Path, tmp_path: Path, kind: str, as_folder: bool
) -> None:
    name = "out.parquet" if kind == "parquet" else "out"
    beside = tmp_path / f"{name}.new"
    precious = beside / "x" if as_folder else beside
    precious.parent.mkdir(exist_ok=True)
    precious.write_text("precious")
    out = export(folder, tmp_path, kind)
    assert len(open_vectors(out)) == COUNT + 1
    assert precious.read_text() == "precious"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["first", name, f"{name}.new", "p"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_there_whole_or_not_at_all(
    folder: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = export(folder, tmp_path, kind)
    before = sorted(tmp_path.iterdir())
    with Gallery.open(tmp_path / "first") as gallery:
        with pytest.raises(DataError, match=r"is there already: choose another name"):
            export_vectors(gallery, out)

        def full(*_: object) -> list[object]:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Gallery, "hashes_of", full)
        with pytest.raises(DataError, match=r"No space left on device.*make room"):
            export_vectors(gallery, out.with_name(f"other{out.suffix}"))
    assert sorted(tmp_path.iterdir()) == before


def test_a_folder_within_an_indexed_one_is_refused(folder: Path, tmp_path: Path) -> None:
    place = foreign(tmp_path / "mine", folder, right_vectors(folder), [f"{n}.jpg" for n in range(COUNT)])
    indexed(folder, tmp_path / "g").close()
    with pytest.raises(GalleryError, match="overlaps"):
        imported(place, tmp_path / "g", folder / "sub")


def test_duplicates_are_found_by_content(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "sub" / "5.jpg", folder / "a.jpg")
    shutil.copy(folder / "sub" / "5.jpg", folder / "b.jpg")
    with indexed(folder, tmp_path / "g") as gallery:
        groups = duplicates(gallery)
    names = [[picture.path.name for picture in group] for group in groups]  # type: ignore[union-attr]
    assert sorted(map(sorted, names)) == [["0.jpg", "copy.jpg"], ["5.jpg", "a.jpg", "b.jpg"]]
    assert wasted(groups[0]) == 2 * (folder / "a.jpg").stat().st_size
    assert wasted(groups[0]) > wasted(groups[1])
