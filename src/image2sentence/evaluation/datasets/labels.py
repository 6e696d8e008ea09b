"""Labelled catalogue: a folder of pictures with one CSV.

The CSV's `file` column names the pictures.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.annotation_files import read_text
from image2sentence.evaluation.protocol import named, repeated

FILE_COLUMN = "file"
SPLIT_COLUMN = "split"


@dataclass(frozen=True)
class Catalogue:
    """Rows of labels in file order; `row["file"]` is a path relative to `folder` and the picture's id."""

    folder: Path
    table: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def path(self, file: str) -> Path:
        """Where a picture lies."""
        return self.folder / file

    def splits(self) -> tuple[str, ...]:
        """Values of the `split` column, sorted; empty without one."""
        return tuple(sorted({row[SPLIT_COLUMN] for row in self.rows})) if SPLIT_COLUMN in self.columns else ()

    def of_split(self, split: str | None) -> tuple[Mapping[str, str], ...]:
        """Rows of one split; None: all rows. An unknown split is a DataError that lists those there are."""
        if split is None:
            return self.rows
        if split not in self.splits():
            known = ", ".join(self.splits()) or f"none: it has no column {SPLIT_COLUMN!r}"
            raise DataError(f"{self.table} has no split {split!r} (splits: {known})")
        return tuple(row for row in self.rows if row[SPLIT_COLUMN] == split)


def load_catalogue(folder: Path | str) -> Catalogue:
    """Reads the one CSV (UTF-8, comma-separated) of `folder` that has a `file` column, and checks it whole.

    A DataError names the place: no such table or several, a row of another length than the header, a column
    or file named twice, a file outside the folder or missing from it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"no folder {root}: expected pictures and a CSV with a {FILE_COLUMN!r} column")
    table = _find_table(root)
    columns, rows = _read_table(table)
    _check_files(root, table, [row[FILE_COLUMN] for row in rows])
    return Catalogue(root, table, columns, rows)


def _find_table(root: Path) -> Path:
    tables = [path for path in sorted(root.glob("*.csv")) if FILE_COLUMN in _header(path)]
    if len(tables) != 1:
        found = named([path.name for path in tables]) if tables else "none"
        raise DataError(f"{root}: expected one CSV with a {FILE_COLUMN!r} column, found {found}")
    return tables[0]


def _header(path: Path) -> list[str]:
    return next(csv.reader(io.StringIO(read_text(path), newline="")), [])


def _read_table(path: Path) -> tuple[tuple[str, ...], tuple[dict[str, str], ...]]:
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = tuple(next(reader))
        rows = tuple(_row(path, reader.line_num, columns, cells) for cells in reader if cells)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: malformed CSV ({error})") from error
    if twice := repeated(columns):
        raise DataError(f"{path}: column {named(twice)} occurs twice")
    if not rows:
        raise DataError(f"{path}: no rows below the header")
    return columns, rows


def _row(path: Path, line: int, columns: tuple[str, ...], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise DataError(
            f"{path}, line {line}: expected {len(columns)} cells as in the header, got {len(cells)}"
        )
    return {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}


def _check_files(root: Path, table: Path, files: list[str]) -> None:
    if twice := repeated(files):
        raise DataError(f"{table}: duplicate file {named(twice)}")
    if outside := [file for file in files if not _is_inside(file)]:
        raise DataError(f"{table}: {named(outside)} should be a path inside {root}")
    if missing := [file for file in files if not (root / file).is_file()]:
        raise DataError(f"{table} names {len(missing)} missing pictures: {named(missing)}")


def _is_inside(file: str) -> bool:
    path = PurePosixPath(file)
    return bool(file) and not path.is_absolute() and ".." not in path.parts
