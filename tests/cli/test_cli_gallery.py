"""`image2sentence gallery` from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli import Model, Run, model, photos, run

from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite import index as large
from image2sentence.gallery.sqlite.gallery import DATABASE
from image2sentence.gallery.sqlite.index_file import NAME as INDEX

__all__ = ["Model", "model", "photos", "run"]  # fixtures


def test_verify_says_that_all_is_well_or_what_is_not(run: Run, photos: Path) -> None:
    run("index", str(photos))
    result = run("gallery", "verify")
    assert "nothing is damaged or missing" in result.output
    about = json.loads(run("gallery", "verify", "--json").output)
    assert (about["pictures"], about["index"]) == (4, "none")
    file = Path(".image2sentence") / DATABASE
    data = bytearray(file.read_bytes())
    place = data.rindex(b"red.")
    data[place] ^= 1
    file.write_bytes(data)
    assert "is damaged" in run("gallery", "verify", code=1).output
    assert file.read_bytes() == data


def test_compacting_gives_room_back(run: Run, photos: Path) -> None:
    run("index", str(photos))
    for picture in list(photos.iterdir())[1:]:
        picture.unlink()
    run("index", str(photos))
    about = json.loads(run("gallery", "compact", "--json").output)
    assert about["megabytes_after"] <= about["megabytes_before"]
    assert "MB given back" in run("gallery", "compact").output
    run("gallery", "verify")


def test_the_index_of_a_large_gallery(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    run("index", str(photos))
    assert "made from 50,000 on" in run("gallery", "index").output
    about = json.loads(run("gallery", "index", "--exact-below", "2", "--lists", "2", "--json").output)
    assert (about["index"], about["lists"], about["code"]) == ("current", 2, "sq8")
    assert json.loads(run("gallery", "verify", "--json").output)["index"] == "current"
    file = Path(".image2sentence") / INDEX
    data = bytearray(file.read_bytes())
    data[-70] ^= 1
    file.write_bytes(data)
    assert "is whole, but its index file cannot be used" in run("gallery", "verify", code=1).output
    assert len(json.loads(run("search", "red", "--json").output)["results"]) == 4
    run("gallery", "index", "--exact-below", "2", "--lists", "2")
    run("gallery", "verify")
    assert "recall is a share" in run("gallery", "index", "--recall", "2", code=1).output


def test_indexing_keeps_the_index_up_to_date(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(large, "AnnSettings", lambda: AnnSettings(exact_below=3, lists=2))
    run("index", str(photos))
    assert (Path(".image2sentence") / INDEX).exists()
    monkeypatch.setattr(large, "faiss_module", lambda: None)
    (Path(".image2sentence") / INDEX).unlink()
    left = Path(".image2sentence") / f"{INDEX}.new"  # by a process that was killed
    left.write_bytes(b"half")
    run("index", str(photos))
    assert not left.exists()


def test_duplicates_are_shown(run: Run, photos: Path) -> None:
    (photos / "again.png").write_bytes((photos / "red.png").read_bytes())
    run("index", str(photos))
    text = run("gallery", "duplicates").output
    assert "2 times the same content" in text
    assert "again.png" in text
    assert "pictures with copies 1 · copies 1" in text
    groups = json.loads(run("gallery", "duplicates", "--json").output)
    assert [len(group["pictures"]) for group in groups] == [2]


def test_vectors_are_taken_out_and_in(run: Run, photos: Path) -> None:
    run("index", str(photos))
    for name in ("out.parquet", "out"):
        assert "4 pictures written" in run("gallery", "export", name).output
        assert "is there already" in run("gallery", "export", name, code=1).output
        text = run("gallery", "import", name, "--gallery", f"from-{name}").output
        assert "imported 4 · unchanged 0" in text
        assert "cosine at least 1.0000" in text
    (photos / "red.png").unlink()
    about = json.loads(run("gallery", "import", "out", str(photos), "--gallery", "third", "--json").output)
    assert (about["imported"], about["missing"]) == (3, ["red.png"])


def test_an_export_leaves_a_folder_of_the_user_alone(run: Run, photos: Path) -> None:
    run("index", str(photos))
    Path("out.new").mkdir()
    Path("out.new", "x").write_text("precious")
    run("gallery", "export", "out")
    assert Path("out.new", "x").read_text() == "precious"


def test_help_tells_a_newcomer_what_each_is_for(run: Run) -> None:
    text = run("gallery", "--help").output
    for name in ("verify", "compact", "index", "duplicates", "export", "import"):
        assert name in text
        assert len(run("gallery", name, "--help").output.splitlines()) > 8


def test_watching_needs_a_folder_and_no_metadata(run: Run, photos: Path) -> None:
    (Path("m.csv")).write_text("file,a\nred.png,1\n")
    text = run("index", str(photos), "--watch", "--metadata", "m.csv", code=2).output
    assert "do not go together" in text


def test_a_column_that_was_text_once_stays_text_and_index_says_so(run: Run, photos: Path) -> None:
    table = photos.parent / "prices.csv"
    table.write_text("file,price,taken\nred.png,n/a,long ago\n")
    run("index", str(photos), "--metadata", str(table))
    table.write_text("file,price,taken\nred.png,12,long ago\n")
    output = run("index", str(photos), "--metadata", str(table)).output
    assert "price stays text, as it was first given" in output
    assert "taken stays text" not in output
