"""The recipe of the starter model: words from WordNet, closed-form targets, validation pictures, resumable stages."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch", reason="recipes need the [recipes] extra")
pytest.importorskip("sklearn", reason="recipes need the [recipes] extra")

from PIL import Image

from image2sentence.encoders.config import CompositionConfig
from image2sentence.errors import DataError, ModelError
from image2sentence.evaluation.protocol import Query
from image2sentence.training.phrase_bank import WordLists
from image2sentence.training.settings import Target
from image2sentence.training.vl.load import load_vl
from recipes.bundled import language
from recipes.default_model import phrases, targets, wordnet
from recipes.default_model.centroids import Additive, caption_vectors
from recipes.default_model.glove import Glove
from recipes.default_model.lsa import analyse
from recipes.default_model.meanings import Meanings
from recipes.default_model.nouns import Nouns
from recipes.default_model.pictures import TEST, TRAIN, VALIDATION, Picture
from recipes.default_model.stages import digest, stage
from recipes.default_model.text_tower import start_embeddings
from recipes.default_model.tflite import read_imagenet
from recipes.default_model.varied import write_files
from tiny_vl import save_tiny_vl

LICENCE = "  1 This software and database is provided to you\n"
NOUNS = [  # key, lexicographer file, words, broader, gloss
    ("00000001", 3, ["entity"], [], "what is perceived"),
    ("00000002", 5, ["animal"], ["00000001"], "a living thing that moves"),
    ("00000003", 5, ["dog"], ["00000002"], "an animal that barks and guards the house"),
    ("00000004", 5, ["poodle"], ["00000003"], "a dog with curly hair that barks"),
    ("00000005", 5, ["terrier"], ["00000003"], "a small dog that barks and digs"),
    ("00000006", 6, ["car", "auto"], ["00000001"], "a vehicle with wheels and an engine"),
    ("00000007", 6, ["van"], ["00000006"], "a large vehicle with wheels and an engine"),
]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> wordnet.WordNet:
    folder = tmp_path_factory.mktemp("wordnet")
    for part in wordnet.PARTS:
        (folder / f"data.{part}").write_text(LICENCE)
    lines, index = [], []
    for key, number, names, broader, gloss in NOUNS:
        said = " ".join(f"{name} 0" for name in names)
        above = "".join(f" @ {other} n 0000" for other in broader)
        lines.append(f"{key} {number:02d} n {len(names):02x} {said} {len(broader):03d}{above} | {gloss}  \n")
        index += [f"{name} n 1 1 @ 1 1 {key}  \n" for name in names]
    (folder / "data.noun").write_text(LICENCE + "".join(lines))
    (folder / "index.noun").write_text(LICENCE + "".join(index))
    return wordnet.WordNet.read(folder)


def test_wordnet_is_read_with_names_senses_and_broader_synsets(words: wordnet.WordNet) -> None:
    assert words.above("noun/00000004") == ["noun/00000003", "noun/00000002", "noun/00000001"]
    assert words.senses["auto"] == ("noun/00000006",)
    assert words.synset_of(("car", "auto")) == "noun/00000006"
    assert words.synsets["noun/00000003"].visible
    assert not words.synsets["noun/00000001"].visible


def test_a_folder_without_wordnet_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install wordnet-base"):
        wordnet.WordNet.read(tmp_path)


def test_a_broader_word_is_the_mean_of_its_kinds_and_a_new_one_is_near_what_it_is_like(
    words: wordnet.WordNet,
) -> None:
    rows = np.eye(5, 8, dtype=np.float32)
    names = [("poodle",), ("terrier",), ("car", "auto"), ("xx",), ("yy",)]
    nouns = Nouns.build(words, analyse(words, 4), names, rows)
    dog, van = nouns.word("dog"), nouns.word("van")
    assert dog is not None
    assert van is not None
    np.testing.assert_allclose(dog, (rows[0] + rows[1]) / np.sqrt(2), atol=1e-6)
    assert van.argmax() == 2
    assert nouns.word("xyzzy") is None


def test_glove_says_that_a_van_is_like_a_car_and_reads_only_the_package_it_knows(
    words: wordnet.WordNet, tmp_path: Path
) -> None:
    axes = {"animal": 0, "dog": 0, "barks": 0, "poodle": 0, "terrier": 0, "car": 1, "vehicle": 1, "van": 1}
    axes |= {"wheels": 2, "engine": 2, "small": 3}
    glove = Glove.of({word: (np.eye(4)[axis] + 0.1).tolist() for word, axis in axes.items()})
    meanings = glove.meanings(words)
    assert meanings.synsets.shape == (len(words.synsets), 4)
    rows = {key: meanings.synsets[row] for key, row in meanings.synset_rows.items()}
    assert rows["noun/00000007"] @ rows["noun/00000006"] > rows["noun/00000007"] @ rows["noun/00000005"] + 0.5
    assert np.linalg.norm(rows["noun/00000003"]) == pytest.approx(1, abs=1e-5)
    assert glove.text("xyzzy and the").tolist() == [0, 0, 0, 0]
    with pytest.raises(DataError, match="npm pack"):
        Glove.read(tmp_path / "none.tgz")
    (tmp_path / "other.tgz").write_bytes(b"other")
    with pytest.raises(DataError, match="not the package"):
        Glove.read(tmp_path / "other.tgz")


def test_embeddings_start_with_what_each_source_says_side_by_side(words: wordnet.WordNet) -> None:
    from types import SimpleNamespace

    import torch
    from torch import nn

    table = nn.Embedding(3, 6)
    model = SimpleNamespace(text_encoder=SimpleNamespace(embeddings=SimpleNamespace(word_embeddings=table)))
    first = Meanings(np.eye(2, 4, dtype=np.float32), {"dog": 0, "car": 1}, np.empty((0, 4)), {})
    second = Meanings(np.eye(1, 4, dtype=np.float32), {"dog": 0}, np.empty((0, 4)), {})
    vocabulary = SimpleNamespace(get_vocab=lambda: {"dog": 0, "car": 1, "new": 2})
    drawn = table.weight.detach().clone()
    assert start_embeddings(model, vocabulary, (first, second)) == 2
    assert table.weight[0].tolist() == pytest.approx([0.3, 0, 0, 0, 0.3, 0])
    assert table.weight[1, :4].tolist() == pytest.approx([0, 0.3, 0, 0])
    assert torch.equal(table.weight[1, 4:], drawn[1, 4:])
    assert torch.equal(table.weight[2], drawn[2])


def test_additive_effects_step_alike_whatever_else_is_there() -> None:
    rng = np.random.default_rng(0)
    parts = {name: rng.normal(size=16).astype(np.float32) for name in ("red", "blue", "shirt", "dress")}
    records = [
        {"source": "photo", "colour": colour, "type": kind}
        for colour in ("red", "blue")
        for kind in ("shirt", "dress")
    ] * 10
    vectors = np.stack([parts[r["colour"]] + parts[r["type"]] for r in records])
    model = Additive.fit(records, vectors)
    red, blue = (
        model.expected(language.Caption("", "photo", {"colour": frozenset({colour})}))
        for colour in ("red", "blue")
    )
    np.testing.assert_allclose(red - blue, parts["red"] - parts["blue"], rtol=0.15, atol=0.1)
    shirts = caption_vectors(
        [language.Caption("", "photo", {"type": frozenset({"shirt"})})], records, vectors, {}
    )
    assert np.linalg.norm(shirts[0]) == pytest.approx(1, abs=1e-5)


def _pictures() -> list[Picture]:
    kinds = [("shirt", "red"), ("shirt", "blue"), ("dress", "red"), ("dress", "blue")]
    parts = (TRAIN, TRAIN, VALIDATION, TEST)
    return [
        Picture(f"{kind}/{colour}/{part}", {"source": "photo", "type": kind, "colour": colour}, part)
        for part in parts
        for kind, colour in kinds
    ]


def test_targets_are_chosen_on_validation_pictures_and_no_picture_of_the_table_takes_part(
    tmp_path: Path,
) -> None:
    pictures = _pictures()
    vectors = np.random.default_rng(0).normal(size=(len(pictures), 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (task,) = targets.tasks(pictures, vectors, "photo")
    assert len(task.gallery) == sum(p.part != TEST for p in pictures)
    assert all(query.reference.endswith(VALIDATION) for query in task.queries)
    answer = [next(iter(query.answers)) for query in task.queries]
    assert task.recall(task.gallery[[task.rows[name] for name in answer]]) == 100
    assert task.recall(task.gallery[task.references]) < 100  # the reference itself is left out
    vl = load_vl(str(save_tiny_vl("blip", tmp_path)))
    lists = WordLists(["a red shirt", "a blue dress"], ["in red", "in blue"])
    narrow = targets.Task(
        task.name, np.zeros((len(task.gallery), vl.width), np.float32), task.queries, task.rows
    )
    assert targets.choose_target(vl, "photo", [narrow], lists) in targets.GRID
    assert targets.choose_target(vl, "photo", [], lists) == Target()


class _Reads:
    """Texts as one colour, the last that is named, and one kind."""

    def __init__(self, weight: float = 0.5) -> None:
        self.config = SimpleNamespace(composition=CompositionConfig("sum", weight))

    def encode_queries(self, sentences: None, texts: list[str]) -> np.ndarray:
        """n texts -> (n, 8) unit rows."""
        rows = np.zeros((len(texts), 8), np.float32)
        for row, text in zip(rows, texts, strict=True):
            colours = [word for word in text.split() if word in _COLOURS]
            row[[_COLOURS.index(word) for word in colours[-1:]]] = 1
            row[[4 + _KINDS.index(word) for word in text.split() if word in _KINDS]] = 1
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


_COLOURS, _KINDS = ("red", "blue", "green", "white"), ("shirt", "dress", "coat", "hat")


def test_phrases_count_where_they_find_more_than_the_sum_and_not_where_no_phrase_is_near() -> None:
    encoder, rows = (
        _Reads(0.4),
        {f"{c} {k}": i for i, (c, k) in enumerate(itertools.product(_COLOURS, _KINDS))},
    )
    gallery = encoder.encode_queries(None, list(rows))
    asked = [
        Query(f"{before} {kind} {after}", f"{before} {kind}", (after,), (f"{after} {kind}",))
        for before, after, kind in itertools.product(_COLOURS, _COLOURS, _KINDS)
        if before != after
    ]
    task = targets.Task("photo: colour", gallery, asked, rows)
    lists = {"photo": list(rows), "goods": ["a hat"]}
    chosen = phrases.choose_guide(encoder, {"photo": [task]}, lists)  # type: ignore[arg-type]
    assert chosen.neighbours == 1, "three would mix colours and kinds"
    own = phrases.Guide(lists["photo"], gallery, chosen)
    assert phrases._recall(encoder, task, own, phrases.TextVectors(encoder)) == 100  # type: ignore[arg-type]


def test_guiding_phrases_name_colours_of_goods_once_and_no_emoji(words: wordnet.WordNet) -> None:
    classes = [("poodle",), ("terrier",), ("van",)]
    nouns = Nouns.build(words, analyse(words, 4), classes, np.eye(3, dtype=np.float32))
    lists = phrases.phrase_lists([], nouns)
    found = list(itertools.chain(*lists.values()))
    assert set(lists) == {"drawn", "photo", "everyday", "garments", "goods"}
    assert len(found) == len(set(found))
    assert {"a navy sandal", "a photo of a poodle"} <= set(found)


def test_files_and_variants_are_the_same_every_time_and_only_of_pictures_to_train_on(tmp_path: Path) -> None:
    rng, pictures = np.random.default_rng(0), []
    for source in ("photo", "emoji", "everyday"):
        for number in range(4):
            path = tmp_path / f"{source}-{number}.png"
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(path)
            part = TEST if number == 3 else TRAIN
            pictures.append(Picture(f"{source}/{number}", {"source": source}, part, path=path))
    pictures.append(Picture("drawn/20000000", {"source": "drawn"}, TRAIN))
    first, again = (write_files(pictures, 5, tmp_path / name) for name in ("a", "b"))
    assert len(first.paths) == 10
    assert len(first.varied) == 3 + 9 + 6
    assert [pictures[row].part for row in first.rows] == [TRAIN] * 10
    for one, other in zip(first.paths + first.varied, again.paths + again.varied, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_stage_runs_once_and_again_when_what_it_is_made_from_changes(tmp_path: Path) -> None:
    runs: list[str] = []
    for made_from in ("a", "a", "b"):
        stage(tmp_path / "stage", made_from, lambda out: runs.append(made_from))  # noqa: B023
    assert runs == ["a", "b"]
    with pytest.raises(ZeroDivisionError):
        stage(tmp_path / "stage", "c", lambda out: 1 // 0)
    stage(tmp_path / "stage", "b", lambda out: runs.append("again"))
    assert runs[-1] == "again"  # what an interruption has left does not count
    assert digest("x", 1) != digest("x", 2)


def test_mobilenet_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected MobileNetV2's mobilenet_v2"):
        read_imagenet(tmp_path)


def test_validation_and_test_are_drawn_by_name_alone() -> None:
    names = [f"x{number}" for number in range(2_000)]
    from recipes.default_model.pictures import bucket

    first = [bucket(name, 20) for name in names]
    random.Random(0).shuffle(names)
    assert sorted(first) == sorted(bucket(name, 20) for name in names)
    assert np.bincount(first, minlength=20).min() > 50
