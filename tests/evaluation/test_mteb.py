"""The adapter for MTEB: which side of the model reads what; and, where MTEB is installed, a whole task."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
import pytest
from PIL import Image

from fakes import FakeEncoder
from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError
from image2sentence.evaluation.mteb import MtebEncoder

RED, BLUE, GREEN = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime"))


class Role(Enum):
    """As MTEB's PromptType."""

    query = "query"
    document = "document"


class Noting(FakeEncoder):
    """Remembers the texts that it was asked to compose."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bool, list[str]]] = []

    def encode_queries(self, sentences: Vectors | None, texts: Sequence[str]) -> Vectors:
        self.asked.append((sentences is not None, list(texts)))
        return super().encode_queries(sentences, texts)


def test_documents_go_through_the_large_side_and_queries_do_not() -> None:
    noting = Noting()
    adapter = MtebEncoder(noting)
    rows = adapter.encode([{"image": [RED, BLUE]}, {"image": [GREEN]}], prompt_type=Role.document)
    assert noting.batches == [2, 1]
    assert rows.shape == (3, noting.width)
    composed = adapter.encode([{"image": [RED], "text": ["in blue"]}], prompt_type=Role.query)
    alone = adapter.encode([{"image": [RED]}], prompt_type=Role.query)
    assert noting.batches == [2, 1]
    assert noting.asked == [(True, ["in blue"]), (True, [""])]
    assert composed[0] @ rows[1] > alone[0] @ rows[1]


def test_without_a_role_pictures_are_gallery_pictures_and_words_are_words() -> None:
    noting = Noting()
    adapter = MtebEncoder(noting)
    adapter.encode([{"image": [RED]}])
    adapter.encode([{"text": ["blue"]}], prompt_type=Role.document)
    assert noting.batches == [1]
    assert noting.asked == [(False, ["blue"])]
    assert adapter.encode([]).shape == (0, noting.width)


def test_pictures_of_any_mode_are_read() -> None:
    adapter = MtebEncoder(Noting())
    grey = Image.new("L", (8, 8), 120)
    assert np.array_equal(
        adapter.encode([{"image": [grey]}]), adapter.encode([{"image": [grey.convert("RGB")]}])
    )


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"audio": [1]}, "'image' or 'text', got audio"),
        ({"image": [RED], "text": ["a shirt"]}, "picture with words"),
        ({"image": [RED, None]}, "NoneType in row 1"),
    ],
)
def test_what_the_model_cannot_read_is_refused(batch: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        MtebEncoder(Noting()).encode([batch], prompt_type=Role.document)


def test_a_composed_retrieval_task_runs_in_mteb() -> None:
    mteb = pytest.importorskip("mteb")
    datasets = pytest.importorskip("datasets")
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata

    queries = {"id": ["q0", "q1"], "image": [RED, GREEN], "text": ["in blue", "in red"]}
    corpus = {"id": ["d0", "d1", "d2"], "image": [RED, BLUE, GREEN]}

    class Colours(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="Colours",
            description="Pictures of one colour, asked for by another and words.",
            reference="https://example.org",
            dataset={"path": "made/here", "revision": "1"},
            type="Any2AnyRetrieval",
            category="it2i",
            modalities=["image", "text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
        )

        def load_data(self, **_: object) -> None:
            split = RetrievalSplitData(
                queries=datasets.Dataset.from_dict(queries),
                corpus=datasets.Dataset.from_dict(corpus),
                relevant_docs={"q0": {"d1": 1}, "q1": {"d0": 1}},
                top_ranked=None,
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    adapter = MtebEncoder(Noting())
    result = mteb.evaluate(adapter, tasks=[Colours()], cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    vectors = adapter.encode([{"image": corpus["image"]}], prompt_type=Role.document)
    asked = adapter.encode([{"image": queries["image"], "text": queries["text"]}], prompt_type=Role.query)
    order = np.argsort(-(asked @ vectors.T), axis=1)
    ranks = [list(order[0]).index(1), list(order[1]).index(0)]
    assert scores["ndcg_at_10"] == pytest.approx(np.mean([1 / np.log2(rank + 2) for rank in ranks]), abs=1e-4)
