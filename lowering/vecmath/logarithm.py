"""log, log2, log10, log1p and logaddexp, as expressions.

x = 2^k (1 + f) with 1 + f between two numbers around 1, of which one is half the other: the logarithm is k times that
of 2, plus a polynomial of f. What subnormal arguments and those outside the domain need stands in branches, which are
taken if a lane holds one.

The polynomials are minimax fits as in `lowering.vecmath.exponential`; the errors beside them are relative to the
function's result.
"""

from __future__ import annotations

import math

from jitflow.expr import Expr, Var, cast, compare, eq, select
from lowering.vecmath.builder import Builder, absolute, fast_two_sum, two_product, two_sum
from lowering.vecmath.exponential import LN2_F32, LN2_F64, exp_and_rest

# (log(1+f) - f + f^2/2) / f^3 for sqrt(1/2) <= 1+f <= sqrt(2); errors 2^-27.4 and 2^-58.8.
_LOG_F32 = (0.3333333, -0.25000823, 0.2000126, -0.16623321, 0.14200954, -0.13159741, 0.12767424, -0.07643305)
_LOG_F64 = (
    0.33333333333333454,
    -0.24999999999998926,
    0.19999999999945645,
    -0.1666666666691231,
    0.14285714293902674,
    -0.12499999982299156,
    0.11111110512476605,
    -0.10000000365014541,
    0.09090933612015585,
    -0.08333346407806086,
    0.07691712935704624,
    -0.07141987041509915,
    0.06675153946304918,
    -0.0626994896088633,
    0.05817902029676317,
    -0.05325926838377521,
    0.05414365423226037,
    -0.0627648287599966,
    0.057028436303397614,
    -0.024319227307260893,
)

# (log2(1+f) - f/ln(2)) / f^2 for 0.67328 <= 1+f <= 1.34656, and the same for log10; errors 2^-27.4 and 2^-58.9.
_LOG2_F32 = (
    -0.7213475,
    0.48089662,
    -0.36067536,
    0.2886901,
    -0.24043536,
    0.2020683,
    -0.17898393,
    0.20161451,
    -0.17088793,
)
_LOG2_F64 = (
    -0.7213475204444817,
    0.4808983469629859,
    -0.3606737602222622,
    0.2885390081786793,
    -0.24044917347611108,
    0.20609929141756822,
    -0.18033688064481632,
    0.16029945949706817,
    -0.14426947708683893,
    0.1311536375890845,
    -0.1202253559868641,
    0.11098877745127951,
    -0.1030371332164186,
    0.0959714247428255,
    -0.09027280773924619,
    0.08711372292378225,
    -0.07998702097734656,
    0.061157166539293394,
    -0.06781340699675273,
    0.12079274091322115,
    -0.09769917251901179,
)
_LOG10_F32 = (
    -0.21714723,
    0.14476432,
    -0.10857452,
    0.08690373,
    -0.0723696,
    0.060837343,
    -0.053956136,
    0.060654774,
    -0.051196545,
)
_LOG10_F64 = (
    -0.2171472409516259,
    0.14476482730108334,
    -0.10857362047582013,
    0.08685889638092459,
    -0.07238241364884614,
    0.06204206880109844,
    -0.054286810402014544,
    0.04825494562962394,
    -0.04342943999152867,
    0.039481178075312276,
    -0.036191438546644,
    0.03341096568809604,
    -0.031017289037142265,
    0.028890132380160822,
    -0.027174382668753026,
    0.026224691518992097,
    -0.02408254777290239,
    0.018407584267903617,
    -0.02039546149117518,
    0.0363650603536594,
    -0.029443659175935596,
)

# Numbers and their rests: 1/ln(2), 1/ln(10), and log10(2), of which the first part times any exponent is exact.
_LOG2_E_F32, _LOG2_E_F64 = (1.442695, 1.925963e-08), (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E_F32, _LOG10_E_F64 = (0.4342945, -1.010305e-08), (0.4342944819032518, 1.098319650216765e-17)
_LOG10_2_F32, _LOG10_2_F64 = (0.301025390625, 4.605039e-06), (0.30102999566395283, 2.8363394551044964e-14)


def sqrt_half(b: Builder) -> Expr:
    """Return the bits of sqrt(1/2)."""
    return b.integer(0x3FE6A09E667F3BCD if b.wide else 0x3F3504F3)


def log(b: Builder, x: Var) -> Expr:
    """log(x) = k ln(2) + log(1 + f)."""
    least = sqrt_half(b)
    common, u = scaled_bits(b, x, least)
    k, f = _exponent_and_fraction(b, u, least)
    total, low = _log_pair(b, k, f, None)
    return _with_special_values(b, x, common, total + low)


def log2(b: Builder, x: Var) -> Expr:
    """log2(x) = k + log2(1 + f)."""
    factor, coefficients = (_LOG2_E_F64, _LOG2_F64) if b.wide else (_LOG2_E_F32, _LOG2_F32)
    return _log_to_base(b, x, (1.0, 0.0), factor, coefficients)


def log10(b: Builder, x: Var) -> Expr:
    """log10(x) = k log10(2) + log10(1 + f)."""
    if b.wide:
        return _log_to_base(b, x, _LOG10_2_F64, _LOG10_E_F64, _LOG10_F64)
    return _log_to_base(b, x, _LOG10_2_F32, _LOG10_E_F32, _LOG10_F32)


def log1p(b: Builder, x: Var) -> Expr:
    """log(1 + x) = log(u + c), where u is 1 + x rounded and c what that lost: log(u) + c/u, nearly."""
    u = b.let(1.0 + x, "u")
    lost = b.let(b.at_most(x, 1.0) - (u - b.at_least(x, 1.0)), "lost")
    least = sqrt_half(b)
    bits = b.let(b.bits(u) - least, "bits")
    k, f = _exponent_and_fraction(b, bits, least)
    # Far from 1 nothing is lost that matters, but 2^-k is no number any more.
    common = b.let(compare("gt", x, -1.0) & compare("lt", x, 2.0 ** (b.format.bias - 7)), "common")
    rest = b.register(lost * _inverse_power(b, bits), "rest")
    with b.unless(common):
        b.store(rest, select(common, b.value_of(rest), b.const(0.0)))
    total, low = _log_pair(b, k, f, b.load(rest, "rest"))
    value = b.let(total + low, "value")
    # The result has the sign of x, that of zero included.
    signed = b.from_bits(b.bits(value) | (b.bits(x) & b.sign_bit()))
    result = b.register(signed, "result")
    with b.unless(common):
        inside = select(compare("lt", x, math.inf), b.value_of(result), x)
        outside = select(eq(x, -1.0), b.const(-math.inf), select(compare("lt", x, -1.0), b.const(math.nan), x))
        b.store(result, select(compare("gt", x, -1.0), inside, outside))
    return b.load(result, "result")


def logaddexp(b: Builder, x: Var, y: Var) -> Expr:
    """log(e^x + e^y) = g + log1p(e^d) with g = max(x, y) and d = min(x, y) - g.

    Where g is negative the two terms may cancel, hence what rounding d, e^d and 1 + e^d lost is kept.
    """
    first = b.let(compare("gt", x, y), "first")
    g, least = b.let(select(first, x, y), "g"), b.let(select(first, y, x), "least")
    d, d_lost = two_sum(b, least, -g)
    e, e_lost = exp_and_rest(b, d)
    # Far apart, where e^d is 0, and of infinities the rests are no numbers.
    near = compare("ge", d, -746.0 if b.wide else -104.0)
    relative = select(near, d_lost + e_lost, b.const(0.0))
    u = b.let(1.0 + e, "u")
    lost = ((1.0 - u) + e) + e * relative
    bits = b.let(b.bits(u) - sqrt_half(b), "bits")
    k, f = _exponent_and_fraction(b, bits, sqrt_half(b))
    total, rest = _log_pair(b, k, f, b.let(lost * _inverse_power(b, bits), "rest"))
    whole, whole_lost = two_sum(b, g, total)
    special = select(eq(least, least), g, least)
    return select(compare("lt", absolute(g), math.inf), whole + (whole_lost + rest), special)


def _inverse_power(b: Builder, u: Var) -> Expr:
    """Return 2^-k, where `u` holds the bits of 2^k (1 + f) less those of the smallest 1 + f."""
    return b.from_bits(b.bits(b.const(1.0)) - (u & (-1 << (b.format.digits - 1))))


def scaled_bits(b: Builder, x: Var, least: Expr) -> tuple[Var, Var]:
    """Return where `x` is a positive normal number, and its bits less `least`, as if no number were subnormal."""
    shift, digits = b.format.digits - 1, b.format.digits
    common = b.let(compare("ge", x, b.format.smallest_normal) & compare("lt", x, math.inf), "common")
    u = b.register(b.bits(x) - least, "u")
    with b.unless(common):
        raised = (b.bits(x * 2.0**digits) - least) - (digits << shift)
        b.store(u, select(compare("lt", x, b.format.smallest_normal), raised, b.value_of(u)))
    return common, b.load(u, "u")


def _exponent_and_fraction(b: Builder, u: Var, least: Expr) -> tuple[Var, Var]:
    """Return k and f, where `u` holds the bits of 2^k (1 + f) less `least`, those of the smallest 1 + f."""
    shift = b.format.digits - 1
    f = b.from_bits((u & ((1 << shift) - 1)) + least) - 1.0
    return b.let(as_float(b, u >> shift), "k"), b.let(f, "f")


def as_float(b: Builder, n: Expr) -> Expr:
    """Return small integer `n` as a float."""
    if not b.wide:
        return cast(n, b.of.dtype)
    # AVX2 has no conversion of 64-bit integers: put them into the low bits of a float instead.
    return b.from_bits(n + b.bits(b.const(b.format.magic))) - b.format.magic


def _log_pair(b: Builder, k: Var, f: Var, rest: Expr | None) -> tuple[Var, Expr]:
    """Return ``k * ln(2) + log(1 + f + rest)`` as a number and its rest; `rest` is below the last place of 1 + f."""
    high, low = LN2_F64 if b.wide else LN2_F32
    f2 = b.let(f * f, "f2")
    p = b.polynomial(f, f2, _LOG_F64) if b.wide else b.horner(f, _LOG_F32)
    # k * high is exact and either 0 or larger than f.
    total = b.let(b.mad(high, k, f), "total")
    lost = b.mad(low, k, b.mad(high, k, -total) + f)
    if rest is not None:
        # The slope of the logarithm is 1 / (1 + f): three terms of its series are enough for so small a rest.
        lost = b.mad(rest, b.mad(f - 1.0, f, 1.0), lost)
    return total, b.mad(b.mad(p, f, -0.5), f2, lost)


def _log_to_base(
    b: Builder,
    x: Var,
    step: tuple[float, float],
    factor: tuple[float, float],
    coefficients: tuple[float, ...],
) -> Expr:
    """Return ``k * step + f * factor + f^2 * polynomial(f)``; `step` and `factor` are numbers with their rests."""
    # |f * factor| is at most half of log(2) in this base, so that whole - total below is exact.
    least = b.integer(0x3FE58B827FA1A0CF if b.wide else 0x3F2C5C14)
    common, u = scaled_bits(b, x, least)
    k, f = _exponent_and_fraction(b, u, least)
    # This product is exact.
    whole = k if step == (1.0, 0.0) else b.let(k * step[0], "whole")
    if b.has_fma or not b.wide:
        total = b.let(b.fma(factor[0], f, whole), "total")
        lost = b.fma(factor[0], f, whole - total)
    else:
        product, product_lost = two_product(b, f, b.const(factor[0]))
        total, lost = fast_two_sum(b, whole, product)
        lost = lost + product_lost
    if step[1]:
        lost = b.mad(step[1], k, lost)
    terms = (factor[1], *coefficients)
    p = b.polynomial(f, b.let(f * f, "f2"), terms) if b.wide else b.horner(f, terms)
    return _with_special_values(b, x, common, total + b.mad(p, f, lost))


def _with_special_values(b: Builder, x: Var, common: Var, value: Expr) -> Expr:
    """Return `value`, but -inf for zero, NaN for negative `x`, and `x` itself if it is infinite or NaN."""
    result = b.register(value, "result")
    with b.unless(common):
        positive = select(compare("lt", x, math.inf), b.value_of(result), x)
        negative = select(eq(x, 0.0), b.const(-math.inf), select(compare("lt", x, 0.0), b.const(math.nan), x))
        b.store(result, select(compare("gt", x, 0.0), positive, negative))
    return b.load(result, "result")
