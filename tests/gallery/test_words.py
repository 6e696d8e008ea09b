"""Words of names and text metadata: found, kept up to date by every kind of write, migrated, checked."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from image2sentence.errors import GalleryError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite import words
from image2sentence.gallery.sqlite.gallery import DATABASE, Gallery

WIDTH = 4
TITLES = ("Puma Men's running shoe", "Crème brûlée pan", "NEAR miss", 'He said "hello"')


def content(number: int) -> Content:
    vector = np.zeros(WIDTH, np.float32)
    vector[number % WIDTH] = 1
    return Content(bytes([number]) * 32, 3, 2, vector)


def filled(folder: Path) -> Path:
    """Pictures 1 to 4 with titles, and 5 without: two_words-5.JPG."""
    with Gallery.create(folder, "model", WIDTH) as gallery:
        gallery.add_columns({"title": "text", "price": "number"})
        contents = [content(number) for number in range(1, 6)]
        entries = [
            FileEntry(f"{n}.jpg", 9, 9, one.sha256, metadata={"title": title, "price": 77})
            for n, (one, title) in enumerate(zip(contents, TITLES, strict=False), 1)
        ]
        entries.append(FileEntry("sub/two_words-5.JPG", 9, 9, contents[4].sha256))
        gallery.commit(gallery.add_root(Path("/pictures")), contents, entries)
    return folder / DATABASE


def found(gallery: Gallery, *asked: str, most: int = 100) -> dict[str, list[int]]:
    return {word: ids.tolist() for word, ids in gallery.find_words(asked, most).items()}


def test_words_of_titles_and_names_are_found_by_their_stems_without_case_and_accents(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as gallery:
        assert found(gallery, "pumas", "SHOES", "creme", "brulee") == {
            "pumas": [1],
            "SHOES": [1],
            "creme": [2],
            "brulee": [2],
        }
        assert found(gallery, "two", "words", "5") == {"two": [5], "words": [5], "5": [5]}
        # endings of files, folders, numbers of metadata and parts of words are no words of a picture
        assert found(gallery, "jpg", "sub", "pictures", "77", "pum", "running shoes") == {
            "running shoes": [1]
        }


def test_nothing_of_the_query_language_is_meant(tmp_path: Path) -> None:
    filled(tmp_path)
    hostile = [
        '"',
        "*",
        "pu*",
        "text:puma",
        "puma OR pan",
        "NOT puma",
        "puma + shoe",
        "a\0b",
        "'",
        "{text}:x",
    ]
    with Gallery.open(tmp_path) as gallery:
        assert found(gallery, *hostile) == {}
        assert found(gallery, "NEAR", 'said "hello"') == {"NEAR": [3], 'said "hello"': [4]}


def test_a_word_that_too_many_have_is_left_out(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        gallery.set_metadata((number, {"title": "Puma"}) for number in (1, 2, 3))
        assert found(gallery, "puma", most=3) == {"puma": [1, 2, 3]}
        assert found(gallery, "puma", most=2) == {}


def test_every_kind_of_write_keeps_them_up_to_date(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        gallery.set_metadata([(1, {"title": "Lion"}), (2, {"title": None})])
        assert found(gallery, "puma", "lion", "creme", "1") == {"lion": [1], "1": [1]}
        # renamed: the picture keeps its id; another is replaced at its place
        gallery.commit(1, [], [FileEntry("3.jpg", 9, 9, content(1).sha256, moved_from=1)])
        assert found(gallery, "1", "3", "miss", "lion") == {"3": [1], "lion": [1]}
        # changed to something that cannot be read
        gallery.commit(1, [], [FileEntry("4.jpg", 9, 10, reason="damaged")])
        assert found(gallery, "hello", "4") == {}
        other = gallery.add_root(Path("/more"))
        gallery.commit(other, [content(8)], [FileEntry("eight.jpg", 9, 9, content(8).sha256)])
        gallery.move_root(other, 1, "below")
        assert list(found(gallery, "eight", "below")) == ["eight"]
        gallery.delete([5])
        assert found(gallery, "two") == {}
        gallery.change_column("price", "text", [(1, "cheap"), *((n, "dear") for n in (2, 4))])
        assert found(gallery, "cheap") == {"cheap": [1]}
        gallery.change_column("title", None, [(1, None), (4, None)])
        assert found(gallery, "lion") == {}
        gallery.verify()
        gallery.compact()
        assert found(gallery, "cheap") == {"cheap": [1]}
        gallery.verify()


def in_format_3(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("DROP TABLE words")
        connection.execute("PRAGMA user_version = 3")


def test_a_gallery_of_format_3_is_read_without_them_and_gets_them_from_a_writer(tmp_path: Path) -> None:
    file = filled(tmp_path)
    in_format_3(file)
    with Gallery.open(tmp_path) as gallery:
        assert found(gallery, "puma") == {}
        assert gallery.metadata([1]) == [{"title": TITLES[0], "price": 77}]
        gallery.verify()
        generation = gallery.generation()
    with Gallery.open(tmp_path, readonly=False) as gallery:
        assert found(gallery, "puma", "words") == {"puma": [1], "words": [5]}
        assert gallery.generation() == generation  # no vectors have to be read again
        gallery.verify()


def test_a_migration_that_fails_leaves_the_old_format(tmp_path: Path) -> None:
    file = filled(tmp_path)
    in_format_3(file)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE metadata SET c1 = 'another' WHERE picture_id = 3")
    with pytest.raises(GalleryError, match="metadata of picture 3 has a wrong checksum"):
        Gallery.open(tmp_path, readonly=False)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)
        assert connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE name LIKE 'words%'"
        ).fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE words SET text = 'Lynx' WHERE rowid = 1",
        "DELETE FROM words WHERE rowid = 2",
        "INSERT INTO words (rowid, text) VALUES (99, 'Puma')",
        "UPDATE words_content SET c0 = 'Lynx' WHERE id = 1",
    ],
)
def test_what_is_not_of_the_other_tables_is_damage(tmp_path: Path, statement: str) -> None:
    file = filled(tmp_path)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)
    with (
        Gallery.open(tmp_path) as gallery,
        pytest.raises(GalleryError, match=r"words of picture|is damaged|malformed"),
    ):
        gallery.verify()


def test_a_changed_byte_of_the_index_is_damage(tmp_path: Path) -> None:
    file = filled(tmp_path)
    with closing(sqlite3.connect(file)) as connection, connection:
        (number, block) = connection.execute(
            "SELECT id, block FROM words_data WHERE instr(block, CAST('brul' AS BLOB))"
        ).fetchone()
        connection.execute(
            "UPDATE words_data SET block = ? WHERE id = ?", (block.replace(b"brul", b"brum"), number)
        )
    with Gallery.open(tmp_path) as gallery:
        assert found(gallery, "brulee") == {}
        with pytest.raises(GalleryError, match="words of picture 2"):
            gallery.verify()


WRITE_FOR_EVER = """
import itertools, sys
from image2sentence.gallery.sqlite.gallery import Gallery
with Gallery.open(sys.argv[1], readonly=False) as gallery:
    for number in itertools.count():
        gallery.set_metadata([(one, {"title": f"word{number} of {one}"}) for one in (1, 2, 3, 4)])
        print(number, flush=True)
"""


def test_a_killed_writer_leaves_words_and_metadata_of_one_commit(tmp_path: Path) -> None:
    filled(tmp_path)
    for commits in (3, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, os.fspath(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(commits):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        with Gallery.open(tmp_path) as gallery:
            gallery.verify()
            (title,) = {one["title"].split()[0] for one in gallery.metadata([1, 2, 3, 4])}
            assert found(gallery, title) == {title: [1, 2, 3, 4]}


def test_a_word_that_takes_too_long_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as gallery:
        assert found(gallery, "lion") == {}  # SQLite reads the table's settings
        monkeypatch.setattr(words, "MAX_SECONDS", -1.0)
        monkeypatch.setattr(words, "_STEPS", 1)
        assert found(gallery, "puma") == {}
        assert "looking for 'puma' in names and metadata took too long" in caplog.text
        monkeypatch.undo()
        assert found(gallery, "puma") == {"puma": [1]}
