"""Check of a benchmark's download for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from image2sentence.errors import ConfigError, DataError, ImageError
from image2sentence.evaluation.datasets import circo
from image2sentence.evaluation.datasets.elsewhere import advice
from image2sentence.evaluation.datasets.registry import DATASETS, dataset, load
from image2sentence.evaluation.protocol import Benchmark, locate_image, named, needed_images, picture_places
from image2sentence.images import load_image


@dataclass(frozen=True)
class Finding:
    """One kind of problem: what it is, how many items have it, the first few of them, and what can be done."""

    problem: str
    items: tuple[str, ...]
    advice: str = ""

    def __str__(self) -> str:
        return f"{len(self.items)} {self.problem}: {named(self.items)}{self.advice}"


@dataclass(frozen=True)
class SplitDiagnosis:
    """The state of one benchmark split: how much it names, and what is wrong with it."""

    benchmark: str
    split: str
    queries: int
    images: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The state of a download, split by split."""

    name: str
    root: Path
    splits: tuple[SplitDiagnosis, ...]
    source: str

    @property
    def complete(self) -> bool:
        """Whether nothing at all was found wrong."""
        return not any(split.findings for split in self.splits)

    def __str__(self) -> str:
        lines = [f"{self.name} in {self.root}"]
        for split in self.splits:
            state = "complete" if not split.findings else "not ready"
            counts = f"{split.queries} queries, {split.images} pictures named"
            lines.append(f"  {split.benchmark} {split.split}: {state} ({counts})")
            lines += [f"    - {finding}" for finding in split.findings]
        if not self.complete:
            lines.append(f"  where to get it: {self.source}")
        return "\n".join(lines)


def diagnose(name: str, root: Path | str, split: str | None = None, decode: bool = False) -> Diagnosis:
    """Looks at every annotation file and every picture that benchmark `name` needs below `root`.

    `name` is a benchmark, or the first part of several ("fashioniq", "genecis"); `split` None looks at all
    splits. Pictures are looked for in the places that downloads use; missing and empty ones are found by name
    and size, and with `decode` each is opened too, which takes minutes for large sets. Raises ConfigError for
    an unknown name or split; what is wrong with the data is the result, not an error.
    """
    names = [known for known in DATASETS if name in (known, known.split("/")[0])]
    if not names:
        raise ConfigError(f"unknown benchmark {name!r}; known: {', '.join(DATASETS)}")
    folder = Path(root)
    entry = dataset(names[0])
    if split is not None and split not in entry.splits:
        raise ConfigError(f"{name} has the splits {', '.join(entry.splits)}, got {split!r}")
    splits = entry.splits if split is None else (split,)
    found = tuple(_diagnose_split(known, part, folder, decode) for known in names for part in splits)
    return Diagnosis(name, folder, found, entry.source)


def _diagnose_split(name: str, split: str, root: Path, decode: bool) -> SplitDiagnosis:
    try:
        benchmark = load(name, root, split)
    except DataError as error:
        return SplitDiagnosis(name, split, 0, 0, (Finding("annotation problem", (str(error),)),))
    images = needed_images(benchmark)
    findings = [*_annotation_findings(benchmark, root), *_image_findings(benchmark, images, root, decode)]
    return SplitDiagnosis(name, split, len(benchmark.queries), len(images), tuple(findings))


def _annotation_findings(benchmark: Benchmark, root: Path) -> list[Finding]:
    """CIRCO runs without its gallery list, but only the list makes figures comparable."""
    if benchmark.name != "circo" or benchmark.gallery_ids is not None:
        return []
    return [Finding("annotation file missing", (f"{circo.GALLERY_LIST} (the whole gallery) in {root}",))]


def _image_findings(benchmark: Benchmark, images: list[str], root: Path, decode: bool) -> list[Finding]:
    files = {image: locate_image(benchmark, image, root) for image in images}
    present = {image: file for image, file in files.items() if file is not None}
    empty = [image for image, file in present.items() if file.stat().st_size == 0]
    unreadable = [
        f"{image} ({reason})"
        for image, file in present.items()
        if decode and image not in empty and (reason := _reason_unreadable(file))
    ]
    missing = tuple(image for image, file in files.items() if file is None)
    found = {"pictures empty": empty, "pictures unreadable": unreadable}
    findings = [Finding(problem, tuple(items)) for problem, items in found.items() if items]
    if not missing:
        return findings
    places = benchmark.images.get(missing[0], ())
    return [
        Finding("pictures missing", missing, advice(root, places, picture_places(benchmark))),
        *findings,
    ]


def _reason_unreadable(file: Path) -> str | None:
    try:
        load_image(file)
    except ImageError as error:
        return str(error)
    return None
