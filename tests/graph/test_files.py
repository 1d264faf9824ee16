"""Graph files: what is saved is loaded again, in the same structure and to the last bit; the same bytes every time."""

from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, as_dtype
from jitflow.graph import OPS, make_node, make_placeholder, toposort
from jitflow.graph_attrs import attributes_of, is_of_kind, kind_text
from jitflow.graph_file import load_graph, read_graph
from jitflow.structure import leaves
from jitflow.tensor import Tensor, as_tensor
from tests.support.random_graph import random_graph

ml_dtypes = pytest.importorskip("ml_dtypes")


def reloaded(path: Path, outputs: Any, **options: Any) -> Any:
    jf.save(path, outputs, **options)
    return jf.load(path)


def types(outputs: Any) -> list[str]:
    """Return the nodes of `outputs` as text, fresh dims aside."""
    return [f"{n.op.name} {n.dtype} {n.name} {len(n.shape)}" for n in toposort(t.node for t in leaves(outputs))]


@pytest.fixture
def model() -> dict[str, Tensor]:
    x = jf.placeholder("x", jf.float32, ("batch", 8))
    w = jf.variable("w", np.arange(24, dtype=np.float32).reshape(8, 3))
    return {"y": jf.softmax(x @ w + 1.0), "w": w}


def test_a_file_begins_with_readable_text_and_ends_with_the_weights(tmp_path: Path, model: dict[str, Tensor]) -> None:
    path = tmp_path / "model.jitflow"
    jf.save(path, model)
    data = path.read_bytes()
    digest = jf.show_graph(model).split("@")[1][:32]
    text = (
        "jitflow graph 1\n"
        "weights: at byte 000000000448\n"
        "graph 1:\n"
        '  x: f32[batch, 8] = placeholder(name="x")\n'
        f'  w: f32[8, 3] = variable(name="w", value=f32[8, 3]@{digest})\n'
        "  matmul_0: f32[batch, 3] = matmul(x, w)\n"
        "  constant_0: f32[] = constant(value=f32[]{1.0})\n"
        "  add_0: f32[batch, 3] = add(matmul_0, constant_0)\n"
        "  softmax_0: f32[batch, 3] = softmax(add_0, axis=1)\n"
        '  return {"y": softmax_0, "w": w}\n'
    )
    assert data[: len(text)].decode() == text
    assert data[len(text) : 448] == b"\n" * (448 - len(text))
    # The layout of safetensors: a length, JSON, elements; the data at a multiple of 64 bytes.
    (size,) = struct.unpack("<Q", data[448:456])
    assert (456 + size) % 64 == 0
    assert json.loads(data[456 : 456 + size]) == {"w": {"dtype": "F32", "shape": [8, 3], "data_offsets": [0, 96]}}
    assert data[456 + size :] == np.arange(24, dtype="<f4").tobytes()


def test_weights_in_a_second_file_are_a_safetensors_file(tmp_path: Path, model: dict[str, Tensor]) -> None:
    path = tmp_path / "model.jitflow"
    loaded = reloaded(path, model, weights="model.safetensors")
    assert jf.same_graph(loaded, model)
    assert path.read_text().splitlines()[:2] == ["jitflow graph 1", 'weights: in "model.safetensors"']
    data = (tmp_path / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    assert json.loads(data[8 : 8 + size]) == {"w": {"dtype": "F32", "shape": [8, 3], "data_offsets": [0, 96]}}
    assert data[8 + size :] == np.arange(24, dtype="<f4").tobytes()


def test_a_graph_without_large_arrays_is_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "f.jitflow"
    x = jf.placeholder("x", jf.float32, ())
    assert jf.same_graph(reloaded(path, x * 2.0, weights="never.safetensors"), x * 2.0)
    assert path.read_text().startswith("jitflow graph 1\nweights: none\ngraph 1:\n")
    assert os.listdir(tmp_path) == ["f.jitflow"]


def test_outputs_keep_their_structure(tmp_path: Path) -> None:
    path = tmp_path / "f.jitflow"
    x = jf.placeholder("x", jf.float32, ())
    y = jf.exp(x)
    z = jf.placeholder("return", jf.float32, ())
    for outputs in (
        x,
        [x],
        (x,),
        [],
        (),
        {},
        [x, x],
        (x, [y, {"a b\n": z, "": (x, ())}], []),
        {"loss": y, "x": [x, (y,)], 3: z, -7: x, "3": y, "y[0]": x, "y": [z]},
    ):
        loaded = reloaded(path, outputs)
        assert jf.show_graph(loaded, sites=False) == jf.show_graph(outputs, sites=False)

        def shape(s: Any) -> Any:
            if isinstance(s, dict):
                return [(k, shape(v)) for k, v in s.items()]
            return type(s)(map(shape, s)) if isinstance(s, (list, tuple)) else s.node.op.name

        assert shape(loaded) == shape(outputs)


def test_outputs_in_other_structures_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.jitflow"
    x = jf.placeholder("x", jf.float32, ())
    deep: Any = x
    for _ in range(200):
        deep = [deep]
    for outputs, error, message in (
        ({1.5: x}, jf.GraphError, r"the keys of outputs are strings or integers of 64 bits, not 1\.5"),
        ({2**70: x}, jf.GraphError, "strings or integers of 64 bits"),
        ({True: x}, jf.GraphError, "strings or integers of 64 bits, not True"),
        ([x, 3], TypeError, "got int"),
        (None, TypeError, "got NoneType"),
        (deep, jf.GraphError, "nested deeper than 100"),
        ({"\ud800": x}, jf.GraphError, "half of a character"),
        ([x, jf.placeholder("x", jf.float32, ())], jf.GraphError, "two nodes are named 'x'"),
    ):
        with pytest.raises(error, match=message):
            jf.save(path, outputs)
    assert not path.exists()


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_are_loaded_as_they_were_saved(seed: int, tmp_path: Path) -> None:
    graph = random_graph(seed, size=20)
    outputs = {f"out{k}": t for k, t in enumerate(graph.fetches)}
    loaded = reloaded(tmp_path / "a.jitflow", outputs)
    assert jf.same_graph(loaded, outputs)
    assert types(loaded) == types(outputs)
    # The same bytes from the same graph, and from the loaded one.
    jf.save(tmp_path / "b.jitflow", loaded)
    assert (tmp_path / "a.jitflow").read_bytes() == (tmp_path / "b.jitflow").read_bytes()
    feeds = {x.name: value for x, value in graph.feeds.items() if x.node in toposort(t.node for t in graph.fetches)}
    try:
        wanted = jf.interpret(outputs, feeds)
    except jf.JitflowError as error:  # some random graphs do not accept their feeds
        with pytest.raises(type(error)):
            jf.interpret(loaded, feeds)
        return
    for name, got in jf.interpret(loaded, feeds).items():
        assert got.dtype == wanted[name].dtype
        assert got.tobytes() == wanted[name].tobytes(), (seed, name)


def test_every_operator_and_its_attributes_survive(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    outputs = []
    for op in OPS.values():
        for sample in op.samples(rng) if op.samples is not None else ():
            if sample.raises is None and op.name != "identity":
                arrays = map(np.asarray, sample.inputs)
                inputs = [make_placeholder(None, as_dtype(a.dtype), a.shape) for a in arrays]
                outputs.append(as_tensor(make_node(op, inputs, sample.attrs)))
    loaded = reloaded(tmp_path / "f.jitflow", outputs)
    assert {t.node.op.name for t in loaded} >= {n for n, op in OPS.items() if op.samples is not None} - {"identity"}
    assert types(loaded) == types(outputs)
    assert jf.same_graph(loaded, outputs)


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("size", [0, 1, 16, 17, 300])
def test_arrays_of_every_dtype_keep_their_bits(dtype: jf.DType, size: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(size)
    assert dtype.np is not None
    bits = rng.integers(0, 2 if dtype.is_bool else 256, size * dtype.itemsize, np.uint8)
    array = bits.view(dtype.np)  # any bits at all: NaNs with payloads, subnormals, extremes
    outputs = [jf.constant(array), jf.variable("v", array), jf.variable("w", array.reshape(size, 1, 1))]
    for options in ({}, {"weights": "w.safetensors"}):
        loaded = reloaded(tmp_path / "f.jitflow", outputs, **options)
        for before, after in zip(outputs, loaded, strict=True):
            value = after.node.attr("value").array
            assert value.dtype == dtype.np
            assert value.shape == before.shape
            assert value.tobytes() == array.tobytes()
        assert loaded[0] is outputs[0]  # constants are interned by their bits
        assert loaded[1] is not outputs[1]


def test_symbolic_dims_and_formulas_survive(tmp_path: Path) -> None:
    x = jf.placeholder("x", jf.float32, ("n", None, "inf"))
    y = jf.concat([x, x[1:]], axis=0)
    z = jf.reshape(y[::3, :, :2], (-1,))
    a, b, c = reloaded(tmp_path / "f.jitflow", [x, y, z])
    assert a.shape[0] == "n"
    assert a.shape[2] == "inf"
    assert a.shape[1] != x.shape[1]
    assert str(b.shape[0]) == str(y.shape[0])
    feed = np.arange(60, dtype=np.float32).reshape(5, 4, 3)
    np.testing.assert_array_equal(jf.interpret(c, {"x": feed}), jf.interpret(z, {"x": feed}))


def test_a_loaded_graph_runs_and_is_fed_by_name(tmp_path: Path, model: dict[str, Tensor]) -> None:
    loaded = reloaded(tmp_path / "m.jitflow", model)
    x = np.random.default_rng(0).random((5, 8), np.float32)
    with jf.Session(model) as before, jf.Session(loaded) as after:
        assert before.run(model["y"], {"x": x}).tobytes() == after.run(loaded["y"], {"x": x}).tobytes()
        assert after.function(["x"], loaded["y"])(x).shape == (5, 3)


def test_errors_name_the_line_in_the_file(tmp_path: Path, model: dict[str, Tensor]) -> None:
    path = tmp_path / "m.jitflow"
    y = reloaded(path, model)["y"]
    line = next(k for k, row in enumerate(path.read_bytes().split(b"\n"), 1) if b"= placeholder" in row)
    with pytest.raises(jf.FeedError) as caught:
        jf.Session(y).run(y, {"x": np.ones((3, 9), np.float32)})
    assert str(caught.value).endswith(f"at {path}:{line}")


def test_two_loads_give_two_graphs(tmp_path: Path, model: dict[str, Tensor]) -> None:
    path = tmp_path / "m.jitflow"
    one, two = reloaded(path, model), jf.load(str(path))
    assert one["w"] is not two["w"]
    assert jf.same_graph(one, two)


def test_nodes_are_found_by_label(tmp_path: Path, model: dict[str, Tensor]) -> None:
    path = tmp_path / "m.jitflow"
    jf.save(path, {"heads": [model["y"], model["w"]], "y": model["y"]})
    graph = load_graph(path)
    assert list(graph.fetches) == ["heads[0]", "heads[1]", "y"]
    assert graph["matmul_0"].dtype == jf.float32
    assert list(read_graph(path.read_bytes()).fetches) == list(graph.fetches)


@pytest.mark.parametrize("length", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_f7_a_chain_of_many_nodes(length: int, tmp_path: Path) -> None:
    y = jf.placeholder("x", jf.float32, ())
    for _ in range(length // 2):
        y = jf.negative(jf.abs(y))
    loaded = reloaded(tmp_path / "chain.jitflow", y)
    assert len(toposort([loaded.node])) == length + 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_large_weights_are_in_memory_once(tmp_path: Path) -> None:
    # 64 MiB: neither saving nor loading may need as much again. Loading ends with the weights, once.
    program = """
import resource, sys
import numpy as np
import jitflow as jf
from jitflow.graph import ArrayData, make_variable
from jitflow.tensor import as_tensor
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = sys.argv[2]
if sys.argv[1] == "save":
    w = as_tensor(make_variable("w", ArrayData(np.ones(1 << 23), owned=True)))
    before = peak()
    jf.save(path, w)
else:
    before = peak()
    assert jf.load(path).shape == (1 << 23,)
print((peak() - before) >> 10)
"""
    grown = {}
    for step in ("save", "load"):
        command = [sys.executable, "-c", program, step, str(tmp_path / "w.jitflow")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        grown[step] = int(done.stdout)
    assert grown["save"] < 16
    assert grown["load"] < 64 + 16


def test_new_files_have_the_permissions_of_any_new_file(tmp_path: Path, model: dict[str, Tensor]) -> None:
    before = os.umask(0o027)
    try:
        jf.save(tmp_path / "m.jitflow", model, weights="m.safetensors")
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


# ---- attributes


def test_every_attribute_of_every_operator_has_a_kind() -> None:
    missing = [
        f"{name}: {attribute}"
        for name, op in OPS.items()
        for attribute, (kind, _) in attributes_of(op).items()
        if kind is Any
    ]
    assert not missing, "annotate the keyword parameters of `infer`: files are checked against them"


def test_samples_are_of_the_kinds_that_operators_declare() -> None:
    rng = np.random.default_rng(0)
    for op in OPS.values():
        for sample in op.samples(rng) if op.samples is not None else ():
            for name, value in sample.attrs.items():
                if sample.raises is None:
                    kind = attributes_of(op)[name].kind
                    assert is_of_kind(value, kind), (op, name, value, kind_text(kind))


def test_kinds_are_exact() -> None:
    assert is_of_kind(1, int)
    assert not is_of_kind(True, int)
    assert not is_of_kind(2**63, int)
    assert is_of_kind(-(2**63), int)
    assert is_of_kind(1, float)
    assert not is_of_kind("1", float)
    assert is_of_kind((1, 2), tuple[int, ...])
    assert is_of_kind((), tuple[int, ...])
    assert not is_of_kind((1, 2.0), tuple[int, ...])
    assert not is_of_kind([1], tuple[int, ...])
    assert is_of_kind(None, int | None)
    assert not is_of_kind(jf.dtypes.index, jf.DType)
    assert kind_text(tuple[int, ...]) == "a tuple, each item an integer of 64 bits"
    assert kind_text(int | float) == "a number"
