"""Pictures of what a model does: attention for several L, ranked results, and a map of the vector space.

    python -m recipes.pictures --runs runs/miniature

Only drawn products appear in them. Shows the bundled model, and the models of `train_queries drawn` where they are
there. The same sheets of your own data: `image2sentence evaluate attributes --pictures DIR`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import OnnxEncoder, Vectors, load_encoder
from image2sentence.evaluation.datasets.attributes import load_catalogue
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.evaluate import COMPOSED, Evaluation, evaluate_attributes
from image2sentence.evaluation.examples import draw_cases, result_sheet
from image2sentence.images import load_image
from image2sentence.visualize.attention_maps import attention_sheet
from image2sentence.visualize.contact_sheet import stack_sheets
from recipes.charts import COLOURS, new_figure, save_figure

COUNT, SEED = 2_000, 424_242  # the gallery of docs/results.md: products that no model was trained on
SHOWN = ("shirt", "dress", "boot", "bag", "umbrella")
ARROWS = 12


@dataclass(frozen=True)
class Look:
    """What everything here is drawn from."""

    catalogue: Catalogue
    evaluation: Evaluation

    def open_image(self, file: str) -> Image.Image:
        """A picture of the catalogue."""
        return load_image(self.catalogue.path(file))


def models(runs: Path) -> dict[str, OnnxEncoder]:
    """File name part -> model: the bundled one, and those trained on drawn products."""
    found = {"bundled": load_encoder()}
    for config in sorted((runs / "drawn").glob("*/model/config.json")):
        found[config.parent.parent.name] = load_encoder(config.parent)
    return found


def draw_attention(catalogue: Catalogue, encoders: Mapping[str, OnnxEncoder], out: Path) -> None:
    """attention-MODEL.jpg: the same products for every model, the first of each kind in `SHOWN`."""
    first = {row["type"]: row[FILE_COLUMN] for row in reversed(catalogue.rows)}
    pictures = [load_image(catalogue.path(first[kind])) for kind in SHOWN if kind in first]
    for name, encoder in encoders.items():
        sheet = attention_sheet(pictures, [encoder.explain(picture) for picture in pictures])
        _save(sheet, out / f"attention-{name}.jpg")


def draw_results(look: Look, out: Path, count: int = 3) -> None:
    """results-right.jpg and results-wrong.jpg: drawn by seed, not chosen."""
    cases = draw_cases(look.evaluation, COMPOSED, count)
    for kind, numbers in (("right", cases.right), ("wrong", cases.wrong)):
        sheets = [result_sheet(look.evaluation, COMPOSED, number, look.open_image) for number in numbers]
        _save(stack_sheets(sheets), out / f"results-{kind}.jpg")
    click.echo(f"right in the first place: {100 * cases.share_right:.1f} %")


def draw_map(look: Look, encoder: OnnxEncoder, out: Path) -> None:
    """embedding-map.png: t-SNE (van der Maaten and Hinton, JMLR 2008) of pictures, sentences and composed queries.

    All vectors are placed together, by cosine; distances between far groups mean nothing.
    """
    searcher = look.evaluation.searcher
    composed = look.evaluation.row(COMPOSED).vectors
    assert searcher is not None
    assert composed is not None
    queries = look.evaluation.benchmark.queries
    chosen = np.random.default_rng(0).choice(len(queries), min(300, len(queries)), replace=False)
    files = [queries[n].reference for n in chosen]
    sentences = encoder.encode_sentences([look.open_image(file) for file in files])
    groups = {
        "picture": searcher.vectors_of(searcher.ids),
        "sentence": encoder.encode_queries(sentences, [""] * len(files)),
        "composed": composed[chosen],
    }
    places = dict(zip(groups, np.split(_placed(groups.values()), _ends(groups)), strict=True))
    at = {file: places["picture"][row] for row, file in enumerate(searcher.ids)}
    figure, (left, right) = new_figure(columns=2, width=6, height=5.2)
    _by_type(left, look, places["picture"], searcher.ids)
    _points(left, places["sentence"], "^", "sentence of a picture, without words")
    right.scatter(*places["picture"].T, s=3, color="#d4d4d8", linewidths=0, label="picture")
    _points(right, places["composed"], "o", "picture + words")
    for place, number in enumerate(chosen[:ARROWS]):
        _arrow(right, at[queries[number].reference], places["composed"][place], queries[number].texts[0])
    for axis in (left, right):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.02), ncols=2)
    save_figure(figure, out / "embedding-map.png")
    _report_neighbours(groups, files, searcher.ids)


def _placed(groups: Any) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE

    vectors = np.concatenate(list(groups))
    placed: NDArray[np.float32] = TSNE(metric="cosine", init="random", random_state=0).fit_transform(vectors)
    return placed


def _ends(groups: Mapping[str, Vectors]) -> NDArray[np.int64]:
    return np.cumsum([len(own) for own in groups.values()])[:-1]


def _by_type(axis: Any, look: Look, places: NDArray[np.float32], files: Sequence[Any]) -> None:
    """Points coloured by type, whose name stands where its points are densest."""
    types = {row[FILE_COLUMN]: row["type"] for row in look.catalogue.rows}
    for number, kind in enumerate(sorted(set(types.values()))):
        mine = places[np.array([types[file] == kind for file in files])]
        colour, marker = COLOURS[number % len(COLOURS)], "os"[number // len(COLOURS) % 2]
        axis.scatter(*mine.T, s=7, color=colour, marker=marker, alpha=0.55, linewidths=0)
        outline = {"boxstyle": "round,pad=0.15", "facecolor": "white", "alpha": 0.75, "linewidth": 0}
        axis.text(*_densest(mine), kind, fontsize=9, color=colour, ha="center", va="center", bbox=outline)


def _densest(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The point whose tenth nearest other point is nearest."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near: NDArray[np.float32] = points[np.sort(distances, axis=1)[:, min(10, len(points) - 1)].argmin()]
    return near


def _points(axis: Any, places: NDArray[np.float32], marker: str, label: str) -> None:
    axis.scatter(
        *places.T, s=16, marker=marker, facecolors="none", edgecolors="#18181b", linewidths=0.6, label=label
    )


def _arrow(axis: Any, start: NDArray[np.float32], end: NDArray[np.float32], words: str) -> None:
    style = {"arrowstyle": "->", "color": COLOURS[1], "linewidth": 1.1}
    axis.annotate("", xy=end, xytext=start, arrowprops=style)
    axis.annotate(words, xy=end, fontsize=7, color=COLOURS[1], xytext=(3, 3), textcoords="offset points")


def _report_neighbours(groups: Mapping[str, Vectors], files: Sequence[str], ids: Sequence[Any]) -> None:
    """In numbers, since a map can deceive: how near sentences lie to their own pictures."""
    at = {file: row for row, file in enumerate(ids)}
    similar = groups["sentence"] @ groups["picture"].T
    own = similar[np.arange(len(files)), [at[file] for file in files]]
    ranks = (similar > own[:, None]).sum(axis=1) + 1
    click.echo(
        f"sentence to its own picture: cosine {own.mean():.3f}, median rank {np.median(ranks):.0f} of {len(ids)}"
    )


def _save(sheet: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=88, optimize=True)


@click.command()
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/miniature"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/pictures"))
@click.option("--attention-only", is_flag=True, help="Draw attention maps and nothing that needs a gallery.")
def main(runs: Path, out: Path, attention_only: bool) -> None:
    """Draws everything into OUT."""
    catalogue = load_catalogue(write_catalogue(runs.parent / f"drawn-{COUNT}-{SEED}", COUNT, SEED))
    encoders = models(runs)
    draw_attention(catalogue, encoders, out)
    if attention_only:
        return
    evaluation = evaluate_attributes(
        catalogue, encoders["bundled"], "colour", "type,pattern,sleeve", rows=[COMPOSED]
    )
    look = Look(catalogue, evaluation)
    draw_results(look, out)
    draw_map(look, encoders["bundled"], out)


if __name__ == "__main__":
    main()
