"""Compiled kernels against numpy and the interpreter: every operation and dtype, on every target that runs here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lowering.interp import interpret
from lowering.llvm import emit_kernel
from lowering.loop_ir import Kernel
from lowering.parser import parse_kernel
from lowering.pipeline import run_pipeline
from lowering.target import Target, host
from tests.support.compiled import Compiled, before_guard, runnable, unaligned

TARGETS = [pytest.param(t, id=f"{k}-{t.name}") for k, t in enumerate(runnable())]
Array = np.ndarray[Any, np.dtype[Any]]
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64
SHORT = {"f32": F32, "f64": F64, "i32": I32, "i64": I64, "bool": np.bool_, "u8": np.uint8, "i16": np.int16}


def same_bits(a: Array, b: Array) -> None:
    """Any NaN equals any other; everything else must agree to the bit."""
    if a.dtype.kind == "f":
        assert np.array_equal(np.isnan(a), np.isnan(b)), (a, b)
        a, b = np.where(np.isnan(a), 0, a), np.where(np.isnan(b), 0, b)
    x, y = a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}")
    wrong = np.flatnonzero((x != y).reshape(-1))
    assert wrong.size == 0, f"{wrong.size} differ, first at {wrong[0]}: {a.flat[wrong[0]]!r} and {b.flat[wrong[0]]!r}"


def elementwise(expression: str, result: str, **inputs: str) -> Kernel:
    """A vectorized loop ``out[i] = expression``; inputs are named with their dtypes."""
    params = "".join(f"{name}: {dtype}[n] read, " for name, dtype in inputs.items())
    return parse_kernel(
        f"kernel k({params}out: {result}[n], n: index):\n  vectorized i in n:\n    out[i] = {expression}\n"
    )


def several(expressions: list[str], result: str, **inputs: str) -> Kernel:
    """Like `elementwise`, with outputs o0, o1, ..."""
    params = "".join(f"{name}: {dtype}[n] read, " for name, dtype in inputs.items())
    outs = "".join(f"o{k}: {result}[n], " for k in range(len(expressions)))
    body = "".join(f"    o{k}[i] = {e}\n" for k, e in enumerate(expressions))
    return parse_kernel(f"kernel k({params}{outs}n: index):\n  vectorized i in n:\n{body}")


def zeros_like(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: np.zeros_like(a) for name, a in arrays.items()}


def check(kernel: Kernel, target: Target, arrays: dict[str, Array], expected: dict[str, Array] | None = None) -> None:
    """Compile `kernel` after the pipeline and compare what it stores with `expected`, or with the interpreter."""
    if expected is None:
        copies = {name: a.copy() for name, a in arrays.items()}
        interpret(kernel, copies)
        expected = copies
    mine = {name: a.copy() for name, a in arrays.items()}
    Compiled(run_pipeline(kernel, target, check=True), target)(mine)
    for name, a in expected.items():
        same_bits(mine[name], a)


FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3e9,
    -3e9,
    1e20,
    -1e20,
    1e-40,
    -1e-40,
    np.inf,
    -np.inf,
    np.nan,
]
FLOATS += [
    2147483520.0,
    2147483648.0,
    -2147483648.0,
    -2147483904.0,
    9.2e18,
    9.3e18,
    -9.3e18,
    0.49999997,
    8388609.0,
    255.5,
]


def floats(dtype: Any, seed: int, n: int = 0) -> Array:
    """All pairs of special values need both orders: a permutation per seed, repeated, then some random numbers."""
    rng = np.random.default_rng(seed)
    special = np.concatenate([rng.permutation(np.array(FLOATS)) for _ in range(16)])
    out = np.concatenate([special, rng.standard_normal(101) * 100]).astype(dtype)
    return out[:n] if n else out


def integers(dtype: Any, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    some = [0, 1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 65, info.max, info.min, info.max - 1, info.min + 1]
    some += [-1, -2, -3, -64] if info.min < 0 else []
    special = np.concatenate([rng.permutation(np.array(some, dtype)) for _ in range(20)])
    return np.concatenate([special, rng.integers(info.min, info.max, 77, dtype)])


def operands(short: str, seed: int) -> Array:
    if short == "bool":
        return np.random.default_rng(seed).integers(0, 2, 99).astype(np.bool_)
    return floats(SHORT[short], seed) if short[0] == "f" else integers(SHORT[short], seed)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "i32", "i64", "bool", "u8", "i16"])
def test_binary_operations_agree_with_the_interpreter(target: Target, short: str) -> None:
    infix = {"f": "+ - * /", "b": "& | ^"}.get(short[0], "+ - * // % & | ^ << >>").split()
    a, b = operands(short, 1), operands(short, 2)
    lines = [f"a[i] {op} b[i]" for op in infix] + ["min(a[i], b[i])", "max(a[i], b[i])"] * (short != "bool")
    kernel = several(lines, short, a=short, b=short)
    out = {f"o{k}": np.zeros(a.size, SHORT[short]) for k in range(len(lines))}
    check(kernel, target, {"a": a, "b": b, **out})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["i32", "i64", "u8"])
def test_division_and_shifts_by_literals_agree_with_the_interpreter(target: Target, short: str) -> None:
    literals = [1, 2, 3, 7, 8, 33] + ([-1, -2, -7] if short[0] == "i" else [])
    lines = [f"a[i] {op} {c}:{short}" for c in literals for op in ("//", "%", "<<", ">>") if c > 0 or op in "//%"]
    lines += [f"{c}:{short} // a[i]" for c in (0, 7)] + [f"a[i] // 0:{short}", f"a[i] % 0:{short}"]
    kernel = several(lines, short, a=short)
    a = integers(SHORT[short], 3)
    check(kernel, target, {"a": a, **{f"o{k}": np.zeros(a.size, a.dtype) for k in range(len(lines))}})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64"])
def test_min_and_max_with_literals_keep_nan_and_the_first_of_equal_zeros(target: Target, short: str) -> None:
    a = floats(SHORT[short], 4)
    expressions, expected = [], {}
    for literal in ("0.0", "-0.0", "1.5", "inf", "nan"):
        c = np.full_like(a, SHORT[short](literal))
        for op, better in (("min", np.less), ("max", np.greater)):
            for text, x, y in ((f"a[i], {literal}:{short}", a, c), (f"{literal}:{short}, a[i]", c, a)):
                expected[f"o{len(expressions)}"] = np.where(np.isnan(x), x, np.where(np.isnan(y) | better(y, x), y, x))
                expressions.append(f"{op}({text})")
    check(several(expressions, short, a=short), target, {"a": a, **zeros_like(expected)}, expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "i32", "i64", "u8"])
def test_unary_operations_agree_with_the_interpreter(target: Target, short: str) -> None:
    a = operands(short, 5)
    if short[0] == "f":
        lines = ["-a[i]"] + [f"{f}(a[i])" for f in ("abs", "sqrt", "floor", "ceil", "trunc", "round")]
    else:
        lines = ["-a[i]", "~a[i]", "abs(a[i])"]
    kernel = several(lines, short, a=short)
    check(kernel, target, {"a": a, **{f"o{k}": np.zeros_like(a) for k in range(len(lines))}})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "i32", "i64", "bool", "u8", "i16"])
def test_casts_agree_with_the_interpreter(target: Target, short: str) -> None:
    a = operands(short, 6)
    outs = "".join(f", to_{t}: {t}[n]" for t in SHORT)
    body = "".join(f"    to_{t}[i] = {t}(a[i])\n" for t in SHORT)
    kernel = parse_kernel(f"kernel k(a: {short}[n] read{outs}, n: index):\n  vectorized i in n:\n{body}")
    check(kernel, target, {"a": a, **{f"to_{t}": np.zeros(a.size, d) for t, d in SHORT.items()}})


@pytest.mark.parametrize("target", TARGETS)
def test_float_to_int_saturates_and_sends_nan_to_zero(target: Target) -> None:
    a = np.array([np.nan, np.inf, -np.inf, 1e20, -1e20, 2147483648.0, -2147483904.0, 1.9, -1.9] * 3, F32)
    top, low = 2**31 - 1, -(2**31)
    expected = np.array([0, top, low, top, low, top, low, 1, -1] * 3, I32)
    kernel = elementwise("i32(a[i])", "i32", a="f32")
    check(kernel, target, {"a": a, "out": np.zeros(a.size, I32)}, {"out": expected})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["i32", "u8", "i16", "i64"])
def test_division_next_to_a_multiple_is_exact(target: Target, short: str) -> None:
    rng = np.random.default_rng(14)
    info = np.iinfo(SHORT[short])
    b = rng.integers(1, info.max, 3000, SHORT[short])
    b[::3] = rng.integers(1, 60, 1000)
    q = rng.integers(0, info.max // b.astype(object) + 1).astype(SHORT[short])
    a = np.clip(q.astype(object) * b + rng.integers(-1, 2, b.size), 0, info.max).astype(SHORT[short])
    kernel = parse_kernel(
        f"kernel k(a: {short}[n] read, b: {short}[n] read, q: {short}[n], r: {short}[n], n: index):\n"
        "  vectorized i in n:\n    q[i] = a[i] // b[i]\n    r[i] = a[i] % b[i]\n"
    )
    zeros = {"q": np.zeros_like(a), "r": np.zeros_like(a)}
    check(kernel, target, {"a": a, "b": b, **zeros}, {"q": a // b, "r": a % b})
    if short[0] == "i":
        check(kernel, target, {"a": -a, "b": b, **zeros}, {"q": -a // b, "r": -a % b})


@pytest.mark.parametrize("target", TARGETS)
def test_integer_division_by_zero_gives_zero_and_min_by_minus_one_is_min(target: Target) -> None:
    low = np.iinfo(I32).min
    a = np.array([7, -7, low, low, 0, 7, -7] * 5, I32)
    b = np.array([0, 0, -1, 0, 0, -2, 2] * 5, I32)
    kernel = parse_kernel(
        "kernel k(a: i32[n] read, b: i32[n] read, q: i32[n], r: i32[n], n: index):\n"
        "  vectorized i in n:\n    q[i] = a[i] // b[i]\n    r[i] = a[i] % b[i]\n"
    )
    expected = {"q": np.array([0, 0, low, 0, 0, -4, -4] * 5, I32), "r": np.array([0, 0, 0, 0, 0, -1, 1] * 5, I32)}
    zeros = {"q": np.zeros(35, I32), "r": np.zeros(35, I32)}
    check(kernel, target, {"a": a, "b": b, **zeros}, expected)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "i32", "bool"])
def test_comparisons_agree_with_numpy(target: Target, short: str) -> None:
    a, b = operands(short, 7), operands(short, 8)
    expected = {"o0": a < b, "o1": a <= b, "o2": a > b, "o3": a >= b, "o4": a == b, "o5": a != b}
    expressions = [f"a[i] {op} b[i]" for op in ("<", "<=", ">", ">=", "==", "!=")]
    kernel = several(expressions, "bool", a=short, b=short)
    check(kernel, target, {"a": a, "b": b, **zeros_like(expected)}, expected)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bool_in_memory_is_true_for_any_byte_but_zero(target: Target) -> None:
    a = np.arange(70, dtype=np.uint8).view(np.bool_)
    kernel = elementwise("select(a[i], 1.0, 2.0)", "f32", a="bool")
    expected = np.where(np.arange(70) > 0, 1, 2).astype(F32)
    check(kernel, target, {"a": a, "out": np.zeros(70, F32)}, {"out": expected})


@pytest.mark.parametrize("target", [t for t in TARGETS if t.values[0].has_fma])
def test_fma_rounds_once_in_f32(target: Target) -> None:
    rng = np.random.default_rng(9)
    a, b = rng.standard_normal((2, 4001)).astype(F32)
    c = (-a * b * (1 + rng.integers(-3, 4, a.size) * F32(2**-24))).astype(F32)
    a[:9], b[:9], c[:9] = (
        np.inf,
        [0, 1, -1, np.nan, 2, np.inf, 1, 1, 1],
        [1, -np.inf, np.inf, 1, 3, -np.inf, 0, np.nan, 2],
    )
    a[9:12], b[9:12], c[9:12] = 2.0**-100, [2.0**-40, 2.0**-49, -(2.0**-49)], [2.0**-149, 0, 2.0**-149]
    kernel = elementwise("fma(a[i], b[i], c[i])", "f32", a="f32", b="f32", c="f32")
    check(kernel, target, {"a": a, "b": b, "c": c, "out": np.zeros_like(a)})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "i32", "bool", "u8"])
def test_no_length_touches_memory_past_the_end(target: Target, short: str) -> None:
    kernel = elementwise("a[i] | b[i]" if short == "bool" else "max(a[i], b[i])", short, a=short, b=short)
    run = Compiled(run_pipeline(kernel, target, check=True), target)
    for n in (0, 1, 15, 16, 17, 63, 64, 65, 130, 257):
        rng = np.random.default_rng(n)
        a, b = (rng.integers(0, 2, n).astype(SHORT[short]) for _ in range(2))
        arrays = {"a": before_guard(a), "b": before_guard(b), "out": before_guard(np.zeros_like(a))}
        run(arrays)
        assert np.array_equal(arrays["out"], np.maximum(a, b))


@pytest.mark.parametrize("target", TARGETS)
def test_a_long_odd_length_of_unaligned_arrays_is_right(target: Target) -> None:
    rng = np.random.default_rng(10)
    a, b, c = (unaligned(rng.standard_normal(1000003).astype(F32)) for _ in range(3))
    kernel = elementwise("max(a[i] * b[i] + c[i], 0.0)", "f32", a="f32", b="f32", c="f32")
    arrays = {"a": a, "b": b, "c": c, "out": unaligned(np.zeros_like(a))}
    Compiled(run_pipeline(kernel, target, check=True), target)(arrays)
    same_bits(arrays["out"], np.maximum(a * b + c, F32(0)))


@pytest.mark.parametrize("target", TARGETS)
def test_every_stride_and_gather_is_read_right(target: Target) -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n, m] read, at: i64[n] read, o: f32[n, 6], n: index, m: index):
  vectorized i in n:
    o[i, 0] = a[i, 0]
    o[i, 1] = a[n - 1 - i, 1]
    o[i, 2] = a[index(at[i]), 2]
    o[i, 3] = a[0, i]
    o[i, 4] = a[1, n - 1 - i]
    o[i, 5] = a[i // 2, i % 3]
""")
    rng = np.random.default_rng(11)
    n, m = 37, 41
    a, at = rng.standard_normal((n, m)).astype(F32), rng.integers(0, n, n)
    i = np.arange(n)
    columns = [a[:, 0], a[::-1, 1], a[at, 2], a[0, :n], a[1, n - 1 - i], a[i // 2, i % 3]]
    check(kernel, target, {"a": a, "at": at, "o": np.zeros((n, 6), F32)}, {"o": np.stack(columns, 1)})


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("short", ["f32", "f64", "bool"])
@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_spread_elements_are_read_forwards_and_backwards_without_leaving_the_buffer(
    target: Target, short: str, step: int
) -> None:
    kernel = parse_kernel(f"""
kernel k(a: {short}[m] read, o: {short}[n], p: {short}[n], n: index, m: index):
  vectorized i in n:
    o[i] = a[i * {step}]
    p[i] = a[(n - 1 - i) * {step}]
""")
    run = Compiled(run_pipeline(kernel, target, check=True), target)
    for n in (1, 16, 64, 131):
        a = (np.random.default_rng(n).standard_normal((n - 1) * step + 1) > 0).astype(SHORT[short])
        arrays = {"a": before_guard(a), "o": np.zeros(n, a.dtype), "p": np.zeros(n, a.dtype)}
        run(arrays)
        same_bits(arrays["o"], a[::step])
        same_bits(arrays["p"], a[::step][::-1].copy())


@pytest.mark.parametrize("target", TARGETS)
def test_a_select_guards_the_loads_of_its_arms(target: Target) -> None:
    # a holds m elements before a page that may not be read; b the other n - m.
    text = """
kernel k(a: f32[m] read, b: f32[p] read, o: f32[n], n: index, m: index, p: index):
  KIND i in n:
    o[i] = select(i < m, a[i] + a[0], b[i - m] * 2.0)
"""
    rng = np.random.default_rng(12)
    runs = [
        Compiled(run_pipeline(parse_kernel(text.replace("KIND", kind)), target, check=True), target)
        for kind in ("vectorized", "serial")
    ]
    for m, p in ((5, 36), (16, 16), (1, 0), (33, 2)):
        a, b = rng.standard_normal(m).astype(F32), rng.standard_normal(p).astype(F32)
        expected = np.concatenate([a + a[0], b * F32(2)])
        for run in runs:
            arrays = {"a": before_guard(a), "b": before_guard(b), "o": before_guard(np.zeros(m + p, F32))}
            run(arrays)
            same_bits(arrays["o"], expected)


@pytest.mark.parametrize("target", TARGETS)
def test_a_parallel_loop_runs_the_iterations_it_is_given(target: Target) -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n, m] read, o: f32[n, m], n: index, m: index):
  let half: index = m // 2
  parallel i in n:
    alloc row: f32[m] scratch
    vectorized j in m:
      row[j] = a[i, j] * 2.0
    vectorized j in m:
      o[i, j] = row[m - 1 - j] + f32(half)
""")
    a = np.random.default_rng(13).standard_normal((7, 53)).astype(F32)
    run = Compiled(run_pipeline(kernel, target, check=True), target)
    for chunk in (1, 3, 100):
        o = np.zeros_like(a)
        run({"a": a, "o": o}, chunk=chunk)
        same_bits(o, a[:, ::-1] * F32(2) + F32(26))


@pytest.mark.parametrize("target", TARGETS)
def test_register_accumulators_keep_the_order_of_a_reduction(target: Target) -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n] read, o: f32[1], n: index):
  alloc acc: f32[16] register
  vectorized l in 16:
    acc[l] = 0.0
  serial c in n // 16:
    vectorized l in 16:
      acc[l] = acc[l] + a[c * 16 + l]
  vectorized l in 16:
    if l < n % 16:
      acc[l] = acc[l] + a[n // 16 * 16 + l]
  vectorized l in 8:
    acc[l] = acc[l] + acc[l + 8]
  vectorized l in 4:
    acc[l] = acc[l] + acc[l + 4]
  vectorized l in 2:
    acc[l] = acc[l] + acc[l + 2]
  o[0] = acc[0] + acc[1]
""")
    run = Compiled(run_pipeline(kernel, target, check=True), target)
    for n in (0, 5, 16, 100, 1000):
        a = np.random.default_rng(n).standard_normal(n).astype(F32)
        lanes = np.zeros(16, F32)
        for k in range(n):
            lanes[k % 16] += a[k]
        while lanes.size > 1:
            lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
        o = np.zeros(1, F32)
        run({"a": before_guard(a), "o": o})
        same_bits(o, lanes)


@pytest.mark.parametrize("target", TARGETS)
def test_a_bad_index_lowers_its_status_slot_to_the_first_position(target: Target) -> None:
    kernel = parse_kernel("""
kernel k(at: i64[n] read, a: f32[m] read, o: f32[n], status: i64[2], n: index, m: index):
  vectorized i in n:
    let k: i64 = at[i]
    let ok: bool = (k >= 0:i64) & (k < i64(m))
    check_index status[1] ok, i64(i)
    o[i] = a[index(select(ok, k, 0:i64))]
""")
    a = np.arange(5, dtype=F32)
    at = np.tile([0, 4, 2], 30)
    run = Compiled(run_pipeline(kernel, target, check=True), target)
    for bad in ([], [88], [41, 7, 60]):
        at2 = at.copy()
        at2[bad] = -1
        arrays = {"at": at2, "a": a, "o": np.zeros(90, F32), "status": np.full(2, np.iinfo(I64).max)}
        run(arrays)
        assert arrays["status"].tolist() == [np.iinfo(I64).max, min(bad, default=np.iinfo(I64).max)]
        same_bits(arrays["o"], a[np.where(at2 < 0, 0, at2)])


@pytest.mark.parametrize("short", ["i32", "i64", "f32", "f64"])
def test_atomics_add_and_compare(short: str) -> None:
    kernel = parse_kernel(f"""
kernel k(a: {short}[n] read, o: {short}[3], n: index):
  serial i in n:
    atomic add o[0], a[i]
    atomic min o[1], a[i]
    atomic max o[2], a[i]
""")
    for last in (3, float("nan")) if short[0] == "f" else (3,):
        a = np.array([5, -7, 9, last], SHORT[short])
        o = np.zeros(3, SHORT[short])
        Compiled(kernel, host())({"a": a, "o": o})
        same_bits(o, np.array([a.sum(), a.min(), a.max()], SHORT[short]))


def test_a_microkernel_sees_its_buffers_at_the_offsets() -> None:
    kernel = parse_kernel("""
kernel outer(a: f32[n, 8] read, o: f32[n, 8], n: index):
  serial i in n:
    call inner(a + i * 8, o + (n - 1 - i) * 8; 8)
  kernel inner(x: f32[8] read, y: f32[8], m: index):
    vectorized j in m:
      y[j] = x[j] + 1.0
""")
    a = np.arange(24, dtype=F32).reshape(3, 8)
    o = np.zeros_like(a)
    text = emit_kernel(run_pipeline(kernel, host()), host())
    assert "define internal void @inner" in text
    assert "noinline" in text
    Compiled(run_pipeline(kernel, host()), host())({"a": a, "o": o})
    same_bits(o, a[::-1] + F32(1))
