"""Protocol rules on galleries small enough to rank by hand, and public figures on the real annotations."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation import Benchmark, Protocol, Query, load, score, score_features
from image2sentence.evaluation.datasets.fashioniq import plain_mean
from image2sentence.evaluation.submissions import (
    check_circo_submission,
    check_cirr_submission,
    write_circo_submission,
    write_cirr_submission,
)

IDS = ["a", "b", "c", "d"]
# On the unit circle, by angle: a query at angle 0 ranks a, b, c, d.
ANGLES = {"a": 0.0, "b": 0.3, "c": 0.6, "d": 0.9}


def at_angles(angles) -> np.ndarray:
    return np.array([[np.cos(angle), np.sin(angle)] for angle in angles], dtype=np.float32)


def ranked_abcd(protocol: Protocol, **fields: object) -> dict[str, float]:
    """Figures of one query that ranks a, b, c, d in this order before the protocol's rules."""
    query = Query("q", reference="a", texts=("words",), **fields)
    benchmark = Benchmark("made up", "val", (query,), protocol, tuple(IDS))
    return score_features(benchmark, IDS, at_angles(ANGLES.values()), ["q"], at_angles([0.0])).percent()


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


# Rules


def test_a_removed_reference_gives_its_place_to_the_next():
    scores = ranked_abcd(Protocol("removed", recall_at=(1, 2)), answers=("b",), target="b")
    assert scores == {"recall@1": 100.0, "recall@2": 100.0}


def test_a_kept_reference_holds_its_place():
    scores = ranked_abcd(Protocol("kept", recall_at=(1, 2)), answers=("b",), target="b")
    assert scores == {"recall@1": 0.0, "recall@2": 100.0}


def test_recall_counts_the_target_and_not_the_other_answers():
    protocol = Protocol("removed", recall_at=(1, 2), map_at=(2,))
    scores = ranked_abcd(protocol, answers=("b", "c"), target="c")
    assert scores == {"recall@1": 0.0, "recall@2": 100.0, "mAP@2": 100.0}


def test_recall_without_a_target_counts_the_best_placed_answer():
    assert ranked_abcd(Protocol("removed", recall_at=(1,)), answers=("d", "b")) == {"recall@1": 100.0}


def test_map_divides_by_the_smaller_of_answers_and_k():
    scores = ranked_abcd(Protocol("kept", map_at=(1, 3)), answers=("b", "c", "d"))
    assert scores["mAP@1"] == 0.0
    assert scores["mAP@3"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 3)


def test_subset_recall_ranks_the_members_without_the_reference():
    protocol = Protocol("removed", recall_at=(1,), subset_recall_at=(1, 2))
    scores = ranked_abcd(protocol, answers=("d",), target="d", subset=("d", "a", "c"))
    assert scores == {"recall@1": 0.0, "subset_recall@1": 0.0, "subset_recall@2": 100.0}


def test_a_query_with_its_own_gallery_ranks_nothing_else():
    scores = ranked_abcd(Protocol("outside", recall_at=(1,)), answers=("c",), target="c", gallery=("d", "c"))
    assert scores == {"recall@1": 100.0}


def test_coverage_is_hits_over_all_right_answers():
    scores = ranked_abcd(Protocol("outside", coverage_at=(2,)), answers=("a", "c", "d"))
    assert scores["recall@2"] == pytest.approx(100 / 3)


def test_aspects_and_means_of_two_metrics():
    protocol = Protocol(
        "removed", recall_at=(1,), subset_recall_at=(1,), averages=(("recall@1", "subset_recall@1"),)
    )
    scores = ranked_abcd(protocol, answers=("c",), target="c", subset=("a", "c", "d"))
    assert scores["mean(recall@1,subset_recall@1)"] == 50.0
    aspects = ranked_abcd(
        Protocol("kept", map_at=(10,), by_aspect=("mAP@10",)), answers=("b",), aspects=("x",)
    )
    assert aspects["mAP@10/x"] == aspects["mAP@10"] == 50.0


@pytest.mark.parametrize(("order", "hit"), [(["b", "c"], 100.0), (["c", "b"], 0.0)])
def test_equal_scores_stand_in_gallery_order(order, hit):
    query = Query("q", "z", ("words",), answers=("b",), target="b")
    benchmark = Benchmark("made up", "val", (query,), Protocol("outside", recall_at=(1,)), ("b", "c"))
    same = at_angles([0.2, 0.2])
    assert score_features(benchmark, order, same, ["q"], at_angles([0.0])).percent() == {"recall@1": hit}


# Features that cannot be scored


@pytest.fixture
def two_queries() -> Benchmark:
    queries = (
        Query("1", "a", ("x",), ("b",), "b"),
        Query("2", "c", ("x",), ("d",), "d"),
    )
    return Benchmark("made up", "val", queries, Protocol("removed", recall_at=(1,)), tuple(IDS))


def attempt(
    benchmark: Benchmark, ids=IDS, gallery=None, query_ids=("1", "2"), queries=None
) -> dict[str, float]:
    gallery = at_angles(ANGLES.values()) if gallery is None else gallery
    queries = at_angles([0.3, 0.9]) if queries is None else queries
    return score_features(benchmark, ids, gallery, query_ids, queries).percent()


def test_order_of_pictures_and_queries_does_not_matter(two_queries):
    assert attempt(two_queries) == {"recall@1": 100.0}
    turned = at_angles(list(ANGLES.values())[::-1])
    again = attempt(two_queries, IDS[::-1], turned, [2, 1], at_angles([0.9, 0.3]))
    assert again == {"recall@1": 100.0}


def test_rows_are_normalised(two_queries):
    scale = np.array([[9.0], [0.1], [3.0], [0.2]])
    assert attempt(two_queries, gallery=at_angles(ANGLES.values()) * scale) == {"recall@1": 100.0}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "c"], "gallery lacks picture 'd'"),
        (["b", "c", "d"], r"gallery lacks picture 'a' \(a reference\)"),
        (["a", "b", "c", "d", "b"], "duplicate gallery picture 'b'"),
        (["a", "b", "c", "d", "e"], "the gallery has no picture 'e'"),
        (["a", "b", "c", 1.5], "expected an id as text or integer, got 1.5"),
    ],
)
def test_a_wrong_gallery_is_named(two_queries, ids, message):
    with pytest.raises(DataError, match=message):
        attempt(two_queries, ids, at_angles(range(len(ids))))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["1"], "no features for query '2'"),
        (["1", "2", "1"], "duplicate query '1'"),
        (["1", "2", "3"], "has no query '3'"),
    ],
)
def test_wrong_queries_are_named(two_queries, ids, message):
    with pytest.raises(DataError, match=message):
        attempt(two_queries, query_ids=ids, queries=at_angles(range(len(ids))))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(two_queries, bad):
    gallery = at_angles(ANGLES.values())
    gallery[2, 1] = bad
    with pytest.raises(DataError, match="gallery picture 'c' are not finite"):
        attempt(two_queries, gallery=gallery)
    queries = at_angles([0.3, 0.9])
    queries[1, 0] = bad
    with pytest.raises(DataError, match="query '2' are not finite"):
        attempt(two_queries, queries=queries)


def test_lengths_are_right_for_very_large_and_very_small_values(two_queries):
    for scale in (1e25, 1e-25):
        gallery = (at_angles(ANGLES.values()) * scale).astype(np.float32)
        assert attempt(two_queries, gallery=gallery) == {"recall@1": 100.0}


def test_zero_rows_and_wrong_shapes_are_refused(two_queries):
    with pytest.raises(DataError, match="query '1', '2' are all zero"):
        attempt(two_queries, queries=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"4 ids, features of shape \(3, 2\)"):
        attempt(two_queries, gallery=at_angles([0, 1, 2]))


def test_hidden_answers_cannot_be_scored():
    query = Query("1", "a", ("x",))
    hidden = Benchmark("made up", "test", (query,), Protocol("kept", recall_at=(1,)), tuple(IDS))
    with pytest.raises(DataError, match="hidden: write a submission file"):
        attempt(hidden, query_ids=["1"], queries=at_angles([0.0]))


# Loaders


CIRR_PAIR = {
    "pairid": 7,
    "reference": "a",
    "target_hard": "b",
    "caption": "two dogs",
    "img_set": {"members": ["a", "b", "c", "d", "e", "f"]},
}


def write_cirr(root: Path, pairs: object, flat: bool = False) -> Path:
    listing = {name: f"./dev/{name}.png" for name in "abcdefgh"}
    write(root / ("" if flat else "image_splits") / "split.rc2.val.json", listing)
    write(root / ("" if flat else "captions") / "cap.rc2.val.json", pairs)
    return root


@pytest.mark.parametrize("flat", [True, False])
def test_cirr_is_read_from_both_layouts(tmp_path, flat):
    benchmark = load("cirr", write_cirr(tmp_path, [CIRR_PAIR], flat))
    (query,) = benchmark.queries
    assert (query.id, query.reference, query.target, query.texts) == ("7", "a", "b", ("two dogs",))
    assert benchmark.gallery_ids == tuple("abcdefgh")
    assert benchmark.protocol.reference == "removed"
    assert benchmark.images["a"][0] == "dev/a.png"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_hard": "zebra"}, "entry 0: names 'zebra', which split.rc2.val.json does not list"),
        ({"target_hard": "h"}, "should include the reference and the target"),
        ({"img_set": {"members": ["a", "b", "b"]}}, "'members' names 'b' twice"),
        ({"img_set": []}, "'img_set' should be an object"),
        ({"caption": 3}, "'caption' should be text, got 3"),
        ({"pairid": None}, "'pairid': expected an id"),
    ],
)
def test_damaged_cirr_entries_are_named(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        load("cirr", write_cirr(tmp_path, [{**CIRR_PAIR, **change}]))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ('[{"pairid": 7,', "cap.rc2.val.json: malformed JSON"),
        ("[]", "at least one entry"),
        ("[7]", "entry 0: expected an object, got 7"),
        ('[{"pairid": 7, "pairid": 8}]', "duplicate key 'pairid'"),
        ([{"pairid": 7}], "entry 0: key 'reference' is missing"),
        ([CIRR_PAIR, CIRR_PAIR], "duplicate pairid '7'"),
    ],
)
def test_damaged_files_are_named(tmp_path, pairs, message):
    with pytest.raises(DataError, match=message):
        load("cirr", write_cirr(tmp_path, pairs))


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        DataError, match=r"looked in .* for split.rc2.val.json, image_splits/split.rc2.val.json"
    ):
        load("cirr", tmp_path)


def test_unknown_names_splits_and_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="unknown benchmark 'cirrr'; known: cirr, fashioniq/dress"):
        load("cirrr", tmp_path)
    with pytest.raises(ConfigError, match="cirr has the splits val, test1, got 'test'"):
        load("cirr", tmp_path, "test")
    with pytest.raises(ConfigError, match="caption rule should be one of both-orders-averaged"):
        load("fashioniq/dress", tmp_path, caption_rule="other")


def write_fashioniq(root: Path, captions: object = ("Is red. ", "has sleeves?"), target: str = "t") -> Path:
    write(root / "split.dress.val.json", ["r", "t", "other"])
    write(root / "cap.dress.val.json", [{"candidate": "r", "target": target, "captions": captions}])
    return root


@pytest.mark.parametrize(
    ("rule", "texts"),
    [
        ("both-orders-averaged", ("Is red and has sleeves", "has sleeves and Is red")),
        ("c2 and c1", ("has sleeves? and Is red. ",)),
        ("c1 and c2", ("Is red.  and has sleeves?",)),
    ],
)
def test_fashioniq_caption_rules(tmp_path, rule, texts):
    benchmark = load("fashioniq/dress", write_fashioniq(tmp_path), caption_rule=rule)
    assert benchmark.queries[0].texts == texts
    assert benchmark.queries[0].id == "0"
    assert benchmark.options["caption rule"] == rule
    assert benchmark.protocol.reference == "kept"
    assert benchmark.gallery_ids == ("r", "t", "other")


def test_damaged_fashioniq_is_named(tmp_path):
    with pytest.raises(DataError, match="entry 0: expected two captions, got 1"):
        load("fashioniq/dress", write_fashioniq(tmp_path, ["one"]))
    with pytest.raises(DataError, match=r"entry 0: names 'x', which split.dress.val.json does not list"):
        load("fashioniq/dress", write_fashioniq(tmp_path, target="x"))


def test_the_fashioniq_mean_is_plain_over_categories():
    scores = {
        "dress": {"recall@10": 10.0, "recall@50": 20.0},
        "shirt": {"recall@10": 20.0, "recall@50": 30.0},
        "toptee": {"recall@10": 60.0, "recall@50": 70.0},
    }
    assert plain_mean(scores) == {"recall@10": 30.0, "recall@50": 40.0}
    with pytest.raises(DataError, match="toptee"):
        plain_mean({name: scores[name] for name in ("dress", "shirt")})


CIRCO_QUERY = {
    "id": 0,
    "reference_img_id": 42,
    "target_img_id": 7,
    "gt_img_ids": [7, 8],
    "relative_caption": "is red",
    "shared_concept": "a cat",
    "semantic_aspects": ["negation"],
}


def test_circo_numbers_may_be_integers_or_padded_text(tmp_path):
    write(tmp_path / "annotations" / "val.json", [CIRCO_QUERY])
    gallery = at_angles([0.3, 0.6, 0.9])
    for ids in ([42, 7, 8], ["000000000042", "000000000007", "8"]):
        scores = score("circo", tmp_path, ids, gallery, [0], at_angles([0.3]))
        assert scores["recall@5"] == 100.0
        # The reference stays in and comes first: precisions 1/2 and 2/3 over two answers.
        assert scores["mAP@5"] == scores["mAP@10/negation"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)
    with pytest.raises(DataError, match=r"COCO picture number such as 42 .* got '42.jpg'"):
        score("circo", tmp_path, ["42.jpg", "7", "8"], gallery, [0], at_angles([0.3]))
    with pytest.raises(DataError, match="duplicate gallery picture '42'"):
        score("circo", tmp_path, [42, "0042", 7], gallery, [0], at_angles([0.3]))


def test_circo_gallery_list_fixes_the_gallery_where_it_is_at_hand(tmp_path):
    write(tmp_path / "val.json", [CIRCO_QUERY])
    assert load("circo", tmp_path).gallery_ids is None
    write(
        tmp_path / "annotations" / "image_info_unlabeled2017.json",
        {"images": [{"id": i} for i in (7, 8, 42)]},
    )
    assert load("circo", tmp_path).gallery_ids == ("7", "8", "42")


def test_circo_caption_rules(tmp_path):
    write(tmp_path / "val.json", [CIRCO_QUERY])
    assert load("circo", tmp_path).queries[0].texts == ("is red",)
    rule = "relative caption with shared concept"
    assert load("circo", tmp_path, caption_rule=rule).queries[0].texts == ("a cat that is red",)


def test_genecis_ranks_target_and_gallery_without_the_reference(tmp_path):
    entry = {
        "condition": "wall",
        "reference": {"val_image_id": 1},
        "target": {"val_image_id": 2},
        "gallery": [{"val_image_id": 3}, {"val_image_id": 2}],
    }
    write(tmp_path / "change_object.json", [entry])
    (query,) = load("genecis/change_object", tmp_path).queries
    assert query.gallery == ("2", "3")
    scores = score(
        "genecis/change_object", tmp_path, [9, 3, 2], at_angles([0, 0.1, 0.2]), [0], at_angles([0.0])
    )
    assert scores == {"recall@1": 0.0, "recall@2": 100.0, "recall@3": 100.0}
    write(tmp_path / "change_object.json", [{**entry, "gallery": [{"val_image_id": 1}]}])
    with pytest.raises(DataError, match="entry 0: the reference 1 is in the query's own gallery"):
        load("genecis/change_object", tmp_path)


def write_domains(root: Path) -> Path:
    write(root / "imgnet_real_query.txt", "real/x.jpg 5 \n")
    write(root / "imgnet_targets.txt", "r/cartoon_1.jpg 5 \nr/cartoon_2.jpg 5 \nr/toy_1.jpg 2005 \n")
    return root


def test_domain_conversion_asks_each_photo_for_every_domain(tmp_path):
    benchmark = load("domain_conversion", write_domains(tmp_path))
    answers = {query.aspects[0]: query.answers for query in benchmark.queries}
    assert answers == {
        "cartoon": ("r/cartoon_1.jpg", "r/cartoon_2.jpg"),
        "origami": (),
        "toy": ("r/toy_1.jpg",),
        "sculpture": (),
    }
    assert benchmark.options["unanswerable"] == "count as zero (2 of 4)"
    answerable = load("domain_conversion", tmp_path, unanswerable="leave out")
    assert [query.id for query in answerable.queries] == ["cartoon:real/x.jpg", "toy:real/x.jpg"]
    gallery = at_angles([0.0, 0.1, 0.2])
    ids = list(benchmark.gallery_ids or ())
    queries = [query.id for query in benchmark.queries]
    scores = score("domain_conversion", tmp_path, ids, gallery, queries, at_angles([0.0] * 4))
    assert scores["recall@10"] == 50.0
    assert scores["recall@10/cartoon"] == 100.0
    assert scores["recall@10/origami"] == 0.0


def test_a_damaged_domain_list_is_named(tmp_path):
    write_domains(tmp_path)
    write(tmp_path / "imgnet_targets.txt", "r/cartoon_1.jpg 5\nbroken\n")
    with pytest.raises(DataError, match=r"imgnet_targets.txt, line 2: expected .* got 'broken'"):
        load("domain_conversion", tmp_path)


# Submissions


def cirr_test_features(root: Path) -> tuple[list[str], np.ndarray, list[int], np.ndarray]:
    names = [f"p{number}" for number in range(60)]
    pair = {"pairid": 9, "reference": "p0", "caption": "x", "img_set": {"members": names[:6]}}
    write(root / "split.rc2.test1.json", {name: f"./test1/{name}.png" for name in names})
    write(root / "cap.rc2.test1.json", [pair])
    return names, at_angles(np.arange(60) / 60), [9], at_angles([0.0])


def test_cirr_submission_files(tmp_path):
    recall, subset = write_cirr_submission(tmp_path / "out", tmp_path, *cirr_test_features(tmp_path))
    whole = json.loads(recall.read_text())
    assert whole["version"] == "rc2"
    assert whole["metric"] == "recall"
    assert whole["9"] == [f"p{number}" for number in range(1, 51)]
    assert json.loads(subset.read_text()) == {
        "version": "rc2",
        "metric": "recall_subset",
        "9": ["p1", "p2", "p3"],
    }
    assert check_cirr_submission(recall, tmp_path) == "recall"
    assert check_cirr_submission(subset, tmp_path) == "recall_subset"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recall.json", "recall_subset.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "rc1"}, "'version' should be 'rc2'"),
        ({"metric": "other"}, "'metric' should be one of recall, recall_subset"),
        ({"9": ["p1", "p2"]}, "pair 9 should name 3 pictures, got 2"),
        ({"9": ["p1", "p2", "p2"]}, "pair 9 names 'p2' twice"),
        ({"9": ["p1", "p2", "p0"]}, "pair 9 names 'p0', which it may not rank"),
        ({"9": ["p1", "p2", "p8"]}, "pair 9 names 'p8', which it may not rank"),
        ({"9": "p1"}, "query '9' should have a list of picture ids"),
        ({"10": ["p1", "p2", "p3"]}, "cirr test1 has no query '10'"),
    ],
)
def test_damaged_cirr_submissions_are_named(tmp_path, change, message):
    cirr_test_features(tmp_path)
    good = {"version": "rc2", "metric": "recall_subset", "9": ["p1", "p2", "p3"]}
    write(tmp_path / "sent.json", {**good, **change})
    with pytest.raises(DataError, match=message):
        check_cirr_submission(tmp_path / "sent.json", tmp_path)


def test_a_cirr_submission_without_a_pair_or_too_large_is_named(tmp_path):
    cirr_test_features(tmp_path)
    head = {"version": "rc2", "metric": "recall_subset"}
    write(tmp_path / "sent.json", head)
    with pytest.raises(DataError, match="query '9' is missing"):
        check_cirr_submission(tmp_path / "sent.json", tmp_path)
    write(tmp_path / "sent.json", json.dumps({**head, "9": ["p1", "p2", "p3"]}) + " " * 5_000_000)
    with pytest.raises(DataError, match="the server takes 5000000"):
        check_cirr_submission(tmp_path / "sent.json", tmp_path)


def write_circo_test(root: Path) -> None:
    query = {"id": 3, "reference_img_id": 1, "relative_caption": "x", "shared_concept": "y"}
    write(root / "test.json", [query])


def test_circo_submission_file(tmp_path):
    write_circo_test(tmp_path)
    ids = list(range(1, 61))
    path = write_circo_submission(
        tmp_path / "circo.json", tmp_path, ids, at_angles(np.arange(60) / 60), [3], at_angles([0.0])
    )
    assert json.loads(path.read_text()) == {"3": list(range(1, 51))}
    check_circo_submission(path, tmp_path)


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"3": [*range(1, 50), 1]}, "query 3 names '1' twice"),
        ({"3": list(range(1, 50))}, "query 3 should name 50 pictures, got 49"),
        ({}, "query '3' is missing"),
        ({"3": list(range(50)), "4": list(range(50))}, "circo test has no query '4'"),
        ({"3": ["cat.jpg"] * 50}, "expected a COCO picture number"),
    ],
)
def test_damaged_circo_submissions_are_named(tmp_path, sent, message):
    write_circo_test(tmp_path)
    write(tmp_path / "sent.json", sent)
    with pytest.raises(DataError, match=message):
        check_circo_submission(tmp_path / "sent.json", tmp_path)


def test_too_small_a_gallery_cannot_fill_a_submission(tmp_path):
    write_circo_test(tmp_path)
    with pytest.raises(DataError, match="query 3 should name 50 pictures, got 2"):
        write_circo_submission(
            tmp_path / "circo.json", tmp_path, [1, 2], at_angles([0, 1]), [3], at_angles([0.0])
        )
    assert not (tmp_path / "circo.json").exists()


# Public figures


@pytest.fixture(scope="session")
def annotations(shared_data: Path) -> Path:
    return shared_data / "annotations"


@pytest.fixture(scope="session")
def fake_features(annotations: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_features", annotations / "fake_features.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def public(annotations: Path) -> dict:
    return json.loads((annotations / "metric_values.json").read_text())["seeds"]


@pytest.mark.parametrize("seed", [0, 1])
def test_cirr_val_gives_the_public_figures(annotations, fake_features, public, seed):
    scores = score("cirr", annotations / "cirr", *fake_features.cirr(seed))
    expected = {
        key.replace("cirr_group_recall_at", "subset_recall@").replace("cirr_recall_at", "recall@"): value
        for key, value in public[str(seed)]["cirr_val"].items()
    }
    assert {key: round(scores[key], 4) for key in expected} == expected
    mean = (scores["recall@5"] + scores["subset_recall@1"]) / 2
    assert scores["mean(recall@5,subset_recall@1)"] == pytest.approx(mean)
    assert len(scores) == 8


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("category", ["dress", "shirt", "toptee"])
def test_fashioniq_val_gives_the_public_figures(annotations, fake_features, public, seed, category):
    features = fake_features.fashioniq(seed, category)
    scores = score(f"fashioniq/{category}", annotations / "fashioniq", *features)
    expected = public[str(seed)]["fashioniq_val"][category]
    assert {f"fiq_{key.replace('@', '_at')}": round(value, 4) for key, value in scores.items()} == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_circo_val_gives_the_public_figures(annotations, fake_features, public, seed):
    scores = score("circo", annotations / "circo", *fake_features.circo(seed))
    expected = public[str(seed)]["circo_val"]
    keys = {f"mAP@{k}": value for k, value in expected["mAP"].items()}
    keys |= {f"recall@{k}": value for k, value in expected["recall"].items()}
    keys |= {f"mAP@10/{aspect}": value for aspect, value in expected["semantic_mAP@10"].items()}
    assert {key: round(value, 4) for key, value in scores.items()} == keys


@pytest.mark.parametrize(
    ("name", "split", "queries", "gallery"),
    [
        ("cirr", "val", 4181, 2297),
        ("cirr", "test1", 4148, 2315),
        ("fashioniq/dress", "val", 2017, 3817),
        ("fashioniq/shirt", "val", 2038, 6346),
        ("fashioniq/toptee", "val", 1961, 5373),
        ("domain_conversion", "val", 40_000, 16_983),
        ("circo", "val", 220, None),
        ("circo", "test", 800, None),
        ("genecis/focus_object", "val", 1960, None),
        ("genecis/change_object", "val", 1960, None),
    ],
)
def test_sizes_of_the_real_benchmarks(annotations, name, split, queries, gallery):
    benchmark = load(name, annotations, split)
    assert len(benchmark.queries) == queries
    assert (None if benchmark.gallery_ids is None else len(benchmark.gallery_ids)) == gallery
    assert benchmark.hidden == split.startswith("test")
