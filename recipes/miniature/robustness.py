"""What blur, noise, lighting and compression of the query's picture cost, for the sum and for composed queries.

    python -m recipes.miniature.robustness --data ../shared/data --runs runs/miniature

Measures the bundled model on drawn products (robustness.md) and the fashion models of `train_queries fashion`
(robustness-fashion.md), both on colour change. `--only drawn` needs no model but the bundled one. The gallery
stays clean, and so does the weight of the sum: who asks does not say how bad the picture is. Interrupt it at any time;
settings that were measured are not measured again.
"""

from __future__ import annotations

import io
import json
import platform
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from tqdm import tqdm

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import Encoder, load_encoder
from image2sentence.evaluation.datasets.attributes import attribute_queries, hold_out, load_catalogue
from image2sentence.evaluation.evaluate import (
    COMPOSED,
    IMAGE_ONLY,
    SUM,
    Distortion,
    Evaluation,
    Opener,
    evaluate,
)
from image2sentence.evaluation.metrics import Interval
from image2sentence.evaluation.protocol import Benchmark
from image2sentence.images import load_image
from recipes.charts import draw_line, markdown, new_figure, save_figure, shown
from recipes.miniature.models import trained
from recipes.miniature.variants import ISA, MAPPER, SYMMETRIC

METRICS = ("mAP@10", "recall@1", "recall@10")
DRAWN_COUNT, DRAWN_SEED = 2_000, 424_242
DOCUMENTS = {"drawn": "robustness.md", "fashion": "robustness-fashion.md"}
QUERIES = {"fashion": 400, "drawn": 600}  # drawn from all; the sum's weight is chosen on the others


def blur(share: float) -> Distortion:
    """Gaussian blur whose standard deviation is `share` percent of the shorter side."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(share / 100 * min(image.size)))


def noise(deviation: float) -> Distortion:
    """Independent Gaussian noise on every value of 0..255; the same picture always gets the same noise."""

    def distort(image: Image.Image) -> Image.Image:
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        noisy = np.asarray(image, np.float32) + rng.normal(0, deviation, (image.height, image.width, 3))
        return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))

    return distort


def brightness(factor: float) -> Distortion:
    """Every value times `factor`, cut off at 255."""
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


def jpeg(quality: float) -> Distortion:
    """Saved as a JPEG of this quality, 1 to 95, and read again."""

    def distort(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(quality))
        return Image.open(buffer).convert("RGB")

    return distort


@dataclass(frozen=True)
class Kind:
    """One way to spoil a picture: strengths from mild to strong, and the value that changes nothing."""

    title: str
    axis: str
    make: Callable[[float], Distortion]
    clean: float
    strengths: tuple[float, ...]


KINDS = {
    "blur": Kind("blur", "standard deviation, % of the side", blur, 0, (1, 2, 4)),
    "noise": Kind("noise", "standard deviation, of 255", noise, 0, (15, 30, 60)),
    "brightness": Kind("brightness", "factor", brightness, 1, (0.25, 0.5, 1.5, 2)),
    "jpeg": Kind("JPEG", "quality", jpeg, 95, (50, 20, 10, 5)),
}


@dataclass(frozen=True)
class Subject:
    """What is measured: a benchmark with its gallery encoder, and the composed rows."""

    name: str
    title: str
    encoder: Encoder
    composers: Mapping[str, Encoder]
    benchmark: Benchmark
    tuning: Benchmark
    open_image: Opener

    @property
    def rows(self) -> list[str]:
        """What is compared."""
        return [IMAGE_ONLY, SUM, *self.composers]

    def measure(
        self, rows: Sequence[str], clean: Evaluation | None = None, distort: Distortion | None = None
    ) -> Evaluation:
        """Some of the rows, on distorted references."""
        composers = {name: encoder for name, encoder in self.composers.items() if name in rows}
        plain = [row for row in (IMAGE_ONLY, SUM) if row in rows]
        return evaluate(
            self.benchmark,
            self.encoder,
            self.open_image,
            tuning=self.tuning,
            rows=[*plain, COMPOSED] if composers else plain,
            composers=composers,
            distort=distort,
            clean=clean,
        )


def fashion(data: Path, runs: Path) -> Subject:
    """Colour change on the val split of the fashion photographs, with the in-domain models."""
    catalogue = load_catalogue(data / "fashion")
    tuning, benchmark = hold_out(
        attribute_queries(catalogue, "colour", "gender,type", "val"), QUERIES["fashion"]
    )
    composers = trained(runs, "fashion", ISA, SYMMETRIC, MAPPER)
    title = "Fashion photographs, val, colour changes, gender and type are kept; in-domain models"
    return Subject(
        "fashion",
        title,
        composers[ISA],
        composers,
        benchmark,
        tuning,
        lambda file: load_image(catalogue.path(file)),
    )


def drawn(work: Path) -> Subject:
    """Colour change on drawn products, with the bundled model."""
    folder = write_catalogue(work / f"drawn-{DRAWN_COUNT}-{DRAWN_SEED}", DRAWN_COUNT, DRAWN_SEED)
    catalogue = load_catalogue(folder)
    tuning, benchmark = hold_out(
        attribute_queries(catalogue, "colour", "type,pattern,sleeve"), QUERIES["drawn"]
    )
    encoder = load_encoder()
    title = "Drawn products, colour changes, type, pattern and sleeve are kept; bundled model"
    return Subject(
        "drawn",
        title,
        encoder,
        {ISA: encoder},
        benchmark,
        tuning,
        lambda file: load_image(catalogue.path(file)),
    )


def figures(evaluation: Evaluation) -> dict[str, dict[str, dict[str, float]]]:
    """Row -> metric -> mean, low, high."""
    return {
        row.name: {name: vars(value) for name, value in row.scores.intervals().items() if name in METRICS}
        for row in evaluation.rows
    }


def settings() -> dict[str, Distortion | None]:
    """Every setting by its name; "clean" distorts nothing."""
    strengths = [(name, kind, strength) for name, kind in KINDS.items() for strength in kind.strengths]
    return {
        "clean": None,
        **{f"{name} {strength:g}": kind.make(strength) for name, kind, strength in strengths},
    }


def measure(subject: Subject, kept: Path) -> dict[str, Any]:
    """Everything about a subject, in `kept`; rows that are there already are not measured again."""
    result = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    about = {"model": subject.encoder.fingerprint, "queries": len(subject.benchmark.queries)}
    if result.get("about", about) != about:
        raise click.ClickException(f"{kept} is of another model or benchmark: move it away")
    done = result.setdefault("settings", {})
    todo = {name: [row for row in subject.rows if row not in done.get(name, {})] for name in settings()}
    if not any(todo.values()):
        return dict(result)
    clean = subject.measure(subject.rows)
    result |= {"about": about, "title": subject.title, "gallery": clean.gallery_size, "weight": clean.weight}
    for name, distort in tqdm(settings().items(), desc=subject.name):
        if todo[name]:
            distorted = clean if distort is None else subject.measure(todo[name], clean, distort)
            done[name] = done.get(name, {}) | figures(distorted)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return dict(result)


def interval(result: dict[str, Any], setting: str, row: str, metric: str) -> Interval:
    """A measured figure."""
    return Interval(**result["settings"][setting][row][metric])


def chart(result: dict[str, Any], path: Path) -> None:
    """mAP@10 against strength, a panel for each kind of distortion."""
    figure, axes = new_figure(columns=len(KINDS), width=3.3, height=3.1)
    rows = [row for row in result["settings"]["clean"] if row != IMAGE_ONLY]
    for axis, (name, kind) in zip(axes, KINDS.items(), strict=True):
        settings = {kind.clean: "clean"} | {strength: f"{name} {strength:g}" for strength in kind.strengths}
        x = sorted(settings)
        for number, row in enumerate(rows):
            draw_line(axis, x, [interval(result, settings[s], row, "mAP@10") for s in x], number, row)
        axis.set(title=kind.title, xlabel=kind.axis, ylim=(0, None))
        if name == "jpeg":
            axis.invert_xaxis()
    axes[0].set_ylabel("mAP@10, percent")
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False
    )
    save_figure(figure, path)


def table(result: dict[str, Any], metric: str) -> str:
    """A line for each setting, a column for each row."""
    rows = list(result["settings"]["clean"])
    lines = [
        [setting, *(shown(interval(result, setting, row, metric)) for row in rows)]
        for setting in result["settings"]
    ]
    return markdown([metric, *rows], lines)


def kept_share(result: dict[str, Any]) -> str:
    """How much of its clean mAP@10 each row keeps at every kind's strongest setting."""
    rows = [row for row in result["settings"]["clean"] if row != IMAGE_ONLY]

    def share(setting: str, row: str) -> str:
        clean = interval(result, "clean", row, "mAP@10").mean
        return f"{100 * interval(result, setting, row, 'mAP@10').mean / clean:.0f} %"

    return markdown(
        ["kept of the clean mAP@10", *rows],
        [[s, *(share(s, row) for row in rows)] for s in result["settings"] if s != "clean"],
    )


def document(name: str, result: dict[str, Any]) -> str:
    """The page about one subject, in Markdown."""
    parts = [
        f"# Robustness to bad query pictures: {name}",
        f"Made by `python -m recipes.miniature.robustness --only {name}` on {date.today().isoformat()}, "
        f"{platform.machine()}. "
        "The query's picture is spoilt, the gallery is not; the weight of the image + text sum is the one tuned on "
        "clean pictures. Percent, with 95 % bootstrap intervals. Blur: Gaussian, standard deviation in percent of the "
        "shorter side. Noise: Gaussian on every value, standard deviation of 255. Brightness: every value times the "
        "factor. JPEG: saved and read again.",
        f"{result['title']}; {result['about']['queries']} queries, gallery {result['gallery']}, text weight "
        f"{result['weight']:.2f}.",
        f"![mAP@10 against the strength of each distortion](images/robustness-{name}.png)",
        kept_share(result),
        *(table(result, metric) for metric in METRICS),
    ]
    return "\n\n".join(parts) + "\n"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--docs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--only", type=click.Choice(list(DOCUMENTS)), help="Measure this one alone.")
def main(data: Path, runs: Path, docs: Path, only: str | None) -> None:
    """Measures what is missing, then writes the documents."""
    subjects: dict[str, Callable[[], Subject]] = {
        "drawn": lambda: drawn(runs.parent),
        "fashion": lambda: fashion(data, runs),
    }
    for name, make in subjects.items():
        if only in (None, name):
            result = measure(make(), runs / "robustness" / f"{name}.json")
            chart(result, docs / "images" / f"robustness-{name}.png")
            (docs / DOCUMENTS[name]).write_text(document(name, result), encoding="utf-8")
            click.echo(kept_share(result))


if __name__ == "__main__":
    main()
