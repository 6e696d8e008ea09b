"""Vector files of other programs: Parquet, or a folder with npy.

`docs/formats.md` describes both. They hold the same: a row for each picture with its path, vector and metadata, and
what vector space the vectors are of. Only `file` and `vector` must be there.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from image2sentence.encoders.protocols import Vectors
from image2sentence.errors import DataError
from image2sentence.gallery.files.metadata import batch_rows, import_parquet, is_path, parse_line
from image2sentence.gallery.filters.language import ColumnType, Value, canonical_date
from image2sentence.gallery.metadata import checked_value, is_new_column
from image2sentence.images import display_path, printable

VECTORS, PICTURES, ABOUT = "vectors.npy", "pictures.jsonl", "about.json"
"""The files of a folder of vectors."""

FORMAT = 1

PARQUET = ".parquet"

_KEY = b"image2sentence"
_ROW_BATCH = 1_024
_SHA256 = 32


@dataclass(frozen=True)
class About:
    """What vectors are: their width, the space they are of (None: not said), and the types of the metadata."""

    width: int
    fingerprint: str | None = None
    columns: Mapping[str, ColumnType] = field(default_factory=dict)

    def as_json(self) -> str:
        """As both formats keep it."""
        return json.dumps(
            {"format": FORMAT, "fingerprint": self.fingerprint, "width": self.width, "columns": self.columns}
        )


@dataclass(frozen=True)
class VectorRow:
    """A picture in a file of vectors: path below its root, the root, SHA-256, size in pixels, metadata."""

    file: str
    root: str | None = None
    sha256: bytes | None = None
    width: int | None = None
    height: int | None = None
    values: Mapping[str, Value] = field(default_factory=dict)


Block = tuple[list[VectorRow], Vectors]
"""Some rows, and their (n, d) vectors as they were stored, as float32."""


class VectorFile(Protocol):
    """Vectors that have been written by someone."""

    @property
    def path(self) -> Path:
        """Where they are."""
        ...

    @property
    def about(self) -> About:
        """What they are."""
        ...

    def __len__(self) -> int: ...

    def blocks(self) -> Iterator[Block]:
        """All rows, some at a time. Raises DataError, naming the row."""
        ...


def open_vectors(path: Path) -> VectorFile:
    """A `.parquet` file, or a folder with `vectors.npy` and `pictures.jsonl`.

    Raises:
        DataError: it is missing, damaged, or not one of these.
    """
    with _reading(path):
        return ParquetVectors(path) if path.suffix.lower() == PARQUET else NpyVectors(path)


def write_vectors(path: Path, about: About, blocks: Iterable[Block]) -> None:
    """Write vectors in the format that the name says; they appear under it complete or not at all.

    Raises:
        DataError: something is there already, it cannot be written, or pyarrow is missing.
    """
    if os.path.lexists(path):
        raise DataError(f"{display_path(path)} is there already: choose another name, or remove it")
    write = _write_parquet if path.suffix.lower() == PARQUET else _write_npy
    try:
        # Beside the target, so that it is on the same disk; the name is cut, because names have at most 255 bytes.
        with tempfile.TemporaryDirectory(
            prefix=f"{path.name[:50]}.new-", dir=path.parent, ignore_cleanup_errors=True
        ) as folder:
            unfinished = Path(folder, path.name)
            write(unfinished, about, blocks)
            os.replace(unfinished, path)
    except OSError as error:
        raise DataError(
            f"cannot write {display_path(path)} ({error.strerror}): make room or choose another place"
        ) from error


class NpyVectors:
    """A folder of vectors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._vectors = np.lib.format.open_memmap(path / VECTORS, mode="r")
        if self._vectors.ndim != 2 or self._vectors.dtype.kind != "f":
            raise DataError(
                f"{display_path(path / VECTORS)}: expected floating point numbers of shape (pictures, width), got "
                f"{self._vectors.dtype} of shape {self._vectors.shape}"
            )
        file = path / ABOUT
        header = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.about = _as_about(file, header, int(self._vectors.shape[1]))

    def __len__(self) -> int:
        return len(self._vectors)

    def blocks(self) -> Iterator[Block]:
        """All rows, some at a time. Raises DataError, naming the row."""
        start = 0
        for rows in _in_blocks(self._rows()):
            vectors = np.asarray(self._vectors[start : start + len(rows)], np.float32)
            if len(vectors) < len(rows):
                raise self._differ("more than", start + len(rows))
            yield rows, vectors
            start += len(rows)
        if start < len(self):
            raise self._differ("only", start)

    def _rows(self) -> Iterator[VectorRow]:
        file = self.path / PICTURES
        with _reading(file), file.open(encoding="utf-8") as stream:
            for line, text in enumerate(stream, 1):
                cells = parse_line(file, line, text)
                yield _as_row(f"{display_path(file)}, line {line}", cells, self.about.columns)

    def _differ(self, how: str, lines: int) -> DataError:
        return DataError(
            f"{display_path(self.path)}: {VECTORS} has {len(self):,} vectors, {PICTURES} {how} {lines:,} lines: "
            "expected one line for each"
        )


class ParquetVectors:
    """A Parquet file with columns `file` and `vector`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._module = import_parquet("a Parquet file")
        with self._opened() as file:
            self._count = file.metadata.num_rows
            schema = file.schema_arrow
            header = json.loads((schema.metadata or {}).get(_KEY, b"{}"))
            missing = {"file", "vector"} - set(schema.names)
            if missing:
                raise DataError(
                    f"{display_path(path)}: expected the columns `file` and `vector`; it has "
                    f"{', '.join(map(printable, schema.names[:20]))}"
                )
            kind = schema.field("vector").type
            if not _is_list(kind):
                raise DataError(f"{display_path(path)}: expected lists of numbers as `vector`, got {kind}")
            self._columns = [name for name in _COLUMNS if name in schema.names]
            first = next(file.iter_batches(1, columns=["vector"]), None)
            width = len(first["vector"][0].as_py() or []) if first else 0
        self.about = _as_about(path, header, width)

    def __len__(self) -> int:
        return int(self._count)

    def blocks(self) -> Iterator[Block]:
        """All rows, some at a time. Raises DataError, naming the row."""
        line = 0
        with self._opened() as file:
            for batch in file.iter_batches(_ROW_BATCH, columns=self._columns):
                named = [name for name in self._columns if name != "vector"]
                rows = [
                    _as_row(f"{display_path(self.path)}, row {line + place}", cells, self.about.columns)
                    for place, cells in enumerate(batch_rows(self.path, batch.select(named), line), 1)
                ]
                yield rows, self._vectors_of(batch["vector"], line)
                line += len(rows)

    def _vectors_of(self, column: Any, line: int) -> Vectors:
        lengths = np.asarray([-1 if length is None else length for length in _list_lengths(column)], np.int64)
        wrong = np.flatnonzero(lengths != self.about.width)
        if len(wrong):
            raise DataError(
                f"{display_path(self.path)}, row {line + wrong[0] + 1}: expected a vector of "
                f"{self.about.width} numbers, got {max(lengths[wrong[0]], 0)}"
            )
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if flat.dtype.kind != "f":
            raise DataError(
                f"{display_path(self.path)}: expected `vector` to be a list of floating point numbers"
            )
        vectors: Vectors = flat.reshape(-1, self.about.width).astype(np.float32)
        return vectors

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import pyarrow

        try:
            with self._module.ParquetFile(self.path) as file:
                yield file
        except pyarrow.ArrowException as error:
            raise DataError(
                f"{display_path(self.path)} is not a Parquet file that can be read: {error}"
            ) from error


_COLUMNS = ("file", "root", "sha256", "width", "height", "metadata", "vector")


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _list_lengths(column: Any) -> Iterable[int | None]:
    import pyarrow.compute

    lengths: list[int | None] = pyarrow.compute.list_value_length(column).to_pylist()
    return lengths


def _as_about(file: Path, header: Any, width: int) -> About:
    known = {"format", "fingerprint", "width", "columns"}
    if (
        not isinstance(header, dict)
        or (header and header.get("format") != FORMAT)
        or not header.keys() <= known
    ):
        raise DataError(
            f"{display_path(file)}: expected vectors of format {FORMAT}, got "
            f"{printable(str(header.get('format') if isinstance(header, dict) else header))[:60]}"
        )
    columns, fingerprint = header.get("columns", {}), header.get("fingerprint")
    if not isinstance(columns, dict) or not isinstance(fingerprint, str | None):
        raise DataError(f"{display_path(file)}: `columns` or `fingerprint` is damaged")
    if header.get("width", width) != width:
        raise DataError(
            f"{display_path(file)}: expected vectors of width {header['width']!r:.80}, got {width}"
        )
    return About(width, fingerprint, _as_columns(display_path(file), columns))


def _as_columns(where: str, declared: Mapping[str, Any]) -> dict[str, ColumnType]:
    types, columns = get_args(ColumnType), dict[str, ColumnType]()
    for name, kind in declared.items():
        if kind not in types:
            raise DataError(
                f"{where}: expected {', '.join(types)} as the type of the column {printable(name)!r}, "
                f"got {kind!r:.80}"
            )
        try:
            is_new_column(columns, name, kind)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        columns[name] = kind
    return columns


def _as_row(where: str, cells: Any, columns: Mapping[str, ColumnType]) -> VectorRow:
    file = cells.get("file") if isinstance(cells, dict) else None
    if not isinstance(file, str) or not is_path(file):
        raise DataError(f"{where}: expected the path of a picture as `file`, got {file!r:.80}")
    root, sha256, metadata = cells.get("root"), cells.get("sha256"), cells.get("metadata") or {}
    try:
        hashed = bytes.fromhex(sha256) if isinstance(sha256, str) else sha256
    except ValueError:
        hashed = b""
    if not (root is None or (isinstance(root, str) and is_path(root))):
        raise DataError(f"{where}: expected the path of a folder as `root`, got {root!r:.80}")
    if not (hashed is None or (isinstance(hashed, bytes) and len(hashed) == _SHA256)):
        raise DataError(f"{where}: expected {2 * _SHA256} hexadecimal digits as `sha256`, got {sha256!r:.80}")
    if not isinstance(metadata, dict):
        raise DataError(f"{where}: expected an object as `metadata`, got {metadata!r:.80}")
    values = {
        name: _as_value(where, name, columns.get(name), value)
        for name, value in metadata.items()
        if value is not None
    }
    return VectorRow(file, root, hashed, cells.get("width"), cells.get("height"), values)


def _as_value(where: str, name: str, kind: ColumnType | None, value: Any) -> Value:
    if kind is None:
        raise DataError(f"{where}: the type of the metadata {printable(name)!r} is not said")
    if kind != "date":
        try:
            checked_value(name, kind, value)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        return value  # type: ignore[no-any-return]
    given = value.isoformat() if isinstance(value, date) else value
    kept = canonical_date(given) if isinstance(given, str) else None
    if kept is None:
        raise DataError(f"{where}: expected a date in {printable(name)!r}, got {value!r:.80}")
    return kept


def _as_cells(row: VectorRow) -> dict[str, Any]:
    sha256 = None if row.sha256 is None else row.sha256.hex()
    return {
        "file": row.file,
        "root": row.root,
        "sha256": sha256,
        "width": row.width,
        "height": row.height,
        "metadata": dict(row.values),
    }


def _write_npy(folder: Path, about: About, blocks: Iterable[Block]) -> None:
    folder.mkdir()
    count = 0
    with (folder / VECTORS).open("wb") as vectors, (folder / PICTURES).open("w", encoding="utf-8") as names:
        _npy_header(vectors, 0, about.width)
        for rows, block in blocks:
            vectors.write(np.ascontiguousarray(block, "<f4").tobytes())
            names.writelines(json.dumps(_as_cells(row)) + "\n" for row in rows)
            count += len(rows)
        vectors.seek(0)
        _npy_header(vectors, count, about.width)
    (folder / ABOUT).write_text(about.as_json() + "\n", encoding="utf-8")


def _npy_header(stream: Any, count: int, width: int) -> None:
    """The header of NumPy's format, which leaves room for any count."""
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
    )


def _write_parquet(file: Path, about: About, blocks: Iterable[Block]) -> None:
    parquet = import_parquet("a Parquet file")
    import pyarrow

    schema = _schema(about)
    try:
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for rows, block in blocks:
                cells = [_as_cells(row) for row in rows]
                columns = {name: [cell[name] for cell in cells] for name in schema.names if name != "vector"}
                flat = pyarrow.array(np.ascontiguousarray(block, np.float32).reshape(-1))
                columns["vector"] = pyarrow.FixedSizeListArray.from_arrays(flat, about.width)
                if "metadata" in columns:
                    columns["metadata"] = _metadata_array(columns["metadata"], schema.field("metadata").type)
                writer.write_table(pyarrow.table(columns, schema=schema))
    except UnicodeEncodeError as error:
        raise DataError(
            f"the name {printable(error.object)!r} is not UTF-8, which Parquet needs: export into a folder instead"
        ) from error
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"a value does not fit Parquet ({error}): export into a folder instead") from error


def _schema(about: About) -> Any:
    import pyarrow

    text, pixels = pyarrow.string(), pyarrow.int32()
    kinds = {
        "number": pyarrow.float64(),
        "text": text,
        "boolean": pyarrow.bool_(),
        "date": pyarrow.timestamp("s"),
    }
    fields = [("file", text), ("root", text), ("sha256", text), ("width", pixels), ("height", pixels)]
    if about.columns:
        fields.append(("metadata", pyarrow.struct([(n, kinds[kind]) for n, kind in about.columns.items()])))
    vector = ("vector", pyarrow.list_(pyarrow.float32(), about.width))
    return pyarrow.schema([*fields, vector], metadata={_KEY: about.as_json()})


def _metadata_array(values: Sequence[Mapping[str, Value]], kind: Any) -> Any:
    import pyarrow

    fields = [kind.field(place) for place in range(kind.num_fields)]
    columns = [
        pyarrow.array([value.get(one.name) for value in values], _plain(one.type)).cast(one.type)
        for one in fields
    ]
    return pyarrow.StructArray.from_arrays(columns, fields=fields)


def _plain(kind: Any) -> Any:
    """Dates are text in the gallery."""
    import pyarrow

    return pyarrow.string() if pyarrow.types.is_timestamp(kind) else kind


def _in_blocks(rows: Iterable[VectorRow]) -> Iterator[list[VectorRow]]:
    block: list[VectorRow] = []
    for row in rows:
        block.append(row)
        if len(block) == _ROW_BATCH:
            yield block
            block = []
    if block:
        yield block


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, RecursionError) as error:
        raise DataError(
            f"{display_path(path)} cannot be read as vectors ({printable(str(error))[:200]}): expected a .parquet "
            f"file, or a folder with {VECTORS} and {PICTURES}"
        ) from error


def check_unit(where: str, rows: Sequence[VectorRow], vectors: Vectors) -> NDArray[np.float32]:
    """The vectors scaled to length 1; those that are within rounding of it stay as they are. Raises DataError."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(wrong):
        raise DataError(f"{where}: the vector of {printable(rows[wrong[0]].file)!r} is zero or not finite")
    off = np.abs(lengths - 1) > 1e-5
    scaled = np.array(vectors, np.float32)
    scaled[off] = vectors[off] / lengths[off, None]
    return scaled
