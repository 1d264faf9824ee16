"""The arithmetic of `jitflow.expr` on Python and numpy values, exactly: what the loop interpreter computes with.

A scalar integer or index is a Python int inside its range, a bool a Python bool, a float a numpy scalar of its dtype;
a vector is a numpy array of its lanes (an index has dtype int64). Callers silence numpy's floating point warnings.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import DType, numpy_dtype
from jitflow.expr import round_to

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: Factors and addend for which the f64 Fma below neither overflows nor loses bits of its error terms.
_SAFE_FACTOR, _SAFE_ADDEND = 2.0**300, 2.0**700


def np_dtype(dtype: DType) -> np.dtype[Any]:
    """Return the numpy dtype that holds `dtype` while it is interpreted."""
    if dtype.kind == "x":
        return np.dtype(np.int64)
    return numpy_dtype(dtype)


def floordiv(a: int, b: int) -> int:
    """Return ``a // b``, or 0 when `b` is 0; not yet wrapped."""
    return a // b if b else 0


def mod(a: int, b: int) -> int:
    """Return ``a % b``, or 0 when `b` is 0."""
    return a % b if b else 0


def floordiv_lanes(a: Array, b: Array) -> Array:
    """Return ``a // b`` lane by lane, 0 where `b` is 0."""
    q: Array = np.floor_divide(a, np.where(b == 0, b.dtype.type(1), b))
    return np.where(b == 0, q.dtype.type(0), q)


def mod_lanes(a: Array, b: Array) -> Array:
    """Return ``a % b`` lane by lane, 0 where `b` is 0."""
    return np.where(b == 0, a.dtype.type(0), np.remainder(a, np.where(b == 0, b.dtype.type(1), b)))


def shl(a: int, n: int, bits: int) -> int:
    """Return ``a << n``, 0 for a count outside 0 .. bits - 1; not yet wrapped."""
    return a << n if 0 <= n < bits else 0


def shr(a: int, n: int, bits: int) -> int:
    """Return ``a >> n``; a count outside 0 .. bits - 1 leaves only copies of the sign bit."""
    return a >> n if 0 <= n < bits else a >> bits


def shl_lanes(a: Array, n: Array, bits: int) -> Array:
    """Shift left lane by lane; see `shl`."""
    inside = (n >= 0) & (n < bits)
    return np.where(inside, a << np.where(inside, n, n.dtype.type(0)), a.dtype.type(0))


def shr_lanes(a: Array, n: Array, bits: int) -> Array:
    """Shift right lane by lane; see `shr`."""
    inside = (n >= 0) & (n < bits)
    sign = np.where(a < 0, ~a.dtype.type(0), a.dtype.type(0))
    return np.where(inside, a >> np.where(inside, n, n.dtype.type(0)), sign)


def fmin(a: Any, b: Any) -> Any:
    """Return the lesser float, NaN if either is, the first of two equal ones."""
    return a if a != a else b if b != b or b < a else a


def fmax(a: Any, b: Any) -> Any:
    """Return the greater float, NaN if either is, the first of two equal ones."""
    return a if a != a else b if b != b or b > a else a


def fmin_lanes(a: Array, b: Array) -> Array:
    """Return `fmin` lane by lane."""
    return np.where(np.isnan(a), a, np.where(np.isnan(b) | (b < a), b, a))


def fmax_lanes(a: Array, b: Array) -> Array:
    """Return `fmax` lane by lane."""
    return np.where(np.isnan(a), a, np.where(np.isnan(b) | (b > a), b, a))


def saturate(x: Any, low: int, high: int) -> int:
    """Return float `x` truncated to an integer between `low` and `high`; NaN gives 0."""
    v = float(x)
    if v != v:
        return 0
    return low if v <= low else high if v >= high else int(v)


def saturate_lanes(x: Array, to: DType) -> Array:
    """Return floats truncated and saturated to the integers of `to`; NaN gives 0."""
    wide = x.astype(np.float64)
    low, high = wide <= to.min, wide >= to.max
    out = np.where(low | high | np.isnan(wide), 0.0, wide).astype(np_dtype(to))
    out[low], out[high] = to.min, to.max
    return out


def from_int(x: int, to: DType) -> Any:
    """Return integer `x` as a float of `to`, rounded once (through a Python float it would be rounded twice)."""
    if to.is_half:
        # Beyond 53 bits some last ones go, leaving only the fact that there were any: Python's float then is exact.
        return np_dtype(to).type(round_to(float(x if abs(x) < 1 << 53 else (x >> 12 | (x & 4095 > 0)) << 12), to))
    return (np.int64(x) if x < 1 << 63 else np.uint64(x)).astype(np_dtype(to))


def to_float(x: Any, to: DType) -> Any:
    """Return bool or float `x` as a float of `to`."""
    return np_dtype(to).type(round_to(float(x), to) if to.is_half else x)


def to_float_lanes(x: Array, to: DType) -> Array:
    """Return the lanes of `x` as floats of `to`."""
    if not to.is_half:
        return x.astype(np_dtype(to))
    one = from_int if x.dtype.kind in "iu" else to_float
    return np.array([one(v, to) for v in x.tolist()], np_dtype(to))


def bitcast(x: Any, of: np.dtype[Any], to: np.dtype[Any]) -> Any:
    """Return the bits of scalar `x` of dtype `of` as a value of dtype `to`."""
    out = np.array(x, of).view(to)[()]
    return out.item() if to.kind in "biu" else out


def fma(a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` rounded once, for two numpy scalars or arrays of one float dtype."""
    if isinstance(c, np.ndarray):
        return _fma64_lanes(a, b, c) if c.dtype == np.float64 else _fma_small_lanes(a, b, c)
    if c.dtype == np.float64:
        return np.float64(_fma64(float(a), float(b), float(c)))
    return c.dtype.type(_odd_sum(float(a) * float(b), float(c)))


def _odd_sum(x: float, y: float) -> float:
    """Return ``x + y`` rounded to odd: rounding this again to at most 51 bits gives the sum rounded once."""
    s: float
    s, error = _sum(x, y)
    if not math.isfinite(s) or error == 0.0 or struct.unpack("<q", struct.pack("<d", s))[0] & 1:
        return s
    return math.nextafter(s, math.inf if error > 0 else -math.inf)


def _odd_sum_lanes(x: Array, y: Array) -> Array:
    s: Array
    s, error = _sum(x, y)
    even = (s.view(np.int64) & 1) == 0
    return np.where(np.isfinite(s) & (error != 0) & even, np.nextafter(s, np.where(error > 0, np.inf, -np.inf)), s)


def _fma_small_lanes(a: Array, b: Array, c: Array) -> Array:
    """Fma of f16 or f32: their products are exact in f64."""
    wide = _odd_sum_lanes(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
    return wide.astype(c.dtype)


def _fma64(a: float, b: float, c: float) -> float:
    """Fma of f64."""
    if _is_safe(abs(a), abs(b), abs(c)):
        return float(_emulated_fma(a, b, c, _odd_sum))
    if math.isfinite(a) and math.isfinite(b) and not math.isfinite(c):
        return c
    if a == 0.0 or b == 0.0 or not (math.isfinite(a) and math.isfinite(b)):
        return a * b + c
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        # The product is not zero, so this is x - x, which is +0 when rounding to nearest.
        return 0.0
    try:
        return total.numerator / total.denominator
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def _fma64_lanes(a: Array, b: Array, c: Array) -> Array:
    """Fma of f64 lanes; those with extreme exponents one by one."""
    out = np.asarray(_emulated_fma(a, b, c, _odd_sum_lanes))
    for i in np.flatnonzero(~_is_safe(abs(a), abs(b), abs(c))):
        out[i] = _fma64(float(a[i]), float(b[i]), float(c[i]))
    return out


def _is_safe(a: Any, b: Any, c: Any) -> Any:
    low, high = 1 / _SAFE_FACTOR, _SAFE_FACTOR
    return (low < a) & (a < high) & (low < b) & (b < high) & (c > 1 / _SAFE_ADDEND) & (c < _SAFE_ADDEND)


def _emulated_fma(a: Any, b: Any, c: Any, odd_sum: Callable[[Any, Any], Any]) -> Any:
    """Return the Fma of floats or arrays (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums")."""
    high, low = _product(a, b)
    t, t_low = _sum(c, low)
    v, v_low = _sum(high, t)
    return v + odd_sum(t_low, v_low)


def _sum(x: Any, y: Any) -> tuple[Any, Any]:
    """Return ``x + y`` as a rounded value and its exact error (Knuth)."""
    s = x + y
    t = s - x
    return s, (x - (s - t)) + (y - t)


def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """Return ``a * b`` as a rounded value and its exact error (Dekker and Veltkamp)."""
    split = 134217729.0  # 2**27 + 1
    p = a * b
    ta, tb = split * a, split * b
    a_high, b_high = ta - (ta - a), tb - (tb - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low
