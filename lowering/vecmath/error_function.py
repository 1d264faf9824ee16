"""erf, as expressions.

The polynomials are minimax fits as in `lowering.vecmath.exponential`.
"""

from __future__ import annotations

from jitflow.expr import Expr, Var, compare, eq, select
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

# erf on 16 intervals of [0, 3.936), a line for each. First come a centre c where erf is, to within 2^-14 ULP, a float,
# and this float; then the coefficients of q in erf(c + t) = erf(c) + t q(t). In the first interval c is 0, and q is
# that of (erf(t) - t) / t. Fits at Chebyshev's points; errors below 2^-29.
_INTERVALS = """
    0.0  0.0  0.12837917  -8.053869e-07  -0.37608814  -0.0006652624  0.11808814  -0.01923078
    0.3775914  0.40665492  0.9784427  -0.36945155  -0.23314576  0.16716094  0.044579703  -0.049617767
    0.6136724  0.6145311  0.7742879  -0.47515908  -0.063703015  0.1779292  -0.024263993  -0.042130433
    0.8671719  0.7799391  0.5319505  -0.46129254  0.08936076  0.115028344  -0.06628877  -0.012121928
    1.1039996  0.88154495  0.33352652  -0.36821315  0.1598279  0.034510307  -0.0629486  0.014082077
    1.3434123  0.94255006  0.18563473  -0.24938399  0.16147213  -0.025332492  -0.03483468  0.02220433
    1.5982633  0.97619647  0.087714925  -0.14019154  0.1201378  -0.049274184  -0.0046766545  0.015507057
    1.8367432  0.9906108  0.03866411  -0.07101606  0.07407144  -0.04434882  0.010248039  0.0052536377
    2.0936754  0.9969326  0.014084303  -0.029487956  0.036464334  -0.02834346  0.012745999  -0.0012978582
    2.3352833  0.99904203  0.004830691  -0.011281032  0.015952718  -0.014866833  0.009099317  -0.0031020758
    2.574112  0.9997277  0.0014955369  -0.0038496777  0.0061077466  -0.0065784277  0.004954619  -0.0024474387
    2.824489  0.99993515  0.00038705012  -0.001093218  0.0019294319  -0.0023607407  0.0021011573  -0.0013240728
    3.0728219  0.9999861  8.9483925e-05  -0.00027496793  0.0005334162  -0.0007279914  0.0007419054  -0.0005575733
    3.3127012  0.9999972  1.9342488e-05  -6.407558e-05  0.00013504588  -0.00020243564  0.00023050702  -0.00019263373
    3.5605698  0.9999995  3.5206199e-06  -1.2535335e-05  2.8576462e-05  -4.6725225e-05  5.8913585e-05  -5.5358363e-05
    3.8228397  0.99999994  5.077284e-07  -1.9409913e-06  4.776103e-06  -8.473096e-06  1.1776439e-05  -1.3315966e-05
"""
_PER_UNIT = 4.0650406  # 16 / 3.936
_CENTRES, _STARTS, *_STEPS = zip(*(map(float, line.split()) for line in _INTERVALS.strip().splitlines()), strict=True)


def erf(b: Builder, x: Var) -> Expr:
    """f32 by tables, if there are fused multiply-adds; else by an odd polynomial and an exponential."""
    return _by_tables(b, x) if b.has_fma and not b.wide else _by_exponential(b, x)


def _by_tables(b: Builder, x: Var) -> Expr:
    """A polynomial of the interval's own: two thirds of the operations of the other way."""
    a = b.let(b.at_most(absolute(x), 3.93), "a")
    shifted = b.let(b.fma(_PER_UNIT, a, -0.5) + b.format.magic, "shifted")
    i = b.let(b.bits(shifted), "i")
    t = b.let(a - b.lookup(_CENTRES, i), "t")
    q = b.lookup(_STEPS[-1], i)
    for coefficients in reversed(_STEPS[:-1]):
        q = b.fma(q, t, b.lookup(coefficients, i))
    start = select(eq(shifted, b.format.magic), a, b.lookup(_STARTS, i))
    return b.copy_sign(b.fma(q, t, start), x)


def _by_exponential(b: Builder, x: Var) -> Expr:
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
