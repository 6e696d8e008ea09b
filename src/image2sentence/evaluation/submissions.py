"""Submission files for the evaluation servers of CIRR and CIRCO.

Both servers count a damaged submission against a daily limit, so everything that they refuse is refused here
first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from image2sentence.errors import DataError
from image2sentence.evaluation.datasets import circo, cirr
from image2sentence.evaluation.datasets.annotation_files import read_json
from image2sentence.evaluation.protocol import Benchmark, Query, named, picture_number, repeated
from image2sentence.evaluation.ranking import open_gallery, order_queries, rank, rank_subsets

CIRR_VERSION = "rc2"
CIRR_PLACES = {"recall": 50, "recall_subset": 3}
CIRR_MAX_BYTES = 5_000_000
CIRCO_PLACES = 50

Predictions = Mapping[str, Sequence[str]]
"""Query id -> picture ids, best first."""


def write_cirr_submission(
    folder: Path | str,
    root: Path | str,
    gallery_ids: Sequence[object],
    gallery: ArrayLike,
    query_ids: Sequence[object],
    queries: ArrayLike,
    split: str = "test1",
) -> tuple[Path, Path]:
    """Ranks CIRR's `split` and writes `recall.json` and `recall_subset.json` to `folder`; returns both paths.

    Features as in `image2sentence.evaluation.score`: `gallery` (n, d), `queries` (q, d). DataError as there, and where
    a file would not pass `check_cirr_submission`.
    """
    benchmark = cirr.load(root, split)
    searcher = open_gallery(benchmark, gallery_ids, gallery)
    vectors = order_queries(benchmark, query_ids, queries)
    whole = rank(searcher, benchmark, vectors, CIRR_PLACES["recall"])
    subset = rank_subsets(searcher, benchmark, vectors)
    places = CIRR_PLACES["recall_subset"]
    return (
        _write_cirr(Path(folder), benchmark, "recall", _by_query(benchmark, whole)),
        _write_cirr(
            Path(folder), benchmark, "recall_subset", _by_query(benchmark, [ids[:places] for ids in subset])
        ),
    )


def write_circo_submission(
    path: Path | str,
    root: Path | str,
    gallery_ids: Sequence[object],
    gallery: ArrayLike,
    query_ids: Sequence[object],
    queries: ArrayLike,
    split: str = "test",
) -> Path:
    """Ranks CIRCO's `split` and writes query id -> 50 picture numbers to `path`; arguments as `score`."""
    benchmark = circo.load(root, split)
    searcher = open_gallery(benchmark, gallery_ids, gallery)
    ranked = rank(searcher, benchmark, order_queries(benchmark, query_ids, queries), CIRCO_PLACES)
    predictions = _by_query(benchmark, ranked)
    _check_circo(benchmark, predictions, str(path))
    document = {query: [int(image) for image in images] for query, images in predictions.items()}
    return _write_json(Path(path), document)


def check_cirr_submission(path: Path | str, root: Path | str, split: str = "test1") -> str:
    """Checks a CIRR submission file and returns its metric, "recall" or "recall_subset".

    A DataError names what the server would refuse or misjudge: another version or metric, more than 5 MB, a
    pair that is missing or unknown, another number of names than 50 (or 3), a name twice, a name that is not
    in the split (or not in the pair's subset), the reference itself.
    """
    file = Path(path)
    document = _read_object(file)
    metric = document.pop("metric", None)
    version = document.pop("version", None)
    if version != CIRR_VERSION:
        raise DataError(f"{file}: 'version' should be {CIRR_VERSION!r}, got {version!r}")
    if not isinstance(metric, str) or metric not in CIRR_PLACES:
        raise DataError(f"{file}: 'metric' should be one of {', '.join(CIRR_PLACES)}, got {metric!r}")
    if file.stat().st_size > CIRR_MAX_BYTES:
        raise DataError(f"{file}: {file.stat().st_size} bytes, the server takes {CIRR_MAX_BYTES}")
    _check_cirr(cirr.load(root, split), metric, _predictions(file, document, str), str(file))
    return metric


def check_circo_submission(path: Path | str, root: Path | str, split: str = "test") -> None:
    """Checks a CIRCO submission file.

    A DataError names a query that is missing or unknown, another number of pictures than 50, a picture twice,
    an id that is no COCO number, and, where the gallery list is at hand, a picture outside the gallery.
    """
    file = Path(path)
    _check_circo(circo.load(root, split), _predictions(file, _read_object(file), picture_number), str(file))


def _by_query(benchmark: Benchmark, rankings: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    return {query.id: list(ids) for query, ids in zip(benchmark.queries, rankings, strict=True)}


def _write_cirr(folder: Path, benchmark: Benchmark, metric: str, predictions: Predictions) -> Path:
    path = folder / f"{metric}.json"
    _check_cirr(benchmark, metric, predictions, str(path))
    return _write_json(path, {"version": CIRR_VERSION, "metric": metric, **predictions}, CIRR_MAX_BYTES)


def _check_cirr(benchmark: Benchmark, metric: str, predictions: Predictions, place: str) -> None:
    gallery = frozenset(benchmark.gallery_ids or ())

    def allowed(query: Query) -> frozenset[str]:
        among = gallery if metric == "recall" else frozenset(query.subset)
        return among - {query.reference}

    _check_queries(benchmark, predictions, place)
    for query in benchmark.queries:
        _check_ids(predictions[query.id], CIRR_PLACES[metric], f"{place}: pair {query.id}")
        if wrong := [name for name in predictions[query.id] if name not in allowed(query)]:
            raise DataError(f"{place}: pair {query.id} names {named(wrong)}, which it may not rank")


def _check_circo(benchmark: Benchmark, predictions: Predictions, place: str) -> None:
    _check_queries(benchmark, predictions, place)
    known = None if benchmark.gallery_ids is None else frozenset(benchmark.gallery_ids)
    for query in benchmark.queries:
        ids = predictions[query.id]
        _check_ids(ids, CIRCO_PLACES, f"{place}: query {query.id}")
        if known is not None and (wrong := [name for name in ids if name not in known]):
            raise DataError(f"{place}: query {query.id} names {named(wrong)}, not in COCO 2017 unlabeled")


def _check_queries(benchmark: Benchmark, predictions: Predictions, place: str) -> None:
    wanted = [query.id for query in benchmark.queries]
    if missing := [query for query in wanted if query not in predictions]:
        raise DataError(f"{place}: query {named(missing)} is missing")
    if unknown := sorted(predictions.keys() - set(wanted)):
        raise DataError(f"{place}: {benchmark.name} {benchmark.split} has no query {named(unknown)}")


def _check_ids(ids: Sequence[str], count: int, place: str) -> None:
    if twice := repeated(ids):
        raise DataError(f"{place} names {named(twice)} twice")
    if len(ids) != count:
        raise DataError(f"{place} should name {count} pictures, got {len(ids)}")


def _read_object(path: Path) -> dict[str, object]:
    document = read_json(path)
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected a JSON object of query id -> picture ids")
    return document


def _predictions(
    path: Path, document: Mapping[str, object], image_id: Callable[[object], str]
) -> dict[str, list[str]]:
    predictions: dict[str, list[str]] = {}
    for query, images in document.items():
        if not isinstance(images, list) or not all(isinstance(image, (str, int)) for image in images):
            raise DataError(f"{path}: query {query!r} should have a list of picture ids")
        predictions[query] = [image_id(image) for image in images]
    return predictions


def _write_json(path: Path, document: Mapping[str, object], max_bytes: int | None = None) -> Path:
    """Writes in one step: whoever looks sees the old file, or all of the new one."""
    content = json.dumps(document).encode()
    if max_bytes is not None and len(content) > max_bytes:
        raise DataError(f"{path} would have {len(content)} bytes, the server takes {max_bytes}")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
    return path
