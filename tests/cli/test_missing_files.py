"""A result whose file is gone says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing import index_pictures
from image2sentence.query import Query, QueryEngine


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery whose pictures and shard have been moved away together with it; one picture is still there."""
    monkeypatch.setattr("image2sentence.encoders.load_encoder", lambda *_, **__: FakeEncoder())
    for number in range(3):
        place = tmp_path / "disk" / "photos" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(photo(number), "JPEG"))
    shutil.make_archive(str(tmp_path / "shard"), "tar", tmp_path / "disk" / "photos")
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "disk" / "gallery", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(tmp_path / "disk" / "photos", gallery, encoder)
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    (tmp_path / "disk" / "photos").mkdir(parents=True)
    shutil.copy(tmp_path / "elsewhere" / "photos" / "1.jpg", tmp_path / "disk" / "photos")
    return tmp_path / "elsewhere" / "gallery"


def invoked(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def test_search_says_which_files_are_not_there(moved: Path) -> None:
    plain = invoked("search", "a red shirt", "--gallery", moved)
    lines = [line for line in plain.stdout.splitlines() if ".jpg" in line]
    assert [("(not there now)" in line) for line in lines] == ["1.jpg" not in line for line in lines]
    assert len(lines) == 3
    assert "gallery move-root OLD NEW" in plain.stderr
    results = json.loads(invoked("search", "a red shirt", "--gallery", moved, "--json").stdout)["results"]
    assert {Path(one["path"]).name: one["missing"] for one in results} == {
        "0.jpg": True,
        "1.jpg": False,
        "2.jpg": True,
    }


def test_verify_counts_them_and_the_advice_helps(moved: Path, tmp_path: Path) -> None:
    about = json.loads(invoked("gallery", "verify", "--gallery", moved, "--json").stdout)
    assert (about["pictures"], about["missing"]) == (3, 2)
    said = invoked("gallery", "verify", "--gallery", moved).output
    assert "the files of 2 pictures are not there" in said
    old, new = tmp_path / "disk" / "photos", tmp_path / "elsewhere" / "photos"
    invoked("gallery", "move-root", old, new, "--gallery", moved)
    said = invoked("gallery", "verify", "--gallery", moved)
    assert "nothing is damaged or missing" in said.output
    assert "not there" not in invoked("search", "a red shirt", "--gallery", moved).output


def test_members_of_a_shard_are_there_as_long_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "0.jpg").write_bytes(encoded(photo(0), "JPEG"))
    shard = Path(shutil.make_archive(str(tmp_path / "0"), "tar", tmp_path / "made"))
    encoder = FakeEncoder()
    with Gallery.create(tmp_path / "g", encoder.fingerprint, encoder.width) as gallery:
        index_pictures(shard, gallery, encoder)
        engine = QueryEngine(encoder, gallery)
        assert [one.missing for one in engine.rank(Query(words="red")).results] == [False]
        shard.unlink()
        assert [one.missing for one in engine.rank(Query(words="red")).results] == [True]
