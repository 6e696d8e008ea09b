"""The tables of the paper's kind in miniature: made-up pictures, a small BLIP with random weights, two steps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed: the recipe trains")

from fakes import photo
from image2sentence.catalogue import write_catalogue
from image2sentence.cli.main import cli
from image2sentence.evaluation.submissions import check_circo_submission, check_cirr_submission
from image2sentence.training import train as run
from image2sentence.training.models.light_encoders import LIGHT
from image2sentence.training.presets import read_preset
from made_up_benchmarks import make_circo, make_cirr, make_fashioniq, write
from recipes.paper import stages
from recipes.paper.__main__ import main
from recipes.paper.report import BASELINES, FACTS, benchmark_table
from recipes.paper.tables import LENGTHS, PRESET, PRESET_LENGTH, PRESET_LIGHT, TABLES
from tiny_vl import save_tiny_vl

SMALL = ("steps=2", "batch=4", "lar_batch=2", "validation=2", "warmup=1", "precision=no")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VL model, pictures to train on, words, and three benchmarks with their hidden splits."""
    folder = tmp_path_factory.mktemp("paper")
    save_tiny_vl("blip", folder / "vl", length=64)
    write_catalogue(folder / "catalogue", 12, seed=3, size=64)
    (folder / "titles.txt").write_text("a red shirt\na blue mug\n")
    (folder / "changes.txt").write_text("in red\nin blue\n")
    for split in ("val", "test1"):
        make_cirr(folder / "cirr", split)
    make_fashioniq(folder / "fashioniq")
    for split in ("val", "test"):
        make_circo(folder / "circo", split)
    return folder


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The product's commands that a table runs, here in this process."""
    asked: list[list[str]] = []

    def here(arguments: Sequence[str], processes: int = 1) -> None:
        asked.append([arguments[0], *(one for one in arguments if one.startswith(("--out", "--json")))])
        cli.main(list(arguments), standalone_mode=False)

    monkeypatch.setattr(stages, "run_image2sentence", here)
    return asked


@pytest.fixture
def make(material: Path) -> Callable[..., str]:
    """Runs the recipe; all tests write to one folder, so that what tables have in common is trained once."""

    def invoke(table: str, *more: str, benchmarks: Sequence[str] = ("fashioniq",), code: int = 0) -> str:
        result = CliRunner().invoke(
            main,
            [
                *(table, f"--pictures={material / 'catalogue' / 'images'}", f"--vl={material / 'vl'}"),
                *(f"--{name}={material / name}" for name in benchmarks),
                *("--light=tiny/32", f"--out={material / 'out'}"),
                *(f"--set={change}" for change in SMALL),
                *more,
            ],
        )
        assert result.exit_code == code, result.output + str(result.exception)
        return result.stdout if code == 0 else result.output

    return invoke


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
def test_every_row_is_a_training_that_can_be_asked_for(table) -> None:
    assert len({row.name for row in table.rows}) == len(table.rows)
    for row in table.rows:
        run.read_settings(None, dict(row.changes), read_preset(row.preset))
        light = (row.light or read_preset(row.preset).light).partition("@")[0]
        assert light == "symmetric" or light in LIGHT


def test_all_rows_are_trained_by_the_preset_and_measured_in_one_report(tmp_path) -> None:
    plan = stages.Plan(Path("photos"), {"cirr": Path("cirr")}, tmp_path, "some/blip", changes=["steps=9"])
    for table in TABLES.values():
        rows = plan.rows(table)
        assert [row for row in table.rows if row.words] == [row for row in table.rows if row not in rows]
        report = stages.evaluate_command(plan, table, "cirr", tmp_path / "r.json")
        assert f"--model={plan.folder(rows[0], 0) / 'model'}" in report
        for row in rows[1:]:
            assert f"--also={row.name}-0={plan.folder(row, 0) / 'model'}" in report
    row = TABLES["lengths"].rows[-1]
    command = stages.train_command(plan, row, 0)
    assert command[:4] == ["train", "photos", "--preset=paper", "--vl=some/blip"]
    assert command[-2:] == [f"--set=learner.tokens={LENGTHS[-1]}", "--set=steps=9"]
    assert "--light=mobilenet-v2@google/mobilenet_v2_1.0_224" in stages.train_command(
        plan, TABLES["light"].rows[2], 0
    )


def test_rows_say_what_the_preset_says() -> None:
    preset = read_preset(PRESET)
    assert (preset.light, preset.settings["learner"]["tokens"]) == (PRESET_LIGHT, PRESET_LENGTH)
    assert PRESET_LENGTH in LENGTHS


def test_one_command_makes_tables_and_submissions_and_goes_on_where_it_stopped(
    make, material, commands, monkeypatch
) -> None:
    words = (f"--phrases={material / 'titles.txt'}", f"--modifiers={material / 'changes.txt'}")
    every = ("cirr", "fashioniq", "circo")
    whole, out = stages.train, material / "out"

    def interrupted(plan, row, seed) -> None:
        if row.title == "single-word mapper":
            raise KeyboardInterrupt
        whole(plan, row, seed)

    monkeypatch.setattr(stages, "train", interrupted)
    make("benchmarks", *words, benchmarks=every, code=1)
    monkeypatch.setattr(stages, "train", whole)
    printed = make("benchmarks", *words, benchmarks=every)
    text = (out / "benchmarks" / "tables.md").read_text()
    assert printed.endswith(text + "\n")
    trained = [Path(one[1].partition("=")[2]).name for one in commands if one[0] == "train"]
    assert trained == ["paper-preset-0", "single-word-mapper-0", f"{SYMMETRIC_NAME}-0", "default-preset-0"]
    for title in ("### cirr", "### fashioniq", "### circo", "| image + text sum |", "| BASIC |"):
        assert title in text
    assert check_cirr_submission(out / "benchmarks" / "cirr-test1" / "recall.json", material / "cirr")
    check_circo_submission(out / "benchmarks" / "circo-test.json", material / "circo")
    parts = json.loads((out / "benchmarks" / "fashioniq.json").read_text())
    mapper = [
        line for line in text.partition("### fashioniq")[2].splitlines() if line.startswith("| single-word")
    ]
    mean = parts["mean"]["single-word-mapper-0"]["recall@10"]
    assert f"| {mean['mean']:.1f} ({mean['low']:.1f} to {mean['high']:.1f}) |" in mapper[0]

    commands.clear()
    assert make("benchmarks", *words, benchmarks=every) == text + "\n"
    assert commands == [], "what is done is not done again"
    refused = make("benchmarks", *words, "--set=steps=3", benchmarks=every, code=1)
    assert "was made by another command" in refused


SYMMETRIC_NAME = "the-vl-model-s-own-tower-in-front"


def test_a_table_says_what_was_changed_and_what_left_out(make, commands, monkeypatch) -> None:
    losses = TABLES["losses"]
    monkeypatch.setitem(TABLES, "losses", replace(losses, rows=(*losses.rows[:3], losses.rows[-1])))
    text = make("losses", "--seeds=2")
    for row in losses.rows[:3]:
        assert f"\n| {row.title} | " in text
    assert "seeds: 2. Changed in every row: steps=2, " in text
    assert "Not trained, as --phrases and --modifiers were not given: pseudo-captions in place of LAR" in text


def test_a_row_is_the_mean_of_its_seeds(tmp_path) -> None:
    rows = {
        "composed": [100.0, 0.0],
        "paper-preset-1": [0.0, 0.0],
        "l-1-0": [100.0, 100.0],
        "l-1-1": [100.0, 0.0],
    }
    document = {
        "facts": dict.fromkeys(FACTS, "x"),
        "rows": [
            {"name": name, "values": {"recall@1": own, "recall@2": own, "recall@3": own}}
            for name, own in (rows | {name: [0.0, 0.0] for name in BASELINES}).items()
        ],
    }
    write(tmp_path / "r.json", document)
    text = benchmark_table("genecis", tmp_path / "r.json", TABLES["lengths"].rows[:2], 2)
    assert "| paper preset | 25.0 (0.0 to 50.0) |" in text
    assert "| L 1 | 75.0 (50.0 to 100.0) |" in text


def test_hours_are_estimated_by_a_timing_step_that_leaves_nothing(
    make, commands, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(TABLES, "light", replace(TABLES["light"], rows=TABLES["light"].rows[:1]))
    text = make("light", "--estimate", f"--out={tmp_path / 'out'}", benchmarks=("cirr",))
    stages_named = [line.split(" h  ")[1] for line in text.splitlines() if " h  " in line]
    assert stages_named == [
        "gallery vectors of the training pictures",
        "train paper preset",
        "evaluate cirr",
        "together",
    ]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_picture_stops_before_anything_is_trained(make, commands, material) -> None:
    file = material / "fashioniq" / "images" / "B10003.png"
    data = file.read_bytes()
    file.unlink()
    try:
        assert "1 pictures missing: 'B10003'" in make("lengths", code=1)
    finally:
        file.write_bytes(data)
    assert commands == []


def test_the_real_annotations_with_made_up_pictures(
    shared_data, make, commands, tmp_path, monkeypatch
) -> None:
    """CIRR's and CIRCO's val splits as they are published; a few noise pictures stand for all of theirs."""
    annotations = shared_data / "annotations"
    if not annotations.is_dir():
        pytest.skip(f"no annotations of public benchmarks: {annotations} is missing")
    noise = [tmp_path / f"{number}.png" for number in range(24)]
    for number, file in enumerate(noise):
        photo(number).save(file)
    cirr, circo = tmp_path / "cirr", tmp_path / "circo"
    for name, folder in (("cap", "captions"), ("split", "image_splits")):
        text = (annotations / "cirr" / f"{name}.rc2.val.json").read_text()
        write(cirr / folder / f"{name}.rc2.val.json", text)
    places = json.loads((annotations / "cirr" / "split.rc2.val.json").read_text()).values()
    lay_out(noise, [cirr / place for place in places])
    write(circo / "annotations" / "val.json", (annotations / "circo" / "val.json").read_text())
    queries = json.loads((annotations / "circo" / "val.json").read_text())
    numbers = {n for one in queries for n in (one["reference_img_id"], *one["gt_img_ids"])}
    lay_out(noise, [circo / "COCO2017_unlabeled/unlabeled2017" / f"{n:012d}.jpg" for n in sorted(numbers)])
    monkeypatch.setitem(TABLES, "mappers", replace(TABLES["mappers"], rows=TABLES["mappers"].rows[:2]))
    text = make("mappers", f"--cirr={cirr}", f"--circo={circo}", benchmarks=())
    assert "gallery size 2297; query count 4181" in text
    assert f"gallery size {len(numbers)}; query count 220" in text


def lay_out(noise: Sequence[Path], places: Sequence[Path]) -> None:
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(noise[number % len(noise)], place)
