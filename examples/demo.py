"""Draw a catalogue, index it, ask six composed queries, and check every first answer against the labels.

    python examples/demo.py [FOLDER]

Nothing here is special to the demo: a shop measures its own labelled pictures with the same functions. For
each row of `QUESTIONS`, one query is drawn with a fixed seed from all pictures whose change has a right answer
in the catalogue: a picture that shows the asked value and agrees with the reference in what is kept.

The seed is chosen so that the six show what the model can do, which is more than it does on average. So the demo
ends by asking all such queries and prints how often a right picture is first among all 720.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import click
from PIL import Image

from image2sentence import Answer, Encoder, Gallery, QueryEngine, index_pictures, load_encoder
from image2sentence.catalogue import write_catalogue
from image2sentence.evaluation import Query
from image2sentence.evaluation.datasets.attributes import attribute_queries, load_catalogue
from image2sentence.evaluation.datasets.labels import Catalogue
from image2sentence.evaluation.evaluate import evaluate_attributes
from image2sentence.visualize.contact_sheet import stack_sheets

COUNT, SEED = 720, 1
SHOWCASE = 3  # draws the six queries
SHOWN = 5
ENOUGH = 5

# What a query changes, what a right answer keeps, and how the change is asked for.
QUESTIONS = (
    ("colour", "type,pattern,sleeve", "but {value}"),
    ("pattern", "type,colour,sleeve", "with a {value} pattern"),
    ("type", "colour,pattern", "as a {value}"),
    ("background", "type,colour,sleeve", "on a {value} background"),
    ("length", "type,colour,sleeve", "but {value}"),
    ("colour,pattern", "type,sleeve", "in {colour} with a {pattern} pattern"),
)


def draw_queries(catalogue: Catalogue, seed: int = SHOWCASE) -> list[Query]:
    """One query for each row of `QUESTIONS`, each about another type of product where there is one."""
    rng = random.Random(f"demo/{seed}")
    types = {row["file"]: row["type"] for row in catalogue.rows}
    chosen: list[Query] = []
    for change, keep, template in QUESTIONS:
        queries = attribute_queries(catalogue, change, keep, seed=seed, template=template).queries
        used = {types[query.reference] for query in chosen}
        fresh = [query for query in queries if types[query.reference] not in used]
        chosen.append(rng.choice(fresh or list(queries)))
    return chosen


def index(pictures: Path, gallery_folder: Path) -> QueryEngine:
    """Index the catalogue's pictures; the gallery stays open with the engine."""
    encoder = load_encoder()
    gallery = Gallery.open_or_create(gallery_folder, encoder.fingerprint, encoder.width)
    report = index_pictures(pictures, gallery, encoder)
    print(f"indexed {report.found} pictures, {report.encoded} of them new, {report.rate:.0f} a second")
    return QueryEngine(encoder, gallery)


def ask(engine: QueryEngine, catalogue: Catalogue, query: Query) -> tuple[Answer, bool]:
    """The answer to one query, and whether a right picture stands first."""
    (words,) = query.texts
    answer = engine.search([catalogue.path(query.reference)], words, SHOWN)
    right = right_paths(catalogue, query)
    return answer, bool(answer.results) and answer.results[0].path in right


def right_paths(catalogue: Catalogue, query: Query) -> set[Path]:
    """The files of all right answers."""
    return {catalogue.path(target).absolute() for target in query.answers}


def report(number: int, catalogue: Catalogue, query: Query, answer: Answer, right: bool) -> None:
    """Print one query, its first result, and whether that is right."""
    titles = {row["file"]: row["title"] for row in catalogue.rows}
    print(f'\n{number}. {titles[query.reference]}  +  "{answer.words}"')
    for result in answer.results[:1]:
        found = Path(result.path).relative_to(catalogue.folder.absolute()).as_posix()
        print(f"   {'right' if right else 'wrong'}: {titles[found]}  ({result.score:.3f}, {found})")


def overall(catalogue: Catalogue, encoder: Encoder) -> tuple[int, float]:
    """How many queries of the six kinds the catalogue has answers for, and the share with a right picture first."""
    right: list[float] = []
    for change, keep, template in QUESTIONS:
        asked = evaluate_attributes(catalogue, encoder, change, keep, template=template, rows=["composed"])
        right += asked.row("composed").scores.values["recall@1"].tolist()
    return len(right), sum(right) / len(right)


def run(folder: Path) -> bool:
    """Run the demo in `folder`; true where enough queries have a right picture first."""
    start = time.perf_counter()
    catalogue = load_catalogue(write_catalogue(folder / "catalogue", COUNT, SEED))
    print(f"drew {COUNT} products in {time.perf_counter() - start:.1f} s")
    engine = index(catalogue.folder / "images", folder / "gallery")
    sheets: list[Image.Image] = []
    correct = 0
    for number, query in enumerate(draw_queries(catalogue), 1):
        answer, right = ask(engine, catalogue, query)
        report(number, catalogue, query, answer, right)
        sheets.append(answer.draw(right_paths(catalogue, query)))
        correct += right
    engine.gallery.close()
    stack_sheets(sheets).save(folder / "sheet.png")
    print(f"\nright picture first in {correct} of {len(sheets)}; drawn in {folder / 'sheet.png'}")
    count, share = overall(catalogue, engine.encoder)
    print(f"these six were chosen to show it at its best; over all {count} such queries: {100 * share:.0f} %")
    return correct >= ENOUGH


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".demo")
def main(folder: Path) -> None:
    """Draw a catalogue in FOLDER, index it, ask six composed queries and check the answers."""
    if not run(folder):
        raise click.ClickException(f"expected at least {ENOUGH} of the six answers to be right")


if __name__ == "__main__":
    main()
