"""Makes one table of the paper's kind: trains its rows, measures them, writes tables and submissions.

    python -m recipes.paper benchmarks --pictures PHOTOS --cirr CIRR --fashioniq FASHIONIQ --circo CIRCO --estimate
    python -m recipes.paper benchmarks --pictures PHOTOS --cirr CIRR --fashioniq FASHIONIQ --circo CIRCO
    python -m recipes.paper lengths --pictures PHOTOS --fashioniq FASHIONIQ --seeds 3

PHOTOS are unlabeled; the benchmarks' folders are those of their downloads, pictures included. `--estimate` times a few
steps and says how many hours the table takes here. Interrupted, the command goes on when it is repeated, and tables
share the runs, targets and kept galleries that they have in common. No figure is one of the paper: its training
pictures, optimiser and L are not public (`training/presets/paper.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from subprocess import CalledProcessError

import click

from image2sentence.errors import DataError, Image2SentenceError
from image2sentence.evaluation.public_benchmarks import load_benchmarks
from recipes.paper import stages
from recipes.paper.estimate import as_text, estimate
from recipes.paper.report import benchmark_table
from recipes.paper.stages import HIDDEN, Plan
from recipes.paper.tables import TABLES, Table

DEFAULT_VL = "Salesforce/blip-itm-base-coco"
_folder = click.Path(exists=True, file_okay=False, path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name", metavar="TABLE", type=click.Choice(sorted(TABLES)))
@click.option("--pictures", type=_folder, required=True, help="Unlabeled pictures to train on.")
@click.option("--cirr", type=_folder)
@click.option("--fashioniq", type=_folder)
@click.option("--circo", type=_folder)
@click.option("--genecis", type=_folder)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/paper"), show_default=True)
@click.option("--vl", default=DEFAULT_VL, show_default=True, help="A BLIP-type model.")
@click.option("--light", help="In place of every row's light encoder but the symmetric one's.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=VALUE", help="A training setting of every row."
)
@click.option("--phrases", type=_file, help="With --modifiers: rows that learn from words, too.")
@click.option("--modifiers", type=_file)
@click.option("--device", default="auto", show_default=True, help="What evaluation runs on.")
@click.option(
    "--processes", type=click.IntRange(min=1), default=1, show_default=True, help="GPUs to train on."
)
@click.option("--estimate", "only_estimate", is_flag=True, help="Say how many hours it takes, and stop.")
def main(
    name: str,
    pictures: Path,
    cirr: Path | None,
    fashioniq: Path | None,
    circo: Path | None,
    genecis: Path | None,
    out: Path,
    vl: str,
    light: str | None,
    seeds: int,
    changes: tuple[str, ...],
    phrases: Path | None,
    modifiers: Path | None,
    device: str,
    processes: int,
    only_estimate: bool,
) -> None:
    """Writes OUT/TABLE/tables.md."""
    given = {"cirr": cirr, "fashioniq": fashioniq, "circo": circo, "genecis": genecis}
    roots = {benchmark: root.absolute() for benchmark, root in given.items() if root is not None}
    if not roots:
        raise click.UsageError(
            "name the folder of at least one benchmark: --cirr, --fashioniq, --circo, --genecis"
        )
    if (phrases is None) != (modifiers is None):
        raise click.UsageError("--phrases and --modifiers belong together")
    words = {} if phrases is None or modifiers is None else {"phrases": phrases, "modifiers": modifiers}
    plan = Plan(pictures, roots, out, vl, seeds, changes, words, light, device, processes)
    try:
        for benchmark, root in roots.items():  # what is missing is named before hours of training
            load_benchmarks(benchmark, root)
        shown = as_text(estimate(plan, TABLES[name])) if only_estimate else make(plan, name, TABLES[name])
    except (Image2SentenceError, CalledProcessError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(shown)


def make(plan: Plan, name: str, table: Table) -> str:
    """The table as Markdown, which it writes, after all stages that are not done."""
    for row in plan.rows(table):
        for seed in range(plan.seeds):
            stages.train(plan, row, seed)
    reports = {benchmark: stages.evaluate(plan, name, table, benchmark) for benchmark in plan.roots}
    text = as_markdown(plan, table, reports)
    if table.submits:
        text += "".join(_submitted(plan, name, table, benchmark) for benchmark in plan.roots)
    (plan.out / name / "tables.md").write_text(text, encoding="utf-8")
    return text


def as_markdown(plan: Plan, table: Table, reports: Mapping[str, Path]) -> str:
    """All benchmarks' tables under one heading, with what was left out."""
    rows = plan.rows(table)
    left_out = [row.title for row in table.rows if row not in rows]
    head = f"## {table.title}\n\nPercent with 95 % bootstrap intervals over queries; seeds: {plan.seeds}."
    if plan.changes or plan.light:
        changed = [*plan.changes, *([f"light encoder {plan.light}"] if plan.light else [])]
        head += f" Changed in every row: {', '.join(changed)}."
    if left_out:
        head += f" Not trained, as --phrases and --modifiers were not given: {', '.join(left_out)}."
    tables = [benchmark_table(one, report, rows, plan.seeds) for one, report in reports.items()]
    return "\n\n".join([head, *tables]) + "\n"


def _submitted(plan: Plan, name: str, table: Table, benchmark: str) -> str:
    """A line about a hidden split: where the submission lies, or that there is none."""
    if benchmark not in HIDDEN:
        return ""
    split = HIDDEN[benchmark]
    try:
        load_benchmarks(benchmark, plan.roots[benchmark], split)
    except DataError as error:
        return f"\n{benchmark} {split}: no submission ({error})\n"
    return f"\n{benchmark} {split}: {stages.submit(plan, name, table, benchmark)}\n"


if __name__ == "__main__":
    main()
