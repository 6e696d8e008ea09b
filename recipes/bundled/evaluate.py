"""Measures the bundled model on data kept out of its training, and writes the table of results.

    python -m recipes.bundled.evaluate --data ../shared/data

Runs the files that ship (ONNX, int8 and float16) through the same evaluation that `image2sentence evaluate` runs:
first the method alone (no sentence share, no guiding phrases, no fallback), then as shipped, as variants.
"""

from __future__ import annotations

import csv
import platform
import random
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path

import click
import numpy as np

import image2sentence
from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import Encoder, OnnxEncoder, load_encoder
from image2sentence.encoders.model_folder import ModelFolder
from image2sentence.evaluation.datasets.attributes import attribute_queries, load_catalogue
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.evaluate import (
    COMPOSED,
    SUM,
    UNGUIDED,
    Evaluation,
    Row,
    evaluate,
    evaluate_attributes,
)
from image2sentence.evaluation.metrics import average_precision_at, bootstrap_interval
from image2sentence.gallery.search.searcher import Searcher
from image2sentence.images import load_image
from recipes.bundled import data, words
from recipes.bundled.material import link
from recipes.bundled.measured_colour import measured_colour

COUNT, SEED = 2_000, 424_242  # the drawn gallery: seeds of training pictures begin at data.TRAIN_SEED
DRAWN = ("type", "colour", "pattern", "sleeve")
# What is changed and what is kept, a change at a time.
CHANGES = {
    "drawn": [(name, [other for other in DRAWN if other != name]) for name in DRAWN],
    "photographs": [("colour", ["type"])],
    "fashion": [("colour", ["gender", "type"]), ("type", ["gender", "colour"])],
    "emoji": [("skin_tone", ["base", "style"]), ("style", ["name"])],
}
DOUBLE = [("colour,pattern", ["type", "sleeve"]), ("type,colour", ["pattern", "sleeve"])]  # of drawn products
METRICS = ("recall@1", "recall@5", "recall@10", "mAP@10")
FRESH_SEED = 515_151  # of a drawn gallery on which nothing was chosen
FASHION = "fashion, never trained on"
PLAIN = "composed, plain"
SHIPPED = (SUM, COMPOSED, UNGUIDED)
CHOSEN_ON = (
    "Constants were chosen on some of these queries (docs/results.md). Photographs are the held-out fifth, fashion is "
    "the val split; emoji are all, and once those of unseen subjects alone: training saw neither the subject nor the "
    "same person of another gender."
)
FRESH = "No constant was chosen on these galleries; fashion is the train split, which the model was not trained on."


def plain(encoder: OnnxEncoder) -> OnnxEncoder:
    """The method alone: gallery vectors of the VL model, and neither guiding phrases nor fallback in queries."""
    bare = encoder.without_sentences()
    return OnnxEncoder(ModelFolder(bare.folder.path, replace(bare.config, fallback=None)), guided=False)


def has_variants(encoder: OnnxEncoder) -> bool:
    """Whether the model is more than the method alone."""
    config = encoder.config
    return bool(config.sentence_share) or encoder.is_guided or config.fallback is not None


def drawn(folder: Path, encoder: Encoder, seed: int = SEED, name: str = "drawn") -> dict[str, Evaluation]:
    """Single changes and double changes in a drawn gallery of unseen products."""
    catalogue = load_catalogue(write_catalogue(folder / f"drawn-{COUNT}-{seed}", COUNT, seed))
    return {
        f"{name}: {change} (kept: {', '.join(keep)})": evaluate_attributes(catalogue, encoder, change, keep)
        for change, keep in CHANGES["drawn"] + DOUBLE
    }


def emoji_files(catalogue: Catalogue, held: bool) -> list[str]:
    """The emoji whose subjects training never saw, or those that it saw.

    Some are neither: of "artist" it saw the woman, and some drawings stand for two emoji, of which it saw one.
    """
    subjects = {row[FILE_COLUMN]: data.subject(row["base"], row["gender_word"]) for row in catalogue.rows}
    seen = [file for file, subject in subjects.items() if not data.held_out(subject)]
    if not held:
        return seen
    people = {data.anyone(subjects[file]) for file in seen}
    drawings = {catalogue.path(file).read_bytes() for file in seen}
    return [
        file
        for file, subject in subjects.items()
        if data.held_out(subject)
        and data.anyone(subject) not in people
        and catalogue.path(file).read_bytes() not in drawings
    ]


def emoji(folder: Path, encoder: Encoder) -> dict[str, Evaluation]:
    """Queries about subjects never trained on: in the gallery of all emoji, and among those subjects alone.

    Four fifths of the first gallery were trained on; the second one's pictures are as new as what is asked about.
    """
    catalogue = load_catalogue(folder / "emoji")
    unseen, seen = emoji_files(catalogue, held=True), emoji_files(catalogue, held=False)
    held = set(unseen)
    new = replace(catalogue, rows=tuple(row for row in catalogue.rows if row[FILE_COLUMN] in held))

    def measured(change: str, keep: list[str]) -> Evaluation:
        return evaluate(
            attribute_queries(catalogue, change, keep, references=unseen),
            encoder,
            lambda file: load_image(catalogue.path(file), at_least=512),
            tuning=attribute_queries(catalogue, change, keep, references=random.Random(0).sample(seen, 1000)),
        )

    found: dict[str, Evaluation] = {}
    for change, keep in CHANGES["emoji"]:
        title = f"{change} (kept: {', '.join(keep)})"
        found[f"emoji, unseen subjects: {title}"] = measured(change, keep)
        among = evaluate_attributes(new, encoder, change, keep)
        found[f"emoji, unseen subjects among {len(new.rows)} such pictures: {title}"] = among
    return found


def photograph_folder(folder: Path, work: Path) -> Path:
    """The held-out garment photographs as a labelled folder: type, and colour as measured from pixels.

    Those with no clear colour stay in the gallery; nothing is asked about them, and they answer nothing.
    """
    shown = work / "photographs"
    (shown / "images").mkdir(parents=True, exist_ok=True)
    table = []
    for path, record in data.photo_records(folder, held=True):
        link(path, shown / "images" / path.name)
        colour = measured_colour(load_image(path))
        table.append({"file": f"images/{path.name}", "type": record["type"], "colour": colour})
    with (shown / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return shown


def photographs(folder: Path, work: Path, encoder: Encoder) -> dict[str, Evaluation]:
    """Held-out garment photographs: another colour, and the same kind of garment."""
    title = "photographs, held out: colour as measured (kept: type)"
    catalogue = load_catalogue(photograph_folder(folder, work))
    return {title: evaluate_attributes(catalogue, encoder, "colour", ["type"])}


def fashion(folder: Path, encoder: Encoder, split: str = "val") -> dict[str, Evaluation]:
    """Product photographs of a kind never trained on. The val split chose constants; the train split chose none."""
    catalogue: Catalogue = load_catalogue(folder / "fashion")
    name = FASHION if split == "val" else f"{FASHION}, {split} split"
    return {
        f"{name}: {change} (kept: {', '.join(keep)})": evaluate_attributes(
            catalogue, encoder, change, keep, split
        )
        for change, keep in CHANGES["fashion"]
    }


def fresh(folder: Path, work: Path, encoder: Encoder) -> dict[str, Evaluation]:
    """Galleries on which no constant was chosen: the fashion photographs' train split, and another drawn one."""
    another = drawn(work, encoder, FRESH_SEED, "drawn, another seed")
    return {**fashion(folder, encoder, "train"), **another}


def chosen_on(folder: Path, work: Path, encoder: Encoder) -> dict[str, Evaluation]:
    """The galleries of docs/results.md, on some of whose queries constants were chosen."""
    return {
        **drawn(work, encoder),
        **photographs(folder, work, encoder),
        **emoji(folder, encoder),
        **fashion(folder, encoder),
    }


def garment_types(folder: Path, encoder: Encoder) -> str:
    """Text -> held-out photographs: mAP@10 over garment types, as a line of text."""
    rows = data.photo_records(folder, held=True)
    images = [load_image(path, at_least=512) for path, _ in rows]
    vectors = np.concatenate([encoder.encode_images(images[i : i + 64]) for i in range(0, len(images), 64)])
    searcher = Searcher(list(range(len(rows))), vectors)
    kinds = sorted({record["type"] for _, record in rows})
    queries = encoder.encode_queries(
        None, [f"a photo of a {words.SYNONYMS['type'][kind][0]}" for kind in kinds]
    )
    found = [[rows[hit.id][1]["type"] for hit in hits] for hits in searcher.search(queries, 10)]
    relevant = [[seen == kind for seen in hits] for kind, hits in zip(kinds, found, strict=True)]
    answers = [sum(record["type"] == kind for _, record in rows) for kind in kinds]
    values = average_precision_at(relevant, answers, 10)
    interval = bootstrap_interval(values)
    return (
        f"Garment type by words, {len(kinds)} types, {len(rows)} held-out photographs: "
        f"mAP@10 {100 * np.mean(values):.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    )


def table(evaluations: Mapping[str, Evaluation], shipped: Mapping[str, Evaluation] | None = None) -> str:
    """A Markdown table, percent with 95 % intervals: the method alone first, of what ships only what it changes."""
    lines = ["| task | queries | row | " + " | ".join(METRICS) + " |", "| --- " * (3 + len(METRICS)) + "|"]
    for task, evaluation in evaluations.items():
        rows = [(PLAIN if row.name == COMPOSED else row.name, row) for row in evaluation.rows]
        if shipped is not None:
            rows += [(f"as shipped: {row.name}", row) for row in shipped[task].rows if row.name in SHIPPED]
        count = len(evaluation.benchmark.queries)
        lines += [f"| {task} | {count} | {name} | " + " | ".join(_cells(row)) + " |" for name, row in rows]
    return "\n".join(lines)


def _cells(row: Row) -> list[str]:
    intervals = row.scores.intervals()
    shown = {name: f"{one.mean:.1f} ({one.low:.1f} to {one.high:.1f})" for name, one in intervals.items()}
    return [shown.get(metric, "") for metric in METRICS]


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--model", type=click.Path(path_type=Path), default=None)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/evaluate"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/evaluate/results.md"))
@click.option("--fresh", "only_fresh", is_flag=True, help="Galleries on which nothing was chosen.")
def main(folder: Path, model: Path | None, work: Path, out: Path, only_fresh: bool) -> None:
    """Writes the results of the bundled model to OUT."""
    encoder = load_encoder(model)
    alone, galleries = plain(encoder), fresh if only_fresh else chosen_on
    evaluations = galleries(folder, work, alone)
    shipped = galleries(folder, work, encoder) if has_variants(encoder) else None
    config, about = encoder.config, FRESH if only_fresh else CHOSEN_ON
    text = f"""# Results of the bundled model

Made by `python -m recipes.bundled.evaluate` on {date.today().isoformat()}, {platform.machine()},
image2sentence {image2sentence.__version__}, query model `{config.query_fingerprint[:12]}`, VL model
`{config.vl.fingerprint[:12]}`, L = {config.learner.tokens}, light encoder `{config.light}`, template
`{config.template}`. Rows are of the method alone; "as shipped" {100 * config.sentence_share:.0f} % of a gallery vector
are the picture's own sentence, also where the reference's gallery vector is asked with (sum), and phrases and fallback
take part in queries. Percent, with 95 % bootstrap intervals.
{about} The drawn galleries have {COUNT} pictures. The reference is left out of the ranking.
The sum's weight is tuned on references that the reported figures leave out.

{garment_types(folder, alone)}

{table(evaluations, shipped)}
"""
    out.write_text(text, encoding="utf-8")
    click.echo(text)


if __name__ == "__main__":
    main()
