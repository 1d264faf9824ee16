"""Running sums, products and extrema: against numpy, of every dtype; their gradients; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import SUPPORTED
from jitflow.errors import DTypeError, ShapeError, StaticIndexError
from jitflow.ops.testdata import draw

INTEGERS = [d for d in SUPPORTED if d.is_integer or d.is_bool]
F64 = np.float64


def run(make: Any, x: Any) -> Any:
    """Return what the compiled `make` gives for `x`, whose axes are symbolic."""
    x = np.asarray(x)
    given = jf.placeholder("x", x.dtype, tuple(f"d{k}" for k in range(x.ndim)))
    made = make(given)
    return jf.Session(made).run(made, {"x": x})


def test_integers_and_bool_are_summed_as_by_numpy() -> None:
    rng = np.random.default_rng(0)
    for dtype in INTEGERS:
        x = draw(rng, dtype, 4, 33)
        x[:, 5] = True if dtype.is_bool else dtype.max
        given = jf.placeholder("x", dtype, ("n", "m"))
        made = [jf.cumulative_sum(given, axis=1), jf.cumulative_prod(given, axis=0), given.cumsum()]
        expected = [np.cumsum(x, axis=1), np.cumprod(x, axis=0), np.cumsum(x)]
        for got, want in zip(jf.Session(made).run(made, {"x": x}), expected, strict=True):
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(got, want)


def test_the_initial_element_is_that_of_no_elements() -> None:
    x = np.array([[2.0, 3.0], [5.0, 7.0]])
    sums, products = run(
        lambda t: [
            jf.cumulative_sum(t, axis=-1, include_initial=True),
            jf.cumulative_prod(t, axis=0, include_initial=True),
        ],
        x,
    )
    np.testing.assert_array_equal(sums, np.cumulative_sum(x, axis=-1, include_initial=True))
    np.testing.assert_array_equal(products, np.cumulative_prod(x, axis=0, include_initial=True))
    (none,) = run(lambda t: [jf.cumulative_sum(t, include_initial=True)], np.zeros(0))
    np.testing.assert_array_equal(none, [0.0])


def test_a_dtype_given_is_the_one_added_in() -> None:
    assert run(lambda t: jf.cumulative_sum(t, dtype=jf.int8), np.array([100, 100], np.int32)).tolist() == [100, -56]
    halves = np.full(3000, 1, np.float16)
    # In float16 the sum would stop at 2048; it is kept in float32 and each element rounded once.
    assert run(jf.cumulative_sum, halves)[2999] == 3000
    assert run(lambda t: jf.cumulative_sum(t, dtype=jf.float64), halves).dtype == F64


def test_nan_goes_on_and_the_first_of_equal_zeros_stays() -> None:
    x = np.array([-0.0, 0.0, 1.0, np.nan, 2.0, -np.inf])
    most, least = run(lambda t: [jf.cumulative_max(t), jf.cumulative_min(t)], x)
    np.testing.assert_array_equal(most, np.maximum.accumulate(x))
    np.testing.assert_array_equal(least, np.minimum.accumulate(x))
    assert np.signbit(most[:2]).all()


def test_numpys_functions_build_running_folds() -> None:
    x = np.arange(6, dtype=np.int8).reshape(2, 3)
    t = jf.placeholder("t", jf.int8, (2, 3))
    built = [
        (np.cumsum(t, 1), np.cumsum(x, 1)),
        (np.cumprod(t), np.cumprod(x)),
        (np.cumulative_sum(t, axis=0, include_initial=True), np.cumulative_sum(x, axis=0, include_initial=True)),
        (np.cumulative_prod(t, axis=0, dtype=np.int16), np.cumulative_prod(x, axis=0, dtype=np.int16)),
        (np.add.accumulate(t), np.add.accumulate(x)),
        (np.multiply.accumulate(t, 1), np.multiply.accumulate(x, 1)),
        (np.maximum.accumulate(t, axis=1), np.maximum.accumulate(x, axis=1)),
        (np.logaddexp.accumulate(t), np.logaddexp.accumulate(x.astype(F64))),
        (t.cumprod(axis=1), x.cumprod(axis=1)),
    ]
    for tensor, want in built:
        got = jf.interpret(tensor, {"t": x})
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-15)
    with pytest.raises(TypeError, match=r"subtract\.accumulate does not take Tensors"):
        np.subtract.accumulate(t)
    with pytest.raises(TypeError, match=r"np.cumsum: a Tensor cannot be written into an array"):
        np.cumsum(t, out=x)


def slopes(make: Any, x: Any, weights: Any) -> Any:
    t = jf.placeholder("x", F64, ("n",))
    (slope,) = jf.gradients(jf.sum(make(t) * np.asarray(weights, F64)), [t])
    return jf.Session(slope).run(slope, {"x": np.asarray(x, F64)})


def test_slopes_of_products_are_right_at_zeros() -> None:
    weights = [1.0, 10.0, 100.0, 1000.0]
    # Products of a, ab, abc, abcd: the slope of b is a*10 + ac*100 + acd*1000.
    np.testing.assert_array_equal(slopes(jf.cumulative_prod, [2, 0, 3, 5], weights), [1, 2 * (10 + 300 + 15000), 0, 0])
    np.testing.assert_array_equal(slopes(jf.cumulative_prod, [2, 0, 0, 5], weights), [1, 20, 0, 0])
    np.testing.assert_array_equal(slopes(jf.cumulative_prod, [0, 2, 3, 4], weights), [1 + 20 + 600 + 24000, 0, 0, 0])


def test_slopes_of_extrema_go_to_the_first_that_held_them() -> None:
    weights = [1.0, 10.0, 100.0, 1000.0, 10000.0]
    np.testing.assert_array_equal(slopes(jf.cumulative_max, [3, 3, 1, 4, 4], weights), [111, 0, 0, 11000, 0])
    np.testing.assert_array_equal(slopes(jf.cumulative_min, [3, 1, 1, 2, 0], weights), [1, 1110, 0, 0, 10000])
    np.testing.assert_array_equal(slopes(jf.cumulative_max, [1, np.nan, 5, np.nan, 2], weights), [1, 11110, 0, 0, 0])
    np.testing.assert_array_equal(slopes(jf.cumulative_max, [-np.inf, -np.inf, 0, 0, 0], weights), [11, 0, 11100, 0, 0])


def test_logarithms_of_running_sums_neither_overflow_nor_lose_digits() -> None:
    rng = np.random.default_rng(1)
    for dtype, rtol in ((np.float32, 3e-6), (np.float64, 1e-14)):
        for scale in (1, 300, 5000):
            x = (rng.normal(size=400) * scale + 2 * scale).astype(dtype)
            want = np.logaddexp.accumulate(x.astype(np.longdouble))
            np.testing.assert_allclose(run(jf.logcumsumexp, x), want, rtol=rtol, atol=rtol)
    x = np.array([-np.inf, -np.inf, -800.0, 5.0, np.inf, -np.inf, np.nan])
    with np.errstate(invalid="ignore"):
        want = np.logaddexp.accumulate(x)
    np.testing.assert_allclose(run(jf.logcumsumexp, x), want, rtol=1e-15)
    # The slope of the last result is the softmax of what went in.
    np.testing.assert_allclose(
        slopes(jf.logcumsumexp, [1000.0, 1001.0, -np.inf, 999.0], [0, 0, 0, 1]),
        np.exp([-1.0, 0, -np.inf, -2]) / (np.exp(-1) + 1 + np.exp(-2)),
        rtol=1e-12,
    )


def test_what_makes_no_sense_is_refused() -> None:
    x = jf.placeholder("x", jf.float32, (2, 3))
    with pytest.raises(ShapeError, match=r"cumulative_sum: axis is needed, since x has shape \(2, 3\)"):
        jf.cumulative_sum(x)
    with pytest.raises(ShapeError, match=r"cumulative_prod: axis is needed, since x has shape \(\)"):
        jf.cumulative_prod(jf.constant(1.0))
    with pytest.raises(StaticIndexError, match="cumulative_max: axis 2 is out of range for rank 2"):
        jf.cumulative_max(x, axis=2)
    with pytest.raises(DTypeError, match="cumulative_sum: the result cannot be bool"):
        jf.cumulative_sum(x, axis=0, dtype=jf.bool)
    with pytest.raises(DTypeError, match="cumulative_min takes integers and floats, not bool"):
        jf.cumulative_min(jf.placeholder("b", jf.bool, (3,)))


def test_rows_are_a_parallel_loop_and_columns_are_vectors() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m", 64))
    last, middle = (jf.Session(jf.cumulative_sum(x, axis=a)).dump("loops") for a in (2, 1))
    assert "parallel" in last
    assert "parallel" in middle
    assert "vectorized" not in last  # each sum needs the one before it
    assert "vectorized j0 in 64" in middle
