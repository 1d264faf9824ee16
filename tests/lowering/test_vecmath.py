"""The vector-maths functions against mpmath and the C standard's special values, compiled and interpreted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64, int32
from jitflow.errors import CompilerBug
from jitflow.expr import Call, Expr, Fma, type_of
from jitflow.record import children, walk
from lowering.interp import interpret
from lowering.vecmath import FUNCTIONS, Function, define
from tests.support import ulp
from tests.support.compiled import runnable
from tests.support.ulp import Array, apply, errors, exact

#: Bounds in ULP: f32, f64, and both without fused multiply-add.
BOUNDS = {
    "exp": (0.9, 0.95, 0.9, 0.95),
    "log": (0.85, 0.85, 0.85, 0.95),
    "tanh": (1.0, 1.15, 1.05, 1.25),
    "erf": (1.0, 1.0, 1.1, 1.3),
    "sin": (0.6, 0.95, 0.6, 1.0),
    "cos": (0.6, 0.95, 0.6, 1.0),
}
UNARY = sorted(BOUNDS)
DTYPES = (float32, float64)
INF, NAN = math.inf, math.nan


def _np(dtype: DType) -> type[np.floating]:
    return np.float32 if dtype is float32 else np.float64


def _samples(name: str, dtype: DType, n: int) -> Array:
    """Return points of every magnitude of the domain, denser where the function changes its formula."""
    rng = np.random.default_rng(list(name.encode()))
    kind = np.int32 if dtype is float32 else np.int64
    bits = rng.integers(0, np.iinfo(kind).max, n, kind)
    parts = [bits.view(_np(dtype))]
    most = 89.0 if dtype is float32 else 710.0
    match name:
        case "exp":
            parts += [
                rng.uniform(-1.2 * most, most, n),
                rng.uniform(-1, 1, n),
                rng.uniform(-1.2 * most, -0.95 * most, n),
            ]
        case "log":
            parts += [rng.uniform(0.5, 2, n), rng.uniform(0.9, 1.1, n), rng.uniform(0, 1e-30, n), bits[: n // 2] >> 10]
            parts[-1] = parts[-1].view(_np(dtype))
        case "tanh" | "erf":
            parts += [rng.uniform(-1.1, 1.1, n), rng.uniform(-6, 6, n), rng.uniform(0.85, 1.05, n)]
        case _:
            parts += [rng.uniform(-4, 4, n), rng.uniform(-1e3, 1e3, n), rng.uniform(-1e6, 1e6, n)]
    x = np.concatenate([p.astype(_np(dtype)) for p in parts])
    x = x[np.isfinite(x)]
    if name != "log":
        x = np.where(rng.random(x.size) < 0.5, x, -x)
    # Beyond these the result is 0, 1 or infinite; mpmath would compute numbers with astronomical exponents.
    return x[abs(x) < 2 * most] if name in ("exp", "tanh", "erf") else x


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_errors_stay_below_the_documented_bounds_on_every_target(name: str, dtype: DType) -> None:
    x = _samples(name, dtype, 600)
    value = exact(name, x)
    for target in runnable():
        error = errors(apply(name, x, target=target), value)
        bound = BOUNDS[name][(dtype is float64) + 2 * (not target.has_fma)]
        i = int(error.argmax())
        assert error[i] <= bound, f"{name}({x[i]!r}) on {target.name}: {error[i]:.3f} ULP"


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (1e30, INF), (-1e30, 0.0), (5e-324, 1.0), (1.0, math.e)],
    "log": [(0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF), (-INF, NAN), (-1.0, NAN), (-1e-40, NAN), (-1e30, NAN)],
    "tanh": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-30.0, -1.0), (-1e-40, -1e-40)],
    "erf": [(0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0), (1e30, 1.0), (-30.0, -1.0)],
    "sin": [(0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN), (1e-40, 1e-40), (-1e-40, -1e-40)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (1e-40, 1.0)],
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_special_values_follow_the_c_standard(name: str, dtype: DType) -> None:
    x, expected = np.array([*SPECIAL[name], (NAN, NAN), (-NAN, NAN)], _np(dtype)).T.copy()
    for target in runnable():
        got = apply(name, x, target=target)
        for value, want, have in zip(x, expected, got, strict=True):
            assert math.isnan(have) == math.isnan(want), (name, value, have)
            if not math.isnan(want):
                assert math.copysign(1, have) == math.copysign(1, want), (name, value, have)
                assert abs(have - want) <= abs(np.spacing(want)) if math.isfinite(want) else have == want


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exp_underflows_gradually_and_overflows_where_it_should(dtype: DType) -> None:
    info = np.finfo(_np(dtype))
    x = np.linspace(math.log(float(info.smallest_subnormal)), math.log(float(info.tiny)), 200).astype(_np(dtype))
    got = apply("exp", x)
    assert errors(got, exact("exp", x)).max() <= 1.0
    assert np.count_nonzero((got > 0) & (got < info.tiny)) > 190
    edge = np.array([math.log(float(info.max))], _np(dtype))
    below, above = np.nextafter(edge, -INF, dtype=edge.dtype), np.nextafter(edge, INF, dtype=edge.dtype)
    assert np.isfinite(apply("exp", below)).all()
    assert np.isinf(apply("exp", np.nextafter(above, INF, dtype=edge.dtype))).all()


@pytest.mark.parametrize("name", ["sin", "cos"])
def test_sin_and_cos_are_right_where_a_huge_argument_is_closest_to_a_multiple_of_half_pi(name: str) -> None:
    # The f64 and f32 nearest to a multiple of pi/2, relative to their size (Muller, "Elementary Functions", 11.3).
    points = [6381956970095103.0 * 2.0**797, 5.319372648326541e255, 1.7976931348623157e308, 2.0**20, 1e22, 2.0**1023]
    x = np.array(points)
    single = np.array([16367173.0 * 2.0**72, 3.4028234663852886e38, 2.0**40, 2.0**25, 1e10], np.float32)
    for target in runnable():
        assert errors(apply(name, x, target=target), exact(name, x)).max() <= 1.0
        assert errors(apply(name, single, target=target), exact(name, single)).max() <= 0.6


def test_one_huge_lane_does_not_disturb_its_neighbours() -> None:
    x = np.linspace(-5.0, 5.0, 64)
    mixed = np.where(np.arange(64) % 5 == 0, 1e38, x)
    for dtype in (np.float32, np.float64):
        got, alone = apply("sin", mixed.astype(dtype)), apply("sin", x.astype(dtype))
        assert np.array_equal(got[mixed == x], alone[mixed == x])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["tanh", "erf", "sin"])
def test_odd_functions_are_odd_to_the_bit(name: str, dtype: DType) -> None:
    x = _samples(name, dtype, 300)
    assert np.array_equal(apply(name, -x), -apply(name, x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_every_lane_count_and_the_interpreter_give_the_same_bits(name: str, dtype: DType) -> None:
    x = np.concatenate([_samples(name, dtype, 40), np.array([0.0, -0.0, INF, -INF, NAN], _np(dtype))])
    target = next(t for t in runnable() if t.has_fma)
    expected = apply(name, x, target=target)
    for lanes in (1, 2, 3, 4, 8, 16):
        assert np.array_equal(apply(name, x, target=target, lanes=lanes), expected, equal_nan=True), lanes
    for lanes in (1, 4):
        count = x.size // lanes
        out = np.zeros(count * lanes, x.dtype)
        interpret(ulp.kernel(name, 1, dtype, lanes), {"x": x[: out.size], "out": out}, {"n": count})
        assert np.array_equal(out, expected[: out.size], equal_nan=True), lanes


def _functions() -> list[Function]:
    types = [type_of(dtype, lanes) for dtype in DTYPES for lanes in (1, 8)]
    return [define(name, of, fma=fma) for name in sorted(FUNCTIONS) for of in types for fma in (True, False)]


def test_definitions_hold_no_value_twice_without_a_let() -> None:
    for f in _functions():
        seen: set[int] = set()
        for root in (*f.body, f.result):
            for e in walk(root):
                if isinstance(e, Expr) and children(e):
                    assert id(e) not in seen, f"{f.name} of {f.result.type}: {e}"
                    seen.add(id(e))


def test_definitions_without_fma_hold_no_fma_and_call_nothing() -> None:
    for f in _functions():
        nodes = [e for root in (*f.body, f.result) for e in walk(root)]
        assert {e.name for e in nodes if isinstance(e, Call)} <= {"any"}
        assert f.result.type is f.params[0].type
    for name in FUNCTIONS:
        for dtype in DTYPES:
            f = define(name, type_of(dtype, 4), fma=False)
            assert not any(isinstance(e, Fma) for root in (*f.body, f.result) for e in walk(root))


def test_a_definition_is_made_once() -> None:
    assert define("exp", type_of(float32, 8)) is define("exp", type_of(float32, 8))
    assert define("exp", type_of(float32, 8)) is not define("exp", type_of(float32, 8), fma=False)


def test_unknown_functions_and_types_are_refused() -> None:
    with pytest.raises(CompilerBug, match="no function is called 'gamma'; known are cos, erf, exp, "):
        define("gamma", type_of(float32))
    with pytest.raises(CompilerBug, match="defined for f32 and f64, not for i32"):
        define("exp", type_of(int32))
