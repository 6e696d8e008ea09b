"""Sets the presets `paper`, `laptop` and `default` side by side on the fashion world, and each choice of the last.

    python -m recipes.miniature.presets --data ../shared/data --estimate
    python -m recipes.miniature.presets --data ../shared/data

Trains the world's VL model if it is not there, then every row, a seed at a time, asks all of them for another colour
(kept: gender and type), and writes RUNS/fashion/presets.md with intervals. Interrupted, it goes on when the command is
repeated, and the table has the rows that are there. All rows begin with one light encoder, the world's, so that losses
are compared and not encoders; `--steps` is for all of them and stands in the table.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import click

from image2sentence.evaluation.evaluate import FULL_TEXT, IMAGE_ONLY, SUM, TEXT_ONLY
from image2sentence.evaluation.metrics import paired_difference
from recipes.miniature import train_vl
from recipes.miniature.evaluate import TASKS, evaluate_missing, label
from recipes.miniature.outcomes import Outcome, TaskOutcomes, read
from recipes.miniature.report import shown, table
from recipes.miniature.train_queries import train, write_material
from recipes.miniature.variants import Variant
from recipes.miniature.worlds import FASHION
from recipes.towers import save_model
from recipes.vocabulary import word_tokenizer

DEFAULT = "default"
ROWS: dict[str, dict[str, Any]] = {
    "GCD by InfoNCE": {"gcd": "info_nce", "gcd_weight": 1.0},
    "GCD by KL of similarities": {"gcd": "kl", "gcd_weight": 1.0},
    "GCD by InfoNCE both ways": {"gcd": "symmetric", "gcd_weight": 1.0},
    "LAR off": {"lar": "off"},
    "LAR local": {"lar": "local"},
    "pseudo-captions in place of LAR": {"lar": "off", "caption_weight": 1.0},
    "without modifiers": {"modifier_weight": 0.0},
    "modifiers by InfoNCE": {"modifier": "info_nce"},
    "residual 0": {"residual": 0.0},
    "softmax over places": {"learner.softmax": "places"},
    "gates": {"learner.gates": True},
    "no relation blocks": {"learner.blocks": 0},
    "L = 1": {"learner.tokens": 1},
    "L = 8": {"learner.tokens": 8},
    "single-word mapper": {"learner.kind": "mapper", "learner.tokens": 1},
}
"""Row -> how it differs from the preset `default`."""
PRESETS = ("paper", "laptop", DEFAULT)
STEPS = 2_000
TIMED = (4, 24)
"""Steps of two trainings whose difference is timed."""
TIMED_PICTURES = 640
METRICS = ("recall@1", "mAP@10")


def study(steps: int) -> str:
    """The study that rows of so many steps belong to."""
    return f"presets, {steps} steps"


def variants(steps: int, seeds: int) -> list[Variant]:
    """All runs, the presets and their first seed first."""
    rows = [Variant(name, study(steps), preset=name) for name in PRESETS]
    rows += [Variant(name, study(steps), changes, preset=DEFAULT) for name, changes in ROWS.items()]
    common = {"steps": steps, "warmup": max(1, steps // 20)}
    return [
        Variant(row.name, row.study, common | row.changes, seed=seed, preset=row.preset)
        for seed in range(seeds)
        for row in rows
    ]


def results_table(task: TaskOutcomes, steps: int) -> str:
    """Markdown: means over seeds with intervals over queries, each seed's mAP@10, and the difference to the default."""
    default = task.get(study(steps), DEFAULT)
    rows = [task[("", name)] for name in (IMAGE_ONLY, TEXT_ONLY, SUM, FULL_TEXT)]
    rows += [row for row in task.rows.values() if row.study == study(steps)]
    lines = [_line(row, default if row.study else None) for row in rows]
    return table(["row", *METRICS, "mAP@10 of each seed", "mAP@10 over the default's"], lines)


def _line(row: Outcome, default: Outcome | None) -> list[str]:
    cells = [row.name, *(shown(row.interval(metric)) for metric in METRICS)]
    if default is None:
        return [*cells, "", ""]
    cells.append(", ".join(f"{value:.1f}" for value in row.of_seeds("mAP@10")))
    if row is default:
        return [*cells, ""]
    seeds = min(row.seeds, default.seeds)  # where the work was interrupted
    means = (one.values["mAP@10"][:seeds].mean(0) for one in (row, default))
    gap = paired_difference(*means)
    return [*cells, f"{gap.mean:+.1f} ({gap.low:+.1f} to {gap.high:+.1f})"]


def write_table(data: Path, out: Path, steps: int, seeds: int) -> Path:
    """Evaluates what is trained and not measured yet, and writes the table of it."""
    task = TASKS[FASHION.name][0]
    folders = {label(one): out / one.folder / "model" for one in variants(steps, seeds)}
    there = {name: folder for name, folder in folders.items() if (folder / "config.json").is_file()}
    results = out / "results" / f"presets-{steps}.json"
    results.parent.mkdir(exist_ok=True)
    evaluate_missing(FASHION, task, FASHION.catalogue(data), there, results)
    found = read(results)
    page = out / "presets.md"
    count, gallery = found.facts["query count"], found.facts["gallery size"]
    head = f"{steps} steps, {seeds} seeds, {count} queries, gallery of {gallery}"
    page.write_text(f"{head}\n\n{results_table(found, steps)}\n", encoding="utf-8")
    return page


def stand_in(data: Path, folder: Path) -> None:
    """A VL model of the world's size with random weights, which takes as long as a trained one."""
    rows = FASHION.training_rows(data)
    tokenizer = word_tokenizer([" ".join(row.values()) for row in rows])
    save_model(train_vl.build_model(FASHION, tokenizer.get_vocab_size(), 0), tokenizer, folder, FASHION.side)


def estimate(data: Path, work: Path, steps: int, seeds: int, threads: int) -> dict[str, float]:
    """Row -> hours of processor time of all its seeds, by the presets' own; others take as long as the default."""
    write_material(FASHION, data, work, TIMED_PICTURES)
    stand_in(data, work / "vl" / "model")
    hours = {}
    for preset in PRESETS:
        seconds = []
        for few in (TIMED[0], *TIMED):  # the first run also encodes the pictures, and does not count
            started = _children()
            train(FASHION, Variant(preset, "timing", {"steps": few}, preset=preset), work, threads)
            seconds.append(_children() - started)
            shutil.rmtree(work / Variant(preset, "timing").folder / "model")
            (work / Variant(preset, "timing").folder / "state.safetensors").unlink()
        step = (seconds[2] - seconds[1]) / (TIMED[1] - TIMED[0])
        hours[preset] = seeds * (steps * step + seconds[1]) / 3600
    return hours | dict.fromkeys(ROWS, hours[DEFAULT])


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"))
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--steps", type=click.IntRange(min=1), default=STEPS, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--estimate", "only_estimate", is_flag=True, help="Say how many hours it takes, and stop.")
def main(data: Path, runs: Path, steps: int, seeds: int, threads: int, only_estimate: bool) -> None:
    """Writes RUNS/fashion/presets.md."""
    if only_estimate:
        with tempfile.TemporaryDirectory() as work:
            hours = estimate(data, Path(work), steps, seeds, threads)
        for name, value in {**hours, "together, without the VL model": sum(hours.values())}.items():
            click.echo(f"{value:8.2f} processor h  {name}")
        return
    out = runs / FASHION.name
    if not (out / "vl" / "model" / "config.json").is_file():
        train_vl.train(FASHION, data, out / "vl", train_vl.Settings(), train_vl.MATCHING)
    write_material(FASHION, data, out)
    for one in variants(steps, seeds):
        train(FASHION, one, out, threads)
    click.echo(f"wrote {write_table(data, out, steps, seeds)}")


if __name__ == "__main__":
    main()
