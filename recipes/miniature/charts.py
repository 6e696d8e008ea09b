"""Charts of the miniature experiments."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from image2sentence.training.models.cost_table import multiply_adds
from image2sentence.training.models.light_encoders import build_light
from recipes.miniature.outcomes import Outcome, TaskOutcomes
from recipes.miniature.variants import ISA, LIGHT


def light_encoders(task: TaskOutcomes, out: Path, metric: str = "mAP@10") -> None:
    """Accuracy against cost: one point for each light encoder, with its interval."""
    rows = {row.name: row for row in task.rows.values() if row.study == "light encoder"}
    rows[LIGHT["fashion"]] = task["main", ISA]
    figure, axes = plt.subplots(figsize=(6, 4))
    highest = 0.0
    for name, row in rows.items():
        encoder = build_light(name.partition(",")[0], pretrained=False)  # ", from scratch" is a remark
        cost = multiply_adds(encoder, encoder.preprocessing.size) / 1e6
        value = row.interval(metric)
        axes.errorbar(
            cost, value.mean, [[value.mean - value.low], [value.high - value.mean]], fmt="o", capsize=3
        )
        axes.annotate(name, (cost, value.mean), textcoords="offset points", xytext=(6, 4))
        highest = max(highest, cost)
    axes.axhline(task.sum.interval(metric).mean, linestyle="--", color="grey", label="image + text sum")
    axes.set(xlabel="million multiply-adds of the light encoder", ylabel=f"{metric}, percent")
    axes.set_xlim(0, highest * 1.4)  # room for the last name
    axes.legend()
    _save(figure, out)


def sentence_lengths(tasks: dict[str, dict[str, Outcome]], out: Path, metric: str = "mAP@10") -> None:
    """How each benchmark moves with L, relative to L = 1."""
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, rows in tasks.items():
        points = {
            int(key[4:]): row.interval(metric).mean for key, row in rows.items() if key.startswith("L = ")
        }
        if 1 in points and len(points) > 1:
            lengths = sorted(points)
            axes.plot(lengths, [points[n] / points[1] for n in lengths], marker="o", label=name)
    axes.set(xscale="log", xlabel="L, pseudo-words in the sentence", ylabel=f"{metric} relative to L = 1")
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.axhline(1, color="grey", linewidth=0.5)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    _save(figure, out)


def _save(figure: plt.Figure, out: Path) -> None:
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    plt.close(figure)
