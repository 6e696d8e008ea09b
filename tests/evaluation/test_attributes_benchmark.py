"""The attribute-change benchmark on a catalogue of eight pictures; its rows with an encoder made of words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2sentence.encoders.protocols import Encoder
from image2sentence.errors import ConfigError, DataError, ModelError
from image2sentence.evaluation.datasets.attributes import (
    attribute_queries,
    caption,
    hold_out,
    load_catalogue,
    modifier,
    reported_and_tuning,
)
from image2sentence.evaluation.evaluate import evaluate, evaluate_attributes, folder_opener
from image2sentence.evaluation.report import (
    ModelDescription,
    as_text,
    compare_documents,
    compare_runs,
    differing_facts,
    facts,
    write_document,
)

TYPES = ("bag", "cap")
COLOURS = ("red", "blue", "green")
WORDS = (*TYPES, *COLOURS)
PICTURES = [
    ("1.png", "train", "bag", "red"),
    ("2.png", "train", "bag", "blue"),
    ("3.png", "val", "bag", "red"),
    ("4.png", "val", "bag", "blue"),
    ("5.png", "val", "bag", "blue"),
    ("6.png", "val", "cap", "red"),
    ("7.png", "val", "cap", "green"),
    ("8.png", "val", "cap", ""),
]


def write_table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def table(rows: Sequence[Sequence[str]] = PICTURES) -> str:
    return "\n".join(",".join(row) for row in [("file", "split", "type", "colour"), *rows]) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight pictures whose pixels spell their labels: red is the type's place, green the colour's."""
    for file, _, kind, colour in PICTURES:
        place = COLOURS.index(colour) if colour else 99
        Image.new("RGB", (8, 8), (TYPES.index(kind), place, 0)).save(tmp_path / file)
    return write_table(tmp_path, table())


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def words_of(image: Image.Image) -> np.ndarray:
    kind, colour, _ = image.getpixel((0, 0))
    vector = np.zeros(len(WORDS), dtype=np.float32)
    vector[kind] = 1
    if colour < len(COLOURS):
        vector[len(TYPES) + colour] = 1
    return vector


def words_in(text: str) -> np.ndarray:
    # The small constant keeps a text of unknown words from being a zero vector.
    return np.array([float(word in text.split()) for word in WORDS], dtype=np.float32) + 1e-3


class WordEncoder:
    """One dimension per word; a composed query keeps the type and takes the colour that the words ask for."""

    def __init__(self, fingerprint: str = "words", obeys: bool = True) -> None:
        self.fingerprint = fingerprint
        self.width = len(WORDS)
        self.obeys = obeys
        self.large = 0

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        self.large += len(images)
        return unit(np.stack([words_of(image) for image in images]))

    def encode_sentences(self, images: Sequence[Image.Image]) -> np.ndarray:
        return np.stack([words_of(image) for image in images])[:, None]

    def encode_queries(self, sentences: np.ndarray | None, texts: Sequence[str]) -> np.ndarray:
        asked = np.stack([words_in(text) for text in texts])
        if sentences is None:
            return unit(asked)
        shown = sentences[:, 0].copy()
        if self.obeys:
            shown[:, len(TYPES) :] = asked[:, len(TYPES) :]
        return unit(shown)


# The catalogue


def test_a_catalogue_is_read_with_its_splits(folder):
    catalogue = load_catalogue(folder)
    assert catalogue.columns == ("file", "split", "type", "colour")
    assert catalogue.splits() == ("train", "val")
    assert [row["file"] for row in catalogue.of_split("train")] == ["1.png", "2.png"]
    assert catalogue.path("1.png").is_file()
    with pytest.raises(DataError, match=r"no split 'test' \(splits: train, val\)"):
        catalogue.of_split("test")


def test_tables_without_files_are_passed_over_and_byte_order_marks_are_read(folder):
    write_table(folder, "name,price\nx,1\n", "prices.csv")
    (folder / "labels.csv").write_bytes(b"\xef\xbb\xbf" + table().encode())
    assert len(load_catalogue(folder).rows) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (table([*PICTURES, PICTURES[0]]), "duplicate file '1.png'"),
        (table([("1.png", "val", "bag")]), "line 2: expected 4 cells as in the header, got 3"),
        (table([("9.png", "val", "bag", "red")]), "names 1 missing pictures: '9.png'"),
        (table([("../1.png", "val", "bag", "red")]), "'../1.png' should be a path inside"),
        (table([("/1.png", "val", "bag", "red")]), "'/1.png' should be a path inside"),
        ("file,type,type\n1.png,a,b\n", "column 'type' occurs twice"),
        ("file,type\n", "no rows below the header"),
        ("name,type\n1.png,a\n", "expected one CSV with a 'file' column, found none"),
        ('file,type\n1.png,"a\n', "malformed CSV"),
    ],
)
def test_damaged_tables_are_named(folder, text, message):
    with pytest.raises(DataError, match=message):
        load_catalogue(write_table(folder, text))


def test_two_tables_another_encoding_and_no_folder_are_refused(folder):
    write_table(folder, table(), "again.csv")
    with pytest.raises(DataError, match=r"found 'again.csv', 'labels.csv'"):
        load_catalogue(folder)
    (folder / "again.csv").unlink()
    (folder / "labels.csv").write_bytes("file,type\n1.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"labels.csv: expected UTF-8"):
        load_catalogue(folder)
    with pytest.raises(DataError, match="no folder"):
        load_catalogue(folder / "nowhere")


# Queries


def test_right_answers_keep_what_is_kept_and_change_what_is_changed(folder):
    benchmark = attribute_queries(load_catalogue(folder), "colour", "type", "val", queries_per_image=9)
    found = {query.id: query.answers for query in benchmark.queries}
    assert found == {
        "3.png|colour=blue": ("4.png", "5.png"),
        "4.png|colour=red": ("3.png",),
        "5.png|colour=red": ("3.png",),
        "6.png|colour=green": ("7.png",),
        "7.png|colour=red": ("6.png",),
        "8.png|colour=green": ("7.png",),
        "8.png|colour=red": ("6.png",),
    }
    assert all(query.reference not in query.answers for query in benchmark.queries)
    assert benchmark.gallery_ids == ("3.png", "4.png", "5.png", "6.png", "7.png", "8.png")
    assert benchmark.queries[0].texts == ("in blue",)
    assert benchmark.queries[0].caption == "blue bag"


def test_empty_values_are_asked_for_only_on_request(folder):
    catalogue = load_catalogue(folder)
    benchmark = attribute_queries(catalogue, "colour", "type", "val", queries_per_image=9, empty_targets=True)
    assert "6.png|colour=" in {query.id for query in benchmark.queries}


def test_the_number_of_queries_per_image_and_the_seed_hold(folder):
    catalogue = load_catalogue(folder)
    one = attribute_queries(catalogue, "colour", "type", "val")
    assert [query.reference for query in one.queries] == [
        "3.png",
        "4.png",
        "5.png",
        "6.png",
        "7.png",
        "8.png",
    ]
    assert one.queries == attribute_queries(catalogue, "colour", "type", "val").queries
    draws = {attribute_queries(catalogue, "colour", "type", "val", seed=seed).queries for seed in range(8)}
    assert len(draws) == 2


def test_a_reference_without_an_answer_is_counted(folder):
    rows = [row for row in PICTURES if row[0] in ("3.png", "4.png", "6.png")]
    benchmark = attribute_queries(load_catalogue(write_table(folder, table(rows))), "colour", "type")
    assert [query.reference for query in benchmark.queries] == ["3.png", "4.png"]
    assert (benchmark.references, benchmark.without_query) == (3, 1)
    assert benchmark.options["references without a query"] == "1 of 3"
    assert benchmark.split == "all"


def test_several_attributes_change_together(folder):
    benchmark = attribute_queries(load_catalogue(folder), "type,colour", "", "val", queries_per_image=9)
    found = {query.id: (query.answers, query.texts) for query in benchmark.queries}
    assert found["3.png|type=cap,colour=green"] == (("7.png",), ("as a cap and in green",))
    assert "3.png|type=cap,colour=red" not in found
    assert "3.png|type=bag,colour=blue" not in found


def test_words_of_modifiers_and_captions():
    assert modifier({"colour": "Navy Blue"}) == "in navy blue"
    assert modifier({"style": "fluent_3d"}) == "in fluent 3d style"
    assert modifier({"heel_height": "low"}) == "with heel height low"
    assert modifier({"colour": "red"}, "now {value}") == "now red"
    assert modifier({"colour": "red", "pattern": "dots"}, "{pattern} on {colour}") == "dots on red"
    row = {"type": "Tshirts", "colour": "Red", "season": ""}
    assert caption(row, ["colour", "type", "season"]) == "red tshirts"
    assert caption(row, ["colour", "type"], "{type} in {colour}") == "tshirts in red"
    with pytest.raises(ConfigError, match=r"should name \{pattern\}"):
        modifier({"colour": "red", "pattern": "dots"}, "in {colour}")


def test_impossible_questions_are_refused(folder):
    catalogue = load_catalogue(folder)
    with pytest.raises(DataError, match="no attribute 'color'; it has split, type, colour"):
        attribute_queries(catalogue, "color", "type")
    with pytest.raises(ConfigError, match="named twice"):
        attribute_queries(catalogue, "colour", "type,colour")
    with pytest.raises(ConfigError, match="at least one attribute"):
        attribute_queries(catalogue, "", "type")
    with pytest.raises(ConfigError, match="at least 1"):
        attribute_queries(catalogue, "colour", "type", queries_per_image=0)
    rows = [row for row in PICTURES if row[3] == "red"]
    with pytest.raises(DataError, match=r"no picture of split all has a right answer when colour changes"):
        attribute_queries(load_catalogue(write_table(folder, table(rows))), "colour", "type")


@pytest.mark.parametrize(("count", "held"), [(2, 2), (99, 3)])
def test_held_out_references_share_the_gallery_and_nothing_else(folder, count, held):
    whole = attribute_queries(load_catalogue(folder), "colour", "type", "val", queries_per_image=2)
    reported, tuning = hold_out(whole, count, seed=1)
    references = [{query.reference for query in part.queries} for part in (reported, tuning)]
    assert not references[0] & references[1]
    assert [len(names) for names in references] == [6 - held, held]
    assert len(reported.queries) + len(tuning.queries) == len(whole.queries)
    assert reported.gallery_ids == tuning.gallery_ids == whole.gallery_ids


def test_the_sum_is_tuned_on_other_pictures(folder):
    catalogue = load_catalogue(folder)
    reported, tuning = reported_and_tuning(catalogue, "colour", "type", "val")
    assert {query.reference for query in reported.queries} == {f"{number}.png" for number in range(3, 9)}
    assert tuning.gallery_ids == ("1.png", "2.png")
    reported, tuning = reported_and_tuning(catalogue, "colour", "type")
    assert not {query.reference for query in reported.queries} & {query.reference for query in tuning.queries}


# Rows


def test_rows_are_what_they_say(folder):
    encoder = WordEncoder()
    assert isinstance(encoder, Encoder)
    evaluation = evaluate_attributes(load_catalogue(folder), encoder, "colour", "type", "val")
    means = {row.name: row.scores.percent()["mAP@10"] for row in evaluation.rows}
    oracle = "full text of the right answer"
    assert list(means) == [
        "image only",
        "text only",
        "image + text sum",
        "composed",
        "full text of the right answer",
    ]
    assert means["composed"] == means[oracle] == 100.0
    assert max(means["image only"], means["text only"]) < 100.0
    assert set(evaluation.rows[0].scores.values) == {
        "recall@1",
        "recall@5",
        "recall@10",
        "recall@50",
        "mAP@10",
    }
    # The large encoder saw every picture of the reported and of the tuning gallery once.
    assert encoder.large == 6 + 2
    assert evaluation.compare("composed", "image only").mean > 0


def test_one_gallery_is_encoded_once_for_tuning_and_figures(folder):
    encoder = WordEncoder()
    evaluation = evaluate_attributes(load_catalogue(folder), encoder, "colour", "type")
    assert "not reported" in evaluation.tuned_on
    assert encoder.large == evaluation.gallery_size == 8


def test_the_best_weight_is_found_where_it_is_looked_for(folder):
    benchmark = attribute_queries(load_catalogue(folder), "colour", "type", "val")
    opener = folder_opener(benchmark, folder)
    evaluation = evaluate(benchmark, WordEncoder(), opener)
    means = {row.name: row.scores.percent()["mAP@10"] for row in evaluation.rows}
    assert means["image + text sum"] > max(means["image only"], means["text only"])
    assert 0 < (evaluation.weight or 0) < 1
    assert "favours the sum" in facts(evaluation, MODEL)["weight tuned on"]


def test_the_reference_leaves_the_ranking_unless_it_is_kept(folder):
    catalogue = load_catalogue(folder)
    first = {}
    for removed in (True, False):
        evaluation = evaluate_attributes(
            catalogue,
            WordEncoder(obeys=False),
            "colour",
            "type",
            "val",
            rows=["composed"],
            remove_reference=removed,
        )
        first[removed] = evaluation.row("composed").scores.values["recall@1"]
    # A query that ignores its words finds its own reference first, when that is there to find.
    assert first[False].sum() == 0.0
    assert first[True].sum() > 0.0


def test_composers_make_a_row_each_and_share_the_space(folder):
    catalogue = load_catalogue(folder)
    composers = {"ISA": WordEncoder(), "deaf": WordEncoder(obeys=False)}
    evaluation = evaluate_attributes(
        catalogue, WordEncoder(), "colour", "type", "val", rows=["composed"], composers=composers
    )
    assert [row.name for row in evaluation.rows] == ["ISA", "deaf"]
    assert evaluation.weight is None
    with pytest.raises(ModelError, match="row 'ISA' searches the space other, the gallery is of words"):
        evaluate_attributes(
            catalogue, WordEncoder(), "colour", "type", "val", composers={"ISA": WordEncoder("other")}
        )


def test_a_distortion_changes_references_and_not_the_gallery(folder):
    def as_cap(image: Image.Image) -> Image.Image:
        return Image.new("RGB", image.size, (TYPES.index("cap"), image.getpixel((0, 0))[1], 0))

    evaluation = evaluate_attributes(
        load_catalogue(folder), WordEncoder(), "colour", "type", "val", rows=["composed"], distort=as_cap
    )
    hits = dict(
        zip(
            [query.reference for query in evaluation.benchmark.queries],
            evaluation.row("composed").scores.values["recall@1"],
            strict=True,
        )
    )
    assert hits["6.png"] == hits["7.png"] == 1.0
    assert hits["4.png"] == hits["5.png"] == 0.0


def test_a_distorted_run_takes_gallery_and_weight_over_from_the_clean_one(folder):
    encoder = WordEncoder()
    reported, tuning = reported_and_tuning(load_catalogue(folder), "colour", "type", "val")

    def opener(file: str) -> Image.Image:
        return Image.open(folder / file).convert("RGB")

    clean = evaluate(reported, encoder, opener, tuning=tuning)
    before = encoder.large
    distorted = evaluate(reported, encoder, opener, distort=lambda image: image, clean=clean)
    assert encoder.large - before == len({query.reference for query in reported.queries})
    assert distorted.weight == clean.weight
    assert distorted.tuned_on == clean.tuned_on
    for name in ("image + text sum", "composed"):
        assert distorted.row(name).scores.percent() == clean.row(name).scores.percent()
    with pytest.raises(ModelError, match="another vector space"):
        evaluate(reported, WordEncoder("other"), opener, clean=clean)
    with pytest.raises(DataError, match="another gallery"):
        evaluate(tuning, encoder, opener, clean=clean)


@pytest.mark.parametrize(("texts", "hit"), [(("red",), 0.0), (("red", "cap"), 1.0)])
def test_several_phrasings_are_averaged(folder, texts, hit):
    benchmark = attribute_queries(load_catalogue(folder), "colour", "type", "val")
    query = next(query for query in benchmark.queries if query.id == "7.png|colour=red")
    asked = replace(benchmark, queries=(replace(query, texts=texts),))
    evaluation = evaluate(asked, WordEncoder(), folder_opener(asked, folder), rows=["text only"])
    # "red" alone finds the red bag before the red cap, which stands later in the gallery.
    assert evaluation.row("text only").scores.values["recall@1"].tolist() == [hit]


def test_missing_pictures_stop_before_anything_runs(folder):
    benchmark = attribute_queries(load_catalogue(folder), "colour", "type", "val")
    (folder / "4.png").unlink()
    with pytest.raises(DataError, match=r"1 pictures missing: '4.png'"):
        folder_opener(benchmark, folder)


def test_unknown_rows_are_refused(folder):
    with pytest.raises(ConfigError, match="unknown row 'guess'"):
        evaluate_attributes(load_catalogue(folder), WordEncoder(), "colour", "type", "val", rows=["guess"])


# Reports


MODEL = ModelDescription("BLIP small", "conv", "4", "{sentence} {modifier}", "112 px", "abc123")


def test_a_report_states_everything_a_figure_depends_on(folder):
    evaluation = evaluate_attributes(load_catalogue(folder), WordEncoder(), "colour", "type", "val")
    stated = facts(evaluation, MODEL)
    assert stated["dataset"] == f"attributes/{folder.name}"
    assert stated["gallery size"] == "6"
    assert stated["query count"] == "6"
    assert stated["L"] == "4"
    assert stated["checkpoint fingerprint"] == "abc123"
    assert stated["modifier template"] == "in {value}"
    assert stated["reference"] == "removed from the ranking"
    assert stated["weight tuned on"].startswith(f"attributes/{folder.name} train")
    assert {"split", "prompt template", "caption rule", "preprocessing", "VL model", "light model"} <= set(
        stated
    )
    text = as_text(evaluation, MODEL)
    assert "100.0 [100.0, 100.0]" in text
    lines = text.splitlines()
    header = next(line for line in lines if "recall@50" in line and "mAP@10" in line)
    composed = next(line for line in lines if line.startswith("composed"))
    assert header.index("mAP@10") == composed.rindex("100.0 [")
    assert "baselines not run" not in text


def test_a_report_says_which_baselines_are_missing(folder):
    evaluation = evaluate_attributes(
        load_catalogue(folder), WordEncoder(), "colour", "type", "val", rows=["image only", "composed"]
    )
    assert facts(evaluation, MODEL)["baselines not run"] == "text only, image + text sum"


def test_written_runs_can_be_compared(folder, tmp_path):
    catalogue = load_catalogue(folder)
    for name, obeys in (("good", True), ("deaf", False)):
        encoder = WordEncoder(obeys=obeys)
        evaluation = evaluate_attributes(catalogue, encoder, "colour", "type", "val", rows=["composed"])
        write_document(tmp_path / f"{name}.json", evaluation, MODEL)
    difference = compare_documents(tmp_path / "good.json", tmp_path / "deaf.json", "composed", "recall@1")
    document = json.loads((tmp_path / "deaf.json").read_text())
    deaf = document["rows"][0]["metrics"]["recall@1"]["mean"]
    assert difference.mean == pytest.approx(100.0 - deaf)
    with pytest.raises(DataError, match="no row 'sum'"):
        compare_documents(tmp_path / "good.json", tmp_path / "deaf.json", "sum")


def write_run(catalogue, path: Path, keep: str = "type", obeys: bool = True, **settings: object) -> Path:
    """A written report of the composed row and the image alone."""
    rows = ["image only", "composed"]
    encoder = WordEncoder(obeys=obeys)
    write_document(
        path, evaluate_attributes(catalogue, encoder, "colour", keep, "val", rows=rows, **settings), MODEL
    )
    return path


def test_runs_are_compared_in_all_rows_and_metrics_they_share(folder, tmp_path):
    catalogue = load_catalogue(folder)
    good, deaf = (write_run(catalogue, tmp_path / f"{obeys}.json", obeys=obeys) for obeys in (True, False))
    compared = {(one.row, one.metric): one for one in compare_runs(good, deaf)}
    assert len(compared) == 2 * 5
    assert compared["image only", "recall@1"].difference.mean == 0
    best = compared["composed", "recall@1"]
    assert (best.first, best.first - best.second) == (100.0, pytest.approx(best.difference.mean))
    ((own,),) = [compare_runs(good, good, [("composed", "image only")], ["recall@1"])]
    assert own.difference.mean == pytest.approx(100.0 - compared["image only", "recall@1"].first)
    with pytest.raises(DataError, match=r"no values of 'mAP@5'; metrics: recall@1"):
        compare_runs(good, deaf, metrics=["mAP@5"])


def test_what_two_runs_say_differently_of_themselves_is_listed(folder, tmp_path):
    catalogue = load_catalogue(folder)
    plain = write_run(catalogue, tmp_path / "plain.json")
    other = write_run(catalogue, tmp_path / "other.json", template="please in {value}")
    assert differing_facts(plain, other) == {"modifier template": ("in {value}", "please in {value}")}


@pytest.mark.parametrize(
    ("fact", "value", "message"),
    [
        ("split", "test", "differ in split"),
        ("gallery size", "7", "differ in gallery size"),
        ("keep", "gender", "differ in keep"),
        ("reference", "kept in the ranking", "differ in reference"),
    ],
)
def test_runs_of_other_tasks_are_not_compared(folder, tmp_path, fact, value, message):
    first = write_run(load_catalogue(folder), tmp_path / "first.json")
    document = json.loads(first.read_text())
    document["facts"][fact] = value
    (tmp_path / "second.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=message):
        compare_documents(first, tmp_path / "second.json", "composed")


def test_a_report_that_lost_a_value_is_damaged(folder, tmp_path):
    path = write_run(load_catalogue(folder), tmp_path / "run.json")
    document = json.loads(path.read_text())
    document["rows"][0]["values"]["mAP@10"].pop()
    (tmp_path / "short.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="one value of mAP@10 per query"):
        compare_runs(path, tmp_path / "short.json", [("image only", "image only")])


# Real labels


def test_fashion_colour_change_has_the_expected_shape(shared_data):
    catalogue = load_catalogue(shared_data / "fashion")
    benchmark = attribute_queries(catalogue, "colour", "gender,type", "val")
    assert len(benchmark.gallery_ids or ()) == 1326
    assert len(benchmark.queries) + benchmark.without_query == 1326
    labels = {row["file"]: row for row in catalogue.rows}
    for query in benchmark.queries:
        reference = labels[query.reference]
        for answer in query.answers:
            assert labels[answer]["gender"] == reference["gender"]
            assert labels[answer]["type"] == reference["type"]
            assert labels[answer]["colour"] != reference["colour"]


def test_emoji_skin_tones_are_asked_for_and_never_their_absence(shared_data):
    catalogue = load_catalogue(shared_data / "emoji")
    benchmark = attribute_queries(catalogue, "skin_tone", "base,style,gender_word")
    assert {query.texts[0].split(" ", 1)[0] for query in benchmark.queries} == {"with"}
    assert all(query.texts[0].endswith("skin tone") for query in benchmark.queries)
