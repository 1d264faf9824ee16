"""pow, as expressions: 2^(y log2 |x|) with log2 to more bits than the result has, and the table of the C standard.

The exponent of the result multiplies any error of the logarithm by up to 128 (f32) or 1075 (f64), so the logarithm
needs 8 or 11 bits more than the result: it is a pair of numbers, one and its rest. f32 without fused multiply-add,
for which pairs are expensive, takes f64 instead.

What negative, zero, subnormal, infinite and NaN arguments need, and results beyond the normal numbers, stands in
branches, which are taken if a lane holds one.
"""

from __future__ import annotations

import math

from jitflow.dtypes import float32, float64
from jitflow.expr import Expr, Unary, Var, cast, compare, eq, lift, select
from lowering.vecmath.builder import F64, Builder, absolute, fast_two_sum, two_product
from lowering.vecmath.exponential import EXP2_F32, EXP2_F64, scale_by_power, within_range
from lowering.vecmath.logarithm import as_float, scaled_bits, sqrt_half

# log2((1+s)/(1-s)) / s = 2/ln(2) + z * (2/3/ln(2) + z * ...) with z = s^2: the terms from z on for |s| <= 0.0865 (f32,
# error 2^-37.3), and from z^2 on for |s| <= (sqrt(2)-1) / (sqrt(2)+1) (f64, error 2^-66.2).
_LOG2_F32 = (0.9617967, 0.5770647, 0.4162299)
_LOG2_F64 = (
    0.5770780163556178,
    0.41219858309199087,
    0.32059890226473936,
    0.26230770188254526,
    0.22198396338306203,
    0.19125595238977383,
    0.19037815145747605,
)

# Numbers and their rests: 2/ln(2), and a third of it.
_TWO_LOG2_E_F32, _TWO_LOG2_E_F64 = (2.88539, 3.851926e-08), (2.8853900817779268, 4.0710547481862066e-17)
_THIRD_F64 = (0.9617966939259756, 5.0577616648125907e-17)

# The square root of 2, roughly, and its log2: the first part and any exponent have an exact sum.
_CENTRE, _CENTRE_LOG2 = 1.4140625, (0.49981689453125, 2.8992552e-05)

# Outside these bounds 2^t is 0 or infinite.
_RANGE = ((-160.0, 129.0), (-1090.0, 1025.0))

# For f32 in f64: log2(1+f) / f for sqrt(1/2) <= 1+f <= sqrt(2), error 2^-34.8; (2^r - 1) / r for |r| <= 1/2, error
# 2^-28.5 relative to 2^r.
_WIDE_LOG2 = (
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
_WIDE_EXP2 = (
    0.6931472150556108,
    0.24022652788582077,
    0.055503103811869375,
    0.00961769218667255,
    0.001340670564762902,
    0.00015594853963706904,
)


def power(b: Builder, x: Var, y: Var) -> Expr:
    """x to the power y."""
    a = b.let(absolute(x), "a")
    if not (b.wide or b.has_fma):
        return _with_sign(b, x, y, a, _power_in_f64(b, a, y))
    least = sqrt_half(b) if b.wide else b.integer(0x3F5744FD)
    normal, u = scaled_bits(b, a, least)
    log2, log2_rest = _log2_pair(b, u, least)
    # The emulated product of a huge number overflows. No power is finite beyond this bound but those of 1.
    exponent = y if b.has_fma else b.let(b.at_most(b.at_least(y, -(2.0**70)), 2.0**70), "exponent")
    t, t_lost = two_product(b, exponent, log2)
    rest: Expr = b.let(b.mad(exponent, log2_rest, t_lost), "rest")
    # The rest holds terms of the logarithm's series, too large to be left out.
    near = b.let(t + rest, "near")
    shifted = b.let(near + b.format.magic, "shifted")
    part = b.let(t - (shifted - b.format.magic), "part")
    r = b.let(part + rest, "r")
    if b.wide:
        # What rounding r lost counts ln(2) * 2^r times; nearly so.
        more = ((part - r) + rest) * math.log(2)
        p = b.mad(b.polynomial(r, b.let(r * r, "r2"), EXP2_F64), r, more) + 1.0
    else:
        p = b.mad(b.horner(r, EXP2_F32), r, 1.0)
    p = b.let(p, "p")
    common = b.let(normal & compare("gt", x, 0.0) & compare("lt", absolute(near), float(b.format.bias - 3)), "common")
    result = b.register(b.from_bits(b.bits(p) + (b.bits(shifted) << (b.format.digits - 1))), "result")
    with b.unless(common):
        regular = b.let(compare("gt", a, 0.0) & compare("lt", a, math.inf), "regular")
        # Where a is 0, infinite or NaN its bits are no logarithm; (a - 1) * inf is one.
        far = b.let(select(regular, t, y * ((a - 1.0) * math.inf)), "far")
        gradual = scale_by_power(b, p, shifted, compare("lt", far, 0.0))
        value = within_range(b, far, select(regular, gradual, far), _RANGE[b.wide])
        value = select(eq(a, 1.0), b.const(1.0), value)
        b.store(result, select(common, b.value_of(result), _with_sign(b, x, y, a, value)))
    return b.load(result, "result")


def _log2_pair(b: Builder, u: Var, least: Expr) -> tuple[Var, Expr]:
    """Return log2(a) and its rest: k + log2(c) + 2/ln(2) * atanh(s) with a = 2^k m and s = (m - c) / (m + c).

    f64: c = 1 and sqrt(1/2) <= m < sqrt(2). f32: 2^-1/4 <= m < 2^3/4 and c = 1 or nearly sqrt(2), whichever is closer;
    this makes the terms in s^2 so small that they need no rests.
    """
    shift = b.format.digits - 1
    k: Expr = as_float(b, u >> shift)
    m = b.let(b.from_bits((u & ((1 << shift) - 1)) + least), "m")
    c = b.const(1.0)
    if not b.wide:
        upper = b.let(compare("gt", m, 2.0**0.25), "upper")
        c = b.let(select(upper, b.const(_CENTRE), c), "c")
        k = k + select(upper, b.const(_CENTRE_LOG2[0]), b.const(0.0))
    f = b.let(m - c, "f")
    d = b.let(m + c, "d")
    inverse = b.let(1.0 / d, "inverse")
    s = b.let(f * inverse, "s")
    # What s * (m + c) leaves of f; m - (d - c) is what rounding d lost.
    s_rest = b.let(b.mad(-s, m - (d - c), b.fma(-s, d, f)) * inverse, "s_rest")
    h, h_rest = _series_f64(b, s, s_rest) if b.wide else _series_f32(b, s, s_rest)
    log2, lost = fast_two_sum(b, k, h)
    rest = lost + h_rest
    if not b.wide:
        rest = rest + select(upper, b.const(_CENTRE_LOG2[1]), b.const(0.0))
    return log2, b.let(rest, "log2_rest")


def _series_f32(b: Builder, s: Var, s_rest: Var) -> tuple[Var, Expr]:
    """Return log2((1+s)/(1-s)) and its rest."""
    high, low = _TWO_LOG2_E_F32
    z = b.let(s * s, "z")
    h, h_lost = two_product(b, s, b.const(high))
    terms = b.let(b.horner(z, (low, *_LOG2_F32)), "terms")
    # The slope in s: the terms begin with z, so s times them with its cube.
    slope = b.mad(3.0, terms, high)
    return h, b.mad(s, terms, b.mad(slope, s_rest, h_lost))


def _series_f64(b: Builder, s: Var, s_rest: Var) -> tuple[Var, Expr]:
    """Return log2((1+s)/(1-s)) and its rest; the term in z is a pair as well."""
    z, z_lost = two_product(b, s, s)
    z_rest = b.mad(s + s, s_rest, z_lost)
    third = b.const(_THIRD_F64[0])
    w, w_lost = two_product(b, z, third)
    terms = b.mad(b.polynomial(z, b.let(z * z, "z2"), _LOG2_F64), z, _THIRD_F64[1])
    w_rest = b.mad(terms, z, b.mad(third, z_rest, w_lost))
    g, g_lost = fast_two_sum(b, b.const(_TWO_LOG2_E_F64[0]), w)
    g_rest = (g_lost + _TWO_LOG2_E_F64[1]) + w_rest
    h, h_lost = two_product(b, s, g)
    return h, b.mad(s, g_rest, b.mad(s_rest, g, h_lost))


def _power_in_f64(b: Builder, a: Var, y: Var) -> Expr:
    """Return the power of a >= 0 from its logarithm in f64."""
    # No power is finite beyond this bound but those of 1, whose logarithm 0 it does not turn into NaN.
    exponent = b.at_most(b.at_least(y, -(2.0**70)), 2.0**70)
    wide = b.let(cast(a, float64), "wide")
    u = b.let(b.bits(wide) - _SQRT_HALF, "u")
    k = b.from_bits((u >> 52) + b.bits(lift(F64.magic, wide))) - F64.magic
    f = b.let(b.from_bits((u & ((1 << 52) - 1)) + _SQRT_HALF) - 1.0, "f")
    log2 = b.mad(f, b.horner(f, _WIDE_LOG2), k)
    # Where a is 0, infinite or NaN its bits are no logarithm; (a - 1) * inf is one.
    regular = (b.bits(a) - 1 >= 0) & compare("lt", a, math.inf)
    log2 = select(regular, log2, (wide - 1.0) * math.inf)
    # Outside these bounds the f32 is 0 or infinite.
    t = b.let(b.at_least(b.at_most(log2 * cast(exponent, float64), 200.0), -200.0), "t")
    shifted = b.let(t + F64.magic, "shifted")
    r = b.let(t - (shifted - F64.magic), "r")
    p = 1.0 + r * b.horner(r, _WIDE_EXP2)
    return cast(b.from_bits(b.bits(p) + (b.bits(shifted) << 52)), float32)


_SQRT_HALF = 0x3FE6A09E667F3BCD


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
