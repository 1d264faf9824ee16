"""sin, cos and tan, as expressions; right for arguments of every size.

x is reduced to r = x - q*pi (sin and cos of f32) or x - q*pi/2, with q*pi subtracted in parts (Cody and Waite). That
is exact enough up to a bound that few arguments ever reach. Beyond it x is multiplied by so many bits of 1/pi that
whole periods can be forgotten piece by piece (Payne and Hanek); this stands behind one test for the whole vector, since
a choice lane by lane would make every call pay for it.
"""

from __future__ import annotations

import math

from jitflow.dtypes import float32, float64
from jitflow.expr import Expr, Var, cast, compare, eq, lift, maximum, select
from lowering.vecmath.builder import F64, Builder, absolute, any_lane, rounded, two_product, two_sum

# pi and pi/2 in parts: nearest f64 first; in _PI_EXACT, for targets without fused multiply-add, two parts of 28 bits,
# whose products with a q of 25 bits are exact. The middle part of _HALF_PI has 33 bits, for a q of 20. No part is
# negative, so that -0.0 - part * 0.0 stays -0.0.
_PI = (3.141592653589793, 1.2246467991473532e-16)
_PI_EXACT = (3.141592651605606, 1.9841871479187034e-09, 1.1442377452219664e-17)
_HALF_PI = (1.5707963267948966, 6.12323399538461e-17, 3.5215598651832e-27)
_HALF_PI_REST = 6.123233995736766e-17

# sin(r) / r as a polynomial of r^2 for |r| <= pi/2, in f64 for f32; error 2^-27.5.
_SIN_F32 = (
    0.999999994685535,
    -0.16666656683227848,
    0.00833302512021749,
    -0.00019807417328152798,
    2.601899877252019e-06,
)

# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4 as polynomials of r^2 for |r| <= pi/4; errors 2^-57.9 and 2^-63.9.
_SIN_F64 = (
    -0.1666666666666663,
    0.00833333333332184,
    -0.00019841269829358284,
    2.755731353834047e-06,
    -2.505073434950586e-08,
    1.5895430350583468e-10,
)
_COS_F64 = (
    0.041666666666666595,
    -0.0013888888888873342,
    2.480158728900206e-05,
    -2.7557314217025456e-07,
    2.0875705393145047e-09,
    -1.135874903688831e-11,
)

# pi/2 in three f32, of which the first two products with a q of 16 bits have no more than 48 bits.
_HALF_PI_F32 = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15)

# (tan(r) - r) / r^3 as a polynomial of r^2 for |r| <= 1.0035 * pi/4 (f32), pi/4 (f64); errors 2^-29.3 and 2^-60..
_TAN_F32 = (0.33333352, 0.13332576, 0.054070186, 0.021227673, 0.01098063, -9.8144315e-05, 0.0044707265)
_TAN_F64 = (
    0.33333333333333376,
    0.13333333333326083,
    0.053968253972534054,
    0.021869488408887854,
    0.008863237772924637,
    0.003592102404745582,
    0.0014560349046540669,
    0.0005889170002363923,
    0.00024356624878572723,
    8.40275695283268e-05,
    6.637440240679032e-05,
    -2.4567567831699813e-05,
    4.774951811074358e-05,
    -2.383626387282764e-05,
    9.701884362517757e-06,
)

# The bits of 1/pi, 24 at a time: for an f32 below 2^128, 64 bits after the point.
_BITS_OF_1_PI = (0x517CC1, 0xB72722, 0xA94FE, 0x13ABE8, 0xFA9A6E, 0xE06DB1, 0x4ACC9E, 0x21C820)

# The bits of 2/pi, 53 at a time. Of these any argument needs _WINDOW successive pieces: the products before them are
# multiples of 4, those after them too small to matter even where x is closest to a multiple of pi/2 (2^-61 away).
_BITS_OF_2_PI = (
    0x145F306DC9C882,
    0x14A7F09D5F47D4,
    0x1A6EE06DB14ACC,
    0x13C439041FE516,
    0x757BD778AC36E,
    0x91B8E909374B8,
    0x324977504E8C,
    0x121CFE1DEB1CB1,
    0x534E7DD1046BE,
    0x14BAED1213A671,
    0x18135A2FBF209C,
    0x191D639835339F,
    0x93908BF177BF2,
    0xA0EC7FE25FFF7,
    0x102CC07F79788C,
    0xB5A0A6D1F6D36,
    0xFD9E4F96136E9,
    0x1D18FD9A797FA8,
    0x16BA93DD63F5F2,
    0x1F17B3D0739F78,
    0x14A525D4D7F6BF,
    0xC47E357421580,
    0x198237E3DB5D5F,
)
_WINDOW = 5


def sin(b: Builder, x: Var) -> Expr:
    """The sine of x radians."""
    return _sine_f64(b, x, 0) if b.wide else _sine_f32(b, x, 0)


def cos(b: Builder, x: Var) -> Expr:
    """The cosine of x radians: a quarter turn is added to the quotient q, where it is exact."""
    return _sine_f64(b, x, 1) if b.wide else _sine_f32(b, x, 1)


def tan(b: Builder, x: Var) -> Expr:
    """The tangent of x radians."""
    return _tangent_f64(b, x) if b.wide else _tangent_f32(b, x)


def _sine_f32(b: Builder, x: Var, quarter: int) -> Expr:
    """sin(x + quarter*pi/2) = (-1)^j sin(r) with j = round(x/pi + quarter/2) and r = x - (j - quarter/2)*pi, in f64.

    Twice as many vectors as f32 would take, but the reduction is three operations instead of nine, one polynomial
    does instead of two, and the result is right to 0.6 ULP.
    """
    turn = 0.5 * quarter
    wide = b.let(cast(x, float64), "wide")
    quotient = b.mad(1 / math.pi, wide, turn) + F64.magic if quarter else b.mad(1 / math.pi, wide, F64.magic)
    shifted = b.let(quotient, "shifted")
    q = b.let(shifted - (F64.magic + turn) if not quarter else (shifted - F64.magic) - turn, "q")
    r: Expr = wide
    for part in _PI if b.has_fma else _PI_EXACT:
        r = b.mad(-part, q, r)
    last_r, last_j = b.register(r, "r"), b.register(shifted, "j")
    # Up to here j * pi is exact to 2^-69 (2^-78), far less than any f32 is away from a multiple of pi/2 (2^-31).
    huge = b.let(compare("ge", absolute(x), 2.0 ** (40 if b.has_fma else 25)), "huge")
    with b.when(any_lane(huge)):
        s, j = _turns(b, wide, turn)
        b.store(last_r, select(huge, s * math.pi, b.load(last_r, "r")))
        b.store(last_j, select(huge, j, b.load(last_j, "j")))
    r = b.load(last_r, "r")
    sine = r * b.horner(b.let(r * r, "r2"), _SIN_F32)
    return cast(b.from_bits(b.bits(sine) ^ (b.bits(b.load(last_j, "j")) << 63)), float32)


def _turns(b: Builder, wide: Var, turn: float) -> tuple[Expr, Expr]:
    """Return s and F64.magic + j with x/pi + turn = j + s modulo 2 and |s| <= 1/2, for a large f32 x, as f64."""
    s: Expr = lift(turn, wide)
    j: Expr = lift(F64.magic, wide)
    for k, bits in enumerate(_BITS_OF_1_PI):
        # A product of 48 bits, exact. Multiples of 2 leave no trace; neither does rounding: wherever a sum is too
        # long for 53 bits its integer part is settled.
        p = b.let(wide * (bits * 2.0 ** (-24 * (k + 1))), "p")
        total = b.let(s + b.mad(-2.0, rounded(p * 0.5), p), "total")
        whole = b.let(rounded(total), "whole")
        s, j = b.let(total - whole, "s"), b.let(j + whole, "j")
    return s, j


def _tangent_f32(b: Builder, x: Var) -> Expr:
    """tan(|x|) = tan(r + rest) or -1 / tan(r + rest), with |x| = q*pi/2 + r + rest."""
    a = b.let(absolute(x), "a")
    shifted = b.let(b.mad(2 / math.pi, a, b.format.magic), "shifted")
    q = b.let(shifted - b.format.magic, "q")
    # Exact: the difference is a multiple of 2^-23 and below 1.
    first = b.let(b.fma(-_HALF_PI_F32[0], q, a), "first")
    second, lost = two_product(b, q, b.const(_HALF_PI_F32[1]))
    near = b.let(first - second, "near")
    rest = ((first - near) - second) - b.mad(_HALF_PI_F32[2], q, lost)
    last_r, last_rest, last_q = b.register(near, "r"), b.register(rest, "rest"), b.register(b.bits(shifted), "q")
    huge = b.let(compare("ge", a, 2.0**16), "huge")
    with b.when(any_lane(huge)):
        s, _ = _turns(b, b.let(cast(a, float64), "wide"), 0.0)
        twice = b.let(s + s, "twice")
        whole = b.let(rounded(twice), "whole")
        wide_r = b.let((twice - whole) * (math.pi / 2), "wide_r")
        far = b.let(cast(wide_r, float32), "far")
        far_rest = cast(wide_r - cast(far, float64), float32)
        b.store(last_r, select(huge, far, b.load(last_r, "r")))
        b.store(last_rest, select(huge, far_rest, b.load(last_rest, "rest")))
        b.store(last_q, select(huge, cast(whole, b.integer(0).type.dtype), b.load(last_q, "q")))
    r, rest = b.load(last_r, "r"), b.load(last_rest, "rest")
    r2 = b.let(r * r, "r2")
    tangent = b.let(r + b.mad(r * r2, b.horner(r2, _TAN_F32), b.mad(rest, r2, rest)), "tangent")
    quadrant = b.load(last_q, "quadrant")
    value = select(eq(quadrant & 1, 0), tangent, 1.0 / tangent)
    return b.from_bits(b.bits(value) ^ (((quadrant << 31) ^ b.bits(x)) & b.sign_bit()))


def _sine_f64(b: Builder, x: Var, quarter: int) -> Expr:
    """sin(|x| + quarter*pi/2) from the sine or cosine of r + rest, with |x| = q*pi/2 + r + rest."""
    r, rest, q = _reduce(b, b.let(absolute(x), "a"))
    quadrant = b.let(b.bits(q) + quarter, "quadrant")
    r2 = b.let(r * r, "r2")
    r4 = b.let(r2 * r2, "r4")
    sine = r + b.mad(r * r2, b.polynomial(r2, r4, _SIN_F64), rest)
    half = b.let(r2 * 0.5, "half")
    near_one = b.let(1.0 - half, "near_one")
    lost = (1.0 - near_one) - half
    cosine = near_one + (b.mad(r4, b.polynomial(r2, r4, _COS_F64), lost) - r * rest)
    value = select(eq(quadrant & 1, 0), sine, cosine)
    sign = quadrant << 62 if quarter else (quadrant << 62) ^ b.bits(x)
    return b.from_bits(b.bits(value) ^ (sign & b.sign_bit()))


def _tangent_f64(b: Builder, x: Var) -> Expr:
    """tan(|x|) = tan(r + rest) or -1 / tan(r + rest), with |x| = q*pi/2 + r + rest."""
    r, rest, q = _reduce(b, b.let(absolute(x), "a"))
    r2 = b.let(r * r, "r2")
    p = b.polynomial(r2, b.let(r2 * r2, "r4"), _TAN_F64)
    # The derivative of the tangent is near enough to 1 + r^2 for the rest.
    tangent = b.let(r + b.mad(r * r2, p, b.mad(rest, r2, rest)), "tangent")
    quadrant = b.let(b.bits(q), "quadrant")
    value = select(eq(quadrant & 1, 0), tangent, 1.0 / tangent)
    return b.from_bits(b.bits(value) ^ (((quadrant << 63) ^ b.bits(x)) & b.sign_bit()))


def _reduce(b: Builder, a: Var) -> tuple[Var, Var, Var]:
    """Return r, rest and q + magic with a = q*pi/2 + r + rest and |r| <= pi/4, for any a >= 0, in f64."""
    shifted = b.let(b.mad(2 / math.pi, a, F64.magic), "shifted")
    q = b.let(shifted - F64.magic, "q")
    # Exact: the difference is a multiple of 2^-52 and below 1.
    first = b.let(b.fma(-_HALF_PI[0], q, a), "first")
    second = b.let(q * _HALF_PI[1], "second")
    near = b.let(first - second, "near")
    rest = b.mad(-_HALF_PI[2], q, (first - near) - second)
    last_r, last_rest, last_q = b.register(near, "r"), b.register(rest, "rest"), b.register(shifted, "q")
    huge = b.let(compare("ge", a, 2.0**20), "huge")
    with b.when(any_lane(huge)):
        far, far_rest, far_q = _reduce_huge(b, a)
        b.store(last_r, select(huge, far, b.load(last_r, "r")))
        b.store(last_rest, select(huge, far_rest, b.load(last_rest, "rest")))
        b.store(last_q, select(huge, far_q, b.load(last_q, "q")))
    return b.load(last_r, "r"), b.load(last_rest, "rest"), b.load(last_q, "q")


def _reduce_huge(b: Builder, a: Var) -> tuple[Expr, Expr, Expr]:
    """Return r, its rest, and q + magic with a = q*pi/2 + r + rest modulo 2*pi, for a >= 2^20."""
    exponent = b.bits(a) >> 52
    # The first piece that matters has number (exponent - 54) // 53; 1237 / 2^16 is close enough to 1/53.
    first = b.let((maximum(exponent - (1023 + 54), 0) * 1237) >> 16, "first")
    scaled = b.let(b.from_bits(b.bits(a) - ((first * 53) << 52)), "scaled")
    q: Expr = lift(F64.magic, a)
    s: Expr = lift(0.0, a)
    error: Expr = lift(0.0, a)
    for k, piece in enumerate(_window(b, first)):
        high, low = two_product(b, scaled, piece * 2.0 ** (-53 * (k + 1)))
        # From the third product on nothing exceeds 4, from the fourth on nothing reaches 2^-50.
        for term in (high, b.let(low, "low")) if k < _WINDOW - 1 else (high,):
            if k < 3:
                term = b.let(b.mad(-4.0, rounded(term * 0.25), term), "term")
            total, lost = two_sum(b, s, term)
            error = b.let(error + lost, "error")
            s = total
            if k < 3:
                whole = b.let(rounded(total), "whole")
                s, q = b.let(total - whole, "s"), b.let(q + whole, "q")
    total, lost = two_sum(b, s, error)
    r, rest = two_product(b, total, lift(_HALF_PI[0], a))
    rest = rest + b.mad(_HALF_PI_REST, total, lost * _HALF_PI[0])
    # An infinite argument has come through as a finite number.
    return select(compare("lt", a, math.inf), r, lift(math.nan, a)), rest, q


def _window(b: Builder, first: Var) -> list[Expr]:
    """Return pieces first, first + 1, ... of 2/pi: halving steps of a table of literals, lane by lane."""
    table: list[Expr] = [lift(float(c), b.const(0.0)) for c in _BITS_OF_2_PI]
    for step in (16, 8, 4, 2, 1):
        bit = b.let(eq(first & step, 0), "bit")
        # After this step `first` can still count up to step - 1.
        needed = min(len(table), step - 1 + _WINDOW)
        table = [
            b.let(select(bit, table[k], table[k + step]), "piece") if k + step < len(table) else table[k]
            for k in range(needed)
        ]
    return table
