"""exp, log, tanh and erf, as expressions.

Every polynomial is a minimax fit (Remez exchange in 200-bit arithmetic on a grid of Chebyshev points, coefficients
rounded to the dtype one after another from the lowest, the others fitted again after each). The error beside it is
the largest of the rounded polynomial on its interval, relative to the function's result unless it says otherwise.
"""

from __future__ import annotations

import math

from jitflow.expr import Expr, Var, cast, compare, eq, select
from lowering.vecmath.builder import Builder, absolute, fast_two_sum

_LOG2_E = math.log2(math.e)

# ln 2 in two parts. The upper one ends in as many zero bits as the exponents k that multiply it have, so that
# k * _LN2_HIGH is exact even without fused multiply-add.
_LN2_F32 = (0.693145751953125, 1.4286068e-06)
_LN2_F64 = (0.6931471805598903, 5.497923018708371e-14)

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

# (tanh(x) - x) / x^3 as a polynomial of x^2 for |x| <= 0.975; errors 2^-28.1 and 2^-57.1.
_TANH_F32 = (
    -0.33333305,
    0.13332546,
    -0.053894483,
    0.021535506,
    -0.00802772,
    0.0023680436,
    -0.00037964445,
)
_TANH_F64 = (
    -0.33333333333333126,
    0.1333333333331065,
    -0.05396825395952197,
    0.02186948836526533,
    -0.008863233530874927,
    0.003592112740463976,
    -0.001455753437723467,
    0.0005897202721054009,
    -0.00023827363266413763,
    9.514143748344815e-05,
    -3.6518600455972594e-05,
    1.2688797095896172e-05,
    -3.6042435187972463e-06,
    7.126878817205723e-07,
    -7.093954998582192e-08,
)

# (erf(x) - x) / x as a polynomial of x^2 for |x| <= 0.86 (f32), 0.875 (f64); errors 2^-26.9 and 2^-55.3.
_ERF_F32 = (0.12837917, -0.37612584, 0.112827756, -0.026803162, 0.0050502755, -0.0006302815)
_ERF_F64 = (
    0.12837916709551256,
    -0.37612638903183077,
    0.11283791670918122,
    -0.026866170637468916,
    0.0052239775447304425,
    -0.0008548322073955549,
    0.00012055143630557289,
    -1.4920984587488157e-05,
    1.638781041748565e-06,
    -1.562175681428452e-07,
    1.0462937341808114e-08,
)

# 3 + log2(1 - erf(1 + t)) for -0.16 <= t <= 2.95 (f32), -0.13 <= t <= 4.95 (f64); errors 2^-28.7 and 2^-57.4, as seen
# in erf.
_LOG2_ERFC_F32 = (0.3315833, -3.8072255, -1.2163445, -0.05995456, 0.014415641, -0.0027447569, 0.00029674693)
_LOG2_ERFC_F64 = (
    0.3315833032184004,
    -3.8072253458536096,
    -1.216346657685889,
    -0.05995999004535594,
    0.014475750194758566,
    -0.0028535108930049812,
    0.0003423872438281299,
    3.7900179614792596e-05,
    -3.9157590053371585e-05,
    1.38220584431313e-05,
    -2.922831176147512e-06,
    1.6295008415189966e-07,
    1.689722822596059e-07,
    -8.8655007788625e-08,
    2.62399823799802e-08,
    -5.288041213902756e-09,
    7.192451687005539e-10,
    -5.978253281060912e-11,
    2.2931296214919045e-12,
)

# (2^r - 1) / r for |r| <= 1/2; errors 2^-27.5 and 2^-59.7, relative to 2^r.
_EXP2_F32 = (0.69314724, 0.24022655, 0.055502728, 0.009617065, 0.0013417745, 0.00015823935)
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


def exp(b: Builder, x: Var) -> Expr:
    """e^x = 2^n e^r with n = round(x / ln 2), so |r| <= ln(2)/2.

    r is kept in two parts, of which the upper one is exact: its own rounding would cost up to 0.2 ULP.
    """
    ln2_high, ln2_low = _LN2_F64 if b.wide else _LN2_F32
    # Outside these bounds the result is 0 or infinite in any case, and n stays in the range that the scaling covers.
    least, most, tiny = (-746.0, 710.0, -707.0) if b.wide else (-104.0, 89.0, -86.0)
    z = b.let(b.at_least(b.at_most(x, most), least), "z")
    shifted = b.let(b.mad(z, b.const(_LOG2_E), b.format.magic), "shifted")
    n = b.let(shifted - b.format.magic, "n")
    high = b.let(b.mad(n, b.const(-ln2_high), z), "high")
    low = b.let(n * -ln2_low, "low")
    r = b.let(high + low, "r")
    r2 = b.let(r * r, "r2")
    q = b.polynomial(r, r2, _EXP_F64) if b.wide else b.horner(r, _EXP_F32)
    p = 1.0 + (high + b.mad(r2, q, low))
    return scale_by_power(b, p, shifted, compare("lt", z, tiny))


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


def log(b: Builder, x: Var) -> Expr:
    """log(x) = k ln 2 + log(1 + f) with x = 2^k (1 + f) and sqrt(1/2) <= 1 + f < sqrt(2)."""
    ln2_high, ln2_low = _LN2_F64 if b.wide else _LN2_F32
    shift = b.format.digits - 1
    subnormal = b.let(compare("lt", x, b.format.smallest_normal), "subnormal")
    sqrt_half = b.integer(0x3FE6A09E667F3BCD if b.wide else 0x3F3504F3)
    y = select(subnormal, x * 2.0**b.format.digits, x)
    u = b.let(b.bits(y) - sqrt_half, "u")
    k = b.let(exponent_of(b, u >> shift, subnormal), "k")
    f = b.let(b.from_bits((u & ((1 << shift) - 1)) + sqrt_half) - 1.0, "f")
    f2 = b.let(f * f, "f2")
    p = b.polynomial(f, f2, _LOG_F64) if b.wide else b.horner(f, _LOG_F32)
    # k * ln2_high is exact and either 0 or larger than f.
    total, error = fast_two_sum(b, k * ln2_high, f)
    small = b.mad(f2, b.mad(f, p, -0.5), b.mad(k, b.const(ln2_low), error))
    finite = select(compare("lt", x, math.inf), total + small, x)
    special = select(eq(x, 0.0), b.const(-math.inf), b.const(math.nan))
    return select(compare("gt", x, 0.0), finite, special)


def exponent_of(b: Builder, e: Expr, subnormal: Expr) -> Expr:
    """Return integer `e` as a float, less the scaling of a subnormal argument."""
    digits = float(b.format.digits)
    if not b.wide:
        return cast(e, b.of.dtype) - select(subnormal, b.const(digits), b.const(0.0))
    # AVX2 has no conversion of 64-bit integers: put them into the low bits of a float instead.
    magic = b.format.magic
    biased = b.from_bits(e + b.bits(b.const(magic)))
    return biased - select(subnormal, b.const(magic + digits), b.const(magic))


def tanh(b: Builder, x: Var) -> Expr:
    """An odd polynomial up to 0.975; 1 - 2 / (e^2a + 1) above, where a = |x|.

    With e^2a = 2^n (1 + 2h) the denominator halved is 2^n h + (2^n + 1)/2: rounded once, since the second summand is
    exact. The quotient is below 1/4 from 0.973 on, which keeps its errors under half an ULP of the result.
    """
    ln2_high, ln2_low = _LN2_F64 if b.wide else _LN2_F32
    a = b.let(absolute(x), "a")
    z = b.let(b.at_most(a, 20.0 if b.wide else 10.0), "z")
    shifted = b.let(b.mad(z, b.const(2.0 * _LOG2_E), b.format.magic), "shifted")
    n = b.let(shifted - b.format.magic, "n")
    r = b.let(b.mad(n, b.const(-0.5 * ln2_low), b.mad(n, b.const(-0.5 * ln2_high), z)), "r")
    r2 = b.let(r * r, "r2")
    # e^(2r) = 1 + 2h: the coefficients of e^r scaled by powers of two.
    scaled = [c * 2.0 ** (i + 1) for i, c in enumerate(_EXP_F64 if b.wide else _EXP_F32)]
    h = b.mad(r2, b.polynomial(r, r2, scaled) if b.wide else b.horner(r, scaled), r)
    shift = b.format.digits - 1
    power = b.let(b.from_bits((b.bits(shifted) << shift) + b.bits(b.const(1.0))), "power")
    large = 1.0 - 1.0 / b.mad(power, h, b.mad(power, b.const(0.5), 0.5))
    a2 = b.let(a * a, "a2")
    p = b.polynomial(a2, b.let(a2 * a2, "a4"), _TANH_F64) if b.wide else b.horner(a2, _TANH_F32)
    small = b.mad(a * a2, p, a)
    return b.copy_sign(select(compare("lt", a, 0.975), small, large), x)


def erf(b: Builder, x: Var) -> Expr:
    """An odd polynomial up to 0.86 (f64: 0.875); 1 - 2^(g(t) - 3) above, with t = |x| - 1.

    g is a polynomial for 3 + log2(1 - erf): around the 3 the logarithm is small where the result is most sensitive
    to its rounding. The 3 itself is subtracted from the exponent.
    """
    a = b.let(absolute(x), "a")
    t = b.let(b.at_most(a, 5.9375 if b.wide else 3.9375) - 1.0, "t")
    g = b.polynomial(t, b.let(t * t, "t2"), _LOG2_ERFC_F64) if b.wide else b.horner(t, _LOG2_ERFC_F32)
    g = b.let(g, "g")
    shifted = b.let(g + b.format.magic, "shifted")
    r = b.let(g - (shifted - b.format.magic), "r")
    power = b.let(b.from_bits((b.bits(shifted) << (b.format.digits - 1)) + b.bits(b.const(0.125))), "power")
    q = b.polynomial(r, b.let(r * r, "r2"), EXP2_F64) if b.wide else b.horner(r, _EXP2_F32)
    # 1 - 2^n (1 + r q): the difference 1 - 2^n is exact, or 2^n does not matter.
    large = (1.0 - power) - power * (r * q)
    a2 = b.let(a * a, "a2")
    p = b.polynomial(a2, b.let(a2 * a2, "a4"), _ERF_F64) if b.wide else b.horner(a2, _ERF_F32)
    small = b.mad(a, p, a)
    return b.copy_sign(select(compare("lt", a, 0.875 if b.wide else 0.86), small, large), x)
