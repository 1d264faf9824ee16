"""Same bits, whatever is fused, fetched or folded, and for every target; the numbers of the design's semantics."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest

import jitflow as jf
from jitflow import config
from jitflow.graph import toposort
from jitflow.tensor import as_tensor
from tests.support.bits import same_bits
from tests.support.compiled import runnable

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(11)
F32 = np.float32


def network() -> tuple[dict[jf.Tensor, Array], list[jf.Tensor]]:
    """Return feeds and results that use every kind of group: maps, rows, columns, products, gathers."""
    x = jf.placeholder("x", jf.float32, ("n", 37))
    w = jf.variable("w", RNG.standard_normal((37, 19)).astype(F32))
    i = jf.placeholder("i", jf.int64, (5,))
    h = jf.gelu(x @ w * 0.3 + jf.variable("b", RNG.standard_normal(19).astype(F32)))
    p = jf.softmax(h)
    results = [
        p,
        jf.layer_norm(h),
        jf.sum(p * h, axis=0),
        jf.var(x, axis=1),
        jf.take(h, i, axis=0),
        jf.sum(jf.exp(x) * x.T.T),
        jf.concat([x[:, ::-2], h], axis=1),
        jf.argmax(p, axis=1),
        jf.mean(jf.reshape(x, (-1,))),
        h.T @ h,
    ]
    feeds: dict[jf.Tensor, Array] = {x: RNG.standard_normal((23, 37)).astype(F32), i: np.array([0, 22, -1, 5, 5])}
    return feeds, results


@pytest.fixture(scope="module")
def reference() -> tuple[dict[jf.Tensor, Array], list[jf.Tensor], list[Array]]:
    feeds, results = network()
    with jf.Session(results) as session:
        return feeds, results, session.run(results, feeds)


def test_bits_do_not_depend_on_fusion(reference: Any) -> None:
    feeds, results, want = reference
    with config.override(fuse=False), jf.Session(results) as session:
        for t, got, w in zip(results, session.run(results, feeds), want, strict=True):
            assert same_bits(got, w), t


def test_bits_do_not_depend_on_what_else_is_fetched(reference: Any) -> None:
    feeds, results, want = reference
    with jf.Session(results) as session:
        for t, w in zip(results, want, strict=True):
            needed = set(toposort([t.node]))
            assert same_bits(session.run(t, {k: v for k, v in feeds.items() if k.node in needed}), w), t
        everything = [as_tensor(n) for n in toposort([t.node for t in results])]
        got = dict(zip(everything, session.run(everything, feeds), strict=True))
        for t, w in zip(results, want, strict=True):
            assert same_bits(got[t], w), t


def test_bits_do_not_depend_on_the_run_the_entry_or_the_layout_of_feeds(reference: Any) -> None:
    feeds, results, want = reference
    with jf.Session(results) as session:
        inputs = list(feeds)
        native, portable = session.function(inputs, results), session.function(inputs, results, native=False)
        arrays = list(feeds.values())
        shifted = [np.concatenate([a.reshape(-1)[:1], a.reshape(-1)])[1:].reshape(a.shape) for a in arrays]
        for f in (native, portable):
            for given in (arrays, shifted, [np.asfortranarray(a) for a in arrays]):
                assert all(map(same_bits, f(*given), want))
        with config.override(debug_poison=True), jf.Session(results) as poisoned:
            assert all(map(same_bits, poisoned.run(results, feeds), want))


def test_bits_of_an_inner_node_do_not_depend_on_where_the_graph_is_cut(reference: Any) -> None:
    feeds, results, want = reference
    nodes = {n.op.name: as_tensor(n) for n in toposort([t.node for t in results])}
    h = nodes["gelu"]
    with jf.Session(results) as session:
        x = next(iter(feeds))
        value = session.run(h, {x: feeds[x]})
        assert same_bits(session.run(results[0], {h: value}), want[0])
        assert same_bits(session.run(results[9], {h: value}), want[9])


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_a_row_has_the_same_bits_in_every_batch(batch: int) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 33))
    w = jf.constant(RNG.standard_normal((33, 5)).astype(F32))
    y = jf.softmax(jf.tanh(x @ w))
    feed = np.random.default_rng(1).standard_normal((64, 33)).astype(F32)
    with jf.Session(y) as session:
        whole = session.run(y, {x: feed})
        parts = [session.run(y, {x: feed[k : k + batch]}) for k in range(0, 64, batch)]
    assert same_bits(np.concatenate(parts), whole)


def test_folded_is_computed() -> None:
    a = RNG.standard_normal((9, 9)).astype(F32)
    functions = {
        "exp": jf.exp,
        "tanh": jf.tanh,
        "sum": jf.sum,
        "matmul": lambda t: t @ t,
        "softmax": jf.softmax,
        "mean": lambda t: jf.mean(t, axis=0),
        "chain": lambda t: jf.log(jf.abs(t) + 1.0) / 3.0,
    }
    x = jf.placeholder("x", jf.float32, (9, 9))
    folded = {k: f(jf.constant(a)) for k, f in functions.items()}
    state = {k: f(jf.variable(None, a)) for k, f in functions.items()}
    computed = {k: f(x) for k, f in functions.items()}
    with jf.Session([folded, state, computed]) as session:
        got, stated, want = session.run([folded, state, computed], {x: a})
    for k in functions:
        assert same_bits(got[k], want[k]), k
        assert same_bits(stated[k], want[k]), k


@pytest.mark.parametrize("target", [t.name for t in runnable()[:-1]])
def test_every_target_is_right_and_fusion_changes_no_bit_there(target: str, reference: Any) -> None:
    feeds, results, _ = reference
    want = jf.interpret(results, feeds)
    with config.override(target_cpu=target):
        with jf.Session(results) as session:
            got = session.run(results, feeds)
        with config.override(fuse=False), jf.Session(results) as plain:
            unfused = plain.run(results, feeds)
    for t, g, u, w in zip(results, got, unfused, want, strict=True):
        assert same_bits(g, u), t
        np.testing.assert_allclose(g, w, rtol=2e-4, atol=2e-5)


def test_fast_math_changes_bits_only_when_asked() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = (x / 3.0) * 0.1 * 7.0 + 0.0 + 1.5 + 2.5
    feed = np.linspace(-5, 5, 1000, dtype=F32)
    with jf.Session(y) as exact, jf.Session(y, fast_math=True) as fast:
        a, b = exact.run(y, {x: feed}), fast.run(y, {x: feed})
        assert "divide" in exact.dump("fused")
        assert "divide" not in fast.dump("fused")
    np.testing.assert_array_equal(a, (feed / F32(3)) * F32(0.1) * F32(7) + F32(0) + F32(1.5) + F32(2.5))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert not same_bits(a, b)


def test_user_arithmetic_is_not_contracted() -> None:
    x = jf.placeholder("x", jf.float32, (3, 1000))
    y = x[0] * x[1] + x[2]
    feed = RNG.standard_normal((3, 1000)).astype(F32)
    with jf.Session(y) as session:
        assert same_bits(session.run(y, {x: feed}), feed[0] * feed[1] + feed[2])


#: Products with a single column are added in lanes, as sums are, and so not among these.
SHAPES = [
    ((1, 7), (1, 3), (3, 7)),
    ((1, 7), (1, 300), (300, 7)),
    ((3, 3), (3, 4), (4, 3)),
    ((70, 40), (70, 3), (3, 40)),
    ((70, 40), (70, 300), (300, 40)),
    ((2, 3, 4), (2, 3, 5), (2, 5, 4)),
]


@pytest.mark.parametrize(("shape", "left", "right"), SHAPES)
def test_a_product_is_one_chain_of_fused_multiply_adds(shape: Any, left: Any, right: Any) -> None:
    x, y = jf.placeholder("a", jf.float32, left), jf.placeholder("b", jf.float32, right)
    with jf.Session(x @ y) as session:
        for _ in range(30 if len(shape) < 2 else 1):  # rounding each product changes one element in ten
            # 20 bits each: a product and a partial sum are exact in float64, so rounding that to float32 rounds once.
            a, b = (_twenty_bits(s) for s in (left, right))
            rows = a.reshape((-1, 1, a.shape[-1]) if a.ndim == 1 else (*a.shape[:-1], 1, a.shape[-1]))
            columns = b[:, None] if b.ndim == 1 else b
            want = np.zeros((*rows.shape[:-2], columns.shape[-1]), F32)
            for k in range(a.shape[-1]):
                term = rows[..., 0, k, None].astype(np.float64) * columns[..., k, :][..., None, :].astype(np.float64)
                want = (want.astype(np.float64) + term.reshape(want.shape)).astype(F32)
            assert same_bits(session.run(x @ y, {x: a, y: b}), want.reshape(shape))


def _twenty_bits(shape: tuple[int, ...]) -> Array:
    sign = RNG.choice([-1, 1], shape)
    return (sign * RNG.integers(2**19, 2**20, shape)).astype(F32) / F32(2**20)


# ---- numbers


def both(build: Any, *feeds: Array) -> Array:
    """Return what is compiled, after checking that the interpreter gives the same bits."""
    inputs = [jf.placeholder(f"x{k}", a.dtype, a.shape) for k, a in enumerate(feeds)]
    y = build(*inputs)
    given = dict(zip(inputs, feeds, strict=True))
    with jf.Session(y) as session:
        got = session.run(y, given)
    assert same_bits(got, jf.interpret(y, given))
    folded = build(*map(jf.constant, feeds))
    with jf.Session(folded) as session:
        assert same_bits(session.run(folded), got)
    return got


INTEGERS = {
    np.int32: np.array([0, 1, -1, 7, -7, 2**31 - 1, -(2**31)], np.int32),
    np.int64: np.array([0, 1, -1, 7, -7, 2**63 - 1, -(2**63)], np.int64),
}


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_f37_integers_wrap(dtype: Any) -> None:
    a = np.repeat(INTEGERS[dtype], 7)
    b = np.tile(INTEGERS[dtype], 7)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(both(lambda x, y: x + y, a, b), a + b)
        np.testing.assert_array_equal(both(lambda x, y: x - y, a, b), a - b)
        np.testing.assert_array_equal(both(lambda x, y: x * y, a, b), a * b)
        np.testing.assert_array_equal(both(lambda x: -x, a), -a)
        np.testing.assert_array_equal(both(abs, a), np.abs(a))
        np.testing.assert_array_equal(both(jf.sum, a), a.sum(dtype=np.int64))
        np.testing.assert_array_equal(both(jf.prod, a[:5]), a[:5].prod(dtype=np.int64))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_f35_f36_integer_division_floors_and_never_traps(dtype: Any) -> None:
    a = np.repeat(INTEGERS[dtype], 7)
    b = np.tile(INTEGERS[dtype], 7)
    low = np.iinfo(dtype).min
    quotient, remainder = both(lambda x, y: x // y, a, b), both(lambda x, y: x % y, a, b)
    for x, y, q, r in zip(a.tolist(), b.tolist(), quotient.tolist(), remainder.tolist(), strict=True):
        if y == 0:
            assert (q, r) == (0, 0)
        elif (x, y) == (low, -1):
            assert (q, r) == (low, 0)
        else:
            assert (q, r) == (x // y, x % y)


@pytest.mark.parametrize("source", [F32, np.float64])
@pytest.mark.parametrize("target", [np.int32, np.int64])
def test_f39_float_to_int_truncates_saturates_and_turns_nan_to_0(source: Any, target: Any) -> None:
    low, high = np.iinfo(target).min, np.iinfo(target).max
    a = np.array([0.9, -0.9, 1.5, -1.5, np.nan, np.inf, -np.inf, 1e30, -1e30, -0.0, float(low)], source)
    got = both(lambda x: x.astype(target), a)
    assert got.tolist() == [0, 0, 1, -1, 0, high, low, high, low, 0, low]


def test_other_conversions() -> None:
    wide = np.array([2**31, -(2**31) - 1, 2**32 + 5, -1], np.int64)
    np.testing.assert_array_equal(both(lambda x: x.astype(jf.int32), wide), wide.astype(np.int32))
    halves = np.array([2**24 + 1, 2**24 + 3, 2**31 - 1], np.int32)
    np.testing.assert_array_equal(both(lambda x: x.astype(jf.float32), halves), halves.astype(F32))
    double = np.array([1 + 2.0**-24, 1 + 3 * 2.0**-24, 1e-46, 1e39, np.nan])
    with np.errstate(over="ignore"):
        assert same_bits(both(lambda x: x.astype(jf.float32), double), double.astype(F32))
    truth = both(lambda x: x.astype(jf.bool), np.array([0.0, -0.0, 2.0, np.nan, 1e-45], F32))
    assert truth.tolist() == [False, False, True, True, True]
    assert both(lambda x: x.astype(jf.int64), np.array([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_f40_nan_propagates_from_every_position(dtype: Any) -> None:
    x = jf.placeholder("x", dtype, (67,))
    grid = jf.stack([x, jf.ones((67,), dtype=dtype), jf.flip(x)])
    folds = {f.__name__: f(x) for f in (jf.max, jf.min, jf.sum, jf.mean)}
    places = {f.__name__: f(x) for f in (jf.argmax, jf.argmin)}
    maps = {"relu": jf.relu(x), "clip": jf.clip(x, -1.0, 1.0), "max": jf.maximum(x, 0.0), "min": jf.minimum(0.0, x)}
    rows, columns = jf.max(grid, axis=1), jf.min(grid, axis=0)
    fetches = [folds, places, maps, rows, columns]
    with jf.Session(fetches) as session:
        for place in (0, 1, 15, 16, 40, 66):
            a = np.random.default_rng(place).standard_normal(67).astype(dtype)
            a[place] = np.nan
            got = session.run(fetches, {x: a})
            want = jf.interpret(fetches, {x: a})
            for results in (got, want):
                assert all(np.isnan(v) for v in results[0].values())
                assert all(v == place for v in results[1].values())
                assert all(np.flatnonzero(np.isnan(v)).tolist() == [place] for v in results[2].values())
                assert np.isnan(results[3]).tolist() == [True, False, True]
                assert set(np.flatnonzero(np.isnan(results[4])).tolist()) == {place, 66 - place}
    for f in (jf.max, jf.argmax, jf.relu):
        both(f, a)


@pytest.mark.parametrize("dtype", [F32, np.float64])
def test_f41_signed_zeros_follow_one_rule_everywhere(dtype: Any) -> None:
    a = np.array([0.0, -0.0, 0.0, -0.0] * 5, dtype)
    b = np.array([0.0, 0.0, -0.0, -0.0] * 5, dtype)
    for f in (
        jf.maximum,
        jf.minimum,
        lambda x, y: x + y,
        lambda x, y: x - y,
        lambda x, y: x * y,
        lambda x, y: jf.where(x == y, x, y),
        lambda x, y: jf.relu(x) + jf.sign(y),
        lambda x, y: jf.clip(x, -0.0, 0.0) * jf.abs(y),
        lambda x, y: jf.max(x) + jf.min(y),
        lambda x, y: jf.sum(x) + jf.floor(y) + jf.round(x) + jf.ceil(y),
    ):
        both(f, a, b)
    assert np.signbit(both(lambda x: -x, a)).tolist() == [True, False] * 10
    assert np.signbit(both(lambda x: x + 0.0, a)).tolist() == [False] * 20
    assert np.signbit(both(lambda x: x - 0.0, a)).tolist() == [False, True] * 10
    assert np.signbit(both(lambda x: x * 1.0, a)).tolist() == [False, True] * 10


@contextmanager
def floating_point_mode(bits: int) -> Iterator[None]:
    """Set the MXCSR register of this thread to `bits` (0x8040 flushes subnormals) for the block."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    text = """
    declare void @llvm.x86.sse.ldmxcsr(ptr)
    declare void @llvm.x86.sse.stmxcsr(ptr)
    define void @load(ptr %p) { call void @llvm.x86.sse.ldmxcsr(ptr %p) ret void }
    define void @save(ptr %p) { call void @llvm.x86.sse.stmxcsr(ptr %p) ret void }
    """
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text), machine)
    engine.finalize_object()
    load, save = (ctypes.CFUNCTYPE(None, ctypes.c_void_p)(engine.get_function_address(n)) for n in ("load", "save"))
    word = ctypes.c_uint32()
    save(ctypes.byref(word))
    before = word.value
    load(ctypes.byref(ctypes.c_uint32(bits)))
    try:
        yield
        save(ctypes.byref(word))
        assert word.value & ~0x3F == bits, "the mode of the caller was changed"
    finally:
        load(ctypes.byref(ctypes.c_uint32(before)))


@pytest.mark.skipif(not llvm.get_process_triple().startswith("x86_64"), reason="MXCSR is a register of x86")
def test_f42_subnormals_are_kept_whatever_the_callers_mode() -> None:
    x = jf.placeholder("x", jf.float32, (19,))
    y = [x * 1.0, x * 0.5, x + x, jf.sum(x), x.astype(jf.float64).astype(jf.float32), jf.maximum(x, -x), jf.sqrt(x)]
    feed = np.full(19, 1e-42, F32)
    feed[3] = 1e-45
    want = [feed, feed * F32(0.5), feed + feed, None, feed, feed, np.sqrt(feed)]
    with jf.Session(y) as session:
        functions = [session.function([x], y), session.function([x], y, native=False)]
        normal = functions[0](feed)
        # 0x8000 flushes results to zero, 0x40 takes subnormal inputs for zero, 0x6000 rounds towards zero.
        for mode in (0x1F80, 0x1F80 | 0x8040, 0x1F80 | 0x6000, 0x1F80 | 0xE040):
            for f in functions:
                with floating_point_mode(mode):
                    got = f(feed)
                assert all(map(same_bits, got, normal)), hex(mode)
    for g, w in zip(normal, want, strict=True):
        if w is not None:
            assert same_bits(g, w)
    assert normal[3] > 1e-41
