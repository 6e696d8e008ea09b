"""The studies' own steps: distractors, growing galleries, distortions, what is measured again and what is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder, photo
from image2sentence.evaluation import Benchmark, Protocol, Query
from image2sentence.evaluation.evaluate import SUM, evaluate
from image2sentence.gallery.search.searcher import Searcher
from recipes.miniature import growth, robustness
from recipes.miniature.growth import Growing, expand, nearest
from recipes.miniature.robustness import KINDS, Subject, measure, noise


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def real() -> np.ndarray:
    """Two clouds; each spreads in one direction of its own and hardly in the others."""
    rng = np.random.default_rng(0)
    spread = np.array([[0, 0, 0.2, 0.01], [0, 0, 0.01, 0.2]])
    middles = np.array([[1, 0, 0, 0], [0, 1, 0, 0]])
    return unit(
        np.concatenate([m + s * rng.standard_normal((200, 4)) for m, s in zip(middles, spread, strict=True)])
    )


def test_drawn_vectors_spread_as_the_real_ones_around_them(real: np.ndarray) -> None:
    drawn = np.concatenate(list(expand(real, 3_000)))
    assert drawn.shape == (3_000, 4)
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(1, abs=1e-5)
    for cloud, wide, narrow in ((0, 2, 3), (1, 3, 2)):
        mine = drawn[drawn[:, cloud] > 0.5]
        assert 1_200 < len(mine) < 1_800
        assert mine[:, wide].std() == pytest.approx(real[real[:, cloud] > 0.5][:, wide].std(), rel=0.2)
        assert mine[:, narrow].std() < 0.03


def test_drawing_is_seeded_and_comes_in_blocks(real: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BLOCK", 64)
    blocks = list(expand(real, 150, seed=3))
    assert [len(block) for block in blocks] == [64, 64, 22]
    assert np.array_equal(np.concatenate(blocks), np.concatenate(list(expand(real, 150, seed=3))))


def test_nearest_leaves_the_vector_itself_out(real: np.ndarray) -> None:
    near = nearest(real)
    assert near.shape == (400, growth.NEIGHBOURS)
    assert not (near == np.arange(400)[:, None]).any()
    assert (near[:200] < 200).all()


@pytest.fixture
def evaluation():
    """Twelve photos; each of the first four asks for the next one, by words that say nothing."""
    names = [f"{number}" for number in range(12)]
    queries = [Query(f"q{n}", names[n], ("more",), (names[n + 1], names[n + 2])) for n in range(4)]
    benchmark = Benchmark(
        "photos", "all", tuple(queries), Protocol("removed", (1, 10), map_at=(10,)), tuple(names)
    )
    return evaluate(benchmark, FakeEncoder(), lambda name: photo(int(name)), rows=["image only", "composed"])


def test_a_gallery_grown_in_parts_ranks_as_a_whole(evaluation) -> None:
    rng = np.random.default_rng(1)
    extra = unit(evaluation.searcher.vectors_of(["1", "2", "3"] * 20) + 0.05 * rng.standard_normal((60, 49)))
    growing = Growing(evaluation, "composed")
    assert growing.scores().percent() == {
        name: evaluation.row("composed").scores.percent()[name] for name in growing.scores().values
    }
    for start in (0, 25):
        part = extra[start : start + (25 if start == 0 else 35)]
        growing.add(Searcher([("distractor", start + n) for n in range(len(part))], part))
    ids = [*evaluation.searcher.ids, *(("distractor", n) for n in range(60))]
    whole = Searcher(ids, np.concatenate([evaluation.searcher.vectors_of(evaluation.searcher.ids), extra]))
    references = [[query.reference] for query in evaluation.benchmark.queries]
    expected = whole.search(evaluation.row("composed").vectors, growth.DEPTH, exclude=references)
    assert [[hit.id for hit in own] for own in growing.hits] == [[hit.id for hit in own] for own in expected]


def test_more_distractors_never_help(evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "SIZES", (12, 40, 200))
    distractors = np.concatenate(
        list(expand(np.tile(evaluation.searcher.vectors_of(["1", "2"]), (20, 1)), 188))
    )
    grown = growth.grow(evaluation, "composed", distractors)
    assert list(grown) == ["12", "40", "200"]
    means = [own["mAP@10"]["mean"] for own in grown.values()]
    assert means == sorted(means, reverse=True)


@pytest.mark.parametrize("kind", list(KINDS))
def test_stronger_distortions_move_a_picture_further(kind: str) -> None:
    own, picture = KINDS[kind], noise(40)(photo(3, (120, 90)))  # with detail that can be lost
    strengths = sorted(own.strengths, key=lambda strength: abs(strength - own.clean))
    if kind == "brightness":
        strengths = [strength for strength in strengths if strength < own.clean]

    def distance(strength: float) -> float:
        distorted = own.make(strength)(picture)
        assert (distorted.size, distorted.mode) == (picture.size, "RGB")
        return float(np.abs(np.asarray(distorted, float) - np.asarray(picture, float)).mean())

    distances = [distance(strength) for strength in strengths]
    assert distances == sorted(distances)
    assert distances[0] > 0
    again = own.make(strengths[-1])
    assert again(picture).tobytes() == again(picture).tobytes()


def subject(evaluation, composers: Sequence[str]) -> Subject:
    made = {name: FakeEncoder() for name in composers}
    opened = evaluation.benchmark
    return Subject("s", "Photos", FakeEncoder(), made, opened, opened, lambda name: photo(int(name)))


def test_a_study_goes_on_where_it_stopped_and_adds_new_rows(evaluation, tmp_path: Path, monkeypatch) -> None:
    kinds = {"blur": KINDS["blur"]}
    monkeypatch.setattr(robustness, "KINDS", kinds)
    kept = tmp_path / "new" / "s.json"
    first = measure(subject(evaluation, ["ISA"]), kept)
    assert list(first["settings"]) == ["clean", "blur 1", "blur 2", "blur 4"]
    assert list(first["settings"]["blur 4"]) == ["image only", SUM, "ISA"]
    document = json.loads(kept.read_text())
    document["settings"]["blur 1"]["ISA"]["mAP@10"]["mean"] = -1.0
    del document["settings"]["blur 2"]
    kept.write_text(json.dumps(document))
    second = measure(subject(evaluation, ["ISA", "mapper"]), kept)
    assert second["settings"]["blur 1"]["ISA"]["mAP@10"]["mean"] == -1.0  # not measured again
    assert second["settings"]["blur 2"]["ISA"] == first["settings"]["blur 2"]["ISA"]
    assert all("mapper" in rows for rows in second["settings"].values())


def test_figures_of_another_model_are_not_continued(evaluation, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"about": {"model": "other", "queries": 4}}))
    with pytest.raises(Exception, match="another model or benchmark"):
        measure(subject(evaluation, ["ISA"]), tmp_path / "s.json")


def test_tables_and_charts_hold_every_row(evaluation, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(robustness, "KINDS", {"blur": KINDS["blur"], "jpeg": KINDS["jpeg"]})
    result = measure(subject(evaluation, ["ISA"]), tmp_path / "s.json")
    text = robustness.document("drawn", result)
    assert text.count("| blur 4 |") == 1 + len(robustness.METRICS)
    robustness.chart(result, tmp_path / "chart.png")
    assert Image.open(tmp_path / "chart.png").width > 500
