"""What an evaluation draws: right answers framed, wrong cases with what they missed, attention where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image2sentence.encoders.onnx_encoder import Explanation
from image2sentence.errors import ConfigError, DataError, QueryError
from image2sentence.evaluation import Benchmark, Protocol, Query
from image2sentence.evaluation import examples as module
from image2sentence.evaluation.evaluate import Evaluation, evaluate
from image2sentence.evaluation.examples import draw_cases, result_sheet, write_pictures
from image2sentence.visualize.attention_maps import attention_sheet, overlays
from image2sentence.visualize.contact_sheet import Shown

NAMES = [f"{number:02}.png" for number in range(14)]


def angle(name: str) -> float:
    return int(name[:2]) / 10


class CircleEncoder:
    """A picture's colour is its angle; a composed query ranks by the distance of angles, whatever the words."""

    fingerprint, width = "circle", 2

    def encode_images(self, images: Sequence[Image.Image]) -> np.ndarray:
        angles = np.array([image.getpixel((0, 0))[0] / 10 for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def encode_sentences(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.encode_images(images)[:, None]

    def encode_queries(self, sentences: np.ndarray | None, texts: Sequence[str]) -> np.ndarray:
        return np.tile(np.float32([1, 0]), (len(texts), 1)) if sentences is None else sentences[:, 0]


class Explaining(CircleEncoder):
    def explain(self, image: Image.Image) -> Explanation:
        return Explanation(
            np.zeros((2, 2), np.float32), np.full((2, 2, 2), 0.25, np.float32), np.ones(2, np.float32)
        )


def open_image(name: str) -> Image.Image:
    return Image.new("RGB", (20, 20), (int(name[:2]), 7, 9))


@pytest.fixture
def evaluation() -> Evaluation:
    """Picture 0 asks thrice: for its neighbour (right), for the farthest, and for what stands third."""
    queries = [
        Query("near", NAMES[0], ("near",), (NAMES[1],)),
        Query("far", NAMES[0], ("far",), (NAMES[13],)),
        Query("third", NAMES[0], ("third",), (NAMES[3], NAMES[5])),
    ]
    benchmark = Benchmark("circle", "all", tuple(queries), Protocol("removed", recall_at=(1,)), tuple(NAMES))
    return evaluate(benchmark, CircleEncoder(), open_image, rows=["composed"])


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[Shown]]]:
    """Heading and results of every sheet."""
    sheets: list[tuple[str, list[Shown]]] = []

    def remember(reference: Image.Image, words: str, results: list[Shown]) -> Image.Image:
        sheets.append((words, list(results)))
        return Image.new("RGB", (10, 10))

    monkeypatch.setattr(module, "contact_sheet", remember)
    return sheets


def test_right_answers_are_marked_in_their_places(evaluation: Evaluation, drawn: list) -> None:
    result_sheet(evaluation, "composed", 2, open_image)
    ((words, results),) = drawn
    assert words == "third   (2 right, at 3, 5)"
    assert [shown.caption for shown in results] == NAMES[1:11]
    assert [shown.rank for shown in results if shown.right] == [3, 5]
    scores = [shown.score for shown in results]
    assert scores == pytest.approx(np.cos(np.arange(1, 11) / 10), abs=1e-5)


def test_an_answer_beyond_the_sheet_stands_last_with_its_rank(evaluation: Evaluation, drawn: list) -> None:
    result_sheet(evaluation, "composed", 1, open_image, places=4)
    _, results = drawn[0]
    assert [shown.rank for shown in results] == [1, 2, 3, 13]
    assert [shown.right for shown in results] == [False, False, False, True]
    assert results[-1].caption == NAMES[13]


def test_cases_are_divided_by_their_first_place(evaluation: Evaluation) -> None:
    cases = draw_cases(evaluation, "composed")
    assert cases.right == (0,)
    assert sorted(cases.wrong) == [1, 2]
    assert cases.share_right == pytest.approx(1 / 3)
    assert len(draw_cases(evaluation, "composed", count=1).wrong) == 1


def test_files_of_every_composed_row(evaluation: Evaluation, tmp_path: Path) -> None:
    written = write_pictures(evaluation, {"composed": Explaining()}, open_image, tmp_path / "new")
    assert [path.name for path in written] == [
        "composed-right.png",
        "composed-wrong.png",
        "composed-attention.png",
    ]
    sizes = [Image.open(path).size for path in written]
    assert sizes[1][1] > sizes[0][1]  # two wrong cases, one right one
    mute = write_pictures(evaluation, {"composed": CircleEncoder()}, open_image, tmp_path)
    assert [path.name for path in mute] == ["composed-right.png", "composed-wrong.png"]


def test_rows_of_the_same_file_are_refused_before_anything_is_written(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'a-b'"):
        write_pictures(
            evaluation, {"a b": CircleEncoder(), "a/b": CircleEncoder()}, open_image, tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()


def test_an_evaluation_without_vectors_says_so(evaluation: Evaluation) -> None:
    bare = Evaluation(evaluation.benchmark, 14, "circle", evaluation.rows)
    with pytest.raises(DataError, match="without its vectors"):
        draw_cases(bare, "composed")


def test_heat_lies_where_the_token_looks() -> None:
    attention = np.zeros((2, 4, 4), np.float32)
    attention[0, 0, 0] = attention[1, 3, 3] = 0.5
    first, second = overlays(Image.new("RGB", (40, 40), "grey"), attention)
    light = [np.asarray(heat.convert("L"), float) for heat in (first, second)]
    assert first.size == (40, 40)
    assert light[0][:8, :8].mean() > light[0][-8:, -8:].mean() + 40
    assert light[1][-8:, -8:].mean() > light[1][:8, :8].mean() + 40


def test_attention_has_a_panel_for_the_picture_and_each_word() -> None:
    picture = open_image("00.png")
    two, four = (
        Explanation(np.zeros((n, 2), np.float32), np.ones((n, 2, 2), np.float32), np.ones(n, np.float32))
        for n in (2, 4)
    )
    narrow, wide = attention_sheet([picture], [two]), attention_sheet([picture], [four])
    assert wide.width - narrow.width == 2 * (200 + 18)
    assert attention_sheet([picture] * 2, [two, four]).width == wide.width


@pytest.mark.parametrize("attention", [np.ones((2, 2)), np.full((1, 2, 2), np.nan)])
def test_maps_that_are_none_are_refused(attention: np.ndarray) -> None:
    with pytest.raises(QueryError, match="finite attention maps"):
        overlays(open_image("00.png"), attention)
