"""FashionIQ (Wu et al., CVPR 2021): dresses, shirts and tops.

Product photos, two captions a query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.datasets.annotation_files import (
    Record,
    find_file,
    in_folders,
    read_json,
    read_records,
    require_known,
    require_unique,
)
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query, plain_id

SOURCE = "annotations: GitHub XiaoxiaoGuo/fashion-iq; pictures: the links in its image_url folder"
CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("val", "test")
PROTOCOL = Protocol(reference="kept", recall_at=(10, 50))
ENDINGS = "png", "jpg"


def _both_orders(first: str, second: str) -> tuple[str, ...]:
    first, second = first.strip(".?, "), second.strip(".?, ")
    return f"{first} and {second}", f"{second} and {first}"


CAPTION_RULES: dict[str, Callable[[str, str], tuple[str, ...]]] = {
    "both-orders-averaged": _both_orders,
    "c1 and c2": lambda first, second: (f"{first} and {second}",),
    "c2 and c1": lambda first, second: (f"{second} and {first}",),
}


def load(
    root: Path | str, category: str, split: str = "val", caption_rule: str = "both-orders-averaged"
) -> Benchmark:
    """One category of FashionIQ; the gallery is the split file. Query ids are positions in the caption file.

    `caption_rule` says how the two captions become text: "both-orders-averaged" (SEARLE, LinCIR: ends
    stripped of `.?, `, both orders encoded and averaged), "c2 and c1" (Pic2Word) or "c1 and c2".
    """
    if category not in CATEGORIES:
        raise ConfigError(f"FashionIQ has the categories {', '.join(CATEGORIES)}, got {category!r}")
    if caption_rule not in CAPTION_RULES:
        raise ConfigError(f"caption rule should be one of {', '.join(CAPTION_RULES)}, got {caption_rule!r}")
    listing = _find(root, "image_splits", f"split.{category}.{split}.json")
    captions = _find(root, "captions", f"cap.{category}.{split}.json")
    ids = _read_listing(listing)
    rule = CAPTION_RULES[caption_rule]
    known, hidden = frozenset(ids), split == "test"
    queries = tuple(_query(record, known, listing, rule, hidden) for record in read_records(captions))
    images = {name: tuple(f"images/{name}.{end}" for end in ENDINGS) for name in ids}
    options = {"caption rule": caption_rule}
    return Benchmark(f"fashioniq/{category}", split, queries, PROTOCOL, ids, images, options)


def _find(root: Path | str, folder: str, file: str) -> Path:
    return find_file(root, in_folders(file, folder, "fashioniq", f"fashioniq/{folder}"))


def _read_listing(path: Path) -> tuple[str, ...]:
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise DataError(f"{path}: expected a JSON list of picture names; download the file again")
    ids = tuple(plain_id(value) for value in values)
    require_unique(ids, path, "picture")
    return ids


def _query(
    record: Record,
    known: frozenset[str],
    listing: Path,
    rule: Callable[[str, str], tuple[str, ...]],
    hidden: bool,
) -> Query:
    reference = record.id("candidate")
    target = None if hidden and "target" not in record.fields else record.id("target")
    answers = () if target is None else (target,)
    require_known(record, known, [reference, *answers], listing)
    captions = record.texts("captions")
    if len(captions) != 2:
        raise record.problem(f"expected two captions, got {len(captions)}")
    return Query(str(record.index), reference, rule(*captions), answers, target)


def plain_mean(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """FashionIQ's headline: each metric's plain mean over categories; `scores` is category -> figures."""
    if missing := [category for category in CATEGORIES if category not in scores]:
        raise DataError(f"the FashionIQ mean needs all categories, missing: {', '.join(missing)}")
    metrics = scores[CATEGORIES[0]]
    return {
        name: sum(scores[category][name] for category in CATEGORIES) / len(CATEGORIES) for name in metrics
    }
