"""Numbers of rows and sums of their checksums, by which rows that are lost or doubled are missed.

A checksum in a row tells that the row is as it was written, and none can tell that it is there at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from types import MappingProxyType

from image2sentence.gallery.sqlite.schema import Damage, DamagedRow, checksum, read_version

_MIXED = "coalesce({{row}}{checksum}, 0) * ({{row}}{id} % 65521 + 1) % 4294967291"
_GIVEN = "ids of "
FIRST_VERSION = 3
"""Format of the gallery file that first had the table."""

SUMMED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("roots", "pictures", "columns"), _MIXED.format(checksum="id_checksum", id="id")),
        "metadata": _MIXED.format(checksum="checksum", id="picture_id"),
    }
)
"""Tables that are summed, and the SQL of a row's summand: another one where the row has another id."""


def follow_changes(connection: sqlite3.Connection) -> None:
    """Have this connection note what its transactions do to the tables' totals, for `write_totals`.

    By triggers of the connection: the file has none, and could not be trusted with any.
    """
    connection.execute("CREATE TEMP TABLE changes (name TEXT PRIMARY KEY, rows INTEGER, total INTEGER)")
    for table, summed in SUMMED.items():
        connection.execute("INSERT INTO changes VALUES (?, 0, 0)", (table,))
        less, more = summed.format(row="old."), summed.format(row="new.")
        for event, rows, total in (
            ("INSERT", "1", more),
            ("DELETE", "-1", f"-({less})"),
            ("UPDATE", "0", f"({more}) - ({less})"),
        ):
            connection.execute(
                f"CREATE TEMP TRIGGER {table}_{event.lower()} AFTER {event} ON main.{table} BEGIN UPDATE changes"
                f" SET rows = rows + {rows}, total = total + ({total}) WHERE name = '{table}'; END"
            )


def write_totals(connection: sqlite3.Connection) -> None:
    """Add what this transaction changed. Raises DamagedRow."""
    for name, rows, total in connection.execute(
        "SELECT * FROM changes WHERE rows != 0 OR total != 0"
    ).fetchall():
        before = _stored(connection, name)
        _write(connection, name, before[0] + rows, before[1] + total)
    connection.execute("UPDATE changes SET rows = 0, total = 0")
    _write_ids(connection)


def _write_ids(connection: sqlite3.Connection) -> None:
    """Note the greatest id that each table has given, which SQLite keeps without a checksum."""
    noted = {row[0]: row[1] for row in connection.execute("SELECT name, rows FROM totals")}
    for name, given in connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
        if noted.get(_GIVEN + name) != given:
            _write(connection, _GIVEN + name, given, 0)


def check_ids(connection: sqlite3.Connection) -> None:
    """Raise Damage where ids that were given would be given again; a greater number is one of an earlier version."""
    if read_version(connection) < FIRST_VERSION:
        return
    given = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
    for (name,) in connection.execute(
        "SELECT name FROM totals WHERE name LIKE ?", (_GIVEN + "%",)
    ).fetchall():
        table = name.removeprefix(_GIVEN)
        if not isinstance(given.get(table), int) or given[table] < _stored(connection, name)[0]:
            raise Damage(f"the ids that the table `{table}` has given are not those that were written")


def count_totals(connection: sqlite3.Connection) -> None:
    """Write the totals of the tables as they are."""
    for table in SUMMED:
        _write(connection, table, *_counted(connection, table))


def check_total(connection: sqlite3.Connection, table: str) -> None:
    """Hold a table of format 3 against its total. Raises Damage."""
    written, pending = _stored(connection, table), _pending(connection, table)
    if (written[0] + pending[0], written[1] + pending[1]) != _counted(connection, table):
        raise Damage(f"rows of the table `{table}` are lost or are not those that were written")


def _pending(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    """What this connection's transaction has changed so far."""
    if connection.execute("SELECT 1 FROM sqlite_temp_master WHERE name = 'changes'").fetchone() is None:
        return 0, 0
    rows, total = connection.execute("SELECT rows, total FROM changes WHERE name = ?", (table,)).fetchone()
    return rows, total


def _counted(connection: sqlite3.Connection, table: str) -> tuple[int, int]:
    query = f"SELECT count(*), coalesce(sum({SUMMED[table].format(row='')}), 0) FROM {table} NOT INDEXED"
    rows, total = connection.execute(query).fetchone()
    return rows, total


def _stored(connection: sqlite3.Connection, name: str) -> tuple[int, int]:
    row = connection.execute("SELECT rows, total, checksum FROM totals WHERE name = ?", (name,)).fetchone()
    if row is None or row[2] != checksum(name, *row[:2]):
        raise DamagedRow("total", name)
    return row[0], row[1]


def _write(connection: sqlite3.Connection, name: str, rows: int, total: int) -> None:
    row = (name, rows, total, checksum(name, rows, total))
    connection.execute("INSERT OR REPLACE INTO totals VALUES (?, ?, ?, ?)", row)
