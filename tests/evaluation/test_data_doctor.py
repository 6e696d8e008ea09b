"""What the doctor says of downloads that are complete, incomplete and damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from image2sentence.errors import ConfigError
from image2sentence.evaluation.datasets.check import diagnose

NAMES = list("abcdef")


@pytest.fixture
def cirr(tmp_path: Path) -> Path:
    """A whole CIRR val download of six pictures in the layout of NLVR2."""
    pair = {
        "pairid": 1,
        "reference": "a",
        "target_hard": "b",
        "caption": "x",
        "img_set": {"members": NAMES},
    }
    write(tmp_path / "captions" / "cap.rc2.val.json", [pair])
    write(tmp_path / "image_splits" / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in NAMES})
    (tmp_path / "dev").mkdir()
    for name in NAMES:
        Image.new("RGB", (4, 4)).save(tmp_path / "dev" / f"{name}.png")
    return tmp_path


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_a_complete_download_is_complete(cirr):
    diagnosis = diagnose("cirr", cirr, "val", decode=True)
    assert diagnosis.complete
    assert "cirr val: complete (1 queries, 6 pictures named)" in str(diagnosis)


def test_missing_empty_and_unreadable_pictures_are_counted_and_named(cirr):
    for name in ("a", "b"):
        (cirr / "dev" / f"{name}.png").unlink()
    (cirr / "dev" / "c.png").write_bytes(b"")
    (cirr / "dev" / "d.png").write_bytes(b"no picture")
    diagnosis = diagnose("cirr", cirr, "val", decode=True)
    found = {finding.problem: finding.items for finding in diagnosis.splits[0].findings}
    assert not diagnosis.complete
    assert found["pictures missing"] == ("a", "b")
    assert found["pictures empty"] == ("c",)
    assert len(found["pictures unreadable"]) == 1
    assert found["pictures unreadable"][0].startswith("d (")
    text = str(diagnosis)
    assert "2 pictures missing: 'a', 'b'" in text
    assert "Cuberick-Orion/CIRR" in text


def test_pictures_are_opened_only_on_request(cirr):
    (cirr / "dev" / "d.png").write_bytes(b"no picture")
    assert diagnose("cirr", cirr, "val").complete


def test_many_missing_pictures_are_summed_up(cirr):
    for name in NAMES:
        (cirr / "dev" / f"{name}.png").unlink()
    assert "6 pictures missing: 'a', 'b', 'c' and 3 more" in str(diagnose("cirr", cirr, "val"))


def test_each_split_is_looked_at_on_its_own(cirr):
    diagnosis = diagnose("cirr", cirr)
    assert [split.split for split in diagnosis.splits] == ["val", "test1"]
    assert not diagnosis.splits[0].findings
    assert "split.rc2.test1.json" in diagnosis.splits[1].findings[0].items[0]


def test_damaged_annotations_are_a_finding(cirr):
    (cirr / "captions" / "cap.rc2.val.json").write_text("[")
    assert "malformed JSON" in str(diagnose("cirr", cirr, "val"))


def test_a_family_name_covers_its_members_and_unknown_names_are_refused(tmp_path):
    names = [split.benchmark for split in diagnose("fashioniq", tmp_path, "val").splits]
    assert names == ["fashioniq/dress", "fashioniq/shirt", "fashioniq/toptee"]
    with pytest.raises(ConfigError, match="unknown benchmark 'coco'"):
        diagnose("coco", tmp_path)
    with pytest.raises(ConfigError, match="cirr has the splits val, test1"):
        diagnose("cirr", tmp_path, "test")


def test_circo_misses_its_gallery_list(tmp_path):
    query = {"id": 0, "reference_img_id": 42, "relative_caption": "x", "shared_concept": "y"}
    write(tmp_path / "annotations" / "test.json", [query])
    (tmp_path / "unlabeled2017").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "unlabeled2017" / "000000000042.jpg")
    diagnosis = diagnose("circo", tmp_path, "test")
    (finding,) = diagnosis.splits[0].findings
    assert finding.problem == "annotation file missing"
    assert "image_info_unlabeled2017.json" in finding.items[0]
    write(tmp_path / "annotations" / "image_info_unlabeled2017.json", {"images": [{"id": 42}]})
    assert diagnose("circo", tmp_path, "test").complete


def test_annotations_alone_lack_every_picture(shared_data):
    diagnosis = diagnose("cirr", shared_data / "annotations" / "cirr", "val")
    (finding,) = diagnosis.splits[0].findings
    assert finding.problem == "pictures missing"
    assert len(finding.items) == diagnosis.splits[0].images == 2297
