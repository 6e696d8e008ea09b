"""Makes the tables of all experiments and their charts out of what `recipes.miniature.evaluate` found.

python -m recipes.miniature.report --runs runs/miniature
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import click

from image2sentence.evaluation.evaluate import FULL_TEXT, IMAGE_ONLY, SUM, TEXT_ONLY
from image2sentence.evaluation.metrics import Interval, paired_difference
from recipes.miniature.outcomes import Outcome, TaskOutcomes, ratio, read
from recipes.miniature.variants import ALL_MSE, GUIDED, ISA, MAPPER, OURS, PAPER, SYMMETRIC

MAIN = "main"
METRICS = ("recall@1", "recall@10", "mAP@10")
LENGTHS = (1, 2, 4, 8, 16)
STUDIES = {
    "modifier-aware distillation": "residual 0.35, as in the main table",
    "LAR": "through the matching encoder, as in the main table",
    "GCD": "InfoNCE one way, as in the main table",
    "token learner": "softmax over places, two relation blocks, no gates, as in the main table",
    "light encoder": "tiny/80@bundled, as in the main table",
}
TITLES = {
    ("fashion", "colour"): "Fashion photographs, val: change the colour, keep gender and type",
    ("fashion", "colour-detailed"): "Fashion, val: change the colour, keep gender, type, usage and season",
    ("fashion", "product-line"): "Fashion, val: change the colour within a product line",
    ("fashion", "type"): "Fashion, val: change the type, keep gender and colour",
    (
        "emoji",
        "skin-tone",
    ): "Emoji of subjects never trained on: change the skin tone, keep subject and style",
    ("drawn", "keep-1"): "Drawn product lines: change the colour, keep the type",
    ("drawn", "keep-2"): "Drawn product lines: change the colour, keep type and pattern",
    ("drawn", "keep-5"): "Drawn product lines: change the colour, keep five attributes",
    ("drawn", "keep-8"): "Drawn product lines: change the colour, keep everything else (eight attributes)",
    ("emoji", "style"): "Emoji of subjects never trained on: change the drawing style, keep the name",
}


def shown(value: Interval, digits: int = 1) -> str:
    """mean (low to high)."""
    return f"{value.mean:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines])


def main_table(task: TaskOutcomes) -> str:
    """All rows of the main study, with their ratio to the sum."""
    rows = [task[("", name)] for name in (IMAGE_ONLY, TEXT_ONLY, SUM)]
    ours = (name + suffix for name in OURS for suffix in ("", *GUIDED))
    names = (MAPPER, "L = 1", PAPER, SYMMETRIC, *ours)
    rows += [found for name in names if (found := _found(task, name))]
    rows.append(task[("", FULL_TEXT)])
    return table(
        ["row", "seeds", *METRICS, "mAP@10 over the sum's"], [_main_line(row, task.sum) for row in rows]
    )


def _found(task: TaskOutcomes, name: str) -> Outcome | None:
    return task.get(MAIN, name) or task.get("sentence length", name)


def _main_line(row: Outcome, baseline: Outcome) -> list[str]:
    names = {ISA + suffix: f"ISA, L = 4{suffix}" for suffix in ("", *GUIDED)} | {"L = 1": "ISA, L = 1"}
    cells = [names.get(row.name, row.name), str(row.seeds) if row.study else ""]
    cells += [shown(row.interval(metric)) for metric in METRICS]
    return [*cells, shown(ratio(row, baseline, "mAP@10"), 2)]


def study_table(task: TaskOutcomes, study: str) -> str:
    """One study's rows after the common setting, each with its paired difference to that; or that there are none."""
    if not ran(task, study):
        return f"{study[0].upper()}{study[1:]}: set down in `recipes/miniature/variants.py`, not run yet."
    common = task[(MAIN, ISA)]
    lines = [_study_line(STUDIES[study], _first_seed(common), None)]
    lines += [
        _study_line(row.name, row, _first_seed(common)) for row in task.rows.values() if row.study == study
    ]
    return table([study, "recall@1", "mAP@10", "difference in mAP@10"], lines)


def ran(task: TaskOutcomes, study: str) -> bool:
    """Whether any variant of a study has been evaluated."""
    return any(row.study == study for row in task.rows.values())


def _first_seed(row: Outcome) -> Outcome:
    return Outcome(row.name, row.study, row.note, {m: v[:1] for m, v in row.values.items()})


def _study_line(name: str, row: Outcome, common: Outcome | None) -> list[str]:
    cells = [name, shown(row.interval("recall@1")), shown(row.interval("mAP@10"))]
    if common is None:
        return [*cells, ""]
    delta = paired_difference(row.values["mAP@10"][0], common.values["mAP@10"][0])
    return [*cells, f"{delta.mean:+.1f} ({delta.low:+.1f} to {delta.high:+.1f})"]


def length_rows(task: TaskOutcomes) -> dict[str, Outcome]:
    """The mapper and every L, first seeds."""
    rows = {"mapper": task.get(MAIN, MAPPER)}
    for length in LENGTHS:
        rows[f"L = {length}"] = (
            task.get(MAIN, ISA) if length == 4 else task.get("sentence length", f"L = {length}")
        )
    return {name: _first_seed(row) for name, row in rows.items() if row is not None}


def length_table(tasks: dict[str, TaskOutcomes], metric: str) -> str:
    """Sentence length against benchmarks, one column each."""
    columns = {name: length_rows(task) for name, task in tasks.items()}
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    lines = [
        [name, *(shown(rows[name].interval(metric)) if name in rows else "" for rows in columns.values())]
        for name in names
    ]
    return table([metric, *columns], lines)


def seeds_line(task: TaskOutcomes, metric: str = "mAP@10") -> str:
    """Each seed's figure."""
    parts = [
        f"{name}: {', '.join(f'{value:.1f}' for value in row.of_seeds(metric))}"
        for name in (ISA, ALL_MSE, MAPPER, SYMMETRIC, PAPER)
        if (row := task.get(MAIN, name)) is not None
    ]
    return f"{metric} of each seed. " + "; ".join(parts) + "."


def load(runs: Path) -> dict[tuple[str, str], TaskOutcomes]:
    """Every task that has been evaluated."""
    return {
        key: read(path) for key in TITLES if (path := runs / key[0] / "results" / f"{key[1]}.json").is_file()
    }


def document(tasks: dict[tuple[str, str], TaskOutcomes], text: Path) -> str:
    """The page: the prose of `text`, its `{{...}}` filled with tables."""
    page = text.read_text(encoding="utf-8")
    for (world, name), task in tasks.items():
        title = TITLES[world, name]
        facts = task.facts
        head = (
            f"**{title}.** {facts['query count']} queries, gallery of {facts['gallery size']}; text weight of the "
            f"sum {facts['text weight of the sum']}, tuned on {facts['weight tuned on']}."
        )
        page = page.replace(
            f"{{{{main {world} {name}}}}}", f"{head}\n\n{main_table(task)}\n\n{seeds_line(task)}"
        )
    colour = tasks["fashion", "colour"]
    for study in STUDIES:
        page = page.replace(f"{{{{study {study}}}}}", study_table(colour, study))
    titles = {f"{world}, {name}": task for (world, name), task in tasks.items()}
    page = page.replace("{{lengths mAP@10}}", length_table(titles, "mAP@10"))
    page = page.replace("{{lengths recall@1}}", length_table(titles, "recall@1"))
    return page.replace("{{made}}", f"{date.today().isoformat()}, {platform.machine()}, two CPU cores")


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/miniature/experiments.md"))
def main(runs: Path, out: Path) -> None:
    """Writes OUT and the charts beside it, in images/."""
    from recipes.miniature import charts  # matplotlib, which tables alone do without

    tasks = load(runs)
    out.write_text(document(tasks, Path(__file__).with_name("experiments.md")), encoding="utf-8")
    if ran(tasks["fashion", "colour"], "light encoder"):
        charts.light_encoders(tasks["fashion", "colour"], out.parent / "images" / "light-encoders.png")
    lengths = {f"{world}, {name}": length_rows(task) for (world, name), task in tasks.items()}
    charts.sentence_lengths(lengths, out.parent / "images" / "sentence-lengths.png")
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
