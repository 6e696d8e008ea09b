"""Tables of metadata columns and values in the gallery file.

`columns` names them; `metadata` has a column c1, c2, ... for each, so that a name of the user never becomes SQL.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from image2sentence.gallery.filters.language import ColumnType, Value
from image2sentence.gallery.metadata import checked_value, is_new_column
from image2sentence.gallery.sqlite.schema import DamagedRow, Field, checksum, read_version
from image2sentence.gallery.sqlite.totals import check_total

_ID_BATCH = 10_000
_STORED_TYPES: dict[ColumnType, tuple[type, ...]] = {
    "number": (int, float),
    "text": (str,),
    "boolean": (int,),
    "date": (str,),
}


@dataclass(frozen=True)
class Column:
    """A metadata column: `place` is its name in the table `metadata`."""

    id: int
    name: str
    type: ColumnType

    @property
    def place(self) -> str:
        """The column's name in the table `metadata`."""
        return f"c{self.id}"


def read_columns(connection: sqlite3.Connection) -> dict[str, Column]:
    """The columns by name, in the order in which they came. Raises DamagedRow."""
    version = read_version(connection)
    if version == 1:
        return {}
    bound = "id_checksum" if version >= 3 else "NULL"
    rows = connection.execute(f"SELECT id, name, type, checksum, {bound} FROM columns ORDER BY id").fetchall()
    for column_id, name, kind, stored, of_id in rows:
        wrong = stored != checksum(name, kind) or (version >= 3 and of_id != checksum(column_id, stored))
        if wrong or not isinstance(name, str) or kind not in _STORED_TYPES:
            raise DamagedRow("column", column_id)
    if version >= 3:
        check_total(connection, "columns")
    return {name: Column(column_id, name, kind) for column_id, name, kind, *_ in rows}


def add_columns(connection: sqlite3.Connection, wanted: Mapping[str, ColumnType]) -> None:
    """Make the columns that are not there. Raises DataError on another type, a bad name, or too many."""
    known = read_columns(connection)
    for name, kind in wanted.items():
        if not is_new_column({column.name: column.type for column in known.values()}, name, kind):
            continue
        connection.execute(
            "INSERT INTO columns (name, type, checksum) VALUES (?, ?, ?)", (name, kind, checksum(name, kind))
        )
        column_id = int(connection.execute("SELECT last_insert_rowid()").fetchone()[0])
        _bind(connection, column_id)
        known[name] = Column(column_id, name, kind)
        connection.execute(f"ALTER TABLE metadata ADD COLUMN {known[name].place}")


def _bind(connection: sqlite3.Connection, column_id: int) -> None:
    """Put a column's id under a checksum."""
    (stored,) = connection.execute("SELECT checksum FROM columns WHERE id = ?", (column_id,)).fetchone()
    row = (checksum(column_id, stored), column_id)
    connection.execute("UPDATE columns SET id_checksum = ? WHERE id = ?", row)


def change_column(
    connection: sqlite3.Connection,
    name: str,
    kind: ColumnType | None,
    values: Iterable[tuple[int, Value | None]],
) -> None:
    """Give a column another type (None: take it away), and pictures these values of it. Raises DataError."""
    column = read_columns(connection)[name]
    if kind is not None:
        connection.execute(
            "UPDATE columns SET type = ?, checksum = ? WHERE id = ?", (kind, checksum(name, kind), column.id)
        )
        _bind(connection, column.id)
    write_metadata(connection, ((number, {name: value}) for number, value in values))
    if kind is None:
        connection.execute("DELETE FROM columns WHERE id = ?", (column.id,))


def write_metadata(
    connection: sqlite3.Connection, rows: Iterable[tuple[int, Mapping[str, Value | None]]]
) -> int:
    """Set values of pictures (id, values by column; None takes a value away); gives how many pictures changed.

    Columns that a row does not name keep their values. Raises DataError on a value of another type.
    """
    columns = read_columns(connection)
    changed = 0
    for picture_id, values in rows:
        (before,) = read_metadata(connection, [picture_id], columns)
        given = {name: checked_value(name, columns[name].type, value) for name, value in values.items()}
        after = {name: value for name, value in {**before, **given}.items() if value is not None}
        if after != before or any(type(after[name]) is not type(before[name]) for name in after):
            _write_row(connection, picture_id, columns, after)
            changed += 1
    return changed


def read_metadata(
    connection: sqlite3.Connection, picture_ids: Sequence[int], columns: Mapping[str, Column] | None = None
) -> list[dict[str, Value]]:
    """For each picture's id, the values that are there by column. Raises DamagedRow."""
    columns = read_columns(connection) if columns is None else columns
    if not columns:
        return [{} for _ in picture_ids]
    places = ", ".join(column.place for column in columns.values())
    found: dict[int, dict[str, Value]] = {}
    for start in range(0, len(picture_ids), _ID_BATCH):
        wanted = picture_ids[start : start + _ID_BATCH]
        query = f"SELECT picture_id, checksum, {places} FROM metadata WHERE picture_id IN"
        rows = connection.execute(f"{query} ({', '.join('?' * len(wanted))})", tuple(map(int, wanted)))
        found |= {row[0]: _read_row(columns, row) for row in rows}
    return [found.get(int(one), {}) for one in picture_ids]


def check_metadata(connection: sqlite3.Connection) -> None:
    """Check every row. Raises DamagedRow."""
    version = read_version(connection)
    columns = read_columns(connection)
    if columns:
        places = ", ".join(column.place for column in columns.values())
        for row in connection.execute(f"SELECT picture_id, checksum, {places} FROM metadata"):
            _read_row(columns, row)
    if version >= 3:
        check_total(connection, "metadata")


def _read_row(columns: Mapping[str, Column], row: Sequence[Any]) -> dict[str, Value]:
    picture_id, stored, *values = row
    pairs = [
        (column, value) for column, value in zip(columns.values(), values, strict=True) if value is not None
    ]
    if stored != _row_checksum(picture_id, pairs):
        raise DamagedRow("metadata of picture", picture_id)
    return {column.name: bool(value) if column.type == "boolean" else value for column, value in pairs}


def _write_row(
    connection: sqlite3.Connection,
    picture_id: int,
    columns: Mapping[str, Column],
    values: Mapping[str, Value],
) -> None:
    pairs = [(column, _stored(values[name])) for name, column in columns.items() if name in values]
    connection.execute("DELETE FROM metadata WHERE picture_id = ?", (picture_id,))
    places = "".join(f", {column.place}" for column, _ in pairs)
    connection.execute(
        f"INSERT INTO metadata (picture_id, checksum{places}) VALUES (?, ?{', ?' * len(pairs)})",
        (picture_id, _row_checksum(picture_id, pairs), *(value for _, value in pairs)),
    )


def _row_checksum(picture_id: int, pairs: Iterable[tuple[Column, Field]]) -> int:
    """Over the values that are there only, so that a new column leaves the other rows as they are."""
    return checksum(picture_id, *(part for column, value in pairs for part in (column.id, value)))


def _stored(value: Value) -> Field:
    return int(value) if isinstance(value, bool) else value


def column_values(connection: sqlite3.Connection, column: Column) -> Iterator[tuple[int, Any]]:
    """(picture id, value) of the values that are there, by ascending id. Raises DamagedRow on one of another type."""
    query = f"SELECT picture_id, {column.place} FROM metadata WHERE {column.place} IS NOT NULL ORDER BY 1"
    types = _STORED_TYPES[column.type]
    for picture_id, value in connection.execute(query):
        if not isinstance(value, types):
            raise DamagedRow("metadata of picture", picture_id)
        yield picture_id, bool(value) if column.type == "boolean" else value
