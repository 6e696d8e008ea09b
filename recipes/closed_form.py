"""A light side in closed form beside the tuned sum: ridge regression from light features to gallery vectors.

    python -m recipes.closed_form --data ../shared/data        # pip install ai-edge-litert

MobileNetV2's pooled features (1,280 wide) of pictures whose gallery vectors are known, standardised, and a ridge
regression to the vectors: what a gallery that is there could give without training. It is measured on references that
it was not fitted to. `symmetric` composes the reference's own gallery vector with the words by the weighted sum,
`closed form` the vector that the light features predict; both weights are chosen on other queries than the reported
ones, and differences are paired. A quarter of an hour on a busy core; vectors are kept in WORK.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders import load_encoder
from image2sentence.encoders.interpolation import weighted_sum
from image2sentence.evaluation.datasets.attributes import load_catalogue, reported_and_tuning
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.metrics import bootstrap_interval, paired_difference
from image2sentence.images import load_image
from recipes.bundled import data as bundled_data
from recipes.bundled.evaluate import CHANGES, photograph_folder
from recipes.compositions import QUERIES, TUNING, WEIGHTS, Asked, Corpus, Reader, Task, Vectors

FITTED = 2_000
PENALTY = 1_000.0
_FEATURES = "MobilenetV2/Logits/AvgPool"
_SIDE = 224


class Features:
    """Pooled features of picture files, (n, 1280) float32, kept in a folder."""

    def __init__(self, model: Path, work: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._work = work
        self._net = Interpreter(str(model), num_threads=1, experimental_preserve_all_tensors=True)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        (self._output,) = (one for one in self._net.get_tensor_details() if one["name"] == _FEATURES)

    def of(self, name: str, paths: Sequence[Path]) -> Vectors:
        """Those of these files, by the name they are kept under."""
        kept = self._work / f"light-{name}-{len(paths)}.npy"
        if not kept.is_file():
            np.save(kept, np.stack([self._one(path) for path in paths]))
        return np.asarray(np.load(kept, allow_pickle=False), np.float32)

    def _one(self, path: Path) -> Vectors:
        picture = load_image(path).resize((_SIDE, _SIDE))
        self._net.set_tensor(self._input, np.asarray(picture, np.uint8)[None])
        self._net.invoke()
        scale, zero = self._output["quantization"]
        whole = self._net.get_tensor(self._output["index"]).reshape(-1)
        return np.asarray((whole.astype(np.float32) - zero) * scale, np.float32)


def ridge(features: Vectors, vectors: Vectors) -> Callable[[Vectors], Vectors]:
    """A map from features (n, f) to unit vectors (n, d), fitted to pairs of both."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    centre = vectors.mean(0)
    x = ((features - mean) / spread).astype(np.float64)
    weights = np.linalg.solve(x.T @ x + PENALTY * np.eye(x.shape[1]), x.T @ (vectors - centre))

    def predicted(rows: Vectors) -> Vectors:
        found = (rows - mean) / spread @ weights + centre
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    return predicted


def pairs(kind: str, folder: Path, reader: Reader, light: Features) -> tuple[Vectors, Vectors]:
    """Features and gallery vectors of pictures that the reported gallery does not hold."""
    if kind == "photographs":
        paths = [path for path, _ in bundled_data.photo_records(folder, held=False)]
    else:
        catalogue = load_catalogue(folder / "fashion")
        paths = [catalogue.path(row[FILE_COLUMN]) for row in catalogue.rows if row["split"] == "train"]
    chosen = sorted(random.Random(0).sample(sorted(paths), min(FITTED, len(paths))))
    kept = reader.work / f"fit-{kind}-{reader.encoder.fingerprint[:12]}-{len(chosen)}.npy"
    if not kept.is_file():
        rows = [reader.encoder.encode_images([load_image(path, at_least=512)]) for path in chosen]
        np.save(kept, np.concatenate(rows))
    return light.of(f"fit-{kind}", chosen), np.asarray(np.load(kept, allow_pickle=False), np.float32)


def tasks(data: Path, work: Path) -> Iterator[Task]:
    """Changes of garments, and of product photographs that no tower was trained on."""
    for kind, folder, split in (
        ("photographs", photograph_folder(data, work), None),
        ("fashion", data / "fashion", "val"),
    ):
        catalogue = load_catalogue(folder)
        for change, keep in CHANGES[kind]:
            yield Task(f"{kind}: {change}", catalogue, *reported_and_tuning(catalogue, change, keep, split))


def files_of(task: Task) -> list[str]:
    """The gallery's files in the order of its vectors."""
    return list(task.reported.gallery_ids or [row[FILE_COLUMN] for row in task.catalogue.rows])


def found_itself(predicted: Vectors, gallery: Vectors) -> tuple[float, float, float]:
    """Percent of pictures that come first, and among ten, by their predicted vector; the mean cosine."""
    scores = predicted @ gallery.T
    own = scores[np.arange(len(scores)), np.arange(len(scores))]
    ranks = (scores > own[:, None]).sum(1)
    return 100 * float((ranks < 1).mean()), 100 * float((ranks < 10).mean()), float(own.mean())


def measure(task: Task, reader: Reader, predict: Callable[[Vectors], Vectors], light: Features) -> str:
    """A line of Markdown: percent with intervals, and the paired difference."""
    kind = task.name.partition(":")[0]
    files = files_of(task)
    gallery = reader.gallery(f"{kind}-{task.reported.split}", task.catalogue, files)
    seen = predict(light.of(kind, _paths(task.catalogue, files)))
    values: dict[str, NDArray[np.float64]] = {}
    nothing = Corpus(gallery[:0], gallery[:0], ["a photograph"])  # for BASIC, which is not measured here
    tuning = reader.asked(task, task.tuning, TUNING, nothing)
    reported = reader.asked(task, task.reported, QUERIES, nothing)
    for name, rows in (("symmetric", gallery), ("closed form", seen)):

        def scores(asked: Asked, weight: float, rows: Vectors = rows) -> Vectors:
            return weighted_sum(rows[asked.own], asked.words, weight) @ asked.gallery.T

        means = [tuning.precision(scores(tuning, weight)).mean() for weight in WEIGHTS]
        values[name] = reported.precision(scores(reported, WEIGHTS[int(np.argmax(means))]))
    values["trained"] = reported.precision(reported.composed @ reported.gallery.T)
    cells = []
    for one in values.values():
        interval = bootstrap_interval(one)
        cells.append(f"{100 * one.mean():.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})")
    less = paired_difference(100 * values["closed form"], 100 * values["symmetric"])
    first, ten, cosine = found_itself(seen, gallery)
    return (
        f"| {task.name} | {len(files):,} | {len(reported.words)} | {' | '.join(cells)} | "
        f"{less.low:+.1f} to {less.high:+.1f} | {first:.0f} · {ten:.0f} | {cosine:.2f} |"
    )


def _paths(catalogue: Catalogue, files: Sequence[str]) -> list[Path]:
    return [catalogue.path(file) for file in files]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/compositions"), show_default=True)
def main(data: Path, work: Path) -> None:
    """Prints the table."""
    work.mkdir(parents=True, exist_ok=True)
    reader = Reader(load_encoder().without_sentences().unguided(), work)
    light = Features(data / "mobilenet_v2" / "mobilenet_v2_1.0_224_quant.tflite", work)
    click.echo(
        "| task; mAP@10 | gallery | queries | symmetric sum | closed form | trained | difference | itself first · "
        "among ten | cosine |"
    )
    click.echo("|" + " --- |" * 9)
    maps: dict[str, Callable[[Vectors], Vectors]] = {}
    for task in tasks(data, work):
        kind = task.name.partition(":")[0]
        if kind not in maps:
            maps[kind] = ridge(*pairs(kind, data, reader, light))
        click.echo(measure(task, reader, maps[kind], light))


if __name__ == "__main__":
    main()
