"""Trigonometric and hyperbolic functions as users call them, and the functions of float bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import jitflow as jf

INF, NAN, PI = math.inf, math.nan, math.pi
#: Ours, numpy's, mpmath's, and where they are compared.
FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any], float, float]] = {
    "tan": (jf.tan, np.tan, mpmath.tan, -1e4, 1e4),
    "asin": (jf.asin, np.arcsin, mpmath.asin, -1.0, 1.0),
    "acos": (jf.acos, np.arccos, mpmath.acos, -1.0, 1.0),
    "atan": (jf.atan, np.arctan, mpmath.atan, -30.0, 30.0),
    "sinh": (jf.sinh, np.sinh, mpmath.sinh, -80.0, 80.0),
    "cosh": (jf.cosh, np.cosh, mpmath.cosh, -80.0, 80.0),
    "asinh": (jf.asinh, np.arcsinh, mpmath.asinh, -1e6, 1e6),
    "acosh": (jf.acosh, np.arccosh, mpmath.acosh, 1.0, 1e6),
    "atanh": (jf.atanh, np.arctanh, mpmath.atanh, -1.0, 1.0),
}
FLOATS = [jf.float16, jf.bfloat16, jf.float32, jf.float64]


def _run(x: Any) -> np.ndarray:
    return jf.interpret(x, {})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_oracle_rounds_float32_and_is_within_two_units_in_float64(name: str) -> None:
    ours, _, exact, low, high = FUNCTIONS[name]
    x = np.random.default_rng(0).uniform(low, high, 150).astype(np.float32)
    with mpmath.workprec(200):
        want = [exact(mpmath.mpf(float(v))) for v in x]
        rounded = np.array([float(v) for v in want]).astype(np.float32)
        assert np.array_equal(_run(ours(jf.constant(x))), rounded)
        for got, value in zip(_run(ours(jf.constant(x.astype(np.float64)))), want, strict=True):
            assert abs(mpmath.mpf(float(got)) - value) <= 2 * abs(value) * mpmath.mpf(2) ** -52


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_functions_build_them_and_integers_are_taken_as_float64(name: str) -> None:
    ours, theirs, *_ = FUNCTIONS[name]
    x = jf.placeholder("x", jf.float32, (3,))
    assert theirs(x).node is ours(x).node
    assert ours(x).dtype == jf.float32
    whole = ours(np.array([1, 0]))
    assert whole.dtype == jf.float64
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(_run(whole), theirs(np.array([1.0, 0.0])), rtol=1e-15)


def test_numpys_functions_of_two_floats_and_of_bits_build_them() -> None:
    x, y = jf.placeholder("x", jf.float32, (3,)), jf.placeholder("y", jf.float32, (2, 1))
    assert np.arctan2(x, y).node is jf.atan2(x, y).node
    assert np.copysign(x, y).node is jf.copysign(x, y).node
    assert np.nextafter(x, y).node is jf.nextafter(x, y).node
    assert np.signbit(x).node is jf.signbit(x).node
    assert jf.atan2(x, y).shape == (2, 3)
    assert jf.signbit(x).dtype == jf.bool_
    assert jf.atan2(np.array([1]), np.array([True])).dtype == jf.float64


def test_shapes_that_do_not_broadcast_are_refused() -> None:
    x, y = jf.placeholder("x", jf.float32, (3,)), jf.placeholder("y", jf.float32, (2,))
    for function in (jf.atan2, jf.copysign, jf.nextafter):
        with pytest.raises(jf.ShapeError, match=r"shapes \(3,\) and \(2,\) do not broadcast"):
            function(x, y)


def test_gradients_are_the_derivatives() -> None:
    def slope(function: Callable[..., Any], at: float) -> float:
        x = jf.placeholder("x", jf.float64, ())
        return float(jf.interpret(jf.gradients(function(x), [x])[0], {x: at}))

    assert slope(jf.tan, PI / 4) == pytest.approx(2)
    assert slope(jf.asin, 0.6) == pytest.approx(1 / 0.8)
    assert slope(jf.acos, 0.6) == pytest.approx(-1 / 0.8)
    assert slope(jf.atan, 3.0) == pytest.approx(0.1)
    assert slope(jf.sinh, 0.0) == 1
    assert slope(jf.cosh, 0.0) == 0
    assert slope(jf.asinh, 0.75) == pytest.approx(0.8)
    assert slope(jf.acosh, 1.25) == pytest.approx(1 / 0.75)
    assert slope(jf.atanh, 0.5) == pytest.approx(4 / 3)
    assert slope(lambda y: jf.atan2(y, 4.0), 3.0) == pytest.approx(4 / 25)
    assert slope(lambda x: jf.atan2(3.0, x), 4.0) == pytest.approx(-3 / 25)
    assert slope(lambda x: jf.copysign(x, -1.0), 2.0) == -1
    assert slope(lambda x: jf.copysign(x, -1.0), -2.0) == 1
    x = jf.placeholder("x", jf.float64, ())
    assert jf.interpret(jf.gradients(jf.nextafter(x, 9.0), [x])[0], {}) == 1


# ---- bits of floats


def _patterns(dtype: Any, n: int) -> np.ndarray:
    """Return floats of every bit pattern (16 bits), or of random ones."""
    of, width = np.dtype(dtype.np), dtype.bits
    if width == 16:
        return np.arange(1 << 16, dtype=np.uint16).view(of)
    return np.random.default_rng(3).integers(0, 1 << width, n, np.dtype(f"u{width // 8}")).view(of)


def test_float_bits_of_every_dtype_are_numpys() -> None:
    given, nodes, wanted = {}, [], []
    for dtype in FLOATS:
        x = _patterns(dtype, 4096)
        y = np.roll(x, 777)
        a, b = (jf.placeholder(f"{dtype}_{k}", dtype, x.shape) for k in "ab")
        given |= {a: x, b: y}
        nodes += [jf.signbit(a), jf.copysign(a, b), jf.nextafter(a, b)]
        with np.errstate(all="ignore"):
            wanted += [np.signbit(x), np.copysign(x, y), np.where(x == y, y, np.nextafter(x, y))]
    for node, got, want in zip(nodes, jf.Session(nodes).run(nodes, given), wanted, strict=True):
        assert got.dtype == want.dtype
        kind = np.dtype(f"u{want.dtype.itemsize}")
        same = got.view(kind) == want.view(kind)
        if node.node.op.name == "nextafter":
            with np.errstate(invalid="ignore"):  # NaNs that signal
                same |= np.isnan(got) & np.isnan(want)
        assert same.all(), node


def test_nextafter_at_the_ends_of_the_range() -> None:
    for dtype in (np.float32, np.float64):
        info = np.finfo(dtype)
        x = np.array([info.max, -info.max, np.inf, 0.0, -0.0, info.smallest_subnormal, -info.smallest_subnormal, 0.0])
        y = np.array([np.inf, -np.inf, 0.0, -1.0, 1.0, 0.0, 0.0, -0.0])
        with np.errstate(all="ignore"):
            got = _run(jf.nextafter(x.astype(dtype), y.astype(dtype)))
        small = info.smallest_subnormal
        want = np.array([np.inf, -np.inf, info.max, -small, small, 0.0, -0.0, -0.0], dtype)
        assert np.array_equal(got, want)
        assert np.array_equal(np.signbit(got), np.signbit(want))
