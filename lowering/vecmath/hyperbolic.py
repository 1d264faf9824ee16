"""sinh, cosh, tanh and their inverses, as expressions.

The polynomials are minimax fits as in `lowering.vecmath.exponential`; the errors beside them are relative to the
function's result.
"""

from __future__ import annotations

import math

from jitflow.expr import Expr, Var, cast, compare, eq, maximum, select
from lowering.vecmath.builder import Builder, absolute, any_lane, fast_two_sum, half_inverse_root, square_root
from lowering.vecmath.exponential import LN2_F32, LN2_F64

_LOG2_E = math.log2(math.e)

# (sinh(r) - r) / r^3 and (cosh(r) - 1) / r^2 as polynomials of r^2 for |r| <= ln(2)/2; errors 2^-34.3 and 2^-33.3
# (f32), 2^-61.7 and 2^-58.0 (f64).
_SINH_F32 = (0.16666667, 0.008333175, 0.00019974078)
_SINH_F64 = (
    0.16666666666666677,
    0.008333333333321374,
    0.0001984126988687311,
    2.7557243369773264e-06,
    2.5109357525617175e-08,
)
_COSH_F32 = (0.5, 0.04166646, 0.0013935452)
_COSH_F64 = (
    0.5000000000000013,
    0.041666666666510074,
    0.0013888888948548803,
    2.4801488224552148e-05,
    2.7631936616757626e-07,
)

# x^3 / (x - tanh(x)) as a polynomial of x^2 for |x| <= 1.03; errors 2^-28. and 2^-59..
_TANH_F32 = (3.0000007, 1.1999925, -0.005691093, 0.00022586212)
_TANH_F64 = (
    3.000000000000001,
    1.199999999999963,
    -0.0057142857137748885,
    0.00025396825055399886,
    -1.220365653922647e-05,
    5.987374020313649e-07,
    -2.9524906277111108e-08,
    1.4288739974502928e-09,
    -5.6248507285905295e-11,
)

# e^(2r) for |r| <= ln(2)/4; errors 2^-28.2 and 2^-57.9.
_EXP_F32 = (1.0, 2.0, 1.9999998, 1.3333213, 0.6666897, 0.26781264, 0.08855586)
_EXP_F64 = (
    1.0,
    2.0,
    2.0000000000000044,
    1.3333333333333144,
    0.6666666666644107,
    0.26666666667135663,
    0.08888888924751137,
    0.02539682502188364,
    0.006349181860640332,
    0.001410946012797877,
    0.00028293947214263197,
    5.12369952736419e-05,
)

# (log(1+f) - f + f^2/2) / f^3 for 3/4 <= 1+f <= 3/2; errors 2^-30.7 and 2^-59.8, for f < 0 relative to log(3/2).
_LOG_F32 = (
    0.33333355,
    -0.25000197,
    0.19998741,
    -0.16653192,
    0.1429054,
    -0.12772678,
    0.11645337,
    -0.08816018,
    0.035066184,
)
_LOG_F64 = (
    0.3333333333333344,
    -0.2500000000000393,
    0.19999999999994114,
    -0.16666666665750476,
    0.1428571428287353,
    -0.1250000007634429,
    0.11111111511588874,
    -0.099999971988094,
    0.09090887168010454,
    -0.08333367420914858,
    0.07692901698849093,
    -0.07143494482285152,
    0.06658992630465116,
    -0.06225939281001469,
    0.05907015537808955,
    -0.057970673064910876,
    0.05623352629619388,
    -0.0459655390879623,
    0.02526719577351016,
    -0.006577256491118582,
)


def tanh(b: Builder, x: Var) -> Expr:
    """a (1 - a^2 / d(a^2)) for a up to about 1, 1 - 2 / (e^2a + 1) above, where a = |x|: one division serves both.

    a^3 / (a - tanh(a)) is nearly linear in a^2, since the continued fraction of tanh is a / (1 + a^2 / (3 + ...)). What
    is subtracted is at most a third of the result on either side, which keeps its errors small.
    """
    ln2_high, ln2_low = LN2_F64 if b.wide else LN2_F32
    shift = b.format.digits - 1
    a = b.let(absolute(x), "a")
    z = b.let(b.at_most(a, 20.0 if b.wide else 10.0), "z")
    # The exponent's bias comes with the number that rounds, so one shift makes the power.
    magic = b.format.magic + b.format.bias
    shifted = b.let(b.mad(2.0 * _LOG2_E, z, magic), "shifted")
    n = b.let(shifted - magic, "n")
    if b.has_fma and not b.wide:
        # n is small where e^2a matters: ln 2 need not be longer.
        r = b.let(b.mad(-0.5 * math.log(2.0), n, z), "r")
    else:
        r = b.let(b.mad(-0.5 * ln2_low, n, b.mad(-0.5 * ln2_high, n, z)), "r")
    power = b.from_bits(b.bits(shifted) << shift)
    e = b.mad(b.polynomial(r, b.let(r * r, "r2"), _EXP_F64[1:]) if b.wide else b.horner(r, _EXP_F32[1:]), r, 1.0)
    # Where either formula has the same largest error.
    small = b.let(compare("lt", a, 1.0 if b.has_fma else 0.9), "small")
    # a^2, or the other numerator: then the polynomial of it is not used.
    a2 = b.let(select(small, a * a, b.const(2.0)), "a2")
    # The last step of a polynomial alone: its error is the one that counts.
    constant, *rest = _TANH_F64 if b.wide else _TANH_F32
    d = b.mad(b.polynomial(a2, b.let(a2 * a2, "a4"), rest) if b.wide else b.horner(a2, rest), a2, constant)
    fraction = a2 / select(small, d, b.mad(power, e, 1.0))
    base = b.let(select(small, a, b.const(1.0)), "base")
    return b.copy_sign(b.mad(-base, fraction, base), x)


def sinh(b: Builder, x: Var) -> Expr:
    """sinh(n ln2 + r) = sinh(n ln2) cosh(r) + cosh(n ln2) sinh(r); for small x this is sinh(r) with r = x.

    All but the two largest terms are added up first, with what their own sum loses.
    """
    a = b.let(absolute(x), "a")
    power, inverse, high, low, r, r2 = _split(b, a)
    s, c = b.let(power - inverse, "s"), b.let(power + inverse, "c")
    if b.has_fma:
        main = b.let(b.fma(c, high, s), "main")
        lost = b.fma(c, high, s - main)
    else:
        # c = power + inverse, both powers of two, whose products with r are exact.
        part, first = fast_two_sum(b, s, power * high)
        main, second = fast_two_sum(b, part, inverse * high)
        lost = first + second
    if b.wide:
        # 2^27 - 2^-27 is a bit too long; f32 has no such power.
        lost = lost + ((power - s) - inverse)
    sinh_rest = b.mad(r * r2, b.horner(r2, _SINH_F64 if b.wide else _SINH_F32), low)
    cosh_rest = r2 * b.horner(r2, _COSH_F64 if b.wide else _COSH_F32)
    half = main + (b.mad(c, sinh_rest, lost) + s * cosh_rest)
    # The halves of smaller numbers may be subnormal, which would cost bits.
    return b.copy_sign(select(compare("lt", a, 2.0**-100), a, half * 2.0), x)


def cosh(b: Builder, x: Var) -> Expr:
    """cosh(n ln2 + r) = cosh(n ln2) cosh(r) + sinh(n ln2) sinh(r), 2^n of the first factor added last."""
    power, inverse, high, low, r, r2 = _split(b, b.let(absolute(x), "a"))
    s, c = power - inverse, power + inverse
    sinh_rest = b.mad(r * r2, b.horner(r2, _SINH_F64 if b.wide else _SINH_F32), low)
    cosh_rest = r2 * b.horner(r2, _COSH_F64 if b.wide else _COSH_F32)
    # s * high in two parts, of which the first is exact.
    more = b.mad(c, cosh_rest, b.mad(s, sinh_rest, b.mad(-inverse, high, inverse)))
    more = b.mad(power, high, more)
    return (power + more) * 2.0


def _split(b: Builder, a: Var) -> tuple[Var, Var, Var, Var, Var, Var]:
    """Return 2^(n-2), 2^(-n-2), high + low = r = a - n ln2 with |r| <= ln(2)/2, r, and r^2.

    The powers are half of what sinh and cosh of n ln2 are made of, and results are doubled last, since 2^n overflows
    before they do.
    """
    ln2_high, ln2_low = LN2_F64 if b.wide else LN2_F32
    shift = b.format.digits - 1
    # At this bound both results are infinite in any case, and the halves of the powers are not.
    z = b.let(b.at_most(a, 710.5 if b.wide else 89.5), "z")
    magic = b.format.magic + (b.format.bias - 2)
    shifted = b.let(b.mad(_LOG2_E, z, magic), "shifted")
    n = b.let(shifted - magic, "n")
    high = b.let(b.mad(-ln2_high, n, z), "high")
    low = b.let(n * -ln2_low, "low")
    r = b.let(high + low, "r")
    power = b.let(b.from_bits(b.bits(shifted) << shift), "power")
    # 2^(-n-2) by its exponent, or 0 where that is out of range: it no longer matters then.
    inverse = b.let(b.from_bits(maximum(b.integer((2 * b.format.bias - 4) << shift) - b.bits(power), 0)), "inverse")
    return power, inverse, high, low, r, b.let(r * r, "r2")


def asinh(b: Builder, x: Var) -> Expr:
    """log(1 + u) with u = a + (sqrt(1 + a^2) - 1) and a = |x|, u kept as a number and its rest."""
    a = b.let(absolute(x), "a")
    square = b.let(b.mad(a, a, 1.0), "square")
    root = b.let(square_root(square), "root")
    # 1 + a^2 less the square of the root, which is 1 where a^2 is so small that rounding the root would matter.
    left = b.fma(a, a, b.fma(-root, root, 1.0))
    # Near 1 the rest of the root has to be better than elsewhere, beside a.
    root_rest = left * select(compare("lt", a, 0.25), b.const(0.5), half_inverse_root(b, square))
    u, rest = fast_two_sum(b, a, (root - 1.0) + root_rest)
    return b.copy_sign(_unless_huge(b, a, _log1p(b, u, rest)), x)


def acosh(b: Builder, x: Var) -> Expr:
    """log(1 + u) with u = t + sqrt(t^2 + 2t) and t = x - 1, which is exact where it matters."""
    t = b.let(x - 1.0, "t")
    twice = b.let(t + t, "twice")
    square = b.let(b.fma(t, t, twice), "square")
    square_rest = b.fma(t, t, twice - square)
    root = b.let(square_root(square), "root")
    root_rest = (b.fma(-root, root, square) + square_rest) * half_inverse_root(b, square)
    u, lost = fast_two_sum(b, root, t)
    value = _unless_huge(b, x, _log1p(b, u, lost + root_rest))
    return select(compare("lt", x, 1.0), b.const(math.nan), value)


def _unless_huge(b: Builder, a: Var, value: Expr) -> Expr:
    """Return `value`, or log(2a) where a is so large that its square may have overflowed."""
    result = b.register(value, "result")
    huge = b.let(compare("ge", a, 2.0**60 if b.wide else 2.0**30), "huge")
    with b.when(any_lane(huge)):
        far = _log1p(b, b.let(a * 0.25, "quarter"), b.const(0.0), times=3.0)
        far = select(compare("lt", a, math.inf), far, a)
        b.store(result, select(huge, far, b.load(result, "near")))
    return b.load(result, "result")


def atanh(b: Builder, x: Var) -> Expr:
    """log(1 + u) / 2 with u = 2a / (1 - a) and a = |x|, u kept as a number and its rest."""
    a = b.let(absolute(x), "a")
    d = b.let(1.0 - a, "d")
    d_rest = (1.0 - d) - a
    inverse = b.let(1.0 / d, "inverse")
    twice = b.let(a + a, "twice")
    u = b.let(twice * inverse, "u")
    rest = b.mad(-u, b.let(d_rest, "d_rest"), b.fma(-u, d, twice)) * inverse
    result = b.register(_log1p(b, u, rest) * 0.5, "result")
    outside = b.let(compare("ge", a, 1.0), "outside")
    with b.when(any_lane(outside)):
        edge = select(eq(a, 1.0), b.const(math.inf), b.const(math.nan))
        b.store(result, select(outside, edge, b.load(result, "inside")))
    return b.copy_sign(b.load(result, "result"), x)


def _log1p(b: Builder, u: Var, rest: Expr, times: float = 0.0) -> Expr:
    """Return log(1 + u + rest) + `times` * ln2 for u >= 0.

    With 1 + u = 2^k m and 3/4 <= m < 3/2, f = m - 1 is u / 2^k + (1 / 2^k - 1): exact, and u itself where k = 0.
    """
    ln2_high, ln2_low = LN2_F64 if b.wide else LN2_F32
    shift = b.format.digits - 1
    bits = b.let(b.bits(u + 1.0) - b.bits(b.const(0.75)), "bits")
    exponent = bits >> shift
    if b.wide:
        # AVX2 has no conversion of 64-bit integers.
        k = b.from_bits(exponent + b.bits(b.const(b.format.magic))) - (b.format.magic - times)
    else:
        k = cast(exponent, b.of.dtype)
        k = k + times if times else k
    k = b.let(k, "k")
    scale = b.let(b.from_bits(b.bits(b.const(1.0)) - (bits & (-1 << shift))), "scale")
    f = b.let(b.mad(u, scale, scale - 1.0), "f")
    f2 = b.let(f * f, "f2")
    p = b.polynomial(f, f2, _LOG_F64) if b.wide else b.horner(f, _LOG_F32)
    # k * ln2_high is exact, and either 0 or larger than f.
    total = b.let(b.mad(ln2_high, k, f), "total")
    lost = f - b.mad(-ln2_high, k, total)
    # The rest is small: a straight line does for the derivative 1 / (1 + f).
    lost = b.mad(rest * scale, b.mad(-0.75, f, 1.0), lost)
    return total + b.mad(f2, b.mad(f, p, -0.5), b.mad(ln2_low, k, lost))
