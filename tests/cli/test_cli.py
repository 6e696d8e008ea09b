"""The command line from outside: what it prints, what it writes, how it ends."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fakes import FakeEncoder, awkward_folder, model_config
from image2sentence import __version__, encoders
from image2sentence.cli.main import INTERRUPTED, cli
from image2sentence.cli.options import GALLERY_NAME, GALLERY_VARIABLE, training_extra
from image2sentence.cli.search_history import STATE_VARIABLE
from image2sentence.encoders.config import LearnerConfig, Preprocessing
from image2sentence.errors import ModelError

Run = Callable[..., Result]

CONFIG = model_config(
    learner=LearnerConfig(tokens=2),
    gallery_preprocessing=Preprocessing(224),
    query_preprocessing=Preprocessing(128, resample="bilinear"),
    query_fingerprint="query-print",
)


class Model(FakeEncoder):
    """The fake encoder with a config and a vocabulary."""

    vocabulary = ("red", "blue", "green", "white", "purple", "shirt", "a", "but", "in", "striped")
    config = CONFIG

    def __init__(self) -> None:
        super().__init__()
        self.folder = SimpleNamespace(path=Path("model"), bytes=12_300_000)

    def unknown_words(self, text: str) -> list[str]:
        return [word for word in text.split() if word not in self.vocabulary]

    def known_words(self) -> Sequence[str]:
        return sorted(self.vocabulary)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model that every command loads."""
    fake = Model()
    monkeypatch.setattr(encoders, "load_encoder", lambda *_, **__: fake)
    return fake


@pytest.fixture
def run(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, without a gallery in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(GALLERY_VARIABLE, raising=False)

    def command(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == code, result.output
        return result

    return command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of one colour each; "photo.jpg" beside them has the content of the red one."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "blue", "green", "white"):
        Image.new("RGB", (40, 30), colour).save(folder / f"{colour}.png")
    (tmp_path / "photo.png").write_bytes((folder / "red.png").read_bytes())
    return folder


@pytest.fixture
def indexed(run: Run, photos: Path) -> Run:
    """As `run`, after `photos` have been indexed."""
    run("index", "photos")
    return run


def _found(result: Result) -> list[str]:
    return [Path(entry["path"]).stem for entry in json.loads(result.stdout)["results"]]


def test_version(run: Run) -> None:
    assert run("--version").stdout.strip() == f"image2sentence, version {__version__}"


def test_catalogue_draws_pictures_and_their_table(run: Run, tmp_path: Path) -> None:
    result = run("catalogue", "out", "--count", "3", "--seed", "1", "--size", "64")
    assert "3 pictures in out" in result.stdout
    with open(tmp_path / "out" / "attributes.csv", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [Image.open(tmp_path / "out" / row["file"]).size for row in rows] == [(64, 64)] * 3


def test_index_counts_and_the_second_run_encodes_nothing(run: Run, photos: Path, model: Model) -> None:
    first = run("index", "photos", "--gallery", "g").stdout
    assert "found 4 · encoded 4 · unchanged 0 · moved 0 · duplicates 0 · deleted 0 · failed 0" in first
    assert "gallery g: 4 pictures" in first
    assert "encoded 0 · unchanged 4" in run("index", "photos", "--gallery", "g").stdout
    assert model.encoded == 4


def test_index_names_every_awkward_file_with_its_reason(run: Run, tmp_path: Path) -> None:
    ready, failing = awkward_folder(tmp_path / "odd")
    if os.geteuid() == 0:
        ready.add("unreadable.jpg")
        del failing["unreadable.jpg"]
    printed = run("index", "odd").stdout
    for name, reason in failing.items():
        assert any(name in line and reason in line for line in printed.splitlines()), (name, reason)
    report = json.loads(run("index", "odd", "--json").stdout)
    assert report["pictures"] == report["unchanged"] == len(ready)
    assert {Path(path).name for path, _ in report["failed"]} == set(failing)


def test_index_lists_twenty_reasons_and_says_where_the_rest_is(run: Run, photos: Path) -> None:
    for number in range(23):
        (photos / f"bad{number}.png").write_bytes(b"")
    printed = run("index", "photos").stdout
    assert printed.count("the file is empty") == 20
    assert "and 3 more; --json lists all" in printed


def test_an_interrupted_run_says_that_it_can_go_on(
    run: Run, photos: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(images: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "encode_images", interrupted)
    result = run("index", "photos", code=INTERRUPTED)
    assert result.stderr.strip().splitlines()[-1].startswith("Interrupted. What was finished is kept")


def test_search_with_picture_and_words_in_short_form(indexed: Run) -> None:
    lines = indexed("search", "photo.png", "blue").stdout.splitlines()
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith(os.path.join("photos", "blue.png"))
    assert len(lines) == 3  # the red picture is the reference itself


def test_lines_of_larger_galleries_say_how_well_they_fit(run: Run, photos: Path) -> None:
    for shade in range(12):
        Image.new("RGB", (40, 30), (20 * shade, 0, 90)).save(photos / f"shade{shade}.png")
    run("index", "photos")
    lines = run("search", "--text", "blue", "-k", "20").stdout.splitlines()
    words = [re.fullmatch(r" +\d+  -?\d\.\d{3}  (fits|near|far )  \S+", line) for line in lines]
    assert len(words) > 12
    assert all(words), lines


def test_long_form_asks_the_same(indexed: Run) -> None:
    short = _found(indexed("search", "photo.png", "blue", "--json"))
    assert short == _found(indexed("search", "--image", "photo.png", "--text", "blue", "--json"))
    assert short == _found(indexed("search", "photo.png", "--text", "blue", "--json"))


def test_search_with_a_picture_alone_finds_that_picture(indexed: Run) -> None:
    assert _found(indexed("search", "photo.png", "--json"))[0] == "red"


def test_search_with_words_alone(indexed: Run) -> None:
    assert _found(indexed("search", "green", "--json"))[0] == "green"
    assert len(_found(indexed("search", "--text", "green", "-k", "2", "--json"))) == 2


def test_several_pictures_are_asked_together(indexed: Run) -> None:
    both = _found(indexed("search", "--image", "photos/blue.png", "--image", "photos/green.png", "--json"))
    assert set(both[:2]) == {"blue", "green"}


def test_json_says_how_long_each_stage_took(indexed: Run) -> None:
    document = json.loads(indexed("search", "photo.png", "blue", "--json").stdout)
    assert document["query"] == {"images": ["photo.png"], "text": "blue"}
    timing = document["timing"]
    assert list(timing) == ["load_ms", "read_ms", "encode_ms", "search_ms", "total_ms"]
    assert timing["total_ms"] >= timing["load_ms"] >= 0
    assert [entry["rank"] for entry in document["results"]] == [1, 2, 3]


def test_timing_goes_to_standard_error(indexed: Run) -> None:
    result = indexed("search", "photo.png", "blue", "--timing")
    assert "encode" in result.stderr
    assert "total" in result.stderr
    assert " ms" not in result.stdout


def test_words_that_are_not_understood_are_said_with_near_spellings(indexed: Run) -> None:
    result = indexed("search", "photo.png", "purpel shirt")
    assert result.stderr.strip() == "not understood: 'purpel' (near: purple)"
    document = json.loads(indexed("search", "qqqq shirt", "--json").stdout)
    assert document["not_understood"] == [{"word": "qqqq", "near": []}]


def test_sheet(indexed: Run, tmp_path: Path) -> None:
    (tmp_path / "photos" / "white.png").unlink()  # indexed, but gone when the sheet is drawn
    indexed("search", "photo.png", "blue", "--sheet", "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width > 600
    failed = indexed("search", "photo.png", "blue", "--sheet", "sheet.nothing", code=1)
    assert "cannot write the sheet sheet.nothing" in failed.stderr
    before = (tmp_path / "photo.png").read_bytes()
    failed = indexed("search", "photo.png", "blue", "--sheet", "photo.png", code=1)
    assert "would overwrite the picture photo.png" in failed.stderr
    assert (tmp_path / "photo.png").read_bytes() == before
    assert not list(tmp_path.glob(".*sheet*"))


def test_like_asks_with_a_result_of_the_last_search(indexed: Run, tmp_path: Path) -> None:
    lines = indexed("search", "green", "-k", "3").stdout.splitlines()
    second = Path(lines[1].split()[-1]).stem
    assert _found(indexed("search", "--like", "2", "--json"))[0] == second
    assert "has no result 7 (it showed ranks 1 to 4)" in indexed("search", "--like", "7", code=1).stderr
    paged = indexed("search", "green", "-k", "2", "--offset", "2", "--json")
    assert _found(indexed("search", "--like", "4", "--json"))[0] == _found(paged)[1]


def test_like_with_words_leaves_the_asked_result_out(indexed: Run) -> None:
    assert _found(indexed("search", "photo.png", "--json"))[0] == "red"
    found = _found(indexed("search", "--like", "1", "blue", "--json"))
    assert found[0] == "blue"
    assert "red" not in found


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "9" * 5_000])
def test_a_damaged_memory_of_the_last_search_is_named(
    indexed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    indexed("search", "green")
    (file,) = (path for path in (tmp_path / "state").rglob("*") if path.is_file())
    file.write_text(content)
    assert "cannot be read" in indexed("search", "--like", "1", code=1).stderr


def test_words_that_are_no_text_are_refused(indexed: Run) -> None:
    for command in (
        ["search", "\udcff red"],
        ["search", "red", "--not", "\udcff"],
        ["bench", "--words", "\udcff"],
    ):
        assert "expected words in UTF-8" in indexed(*command, code=1).stderr


def test_like_needs_a_last_search_of_this_gallery(indexed: Run, tmp_path: Path, photos: Path) -> None:
    assert "none is known" in indexed("search", "--like", "1", code=1).stderr
    indexed("search", "green")
    indexed("index", "photos", "--gallery", "other")
    assert "none is known" in indexed("search", "--like", "1", "--gallery", "other", code=1).stderr
    shutil.rmtree(tmp_path / GALLERY_NAME)
    indexed("index", "photos")  # another gallery in the same place
    assert "none is known" in indexed("search", "--like", "1", code=1).stderr


def test_what_is_remembered_is_ranks_only_and_for_nobody_else(
    indexed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    indexed("search", "photo.png", "green")
    (file,) = (tmp_path / "state" / "last").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert set(json.loads(file.read_text())) == {"gallery", "ranks"}
    file.write_text("{")
    assert "delete it, and search again" in indexed("search", "--like", "1", code=1).stderr
    file.write_text('{"gallery": 1, "ranks": [1]}')
    assert "none is known" in indexed("search", "--like", "1", code=1).stderr


def test_a_state_folder_that_cannot_be_made_is_said_and_no_failure(
    indexed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "file"))
    result = indexed("search", "green")
    assert "--like cannot refer to this search" in result.stderr
    assert result.stdout


def test_items_weights_and_balance(indexed: Run) -> None:
    ids = {
        Path(entry["path"]).stem: str(entry["id"])
        for entry in json.loads(indexed("search", "green", "--json").stdout)["results"]
    }
    both = ("search", "--item", ids["blue"], "--item", ids["green"], "--json")
    assert _found(indexed(*both, "--weights", "9,1"))[0] == "blue"
    assert _found(indexed(*both, "--weights", "1,9"))[0] == "green"
    assert "needs one number for each of the 2 pictures" in indexed(*both, "--weights", "1", code=2).stderr
    assert "weight is a number greater than 0" in indexed(*both, "--weights", "1,-1", code=1).stderr
    assert _found(indexed("search", "photo.png", "blue", "--balance", "1", "--json"))[0] == "blue"
    assert "has no picture 999" in indexed("search", "--item", "999", code=1).stderr


def test_copies_are_hidden_and_counted(indexed: Run, photos: Path) -> None:
    (photos / "red too.png").write_bytes((photos / "red.png").read_bytes())
    indexed("index", "photos")
    lines = indexed("search", "photo.png", "--near-duplicates", "1").stdout.splitlines()
    assert lines[0].endswith("(1 alike hidden)")
    assert len(lines) == 4


def test_negation_in_words_points_to_not(indexed: Run) -> None:
    shown = indexed("search", "a shirt without red in it")
    assert "hint: 'without red' does not keep 'red' away" in shown.stderr
    assert "--not 'red'" in shown.stderr
    (hint,) = json.loads(indexed("search", "a shirt, not red", "--json").stdout)["hints"]
    assert (hint["kind"], hint["not"]) == ("negation", "red")
    assert json.loads(indexed("search", "a red shirt", "--json").stdout)["hints"] == []


def test_nothing_fits(run: Run) -> None:
    run("catalogue", "shop", "--count", "12", "--seed", "1", "--size", "48")
    run("index", "shop/images")
    document = json.loads(run("search", "red", "--min-fit", "1000", "--json").stdout)
    assert (document["fits"], document["results"]) == (False, [])
    notes = run("search", "red", "--min-fit", "1000").stderr
    assert f"the best has a fit of {document['best_fit']:.2f}" in notes


def test_filters_and_what_is_not_wanted(indexed: Run, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text("file,price\nred.png,5\nblue.png,50\n")
    indexed("index", "photos", "--metadata", "prices.csv")
    cheap = indexed("search", "green", "--where", "price < 10", "--json")
    assert _found(cheap) == ["red"]
    assert json.loads(cheap.stdout)["results"][0]["metadata"] == {"price": 5}
    assert "that fulfils --where" in indexed("search", "green", "--where", "price > 99").stderr
    plain = _found(indexed("search", "green", "--json"))
    for option in (("--not", "white"), ("--not-image", "photos/white.png")):
        wary = _found(indexed("search", "green", *option, "--json"))
        assert wary.index("white") >= plain.index("white")
        assert wary[-1] == "white"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a picture, words, or both"),
        (("missing.jpg",), "there is no picture 'missing.jpg'"),
        (("missing.jpg", "but red"), "there is no picture 'missing.jpg'"),
        (("but", "red"), "put them in one pair of quotes"),
        (("photo.png", "photos/red.png"), "is a picture, not words"),
        (("photo.png", "but", "red"), "put the words in quotes"),
        (("red", "--text", "blue"), "words are given twice"),
        (("notes",), "not named like a picture"),
    ],
)
def test_unclear_queries_are_refused(
    indexed: Run, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "notes").write_text("some words")
    result = indexed("search", *arguments, code=2)
    assert message in " ".join(result.stderr.split())


def test_an_unreadable_reference_is_an_error(indexed: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    result = indexed("search", "broken.jpg", "red", code=1)
    assert result.stderr.startswith("Error: broken.jpg: its content is not a")


def test_the_gallery_is_found_upwards_and_by_the_environment(
    indexed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (tmp_path / GALLERY_NAME).is_dir()
    monkeypatch.chdir(tmp_path / "photos")
    assert _found(indexed("search", "green", "--json"))[0] == "green"
    monkeypatch.setenv(GALLERY_VARIABLE, str(tmp_path / "elsewhere"))
    assert "there is no gallery in" in indexed("search", "green", code=1).stderr


def test_without_a_gallery_the_error_says_what_to_do(run: Run) -> None:
    result = run("search", "green", code=1)
    assert "image2sentence index PICTURES" in result.stderr
    assert "Traceback" not in result.stderr


def test_info(indexed: Run, tmp_path: Path) -> None:
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    indexed("index", "photos")
    about = json.loads(indexed("info", "--json").stdout)
    assert about["model"]["tokens"] == 2
    assert about["model"]["megabytes"] == 12.3
    assert about["model"]["fingerprint"] == about["gallery"]["fingerprint"] == FakeEncoder.fingerprint
    assert (about["gallery"]["pictures"], about["gallery"]["failed"]) == (4, 1)
    assert about["gallery"]["roots"] == [str(tmp_path / "photos")]
    assert {"python", "onnxruntime", "numpy", "pillow"} <= set(about["versions"])
    assert "a light model" in indexed("info").stdout


def test_info_without_a_gallery_is_no_error(run: Run) -> None:
    assert "makes one" in run("info").stdout


def test_info_tells_a_gallery_of_another_model(indexed: Run, model: Model) -> None:
    model.fingerprint = "another"
    assert "made with another model" in indexed("info", code=1).stdout
    assert "was made with the encoder" in indexed("search", "green", code=1).stderr


def test_info_tells_what_is_wrong_with_the_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModelError("the model is damaged")

    monkeypatch.setattr(encoders, "load_encoder", refuse)
    assert "the model is damaged" in run("info", code=1).stdout


def test_evaluate_attributes_prints_all_rows_and_writes_the_report(run: Run, tmp_path: Path) -> None:
    run("catalogue", "shop", "--count", "60", "--seed", "1", "--size", "48")
    asked = (
        "evaluate",
        "attributes",
        "--data",
        "shop",
        "--change",
        "colour",
        "--keep",
        "type",
        "--json",
        "r.json",
    )
    printed = run(*asked, "--queries-per-image", "2", "--template", "but {value}").stdout
    for row in ("image only", "text only", "image + text sum", "composed", "full text of the right answer"):
        assert f"\n{row}" in printed
    assert "modifier template: but {value}" in printed
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["facts"]["light model"] == "a light model"
    assert report["facts"]["queries per image"] == "2"


def test_evaluate_attributes_adds_rows_of_other_models_and_draws(run: Run, tmp_path: Path) -> None:
    run("catalogue", "shop", "--count", "24", "--seed", "1", "--size", "48")
    asked = ("evaluate", "attributes", "--data", "shop", "--change", "colour", "--keep", "background")
    result = run(
        *asked, "--also", "mapper = m1", "--also", "symmetric=m2", "--pictures", "p", "--json", "r.json"
    )
    assert result.stdout.count("\nmapper ") == result.stdout.count("\nsymmetric ") == 1
    assert "row mapper: a light model, L = 2" in result.stdout
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert {"mapper-wrong.png", "symmetric-wrong.png", "composed-wrong.png"} <= names
    compared = run(
        "evaluate", "compare", "r.json", "r.json", "--row", "composed", "--other-row", "mapper"
    ).stdout
    assert "composed | mapper  mAP@10" in compared
    assert "+0.0 [+0.0, +0.0]" in compared


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (["mapper"], "expected ROW=DIR"),
        (["=m1"], "expected ROW=DIR"),
        (["composed=m1"], "row 'composed' is there already"),
        (["mapper=m1", "mapper=m2"], "row 'mapper' is there already"),
    ],
)
def test_other_models_are_named_once_each(run: Run, also: list[str], message: str) -> None:
    asked = ("evaluate", "attributes", "--data", ".", "--change", "colour", "--keep", "type")
    options = [part for text in also for part in ("--also", text)]
    assert message in run(*asked, *options, code=2).stderr


def test_comparing_what_is_no_report(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    assert "expected a report of format 1" in run("evaluate", "compare", "a.json", "a.json", code=1).stderr
    assert "cannot be read" in run("evaluate", "compare", "b.json", "b.json", code=1).stderr
    assert (
        "--other-row needs --row"
        in run("evaluate", "compare", "a.json", "a.json", "--other-row", "x", code=2).stderr
    )


def test_evaluate_attributes_with_an_unknown_column(run: Run) -> None:
    run("catalogue", "shop", "--count", "5", "--seed", "1", "--size", "48")
    asked = ("evaluate", "attributes", "--data", "shop", "--change", "shape", "--keep", "type")
    assert "has no attribute 'shape'" in run(*asked, code=1).stderr


def test_data_doctor_says_what_is_missing(run: Run) -> None:
    result = run("data", "doctor", "cirr", "--root", "nowhere", "--split", "val", code=1)
    assert "cirr val: not ready" in result.stdout
    assert "unknown benchmark" in run("data", "doctor", "sirr", "--root", "nowhere", code=1).stderr


def test_missing_training_packages_are_named() -> None:
    def missing(name: str) -> None:
        with training_extra():
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    with pytest.raises(click.ClickException, match=r"needs torch.*image2sentence\[train\]"):
        missing("torch")
    with pytest.raises(ModuleNotFoundError):
        missing("something_else")


def test_a_folder_without_pictures_is_told_apart(run: Run, tmp_path: Path) -> None:
    (tmp_path / "phone").mkdir()
    for name in ("film.MOV", "FILM_2.mov", "notes.txt", "noending"):
        (tmp_path / "phone" / name).write_bytes(b"something else")
    result = run("index", "phone", "--gallery", "g")
    assert "passed over 4 files without a picture's ending: .mov 2, none 1, .txt 1" in result.stdout
    assert "no pictures found; their names end in .3fr" in result.stderr
    assert "the gallery is empty" in run("search", "red", "--gallery", "g").stderr
