"""What is passed over by name: patterns, ignore files, and folders that nobody wants."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner
from pathspec import GitIgnoreSpec
from PIL import Image

from fakes import FakeEncoder, encoded
from image2sentence import encoders
from image2sentence.cli.main import cli
from image2sentence.errors import ConfigError, StorageAwayError
from image2sentence.gallery.sqlite.gallery import Gallery
from image2sentence.indexing.exclusions import IGNORE_FILE, MAX_IGNORE_BYTES, Exclusions
from image2sentence.indexing.index_pictures import IndexReport, index_pictures
from image2sentence.indexing.linear_patterns import make_linear
from image2sentence.indexing.sources import open_source


def draw(folder: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(path) % 200, number, 7)).save(file)


def names(place: Path | str, *patterns: str) -> list[str]:
    found = open_source(place).walk(None, None, Exclusions(patterns))
    return sorted(file.path for file in found.files)


UNWANTED = (
    "@eaDir/a.jpg/SYNOPHOTO_THUMB_B.jpg",
    "below/@EADIR/b.jpg",
    "#recycle/c.jpg",
    "$RECYCLE.BIN/d.jpg",
    "$Recycle.Bin/S-1-5/d.jpg",
    ".Trash-1000/e.jpg",
    ".thumbnails/f.jpg",
    "Photos Library.photoslibrary/originals/0/g.jpg",
    "catalog Previews.lrdata/h.jpg",
    "lost+found/i.jpg",
    "System Volume Information/j.jpg",
    "__MACOSX/k.jpg",
    "._l.jpg",
)


def test_folders_that_nobody_wants_are_passed_over(tmp_path: Path) -> None:
    draw(tmp_path, *UNWANTED, "kept.jpg", "eaDir/kept.jpg", "lrdata/kept.jpg", "recycle/kept.jpg")
    assert names(tmp_path) == ["eaDir/kept.jpg", "kept.jpg", "lrdata/kept.jpg", "recycle/kept.jpg"]
    assert "#recycle/c.jpg" in names(tmp_path, "!#recycle/")
    assert names(tmp_path / "@eaDir") == ["a.jpg/SYNOPHOTO_THUMB_B.jpg"]


def test_objects_behind_urls_are_passed_over_alike() -> None:
    system = fsspec.filesystem("memory")
    for path in ("@eaDir/a.png", "x/drafts/deep/b.png", "x/c.png"):
        system.pipe(f"/excluded/{path}", encoded(Image.new("RGB", (8, 8)), "PNG"))
    assert names("memory://excluded", "drafts/") == ["x/c.png"]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["*.png"], ["a.jpg", "drafts/a.jpg", "old/drafts/b.jpg"]),
        (["drafts/"], ["a.jpg", "b.png"]),
        (["/drafts"], ["a.jpg", "b.png", "old/drafts/b.jpg"]),
        (["*.jpg", "!a.jpg"], ["a.jpg", "b.png", "drafts/a.jpg"]),
        (["old/**"], ["a.jpg", "b.png", "drafts/a.jpg"]),
        (["# only a comment", ""], ["a.jpg", "b.png", "drafts/a.jpg", "old/drafts/b.jpg"]),
    ],
)
def test_patterns_are_those_of_gitignore(tmp_path: Path, patterns: list[str], left: list[str]) -> None:
    draw(tmp_path, "a.jpg", "b.png", "drafts/a.jpg", "old/drafts/b.jpg")
    assert names(tmp_path, *patterns) == left
    (tmp_path / IGNORE_FILE).write_text("\r\n".join(patterns), encoding="utf-8-sig")
    assert names(tmp_path) == left


def test_the_innermost_ignore_file_and_then_what_is_given_decides(tmp_path: Path) -> None:
    draw(tmp_path, "a.png", "in/a.png", "in/b.png")
    (tmp_path / IGNORE_FILE).write_text("*.png\n")
    (tmp_path / "in" / IGNORE_FILE).write_text("!a.png\n")
    assert names(tmp_path) == ["in/a.png"]
    assert names(tmp_path, "!b.png", "/in/a.png") == ["in/b.png"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fine\n!\n", "pattern 2"),
        ("a\n" * 1_001, "1,000 patterns"),
        ("*a" * 9, "8 groups"),
        ("x" * 501, "500"),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_file(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / IGNORE_FILE).write_text(text)
    with pytest.raises(ConfigError, match=f"{IGNORE_FILE}.*{reason}"):
        names(tmp_path)
    (tmp_path / IGNORE_FILE).write_bytes(b" " * (MAX_IGNORE_BYTES + 1))
    with pytest.raises(ConfigError, match="more than 65,536 bytes"):
        names(tmp_path)


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    encoder = FakeEncoder()
    return Gallery.create(tmp_path / "gallery", encoder.fingerprint, encoder.width)


def index(gallery: Gallery, folder: Path, *exclude: str, allow_empty: bool = False) -> IndexReport:
    return index_pictures(folder, gallery, FakeEncoder(), exclude=exclude, allow_empty=allow_empty)


def test_a_known_picture_that_becomes_excluded_goes_and_comes_back_with_its_metadata(
    gallery: Gallery, tmp_path: Path
) -> None:
    draw(tmp_path / "in", "a.jpg", "b.jpg", "drafts/cc.jpg")
    with gallery:
        index(gallery, tmp_path / "in")
        gallery.add_columns({"note": "text"})
        (draft,) = gallery.select("folder = 'drafts'").tolist()
        gallery.set_metadata([(draft, {"note": "by hand"})])
        report = index(gallery, tmp_path / "in", "drafts/")
        assert (report.deleted, report.deleted_excluded, report.excluded) == (1, 1, {"drafts/": 1})
        assert report.kept == 0
        assert len(gallery) == 2
        again = index(gallery, tmp_path / "in")
        assert again.found == 3
        (draft,) = gallery.select("folder = 'drafts'").tolist()
        assert gallery.metadata([draft])[0]["note"] == "by hand"


def test_most_of_a_folder_is_excluded_only_where_it_is_meant(gallery: Gallery, tmp_path: Path) -> None:
    draw(tmp_path / "in", "a.jpg", "drafts/cc.jpg")
    with gallery:
        index(gallery, tmp_path / "in")
        with pytest.raises(StorageAwayError, match=r"exclusions name 2 of 2 .* --exclude"):
            index(gallery, tmp_path / "in", "*")
        assert len(gallery) == 2
        assert index(gallery, tmp_path / "in", "*", allow_empty=True).deleted_excluded == 2


def test_the_command_counts_what_it_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **options: FakeEncoder())
    draw(tmp_path / "in", "a.jpg", "@eaDir/b.jpg", "@eaDir/c.jpg", "x.tmp.jpg", "y.tmp.jpg")
    shown = CliRunner().invoke(cli, ["index", "in", "--exclude", "*.tmp.jpg"])
    assert "excluded 3 files and folders: *.tmp.jpg 2, @eaDir 1" in shown.stdout
    about = json.loads(CliRunner().invoke(cli, ["index", "in", "--exclude", "*.tmp.jpg", "--json"]).stdout)
    assert about["excluded"] == {"*.tmp.jpg": 2, "@eaDir": 1}
    bad = CliRunner().invoke(cli, ["index", "in", "--exclude", "!"])
    assert bad.exit_code == 1
    assert "--exclude, pattern 1" in bad.stderr


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a*a*a*a*a*a*a*b", "a" * 250),
        ("*a*a*a*a*a*a*a*/b", "a" * 250 + "/x/b"),
        ("*[ab]*[ab]*[ab]*[ab]*[ab]*[ab]*[!a]c", "a" * 250),
        ("a?*?*?*?*?*?*?*b", "a" * 250),
        ("**/a/**/a/**/a/**/b", "a/" * 2_000 + "c.jpg"),
        ("**/a*a*/**/a*a*/**/b", "aaaa/" * 800 + "c"),
    ],
)
def test_no_pattern_takes_long_for_any_path(pattern: str, path: str) -> None:
    began = time.process_time()
    assert Exclusions([pattern]).pattern_for(path, is_folder=False) is None
    assert time.process_time() - began < 5


def test_patterns_mean_what_pathspec_makes_of_them() -> None:
    draw = random.Random(7)
    fitted = 0
    for _ in range(400):
        parts = [
            "**"
            if draw.random() < 0.2
            else "".join(draw.choice(["a", "a", "b", "*", "?", "[ab]"]) for _ in range(4))
            for _ in range(draw.randint(1, 4))
        ]
        line = draw.choice(["", "", "/"]) + "/".join(parts) + draw.choice(["", "/", "/**"])
        plain, rewritten = GitIgnoreSpec.from_lines([line]), make_linear(GitIgnoreSpec.from_lines([line]))
        for _ in range(10):
            folders = [
                "".join(draw.choice("aab") for _ in range(draw.randint(1, 5)))
                for _ in range(draw.randint(1, 5))
            ]
            path = "/".join(folders) + draw.choice(["", "/"])
            assert rewritten.match_file(path) == plain.match_file(path), (line, path)
            fitted += plain.match_file(path)
    assert 100 < fitted < 3_900


def test_a_class_never_stands_for_the_separator() -> None:
    assert Exclusions(["a[!b]c"]).pattern_for("a/c", is_folder=False) is None
    assert Exclusions(["a[!b]c"]).pattern_for("adc", is_folder=False) == "a[!b]c"
