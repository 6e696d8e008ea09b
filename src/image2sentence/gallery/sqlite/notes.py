"""Notes in the gallery file: small JSON values by kind and name.

The table is made with the first note. Formats do not tell whether it is there, and programs that do not know it
leave it alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from image2sentence.gallery.sqlite.schema import DamagedRow, checksum

_TABLE = """
CREATE TABLE IF NOT EXISTS notes (
    kind     TEXT NOT NULL,
    name     TEXT NOT NULL,
    value    TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
)
"""


def read_notes(connection: sqlite3.Connection, kind: str) -> dict[str, Any]:
    """The values of a kind by name. Raises DamagedRow."""
    if not _is_there(connection):
        return {}
    rows = connection.execute("SELECT rowid, name, value, checksum FROM notes WHERE kind = ?", (kind,))
    return {name: _value(row_id, kind, name, value, stored) for row_id, name, value, stored in rows}


def write_notes(connection: sqlite3.Connection, kind: str, values: Mapping[str, Any]) -> None:
    """Set values by name; None takes one away."""
    connection.execute(_TABLE)
    for name, value in values.items():
        connection.execute("DELETE FROM notes WHERE kind = ? AND name = ?", (kind, name))
        if value is not None:
            text = json.dumps(value, sort_keys=True)
            row = (kind, name, text, checksum(kind, name, text))
            connection.execute("INSERT INTO notes (kind, name, value, checksum) VALUES (?, ?, ?, ?)", row)


def check_notes(connection: sqlite3.Connection) -> None:
    """Check every row. Raises DamagedRow."""
    if _is_there(connection):
        for row_id, kind, *row in connection.execute("SELECT rowid, kind, name, value, checksum FROM notes"):
            _value(row_id, kind, *row)


def _is_there(connection: sqlite3.Connection) -> bool:
    return (
        connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'notes'").fetchone()
        is not None
    )


def _value(row_id: int, kind: str, name: str, value: str, stored: int) -> Any:
    if stored != checksum(kind, name, value):
        raise DamagedRow("note", row_id)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise DamagedRow("note", row_id) from error
