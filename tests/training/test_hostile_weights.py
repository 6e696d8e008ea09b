"""Files of weights whose headers state what is not there: refused by name, in little time and memory."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="training needs torch")

from image2sentence.errors import ModelError
from image2sentence.training.checkpoint import load_tensors


def header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def file_of(head: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(head) if length is None else length) + head + data


def tensor(shape: list[int], *places: int, kind: str = "F32") -> dict[str, Any]:
    return {"dtype": kind, "shape": shape, "data_offsets": list(places)}


TWICE = b'{"a": %b, "a": %b}' % (header(**tensor([1], 0, 4)), header(**tensor([1], 4, 8)))
HOSTILE = {
    "a header without end": file_of(b"{}", length=2**60),
    "a header below none": file_of(b"{}", length=2**64 - 1),
    "nothing": b"",
    "cut short": struct.pack("<Q", 80) + b"{",
    "overlapping": file_of(header(a=tensor([2], 0, 8), b=tensor([2], 4, 12)), bytes(12)),
    "a gap": file_of(header(a=tensor([1], 4, 8)), bytes(8)),
    "a shape that overflows": file_of(header(a=tensor([2**32, 2**32, 2**32], 0, 4)), bytes(4)),
    "a shape without data": file_of(header(a=tensor([2**40], 0, 4)), bytes(4)),
    "places without data": file_of(header(a=tensor([2**40], 0, 2**42)), bytes(4)),
    "places backwards": file_of(header(a=tensor([1], 8, 4)), bytes(8)),
    "nested deeply": file_of(b'{"a": ' + b"[" * 100_000),
    "a name twice": file_of(
        b'{"a": %b, "a": %b}' % (header(**tensor([1], 0, 4)), header(**tensor([1], 4, 8))), bytes(8)
    ),
    "another type": file_of(header(a=tensor([1], 0, 4, kind="PICKLE")), bytes(4)),
    "no JSON": file_of(b"\x80\x04."),
    "a record nested deeply": file_of(header(__metadata__={"record": "[" * 100_000})),
    "a number of any length": file_of(header(__metadata__={"record": "9" * 100_000})),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_weights_are_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(HOSTILE[what])
    with pytest.raises(ModelError, match=r"state\.safetensors is not a readable safetensors file"):
        load_tensors(path)
