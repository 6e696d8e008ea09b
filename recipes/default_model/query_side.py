"""Trains the light query side with the method, on pictures without labels and words in no relation to them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from image2sentence.encoders.config import LearnerConfig
from image2sentence.training.dataset import Collection
from image2sentence.training.models.query_model import QueryModel, build_query_model
from image2sentence.training.phrase_bank import WordLists, build_bank
from image2sentence.training.settings import Target, TrainSettings
from image2sentence.training.trainer import Trainer
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.mobilenet import MobileNetV2
from recipes.bundled import language
from recipes.bundled.guide import guiding_phrases
from recipes.bundled.material import emoji_phrase
from recipes.bundled.words import SYNONYMS
from recipes.default_model.nouns import Nouns
from recipes.default_model.pictures import TRAIN, Picture
from recipes.default_model.texts import CHANGES

LIGHT = "mobile"
SOURCES = ("drawn", "photo", "emoji", "everyday")
MODIFIERS = {"drawn": 3_000, "photo": 1_500, "emoji": 2_000, "everyday": 3_000}
_NOUNS = 3_000  # the general phrases: as many nouns, and everyday labels


@dataclass(frozen=True)
class QuerySettings:
    """`drawn` products of those trained on. Targets are chosen (targets.py)."""

    drawn: int = 6_000
    train: TrainSettings = field(
        default_factory=lambda: TrainSettings(
            learner=LearnerConfig(tokens=4, softmax="places", blocks=2, heads=4, width=128),
            steps=1_200,
            batch=128,
            gcd="mse",
            gcd_weight=0.4,
            lar="off",
            modifier="mse",
            modifier_weight=1.0,
            learning_rate=1.5e-3,
            smallest_crop=0.85,
            brightness=0.3,
            keep="last",
            precision="bf16",
        )
    )


def banks(pictures: Sequence[Picture], nouns: Nouns, settings: TrainSettings) -> dict[str, WordLists]:
    """Phrases and modifiers of each of `SOURCES`."""
    emoji = [p.record for p in pictures if p.part == TRAIN and p.record["source"] == "emoji"]
    labels = sorted({p.record["label"] for p in pictures if p.part == TRAIN and "label" in p.record})
    garments = itertools.product(language.PHOTO_TYPES, language.VALUES["colour"])
    general = list(dict.fromkeys([*labels, *nouns.words[:_NOUNS]]))
    phrases = {
        "drawn": guiding_phrases(),
        "photo": [f"a {colour} {SYNONYMS['type'][kind][0]}" for kind, colour in garments],
        "emoji": list(dict.fromkeys(emoji_phrase(record) for record in emoji)),
        "everyday": [f"a photo of a {word}" for word in general],
    }
    rng = random.Random(settings.seed)
    modifiers = {
        source: list(dict.fromkeys(language.random_modifier(rng, source) for _ in range(MODIFIERS[source])))
        for source in SOURCES[:3]
    }
    modifiers["everyday"] = [
        rng.choice(CHANGES).replace("{x}", rng.choice(general)) for _ in range(MODIFIERS["everyday"])
    ]
    return {
        source: WordLists(phrases[source], modifiers[source], Target(settings.residual))
        for source in SOURCES
        if phrases[source]
    }


def start(vl: VisionLanguageModel, network: MobileNetV2, settings: TrainSettings) -> QueryModel:
    """A query side whose light encoder is MobileNetV2 as `network` has it, with a new token learner."""
    torch.manual_seed(settings.seed)
    model = build_query_model(vl, LIGHT, settings.learner)
    weights = {name: t for name, t in network.state_dict().items() if not name.startswith("last.")}
    model.light.body.network.load_state_dict(weights)  # type: ignore[union-attr,operator]
    return model


def train_query_side(
    vl: VisionLanguageModel,
    network: MobileNetV2,
    lists: Sequence[WordLists],
    collection: Collection,
    settings: TrainSettings,
    out: Path,
) -> tuple[QueryModel, dict[str, object]]:
    """Trains, or goes on in `out`; returns the model and its training record."""
    model = start(vl, network, settings)
    used = replace(settings, targets=tuple(words.target for words in lists))
    trainer = Trainer(vl, model, collection, used, out, build_bank(vl, *lists), begun={"light": LIGHT})
    record = trainer.run()
    return model, record | {"light": LIGHT}
