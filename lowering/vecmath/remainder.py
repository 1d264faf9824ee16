"""floormod and floordiv of floats, as expressions: exactly what numpy's ``remainder`` and ``floor_divide`` give.

Both start from the exact remainder of |x| by |y|. One division, rounded, gives the quotient to within one as long as
it has fewer bits than a significand; then x - q*y is exact in one fused step. Greater quotients are rare: a loop
reduces x by multiples of y first, some fifty (f32: some twenty) bits of the quotient in each pass.
"""

from __future__ import annotations

import math

from jitflow.expr import Expr, Unary, Var, compare, eq, select
from lowering.vecmath.builder import Builder, absolute, any_lane


def floormod(b: Builder, x: Var, y: Var) -> Expr:
    """The remainder of x by y with the sign of y."""
    r = _remainder(b, x, y)
    moved = b.let(select(_opposite(r, y), r + y, r), "moved")
    return select(eq(r, 0.0), b.copy_sign(b.const(0.0), y), moved)


def floordiv(b: Builder, x: Var, y: Var) -> Expr:
    """The quotient of x by y rounded down, from the remainder: numpy's formula, its roundings included."""
    r = _remainder(b, x, y)
    exact = b.let((x - r) / y, "exact")
    quotient = b.let(select(_opposite(r, y), exact - 1.0, exact), "quotient")
    floor = b.let(Unary("floor", quotient), "floor")
    nearest = select(compare("gt", quotient - floor, 0.5), floor + 1.0, floor)
    sign = b.let((b.bits(x) ^ b.bits(y)) & b.sign_bit(), "sign")
    whole = select(eq(quotient, 0.0), b.from_bits(sign), nearest)
    by_zero = select(eq(x, 0.0) | compare("ne", x, x), b.const(math.nan), b.const(math.inf))
    return select(eq(y, 0.0), b.from_bits(b.bits(by_zero) | sign), whole)


def _opposite(r: Var, y: Var) -> Expr:
    """Tell where remainder `r` is not zero and its sign not that of `y` (a NaN counts as positive)."""
    return compare("ne", r, 0.0) & (compare("lt", r, 0.0) ^ compare("lt", y, 0.0))


def _remainder(b: Builder, x: Var, y: Var) -> Var:
    """Return C's fmod: the exact remainder, with the sign of x."""
    a, d = b.let(absolute(x), "a"), b.let(absolute(y), "d")
    valid = compare("lt", a, math.inf) & compare("gt", d, 0.0)
    rest = b.register(select(valid, a, b.const(math.nan)), "rest")
    # The bound of what one division can do; where it overflows nothing is greater.
    bound = b.let(d * 2.0 ** (b.format.digits - 1), "bound")
    with b.loop(any_lane(compare("ge", b.value_of(rest), bound))):
        r = b.load(rest, "r")
        b.store(rest, select(compare("ge", r, bound), _step(b, r, _raised(b, r, d)), r))
    r = b.load(rest, "r")
    # A dividend below the divisor stays; this also settles an infinite divisor.
    magnitude = b.let(select(compare("lt", r, d), r, _step(b, r, d)), "magnitude")
    return b.let(b.copy_sign(magnitude, x), "remainder")


def _step(b: Builder, r: Var, d: Var) -> Expr:
    """Return the remainder of `r` by `d`, where their quotient has fewer bits than a significand.

    The division may round the quotient up to the next integer; what is left is then negative, and d too little.
    """
    q = b.let(Unary("trunc", r / d), "q")
    if b.has_fma or not b.wide:
        left = b.let(b.fma(-q, d, r), "left")
        return select(compare("lt", left, 0.0), left + d, left)
    # The emulated step needs room for the square of a significand on either side of its operands.
    huge, tiny = b.let(compare("gt", d, 2.0**500), "huge"), b.let(compare("lt", d, 2.0**-500), "tiny")
    scale = b.let(select(huge, b.const(2.0**-600), select(tiny, b.const(2.0**600), b.const(1.0))), "scale")
    back = select(huge, b.const(2.0**600), select(tiny, b.const(2.0**-600), b.const(1.0)))
    low = b.let(d * scale, "low")
    left = b.let(b.fma(-q, low, r * scale), "left")
    return select(compare("lt", left, 0.0), left + low, left) * back


def _raised(b: Builder, r: Var, d: Var) -> Var:
    """Return ``d * 2**k`` with k such that the quotient of `r` by it just fits `_step`."""
    shift = b.format.digits - 1
    subnormal = b.let(compare("lt", d, b.format.smallest_normal), "subnormal")
    normal = select(subnormal, d * 2.0**b.format.digits, d)
    missing = select(subnormal, b.integer(b.format.digits), b.integer(0))
    k = b.let((b.bits(r) >> shift) - (b.bits(normal) >> shift) + (missing - (b.format.digits - 2)), "k")
    # 2^k itself may overflow, its halves do not.
    half = b.let(k >> 1, "half")
    first, second = (b.from_bits((e + b.format.bias) << shift) for e in (half, k - half))
    return b.let(d * first * second, "raised")
