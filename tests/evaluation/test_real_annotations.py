"""Every command on the official annotations with made-up pictures, and what wrong downloads are told."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fakes import FakeEncoder, model_config
from image2sentence import encoders
from image2sentence.cli.main import cli
from image2sentence.encoders.model_folder import QUERY_IMAGE
from image2sentence.evaluation.datasets.check import diagnose
from image2sentence.evaluation.submissions import check_circo_submission, check_cirr_submission
from made_up_benchmarks import lay_out, make_circo, make_cirr, make_domains, make_fashioniq, make_genecis


class Model(FakeEncoder):
    """The fake encoder with a config."""

    config = model_config(files={QUERY_IMAGE: "light graph"})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    model = Model()
    monkeypatch.setattr(encoders, "load_encoder", lambda folder=None, **_: model)

    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + str(result.exception)
        return result

    return invoke


@pytest.fixture
def annotations(shared_data: Path) -> Path:
    folder = shared_data / "annotations"
    if not folder.is_dir():
        pytest.skip(f"no official annotations: {folder} is missing")
    return folder


# From official annotations to tables and submissions


@pytest.mark.parametrize(
    ("name", "part", "queries"),
    [
        ("cirr", "", "cirr val: 4,181 queries"),
        ("fashioniq", "dress", "fashioniq/dress val: 2,017 queries"),
        ("circo", "", "circo val: 220 queries"),
        ("genecis", "change_object", "genecis/change_object val: 1,960 queries"),
    ],
)
def test_official_annotations_lead_to_a_table_and_a_second_run_encodes_nothing(
    run, annotations, tmp_path, name, part, queries
):
    """One part of those that have several: the others differ in words and pictures alone."""
    root = lay_out(name, annotations, tmp_path / "data")
    arguments = ("evaluate", name, "--root", root, *(("--part", part) if part else ()))
    first = run(*arguments)
    assert queries in first.stderr
    assert "encoded 60 pictures" in first.stderr
    for row in ("image only", "text only", "image + text sum", "Slerp", "BASIC", "composed"):
        assert f"\n{row}" in first.stdout
    second = run(*arguments)
    assert "encoded 0 pictures" in second.stderr
    assert "encoded 0 sentences" in second.stderr
    assert second.stdout == first.stdout


def test_a_part_of_the_official_domain_lists_leads_to_a_table(run, annotations, tmp_path):
    """All 40,000 queries among 16,983 pictures take minutes: one photo of 40 and one target of 20."""
    lists = tmp_path / "lists" / "pic2word"
    lists.mkdir(parents=True)
    for listing, every in (("imgnet_real_query.txt", 40), ("imgnet_targets.txt", 20)):
        lines = (annotations / "pic2word" / listing).read_text(encoding="utf-8").splitlines()[::every]
        (lists / listing).write_text("\n".join(lines) + "\n", encoding="utf-8")
    root = lay_out("domain-conversion", lists.parent, tmp_path / "data")
    first = run("evaluate", "domain-conversion", "--root", root)
    assert "domain_conversion val: 1,000 queries" in first.stderr
    assert "recall@50/sculpture" in first.stdout
    assert "encoded 0 pictures" in run("evaluate", "domain-conversion", "--root", root).stderr


def test_hidden_cirr_answers_lead_to_two_files_as_the_server_takes_them(run, annotations, tmp_path):
    root, sent = lay_out("cirr", annotations, tmp_path / "data", "test1"), tmp_path / "sent"
    run("evaluate", "cirr", "--root", root, "--split", "test1", "--submission", sent)
    pairs = json.loads((annotations / "cirr/cap.rc2.test1.json").read_text(encoding="utf-8"))
    listed = set(json.loads((annotations / "cirr/split.rc2.test1.json").read_text(encoding="utf-8")))
    for metric, count in (("recall", 50), ("recall_subset", 3)):
        file = sent / f"{metric}.json"
        assert file.stat().st_size <= 5_000_000
        document = json.loads(file.read_text(encoding="utf-8"))
        assert (document.pop("version"), document.pop("metric")) == ("rc2", metric)
        assert list(document) == [str(pair["pairid"]) for pair in pairs]
        assert len(pairs) == 4148
        for pair in pairs:
            names = document[str(pair["pairid"])]
            among = listed if metric == "recall" else set(pair["img_set"]["members"])
            assert len(names) == len(set(names)) == count
            assert set(names) <= among - {pair["reference"]}
        assert check_cirr_submission(file, root) == metric


def test_hidden_circo_answers_lead_to_one_file_as_the_server_takes_it(run, annotations, tmp_path):
    root, sent = lay_out("circo", annotations, tmp_path / "data", "test"), tmp_path / "circo.json"
    told = run("evaluate", "circo", "--root", root, "--split", "test", "--submission", sent).stderr
    assert "without image_info_unlabeled2017.json: not comparable" in told
    document = json.loads(sent.read_text(encoding="utf-8"))
    assert list(document) == [str(number) for number in range(800)]
    there = {int(file.stem) for file in (root / "COCO2017_unlabeled/unlabeled2017").iterdir()}
    for numbers in document.values():
        assert all(isinstance(number, int) for number in numbers)
        assert len(numbers) == len(set(numbers)) == 50
        assert set(numbers) <= there
    check_circo_submission(sent, root)


# Wrong downloads

DOWNLOADS = {
    "cirr": (make_cirr, "captions/cap.rc2.val.json", "dev/dev-3-0-img1.png"),
    "fashioniq": (make_fashioniq, "image_splits/split.shirt.val.json", "images/B10003.png"),
    "circo": (make_circo, "annotations/val.json", "COCO2017_unlabeled/unlabeled2017/000000000003.jpg"),
    "genecis": (make_genecis, "genecis/focus_object.json", "val2017/000000000003.jpg"),
    "domain-conversion": (make_domains, "imgnet_targets.txt", "imgnet/imagenet-r/n1/toy_0.jpg"),
}


@pytest.fixture(params=DOWNLOADS)
def download(request, tmp_path: Path) -> tuple[str, Path, Path, Path]:
    """Name, folder, an annotation file and a picture."""
    make, annotation, picture = DOWNLOADS[request.param]
    root = make(tmp_path / "data")
    return request.param, root, root / annotation, root / picture


def stopped(run: Callable[..., Result], name: str, root: Path) -> str:
    output = run("evaluate", name, "--root", root, code=1).output
    assert "where to get it: " in output
    assert "Traceback" not in output
    return output


def test_half_an_annotation_file_is_to_be_downloaded_again(run, download):
    name, root, annotation, _ = download
    content = annotation.read_bytes()
    annotation.write_bytes(content[: len(content) // 2 - 3])
    output = stopped(run, name, root)
    assert annotation.name in output
    assert "download the file again" in output


def test_a_page_that_was_saved_as_an_annotation_file_is_to_be_downloaded_again(run, download):
    name, root, annotation, _ = download
    annotation.write_text("<!DOCTYPE html>\n<html>404: Not Found</html>\n", encoding="utf-8")
    output = stopped(run, name, root)
    assert annotation.name in output
    assert "download the file again" in output


def test_annotations_one_folder_deeper_are_found_and_named(run, download):
    name, root, annotation, _ = download
    deeper = root / "a clone" / "of it"
    deeper.mkdir(parents=True)
    annotation.rename(deeper / annotation.name)
    if name == "genecis":  # of its tasks, those are run whose annotations are there
        for file in (root / "genecis").iterdir():
            file.rename(deeper / file.name)
    output = stopped(run, name, root)
    assert f"a clone/of it/{annotation.name} is there: move or link it" in output


def test_pictures_in_another_folder_are_found_and_named(run, download):
    name, root, _, picture = download
    picture.parent.rename(root / "my pictures")
    output = stopped(run, name, root)
    assert "pictures missing" in output
    assert "is there: move or link it, and those beside it, to be " in output
    assert "my pictures/" in output


def test_endings_in_capitals_are_found_and_to_be_renamed(run, download):
    name, root, _, picture = download
    picture.rename(picture.with_suffix(picture.suffix.upper()))
    output = stopped(run, name, root)
    assert f"1 pictures missing: '{missing_id(name, picture)}" in output
    other = picture.with_suffix(picture.suffix.upper()).relative_to(root).as_posix()
    assert f"{other} is there: rename such files to end in {picture.suffix}" in output


def missing_id(name: str, picture: Path) -> str:
    if name == "domain-conversion":
        return "imgnet/imagenet-r/n1/toy_0.jpg"
    return str(int(picture.stem)) if picture.stem.isdigit() else picture.stem


def test_an_archive_left_packed_is_to_be_unpacked(run, download):
    name, root, _, picture = download
    with zipfile.ZipFile(root / "Pictures.ZIP", "w") as packed:
        packed.write(picture, picture.name)
    picture.unlink()
    assert "unpack 'Pictures.ZIP' first" in stopped(run, name, root)


def test_the_doctor_says_what_can_be_done(download):
    name, root, _, picture = download
    picture.rename(picture.with_suffix(picture.suffix.upper()))
    assert "rename such files to end in" in str(diagnose(name.replace("-", "_"), root, "val"))


@pytest.mark.parametrize(
    ("make", "name", "file", "key", "other"),
    [
        (make_cirr, "cirr", "captions/cap.rc2.val.json", "reference", "dev-999-0-img0"),
        (make_fashioniq, "fashioniq", "captions/cap.shirt.val.json", "candidate", "B99999"),
    ],
)
def test_captions_of_another_version_than_the_split_are_to_be_downloaded_together(
    run, tmp_path, make, name, file, key, other
):
    root = make(tmp_path)
    queries = json.loads((root / file).read_text(encoding="utf-8"))
    queries[2][key] = other
    (root / file).write_text(json.dumps(queries), encoding="utf-8")
    output = stopped(run, name, root)
    assert f"entry 2: names '{other}', which split." in output
    assert "the two are of different versions: download both again" in output
