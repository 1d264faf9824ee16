"""Exponentials, logarithms and roots against mpmath and the C standard's special values, compiled and interpreted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64
from lowering.interp import interpret
from tests.support import ulp
from tests.support.compiled import runnable
from tests.support.ulp import Array, apply, errors
from tests.ulp.errors import exact_values

#: Bounds in ULP: f32, f64, and both without fused multiply-add.
BOUNDS = {
    "exp2": (0.9, 0.95, 1.15, 1.25),
    "expm1": (1.0, 1.0, 1.15, 1.05),
    "sigmoid": (0.9, 0.9, 0.9, 0.9),
    "log2": (0.95, 0.9, 1.25, 0.95),
    "log10": (0.95, 0.9, 1.0, 0.95),
    "log1p": (0.95, 0.95, 1.0, 0.95),
    "cbrt": (0.8, 0.6, 0.8, 0.6),
    "rsqrt": (0.51, 0.51, 0.51, 1.5),
}
HYPOT_BOUNDS = (0.51, 1.05, 0.51, 1.4)
NAMES = sorted(BOUNDS)
DTYPES = (float32, float64)
INF, NAN = math.inf, math.nan

EXACT: dict[str, Callable[..., Any]] = {
    "exp2": lambda x: mpmath.power(2, x),
    "expm1": mpmath.expm1,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "log2": lambda x: mpmath.log(x, 2),
    "log10": lambda x: mpmath.log(x, 10),
    "log1p": mpmath.log1p,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "hypot": mpmath.hypot,
    "logaddexp": lambda x, y: max(x, y) + mpmath.log1p(mpmath.exp(-abs(x - y))),
}


def _np(dtype: DType) -> type[np.floating]:
    return np.float32 if dtype is float32 else np.float64


def _samples(name: str, dtype: DType, n: int) -> Array:
    """Return points of the domain, of every magnitude and dense where the function changes its formula."""
    rng = np.random.default_rng(list(name.encode()))
    kind = np.int32 if dtype is float32 else np.int64
    bits = rng.integers(0, np.array(INF, _np(dtype)).view(kind), n, kind).view(_np(dtype)).astype(np.float64)
    sign = rng.choice([-1.0, 1.0], n)
    small = sign * 2.0 ** rng.uniform(-40, 0, n)
    most = 88.7 if dtype is float32 else 709.7
    least = math.log(float(np.finfo(_np(dtype)).smallest_subnormal))
    match name:
        case "exp2":
            parts = [small, rng.uniform(-3, 3, n), rng.uniform(least, most, n) / math.log(2)]
        case "expm1" | "sigmoid":
            subnormal = rng.uniform(least, -0.97 * most, n)
            parts = [small, rng.uniform(-1, 1, n), rng.uniform(-5, 5, n), rng.uniform(-most, most, n), subnormal]
        case "log1p":
            parts = [small, rng.uniform(-0.5, 1, n), rng.uniform(-1, -0.9, n), rng.uniform(0, 50, n), bits]
        case "cbrt":
            parts = [small, sign * bits, sign * bits * 2.0**-60]
        case _:
            parts = [abs(small), rng.uniform(0.5, 2, n), rng.uniform(0.95, 1.05, n), bits]
    x = np.concatenate([p.astype(_np(dtype)) for p in parts])
    return x[x > -1] if name == "log1p" else x[x > 0] if name.startswith(("log", "rsqrt")) else x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_errors_stay_below_the_documented_bounds_on_every_target(name: str, dtype: DType) -> None:
    x = _samples(name, dtype, 500)
    value = exact_values(EXACT[name], x)
    for target in runnable():
        error = errors(apply(name, x, target=target), value)
        bound = BOUNDS[name][(dtype is float64) + 2 * (not target.has_fma)]
        i = int(error.argmax())
        assert error[i] <= bound, f"{name}({x[i]!r}) on {target.name}: {error[i]:.3f} ULP"


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp2": [
        (0.0, 1.0),
        (-0.0, 1.0),
        (INF, INF),
        (-INF, 0.0),
        (1e30, INF),
        (-1e30, 0.0),
        (10.0, 1024.0),
        (-3.0, 0.125),
    ],
    "expm1": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0), (1e30, INF), (-1e30, -1.0), (-1e-40, -1e-40)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (1e30, 1.0), (-1e30, 0.0), (1e-40, 0.5)],
    "log2": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-40, NAN), (8.0, 3.0)],
    "log10": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (1000.0, 3.0)],
    "log1p": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-1.0, -INF), (-1.5, NAN), (-INF, NAN), (1e-40, 1e-40)],
    "cbrt": [(0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF), (27.0, 3.0), (-8.0, -2.0), (2.0**-126, 2.0**-42)],
    "rsqrt": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, NAN), (-1.0, NAN), (4.0, 0.5), (2.0**-126, 2.0**63)],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_special_values_follow_the_standards(name: str, dtype: DType) -> None:
    x, expected = np.array([*SPECIAL[name], (NAN, NAN)], _np(dtype)).T.copy()
    for target in runnable():
        got = apply(name, x, target=target)
        for value, want, have in zip(x, expected, got, strict=True):
            assert np.array_equal(have, want, equal_nan=True), (target.name, name, value, have)
            assert math.isnan(want) or math.copysign(1, have) == math.copysign(1, want), (name, value, have)


def test_exact_results_are_exact() -> None:
    """Powers of two and cubes have neighbours on which a result next to the right one would show."""
    for dtype in DTYPES:
        n = np.arange(-1074 if dtype is float64 else -149, 1024 if dtype is float64 else 128).astype(_np(dtype))
        powers = np.ldexp(np.ones_like(n), n.astype(np.int32))
        cubes = np.arange(-200, 201).astype(_np(dtype))
        for target in runnable():
            assert np.array_equal(apply("exp2", n, target=target), powers)
            assert np.array_equal(apply("log2", powers, target=target), n)
            assert np.array_equal(apply("cbrt", cubes**3, target=target), cubes)
            triples = np.array([[3, 4, 5], [5, 12, 13], [20, 21, 29], [3e30, 4e30, 5e30]], _np(dtype))
            assert np.array_equal(apply("hypot", *triples.T[:2], target=target)[:3], triples[:3, 2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exponentials_underflow_gradually_and_overflow_where_they_should(dtype: DType) -> None:
    info = np.finfo(_np(dtype))
    low, high = math.log2(float(info.smallest_subnormal)), math.log2(float(info.tiny))
    x = np.linspace(low, high, 200).astype(_np(dtype))
    for name, scale in (("exp2", 1.0), ("sigmoid", math.log(2))):
        at = (x * scale).astype(_np(dtype))
        for target in runnable():
            got = apply(name, at, target=target)
            assert errors(got, exact_values(EXACT[name], at)).max() <= 1.0
            assert np.count_nonzero((got > 0) & (got < info.tiny)) > 190
    top = np.array([float(info.maxexp)], _np(dtype))
    below = np.nextafter(top, -INF, dtype=top.dtype)
    assert np.isinf(apply("exp2", top))
    assert np.isfinite(apply("exp2", below))
    edge = np.log(np.array([info.max], _np(dtype)))
    assert np.isfinite(apply("expm1", np.nextafter(edge, -INF, dtype=edge.dtype)))
    assert np.isinf(apply("expm1", edge * 1.001))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "sigmoid", "cbrt", "exp2"])
def test_rare_lanes_do_not_disturb_their_neighbours(name: str, dtype: DType) -> None:
    x = np.linspace(0.1, 5.0, 64).astype(_np(dtype))
    alone = apply(name, x)
    for k, rare in enumerate([0.0, -0.0, INF, -INF, NAN, 1e-40, -3e38, 3e38, -1.0, 1e-310]):
        mixed = np.where(np.arange(64) % 5 == k % 5, _np(dtype)(rare), x)
        got = apply(name, mixed)
        assert np.array_equal(got[mixed == x], alone[mixed == x]), rare


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_hypot_is_right_for_magnitudes_whose_squares_are_not_numbers(dtype: DType) -> None:
    rng, info = np.random.default_rng(2), np.finfo(_np(dtype))
    scale = 2.0 ** rng.uniform(info.minexp - info.nmant, info.maxexp - 1, 600)
    ratio = 2.0 ** rng.uniform(-30, 0, 600)
    x, y = scale.astype(_np(dtype)), (scale * ratio * rng.choice([-1, 1], 600)).astype(_np(dtype))
    value = exact_values(EXACT["hypot"], x, y)
    for target in runnable():
        bound = HYPOT_BOUNDS[(dtype is float64) + 2 * (not target.has_fma)]
        assert errors(apply("hypot", x, y, target=target), value).max() <= bound
        assert errors(apply("hypot", y, x, target=target), value).max() <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_special_values_of_hypot_and_logaddexp(dtype: DType) -> None:
    hypot = [(INF, NAN, INF), (NAN, -INF, INF), (-INF, 1, INF), (NAN, 1, NAN), (0, NAN, NAN), (0, -0.0, 0), (-3, 0, 3)]
    sums = [(INF, INF, INF), (-INF, -INF, -INF), (INF, -INF, INF), (-INF, 2, 2), (3, -INF, 3), (NAN, INF, NAN)]
    sums += [(-INF, NAN, NAN), (0, 0, math.log(2)), (1e30, 1e30, 1e30), (-1e30, 1, 1)]
    for name, rows in (("hypot", hypot), ("logaddexp", sums)):
        x, y, want = np.array(rows, _np(dtype)).T.copy()
        for target in runnable():
            got = apply(name, x, y, target=target)
            assert np.array_equal(got, want, equal_nan=True), (target.name, name, got)
            assert not np.signbit(got[want == 0]).any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logaddexp_is_within_a_unit_of_its_larger_argument_or_its_result(dtype: DType) -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(-90, 90, 600).astype(_np(dtype))
    y = np.where(rng.random(600) < 0.5, 0, x + rng.uniform(-20, 20, 600)).astype(_np(dtype))
    value = exact_values(EXACT["logaddexp"], x, y)
    unit = np.spacing(np.maximum(np.ldexp(abs(value.high), value.exponent), np.maximum(x, y)).astype(_np(dtype)))
    for target in runnable():
        got = apply("logaddexp", x, y, target=target).astype(np.longdouble)
        want = np.ldexp(value.high.astype(np.longdouble) + value.low, value.exponent)
        assert np.max(abs(got - want) / abs(unit)) <= 1.0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_lane_count_and_the_interpreter_give_the_same_bits(name: str, dtype: DType) -> None:
    rare = np.array([0.0, -0.0, INF, -INF, NAN, 1e-40, -1.0], _np(dtype))
    x = np.concatenate([_samples(name, dtype, 12), rare, [1.0]]).astype(_np(dtype))
    target = next(t for t in runnable() if t.has_fma)
    expected = apply(name, x, target=target)
    for lanes in (1, 2, 4, 8, 16):
        assert np.array_equal(apply(name, x, target=target, lanes=lanes), expected, equal_nan=True), lanes
    for lanes in (1, 4):
        count = x.size // lanes
        out = np.zeros(count * lanes, x.dtype)
        interpret(ulp.kernel(name, 1, dtype, lanes), {"x": x[: out.size], "out": out}, {"n": count})
        assert np.array_equal(out, expected[: out.size], equal_nan=True), lanes
