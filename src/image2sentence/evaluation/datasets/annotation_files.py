"""Strict reading of annotation files, naming file and item in errors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from image2sentence.errors import DataError
from image2sentence.evaluation.datasets.elsewhere import advice
from image2sentence.evaluation.protocol import named, picture_number, plain_id, repeated


def find_file(root: Path | str, places: Sequence[str]) -> Path:
    """First of `places` (relative to `root`) that is a file; a DataError lists where it was looked for, and what is
    there: other versions, other splits, the file in another folder, archives.
    """
    folder = Path(root)
    for place in places:
        if (folder / place).is_file():
            return folder / place
    raise DataError(
        f"annotation file missing: looked in {folder} for {', '.join(places)}; "
        f"give the folder that holds the dataset's annotations{_what_is_there(folder, places)}{advice(folder, places)}"
    )


def _what_is_there(folder: Path, places: Sequence[str]) -> str:
    around = {(folder / place).parent for place in places}
    pattern = f"*{Path(places[0]).suffix}"
    found = sorted(file.relative_to(folder).as_posix() for one in around for file in one.glob(pattern))
    return f" (there are {named(found)})" if found else ""


def read_text(path: Path) -> str:
    """The UTF-8 text of a file."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text ({error}); download the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_json(path: Path) -> object:
    """The JSON value of a file; a key that occurs twice in one object is an error as well."""

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        twice = repeated([key for key, _ in items])
        if twice:
            raise DataError(f"{path}: duplicate key {named(twice)}")
        return dict(items)

    try:
        return json.loads(read_text(path), object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: malformed JSON ({error}); download the file again") from error


@dataclass(frozen=True)
class Record:
    """One entry of an annotation file, with the place to name when something is wrong in it."""

    path: Path
    index: int
    fields: dict[str, object]

    def problem(self, message: str) -> DataError:
        return DataError(f"{self.path}, entry {self.index}: {message}")

    def get(self, key: str) -> object:
        if key not in self.fields:
            raise self.problem(
                f"key {key!r} is missing: the file is damaged, or another split's or version's"
            )
        return self.fields[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str):
            raise self.problem(f"{key!r} should be text, got {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self._list(key)
        if not all(isinstance(value, str) for value in values):
            raise self.problem(f"{key!r} should be a list of texts, got {values!r}")
        return tuple(str(value) for value in values)

    def id(self, key: str, numeric: bool = False) -> str:
        return self._as_id(key, self.get(key), numeric)

    def ids(self, key: str, numeric: bool = False) -> tuple[str, ...]:
        ids = tuple(self._as_id(key, value, numeric) for value in self._list(key))
        if twice := repeated(ids):
            raise self.problem(f"{key!r} names {named(twice)} twice")
        return ids

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of exactly `count` finite numbers."""
        values = self._list(key)
        numeric = [float(v) for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if len(values) != count or len(numeric) != count or not all(map(math.isfinite, numeric)):
            raise self.problem(f"{key!r} should be {count} numbers, got {values!r}")
        return tuple(numeric)

    def part(self, key: str) -> Record:
        return self._record(key, self.get(key))

    def parts(self, key: str) -> tuple[Record, ...]:
        return tuple(self._record(key, value) for value in self._list(key))

    def _list(self, key: str) -> list[object]:
        value = self.get(key)
        if not isinstance(value, list):
            raise self.problem(f"{key!r} should be a list, got {value!r}")
        return value

    def _record(self, key: str, value: object) -> Record:
        if not isinstance(value, dict):
            raise self.problem(f"{key!r} should be an object, got {value!r}")
        return Record(self.path, self.index, value)

    def _as_id(self, key: str, value: object, numeric: bool) -> str:
        try:
            return picture_number(value) if numeric else plain_id(value)
        except DataError as error:
            raise self.problem(f"{key!r}: {error}") from error


def read_records(path: Path) -> tuple[Record, ...]:
    """A JSON list of objects, at least one."""
    values = read_json(path)
    if not isinstance(values, list) or not values:
        raise DataError(
            f"{path}: expected a JSON list of queries with at least one entry; download the file again"
        )
    records = []
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise DataError(f"{path}, entry {index}: expected an object, got {value!r}")
        records.append(Record(path, index, value))
    return tuple(records)


def require_unique(ids: Sequence[str], path: Path, what: str) -> None:
    """DataError when an id of `path` occurs twice."""
    if twice := repeated(ids):
        raise DataError(f"{path}: duplicate {what} {named(twice)}")


def require_known(record: Record, known: frozenset[str], ids: Sequence[str], listing: Path) -> None:
    """DataError when an entry names pictures that the split's listing does not."""
    unknown = [image for image in ids if image not in known]
    if unknown:
        raise record.problem(
            f"names {named(unknown)}, which {listing.name} does not list; the two are of different versions: "
            "download both again"
        )


def in_folders(file: str, *folders: str) -> list[str]:
    """`file` at the top and in each of `folders`: the places to look for it."""
    return [file, *(f"{folder}/{file}" for folder in folders)]
