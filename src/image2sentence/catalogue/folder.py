"""Folder of a drawn catalogue: pictures, attribute table, and its record."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from image2sentence.catalogue.attributes import ATTRIBUTES, Product, sample, title
from image2sentence.catalogue.draw import check_size, draw
from image2sentence.errors import ConfigError, DataError

VERSION = 1
COLUMNS = ("file", *ATTRIBUTES, "title")
RECORD = "catalogue.json"
TABLE = "attributes.csv"

_QUALITY = 90


def write_catalogue(
    out: Path, count: int, seed: int, size: int = 256, progress: Callable[[int], None] | None = None
) -> Path:
    """Draws `count` products to OUT/images, and writes their attributes to OUT/attributes.csv; returns OUT.

    The same count, seed and size (pixels a side) give the same bytes, and the first n products are the same
    for every count, so an unfinished or smaller catalogue is continued: its pictures are kept. The table is
    written last, in one step, so every picture that it names is complete. `progress` is called after each
    picture with the number there are.

    Raises ConfigError on an impossible count or size, and DataError where the folder holds anything else
    (another seed or size, a larger catalogue, other files), or where it cannot be written.
    """
    if count < 1:
        raise ConfigError(f"a catalogue has at least 1 picture, not {count}")
    check_size(size)
    try:
        _claim(out, count, seed, size)
        rows = _write_pictures(out, count, seed, size, progress)
        _replace(out / TABLE, _table(rows))
    except OSError as error:
        raise DataError(
            f"could not write the catalogue to {out}: {error.strerror or error}. Free space or choose another"
            " folder, then run the same command again: finished pictures are kept."
        ) from error
    return out


def products(count: int, seed: int) -> list[Product]:
    """The first `count` products of the catalogue with this seed."""
    rng = random.Random(f"catalogue/{seed}")
    return [sample(rng) for _ in range(count)]


def picture_name(number: int) -> str:
    """The path inside the catalogue of picture `number`, counted from 1."""
    return f"images/{number:05d}.jpg"


def _claim(out: Path, count: int, seed: int, size: int) -> None:
    """Records in the folder what is being drawn; refuses a folder that holds something else."""
    wanted = {"version": VERSION, "seed": seed, "size": size}
    record = out / RECORD
    if record.exists():
        _check_record(record, wanted, count)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is no drawn catalogue (it has no {RECORD}); choose a new or an empty folder")
    (out / "images").mkdir(parents=True, exist_ok=True)
    _replace(record, (json.dumps({**wanted, "count": count}, indent=2) + "\n").encode())


def _check_record(record: Path, wanted: dict[str, int], count: int) -> None:
    """Refuses the record of another catalogue than the wanted one, or of a larger one."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{record} is damaged ({error}); delete the folder or choose another one") from error
    if not isinstance(found, dict) or {name: found.get(name) for name in wanted} != wanted:
        raise DataError(
            f"{record.parent} holds another catalogue ({found}), not the wanted one ({wanted}); "
            "choose another folder, or delete this one"
        )
    begun = found.get("count")
    if not isinstance(begun, int) or begun > count:
        raise DataError(
            f"{record.parent} was begun with count {begun}, which cannot shrink to {count}; "
            "ask for at least as many pictures, or choose another folder"
        )


def _write_pictures(
    out: Path, count: int, seed: int, size: int, progress: Callable[[int], None] | None
) -> list[list[str]]:
    rows = []
    for number, product in enumerate(products(count, seed), start=1):
        name = picture_name(number)
        if not _is_complete(out / name):
            _replace(out / name, _jpeg(product, size))
        rows.append([name, *(str(getattr(product, attribute)) for attribute in ATTRIBUTES), title(product)])
        if progress is not None:
            progress(number)
    return rows


def _is_complete(picture: Path) -> bool:
    """Whether a JPEG file is there to its last byte; a crash of the machine can leave one empty or cut."""
    if not picture.exists():
        return False
    with picture.open("rb") as file:
        file.seek(max(0, picture.stat().st_size - 2))
        return file.read() == b"\xff\xd9"


def _jpeg(product: Product, size: int) -> bytes:
    buffer = io.BytesIO()
    draw(product, size).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def _table(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _replace(path: Path, content: bytes) -> None:
    """Writes a file in one step: whoever looks sees the old one, or all of the new one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
