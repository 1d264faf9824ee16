"""Scatters: against numpy for every dtype and mode, the order of duplicates, bad indices, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import SUPPORTED
from jitflow.errors import DTypeError, GraphError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.ops.testdata import draw
from tests.support.bits import same_bits

F32, F64 = np.float32, np.float64
UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def run(tensors: Any, **feeds: Any) -> Any:
    return jf.Session(tensors).run(tensors, feeds)


def table_and_rows(*width: int) -> Any:
    """Return a table, row numbers and rows."""
    return (
        jf.placeholder("x", jf.float32, ("n", *width)),
        jf.placeholder("i", jf.int64, ("k",)),
        jf.placeholder("u", jf.float32, ("k", *width)),
    )


def applied(x: Any, key: Any, updates: Any, mode: str) -> Any:
    """Return `x` after numpy's own update at `key`."""
    out = np.array(x)
    if mode == "set":
        out[key] = updates
    else:
        UFUNCS[mode].at(out, key, updates)
    return out


def test_random_scatters_are_numpys() -> None:
    rng = np.random.default_rng(0)
    feeds, made, expected = {}, [], []
    for number in range(120):
        dtype = SUPPORTED[number % len(SUPPORTED)]
        mode = "set" if dtype.is_bool or dtype.is_half else ["set", "add", "mul", "min", "max"][number // 13 % 5]
        shape = tuple(rng.integers(1, 5, rng.integers(1, 4)))
        axis = int(rng.integers(len(shape)))
        places = rng.integers(-shape[axis], shape[axis], rng.integers(0, 4, rng.integers(0, 3)))
        x = draw(rng, dtype, *shape)
        u = draw(rng, dtype, *shape[:axis], *places.shape, *shape[axis + 1 :])
        names = f"x{number}", f"i{number}", f"u{number}"
        feeds.update(zip(names, (x, places, u), strict=True))
        given = jf.placeholder(names[0], dtype, x.shape), jf.placeholder(names[1], jf.int64, places.shape)
        made.append(jf.scatter(*given, jf.placeholder(names[2], dtype, u.shape), axis=axis, mode=mode))
        key = (*(slice(None) for _ in range(axis)), places)
        expected.append(applied(x, key, u, mode))
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert same_bits(got, want), f"{got}\n{want}"


def test_random_scatters_along_an_axis_are_numpys() -> None:
    rng = np.random.default_rng(1)
    feeds, made, expected = {}, [], []
    for number in range(60):
        mode = ["set", "add", "mul", "min", "max"][number % 5]
        shape = tuple(rng.integers(1, 20, rng.integers(1, 4)))
        axis = int(rng.integers(len(shape)))
        wide = tuple(int(rng.integers(0, 30)) if k == axis else n for k, n in enumerate(shape))
        x, u = draw(rng, jf.float64, *shape), draw(rng, jf.float64, *wide)
        places = rng.integers(-shape[axis], shape[axis], wide)
        names = f"x{number}", f"i{number}", f"u{number}"
        feeds.update(zip(names, (x, places, u), strict=True))
        dims = tuple(f"d{n}" for n in shape)
        full = tuple(f"k{n}" if k == axis else f"d{n}" for k, n in enumerate(wide))
        given = jf.placeholder(names[0], jf.float64, dims), jf.placeholder(names[1], jf.int64, full)
        made.append(jf.scatter_along_axis(*given, jf.placeholder(names[2], jf.float64, full), axis=axis, mode=mode))
        others = list(np.ix_(*map(np.arange, wide)))
        others[axis] = places
        expected.append(applied(x, tuple(others), u, mode))
    for got, want in zip(run(made, **feeds), expected, strict=True):
        assert same_bits(got, want)


def test_f44_duplicates_are_applied_in_order() -> None:
    rng = np.random.default_rng(2)
    count = 5000
    i = rng.integers(0, 7, count)
    u = (rng.normal(size=count) * 10.0 ** rng.integers(-6, 7, count)).astype(F32)
    x = jf.placeholder("x", jf.float32, ("n",))
    args = jf.placeholder("i", jf.int64, ("k",)), jf.placeholder("u", jf.float32, ("k",))
    last, total = run([jf.scatter(x, *args), jf.scatter(x, *args, mode="add")], x=np.zeros(7, F32), i=i, u=u)
    sums, lasts = [0.0] * 7, [0.0] * 7
    for k, v in zip(i, u, strict=True):
        sums[k] = F32(sums[k]) + v
        lasts[k] = v
    assert total.tolist() == sums
    assert last.tolist() == lasts


@pytest.mark.parametrize("bad", [5, -6, 2**40])
def test_f43_a_bad_index_is_named_and_nothing_is_written(bad: int) -> None:
    x, i, u = table_and_rows(3)
    y = jf.scatter(x, i, u, mode="add").named("y")
    scatter = jf.Session([y]).function([x, i, u], y)
    feeds = np.ones((5, 3), F32), np.array([0, 4, bad, 1]), np.ones((4, 3), F32)
    out = np.full((5, 3), 7, F32)
    with pytest.raises(IndexRangeError, match=r"scatter .*: index out of range at position 2 of its indices"):
        scatter(*feeds, out=out)
    assert (out == 7).all()
    assert (feeds[0] == 1).all()
    with pytest.raises(IndexRangeError, match=f"scatter: index {bad} at 2 is out of range for axis 0 of size 5"):
        jf.interpret(y, dict(zip((x, i, u), feeds, strict=True)))
    # The session can be used again.
    assert scatter(feeds[0], np.array([0, 4, 2, 1]), feeds[2])[4, 0] == 2


def test_f43_nothing_can_be_written_to_an_empty_axis() -> None:
    x, i, u = table_and_rows()
    y = jf.scatter(x, i, u)
    none, one = np.zeros(0), np.zeros(1)
    with pytest.raises(IndexRangeError, match="out of range at position 0"):
        run(y, x=none.astype(F32), i=one.astype(np.int64), u=one.astype(F32))
    assert run(y, x=none.astype(F32), i=none.astype(np.int64), u=none.astype(F32)).shape == (0,)


def test_an_index_of_2_to_the_63_is_no_negative_one() -> None:
    x = jf.placeholder("x", jf.float32, (3,))
    y = jf.scatter(x, jf.placeholder("i", jf.uint64, (1,)), jf.constant(np.ones(1, F32)))
    with pytest.raises(IndexRangeError):
        run(y, x=np.zeros(3, F32), i=np.array([2**64 - 1], np.uint64))


def test_updates_broadcast_and_are_never_narrowed() -> None:
    x = jf.placeholder("x", jf.float32, (3, 2))
    made = [
        jf.scatter(x, [[0], [2]], 5),
        jf.scatter(x, [0, 2], np.array([1, 2], np.int8)),
        jf.scatter_along_axis(x, [[1]], 9),
    ]
    a, b, c = run(made, x=np.zeros((3, 2), F32))
    assert a.tolist() == [[5, 5], [0, 0], [5, 5]]
    assert b.tolist() == [[1, 2], [0, 0], [1, 2]]
    assert c.tolist() == [[0, 9]] * 3
    for updates in (1.5, np.float32(1.5), np.int64(1)):
        with pytest.raises(DTypeError, match=r"scatter: updates of (float|int)\d+ into int32; convert with astype"):
            jf.scatter(jf.constant(np.zeros(2, np.int32)), [0], updates)
    with pytest.raises(ShapeError, match=r"broadcast_to: \(3,\) does not broadcast to \(2, 2\)"):
        jf.scatter(x, [0, 1], np.ones(3, F32))
    with pytest.raises(GraphError, match="unknown mode 'sum'"):
        jf.scatter(x, [0], 1, mode="sum")
    with pytest.raises(StaticIndexError, match="scatter: axis 2 is out of range for rank 2"):
        jf.scatter(x, [0], 1, axis=2)


def test_segments_fold_by_number() -> None:
    rng = np.random.default_rng(3)
    data, ids = rng.normal(size=(20, 3)), np.sort(rng.integers(0, 4, 20))
    ids[ids == 2] = 3  # segment 2 has no elements
    x, i = jf.placeholder("x", jf.float64, ("n", 3)), jf.placeholder("i", jf.int64, ("n",))
    functions = [jf.segment_sum, jf.segment_prod, jf.segment_max, jf.segment_min, jf.segment_mean]
    got = run([f(x, i, 5) for f in functions], x=data, i=ids)
    folds = [
        lambda a: np.cumsum(a, axis=0)[-1],
        lambda a: np.cumprod(a, axis=0)[-1],
        lambda a: a.max(0),
        lambda a: a.min(0),
        lambda a: np.cumsum(a, axis=0)[-1] / len(a),
    ]
    for result, fold, nothing in zip(got, folds, (0, 1, -np.inf, np.inf, np.nan), strict=True):
        for k in range(5):
            part = data[ids == k]
            np.testing.assert_array_equal(result[k], fold(part) if len(part) else np.full(3, nothing))
    with pytest.raises(IndexRangeError, match="position 19"):
        run(jf.segment_sum(x, i, 3), x=data, i=np.r_[np.zeros(19, np.int64), 3])


def slopes(make: Any, *arrays: Any) -> Any:
    """Return the gradients of a weighted sum of what `make` gives for `arrays`."""
    given = [jf.placeholder(f"a{k}", F64, a.shape) for k, a in enumerate(arrays)]
    made = make(*given)
    weights = np.random.default_rng(9).normal(size=made.shape)
    found = jf.gradients(jf.sum(made * weights), given)
    feeds = {t.name: a for t, a in zip(given, arrays, strict=True) if is_needed(found, t)}
    return weights, jf.Session(found).run(found, feeds)


def is_needed(fetches: Any, given: Any) -> bool:
    return f'name="{given.name}"' in jf.show_graph(fetches)


def test_slopes_of_set_go_to_the_last_update_of_a_place() -> None:
    i = np.array([1, 3, 1, -1])
    w, (dx, du) = slopes(lambda x, u: jf.scatter(x, i, u), np.zeros(4), np.ones(4))
    np.testing.assert_array_equal(dx, [w[0], 0, w[2], 0])
    np.testing.assert_array_equal(du, [0, 0, w[1], w[3]])


def test_slopes_of_products_are_right_at_zeros() -> None:
    i = np.array([0, 0, 1, 2, 2])
    x, u = np.array([2.0, 0.0, 3.0]), np.array([0.0, 5.0, 7.0, 0.0, 0.0])
    w, (dx, du) = slopes(lambda x, u: jf.scatter(x, i, u, mode="mul"), x, u)
    np.testing.assert_allclose(dx, w * [0, 7, 0])
    np.testing.assert_allclose(du, w[i] * [10, 0, 0, 0, 0])


def test_equal_extrema_share_their_slope() -> None:
    i = np.array([0, 0, 1])
    w, (dx, du) = slopes(lambda x, u: jf.scatter(x, i, u, mode="max"), np.array([3.0, 5.0]), np.array([3.0, 3.0, 4.0]))
    np.testing.assert_allclose(dx, w * [1 / 3, 1])
    np.testing.assert_allclose(du, w[i] * [1 / 3, 1 / 3, 0])


def test_the_slope_of_take_is_a_scatter_whose_work_grows_with_the_indices_alone() -> None:
    table, rows = jf.placeholder("t", jf.float32, ("n", 4)), jf.placeholder("i", jf.int64, ("k",))
    weights = jf.placeholder("w", jf.float32, ("k", 4))
    (slope,) = jf.gradients(jf.sum(jf.take(table, rows, axis=0) * weights), [table])
    t, w = np.zeros((50_000, 4), F32), np.ones((60_000, 4), F32)
    i = np.random.default_rng(5).integers(0, 50_000, 60_000)
    # Comparing every row with every index would take 12e9 steps.
    want = np.zeros_like(t)
    np.add.at(want, i, w)
    found = jf.Session(slope)
    feeds = {table: t, "i": i, "w": w}
    np.testing.assert_array_equal(found.run(slope, feeds), want)


def test_columns_are_vectors_under_one_check() -> None:
    x, i, u = table_and_rows(64)
    text = jf.Session(jf.scatter(x, i, u, mode="add")).dump("loops")
    assert text.count("check_index") == 1
    assert text.index("check_index") < text.rindex("vectorized")
