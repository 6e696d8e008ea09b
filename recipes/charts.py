"""What the figures and tables of all recipes share: colours, frames, Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from image2sentence.evaluation.metrics import Interval

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*"


def new_figure(
    columns: int = 1, rows: int = 1, width: float = 4.2, height: float = 3.2
) -> tuple[Any, list[Any]]:
    """A figure and its axes, row by row, in a style that is read at a column's width; draws to files only."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = [axis for line in figure.subplots(rows, columns, squeeze=False) for axis in line]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e4e7", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, axes


def draw_line(axis: Any, x: Sequence[float], values: Sequence[Interval], number: int, label: str) -> None:
    """One line with its 95 % band; `number` chooses colour and marker."""
    colour = COLOURS[number % len(COLOURS)]
    axis.plot(
        x,
        [value.mean for value in values],
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        linewidth=1.6,
        label=label,
    )
    lows, highs = [value.low for value in values], [value.high for value in values]
    axis.fill_between(x, lows, highs, color=colour, alpha=0.15, linewidth=0)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a PNG, without the date in it, so that the same data give the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; numbers are for the caller to format."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Interval) -> str:
    """ "mean (low to high)", one decimal."""
    return f"{value.mean:.1f} ({value.low:.1f} to {value.high:.1f})"
