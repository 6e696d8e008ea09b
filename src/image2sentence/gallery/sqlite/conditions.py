"""Filters answered by SQLite, over metadata columns and stored facts."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image2sentence.gallery.facts import TAKEN, date_of, folder_of, name_of, path_of
from image2sentence.gallery.filters.language import FACTS, Filter
from image2sentence.gallery.filters.sql import compile_filter
from image2sentence.gallery.locations import Place
from image2sentence.gallery.sqlite.metadata_tables import Column, column_values, read_columns

_FROM = (
    " FROM pictures LEFT JOIN metadata ON picture_id = pictures.id LEFT JOIN contents ON contents.id = content_id"
    " WHERE state = 'ready' AND"
)


def matching_ids(
    connection: sqlite3.Connection, roots: Mapping[int, Place], where: Filter
) -> NDArray[np.int64]:
    """Ascending ids of the ready pictures that a filter holds for. Raises QueryError."""
    columns = read_columns(connection)
    checked = where.checked({name: column.type for name, column in columns.items()})
    places = {name: column.place for name, column in columns.items()}
    places |= _fact_places(connection, roots, columns)
    condition, values = compile_filter(checked.condition, places)
    rows = connection.execute(f"SELECT pictures.id {_FROM} {condition} ORDER BY pictures.id", values)
    return np.fromiter((row[0] for row in rows), np.int64)


def values_of(
    connection: sqlite3.Connection, roots: Mapping[int, Place], name: str
) -> Iterator[tuple[int, Any]]:
    """(picture id, value) of the values that are there in a column or of a fact, by ascending id."""
    columns = read_columns(connection)
    if name not in FACTS:
        yield from column_values(connection, columns[name])
        return
    place = _fact_places(connection, roots, columns)[name]
    yield from connection.execute(
        f"SELECT pictures.id, {place} AS fact {_FROM} fact IS NOT NULL ORDER BY pictures.id"
    )


def _fact_places(
    connection: sqlite3.Connection, roots: Mapping[int, Place], columns: Mapping[str, Column]
) -> dict[str, str]:
    """The SQL expression of each fact, whose functions the connection gets."""
    functions: dict[str, tuple[int, Callable[..., str | None]]] = {
        "fact_path": (2, lambda root, path: path_of(roots[root], os.fsdecode(path))),
        "fact_folder": (1, lambda path: folder_of(os.fsdecode(path))),
        "fact_name": (2, lambda root, path: name_of(roots[root], os.fsdecode(path))),
        "fact_date": (2, lambda root, mtime_ns: date_of(roots[root], mtime_ns)),
    }
    for function, (arguments, call) in functions.items():
        connection.create_function(function, arguments, call)
    date = "fact_date(root_id, mtime_ns)"
    taken = columns.get(TAKEN)
    if taken is not None and taken.type == "date":
        date = f"COALESCE({taken.place}, {date})"
    return {
        "@path": "fact_path(root_id, path)",
        "@folder": "fact_folder(path)",
        "@name": "fact_name(root_id, path)",
        "@size": "CASE WHEN size >= 0 THEN size END",
        "@width": "width",
        "@height": "height",
        "@date": date,
    }
