"""CIRR (Liu et al., ICCV 2021): photographs with one target each.

The reference is removed from the ranking.
"""

from __future__ import annotations

from pathlib import Path

from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.annotation_files import (
    Record,
    find_file,
    in_folders,
    read_json,
    read_records,
    require_known,
    require_unique,
)
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query

SOURCE = (
    "annotations: GitHub Cuberick-Orion/CIRR, branch cirr_dataset; "
    "pictures: NLVR2 (request at lil.nlp.cornell.edu/nlvr)"
)
SPLITS = ("val", "test1")
PROTOCOL = Protocol(
    reference="removed",
    recall_at=(1, 5, 10, 50),
    subset_recall_at=(1, 2, 3),
    averages=(("recall@5", "subset_recall@1"),),
)


def load(root: Path | str, split: str = "val") -> Benchmark:
    """CIRR `val` or `test1` (answers hidden); root holds `captions/` and `image_splits/`, or their files."""
    listing = find_file(
        root, in_folders(f"split.rc2.{split}.json", "image_splits", "cirr", "cirr/image_splits")
    )
    captions = find_file(root, in_folders(f"cap.rc2.{split}.json", "captions", "cirr", "cirr/captions"))
    paths = _read_listing(listing)
    known, hidden = frozenset(paths), split == "test1"
    queries = tuple(_query(record, known, listing, hidden) for record in read_records(captions))
    require_unique([query.id for query in queries], captions, "pairid")
    return Benchmark("cirr", split, queries, PROTOCOL, tuple(paths), images=paths)


def _read_listing(path: Path) -> dict[str, tuple[str, ...]]:
    """Picture name -> its file below the picture folder; NLVR2 downloads come with and without `img_raw`."""
    value = read_json(path)
    if not isinstance(value, dict) or not value:
        raise DataError(f"{path}: expected a JSON object of picture name -> file; download the file again")
    for name, file in value.items():
        if not isinstance(file, str):
            raise DataError(f"{path}: picture {name!r} should have a file path, got {file!r}")
    files = {name: str(file).removeprefix("./") for name, file in value.items()}
    return {name: (file, f"img_raw/{file}", f"images/{file}") for name, file in files.items()}


def _query(record: Record, known: frozenset[str], listing: Path, hidden: bool) -> Query:
    reference = record.id("reference")
    subset = record.part("img_set").ids("members")
    target = None if hidden and "target_hard" not in record.fields else record.id("target_hard")
    answers = () if target is None else (target,)
    require_known(record, known, [reference, *subset, *answers], listing)
    if any(name not in subset for name in (reference, *answers)):
        raise record.problem("the members of 'img_set' should include the reference and the target")
    return Query(record.id("pairid"), reference, (record.text("caption"),), answers, target, subset)
