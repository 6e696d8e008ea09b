"""Metadata columns are seen, retyped and dropped, in every store and by the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from image2sentence.cli.main import cli
from image2sentence.errors import DataError
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.columns import ColumnState, drop_column, list_columns, retype_column
from image2sentence.gallery.opening import open_gallery, open_or_create_gallery
from image2sentence.gallery.records import Content, FileEntry

VALUES = [
    {"price": "5", "sold": True, "n": 1},
    {"price": "N/A", "n": 0},
    {"price": "19,90", "day": "2026-11-21T00:00:00"},
    {},
]


@pytest.fixture(params=["folder", "milvus"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "gallery")
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    return f"milvus+file://{tmp_path}/gallery.db?collection=shop"


@pytest.fixture
def gallery(place: str) -> Iterator[GalleryStore]:
    with open_or_create_gallery(place, "model-a", 4) as opened:
        opened.add_columns({"price": "text", "sold": "boolean", "n": "number", "day": "date"})
        contents = [Content(bytes([n]) * 32, 9, 9, np.eye(4, dtype=np.float32)[n]) for n in range(4)]
        entries = [
            FileEntry(f"{n}.jpg", 1, 1, one.sha256, metadata=values)  # type: ignore[arg-type]
            for n, (one, values) in enumerate(zip(contents, VALUES, strict=True))
        ]
        opened.commit(opened.add_root(Path("/pictures")), contents, entries)
        yield opened


def of(gallery: GalleryStore, name: str) -> list[object]:
    return [row.get(name) for row in gallery.metadata([picture.id for picture in gallery.pictures()])]


def test_a_column_gets_another_type_where_every_value_can_be_converted(gallery: GalleryStore) -> None:
    before, generation = of(gallery, "price"), gallery.generation()
    with pytest.raises(DataError, match="1 of the 3 values of 'price' are no number: 'N/A'"):
        retype_column(gallery, "price", "number")
    assert (of(gallery, "price"), gallery.generation()) == (before, generation)
    assert retype_column(gallery, "price", "number", discard=True) == 1
    assert of(gallery, "price") == [5, None, 19.9, None]
    assert len(gallery.select("price > 5")) == 1
    assert gallery.columns()["price"] == "number"
    gallery.verify()


def test_every_type_becomes_text_and_comes_back(gallery: GalleryStore) -> None:
    kinds = gallery.columns()
    before = [of(gallery, name) for name in ("sold", "n", "day")]
    for name in ("sold", "n", "day"):
        retype_column(gallery, name, "text")
        assert all(value is None or isinstance(value, str) for value in of(gallery, name))
        retype_column(gallery, name, kinds[name])
    assert [of(gallery, name) for name in ("sold", "n", "day")] == before
    retype_column(gallery, "n", "boolean")
    assert of(gallery, "n") == [True, False, None, None]
    gallery.verify()


def test_a_column_is_dropped_and_its_name_free(gallery: GalleryStore, place: str) -> None:
    assert drop_column(gallery, "sold") == 1
    assert list(gallery.columns()) == ["price", "n", "day"]
    gallery.add_columns({"sold": "text", "more": "number"})
    assert list(gallery.columns().items())[2:] == [("day", "date"), ("sold", "text"), ("more", "number")]
    assert of(gallery, "sold") == [None] * 4
    assert list_columns(gallery)[0] == ColumnState("price", "text", 3)
    gallery.verify()
    gallery.close()
    with open_gallery(place) as again:
        assert of(again, "price") == ["5", "N/A", "19,90", None]
    with (
        open_gallery(place) as again,
        pytest.raises(DataError, match="no metadata column 'prize'; there are: pri"),
    ):
        drop_column(again, "prize")


def test_the_command(gallery: GalleryStore, place: str) -> None:
    gallery.close()

    def run(*arguments: str, code: int = 0, answer: str | None = None) -> str:
        result = CliRunner().invoke(cli, ["gallery", "columns", "--gallery", place, *arguments], input=answer)
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    assert "'N/A'" in run("--retype", "price=number", code=1)
    assert "expected NAME=TYPE" in run("--retype", "price=money", code=2)
    run("--retype", "price=number", "--discard", code=1, answer="n\n")
    shown = json.loads(run("--retype", "price=number", "--discard", "--drop", "day", "--yes", "--json"))
    assert shown[0] == {"name": "price", "type": "number", "values": 2}
    assert [one["name"] for one in shown] == ["price", "sold", "n"]
    assert "boolean             1  sold" in run()
