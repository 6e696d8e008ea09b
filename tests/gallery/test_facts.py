"""Stored facts in filters: path, folder, name, size, width, height, date; alike in every store and in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from image2sentence.errors import DataError, QueryError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.filters.in_memory import ColumnCache
from image2sentence.gallery.opening import open_or_create_gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.gallery.sqlite.gallery import Gallery

SECOND = 1_000_000_000
NEW_YEAR = round((datetime(2024, 1, 1) - datetime(1970, 1, 1)).total_seconds()) * SECOND
PATHS = (
    "cover.jpg",
    "summer/beach.jpg",
    "summer/night/IMG_1.jpg",
    "summer 2/beach.jpg",
    "100%_odd'\"/\u00e9\u202f.png",
    os.fsdecode(b"caf\xe9/\xff.jpg"),
)
FACTS = {
    "path": ["/pictures/cover.jpg", "/pictures/summer/beach.jpg", "memory://shop/a/b.jpg", ""],
    "folder": ["", "summer", "summer/night", "100%_odd'\"", r"caf\xe9", "a", "zebra"],
    "name": ["beach.jpg", "IMG_1.jpg", "\u00e9\u202f.png", "b.jpg"],
    "size": [0, 99.5, 101, 103.0, 10**18, -1, 1e30, -1e30],
    "width": [30, 31, 32.5],
    "height": [20, 19.99],
    "date": ["2023", "2024-01-01", "2024-01-01 00:00:01", "2024-02", "1999", "9998", "0001"],
}
LIKE = ["summer/%", "%beach%", "%", "_over.jpg", "100\\%\\_%", "%/IMG_1.jpg", "", "caf\\\\xe9%"]


def _content(number: int) -> Content:
    row = np.random.default_rng(number).standard_normal(8)
    return Content(bytes([number]) * 32, 30 + number, 20, (row / np.linalg.norm(row)).astype(np.float32))


def _fill(gallery: GalleryStore) -> GalleryStore:
    gallery.add_columns({"taken": "date", "price": "number"})
    contents = [_content(number) for number in range(len(PATHS) + 1)]
    entries = [
        FileEntry(path, 100 + number, NEW_YEAR + number * SECOND + number, contents[number].sha256)
        for number, path in enumerate(PATHS)
    ]
    entries[1] = FileEntry(
        PATHS[1], 101, NEW_YEAR, contents[1].sha256, metadata={"taken": "1999-05-06T00:00:00"}
    )
    entries[2] = FileEntry(PATHS[2], -1, -1, contents[2].sha256)
    gallery.commit(gallery.add_root(Path("/pictures")), contents[:-1], entries)
    url = [FileEntry("a/b.jpg", 7, 123_456_789_012_345_678, contents[-1].sha256)]
    gallery.commit(
        gallery.add_root("memory://shop"), contents[-1:], [*url, FileEntry("bad.jpg", 1, 2, reason="no")]
    )
    return gallery


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with Gallery.create(tmp_path_factory.mktemp("facts") / "g", "model-a", 8) as gallery:
        _fill(gallery)
        yield gallery


@pytest.fixture(scope="module")
def in_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GalleryStore]:
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    place = f"milvus+file://{tmp_path_factory.mktemp('facts')}/gallery.db?collection=shop"
    with open_or_create_gallery(place, "model-a", 8) as gallery:
        yield _fill(gallery)


def _names(gallery: GalleryStore, where: str) -> list[str]:
    ids = gallery.select(where).tolist()
    return [os.fspath(picture.path) for picture in gallery.pictures_of(ids) if picture is not None]


@pytest.mark.parametrize(
    ("where", "paths"),
    [
        ("folder = 'summer'", ["summer/beach.jpg"]),
        ("folder like 'summer/%'", ["summer/night/IMG_1.jpg"]),
        ("folder = ''", ["cover.jpg"]),
        ("path = '/pictures/summer 2/beach.jpg'", ["summer 2/beach.jpg"]),
        ("name = 'beach.jpg' and width > 31", ["summer 2/beach.jpg"]),
        ("size is null", ["summer/night/IMG_1.jpg"]),
        ("date < '2000'", ["summer/beach.jpg"]),
        ("date = '2024-01-01' and size = 100", ["cover.jpg"]),
        (r"folder = 'caf\xe9'", [PATHS[5]]),
        ('"@size" = 100', ["cover.jpg"]),
        ("@size = 100", ["cover.jpg"]),
    ],
)
def test_facts_are_asked_for(in_folder: Gallery, where: str, paths: list[str]) -> None:
    assert _names(in_folder, where) == [f"/pictures/{path}" for path in paths]


def test_objects_behind_urls_have_no_date(in_folder: Gallery) -> None:
    assert _names(in_folder, "date is null") == ["/pictures/summer/night/IMG_1.jpg", "memory://shop/a/b.jpg"]


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


def _test(column: str) -> st.SearchStrategy[str]:
    values = st.sampled_from(FACTS[column]).map(_literal)
    compared = st.builds(
        lambda o, v: f"{column} {o} {v}", st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), values
    )
    listed = st.lists(values, min_size=1, max_size=3).map(lambda v: f"{column} in ({', '.join(v)})")
    missing = st.sampled_from([f"{column} is null", f"{column} is not null"])
    if column in ("path", "folder", "name"):
        alike = st.sampled_from(LIKE).map(lambda p: f"{column} like '{p}'")
        return compared | listed | missing | alike
    return compared | listed | missing


TESTS = st.sampled_from(sorted(FACTS)).flatmap(_test)
FILTERS = st.recursive(
    TESTS,
    lambda inner: (
        inner.map(lambda one: f"not ({one})")
        | st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})")
    ),
    max_leaves=4,
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(where=FILTERS)
@QUICK
def test_memory_agrees_with_sqlite(in_folder: Gallery, where: str) -> None:
    ids = np.array([picture.id for picture in in_folder.pictures("ready")], np.int64)
    cache = ColumnCache(in_folder, ids)
    cache.select("price is null")
    assert cache.select(where).tolist() == in_folder.select(where).tolist()


@given(where=FILTERS)
@QUICK
def test_milvus_agrees_with_sqlite(in_folder: Gallery, in_database: GalleryStore, where: str) -> None:
    assert _names(in_database, where) == _names(in_folder, where)


def test_milvus_ranks_by_facts(in_folder: Gallery, in_database: GalleryStore) -> None:
    query = in_folder.vectors()[1][:1]
    for where in ("folder like 'summer%'", "size > 101 and name != 'b.jpg'", "date >= '2024'"):
        found = [
            [hit.id for hit in gallery.searcher().search(query, 10, where=where)[0]]
            for gallery in (in_folder, in_database)
        ]
        assert found[0] == found[1] != []


@pytest.mark.parametrize("kind", ["folder", "milvus"])
def test_a_column_of_the_user_goes_before_the_fact(kind: str, tmp_path: Path) -> None:
    if kind == "milvus":
        pytest.importorskip("milvus_lite")
    place = str(tmp_path / "g") if kind == "folder" else f"milvus+file://{tmp_path}/g.db?collection=shop"
    with open_or_create_gallery(place, "model-a", 8) as gallery:
        gallery.add_columns({"size": "text"})
        content = _content(1)
        entry = FileEntry("a.jpg", 100, 5, content.sha256, metadata={"size": "XL"})
        gallery.commit(gallery.add_root(Path("/p")), [content], [entry])
        assert len(gallery.select("size = 'XL'")) == len(gallery.select("@size = 100")) == 1
        with pytest.raises(QueryError, match="the column size holds text"):
            gallery.select("size = 100")
        with pytest.raises(DataError, match="'@size' cannot be the name of a column"):
            gallery.add_columns({"@size": "number"})


def test_a_wrong_name_is_answered_with_facts_too(in_folder: Gallery) -> None:
    with pytest.raises(QueryError, match=r"no column 'foldr' .did you mean folder"):
        in_folder.select("foldr = 'x'")
