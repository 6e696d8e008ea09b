"""Measures whether `fit` tells words for what a gallery shows from words for what it does not.

    python -m recipes.present_absent --data ../shared/data

Words are made of labels: of the gallery's own pictures (present), of `everyday/` (absent), and of kinds whose pictures
were taken out of the gallery, a quarter of the kinds at a time (absent, and of its sort). None of the words on which
the documented cut-off was found (words/present_absent.csv and the test's) is among them. Labels are split in two by a
seed: another cut-off is chosen on one half (greatest sum of both shares of right answers) and judged on the other. The
area under the ROC curve is the chance that something present has the greater fit. Intervals are 95 %, by bootstrap over
labels, since the wordings of a label rise and fall together. Some minutes on two CPU cores; vectors are kept in WORK.
"""

from __future__ import annotations

import csv
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from image2sentence.encoders import OnnxEncoder, load_encoder
from image2sentence.gallery import Gallery
from image2sentence.gallery.records import Content, FileEntry
from image2sentence.images import MIN_DECODE_SIDE, load_image
from image2sentence.query import Query, QueryEngine

DOCUMENTED = 4.0
LEAST = 3  # pictures that a label needs to count as present
ABSENT = 12  # labels of each kind of `everyday/`
FOLDS = 4  # in which kinds are taken out of the gallery
SAMPLES = 2_000
# Kinds of `everyday/` that no photograph of a garment shows, but for prints.
EVERYDAY = (
    "landmark",
    "bridge",
    "food",
    "fruit",
    "vegetable",
    "mammal",
    "bird",
    "fish",
    "reptile",
    "vehicle",
)
EVERYDAY += ("barrier", "street furniture", "dairy product", "juice", "scene", "electronic", "furniture")
CLOTHING = {
    "T-Shirt": "t-shirt",
    "Longsleeve": "long-sleeved shirt",
    "Pants": "trousers",
    "Outwear": "coat",
    "Polo": "polo shirt",
    "Top": "tank top",
    "Body": "baby bodysuit",
}
_BATCH = 64
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Words about a label, whether the gallery shows it, and their best fit; None where nothing was understood."""

    label: str
    words: str
    present: bool
    fit: float | None


@dataclass(frozen=True)
class Pictures:
    """(n, d) vectors of pictures and the labels of each."""

    vectors: NDArray[np.float32]
    labels: Sequence[frozenset[str]]

    def without(self, labels: frozenset[str]) -> Pictures:
        """Those that have none of these labels."""
        kept = [place for place, own in enumerate(self.labels) if not own & labels]
        return Pictures(self.vectors[kept], [self.labels[place] for place in kept])

    def shown(self) -> list[str]:
        """Labels of at least `LEAST` pictures."""
        counts: dict[str, int] = defaultdict(int)
        for own in self.labels:
            for label in own:
                counts[label] += 1
        return sorted(label for label, count in counts.items() if count >= LEAST)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def clothing(data: Path) -> list[tuple[Path, frozenset[str]]]:
    """Photographs of garments, each with its type."""
    folder = data / "clothing"
    rows = [
        row for row in read_table(folder / "labels.csv") if row["type"] not in ("Not sure", "Other", "Skip")
    ]
    return [
        (folder / row["file"], frozenset({CLOTHING.get(row["type"], row["type"].lower())})) for row in rows
    ]


def fashion(data: Path) -> list[tuple[Path, frozenset[str]]]:
    """Product photographs that no training saw, each with its type, and colour and type."""
    folder = data / "fashion"
    rows = [row for row in read_table(folder / "attributes.csv") if row["split"] == "val"]
    return [
        (folder / row["file"], frozenset({row["type"].lower(), f"{row['colour']} {row['type']}".lower()}))
        for row in rows
    ]


def absent_labels(data: Path, seed: int) -> list[str]:
    """Labels of things that are in no gallery here, some of each kind."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for row in read_table(data / "everyday" / "everyday.csv"):
        kinds[row["broader"]].add(row["label"])
    draw = random.Random(seed)
    return [
        label
        for kind in EVERYDAY
        for label in draw.sample(sorted(kinds[kind]), min(ABSENT, len(kinds[kind])))
    ]


def used_before(data: Path) -> set[str]:
    """Words on which the documented cut-off was found, and the test's, without their articles too."""
    rows = read_table(data / "words" / "present_absent.csv")
    words = [row["words"] for row in rows] + [
        "a bowl of soup",
        "a helicopter",
        "a horse",
        "a lamp",
        "a t-shirt",
    ]
    return {word for words_ in words for word in (words_, words_.removeprefix("a "), "a " + words_)}


def wordings(label: str) -> list[str]:
    """How people ask for it."""
    return (
        [label, f"a picture of {label}"] if label.endswith("s") else [f"a {label}", f"a picture of a {label}"]
    )


def encode(encoder: OnnxEncoder, files: Sequence[Path], kept: Path) -> NDArray[np.float32]:
    """Gallery vectors, kept in a file."""
    if kept.exists():
        return np.asarray(np.load(kept), np.float32)
    starts = tqdm(range(0, len(files), _BATCH), desc=kept.stem)
    batches = ([load_image(file, at_least=MIN_DECODE_SIDE) for file in files[s : s + _BATCH]] for s in starts)
    vectors = np.concatenate([encoder.encode_images(batch) for batch in batches])
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, vectors)
    return vectors


def ask(
    encoder: OnnxEncoder, pictures: Pictures, labels: Iterable[str], present: bool, before: set[str]
) -> list[Asked]:
    """The best fit of every wording of every label in a gallery of these pictures."""
    asked: list[Asked] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Gallery.create(Path(folder, "gallery"), encoder.fingerprint, encoder.width) as gallery,
    ):
        contents = [Content(n.to_bytes(32, "big"), 1, 1, vector) for n, vector in enumerate(pictures.vectors)]
        entries = [FileEntry(f"{n}.jpg", 1, 1, one.sha256) for n, one in enumerate(contents)]
        gallery.commit(gallery.add_root(Path(folder, "pictures")), contents, entries)
        engine = QueryEngine(encoder, gallery)
        for label in sorted(set(labels) - before):
            for words in wordings(label):
                answer = engine.rank(Query(words=words, k=1))
                asked.append(Asked(label, words, present, answer.best_fit if answer.understood else None))
    return asked


def ask_without_kinds(
    encoder: OnnxEncoder, pictures: Pictures, kinds: Sequence[str], before: set[str], seed: int
) -> list[Asked]:
    """Each kind asked for once where its pictures are not in the gallery, and once where those of others are not."""
    drawn = random.Random(seed).sample(sorted(kinds), len(kinds))
    folds = [frozenset(drawn[fold::FOLDS]) for fold in range(FOLDS)]
    asked: list[Asked] = []
    for fold, taken in enumerate(folds):
        fewer = pictures.without(taken)
        asked += ask(encoder, fewer, taken, False, before)
        asked += ask(encoder, fewer, folds[fold - 1], True, before)
    return asked


def area(asked: Sequence[Asked]) -> float:
    """The chance that something present has the greater fit than something absent; what is not understood is least."""
    there, gone = (fits(asked, present) for present in (True, False))
    return float(np.mean((there[:, None] > gone) + 0.5 * (there[:, None] == gone)))


def fits(asked: Sequence[Asked], present: bool) -> Values:
    """The fits of what is present or absent."""
    return np.array([-99.0 if one.fit is None else one.fit for one in asked if one.present is present])


def passing(present: bool, cut_off: float) -> Callable[[Sequence[Asked]], float]:
    """The share in percent that reaches a cut-off."""
    return lambda asked: 100 * float(np.mean(fits(asked, present) >= cut_off))


def best_cut_off(asked: Sequence[Asked]) -> float:
    """The cut-off by tenths with the greatest sum of both shares of right answers."""
    steps = np.arange(0, 10, 0.1)
    gains = [passing(True, step)(asked) - passing(False, step)(asked) for step in steps]
    return round(float(steps[int(np.argmax(gains))]), 1)


def with_interval(asked: Sequence[Asked], figure: Callable[[Sequence[Asked]], float], seed: int) -> str:
    """A figure with its interval; labels are drawn anew, present and absent ones apart."""
    rng = np.random.default_rng(seed)
    groups: dict[bool, dict[str, list[Asked]]] = {True: defaultdict(list), False: defaultdict(list)}
    for one in asked:
        groups[one.present][one.label].append(one)
    drawn = []
    for _ in range(SAMPLES):
        chosen: list[Asked] = []
        for labels in groups.values():
            names = list(labels)
            chosen += [
                one for place in rng.integers(0, len(names), len(names)) for one in labels[names[place]]
            ]
        drawn.append(figure(chosen))
    low, high = np.percentile(drawn, [2.5, 97.5])
    digits = 2 if figure is area else 0
    return f"{figure(asked):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def halves(asked: Sequence[Asked], seed: int) -> tuple[list[Asked], list[Asked]]:
    """Half of the present and half of the absent labels, and the others."""
    chosen: set[str] = set()
    for present in (True, False):
        labels = sorted({one.label for one in asked if one.present is present})
        random.Random(seed).shuffle(labels)
        chosen |= set(labels[: len(labels) // 2])
    first = [one for one in asked if one.label in chosen]
    return first, [one for one in asked if one.label not in chosen]


def report(name: str, asked: Sequence[Asked], seed: int) -> str:
    """A row of the table: queries, area, and the shares of present and absent that pass either cut-off."""
    tuning, judged = halves(asked, seed)
    counts = f"{len(fits(asked, True))} and {len(fits(asked, False))}"
    cells = [name, counts, with_interval(asked, area, seed)]
    for cut_off, words in ((DOCUMENTED, asked), (best_cut_off(tuning), judged)):
        shares = [with_interval(words, passing(present, cut_off), seed) for present in (True, False)]
        cells.append(f"{cut_off:g}: {shares[0]} and {shares[1]}")
    return "| " + " | ".join(cells) + " |"


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("runs/present_absent"), show_default=True
)
@click.option("--seed", default=0, show_default=True)
def main(data: Path, work: Path, seed: int) -> None:
    """Print the table, in percent where it is a share."""
    encoder, before, elsewhere = load_encoder(), used_before(data), absent_labels(data, seed)
    print(
        "| gallery, and what is absent | present and absent | area | documented cut-off | chosen, judged on half |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name, rows in (("clothing", clothing(data)), ("fashion", fashion(data))):
        vectors = encode(encoder, [file for file, _ in rows], work / f"{name}-{encoder.fingerprint[:16]}.npy")
        pictures = Pictures(vectors, [labels for _, labels in rows])
        there = ask(encoder, pictures, pictures.shown(), True, before)
        gone = ask(encoder, pictures, elsewhere, False, before)
        print(report(f"{name}, everyday things", [*there, *gone], seed), flush=True)
        kinds = set(pictures.shown()) & {min(labels, key=len) for _, labels in rows}
        apart = ask_without_kinds(encoder, pictures, sorted(kinds), before, seed)
        print(report(f"{name}, kinds taken out", apart, seed), flush=True)


if __name__ == "__main__":
    main()
