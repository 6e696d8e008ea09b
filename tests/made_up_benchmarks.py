"""Public benchmarks in the layouts of their downloads, with made-up pictures, and annotations of both kinds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fakes import photo

COLOURS = ("red", "green", "blue", "white", "black", "purple", "orange", "yellow")


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo(seed).save(path)


def make_cirr(root: Path, split: str = "val", count: int = 60) -> Path:
    """CIRR in the layout of its repository: some pairs, pictures named as NLVR2 names them."""
    names = [f"dev-{number}-0-img{number % 2}" for number in range(count)]
    write(root / "image_splits" / f"split.rc2.{split}.json", {name: f"./dev/{name}.png" for name in names})
    pairs = [
        {
            "pairid": number,
            "reference": names[number],
            "caption": f"make it {COLOURS[number % 8]}",
            "img_set": {"id": number, "members": names[number : number + 6]},
        }
        | ({"target_hard": names[number + 1]} if split == "val" else {})
        for number in range(12)
    ]
    write(root / "captions" / f"cap.rc2.{split}.json", pairs)
    for number, name in enumerate(names):
        draw(root / "dev" / f"{name}.png", number)
    return root


def make_fashioniq(root: Path) -> Path:
    for start, category in enumerate(("dress", "shirt", "toptee")):
        names = [f"B{start}{number:04d}" for number in range(8)]
        write(root / "image_splits" / f"split.{category}.val.json", names)
        pairs = [
            {
                "candidate": names[number],
                "target": names[number + 1],
                "captions": [f"is {COLOURS[number]}", "is long"],
            }
            for number in range(6)
        ]
        write(root / "captions" / f"cap.{category}.val.json", pairs)
        for number, name in enumerate(names):
            draw(root / "images" / f"{name}.png", 100 * start + number)
    return root


def make_circo(root: Path, split: str = "val", listed: bool = True) -> Path:
    queries = [
        {
            "id": number,
            "reference_img_id": number,
            "relative_caption": f"is {COLOURS[number]}",
            "shared_concept": "a thing",
        }
        | (
            {
                "target_img_id": number + 1,
                "gt_img_ids": [number + 1, number + 2],
                "semantic_aspects": [("negation", "addition")[number % 2]],
            }
            if split == "val"
            else {}
        )
        for number in range(8)
    ]
    write(root / "annotations" / f"{split}.json", queries)
    if listed:
        images = [{"id": number} for number in range(56)]
        write(root / "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", {"images": images})
    for number in range(56):
        draw(root / "COCO2017_unlabeled" / "unlabeled2017" / f"{number:012d}.jpg", number)
    return root


def make_genecis(root: Path) -> Path:
    entries = [
        {
            "condition": COLOURS[number],
            "reference": {"val_image_id": number},
            "target": {"val_image_id": number + 10},
            "gallery": [{"val_image_id": 20 + (number + step) % 10} for step in range(5)],
        }
        for number in range(8)
    ]
    parts = [
        {
            "condition": COLOURS[number],
            "reference": {"image_id": 7, "instance_bbox": [0, 0, 10, 10]},
            "target": {"image_id": 7, "instance_bbox": [number, 5, 20, 10]},
            "gallery": [{"image_id": 8, "instance_bbox": [step, step, 8, 12]} for step in range(5)],
        }
        for number in range(1, 7)
    ]
    for task in ("focus_object", "change_object"):
        write(root / "genecis" / f"{task}.json", entries)
    for task in ("focus_attribute", "change_attribute"):
        write(root / "genecis" / f"{task}.json", parts)
    for number in range(30):
        draw(root / "val2017" / f"{number:012d}.jpg", number)
    draw(root / "VG_100K" / "7.jpg", 7)
    draw(root / "VG_100K_2" / "8.jpg", 8)
    return root


def make_domains(root: Path) -> Path:
    lines, targets = [], []
    for label in range(3):
        lines.append(f"imgnet/real/n{label}/a.JPEG {label} ")
        draw(root / "imgnet" / "real" / f"n{label}" / "a.JPEG", label)
        for position, domain in enumerate(("cartoon", "origami", "toy", "sculpture")):
            place = f"imgnet/imagenet-r/n{label}/{domain}_0.jpg"
            targets.append(f"{place} {label + 1000 * position} ")
            draw(root / place, 50 + 10 * label + position)
    write(root / "imgnet_real_query.txt", "\n".join(lines) + "\n")
    write(root / "imgnet_targets.txt", "\n".join(targets) + "\n")
    return root


# The real annotations, with noise in place of their pictures


def lay_out(name: str, annotations: Path, root: Path, split: str = "val") -> Path:
    """A download of `name` as its sources have it: real annotations, links to a few made-up pictures."""
    files = {"cirr": _cirr, "fashioniq": _fashioniq, "circo": _circo, "genecis": _genecis}
    pictures = files.get(name, _domains)(annotations, root, split)
    noise = [root / "noise" / f"{number}.png" for number in range(60)]
    for number, file in enumerate(noise):
        draw(file, number)
    for number, picture in enumerate(sorted(pictures)):
        (root / picture).parent.mkdir(parents=True, exist_ok=True)
        (root / picture).hardlink_to(noise[number % len(noise)])
    return root


def _copy(source: Path, place: Path) -> Any:
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, place)
    return json.loads(place.read_text(encoding="utf-8")) if place.suffix == ".json" else None


def _cirr(annotations: Path, root: Path, split: str) -> set[str]:
    _copy(annotations / f"cirr/cap.rc2.{split}.json", root / f"captions/cap.rc2.{split}.json")
    listing = f"split.rc2.{split}.json"
    return set(_copy(annotations / "cirr" / listing, root / "image_splits" / listing).values())


def _fashioniq(annotations: Path, root: Path, split: str) -> set[str]:
    pictures: set[str] = set()
    for category in ("dress", "shirt", "toptee"):
        _copy(
            annotations / f"fashioniq/cap.{category}.{split}.json",
            root / f"captions/cap.{category}.{split}.json",
        )
        listing = f"split.{category}.{split}.json"
        names = _copy(annotations / "fashioniq" / listing, root / "image_splits" / listing)
        pictures |= {f"images/{picture}.png" for picture in names}
    return pictures


def _circo(annotations: Path, root: Path, split: str) -> set[str]:
    queries = _copy(annotations / f"circo/{split}.json", root / f"annotations/{split}.json")
    numbers = {query["reference_img_id"] for query in queries}
    numbers |= {number for query in queries for number in query.get("gt_img_ids", ())}
    return {f"COCO2017_unlabeled/unlabeled2017/{number:012d}.jpg" for number in numbers}


def _genecis(annotations: Path, root: Path, split: str) -> set[str]:
    numbers: set[int] = set()
    for task in ("focus_object", "change_object"):
        for query in _copy(annotations / f"genecis/{task}.json", root / f"genecis/{task}.json"):
            shown = [query["reference"], query["target"], *query["gallery"]]
            numbers |= {picture["val_image_id"] for picture in shown}
    return {f"val2017/{number:012d}.jpg" for number in numbers}


def _domains(annotations: Path, root: Path, split: str) -> set[str]:
    pictures: set[str] = set()
    for listing in ("imgnet_real_query.txt", "imgnet_targets.txt"):
        _copy(annotations / "pic2word" / listing, root / listing)
        pictures |= {line.split()[0] for line in (root / listing).read_text(encoding="utf-8").splitlines()}
    return pictures
