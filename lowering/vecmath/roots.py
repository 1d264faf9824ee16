"""cbrt, rsqrt and hypot, as expressions."""

from __future__ import annotations

import math

from jitflow.dtypes import float64
from jitflow.expr import Expr, Var, cast, compare, eq, select
from lowering.vecmath.builder import Builder, absolute, square_root

# ((1-r)^(-2/3) - 1) / r for |r| <= 0.112, error 2^-29.2 relative to (1-r)^(-2/3).
_CBRT_F32 = (0.66666675, 0.55555564, 0.49377558, 0.4526238, 0.43083516, 0.40711084)

# ((1-r)^(-1/3) - 1) / r for |r| <= 0.104, error 2^-18.3 relative to (1-r)^(-1/3); and the first terms of the series of
# ((1-r)^(-2/3) - 1) / r, enough for |r| <= 2^-14.
_CBRT_STEP_F64 = (0.3333295813087622, 0.22355619514638336, 0.17445360964855755)
_CBRT_F64 = (2 / 3, 5 / 9, 40 / 81)

# A third of the bits of a number subtracted from these are nearly those of the inverse of its cube root, such that the
# largest errors on either side are the same.
_GUESS_F32, _GUESS_F64 = 0x54A18000, 0x553EEAAAAAAAAC00


def cbrt(b: Builder, x: Var) -> Expr:
    """cbrt(a) = a z^2 (1 - r)^(-2/3) with z near 1 / cbrt(a) and r = 1 - a z^3: no division.

    z has so few bits that its powers are exact.
    """
    a = b.let(absolute(x), "a")
    # Inside these bounds z^3 is no subnormal number, and an emulated Fma does not overflow.
    least, most, third = (2.0**-960, 2.0**960, 2.0**100) if b.wide else (b.format.smallest_normal, 2.0**120, 2.0**8)
    common = b.let(compare("ge", a, least) & compare("lt", a, most), "common")
    small = b.let(compare("lt", a, 1.0), "small")
    scaled = b.register(a, "scaled")
    with b.unless(common):
        factor = select(small, b.const(third**3), b.const(third**-3))
        b.store(scaled, select(common, a, a * factor))
    a = b.load(scaled, "a")
    z = _inverse_cube_root_f64(b, a) if b.wide else _inverse_cube_root_f32(b, a)
    z2 = b.let(z * z, "z2")
    r = b.let(b.fma(-(z2 * z), a, 1.0), "r")
    t = b.let(a * z2, "t")
    lost = b.fma(a, z2, -t)
    p = b.horner(r, _CBRT_F64 if b.wide else _CBRT_F32)
    value = b.let(t + b.mad(t * r, p, lost), "value")
    result = b.register(b.from_bits(b.bits(value) | (b.bits(x) & b.sign_bit())), "result")
    with b.unless(common):
        back = select(small, b.const(1 / third), b.const(third))
        usual = b.value_of(result) * select(common, b.const(1.0), back)
        # Zero, the infinities and NaN are their own roots.
        b.store(result, select(compare("lt", absolute(x), math.inf) & compare("ne", x, 0.0), usual, x))
    return b.load(result, "result")


def _inverse_cube_root_f32(b: Builder, a: Var) -> Var:
    """Return 1 / cbrt(a) to 4% and 8 bits: minus a third of the bits of a float is minus a third of its logarithm."""
    # Shifted to the left again, only the upper half of the difference is left.
    third = b.mad(-1 / 3 / 65536.0, cast(b.bits(a), b.of.dtype), b.format.magic + _GUESS_F32 / 65536.0)
    return b.let(b.from_bits(b.bits(third) << 16), "z")


def _inverse_cube_root_f64(b: Builder, a: Var) -> Var:
    """Return 1 / cbrt(a) to 2^-16 and 17 bits: as for f32, and one step."""
    magic = b.format.magic
    # The upper half of the bits as a float, as in `as_float`, but without the subtraction.
    upper = b.from_bits((b.bits(a) >> 32) + b.bits(b.const(magic)))
    third = b.mad(-1 / 3, upper, magic + magic / 3 + _GUESS_F64 / 2.0**32)
    z = b.let(b.from_bits(b.bits(third) << 32), "z")
    z2 = b.let(z * z, "z2")
    r = b.let(1.0 - (a * z) * z2, "r")
    step = b.mad(z * r, b.horner(r, _CBRT_STEP_F64), z)
    return b.let(b.from_bits(b.bits(step) & (-1 << 36)), "z")


def rsqrt(b: Builder, x: Var) -> Expr:
    """1 / sqrt(x), corrected by what y = 1 / sqrt(x), rounded twice, leaves of 1 - x y^2."""
    y = b.let(1.0 / b.let(square_root(x), "root"), "y")
    if b.wide and not b.has_fma:
        # The emulated Fma would overflow; without the correction the error is up to 1.5 ULP.
        return y
    t = b.let(x * y, "t")
    lost = b.let(b.fma(x, y, -t), "lost")
    left = b.mad(-y, lost, b.fma(-y, t, 1.0))
    inside = compare("gt", x, 0.0) & compare("lt", x, math.inf)
    return select(inside, b.mad(y * 0.5, left, y), y)


def hypot(b: Builder, x: Var, y: Var) -> Expr:
    """sqrt(x^2 + y^2): of f32 in f64, which the squares do not leave; of f64 scaled where they would."""
    a, c = b.let(absolute(x), "a"), b.let(absolute(y), "c")
    infinite = eq(a, math.inf) | eq(c, math.inf)
    value = _hypot_f64(b, a, c) if b.wide else _hypot_f32(b, a, c)
    return select(infinite, b.const(math.inf), value)


def _hypot_f32(b: Builder, a: Var, c: Var) -> Expr:
    p, q = b.let(cast(a, float64), "p"), b.let(cast(c, float64), "q")
    return cast(square_root(b.mad(p, p, q * q)), b.of.dtype)


def _hypot_f64(b: Builder, a: Var, c: Var) -> Expr:
    swap = b.let(compare("gt", a, c), "swap")
    high, low = b.let(select(swap, a, c), "high"), b.let(select(swap, c, a), "low")
    common = b.let(compare("gt", high, 2.0**-450) & compare("lt", high, 2.0**500), "common")
    p, q = b.register(high, "p"), b.register(low, "q")
    small = b.let(compare("lt", high, 1.0), "small")
    with b.unless(common):
        factor = b.let(select(common, b.const(1.0), select(small, b.const(2.0**600), b.const(2.0**-600))), "factor")
        b.store(p, high * factor)
        b.store(q, low * factor)
    high, low = b.load(p, "high"), b.load(q, "low")
    root = b.register(square_root(b.mad(high, high, low * low)), "root")
    with b.unless(common):
        back = select(common, b.const(1.0), select(small, b.const(2.0**-600), b.const(2.0**600)))
        b.store(root, b.value_of(root) * back)
    return b.load(root, "root")
