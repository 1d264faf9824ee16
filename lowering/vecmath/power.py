"""pow, as expressions: 2^(y log2 |x|) with log2 to more bits than the result has, and the table of the C standard.

The exponent of the result multiplies any error of the logarithm by up to 128 (f32) or 1075 (f64), so the logarithm
needs 8 or 11 bits more than the result: f64 for f32, pairs of f64 (a number and its rest) for f64.
"""

from __future__ import annotations

import math

from jitflow.dtypes import float32, float64
from jitflow.expr import Expr, Unary, Var, cast, compare, eq, lift, select
from lowering.vecmath.builder import F64, Builder, absolute, fast_two_sum, two_product
from lowering.vecmath.exponential import EXP2_F64, exponent_of, scale_by_power

# log2(1+f) / f for sqrt(1/2) <= 1+f <= sqrt(2), error 2^-34.8: for f32, in f64.
_LOG2_F32 = (
    1.4426950408687051,
    -0.7213475213591013,
    0.48089836100101147,
    -0.36067357421835256,
    0.2885373200865344,
    -0.24045897634279936,
    0.20617693323067976,
    -0.18016162851265694,
    0.15866195881275974,
    -0.14463687289650265,
    0.14656734511884964,
    -0.13700204278546316,
    0.06793733312654877,
)

# (2^r - 1) / r for |r| <= 1/2, error 2^-28.5 relative to 2^r: for f32, in f64.
_EXP2_F32 = (
    0.6931472150556108,
    0.24022652788582077,
    0.055503103811869375,
    0.00961769218667255,
    0.001340670564762902,
    0.00015594853963706904,
)

# (atanh(s)/s - 1 - z/3) / z^2 as a polynomial of z = s^2 for |s| <= (sqrt(2)-1) / (sqrt(2)+1); error 2^-66.3, as seen
# in atanh(s)/s.
_ATANH_F64 = (
    0.20000000000001128,
    0.14285714285049778,
    0.11111111259965756,
    0.09090892183036614,
    0.07693378694674363,
    0.06628408109880186,
    0.06598172083438258,
)

# Numbers and their rests.
_THIRD = (0.3333333333333333, 1.850371707708594e-17)
_TWO_LOG2_E = (2.8853900817779268, 4.0710547481862066e-17)

_SQRT_HALF = 0x3FE6A09E667F3BCD


def power(b: Builder, x: Var, y: Var) -> Expr:
    """x to the power y."""
    a = b.let(absolute(x), "a")
    # No power is finite beyond this bound but those of 1 and -1, whose logarithm 0 it does not turn into NaN.
    exponent = b.let(b.at_most(b.at_least(y, -(2.0**70)), 2.0**70), "exponent")
    value = _power_f64(b, a, exponent) if b.wide else _power_f32(b, a, exponent)
    return _with_sign(b, x, y, a, value)


def _power_f32(b: Builder, a: Var, y: Var) -> Expr:
    wide = b.let(cast(a, float64), "wide")
    u = b.let(b.bits(wide) - _SQRT_HALF, "u")
    k = b.from_bits((u >> 52) + b.bits(lift(F64.magic, wide))) - F64.magic
    f = b.let(b.from_bits((u & ((1 << 52) - 1)) + _SQRT_HALF) - 1.0, "f")
    log2 = b.mad(f, b.horner(f, _LOG2_F32), k)
    # Where a is 0, infinite or NaN its bits are no logarithm; (a - 1) * inf is one.
    regular = (b.bits(a) - 1 >= 0) & compare("lt", a, math.inf)
    log2 = select(regular, log2, (wide - 1.0) * math.inf)
    # Outside these bounds the f32 is 0 or infinite.
    t = b.let(b.at_least(b.at_most(log2 * cast(y, float64), 200.0), -200.0), "t")
    shifted = b.let(t + F64.magic, "shifted")
    r = b.let(t - (shifted - F64.magic), "r")
    p = 1.0 + r * b.horner(r, _EXP2_F32)
    return cast(b.from_bits(b.bits(p) + (b.bits(shifted) << 52)), float32)


def _power_f64(b: Builder, a: Var, y: Var) -> Expr:
    high, low = _log2_pair(b, a)
    t, t_rest = two_product(b, y, high)
    # The rest of an overflowed product is of no use, nor is it where the result is 0 or infinite.
    inside = compare("lt", absolute(t), 1100.0)
    rest = select(inside, b.mad(y, low, t_rest), b.const(0.0))
    t = b.let(b.at_least(b.at_most(t, 1024.5), -1080.0), "t")
    shifted = b.let(t + F64.magic, "shifted")
    # The fraction of t is 0 or a multiple of t's last place, which the rest is below.
    r, rest = fast_two_sum(b, t - (shifted - F64.magic), rest)
    q = b.polynomial(r, b.let(r * r, "r2"), EXP2_F64)
    # 2^(r + rest) = 2^r + rest * ln 2 * 2^r; by now the rest is so small that 2^r may be 1 + r ln 2.
    more = rest * b.mad(math.log(2) ** 2, r, math.log(2))
    return scale_by_power(b, 1.0 + b.mad(r, q, more), shifted, compare("lt", t, -1020.0))


def _log2_pair(b: Builder, a: Var) -> tuple[Var, Var]:
    """Return log2(a) and its rest: k + 2/ln(2) * atanh(s) with a = 2^k m and s = (m - 1) / (m + 1)."""
    subnormal = b.let(compare("lt", a, F64.smallest_normal), "subnormal")
    u = b.let(b.bits(select(subnormal, a * 2.0**F64.digits, a)) - _SQRT_HALF, "u")
    k = exponent_of(b, u >> 52, subnormal)
    m = b.let(b.from_bits((u & ((1 << 52) - 1)) + _SQRT_HALF), "m")
    f = b.let(m - 1.0, "f")
    d = b.let(m + 1.0, "d")
    inverse = b.let(1.0 / d, "inverse")
    s = b.let(f * inverse, "s")
    # What s * (m + 1) leaves of f; m - (d - 1) is what rounding d lost.
    s_rest = b.let((b.fma(-s, d, f) - s * (m - (d - 1.0))) * inverse, "s_rest")
    z, z_lost = two_product(b, s, s)
    z_rest = b.let(b.mad(s + s, s_rest, z_lost), "z_rest")
    # c = 1/3 + z * (...): of the polynomial 53 bits are enough.
    c, c_lost = fast_two_sum(b, b.const(_THIRD[0]), z * b.polynomial(z, b.let(z * z, "z2"), _ATANH_F64))
    p, p_rest = _pair_product(b, (z, z_rest), (c, b.let(c_lost + _THIRD[1], "c_rest")))
    w, w_rest = _pair_product(b, (s, s_rest), (p, p_rest))
    sum_, lost = fast_two_sum(b, s, w)
    h, h_rest = _pair_product(b, (sum_, b.let(lost + (s_rest + w_rest), "rest")), _pair(b, _TWO_LOG2_E))
    log2, log2_lost = fast_two_sum(b, k, h)
    regular = b.let(compare("gt", a, 0.0) & compare("lt", a, math.inf), "regular")
    high = select(regular, log2, (a - 1.0) * math.inf)
    return b.let(high, "log2"), b.let(select(regular, log2_lost + h_rest, b.const(0.0)), "rest")


def _pair(b: Builder, value: tuple[float, float]) -> tuple[Expr, Expr]:
    return b.const(value[0]), b.const(value[1])


def _pair_product(b: Builder, x: tuple[Expr, Expr], y: tuple[Expr, Expr]) -> tuple[Var, Var]:
    """Return the product of two numbers with rests, as one."""
    high, low = two_product(b, x[0], y[0])
    return high, b.let(low + b.mad(x[0], y[1], x[1] * y[0]), "rest")


def _with_sign(b: Builder, x: Var, y: Var, a: Var, value: Expr) -> Expr:
    """Return the power from that of a = |x|: its sign, NaN for roots of negative x, the cases that are 1."""
    floor = b.let(Unary("floor", y), "floor")
    half = b.let(y * 0.5, "half")
    whole = b.let(eq(floor, y), "whole")
    odd = whole & compare("ne", Unary("floor", half), half)
    sign = b.bits(x) & select(odd, b.sign_bit(), b.integer(0))
    one = eq(x, 1.0) | eq(y, 0.0)
    undefined = compare("lt", x, 0.0) & compare("lt", a, math.inf) & ~whole
    signed = b.from_bits(b.bits(value) | sign)
    return select(one, b.const(1.0), select(undefined, b.const(math.nan), signed))
