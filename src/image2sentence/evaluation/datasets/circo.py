"""CIRCO (Baldrati et al., ICCV 2023): several right answers, judged by mAP@k.

Its pictures are COCO's.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from image2sentence.errors import ConfigError, DataError
from image2sentence.evaluation.datasets.annotation_files import (
    Record,
    find_file,
    in_folders,
    read_json,
    read_records,
    require_unique,
)
from image2sentence.evaluation.protocol import Benchmark, Protocol, Query

SOURCE = (
    "annotations: GitHub miccunifi/CIRCO; "
    "pictures and gallery list: COCO 2017 unlabeled (unlabeled2017.zip, image_info_unlabeled2017.zip)"
)
SPLITS = ("val", "test")
PROTOCOL = Protocol(
    reference="kept", recall_at=(5, 10, 25, 50), map_at=(5, 10, 25, 50), by_aspect=("mAP@10",)
)
CAPTION_RULES = ("relative caption", "relative caption with shared concept")
GALLERY_LIST = "image_info_unlabeled2017.json"


def load(root: Path | str, split: str = "val", caption_rule: str = "relative caption") -> Benchmark:
    """CIRCO `val`, or `test` with hidden answers. Picture ids are COCO numbers, as integers or as text.

    The gallery is exactly COCO 2017 unlabeled where its list (`image_info_unlabeled2017.json`) lies in
    `root`; otherwise any gallery that holds the named pictures is taken, and the options say so.
    `caption_rule`: "relative caption", or "relative caption with shared concept" ("{concept} that
    {caption}").
    """
    if caption_rule not in CAPTION_RULES:
        raise ConfigError(f"caption rule should be one of {', '.join(CAPTION_RULES)}, got {caption_rule!r}")
    path = find_file(root, in_folders(f"{split}.json", "annotations", "circo", "circo/annotations"))
    queries = tuple(_query(record, caption_rule) for record in read_records(path))
    require_unique([query.id for query in queries], path, "query id")
    gallery = _gallery(root)
    options = {"caption rule": caption_rule, "gallery": "COCO 2017 unlabeled" if gallery else "as given"}
    benchmark = Benchmark("circo", split, queries, PROTOCOL, gallery, options=options, numeric_ids=True)
    images = {image: _places(image) for image in benchmark.needed_ids()}
    return Benchmark("circo", split, queries, PROTOCOL, gallery, images, options, numeric_ids=True)


def with_pictures_of(benchmark: Benchmark, root: Path | str) -> Benchmark:
    """The benchmark as it is where the gallery is listed, else with every COCO picture that lies in `root`.

    The options say which gallery that is: only the whole of COCO 2017 unlabeled is comparable with published figures.
    """
    if benchmark.gallery_ids is not None:
        return benchmark
    folders = {(Path(root) / place).parent for place in _places("0")}
    files = (file for folder in sorted(folders) if folder.is_dir() for file in folder.glob("*.jpg"))
    there = {str(int(file.stem)) for file in files if file.stem.isascii() and file.stem.isdigit()}
    ids = tuple(sorted(there | set(benchmark.needed_ids()), key=int))
    note = f"{len(ids)} pictures found, without {GALLERY_LIST}: not comparable with published figures"
    return replace(
        benchmark,
        gallery_ids=ids,
        images={image: _places(image) for image in ids},
        options={**benchmark.options, "gallery": note},
    )


def gallery_list_places() -> list[str]:
    """Where the list of COCO 2017 unlabeled is looked for, relative to the dataset's folder."""
    folders = ["annotations", "COCO2017_unlabeled/annotations", "circo", "circo/annotations"]
    return in_folders(GALLERY_LIST, *folders)


def _gallery(root: Path | str) -> tuple[str, ...] | None:
    if not any((Path(root) / place).is_file() for place in gallery_list_places()):
        return None
    path = find_file(root, gallery_list_places())
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a JSON object with the key 'images'; download the file again")
    images = Record(path, 0, value).parts("images")
    ids = tuple(image.id("id", numeric=True) for image in images)
    require_unique(ids, path, "picture")
    return ids


def _places(image: str) -> tuple[str, ...]:
    file = f"{int(image):012d}.jpg"
    return tuple(in_folders(file, "unlabeled2017", "COCO2017_unlabeled/unlabeled2017"))


def _query(record: Record, caption_rule: str) -> Query:
    caption, concept = record.text("relative_caption"), record.text("shared_concept")
    text = caption if caption_rule == "relative caption" else f"{concept} that {caption}"
    reference = record.id("reference_img_id", numeric=True)
    if "target_img_id" not in record.fields:
        return Query(record.id("id"), reference, (text,))
    target = record.id("target_img_id", numeric=True)
    answers = record.ids("gt_img_ids", numeric=True)
    if target not in answers:
        raise record.problem(f"target {target} is not among 'gt_img_ids'")
    return Query(
        record.id("id"), reference, (text,), answers, target, aspects=record.texts("semantic_aspects")
    )
