"""Bytes of a gallery's files that have changed: found by name, or without any effect."""

from __future__ import annotations

import os
import random
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
from image2sentence.gallery.sqlite.index_file import NAME

WIDTH = 8
COUNT = 120
FLIPS = int(os.environ.get("I2S_FLIPPED_BYTES", "200"))
QUERIES = np.eye(WIDTH, dtype=np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("faiss", reason="needs FAISS")
    folder = tmp_path_factory.mktemp("flipped") / "g"
    vectors = np.random.default_rng(1).normal(size=(COUNT, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Gallery.create(folder, "model", WIDTH) as gallery:
        contents = [Content(bytes([n]) * 32, 30, 20, vector) for n, vector in enumerate(vectors)]
        gallery.add_columns({"title": "text", "year": "number"})
        entries = [
            FileEntry(f"{n}.jpg", 99, 9, one.sha256, metadata={"title": f"picture {n}", "year": n})
            for n, one in enumerate(contents)
        ]
        gallery.commit(gallery.add_root(Path("/pictures")), contents, entries)
        make_index(gallery, AnnSettings(exact_below=10, lists=4, probes=4, rerank=200))
    return folder


def everything(folder: Path) -> object:
    """All that a gallery tells, by every way of asking."""
    with Gallery.open(folder, fingerprint="model") as gallery:
        searcher = gallery.searcher()
        hits = [
            searcher.search(QUERIES, 9),
            searcher.search(QUERIES, 9, where="year < 50 and title like '%1%'"),
        ]
        pictures = list(gallery.pictures())
        metadata = gallery.metadata([one.id for one in pictures])
        content = [
            gallery.with_content(gallery.find_content(bytes([n]) * 32) or 0) for n in range(0, COUNT, 7)
        ]
        words = {word: ids.tolist() for word, ids in gallery.find_words(["picture", "7", "x"], 200).items()}
        return hits, pictures, metadata, content, gallery.columns(), len(gallery), words


def verify(folder: Path) -> None:
    with Gallery.open(folder) as gallery:
        gallery.verify()


def test_a_value_of_another_type_is_found_when_filters_read_it(sound: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    with closing(sqlite3.connect(folder / DATABASE)) as connection, connection:
        connection.execute("UPDATE metadata SET c1 = x'6162' WHERE picture_id = 7")
    with Gallery.open(folder) as gallery, pytest.raises(GalleryError, match="metadata of picture 7"):
        gallery.searcher().search(QUERIES, 9, where="title like '%1%'")


@pytest.mark.parametrize("name", [DATABASE, NAME])
def test_a_flipped_byte_is_found_by_name_or_changes_nothing(sound: Path, tmp_path: Path, name: str) -> None:
    expected = everything(sound)
    folder = Path(shutil.copytree(sound, tmp_path / "g"))
    content = (folder / name).read_bytes()
    draw = random.Random(f"{name} 1")
    named: list[bool] = []
    for _ in range(FLIPS):
        at, bit = draw.randrange(len(content)), draw.randrange(8)
        changed = bytearray(content)
        changed[at] ^= 1 << bit
        (folder / name).write_bytes(changed)
        try:
            asked = everything(folder)
            verify(folder)
            assert asked == expected, f"bit {bit} of byte {at} passes unnoticed"
        except GalleryError as error:
            named.append(folder.name in str(error))
    # What asking does not look at, `verify` does; a damaged index means exact search.
    assert all(named)
    assert len(named) > FLIPS / 10 or name == NAME
