"""The embedded gallery: what is committed stays, damage is named, other files are refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from image2sentence.errors import GalleryError, QueryError
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite import creation, picture_tables, schema
from image2sentence.gallery.sqlite import gallery as store
from image2sentence.gallery.sqlite.gallery import Gallery

WIDTH = 6


def content(number: int) -> Content:
    vector = np.zeros(WIDTH, np.float32)
    vector[number % WIDTH] = 1
    return Content(bytes([number]) * 32, 30 + number, 20, vector)


def filled(folder: Path, count: int = 5) -> Path:
    """A closed gallery of `count` ready pictures and a failed one; gives its file."""
    with Gallery.create(folder, "model-a", WIDTH) as gallery:
        root = gallery.add_root(Path("/pictures"))
        contents = [content(i) for i in range(count)]
        entries = [FileEntry(f"{i}.jpg", 100 + i, 1_000 + i, c.sha256) for i, c in enumerate(contents)]
        gallery.commit(root, contents, [*entries, FileEntry("bad.jpg", 1, 2, reason="empty")])
    return folder / store.DATABASE


def snapshot(gallery: Gallery) -> tuple[object, ...]:
    ids, vectors = gallery.vectors()
    return gallery.pictures(), ids.tolist(), vectors.tobytes(), gallery.fingerprint, gallery.width


def change(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    filled(tmp_path / "g")
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 5
        assert gallery.readonly
        assert gallery.roots() == {1: Path("/pictures")}
        ready, failed = gallery.pictures("ready"), gallery.pictures("failed")
        assert [p.path for p in ready] == [Path(f"/pictures/{i}.jpg") for i in range(5)]
        assert (ready[1].size, ready[1].mtime_ns, ready[1].width, ready[1].height) == (101, 1001, 31, 20)
        assert [(p.path.name, p.reason, p.width) for p in failed] == [("bad.jpg", "empty", None)]
        assert gallery.picture(ready[2].id) == ready[2]
        ids, vectors = gallery.vectors()
        assert ids.tolist() == [p.id for p in ready]
        assert np.array_equal(vectors, np.stack([content(i).vector for i in range(5)]))
        assert gallery.searcher().search(vectors[3:4], 1)[0][0].id == ready[3].id
        assert gallery.find_content(b"\2" * 32) == ready[2].content_id
        assert gallery.find_content(b"\xff" * 32) is None
        gallery.verify()
        with pytest.raises(QueryError, match="has no picture 77"):
            gallery.picture(77)


def test_an_empty_gallery_has_a_searcher(tmp_path: Path) -> None:
    with Gallery.create(tmp_path, "model-a", WIDTH) as gallery:
        assert gallery.searcher().search(np.zeros((1, WIDTH), np.float32), 3) == [[]]


def test_an_offset_is_kept_and_checked(tmp_path: Path) -> None:
    file = filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        gallery.commit(1, [], [FileEntry("0.jpg", 1, 1, content(0).sha256, offset=512)])
        assert [gallery.picture(number).offset for number in (1, 2)] == [512, None]
    for damage in ("513 WHERE id = 1", "NULL WHERE id = 1", "512 WHERE id = 2"):
        before = file.read_bytes()
        change(file, f"UPDATE pictures SET data_offset = {damage}")
        with Gallery.open(tmp_path) as gallery, pytest.raises(GalleryError, match="wrong checksum"):
            gallery.verify()
        file.write_bytes(before)


def test_a_commit_is_all_or_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        before = snapshot(gallery)
        with pytest.raises(GalleryError, match="UNIQUE"):
            gallery.commit(1, [content(8), content(8)], [FileEntry("8.jpg", 1, 1, content(8).sha256)])
        assert snapshot(gallery) == before
        gallery.commit(1, [content(8)], [FileEntry("8.jpg", 1, 1, content(8).sha256)])
        assert len(gallery) == 6


def test_deleting_forgets_contents_that_nothing_refers_to(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        gallery.commit(1, [], [FileEntry("copy of 0.jpg", 1, 1, content(0).sha256)])
        first, second = gallery.pictures()[:2]
        gallery.delete([first.id, second.id])
        assert gallery.find_content(content(0).sha256) == first.content_id
        assert gallery.find_content(content(1).sha256) is None
        gallery.verify()


def test_other_folders_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(GalleryError, match=r"is not empty \(it holds letter\.txt\)"):
        Gallery.create(tmp_path, "model-a", WIDTH)
    assert os.listdir(tmp_path) == ["letter.txt"]
    with pytest.raises(GalleryError, match="there is no gallery in"):
        Gallery.open(tmp_path)
    with pytest.raises(GalleryError, match="cannot make a gallery"):
        Gallery.create(tmp_path / "letter.txt", "model-a", WIDTH)
    with pytest.raises(GalleryError, match="at least 1, got 0"):
        Gallery.create(tmp_path / "new", "model-a", 0)


def test_a_gallery_is_not_made_twice(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(GalleryError, match="holds a gallery already"):
        Gallery.create(tmp_path, "model-a", WIDTH)
    with Gallery.open_or_create(tmp_path, "model-a", WIDTH) as gallery:
        assert len(gallery) == 5


def test_what_an_interrupted_creation_leaves_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "gallery.sqlite.new").write_bytes(b"half a file")
    (tmp_path / "gallery.sqlite.new-wal").write_bytes(b"half a log")
    (tmp_path / "writer.lock").write_text("process 1")
    with Gallery.open_or_create(tmp_path, "model-a", WIDTH) as gallery:
        gallery.verify()
    assert sorted(os.listdir(tmp_path)) == ["gallery.sqlite", "writer.lock"]


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    file = filled(tmp_path)
    before = file.read_bytes()
    with pytest.raises(GalleryError, match=r"made with the encoder model-a .*not with model-b"):
        Gallery.open(tmp_path, fingerprint="model-b")
    with pytest.raises(GalleryError, match=r"made with the encoder model-a .*not with model-b"):
        Gallery.open_or_create(tmp_path, "model-b", WIDTH)
    with pytest.raises(GalleryError, match=r"width 6.*width 7"):
        Gallery.open_or_create(tmp_path, "model-a", 7)
    assert file.read_bytes() == before
    Gallery.open(tmp_path, readonly=False, fingerprint="model-a").close()


def test_other_formats_are_refused(tmp_path: Path) -> None:
    file = filled(tmp_path)
    change(file, f"PRAGMA user_version = {schema.FORMAT_VERSION + 1}")
    with pytest.raises(GalleryError, match=r"has gallery format 5, this version .* reads formats up to 4"):
        Gallery.open(tmp_path)
    change(file, "PRAGMA application_id = 7")
    with pytest.raises(GalleryError, match="is not a gallery of image2sentence"):
        Gallery.open(tmp_path)
    file.write_text("not a database at all, but long enough to look at" * 100)
    with pytest.raises(GalleryError, match=r"gallery\.sqlite: file is not a database\. .*restore it"):
        Gallery.open(tmp_path)


def filled_in_format_2(folder: Path) -> Path:
    """What versions wrote that had no ids under checksums."""
    file = filled(folder)
    for table in ("roots", "columns", "pictures"):
        change(file, f"ALTER TABLE {table} DROP COLUMN id_checksum")
    change(file, "DROP TABLE totals")
    change(file, "DROP TABLE words")
    change(file, "PRAGMA user_version = 2")
    return file


def filled_in_format_1(folder: Path) -> Path:
    """What the first version of this package wrote."""
    file = filled_in_format_2(folder)
    for table in ("state", "columns", "metadata", "derived"):
        change(file, f"DROP TABLE {table}")
    change(file, "ALTER TABLE pictures DROP COLUMN data_offset")
    with sqlite3.connect(file) as connection:
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key NOT IN ('id', 'checksum')"))
        connection.execute("DELETE FROM meta WHERE key = 'id'")
        stored = str(schema.meta_checksum(meta))
        connection.execute("UPDATE meta SET value = ? WHERE key = 'checksum'", (stored,))
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    return file


def test_a_gallery_of_format_1_is_read_as_it_is_and_migrated_by_a_writer(tmp_path: Path) -> None:
    file = filled_in_format_1(tmp_path)
    before = file.read_bytes()
    with Gallery.open(tmp_path) as gallery:
        expected = snapshot(gallery)
        assert (len(gallery), gallery.columns(), gallery.generation()) == (5, {}, 0)
        assert gallery.metadata([1]) == [{}]
        gallery.verify()
    assert file.read_bytes() == before
    with Gallery.open(tmp_path, readonly=False) as gallery:
        assert snapshot(gallery) == expected
        assert len(gallery.id) == 32
        gallery.add_columns({"price": "number"})
        assert gallery.set_metadata([(1, {"price": 3})]) == 1
        gallery.verify()
    with Gallery.open(tmp_path) as gallery:
        assert snapshot(gallery) == expected
        assert gallery.select("price = 3").tolist() == [1]


def test_a_gallery_of_format_2_gets_its_ids_under_checksums(tmp_path: Path) -> None:
    file = filled_in_format_2(tmp_path)
    with Gallery.open(tmp_path) as reader:
        expected = snapshot(reader)
        reader.verify()
        Gallery.open(tmp_path, readonly=False).close()
        assert snapshot(reader) == expected  # a server goes on while `index` brings the file up to date
    with Gallery.open(tmp_path) as gallery:
        assert snapshot(gallery) == expected
        gallery.verify()
    change(file, "UPDATE pictures SET id = 77 WHERE id = 2")
    with (
        Gallery.open(tmp_path) as gallery,
        pytest.raises(GalleryError, match="picture 77 has a wrong checksum"),
    ):
        gallery.searcher()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE pictures SET size = size + 1 WHERE id = 2",
        "UPDATE roots SET path = x'2f61'",
        "DELETE FROM contents",
    ],
)
def test_a_migration_does_not_vouch_for_damage(tmp_path: Path, statement: str) -> None:
    file = filled_in_format_2(tmp_path)
    change(file, statement)
    with pytest.raises(GalleryError, match=r"is damaged \((root 1|picture [12]) has a wrong checksum"):
        Gallery.open(tmp_path, readonly=False)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_a_migration_that_is_interrupted_leaves_the_old_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = filled_in_format_1(tmp_path)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(creation, "count_totals", fail)
        with pytest.raises(KeyboardInterrupt):
            Gallery.open(tmp_path, readonly=False)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    Gallery.open(tmp_path, readonly=False).close()


def test_every_change_has_another_generation(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as reader, Gallery.open(tmp_path, readonly=False) as gallery:
        seen = [reader.generation()]
        for change_it in (
            lambda: gallery.commit(1, [content(9)], [FileEntry("9.jpg", 1, 1, content(9).sha256)]),
            lambda: gallery.delete([1]),
            lambda: gallery.add_columns({"price": "number"}),
            lambda: gallery.set_metadata([(2, {"price": 1})]),
        ):
            change_it()
            seen.append(reader.generation())
    assert seen == sorted(set(seen))


def test_several_pictures_are_looked_up_at_once(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as gallery:
        assert gallery.pictures_of([3, 77, 1]) == [gallery.picture(3), None, gallery.picture(1)]
        assert gallery.pictures_of([2**63, 3, -(10**23), -1, 10**23]) == [
            None,
            gallery.picture(3),
            None,
            None,
            None,
        ]
        for number in (2**63, -(10**23), 10**23):  # what SQLite cannot hold is no damage
            with pytest.raises(QueryError, match=f"has no picture {number}"):
                gallery.picture(number)


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False):
        with pytest.raises(GalleryError, match=f"being written by process {os.getpid()} on .* since "):
            Gallery.open(tmp_path, readonly=False)
        script = "import sys; from image2sentence.gallery.sqlite.gallery import Gallery as G; "
        script += "G.open(sys.argv[1], readonly=False)"
        paths = os.pathsep.join(sys.path)
        other = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        assert f"being written by process {os.getpid()}" in other.stderr
        with Gallery.open(tmp_path) as reader:
            assert len(reader) == 5
    Gallery.open(tmp_path, readonly=False).close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as reader, pytest.raises(GalleryError, match="opened for reading only"):
        reader.delete([1])


def test_readers_go_on_while_a_writer_writes(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as reader, Gallery.open(tmp_path, readonly=False) as writer:
        for number in range(5, 20):
            with writer._database.transaction() as connection:
                picture_tables._insert_content(connection, content(number))
                entry = FileEntry(f"{number}.jpg", 1, 1, content(number).sha256)
                picture_tables._write_entry(connection, 1, entry)
                assert len(reader) == len(reader.vectors()[0]) == number
            assert len(reader) == number + 1


def test_threads_can_share_a_gallery(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path) as gallery:
        expected, seen = snapshot(gallery), []
        threads = [threading.Thread(target=lambda: seen.append(snapshot(gallery))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [expected] * 8


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with Gallery.open(tmp_path) as gallery:
        assert len(gallery) == 5
    assert sorted(os.listdir(tmp_path)) == ["gallery.sqlite", "writer.lock"]

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(GalleryError, match=r"cannot write in .*Permission denied.*read-only"):
        Gallery.open(tmp_path, readonly=False)


def test_a_full_disk_loses_nothing_committed(tmp_path: Path) -> None:
    filled(tmp_path)
    with Gallery.open(tmp_path, readonly=False) as gallery:
        before = snapshot(gallery)
        pages = gallery._database.connection.execute("PRAGMA page_count").fetchone()[0]
        gallery._database.connection.execute(f"PRAGMA max_page_count = {pages}")
        entries = [FileEntry(f"{i}-{'x' * 200}.jpg", 1, 1, reason="full") for i in range(500)]
        with pytest.raises(GalleryError, match=r"full.*make room"):
            gallery.commit(1, [], entries)
        assert snapshot(gallery) == before
        gallery.verify()


def test_a_flipped_byte_in_a_vector_is_found_on_loading(tmp_path: Path) -> None:
    file = filled(tmp_path)
    data = bytearray(file.read_bytes())
    place = data.index(content(3).vector.tobytes()[:20], data.index(content(3).sha256))
    data[place + 13] ^= 0x40
    file.write_bytes(data)
    with Gallery.open(tmp_path) as gallery:
        with pytest.raises(GalleryError, match=r"content 4 has a wrong checksum.*index again"):
            gallery.searcher()
        with pytest.raises(GalleryError, match="content 4"):
            gallery.verify()


def test_any_flipped_byte_is_found_or_changes_nothing(tmp_path: Path) -> None:
    file = filled(tmp_path, 40)
    with Gallery.open(tmp_path) as gallery:
        expected = snapshot(gallery)
    original = file.read_bytes()
    rng = np.random.default_rng(0)
    used = np.flatnonzero(np.frombuffer(original, np.uint8))
    found = 0
    for place in rng.choice(used, 400, replace=False).tolist():
        damaged = bytearray(original)
        damaged[place] ^= int(rng.integers(1, 256))
        file.write_bytes(damaged)
        found += damage_is_named(tmp_path, expected)
    assert found > 300
    file.write_bytes(original)
    assert not damage_is_named(tmp_path, expected)


def damage_is_named(folder: Path, expected: tuple[object, ...]) -> bool:
    """True when the gallery refuses; where it does not, everything in it must be as expected."""
    try:
        with Gallery.open(folder) as gallery:
            gallery.verify()
            seen = snapshot(gallery)
    except GalleryError as error:
        return "gallery.sqlite" in str(error)
    assert seen == expected
    return False
