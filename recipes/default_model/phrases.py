"""Gives the towers alone guiding phrases: composition without training that says what a picture shows in words.

    python -m recipes.default_model.phrases --glove FILE --model FOLDER --out FOLDER

A query then goes by what the words make of the phrase nearest to the picture (`encoders.phrase_guide`); where no phrase
is near, the weighted sum stays. How many phrases, how near and how much of the picture beside them is chosen on
validation pictures: once with all phrases, and once without those of the pictures' own kind, as it is with things that
nobody listed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from image2sentence.catalogue import attributes as drawn
from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import GuideConfig
from image2sentence.encoders.guide_files import add_guide
from image2sentence.encoders.interpolation import weighted_sum
from image2sentence.encoders.onnx_encoder import OnnxEncoder
from image2sentence.encoders.phrase_guide import Guide
from image2sentence.encoders.protocols import Vectors
from image2sentence.hub.table import EVERYDAY
from recipes.default_model import pictures as material
from recipes.default_model import tflite, wordnet
from recipes.default_model.glove import FILE as GLOVE
from recipes.default_model.glove import Glove
from recipes.default_model.nouns import Nouns
from recipes.default_model.query_side import QuerySettings, banks
from recipes.default_model.targets import Task, tasks
from recipes.text_vectors import TextVectors

SOURCES = ("photo", "everyday", "drawn")
_GARMENTS = """
    jacket coat dress skirt blouse tunic jeans leggings trousers shorts shirt t-shirt jumper cardigan hoodie bra
    swimsuit pyjamas
"""
_GOODS = """
    shoe sneaker sandal heel flip-flop boot loafer slipper bag handbag backpack wallet purse suitcase watch sunglasses
    belt tie scarf cap hat glove sock earring necklace bracelet ring umbrella bottle cup mug bowl plate vase chair sofa
    table lamp pillow blanket towel curtain rug clock toy ball bicycle car helmet phone headphones camera box flower
"""
OWN = {  # lists that name what a source shows
    "photo": ("drawn", "photo", "garments"),
    "drawn": ("drawn", "photo", "garments"),
    "everyday": ("everyday",),
}
NEIGHBOURS = (1, 3)
RESIDUALS = (0.0, 0.1, 0.2, 0.3, 0.4)
TRUST = ((0.4, 0.6), (0.5, 0.7), (0.6, 0.8))
GRID = [
    GuideConfig(neighbours, residual=residual, low=low, high=high)
    for neighbours, residual, (low, high) in itertools.product(NEIGHBOURS, RESIDUALS, TRUST)
]
DRAWN = 10_000  # drawn products to train on: what is kept for validation follows from it
_QUERIES = 200  # of one change
_BATCH = 64


def phrase_lists(pictures: Sequence[material.Picture], nouns: Nouns) -> dict[str, list[str]]:
    """Phrases by list, each once: the query side's but emoji's, and what shops sell in the catalogue's colours."""
    lists = {
        name: list(words.phrases) for name, words in banks(pictures, nouns, QuerySettings().train).items()
    }
    lists.pop("emoji", None)
    lists |= {"garments": _coloured(_GARMENTS.split()), "goods": _coloured(_GOODS.split())}
    seen: set[str] = set()
    for name, phrases in lists.items():
        lists[name] = [phrase for phrase in dict.fromkeys(phrases) if phrase not in seen]
        seen |= set(phrases)
    return lists


def choose_guide(
    encoder: OnnxEncoder, asked: Mapping[str, Sequence[Task]], lists: Mapping[str, Sequence[str]]
) -> GuideConfig:
    """The settings of `GRID` with the best R@1: the mean over tasks, each with and without phrases of its own kind."""
    read = TextVectors(encoder)
    found = np.zeros(len(GRID))
    for source, some in asked.items():
        for left_out in ((), OWN[source]):
            phrases = [phrase for name in lists if name not in left_out for phrase in lists[name]]
            for task in some:
                found += [_recall(encoder, task, Guide(phrases, read(phrases), how), read) for how in GRID]
    return GRID[int(found.argmax())]


def validation(encoder: OnnxEncoder, pictures: Sequence[material.Picture]) -> dict[str, list[Task]]:
    """Changes asked of validation pictures among validation pictures alone, by source."""
    kept = [p for p in pictures if p.part == material.VALIDATION and p.record["source"] in SOURCES]
    batches = [kept[at : at + _BATCH] for at in range(0, len(kept), _BATCH)]
    vectors = np.concatenate([encoder.encode_images([p.open() for p in batch]) for batch in batches])
    return {source: [_some(task) for task in tasks(kept, vectors, source)] for source in SOURCES}


def guide_towers(encoder: OnnxEncoder, pictures: Sequence[material.Picture], nouns: Nouns, out: Path) -> None:
    """Writes the encoder's model folder with guiding phrases to `out`."""
    lists = phrase_lists(pictures, nouns)
    settings = choose_guide(encoder, validation(encoder, pictures), lists)
    click.echo(f"towers alone: {settings}")
    add_guide(encoder, list(itertools.chain(*lists.values())), settings, out)


def _recall(
    encoder: OnnxEncoder, task: Task, guide: Guide, read: Callable[[Sequence[str]], Vectors]
) -> float:
    composition = encoder.config.composition
    assert composition is not None
    pictures, texts = task.gallery[task.references], [query.texts[0] for query in task.queries]
    plain = weighted_sum(pictures, read(texts), composition.weight)
    asked = guide.apply(plain, pictures, texts, read)
    return task.recall(asked / np.linalg.norm(asked, axis=1, keepdims=True))


def _some(task: Task) -> Task:
    chosen = random.Random(0).sample(list(task.queries), min(_QUERIES, len(task.queries)))
    return Task(task.name, task.gallery, chosen, task.rows)


def _coloured(things: Sequence[str]) -> list[str]:
    return [f"a {colour} {thing}" for thing, colour in itertools.product(things, drawn.COLOURS)]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option(
    "--wordnet", "words", type=click.Path(path_type=Path), default=wordnet.FOLDER, show_default=True
)
@click.option("--glove", type=click.Path(path_type=Path), default=GLOVE, show_default=True)
@click.option("--model", default=EVERYDAY, show_default=True, help="Towers alone: a model folder or a name.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, words: Path, glove: Path, model: str, out: Path) -> None:
    """Gives the towers of MODEL guiding phrases, in a new folder OUT."""
    read = wordnet.WordNet.read(words)
    imagenet = tflite.read_imagenet(data / "mobilenet_v2")
    nouns = Nouns.build(read, Glove.read(glove).meanings(read), imagenet.names, _centred(imagenet))
    guide_towers(load_encoder(model), material.all_pictures(data, DRAWN), nouns, out)


def _centred(imagenet: tflite.ImageNet) -> Vectors:
    """The classifier's rows, centred, of unit length: which words are nouns depends on no projection of them."""
    rows = np.asarray(imagenet.classifier - imagenet.classifier.mean(0))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


if __name__ == "__main__":
    main()
