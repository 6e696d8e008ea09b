"""Stages of a table: train each row, evaluate all of them on each benchmark, write submissions.

A stage that is done leaves a record of its command beside its result, and is not done again; a training that was
interrupted goes on, and so does the encoding of a benchmark's pictures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from image2sentence.errors import ConfigError
from recipes.paper.tables import Row, Table

RECORD = "command.json"
TARGETS = "targets.safetensors"
HIDDEN = {"cirr": "test1", "circo": "test"}
"""Benchmarks with a hidden split that a server takes answers to, and its name."""


@dataclass(frozen=True)
class Plan:
    """What all tables have in common. `changes` are `train --set` texts for every row, after its own.

    `light` takes the place of every row's encoder but the symmetric one's; `processes` are those of accelerate.
    """

    pictures: Path
    roots: Mapping[str, Path]
    out: Path
    vl: str
    seeds: int = 1
    changes: Sequence[str] = ()
    words: Mapping[str, Path] = field(default_factory=dict)
    light: str | None = None
    device: str = "auto"
    processes: int = 1

    def rows(self, table: Table) -> list[Row]:
        """The table's rows for which everything is given."""
        return [row for row in table.rows if self.words or not row.words]

    def folder(self, row: Row, seed: int) -> Path:
        """A row's run; tables that have a row in common share it."""
        return self.out / "runs" / f"{row.name}-{seed}"


def run_image2sentence(arguments: Sequence[str], processes: int = 1) -> None:
    """The product's own command line in a process of its own. Raises CalledProcessError."""
    start = [sys.executable, "-m", "image2sentence"]
    if processes > 1:
        launch = ["-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
        start = [sys.executable, *launch, "-m", "image2sentence"]
    subprocess.run([*start, *arguments], check=True)


def train_command(plan: Plan, row: Row, seed: int) -> list[str]:
    """What trains a row."""
    light = row.light if row.light == "symmetric" or plan.light is None else plan.light
    changes = [f"{name}={json.dumps(value)}" for name, value in row.changes.items()]
    return [
        *("train", str(plan.pictures), f"--preset={row.preset}", f"--vl={plan.vl}"),
        *([f"--light={light}"] if light else []),
        *(f"--out={plan.folder(row, seed)}", f"--set=seed={seed}"),
        *(f"--set={change}" for change in [*changes, *plan.changes]),
        *(f"--{kind}={file}" for kind, file in plan.words.items() if row.words),
    ]


def train(plan: Plan, row: Row, seed: int) -> None:
    """Trains a row unless it is done; the first run's gallery vectors of the pictures serve all."""
    folder = plan.folder(row, seed)
    command = train_command(plan, row, seed)
    if _is_done(folder / RECORD, command):
        return
    folder.mkdir(parents=True, exist_ok=True)
    made = sorted((plan.out / "runs").glob(f"*/{TARGETS}"))
    if made and not (folder / TARGETS).exists():
        (folder / TARGETS).hardlink_to(made[0])
    run_image2sentence(command, plan.processes)
    _record(folder / RECORD, command)


def evaluate_command(plan: Plan, table: Table, benchmark: str, report: Path) -> list[str]:
    """What measures a table's rows on one benchmark: the first is the row `composed`, the others have their names."""
    models = {
        f"{row.name}-{seed}": plan.folder(row, seed) / "model"
        for row in plan.rows(table)
        for seed in range(plan.seeds)
    }
    first, *others = models
    return [
        *("evaluate", benchmark, f"--root={plan.roots[benchmark]}", f"--model={models[first]}"),
        *(f"--also={name}={models[name]}" for name in others),
        *(f"--gallery={plan.out / 'kept' / benchmark}", f"--device={plan.device}", f"--json={report}"),
    ]


def evaluate(plan: Plan, name: str, table: Table, benchmark: str) -> Path:
    """The report of a table's rows on one benchmark, made unless it is done."""
    report = plan.out / name / f"{benchmark}.json"
    command = evaluate_command(plan, table, benchmark, report)
    if not _is_done(report.with_suffix(".command.json"), command):
        report.parent.mkdir(parents=True, exist_ok=True)
        run_image2sentence(command)
        _record(report.with_suffix(".command.json"), command)
    return report


def submit(plan: Plan, name: str, table: Table, benchmark: str) -> Path:
    """The first row's answers to a benchmark's hidden split, as its server takes them, made unless they are done."""
    place = plan.out / name / ("cirr-test1" if benchmark == "cirr" else "circo-test.json")
    first = plan.folder(plan.rows(table)[0], 0) / "model"
    command = [
        *("evaluate", benchmark, f"--root={plan.roots[benchmark]}", f"--split={HIDDEN[benchmark]}"),
        *(f"--model={first}", f"--gallery={plan.out / 'kept' / benchmark}", f"--device={plan.device}"),
        f"--submission={place}",
    ]
    record = plan.out / name / f"{benchmark}-submission.command.json"
    if not _is_done(record, command):
        place.parent.mkdir(parents=True, exist_ok=True)
        run_image2sentence(command)
        _record(record, command)
    return place


def _is_done(record: Path, command: Sequence[str]) -> bool:
    """Whether this very command was run to its end. Raises ConfigError where another one was."""
    if not record.is_file():
        return False
    if (made := json.loads(record.read_text(encoding="utf-8"))) != list(command):
        raise ConfigError(
            f"{record.parent} was made by another command ({' '.join(made)}): take another --out, or delete "
            f"{record.parent}"
        )
    return True


def _record(record: Path, command: Sequence[str]) -> None:
    record.write_text(json.dumps(list(command), indent=1) + "\n", encoding="utf-8")
