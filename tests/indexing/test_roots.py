"""Roots of a gallery: several in one run, listed, forgotten, widened, moved."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, encoded, photo
from image2sentence.cli.main import cli
from image2sentence.errors import GalleryError
from image2sentence.gallery import locations
from image2sentence.gallery.base import GalleryStore
from image2sentence.gallery.locations import Place
from image2sentence.gallery.opening import open_gallery, open_or_create_gallery
from image2sentence.indexing import IndexReport, index_pictures
from image2sentence.indexing import run as indexing_run
from image2sentence.indexing.roots import find_below, forget, list_roots, move_root
from image2sentence.indexing.several import Indexed, index_several, outermost


def write(folder: Path, first: int, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number}.jpg").write_bytes(encoded(photo(number), "JPEG"))


@pytest.fixture(params=["folder", "milvus"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of a gallery that is not there yet."""
    if request.param == "folder":
        return str(tmp_path / "g")
    pytest.importorskip("milvus_lite")
    pytest.importorskip("pymilvus")
    return f"milvus+file://{tmp_path}/g.db?collection=shop"


def opened(place: str) -> GalleryStore:
    encoder = FakeEncoder()
    return open_or_create_gallery(place, encoder.fingerprint, encoder.width)


def run(folder: Path | str, place: str, **options: Any) -> IndexReport:
    with opened(place) as gallery:
        return index_pictures(folder, gallery, FakeEncoder(), threads=2, **options)


def several(folders: list[Path], place: str) -> list[Indexed]:
    with opened(place) as gallery:

        def index_one(folder: Place, *, forget: Collection[int] | None) -> IndexReport:
            return index_pictures(folder, gallery, FakeEncoder(), threads=2, forget=forget)

        return index_several(folders, index_one)


def set_by_hand(place: str) -> None:
    """A price for every picture: its id."""
    with open_gallery(place, readonly=False) as gallery:
        gallery.add_columns({"price": "number"})
        gallery.set_metadata([(one.id, {"price": one.id}) for one in gallery.pictures("ready")])


def known(place: str, folder: Path) -> dict[str, tuple[int, object]]:
    """Id and price of each picture, by its path from a folder."""
    with open_gallery(place) as gallery:
        gallery.verify()
        pictures = gallery.pictures()
        values = gallery.metadata([one.id for one in pictures])
        return {
            os.path.relpath(str(one.path), folder): (one.id, value.get("price"))
            for one, value in zip(pictures, values, strict=True)
        }


def test_widening_to_a_parent_takes_roots_in(tmp_path: Path, place: str) -> None:
    write(tmp_path / "p" / "a" / "deep", 0, 2)
    (tmp_path / "p" / "a" / "bad.jpg").write_bytes(b"no picture")
    write(tmp_path / "p" / "b", 2, 2)
    write(tmp_path / "p", 4, 1)
    run(tmp_path / "p" / "a", place)
    run(tmp_path / "p" / "b", place)
    set_by_hand(place)
    before = known(place, tmp_path)
    report = run(tmp_path / "p", place)
    assert (report.encoded, report.unchanged, report.moved, report.deleted) == (1, 4, 0, 0)
    assert before.items() <= known(place, tmp_path).items()
    with open_gallery(place) as gallery:
        assert list(gallery.roots().values()) == [tmp_path / "p"]
    assert run(tmp_path / "p", place).unchanged == 5
    with pytest.raises(GalleryError, match="overlaps"):
        run(tmp_path / "p" / "a", place)


def test_widening_through_a_link_takes_the_target_in(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p" / "a", 0, 2)
    (tmp_path / "link").symlink_to(tmp_path / "p" / "a")
    run(tmp_path / "link", place)
    set_by_hand(place)
    report = run(tmp_path / "p", place)
    assert (report.unchanged, report.encoded, report.deleted) == (2, 0, 0)
    assert known(place, tmp_path) == {"p/a/0.jpg": (1, 1), "p/a/1.jpg": (2, 2)}


def test_a_shard_is_taken_into_its_folder(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "made", 0, 2)
    shutil.make_archive(str(tmp_path / "p" / "0"), "tar", tmp_path / "made")
    assert run(tmp_path / "p" / "0.tar", place).encoded == 2
    report = run(tmp_path / "p", place)
    assert (report.unchanged, report.encoded, report.deleted) == (2, 0, 0)


def test_a_root_that_is_away_is_taken_in_when_it_is_back(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p" / "a", 0, 2)
    write(tmp_path / "p", 5, 1)
    run(tmp_path / "p" / "a", place)
    set_by_hand(place)
    before = known(place, tmp_path)
    (tmp_path / "p" / "a").rename(tmp_path / "away")
    assert run(tmp_path / "p", place).deleted == 0
    assert before.items() <= known(place, tmp_path).items()
    (tmp_path / "away").rename(tmp_path / "p" / "a")
    assert run(tmp_path / "p", place).unchanged == 3
    assert before.items() <= known(place, tmp_path).items()


def test_moving_a_root_keeps_ids_and_metadata_and_reads_nothing(tmp_path: Path, place: str) -> None:
    write(tmp_path / "p" / "deep", 0, 3)
    run(tmp_path / "p", place)
    set_by_hand(place)
    before = known(place, tmp_path / "p")
    (tmp_path / "p").rename(tmp_path / "q")
    with open_gallery(place, readonly=False) as gallery:
        assert move_root(gallery, tmp_path / "p", tmp_path / "q") == 3
        assert list(gallery.roots().values()) == [tmp_path / "q"]
    assert known(place, tmp_path / "q") == before
    report = run(tmp_path / "q", place)
    assert (report.unchanged, report.moved, report.encoded) == (3, 0, 0)


def test_moving_a_root_to_where_it_was_indexed_again_joins_both(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p", 0, 3)
    run(tmp_path / "p", place)
    set_by_hand(place)
    before = known(place, tmp_path / "p")
    shutil.copytree(tmp_path / "p", tmp_path / "q")
    run(tmp_path / "q", place)
    with open_gallery(place, readonly=False) as gallery:
        newer = [one.id for one in gallery.pictures() if "q" in Path(str(one.path)).parts]
        gallery.add_columns({"note": "text"})
        gallery.set_metadata([(newer[0], {"note": "set on the copy", "price": 99})])
        move_root(gallery, tmp_path / "p", tmp_path / "q")
        assert [value.get("note") for value in gallery.metadata([1, 2, 3])] == ["set on the copy", None, None]
    assert known(place, tmp_path / "q") == before


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("x", "q", "is no folder of the gallery"),
        ("p", "nowhere", "there is no folder"),
        ("p", "other", "has none of the pictures"),
        ("p", "r/sub", "overlaps"),
    ],
)
def test_a_root_moves_only_to_where_its_pictures_are(tmp_path: Path, old: str, new: str, reason: str) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p", 0, 2)
    write(tmp_path / "q", 0, 2)
    write(tmp_path / "other", 5, 1)
    write(tmp_path / "r" / "sub", 0, 2)
    run(tmp_path / "p", place)
    run(tmp_path / "r", place)
    before = known(place, tmp_path)
    with open_gallery(place, readonly=False) as gallery, pytest.raises(GalleryError, match=reason):
        move_root(gallery, tmp_path / old, tmp_path / new)
    assert known(place, tmp_path) == before


def test_a_folder_that_is_gone_is_forgotten(tmp_path: Path, place: str) -> None:
    write(tmp_path / "p", 0, 2)
    write(tmp_path / "q" / "a", 2, 2)
    write(tmp_path / "q" / "ab", 4, 1)
    (tmp_path / "q" / "a" / "bad.jpg").write_bytes(b"no picture")
    run(tmp_path / "p", place)
    run(tmp_path / "q", place)
    set_by_hand(place)
    shutil.rmtree(tmp_path / "p")
    with open_gallery(place, readonly=False) as gallery:
        assert [(root.place, root.pictures, root.failed, root.reachable) for root in list_roots(gallery)] == [
            (tmp_path / "p", 2, 0, False),
            (tmp_path / "q", 3, 1, True),
        ]
        forget(gallery, find_below(gallery, tmp_path / "p"))
        forget(gallery, find_below(gallery, tmp_path / "q" / "a"))
        assert list(gallery.roots().values()) == [tmp_path / "q"]
        with pytest.raises(GalleryError, match="has no pictures in"):
            find_below(gallery, tmp_path / "p")
    assert list(known(place, tmp_path)) == ["q/ab/4.jpg"]
    report = run(tmp_path / "q", place)  # its files are there: it comes back, with what was set by hand
    assert report.encoded == 2
    prices = {path: price for path, (_, price) in known(place, tmp_path).items()}
    assert prices["q/a/2.jpg"] is not None
    assert prices["q/a/3.jpg"] is not None


def test_a_folder_above_several_roots_and_a_file_are_forgotten(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    for name in ("a", "b"):
        write(tmp_path / "p" / name, ord(name), 2)
        run(tmp_path / "p" / name, place)
    write(tmp_path / "c", 0, 2)
    run(tmp_path / "c", place)
    with open_gallery(place, readonly=False) as gallery:
        forget(gallery, find_below(gallery, tmp_path / "p"))
        forget(gallery, find_below(gallery, tmp_path / "c" / "0.jpg"))
        assert list(gallery.roots().values()) == [tmp_path / "c"]
    assert list(known(place, tmp_path)) == ["c/1.jpg"]


@pytest.mark.parametrize("order", ["p q", "q p"])
def test_pictures_that_move_between_folders_of_a_run_keep_their_ids(tmp_path: Path, order: str) -> None:
    place = str(tmp_path / "g")
    for number, name in enumerate(("p", "q")):
        write(tmp_path / name, 10 * number, 4)
    folders = [tmp_path / name for name in order.split()]
    several(folders, place)
    set_by_hand(place)
    before = known(place, tmp_path)
    (tmp_path / "p" / "0.jpg").rename(tmp_path / "q" / "there.jpg")
    (tmp_path / "q" / "10.jpg").rename(tmp_path / "p" / "here.jpg")
    done = several(folders, place)
    assert [one.report and (one.report.moved, one.report.deleted, one.report.unchanged) for one in done] == [
        (1, 0, 3),
        (1, 0, 3),
    ]
    after = known(place, tmp_path)
    assert after["q/there.jpg"] == before["p/0.jpg"]
    assert after["p/here.jpg"] == before["q/10.jpg"]
    (tmp_path / "p" / "here.jpg").unlink()
    assert [one.report and one.report.deleted for one in several(folders, place)] == [
        int(folder.name == "p") for folder in folders
    ]


@pytest.mark.parametrize("order", ["pq", "qp", "p", "q"])
def test_pictures_that_move_between_folders_of_separate_runs_keep_their_ids(
    tmp_path: Path, place: str, order: str
) -> None:
    if "milvus" in place and order != "pq":
        pytest.skip("one order is enough where each run takes seconds")
    for number, name in enumerate(("p", "q")):
        write(tmp_path / name, 10 * number, 4)
        run(tmp_path / name, place)
    set_by_hand(place)
    before = known(place, tmp_path)
    write(tmp_path / "q", 20, 2)  # new there, and not asked for by a run over p
    (tmp_path / "q" / "deep").mkdir()
    (tmp_path / "p" / "0.jpg").rename(tmp_path / "q" / "deep" / "there.jpg")
    (tmp_path / "q" / "10.jpg").rename(tmp_path / "p" / "here.jpg")
    (tmp_path / "p" / "1.jpg").unlink()
    reports = [run(tmp_path / name, place) for name in order]
    after = known(place, tmp_path)
    assert after["q/deep/there.jpg"] == before["p/0.jpg"]
    assert after["p/here.jpg"] == before["q/10.jpg"]
    assert ("q/20.jpg" in after) is ("q" in order)
    assert ("p/1.jpg" in after) is ("p" not in order)
    assert reports[0].moved == reports[0].left == 1
    assert sum(one.deleted for one in reports) == int("p" in order)
    for name in ("p", "q"):
        again = run(tmp_path / name, place)
        assert (again.moved, again.left) == (0, 0)


@pytest.mark.parametrize("order", ["pq", "qp"])
def test_a_folder_that_moves_below_another_root_keeps_its_ids(tmp_path: Path, order: str) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p" / "trip", 0, 12)
    write(tmp_path / "q", 20, 3)
    for name in ("p", "q"):
        run(tmp_path / name, place)
    set_by_hand(place)
    before = known(place, tmp_path)
    shutil.move(tmp_path / "p" / "trip", tmp_path / "q" / "trip")
    for name in order:
        run(tmp_path / name, place)
    assert known(place, tmp_path) == {name.replace("p/trip", "q/trip"): one for name, one in before.items()}


@pytest.mark.parametrize("left", ["p", "q"])
def test_what_was_set_by_hand_stays_with_the_copy_that_is_left(tmp_path: Path, left: str) -> None:
    place = str(tmp_path / "g")
    for number, name in enumerate(("p", "q")):
        write(tmp_path / name, 10 * number, 3)
        run(tmp_path / name, place)
    set_by_hand(place)
    shutil.copy(tmp_path / "p" / "0.jpg", tmp_path / left / "copy.jpg")
    assert run(tmp_path / left, place).duplicates == 1
    (tmp_path / "p" / "0.jpg").unlink()
    assert run(tmp_path / "p", place).deleted == 1
    assert known(place, tmp_path)[f"{left}/copy.jpg"][1] == 1


def test_a_copy_with_values_of_its_own_keeps_them(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p", 0, 3)
    shutil.copy(tmp_path / "p" / "0.jpg", tmp_path / "p" / "copy.jpg")
    run(tmp_path / "p", place)
    set_by_hand(place)
    own = known(place, tmp_path)
    (tmp_path / "p" / "0.jpg").unlink()
    run(tmp_path / "p", place)
    assert known(place, tmp_path) == {name: one for name, one in own.items() if name != "p/0.jpg"}


def test_several_tables_and_folders_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image2sentence.encoders.load_encoder", lambda *_, **options: FakeEncoder())
    for number, name in enumerate(("p", "q")):
        write(tmp_path / name, 10 * number, 2)
        write(tmp_path / name / "same", 20 + 10 * number, 1)
        (tmp_path / name / "same").joinpath(f"{20 + 10 * number}.jpg").rename(tmp_path / name / "same.jpg")
    (tmp_path / "prices.csv").write_text("file,price\n0.jpg,1\n10.jpg,2\np/same.jpg,3\n")
    (tmp_path / "names.tsv").write_text(f"file\tname\n{tmp_path / 'q' / 'same.jpg'}\tsame\n1.jpg\tone\n")
    tables = [f"--metadata={tmp_path / name}" for name in ("prices.csv", "names.tsv")]
    command = ["index", str(tmp_path / "p"), str(tmp_path / "q"), "--gallery", str(tmp_path / "g")]
    done = CliRunner().invoke(cli, [*command, *tables, "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [(one["matched"], one["unmatched"]) for one in document["metadata"]] == [(3, 0), (2, 0)]
    with open_gallery(str(tmp_path / "g")) as gallery:
        pictures = gallery.pictures()
        values = dict(
            zip((one.path for one in pictures), gallery.metadata([one.id for one in pictures]), strict=True)
        )
    expected = {"p/0.jpg": {"price": 1}, "q/10.jpg": {"price": 2}, "p/same.jpg": {"price": 3}}
    expected |= {"q/same.jpg": {"name": "same"}, "p/1.jpg": {"name": "one"}, "q/11.jpg": {}}
    assert values == {tmp_path / name: value for name, value in expected.items()}
    assert "prices.csv: 3 rows" in CliRunner().invoke(cli, [*command, *tables]).stdout
    (tmp_path / "odd.csv").write_text("file,price\nsame.jpg,1\n")
    refused = CliRunner().invoke(cli, [*command, f"--metadata={tmp_path / 'odd.csv'}"])
    assert refused.exit_code == 1
    assert (
        f"means several pictures ({tmp_path / 'p' / 'same.jpg'}, {tmp_path / 'q' / 'same.jpg'})"
        in refused.output
    )
    (tmp_path / "bad.csv").write_text("file,price\n0.jpg,9\n1.jpg,many\n")
    refused = CliRunner().invoke(cli, [*command, *tables, f"--metadata={tmp_path / 'bad.csv'}"])
    assert "bad.csv, line 3, column 'price'" in refused.output


def test_a_folder_that_is_away_does_not_stop_the_others(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    for number, name in enumerate(("a", "b", "c")):
        write(tmp_path / name, 10 * number, 2)
    folders = [tmp_path / name for name in ("a", "b", "c")]
    several(folders, place)
    (tmp_path / "b").rename(tmp_path / "away")
    (tmp_path / "a" / "0.jpg").unlink()
    done = several(folders, place)
    assert [one.report and one.report.deleted for one in done] == [1, None, 0]
    assert len(known(place, tmp_path)) == 5


def test_folders_within_others_of_a_run_are_indexed_once(tmp_path: Path) -> None:
    write(tmp_path / "p" / "a", 0, 1)
    write(tmp_path / "q", 1, 1)
    (tmp_path / "link").symlink_to(tmp_path / "p")
    names = [tmp_path / "p" / "a", tmp_path / "q", tmp_path / "p", tmp_path / "link", tmp_path / "q"]
    assert outermost(names) == [tmp_path / "q", tmp_path / "p"]
    urls = ["s3://bucket/a/b", "s3://bucket/a", "s3://bucket/ab", "s3://bucket/a/"]
    assert outermost(urls) == ["s3://bucket/a", "s3://bucket/ab"]
    (tmp_path / "p" / "out").symlink_to(tmp_path / "q")
    assert outermost([tmp_path / "p" / "out", tmp_path / "p"]) == [tmp_path / "p"]
    (tmp_path / "p" / "up").symlink_to(tmp_path / "p")
    assert outermost([tmp_path / "p" / "up"]) == [tmp_path / "p" / "up"]
    assert outermost([tmp_path / "p" / "a", tmp_path / "p" / "up"]) == [tmp_path / "p" / "up"]
    assert outermost([tmp_path / "no", tmp_path / "no" / "where"]) == [tmp_path / "no"]


def test_many_copies_are_indexed_in_a_time_that_grows_with_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    real = locations.file_may_exist
    monkeypatch.setattr(indexing_run, "file_may_exist", lambda place: asked.append(place) or real(place))
    write(tmp_path / "q", 0, 1)
    data = (tmp_path / "q" / "0.jpg").read_bytes()
    (tmp_path / "p").mkdir()
    for number in range(200):
        (tmp_path / "p" / f"{number}.jpg").write_bytes(data)
    several([tmp_path / "q", tmp_path / "p"], str(tmp_path / "g"))
    assert len(known(str(tmp_path / "g"), tmp_path)) == 201
    assert len(asked) <= 2


def invoked(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def test_the_commands_list_move_and_forget(tmp_path: Path) -> None:
    place = str(tmp_path / "g")
    write(tmp_path / "p", 0, 2)
    write(tmp_path / "q", 2, 3)
    run(tmp_path / "p", place)
    run(tmp_path / "q", place)
    (tmp_path / "p").rename(tmp_path / "moved")
    listed = invoked("gallery", "roots", "--gallery", place)
    assert f"2  {tmp_path}/p  (not there now)" in listed.output
    moved = invoked("gallery", "move-root", tmp_path / "p", tmp_path / "moved", "--gallery", place)
    assert "2 pictures are in" in moved.output
    listed = invoked("gallery", "roots", "--gallery", place, "--json")
    assert {(one["place"], one["pictures"], one["reachable"]) for one in json.loads(listed.stdout)} == {
        (str(tmp_path / "moved"), 2, True),
        (str(tmp_path / "q"), 3, True),
    }
    command = ["gallery", "forget", str(tmp_path / "q"), "--gallery", place]
    refused = CliRunner().invoke(cli, command, input="n\n")
    assert refused.exit_code == 1
    assert "Forget 3 pictures" in refused.output
    assert len(known(place, tmp_path)) == 5
    done = invoked(*command, "--yes", "--json")
    assert json.loads(done.stdout) == {"gallery": place, "forgotten": 3, "pictures": 2}


def test_the_command_indexes_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("image2sentence.encoders.load_encoder", lambda *_, **__: FakeEncoder())
    for number, name in enumerate(("a", "b")):
        write(tmp_path / name, 10 * number, 2)
    command = ["index", tmp_path / "a", tmp_path / "b", tmp_path / "a", "--gallery", tmp_path / "g"]
    first = invoked(*command)
    assert f"{tmp_path}/a:\nfound 2 · encoded 2" in first.output
    assert first.output.count("encoded 2") == 2
    assert "4 pictures" in first.output
    about = json.loads(invoked(*command, "--json").stdout)
    assert [(one["folder"], one["unchanged"]) for one in about["folders"]] == [
        (str(tmp_path / "a"), 2),
        (str(tmp_path / "b"), 2),
    ]
    (tmp_path / "b").rename(tmp_path / "away")
    (tmp_path / "a" / "0.jpg").unlink()
    partly = CliRunner().invoke(cli, [*map(str, command), "--json"])
    assert partly.exit_code == 1
    assert f"there is no folder {tmp_path}/b" in partly.stderr
    assert [one.get("deleted") for one in json.loads(partly.stdout)["folders"]] == [1, None]
    refused = CliRunner().invoke(cli, [*map(str, command), "--metadata", str(tmp_path / "a" / "1.jpg")])
    assert refused.exit_code == 1
    assert "expected a file that ends in .csv" in refused.output


def test_a_folder_that_is_nowhere_makes_no_gallery(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["index", str(tmp_path / "typo"), "--gallery", str(tmp_path / "g")])
    assert done.exit_code == 1
    assert "there is no folder" in done.output
    assert not (tmp_path / "g").exists()
