"""Turns formulas written in Python into the statements and the result of a vector-maths `Function`.

A definition is a Python function that takes a :class:`Builder` and the arguments, and returns the result expression.
``b.let`` names a value that is used twice; ``b.mad`` is for sums of products whose last bit does not matter, ``b.fma``
for those where it does. Everything else is the arithmetic of `jitflow.expr`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jitflow.dtypes import float32, float64, int32, int64
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Bitcast,
    Buffer,
    Call,
    Const,
    Expr,
    Fma,
    Load,
    Ramp,
    Scalar,
    Type,
    Unary,
    Var,
    cast,
    const,
    const_index,
    lift,
    select,
)
from jitflow.record import record
from lowering.loop_ir import Alloc, Body, If, Let, Stmt, Store, While
from lowering.printer import LOOKUP


@record
class Function:
    """``name(params) = result`` after `body`: what a ``Call`` of that name means for one type."""

    name: str
    params: tuple[Var, ...]
    body: Body
    result: Expr


@record
class Format:
    """The layout of a binary floating-point type.

    `digits` is the length of the significand with its hidden bit. Adding `magic` to a number of magnitude below
    ``magic / 4`` rounds it to an integer, which then stands in the low bits of the sum.
    """

    digits: int
    bias: int
    magic: float
    smallest_normal: float
    largest: float


F32 = Format(24, 127, 1.5 * 2.0**23, 2.0**-126, (2.0 - 2.0**-23) * 2.0**127)
F64 = Format(53, 1023, 1.5 * 2.0**52, 2.0**-1022, (2.0 - 2.0**-52) * 2.0**1023)


class Builder:
    """Collects the statements of one function of type `of`, for a target with or without fused multiply-add."""

    def __init__(self, of: Type, *, fma: bool) -> None:
        if of.dtype not in (float32, float64):
            raise CompilerBug(f"vector maths is defined for f32 and f64, not for {of}")
        self.of, self.has_fma = of, fma
        self.wide = of.dtype is float64
        self.format = F64 if self.wide else F32
        self.body: list[Stmt] = []

    def let(self, value: Expr, name: str = "t") -> Var:
        """Return a new variable bound to `value`."""
        var = Var(name, value.type)
        self.body.append(Let(var, value))
        return var

    def register(self, value: Expr, name: str) -> Buffer:
        """Return memory for one value of the type of `value`, which it holds first; for what branches and loops set."""
        buffer = Buffer(name, value.type.dtype, (value.type.lanes,), "register")
        self.body.append(Alloc(buffer))
        self.store(buffer, value)
        return buffer

    def store(self, register: Buffer, value: Expr) -> None:
        """Set `register` to `value`."""
        self.body.append(Store(register, (_whole(value.type.lanes),), value))

    def value_of(self, register: Buffer) -> Expr:
        """Return the value of `register` at the time of evaluation: for the condition of a loop."""
        lanes = register.shape[0]
        assert isinstance(lanes, int)
        return Load(register, (_whole(lanes),))

    def load(self, register: Buffer, name: str) -> Var:
        """Return a variable bound to the present value of `register`."""
        return self.let(self.value_of(register), name)

    @contextmanager
    def when(self, cond: Expr) -> Iterator[None]:
        """Run the statements collected inside only if scalar `cond` is true."""
        outer, self.body = self.body, []
        yield
        outer.append(If(cond, tuple(self.body)))
        self.body = outer

    @contextmanager
    def unless(self, mask: Expr) -> Iterator[None]:
        """Run the statements collected inside only if some lane of `mask` is false: for what is rare."""
        with self.when(Unary("not", all_lanes(mask))):
            yield

    @contextmanager
    def loop(self, cond: Expr) -> Iterator[None]:
        """Repeat the statements collected inside as long as scalar `cond`, evaluated again each time, is true."""
        outer, self.body = self.body, []
        yield
        outer.append(While(cond, tuple(self.body)))
        self.body = outer

    def share(self, value: Expr) -> Expr:
        """Return `value`, bound to a variable unless it is one, or a literal."""
        return value if isinstance(value, (Var, Const)) else self.let(value)

    def const(self, value: float) -> Expr:
        """Return `value` in the type of the function."""
        return const(value, self.of)

    def integer(self, value: int) -> Expr:
        """Return `value` in the integer type as wide as the type of the function."""
        return const(value, self.of.with_dtype(int64 if self.wide else int32))

    def bits(self, x: Expr) -> Expr:
        """Return the bits of a float as an integer."""
        return Bitcast(x, int64 if x.type.dtype is float64 else int32)

    def from_bits(self, i: Expr) -> Expr:
        """Return the float with the bits of integer `i`."""
        return Bitcast(i, float64 if i.type.dtype is int64 else float32)

    def fma(self, a: Scalar, b: Expr, c: Scalar) -> Expr:
        """Return ``a * b + c`` rounded once (nearly so where it must be emulated, see `emulate_fma`)."""
        x, y = lift(a, b), lift(c, b)
        return Fma(x, b, y) if self.has_fma else emulate_fma(self, x, b, y)

    def mad(self, a: Scalar, b: Expr, c: Scalar) -> Expr:
        """Return ``a * b + c``, rounded once where the target can, else twice."""
        return Fma(lift(a, b), b, lift(c, b)) if self.has_fma else lift(a, b) * b + c

    def horner(self, x: Expr, coefficients: Sequence[float]) -> Expr:
        """Return the polynomial of `x` with `coefficients`, the constant first: fewest operations, one long chain."""
        result: Expr = lift(coefficients[-1], x)
        for c in reversed(coefficients[:-1]):
            result = self.mad(result, x, c)
        return result

    def polynomial(self, x: Expr, x2: Expr, coefficients: Sequence[float]) -> Expr:
        """Return the polynomial of `x` as two independent chains in ``x2 = x * x``.

        One multiplication more than `horner` for half its latency: for long polynomials, whose chain an
        out-of-order core could not hide behind the neighbouring vectors.
        """
        return self.mad(self.horner(x2, coefficients[1::2]), x, self.horner(x2, coefficients[0::2]))

    def lookup(self, table: Sequence[float], index: Expr) -> Expr:
        """Return the entry of a table of 16 whose number is in the four low bits of `index` (i32)."""
        return Call(LOOKUP, (*(const(c, self.of.with_lanes(1)) for c in table), index), self.of)

    def at_most(self, x: Expr, bound: float) -> Expr:
        """Return the lesser of `x` and `bound`; NaN stays. The form that x86 has as one instruction."""
        x, limit = self.share(x), lift(bound, x)
        return select(limit < x, limit, x)

    def at_least(self, x: Expr, bound: float) -> Expr:
        """Return the greater of `x` and `bound`; NaN stays."""
        x, limit = self.share(x), lift(bound, x)
        return select(limit > x, limit, x)

    def copy_sign(self, magnitude: Expr, sign: Expr) -> Expr:
        """Return `magnitude`, which is not negative, with the sign of `sign`."""
        return self.from_bits(self.bits(magnitude) | (self.bits(sign) & self.sign_bit()))

    def sign_bit(self) -> Expr:
        """Return the bits of -0.0."""
        return self.integer(-1 << (self.of.dtype.bits - 1))


def _whole(lanes: int) -> Expr:
    return const_index(0) if lanes == 1 else Ramp(const_index(0), 1, lanes)


def absolute(x: Expr) -> Expr:
    """Return the magnitude of `x`."""
    return Unary("abs", x)


def rounded(x: Expr) -> Expr:
    """Return the integer nearest to `x`, even on ties."""
    return Unary("round", x)


def square_root(x: Expr) -> Expr:
    """Return the square root of `x`, correctly rounded."""
    return Unary("sqrt", x)


def half_inverse_root(b: Builder, x: Expr) -> Expr:
    """Return ``1 / (2 * sqrt(x))`` to within 4%, finite for x = 0: enough to turn what a root leaves into its rest.

    Halving the bits of a float halves its logarithm, as good as a straight line between powers of two can.
    """
    magic = 0x5FE6EB50C7B537A9 if b.wide else 0x5F3759DF
    return b.from_bits((magic - (1 << (b.format.digits - 1))) - (b.bits(x) >> 1))


def any_lane(mask: Expr) -> Expr:
    """Return, as a scalar bool, whether `mask` is true in some lane."""
    return mask if mask.type.lanes == 1 else Call("any", (mask,), mask.type.with_lanes(1))


def all_lanes(mask: Expr) -> Expr:
    """Return, as a scalar bool, whether `mask` is true in every lane."""
    return mask if mask.type.lanes == 1 else Call("all", (mask,), mask.type.with_lanes(1))


def emulate_fma(b: Builder, x: Expr, y: Expr, z: Expr) -> Expr:
    """Return ``x * y + z`` for a target without fused multiply-add.

    f32: product and sum in f64; the product is exact, so the error is that of rounding the sum twice (2^-53, then
    2^-24). f64: the product as an exact sum of two numbers (Dekker's algorithm on Veltkamp's halves), then ``z`` is
    added to the upper one with the error kept: the result is exact when it is representable, as in
    ``fma(x, y, -(x * y))``, and otherwise within 0.5 + 2^-50 ULP. Needs |x|, |y| < 2^996 and no underflow.
    """
    if x.type.dtype is float32:
        return cast(cast(x, float64) * cast(y, float64) + cast(z, float64), float32)
    high, low = two_product(b, x, y)
    total, error = two_sum(b, high, z)
    return total + (error + low)


def two_product(b: Builder, x: Expr, y: Expr) -> tuple[Var, Expr]:
    """Return ``x * y`` rounded, and what the rounding lost."""
    x, y = b.share(x), b.share(y)
    high = b.let(x * y, "high")
    if b.has_fma:
        return high, Fma(x, y, -high)
    if not b.wide:
        return high, cast(cast(x, float64) * cast(y, float64) - cast(high, float64), float32)
    x1, x2 = _split(b, x)
    y1, y2 = _split(b, y)
    return high, ((x1 * y1 - high) + x1 * y2 + x2 * y1) + x2 * y2


def two_sum(b: Builder, x: Expr, y: Expr) -> tuple[Var, Expr]:
    """Return ``x + y`` rounded, and what the rounding lost, whichever is larger (Knuth)."""
    x, y = b.share(x), b.share(y)
    total = b.let(x + y, "total")
    part = b.let(total - x, "part")
    return total, (x - (total - part)) + (y - part)


def fast_two_sum(b: Builder, x: Expr, y: Expr) -> tuple[Var, Expr]:
    """Return ``x + y`` rounded, and what the rounding lost; |x| >= |y| or x = 0 (Dekker)."""
    x, y = b.share(x), b.share(y)
    total = b.let(x + y, "total")
    return total, y - (total - x)


def _split(b: Builder, x: Expr) -> tuple[Var, Var]:
    """Return two halves of at most 26 bits (f32: 12) whose sum is `x` (Veltkamp)."""
    c = b.let(x * (2.0 ** (27 if b.wide else 12) + 1.0), "c")
    high = b.let(c - (c - x), "high")
    return high, b.let(x - high, "low")
