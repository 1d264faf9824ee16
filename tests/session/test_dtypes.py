"""Every dtype all the way: placeholders, variables, constants, feeds of any layout, outputs, texts, both entries."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, DType, bfloat16, bool_, float32
from jitflow.graph_text import graph_arrays, parse_graph, same_graph, show_graph
from jitflow.ops.testdata import draw, edges
from lowering.text import parse_kernel, show
from tests.support.bits import same_bits
from tests.support.lowered import kernels_of

EVERY = pytest.mark.parametrize("dtype", ALL, ids=str)


def assert_same(got: np.ndarray, want: np.ndarray) -> None:
    assert same_bits(np.asarray(got), np.asarray(want)), f"{got!r} is not {want!r}"


@EVERY
def test_values_pass_unchanged(dtype: DType) -> None:
    data = edges(dtype)
    x = jf.placeholder("x", dtype, ("n",))
    variable, constant = jf.variable("v", data), jf.constant(data)
    swapped = jf.constant(data.astype(dtype.np.newbyteorder()))
    fetches = [jf.flip(x), jf.flip(variable), jf.concat([constant, x]), jf.where(jf.equal(x, x), x, swapped)]
    session = jf.Session(fetches)
    for got, want in zip(session.run(fetches, {x: data}), jf.interpret(fetches, {x: data}), strict=True):
        assert_same(got, want)
    assert_same(session.run(fetches[0], {x: data}), data[::-1])
    assert_same(session.run(fetches[1], {}), data[::-1])


@EVERY
def test_feeds_of_any_layout_and_lists(dtype: DType) -> None:
    rng = np.random.default_rng(2)
    data = draw(rng, dtype, 6, 4)
    x = jf.placeholder("x", dtype, ("n", "m"))
    y = jf.flip(x, axis=0)
    session = jf.Session([y])
    predict = session.function([x], y)
    raw = np.zeros(data.nbytes + 1, np.uint8)
    unaligned = raw[1:].view(dtype.np).reshape(6, 4)
    unaligned[...] = data
    swapped = data.astype(dtype.np.newbyteorder())
    layouts = [data, np.asfortranarray(data), np.repeat(data, 2, axis=1)[:, ::2], data[::-1][::-1], unaligned, swapped]
    for layout in layouts:
        np.testing.assert_array_equal(session.run(y, {x: layout}), data[::-1])
        np.testing.assert_array_equal(predict(layout), data[::-1])
        np.testing.assert_array_equal(jf.interpret(y, {x: layout}), data[::-1])
    np.testing.assert_array_equal(session.run(y, {x: data.tolist()}), data[::-1])
    np.testing.assert_array_equal(jf.interpret(y, {x: data.tolist()}), data[::-1])
    np.testing.assert_array_equal(session.run(y, {x: [list(row) for row in data]}), data[::-1])
    np.testing.assert_array_equal(jf.interpret(y, {x: [list(row) for row in data]}), data[::-1])
    other = np.float32 if dtype is not float32 else np.float64
    for refused in (data.astype(other), data.astype(bfloat16.np if dtype is not bfloat16 else np.float16)):
        with pytest.raises(jf.FeedError, match=f"{dtype.name}.* got {refused.dtype}"):
            session.run(y, {x: refused})
        with pytest.raises(jf.FeedError, match=f"{dtype.name}, got {refused.dtype}"):
            jf.interpret(y, {x: refused})


@EVERY
def test_results_go_into_arrays_of_their_dtype_alone(dtype: DType) -> None:
    data = edges(dtype)
    x = jf.placeholder("x", dtype, (len(data),))
    y = jf.flip(x)
    predict = jf.Session([y]).function([x], y)
    out = np.zeros(len(data), dtype.np)
    assert predict(data, out=out) is out
    assert_same(out, data[::-1])
    strided = np.zeros(2 * len(data), dtype.np)[::2]
    predict(data, out=strided)
    assert_same(strided, data[::-1])
    wrong = np.zeros(len(data), bool if dtype is not bool_ else np.int8)
    with pytest.raises(jf.FeedError, match=f"out for .* must be {dtype.name} of shape .*, got {wrong.dtype}"):
        predict(data, out=wrong)
    if dtype.itemsize > 1:
        with pytest.raises(jf.FeedError, match="must be"):
            predict(data, out=out.astype(dtype.np.newbyteorder()))


@EVERY
def test_constants_are_written_and_read_back(dtype: DType) -> None:
    data = edges(dtype)
    x = jf.placeholder("x", dtype, ("n", len(data)))
    y = jf.where(jf.equal(x, jf.constant(data)), jf.full((), data[-1].item(), dtype=dtype), jf.pad(x, 0))
    text = show_graph(y.node)
    again = parse_graph(text, graph_arrays(y.node))
    assert same_graph(again, y.node)
    (node,) = again.fetches.values()
    assert_same(jf.interpret(node, {"x": data[None, :]}), jf.interpret(y, {x: data[None, :]}))
    for kernel in kernels_of(y):
        assert show(parse_kernel(show(kernel))) == show(kernel)


@EVERY
def test_weak_scalars_take_the_dtype(dtype: DType) -> None:
    data = draw(np.random.default_rng(0), dtype, 5)
    x = jf.placeholder("x", dtype, (5,))
    fetches = [jf.where(x == 1, True if dtype.is_bool else 1, x), jf.concat([x, x])[:3]]
    if not dtype.is_bool:
        fetches += [x + 2, 3 * x, jf.maximum(x, 4), jf.clip(x, 1, 5), x**2]
    if dtype.is_float:
        fetches += [x * 0.1, x / 3]
    for fetch, got in zip(fetches, jf.Session(fetches).run(fetches, {x: data}), strict=True):
        assert fetch.dtype is dtype
        assert_same(got, jf.interpret(fetch, {x: data}))


@EVERY
def test_reductions_have_the_dtypes_of_the_standard(dtype: DType) -> None:
    data = draw(np.random.default_rng(0), dtype, 40)
    x = jf.placeholder("x", dtype, ("n",))
    total = dtype if dtype.is_float else jf.uint64 if dtype.kind == "u" else jf.int64
    mean = dtype if dtype.is_float else jf.float64
    wanted = {
        jf.sum(x): total,
        jf.prod(x[:5]): total,
        jf.max(x): dtype,
        jf.min(x): dtype,
        jf.mean(x): mean,
        jf.var(x): mean,
        jf.std(x): mean,
        jf.argmax(x): jf.int64,
        jf.argmin(x): jf.int64,
        jf.any(x): bool_,
        jf.all(x): bool_,
    }
    for (fetch, of), got in zip(wanted.items(), jf.Session(list(wanted)).run(list(wanted), {x: data}), strict=True):
        assert fetch.dtype is of
        assert got.dtype == of.np
        np.testing.assert_allclose(got.astype(float), jf.interpret(fetch, {x: data}).astype(float), rtol=1e-2)
    wide = data.astype(np.float64)
    exact = jf.Session(list(wanted)).run(list(wanted)[:4], {x: data})
    eps = 0.0 if not dtype.is_float else jf.finfo(dtype).eps
    np.testing.assert_allclose(exact[0].astype(float), wide.sum(), rtol=2 * eps, atol=40 * eps)
    assert float(exact[2]) == wide.max()
    assert float(exact[3]) == wide.min()


@EVERY
def test_products_of_matrices(dtype: DType) -> None:
    rng = np.random.default_rng(4)
    a, b = draw(rng, dtype, 19, 33), draw(rng, dtype, 33, 21)
    x, y = jf.placeholder("x", dtype, ("m", "k")), jf.placeholder("y", dtype, ("k", "n"))
    got = jf.Session([x @ y]).run(x @ y, {x: a, y: b})
    if not dtype.is_float:
        np.testing.assert_array_equal(got, a @ b, strict=True)
    else:
        exact = a.astype(np.float64) @ b.astype(np.float64)
        size = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
        eps = jf.finfo(dtype).eps
        narrow = eps / 2 if dtype.is_half else 0
        bound = narrow * np.abs(exact) + 34 * max(eps if not dtype.is_half else 2.0**-23, 2.0**-52) * size
        assert got.dtype == dtype.np
        assert (np.abs(got.astype(np.float64) - exact) <= bound).all()


@EVERY
def test_comparisons_count_in_the_dtype(dtype: DType) -> None:
    x = jf.placeholder("x", dtype, (30,))
    report = jf.compare(jf.where(x > x[::-1], x, x[::-1]), {x: draw(np.random.default_rng(0), dtype, 30)})
    assert report.ok
    assert {row.max_ulp for row in report.rows} == {0.0}
