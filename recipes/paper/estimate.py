"""Hours that a table takes on this machine, from a few steps of its training and a few of its pictures."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from image2sentence.encoders import Vectors, load_encoder
from image2sentence.evaluation.public_benchmarks import load_benchmarks
from image2sentence.images import load_image
from image2sentence.training.dataset import find_pictures
from image2sentence.training.presets import read_preset
from image2sentence.training.settings import TrainSettings
from recipes.paper import stages
from recipes.paper.stages import Plan
from recipes.paper.tables import Row, Table

STEPS = (4, 24)
"""Steps of the two trainings whose difference is timed, so that what is done once is left out."""
PICTURES = 1_024
ENCODED = 64
WORDS = "but red, with long sleeves"


def estimate(plan: Plan, table: Table) -> dict[str, float]:
    """Stage -> hours, as if nothing were done yet. The timed runs lie below `plan.out`, and are removed."""
    files = [plan.pictures / file.path for file in find_pictures(plan.pictures)]
    plan.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="timing-", dir=plan.out) as place:
        few = _some_pictures(Path(place) / "pictures", files[:PICTURES])
        timing = replace(plan, pictures=few)
        steps = {
            f"train {row.title}": plan.seeds * _steps(plan, row) * _step_seconds(timing, row, Path(place))
            for row in plan.rows(table)
        }
        model = replace(plan, out=Path(place) / str(STEPS[0])).folder(plan.rows(table)[0], 0) / "model"
        picture, sentence, query = _encoding_seconds(model, few, plan.device)
    seconds = {"gallery vectors of the training pictures": len(files) * picture, **steps}
    count = len(plan.rows(table)) * plan.seeds
    for benchmark, root in plan.roots.items():
        loaded = load_benchmarks(benchmark, root)
        asked = sum(len(one.queries) for one in loaded.parts)
        seconds[f"evaluate {benchmark}"] = len(loaded.files) * picture + count * asked * (sentence + query)
    return {stage: value / 3600 for stage, value in seconds.items()}


def as_text(hours: Mapping[str, float]) -> str:
    """A line for each stage, and their sum."""
    whole = {**hours, "together": sum(hours.values())}
    return "\n".join(f"{value:8.2f} h  {stage}" for stage, value in whole.items())


def _some_pictures(folder: Path, files: Sequence[Path]) -> Path:
    folder.mkdir()
    for number, file in enumerate(files):
        shutil.copy2(file, folder / f"{number}{file.suffix}")
    return folder


def _steps(plan: Plan, row: Row) -> int:
    changes = (change.partition("=") for change in plan.changes)
    given = [int(value) for name, _, value in changes if name == "steps"]
    return given[-1] if given else int(read_preset(row.preset).settings.get("steps", TrainSettings.steps))


def _step_seconds(plan: Plan, row: Row, place: Path) -> float:
    """Seconds of a step: the difference of two short trainings, in which loading and warming up cancel out."""
    spent = []
    for steps in STEPS:
        own = replace(
            plan, out=place / str(steps), changes=[*plan.changes, f"steps={steps}", f"save_every={steps}"]
        )
        stages.train(own, row, 0)
        config = json.loads((own.folder(row, 0) / "model" / "config.json").read_text(encoding="utf-8"))
        spent.append(float(config["training"]["seconds"]))
    return max(0.0, spent[1] - spent[0]) / (STEPS[1] - STEPS[0])


def _encoding_seconds(model: Path, folder: Path, device: str) -> tuple[float, float, float]:
    """Seconds of a gallery-side picture, of a sentence and of a query, after one of each that is not counted."""
    encoder = load_encoder(model, device=device)
    images = [load_image(path) for path in sorted(folder.iterdir())[:ENCODED]]

    def timed(encode: Callable[[list[Image.Image]], object]) -> float:
        encode(images[:1])
        before = time.monotonic()
        encode(images)
        return (time.monotonic() - before) / len(images)

    def ask(some: list[Image.Image]) -> Vectors:
        return encoder.encode_queries(encoder.encode_sentences(some), [WORDS] * len(some))

    sentence = timed(encoder.encode_sentences)
    return timed(encoder.encode_images), sentence, max(0.0, timed(ask) - sentence)
