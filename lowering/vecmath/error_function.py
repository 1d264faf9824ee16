"""erf, as expressions.

The polynomials are minimax fits as in `lowering.vecmath.exponential`.
"""

from __future__ import annotations

from jitflow.expr import Expr, Var, compare, select
from lowering.vecmath.builder import Builder, absolute
from lowering.vecmath.exponential import EXP2_F32, EXP2_F64

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
    q = b.polynomial(r, b.let(r * r, "r2"), EXP2_F64) if b.wide else b.horner(r, EXP2_F32)
    # 1 - 2^n (1 + r q): the difference 1 - 2^n is exact, or 2^n does not matter.
    large = (1.0 - power) - power * (r * q)
    a2 = b.let(a * a, "a2")
    p = b.polynomial(a2, b.let(a2 * a2, "a4"), _ERF_F64) if b.wide else b.horner(a2, _ERF_F32)
    small = b.mad(a, p, a)
    return b.copy_sign(select(compare("lt", a, 0.875 if b.wide else 0.86), small, large), x)
