"""Every operator against its own samples: from `OPS` alone, so that a new operator is tested by being defined."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

import jitflow.ops  # noqa: F401  (fills OPS)
from jitflow.autodiff import gradient_nodes
from jitflow.dtypes import as_dtype
from jitflow.errors import JitflowError
from jitflow.graph import OPS, Node, OpDef, Sample, make_node, make_placeholder, toposort
from jitflow.graph_text import graph_arrays, parse_graph, same_graph, show_graph
from jitflow.interp import evaluate, interpret_nodes
from jitflow.session import Session
from jitflow.simplify import evaluate_index
from jitflow.tensor import as_tensor
from jitflow.types import Dim, TensorType, named_dim
from tests.support.bits import same_bits
from tests.support.eval_element import evaluate_element
from tests.support.run_kernel import run_kernel
from tests.support.tolerance import deviations

NAMES = sorted(name for name, op in OPS.items() if not op.source)
WITH_ELEMENT = [n for n in NAMES if OPS[n].element is not None]
WITH_EXPAND = [n for n in NAMES if OPS[n].expand is not None]
WITH_KERNEL = [n for n in NAMES if OPS[n].kernel is not None]
WITH_VJP = [n for n in NAMES if OPS[n].vjp is not None or OPS[n].expand is not None]

#: Elements above which a sample is not given to the loop interpreter.
SLOW = 400


def samples_of(op: OpDef) -> list[Sample]:
    assert op.samples is not None, f"{op.name} has no samples"
    return list(op.samples(np.random.default_rng(0)))


def valid_samples(op: OpDef) -> Iterator[tuple[str, Sample, list[Node], Node, dict[Node, np.ndarray]]]:
    """Yield the samples that must work: a label, the sample, its inputs, its node and the feeds."""
    for k, sample in enumerate(samples_of(op)):
        if sample.raises is None:
            inputs, node = build(op, sample)
            shapes = ", ".join(f"{x.dtype}{x.shape}" for x in sample.inputs)
            yield f"{op.name} sample {k}: {shapes} {sample.attrs}", sample, inputs, node, feeds(inputs, sample)


def build(op: OpDef, sample: Sample, symbolic: bool = False) -> tuple[list[Node], Node]:
    inputs = []
    for x in sample.inputs:
        shape: tuple[Dim, ...] = x.shape
        if symbolic:
            shape = tuple(named_dim(f"d{n}") if n > 1 else n for n in x.shape)
        inputs.append(make_placeholder(None, as_dtype(x.dtype), shape))
    return inputs, make_node(op, inputs, sample.attrs)


def build_and_run(op: OpDef, sample: Sample) -> None:
    inputs, node = build(op, sample)
    interpret_nodes([node], feeds(inputs, sample))


def feeds(inputs: list[Node], sample: Sample) -> dict[Node, np.ndarray]:
    return dict(zip(inputs, sample.inputs, strict=True))


def assert_same(got: np.ndarray, expected: np.ndarray, label: str) -> None:
    """Fail unless dtype, shape and bits are the same, any NaN being as good as another."""
    assert got.dtype == expected.dtype, label
    assert got.shape == expected.shape, label
    assert same_bits(got, expected), f"{label}\n{got}\n{expected}"


def assert_within(node: Node, sample: Sample, got: np.ndarray, expected: np.ndarray, label: str) -> None:
    """Fail unless `got` is as near to `expected` as the operator says."""
    assert got.dtype == expected.dtype, label
    assert got.shape == expected.shape, label
    wrong = deviations(node, got, expected, sample.inputs)
    assert not np.any(wrong), f"{label}\nat {np.argwhere(wrong)[:3].tolist()}\n{got}\n{expected}"


@pytest.mark.parametrize("name", NAMES)
def test_inferred_type_is_that_of_numpy(name: str) -> None:
    for label, sample, _, node, _ in valid_samples(OPS[name]):
        result = evaluate(node, sample.inputs, {})  # checks dtype and shape
        assert node.type == TensorType(as_dtype(result.dtype), result.shape), label


@pytest.mark.parametrize("name", WITH_ELEMENT)
def test_element_rule_is_the_numpy_rule(name: str) -> None:
    op = OPS[name]
    for label, sample, inputs, node, _ in valid_samples(op):
        expected = evaluate(node, sample.inputs, {})
        got = evaluate_element(op, [x.type for x in inputs], sample.inputs, sample.attrs, node.type)
        assert_within(node, sample, got, expected, label)


@pytest.mark.parametrize("name", WITH_KERNEL)
def test_kernel_rule_is_the_numpy_rule(name: str) -> None:
    for label, sample, inputs, node, _ in valid_samples(OPS[name]):
        expected = evaluate(node, sample.inputs, {})
        if sum(x.size for x in sample.inputs) + expected.size <= SLOW and not any(x.dtype.is_half for x in inputs):
            assert_within(node, sample, run_kernel(node, sample.inputs, {}), expected, label)


@pytest.mark.parametrize("name", WITH_EXPAND)
def test_expansion_is_the_numpy_rule(name: str) -> None:
    op = OPS[name]
    for label, sample, inputs, node, fed in valid_samples(op):
        assert op.expand is not None
        expanded = op.expand(*inputs, **sample.attrs)
        assert expanded.type == node.type, label
        assert expanded.op is not op, label
        expected = evaluate(node, sample.inputs, {})
        (got,) = interpret_nodes([expanded], fed)
        assert_within(node, sample, got, expected, label)


@pytest.mark.parametrize("name", NAMES)
def test_symbolic_shapes_give_the_same(name: str) -> None:
    op = OPS[name]
    for label, sample, _, node, _ in valid_samples(op):
        inputs, symbolic = build(op, sample, symbolic=True)
        dims = {named_dim(f"d{n}"): n for x in sample.inputs for n in x.shape}
        assert tuple(evaluate_index(d, dims) for d in symbolic.shape) == node.shape, label
        (got,) = interpret_nodes([symbolic], feeds(inputs, sample))
        expected = evaluate(node, sample.inputs, {})
        assert_same(got, expected, label)
        if op.vjp is not None and node.dtype.is_float:
            ct = make_placeholder(None, symbolic.dtype, symbolic.shape)
            for g, x in zip(op.vjp(ct, symbolic, *inputs, **sample.attrs), inputs, strict=True):
                shape = None if g is None else tuple(evaluate_index(d, dims) for d in g.shape)
                assert shape in (None, tuple(evaluate_index(d, dims) for d in x.shape)), label
        if op.element is not None:
            types = [x.type for x in inputs]
            element = evaluate_element(op, types, sample.inputs, sample.attrs, symbolic.type, dims)
            assert_within(node, sample, element, expected, label)
        if op.kernel is not None and expected.size <= SLOW and not any(x.dtype.is_half for x in inputs):
            assert_within(node, sample, run_kernel(symbolic, sample.inputs, dims), expected, label)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_code_is_the_numpy_rule(name: str) -> None:
    op = OPS[name]
    cases = list(valid_samples(op))
    fetches = [as_tensor(node) for _, _, _, node, _ in cases]
    fed = {as_tensor(x): value for *_, given in cases for x, value in given.items()}
    results = Session(fetches).run(fetches, fed)
    for (label, sample, _, node, _), got in zip(cases, results, strict=True):
        expected = evaluate(node, sample.inputs, {})
        assert_within(node, sample, got, expected, label)


@pytest.mark.parametrize("name", NAMES)
def test_text_reads_back_as_the_same_node(name: str) -> None:
    for label, _, _, node, _ in valid_samples(OPS[name]):
        graph = parse_graph(show_graph(node), graph_arrays(node))
        (again,) = graph.fetches.values()
        assert repr(again.node.attrs) == repr(node.attrs), label
        assert again.node.type == node.type, label
        assert same_graph(graph, node), label


@pytest.mark.parametrize("name", WITH_VJP)
def test_vjp_is_the_slope(name: str) -> None:
    op = OPS[name]
    rng = np.random.default_rng(1)
    for label, sample, inputs, node, fed in valid_samples(op):
        if not node.dtype.is_float:
            continue  # cotangents are floats
        ct = make_placeholder(None, node.dtype, node.shape)
        grads = cotangents(node, ct, sample)
        assert len(grads) == len(inputs), label
        for g, x in zip(grads, inputs, strict=True):
            assert g is None or g.type == x.type, f"{label}: {g!r} for {x!r}"
            assert g is None or x.dtype.is_float, label
        if not is_smooth(sample, node):
            continue
        weights = rng.normal(size=node.shape)
        moves = [rng.normal(size=x.shape) if x.dtype == np.float64 else None for x in sample.inputs]
        flowing = [(g, d) for g, d in zip(grads, moves, strict=True) if g is not None and d is not None]
        used = {ct: weights} | fed
        values = interpret_nodes([g for g, _ in flowing], restrict(used, [g for g, _ in flowing]))
        predicted = sum(float((v * d).sum()) for v, (_, d) in zip(values, flowing, strict=True))
        h = 1e-6
        ends = []
        for sign in (1, -1):
            moved = [x if d is None else x + sign * h * d for x, d in zip(sample.inputs, moves, strict=True)]
            ends.append(evaluate(node, moved, {}))
        if not np.isfinite(ends).all():
            continue  # the mean of nothing, padding with NaN
        measured = float(((ends[0] - ends[1]) / (2 * h) * weights).sum())
        assert predicted == pytest.approx(measured, rel=2e-4, abs=2e-6), label


def cotangents(node: Node, ct: Node, sample: Sample) -> Sequence[Node | None]:
    """Return what the operator's vjp rule gives, or, without one, what is derived from its expansion."""
    if node.op.vjp is not None:
        return node.op.vjp(ct, node, *node.inputs, **sample.attrs)
    found = iter(gradient_nodes(node, [x for x in node.inputs if x.dtype.is_float], ct))
    return [next(found) if x.dtype.is_float else None for x in node.inputs]


def is_smooth(sample: Sample, node: Node) -> bool:
    floats = [x for x in sample.inputs if x.dtype.kind == "f"]
    is_double = node.dtype.np == np.float64 and all(x.dtype == np.float64 for x in floats)
    return sample.smooth and is_double and all(np.isfinite(x).all() for x in floats)


def restrict(given: dict[Node, np.ndarray], fetched: list[Node]) -> dict[Node, np.ndarray]:
    """Return the feeds that `fetched` need; others would be refused."""
    needed = set(toposort(fetched))
    return {x: v for x, v in given.items() if x in needed}


@pytest.mark.parametrize("name", NAMES)
def test_errors_name_the_fault_and_the_users_line(name: str) -> None:
    op = OPS[name]
    for k, sample in enumerate(samples_of(op)):
        if sample.raises is None:
            continue
        with pytest.raises(JitflowError) as caught:
            build_and_run(op, sample)
        message = str(caught.value)
        assert type(caught.value) is sample.raises, f"{name} sample {k}: {caught.value!r}"
        assert re.search(sample.match, message.split("\n")[0]), f"{name} sample {k}: {message}"
        assert re.search(r"\n  at .*test_all_ops\.py:\d+$", message), f"{name} sample {k}: {message}"


def test_there_are_samples_of_every_kind() -> None:
    for name in NAMES:
        samples = samples_of(OPS[name])
        assert any(s.raises is None for s in samples), name
        sizes = [x.size for s in samples for x in s.inputs]
        assert not sizes or 0 in sizes or name in ("argmax", "argmin", "random_bits"), f"{name}: no sample of size 0"
