"""tan, the inverse trigonometric and the hyperbolic functions against mpmath and the C standard's special values."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64
from lowering.interp import interpret
from tests.support import ulp
from tests.support.compiled import runnable
from tests.support.ulp import Array, apply, errors, exact

#: Bounds in ULP: f32, f64, and both without fused multiply-add.
BOUNDS = {
    "tan": (2.0, 1.5, 2.0, 1.5),
    "asin": (0.7, 0.65, 0.7, 0.65),
    "acos": (0.8, 0.8, 0.8, 0.8),
    "atan": (1.01, 0.9, 1.15, 1.25),
    "sinh": (1.0, 0.8, 0.85, 0.8),
    "cosh": (0.95, 0.95, 0.95, 0.95),
    "tanh": (1.0, 0.95, 1.0, 0.95),
    "asinh": (1.0, 0.9, 1.1, 1.05),
    "acosh": (0.9, 0.85, 0.95, 0.85),
    "atanh": (0.95, 0.85, 0.95, 0.85),
}
ATAN2_BOUND = 1.5
NAMES = sorted(BOUNDS)
DTYPES = (float32, float64)
INF, NAN, PI = math.inf, math.nan, math.pi


def _np(dtype: DType) -> type[np.floating]:
    return np.float32 if dtype is float32 else np.float64


def _samples(name: str, dtype: DType, n: int) -> Array:
    """Return points of the domain, of every magnitude and dense where the function changes its formula."""
    rng = np.random.default_rng(list(name.encode()))
    kind = np.int32 if dtype is float32 else np.int64
    bits = rng.integers(0, np.array(INF, _np(dtype)).view(kind), n, kind).view(_np(dtype)).astype(np.float64)
    sign = rng.choice([-1.0, 1.0], n)
    small = sign * 2.0 ** rng.uniform(-40, 0, n)
    most = 89.4 if dtype is float32 else 710.4
    match name:
        case "asin" | "acos" | "atanh":
            parts = [small, rng.uniform(-1, 1, n), sign * rng.uniform(0.4, 0.6, n), sign * (1 - abs(small))]
        case "sinh" | "cosh" | "tanh":
            parts = [small, rng.uniform(-most, most, n), rng.uniform(-1.2, 1.2, n), rng.uniform(-12, 12, n)]
        case "acosh":
            parts = [1 + abs(small), rng.uniform(1, 4, n), abs(bits) + 1]
        case "asinh":
            parts = [small, rng.uniform(-3, 3, n), rng.uniform(-0.6, 0.6, n), sign * bits]
        case "atan":
            parts = [small, rng.uniform(-3, 3, n), sign * rng.uniform(0.9, 1.1, n), sign * bits]
        case _:
            parts = [small, rng.uniform(-4, 4, n), rng.uniform(-1e3, 1e3, n), rng.uniform(-1e6, 1e6, n), sign * bits]
    x = np.concatenate([p.astype(_np(dtype)) for p in parts])
    return x[np.isfinite(x) & ((name != "atanh") | (abs(x) != 1))]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_errors_stay_below_the_documented_bounds_on_every_target(name: str, dtype: DType) -> None:
    x = _samples(name, dtype, 400)
    value = exact(name, x)
    for target in runnable():
        error = errors(apply(name, x, target=target), value)
        bound = BOUNDS[name][(dtype is float64) + 2 * (not target.has_fma)]
        i = int(error.argmax())
        assert error[i] <= bound, f"{name}({x[i]!r}) on {target.name}: {error[i]:.3f} ULP"


#: Of odd functions the positive half.
SPECIAL: dict[str, list[tuple[float, float]]] = {
    "tan": [(0.0, 0.0), (INF, NAN), (1e-40, 1e-40)],
    "asin": [(0.0, 0.0), (1.0, PI / 2), (1.5, NAN), (INF, NAN), (1e-40, 1e-40)],
    "acos": [(1.0, 0.0), (0.0, PI / 2), (-0.0, PI / 2), (-1.0, PI), (1.5, NAN), (-1.5, NAN), (INF, NAN), (-INF, NAN)],
    "atan": [(0.0, 0.0), (1.0, PI / 4), (INF, PI / 2), (1e30, PI / 2), (1e-40, 1e-40)],
    "sinh": [(0.0, 0.0), (INF, INF), (1e30, INF), (800.0, INF), (1e-40, 1e-40)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (800.0, INF), (-800.0, INF), (1e-40, 1.0)],
    "tanh": [(0.0, 0.0), (INF, 1.0), (1e30, 1.0), (30.0, 1.0), (1e-40, 1e-40)],
    "asinh": [(0.0, 0.0), (INF, INF), (1e-40, 1e-40)],
    "acosh": [(1.0, 0.0), (INF, INF), (0.5, NAN), (0.0, NAN), (-1.0, NAN), (-2.5, NAN), (-1e38, NAN), (-INF, NAN)],
    "atanh": [(0.0, 0.0), (1.0, INF), (1.5, NAN), (INF, NAN), (1e-40, 1e-40)],
}
EVEN_OR_NEITHER = ("acos", "acosh", "cosh")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_special_values_follow_the_c_standard(name: str, dtype: DType) -> None:
    points = [*SPECIAL[name], (NAN, NAN), (-NAN, NAN)]
    if name not in EVEN_OR_NEITHER:
        points += [(-x, -y) for x, y in SPECIAL[name]]
    x, expected = np.array(points, _np(dtype)).T.copy()
    for target in runnable():
        got = apply(name, x, target=target)
        for value, want, have in zip(x, expected, got, strict=True):
            assert math.isnan(have) == math.isnan(want), (name, value, have)
            if not math.isnan(want):
                assert math.copysign(1, have) == math.copysign(1, want), (name, value, have)
                assert abs(have - want) <= abs(np.spacing(want)) if math.isfinite(want) else have == want, (name, value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sinh_and_cosh_overflow_where_they_should(dtype: DType) -> None:
    info = np.finfo(_np(dtype))
    with mpmath.workprec(200):
        edge = float(mpmath.asinh(mpmath.mpf(float(info.max))))  # to f64's precision that of acosh, too
    steps = np.array([edge], _np(dtype))
    below, above = np.nextafter(steps, 0, dtype=steps.dtype), np.nextafter(steps, INF, dtype=steps.dtype)
    for target in runnable():
        for name in ("sinh", "cosh"):
            last = apply(name, np.nextafter(below, 0, dtype=steps.dtype), target=target)
            assert np.isfinite(last).all()
            assert (last > 0.99 * info.max).all()
            assert np.isinf(apply(name, np.nextafter(above, INF, dtype=steps.dtype), target=target)).all()


def test_tan_is_right_where_a_huge_argument_is_closest_to_a_multiple_of_half_pi() -> None:
    # The f64 and f32 nearest to a multiple of pi/2, relative to their size (Muller, "Elementary Functions", 11.3); and
    # either side of the bounds below which the reduction is simpler.
    double = np.array([6381956970095103.0 * 2.0**797, 5.319372648326541e255, 1.7976931348623157e308, 2.0**20, 1e22])
    double = np.concatenate([double, np.nextafter(double, 0)])
    single = np.array([16367173.0 * 2.0**72, 3.4028234663852886e38, 2.0**16, 65535.996, 1e10, 2.0**127], np.float32)
    for target in runnable():
        assert errors(apply("tan", double, target=target), exact("tan", double)).max() <= 1.5
        assert errors(apply("tan", single, target=target), exact("tan", single)).max() <= 2.0


def test_one_lane_in_a_branch_does_not_disturb_its_neighbours() -> None:
    x = np.linspace(0.1, 0.9, 64)
    for name, rare in (("tan", 1e30), ("asinh", 1e35), ("atanh", 1.0), ("acosh", 1e35)):
        calm = x + 1 if name == "acosh" else x
        mixed = np.where(np.arange(64) % 5 == 0, rare, calm)
        for dtype in (np.float32, np.float64):
            got, alone = apply(name, mixed.astype(dtype)), apply(name, calm.astype(dtype))
            assert np.array_equal(got[mixed == calm], alone[mixed == calm])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_are_odd_or_even_to_the_bit(dtype: DType) -> None:
    for name in NAMES:
        x = _samples(name, dtype, 100)
        if name not in EVEN_OR_NEITHER:
            assert np.array_equal(apply(name, -x), -apply(name, x)), name
    x = _samples("cosh", dtype, 100)
    assert np.array_equal(apply("cosh", -x), apply("cosh", x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_lane_count_and_the_interpreter_give_the_same_bits(name: str, dtype: DType) -> None:
    x = np.concatenate([_samples(name, dtype, 12), np.array([0.0, -0.0, 1.0, INF, -INF, NAN], _np(dtype))])
    target = next(t for t in runnable() if t.has_fma)
    expected = apply(name, x, target=target)
    for lanes in (1, 3, 8):
        assert np.array_equal(apply(name, x, target=target, lanes=lanes), expected, equal_nan=True), lanes
    for lanes in (1, 4):
        count = x.size // lanes
        out = np.zeros(count * lanes, x.dtype)
        interpret(ulp.kernel(name, 1, dtype, lanes), {"x": x[: out.size], "out": out}, {"n": count})
        assert np.array_equal(out, expected[: out.size], equal_nan=True), lanes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_atan2_stays_below_its_bound_for_points_of_every_direction_and_distance(dtype: DType) -> None:
    rng, n = np.random.default_rng(7), 1500
    reach = 120 if dtype is float32 else 1000
    angle, radius = rng.uniform(-PI, PI, n), 2.0 ** rng.uniform(-reach, reach, n)
    y, x = (radius * np.sin(angle)).astype(_np(dtype)), (radius * np.cos(angle)).astype(_np(dtype))
    # And slopes of every size.
    y[::3] = (y[::3] * 2.0 ** rng.uniform(-5, 5, y[::3].size)).astype(y.dtype)
    value = exact("atan2", y, x)
    for target in runnable():
        error = errors(apply("atan2", y, x, target=target), value)
        i = int(error.argmax())
        assert error[i] <= ATAN2_BOUND, f"atan2({y[i]!r}, {x[i]!r}) on {target.name}: {error[i]:.3f} ULP"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_atan2_of_special_values_is_that_of_the_c_standard(dtype: DType) -> None:
    info = np.finfo(_np(dtype))
    some = [0.0, 1.0, 1.5, INF, float(info.tiny), float(info.smallest_subnormal), float(info.max)]
    values = np.array([*some, *(-v for v in some), NAN], _np(dtype))
    y, x = (v.ravel() for v in np.meshgrid(values, values))
    want = np.array([math.atan2(float(a), float(b)) for a, b in zip(y, x, strict=True)])
    for target in runnable():
        got = apply("atan2", y, x, target=target)
        assert np.array_equal(np.isnan(got), np.isnan(want))
        known = ~np.isnan(want)
        assert np.array_equal(np.signbit(got[known]), np.signbit(want[known]))
        with np.errstate(under="ignore"):
            wanted = want[known].astype(got.dtype)
        assert (abs(got[known] - wanted) <= 2 * np.spacing(abs(wanted))).all()
        assert np.array_equal(got[known] == 0, wanted == 0)


def test_atan2_gives_the_same_bits_for_every_lane_count_and_interpreted() -> None:
    rng = np.random.default_rng(8)
    y, x = rng.normal(size=(2, 40))
    target = next(t for t in runnable() if t.has_fma)
    expected = apply("atan2", y, x, target=target)
    for lanes in (1, 2, 16):
        assert np.array_equal(apply("atan2", y, x, target=target, lanes=lanes), expected)
    out = np.zeros(40)
    interpret(ulp.kernel("atan2", 2, float64, 8), {"x": y, "y": x, "out": out}, {"n": 5})
    assert np.array_equal(out, expected)
