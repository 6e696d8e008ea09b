"""Accuracy and latency as the gallery grows to a million: fashion val, and distractors that are no right answer.

    python -m recipes.miniature.growth --data ../shared/data --runs runs/miniature
    python -m recipes.miniature.growth --data ../shared/data --runs runs/miniature --latency

Distractors are real first: the other fashion photographs (without those that some query asks for), then photographs of
clothing, then emoji. When they run out, vectors are drawn from the local Gaussian around real ones (`expand`); how like
real ones they are is measured and printed. The second command times single queries on the vectors that the first one
left; run it on a quiet machine. Then RUNS/gallery_growth.md is written anew.
"""

from __future__ import annotations

import json
import platform
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image2sentence.encoders.protocols import Encoder, Vectors
from image2sentence.evaluation.datasets.attributes import attribute_queries, hold_out
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue, load_catalogue
from image2sentence.evaluation.evaluate import COMPOSED, FULL_TEXT, SUM, Evaluation, evaluate
from image2sentence.evaluation.metrics import (
    Interval,
    Scores,
    average_precision_at,
    paired_difference,
    ranks_of_first,
    recall_at,
)
from image2sentence.evaluation.protocol import Benchmark
from image2sentence.evaluation.ranking import relevance
from image2sentence.gallery.search.base import Hit
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.images import load_image
from recipes.charts import draw_line, markdown, new_figure, save_figure, shown
from recipes.miniature.models import trained
from recipes.miniature.variants import ISA, MAPPER, SYMMETRIC

KEEP = ("gender", "type")
TRIPLE = ("colour", *KEEP)
SIZES = (1_326, 3_000, 6_000, 10_000, 20_000, 50_000, 100_000, 300_000, 1_000_000)
QUERIES = 600  # drawn from all; the sum's weight is chosen on the others
EMOJI = 3_000
METRICS = ("mAP@10", "recall@1", "recall@10")
DEPTH = 10
NEIGHBOURS = 16
BLOCK = 20_000
BATCH = 64
TIMED = 30


def distractor_files(data: Path, catalogue: Catalogue, benchmark: Benchmark) -> list[Path]:
    """Pictures outside the gallery: fashion train rows whose labels no query asks for, clothing, EMOJI emoji."""
    rows = {row[FILE_COLUMN]: row for row in catalogue.rows}
    asked = {
        tuple(rows[answer][name] for name in TRIPLE)
        for query in benchmark.queries
        for answer in query.answers
    }
    fashion = [
        catalogue.path(row[FILE_COLUMN])
        for row in catalogue.of_split("train")
        if tuple(row[name] for name in TRIPLE) not in asked
    ]
    clothing, emoji = (load_catalogue(data / name) for name in ("clothing", "emoji"))
    signs = random.Random(0).sample(emoji.rows, EMOJI)
    others = [*((clothing, row) for row in clothing.rows), *((emoji, row) for row in signs)]
    return [*fashion, *(source.path(row[FILE_COLUMN]) for source, row in others)]


def encode_files(encoder: Encoder, files: Sequence[Path]) -> Vectors:
    """(n, d) gallery vectors."""
    starts = tqdm(range(0, len(files), BATCH), desc="encoding distractors")
    return np.concatenate(
        [encoder.encode_images([load_image(file) for file in files[i : i + BATCH]]) for i in starts]
    )


def nearest(real: Vectors) -> NDArray[np.int64]:
    """(n, NEIGHBOURS) of each real vector among the others."""
    near = np.empty((len(real), NEIGHBOURS), np.int64)
    for start in range(0, len(real), 1024):
        scores = real[start : start + 1024] @ real.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -2
        near[start : start + 1024] = np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return near


def expand(real: Vectors, count: int, seed: int = 0) -> Iterator[Vectors]:
    """Blocks of `count` vectors in all, each unit(x + e).

    x is a real vector, each as likely; e is drawn from the Gaussian whose covariance is that of x's NEIGHBOURS nearest
    real vectors: e = sum over j of g_j (n_j - mean) / sqrt(NEIGHBOURS), g standard normal. So noise lies in the
    directions in which real pictures around x differ, with their spread.
    """
    rng, near = np.random.default_rng(seed), nearest(real)
    for start in range(0, count, BLOCK):
        chosen = rng.integers(len(real), size=min(BLOCK, count - start))
        around = real[near[chosen]]
        weights = rng.standard_normal((len(chosen), NEIGHBOURS), np.float32) / np.sqrt(np.float32(NEIGHBOURS))
        moved = real[chosen] + np.einsum("nk,nkd->nd", weights, around - around.mean(axis=1, keepdims=True))
        yield np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)


class Growing:
    """One row's rankings in a gallery that grows: the best DEPTH of a union are among the best DEPTH of its parts."""

    def __init__(self, evaluation: Evaluation, row: str) -> None:
        vectors = evaluation.row(row).vectors
        assert vectors is not None
        assert evaluation.searcher is not None
        self.queries, self.vectors = evaluation.benchmark.queries, vectors
        references = [[query.reference] for query in self.queries]
        self.hits: list[list[Hit]] = evaluation.searcher.search(vectors, DEPTH, exclude=references)

    def add(self, distractors: Searcher) -> None:
        """More pictures, under ids that no other picture has."""
        found = distractors.search(self.vectors, DEPTH)
        self.hits = [
            sorted([*old, *new], key=lambda hit: -hit.score)[:DEPTH]
            for old, new in zip(self.hits, found, strict=True)
        ]

    def scores(self) -> Scores:
        """METRICS of every query, in the gallery as it is now."""
        right = [frozenset(query.answers) for query in self.queries]
        places = relevance([[hit.id for hit in own] for own in self.hits], right, DEPTH)
        ranks = ranks_of_first(places)
        precision = average_precision_at(places, [len(own) for own in right], 10)
        return Scores({"mAP@10": precision, **{f"recall@{k}": recall_at(ranks, k) for k in (1, 10)}})


def grow(evaluation: Evaluation, row: str, distractors: Vectors) -> dict[str, Any]:
    """Gallery size -> metric -> interval, of one row."""
    growing = Growing(evaluation, row)
    result: dict[str, Any] = {}
    done = 0
    for size in tqdm(SIZES, desc=row):
        wanted = size - evaluation.gallery_size
        if wanted > done:
            ids = [("distractor", number) for number in range(done, wanted)]
            growing.add(Searcher(ids, np.ascontiguousarray(distractors[done:wanted])))
            done = wanted
        intervals = growing.scores().intervals()
        result[str(evaluation.gallery_size + done)] = {name: vars(value) for name, value in intervals.items()}
    return result


def likeness(evaluation: Evaluation, row: str, real: Vectors, seed: int = 0) -> dict[str, Any]:
    """Drawn vectors against real ones, as many of each.

    Half of the real vectors are known; the other half is replaced by as many drawn from the known half. Reported:
    quantiles of the similarity of query and distractor, and mAP@10 with either as distractors.
    """
    order = np.random.default_rng(seed).permutation(len(real))
    known, held = real[order[: len(real) // 2]], real[order[len(real) // 2 :]]
    drawn = np.concatenate(list(expand(known, len(held), seed)))
    vectors = evaluation.row(row).vectors
    assert vectors is not None
    result: dict[str, Any] = {"vectors": len(held)}
    precision = {}
    for name, own in (("real", held), ("drawn", drawn)):
        similar = vectors @ own.T
        result[name] = {
            f"{share:g} %": float(np.quantile(similar, share / 100)) for share in (50, 90, 99, 99.9)
        }
        result[name]["best of all, mean over queries"] = float(similar.max(axis=1).mean())
        growing = Growing(evaluation, row)
        growing.add(Searcher([("known", n) for n in range(len(known))], known))
        growing.add(Searcher([(name, n) for n in range(len(own))], own))
        precision[name] = growing.scores().values["mAP@10"]
        result[name]["mAP@10"] = 100 * float(precision[name].mean())
    result["difference"] = vars(paired_difference(100 * precision["drawn"], 100 * precision["real"]))
    return result


def measure_accuracy(data: Path, runs: Path, out: Path) -> None:
    """Writes accuracy.json, row by row, and the vectors that `measure_latency` needs, into `out`."""
    catalogue = load_catalogue(data / "fashion")
    composers = trained(runs, "fashion", ISA, SYMMETRIC, MAPPER)
    encoder = composers[ISA]
    tuning, reported = hold_out(attribute_queries(catalogue, "colour", KEEP, "val"), QUERIES)
    files = distractor_files(data, catalogue, reported)
    real = _kept(
        out / f"real-{encoder.fingerprint[:12]}-{len(files)}.npy", lambda: encode_files(encoder, files)
    )
    result = _begun(out / "accuracy.json", encoder.fingerprint)
    todo = [row for row in (SUM, *composers, FULL_TEXT) if row not in result["rows"]]
    if not todo:
        return
    evaluation = evaluate(
        reported,
        encoder,
        lambda file: load_image(catalogue.path(file)),
        tuning=tuning,
        rows=[SUM, COMPOSED, FULL_TEXT],
        composers=composers,
    )
    fashion = sum(file.is_relative_to(catalogue.folder) for file in files)
    result |= {
        "queries": len(reported.queries),
        "gallery": evaluation.gallery_size,
        "width": encoder.width,
        "weight": evaluation.weight,
        "real distractors": {"fashion": fashion, "clothing and emoji": len(files) - fashion},
        "left out of fashion train": len(catalogue.of_split("train")) - fashion,
    }
    if "likeness" not in result:
        result["likeness"] = likeness(evaluation, ISA, real)
    vectors = _kept(out / "vectors.npy", lambda: _all_vectors(evaluation, real))
    np.save(out / "queries.npy", evaluation.row(ISA).vectors, allow_pickle=False)
    for row in todo:
        result["rows"][row] = grow(evaluation, row, vectors[evaluation.gallery_size :])
        (out / "accuracy.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _begun(path: Path, fingerprint: str) -> dict[str, Any]:
    """What an earlier run measured with the same gallery model."""
    if not path.is_file():
        return {"model": fingerprint, "rows": {}}
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if result["model"] != fingerprint:
        raise click.ClickException(f"{path.parent} is of another model: move it away")
    return result


def _all_vectors(evaluation: Evaluation, real: Vectors) -> Vectors:
    """The gallery, the real distractors, and drawn ones up to the largest size."""
    assert evaluation.searcher is not None
    gallery = evaluation.searcher.vectors_of(evaluation.searcher.ids)
    return np.concatenate([gallery, real, *expand(real, SIZES[-1] - len(gallery) - len(real))])


def _kept(path: Path, make: Any) -> Vectors:
    if path.is_file():
        kept: Vectors = np.load(path, allow_pickle=False)
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: Vectors = make()
    np.save(path, rows, allow_pickle=False)
    return rows


def measure_latency(out: Path) -> None:
    """Writes latency.json: milliseconds of one query's ten best at every size, with the exact Searcher."""
    vectors, queries = np.load(out / "vectors.npy", mmap_mode="r"), np.load(out / "queries.npy")
    ids = np.arange(len(vectors), dtype=np.int64)
    exact = {
        str(size): _milliseconds(Searcher(ids[:size], np.array(vectors[:size])), queries) for size in SIZES
    }
    result = {"exact": exact, "machine": platform.machine(), "date": date.today().isoformat()}
    (out / "latency.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _milliseconds(searcher: Any, queries: Vectors) -> dict[str, float]:
    """Median and 95th percentile of TIMED single queries, after three that are not counted."""
    spent = []
    for query in queries[: TIMED + 3]:
        start = time.perf_counter()
        searcher.search(query[None], 10)
        spent.append(1000 * (time.perf_counter() - start))
    return {"median": float(np.median(spent[3:])), "p95": float(np.quantile(spent[3:], 0.95))}


@dataclass(frozen=True)
class Report:
    """What was measured, as a document."""

    accuracy: Mapping[str, Any]
    latency: Mapping[str, Any]

    def interval(self, size: str, row: str, metric: str) -> Interval:
        """A measured figure."""
        return Interval(**self.accuracy["rows"][row][size][metric])

    @property
    def sizes(self) -> list[str]:
        """Every size that was measured."""
        return list(next(iter(self.accuracy["rows"].values())))

    def table(self, metric: str) -> str:
        """A line for each size, a column for each row."""
        rows = self.accuracy["rows"]
        lines = [[f"{int(s):,}", *(shown(self.interval(s, row, metric)) for row in rows)] for s in self.sizes]
        return markdown([f"gallery, {metric}", *rows], lines)

    def latency_table(self) -> str:
        """Milliseconds at every size."""
        kinds = [name for name in self.latency if isinstance(self.latency[name], dict)]
        lines = [
            [f"{int(size):,}", *(_cell(self.latency[kind].get(size)) for kind in kinds)]
            for size in self.latency["exact"]
        ]
        return markdown(["gallery", *(f"{kind}, ms" for kind in kinds)], lines)

    def likeness_table(self) -> str:
        """Quantiles of similarity, and mAP@10, for real and drawn vectors."""
        like = self.accuracy["likeness"]
        names = list(like["real"])
        lines = [
            [name, *(f"{like[kind][name]:.{1 if '@' in name else 3}f}" for kind in ("real", "drawn"))]
            for name in names
        ]
        return markdown(["", f"{like['vectors']:,} real", "as many drawn"], lines)

    def chart(self, path: Path) -> None:
        """Accuracy of every row, and latency, against the size."""
        figure, (left, right) = new_figure(columns=2, width=4.6, height=3.4)
        x = [int(size) for size in self.sizes]
        for number, row in enumerate(self.accuracy["rows"]):
            draw_line(left, x, [self.interval(size, row, "mAP@10") for size in self.sizes], number, row)
        left.axvline(
            self.accuracy["gallery"] + sum(self.accuracy["real distractors"].values()),
            color="#a1a1aa",
            ls=":",
        )
        left.set(xscale="log", xlabel="pictures in the gallery (right of the dotted line: drawn vectors too)")
        left.set(ylabel="mAP@10, percent", ylim=(0, None))
        left.legend(frameon=False, fontsize=8)
        for number, kind in enumerate(name for name in self.latency if isinstance(self.latency[name], dict)):
            own = self.latency[kind]
            times = [Interval(own[s]["median"], own[s]["median"], own[s]["p95"]) for s in own]
            draw_line(
                right, [int(size) for size in own], times, number, f"{kind} (band: to the 95th percentile)"
            )
        right.set(xscale="log", yscale="log", xlabel="pictures in the gallery", ylabel="one query, ms")
        right.legend(frameon=False, fontsize=8)
        save_figure(figure, path)

    def document(self) -> str:
        """The document: tables, chart and what the drawn vectors are like."""
        own, like = self.accuracy, self.accuracy["likeness"]
        real, gap = own["real distractors"], like["difference"]
        parts = [
            "# Accuracy and latency as the gallery grows",
            f"Made by `python -m recipes.miniature.growth` and `... growth --latency` ({self.latency['date']}, two "
            f"{self.latency['machine']} cores). Fashion val, colour changes, gender and type are kept; "
            f"{own['queries']:,} queries, in-domain models, vectors of width {own['width']}. Percent, with 95 % "
            "bootstrap intervals.",
            f"The first {own['gallery']:,} pictures are the benchmark's own gallery. Then come {real['fashion']:,} "
            f"photographs of fashion train ({own['left out of fashion train']:,} are left out, because some query asks "
            f"for their colour, gender and type), then {real['clothing and emoji']:,} pictures of clothing and emoji. "
            "The rest is drawn around real vectors x: unit(x + e), e from the Gaussian with the covariance of x's "
            f"{NEIGHBOURS} nearest real vectors.",
            "![mAP@10 and latency against the size of the gallery](images/gallery-growth.png)",
            *(self.table(metric) for metric in METRICS),
            "## Latency",
            f"One query at a time, its ten best, median (95th percentile) of {TIMED}.",
            self.latency_table(),
            "## How like real vectors the drawn ones are",
            f"Half of the real distractors were replaced by as many drawn from the other half. Similarity of a query "
            f"({ISA}) and a distractor; and mAP@10 with both halves in the gallery: drawn minus real "
            f"{gap['mean']:+.2f} points ({gap['low']:+.2f} to {gap['high']:+.2f}).",
            self.likeness_table(),
        ]
        return "\n\n".join(parts) + "\n"


def _cell(times: Mapping[str, float] | None) -> str:
    return "" if times is None else f"{times['median']:.2f} ({times['p95']:.2f})"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--docs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--latency", is_flag=True, help="Time queries, on vectors that are there already.")
def main(data: Path, runs: Path, docs: Path, latency: bool) -> None:
    """Measures what is missing, then writes the document if both halves are there."""
    out = runs / "growth"
    out.mkdir(parents=True, exist_ok=True)
    if latency:
        measure_latency(out)
    else:
        measure_accuracy(data, runs, out)
    halves = [out / "accuracy.json", out / "latency.json"]
    if not all(path.is_file() for path in halves):
        return
    report = Report(*(json.loads(path.read_text(encoding="utf-8")) for path in halves))
    report.chart(docs / "images" / "gallery-growth.png")
    (docs / "gallery_growth.md").write_text(report.document(), encoding="utf-8")
    click.echo(report.table("mAP@10") + "\n\n" + report.latency_table())


if __name__ == "__main__":
    main()
