"""Changes the source a little, one place at a time, and counts the changes that its tests do not notice.

    python -m tests.stress.mutations query|metrics|losses|admission [--count 60] [--seed 1] [--again OUTPUT]

The changes are those of cosmic-ray (`pip install cosmic-ray`), which itself starts pytest anew for each. Here each is
tested in a fork of one process that has the large libraries loaded, on a compiled copy of the source, in a few times
the processor time that the source as it is takes. Prints the changes that survive, as differences, and their share.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import difflib
import importlib
import math
import os
import random
import resource
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[2]
SLOWEST = 600
"""Processor seconds of the tests on the source as it is."""
PATIENCE = 3
"""A change that takes so many times as long, as an endless loop does, is noticed."""
OPTIONS = ("-x", "-q", "--no-header", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


@dataclass(frozen=True)
class Part:
    """Files to change, the tests that should notice, and what is loaded before forking."""

    files: str
    tests: tuple[str, ...]
    libraries: tuple[str, ...]


QUERY_TESTS = (
    "hints",
    "diversity",
    "negatives",
    "score_statistics",
    "composition",
    "candidates",
    "text_matches",
    "query",
    "rerank",
    "mixed_batches",
    "picture_rows",
    "unknown_words",
)
"""The quick ones first; neither photographs nor further processes."""

PARTS = {
    "query": Part(
        "query/*.py",
        tuple(f"tests/query/test_{one}.py" for one in QUERY_TESTS),
        ("numpy", "onnxruntime", "PIL.Image", "tokenizers"),
    ),
    "metrics": Part("evaluation/metrics.py", ("tests/evaluation/test_metrics.py",), ("numpy", "PIL.Image")),
    "losses": Part(
        "training/losses.py", ("tests/training/test_losses.py",), ("numpy", "torch", "transformers")
    ),
    "admission": Part("server/admission.py", ("tests/server/test_admission.py",), ("numpy", "fastapi")),
}


def changed_sources(files: list[Path], count: int, seed: int) -> list[tuple[Path, str]]:
    """`count` changed sources, drawn by the seed among those that are other programs."""
    from cosmic_ray.commands.init import _all_work_items
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    items = list(_all_work_items(files, {}))
    random.Random(seed).shuffle(items)
    drawn: dict[tuple[Path, str], None] = {}
    for item in items:
        (one,) = item.mutations
        source = Path(one.module_path).read_text()
        operator = get_operator(one.operator_name)(**one.operator_args)
        changed = mutate_code(source, operator, one.occurrence)
        if changed is not None and _program(changed) not in (None, _program(source)):
            drawn[Path(one.module_path), changed] = None
        if len(drawn) >= count:
            break
    return list(drawn)


class _Bare(ast.NodeTransformer):
    """Takes annotations away, which are never evaluated here."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _program(source: str) -> str | None:
    try:
        return ast.dump(_Bare().visit(ast.parse(source)))
    except SyntaxError:
        return None


def passes(folder: Path, tests: tuple[str, ...], limit: int) -> bool:
    """Whether the tests pass on the copy in a folder, in a process of their own with so many processor seconds."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        sys.path.insert(0, str(folder))
        import pytest

        os._exit(int(pytest.main([*OPTIONS, *(str(HOME / one) for one in tests)])))
    return os.waitpid(child, 0)[1] == 0


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--again", type=Path, help="only what survives in an earlier output")
    asked = parser.parse_args()
    part = PARTS[asked.part]
    sources = HOME / "src"
    files = sorted((sources / "image2sentence").glob(part.files))
    changes = changed_sources(files, sys.maxsize if asked.again else asked.count, asked.seed)
    if asked.again:
        before = asked.again.read_text()
        changes = [one for one in changes if _difference(sources, *one) in before]
    os.environ["OMP_NUM_THREADS"] = "1"
    sys.dont_write_bytecode = True
    for name in ("pytest", *part.libraries):
        importlib.import_module(name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "src")
        shutil.copytree(sources, folder)
        compileall.compile_dir(folder, quiet=1)
        os.environ["PYTHONPATH"] = str(folder)
        if not passes(folder, part.tests, SLOWEST):
            raise SystemExit("the tests fail on the source as it is")
        limit = 1 + math.ceil(PATIENCE * resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)
        survived = sum(_survives(folder, sources, part, limit, *change) for change in changes)
    print(
        f"{asked.part}: {survived} of {len(changes)} changes survive ({survived / max(1, len(changes)):.0%})"
    )


def _difference(sources: Path, file: Path, changed: str) -> str:
    name, source = str(file.relative_to(sources)), file.read_text()
    return "\n".join(
        difflib.unified_diff(source.splitlines(), changed.splitlines(), name, name, n=1, lineterm="")
    )


def _survives(folder: Path, sources: Path, part: Part, limit: int, file: Path, changed: str) -> bool:
    place = folder / file.relative_to(sources)
    source = file.read_text()
    for compiled in (place.parent / "__pycache__").glob(f"{place.stem}.*"):
        compiled.unlink()
    place.write_text(changed)
    passed = passes(folder, part.tests, limit)
    place.write_text(source)
    if passed:
        print(_difference(sources, file, changed), flush=True)
    return passed


if __name__ == "__main__":
    main()
