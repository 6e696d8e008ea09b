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
    ],
)
def test_one_table_in_many_forms(gallery: Gallery, root: Path, content: str | bytes) -> None:
    report = apply(gallery, root, content)
    assert gallery.metadata([A]) == [EXPECTED]
    assert report.columns == {"price": "number", "name": "text"}


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
