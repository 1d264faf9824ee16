"""asin, acos, atan and atan2, as expressions.

Each value is a multiple of pi/2 plus something smaller. The multiple comes in two parts, of which the second is the
first times a literal; what the first sum loses is added to the smaller parts. The polynomials are minimax fits as in
`lowering.vecmath.exponential`; the errors beside them are relative to the function's result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from jitflow.expr import Expr, Var, compare, eq, select
from lowering.vecmath.builder import Builder, absolute, half_inverse_root, square_root

# pi/2 rounded, and what that lost divided by it.
_HALF_PI_F32 = (1.5707963705062866, -2.782753437848454e-08)
_HALF_PI_F64 = (1.5707963267948966, 3.8981718325193755e-17)

# (asin(x) - x) / x^3 as a polynomial of x^2 for |x| <= 1/2; errors 2^-31.7 and 2^-59.9.
_ASIN_F32 = (0.1666666, 0.07500522, 0.044513393, 0.03183856, 0.014319132, 0.037686475)
_ASIN_F64 = (
    0.1666666666666676,
    0.07499999999970865,
    0.04464285717456272,
    0.030381942709767074,
    0.022372214938990515,
    0.017351612792018297,
    0.013980812107537034,
    0.011398975367671137,
    0.010779926620256458,
    0.0037075511268250465,
    0.021704856832327396,
    -0.02099563225231873,
    0.03262660927622652,
)

# (atan(x) - x) / x^3 as a polynomial of x^2 for |x| <= 1; errors 2^-28.5 and 2^-57.6.
_ATAN_F32 = (
    -0.333333,
    0.1999853,
    -0.14264016,
    0.109508835,
    -0.08399334,
    0.05788235,
    -0.03109858,
    0.010869952,
    -0.0017832081,
)
_ATAN_F64 = (
    -0.3333333333333307,
    0.19999999999951742,
    -0.14285714282587483,
    0.11111111007320666,
    -0.09090907007380514,
    0.07692279883713725,
    -0.06666404379042166,
    0.05880529536962484,
    -0.05253525550551682,
    0.04722344129909768,
    -0.04219232393618606,
    0.036642931014631876,
    -0.029905383258026677,
    0.021986629004012877,
    -0.01390215283463278,
    0.007197581580142516,
    -0.002885451205335857,
    0.0008315029775188896,
    -0.00015219874063737614,
    1.3228746326211836e-05,
)


def asin(b: Builder, x: Var) -> Expr:
    """An odd polynomial up to 1/2; pi/2 - 2 asin(root / 2) above, with root = sqrt(2 - 2|x|)."""
    half_pi, ratio = _HALF_PI_F64 if b.wide else _HALF_PI_F32
    a = b.let(absolute(x), "a")
    big = b.let(compare("gt", a, 0.5), "big")
    square = b.let(b.mad(-2.0, a, 2.0), "square")
    root = b.let(square_root(square), "root")
    t = b.let(select(big, root, a), "t")
    more = b.let(_beyond_first(b, t, select(big, square * 0.25, a * a)), "more")
    first = b.let(half_pi - root, "first")
    lost = (half_pi - first) - root
    # 1.5 - root is near enough to 1 / (2 * root) where the rest of the root counts.
    root_more = b.mad(b.fma(-root, root, square), 1.5 - root, more)
    above = first + ((lost + half_pi * ratio) - root_more)
    return b.copy_sign(select(big, above, a + more), x)


def acos(b: Builder, x: Var) -> Expr:
    """pi/2 - asin(x) between -1/2 and 1/2; outside 2 asin(root / 2), or pi less that, with root = sqrt(2 - 2|x|)."""
    half_pi, ratio = _HALF_PI_F64 if b.wide else _HALF_PI_F32
    a = b.let(absolute(x), "a")
    big = b.let(compare("gt", a, 0.5), "big")
    square = b.let(b.mad(-2.0, a, 2.0), "square")
    root = b.let(square_root(square), "root")
    # What is subtracted from 0, pi/2 or pi: minus asin for x > 1/2, plus asin for others.
    turned = b.let((b.bits(x) & b.sign_bit()) ^ b.sign_bit(), "turned")
    t = b.let(select(big, b.from_bits(b.bits(root) | turned), x), "t")
    more = b.let(_beyond_first(b, t, select(big, square * 0.25, a * a)), "more")
    root_rest = b.fma(-root, root, square) * half_inverse_root(b, square)
    signed_rest = b.from_bits(b.bits(root_rest) ^ turned)
    outer = select(compare("lt", x, 0.0), b.const(2.0 * half_pi), b.const(0.0))
    base = b.let(select(big, outer, b.const(half_pi)), "base")
    return base - (t - (base * ratio - select(big, more + signed_rest, more)))


def _beyond_first(b: Builder, t: Expr, square: Expr) -> Expr:
    """Return 2 asin(t/2) - t or asin(t) - t, where `square` is that of the argument."""
    u = b.let(square, "u")
    p = b.polynomial(u, b.let(u * u, "u2"), _ASIN_F64) if b.wide else b.horner(u, _ASIN_F32)
    return (t * u) * p


def atan(b: Builder, x: Var) -> Expr:
    """An odd polynomial up to 1; pi/2 - atan(1 / |x|) above."""
    half_pi, ratio = _HALF_PI_F64 if b.wide else _HALF_PI_F32
    a = b.let(absolute(x), "a")
    big = b.let(compare("gt", a, 1.0), "big")
    quotient = b.let(-1.0 / a, "quotient")
    # An infinite argument needs no rest, and must not make one.
    rest = b.fma(quotient, b.at_most(a, 2.0**60), 1.0) * quotient
    t = b.let(select(big, quotient, a), "t")
    base = b.let(select(big, b.const(half_pi), b.const(0.0)), "base")
    return b.copy_sign(_sum(b, base, ratio, t, select(big, rest, b.const(0.0))), x)


def atan2(b: Builder, y: Var, x: Var) -> Expr:
    """The angle of the point (x, y): a polynomial of the lesser coordinate over the greater, turned and mirrored."""
    half_pi, ratio = _HALF_PI_F64 if b.wide else _HALF_PI_F32
    ax, ay = b.let(absolute(x), "ax"), b.let(absolute(y), "ay")
    steep = b.let(compare("gt", ay, ax), "steep")
    least = b.let(select(steep, ax, ay), "least")
    # Of two zeros the quotient shall be 0, of two infinities 1.
    most = b.let(b.at_least(select(steep, ay, ax), math.ldexp(1.0, -1074 if b.wide else -149)), "most")
    infinite = eq(least, math.inf) & eq(most, math.inf)
    slope = b.let(select(infinite, b.const(1.0), least / most), "slope")
    left = b.let(b.bits(x) & b.sign_bit(), "left")
    flat = select(compare("lt", left, 0), b.const(2.0 * half_pi), b.const(0.0))
    base = b.let(select(steep, b.const(half_pi), flat), "base")
    # The slope is subtracted either where the point is steep or where it is to the left.
    turned = left ^ select(steep, b.sign_bit(), b.integer(0))
    value = _sum(b, base, ratio, b.let(b.from_bits(b.bits(slope) ^ turned), "t"))
    return b.from_bits(b.bits(value) ^ (b.bits(y) & b.sign_bit()))


def _sum(b: Builder, base: Var, ratio: float, t: Var, rest: Expr | None = None) -> Expr:
    """Return base * (1 + ratio) + atan(t + rest) for |t| <= 1 and a base that is 0 or at least as large."""
    u = b.let(t * t, "u")
    first, *others = _ATAN_F64 if b.wide else _ATAN_F32
    p = _in_pairs(b, u, others) if b.wide else b.horner(u, others)
    total = b.let(base + t, "total")
    small = b.mad(ratio, base, (base - total) + t)
    if rest is not None:
        # A straight line does for the derivative 1 / (1 + t^2).
        small = b.mad(rest, b.mad(-0.5, u, 1.0), small)
    cube = b.let(t * u, "cube")
    if not b.has_fma:
        return total + (cube * (first + u * p) + small)
    return total + b.fma(first, cube, b.fma(cube, u * p, small))


def _in_pairs(b: Builder, x: Expr, coefficients: Sequence[float]) -> Expr:
    """Return the polynomial of `x` >= 0 with coefficients of alternating signs.

    Two neighbours are added first, so that what remains has one sign: unlike in `Builder.polynomial`, whose even and
    odd part may both be larger than their sum.
    """
    x2 = b.let(x * x, "x2")
    pairs = [b.mad(c1, x, c0) for c0, c1 in zip(coefficients[0::2], coefficients[1::2], strict=False)]
    result = b.const(coefficients[-1]) if len(coefficients) % 2 else pairs.pop()
    for pair in reversed(pairs):
        result = b.mad(result, x2, pair)
    return result
