"""What titles add: words that match them count, against vectors alone, in ranking and in time.

    python -m benchmarks.query.titles WORK --data ../shared/data/fashion            # choose, report, time

Indexes the first 5,096 pictures of the fashion set into WORK (kept for the next run) with their titles as the only
metadata; the labels that say what is right (type, colour) are not in the gallery. Queries about one half of the brands,
and references of one half of the pictures, are for choosing the two weights of `image2sentence.query.text_matches`; the
other halves are reported. Times are processor time of both ways in turn.
"""

from __future__ import annotations

import random
import statistics
import time
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from image2sentence import (
    Encoder,
    Gallery,
    Query,
    QueryEngine,
    Reference,
    compose,
    index_pictures,
    load_encoder,
)
from image2sentence.evaluation.datasets.labels import Catalogue, load_catalogue
from image2sentence.evaluation.metrics import average_precision_at, bootstrap_interval, paired_difference
from image2sentence.images import load_image
from image2sentence.query import text_matches
from image2sentence.query.score_statistics import ScoreStatistics

PICTURES = 5_096
K = 10
FEWEST = 5
QUERIES = 200
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
NO_BRANDS = frozenset(["basics", "classic", "flying", "mark", "mother", "palm", "red", "s", "w"])
Row = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """A query, and the ids of the pictures that are right."""

    query: Query
    right: frozenset[int]


def gallery_of(work: Path, catalogue: Catalogue, encoder: Encoder) -> Gallery:
    """The gallery of the first `PICTURES` with their titles."""
    titles = {catalogue.path(row["file"]).resolve(): row["title"] for row in catalogue.rows[:PICTURES]}
    made = (work / "titles" / "gallery.sqlite").exists()
    gallery = Gallery.open_or_create(work / "titles", encoder.fingerprint, encoder.width)
    if not made:
        index_pictures(catalogue.folder / "images", gallery, encoder)
        known = {picture.id: Path(picture.path).resolve() for picture in gallery.pictures("ready")}
        gallery.delete([one for one, path in known.items() if path not in titles])
        gallery.add_columns({"title": "text"})
        gallery.set_metadata((one, {"title": titles[path]}) for one, path in known.items() if path in titles)
    return gallery


def brand_of(row: Row) -> str:
    """The first word of its title, in lower case."""
    return row["title"].split()[0].lower()


def questions(rows: Mapping[int, Row]) -> dict[str, list[Asked]]:
    """The queries by task; each task's are in random order, always the same."""
    counts = Counter(map(brand_of, rows.values()))
    brands = sorted(brand for brand, count in counts.items() if count >= FEWEST and brand not in NO_BRANDS)
    pairs = sorted({(brand_of(row), row["type"].lower()) for row in rows.values() if brand_of(row) in brands})
    looks = sorted({(row["colour"].lower(), row["type"].lower()) for row in rows.values()})
    tasks = {
        "a brand": [ask(rows, brand, brand=brand) for brand in brands],
        "a brand and a type": [ask(rows, f"{b} {kind}", brand=b, type=kind) for b, kind in pairs],
        "a colour and a type": [ask(rows, f"{c} {kind}", colour=c, type=kind) for c, kind in looks],
        "picture, another colour": changes(rows, "colour", "in {}", sorted({c for c, _ in looks})),
        "picture, another brand": changes(rows, "brand", "by {}", brands),
    }
    for asked in tasks.values():
        random.Random(0).shuffle(asked)
    return {name: [one for one in asked if one.right] for name, asked in tasks.items()}


def ask(rows: Mapping[int, Row], words: str, **wanted: str) -> Asked:
    """Words alone; right is what has the labels."""
    return Asked(Query(words=words, k=K), frozenset(one for one, row in rows.items() if has(row, wanted)))


def changes(rows: Mapping[int, Row], name: str, template: str, values: Sequence[str]) -> list[Asked]:
    """A picture and words that ask for another value; right is what has it and the picture's type."""
    rng = random.Random(f"titles/{name}")
    asked = []
    for one in rng.sample(sorted(rows), 4 * QUERIES):
        kind, value = rows[one]["type"].lower(), rng.choice(values)
        right = frozenset(n for n, row in rows.items() if n != one and has(row, {name: value, "type": kind}))
        if not has(rows[one], {name: value}):
            query = Query(references=(Reference(item=one),), words=template.format(value), k=K)
            asked.append(Asked(query, right))
    return asked


def has(row: Row, wanted: Mapping[str, str]) -> bool:
    """Whether a picture has these labels."""
    return all(
        (brand_of(row) if name == "brand" else row[name].lower()) == value for name, value in wanted.items()
    )


def is_tuning(asked: Asked) -> bool:
    """Half of the queries, by what they ask for: no brand, colour or reference of them is reported."""
    key = str(asked.query.references[0].item) if asked.query.references else asked.query.words.split()[0]
    return zlib.crc32(key.encode()) % 2 == 0


def part(asked: Sequence[Asked], *, tuning: bool) -> list[Asked]:
    """Up to `QUERIES` for choosing, or for reporting."""
    return [one for one in asked if is_tuning(one) == tuning][:QUERIES]


def precision(engine: QueryEngine, asked: Sequence[Asked], *, titles: bool) -> NDArray[np.float64]:
    """AP@10 of each query, in percent."""
    answers = (engine.rank(replace(one.query, titles=titles)) for one in asked)
    ranked = [[result.id for result in answer.results] for answer in answers]
    return np.array([average(ids, one) for ids, one in zip(ranked, asked, strict=True)])


def average(ids: Sequence[int], asked: Asked) -> float:
    """AP@10 of a ranking, in percent."""
    hits = [one in asked.right for one in ids] + [False] * (K - len(ids))
    return 100 * float(average_precision_at([hits], [len(asked.right)], K)[0])


@dataclass(frozen=True, eq=False)
class Scored:
    """A query's scores for all pictures, as rows of the gallery, and what a weight of 1 adds to each."""

    asked: Asked
    scores: NDArray[np.float64]
    gains: NDArray[np.float64]

    def precision(self, ids: NDArray[np.int64], weight: float) -> float:
        """AP@10 with this weight, in percent."""
        best = np.argsort(-(self.scores + weight * self.gains), kind="stable")[:K]
        return average(ids[best].tolist(), self.asked)


def scored(
    engine: QueryEngine, texts: text_matches.TextIndex, vectors: NDArray[np.float32], asked: Asked
) -> Scored:
    """A query's scores by vectors alone and its matches, each found once for all weights."""
    ids = texts.ids
    items = [one.item for one in asked.query.references if one.item is not None]
    pictures = [load_image(engine.gallery.picture(one).path) for one in items]
    vector = compose(engine.encoder, pictures, asked.query.words)
    scores = vectors.astype(np.float64) @ vector[0].astype(np.float64)
    scores[np.isin(ids, items)] = -np.inf
    statistics = ScoreStatistics(engine.searcher)
    scale = statistics.pair_scale if pictures else statistics.scale_of(vector)
    gains = np.zeros(len(ids))
    matches = texts.match(asked.query.words, ())
    if matches is not None and scale is not None:
        gains[np.searchsorted(ids, matches.ids)] = scale.spread * matches.shares
    return Scored(asked, scores, gains)


def choose(engine: QueryEngine, name: str, tasks: Sequence[Sequence[Asked]]) -> float:
    """The smallest weight within a point of the best mean AP@10 over the tasks' tuning queries."""
    ids, vectors = engine.gallery.vectors()
    texts = text_matches.TextIndex(engine.gallery, ids)
    known = [[scored(engine, texts, vectors, one) for one in asked] for asked in tasks]
    means = [
        float(np.mean([np.mean([one.precision(ids, weight) for one in task]) for task in known]))
        for weight in WEIGHTS
    ]
    print(f"{name}: " + ", ".join(f"{w:g} {mean:.1f}" for w, mean in zip(WEIGHTS, means, strict=True)))
    return next(weight for weight, mean in zip(WEIGHTS, means, strict=True) if mean > max(means) - 1)


def report(engine: QueryEngine, name: str, asked: Sequence[Asked]) -> str:
    """A line of Markdown: AP@10 without and with titles, and the difference with its interval."""
    without, with_titles = (precision(engine, asked, titles=titles) for titles in (False, True))
    difference = paired_difference(with_titles, without)
    cells = " | ".join(
        f"{i.mean:.1f} ({i.low:.1f} to {i.high:.1f})"
        for i in (bootstrap_interval(without), bootstrap_interval(with_titles))
    )
    return f"| {name} | {len(asked)} | {cells} | {difference.low:+.1f} to {difference.high:+.1f} |"


def times(engine: QueryEngine, asked: Sequence[Asked]) -> str:
    """Medians of the processor time of both ways, asked in turn."""
    spent: dict[bool, list[float]] = {False: [], True: []}
    for one in asked:
        for titles in (False, True):
            query = replace(one.query, titles=titles)
            start = time.process_time()
            engine.rank(query)
            spent[titles].append(1000 * (time.process_time() - start))
    without, with_titles = (statistics.median(spent[titles]) for titles in (False, True))
    return f"{without:.2f} ms without, {with_titles:.2f} ms with titles ({100 * (with_titles / without - 1):+.1f} %)"


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path, exists=True), default="../shared/data/fashion")
def main(work: Path, data: Path) -> None:
    """Choose the weights, and report what titles add, in WORK."""
    encoder, catalogue = load_encoder(), load_catalogue(data)
    with gallery_of(work, catalogue, encoder) as gallery:
        engine = QueryEngine(encoder, gallery)
        by_file = {catalogue.path(row["file"]).resolve(): row for row in catalogue.rows}
        rows = {picture.id: by_file[Path(picture.path).resolve()] for picture in gallery.pictures("ready")}
        asked = questions(rows)
        for weight, kind in (("WORDS_WEIGHT", False), ("COMPOSED_WEIGHT", True)):
            tuning = [part(asked[name], tuning=True) for name in asked if name.startswith("picture") == kind]
            chosen = choose(engine, weight, tuning)
            print(
                f"chosen: {weight} = {chosen:g}; in the package: {getattr(text_matches, weight):g}\n",
                flush=True,
            )
        print(
            "| task | queries | vectors alone, mAP@10 | with titles | difference |\n| --- | --- | --- | --- | --- |"
        )
        for name in asked:
            print(report(engine, name, part(asked[name], tuning=False)), flush=True)
        for name in ("a colour and a type", "picture, another colour"):
            print(f"\n{name}: {times(engine, part(asked[name], tuning=False))}")


if __name__ == "__main__":
    main()
