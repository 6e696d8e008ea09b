"""Metadata files (CSV, JSONL, Parquet), joined to a gallery's pictures.

The file is read twice, row by row: for the types of its columns, and for the values. It may be larger than memory.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.files.cells import from_native, from_text
from image2sentence.gallery.files.column_guess import ColumnGuess
from image2sentence.gallery.files.names import Names
from image2sentence.gallery.files.tables import (
    FILE_COLUMN,
    BoundedLines,
    file_column,
    find_encoding,
    open_text,
    read_delimited,
    read_sheet,
)
from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.gallery.locations import as_place
from image2sentence.gallery.metadata import MAX_COLUMNS, is_new_column
from image2sentence.images import display_path, printable

MAX_PATH_BYTES = 4_096
"""Bytes of a path in a file of metadata or vectors; no system has longer ones."""

ENDINGS = (".csv", ".tsv", ".xlsx", ".jsonl", ".ndjson", ".parquet")
_TEXTUAL = (".csv", ".tsv", ".xlsx")

_WIDEST: ColumnType = "text"
_LISTED = 5

Row: TypeAlias = tuple[int, dict[str, Any]]
"""A line (or row) number from 1, and its cells by column."""


@dataclass(frozen=True)
class MetadataReport:
    """What a metadata file gave a gallery.

    Attributes:
        columns: The file's columns and their types.
        matched: Rows whose picture the gallery holds.
        changed: Pictures that have other values than before.
        unmatched: Rows whose picture is not there, and the first of their names in `examples`.
        examples: A few names of pictures that are not there.
        text_because: Columns that are text although half of their cells have a narrower type: the first other cell.
        kept_as_text: Columns that the gallery keeps as text although every value in the file has a narrower type.
        encoding: Of a text file that is neither UTF-8 nor UTF-16: what it was taken for.
    """

    columns: dict[str, ColumnType]
    matched: int
    changed: int
    unmatched: int
    examples: list[str] = field(default_factory=list)
    kept_as_text: list[str] = field(default_factory=list)
    text_because: dict[str, str] = field(default_factory=dict)
    encoding: str | None = None


class MetadataFile:
    """A file of metadata whose columns and types are known and whose every row has been looked at.

    Args:
        path: The file; its ending says the format: .csv, .tsv, .xlsx, .jsonl or .ndjson, .parquet.
        known: Columns that have a type already.

    Raises:
        DataError: the file is missing or damaged, has no `file` column, names a picture twice, has a column that
            a gallery cannot have, or holds a value that is of no type, too long, or of another type than the
            column has; with the line.

    Attributes:
        columns: Columns of the file and their types.
        text_because: Columns that are text although half of their cells have a narrower type: the first other cell.
        kept_as_text: Those that are text in `known` and of a narrower type in this file.
        encoding: What a text file that is neither UTF-8 nor UTF-16 is taken for.
    """

    def __init__(self, path: str | os.PathLike[str], known: Mapping[str, ColumnType] | None = None) -> None:
        self.path = Path(path)
        self._rows = _reader(self.path)
        self._textual = self.path.suffix.lower() in _TEXTUAL
        guesses = self._guesses(known or {})
        self.encoding = self._encoding()
        self.columns = {column: guess.type for column, guess in guesses.items()}
        self._styles = {column: guess.style for column, guess in guesses.items()}
        self.text_because = {
            column: guess.text_because for column, guess in guesses.items() if guess.text_because is not None
        }
        self.kept_as_text = [column for column, guess in guesses.items() if guess.kept_as_text]

    def rows(self) -> Iterator[tuple[str, dict[str, Value | None]]]:
        """(name of the file, values by column) of each row; None for a cell that is empty."""
        with self._errors():
            for line, cells in self._rows(self.path):
                name = str(cells.pop(FILE_COLUMN))
                yield name, {column: self._value(line, column, cell) for column, cell in cells.items()}

    def _encoding(self) -> str | None:
        if self.path.suffix.lower() in (".xlsx", ".parquet"):
            return None
        with self._errors():
            return "Windows-1252" if find_encoding(self.path) == "cp1252" else None

    def _guesses(self, known: Mapping[str, ColumnType]) -> dict[str, ColumnGuess]:
        seen: dict[str, int] = {}
        guesses: dict[str, ColumnGuess] = {}
        with self._errors():
            for line, cells in self._rows(self.path):
                self._check_name(line, cells.get(FILE_COLUMN), seen)
                for column, cell in cells.items():
                    if column == FILE_COLUMN:
                        continue
                    if column not in guesses:
                        self._check_column(line, column, {**known, **dict.fromkeys(guesses, _WIDEST)})
                        guesses[column] = ColumnGuess(self._textual, known.get(column))
                    with self._explained(line, column):
                        guesses[column].look(line, cell)
        for column, guess in guesses.items():
            with self._explained(guess.unsure_line, column):
                guess.settle()
        return guesses

    def _check_column(self, line: int, column: str, known: Mapping[str, ColumnType]) -> None:
        try:
            is_new_column(known, column, known.get(column, _WIDEST))
        except DataError as error:
            raise DataError(f"{display_path(self.path)}, line {line}: {error}") from error

    def _check_name(self, line: int, name: Any, seen: dict[str, int]) -> None:
        where = f"{display_path(self.path)}, line {line}"
        if not isinstance(name, str) or not is_path(name):
            raise DataError(
                f"{where}: expected the path or name of a picture in the column `file`, got {name!r:.80}"
            )
        if name in seen:
            raise DataError(f"{where}: {printable(name)!r} is there already, in line {seen[name]}")
        seen[name] = line

    def _value(self, line: int, column: str, cell: Any) -> Value | None:
        kind = self.columns.get(column)
        if kind is None:
            raise DataError(f"{display_path(self.path)}, line {line}: the file has changed while it was read")
        read = from_text if self._textual else from_native
        with self._explained(line, column):
            return read(kind, cell, self._styles[column])

    @contextmanager
    def _explained(self, line: int, column: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"{display_path(self.path)}, line {line}, column {printable(column)!r}: {error}"
            ) from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, UnicodeError, csv.Error) as error:
            raise DataError(f"{display_path(self.path)} cannot be read: {error}") from error


def apply_metadata(
    gallery: GalleryStore, root: str | os.PathLike[str], file: MetadataFile, *others: str | os.PathLike[str]
) -> MetadataReport:
    """Give the pictures below an indexed folder, or several, the values of a file.

    A row names a picture by its path relative to a folder, or by its bare name where only one picture has it; see
    `Names` for other spellings.
    Pictures without a row, and columns that the file does not have, keep their values; an empty cell takes the
    value away.

    Raises:
        DataError: a column has another type in the gallery, a name means several pictures, or no row names one.
        GalleryError: the gallery cannot be written or is damaged.
    """
    gallery.add_columns(file.columns)
    folders = [as_place(folder) for folder in (root, *others)]
    names = Names(gallery, folders)
    counts = _Counts()
    changed = gallery.set_metadata(_joined(file, names, counts))
    if counts.unmatched and not counts.matched:
        shown = " or ".join(map(display_path, folders))
        raise DataError(
            f"{display_path(file.path)}: none of its {counts.unmatched:,} rows names a picture below {shown}: "
            f"it has names such as {printable(counts.examples[0])!r}, the gallery "
            f"{f'has {printable(names.example)!r}' if names.example else 'has no picture there'}"
        )
    return MetadataReport(
        dict(file.columns),
        counts.matched,
        changed,
        counts.unmatched,
        counts.examples,
        file.kept_as_text,
        file.text_because,
        file.encoding,
    )


@dataclass
class _Counts:
    matched: int = 0
    unmatched: int = 0
    examples: list[str] = field(default_factory=list)


def _joined(
    file: MetadataFile, names: Names, counts: _Counts
) -> Iterator[tuple[int, dict[str, Value | None]]]:
    seen: dict[int, str] = {}
    for name, values in file.rows():
        picture_id = names.find(name)
        if picture_id is not None:
            if picture_id in seen:
                both = f"{printable(seen[picture_id])!r} and {printable(name)!r}"
                raise DataError(f"{display_path(file.path)}: {both} name the same picture")
            seen[picture_id] = name
            counts.matched += 1
            yield picture_id, values
            continue
        counts.unmatched += 1
        if len(counts.examples) < _LISTED:
            counts.examples.append(name)


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise DataError(f"{display_path(path)}: expected a file that ends in {', '.join(ENDINGS)}")
    readers = {".csv": read_delimited, ".tsv": read_delimited, ".xlsx": read_sheet, ".parquet": _parquet_rows}
    return readers.get(ending, _json_rows)


def _json_rows(path: Path) -> Iterator[Row]:
    chosen: dict[tuple[str, ...], str] = {}
    with open_text(path) as file:
        lines = BoundedLines(path, file)
        for line, text in enumerate(lines, 1):
            lines.end_row()
            if text.strip():
                row = parse_line(path, line, text)
                if not isinstance(row, dict):
                    raise DataError(
                        f"{display_path(path)}, line {line}: expected an object, got {text[:60]!r}"
                    )
                yield line, _with_file_column(path, row, chosen)


def _with_file_column(path: Path, row: dict[str, Any], chosen: dict[tuple[str, ...], str]) -> dict[str, Any]:
    """The row with the column of the pictures' names as `file`, where there is one."""
    names = tuple(row)
    if FILE_COLUMN in row or not names:
        return row
    if names not in chosen:
        with suppress(DataError):
            chosen[names] = file_column(path, list(names))
    known = chosen.get(names)
    return row if known is None else {FILE_COLUMN if name == known else name: row[name] for name in row}


def _parquet_rows(path: Path) -> Iterator[Row]:
    parquet = import_parquet("a Parquet file")
    import pyarrow

    try:
        with parquet.ParquetFile(path) as file:
            chosen = _check_header(path, file.schema_arrow.names)
            line = 0
            for batch in file.iter_batches():
                for row in batch_rows(path, batch, line):
                    line += 1
                    yield line, {FILE_COLUMN if name == chosen else name: row[name] for name in row}
    except pyarrow.ArrowException as error:
        raise DataError(f"{display_path(path)} is not a Parquet file that can be read: {error}") from error


def is_path(text: str) -> bool:
    """Whether a file can have this path: up to `MAX_PATH_BYTES` bytes, none of them zero, as its system writes it."""
    try:
        return 0 < len(os.fsencode(text)) <= MAX_PATH_BYTES and "\0" not in text
    except UnicodeEncodeError:
        return False


def parse_line(path: Path, line: int, text: str) -> Any:
    """A line of a file as JSON. Raises DataError, naming the line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.colno}"
    except RecursionError:
        reason = "too many brackets inside one another"
    except ValueError:
        reason = "a number has too many digits"
    raise DataError(f"{display_path(path)}, line {line} cannot be read as JSON: {reason}")


def batch_rows(path: Path, batch: Any, before: int) -> list[dict[str, Any]]:
    """The rows of a pyarrow.RecordBatch that follows `before` rows, as Python's values.

    Raises:
        DataError: one of them is none, such as a time after the year 9999; with the row.
    """
    rows: list[dict[str, Any]] = []
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        # The whole at once is many times faster, but does not say which row it was.
        for place in range(batch.num_rows):
            rows += _one_row(path, batch.slice(place, 1), before + place + 1)
    return rows


def _one_row(path: Path, batch: Any, row: int) -> list[dict[str, Any]]:
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        raise DataError(f"{display_path(path)}, row {row}: a value cannot be read ({error})") from error


def import_parquet(what: str) -> Any:
    """The module pyarrow.parquet. Raises DataError, saying how to install it, where it is missing."""
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise DataError(f"{what} needs pyarrow: pip install 'image2sentence[parquet]'") from error
    return pyarrow.parquet


def _check_header(path: Path, header: list[str]) -> str:
    """The column with the names of the pictures. Raises DataError where there is none, or a column twice."""
    if len(header) > MAX_COLUMNS + 1:
        raise DataError(
            f"{display_path(path)} has {len(header):,} columns; a gallery has at most {MAX_COLUMNS}"
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(f"{display_path(path)}: the column {printable(repeated[0])!r} is there twice")
    return file_column(path, header)
