"""Kernel rules into loops: every construct of the builder, for the CPU and as GPU threads; what breaks its terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import index, int64
from jitflow.errors import CompilerBug, IndexRangeError
from jitflow.expr import as_index, cast, compare, const_index, select
from jitflow.graph import Node, OpDef, make_constant, make_node, make_placeholder, name_nodes, toposort
from jitflow.kernel import KernelBuilder, Memory
from jitflow.tensor import as_tensor
from jitflow.types import TensorType
from lowering.build import build
from lowering.fuse import fuse
from lowering.loop_ir import Alloc, For, Kernel, statements
from lowering.pipeline import run_pipeline
from lowering.target import from_name
from lowering.text import show
from tests.support.check_lines import check_lines
from tests.support.gpu_run import gpu_kernels, run_gpu
from tests.support.run_kernel import run_kernel

Array = np.ndarray[Any, Any]
I64 = np.int64


def given(*shape: Any, dtype: Any = jf.int64, name: str = "x") -> Node:
    return make_placeholder(name, dtype, jf.types.as_shape(shape))


def apply(
    rule: Callable[..., None], *inputs: Node, fallible: bool = False, infer: Callable[..., TensorType] | None = None
) -> Node:
    """Return a node whose operator has `rule`; its result has the type of the first input, unless `infer` says."""
    op = OpDef(f"test_{rule.__name__}", infer=infer or (lambda x, *_: x), kernel=rule, fallible=fallible)
    return make_node(op, inputs)


def kernel_of(node: Node) -> Kernel:
    (group,) = fuse([node])
    return build(group, "k", name_nodes(toposort([node])))


def check(node: Node, want: Any, **feeds: Array) -> None:
    """Compare with `want`: interpreted loops in both orders, machine code, and the threads of a GPU in both orders."""
    arrays = [feeds[x.name] for x in node.inputs if x.name]
    dims = {d: n for x in node.inputs if x.name for d, n in zip(x.shape, feeds[x.name].shape, strict=True)}
    named = {d: n for d, n in dims.items() if not isinstance(d, int)}
    if all(x.name for x in node.inputs):
        np.testing.assert_array_equal(run_kernel(node, arrays, named), want)
    tensor = as_tensor(node)
    np.testing.assert_array_equal(jf.Session(tensor).run(tensor, feeds), want)
    for reverse in (False, True):
        np.testing.assert_array_equal(run_gpu([tensor], feeds, reverse=reverse)[0], want)


# ---- constructs


def running_sum(b: KernelBuilder, out: Memory, x: Memory) -> None:
    n, m = x.type.shape
    with b.rows(n) as (i,):
        total = b.variable("total", x.type.dtype, 0)
        with b.loop("k", m) as k:
            total.set(total.get() + x(i, k))
            b.store(out, (i, k), total.get())


@pytest.mark.parametrize("shape", [(3, 5), (1, 4), (4, 1), (0, 3), (2, 0)])
def test_the_example_of_the_interface(shape: tuple[int, int]) -> None:
    x = np.arange(shape[0] * shape[1]).reshape(shape)
    check(apply(running_sum, given("n", "m")), np.cumsum(x, axis=1), x=x)


def test_rows_are_a_parallel_loop_and_an_extent_of_one_is_none() -> None:
    check_lines(show(kernel_of(apply(running_sum, given("n", 5)))), "parallel i0 in n:", "serial k in 5:")
    assert "parallel" not in show(kernel_of(apply(running_sum, given(1, 5))))


def collatz(b: KernelBuilder, out: Memory, x: Memory) -> None:
    """The steps from x to 1, halving what is even and else taking 3x + 1."""
    with b.rows(*x.type.shape) as i:
        value = b.variable("value", int64, x(*i))
        steps = b.variable("steps", index, 0)
        with b.while_(compare("gt", value.get(), 1)):
            now = b.let("now", value.get())
            with b.if_(compare("eq", now % 2, 0)):
                value.set(now // 2)
            with b.otherwise():
                value.set(now * 3 + 1)
            steps.set(steps.get() + 1)
        b.store(out, i, cast(steps.get(), int64))


def test_while_if_otherwise_and_variables_that_are_indices() -> None:
    check(apply(collatz, given("n")), [0, 1, 7, 2, 5, 8, 16, 111], x=np.array([1, 2, 3, 4, 5, 6, 7, 27]))
    buffers = [s.buffer for s in statements(kernel_of(apply(collatz, given("n"))).body) if isinstance(s, Alloc)]
    assert [(b.name, b.dtype, b.space) for b in buffers] == [("value", int64, "register"), ("steps", int64, "register")]


def test_of_a_condition_that_is_known_one_branch_is_left() -> None:
    def choose(b: KernelBuilder, out: Memory, x: Memory) -> None:
        (n,) = x.type.shape
        with b.rows(), b.loop("k", n) as k:
            with b.if_(compare("lt", const_index(2), as_index(n))):
                b.store(b.memory("unused", x.type.dtype, 1), (0,), x(k))
                b.store(out, (k,), x(k) + 1)
            with b.otherwise():
                b.store(out, (k,), x(k) - 1)

    check(apply(choose, given("n")), [0, 1], x=np.array([1, 2]))
    assert "if 2 < n:" in show(kernel_of(apply(choose, given("n"))))
    for n, want in ((2, [0, 1]), (3, [2, 3, 4])):
        node = apply(choose, given(n))
        assert "if" not in show(kernel_of(node))
        check(node, want, x=np.arange(1, n + 1))
        # What is left out takes no memory.
        assert len(gpu_kernels([as_tensor(node)])[0].params) == (3 if n > 2 else 2)


def reverse(b: KernelBuilder, out: Memory, x: Memory) -> None:
    n, m = x.type.shape
    with b.rows(n) as (i,):
        copy = b.memory("copy", x.type.dtype, m)
        with b.independent(m) as (j,):
            b.store(copy, (j,), x(i, j))
        with b.independent(m) as (j,):
            b.store(out, (i, j), copy(as_index(m) - 1 - j))


def test_memory_belongs_to_a_row() -> None:
    x = np.arange(35).reshape(5, 7)
    node = apply(reverse, given("n", "m"))
    check(node, x[:, ::-1], x=x)
    (alloc,) = [s for s in statements(kernel_of(node).body) if isinstance(s, Alloc)]
    assert alloc.buffer.space == "scratch"
    # A GPU's threads have parts of one temporary.
    (kernel,) = gpu_kernels([as_tensor(node)])
    assert kernel.params[-1].name == "copy0"
    assert len(kernel.params[-1].shape) == 2


def shared_table(b: KernelBuilder, out: Memory, x: Memory) -> None:
    """Without rows, everything is done once, in order."""
    (n,) = x.type.shape
    table = b.memory("table", x.type.dtype, n)
    with b.loop("k", n) as k:
        b.store(table, (k,), x(k) * x(k))
    with b.loop("k", n) as k:
        b.store(out, (k,), table(as_index(n) - 1 - k))


def test_a_rule_without_rows_is_one_threads() -> None:
    x = np.arange(6)
    check(apply(shared_table, given("n")), (x * x)[::-1], x=x)
    (kernel,) = gpu_kernels([as_tensor(apply(shared_table, given("n")))])
    assert [s.extent for s in statements(kernel.body) if isinstance(s, For) and s.kind in ("block", "thread")] == [
        const_index(1)
    ] * 2


def sums_down(b: KernelBuilder, out: Memory, x: Memory) -> None:
    before, n, *after = x.type.shape
    with b.rows(before, columns=after) as (i,):
        with b.columns() as j:
            b.store(out, (i, 0, *j), x(i, 0, *j))
        with b.loop("k", as_index(n) - 1) as k, b.columns() as j:
            b.store(out, (i, k + 1, *j), out(i, k, *j) + x(i, k + 1, *j))


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 2, 33), (1, 4, 0), (3, 2), (2, 3, 1)])
def test_columns_are_vectors_or_threads(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape)
    node = apply(sums_down, given(*(f"d{k}" for k in range(len(shape)))))
    check(node, np.cumsum(x, axis=1), x=x)
    text = show(kernel_of(node))
    assert ("vectorized" in text) == (len(shape) > 2)
    (kernel,) = gpu_kernels([as_tensor(node)])
    serial = [s for s in statements(kernel.body) if isinstance(s, For) and s.kind == "serial"]
    assert len(serial) == 1  # along the axis: each thread has one column


def collatz_of_a_few(b: KernelBuilder, out: Memory, x: Memory) -> None:
    """Three steps of the same for all elements of a column."""
    with b.rows(columns=x.type.shape) as _, b.columns() as j:
        value = b.variable("value", int64, x(*j))
        with b.loop("s", 3):
            now = b.let("now", value.get())
            value.set(select(compare("eq", now % 2, 0), now // 2, now * 3 + 1))
        b.store(out, j, value.get())


def test_columns_may_hold_variables_and_loops_of_the_same_length_for_all() -> None:
    x = np.arange(1, 40)
    want = x.copy()
    for _ in range(3):
        want = np.where(want % 2 == 0, want // 2, want * 3 + 1)
    node = apply(collatz_of_a_few, given("n"))
    check(node, want, x=x)
    assert "i64x" in show(run_pipeline(kernel_of(node), from_name("x86-64-v4")))


def test_a_constant_of_one_element_is_a_number_in_the_code() -> None:
    def plus(b: KernelBuilder, out: Memory, x: Memory, y: Memory) -> None:
        with b.rows(*x.type.shape) as i:
            b.store(out, i, x(*i) + y(*(0 for _ in y.type.shape)))

    for value in (5, [5]):
        node = apply(plus, given("n"), make_constant(value, int64))
        assert [p.name for p in kernel_of(node).params] == ["x", "test_plus_0"]
        assert "x[i0] + 5" in show(kernel_of(node)).replace("i64(5)", "5")
        check(node, [6, 7], x=np.array([1, 2]))


def pick(b: KernelBuilder, out: Memory, x: Memory, at: Memory) -> None:
    (n,) = x.type.shape
    with b.rows(*at.type.shape) as (i,):
        safe = b.check_index(cast(at(i), index), n, i)
        with b.if_(compare("lt", const_index(0), as_index(n))):
            b.store(out, (i,), x(safe))


def test_indices_are_wrapped_and_the_first_bad_one_is_reported() -> None:
    def infer(x: TensorType, at: TensorType) -> TensorType:
        return TensorType(x.dtype, at.shape)

    node = apply(pick, given("n"), given("k", name="at"), fallible=True, infer=infer)
    x = np.arange(10, 15)
    check(node, [14, 10, 10, 14], x=x, at=np.array([-1, 0, -5, 4]))
    for bad in (5, -6):
        with pytest.raises(IndexRangeError, match="position 2"):
            jf.Session(as_tensor(node)).run(as_tensor(node), {"x": x, "at": np.array([0, 1, bad, 2, bad])})


def test_a_value_of_a_select_may_be_out_of_reach() -> None:
    def shifted(b: KernelBuilder, out: Memory, x: Memory) -> None:
        with b.rows(*x.type.shape) as (i,):
            b.store(out, (i,), select(compare("gt", i, const_index(0)), x(i - 1), 0))

    check(apply(shifted, given("n")), [0, 1, 2], x=np.array([1, 2, 3]))


# ---- rules that break the terms


def in_rows_twice(b: KernelBuilder, out: Memory, x: Memory) -> None:
    with b.rows(*x.type.shape), b.rows(*x.type.shape):
        pass


def after_rows(b: KernelBuilder, out: Memory, x: Memory) -> None:
    with b.rows(*x.type.shape) as i:
        b.store(out, i, x(*i))
    b.store(out, (0,), x(0))


def lonely_otherwise(b: KernelBuilder, out: Memory, x: Memory) -> None:
    with b.otherwise():
        b.store(out, (0,), x(0))


def second_otherwise(b: KernelBuilder, out: Memory, x: Memory) -> None:
    with b.if_(compare("gt", x(0), 0)):
        b.store(out, (0,), x(0))
    with b.otherwise():
        b.store(out, (0,), x(1))
    with b.otherwise():
        b.store(out, (0,), x(2))


def columns_of_nothing(b: KernelBuilder, out: Memory, x: Memory) -> None:
    with b.columns():
        pass


def too_few_subscripts(b: KernelBuilder, out: Memory, x: Memory) -> None:
    b.store(out, (), x(0))


def unannounced_check(b: KernelBuilder, out: Memory, x: Memory) -> None:
    b.check_index(cast(x(0), index), 3, const_index(0))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (in_rows_twice, "'test_in_rows_twice' has rows inside of something else"),
        (after_rows, "'test_after_rows' goes on after its rows"),
        (lonely_otherwise, "'test_lonely_otherwise' has an otherwise without an if_"),
        (second_otherwise, "'test_second_otherwise' has an otherwise without an if_"),
        (columns_of_nothing, "'test_columns_of_nothing' has columns outside of rows"),
        (too_few_subscripts, "of rank 1 is used with 0 subscripts"),
        (unannounced_check, "is not fallible, but checks an index"),
    ],
)
def test_a_rule_that_breaks_the_terms_is_a_bug_of_ours(rule: Callable[..., None], message: str) -> None:
    for build_it in (
        lambda: kernel_of(apply(rule, given("n"))),
        lambda: gpu_kernels([as_tensor(apply(rule, given("n")))]),
    ):
        with pytest.raises(CompilerBug, match=message):
            build_it()
