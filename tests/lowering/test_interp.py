"""The loop interpreter against hand-written expectations: arithmetic, loops, memory, faults, GPU kernels."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jitflow.dtypes import DType, bool_, float32, float64, int8, int32, int64, uint8
from jitflow.errors import CompilerBug
from jitflow.expr import Binary, Bitcast, Buffer, Cast, Compare, Const, Expr, Fma, Unary, const, const_index, type_of
from lowering import exact
from lowering.interp import interpret
from lowering.loop_ir import Kernel, Store
from lowering.text import parse_fragment, parse_kernel
from lowering.verify import verify
from tests.support.check_pass import assert_same_bits, random_arrays
from tests.support.random_program import random_gpu_kernel, random_kernel

Array = np.ndarray[Any, Any]
LANES = 4
NAN, INF = math.nan, math.inf


def evaluate(e: Expr) -> Any:
    """Return the value of a scalar expression without variables."""
    out = Buffer("out", e.type.dtype, [])
    array = np.zeros((), exact.np_dtype(e.type.dtype))
    kernel = Kernel("f", (out,), (), (Store(out, (), e),))
    verify(kernel)
    interpret(kernel, [array])
    return array[()]


def evaluate_lanes(e: Expr) -> Array:
    out = Buffer("out", e.type.dtype, [e.type.lanes])
    array = np.zeros(e.type.lanes, exact.np_dtype(e.type.dtype))
    interpret(parse_lanes(out, e), [array])
    return array


def parse_lanes(out: Buffer, e: Expr) -> Kernel:
    (ramp,) = parse_kernel("kernel f(a: f32[8]):\n  a[ramp(0, 1, 4)] = splat(1.0, 4)").body[0].index  # type: ignore[attr-defined]
    kernel = Kernel("f", (out,), (), (Store(out, (ramp,), e),))
    verify(kernel)
    return kernel


def run(text: str, **arrays: Any) -> None:
    interpret(parse_fragment(text), arrays)


def fault(text: str, *arrays: Array, reverse: bool = False, **dims: int) -> str:
    with pytest.raises(CompilerBug) as e:
        interpret(parse_kernel(text), arrays, dims, reverse=reverse)
    return str(e.value)


def floats(*values: float) -> Array:
    return np.array(values, np.float32)


# Arithmetic: expectations by hand, from the rules in jitflow.expr


@pytest.mark.parametrize(
    ("op", "a", "b", "dtype", "expected"),
    [
        ("add", 2**31 - 1, 1, int32, -(2**31)),
        ("add", 127, 1, int8, -128),
        ("add", 255, 1, uint8, 0),
        ("sub", 0, 1, uint8, 255),
        ("sub", -(2**63), 1, int64, 2**63 - 1),
        ("mul", 2**31, 2, int64, 2**32),
        ("mul", 2**16, 2**16, int32, 0),
        ("floordiv", 7, 2, int32, 3),
        ("floordiv", -7, 2, int32, -4),
        ("floordiv", 7, -2, int32, -4),
        ("floordiv", 7, 0, int32, 0),
        ("floordiv", -(2**31), -1, int32, -(2**31)),
        ("floordiv", -(2**63), -1, int64, -(2**63)),
        ("mod", 7, 2, int32, 1),
        ("mod", -7, 2, int32, 1),
        ("mod", 7, -2, int32, -1),
        ("mod", 7, 0, int32, 0),
        ("mod", -(2**31), -1, int32, 0),
        ("min", -3, 2, int32, -3),
        ("max", -3, 2, int32, 2),
        ("and", -4, 7, int32, 4),
        ("or", -4, 3, int32, -1),
        ("xor", -1, 5, int32, -6),
        ("shl", 3, 2, int32, 12),
        ("shl", 1, 31, int32, -(2**31)),
        ("shl", 1, 32, int32, 0),
        ("shl", 1, -1, int32, 0),
        ("shr", -8, 1, int32, -4),
        ("shr", -8, 32, int32, -1),
        ("shr", 8, 100, int32, 0),
        ("shr", 8, -1, int32, 0),
        ("shr", 200, 9, uint8, 0),
        ("shr", 200, 3, uint8, 25),
        ("add", True, True, bool_, True),
        ("mul", True, False, bool_, False),
        ("xor", True, True, bool_, False),
        ("min", True, False, bool_, False),
        ("add", 1.5, 2.25, float64, 3.75),
        ("div", 1.0, 0.0, float32, INF),
        ("div", -1.0, 0.0, float64, -INF),
        ("div", 0.0, 0.0, float32, NAN),
        ("mul", 1e30, 1e30, float32, INF),
        ("mul", 1e-30, 1e-20, float32, 0.0),
        ("add", 1.0, 2.0**-24, float32, 1.0),
        ("add", 1.0, 3 * 2.0**-24, float32, 1.0 + 2.0**-22),
        ("mul", 2.0**-100, 2.0**-40, float32, 2.0**-140),
        ("min", 1.0, NAN, float32, NAN),
        ("min", NAN, 1.0, float32, NAN),
        ("max", 1.0, NAN, float64, NAN),
        ("max", NAN, -INF, float64, NAN),
        ("min", -0.0, 0.0, float32, -0.0),
        ("min", 0.0, -0.0, float32, 0.0),
        ("max", -0.0, 0.0, float32, -0.0),
        ("max", 0.0, -0.0, float32, 0.0),
        ("max", 1.0, 2.0, float32, 2.0),
    ],
)
def test_binary_operators_at_their_edges(op: str, a: float, b: float, dtype: DType, expected: float) -> None:
    of = type_of(dtype)
    wanted = np.array(expected, dtype.np)
    assert_same_bits(np.asarray(evaluate(Binary(op, const(a, of), const(b, of)))), wanted, op)
    wide = of.with_lanes(LANES)
    lanes = evaluate_lanes(Binary(op, const(a, wide), const(b, wide)))
    assert_same_bits(lanes, np.full(LANES, wanted), f"{op} of lanes")


@pytest.mark.parametrize(
    ("op", "a", "dtype", "expected"),
    [
        ("neg", -(2**31), int32, -(2**31)),
        ("neg", 1, uint8, 255),
        ("neg", 0.0, float32, -0.0),
        ("not", 5, int32, -6),
        ("not", 5, uint8, 250),
        ("not", True, bool_, False),
        ("abs", -(2**31), int32, -(2**31)),
        ("abs", -7, int64, 7),
        ("abs", -0.0, float32, 0.0),
        ("abs", NAN, float32, NAN),
        ("sqrt", 2.0, float32, 1.41421354),
        ("sqrt", -1.0, float64, NAN),
        ("sqrt", -0.0, float32, -0.0),
        ("floor", -0.5, float32, -1.0),
        ("ceil", -0.5, float32, -0.0),
        ("trunc", -1.5, float64, -1.0),
        ("round", 0.5, float32, 0.0),
        ("round", 1.5, float32, 2.0),
        ("round", 2.5, float64, 2.0),
        ("round", -0.5, float32, -0.0),
        ("floor", INF, float32, INF),
        ("round", 5, int32, 5),
    ],
)
def test_unary_operators_at_their_edges(op: str, a: float, dtype: DType, expected: float) -> None:
    of = type_of(dtype)
    wanted = np.array(expected, dtype.np)
    assert_same_bits(np.asarray(evaluate(Unary(op, const(a, of)))), wanted, op)
    lanes = evaluate_lanes(Unary(op, const(a, of.with_lanes(LANES))))
    assert_same_bits(lanes, np.full(LANES, wanted), f"{op} of lanes")


@pytest.mark.parametrize("op", Compare.OPS)
def test_comparisons_with_nan_are_false_except_ne(op: str) -> None:
    x, y = const(NAN, float32), const(1.0, float32)
    for a, b in ((x, y), (y, x), (x, x)):
        assert evaluate(Compare(op, a, b)) == (op == "ne")


@pytest.mark.parametrize(
    ("a", "source", "to", "expected"),
    [
        (2.9, float32, int32, 2),
        (-2.9, float32, int32, -2),
        (NAN, float32, int32, 0),
        (INF, float32, int32, 2**31 - 1),
        (-INF, float64, int64, -(2**63)),
        (3e9, float32, int32, 2**31 - 1),
        (2.0**63, float64, int64, 2**63 - 1),
        (2147483647.5, float64, int32, 2**31 - 1),
        (-1.0, float32, uint8, 0),
        (256.0, float32, uint8, 255),
        (-0.0, float32, int32, 0),
        (2**32 + 5, int64, int32, 5),
        (2**31, int64, int32, -(2**31)),
        (-1, int32, int64, -1),
        (-1, int8, uint8, 255),
        (True, bool_, int32, 1),
        (True, bool_, float32, 1.0),
        (0.0, float32, bool_, False),
        (-0.0, float32, bool_, False),
        (NAN, float32, bool_, True),
        (5, int32, bool_, True),
        (0, int32, bool_, False),
        (1e300, float64, float32, INF),
        (1.0 + 2.0**-24, float64, float32, 1.0),
        (1.0 + 3 * 2.0**-24, float64, float32, 1.0 + 2.0**-22),
        (2**24 + 1, int32, float32, 2.0**24),
        # Through f64 this would be rounded twice, to 2**60 + 2**37.
        (2**60 + 2**36 + 1, int64, float32, 2.0**60 + 2.0**37),
        (2**60 + 2**36, int64, float32, 2.0**60),
        (-(2**63), int64, float64, -(2.0**63)),
    ],
)
def test_casts_saturate_wrap_and_round_once(a: float, source: DType, to: DType, expected: float) -> None:
    wanted = np.array(expected, to.np)
    assert_same_bits(np.asarray(evaluate(Cast(const(a, source), to))), wanted, "cast")
    lanes = evaluate_lanes(Cast(const(a, type_of(source, LANES)), to))
    assert_same_bits(lanes, np.full(LANES, wanted), "cast of lanes")


@pytest.mark.parametrize(
    ("a", "source", "to", "expected"),
    [
        (1.0, float32, int32, 0x3F800000),
        (-0.0, float32, int32, -(2**31)),
        (0x7F800000, int32, float32, INF),
        (-1.0, float64, int64, -0x4010000000000000),
        (-1, int8, uint8, 255),
    ],
)
def test_bitcasts_keep_the_bits(a: float, source: DType, to: DType, expected: float) -> None:
    assert evaluate(Bitcast(const(a, source), to)) == expected
    assert evaluate_lanes(Bitcast(const(a, type_of(source, LANES)), to)).tolist() == [expected] * LANES


def rounded(value: Fraction, bits: int) -> float:
    """Return `value` rounded once, to nearest even, to a float type of `bits` (by hand, not by the code tested)."""
    digits, low, high = (24, -149, 128) if bits == 32 else (53, -1074, 1024)
    if value == 0:
        return 0.0
    exponent = math.floor(math.log2(abs(value.numerator)) - math.log2(value.denominator)) - digits + 1
    while abs(value) >= Fraction(2) ** (exponent + digits):
        exponent += 1
    while abs(value) < Fraction(2) ** (exponent + digits - 1):
        exponent -= 1
    unit = Fraction(2) ** max(exponent, low)
    result = round(value / unit) * unit  # Fraction rounds halves to even
    if abs(result) >= Fraction(2) ** high:
        return INF if value > 0 else -INF
    return float(result) if result else (0.0 if value > 0 else -0.0)


finite32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
finite64 = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300, deadline=None)
@given(finite32, finite32, finite32)
def test_fma_of_f32_is_rounded_once(a: float, b: float, c: float) -> None:
    check_fma(a, b, c, float32)


@settings(max_examples=300, deadline=None)
@given(finite64, finite64, finite64)
def test_fma_of_f64_is_rounded_once(a: float, b: float, c: float) -> None:
    check_fma(a, b, c, float64)


def check_fma(a: float, b: float, c: float, dtype: DType) -> None:
    assert dtype.np is not None
    total = Fraction(a) * Fraction(b) + Fraction(c)
    # Where the sum is exactly zero its sign is that of the plain formula.
    wanted = dtype.np.type(rounded(total, dtype.bits) if total else (a * b + c if a == 0 or b == 0 else 0.0))
    scalars = [dtype.np.type(v) for v in (a, b, c)]
    with np.errstate(all="ignore"):
        found = exact.fma(*scalars)
        lanes = exact.fma(*(np.full(2, v) for v in scalars))
    for value in (found, *lanes):
        assert_same_bits(np.asarray(value), np.asarray(wanted), f"fma({a!r}, {b!r}, {c!r})")


@pytest.mark.parametrize("dtype", [float32, float64])
def test_fma_is_rounded_once_in_hard_cases(dtype: DType) -> None:
    tiny = 2.0 ** (-149 if dtype is float32 else -1074)
    step = 2.0 ** (-23 if dtype is float32 else -52)
    rng = np.random.default_rng(0)
    cases = [(1 + step, 1 + step, -1.0), (1 + step, 1 - step, -1.0), (1.0 + step, 1.0, step / 2), (1.0, 1.0, step / 2)]
    cases += [(1 + step, 1.0, tiny), (1.0, step / 2, 1.0), (1 + step, step / 2, 1.0), (tiny, 0.5, tiny)]
    cases += [(tiny, 0.5, 0.0), (tiny, -0.5, 0.0), (3.0, 1 / 3, -1.0), (1.0, 1.0, -1.0)]
    cases += [(-0.0, 1.0, 0.0), (-0.0, 1.0, -0.0)]
    for _ in range(300):
        a, b = (1 + step * float(rng.integers(0, 2**20)) for _ in range(2))
        cases.append((a, b, -a * b * (1 + step * float(rng.integers(-1, 2)))))
        cases.append((a, b, step * float(rng.integers(-3, 4)) / 2))
    for a, b, c in cases:
        x, y, z = (float(exact.np_dtype(dtype).type(v)) for v in (a, b, c))
        check_fma(x, y, z, dtype)


def test_fma_of_special_values() -> None:
    cases = [(INF, 0.0, 1.0, NAN), (INF, 1.0, -INF, NAN), (1e300, 1e300, -INF, -INF), (2.0, INF, 1.0, INF)]
    cases += [(NAN, 1.0, 1.0, NAN), (1.0, 1.0, NAN, NAN), (1e200, 1e200, 1.0, INF), (1e308, 10.0, -1e308, INF)]
    for a, b, c, wanted in cases:
        for dtype in (float32, float64):
            if dtype is float64 or not 100 < a < INF:
                e = Fma(const(a, dtype), const(b, dtype), const(c, dtype))
                assert_same_bits(np.asarray(evaluate(e)), np.asarray(wanted, dtype.np), f"fma({a}, {b}, {c})")


def test_maths_functions_are_those_of_vecmath() -> None:
    x = np.array([-2.0, -0.0, 0.5, 3.0, NAN, INF, -INF, 100.0], np.float32)
    out, lanes = np.zeros(8, np.float32), np.zeros(8, np.float32)
    text = """\
        kernel f(x: f32[8] read, out: f32[8], lanes: f32[8]):
          serial i in 8:
            out[i] = exp(x[i])
          lanes[ramp(0, 1, 8)] = exp(x[ramp(0, 1, 8)])
        """
    interpret(parse_kernel(text), [x, out, lanes])
    with np.errstate(over="ignore"):
        np.testing.assert_array_max_ulp(out[:4], np.exp(x[:4].astype(np.float64)).astype(np.float32), 1)
    assert_same_bits(out, lanes, "lanes")
    assert np.isnan(out[4])
    assert out[5:].tolist() == [INF, 0.0, INF]


# Expressions of lanes


def test_vectors_by_hand() -> None:
    out = np.zeros(4, np.int64)
    for text, expected in [
        ("i64(ramp(3, -2, 4))", [3, 1, -1, -3]),
        ("splat(7:i64, 4)", [7, 7, 7, 7]),
        ("shuffle(i64(ramp(0, 1, 8)), 7, 0, 0, 2)", [7, 0, 0, 2]),
        ("splat(shuffle(i64(ramp(5, 1, 8)), 3), 4)", [8, 8, 8, 8]),
        ("shuffle(3:i64, 0, 0, 0, 0)", [3, 3, 3, 3]),
        ("select(ramp(0, 1, 4) < splat(2, 4), 1:i64x4, 2:i64x4)", [1, 1, 2, 2]),
        ("i64(ramp(0, 1, 4) % splat(3, 4))", [0, 1, 2, 0]),
        ("i64(ramp(-4, 3, 4) // splat(0, 4))", [0, 0, 0, 0]),
        ("splat(i64(any(ramp(0, 1, 4) == splat(2, 4))), 4)", [1, 1, 1, 1]),
        ("splat(i64(all(ramp(0, 1, 4) == splat(2, 4))), 4)", [0, 0, 0, 0]),
        ("i64(ramp(100:i8, 20, 4))", [100, 120, -116, -96]),
    ]:
        interpret(parse_kernel(f"kernel f(out: i64[4]):\n  out[ramp(0, 1, 4)] = {text}"), [out])
        assert out.tolist() == expected, text


def test_a_prefetch_does_nothing_even_outside_the_array() -> None:
    a, out = floats(1, 2), floats(9, 9)
    run(
        """
        kernel f(a: f32[2] read, out: f32[2]):
          serial i in 2:
            prefetch a[i * 1000000]
            prefetch far out[i - 7]
            out[i] = a[i]
        """,
        a=a,
        out=out,
    )
    assert out.tolist() == [1, 2]


def test_masked_lanes_touch_no_memory_and_load_zero() -> None:
    a, out = floats(1, 2, 3), floats(9, 9, 9)
    run(
        """
        kernel f(a: f32[3] read, out: f32[3]):
          let i: indexx4 = ramp(0, 1, 4)
          let m: boolx4 = i < splat(3, 4)
          let x: f32x4 = a[i if m]
          out[i if m & (x != splat(2.0, 4))] = x + splat(shuffle(x, 3), 4)
        """,
        a=a,
        out=out,
    )
    assert out.tolist() == [1, 9, 3]


def test_gather_scatter_and_reversed_lanes() -> None:
    a, p, out = floats(0, 10, 20, 30), np.array([3, 1, 1, 0]), np.zeros((4, 2), np.float32)
    run(
        """
        kernel f(a: f32[4] read, p: i64[4] read, out: f32[4, 2]):
          out[ramp(0, 1, 4), 0] = a[index(p[ramp(0, 1, 4)])]
          out[index(p[ramp(0, 1, 4)]), 1] = a[ramp(3, -1, 4)]
        """,
        a=a,
        p=p,
        out=out,
    )
    assert out[:, 0].tolist() == [30, 10, 10, 0]
    # Of two lanes that store to one element the later one stays.
    assert out[:, 1].tolist() == [0, 10, 0, 30]


def test_select_guards_the_loads_of_its_arms() -> None:
    a, out = floats(1, 2, 3), np.zeros(4, np.float32)
    run(
        """
        kernel f(a: f32[3] read, out: f32[4]):
          serial i in 4:
            out[i] = select(i < 3, a[i], select(i > 3, a[i], -1.0))
        """,
        a=a,
        out=out,
    )
    assert out.tolist() == [1, 2, 3, -1]
    run(
        """
        kernel f(a: f32[3] read, out: f32[4]):
          let i: indexx4 = ramp(0, 1, 4)
          out[i] = select(i > splat(2, 4), splat(-1.0, 4), select(i < splat(1, 4), a[i], a[i] * splat(a[2], 4)))
        """,
        a=a,
        out=out,
    )
    assert out.tolist() == [1, 6, 9, -1]


def test_a_scalar_load_in_an_arm_that_no_lane_takes_is_not_made() -> None:
    out = np.zeros(4, np.float32)
    run(
        """
        kernel f(a: f32[1] read, out: f32[4]):
          out[ramp(0, 1, 4)] = select(splat(false, 4), splat(a[99], 4), splat(1.0, 4))
        """,
        a=floats(5),
        out=out,
    )
    assert out.tolist() == [1, 1, 1, 1]


# Statements and memory


def test_a_matrix_product() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (5, 7)), rng.integers(-9, 9, (7, 3))
    out = np.zeros((5, 3), np.int64)
    text = """\
        kernel matmul(a: i64[m, k] read, b: i64[k, n] read, out: i64[m, n], m: index, n: index, k: index):
          parallel i in m:
            vectorized j in n:
              alloc acc: i64[1] register
              acc[0] = 0:i64
              serial p in k:
                acc[0] = acc[0] + a[i, p] * b[p, j]
              out[i, j] = acc[0]
        """
    for reverse in (False, True):
        interpret(parse_kernel(text), {"a": a, "b": b, "out": out}, reverse=reverse)
        assert (out == a @ b).all()


def test_loops_read_their_extent_once_and_skip_when_it_is_not_positive() -> None:
    out = np.zeros(1, np.int64)
    text = """\
        kernel f(out: i64[1], n: index):
          serial i in n:
            serial j in i - 2:
              out[0] = out[0] + 1:i64
          serial i in 0 - n:
            out[0] = 100:i64
        """
    interpret(parse_kernel(text), [out], {"n": 5})
    assert out[0] == 0 + 1 + 2
    interpret(parse_kernel(text), [out], {"n": 0})
    assert out[0] == 3


def test_serial_loops_keep_their_order_and_independent_ones_may_run_backwards() -> None:
    text = "kernel f(a: i64[4], last: i64[1]):\n  {} i in 4:\n    a[i] = i64(i)\n    check_index last[0] i != {}, i\n"
    for kind in ("serial", "unrolled", "vectorized", "parallel"):
        a, last = np.zeros(4, np.int64), np.full(1, 2**63 - 1)
        interpret(parse_kernel(text.format(kind, 2)), [a, last], reverse=True)
        assert a.tolist() == [0, 1, 2, 3]
        assert last[0] == 2


def test_while_and_if() -> None:
    out = np.array([27, 0], np.int64)
    run(
        """
        kernel collatz(s: i64[2]):
          while s[0] != 1:i64:
            if s[0] % 2:i64 == 0:i64:
              s[0] = s[0] // 2:i64
            else:
              s[0] = 3:i64 * s[0] + 1:i64
            s[1] = s[1] + 1:i64
        """,
        s=out,
    )
    assert out.tolist() == [1, 111]


def test_scalars_bools_and_empty_arrays() -> None:
    flag, out, empty = np.array(True), np.zeros((), np.int32), np.zeros((0, 3), np.float32)
    run(
        """
        kernel f(flag: bool[], out: i32[], empty: f32[n, 3], n: index):
          if flag[]:
            out[] = 1:i32
            flag[] = out[] == 2:i32
          serial i in n:
            empty[i, 0] = 1.0
        """,
        flag=flag,
        out=out,
        empty=empty,
    )
    assert not flag
    assert out == 1


def test_a_check_lowers_the_status_to_the_smallest_bad_position() -> None:
    p, status = np.array([0, 9, 1, -1, 7, 3]), np.full(2, 2**63 - 1)
    text = """\
        kernel f(p: i64[6] read, status: i64[2]):
          parallel i in 6:
            check_index status[0] (p[i] >= 0:i64) & (p[i] < 5:i64), i
            if i == 0:
              let j: indexx4 = ramp(0, 1, 4)
              check_index status[1] j < splat(1, 4), i64(j) if j != splat(1, 4)
        """
    interpret(parse_kernel(text), [p, status])
    assert status.tolist() == [1, 2]


def test_atomics_combine() -> None:
    a, f = np.array([5, 5, 127], np.int8), floats(1, 1)
    run(
        """
        kernel f(a: i8[3], f: f32[2]):
          parallel i in 4:
            atomic min a[0], i8(i)
            atomic max a[1], i8(i * 3)
            atomic add a[2], 1:i8
            atomic add f[0], 0.5
            atomic max f[1], select(i == 2, nan, 9.0)
        """,
        a=a,
        f=f,
    )
    assert a.tolist() == [0, 9, -125]
    assert f[0] == 3
    assert np.isnan(f[1])


MICRO = """\
    kernel f(a: f32[3, 4] read, out: f32[12]):
      serial i in 3:
        call row(a + i * 4, out + i * 4; {})
      kernel row(x: f32[n] read, y: f32[n], n: index):
        serial i in n:
          y[i] = x[i] * 2.0
    """


def test_a_called_kernel_sees_its_buffers_from_an_offset_on() -> None:
    a, out = np.arange(12, dtype=np.float32).reshape(3, 4), np.zeros(12, np.float32)
    interpret(parse_kernel(MICRO.format(4)), [a, out])
    assert (out == 2 * a.reshape(-1)).all()
    message = fault(MICRO.format(5), a, out)
    assert message.startswith("out of bounds: element 12 of a with 12 elements\n  in kernel row: y[i] = x[i] * 2.0")


def test_private_buffers_are_new_in_every_parallel_iteration() -> None:
    text = """\
        kernel f(out: f32[4]):
          alloc row: f32[4] scratch
          parallel i in 4:
            {}
            out[i] = row[0]
        """
    out = np.zeros(4, np.float32)
    interpret(parse_kernel(text.format("row[0] = f32(i)")), [out])
    assert out.tolist() == [0, 1, 2, 3]
    assert "undefined" in fault(text.format("if i == 0:\n              row[0] = 1.0"), out)


# Faults


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("out[8] = 1.0", "out of bounds: out[8] of shape [8]\n  in kernel f: out[8] = 1.0"),
        ("out[0 - 1] = 1.0", "out of bounds: out[-1] of shape [8]"),
        ("serial i in 9:\n    out[i] = 1.0", "out of bounds: out[8] of shape [8]  with n = 2, i = 8"),
        ("out[ramp(5, 1, 4)] = splat(1.0, 4)", "out of bounds: out[8] of shape [8]"),
        ("out[0] = a[0, 4]", "out of bounds: a[0, 4] of shape [2, 4]"),
        ("a[0, 0] = 1.0", "a is a parameter that the kernel only reads"),
        ("alloc t: f32[4] stack\n  out[0] = t[1]", "undefined: t[1] is read before it is written"),
        (
            "alloc t: f32[4] stack\n  t[0] = 1.0\n  out[ramp(0, 1, 4)] = t[ramp(0, 1, 4)]",
            "undefined: element 1 of t is read before it is written",
        ),
        ("alloc t: f32[4] stack\n  atomic add t[1], 1.0", "undefined: t[1] is updated before it is written"),
        (
            "serial i in 2:\n    alloc t: f32[1] stack\n    if i == 0:\n      t[0] = 1.0\n    out[i] = t[0]",
            "undefined: t[0] is read before it is written\n  in kernel f: out[i] = t[0]  with n = 2, i = 1",
        ),
        ("alloc t: f32[n - 99] scratch", "t has a negative size: [-97]"),
    ],
)
def test_faults_name_statement_and_values(text: str, message: str) -> None:
    a, out = np.zeros((2, 4), np.float32), np.zeros(8, np.float32)
    header = "kernel f(a: f32[n, 4] read, out: f32[8], n: index):\n  "
    found = fault(header + text, a, out)
    head, _, rest = message.partition("  with ")
    assert found.startswith(head)
    assert rest in found


def test_arguments_must_fit_the_declaration() -> None:
    kernel = parse_kernel("kernel f(a: f32[n, 4], b: f32[m], n: index, m: index):\n  pass")
    a, b = np.zeros((2, 4), np.float32), np.zeros(3, np.float32)
    interpret(kernel, [a, b])
    interpret(kernel, [a.reshape(-1), b], {"n": 2})
    for buffers, dims, message in [
        ([a], {}, "kernel f takes ['a', 'b'], given 1 arrays"),
        ({"a": a, "c": b}, {}, "kernel f takes ['a', 'b'], given ['a', 'c']"),
        ([a.astype(np.float64), b], {}, "a is f32, given float64"),
        ([a, b], {"n": 3}, "a has shape (2, 4), its declaration says (3, 4)"),
        ([np.zeros((2, 5), np.float32), b], {}, "a has shape (2, 5), its declaration says (2, 4)"),
        ([np.zeros((4, 2), np.float32).T, b], {}, "a must be C-contiguous"),
        ([a.reshape(-1), b], {}, "kernel f needs the dims n"),
        ([np.zeros(9, np.float32), b], {"n": 2}, "a has shape (9,), its declaration says (2, 4)"),
    ]:
        with pytest.raises(CompilerBug) as e:
            interpret(kernel, buffers, dims)  # type: ignore[arg-type]
        assert str(e.value).startswith(message)
    with pytest.raises(CompilerBug, match="kernel g needs the dims n"):
        interpret(parse_kernel("kernel g(a: f32[n + 1], n: index):\n  pass"), [b])


@pytest.mark.parametrize("kind", ["parallel", "vectorized"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("out[0] = a[i]", "written here and written by another iteration"),
        ("out[i // 2] = a[i]", "written here and written by another iteration"),
        ("out[i] = out[(i + 1) % 4]", "by another iteration"),
        ("atomic add out[0], 1.0\n    out[1] = out[0]", "by another iteration"),
        ("atomic add out[0], 1.0\n    if i == 1:\n      out[0] = 2.0", "by another iteration"),
    ],
)
def test_a_race_of_iterations_is_found(kind: str, reverse: bool, body: str, how: str) -> None:
    text = f"kernel f(a: f32[4] read, out: f32[4]):\n  {kind} i in 4:\n    {body}"
    found = fault(text, floats(1, 2, 3, 4), floats(0, 0, 0, 0), reverse=reverse)
    assert found.startswith("race: element")
    assert how in found


@pytest.mark.parametrize("kind", ["parallel", "vectorized"])
@pytest.mark.parametrize(
    "body",
    [
        "out[i] = a[0]",
        "out[i] = 1.0\n    out[i] = out[i] + 1.0",
        "atomic add out[0], 1.0",
        "alloc t: f32[1] stack\n    t[0] = a[i]\n    out[i] = t[0]",
        "serial j in 1:\n      out[i] = a[j]",
    ],
)
def test_independent_iterations_are_no_race(kind: str, body: str) -> None:
    text = f"kernel f(a: f32[4] read, out: f32[4]):\n  {kind} i in 4:\n    {body}"
    for reverse in (False, True):
        interpret(parse_kernel(text), [floats(1, 2, 3, 4), floats(0, 0, 0, 0)], reverse=reverse)


def test_two_loops_one_after_another_do_not_race() -> None:
    text = """\
        kernel f(out: f32[4]):
          vectorized i in 4:
            out[i] = 1.0
          vectorized i in 4:
            out[3 - i] = out[3 - i] + 1.0
          serial k in 2:
            vectorized i in 2:
              out[i + k] = out[i + k] + 1.0
        """
    out = floats(0, 0, 0, 0)
    interpret(parse_kernel(text), [out])
    assert out.tolist() == [3, 4, 3, 2]


def test_a_race_across_an_inner_independent_loop_is_found() -> None:
    text = """\
        kernel f(out: f32[4, 4]):
          parallel i in 4:
            vectorized j in 4:
              out[j, 0] = 1.0
        """
    assert fault(text, np.zeros((4, 4), np.float32)).startswith("race: element 0 of out is written here and written by")


# GPU kernels

REVERSE_BLOCK = """\
    kernel reverse(a: f32[n] read, out: f32[n], n: index):
      block.x b in n // 64:
        alloc tile: f32[64] shared
        thread.x t in 64:
          tile[t] = a[b * 64 + t]
          barrier
          out[b * 64 + t] = tile[63 - t]
    """


@pytest.mark.parametrize("reverse", [False, True])
def test_threads_exchange_values_in_shared_memory(reverse: bool) -> None:
    a, out = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    interpret(parse_kernel(REVERSE_BLOCK), [a, out], reverse=reverse)
    assert (out == a.reshape(2, 64)[:, ::-1].reshape(-1)).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_missing_barrier_is_found(reverse: bool) -> None:
    text = REVERSE_BLOCK.replace("          barrier\n", "")
    a, out = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    assert fault(text, a, out, reverse=reverse).startswith(("undefined: tile[", "race: element"))
    # With one initialised buffer it is still a race.
    text = """\
        kernel f(a: f32[64]):
          thread.x t in 64:
            a[t] = a[63 - t]
        """
    assert fault(text, np.zeros(64, np.float32), reverse=reverse).startswith("race: element")


def test_a_barrier_orders_global_memory_too() -> None:
    text = """\
        kernel f(a: f32[64]):
          thread.x t in 64:
            let x: f32 = a[63 - t]
            barrier
            a[t] = x
        """
    a = np.arange(64, dtype=np.float32)
    interpret(parse_kernel(text), [a])
    assert (a == np.arange(64)[::-1]).all()


def test_blocks_must_not_depend_on_each_other() -> None:
    text = "kernel f(a: f32[8]):\n  block.x b in 8:\n    thread.x t in 1:\n      a[b // 2] = f32(b)"
    assert fault(text, np.zeros(8, np.float32)).startswith(
        "race: element 0 of a is written here and written by another"
    )
    text = "kernel f(a: f32[8]):\n  block.x b in 8:\n    thread.x t in 1:\n      atomic add a[b // 2], 1.0"
    a = np.zeros(8, np.float32)
    interpret(parse_kernel(text), [a])
    assert a.tolist() == [2, 2, 2, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("if t < 32:\n        barrier", "divergent barrier: threads 32, 33, 34, 35, ... have ended, threads 0, 1"),
        ("if t < 32:\n        barrier\n      else:\n        barrier", "divergent barrier: the threads of"),
        ("serial i in t:\n        barrier", "divergent barrier: threads 0 have ended"),
    ],
)
def test_a_divergent_barrier_is_found(body: str, message: str, reverse: bool) -> None:
    text = f"kernel f(a: f32[1]):\n    thread.x t in 64:\n      {body}"
    assert fault(text, np.zeros(1, np.float32), reverse=reverse).startswith(message)


def shuffled(call: str, threads: int) -> list[float]:
    out = np.zeros(threads, np.float32)
    text = f"kernel f(out: f32[{threads}]):\n  thread.x t in {threads}:\n    out[t] = {call}"
    interpret(parse_kernel(text), [out])
    again = np.zeros(threads, np.float32)
    interpret(parse_kernel(text), [again], reverse=True)
    assert_same_bits(again, out, "in reverse order")
    return out.tolist()


def test_shuffles_by_hand() -> None:
    assert shuffled("shfl_down(f32(t), 3)", 64) == [*range(3, 32), 29, 30, 31, *range(35, 64), 61, 62, 63]
    assert shuffled("shfl_up(f32(t), 1)", 32) == [0, *range(31)]
    assert shuffled("shfl_xor(f32(t), 5)", 64) == [t ^ 5 for t in range(64)]
    assert shuffled("shfl_idx(f32(t), 7)", 64) == [7] * 32 + [39] * 32
    assert shuffled("shfl_idx(f32(t), 31 - t % 32)", 32) == list(range(32))[::-1]
    assert shuffled("shfl_down(f32(t), 1) + shfl_xor(f32(t), 1)", 32)[:3] == [2, 2, 6]


def test_a_shuffle_in_a_small_block_reads_nonsense_beyond_it() -> None:
    out = shuffled("shfl_down(f32(t), 8)", 16)
    assert out[:8] == list(range(8, 16))
    assert all(math.isnan(x) for x in out[8:])


def test_a_sum_by_shuffles_over_two_warps() -> None:
    steps = "\n".join(
        f"            let s{k}: f32 = {p} + shfl_xor({p}, {k})"
        for p, k in (("x", 16), ("s16", 8), ("s8", 4), ("s4", 2), ("s2", 1))
    )
    text = f"""\
        kernel total(a: f32[n] read, out: f32[1], n: index):
          alloc part: f32[2] shared
          thread.x t in 64:
            let x: f32 = select(t < n, a[t], 0.0)
{steps}
            if t % 32 == 0:
              part[t // 32] = s1
            barrier
            if t == 0:
              out[0] = part[0] + part[1]
        """
    for n in (0, 1, 31, 50, 64):
        out = np.zeros(1, np.float32)
        for reverse in (False, True):
            interpret(parse_kernel(text), [np.arange(n, dtype=np.float32), out], reverse=reverse)
            assert out[0] == n * (n - 1) / 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "if t < 8:\n        a[t] = shfl_xor(1.0, 1)",
            "divergent shuffle in the warp of thread 0: threads 8, 9, 10, 11, ... are elsewhere: a[t] = shfl",
        ),
        (
            "if t < 8:\n        a[t] = shfl_xor(1.0, 1)\n      else:\n        a[t] = shfl_xor(1.0, 1)",
            "divergent shuffle in the warp of thread 0: the threads are at different shuffles: a[t] = ",
        ),
    ],
)
def test_a_divergent_shuffle_is_found(body: str, message: str) -> None:
    text = f"kernel f(a: f32[32]):\n    thread.x t in 32:\n      {body}"
    assert fault(text, np.zeros(32, np.float32)).startswith(message)


def test_barriers_and_shuffles_need_threads() -> None:
    for text in ("barrier", "a[0] = shfl_xor(a[0], 1)"):
        found = fault(f"kernel f(a: f32[32]):\n  {text}", np.zeros(32, np.float32))
        assert found == "barriers and shuffles need thread loops\n  in kernel f"


def test_one_warp_may_shuffle_while_the_other_waits() -> None:
    text = """\
        kernel f(a: f32[64]):
          thread.x t in 64:
            if t < 32:
              a[t] = shfl_xor(f32(t), 1)
            barrier
            if t >= 32:
              a[t] = a[t - 32]
        """
    for reverse in (False, True):
        a = np.zeros(64, np.float32)
        interpret(parse_kernel(text), [a], reverse=reverse)
        assert a.tolist() == [t ^ 1 for t in range(32)] * 2


def test_a_grid_of_two_axes_transposes() -> None:
    text = """\
        kernel transpose(a: f32[m, n] read, out: f32[n, m], m: index, n: index):
          let rows: index = (m + 7) // 8
          block.y bi in rows:
            block.x bj in (n + 7) // 8:
              alloc tile: f32[8, 9] shared
              thread.y i in 8:
                thread.x j in 8:
                  let r: index = bi * 8 + i
                  let c: index = bj * 8 + j
                  if (r < m) & (c < n):
                    tile[i, j] = a[r, c]
                  barrier
                  let r2: index = bj * 8 + i
                  let c2: index = bi * 8 + j
                  if (r2 < n) & (c2 < m):
                    out[r2, c2] = tile[j, i]
        """
    a = np.arange(13 * 10, dtype=np.float32).reshape(13, 10)
    out = np.zeros((10, 13), np.float32)
    kernel = parse_kernel(text)
    verify(kernel)
    interpret(kernel, [a, out])
    assert (out == a.T).all()


def test_registers_are_private_to_the_thread_wherever_they_are_made() -> None:
    text = """\
        kernel f(out: f32[8]):
          block.x b in 2:
            alloc r: f32[1] register
            thread.x t in 4:
              r[0] = f32(t)
              barrier
              out[b * 4 + t] = r[0]
        """
    out = np.zeros(8, np.float32)
    interpret(parse_kernel(text), [out])
    assert out.tolist() == [0, 1, 2, 3] * 2


def test_shared_memory_is_new_in_every_block_and_every_round() -> None:
    text = """\
        kernel f(out: f32[4]):
          block.x b in 2:
            thread.x t in 2:
              serial round in 2:
                alloc s: f32[2] shared
                {}
                barrier
                out[b * 2 + t] = s[1 - t]
                barrier
        """
    out = np.zeros(4, np.float32)
    interpret(parse_kernel(text.format("s[t] = f32(b * 10 + t)")), [out])
    assert out.tolist() == [1, 0, 11, 10]
    assert fault(text.format("if round == 0:\n                  s[t] = 1.0"), out).startswith("undefined: s[1]")


def test_a_grid_must_follow_from_the_dims() -> None:
    text = "kernel f(a: i64[1] read):\n  let n: index = index(a[0])\n  thread.x t in n:\n    pass"
    with pytest.raises(CompilerBug, match=r"the extent of a thread loop must follow from the dims: thread\.x t in n:"):
        interpret(parse_kernel(text), [np.array([3])])


# Random programs


def test_random_programs_give_the_same_bits_in_either_order_of_independent_iterations() -> None:
    for seed in range(150):
        kernel = random_kernel(seed) if seed % 3 else random_gpu_kernel(seed)
        sizes = {"n": 1 + seed % 9}
        arrays = random_arrays(kernel, sizes, np.random.default_rng(seed))
        other = {name: a.copy() for name, a in arrays.items()}
        interpret(kernel, arrays, sizes)
        interpret(kernel, other, sizes, reverse=True)
        for name, a in arrays.items():
            assert_same_bits(other[name], a, f"{name} of seed {seed}")


def test_numbers_are_not_silently_promoted() -> None:
    # f32 arithmetic stays f32 also where a Python float would be exact.
    one, small = const(1.0, float32), const(2.0**-30, float32)
    assert evaluate(Binary("sub", Binary("add", one, small), one)) == 0.0
    assert evaluate(Const(3, type_of(int64)) + const(4, int64)) == 7
    assert evaluate(Cast(const_index(2) - const_index(5), int32)) == -3
