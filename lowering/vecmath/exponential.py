"""exp, exp2, expm1 and sigmoid, as expressions.

Every polynomial is a minimax fit (Remez exchange in 200-bit arithmetic on a grid of Chebyshev points, coefficients
rounded to the dtype one after another from the lowest, the others fitted again after each). The error beside it is
the largest of the rounded polynomial on its interval, relative to the function's result unless it says otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from jitflow.expr import Expr, Var, compare, select
from lowering.vecmath.builder import Builder, absolute

_LOG2_E = math.log2(math.e)

# ln 2 in two parts. The upper one ends in as many zero bits as the exponents k that multiply it have, so that
# k * LN2_HIGH is exact even without fused multiply-add.
LN2_F32 = (0.693145751953125, 1.4286068e-06)
LN2_F64 = (0.6931471805598903, 5.497923018708371e-14)

# (e^r - 1 - r) / r^2 for |r| <= ln(2)/2; errors 2^-28.2 and 2^-57.9, relative to e^r.
_EXP_F32 = (0.49999994, 0.16666517, 0.041668117, 0.008369186, 0.0013837382)
_EXP_F64 = (
    0.5000000000000011,
    0.16666666666666438,
    0.04166666666652585,
    0.00833333333347427,
    0.0013888888944843744,
    0.00019841269558595046,
    2.4801491761417718e-05,
    2.755753252705677e-06,
    2.7630751885839104e-07,
    2.5019421461237702e-08,
)

# (2^r - 1) / r for |r| <= 1/2; errors 2^-27.5 and 2^-59.7, relative to 2^r.
EXP2_F32 = (0.69314724, 0.24022655, 0.055502728, 0.009617065, 0.0013417745, 0.00015823935)
EXP2_F64 = (
    0.6931471805599453,
    0.2402265069591007,
    0.05550410866482338,
    0.00961812910763023,
    0.0013333558146033184,
    0.00015403530388888255,
    1.5252734167108947e-05,
    1.3215491327825599e-06,
    1.017793224305558e-07,
    7.0529527033326836e-09,
    4.4733141733897823e-10,
    2.872076095630225e-11,
)


# Outside these bounds e^x and 2^x are 0 or infinite.
_EXP_RANGE = ((-104.0, 89.0), (-746.0, 710.0))
_EXP2_RANGE = ((-151.0, 129.0), (-1076.0, 1025.0))


def exp(b: Builder, x: Var) -> Expr:
    """e^x = 2^n e^r with n = round(x / ln 2), so |r| <= ln(2)/2.

    r is kept in two parts, of which the upper one is exact: its own rounding would cost up to 0.2 ULP.
    """
    return exp_and_rest(b, x)[0]


def exp_and_rest(b: Builder, x: Var) -> tuple[Var, Expr]:
    """Return e^x, and what rounding it lost, relative to it."""
    e = _reduced(b, x, 1.0)
    common = b.let(compare("lt", absolute(x), 708.0 if b.wide else 86.5), "common")
    part = b.let(e.high + e.small, "part")
    p = b.let(1.0 + part, "p")
    result = b.register(b.from_bits(b.bits(p) + (b.bits(e.shifted) << (b.format.digits - 1))), "result")
    with b.unless(common):
        gradual = scale_by_power(b, p, e.shifted, compare("lt", x, 0.0))
        b.store(result, select(common, b.value_of(result), within_range(b, x, gradual, _EXP_RANGE[b.wide])))
    # 1 / p is nearly 2 - p.
    return b.load(result, "result"), ((1.0 - p) + part) * (2.0 - p)


def scale_by_power(b: Builder, p: Expr, shifted: Expr, small: Expr) -> Expr:
    """Return ``p * 2**n`` for 0.7 < p < 1.5, with n in the low bits of `shifted`; `small`: where it may be subnormal.

    2^n comes in two factors, since n may lie beyond the exponents of the dtype on either side: 2^(n-1) and 2, or
    2^(n+c) and 2^-c where the result may be subnormal. The first product is exact, the second rounds as it should.
    """
    shift = b.format.digits - 1
    raised = 2 * shift
    small = b.let(small, "small")
    offset = select(small, b.integer((b.format.bias + raised) << shift), b.integer((b.format.bias - 1) << shift))
    scale = b.from_bits((b.bits(shifted) << shift) + offset)
    return (p * scale) * select(small, b.const(2.0**-raised), b.const(2.0))


def exp2(b: Builder, x: Var) -> Expr:
    """2^x = 2^n 2^r with n = round(x), so |r| <= 1/2."""
    common = b.let(compare("lt", absolute(x), float(b.format.bias - 2)), "common")
    shifted = b.let(x + b.format.magic, "shifted")
    r = b.let(x - (shifted - b.format.magic), "r")
    q = b.polynomial(r, b.let(r * r, "r2"), EXP2_F64) if b.wide else b.horner(r, EXP2_F32)
    p = b.let(b.mad(q, r, 1.0), "p")
    result = b.register(b.from_bits(b.bits(p) + (b.bits(shifted) << (b.format.digits - 1))), "result")
    with b.unless(common):
        gradual = scale_by_power(b, p, shifted, compare("lt", x, 0.0))
        b.store(result, select(common, b.value_of(result), within_range(b, x, gradual, _EXP2_RANGE[b.wide])))
    return b.load(result, "result")


def within_range(b: Builder, x: Expr, value: Expr, bounds: tuple[float, float]) -> Expr:
    """Return 0 where `x` is below `bounds`, infinity where it is above, and else `value`."""
    least, most = bounds
    return select(compare("gt", x, most), b.const(math.inf), select(compare("lt", x, least), b.const(0.0), value))


def expm1(b: Builder, x: Var) -> Expr:
    """e^x - 1 = 2^n (e^r - 1) + (2^n - 1), with what rounding loses of the sum of the two largest terms."""
    magic = b.format.magic
    e = _reduced(b, x, 1.0, cancels=True)
    common = b.let(compare("lt", absolute(x), 708.0 if b.wide else 87.0), "common")
    # The exponent's bias comes with the number that rounds, so one shift makes the power.
    power = b.let(b.from_bits(b.bits(e.n + (magic + b.format.bias)) << (b.format.digits - 1)), "power")
    whole = b.let(power - 1.0, "whole")
    total = b.let(b.mad(power, e.high, whole), "total")
    lost = b.mad(power, e.high, whole - total) + ((power - whole) - 1.0)
    value = total + b.mad(power, e.small, lost)
    # The result has the sign of x, that of zero included.
    signed = b.from_bits(b.bits(b.let(value, "value")) | (b.bits(x) & b.sign_bit()))
    result = b.register(signed, "result")
    with b.unless(common):
        exp = scale_by_power(b, 1.0 + (e.high + e.small), e.shifted, compare("lt", x, 0.0))
        large = select(compare("lt", x, 0.0), b.const(-1.0), within_range(b, x, exp, _EXP_RANGE[b.wide]))
        b.store(result, select(common, b.value_of(result), large))
    return b.load(result, "result")


def sigmoid(b: Builder, x: Var) -> Expr:
    """1 / (1 + e^-x) with e^-x = 2^n (1 + h): the quotient of powers of two a and 1 + w + c h, with w = 2^-|n|.

    Either a or c is 1 and the other w, such that the denominator is between 1/2 and 3. What rounding it loses, and what
    the division leaves, correct the quotient: so small a result as e^-80 is within one ULP.
    """
    e = _reduced(b, x, -1.0)
    common = b.let(compare("lt", absolute(x), 708.3 if b.wide else 87.3), "common")
    negative = b.let(compare("lt", x, 0.0), "negative")
    h = b.let(e.high + e.small, "h")
    # No power below the normal numbers is needed: it would not change the denominator.
    exponent = (b.format.magic + b.format.bias) - b.at_most(absolute(e.n), float(b.format.bias - 1))
    w = b.let(b.from_bits(b.bits(exponent) << (b.format.digits - 1)), "w")
    c = b.let(select(negative, b.const(1.0), w), "c")
    whole = b.let(1.0 + w, "whole")
    d = b.let(b.mad(c, h, whole), "d")
    lost = b.mad(c, h, whole - d) + (w - (whole - 1.0))
    q = b.let(1.0 / d, "q")
    left = b.mad(-q, lost, b.fma(-q, d, 1.0))
    quotient = b.let(b.mad(left, q, q), "quotient")
    result = b.register(quotient * select(negative, w, b.const(1.0)), "result")
    with b.unless(common):
        gradual = scale_by_power(b, quotient, b.let(b.format.magic - e.n, "shifted"), negative)
        least, _ = _EXP_RANGE[b.wide]
        small = select(compare("lt", x, least), b.const(0.0), gradual)
        b.store(result, select(common, b.value_of(result), select(compare("gt", x, 0.0), b.const(1.0), small)))
    return b.load(result, "result")


class _Exponential(NamedTuple):
    """e^z = 2^n (1 + (high + small)); n stands in the low bits of `shifted`, too."""

    n: Var
    shifted: Var
    high: Var
    small: Var


def _reduced(b: Builder, x: Var, sign: float, *, cancels: bool = False) -> _Exponential:
    """Return the parts of e^z for z = `sign` * x. `cancels`: 1 is to be taken from it."""
    ln2_high, ln2_low = LN2_F64 if b.wide else LN2_F32
    shifted = b.let(b.mad(sign * _LOG2_E, x, b.format.magic), "shifted")
    n = b.let(shifted - b.format.magic, "n")
    high = b.let(b.mad(-ln2_high, n, x if sign > 0 else -x), "high")
    low: Expr = b.let(n * -ln2_low, "low")
    r = b.let(high + low, "r")
    if b.wide or cancels:
        # What rounding r changes of r^2 / 2; of e^z itself it is nothing that f32 has no room for.
        low = b.mad(low - (r - high), r, low)
    r2 = b.let(r * r, "r2")
    q = b.polynomial(r, r2, _EXP_F64) if b.wide else b.horner(r, _EXP_F32)
    return _Exponential(n, shifted, high, b.let(b.mad(q, r2, low), "small"))
