"""The special cases of every elementwise function of the array API standard, compiled and interpreted.

Each function has rules: where its operands lie, and what the result is there. They are tried at every operand, or pair
of operands, of a list that has NaN of both signs, zeros, infinities, subnormal numbers, the ends of the range, odd,
even and broken numbers.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import DType

Array: TypeAlias = np.ndarray[Any, Any]
#: Where a rule holds, of one operand or two.
Where: TypeAlias = Callable[..., Any]

NAN, INF, PI = math.nan, math.inf, math.pi
DTYPES = (jf.float16, jf.float32, jf.float64)


def operands(dtype: DType) -> Array:
    info = np.finfo(dtype.np)
    sizes = [0.0, info.smallest_subnormal, info.tiny, info.eps, info.max]
    sizes += [0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 7.0, 1000.0, INF, NAN]
    return np.array([*sizes, *(np.copysign(s, -1.0) for s in sizes)], dtype.np)


# ---- where an operand lies


def anything(x: Array, *others: Array) -> Any:
    return np.full(x.shape, True)


def zero(x: Array) -> Any:
    return x == 0


def plus_zero(x: Array) -> Any:
    return (x == 0) & ~np.signbit(x)


def minus_zero(x: Array) -> Any:
    return (x == 0) & np.signbit(x)


def plus_inf(x: Array) -> Any:
    return x == INF


def minus_inf(x: Array) -> Any:
    return x == -INF


def finite_positive(x: Array) -> Any:
    return (x > 0) & (x < INF)


def finite_negative(x: Array) -> Any:
    return (x < 0) & (x > -INF)


def finite_nonzero(x: Array) -> Any:
    return np.isfinite(x) & (x != 0)


def number(x: Array) -> Any:
    return ~np.isnan(x)


def whole(x: Array) -> Any:
    return np.isfinite(x) & (np.floor(x) == x)


def broken(x: Array) -> Any:
    return np.isfinite(x) & (np.floor(x) != x)


def odd(x: Array) -> Any:
    return np.isfinite(x) & (np.abs(np.fmod(x, 2)) == 1)


def modest(x: Array) -> Any:
    """Return where a few bits are enough, so that quotients and remainders are exact."""
    return (np.abs(x) >= 0.5) & (np.abs(x) <= 7)


def above(bound: float) -> Where:
    return lambda x: x > bound


def below(bound: float) -> Where:
    return lambda x: x < bound


def at(value: float) -> Where:
    return lambda x: x == value


def size(where: Where) -> Where:
    return lambda x: where(np.abs(x))


def neither(*wheres: Where) -> Where:
    """Return where no one of `wheres` holds."""
    return lambda x: ~np.logical_or.reduce([w(x) for w in wheres])


def both(*wheres: Where) -> Where:
    """Return where all `wheres` of one operand hold."""
    return lambda x: np.logical_and.reduce([w(x) for w in wheres])


def each(first: Where, second: Where) -> Where:
    """Return where the first operand lies in `first` and the second in `second`."""
    return lambda a, b: first(a) & second(b)


def one_of_them(where: Where) -> Where:
    """Return where one operand of two, or both, lie in `where`."""
    return lambda a, b: where(a) | where(b)


def same_sign(a: Array, b: Array) -> Any:
    return np.signbit(a) == np.signbit(b)


# ---- what the result is


@dataclass(frozen=True, slots=True)
class About:
    """A number the result is near to."""

    value: float


def itself(x: Array) -> Array:
    return x


def first(a: Array, b: Array) -> Array:
    return a


def second(a: Array, b: Array) -> Array:
    return b


def elementwise(function: Callable[[float, float], float]) -> Callable[[Array, Array], Array]:
    """Return what Python computes of the same numbers."""
    return lambda a, b: np.array([function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)], a.dtype)


#: A number (NaN of any sign, zeros of their sign), a number to be near, or a function of the operands.
Result: TypeAlias = float | About | Callable[..., Array]
Rules: TypeAlias = list[tuple[Where, Result]]

IS_NAN: tuple[Where, Result] = (np.isnan, NAN)
KEEPS_ZEROS: Rules = [(plus_zero, 0.0), (minus_zero, -0.0)]
KEEPS_INFINITIES: Rules = [(plus_inf, INF), (minus_inf, -INF)]
ROUNDING: Rules = [IS_NAN, *KEEPS_ZEROS, *KEEPS_INFINITIES, (whole, itself)]
LOGARITHM: Rules = [IS_NAN, (below(0), NAN), (zero, -INF), (at(1), 0.0), (plus_inf, INF)]

UNARY: dict[str, Rules] = {
    "abs": [IS_NAN, (zero, 0.0), (minus_inf, INF), (above(0), itself), (below(0), lambda x: -x)],
    "acos": [IS_NAN, (size(above(1)), NAN), (at(1), 0.0), (zero, About(PI / 2)), (at(-1), About(PI))],
    "acosh": [IS_NAN, (below(1), NAN), (at(1), 0.0), (plus_inf, INF)],
    "asin": [IS_NAN, (size(above(1)), NAN), *KEEPS_ZEROS, (at(1), About(PI / 2)), (at(-1), About(-PI / 2))],
    "asinh": [IS_NAN, *KEEPS_ZEROS, *KEEPS_INFINITIES],
    "atan": [IS_NAN, *KEEPS_ZEROS, (plus_inf, About(PI / 2)), (minus_inf, About(-PI / 2))],
    "atanh": [IS_NAN, (size(above(1)), NAN), (at(1), INF), (at(-1), -INF), *KEEPS_ZEROS],
    "ceil": ROUNDING,
    "cos": [IS_NAN, (zero, 1.0), (np.isinf, NAN)],
    "cosh": [IS_NAN, (zero, 1.0), (np.isinf, INF)],
    "exp": [IS_NAN, (zero, 1.0), (plus_inf, INF), (minus_inf, 0.0)],
    "expm1": [IS_NAN, *KEEPS_ZEROS, (plus_inf, INF), (minus_inf, -1.0)],
    "floor": ROUNDING,
    "isfinite": [(np.isnan, False), (np.isinf, False), (np.isfinite, True)],
    "isinf": [(np.isinf, True), (neither(np.isinf), False)],
    "isnan": [(np.isnan, True), (number, False)],
    "log": LOGARITHM,
    "log10": LOGARITHM,
    "log1p": [IS_NAN, (below(-1), NAN), (at(-1), -INF), *KEEPS_ZEROS, (plus_inf, INF)],
    "log2": LOGARITHM,
    "negative": [IS_NAN, (plus_zero, -0.0), (minus_zero, 0.0), (plus_inf, -INF), (minus_inf, INF)],
    "positive": [IS_NAN, (number, itself)],
    "reciprocal": [(anything, lambda x: 1 / x)],
    "round": [*ROUNDING, (at(0.5), 0.0), (at(-0.5), -0.0), (at(1.5), 2.0), (at(2.5), 2.0), (at(-2.5), -2.0)],
    "sign": [IS_NAN, (below(0), -1.0), (zero, 0.0), (above(0), 1.0)],
    "signbit": [
        (plus_zero, False), (minus_zero, True), (above(0), False), (below(0), True), (np.isnan, np.signbit)
    ],
    "sin": [IS_NAN, *KEEPS_ZEROS, (np.isinf, NAN)],
    "sinh": [IS_NAN, *KEEPS_ZEROS, *KEEPS_INFINITIES],
    "sqrt": [IS_NAN, (below(0), NAN), *KEEPS_ZEROS, (plus_inf, INF), (at(4), 2.0)],
    "square": [(anything, lambda x: x * x)],
    "tan": [IS_NAN, *KEEPS_ZEROS, (np.isinf, NAN)],
    "tanh": [IS_NAN, *KEEPS_ZEROS, (plus_inf, 1.0), (minus_inf, -1.0)],
    "trunc": [*ROUNDING, (both(above(-1), below(0)), -0.0)],
}  # fmt: skip

NAN_IN_NAN_OUT: tuple[Where, Result] = (one_of_them(np.isnan), NAN)
#: Where a quotient is no number, and which of its zeros and infinities have a known sign.
NO_QUOTIENT: Rules = [NAN_IN_NAN_OUT, (each(np.isinf, np.isinf), NAN), (each(zero, zero), NAN)]
SIGNED_ZEROS: Rules = [
    (each(plus_zero, above(0)), 0.0), (each(minus_zero, above(0)), -0.0),
    (each(plus_zero, below(0)), -0.0), (each(minus_zero, below(0)), 0.0),
]  # fmt: skip
SIGNED_POLES: Rules = [
    (each(above(0), plus_zero), INF), (each(above(0), minus_zero), -INF),
    (each(below(0), plus_zero), -INF), (each(below(0), minus_zero), INF),
]  # fmt: skip
#: An infinity added to anything but NaN and the other one.
INFINITIES_ADD: Rules = [
    (each(plus_inf, minus_inf), NAN), (each(minus_inf, plus_inf), NAN),
    (each(plus_inf, both(number, neither(minus_inf))), INF), (each(minus_inf, both(number, neither(plus_inf))), -INF),
    (each(np.isfinite, plus_inf), INF), (each(np.isfinite, minus_inf), -INF),
]  # fmt: skip


def compared(when_less: bool, when_equal: bool, when_greater: bool, with_nan: bool = False) -> Rules:
    return [
        (one_of_them(np.isnan), with_nan),
        (lambda a, b: a < b, when_less),
        (lambda a, b: a == b, when_equal),
        (each(zero, zero), when_equal),
        (lambda a, b: a > b, when_greater),
    ]


BINARY: dict[str, Rules] = {
    "add": [
        NAN_IN_NAN_OUT, *INFINITIES_ADD,
        (each(minus_zero, minus_zero), -0.0), (each(minus_zero, plus_zero), 0.0), (each(plus_zero, zero), 0.0),
        (each(zero, finite_nonzero), second), (each(finite_nonzero, zero), first),
        (lambda a, b: finite_nonzero(a) & (a == -b), 0.0),
    ],
    "atan2": [
        NAN_IN_NAN_OUT,
        (each(above(0), zero), About(PI / 2)), (each(below(0), zero), About(-PI / 2)),
        (each(plus_zero, above(0)), 0.0), (each(plus_zero, plus_zero), 0.0),
        (each(plus_zero, minus_zero), About(PI)), (each(plus_zero, below(0)), About(PI)),
        (each(minus_zero, above(0)), -0.0), (each(minus_zero, plus_zero), -0.0),
        (each(minus_zero, minus_zero), About(-PI)), (each(minus_zero, below(0)), About(-PI)),
        (each(finite_positive, plus_inf), 0.0), (each(finite_positive, minus_inf), About(PI)),
        (each(finite_negative, plus_inf), -0.0), (each(finite_negative, minus_inf), About(-PI)),
        (each(plus_inf, np.isfinite), About(PI / 2)), (each(minus_inf, np.isfinite), About(-PI / 2)),
        (each(plus_inf, plus_inf), About(PI / 4)), (each(plus_inf, minus_inf), About(3 * PI / 4)),
        (each(minus_inf, plus_inf), About(-PI / 4)), (each(minus_inf, minus_inf), About(-3 * PI / 4)),
    ],
    "copysign": [(anything, lambda a, b: np.copysign(np.abs(a), np.where(np.signbit(b), -1, 1).astype(a.dtype)))],
    "divide": [
        *NO_QUOTIENT, *SIGNED_ZEROS, *SIGNED_POLES,
        (each(plus_inf, finite_positive), INF), (each(plus_inf, finite_negative), -INF),
        (each(minus_inf, finite_positive), -INF), (each(minus_inf, finite_negative), INF),
        (each(finite_positive, plus_inf), 0.0), (each(finite_positive, minus_inf), -0.0),
        (each(finite_negative, plus_inf), -0.0), (each(finite_negative, minus_inf), 0.0),
    ],
    "equal": compared(False, True, False),
    # By infinity, and of one, as Python has it: the standard allows that, and asks remainder for it.
    "floor_divide": [
        *NO_QUOTIENT, *SIGNED_ZEROS, *SIGNED_POLES,
        (each(np.isinf, finite_nonzero), NAN),
        (each(finite_positive, plus_inf), 0.0), (each(finite_positive, minus_inf), -1.0),
        (each(finite_negative, plus_inf), -1.0), (each(finite_negative, minus_inf), 0.0),
        (each(modest, modest), elementwise(operator.floordiv)),
    ],
    "greater": compared(False, False, True),
    "greater_equal": compared(False, True, True),
    "hypot": [
        (one_of_them(np.isinf), INF),
        (each(neither(np.isinf), np.isnan), NAN), (each(np.isnan, neither(np.isinf)), NAN),
        (each(zero, number), lambda a, b: np.abs(b)), (each(number, zero), lambda a, b: np.abs(a)),
    ],
    "less": compared(True, False, False),
    "less_equal": compared(True, True, False),
    "logaddexp": [
        NAN_IN_NAN_OUT, (each(plus_inf, number), INF), (each(number, plus_inf), INF),
        (each(minus_inf, neither(np.isnan, zero)), second), (each(neither(np.isnan, zero), minus_inf), first),
    ],
    "maximum": [NAN_IN_NAN_OUT, (lambda a, b: a > b, first), (lambda a, b: a < b, second)],
    "minimum": [NAN_IN_NAN_OUT, (lambda a, b: a < b, first), (lambda a, b: a > b, second)],
    "multiply": [
        NAN_IN_NAN_OUT, (each(np.isinf, zero), NAN), (each(zero, np.isinf), NAN),
        (lambda a, b: (a * b == 0) & same_sign(a, b), 0.0), (lambda a, b: (a * b == 0) & ~same_sign(a, b), -0.0),
        (lambda a, b: np.isinf(a * b) & same_sign(a, b), INF), (lambda a, b: np.isinf(a * b) & ~same_sign(a, b), -INF),
    ],
    "nextafter": [
        NAN_IN_NAN_OUT, (each(minus_zero, plus_zero), 0.0), (each(plus_zero, minus_zero), -0.0),
        (lambda a, b: a == b, second),
        (each(plus_inf, below(INF)), lambda a, b: np.full_like(a, np.finfo(a.dtype).max)),
        (each(zero, above(0)), lambda a, b: np.full_like(a, np.finfo(a.dtype).smallest_subnormal)),
        (each(zero, below(0)), lambda a, b: np.full_like(a, -np.finfo(a.dtype).smallest_subnormal)),
    ],
    "not_equal": compared(True, False, True, with_nan=True),
    "pow": [
        (each(both(neither(at(1))), np.isnan), NAN), (each(anything, zero), 1.0), (each(np.isnan, neither(zero)), NAN),
        (each(size(above(1)), plus_inf), INF), (each(size(above(1)), minus_inf), 0.0),
        (each(size(at(1)), np.isinf), 1.0), (each(at(1), number), 1.0),
        (each(size(below(1)), plus_inf), 0.0), (each(size(below(1)), minus_inf), INF),
        (each(plus_inf, above(0)), INF), (each(plus_inf, below(0)), 0.0),
        (each(minus_inf, both(above(0), odd)), -INF), (each(minus_inf, both(above(0), neither(odd))), INF),
        (each(minus_inf, both(below(0), odd)), -0.0), (each(minus_inf, both(below(0), neither(odd))), 0.0),
        (each(plus_zero, above(0)), 0.0), (each(plus_zero, below(0)), INF),
        (each(minus_zero, both(above(0), odd)), -0.0), (each(minus_zero, both(above(0), neither(odd))), 0.0),
        (each(minus_zero, both(below(0), odd)), -INF), (each(minus_zero, both(below(0), neither(odd))), INF),
        (each(finite_negative, broken), NAN),
    ],
    "remainder": [
        *NO_QUOTIENT, (each(anything, zero), NAN), (each(np.isinf, anything), NAN),
        (each(zero, above(0)), 0.0), (each(zero, below(0)), -0.0),
        (each(finite_positive, plus_inf), first), (each(finite_positive, minus_inf), second),
        (each(finite_negative, plus_inf), second), (each(finite_negative, minus_inf), first),
        (each(modest, modest), elementwise(operator.mod)),
    ],
    "subtract": [(anything, lambda a, b: a + -b)],
}  # fmt: skip


# ---- the comparison


def assert_obeys(name: str, rules: Rules, inputs: tuple[Array, ...], got: Array) -> None:
    """Fail where a rule holds of `inputs` and `got` is not what it says."""
    for k, (where, result) in enumerate(rules):
        holds = np.asarray(where(*inputs), bool)
        assert holds.any(), f"{name}: rule {k} holds nowhere"
        asked, there = [x[holds] for x in inputs], got[holds]
        if isinstance(result, About):
            right = np.abs(there.astype(float) - result.value) <= 4 * np.finfo(got.dtype).eps
        else:
            want = np.broadcast_to(np.asarray(result(*asked) if callable(result) else result), there.shape)
            right = (
                (there == want) & (np.signbit(there) == np.signbit(want)) if got.dtype.kind == "f" else there == want
            )
            right |= (there != there) & (want != want)
        wrong = np.flatnonzero(~right)[:3]
        seen = [(*(x[i] for x in asked), there[i]) for i in wrong]
        assert not seen, f"{name} of {got.dtype}, rule {k} ({result}): operands and result {seen}"


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, where it computes what is expected
def test_results_are_those_of_the_standard(name: str) -> None:
    rules, arity = (UNARY[name], 1) if name in UNARY else (BINARY[name], 2)
    values = [tuple(x.reshape(-1) for x in np.meshgrid(*[operands(d)] * arity)) for d in DTYPES]
    tensors = [[jf.placeholder(None, d, x.shape) for x in xs] for d, xs in zip(DTYPES, values, strict=True)]
    feeds = {t: x for ts, xs in zip(tensors, values, strict=True) for t, x in zip(ts, xs, strict=True)}
    outputs = [getattr(jf, name)(*ts) for ts in tensors]
    for got in (jf.interpret(outputs, feeds), jf.Session(outputs).run(outputs, feeds)):
        for xs, result in zip(values, got, strict=True):
            assert_obeys(name, rules, xs, result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sign_of_a_nan_is_copied(dtype: DType) -> None:
    size, sign = (x.reshape(-1) for x in np.meshgrid([NAN, -NAN], operands(dtype)))
    a, b = (jf.placeholder(None, dtype, sign.shape) for _ in range(2))
    copied = jf.copysign(a, b)
    feeds = {a: size.astype(dtype.np), b: sign}
    outputs = [copied, jf.signbit(copied)]
    for values, below_zero in (jf.interpret(outputs, feeds), jf.Session(outputs).run(outputs, feeds)):
        assert np.isnan(values).all()
        np.testing.assert_array_equal(np.signbit(values), np.signbit(sign))
        np.testing.assert_array_equal(below_zero, np.signbit(sign))


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_is_nan_where_the_number_or_a_bound_is(dtype: DType) -> None:
    every = operands(dtype)
    nan = np.isnan(every)
    x = jf.placeholder("x", dtype, every.shape)
    two = jf.constant(2.0, dtype)
    outputs = [
        jf.clip(x, -1.0, 1.0), jf.clip(x, min=2.0), jf.clip(x, max=2.0), jf.clip(x),
        jf.clip(two, x, INF), jf.clip(two, -INF, x),
        jf.clip(x, NAN, 1.0), jf.clip(x, -1.0, NAN),
    ]  # fmt: skip
    expected = [
        np.where(nan, NAN, np.fmin(np.fmax(every, -1), 1)), np.where(nan, NAN, np.fmax(every, 2)),
        np.where(nan, NAN, np.fmin(every, 2)), every, np.where(nan, NAN, np.fmax(every, 2)),
        np.where(nan, NAN, np.fmin(every, 2)), np.full(every.shape, NAN), np.full(every.shape, NAN),
    ]  # fmt: skip
    for got in (jf.interpret(outputs, {x: every}), jf.Session(outputs).run(outputs, {x: every})):
        for value, want in zip(got, expected, strict=True):
            np.testing.assert_array_equal(value, want)
