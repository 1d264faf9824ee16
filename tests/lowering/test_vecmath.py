"""The vector-maths functions against mpmath and the C standard's special values, compiled and interpreted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jitflow.dtypes import DType, float32, float64, int32
from jitflow.errors import CompilerBug
from jitflow.expr import Call, Expr, Fma, type_of
from jitflow.record import children, walk
from lowering.cpu import compile_object
from lowering.interp import interpret
from lowering.llvm import emit_kernel
from lowering.loop_ir import For
from lowering.nvptx import emit_ptx
from lowering.target import from_name
from lowering.vecmath import FUNCTIONS, Function, define
from tests.support import ulp
from tests.support.compiled import runnable
from tests.support.ulp import Array, apply, errors, exact

#: Bounds in ULP: f32, f64, and both without fused multiply-add.
BOUNDS = {
    "exp": (0.9, 0.95, 0.92, 0.95),
    "log": (0.9, 0.85, 0.92, 0.95),
    "tanh": (1.0, 0.95, 1.0, 1.0),
    "erf": (0.9, 0.95, 1.0, 1.2),
    "sin": (0.6, 1.0, 0.6, 1.0),
    "cos": (0.6, 1.0, 0.6, 1.0),
}
POW_BOUNDS = (1.3, 1.4, 0.6, 1.5)
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


def _power_samples(dtype: DType, n: int) -> tuple[Array, Array]:
    """Return points whose powers have every exponent, half of them with logarithms and exponents of extreme sizes."""
    rng = np.random.default_rng(5)
    digits, top = (38, 128) if dtype is float32 else (300, 1024)
    bases = [rng.uniform(0.5, 2, n), 10 ** rng.uniform(-digits, digits, n), 1 + rng.uniform(-1e-4, 1e-4, n)]
    x = np.concatenate(bases).astype(_np(dtype))
    x[x == 1] = 2
    y = rng.uniform(-1.1 * top, 1.1 * top, x.size) / np.log2(x.astype(np.float64))
    y[::3] = rng.uniform(-3, 3, y[::3].size)
    return x, y.astype(_np(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pow_stays_below_its_bounds_over_the_whole_range_of_results(dtype: DType) -> None:
    x, y = _power_samples(dtype, 500)
    value = exact("pow", x, y)
    for target in runnable():
        error = errors(apply("pow", x, y, target=target), value)
        i = int(error.argmax())
        bound = POW_BOUNDS[(dtype is float64) + 2 * (not target.has_fma)]
        assert error[i] <= bound, f"pow({x[i]!r}, {y[i]!r}) on {target.name}: {error[i]:.3f} ULP"


def _pairs(dtype: DType) -> tuple[Array, Array]:
    """Return every pair of numbers that some rule singles out."""
    info, digits = np.finfo(_np(dtype)), 24 if dtype is float32 else 53
    odd = 2.0 ** (digits - 1) + 1
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float(info.max), float(info.tiny), float(info.smallest_subnormal), INF]
    values += [1 - 2.0**-digits, 1 + 2.0 ** (1 - digits), odd, 2 * odd, 1e10]
    v = np.array([*values, *(-v for v in values), NAN], _np(dtype))
    x, y = np.meshgrid(v, v)
    return x.ravel(), y.ravel()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_pow_of_special_values_is_that_of_the_c_standard(dtype: DType) -> None:
    x, y = _pairs(dtype)
    with np.errstate(all="ignore"):
        want = np.array([_c_pow(float(a), float(b)) for a, b in zip(x, y, strict=True)]).astype(x.dtype)
    for target in runnable():
        got = apply("pow", x, y, target=target)
        assert np.array_equal(np.isnan(got), np.isnan(want))
        wrong = (np.signbit(got) != np.signbit(want)) & ~np.isnan(want)
        finite = np.isfinite(want) & (want != 0)
        wrong |= ~finite & ~np.isnan(want) & (got != want)
        with np.errstate(all="ignore"):
            wrong |= finite & (abs(got.astype(np.float64) - want) > 2 * np.spacing(abs(want)).astype(np.float64))
        assert not wrong.any(), [(x[i], y[i], got[i], want[i]) for i in np.flatnonzero(wrong)]


def _c_pow(x: float, y: float) -> float:
    """C's pow; Python's raises where C returns an infinity or NaN."""
    try:
        return math.pow(x, y)
    except OverflowError:
        return -INF if x < 0 and abs(math.fmod(y, 2)) == 1 else INF
    except ValueError:
        if x == 0:
            return -INF if abs(math.fmod(y, 2)) == 1 and math.copysign(1, x) < 0 else INF
        return NAN


def _division_samples(dtype: DType) -> tuple[Array, Array]:
    rng, n = np.random.default_rng(9), 700
    kind = np.int32 if dtype is float32 else np.int64
    info = np.iinfo(kind)
    anything = rng.integers(info.min, info.max, 3 * n, kind).view(_np(dtype))
    small = (rng.integers(0, 1 << 20, n, kind)).view(_np(dtype))
    whole = rng.integers(-9, 9, n)
    xs = [anything[:n], rng.uniform(-100, 100, n), whole * rng.integers(-4000, 4000, n), anything[n : 2 * n], small]
    ys = [anything[2 * n :], rng.uniform(-10, 10, n), whole, small, rng.permutation(small)]
    x, y = (np.concatenate([p.astype(_np(dtype)) for p in parts]) for parts in (xs, ys))
    pairs = _pairs(dtype)
    return np.concatenate([x, pairs[0]]), np.concatenate([y, pairs[1]])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["floormod", "floordiv"])
def test_float_division_gives_the_bits_of_numpy(name: str, dtype: DType) -> None:
    x, y = _division_samples(dtype)
    with np.errstate(all="ignore"):
        want = {"floormod": np.remainder, "floordiv": np.floor_divide}[name](x, y)
    for target in runnable():
        got = apply(name, x, y, target=target)
        same = (got == want) & (np.signbit(got) == np.signbit(want)) | (np.isnan(got) & np.isnan(want))
        wrong = np.flatnonzero(~same)[:3]
        assert same.all(), [(target.name, x[i], y[i], got[i], want[i]) for i in wrong]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["pow", "floormod", "floordiv"])
def test_functions_of_two_arguments_give_the_same_bits_for_every_lane_count_and_interpreted(
    name: str, dtype: DType
) -> None:
    x, y = _pairs(dtype)
    target = next(t for t in runnable() if t.has_fma)
    expected = apply(name, x, y, target=target)
    for lanes in (1, 2, 8, 16):
        assert np.array_equal(apply(name, x, y, target=target, lanes=lanes), expected, equal_nan=True), lanes
    for lanes, some in ((1, slice(0, 961, 7)), (8, slice(0, 960))):
        a, c = x[some].copy(), y[some].copy()
        a, c = a[: a.size // lanes * lanes], c[: a.size // lanes * lanes]
        out = np.zeros(a.size, x.dtype)
        interpret(ulp.kernel(name, 2, dtype, lanes), {"x": a, "y": c, "out": out}, {"n": a.size // lanes})
        assert np.array_equal(out, expected[some][: a.size], equal_nan=True), lanes


def _arity(name: str) -> int:
    return len(define(name, type_of(float32)).params)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_becomes_ptx_without_calls_and_an_object_for_aarch64(name: str) -> None:
    arm = from_name("aarch64")
    for dtype in DTYPES:
        compile_object(emit_kernel(ulp.kernel(name, _arity(name), dtype, arm.lanes(dtype)), arm), arm)
        k = ulp.kernel(name, _arity(name), dtype, 1)
        (loop,) = k.body
        assert isinstance(loop, For)
        # Registers set in branches and loops must have become values: local memory would be slow.
        assert ".local" not in emit_ptx([k.with_body((For(loop.var, loop.extent, loop.body, "block"),))])


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
        assert {e.name for e in nodes if isinstance(e, Call)} <= {"any", "all", "lookup"}
        assert f.result.type is f.params[0].type
    for name in FUNCTIONS:
        for dtype in DTYPES:
            f = define(name, type_of(dtype, 4), fma=False)
            assert not any(isinstance(e, Fma) for root in (*f.body, f.result) for e in walk(root))


def test_a_definition_is_made_once() -> None:
    assert define("exp", type_of(float32, 8)) is define("exp", type_of(float32, 8))
    assert define("exp", type_of(float32, 8)) is not define("exp", type_of(float32, 8), fma=False)


def test_unknown_functions_and_types_are_refused() -> None:
    with pytest.raises(CompilerBug, match="no function is called 'gamma'; known are acos, acosh, "):
        define("gamma", type_of(float32))
    with pytest.raises(CompilerBug, match="defined for f32 and f64, not for i32"):
        define("exp", type_of(int32))
