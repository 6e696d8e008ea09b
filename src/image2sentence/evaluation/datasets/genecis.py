"""GeneCIS (Vaze et al., CVPR 2023): a small gallery for each query."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from image2sentence.errors import ConfigError
from image2sentence.evaluation.datasets.annotation_files import Record, find_file, in_folders, read_records
from image2sentence.evaluation.protocol import Benchmark, Box, Protocol, Query

SOURCE = (
    "annotations: GitHub facebookresearch/genecis; pictures: COCO 2017 val (val2017.zip) for the object tasks, "
    "Visual Genome (images.zip, images2.zip) for the attribute tasks"
)
OBJECT_TASKS = ("focus_object", "change_object")
ATTRIBUTE_TASKS = ("focus_attribute", "change_attribute")
FOCUSES = (*OBJECT_TASKS, *ATTRIBUTE_TASKS)
SPLITS = ("val",)
PROTOCOL = Protocol(reference="outside", recall_at=(1, 2, 3))
DILATION = 0.7
"""By how much of its width and height an object's box is widened before it is cut out."""


def annotation_places(focus: str) -> list[str]:
    """Where a task's annotations are looked for, relative to the dataset's folder."""
    return in_folders(f"{focus}.json", "genecis", "genecis/genecis")


def load(root: Path | str, focus: str, split: str = "val") -> Benchmark:
    """One of the four tasks of `FOCUSES`. Query ids are positions in the file.

    Object tasks: pictures are COCO numbers. Attribute tasks: pictures are parts of Visual Genome's, with ids
    `picture:left,top,width,height`; a part is widened by 0.7 of its size and padded to a square with black, as the
    dataset's own loader does. A query ranks its target and its `gallery` entries (14 of them), without its
    reference. Where an entry repeats the target (one query of change_object does), the picture is ranked once.
    """
    if focus not in FOCUSES:
        raise ConfigError(f"GeneCIS has the tasks {', '.join(FOCUSES)}, got {focus!r}")
    if split not in SPLITS:
        raise ConfigError(f"GeneCIS has the split val only, got {split!r}")
    path = find_file(root, annotation_places(focus))
    boxes: dict[str, Box] = {}
    queries = tuple(_query(record, boxes) for record in read_records(path))
    named = dict.fromkeys(image for query in queries for image in (query.reference, *query.gallery))
    images = {image: _places(image) for image in named}
    options = {"crop": f"boxes widened by {DILATION}, padded to a square with black"} if boxes else {}
    return Benchmark(
        f"genecis/{focus}",
        split,
        queries,
        PROTOCOL,
        None,
        images,
        options,
        numeric_ids=focus in OBJECT_TASKS,
        crops=boxes,
    )


def dilated_crop(image: Image.Image, box: Box) -> Image.Image:
    """The part of an RGB picture in `box`, widened by `DILATION` to all sides within it, on a black square."""
    left, top, width, height = box
    left, top = max(0.0, left - DILATION * width), max(0.0, top - DILATION * height)
    right = min(image.width, left + (1 + DILATION) * width)
    bottom = min(image.height, top + (1 + DILATION) * height)
    part = image.crop((int(left), int(top), max(int(left) + 1, int(right)), max(int(top) + 1, int(bottom))))
    side = max(part.size)
    square = Image.new("RGB", (side, side))
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return square


def _places(image: str) -> tuple[str, ...]:
    number, colon, _ = image.partition(":")
    if colon:
        return tuple(in_folders(f"{int(number)}.jpg", "VG_100K", "VG_100K_2", "VG_100K_all", "images"))
    return tuple(in_folders(f"{int(number):012d}.jpg", "val2017", "images"))


def _query(record: Record, boxes: dict[str, Box]) -> Query:
    reference = _picture(record.part("reference"), boxes)
    target = _picture(record.part("target"), boxes)
    others = [_picture(entry, boxes) for entry in record.parts("gallery")]
    gallery = tuple(dict.fromkeys([target, *others]))
    if reference in gallery:
        raise record.problem(f"the reference {reference} is in the query's own gallery")
    text = record.text("condition")
    return Query(str(record.index), reference, (text,), (target,), target, gallery=gallery)


def _picture(entry: Record, boxes: dict[str, Box]) -> str:
    """The id of an entry's picture, or of the part of it that its box names."""
    if "instance_bbox" not in entry.fields:
        return entry.id("val_image_id", numeric=True)
    left, top, width, height = entry.numbers("instance_bbox", 4)
    if width <= 0 or height <= 0:
        raise entry.problem(f"'instance_bbox' should have a width and a height, got {width} and {height}")
    name = f"{entry.id('image_id', numeric=True)}:{left:g},{top:g},{width:g},{height:g}"
    boxes[name] = (left, top, width, height)
    return name
