"""The import contract: packages in layers, no circles, and no training in what runs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = "image2sentence"
SOURCE = Path(__file__).resolve().parents[1] / "src"

LAYERS = (
    ("errors",),
    ("strict_json", "lru_cache", "images"),
    ("encoders",),
    ("hub", "gallery", "visualize", "catalogue"),
    ("indexing", "query"),
    ("evaluation",),
    ("server", "training"),
    ("cli",),
    ("__main__",),
)
"""Packages import at their top what stands above them in this list; those of one line do not import each other."""

MAX_LINES = 480

MAY_TRAIN = {"training", "cli"}
"""Who may import training; the command line within its commands only."""

Graph = Mapping[str, set[str]]


def modules(source: Path, package: str) -> dict[str, ast.Module]:
    """Every module below a folder by its dotted name, read."""
    found = {}
    for file in (source / package).rglob("*.py"):
        parts = file.relative_to(source).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(file.read_text(encoding="utf-8"))
    return found


def statements(tree: ast.AST, inner: bool) -> Iterator[ast.AST]:
    """Statements that run on import; with `inner`, those within functions as well. What is for types only is not."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if inner or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from statements(node, inner)


def imports(source: Path, package: str, inner: bool = False) -> dict[str, set[str]]:
    """For each module of a package, the modules of the package that it imports."""
    trees = modules(source, package)
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        targets = set()
        for node in statements(tree, inner):
            if isinstance(node, ast.ImportFrom) and node.module:
                targets |= {f"{node.module}.{alias.name}" for alias in node.names} & set(trees)
                targets |= {node.module} & set(trees)
            elif isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names} & set(trees)
        # The parents of a module are imported with it, but do not wait for it.
        graph[name] = targets - {name, *(name[:at] for at, mark in enumerate(name) if mark == ".")}
    return graph


def circles(graph: Graph) -> list[str]:
    """Modules that import themselves over others, as the ways they do so."""
    done: set[str] = set()

    def follow(name: str, way: tuple[str, ...]) -> Iterator[str]:
        if name in way:
            yield " -> ".join((*way[way.index(name) :], name))
        elif name not in done:
            for target in sorted(graph[name]):
                yield from follow(target, (*way, name))
            done.add(name)

    return [circle for name in sorted(graph) for circle in follow(name, ())]


def below(name: str) -> str:
    """The package or module right below the root that a module lies in."""
    return name.split(".")[1] if "." in name else ""


def upward(graph: Graph, layers: Iterable[Iterable[str]]) -> list[str]:
    """Imports that go up the layers, or across one."""
    height = {package: at for at, layer in enumerate(layers) for package in layer}
    return [
        f"{name} imports {target}"
        for name, targets in sorted(graph.items())
        for target in sorted(targets)
        if below(name) and below(target) and below(name) != below(target)
        if height[below(name)] <= height[below(target)]
    ]


def test_every_package_has_a_layer() -> None:
    assert {below(name) for name in modules(SOURCE, PACKAGE)} - {""} == {
        one for layer in LAYERS for one in layer
    }


def test_there_are_no_import_circles() -> None:
    assert circles(imports(SOURCE, PACKAGE)) == []


def test_packages_import_from_the_layers_below_them() -> None:
    assert upward(imports(SOURCE, PACKAGE), LAYERS) == []


def test_nothing_that_runs_imports_training() -> None:
    graph = imports(SOURCE, PACKAGE, inner=True)
    importers = {
        below(name) for name, targets in graph.items() if any(below(one) == "training" for one in targets)
    }
    assert importers <= MAY_TRAIN
    at_top = {name for name, targets in imports(SOURCE, PACKAGE).items() if "training" in map(below, targets)}
    assert {below(name) for name in at_top} <= {"training"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of three modules that keeps the contract."""
    folder = tmp_path / "p"
    for name in ("low", "high"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "low" / "a.py").write_text("import os\n")
    (folder / "high" / "b.py").write_text("from p.low import a\n\ndef late():\n    from p.high import c\n")
    (folder / "high" / "c.py").write_text("from p.high.b import late\n")
    return tmp_path


def test_a_package_in_order_is_found_in_order(package: Path) -> None:
    graph = imports(package, "p")
    assert graph["p.high.b"] == {"p.low", "p.low.a"}
    assert (circles(graph), upward(graph, (("low",), ("high",)))) == ([], [])


def test_a_circle_and_an_import_upward_are_found(package: Path) -> None:
    (package / "p" / "low" / "a.py").write_text("if True:\n    from p.high.c import late\n")
    graph = imports(package, "p")
    assert circles(graph) == ["p.high.b -> p.low.a -> p.high.c -> p.high.b"]
    assert upward(graph, (("low",), ("high",))) == ["p.low.a imports p.high.c"]


def test_imports_for_types_only_are_no_imports(package: Path) -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.high.c import late\n"
    (package / "p" / "low" / "a.py").write_text(text)
    assert circles(imports(package, "p", inner=True)) == ["p.high.b -> p.high.c -> p.high.b"]


def test_no_file_is_longer_than_a_reader_bears() -> None:
    lines = {
        path.relative_to(SOURCE): len(path.read_text(encoding="utf-8").splitlines())
        for ending in ("py", "js", "css")
        for path in (SOURCE / PACKAGE).rglob(f"*.{ending}")
    }
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}
