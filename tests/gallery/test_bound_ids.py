"""Ids and rows of a gallery that were changed by hand: named as soon as the gallery is asked."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from image2sentence.errors import GalleryError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite.gallery import DATABASE, Gallery
from image2sentence.gallery.sqlite.index import make_index

WIDTH = 4
COUNT = 40
QUERY = np.eye(WIDTH, dtype=np.float32)[:1]


def vector(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    drawn = np.random.default_rng(number).normal(size=WIDTH).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn), np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two roots of 20 pictures with a title and a year, and a picture that failed."""
    folder = tmp_path_factory.mktemp("bound") / "g"
    with Gallery.create(folder, "model", WIDTH) as gallery:
        gallery.add_columns({"title": "text", "maker": "text", "year": "number"})
        for root in range(2):
            numbers = range(root * COUNT // 2, (root + 1) * COUNT // 2)
            contents = [Content(bytes([n]) * 32, 30, 20, vector(n)) for n in numbers]
            entries = [
                FileEntry(
                    f"{n}.jpg",
                    9,
                    9,
                    bytes([n]) * 32,
                    metadata={"title": f"t{n}", "maker": f"m{n}", "year": n},
                )
                for n in numbers
            ]
            gallery.commit(gallery.add_root(Path(f"/pictures/{root}")), contents, entries)
        gallery.commit(1, [], [FileEntry("bad.jpg", 1, 2, reason="empty")])
    return folder


def ask(folder: Path) -> tuple[object, ...]:
    """A search without and one with a filter, and what is shown of the results."""
    with Gallery.open(folder, fingerprint="model") as gallery:
        hits = gallery.searcher().search(QUERY, 3)[0]
        ids = [int(str(hit.id)) for hit in hits]
        filtered = gallery.searcher().search(QUERY, 3, where="year < 30 and title like '%1%'")
        return hits, gallery.pictures_of(ids), filtered, gallery.metadata(ids)


def swapped(table: str, first: int, second: int, column: str = "id") -> str:
    return ";".join(
        f"UPDATE {table} SET {column} = {new} WHERE {column} = {old}"
        for old, new in ((first, -5), (second, first), (-5, second))
    )


CHANGES = {
    "two pictures' ids": swapped("pictures", 3, 30),
    "a picture's id": "UPDATE pictures SET id = 900 WHERE id = 3",
    "a failed picture's id": "UPDATE pictures SET id = 900 WHERE state = 'failed'",
    "order": "UPDATE pictures SET id = 1000 - id",
    "two contents' ids": swapped("contents", 3, 30),
    "a picture's content": "UPDATE pictures SET content_id = 4 WHERE id = 3",
    "two roots' ids": swapped("roots", 1, 2),
    "a root": "DELETE FROM roots WHERE id = 2",
    "a picture lost": "DELETE FROM pictures WHERE id = 3",
    "a content lost": "DELETE FROM contents WHERE id = 3",
    "a picture twice": "INSERT INTO pictures SELECT 900, root_id, path || x'31', size, mtime_ns, state, reason,"
    " content_id, checksum, data_offset, id_checksum FROM pictures WHERE id = 3",
    "two columns' ids": swapped("columns", 1, 2),
    "a column lost": "DELETE FROM columns WHERE name = 'maker'",
    "two pictures' metadata": swapped("metadata", 3, 30, "picture_id"),
    "a picture's metadata": "UPDATE metadata SET picture_id = 900 WHERE picture_id = 3",
    "metadata lost": "DELETE FROM metadata WHERE picture_id = 3",
    "totals lost": "DELETE FROM totals",
    "a total": "UPDATE totals SET rows = rows - 1 WHERE name = 'pictures'",
}


@pytest.mark.parametrize("indexed", [False, True], ids=["exact", "with an index"])
@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES.keys())
def test_ids_that_were_changed_are_named_when_the_gallery_is_asked(
    sound: Path, tmp_path: Path, statement: str, indexed: bool
) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    if indexed:
        pytest.importorskip("faiss", reason="needs FAISS")
        with Gallery.open(folder, readonly=False) as gallery:
            make_index(gallery, AnnSettings(exact_below=10, lists=4, probes=4))
    before = ask(folder)
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.executescript(statement)
    if indexed and "contents" in statement:
        assert ask(folder) == before  # the index file has the vectors, and its own checksums
        return
    with pytest.raises(GalleryError, match=r"gallery\.sqlite is damaged \(.*restore the file from a copy"):
        ask(folder)


@pytest.mark.parametrize("statement", [CHANGES["two pictures' ids"], CHANGES["a picture lost"]])
def test_a_writer_does_not_go_on_from_changed_ids(sound: Path, tmp_path: Path, statement: str) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.executescript(statement)
    with pytest.raises(GalleryError, match="is damaged"), Gallery.open(folder, readonly=False) as gallery:
        gallery.known(1)


def test_totals_follow_every_way_of_writing(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    with Gallery.open(folder, readonly=False) as gallery:
        gallery.commit(1, [], [FileEntry("moved.jpg", 9, 9, bytes([3]) * 32, moved_from=4)])
        gallery.commit(1, [], [FileEntry("5.jpg", 9, 9, reason="now broken")])
        gallery.delete([7, 8])
        gallery.set_metadata([(1, {"title": "new", "year": None})])
        gallery.change_column("maker", None, [(number, None) for number in range(1, COUNT + 1)])
        gallery.add_columns({"price": "number"})
        gallery.change_column("price", "text", [(2, "dear")])
        gallery.move_root(2, 1, "below")
        ask_here = gallery.searcher().search(QUERY, 3, where="year < 30")
        gallery.verify()
    with Gallery.open(folder) as gallery:
        gallery.verify()
        assert gallery.searcher().search(QUERY, 3, where="year < 30") == ask_here
        assert [one.path.name for one in gallery.pictures() if one.id == 4] == ["moved.jpg"]
        assert gallery.select("price = 'dear'").tolist() == [2]


def test_a_transaction_that_is_given_up_leaves_the_totals(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    with Gallery.open(folder, readonly=False) as gallery:
        unknown = FileEntry("50.jpg", 9, 9, bytes([99]) * 32)
        with pytest.raises(TypeError):
            gallery.commit(1, [], [FileEntry("9.jpg", 9, 9, reason="x"), unknown])
        gallery.delete([7])
        gallery.verify()
    ask(folder)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE sqlite_sequence SET seq = seq - 1 WHERE name = 'pictures'",
        "UPDATE sqlite_sequence SET seq = 'x' WHERE name = 'columns'",
        "UPDATE sqlite_sequence SET name = 'rootz' WHERE name = 'roots'",
        "DELETE FROM sqlite_sequence",
        "UPDATE totals SET rows = 0 WHERE name = 'ids of pictures'",
    ],
)
def test_ids_are_not_given_again_where_the_number_of_the_last_is_damaged(
    sound: Path, tmp_path: Path, statement: str
) -> None:
    shutil.copytree(sound, tmp_path / "g")
    with closing(sqlite3.connect(tmp_path / "g" / DATABASE)) as connection, connection:
        connection.execute(statement)
    with pytest.raises(GalleryError, match=r"ids of|ids that the table"):
        Gallery.open(tmp_path / "g", readonly=False)
    with (
        Gallery.open(tmp_path / "g") as gallery,
        pytest.raises(GalleryError, match=r"ids of|ids that the table"),
    ):
        gallery.verify()
