"""Public benchmarks from made-up pictures in the official layouts to tables and submission files."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from fakes import FakeEncoder, model_config, photo
from image2sentence import encoders
from image2sentence.cli.main import cli
from image2sentence.encoders.composition import TrainingFreeEncoder
from image2sentence.encoders.config import Preprocessing
from image2sentence.encoders.model_folder import QUERY_IMAGE
from image2sentence.errors import DataError, ModelError, QueryError
from image2sentence.evaluation import kept_sentences, public_benchmarks
from image2sentence.evaluation.basic import Basic
from image2sentence.evaluation.datasets.genecis import dilated_crop
from image2sentence.evaluation.evaluate import Row
from image2sentence.evaluation.features import Features
from image2sentence.evaluation.kept_gallery import keep_vectors, picture_files
from image2sentence.evaluation.kept_sentences import KeptSentences, sentence_fingerprint
from image2sentence.evaluation.metrics import Scores, mean_of_means
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query
from image2sentence.evaluation.public_benchmarks import evaluate_kept, halves, load_benchmarks, tuning_value
from image2sentence.evaluation.ranking import rank, rank_scores, score_vectors
from image2sentence.evaluation.submissions import check_circo_submission, check_cirr_submission
from made_up_benchmarks import (
    COLOURS,
    draw,
    make_circo,
    make_cirr,
    make_domains,
    make_fashioniq,
    make_genecis,
    write,
)


class Model(FakeEncoder):
    """The fake encoder with a config, and a count of the pictures that the light side saw."""

    def __init__(self, fingerprint: str = "fake-colour-grid", light: str = "light graph") -> None:
        super().__init__()
        self.fingerprint = fingerprint
        self.config = model_config(files={QUERY_IMAGE: light})
        self.seen = 0

    def encode_sentences(self, images):
        self.seen += len(images)
        return super().encode_sentences(images)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Model]:
    """The models that commands load, by the name given to --model or --also."""
    known = {
        "None": Model(),
        "symmetric": Model(light="another graph"),
        "same": Model(),
        "foreign": Model("another-space"),
    }
    monkeypatch.setattr(encoders, "load_encoder", lambda folder=None, **_: known[str(folder)])
    return known


@pytest.fixture
def run() -> Callable[..., Result]:
    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output + str(result.exception)
        return result

    return invoke


# From a folder to a table


@pytest.mark.parametrize(
    ("name", "make", "pictures", "figures"),
    [
        ("cirr", make_cirr, 60, ["recall@50", "subset_recall@3", "mean(recall@5,subset_recall@1)"]),
        ("fashioniq", make_fashioniq, 24, ["recall@10", "caption rule: both-orders-averaged", "plain mean"]),
        ("circo", make_circo, 56, ["mAP@50", "mAP@10/negation", "gallery: COCO 2017 unlabeled"]),
        ("genecis", make_genecis, 26 + 1 + 6 + 5, ["recall@3", "genecis/change_attribute", "plain mean"]),
        ("domain-conversion", make_domains, 15, ["recall@50/toy", "template: in {domain} style"]),
    ],
)
def test_one_command_makes_the_table_and_a_second_run_encodes_nothing(
    run, models, tmp_path, name, make, pictures, figures
):
    arguments = ("evaluate", name, "--root", make(tmp_path / "data"))
    first = run(*arguments)
    assert f"encoded {pictures} pictures" in first.stderr
    assert models["None"].encoded == pictures
    for row in ("image only", "text only", "image + text sum", "Slerp", "BASIC", "composed"):
        assert f"\n{row}" in first.stdout
    for figure in figures:
        assert figure in first.stdout
    assert "weights tuned on: for each query, the other half" in first.stdout
    second = run(*arguments, "--also", "symmetric=symmetric")
    assert "encoded 0 pictures" in second.stderr
    assert models["None"].encoded == pictures
    assert models["symmetric"].encoded == 0
    assert "\nsymmetric" in second.stdout
    references = models["None"].seen
    assert references > 0
    assert f"encoded {references} sentences of references" in first.stderr
    assert models["symmetric"].seen == references, "the second run's new row has its own sentences"
    third = run(*arguments, "--also", "symmetric=symmetric", "--also", "copy=same")
    assert "encoded 0 pictures" in third.stderr
    assert "encoded 0 sentences of references" in third.stderr
    assert (models["None"].seen, models["symmetric"].seen, models["same"].seen) == (references,) * 2 + (0,)
    assert second.stdout.split("\n\n")[1].splitlines()[:7] == third.stdout.split("\n\n")[1].splitlines()[:7]
    plain = [line for line in first.stdout.splitlines() if line.startswith("image only")]
    assert (
        plain[0].split()
        == next(line for line in second.stdout.splitlines() if line.startswith("image only")).split()
    )


def test_the_report_goes_to_a_file_or_to_standard_output(run, models, tmp_path):
    root = make_fashioniq(tmp_path / "data")
    printed = json.loads(run("evaluate", "fashioniq", "--root", root, "--json").stdout)
    assert [part["facts"]["dataset"] for part in printed["parts"]] == [
        "fashioniq/dress",
        "fashioniq/shirt",
        "fashioniq/toptee",
    ]
    composed = [next(row for row in part["rows"] if row["name"] == "composed") for part in printed["parts"]]
    mean = np.mean([row["metrics"]["recall@10"]["mean"] for row in composed])
    assert printed["mean"]["composed"]["recall@10"]["mean"] == pytest.approx(mean)
    out = tmp_path / "report.json"
    run("evaluate", "fashioniq", "--root", root, "--json", out)
    assert json.loads(out.read_text()) == printed
    dress = str(tmp_path / "report-dress.json")
    compared = run("evaluate", "compare", dress, dress, "--row", "composed", "--other-row", "Slerp")
    assert "recall@50" in compared.stdout


def test_an_audit_counts_references_above_answers_and_single_modalities(run, models, tmp_path):
    root, out = make_cirr(tmp_path / "data"), tmp_path / "report.json"
    text = run("evaluate", "cirr", "--root", root, "--audit", "--json", out).stdout
    assert "the reference itself, which lacks the change, stands above every right answer (12 of 12" in text
    audit = json.loads(out.read_text())["audit"]
    assert audit["hard_negatives"]["image only"]["mean"] == 100, "nothing is nearer to a picture than itself"
    one = audit["single"]["recall@1"]
    assert max(one["image"]["mean"], one["text"]["mean"]) <= one["either"]["mean"] <= 100
    words = audit["wordings"]["composed"]
    assert words["changing"]["mean"] == 0, "the fake encoder reads the colour alone"
    composed = next(row for row in json.loads(out.read_text())["rows"] if row["name"] == "composed")
    assert words["mean"]["mean"] == pytest.approx(composed["metrics"]["recall@1"]["mean"])


def test_an_audit_of_benchmarks_whose_gallery_lacks_the_reference(run, models, tmp_path):
    text = run(
        "evaluate", "genecis", "--root", make_genecis(tmp_path), "--part", "focus_object", "--audit"
    ).stdout
    assert "(0 of 8 queries have one)" in text
    assert "image only: no query has one" in text
    assert "recall@1: image" in text
    assert "recall@10: image" not in text


def test_a_model_of_another_space_keeps_its_own_vectors_and_shares_no_table(run, models, tmp_path):
    root = make_cirr(tmp_path / "data")
    kept = tmp_path / "kept"
    run("evaluate", "cirr", "--root", root, "--gallery", kept)
    run("evaluate", "cirr", "--root", root, "--gallery", kept, "--model", "foreign")
    assert sorted(folder.name for folder in kept.iterdir() if folder.is_dir()) == [
        "another-space",
        "fake-colour-grid",
    ]
    assert models["foreign"].encoded == 60
    refused = run("evaluate", "cirr", "--root", root, "--gallery", kept, "--also", "other=foreign", code=1)
    assert "rows of one table need the same gallery model" in refused.output


# What stops a run


def test_missing_pictures_and_annotations_stop_the_run_with_name_and_source(run, models, tmp_path):
    root = make_cirr(tmp_path)
    (root / "dev" / "dev-3-0-img1.png").unlink()
    stopped = run("evaluate", "cirr", "--root", root, code=1).output
    assert "1 pictures missing: 'dev-3-0-img1'" in stopped
    assert "Cuberick-Orion/CIRR" in stopped
    assert models["None"].encoded == 0
    (root / "captions" / "cap.rc2.val.json").unlink()
    stopped = run("evaluate", "cirr", "--root", root, code=1).output
    assert "cap.rc2.val.json" in stopped
    assert "where to get it" in stopped


@pytest.mark.parametrize(
    ("make", "name", "file", "key"),
    [
        (make_cirr, "cirr", "captions/cap.rc2.val.json", "target_hard"),
        (make_fashioniq, "fashioniq", "captions/cap.shirt.val.json", "target"),
        (make_circo, "circo", "annotations/val.json", "gt_img_ids"),
    ],
)
def test_a_query_whose_answer_is_not_there_stops_the_run(run, models, tmp_path, make, name, file, key):
    """Only hidden splits have none; one query without is damage, and would count as never found."""
    root = make(tmp_path)
    queries = json.loads((root / file).read_text())
    del queries[3][key]
    write(root / file, queries)
    stopped = run("evaluate", name, "--root", root, code=1).output
    assert f"entry 3: key '{key}' is missing" in stopped
    assert models["None"].encoded == 0


def test_annotations_of_another_version_are_named(run, models, tmp_path):
    root = make_cirr(tmp_path)
    (root / "captions" / "cap.rc2.val.json").rename(root / "captions" / "cap.rc1.val.json")
    stopped = run("evaluate", "cirr", "--root", root, code=1).output
    assert "captions/cap.rc2.val.json" in stopped
    assert "there are 'captions/cap.rc1.val.json'" in stopped


def test_places_to_write_to_and_names_of_rows_are_checked_before_anything_is_encoded(run, models, tmp_path):
    root = make_cirr(tmp_path)
    nowhere = tmp_path / "nowhere"
    for option in ("--json", "--submission"):
        refused = run("evaluate", "cirr", "--root", root, option, nowhere / "r", code=2).output
        assert f"Invalid value for {option}: there is no folder {nowhere}" in refused
    for row in ("Slerp", "BASIC", "composed, without guiding phrases"):
        refused = run("evaluate", "cirr", "--root", root, "--also", f"{row}=symmetric", code=2).output
        assert "is there already" in refused
    assert models["None"].encoded == 0


def test_a_picture_that_cannot_be_read_stops_the_run_and_the_next_one_goes_on(run, models, tmp_path):
    root = make_cirr(tmp_path)
    (root / "dev" / "dev-40-0-img0.png").write_bytes(b"no picture")
    stopped = run("evaluate", "cirr", "--root", root, code=1).output
    assert "dev/dev-40-0-img0.png" in stopped
    before = models["None"].encoded
    assert 32 <= before < 60
    draw(root / "dev" / "dev-40-0-img0.png", 40)
    assert f"encoded {60 - before} pictures" in run("evaluate", "cirr", "--root", root).stderr
    assert models["None"].encoded == 60


def test_an_interrupted_gallery_goes_on_where_it_was(tmp_path):
    loaded = load_benchmarks("cirr", make_cirr(tmp_path / "data"))
    encoder = Model()

    def interrupt(done: int, total: int) -> None:
        assert total == 60
        if done >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_vectors(loaded.files, tmp_path / "data", encoder, tmp_path / "kept", interrupt)
    assert encoder.encoded == 32
    kept = keep_vectors(loaded.files, tmp_path / "data", encoder, tmp_path / "kept")
    assert (kept.encoded, encoder.encoded) == (28, 60)


def test_a_changed_picture_is_encoded_again_and_a_copy_is_not(tmp_path):
    root = make_cirr(tmp_path / "data")
    loaded, encoder = load_benchmarks("cirr", root), Model()
    before = keep_vectors(loaded.files, root, encoder, tmp_path / "kept")
    photo(999, (80, 60)).save(root / "dev" / "dev-5-0-img1.png")
    (root / "dev" / "dev-6-0-img0.png").write_bytes((root / "dev" / "dev-7-0-img1.png").read_bytes() + b"")
    after = keep_vectors(loaded.files, root, encoder, tmp_path / "kept")
    assert after.encoded == 1
    assert not np.allclose(before.vectors["dev-5-0-img1"], after.vectors["dev-5-0-img1"])
    np.testing.assert_array_equal(after.vectors["dev-6-0-img0"], after.vectors["dev-7-0-img1"])


def test_an_interrupted_run_keeps_the_sentences_it_has(run, models, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_sentences, "BATCH", 4)
    root = make_cirr(tmp_path)
    whole = Model.encode_sentences

    def interrupted(self, images):
        if self.seen >= 8:
            raise KeyboardInterrupt
        return whole(self, images)

    monkeypatch.setattr(Model, "encode_sentences", interrupted)
    run("evaluate", "cirr", "--root", root, code=130)
    monkeypatch.setattr(Model, "encode_sentences", whole)
    assert "encoded 4 sentences of references" in run("evaluate", "cirr", "--root", root).stderr
    assert models["None"].seen == 12


def test_sentences_go_by_content_and_preprocessing_and_a_changed_reference_is_seen_again(tmp_path):
    images = {name: photo(number) for number, name in enumerate("abc")}
    contents = {"a": b"1" * 32, "b": b"2" * 32, "c": b"1" * 32}
    model = Model()
    first = KeptSentences(tmp_path, contents).of(model, "abc", images.__getitem__)
    assert (first.shape, first.dtype, model.seen) == ((3, 1, Model.width), np.float32, 2)
    again = KeptSentences(tmp_path, contents).of(model, "cba", images.__getitem__)
    np.testing.assert_array_equal(again, first[::-1])
    assert model.seen == 2
    KeptSentences(tmp_path, contents | {"b": b"3" * 32}).of(model, "ab", images.__getitem__)
    assert model.seen == 3
    model.config = replace(model.config, query_preprocessing=Preprocessing(64))
    KeptSentences(tmp_path, contents).of(model, "a", images.__getitem__)
    assert model.seen == 4
    assert sentence_fingerprint(FakeEncoder()) is None


def test_a_damaged_or_newer_file_of_sentences_is_named(tmp_path):
    contents, file = {"a": b"1" * 32}, tmp_path / "sentences.sqlite"
    kept = KeptSentences(tmp_path, contents)
    kept.of(Model(), "a", lambda name: photo(0))
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE sentences SET sentence = x'010203'")
    with pytest.raises(DataError, match=r"sentences\.sqlite is damaged: delete it"):
        kept.of(Model(), "a", lambda name: photo(0))
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(DataError, match="of format 7, expected 1"):
        kept.of(Model(), "a", lambda name: photo(0))
    file.write_bytes(b"no database at all, but long enough to be read as one" * 40)
    with pytest.raises(DataError, match=r"sentences\.sqlite: .*delete"):
        kept.of(Model(), "a", lambda name: photo(0))


def test_hidden_splits_ask_for_a_submission_and_others_have_none(run, models, tmp_path):
    root = make_cirr(tmp_path, "test1")
    assert "--submission" in run("evaluate", "cirr", "--root", root, "--split", "test1", code=2).output
    assert "No such option" in run("evaluate", "genecis", "--root", root, "--submission", "x", code=2).output
    refused = run(
        "evaluate",
        "cirr",
        "--root",
        root,
        "--split",
        "test1",
        "--submission",
        tmp_path / "s",
        "--submission-row",
        "Slerp",
        code=1,
    )
    assert "without a tuned weight: composed, image only, text only" in refused.output


def test_a_caption_longer_than_the_text_encoder_reads_is_cut_at_the_end_and_counted(
    run, models, tmp_path, monkeypatch
):
    """Peers cut such captions, too; for the bundled model it is one of CIRR test1."""
    root = make_cirr(tmp_path)
    file = root / "captions" / "cap.rc2.val.json"
    pairs = json.loads(file.read_text())
    pairs[5]["caption"] = "make it red and nothing else at all"
    write(file, pairs)
    whole, read = Model.encode_queries, set()

    def limited(self, sentences, texts):
        if any(len(text.split()) > (6 if sentences is None else 4) for text in texts):
            raise QueryError("the words are too long")
        read.update(texts)
        return whole(self, sentences, texts)

    monkeypatch.setattr(Model, "encode_queries", limited)
    printed = run("evaluate", "cirr", "--root", root).stdout
    assert "texts cut at the end: 1, longer than the text encoder reads" in printed
    assert {"make it red and", "make it red and nothing else"} <= read


# Submissions


def test_cirr_test1_writes_two_checked_files(run, models, tmp_path):
    root = make_cirr(tmp_path / "data", "test1")
    run("evaluate", "cirr", "--root", root, "--split", "test1", "--submission", tmp_path / "sent")
    assert check_cirr_submission(tmp_path / "sent" / "recall.json", root) == "recall"
    assert check_cirr_submission(tmp_path / "sent" / "recall_subset.json", root) == "recall_subset"


@pytest.mark.parametrize("listed", [True, False])
def test_circo_test_writes_one_checked_file(run, models, tmp_path, listed):
    root = make_circo(tmp_path / "data", "test", listed)
    sent = tmp_path / "circo.json"
    result = run(
        "evaluate",
        "circo",
        "--root",
        root,
        "--split",
        "test",
        "--submission",
        sent,
        "--submission-row",
        "text only",
    )
    check_circo_submission(sent, root)
    assert ("not comparable with published figures" in result.stderr) == (not listed)


# Rows


def tiny_benchmark(protocol: Protocol) -> tuple[Benchmark, dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    ids = [f"p{number}" for number in range(40)]
    rows = rng.standard_normal((40, FakeEncoder.width)).astype(np.float32)
    vectors = dict(zip(ids, rows / np.linalg.norm(rows, axis=1, keepdims=True), strict=True))
    queries = tuple(
        Query(str(n), ids[n], (COLOURS[n % 8],), (ids[n + 1],), ids[n + 1], tuple(ids[n : n + 6]))
        for n in range(30)
    )
    return Benchmark("made up", "val", queries, protocol, tuple(ids)), vectors


PROTOCOL = Protocol("removed", recall_at=(1, 5), subset_recall_at=(1, 2))


def test_each_half_of_the_queries_has_the_weight_that_is_best_on_the_other(monkeypatch):
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    encoder = Model()
    half = halves(benchmark)
    assert set(half) == {0, 1}

    def texts(self: Features) -> np.ndarray:
        """Right in the first half, of no use in the second."""
        answers = np.stack([vectors[query.target] for query in benchmark.queries])
        references = np.stack([vectors[query.reference] for query in benchmark.queries])
        return np.where(half[:, None] == 0, answers, references)

    monkeypatch.setattr(Features, "texts", property(texts))
    evaluation = evaluate_kept(benchmark, encoder, lambda name: photo(int(name[1:])), vectors, {})
    first, second = evaluation.notes["text weight of the sum"].split(" and ")
    assert float(first) == 0.0, "the first half takes what is best on the second: the smallest of equals"
    assert float(second) > 0.2
    values = evaluation.row("image + text sum").scores.values["recall@1"]
    assert values[half == 0].mean() < 0.2


@pytest.mark.parametrize(
    ("protocol", "metric"),
    [
        (PROTOCOL, "recall@1"),
        (Protocol("kept", recall_at=(10,), map_at=(5,)), "recall@10"),
        (Protocol("kept", recall_at=(10,), map_at=(10,)), "mAP@10"),
        (Protocol("outside", coverage_at=(10,)), "recall@10"),
    ],
)
def test_what_weights_are_chosen_by_is_the_reported_metric(protocol, metric):
    benchmark, vectors = tiny_benchmark(protocol)
    answers = {query.id: (query.answers[0], f"p{int(query.id) + 8}") for query in benchmark.queries}
    several = protocol.map_at == (10,) or protocol.coverage_at
    queries = tuple(
        replace(
            query,
            answers=answers[query.id] if several else query.answers,
            target=None if several else query.target,
        )
        for query in benchmark.queries
    )
    benchmark = replace(benchmark, queries=queries)
    features = Features(benchmark, Model(), lambda name: photo(0), kept=vectors)
    gallery = features.searcher.vectors_of(features.gallery)
    mixed = features.images + np.roll(features.images, -1, axis=0) + 0.3 * features.texts
    mixed = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    value = tuning_value(benchmark, range(30), features.gallery, mixed @ gallery.T)
    assert 0 < value < 1
    assert value == pytest.approx(score_vectors(benchmark, features.searcher, mixed).values[metric].mean())


def test_queries_of_one_reference_have_no_other_half_and_the_report_says_so():
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    benchmark = replace(benchmark, queries=benchmark.queries[:1])
    evaluation = evaluate_kept(benchmark, Model(), lambda name: photo(0), vectors, {})
    assert evaluation.notes["weights tuned on"].startswith("nothing")
    assert "0.50" in evaluation.notes["text weight of the sum"]


def test_scores_rank_as_vectors_do_where_they_are_dot_products():
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    features = Features(benchmark, Model(), lambda name: photo(0), kept=vectors)
    gallery = features.searcher.vectors_of(features.searcher.ids)
    ranked = rank_scores(features.searcher, benchmark, lambda block: features.images[block] @ gallery.T, 7)
    assert ranked == rank(features.searcher, benchmark, features.images, 7)
    assert all(query.reference not in own for query, own in zip(benchmark.queries, ranked, strict=True))


def test_equal_scores_rank_in_gallery_order():
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    features = Features(benchmark, Model(), lambda name: photo(0), kept=vectors)
    ranked = rank_scores(
        features.searcher, benchmark, lambda block: np.zeros((len(features.images[block]), 40)), 3
    )
    assert ranked[0] == ["p1", "p2", "p3"]
    assert ranked[5] == ["p0", "p1", "p2"]


def test_basic_needs_both_sides_to_agree():
    rng = np.random.default_rng(1)
    things, looks = np.eye(12, dtype=np.float32)[:4], np.eye(12, dtype=np.float32)[4:8]
    gallery = np.stack([thing + look for thing in things for look in looks])
    gallery += 0.01 * rng.standard_normal(gallery.shape)
    gallery = (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).astype(np.float32)

    def encode(words):
        rows = rng.standard_normal((len(words), 12)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    basic = Basic.fit(gallery, encode)
    scores = basic.scores(gallery[[0]], looks[[2]])
    assert scores.shape == (1, 16)
    assert scores[0].argmax() == 2, "the reference's thing with the look that was asked for"


def test_a_model_without_a_light_side_reads_sentences_from_the_kept_vectors(monkeypatch):
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    seen = []

    class Free(TrainingFreeEncoder):
        def __init__(self) -> None:
            pass

        def encode_queries(self, sentences, texts):
            seen.append(sentences)
            return np.asarray(sentences[:, 0])

    features = Features(benchmark, Model(), lambda name: photo(0), kept=vectors)
    np.testing.assert_array_equal(features.composed(Free()), features.images)
    assert seen[0].shape == (30, 1, FakeEncoder.width)


def test_the_mean_of_parts_weighs_them_equally():
    interval = mean_of_means([np.zeros(1000), np.full(10, 100.0)])
    assert (interval.mean, interval.low, interval.high) == (50.0, 50.0, 50.0)
    with pytest.raises(DataError):
        mean_of_means([np.zeros(3), np.zeros(0)])


def test_parts_of_pictures_are_widened_and_padded_to_a_square():
    image = Image.new("RGB", (100, 50), "red")
    part = dilated_crop(image, (40.0, 20.0, 20.0, 10.0))
    assert part.size == (34, 34)
    assert part.getpixel((17, 17)) == (255, 0, 0)
    assert part.getpixel((17, 0)) == (0, 0, 0)


def test_rows_of_another_space_are_refused():
    benchmark, vectors = tiny_benchmark(PROTOCOL)
    with pytest.raises(ModelError, match="need the same gallery model"):
        evaluate_kept(benchmark, Model(), lambda name: photo(0), vectors, {"other": Model("else")})


# The real annotations


def test_given_vectors_give_the_public_figures(shared_data, monkeypatch):
    """The row that searches with given vectors, through the same code as a run; the others are left out for speed."""
    monkeypatch.setattr(
        public_benchmarks, "_tuned_row", lambda name, features, compose: (image_row(features), "")
    )
    monkeypatch.setattr(public_benchmarks, "_basic_row", image_row)
    monkeypatch.setattr(public_benchmarks, "_row", only_given(public_benchmarks._row))
    annotations = shared_data / "annotations"
    spec = importlib.util.spec_from_file_location("fake_features", annotations / "fake_features.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    public = json.loads((annotations / "metric_values.json").read_text())["seeds"]["0"]["cirr_val"]
    ids, gallery, _, queries = module.cirr(0)
    benchmark = load_real("cirr", annotations / "cirr")
    assert list(benchmark.needed_ids()) == ids

    class Given(FakeEncoder):
        width = 64

        def encode_sentences(self, images):
            return np.zeros((len(images), 1, 4), np.float32)

        def encode_queries(self, sentences, texts):
            if sentences is None:
                rows = np.random.default_rng(len(texts)).standard_normal((len(texts), 64))
                return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
            rows = queries[self.at : self.at + len(texts)]
            self.at += len(texts)
            return rows

        at = 0

    encoder = Given()
    evaluation = evaluate_kept(
        benchmark,
        encoder,
        lambda name: photo(0, (4, 4)),
        dict(zip(ids, gallery, strict=True)),
        {"given": encoder},
    )
    figures = evaluation.row("given").scores.percent()
    for key, value in public.items():
        name = key.replace("cirr_group_recall_at", "subset_recall@").replace("cirr_recall_at", "recall@")
        assert round(figures[name], 4) == value


def image_row(features: Features) -> Row:
    return Row("image only", Scores({}), vectors=features.images)


def only_given(row):
    """Scores the row `given` and no other."""
    return lambda name, features, vectors, note="": (
        row(name, features, vectors, note) if name == "given" else image_row(features)
    )


def load_real(name: str, root: Path) -> Benchmark:
    from image2sentence.evaluation import load

    return load(name, root)


def test_a_missing_picture_of_the_real_annotations_is_named(shared_data, tmp_path):
    benchmark = load_real("cirr", shared_data / "annotations" / "cirr")
    with pytest.raises(DataError, match="2297 pictures missing: 'dev-244-0-img0'"):
        picture_files(benchmark, tmp_path)
