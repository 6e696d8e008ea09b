"""ImageNet to ImageNet-R domain conversion (Pic2Word, CVPR 2023).

The same class is sought in another style.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.datasets.annotation_files import (
    find_file,
    in_folders,
    read_text,
    require_unique,
)
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query

SOURCE = (
    "lists: GitHub google-research/composed_image_retrieval, data/imgnet; "
    "pictures: ImageNet val and ImageNet-R"
)
SPLITS = ("val",)
DOMAINS = ("cartoon", "origami", "toy", "sculpture")
LABELS_PER_DOMAIN = 1000
PROTOCOL = Protocol(reference="outside", coverage_at=(10, 50), by_aspect=("recall@10", "recall@50"))
UNANSWERABLE = ("count as zero", "leave out")
FOLDERS = ("imgnet", "data/imgnet", "pic2word")


def load(
    root: Path | str,
    split: str = "val",
    template: str = "in {domain} style",
    unanswerable: str = "count as zero",
) -> Benchmark:
    """Every photo asks for each of four domains; right answers are the pictures of its class in that domain.

    Query ids are "domain:photo path"; gallery ids are the paths of the target list. R@k is hits over all
    right answers. Not every class exists in every domain: Pic2Word counts such queries as 0 (the default,
    comparable with published figures); "leave out" drops them, and the options state how many.
    """
    if split not in SPLITS:
        raise ConfigError(f"domain conversion has the split val only, got {split!r}")
    if unanswerable not in UNANSWERABLE:
        raise ConfigError(f"unanswerable should be one of {', '.join(UNANSWERABLE)}, got {unanswerable!r}")
    if "{domain}" not in template:
        raise ConfigError(f"the template needs {{domain}}, got {template!r}")
    photos = _read_list(find_file(root, in_folders("imgnet_real_query.txt", *FOLDERS)))
    targets = _read_list(find_file(root, in_folders("imgnet_targets.txt", *FOLDERS)))
    asked = tuple(_queries(photos, _by_label(targets), template))
    without = sum(not query.answers for query in asked)
    options = {"template": template, "unanswerable": f"{unanswerable} ({without} of {len(asked)})"}
    queries = tuple(query for query in asked if query.answers or unanswerable == "count as zero")
    images = {path: (path, path.removeprefix("imgnet/")) for path in [*photos, *targets]}
    return Benchmark("domain_conversion", split, queries, PROTOCOL, tuple(targets), images, options)


def _read_list(path: Path) -> dict[str, int]:
    """Lines "picture label" -> picture: label. A label is the class plus 1000 times the domain's position."""
    text = read_text(path)
    pairs = [_parse(path, number, line) for number, line in enumerate(text.splitlines(), start=1)]
    if not text.endswith("\n"):  # the last label may lack digits
        raise DataError(f"{path}: cut off in line {len(pairs)}; download the file again")
    require_unique([name for name, _ in pairs], path, "picture")
    return dict(pairs)


def _parse(path: Path, number: int, line: str) -> tuple[str, int]:
    parts = line.split()
    if len(parts) != 2 or not parts[1].isdigit():
        raise DataError(
            f"{path}, line {number}: expected a picture path and a label, got {line!r}; download the file again"
        )
    return parts[0], int(parts[1])


def _by_label(targets: dict[str, int]) -> dict[int, tuple[str, ...]]:
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for name, label in targets.items():
        groups[label].append(name)
    return {label: tuple(names) for label, names in groups.items()}


def _queries(photos: dict[str, int], answers: dict[int, tuple[str, ...]], template: str) -> Iterator[Query]:
    for position, domain in enumerate(DOMAINS):
        text = template.replace("{domain}", domain)
        for photo, label in photos.items():
            right = answers.get(label + LABELS_PER_DOMAIN * position, ())
            yield Query(f"{domain}:{photo}", photo, (text,), right, aspects=(domain,))
