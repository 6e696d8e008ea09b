"""Makes a starter model that knows everyday things, from data and seed to a model folder and its table.

    python -m recipes.default_model --data ../shared/data

One run, about an hour on two idle CPU cores; interrupt it and the same command goes on. What is done is not done again
while what it was made from is the same.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import BlipForImageTextRetrieval

from image2sentence.encoders import load_encoder
from image2sentence.encoders.config import CompositionConfig, OriginRecord
from image2sentence.hub.table import EVERYDAY
from image2sentence.images import load_image
from image2sentence.training import checkpoint as state
from image2sentence.training.dataset import Collection
from image2sentence.training.export.model_folder import ExportOptions, export
from image2sentence.training.export.towers import export_towers
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from image2sentence.training.vl.mobile_blip import (
    MobileBlipForImageTextRetrieval,
    MobileVisionModel,
    mobile_blip_config,
    pyramid_width,
)
from recipes.default_model import pictures as material
from recipes.default_model import tflite, wordnet
from recipes.default_model.evaluate import write_table
from recipes.default_model.features import Features, Reader, preprocessing, read_all, read_files
from recipes.default_model.glove import FILE as VECTORS
from recipes.default_model.glove import Glove
from recipes.default_model.head import HeadSettings, fixed_part, train_head, vectors
from recipes.default_model.lsa import WIDTH, analyse
from recipes.default_model.meanings import Meanings
from recipes.default_model.nouns import Nouns
from recipes.default_model.phrases import guide_towers
from recipes.default_model.query_side import SOURCES, QuerySettings, banks, train_query_side
from recipes.default_model.stages import digest, stage
from recipes.default_model.targets import choose_target, choose_weight, tasks
from recipes.default_model.text_tower import TextSettings, build_tokenizer, start_embeddings, train_text
from recipes.default_model.texts import Lessons, Writer
from recipes.default_model.varied import write_files
from recipes.towers import save_model

TABLES = ("clothing/labels.csv", "emoji/emoji.csv", "everyday/everyday.csv", "everyday/coco_captions.csv")
COMPARED = 64  # pictures on which the exported graphs are compared with torch
LICENCE = "Apache-2.0"
KNOWS = "photographs of everyday things, animals, food and garments; less of drawn products and emoji"
TEXTS = ("in red", "a dog", "but a boot", "with long sleeves", "made of leather", "")


@dataclass(frozen=True)
class Settings:
    """All that decides the result beside the data."""

    side: int = 224
    drawn: int = 10_000
    kinds: int = 192
    looks: int = 128
    looks_hidden: int = 640
    head: HeadSettings = field(default_factory=HeadSettings)
    text: TextSettings = field(default_factory=TextSettings)
    query: QuerySettings = field(default_factory=QuerySettings)

    @classmethod
    def miniature(cls) -> Settings:
        """A few steps of everything: shows that the recipe runs, and makes nothing of use."""
        full = QuerySettings()
        train = replace(full.train, steps=2, batch=8, validation=8, warmup=0, save_every=2)
        return cls(
            side=64,
            drawn=40,
            head=HeadSettings(steps=2, batch=16),
            text=TextSettings(steps=2, batch=16),
            query=QuerySettings(drawn=20, train=train),
        )


class Recipe:
    """The stages, in order; each is a method that leaves a folder below `runs`."""

    def __init__(self, data: Path, runs: Path, words: Path, glove: Path, settings: Settings) -> None:
        self.data, self.runs, self.words, self.glove, self.settings = data, runs, words, glove, settings

    def run(self) -> Path:
        """Runs what is not done yet; returns the model folder."""
        settings, tables = self.settings, [self.data / table for table in TABLES]
        network = self.data / "mobilenet_v2" / tflite.FILE
        seen = stage(
            self.runs / "features", digest(network, *tables, settings.side, settings.drawn), self._read
        )
        head = digest(seen, settings.head, settings.kinds, settings.looks, settings.looks_hidden)
        tower = stage(self.runs / "tower", head, self._tower)
        files = [self.words / f"data.{part}" for part in wordnet.PARTS]
        words = stage(self.runs / "words", digest(tower, settings.text.seed, *files, self.glove), self._words)
        towers = stage(self.runs / "vl", digest(words, settings.text), self._text)
        stage(self.runs / "towers", digest(towers), self._towers_alone)
        query = stage(self.runs / "query", digest(towers, _plain(settings.query)), self._query)
        stage(self.runs / "table", digest(query), self._table)
        return self.runs / "query" / "model"

    @cached_property
    def imagenet(self) -> tflite.ImageNet:
        """MobileNetV2 and its classifier."""
        return tflite.read_imagenet(self.data / "mobilenet_v2")

    @cached_property
    def pictures(self) -> list[material.Picture]:
        """All pictures but those of the table alone."""
        return material.all_pictures(self.data, self.settings.drawn)

    @cached_property
    def features(self) -> Features:
        """What the frozen network sees in them."""
        folder = self.runs / "features"
        return read_all(Reader(self.imagenet.network, self.settings.side, folder), self.pictures, folder)

    @cached_property
    def lsa(self) -> Meanings:
        """What WordNet's glosses say of its words and synsets."""
        return analyse(self._wordnet, WIDTH)

    @cached_property
    def meanings(self) -> Meanings:
        """What GloVe's vectors say of them."""
        return Glove.read(self.glove).meanings(self._wordnet)

    @cached_property
    def nouns(self) -> Nouns:
        """What nouns look like to the fixed part of the tower."""
        rows = self.imagenet.classifier
        rows = functional.normalize(rows - rows.mean(0), dim=-1) @ self.tower.kinds.weight.T
        rows = functional.normalize(rows, dim=-1).numpy()
        return Nouns.build(self._wordnet, self.meanings, self.imagenet.names, rows)

    @cached_property
    def tower(self) -> MobileVisionModel:
        """The gallery tower, trained if its stage is done."""
        model = self._new_tower()
        tensors, _ = state.load_tensors(self.runs / "tower" / "tower.safetensors")
        model.load_state_dict(tensors)
        return model.eval().requires_grad_(False)

    @cached_property
    def _wordnet(self) -> wordnet.WordNet:
        return wordnet.WordNet.read(self.words)

    def _new_tower(self) -> MobileVisionModel:
        torch.manual_seed(self.settings.head.seed)
        return MobileVisionModel(self.settings.kinds, self.settings.looks, self.settings.looks_hidden)

    def _read(self, out: Path) -> None:
        assert self.features.whole.shape[1] == pyramid_width()

    @torch.no_grad()
    def _tower(self, out: Path) -> None:
        tower = self._new_tower()
        tower.network.load_state_dict(self.imagenet.network.state_dict())
        rows = material.chosen(self.pictures, "everyday", material.TRAIN)
        pooled = torch.from_numpy(
            np.asarray(self.features.whole[rows, : self.imagenet.classifier.shape[1]], np.float32)
        )
        weight, bias = fixed_part(self.imagenet.classifier, pooled, self.settings.kinds)
        tower.kinds.weight.copy_(weight)
        tower.kinds.bias.copy_(bias)
        with torch.enable_grad():
            train_head(tower, self.pictures, self.features, self.settings.head)
        state.save_tensors(
            out / "tower.safetensors", {name: t.half() for name, t in tower.state_dict().items()}
        )

    def _words(self, out: Path) -> None:
        seen = vectors(self.tower, self.features.whole)
        captions = material.captions(self.data)
        writer = Writer(
            self.pictures, seen, self.nouns, self.settings.kinds, captions, self.settings.text.seed
        )
        lessons = writer.write()
        np.savez(out / "targets.npz", targets=lessons.targets.astype(np.float16), groups=lessons.groups)
        (out / "texts.json").write_text(json.dumps(lessons.texts), encoding="utf-8")

    @cached_property
    def lessons(self) -> Lessons:
        """What the text tower learns from."""
        with np.load(self.runs / "words" / "targets.npz", allow_pickle=False) as kept:
            targets, groups = kept["targets"].astype(np.float32), kept["groups"]
        texts = json.loads((self.runs / "words" / "texts.json").read_text(encoding="utf-8"))
        return Lessons(texts, targets, groups)

    def _text(self, out: Path) -> None:
        settings, singular = self.settings, frozenset(word for word in self.nouns.words if " " not in word)
        tokenizer = build_tokenizer(self.lessons, singular)
        torch.manual_seed(settings.text.seed)
        config = mobile_blip_config(
            tokenizer.get_vocab_size(),
            image_size=settings.side,
            kinds=settings.kinds,
            looks=settings.looks,
            looks_hidden=settings.looks_hidden,
        )
        model: BlipForImageTextRetrieval = MobileBlipForImageTextRetrieval(config)
        model.vision_model.load_state_dict(self.tower.state_dict())
        start_embeddings(model, tokenizer, (self.meanings, self.lsa))
        train_text(model, tokenizer, self.lessons, settings.text)
        how = preprocessing(settings.side)
        save_model(model, tokenizer, out / "model", settings.side, how.mean, how.std)

    def _towers_alone(self, out: Path) -> None:
        """A model folder that composes without training, by guiding phrases and the weighted sum (phrases.py)."""
        vl: VisionLanguageModel = load_vl(str(self.runs / "vl" / "model"))
        seen = vectors(self.tower, self.features.whole)
        asked = [task for source in SOURCES for task in tasks(self.pictures, seen, source)]
        composition = CompositionConfig("sum", choose_weight(vl, asked))
        click.echo(f"towers alone: {composition}")
        rows = material.chosen(self.pictures, "everyday", material.TRAIN)[:COMPARED]
        shown = [self.pictures[row].open() for row in rows]
        origin = OriginRecord("trained", LICENCE, KNOWS)
        plain = out / "plain"
        export_towers(vl, EVERYDAY, plain, composition, origin, shown, [text for text in TEXTS if text])
        guide_towers(load_encoder(plain), self.pictures, self.nouns, out / "model")

    def _query(self, out: Path) -> None:
        vl: VisionLanguageModel = load_vl(str(self.runs / "vl" / "model"))
        settings, seen = self.settings.query, vectors(self.tower, self.features.whole)
        lists = []
        for source, words in banks(self.pictures, self.nouns, settings.train).items():
            asked = list(tasks(self.pictures, seen, source))
            lists.append(replace(words, target=choose_target(vl, source, asked, words)))
            click.echo(f"{source}: {lists[-1].target}")
        collection = self._collection(vl, seen, out)
        model, record = train_query_side(vl, self.imagenet.network, lists, collection, settings.train, out)
        compared = collection.paths[:: max(1, len(collection.paths) // COMPARED)][:COMPARED]
        shown = [load_image(path) for path in compared]
        export(
            vl,
            model,
            str(record["light"]),
            settings.train,
            record,
            out / "model",
            shown,
            TEXTS,
            ExportOptions(int8_storage=True),
        )

    def _collection(self, vl: VisionLanguageModel, seen: NDArray[np.float32], out: Path) -> Collection:
        """The query side's pictures and what the gallery tower sees in them."""
        files = write_files(self.pictures, self.settings.query.drawn, out / "pictures")
        reader = Reader(self.imagenet.network, self.settings.side, out)
        varied = vectors(self.tower, read_files(reader, files.varied, out / "varied.npy"))
        paths = [*files.paths, *files.varied]
        targets = torch.from_numpy(np.concatenate([seen[files.rows], varied]))
        targets = functional.normalize(targets, dim=-1)
        names = [path.relative_to(out).as_posix() for path in paths]
        return Collection(paths, targets, [], digest(vl.record.fingerprint, names))

    def _table(self, out: Path) -> None:
        write_table(self.data, self.runs / "query" / "model", out, out / "results.md")


def _plain(settings: QuerySettings) -> dict[str, object]:
    train = asdict(settings.train)
    for name in (
        "lar_side",
        "modifier_batch",
    ):  # as they are, they change nothing: no stage is done again for them
        del train[name]
    return {"drawn": settings.drawn, "train": digest(train)}


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs/default_model"), show_default=True
)
@click.option(
    "--wordnet", "words", type=click.Path(path_type=Path), default=wordnet.FOLDER, show_default=True
)
@click.option("--glove", type=click.Path(path_type=Path), default=VECTORS, show_default=True)
@click.option("--miniature", is_flag=True, help="A few steps of everything, to see that it runs.")
def main(data: Path, runs: Path, words: Path, glove: Path, miniature: bool) -> None:
    """Runs all stages in order."""
    settings = Settings.miniature() if miniature else Settings()
    model = Recipe(data, runs, words, glove, settings).run()
    click.echo(f"model: {model}; table: {runs / 'table' / 'results.md'}")


if __name__ == "__main__":
    main()
