"""Rows of pictures are read once in each generation of the gallery, and never after it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import FakeEncoder, encoded, photo
from image2sentence.gallery import Gallery
from image2sentence.indexing import index_pictures
from image2sentence.query import QueryEngine, picture_rows
from image2sentence.query.picture_rows import PictureRows

PICTURES = 5


@pytest.fixture
def gallery(tmp_path: Path) -> Iterator[Gallery]:
    encoder = FakeEncoder()
    (tmp_path / "pictures").mkdir()
    for seed in range(PICTURES):
        (tmp_path / "pictures" / f"{seed}.png").write_bytes(encoded(photo(seed), "PNG"))
    with Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width) as made:
        index_pictures(tmp_path / "pictures", made, encoder)
        made.add_columns({"name": "text"})
        made.set_metadata((picture.id, {"name": picture.path.stem}) for picture in made.pictures())
        yield made


@pytest.fixture
def asked(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids that were asked of the gallery itself."""
    asked: list[int] = []
    read = gallery.pictures_of
    monkeypatch.setattr(gallery, "pictures_of", lambda ids: (asked.extend(ids), read(ids))[1])
    return asked


def test_rows_are_those_of_the_gallery_and_read_once(gallery: Gallery, asked: list[int]) -> None:
    rows = PictureRows(gallery)
    expected = {picture.id: picture for picture in gallery.pictures()}
    ids = [*expected][::-1]
    for _ in range(2):
        assert rows.pictures(ids) == [expected[one] for one in ids]
        assert rows.metadata(ids) == [{"name": expected[one].path.stem} for one in ids]
    assert rows.pictures([*ids, 99]) == [*(expected[one] for one in ids), None]
    assert asked == [*ids, 99]


def test_what_was_changed_is_read_again_at_once(gallery: Gallery) -> None:
    rows = PictureRows(gallery)
    first, second = (picture.id for picture in gallery.pictures()[:2])
    assert rows.metadata([first]) == [{"name": "0"}]
    gallery.set_metadata([(first, {"name": "other"})])
    assert rows.metadata([first]) == [{"name": "other"}]
    assert rows.pictures([second]) != [None]
    gallery.delete([second])
    assert rows.pictures([second]) == [None]


def test_an_answer_s_metadata_is_the_caller_s_own(gallery: Gallery) -> None:
    engine = QueryEngine(FakeEncoder(), gallery)
    for _ in range(2):
        results = engine.search(words="red", k=2).results
        assert [sorted(result.metadata) for result in results] == [["name"], ["name"]]
        results[0].metadata.clear()


def test_no_more_rows_are_kept_than_there_is_room_for(
    gallery: Gallery, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_rows, "MOST_KEPT", 2)
    rows = PictureRows(gallery)
    ids = [picture.id for picture in gallery.pictures()]
    expected = gallery.pictures()
    for _ in range(2):
        for one, picture in zip(ids, expected, strict=True):
            assert rows.pictures([one]) == [picture]
    assert rows.pictures(ids) == expected  # more than are kept at once
    assert len(asked) >= 2 * PICTURES
