"""Metadata from files: types are found, rows find their pictures, and what cannot be right is refused with its line."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import ExifTags, Image

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.errors import DataError
from image2sentence.gallery.files.metadata import MetadataFile, MetadataReport, apply_metadata
from image2sentence.gallery.filters.language import ColumnType
from image2sentence.gallery.records import FileEntry
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.images import date_taken, decode_image

CSV = """file,price,colour,sale,added,code,none
a.jpg,19.90,red,true,2026-11-21,00123,
deep/b.jpg,45,"dark, blue",,2026-11-20 14:30,7,
c.jpg,-1e3,,FALSE,,8,
"""
TYPES: dict[str, ColumnType] = {
    "price": "number",
    "colour": "text",
    "sale": "boolean",
    "added": "date",
    "code": "text",
    "none": "text",
}
A = {"price": 19.9, "colour": "red", "sale": True, "added": "2026-11-21T00:00:00", "code": "00123"}
B = {"price": 45, "colour": "dark, blue", "added": "2026-11-20T14:30:00", "code": "7"}
C = {"price": -1000.0, "sale": False, "code": "8"}


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """Pictures a.jpg, deep/b.jpg, other/b.jpg and deep/c.jpg with the ids 1 to 4."""
    gallery = Gallery.create(tmp_path / "g", "model-a", 2)
    names = ("a.jpg", "deep/b.jpg", "other/b.jpg", "deep/c.jpg")
    root = gallery.add_root(tmp_path / "p")
    gallery.commit(root, [], [FileEntry(name, 1, 1, reason="not looked at") for name in names])
    return gallery


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def apply(gallery: Gallery, file: Path) -> MetadataReport:
    return apply_metadata(gallery, gallery.folder.parent / "p", MetadataFile(file, gallery.columns()))


def parquet(file: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
    return file


def test_a_csv_file_is_joined(gallery: Gallery, tmp_path: Path) -> None:
    report = apply(gallery, written(tmp_path, "m.csv", "\ufeff" + CSV))
    assert gallery.columns() == report.columns == TYPES
    assert (report.matched, report.changed, report.unmatched) == (3, 3, 0)
    assert gallery.metadata([1, 2, 3, 4]) == [A, B, {}, C]
    assert apply(gallery, tmp_path / "m.csv").changed == 0


def test_a_jsonl_file_is_joined(gallery: Gallery, tmp_path: Path) -> None:
    lines = [
        {
            "file": "a.jpg",
            "price": 1,
            "size": 2**40,
            "sale": False,
            "day": "2026-11-21",
            "mixed": "2026-11-21",
        },
        {"file": "deep/c.jpg", "price": 1.5, "name": "größe", "mixed": "x", "day": None},
    ]
    file = written(tmp_path, "m.jsonl", "\n\n".join(json.dumps(line) for line in lines))
    report = apply(gallery, file)
    assert (report.columns["day"], report.columns["mixed"]) == ("date", "text")
    assert gallery.metadata([1, 4]) == [
        {"price": 1, "size": 2**40, "sale": False, "day": "2026-11-21T00:00:00", "mixed": "2026-11-21"},
        {"price": 1.5, "name": "größe", "mixed": "x"},
    ]


def test_a_parquet_file_is_joined(gallery: Gallery, tmp_path: Path) -> None:
    zoned = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)
    rows = [
        {
            "file": "a.jpg",
            "price": 1.5,
            "n": 3,
            "sale": True,
            "day": date(2026, 11, 21),
            "at": zoned,
            "t": "x",
        },
        {"file": "c.jpg", "price": float("nan"), "n": None, "sale": None, "day": None, "at": None, "t": None},
    ]
    report = apply(gallery, parquet(tmp_path / "m.parquet", rows))
    assert list(report.columns.values()) == ["number", "number", "boolean", "date", "date", "text"]
    day, moment = "2026-11-21T00:00:00", "2026-11-21T09:30:00"
    expected = {"price": 1.5, "n": 3, "sale": True, "day": day, "at": moment, "t": "x"}
    assert gallery.metadata([1, 4]) == [expected, {}]


def test_rows_without_a_picture_are_counted_and_empty_cells_take_away(
    gallery: Gallery, tmp_path: Path
) -> None:
    apply(gallery, written(tmp_path, "m.csv", CSV))
    file = written(tmp_path, "n.csv", "file,colour\na.jpg,\nghost.jpg,red\ndeep/a.jpg,red\n")
    report = apply(gallery, file)
    assert (report.matched, report.changed, report.unmatched) == (1, 1, 2)
    assert report.examples == ["ghost.jpg", "deep/a.jpg"]
    assert gallery.metadata([1]) == [{name: value for name, value in A.items() if name != "colour"}]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", "price\n1\n", "expected a column `file`.*it has price"),
        ("m.csv", "", "expected a column `file`.*it has no columns"),
        ("m.csv", "file,a,a\n", "column 'a' is there twice"),
        ("m.csv", "file,a\nx.jpg\n", "line 2: expected 2 cells, got 1"),
        ("m.csv", "file,a\nx.jpg,1\nx.jpg,2\n", "line 3: 'x.jpg' is there already, in line 2"),
        ("m.csv", "file,a\n,1\n", "line 2: expected the path or name"),
        ("m.csv", b"file,a\nx.jpg,1\n\x81.jpg,1\n", "line 3 is text neither in UTF-8"),
        ("m.csv", 'file,a\n"x.jpg,1\n', "cannot be read"),
        ("m.jsonl", '{"file": "x.jpg"', "cannot be read"),
        ("m.jsonl", "[1]", "line 1: expected an object"),
        ("m.jsonl", '{"a": 1}', "line 1: expected the path or name"),
        (
            "m.jsonl",
            '{"file": "x.jpg", "a": [1]}',
            "line 1, column 'a': expected the type boolean or number or date or text",
        ),
        (
            "m.jsonl",
            '{"file": "x", "a": 1}\n{"file": "y", "a": "b"}',
            "line 2, column 'a': .*number, got 'b'",
        ),
        ("m.jsonl", '{"file": "x", "a": 1e400}', "line 1, column 'a'"),
        ("m.jsonl", '{"file": "x", "a": ' + "[" * 100_000, "cannot be read"),
        (
            "m.jsonl",
            '{"file": "x", "a": 1}\n{"file": "y", "a": ' + "1" * 5_000 + "}",
            "line 2.*too many digits",
        ),
        ("m.jsonl", '{"file": "x", "a": 1}\n{"file": "y"', "line 2 cannot be read as JSON.*at character 13"),
        ("m.jsonl", '{"file": "\\ud800"}', r"line 1: expected the path or name.*'\\ud800'"),
        ("m.jsonl", '{"file": "x\\u0000"}', "line 1: expected the path or name"),
        ("m.csv", f"file,a\n{'x' * 5_000},1\n", "line 2: expected the path or name"),
        (
            "m.jsonl",
            '{"file": "x"}\n{"file": "y", "a\\tb": "x"}',
            "line 2: .* cannot be the name of a column",
        ),
        (
            "m.jsonl",
            '{"file": "x"}\n{"file": "y", "\\ud800": 1}',
            "line 2: .* cannot be the name of a column",
        ),
        ("m.jsonl", json.dumps({"file": "x"} | {f"c{n}": n for n in range(501)}), "at most 500.*'c500'"),
        ("m.jsonl", '{"file": "x", "a": "b\\u0000"}', r"line 1, column 'a': .*without the character \\x00"),
        ("m.jsonl", '{"file": "x", "a": "\\ud800"}', r"line 1, column 'a': .*without the character \\ud800"),
        (
            "m.csv",
            f"file,a\nx,{'b' * 100_001}\n",
            "line 2, column 'a': .*at most 100,000 characters, got 100,001",
        ),
        ("m.parquet", "no such format", "is not a Parquet file"),
        ("m.txt", "file", r"expected a file that ends in \.csv"),
    ],
)
def test_files_that_cannot_be_right_are_refused(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        MetadataFile(written(tmp_path, name, content))


@pytest.mark.parametrize("kind", ["timestamp", "date32"])
def test_a_time_after_the_year_9999_is_refused_with_its_row(tmp_path: Path, kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    type_, far = (pyarrow.date32(), 2**30) if kind == "date32" else (pyarrow.timestamp("s"), 10**13)
    table = pyarrow.table({"file": ["a", "b", "c"], "day": pyarrow.array([0, far, 0], type_)})
    parquet.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(DataError, match=r"m\.parquet, row 2: a value cannot be read"):
        MetadataFile(tmp_path / "m.parquet")


def test_a_column_of_nothing_but_nan_takes_numbers_later(gallery: Gallery, tmp_path: Path) -> None:
    lines = '{"file": "a.jpg", "price": NaN, "none": null}\n{"file": "c.jpg", "price": null}\n'
    report = apply(gallery, written(tmp_path, "m.jsonl", lines))
    assert report.columns == {"price": "number", "none": "text"}
    assert gallery.metadata([1, 4]) == [{}, {}]
    apply(gallery, written(tmp_path, "n.jsonl", '{"file": "a.jpg", "price": 1.5}'))
    assert gallery.metadata([1]) == [{"price": 1.5}]


@pytest.mark.parametrize(("value", "type_"), [('"red"', "text"), ("true", "boolean"), ("1.5", "number")])
def test_nan_is_an_empty_cell_beside_values_of_any_type(tmp_path: Path, value: str, type_: str) -> None:
    cells = ["NaN", value, "NaN"]
    lines = [f'{{"file": "{number}", "a": {cell}}}' for number, cell in enumerate(cells)]
    assert MetadataFile(written(tmp_path, "m.jsonl", "\n".join(lines))).columns == {"a": type_}


def test_a_column_that_stays_text_because_it_was_is_told(gallery: Gallery, tmp_path: Path) -> None:
    first = "file,price,colour,code\na.jpg,n/a,red,7\nc.jpg,5,blue,8\n"
    assert apply(gallery, written(tmp_path, "m.csv", first)).kept_as_text == []
    second = first.replace("n/a", "4")
    report = apply(gallery, written(tmp_path, "n.csv", second))
    assert (report.columns["price"], report.kept_as_text) == ("text", ["price"])
    assert gallery.metadata([1])[0]["price"] == "4"
    empty = apply(gallery, written(tmp_path, "o.csv", "file,price\na.jpg,\n"))
    assert (empty.columns, empty.kept_as_text) == ({"price": "text"}, [])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        MetadataFile(tmp_path / "m.csv")


def test_values_of_another_type_than_the_column_has_are_refused_before_anything_is_written(
    gallery: Gallery, tmp_path: Path
) -> None:
    apply(gallery, written(tmp_path, "m.csv", CSV))
    before, generation = gallery.metadata([1, 2, 3, 4]), gallery.generation()
    with pytest.raises(DataError, match=r"line 3, column 'price': expected the type number, got 'n/a'"):
        apply(gallery, written(tmp_path, "n.csv", "file,price\na.jpg,5\ndeep/b.jpg,n/a\n"))
    assert (gallery.metadata([1, 2, 3, 4]), gallery.generation()) == (before, generation)


def test_a_bare_name_of_several_pictures_is_refused(gallery: Gallery, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'b\.jpg' means several pictures \(deep/b\.jpg, other/b\.jpg\)"):
        apply(gallery, written(tmp_path, "m.csv", "file,price\nb.jpg,5\n"))


def dated(exif: dict[int, str], inner: dict[int, str]) -> bytes:
    block = Image.Exif()
    block.update(exif)
    block.get_ifd(ExifTags.IFD.Exif).update(inner)
    return encoded(photo(1), "JPEG", exif=block)


@pytest.mark.parametrize(
    ("exif", "inner", "expected"),
    [
        ({}, {}, None),
        ({306: "2020:01:02 03:04:05"}, {}, "2020-01-02T03:04:05"),
        ({306: "2020:01:02 03:04:05"}, {36867: "2019:12:31 23:59:59\0"}, "2019-12-31T23:59:59"),
        ({306: "2020:01:02 03:04:05"}, {36867: "0000:00:00 00:00:00"}, "2020-01-02T03:04:05"),
        ({}, {36867: "yesterday"}, None),
    ],
)
def test_the_date_of_a_picture_is_its_exif_date(
    exif: dict[int, str], inner: dict[int, str], expected: str | None
) -> None:
    data = dated(exif, inner)
    assert decode_image(data).taken == date_taken(data) == expected


def test_what_is_no_picture_has_no_date() -> None:
    assert date_taken(b"") is None
    assert date_taken(b"\xff\xd8\xff\xe1\0\x10Exif\0\0broken") is None


def test_the_index_command_takes_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image2sentence.encoders.load_encoder", lambda *_, **__: FakeEncoder())
    (tmp_path / "p").mkdir()
    photo(1).save(tmp_path / "p" / "a.jpg")
    file = written(tmp_path, "m.csv", "file,price\na.jpg,5\nb.jpg,6\n")
    arguments = ["index", str(tmp_path / "p"), "--gallery", str(tmp_path / "g"), "--metadata", str(file)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "metadata: 1 rows, 1 pictures changed; columns price (number)" in result.output
    assert "1 rows name no picture here: b.jpg" in result.output
    report = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).output)
    assert report["metadata"]["changed"] == 0
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.select("price = 5").tolist() == [1]
    assert report["metadata"]["kept_as_text"] == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bad.csv", "file,price\na.jpg,x\n", "line 2, column 'price'"),
        ("bad.jsonl", '{"file": "a.jpg", "a\\tb": "x"}', "cannot be the name of a column"),
        ("bad.jsonl", '{"file": "a.jpg", "name": "\\u0000"}', "line 1, column 'name'"),
    ],
)
def test_nothing_is_indexed_where_the_metadata_cannot_be_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, reason: str
) -> None:
    monkeypatch.setattr("image2sentence.encoders.load_encoder", lambda *_, **__: FakeEncoder())
    (tmp_path / "p").mkdir()
    photo(1).save(tmp_path / "p" / "a.jpg")
    arguments = ["index", str(tmp_path / "p"), "--gallery", str(tmp_path / "g"), "--metadata"]
    good = written(tmp_path, "m.csv", "file,price\na.jpg,5\n")
    assert CliRunner().invoke(cli, [*arguments, str(good)]).exit_code == 0
    photo(2).save(tmp_path / "p" / "c.jpg")
    result = CliRunner().invoke(cli, [*arguments, str(written(tmp_path, name, content))])
    assert result.exit_code == 1
    assert reason in result.output
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 1
