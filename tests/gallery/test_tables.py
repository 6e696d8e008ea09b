"""Tables as people have them: encodings, separators, headers, numbers, dates, and names of files."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image2sentence.errors import DataError
from image2sentence.gallery.files.metadata import MetadataFile, MetadataReport, apply_metadata
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite.gallery import Gallery

PATHS = ("a.jpg", "shirts/1.jpg", unicodedata.normalize("NFD", "größe/né.jpg"), "plain/1.png")
A, SHIRT, COMPOSED, PLAIN = range(1, 5)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my photos"


@pytest.fixture
def gallery(tmp_path: Path, root: Path) -> Iterator[Gallery]:
    with Gallery.create(tmp_path / "gallery", "model-a", 4) as opened:
        contents = [Content(bytes([n]) * 32, 9, 9, np.eye(4, dtype=np.float32)[n]) for n in range(len(PATHS))]
        entries = [FileEntry(path, 1, 1, one.sha256) for path, one in zip(PATHS, contents, strict=True)]
        opened.commit(opened.add_root(root), contents, entries)
        yield opened


def apply(gallery: Gallery, root: Path, content: str | bytes, name: str = "m.csv") -> MetadataReport:
    file = root.parent / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return apply_metadata(gallery, root, MetadataFile(file, gallery.columns()))


EXPECTED = {"price": 19.9, "name": "Größe"}
TABLE = "file,price,name\na.jpg,19.90,Größe\n"


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        "\ufeff" + TABLE,
        TABLE.encode("utf-16"),
        "\ufeff".encode("utf-16-be") + TABLE.encode("utf-16-be"),
        TABLE.encode("utf-16-le"),
        TABLE.encode("cp1252"),
        TABLE.replace("\n", "\r\n"),
        "file, price , name\na.jpg, 19.90, Größe\n",
        'file, price, name\n"a.jpg", "19,90", "Größe"\n',
        TABLE.replace(",", ";"),
        "file;price;name\na.jpg;19,90;Größe\n",
        TABLE.replace(",", "\t"),
        TABLE.replace(",", "|"),
        "sep=;\nfile;price;name\na.jpg;19,90;Größe\n",
        "file,price,name,,\na.jpg,19.90,Größe,,\n",
        "file,price,name\na.jpg,19.90,Größe,,,\n",
        "\n\nfile,price,name\n\na.jpg,19.90,Größe\n,,\n",
        TABLE.replace("file", "File"),
        TABLE.replace("file", "Filename"),
        TABLE.replace("file", "file name"),
        TABLE.replace("file", "IMAGE"),
        TABLE.replace("file", "image-path"),
        TABLE.replace("file", " path "),
        TABLE.replace("file", "Dateiname"),
        TABLE.replace("file", "Full Path"),
        TABLE.replace("\n", "\r"),
        TABLE.replace("\n", "\r\n", 1),
        TABLE.encode("utf-32"),
        TABLE.encode("utf-16-be"),
        '"sep=;"\r\nfile;price;name\r\na.jpg;19,90;Größe\r\n',
        "\ufeffsep=\t\nfile\tprice\tname\na.jpg\t19.90\tGröße\n".encode("utf-16"),
        "file;price;name\na.jpg;19,90 €;Größe\n",
        "file,price,name\na.jpg,$19.90,Größe\n",
    ],
)
def test_one_table_in_many_forms(gallery: Gallery, root: Path, content: str | bytes) -> None:
    report = apply(gallery, root, content)
    assert gallery.metadata([A]) == [EXPECTED]
    assert report.columns == {"price": "number", "name": "text"}


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("1,234", "12.5"), (1234, 12.5)),  # the one tells what the comma of the other is
        (("1,234", "2,5"), (1.234, 2.5)),
        (("1.234", "2,5"), (1234, 2.5)),
        (("1.234", "2.500"), (1.234, 2.5)),
        (("1,234", "999"), ("1,234", "999")),
        (("1,234,567", "999"), (1234567, 999)),
        (("1 234,50", "12\u00a0345"), (1234.5, 12345)),
        (("1\u202f234.5", "7"), (1234.5, 7)),
        (("1'234.50", "2\u2019345.00"), (1234.5, 2345.0)),
        (("12%", "7.5 %"), (12, 7.5)),
        (("€19.90", "€5"), (19.9, 5)),
        (("19,90 €", "1.234,00 €"), (19.9, 1234.0)),
        (("$1,234.00", "$5"), (1234.0, 5)),
        (("CHF 5", "7"), (5, 7)),
        (("€5", "$5"), ("€5", "$5")),
        (("5 kg", "7"), ("5 kg", "7")),
        (("\u22125", "-3"), (-5, -3)),
        (("-$5.00", "$3"), (-5.0, 3)),
        (("0,234", "1"), (0.234, 1)),
        (("1,23,456", "7"), ("1,23,456", "7")),
        (("1 23", "7"), ("1 23", "7")),
        (("2" * 5_000, "7"), ("2" * 5_000, "7")),
        (("WAHR", "FALSCH"), (True, False)),
        (("21.11.2026", "1.2.2026"), ("2026-11-21T00:00:00", "2026-02-01T00:00:00")),
        (("11/21/2026", "1/2/2026"), ("2026-11-21T00:00:00", "2026-01-02T00:00:00")),
        (("21/11/2026", "1/2/2026"), ("2026-11-21T00:00:00", "2026-02-01T00:00:00")),
        (("3/4/2026", "1/2/2026"), ("3/4/2026", "1/2/2026")),
        (("21/11/2026", "11/21/2026"), ("21/11/2026", "11/21/2026")),
        (("2026/11/21", "2026:11:21 09:30:00"), ("2026-11-21T00:00:00", "2026-11-21T09:30:00")),
        (("21 Nov 2026", "November 21, 2026"), ("2026-11-21T00:00:00",) * 2),
        (("2026-11-21 9:30", "2026-11-21 9:30 PM"), ("2026-11-21T09:30:00", "2026-11-21T21:30:00")),
        (("2026-11-21 12:05 am", "2026-11-21 09:30:00 UTC"), ("2026-11-21T00:05:00", "2026-11-21T09:30:00")),
        (("31.11.2026", "1.2.2026"), ("31.11.2026", "1.2.2026")),
        (("2026-11-21", "2026-11-21 13:00 PM"), ("2026-11-21", "2026-11-21 13:00 PM")),
    ],
)
def test_a_column_is_read_in_the_one_way_in_which_all_its_cells_can_be(
    gallery: Gallery, root: Path, cells: tuple[str, str], values: tuple[Any, Any]
) -> None:
    first, second = cells
    report = apply(gallery, root, f'file,n\na.jpg,"{first}"\nshirts/1.jpg,"{second}"\n')
    assert gallery.metadata([A, SHIRT]) == [{"n": value} for value in values]
    if first in ("1,234", "3/4/2026") and values[0] == first:
        assert report.text_because == {"n": f"line 2: {first!r}"}


@pytest.mark.parametrize(("cell", "readings"), [("1,234", "1234 or 1.234"), ("1,500", "1500 or 1.5")])
def test_a_cell_of_two_readings_in_a_known_column_is_refused(
    gallery: Gallery, root: Path, cell: str, readings: str
) -> None:
    apply(gallery, root, "file,n\na.jpg,5\n")
    with pytest.raises(DataError, match=f"line 3, column 'n'.*which may be {readings}"):
        apply(gallery, root, f'file,n\na.jpg,5\nshirts/1.jpg,"{cell}"\n')
    apply(gallery, root, f'file,n\na.jpg,12.5\nshirts/1.jpg,"{cell}"\n')
    assert gallery.metadata([SHIRT]) == [{"n": float(cell.replace(",", ""))}]


def test_columns_without_a_name_are_numbered(gallery: Gallery, root: Path) -> None:
    apply(gallery, root, ",file,,price\n0,a.jpg,x,5\n1,shirts/1.jpg,,7\n")
    assert gallery.metadata([A, SHIRT]) == [
        {"column 1": 0, "column 3": "x", "price": 5},
        {"column 1": 1, "price": 7},
    ]


def test_exiftools_table_names_pictures_by_their_paths(gallery: Gallery, root: Path) -> None:
    apply(gallery, root, "SourceFile,FileName,Rating\n./plain/1.png,1.png,5\n")
    assert gallery.metadata([PLAIN]) == [{"FileName": "1.png", "Rating": 5}]


def test_line_breaks_and_separators_in_quotes_stay(gallery: Gallery, root: Path) -> None:
    apply(gallery, root, 'file,note\na.jpg,"two\nlines, ""quoted"""\nshirts/1.jpg,"x\r\ny"\n')
    assert gallery.metadata([A, SHIRT]) == [{"note": 'two\nlines, "quoted"'}, {"note": "x\r\ny"}]


def test_what_is_read_as_windows_1252_is_told_and_mixtures_are_refused(gallery: Gallery, root: Path) -> None:
    assert apply(gallery, root, TABLE.encode("cp1252")).encoding == "Windows-1252"
    assert apply(gallery, root, TABLE).encoding is None
    with pytest.raises(DataError, match="line 3 is no UTF-8, and other lines are"):
        apply(gallery, root, "file,n\na.jpg,Größe\n".encode() + b"shirts/1.jpg,Gr\xf6\n")


def test_two_rows_of_one_picture_are_refused_however_they_are_spelled(gallery: Gallery, root: Path) -> None:
    with pytest.raises(DataError, match=r"'a\.jpg' and '\./A\.JPG' name the same picture"):
        apply(gallery, root, "file,n\na.jpg,1\n./A.JPG,2\n")
    assert gallery.metadata([A]) == [{}]


def test_a_workbook(gallery: Gallery, root: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    from datetime import datetime

    book = openpyxl.Workbook()
    for row in (
        ["File", "price", "name", "sale", "day", "code", None],
        ["a.jpg", 19.9, "Größe", True, datetime(2026, 11, 21), "007"],
        [None] * 6,
        ["shirts/1.jpg", 5, None, False, datetime(2026, 11, 21, 9, 30), "8"],
    ):
        book.active.append(row)
    book.save(root.parent / "m.xlsx")
    apply_metadata(gallery, root, MetadataFile(root.parent / "m.xlsx"))
    day = {"day": "2026-11-21T00:00:00"}
    assert gallery.metadata([A, SHIRT]) == [
        EXPECTED | {"sale": True, "code": "007"} | day,
        {"price": 5, "sale": False, "code": "8", "day": "2026-11-21T09:30:00"},
    ]
    (root.parent / "no.xlsx").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="is no workbook"):
        MetadataFile(root.parent / "no.xlsx")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,price\na.jpg,19,90\n", 'line 2: expected 2 cells, got 3; a cell that holds ","'),
        ('file,name\na.jpg,"5" wide"\n', "line 2 cannot be read: .*double quotes"),
        ("image,path\na.jpg,b.jpg\n", "it has 'image' and 'path': call the right one `file`"),
        ("picture no,price\n1,2\n", "expected a column `file`.*it has picture no, price"),
        (b"file,a\na.jpg,1\n\x81\x8d,2\n", "line 3 is text neither in UTF-8, UTF-16 nor Windows-1252"),
    ],
)
def test_what_has_no_one_reading_is_refused_with_its_line(
    gallery: Gallery, root: Path, content: str | bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        apply(gallery, root, content)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("19,90", 19.9),
        ("1.234,50", 1234.5),
        ("1,234.50", 1234.5),
        ("-0,5", -0.5),
        ("1,234", "1,234"),
        ("00123", "00123"),
        ("1e3", 1000.0),
    ],
)
def test_numbers(gallery: Gallery, root: Path, cell: str, value: Any) -> None:
    apply(gallery, root, f'file,n\na.jpg,"{cell}"\n')
    assert gallery.metadata([A]) == [{"n": value}]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2026-11-21T09:30:00Z", "2026-11-21T09:30:00"),
        ("2026-11-21T09:30:00.123+02:00", "2026-11-21T07:30:00"),
        ("2026-11-21 23:30 -0530", "2026-11-22T05:00:00"),
        ("2026-11-21T09:30:00.5", "2026-11-21T09:30:00"),
        ("2026-11-21", "2026-11-21T00:00:00"),
    ],
)
def test_dates_with_zones_are_kept_as_utc(gallery: Gallery, root: Path, text: str, kept: str) -> None:
    apply(gallery, root, f'{{"file": "a.jpg", "at": "{text}"}}\n', "m.jsonl")
    apply(gallery, root, f"file,at\nshirts/1.jpg,{text}\n")
    assert gallery.columns() == {"at": "date"}
    assert gallery.metadata([A, SHIRT]) == [{"at": kept}, {"at": kept}]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("./shirts/1.jpg", SHIRT),
        ("shirts\\1.jpg", SHIRT),
        (".\\shirts\\1.jpg", SHIRT),
        ("my photos/shirts/1.jpg", SHIRT),
        ("/home/somebody/my photos/shirts/1.jpg", SHIRT),
        ("C:\\Users\\me\\my photos\\shirts\\1.jpg", SHIRT),
        ("/shirts/1.jpg", SHIRT),
        ("1.jpg", SHIRT),
        (unicodedata.normalize("NFC", "größe/né.jpg"), COMPOSED),
        (unicodedata.normalize("NFC", "né.jpg"), COMPOSED),
        (" a.jpg ", A),
        ("A.JPG", A),
        ("Shirts/1.JPG", SHIRT),
        ("a", A),
        ("SHIRTS/1", SHIRT),
        ("plain%2F1.png", PLAIN),
        ("gr%C3%B6%C3%9Fe/n%C3%A9.jpg", COMPOSED),
        ("file:///home/somebody/my%20photos/plain/1.png", PLAIN),
    ],
)
def test_names_of_files_in_other_forms(gallery: Gallery, root: Path, name: str, number: int) -> None:
    assert apply(gallery, root, f'file,n\n"{name}",5\n').matched == 1
    assert gallery.metadata([number]) == [{"n": 5}]


def test_absolute_paths(gallery: Gallery, root: Path) -> None:
    assert apply(gallery, root, f"file,n\n{root}/shirts/1.jpg,5\n").matched == 1
    assert gallery.metadata([SHIRT]) == [{"n": 5}]


def test_where_no_row_names_a_picture_both_kinds_of_names_are_told(gallery: Gallery, root: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of its 2 rows .* such as 'other/x\.jpg', the gallery has 'a\.jpg'"
    ):
        apply(gallery, root, "file,n\nother/x.jpg,1\nother/y.jpg,2\n")
    assert apply(gallery, root, "file,n\n").matched == 0
    assert apply(gallery, root, "file,n\nother/a.jpg,1\na.jpg,2\n").unmatched == 1


def test_the_cell_that_made_a_column_text_is_told(gallery: Gallery, root: Path) -> None:
    rows = ["file,price,name", "a.jpg,5,red", "shirts/1.jpg,N/A,blue", "1.png,7,7"]
    report = apply(gallery, root, "\n".join(rows))
    assert report.columns == {"price": "text", "name": "text"}
    assert report.text_because == {"price": "line 3: 'N/A'"}
