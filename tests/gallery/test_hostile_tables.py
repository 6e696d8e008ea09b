"""Tables made to stop the program: each is refused by name, in bounded time."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from image2sentence.errors import DataError
from image2sentence.gallery.files import tables
from image2sentence.gallery.files.metadata import MetadataFile

SHEET = "xl/worksheets/sheet1.xml"


def workbook(folder: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    """A workbook of two rows, one of whose parts is changed."""
    openpyxl = pytest.importorskip("openpyxl", reason="needs openpyxl")
    book = openpyxl.Workbook()
    for row in (["file", "price"], ["a.jpg", 7]):
        book.active.append(row)
    book.save(folder / "plain.xlsx")
    with (
        zipfile.ZipFile(folder / "plain.xlsx") as plain,
        zipfile.ZipFile(folder / "m.xlsx", "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for part in plain.namelist():
            content = plain.read(part)
            changed.writestr(part, change(content) if part == name else content)
    return folder / "m.xlsx"


def with_rows(rows: str) -> Callable[[bytes], bytes]:
    """The sheet with these rows more, and without a word of its size."""

    def change(sheet: bytes) -> bytes:
        start, end = sheet.index(b"<dimension"), sheet.index(b"/>", sheet.index(b"<dimension")) + 2
        return (sheet[:start] + sheet[end:]).replace(b"</sheetData>", f"{rows}</sheetData>".encode())

    return change


def read(file: Path) -> list[tuple[str, dict[str, object]]]:
    return [(name, dict(values)) for name, values in MetadataFile(file).rows()]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ('<row r="3"><c r="A3" t="n"><v>abc</v></c></row>', "is no workbook"),
        ('<row r="3"><c r="A3" t="s"><v>99</v></c></row>', "is no workbook"),
        ('<row r="3"><c r="A3" t="d"><v>9999999-01-01</v></c></row>', "is no workbook"),
        ('<row r="abc"><c r="A3" t="n"><v>1</v></c></row>', "is no workbook"),
        ('<row r="3"><c r="A3"', "is no workbook"),
        ('<row r="99999999999"><c r="A3" t="n"><v>1</v></c></row>', "more than 20,000 rows"),
    ],
)
def test_a_damaged_sheet_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: str, reason: str
) -> None:
    monkeypatch.setattr(tables, "MAX_SHEET_ROWS", 20_000)
    with pytest.raises(DataError, match=rf"m\.xlsx.* {reason}"):
        read(workbook(tmp_path, SHEET, with_rows(rows)))


def test_cells_far_away_do_not_make_every_row_as_wide(tmp_path: Path) -> None:
    far = "".join(
        f'<row r="{n}"><c r="A{n}" t="inlineStr"><is><t>{n}.jpg</t></is></c>' for n in range(3, 203)
    )
    far = far.replace("</c>", "</c></row>")
    far = far.replace("</row>", '<c r="XFD3" t="n"><v>1</v></c></row>')
    began = time.process_time()
    rows = read(workbook(tmp_path, SHEET, with_rows(far)))
    assert [rows[0], len(rows)] == [("a.jpg", {"price": 7}), 201]
    assert time.process_time() - began < 10


def test_styles_of_a_workbook_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    styles = b"<xf/>" * (tables.MAX_STYLE_BYTES // 5)
    file = workbook(tmp_path, "xl/styles.xml", lambda part: part.replace(b"<cellXfs", styles + b"<cellXfs"))
    with pytest.raises(DataError, match="bytes of styles unpacked, 8,388,608 at most: save it as CSV"):
        read(file)
    monkeypatch.setattr(tables, "MAX_SHEET_BYTES", 1_000)
    with pytest.raises(DataError, match="bytes unpacked, 1,000 at most"):
        read(workbook(tmp_path, SHEET, lambda sheet: sheet))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_too_many_columns_are_refused_before_they_are_compared(tmp_path: Path, ending: str) -> None:
    names = ["file", *(f"c{number}" for number in range(200_000 if ending == ".csv" else 2_000))]
    file = tmp_path / f"m{ending}"
    if ending == ".csv":
        file.write_text(",".join(names) + "\n")
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
        parquet.write_table(pyarrow.table({name: ["1"] for name in names}), file)
    began = time.process_time()
    with pytest.raises(DataError, match=r"has 2\d*,001 columns; a gallery has at most 500"):
        read(file)
    assert time.process_time() - began < 10


def test_empty_cells_behind_the_last_column_cost_no_more_than_their_number(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,price\na.jpg,7" + "," * 500_000 + "\n")
    began = time.process_time()
    assert read(tmp_path / "m.csv") == [("a.jpg", {"price": 7})]
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", "file,price\na.jpg," + "7" * 2_000),
        ("m.csv", "file,price\na.jpg" + ',"7\n"' * 300),
        ("m.csv", "x" * 2_000),
        ("m.jsonl", '{"file": "a.jpg"}\n{"file": "b.jpg", "price": "' + "7" * 2_000 + '"}'),
    ],
)
def test_a_row_longer_than_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_CHARACTERS", 1_000)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}, line \d+: a row of more than 1,000 characters"):
        read(tmp_path / name)
    short = "file,price\n" + "".join(f"{number}.jpg,7\n" for number in range(500))
    (tmp_path / "short.csv").write_text(short)
    assert len(read(tmp_path / "short.csv")) == 500
