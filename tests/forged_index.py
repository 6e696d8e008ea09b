"""Index files of galleries, changed by somebody who makes the checksums right."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[dict[str, Any], dict[str, bytes]], None]
"""Changes the header, and the sections by name."""


def on_disk(data: bytes) -> bytes:
    """Inverted lists that lie in a file of this machine."""
    at = data.find(b"ilar") + 4
    lists, size = struct.unpack("<QQ", data[at : at + 16])
    places = struct.pack("<QQQ", 1, 1, 0) * lists
    name = b"/etc/passwd"
    front = struct.pack("<QQQ", lists, size, lists)
    return data[: at - 4] + b"ilod" + front + places + struct.pack("<QQ", 0, len(name)) + name + bytes(8)


def forge(file: Path, change: Change) -> None:
    """Change the header and the sections, with checksums that are right."""
    data = file.read_bytes()
    end = 56 + int.from_bytes(data[16:24], "little")
    header = json.loads(data[56:end])
    places = header["sections"]
    sections = {
        name: data[end + one["start"] : end + one["start"] + one["bytes"]] for name, one in places.items()
    }
    change(header, sections)
    start = 0
    for name, content in sections.items():
        places[name] = {
            "start": start,
            "bytes": len(content),
            "sha256": [hashlib.sha256(content).hexdigest()],
        }
        start += -(-len(content) // 64) * 64
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 56) % 64)
    body = b"".join(content + bytes(-len(content) % 64) for content in sections.values())
    file.write_bytes(data[:16] + struct.pack("<Q", len(text)) + hashlib.sha256(text).digest() + text + body)


def set_all(where: str | None, **values: object) -> Change:
    return lambda header, _: (header if where is None else header[where]).update(values)


def put(name: str, change: Callable[[bytes], bytes]) -> Change:
    return lambda _, sections: sections.update({name: change(sections[name])})
