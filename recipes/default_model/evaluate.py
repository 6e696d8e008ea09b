"""The table: what a model finds among pictures kept out of its training, beside the one that ships.

    python -m recipes.default_model.evaluate --data ../shared/data --model runs/default_model/query/model

Works on any model folder, and with `--vl` on towers that have no query side yet: then without composed queries. The
1,000 photographs of ImageNet's classes and the stamps that the model was asked to be measured on are not in the data.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from image2sentence.catalogue import write_catalogue
from image2sentence.encoders import load_encoder
from image2sentence.encoders.preprocess import to_pixels
from image2sentence.errors import ModelError
from image2sentence.evaluation.datasets.attributes import (
    attribute_queries,
    load_catalogue,
    reported_and_tuning,
)
from image2sentence.evaluation.datasets.labels import FILE_COLUMN, Catalogue
from image2sentence.evaluation.evaluate import BASELINES, COMPOSED, SUM, Evaluation, evaluate
from image2sentence.evaluation.metrics import average_precision_at
from image2sentence.images import load_image
from image2sentence.training.vl.base import VisionLanguageModel
from image2sentence.training.vl.load import load_vl
from recipes.bundled.evaluate import CHANGES, COUNT, DOUBLE, SEED, emoji_files, photograph_folder
from recipes.bundled.material import link
from recipes.bundled.words import SYNONYMS
from recipes.default_model import pictures as material

Vectors = NDArray[np.float32]
_MOST = 1_000  # queries of one row; drawn by a fixed seed
# Words of shops that no training caption of a picture had, and the label of fashion that proves them.
SHOP_WORDS: dict[str, tuple[str, str]] = {
    "wallet": ("type", "Wallets"),
    "handbag": ("type", "Handbags"),
    "backpack": ("type", "Backpacks"),
    "clutch": ("type", "Clutches"),
    "watch": ("type", "Watches"),
    "sunglasses": ("type", "Sunglasses"),
    "sandals": ("type", "Sandals"),
    "heels": ("type", "Heels"),
    "flip-flops": ("type", "Flip Flops"),
    "earrings": ("type", "Earrings"),
    "belt": ("type", "Belts"),
    "bra": ("type", "Bra"),
    "tie": ("type", "Ties"),
    "socks": ("type", "Socks"),
    "jeans": ("type", "Jeans"),
    "tunic": ("type", "Tunics"),
    "leggings": ("type", "Leggings"),
    "loafers": ("type", "Casual Shoes"),
    "burgundy": ("colour", "Burgundy"),
    "maroon": ("colour", "Maroon"),
    "khaki": ("colour", "Khaki"),
    "olive": ("colour", "Olive"),
    "silver": ("colour", "Silver"),
    "formal": ("usage", "Formal"),
    "for women": ("gender", "Women"),
}


class Remembering:
    """An encoder that reads no picture twice."""

    def __init__(self, encoder: object) -> None:
        self.encoder = encoder
        self._seen: dict[bytes, Vectors] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures -> (n, d) unit rows."""
        keys = [hashlib.sha256(image.tobytes() + repr(image.size).encode()).digest() for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._seen}
        if new:
            vectors = self.encoder.encode_images(list(new.values()))  # type: ignore[attr-defined]
            self._seen |= dict(zip(new, vectors, strict=True))
        return np.stack([self._seen[key] for key in keys])


class Towers:
    """A VL model's two towers as an encoder that cannot compose."""

    def __init__(self, vl: VisionLanguageModel) -> None:
        self.vl, self.fingerprint, self.width = vl, vl.record.fingerprint, vl.width

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """n RGB pictures -> (n, d) unit rows."""
        pixels = torch.from_numpy(to_pixels(images, self.vl.preprocessing))
        return self.vl.encode_images(pixels).vectors.float().numpy()

    @torch.no_grad()
    def encode_queries(self, sentences: None, texts: Sequence[str]) -> Vectors:
        """n texts -> (n, d) unit rows."""
        return self.vl.encode_words(self.vl.words(texts)).float().numpy()

    def encode_sentences(self, images: Sequence[Image.Image]) -> Vectors:
        """Raises ModelError: there is no query side."""
        raise ModelError("these towers have no query side yet")

    def unknown_words(self, text: str) -> list[str]:
        """As `OnnxEncoder.unknown_words`, for a vocabulary with [UNK]."""
        encoding = self.vl.tokenizer.encode(text, add_special_tokens=False)
        unknown = self.vl.tokenizer.token_to_id("[UNK]")
        return [text[a:b] for i, (a, b) in zip(encoding.ids, encoding.offsets, strict=True) if i == unknown]


@dataclass(frozen=True)
class Line:
    """One figure of the table: percent, what was asked for (0: nothing), and a note."""

    task: str
    value: float
    wanted: float = 0.0
    note: str = ""


class Table:
    """Measures one model; each method gives lines."""

    def __init__(self, data: Path, work: Path, encoder: object, composes: bool) -> None:
        self.data, self.work, self.encoder, self.composes = data, work, Remembering(encoder), composes

    def lines(self) -> list[Line]:
        """All of them."""
        parts: list[Callable[[], list[Line]]] = [
            self.everyday_words,
            self.garment_types,
            self.shop,
            self.everyday_changes,
            self.photographs,
            self.fashion,
            self.drawn,
            self.emoji,
        ]
        return [line for part in parts for line in part()]

    def everyday_words(self) -> list[Line]:
        """Labels -> photographs: of labels seen, of labels kept apart."""
        shown = [p for p in material.everyday(self.data) if p.part == material.TEST]
        lines = []
        for apart in (False, True):
            some = [p for p in shown if p.apart is apart]
            labels = [str(p.record["label"]) for p in some]
            ranks, precision = self._by_words([p.open() for p in some], labels, {x: [x] for x in labels})
            name = f"everyday, labels {'kept apart' if apart else 'seen'} ({len(ranks)} labels, {len(some)} pictures)"
            if apart:
                lines += [
                    Line(f"{name}: R@1", 100 * _mean(ranks < 1), 33),
                    Line(f"{name}: R@10", 100 * _mean(ranks < 10), 70),
                ]
            else:
                lines.append(Line(f"{name}: mAP@10", 100 * _mean(precision), 70))
        return lines

    def garment_types(self) -> list[Line]:
        """Types of garments -> held-out photographs."""
        shown = [p for p in material.garments(self.data) if p.part == material.TEST]
        kinds = [str(p.record["type"]) for p in shown]
        asked = {SYNONYMS["type"][kind][0]: [kind] for kind in SYNONYMS["type"] if kind in kinds}
        _, precision = self._by_words([p.open() for p in shown], kinds, asked)
        return [Line(f"garment type by words ({len(asked)} types): mAP@10", 100 * _mean(precision), 75)]

    def shop(self) -> list[Line]:
        """Words of a shop: how many are understood, and whether pictures prove the new ones."""
        lines, words = [], self.data / "words" / "shop.txt"
        if words.is_file():
            asked = [line.strip() for line in words.read_text(encoding="utf-8").splitlines() if line.strip()]
            known = sum(not self.encoder.unknown_words(text) for text in asked)  # type: ignore[operator]
            lines.append(Line(f"words of shop.txt understood, of {len(asked)}", known, 150))
        catalogue = load_catalogue(self.data / "fashion")
        rows = catalogue.of_split("val")
        images = [load_image(catalogue.path(row[FILE_COLUMN])) for row in rows]
        proven = []
        for word, (column, value) in SHOP_WORDS.items():
            labels = [row[column] for row in rows]
            if value not in labels:
                continue
            if self.encoder.unknown_words(word):  # type: ignore[operator]
                precision = [0.0]
            else:
                _, precision = self._by_words(images, labels, {word: [value]})
            proven.append(f"{word} {100 * precision[0]:.0f} ({100 * labels.count(value) / len(labels):.0f})")
        lines.append(Line("fashion by new words: mAP@10 (share of the gallery)", 0, note=", ".join(proven)))
        return lines

    def everyday_changes(self) -> list[Line]:
        """Another kind, and another kind of the same broader kind."""
        shown = [p for p in material.everyday(self.data) if p.part == material.TEST and not p.apart]
        catalogue = load_catalogue(_everyday_folder(shown, self.work))
        lines = []
        for keep, name, metric in (
            ((), "another kind", "recall@10"),
            (("broader",), "kept: broader kind", "mAP@10"),
        ):
            evaluation = self._changed(catalogue, "label", keep, template="as a {value}")
            lines += self._lines(f"everyday: {name}", evaluation, metric, 80 if not keep else 0)
        return lines

    def photographs(self) -> list[Line]:
        """Another colour of a garment, and whether its type is kept among the first ten answers."""
        catalogue = load_catalogue(photograph_folder(self.data, self.work))
        evaluation = self._changed(catalogue, "colour", ["type"])
        lines = self._lines("photographs: colour (kept: type)", evaluation, "recall@10", 85)
        for name in (COMPOSED, SUM) if self.composes else (SUM,):
            types = {row[FILE_COLUMN]: row["type"] for row in catalogue.rows}
            found = evaluation.rankings(name, 11)
            kept = [
                np.mean([types[str(i)] == types[q.reference] for i in ids if i != q.reference][:10])
                for q, ids in zip(evaluation.benchmark.queries, found, strict=True)
            ]
            lines.append(
                Line(f"photographs: type kept among the first ten, {name}", 100 * float(np.mean(kept)), 60)
            )
        return lines

    def fashion(self) -> list[Line]:
        """Product photographs of a kind never trained on."""
        catalogue, lines = load_catalogue(self.data / "fashion"), []
        changes = [*CHANGES["fashion"], ("gender", ["type", "colour"])]
        for change, keep in changes:
            evaluation = self._changed(catalogue, change, keep, "val")
            lines += self._lines(f"fashion: {change} (kept: {', '.join(keep)})", evaluation, "mAP@10", 0)
        return lines

    def drawn(self) -> list[Line]:
        """Changes of one attribute and of two, of products of an unseen seed."""
        catalogue = load_catalogue(write_catalogue(self.work / f"drawn-{COUNT}-{SEED}", COUNT, SEED))
        lines = []
        for change, keep in CHANGES["drawn"] + DOUBLE:
            lines += self._lines(f"drawn: {change}", self._changed(catalogue, change, keep), "recall@1", 94)
        return lines

    def emoji(self) -> list[Line]:
        """Subjects never trained on, among all."""
        catalogue, lines = load_catalogue(self.data / "emoji"), []
        unseen = emoji_files(catalogue, held=True)
        for change, keep in CHANGES["emoji"]:
            asked = _some(attribute_queries(catalogue, change, keep, references=unseen))
            evaluation = self._measured(catalogue, asked, None)
            lines += self._lines(
                f"emoji, unseen: {change}", evaluation, "recall@1", 85 if change == "skin_tone" else 60
            )
        return lines

    def _changed(
        self,
        catalogue: Catalogue,
        change: str,
        keep: Sequence[str],
        split: str | None = None,
        **settings: object,
    ) -> Evaluation:
        asked, tuning = reported_and_tuning(catalogue, change, list(keep), split, **settings)
        return self._measured(catalogue, _some(asked), _some(tuning))

    def _measured(self, catalogue, asked, tuning) -> Evaluation:  # type: ignore[no-untyped-def]
        rows = [*BASELINES, COMPOSED] if self.composes else list(BASELINES)
        opened = partial(_open, catalogue)
        return evaluate(asked, self.encoder, opened, tuning=tuning, rows=rows)  # type: ignore[arg-type]

    def _lines(self, name: str, evaluation: Evaluation, metric: str, wanted: float) -> list[Line]:
        asked = SUM if not self.composes else COMPOSED
        value = evaluation.row(asked).scores.percent()[metric]
        others = {row.name: row.scores.percent()[metric] for row in evaluation.rows}
        note = ", ".join(f"{other} {figure:.1f}" for other, figure in others.items() if other != asked)
        if self.composes:
            difference = evaluation.compare(COMPOSED, SUM, metric)
            base = max(others[SUM], 1e-9)
            note += f"; {value / base:.2f} x sum, difference {difference.low:.1f} to {difference.high:.1f}"
        return [Line(f"{name}: {metric}, {asked}", value, wanted, note)]

    def _by_words(
        self, images: Sequence[Image.Image], labels: Sequence[str], asked: Mapping[str, Sequence[str]]
    ) -> tuple[NDArray[np.int64], Vectors]:
        """For each of `asked` (words: right labels), the rank of the first right picture and the precision of ten."""
        gallery = np.concatenate(
            [self.encoder.encode_images(images[i : i + 64]) for i in range(0, len(images), 64)]
        )
        words = sorted(asked)
        scores = self.encoder.encode_queries(None, words) @ gallery.T  # type: ignore[operator]
        right = np.array([[label in asked[word] for label in labels] for word in words])
        order = np.argsort(-scores, axis=1, kind="stable")
        ranked = np.take_along_axis(right, order, 1)
        precision = average_precision_at(ranked[:, :10].tolist(), right.sum(1).tolist(), 10)
        return ranked.argmax(1), np.asarray(precision, np.float32)


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _open(catalogue: Catalogue, file: str) -> Image.Image:
    return load_image(catalogue.path(file), at_least=512)


def _some(benchmark):  # type: ignore[no-untyped-def]
    """At most `_MOST` of the queries, evenly spread."""
    queries = benchmark.queries
    return replace(benchmark, queries=queries[:: max(1, -(-len(queries) // _MOST))])


def _everyday_folder(shown: Sequence[material.Picture], work: Path) -> Path:
    """The pictures as a labelled folder."""
    folder = work / "everyday"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    table = []
    for picture in shown:
        assert picture.path is not None
        link(picture.path, folder / "images" / picture.path.name)
        record = picture.record
        table.append(
            {"file": f"images/{picture.path.name}", "label": record["label"], "broader": record["broader"]}
        )
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return folder


def _row(line: Line, beside: Line | None = None) -> str:
    other = f"{beside.value:.1f}" if beside else ""
    return f"| {line.task} | {line.value:.1f} | {line.wanted or ''} | {other} | {line.note} |"


def write_table(data: Path, model: Path | None, work: Path, out: Path, vl: Path | None = None) -> None:
    """Measures the model, and the one that ships beside it; writes a Markdown table to `out`."""
    composes = vl is None
    lines = _measure(
        data, work, Towers(load_vl(str(vl))) if vl is not None else load_encoder(model), composes
    )
    beside = _measure(data, work, load_encoder(), composes) if model or vl else []
    shipped = {line.task: line for line in beside}
    head = "| task | percent | wanted | ships | beside |\n| --- | --- | --- | --- | --- |\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        head + "\n".join(_row(line, shipped.get(line.task)) for line in lines) + "\n", encoding="utf-8"
    )


def _measure(data: Path, work: Path, encoder: Any, composes: bool) -> list[Line]:
    """A model's lines, kept in `work` for the next table beside which they stand."""
    work.mkdir(parents=True, exist_ok=True)
    config = getattr(encoder, "config", None)
    name = f"{encoder.fingerprint[:16]}-{config.query_fingerprint[:16] if config else 'towers'}-{composes}"
    kept = work / f"lines-{name}.json"
    if not kept.is_file():
        lines = Table(data, work, encoder, composes).lines()
        kept.write_text(json.dumps([asdict(line) for line in lines]), encoding="utf-8")
    return [Line(**line) for line in json.loads(kept.read_text(encoding="utf-8"))]


@click.command()
@click.option("--data", type=click.Path(path_type=Path), default=Path("../shared/data"), show_default=True)
@click.option("--model", type=click.Path(path_type=Path), help="A model folder; else the one that ships.")
@click.option("--vl", type=click.Path(path_type=Path), help="Towers without a query side.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/default_model/table"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/default_model/table/results.md"))
def main(data: Path, model: Path | None, vl: Path | None, work: Path, out: Path) -> None:
    """Writes the table to OUT."""
    write_table(data, model, work, out, vl)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
