"""GeneCIS (Vaze et al., CVPR 2023), object tasks: each query ranks a small gallery of its own."""

from __future__ import annotations

from pathlib import Path

from image2sentence.errors import ConfigError
from image2sentence.evaluation.datasets.annotation_files import Record, find_file, in_folders, read_records
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query

SOURCE = "annotations: GitHub facebookresearch/genecis; pictures: COCO 2017 val (val2017.zip)"
FOCUSES = ("focus_object", "change_object")
SPLITS = ("val",)
PROTOCOL = Protocol(reference="outside", recall_at=(1, 2, 3))


def load(root: Path | str, focus: str, split: str = "val") -> Benchmark:
    """`focus_object` or `change_object`. Query ids are positions in the file; pictures are COCO numbers.

    A query ranks its target and its `gallery` entries (14 of them), without its reference. Where an entry
    repeats the target (one query of change_object does), the picture is ranked once.
    """
    if focus not in FOCUSES:
        raise ConfigError(f"GeneCIS has the object tasks {', '.join(FOCUSES)}, got {focus!r}")
    if split not in SPLITS:
        raise ConfigError(f"GeneCIS has the split val only, got {split!r}")
    path = find_file(root, in_folders(f"{focus}.json", "genecis", "genecis/genecis"))
    queries = tuple(_query(record) for record in read_records(path))
    named = dict.fromkeys(image for query in queries for image in (query.reference, *query.gallery))
    images = {image: _places(image) for image in named}
    return Benchmark(f"genecis/{focus}", split, queries, PROTOCOL, None, images, numeric_ids=True)


def _places(image: str) -> tuple[str, ...]:
    return tuple(in_folders(f"{int(image):012d}.jpg", "val2017", "images"))


def _query(record: Record) -> Query:
    reference = record.part("reference").id("val_image_id", numeric=True)
    target = record.part("target").id("val_image_id", numeric=True)
    others = [entry.id("val_image_id", numeric=True) for entry in record.parts("gallery")]
    gallery = tuple(dict.fromkeys([target, *others]))
    if reference in gallery:
        raise record.problem(f"the reference {reference} is in the query's own gallery")
    text = record.text("condition")
    return Query(str(record.index), reference, (text,), (target,), target, gallery=gallery)
