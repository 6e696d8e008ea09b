"""Words of the pictures' names and text metadata, in the full-text table `words` of the gallery file (FTS5).

The table has a row for each ready picture, made from the other tables and written in their transactions. What users
type reaches it as quoted terms, one at a time, so that nothing of FTS5's query language can be meant.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from image2sentence.gallery.facts import name_of
from image2sentence.gallery.filters.language import Value
from image2sentence.gallery.locations import stored_place
from image2sentence.gallery.sqlite.metadata_tables import read_columns, read_metadata
from image2sentence.gallery.sqlite.schema import WORDS_SCHEMA, DamagedRow, read_version

FIRST_VERSION = 4
"""Format of the gallery file that first had the table."""

MAX_TEXT = 4_000
"""Characters of a picture's text that are kept."""

MAX_SECONDS = 1.0
"""How long SQLite may look for one word."""

_BATCH = 4_096
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_log = logging.getLogger(__name__)


def find_words(
    connection: sqlite3.Connection, words: Sequence[str], most: int
) -> dict[str, NDArray[np.int64]]:
    """Ascending ids of the pictures whose text has a word, for each word that at least one and at most `most` have.

    Words are compared without case, accents and English endings ("Pumas" is "puma"). Empty for files of older formats.
    """
    if read_version(connection) < FIRST_VERSION:
        return {}
    found = {}
    for word in words:
        ids = _find_word(connection, word, most + 1)
        if 0 < len(ids) <= most:
            found[word] = ids
    return found


def _find_word(connection: sqlite3.Connection, word: str, most: int) -> NDArray[np.int64]:
    """The first `most` pictures with a word; none, and a warning, where that takes longer than `MAX_SECONDS`."""
    ended = time.monotonic() + MAX_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > ended, _STEPS)
    try:
        query = "SELECT rowid FROM words WHERE words MATCH ? LIMIT ?"
        rows = connection.execute(query, (_quoted(word), most))
        return np.fromiter(chain.from_iterable(rows), np.int64)
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        _log.warning("looking for %r in names and metadata took too long: it is left out", word)
        return np.empty(0, np.int64)
    finally:
        connection.set_progress_handler(None, 0)


def update_words(connection: sqlite3.Connection, picture_ids: Sequence[int] | None = None) -> None:
    """Bring the rows of some pictures, or of all, up to date with the other tables. Raises DamagedRow."""
    if picture_ids is None:
        connection.execute("DELETE FROM words WHERE rowid NOT IN (SELECT id FROM pictures)")
        picture_ids = [row[0] for row in connection.execute("SELECT id FROM pictures ORDER BY id")]
    for start in range(0, len(picture_ids), _BATCH):
        batch = picture_ids[start : start + _BATCH]
        before = _rows(connection, "SELECT rowid, text FROM words WHERE rowid IN", batch)
        after = dict(_texts(connection, batch))
        stale = [one for one, text in before.items() if after.get(one) != text]
        connection.executemany("DELETE FROM words WHERE rowid = ?", [(one,) for one in stale])
        new = [(one, text) for one, text in sorted(after.items()) if before.get(one) != text]
        connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", new)


def check_words(connection: sqlite3.Connection) -> None:
    """Hold every row and the whole index against the other tables. Raises DamagedRow at the first difference."""
    if read_version(connection) < FIRST_VERSION:
        return
    with closing(sqlite3.connect("")) as made:  # a file that SQLite deletes by itself
        made.execute(WORDS_SCHEMA)
        for batch in _batches(connection):
            kept = _rows(connection, "SELECT rowid, text FROM words WHERE rowid IN", batch)
            right = dict(_texts(connection, batch))
            for one in batch:
                if kept.get(one) != right.get(one):
                    raise DamagedRow("words of picture", one)
            made.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", sorted(right.items()))
        with _entries(connection) as kept_entries, _entries(made) as right_entries:
            _compare(kept_entries, right_entries)


def _compare(kept: Iterator[tuple[str, int, int]], right: Iterator[tuple[str, int, int]]) -> None:
    for one in kept:
        if one != next(right, None):
            raise DamagedRow("words of picture", one[1])
    missing = next(right, None)
    if missing is not None:
        raise DamagedRow("words of picture", missing[1])


@contextmanager
def _entries(connection: sqlite3.Connection) -> Iterator[Iterator[tuple[str, int, int]]]:
    """(word, picture id, place in its text) of the whole index, in order."""
    connection.execute("CREATE VIRTUAL TABLE temp.entries USING fts5vocab(main, words, instance)")
    rows = connection.execute("SELECT term, doc, offset FROM temp.entries")
    try:
        yield rows
    finally:
        rows.close()
        connection.execute("DROP TABLE temp.entries")


def _quoted(word: str) -> str:
    return '"' + word.replace('"', '""').replace("\0", "") + '"'


def _batches(connection: sqlite3.Connection) -> Iterator[list[int]]:
    ids = [row[0] for row in connection.execute("SELECT id FROM pictures UNION SELECT rowid FROM words")]
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _rows(connection: sqlite3.Connection, query: str, ids: Sequence[int]) -> dict[int, str]:
    return dict(connection.execute(f"{query} ({', '.join('?' * len(ids))})", tuple(map(int, ids))))


def _texts(connection: sqlite3.Connection, ids: Sequence[int]) -> Iterator[tuple[int, str]]:
    """(id, text) of those of the pictures that are ready."""
    columns = read_columns(connection)
    text_columns = [name for name, column in columns.items() if column.type == "text"]
    marks = ", ".join("?" * len(ids))
    rows = connection.execute(
        "SELECT pictures.id, roots.path, pictures.path FROM pictures JOIN roots ON roots.id = root_id"
        f" WHERE state = 'ready' AND pictures.id IN ({marks})",
        tuple(map(int, ids)),
    ).fetchall()
    metadata = (
        read_metadata(connection, [row[0] for row in rows], columns) if text_columns else [{}] * len(rows)
    )
    for (picture_id, root, path), values in zip(rows, metadata, strict=True):
        place = stored_place(os.fsdecode(root)) if not path else ""
        yield picture_id, _text(name_of(place, os.fsdecode(path)), values, text_columns)


def _text(name: str, values: Mapping[str, Value], text_columns: Sequence[str]) -> str:
    parts = [os.path.splitext(name)[0], *(str(values[one]) for one in text_columns if one in values)]
    return "\n".join(parts).replace("\0", " ")[:MAX_TEXT]
