"""Attacks by files that somebody else has made: galleries, models, tables and folders of pictures.

Each gives commands of `image2sentence`, which are run one after the other, each for a minute at most.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.server.process import resident
from image2sentence.encoders.model_folder import (
    CONFIG,
    QUERY_TEXT,
    TOKENIZER,
    bundled,
    file_checksum,
    write_sealed,
)
from image2sentence.gallery import Gallery
from image2sentence.gallery.search.faiss_index import AnnSettings
from image2sentence.gallery.sqlite.index import make_index
from image2sentence.gallery.sqlite.index_file import NAME
from tests.fakes import encoded, photo
from tests.forged_index import forge, on_disk, put

SECONDS = 60.0
"""Longest that a command goes on."""


class Cost(NamedTuple):
    """What the commands of one attack cost.

    Attributes:
        seconds: Of all together.
        memory: Peak resident memory of one of them, in MiB.
        answers: "answered", "refused" (with a message), "traceback", "killed" after `SECONDS`, or "ended" by the
            system; and their number.
    """

    seconds: float
    memory: float
    answers: Counter[str]

    def cells(self) -> tuple[str, str, str, str]:
        """Seconds, peak memory, no health, and answers as text."""
        answers = ", ".join(f"{count} × {what}" for what, count in sorted(self.answers.items()))
        return f"{self.seconds:.1f} s", f"{self.memory:.0f} MiB", "no server", answers


Attack = Callable[[Path, Path], list[list[str]]]
"""From a folder to write in and a gallery of the starter model to the options of each command."""


def wide_tables(folder: Path, gallery: Path) -> list[list[str]]:
    """A table of 60,000 columns, and workbooks that unpack to a gigabyte or are damaged."""
    pictures = _pictures(folder / "pictures")
    names = ",".join(f"c{number}" for number in range(60_000))
    (folder / "wide.csv").write_text(f"file,{names}\n0.png{',1' * 60_000}\n", encoding="utf-8")
    with zipfile.ZipFile(folder / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as book:
        book.writestr("[Content_Types].xml", "<Types/>")
        book.writestr("xl/workbook.xml", "<workbook>" + " " * (64 << 20))
        with book.open("xl/worksheets/sheet1.xml", "w", force_zip64=True) as sheet:
            for _ in range(1_024):
                sheet.write(b" " * (1 << 20))
    (folder / "damaged.xlsx").write_bytes((folder / "bomb.xlsx").read_bytes()[:-99])
    tables = ("wide.csv", "bomb.xlsx", "damaged.xlsx")
    made = folder / "made"
    return [
        ["index", str(pictures), "--gallery", str(made), "--metadata", str(folder / one)] for one in tables
    ]


def ignore_patterns(folder: Path, gallery: Path) -> list[list[str]]:
    """Patterns that a backtracking search would try for years, in an ignore file and on the command line."""
    pictures = _pictures(folder / "pictures")
    (pictures / ("a" * 200 + ".png")).write_bytes(encoded(photo(9), "PNG"))
    allowed, longer = "*a" * 7 + "*b", "*a" * 40 + "*b"
    (pictures / ".image2sentenceignore").write_text(f"{allowed}\n", encoding="utf-8")
    index = ["index", str(pictures), "--gallery", str(folder / "made")]
    return [index, [*index, "--exclude", longer]]


def devices_in_models(folder: Path, gallery: Path) -> list[list[str]]:
    """Model folders whose files are pipes and devices, which have no end."""
    if not hasattr(os, "mkfifo"):
        return []
    pipe, device, settings = (_model(folder / name) for name in ("pipe", "device", "settings"))
    (pipe / TOKENIZER).unlink()
    os.mkfifo(pipe / TOKENIZER)
    (device / QUERY_TEXT).unlink()
    (device / QUERY_TEXT).symlink_to("/dev/zero")
    (settings / CONFIG).unlink()
    (settings / CONFIG).symlink_to("/dev/zero")
    return [_search(gallery, one) for one in (pipe, device, settings)]


def hostile_tokenizers(folder: Path, gallery: Path) -> list[list[str]]:
    """Tokenizers that backtrack, make texts longer and longer, fill up without end, or panic."""
    content = json.loads((bundled() / TOKENIZER).read_text(encoding="utf-8"))
    longer = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}
    padding = {
        "strategy": {"Fixed": 2**33},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    }
    backtracking = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    changes: dict[str, dict[str, Any]] = {
        "longer": {"normalizer": {"type": "Sequence", "normalizers": [longer] * 9}},
        "padding": {"padding": padding},
        "backtracking": {"normalizer": backtracking},
        "panic": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    }
    return [
        _search(gallery, _model(folder / name, {TOKENIZER: json.dumps(content | change).encode()}))
        for name, change in changes.items()
    ]


def hostile_graphs(folder: Path, gallery: Path) -> list[list[str]]:
    """Text graphs that go round without end, or make tensors of any size."""
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> Any:
        return helper.make_tensor_value_info(name, kind, shape)

    yes = numpy_helper.from_array(np.array(True), "yes")
    many = numpy_helper.from_array(np.array([2**24, 2**12]), "many")
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Neg", ["x"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("x")],
        [value("still", TensorProto.BOOL, []), value("y")],
    )
    kinds = {
        "loop": [helper.make_node("Loop", ["", "yes", "sentence"], ["vectors"], body=body)],
        "memory": [
            helper.make_node("ConstantOfShape", ["many"], ["large"]),
            helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
            helper.make_node("Add", ["sentence", "sum"], ["vectors"]),
        ],
    }
    commands = []
    for name, nodes in kinds.items():
        given = [
            value("sentence", shape=["n", "l", None]),
            value("ids", TensorProto.INT64, ["n", "t"]),
        ]
        graph = helper.make_graph(nodes, "g", given, [value("vectors", shape=None)], [yes, many])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        commands.append(_search(gallery, _model(folder / name, {QUERY_TEXT: model.SerializeToString()})))
    return commands


def hostile_indexes(folder: Path, gallery: Path) -> list[list[str]]:
    """Index files that open another file, or state other numbers than they have."""
    commands = []
    for name, change in {
        "disk": put("index", on_disk),
        "kind": put("index", lambda data: b"IwFl" + data[4:]),
        "label": put("index", lambda data: data[:-8] + struct.pack("<q", 10**15)),
    }.items():
        copy = Path(shutil.copytree(gallery, folder / name))
        with Gallery.open(copy, readonly=False) as opened:
            make_index(opened, AnnSettings(exact_below=100, lists=16, probes=16, rerank=20))
        forge(copy / NAME, change)
        commands.append(_search(copy, bundled()))
    return commands


ATTACKS: tuple[Attack, ...] = (
    wide_tables,
    ignore_patterns,
    devices_in_models,
    hostile_tokenizers,
    hostile_graphs,
    hostile_indexes,
)


def cost_of(attack: Attack, gallery: Path, source: Path | None = None) -> Cost:
    """Run one attack's commands; `source`: the `src` folder to run."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        commands = attack(Path(name), gallery)
        done = [_run(one, source) for one in commands]
    answers = Counter(answer for _, _, answer in done)
    return Cost(
        sum(seconds for seconds, _, _ in done), max((memory for _, memory, _ in done), default=0.0), answers
    )


def _run(options: list[str], source: Path | None) -> tuple[float, float, str]:
    """Seconds, MiB and answer of one command."""
    path = {} if source is None else {"PYTHONPATH": str(source)}
    start = time.monotonic()
    with tempfile.TemporaryFile() as told:
        command = [sys.executable, "-m", "image2sentence", *options]
        process = subprocess.Popen(command, env=os.environ | path, stdout=subprocess.DEVNULL, stderr=told)
        memory, end = 0.0, start + SECONDS
        while process.poll() is None:
            memory = max(memory, resident(process.pid))
            if time.monotonic() > end:
                process.kill()
            time.sleep(0.02)
        seconds = time.monotonic() - start
        told.seek(0)
        failed = b"Traceback" in told.read()
    if process.returncode < 0:
        answer = "killed" if seconds > SECONDS else "ended"
    else:
        answer = "traceback" if failed else "refused" if process.returncode else "answered"
    return seconds, memory, answer


def _search(gallery: Path, model: Path) -> list[str]:
    return ["search", "a" * 60, "--gallery", str(gallery), "--model", str(model)]


def _pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(encoded(photo(0), "PNG"))
    return folder


def _model(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """The starter model with other files in it, whose checksums are right."""
    shutil.copytree(bundled(), folder, ignore=shutil.ignore_patterns("vl", "*.safetensors"))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config.pop("checksum", None)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
        config["files"][name] = file_checksum(folder / name)
    write_sealed(folder / CONFIG, config)
    return folder
