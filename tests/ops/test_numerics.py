"""Numbers that operators easily get wrong: signed zeros, NaN, extremes, promotion, orders of sums, special values."""

from __future__ import annotations

import inspect
import itertools

import mpmath
import numpy as np
import pytest

import jitflow as jf
from jitflow import nn
from jitflow.dtypes import SUPPORTED, bool_, float32, float64, int32, int64
from jitflow.errors import DTypeError, GraphError, OutOfBoundsError, ShapeError, StaticIndexError
from jitflow.graph import Node, as_node, make_placeholder
from jitflow.interp import interpret
from jitflow.ops.fold import ordered_fold, reduce_lanes
from jitflow.types import SymDim, named_dim

INF, NAN = float("inf"), float("nan")


def run(node: Node | jf.Tensor) -> np.ndarray:
    return interpret(node, {})


def check(node: Node | jf.Tensor, expected: np.ndarray) -> None:
    """Fail unless `node` has exactly the dtype, shape and bits (but for NaN) of `expected`."""
    got = run(node)
    expected = np.asarray(expected)
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind == "f":
        keep = ~np.isnan(got)
        np.testing.assert_array_equal(np.signbit(got)[keep], np.signbit(expected)[keep])


# ---- promotion

ARITHMETIC = [
    (jf.add, np.add),
    (jf.subtract, np.subtract),
    (jf.multiply, np.multiply),
    (jf.divide, np.divide),
    (jf.floor_divide, np.floor_divide),
    (jf.remainder, np.remainder),
    (jf.pow, np.power),
    (jf.maximum, np.maximum),
    (jf.less, np.less),
    (jf.equal, np.equal),
]


@pytest.mark.parametrize(("ours", "theirs"), ARITHMETIC, ids=lambda f: f.__name__)
def test_two_tensors_promote_as_in_numpy(ours, theirs) -> None:
    for a, b in itertools.product(SUPPORTED, SUPPORTED):
        x, y = np.ones(2, a.np), np.ones(2, b.np)
        if a.is_bool and b.is_bool and ours in (jf.subtract, jf.floor_divide, jf.remainder, jf.pow):
            with pytest.raises(DTypeError, match="convert with astype"):
                ours(x, y)
        else:
            check(ours(x, y), theirs(x, y))


@pytest.mark.parametrize(("ours", "theirs"), ARITHMETIC, ids=lambda f: f.__name__)
def test_python_scalars_are_weak(ours, theirs) -> None:
    for dtype, scalar in itertools.product((int32, int64, float32, float64), (True, 3, 2.5)):
        x = np.array([1, 2], dtype.np)
        check(ours(x, scalar), theirs(x, scalar))
        check(ours(scalar, x), theirs(scalar, x))


def test_python_scalars_meet_bool_as_in_numpy() -> None:
    for scalar in (True, 3, 2.5):
        x = np.array([True, False])
        check(jf.add(x, scalar), x + scalar)
        check(jf.multiply(scalar, x), scalar * x)


def test_an_int_that_does_not_fit_is_an_error_in_arithmetic_but_compares() -> None:
    x = np.array([1, 2], np.int32)
    with pytest.raises(OutOfBoundsError, match="4294967296 is out of bounds for int32"):
        jf.add(x, 2**32)
    check(jf.less(x, 2**40), np.array([True, True]))
    check(jf.equal(x, -(2**40)), np.array([False, False]))


def test_functions_of_integers_and_bool_are_float64() -> None:
    for fn, theirs in ((jf.exp, np.exp), (jf.sqrt, np.sqrt), (jf.sin, np.sin), (jf.tanh, np.tanh)):
        for dtype in (bool_, int32, int64):
            x = np.array([0, 1], dtype.np)
            check(fn(x), theirs(x.astype(np.float64)))


def test_rounding_leaves_integers_and_bool_alone() -> None:
    for fn in (jf.floor, jf.ceil, jf.trunc, jf.round):
        for dtype in (bool_, int32, int64):
            x = as_node(np.array([0, 1], dtype.np))
            assert fn(x).node is x


# ---- arithmetic at the edges


def test_f35_f36_integer_division_by_zero_gives_zero_and_the_minimum_over_minus_one_wraps() -> None:
    for dtype in (int32, int64):
        x = np.array([7, -7, 0, dtype.min, dtype.min, dtype.min], dtype.np)
        y = np.array([0, 0, 0, -1, 0, 1], dtype.np)
        check(jf.floor_divide(x, y), np.array([0, 0, 0, dtype.min, 0, dtype.min], dtype.np))
        check(jf.remainder(x, y), np.zeros(6, dtype.np))


def test_f37_integers_wrap() -> None:
    for dtype in (int32, int64):
        top, low = np.array(dtype.max, dtype.np), np.array(dtype.min, dtype.np)
        check(jf.add(top, 1), low)
        check(jf.multiply(top, 2), np.array(-2, dtype.np))
        check(jf.negative(low), low)
        check(jf.abs(low), low)
        check(jf.square(top), np.array(1, dtype.np))


def test_floor_division_and_remainder_of_floats_are_pythons() -> None:
    for a, b in itertools.product((7.5, -7.5, 0.1, 1e300, -3.0), (2.0, -2.0, 0.1, 1e-3, 3.0)):
        check(jf.floor_divide(np.array(a), np.array(b)), np.array(a // b))
        check(jf.remainder(np.array(a), np.array(b)), np.array(a % b))


def test_floor_division_of_special_floats() -> None:
    x = np.array([1.0, -1.0, 0.0, INF, 1.0, -1.0, 0.0, NAN])
    y = np.array([0.0, 0.0, 0.0, 2.0, INF, INF, -3.0, 1.0])
    check(jf.floor_divide(x, y), np.array([INF, -INF, NAN, NAN, 0.0, -1.0, -0.0, NAN]))
    check(jf.remainder(x, y), np.array([NAN, NAN, NAN, NAN, 1.0, INF, -0.0, NAN]))


def test_f41_maximum_and_minimum_take_the_second_of_equal_zeros_as_numpy_does() -> None:
    x, y = np.array([0.0, -0.0]), np.array([-0.0, 0.0])
    check(jf.maximum(x, y), y)
    check(jf.minimum(x, y), y)
    check(jf.maximum(y, x), x)
    check(jf.clip(np.array([-0.0]), 0.0, 1.0), np.array([0.0]))


def test_f40_nan_propagates_at_any_position() -> None:
    for n in (1, 2, 5, 33, 130):
        for place in {0, n // 2, n - 1}:
            x = np.arange(n, dtype=np.float32)
            x[place] = NAN
            for fn in (jf.max, jf.min, jf.sum, jf.mean):
                check(fn(x), np.array(NAN, np.float32))
            for fn in (jf.argmax, jf.argmin):
                check(fn(x), np.array(place))
            for fn in (jf.relu, lambda v: jf.clip(v, 0, 1), lambda v: jf.maximum(v, 0), lambda v: jf.minimum(0, v)):
                assert np.isnan(run(fn(x))[place])


def test_relu_gives_positive_zero() -> None:
    check(jf.relu(np.array([-0.0, -1.0, 0.0])), np.array([0.0, 0.0, 0.0]))


def test_sign_of_zeros_and_nan() -> None:
    check(jf.sign(np.array([-0.0, 0.0, NAN, -INF])), np.array([0.0, 0.0, NAN, -1.0]))


def test_round_is_to_even_and_keeps_the_sign_of_zero() -> None:
    check(jf.round(np.array([0.5, 1.5, 2.5, -0.5, -1.5])), np.array([0.0, 2.0, 2.0, -0.0, -2.0]))
    check(jf.ceil(np.array([-0.5])), np.array([-0.0]))


def test_f42_subnormals_are_kept() -> None:
    least = np.array([1e-45], np.float32)
    check(jf.multiply(least, 1.0), least)
    check(jf.divide(jf.multiply(least, 3.0), 3.0), least)


def test_f39_casts_saturate_and_nan_gives_zero() -> None:
    x = np.array([NAN, INF, -INF, 1e20, -1e20, 2147483647.5, -2147483648.9, 0.99, -0.99])
    low, top = -(2**31), 2**31 - 1
    check(jf.astype(x, int32), np.array([0, top, low, top, low, top, low, 0, 0], np.int32))
    big = np.array([2.0**63, -(2.0**63), 2.0**63 - 1024, NAN])
    check(jf.astype(big, int64), np.array([2**63 - 1, -(2**63), 2**63 - 1024, 0]))
    check(jf.astype(np.array([2**31, -1, 2**32 + 5]), int32), np.array([low, -1, 5], np.int32))
    check(jf.astype(np.array([0.0, -0.0, NAN, 1e-300]), bool_), np.array([False, False, True, True]))


def test_f38_shifts_by_the_width_or_more_and_by_less_than_nothing() -> None:
    x = np.array([-8, 5], np.int32)
    for count in (32, 33, 2**31 - 1, -1):
        check(jf.bitwise_left_shift(x, np.int32(count)), np.zeros(2, np.int32))
        check(jf.bitwise_right_shift(x, np.int32(count)), np.array([-1, 0], np.int32))
    check(jf.bitwise_right_shift(x, 1), np.array([-4, 2], np.int32))


# ---- pow


def test_integer_powers_wrap_like_repeated_products() -> None:
    for dtype in (int32, int64):
        for base, exponent in itertools.product((-3, 2, 7, dtype.min, dtype.max), (0, 1, 2, 5, 63, 64, 65, 1000)):
            exact = pow(base, exponent, 1 << dtype.bits)
            wrapped = np.array(exact, np.uint64).astype(f"uint{dtype.bits}").astype(dtype.np)
            check(jf.pow(np.array(base, dtype.np), exponent), wrapped)
            check(jf.pow(np.array(base, dtype.np), np.array(exponent, dtype.np)), wrapped)


def test_negative_integer_powers_are_truncated_fractions() -> None:
    base = np.array([0, 1, -1, -1, 2, -5])
    check(jf.pow(base, np.array([-1, -9, -3, -4, -1, -2])), np.array([0, 1, -1, 1, 0, 0]))
    with pytest.raises(GraphError, match="use a float exponent"):
        jf.pow(base, -2)


def test_float_powers_at_special_values() -> None:
    x = np.array([NAN, 1.0, -8.0, 0.0, -0.0, -0.0, INF, -INF, -INF, -1.0, 0.5, 2.0])
    y = np.array([0.0, NAN, 1 / 3, -1.0, -1.0, 3.0, -1.0, 3.0, 2.0, INF, -INF, -INF])
    check(jf.pow(x, y), np.array([1.0, 1.0, NAN, INF, -INF, -0.0, 0.0, -INF, INF, 1.0, INF, 0.0]))


def test_a_square_is_a_product() -> None:
    x = make_placeholder("x", float32, (3,))
    assert jf.pow(x, 2) is jf.multiply(x, x)
    assert jf.pow(x, 2.0) is jf.multiply(x, x)
    assert jf.pow(x, 3).node.op.name == "pow"


# ---- the order of sums


def test_f15_sums_of_zeros_are_positive_and_of_nothing_are_the_identity() -> None:
    check(jf.sum(np.array([-0.0, -0.0])), np.array(0.0))
    check(jf.sum(np.array(-0.0)), np.array(0.0))
    check(jf.sum(np.zeros((0, 2))), np.array(0.0))
    check(jf.sum(np.zeros((0, 2)), axis=0), np.zeros(2))
    check(jf.prod(np.zeros((2, 0)), axis=1), np.ones(2))
    check(jf.any(np.zeros(0, bool)), np.array(False))
    check(jf.all(np.zeros(0, bool)), np.array(True))
    check(jf.mean(np.zeros((2, 0), np.float32), axis=1), np.array([NAN, NAN], np.float32))
    check(jf.var(np.ones(1), correction=1), np.array(NAN))
    for fn in (jf.max, jf.min, jf.argmax, jf.argmin):
        with pytest.raises(ShapeError, match="of no elements"):
            fn(np.zeros((2, 0)), axis=1)


def test_sums_are_those_of_lanes_halved_pairwise() -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    lanes = [np.float32(0)] * 64
    for k, v in enumerate(x):
        lanes[k % 64] = np.float32(lanes[k % 64] + v)
    while len(lanes) > 1:
        half = len(lanes) // 2
        lanes = [np.float32(a + b) for a, b in zip(lanes[:half], lanes[half:], strict=True)]
    check(jf.sum(x), np.array(lanes[0]))


def test_sums_over_an_outer_axis_are_serial() -> None:
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    total = np.zeros(3, np.float32)
    for row in x:
        total = total + row
    check(jf.sum(x, axis=0), total)


def test_short_axes_have_as_many_lanes_as_a_power_of_two_needs() -> None:
    lanes = [reduce_lanes(float32, (3, n), (1,)) for n in (0, 1, 2, 3, 5, 63, 64, 65, 1000)]
    assert lanes == [1, 1, 2, 4, 8, 64, 64, 64, 64]
    assert reduce_lanes(float64, (1000,), (0,)) == 32
    assert reduce_lanes(int32, (1000,), (0,)) == 64
    assert reduce_lanes(float32, (1000, 3), (0,)) == 1
    assert reduce_lanes(float32, (named_dim("n"),), (0,)) == 64


def test_lanes_that_get_no_element_change_nothing() -> None:
    for op in ("add", "mul", "max", "min"):
        for n in (1, 2, 3, 5, 17):
            x = np.where(np.random.default_rng(n).random((7, n)) < 0.5, 0.0, -0.0)
            expected = x[:, 0].copy() if op in ("max", "min") else None
            got = ordered_fold(op, x, (1,), float64)
            assert got.shape == (7,)
            if op == "add":
                np.testing.assert_array_equal(np.signbit(got), False)
            if op in ("max", "min"):
                np.testing.assert_array_equal(got, np.abs(expected))


def test_reductions_are_numpys_for_every_axis() -> None:
    x = np.random.default_rng(0).integers(-5, 6, (2, 3, 4))
    pairs = [
        (jf.sum, np.sum),
        (jf.prod, np.prod),
        (jf.max, np.max),
        (jf.min, np.min),
        (jf.any, np.any),
        (jf.all, np.all),
        (jf.mean, np.mean),
    ]
    axes = [None, 0, 1, -1, (), (0, 1), (1, 2), (0, 2), (2, 0), (-1, 0), (0, 1, 2)]
    for (ours, theirs), axis, keepdims in itertools.product(pairs, axes, (False, True)):
        got, expected = run(ours(x, axis=axis, keepdims=keepdims)), theirs(x, axis=axis, keepdims=keepdims)
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-15)
    for axis, keepdims in itertools.product((None, 0, 1, 2, -1), (False, True)):
        for ours, theirs in ((jf.argmax, np.argmax), (jf.argmin, np.argmin)):
            check(ours(x, axis=axis, keepdims=keepdims), np.asarray(theirs(x, axis=axis, keepdims=keepdims)))


def test_sums_of_narrow_types_are_wide() -> None:
    check(jf.sum(np.full(3, 2**31 - 1, np.int32)), np.array(3 * (2**31 - 1)))
    check(jf.sum(np.array([True, True])), np.array(2))
    check(jf.prod(np.full(3, 2**20, np.int32)), np.array(2**60))
    check(jf.sum(np.array([1.5, 2.5], np.float32), dtype=int32), np.array(3, np.int32))
    check(jf.max(np.array([[True, False]]), axis=1), np.array([True]))
    check(jf.argmax(np.array([False, True])), np.array(1))
    with pytest.raises(DTypeError, match="use any or all"):
        jf.sum(np.array([True]), dtype=bool)


def test_trailing_axes_are_one_run() -> None:
    x = make_placeholder("x", float32, (5, 2, 3))
    node = jf.sum(x, axis=(1, 2)).node
    assert node.inputs[0].shape == (5, 6)
    assert node.attr("axes") == (1,)
    assert jf.sum(x).node.inputs[0].shape == (30,)
    assert jf.sum(x, axis=(0, 2)).node.inputs[0] is x


# ---- functions of real numbers

FUNCTIONS = {
    "exp": (jf.exp, mpmath.exp, -100.0, 88.0),
    "log": (jf.log, mpmath.log, 1e-30, 1e30),
    "tanh": (jf.tanh, mpmath.tanh, -9.0, 9.0),
    "sin": (jf.sin, mpmath.sin, -1e4, 1e4),
    "cos": (jf.cos, mpmath.cos, -1e4, 1e4),
    "erf": (jf.erf, mpmath.erf, -4.0, 4.0),
    "sqrt": (jf.sqrt, mpmath.sqrt, 0.0, 1e30),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_oracle_rounds_float32_functions_correctly(name: str) -> None:
    fn, exact, low, high = FUNCTIONS[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 200).astype(np.float32)
    with mpmath.workprec(200):
        expected = np.array([float(exact(mpmath.mpf(float(v)))) for v in x]).astype(np.float32)
    check(fn(x), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_oracle_is_within_two_units_in_float64(name: str) -> None:
    fn, exact, low, high = FUNCTIONS[name]
    x = np.random.default_rng(1).uniform(low, high, 200)
    got = run(fn(x))
    with mpmath.workprec(200):
        for v, g in zip(x, got, strict=True):
            want = exact(mpmath.mpf(float(v)))
            assert abs(mpmath.mpf(float(g)) - want) <= 2 * abs(want) * mpmath.mpf(2) ** -52


def test_functions_at_infinities_nan_and_zeros() -> None:
    x = np.array([INF, -INF, NAN, 0.0, -0.0])
    check(jf.exp(x), np.array([INF, 0.0, NAN, 1.0, 1.0]))
    check(jf.log(x), np.array([INF, NAN, NAN, -INF, -INF]))
    check(jf.tanh(x), np.array([1.0, -1.0, NAN, 0.0, -0.0]))
    check(jf.erf(x), np.array([1.0, -1.0, NAN, 0.0, -0.0]))
    check(jf.sin(x), np.array([NAN, NAN, NAN, 0.0, -0.0]))
    check(jf.cos(x), np.array([NAN, NAN, NAN, 1.0, 1.0]))
    check(jf.sqrt(x), np.array([INF, NAN, NAN, 0.0, -0.0]))
    check(jf.sigmoid(x), np.array([1.0, 0.0, NAN, 0.5, 0.5]))


def test_softmax_of_large_and_infinite_values() -> None:
    x = np.array([[1000.0, 1000.0], [-INF, 0.0], [-1e300, 1e300]])
    check(jf.softmax(x), np.array([[0.5, 0.5], [0.0, 1.0], [0.0, 1.0]]))
    check(jf.log_softmax(x[1:2]), np.array([[-INF, 0.0]]))
    assert np.isnan(run(jf.softmax(np.array([-INF, -INF])))).all()
    assert np.isnan(run(jf.softmax(np.array([INF, 0.0])))).any()


def test_softmax_of_an_empty_axis_is_empty() -> None:
    check(jf.softmax(np.zeros((3, 0), np.float32)), np.zeros((3, 0), np.float32))
    check(jf.softmax(np.zeros((0, 3), np.float32)), np.zeros((0, 3), np.float32))


def test_layer_norm_with_every_choice_of_scale_and_bias() -> None:
    rng = np.random.default_rng(0)
    x, s, b = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=3)
    plain = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(run(jf.layer_norm(x)), plain, rtol=1e-12)
    np.testing.assert_allclose(run(jf.layer_norm(x, s)), plain * s, rtol=1e-12)
    np.testing.assert_allclose(run(jf.layer_norm(x, None, b)), plain + b, rtol=1e-12)
    np.testing.assert_allclose(run(jf.layer_norm(x, s, b)), plain * s + b, rtol=1e-12)
    s4 = rng.normal(size=4)
    other = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    np.testing.assert_allclose(run(jf.layer_norm(x, s4, axis=0)), other * s4[:, None], rtol=1e-12)


def test_variance_loses_nothing_to_a_large_mean() -> None:
    x = np.array([1e8 + 1, 1e8 + 2, 1e8 + 3])
    np.testing.assert_allclose(run(jf.var(x)), 2 / 3, rtol=1e-12)
    np.testing.assert_allclose(run(jf.var(x, correction=1)), 1.0, rtol=1e-12)
    np.testing.assert_allclose(run(jf.std(x, correction=1)), 1.0, rtol=1e-12)


# ---- matmul


def test_matmul_of_vectors_matrices_and_batches_has_numpys_shape() -> None:
    rng = np.random.default_rng(0)
    shapes = [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3,)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 2)),
        ((5, 2, 3), (3, 4)),
        ((1, 5, 2, 3), (4, 1, 3, 2)),
        ((2, 0), (0, 2)),
    ]
    for a, b in shapes:
        x, y = rng.integers(-3, 4, a), rng.integers(-3, 4, b)
        check(jf.matmul(x, y), np.asarray(np.matmul(x, y)))


def test_matmul_of_bool_is_any_of_and() -> None:
    x, y = np.array([[True, False], [False, False]]), np.array([[True, True], [False, True]])
    check(jf.matmul(x, y), x @ y)


def test_matmul_errors_name_both_shapes() -> None:
    with pytest.raises(ShapeError, match=r"matmul of \(2, 3\) and \(2, 3\): axes -1 and -2: 3 and 2 differ"):
        jf.matmul(np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"matmul of \(\) and \(2,\): a 0-d tensor"):
        jf.matmul(np.float64(1), np.ones(2))


# ---- creation


def test_arange_is_numpys() -> None:
    for args in ((5,), (2, 9), (2, 9, 3), (9, 2, -2), (0,), (5, 2), (0, 1, 0.1), (1.0, 3.0), (-1.5, 1.0, 0.25), (-3,)):
        check(jf.arange(*args), np.arange(*args))
    check(jf.arange(4, dtype=float32), np.arange(4, dtype=np.float32))
    check(jf.arange(0, 1, 0.1, dtype="float32"), np.arange(0, 1, 0.1, dtype=np.float32))


def test_arange_of_a_symbolic_length() -> None:
    x = make_placeholder("x", float32, (named_dim("n"),))
    n = SymDim(named_dim("n"))
    for start, step in ((0, 1), (2, 3), (9, 1)):
        got = interpret(jf.add(jf.arange(start, n, step), jf.sum(x)), {x: np.zeros(7, np.float32)})
        np.testing.assert_array_equal(got, np.arange(start, 7, step))


def test_arange_refuses_what_has_no_end() -> None:
    for args, text in (((0, 5, 0), "step must be"), ((0.0, INF), "must be finite"), ((0, 1, NAN), "step must be")):
        with pytest.raises(ShapeError, match=text):
            jf.arange(*args)
    with pytest.raises(DTypeError, match="not bool"):
        jf.arange(3, dtype=bool)


def test_full_takes_the_dtype_of_its_value() -> None:
    check(jf.full(2, True), np.array([True, True]))
    check(jf.full((2,), 3), np.array([3, 3]))
    check(jf.full((2,), 3.0), np.array([3.0, 3.0]))
    check(jf.full((), -0.0, dtype="float32"), np.array(-0.0, np.float32))
    check(jf.full((2,), np.float32(3)), np.array([3, 3], np.float32))
    check(jf.zeros_like(np.ones((2, 1), np.int32)), np.zeros((2, 1), np.int32))
    with pytest.raises(OutOfBoundsError, match="out of bounds for int32"):
        jf.full((2,), 2**31, dtype="int32")
    with pytest.raises(ShapeError, match="cannot be negative"):
        jf.zeros((-1,))


# ---- movement


def test_pad_is_numpys_for_every_form_of_widths() -> None:
    x = np.arange(6).reshape(2, 3)
    for width in (0, 1, (1, 2), ((1, 2),), ((0, 1), (2, 0)), [[1, 1], [0, 0]], np.array([[1, 0], [0, 1]])):
        check(jf.pad(x, width), np.pad(x, width))
        check(jf.pad(x, width, constant_values=7), np.pad(x, width, constant_values=7))
    check(jf.pad(x, 1, "constant", 2.9), np.pad(x, 1, "constant", constant_values=2))
    with pytest.raises(GraphError, match="unknown mode 'mean'"):
        jf.pad(x, 1, mode="mean")
    with pytest.raises(ShapeError, match="does not fit the axes"):
        jf.pad(x, ((1, 1), (1, 1), (1, 1)))
    with pytest.raises(ShapeError, match="negative"):
        jf.pad(x, -1)


def test_movement_is_numpys() -> None:
    x = np.arange(24).reshape(2, 3, 4)
    check(jf.moveaxis(x, 0, -1), np.moveaxis(x, 0, -1))
    check(jf.moveaxis(x, (0, 1), (-1, 0)), np.moveaxis(x, (0, 1), (-1, 0)))
    check(jf.matrix_transpose(x), np.matrix_transpose(x))
    check(jf.expand_dims(x, axis=(0, -1)), np.expand_dims(x, (0, -1)))
    check(jf.squeeze(x[:1], axis=0), x[0])
    check(jf.squeeze(x[:1, :, :1]), np.squeeze(x[:1, :, :1]))
    check(jf.flip(x), np.flip(x))
    check(jf.roll(x, 5), np.roll(x, 5))
    check(jf.roll(x, (1, -6), axis=(2, 0)), np.roll(x, (1, -6), (2, 0)))
    check(jf.concat([x, x], axis=None), np.concatenate([x, x], axis=None))
    check(jf.concat([x, x.astype(np.float32)], axis=-1), np.concatenate([x, x.astype(np.float32)], -1))
    check(jf.stack([x, x], axis=-1), np.stack([x, x], -1))
    check(jf.reshape(x, (4, -1)), x.reshape(4, -1))


AXIS_ERRORS = [
    lambda x: jf.sum(x, axis=2),
    lambda x: jf.argmax(x, axis=-3),
    lambda x: jf.softmax(x, axis=2),
    lambda x: jf.expand_dims(x, axis=4),
    lambda x: jf.squeeze(x, 5),
    lambda x: jf.flip(x, axis=2),
    lambda x: jf.roll(x, 1, axis=2),
    lambda x: jf.concat([x, x], axis=2),
    lambda x: jf.stack([x, x], axis=3),
    lambda x: jf.permute_dims(x, (0, 2)),
    lambda x: jf.take(x, [0], axis=2),
    lambda x: jf.moveaxis(x, 2, 0),
    lambda x: jf.layer_norm(x, axis=2),
]


@pytest.mark.parametrize("k", range(len(AXIS_ERRORS)))
def test_f18_an_axis_that_is_not_there_is_both_a_value_and_an_index_error(k: int) -> None:
    with pytest.raises(StaticIndexError, match=r"axis -?\d is out of range for rank \d\n  at .*test_numerics\.py:\d+$"):
        AXIS_ERRORS[k](np.ones((2, 3)))
    assert issubclass(StaticIndexError, ValueError)
    assert issubclass(StaticIndexError, IndexError)


def test_f18_an_axis_named_twice_is_a_shape_error() -> None:
    with pytest.raises(ShapeError, match=r"sum: axes \(0, -2\) name an axis twice \(rank 2\)"):
        jf.sum(np.ones((2, 3)), axis=(0, -2))
    with pytest.raises(DTypeError, match="axis must be an int"):
        jf.sum(np.ones((2, 3)), axis=1.5)


def test_f11_broadcasting_errors_name_all_shapes() -> None:
    with pytest.raises(ShapeError, match=r"add: shapes \(2, 3\) and \(4,\) do not broadcast"):
        jf.add(np.ones((2, 3)), np.ones(4))
    with pytest.raises(ShapeError, match=r"where: shapes \(2,\) and \(3,\) and \(\)"):
        jf.where(np.ones(2, bool), np.ones(3), 0.0)


# ---- examples


def test_every_public_function_has_a_documented_example() -> None:
    public = {**{name: getattr(jf, name) for name in jf.__all__}, **{name: getattr(nn, name) for name in nn.__all__}}
    names = [name for name, value in public.items() if inspect.isfunction(value) and value.__module__ == "jitflow"]
    assert {"add", "where", "softmax"} <= set(names)
    for name in names:
        assert ">>> " in (inspect.getdoc(public[name]) or ""), name
