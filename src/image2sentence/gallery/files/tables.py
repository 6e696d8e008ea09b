"""Tables in text and spreadsheets: encodings, separators, quotes, headers."""

from __future__ import annotations

import codecs
import csv
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from image2sentence.errors import DataError
from image2sentence.gallery.metadata import MAX_COLUMNS
from image2sentence.images import display_path, printable

FILE_COLUMN = "file"
"""The column with the picture's path relative to the indexed folder, or its bare name."""

FILE_HEADERS = frozenset(
    {
        "file",
        "filename",
        "file_name",
        "filepath",
        "file_path",
        "path",
        "image",
        "image_path",
        "img",
        "img_path",
    }
    | {
        "picture",
        "photo",
        "image_file",
        "image_name",
        "image_filename",
        "img_name",
        "photo_file",
        "photo_path",
    }
    | {
        "picture_file",
        "picture_path",
        "full_path",
        "fullpath",
        "absolute_path",
        "relative_path",
        "source_file",
    }
    | {
        "sourcefile",
        "datei",
        "dateiname",
        "dateipfad",
        "pfad",
        "fichier",
        "nom_de_fichier",
        "chemin",
        "archivo",
    }
    | {"nome_del_file", "arquivo", "bestand", "bestandsnaam", "fil", "filnavn", "filnamn"}
)
"""What the column may be called too, in capitals or not, with spaces or hyphens for `_`, where no other is."""

MAX_SHEET_BYTES = 512 << 20
"""Bytes of a spreadsheet, unpacked."""

MAX_STYLE_BYTES = 8 << 20
"""Bytes of its styles, of which a few become hundreds in memory."""

MAX_SHEET_ROWS = 1 << 20
"""Rows of a spreadsheet, empty ones between them too; no program makes more."""

MAX_ROW_CHARACTERS = 64 << 20
"""Characters of one row of a text table: all columns that a gallery takes, filled up."""

_SEPARATORS = (",", ";", "\t", "|")
_BLOCK = 1 << 20
_MOST_CELLS = MAX_COLUMNS + 2


def read_delimited(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a text table as (number, cells by column), the first column of names called `file`.

    The encoding is UTF-8, UTF-16, or else Windows-1252; cells are separated by what the header is separated by.

    Raises:
        DataError: what cannot be understood, with the line.
        OSError, UnicodeError: it cannot be read.
    """
    with open_text(path) as file:
        separator, skip = sniff_separator(path, file)
        lines = BoundedLines(path, file)
        reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
        header: list[str] | None = None
        try:
            for cells in reader:
                lines.end_row()
                if reader.line_num <= skip or not any(cell.strip() for cell in cells):
                    continue
                if header is None:
                    header = _header(path, cells)
                    continue
                yield (
                    reader.line_num,
                    dict(
                        zip(
                            header, _fitted(path, reader.line_num, cells, len(header), separator), strict=True
                        )
                    ),
                )
        except csv.Error as error:
            raise DataError(
                f"{display_path(path)}, line {reader.line_num} cannot be read: {error}; a cell that holds quotes is "
                'put into double quotes, with "" for each of them'
            ) from error
        if header is None:
            _header(path, [])


class BoundedLines:
    """The lines of a text file, which may not hold more than `MAX_ROW_CHARACTERS` between two calls of `end_row`."""

    def __init__(self, path: Path, file: TextIO) -> None:
        self._path = path
        self._file = file
        self._line = 0
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        while text := self._file.readline(MAX_ROW_CHARACTERS + 1):
            self._line += 1
            self._characters += len(text)
            if self._characters > MAX_ROW_CHARACTERS:
                where = f"{display_path(self._path)}, line {self._line}"
                raise DataError(f"{where}: a row of more than {MAX_ROW_CHARACTERS:,} characters")
            yield text

    def end_row(self) -> None:
        """Count anew."""
        self._characters = 0


def open_text(path: Path) -> TextIO:
    """A text file of any of the encodings, opened. Raises DataError, with the line; OSError."""
    return path.open(encoding=find_encoding(path), newline="")


def find_encoding(path: Path) -> str:
    """By its byte order mark, else UTF-8, else Windows-1252. Raises DataError where it is none."""
    with path.open("rb") as file:
        start = file.read(4)
        if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
            return "utf-32"
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        file.seek(0)
        head = file.read(40)
        if 4 * head.count(0) > len(head):
            return "utf-16-le" if head[1::2].count(0) >= head[::2].count(0) else "utf-16-be"
        for encoding in ("utf-8-sig", "cp1252"):
            decoder = codecs.getincrementaldecoder(encoding)()
            file.seek(0)
            line = 1
            try:
                while block := file.read(_BLOCK):
                    line += decoder.decode(block).count("\n")
                decoder.decode(b"", final=True)
                return encoding
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                if encoding != "cp1252":
                    _refuse_mixture(path, file, line)
    raise DataError(
        f"{display_path(path)} cannot be read: line {line} is text neither in UTF-8, UTF-16 nor Windows-1252; save it "
        "as UTF-8"
    )


def _refuse_mixture(path: Path, file: BinaryIO, line: int) -> None:
    """Raise DataError where most of what is not ASCII is UTF-8: as Windows-1252 it would be other letters."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    valid = odd = 0
    file.seek(0)
    while block := file.read(_BLOCK):
        text = decoder.decode(block)
        odd += len(re.findall("[\udc80-\udcff]", text))
        valid += len(re.findall("[^\0-\x7f\udc80-\udcff]", text))
    if valid >= odd:
        raise DataError(
            f"{display_path(path)} cannot be read: line {line} is no UTF-8, and other lines are: correct its letters "
            "and save it as UTF-8"
        )


def sniff_separator(path: Path, file: TextIO) -> tuple[str, int]:
    """What separates the header's cells, and how many lines come before it; the file is at its start again."""
    first, skip = file.readline(MAX_ROW_CHARACTERS), 0
    while first and not first.strip():
        first, skip = file.readline(MAX_ROW_CHARACTERS), skip + 1
    if (declared := re.fullmatch(r"\ufeff?\"?sep=(.)\"?[ \r\n,;]*", first, re.IGNORECASE)) is not None:
        file.seek(0)
        return declared[1], skip + 1
    file.seek(0)
    counts = {}
    for separator in _SEPARATORS:
        try:
            cells = next(csv.reader([first], delimiter=separator, skipinitialspace=True), [])
        except csv.Error:
            continue
        if any(is_file_header(cell) for cell in cells):
            counts[separator] = len(cells)
    return (max(counts, key=lambda one: counts[one]) if counts else ","), skip


def is_file_header(name: str) -> bool:
    """Whether a column may hold the names of the pictures."""
    return re.sub(r"[\s-]+", "_", name.strip().strip("\ufeff").lower()) in FILE_HEADERS


def file_column(path: Path, names: list[str]) -> str:
    """The column with the names of the pictures. Raises DataError where there is none, or more than one."""
    for exact in (FILE_COLUMN, "File", "FILE", "SourceFile"):
        if exact in names:
            return exact
    found = [name for name in names if is_file_header(name)]
    if len(found) == 1:
        return found[0]
    several = f"; it has {' and '.join(map(repr, map(printable, found)))}: call the right one `file`"
    shown = f"; it has {', '.join(map(printable, names[:20])) or 'no columns'}"
    raise DataError(
        f"{display_path(path)}: expected a column `{FILE_COLUMN}` with the paths or names of the pictures"
        + (several if found else shown)
    )


def read_sheet(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a workbook's first sheet, as `read_delimited`, each cell as text.

    Raises:
        DataError: openpyxl is missing, or it is no workbook; with the row.
    """
    try:
        import openpyxl
    except ModuleNotFoundError as error:
        raise DataError(
            f"{display_path(path)}: a workbook needs openpyxl: pip install 'image2sentence[xlsx]', or save it as CSV"
        ) from error
    try:
        _check_parts(path)
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            yield from _sheet_rows(path, book.worksheets[0])
        finally:
            book.close()
    except DataError:
        raise
    except _SHEET_DAMAGE as error:
        raise DataError(f"{display_path(path)} is no workbook (.xlsx) that can be read: {error}") from error


# What openpyxl, its XML parser and zip files are known to raise on what is no workbook.
_SHEET_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    SyntaxError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)


def _check_parts(path: Path) -> None:
    with zipfile.ZipFile(path) as parts:
        sizes = {part.filename: part.file_size for part in parts.infolist()}
    for what, size, most in (
        ("", sum(sizes.values()), MAX_SHEET_BYTES),
        (" of styles", sizes.get("xl/styles.xml", 0), MAX_STYLE_BYTES),
    ):
        if size > most:
            raise DataError(
                f"{display_path(path)} has {size:,} bytes{what} unpacked, {most:,} at most: save it as CSV"
            )


def _sheet_rows(path: Path, sheet: Any) -> Iterator[tuple[int, dict[str, str]]]:
    header: list[str] | None = None
    # Where the sheet does not say how wide it is, one cell far away would make every row as wide.
    widest = None if (sheet.max_column or _MOST_CELLS + 1) <= _MOST_CELLS else _MOST_CELLS
    for number, row in enumerate(sheet.iter_rows(values_only=True, max_col=widest), 1):
        if number > MAX_SHEET_ROWS:
            raise DataError(f"{display_path(path)} has more than {MAX_SHEET_ROWS:,} rows: save it as CSV")
        if row.count(None) == len(row):
            continue
        cells = [_cell_text(cell) for cell in row]
        if not any(cells):
            continue
        if header is None:
            header = _header(path, cells)
            continue
        yield number, dict(zip(header, _fitted(path, number, cells, len(header), "|"), strict=True))
    if header is None:
        _header(path, [])


def _cell_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ", timespec="seconds").removesuffix(" 00:00:00")
    return cell.isoformat() if isinstance(cell, date) else str(cell)


def _header(path: Path, cells: list[str]) -> list[str]:
    """The names of the columns, without those that are empty at its end. Raises DataError."""
    names = [cell.strip().strip("\ufeff") for cell in cells]
    while names and not names[-1]:
        names.pop()
    if len(names) > MAX_COLUMNS + 1:
        raise DataError(
            f"{display_path(path)} has {len(names):,} columns; a gallery has at most {MAX_COLUMNS}"
        )
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{display_path(path)}: the column {printable(repeated[0])!r} is there twice")
    chosen = file_column(path, names)
    return [FILE_COLUMN if name == chosen else name for name in names]


def _fitted(path: Path, line: int, cells: list[str], count: int, separator: str) -> list[str]:
    """The cells of a line without empty ones behind the last column. Raises DataError where their number is wrong."""
    end = len(cells)
    while end > count and not cells[end - 1].strip():
        end -= 1
    cells = cells[:end]
    if len(cells) == count:
        return cells
    many = f'; a cell that holds "{separator}" is put into double quotes' if len(cells) > count else ""
    raise DataError(f"{display_path(path)}, line {line}: expected {count} cells, got {len(cells)}{many}")
