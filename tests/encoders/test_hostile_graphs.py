"""Graphs that would take any time or memory: refused when they are read, or ended while they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from image2sentence.encoders import onnx_session
from image2sentence.encoders.graph_file import MAX_FOLDED, largest_folded
from image2sentence.encoders.model_folder import GALLERY_IMAGE, QUERY_TEXT, bundled
from image2sentence.encoders.onnx_session import load_session
from image2sentence.errors import ModelError
from image2sentence.hub import graphs

onnx = pytest.importorskip("onnx", reason="graphs are made with onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

PATH = Path("folder/onnx/gallery_image.onnx")
PIXELS = {"pixels": np.zeros((1, 3, 8, 8), np.float32)}
FLAT = helper.make_node("Flatten", ["last"], ["vectors"])


def value(name: str, kind: int = TensorProto.FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weights(name: str, of: Any, kind: type = np.int64) -> Any:
    return numpy_helper.from_array(np.array(of, kind), name)


def graph(
    nodes: Sequence[Any], *given: Any, functions: Sequence[Any] = (), sparse: Sequence[Any] = ()
) -> bytes:
    made = helper.make_graph(
        nodes, "g", [value("pixels", shape=["r", 3, 8, 8])], [value("vectors", shape=["r", None])], given
    )
    made.sparse_initializer.extend(sparse)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    content: bytes = helper.make_model(
        made, opset_imports=opsets, ir_version=8, functions=functions
    ).SerializeToString()
    return content


def endless() -> bytes:
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("Add", ["x", "x"], ["y"])],
        "body",
        [value("i", TensorProto.INT64, []), value("on", TensorProto.BOOL, []), value("x")],
        [value("still", TensorProto.BOOL, []), value("y")],
    )
    return graph(
        [helper.make_node("Loop", ["", "yes", "pixels"], ["last"], body=body), FLAT],
        weights("yes", True, bool),
    )


def functions_of_functions() -> bytes:
    plain = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    own = [
        helper.make_function(
            "com.microsoft", "f0", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], plain
        )
    ]
    for n in range(1, 24):
        twice = [
            helper.make_node(f"f{n - 1}", ["x"], ["m"], domain="com.microsoft"),
            helper.make_node(f"f{n - 1}", ["m"], ["y"], domain="com.microsoft"),
        ]
        own.append(helper.make_function("com.microsoft", f"f{n}", ["x"], ["y"], twice, plain))
    return graph([helper.make_node("f23", ["pixels"], ["last"], domain="com.microsoft"), FLAT], functions=own)


def branches_in_branches() -> bytes:
    inner = helper.make_graph([helper.make_node("Identity", ["pixels"], ["o"])], "b", [], [value("o")])
    for _ in range(12):
        node = helper.make_node("If", ["yes"], ["o"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([node], "b", [], [value("o")])
    last = helper.make_node("If", ["yes"], ["last"], then_branch=inner, else_branch=inner)
    return graph([last, FLAT], weights("yes", True, bool))


def products_of_weights(count: int) -> bytes:
    nodes = [helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(count)]
    end = [
        helper.make_node("ReduceMax", [f"m{count}"], ["most"], keepdims=0),
        helper.make_node("Add", ["pixels", "most"], ["last"]),
        FLAT,
    ]
    return graph([*nodes, *end], weights("m0", np.eye(4), np.float32))


def of_a_shape(shape: Sequence[int]) -> bytes:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["many"]),
        helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
        helper.make_node("Add", ["pixels", "sum"], ["last"]),
        FLAT,
    ]
    return graph(nodes, weights("shape", shape))


def slow(count: int = 400, side: int = 1_024) -> bytes:
    """Products of matrices that are made of what is fed."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("Expand", ["mean", "shape"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(count)),
        helper.make_node("ReduceMax", [f"m{count}"], ["most"], keepdims=0),
        helper.make_node("Add", ["pixels", "most"], ["last"]),
        FLAT,
    ]
    return graph(nodes, weights("shape", [side, side]))


def sparse_weights() -> bytes:
    large = helper.make_sparse_tensor(weights("w", [1.0], np.float32), weights("i", [0]), [2**33])
    return graph([helper.make_node("Identity", ["pixels"], ["last"]), FLAT], sparse=[large])


def of_others() -> bytes:
    return graph([helper.make_node("Anything", ["pixels"], ["last"], domain="evil.example"), FLAT])


HOSTILE = {
    "a loop without end": (endless, "repeats others"),
    "functions that call functions": (functions_of_functions, r"^[^ ]+ has functions of its own"),
    "branches in branches": (branches_in_branches, "branches in branches"),
    "products of weights": (lambda: products_of_weights(MAX_FOLDED + 1), "products of weights"),
    "very many operators": (
        lambda: graph([*[helper.make_node("Neg", ["pixels"], [f"n{n}"]) for n in range(20_001)], FLAT]),
        "more than 20,000 operators",
    ),
    "sparse weights": (sparse_weights, "sparse weights"),
    "operators of others": (of_others, r"evil\.example"),
    "no graph": (lambda: b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "no ONNX graph that can be read"),
    "numbers without end": (lambda: b"\x80" * 40, "no ONNX graph that can be read"),
    "groups": (lambda: b"\x3b\x3c", "no ONNX graph that can be read"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_graph_is_refused_before_it_is_loaded(tmp_path: Path, what: str) -> None:
    make, reason = HOSTILE[what]
    content = make()
    with pytest.raises(ModelError, match=reason):
        load_session(PATH, content, 1)
    (tmp_path / "graph.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        load_session(tmp_path / "graph.onnx", None, 1)


def test_graphs_of_the_package_pass() -> None:
    for name in ("default", "everyday"):
        for file in (GALLERY_IMAGE, QUERY_TEXT):
            content = (bundled(name) / file).read_bytes()
            assert 2**20 <= largest_folded(content, PATH) <= 8 * len(content)


def test_few_products_of_weights_pass() -> None:
    (found,) = load_session(PATH, products_of_weights(3), 1).run(None, PIXELS)
    assert np.array_equal(found, np.ones((1, 192), np.float32))


def test_a_graph_that_takes_too_much_memory_is_ended() -> None:
    session = load_session(PATH, of_a_shape([2**20, 2**20]), 1)
    with pytest.raises(ModelError, match=r"cannot run .*gallery_image\.onnx"):
        session.run(None, PIXELS)


def test_memory_has_a_limit_of_what_was_free(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    monkeypatch.setattr(onnx_session, "_arena", [])
    monkeypatch.setattr(onnx_session, "free_memory", lambda: 1_000)
    monkeypatch.setattr(onnx_session, "_make_arena", limits.append)
    assert onnx_session._has_arena()
    assert onnx_session._has_arena()
    assert limits == [800]
    monkeypatch.setattr(onnx_session, "_arena", [])
    monkeypatch.setattr(onnx_session, "free_memory", lambda: None)
    assert not onnx_session._has_arena()


def test_graphs_have_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    """In a process of its own: there is one limit for all graphs of a process."""
    (tmp_path / "g.onnx").write_bytes(of_a_shape([2**26]))
    program = (
        "import sys, pathlib, numpy; from image2sentence.encoders import onnx_session as own\n"
        "own.free_memory = lambda: int(sys.argv[2])\n"
        "session = own.load_session(pathlib.Path(sys.argv[1]), None, 1)\n"
        "try: session.run(None, {'pixels': numpy.zeros((1, 3, 8, 8), numpy.float32)})\n"
        "except own.ModelError as error: print('refused', 'smaller than requested' in str(error))\n"
        "else: print('run')"
    )
    for free, told in ((2**27, "refused True"), (2**30, "run")):
        command = [sys.executable, "-c", program, str(tmp_path / "g.onnx"), str(free)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == told


def test_a_graph_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_session, "_RUN_SECONDS", 0.2)
    session = load_session(PATH, slow(), 1)
    with pytest.raises(ModelError, match="terminate flag"):
        session.run(None, PIXELS)


def test_what_is_computed_while_loading_is_no_larger_than_its_weights() -> None:
    """Products of large matrices made of nothing, which would be computed for minutes before the session is there."""
    nodes = [
        helper.make_node("Expand", ["one", "shape"], ["m0"]),
        *(helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(150)),
        helper.make_node("ReduceMax", ["m150"], ["most"], keepdims=0),
        helper.make_node("Add", ["pixels", "most"], ["last"]),
        FLAT,
    ]
    content = graph(nodes, weights("shape", [4_096, 4_096]), weights("one", [1], np.float32))
    assert largest_folded(content, PATH) == 2**20
    load_session(PATH, content, 1)  # hangs the test otherwise


def test_functions_that_would_become_too_many_operators_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(functions_of_functions())
    with pytest.raises(ModelError, match="once its functions are put in place"):
        graphs.load(tmp_path / "model.onnx")


def test_functions_that_call_each_other_are_refused(tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("own", 1)]
    names = ("f", "g"), ("g", "f")
    own = [
        helper.make_function(
            "own", one, ["x"], ["y"], [helper.make_node(other, ["x"], ["y"], domain="own")], opsets
        )
        for one, other in names
    ]
    (tmp_path / "model.onnx").write_bytes(
        graph([helper.make_node("f", ["pixels"], ["last"], domain="own"), FLAT], functions=own)
    )
    with pytest.raises(ModelError, match="without end"):
        graphs.load(tmp_path / "model.onnx")
