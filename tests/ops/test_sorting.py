"""Sorting, the greatest few, search and quantiles: against numpy's stable sort, bit for bit, for every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import SUPPORTED
from jitflow.errors import DTypeError, FeedError, GraphError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.ops.testdata import edges
from tests.support.bits import same_bits

F32, F64 = np.float32, np.float64


def run(tensors: Any, **feeds: Any) -> Any:
    return jf.Session(tensors).run(tensors, feeds)


def descending(x: Any) -> Any:
    """Return the positions of ``x`` from the greatest to the least, NaN first, equal elements in their order."""
    return x.shape[-1] - 1 - np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]


def few_values(rng: np.random.Generator, dtype: Any, *shape: int) -> Any:
    """Return values with many repetitions: zeros of both signs, infinities, NaN, extremes."""
    return rng.choice(edges(dtype), shape)


def test_every_length_around_the_runs_is_sorted() -> None:
    rng = np.random.default_rng(0)
    x = jf.placeholder("x", jf.float32, ("n",))
    made = [jf.sort(x), jf.argsort(x), jf.sort(x, descending=True), jf.argsort(x, descending=True)]
    with jf.Session(made) as session:
        for n in [*range(70), 127, 128, 129, 1000, 4097]:
            for data in (few_values(rng, jf.float32, n), rng.normal(size=n).astype(F32)):
                with np.errstate(all="ignore"):
                    up, down = np.argsort(data, kind="stable"), descending(data)
                for got, want in zip(session.run(made, {"x": data}), (data[up], up, data[down], down), strict=True):
                    assert same_bits(got, want), n


def test_orders_that_are_worst_for_other_sorts_are_no_trouble() -> None:
    n = 3000
    k = np.arange(n)
    orders = [k, -k, np.zeros(n), k % 2, k % 7, np.minimum(k, n - k), (k * 7919) % n, np.r_[k[:-1], -1], k ^ 1]
    x = jf.placeholder("x", jf.int64, (len(orders), "n"))
    data = np.array(orders, np.int64)
    places, values = run([jf.argsort(x), jf.sort(x, descending=True)], x=data)
    np.testing.assert_array_equal(places, np.argsort(data, kind="stable"))
    np.testing.assert_array_equal(values, np.sort(data)[:, ::-1])


@pytest.mark.parametrize("dtype", SUPPORTED)
def test_long_lines_of_every_dtype(dtype: Any) -> None:
    """Long enough to be sorted byte by byte, with bytes in which all agree and ones in which none do."""
    rng = np.random.default_rng(7)
    data = few_values(rng, dtype, 1100)
    if dtype.kind in "iu":
        data[:500] = rng.integers(dtype.min, dtype.max, 500, dtype.np, endpoint=True)
    keys = data.astype(F32) if dtype.is_half else data
    x = jf.placeholder("x", dtype, ("n",))
    up, down = np.argsort(keys, kind="stable"), descending(keys)
    values, places = run([jf.sort(x), jf.argsort(x, descending=True)], x=data)
    assert same_bits(values, data[up])
    np.testing.assert_array_equal(places, down)


def test_every_axis_is_sorted_as_by_numpy() -> None:
    rng = np.random.default_rng(1)
    feeds, made, expected = {}, [], []
    for dtype in (jf.bool, jf.uint64, jf.float16, jf.bfloat16, jf.float32):
        data = few_values(rng, dtype, 3, 19, 2)
        x = jf.placeholder(dtype.name, dtype, ("a", "b", "c"))
        feeds[dtype.name] = data
        # bfloat16 arrays are not sorted by numpy itself; float32 holds them.
        keys = data.astype(F32) if dtype.is_half else data
        for axis in (0, 1, -1) if dtype is jf.float32 else (1,):
            up = np.argsort(keys, axis=axis, kind="stable")
            down = np.moveaxis(descending(np.moveaxis(keys, axis, -1)), -1, axis)
            made += [x.argsort(axis), jf.sort(x, axis=axis, descending=True)]
            expected += [up, np.take_along_axis(data, down, axis)]
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == want.dtype
        assert same_bits(got, want)


def test_the_greatest_few_are_the_front_of_a_sort() -> None:
    rng = np.random.default_rng(2)
    feeds, made, expected = {}, [], []
    for dtype in SUPPORTED:
        data = few_values(rng, dtype, 4, 90)
        x = jf.placeholder(dtype.name, dtype, ("a", "b"))
        feeds[dtype.name] = data
        keys = data.astype(F32) if dtype.is_half else data
        cases = [(5, -1, False), (64, 1, True), (65, 1, True), (90, 1, False), (3, 0, True)]
        for k, axis, largest in cases if dtype is jf.float32 else [(7, 1, True)]:
            turned = np.moveaxis(keys, axis, -1)
            order = descending(turned) if largest else np.argsort(turned, kind="stable")
            want = np.moveaxis(order[..., :k], -1, axis)
            made += jf.top_k(x, k, axis=axis, largest=largest)
            expected += [np.take_along_axis(data, want, axis), want]
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == want.dtype
        assert same_bits(got, want)


def test_there_must_be_as_many_as_are_asked_for() -> None:
    x, long = jf.placeholder("x", jf.float32, (2, 3)), jf.placeholder("y", jf.float32, ("n",))
    with pytest.raises(ShapeError, match="top_k: there are no 4 elements along an axis of size 3"):
        jf.top_k(x, 4)
    with pytest.raises(ShapeError, match="top_k: there are no -1 elements"):
        jf.top_k(x, -1)
    with pytest.raises(DTypeError, match="top_k: k must be an int"):
        jf.top_k(x, 1.5)
    assert jf.top_k(x, 0)[0].shape == (2, 0)
    values, places = jf.top_k(long, 3)
    assert run([values, places], y=np.ones(3, F32))[1].tolist() == [0, 1, 2]
    with pytest.raises(FeedError, match="top_k: 3 elements along an axis of size n"):
        run(values, y=np.ones(2, F32))


def test_search_finds_numpys_places() -> None:
    rng = np.random.default_rng(3)
    feeds, made, expected = {}, [], []
    for dtype in SUPPORTED:
        if dtype.is_half:
            continue  # numpy searches among float32 here
        line, wanted = few_values(rng, dtype, 50), few_values(rng, dtype, 3, 20)
        order = np.argsort(line, kind="stable")
        a, b = jf.placeholder(f"a{dtype}", dtype, ("n",)), jf.placeholder(f"b{dtype}", dtype, ("p", "q"))
        feeds.update({a.name: line, b.name: wanted, f"o{dtype}": order})
        o = jf.placeholder(f"o{dtype}", jf.int64, ("n",))
        for side in ("left", "right"):
            made += [jf.searchsorted(a, b, side=side, sorter=o), jf.sort(a).searchsorted(b, side)]
            expected += [np.searchsorted(line[order], wanted, side=side)] * 2
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want)
    with pytest.raises(IndexRangeError):
        run(jf.searchsorted(jf.constant([1.0, 2.0]), 1.5, sorter=jf.placeholder("s", "i8", (2,))), s=np.array([0, 2]))
    assert jf.interpret(jf.searchsorted(jf.constant([1, 2, 3]), jf.constant([2.5])), {}).tolist() == [2]


def test_many_elements_are_looked_for_as_a_few_are() -> None:
    rng = np.random.default_rng(8)
    made, feeds, expected = [], {}, []
    for dtype in SUPPORTED:
        for count in (0, 16, 17, 60):
            # Each is in `wanted` or not by what `==` says, pair by pair: NaN is nowhere, -0.0 where 0.0 is.
            x, wanted = few_values(rng, dtype, 3, 5), few_values(rng, dtype, count)
            for shape in ((count,), (f"{dtype.name}{count}",)):
                tensor, kept = jf.placeholder(None, dtype, (3, 5)), jf.placeholder(None, dtype, shape)
                made += [jf.isin(tensor, kept), jf.isin(tensor, kept, invert=True)]
                feeds |= {tensor: x, kept: wanted}
                found = (x[..., None] == wanted).any(-1)
                expected += [found, ~found]
    for got in (jf.Session(made).run(made, feeds), jf.interpret(made, feeds)):
        for one, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 40])
def test_integers_that_no_dtype_holds_together_are_told_apart(count: int) -> None:
    signed, unsigned = np.array([2**53, 2**62, -1, 7]), np.full(count, 2**53 + 1, np.uint64)
    unsigned[0] = 7
    x, wanted = jf.placeholder("x", jf.int64, (4,)), jf.placeholder("wanted", jf.uint64, (count,))
    found = [jf.isin(x, wanted), jf.isin(jf.astype(x, jf.uint64), jf.astype(wanted, jf.int64))]
    for got in run(found, x=signed, wanted=unsigned):
        assert got.tolist() == [False, False, False, True]


def test_medians_and_quantiles_are_numpys() -> None:
    rng = np.random.default_rng(4)
    made, expected, feeds = [], [], {}
    for number, shape in enumerate(((1,), (2,), (7,), (8, 3), (3, 4, 5))):
        data = rng.normal(size=shape)
        x = jf.placeholder(f"x{number}", jf.float64, tuple(f"d{n}" for n in shape))
        feeds[x.name] = data
        for axis, keepdims in ((None, True), (0, False), (-1, True), (tuple(range(len(shape))), False)):
            made.append(jf.median(x, axis=axis, keepdims=keepdims))
            expected.append(np.median(data, axis=axis, keepdims=keepdims))
        for method in ("linear", "lower", "higher", "midpoint", "nearest"):
            q = np.array([[0.0, 0.25, 0.5], [2 / 3, 0.9, 1.0]])
            made.append(jf.quantile(x, q, axis=0, method=method, keepdims=True))
            expected.append(np.quantile(data, q, axis=0, method=method, keepdims=True))
        made.append(jf.percentile(x, 37.5))
        expected.append(np.percentile(data, 37.5))
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert got.shape == np.shape(want)
        np.testing.assert_allclose(got, want, rtol=1e-14, atol=1e-15)


def test_quantiles_at_the_edges() -> None:
    x = jf.placeholder("x", jf.float64, ("k", "n"))
    top, tiny = np.finfo(F64).max, 5e-324
    data = np.array([[1, np.nan, 2, 3], [np.inf, np.inf, 0, 1], [top, top, top, top], [tiny, tiny, tiny, tiny]])
    middle, most = run([jf.median(x, axis=1), jf.quantile(x, 1.0, axis=1)], x=data)
    np.testing.assert_array_equal(middle, [np.nan, np.inf, top, tiny])
    np.testing.assert_array_equal(most, [np.nan, np.inf, top, tiny])
    halves = jf.placeholder("h", jf.float16, ("n",))
    assert run(jf.median(halves), h=np.array([1, 1.001], np.float16)).dtype == np.float16
    whole = jf.constant([1, 2, 4, 8])
    assert jf.interpret(jf.median(whole), {}) == 3.0
    clipped = jf.quantile(whole, jf.placeholder("q", jf.float64, ()))
    assert [run(clipped, q=q) for q in (-1.0, 0.0, 2.0)] == [1, 1, 8]
    with pytest.raises(GraphError, match=r"quantile: q must lie between 0 and 1, got \[0.5, 1.5\]"):
        jf.quantile(whole, [0.5, 1.5])
    with pytest.raises(GraphError, match="quantile: unknown method 'weibull'"):
        jf.quantile(whole, 0.5, method="weibull")
    with pytest.raises(ShapeError, match=r"median of no elements: shape \(0, 3\) over axes \(0,\)"):
        jf.median(jf.placeholder("e", jf.float64, (0, 3)), axis=0)


def test_what_makes_no_sense_is_refused() -> None:
    x = jf.placeholder("x", jf.float32, (2, 3))
    for function in (jf.sort, jf.argsort):
        with pytest.raises(StaticIndexError, match="sort: axis 2 is out of range for rank 2"):
            function(x, axis=2)
        with pytest.raises(ShapeError, match="sort: a 0-d tensor has no axis to sort along"):
            function(jf.constant(1.0))
    with pytest.raises(GraphError, match="side must be 'left' or 'right', got 'middle'"):
        jf.searchsorted(x[0], x, side="middle")
    with pytest.raises(ShapeError, match=r"x1 must have one axis, got shape \(2, 3\)"):
        jf.searchsorted(x, x)


def test_slopes_go_where_the_elements_came_from() -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(size=(3, 11))
    x = jf.placeholder("x", jf.float64, ("k", "n"))
    w = np.arange(11.0) + 1
    loss = jf.sum(jf.sort(x, descending=True) * w)
    (slope,) = jf.gradients(loss, [x])
    want = np.empty_like(data)
    np.put_along_axis(want, np.argsort(-data, axis=1), np.broadcast_to(w, data.shape), axis=1)
    np.testing.assert_array_equal(run(slope, x=data), want)
    (slope,) = jf.gradients(jf.sum(jf.top_k(x, 2)[0]), [x])
    np.testing.assert_array_equal(run(slope, x=data), (data >= np.sort(data, axis=1)[:, -2:-1]).astype(F64))
    (slope,) = jf.gradients(jf.sum(jf.median(x, axis=1)), [x])
    np.testing.assert_array_equal(run(slope, x=data), (data == np.median(data, axis=1)[:, None]).astype(F64))


def test_rows_are_sorted_in_parallel_with_memory_of_their_own() -> None:
    text = jf.Session(jf.sort(jf.placeholder("x", jf.float32, ("k", "n")))).dump("loops")
    assert "parallel i0 in k:" in text
    assert text.index("parallel") < text.index("alloc values")


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_search_in_what_is_not_sorted_is_as_defined_as_any_other(side: str) -> None:
    rng = np.random.default_rng(4)
    x, v = jf.placeholder("x", jf.uint64, ("n",)), jf.placeholder("v", jf.uint64, ("m",))
    y = jf.searchsorted(x, v, side=side)
    with jf.Session(y) as session:
        for n in (0, 1, 2, 7, 20):
            for line in (rng.integers(0, 9, n, np.uint64), np.sort(rng.integers(0, 9, n, np.uint64))):
                feeds = {x: line, v: np.arange(10, dtype=np.uint64)}
                got = session.run(y, feeds)
                np.testing.assert_array_equal(got, jf.interpret(y, feeds))
                if np.all(line[:-1] <= line[1:]):
                    np.testing.assert_array_equal(got, np.searchsorted(line, feeds[v], side=side))
