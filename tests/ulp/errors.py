"""Computed values and exact ones into errors in units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import mpmath
import numpy as np

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

#: Bits of mpmath's arithmetic: enough for the nearest f64 and what is left of the exact value after it.
_PRECISION = 140


class Exact(NamedTuple):
    """Reference values ``(high + low) * 2**exponent`` with 1/2 <= |high| <= 1, or high in 0, inf, nan."""

    high: Array
    low: Array
    exponent: Array


def exact_values(f: Callable[..., Any], *xs: Array) -> Exact:
    """Return mpmath's values of function `f`."""
    high, low, exponent = np.empty(xs[0].size), np.zeros(xs[0].size), np.zeros(xs[0].size, np.int64)
    with mpmath.workprec(_PRECISION):
        for i, point in enumerate(zip(*(x.ravel().tolist() for x in xs), strict=True)):
            fraction, exponent[i] = mpmath.frexp(f(*(mpmath.mpf(v) for v in point)))
            high[i] = float(fraction)
            low[i] = float(fraction - mpmath.mpf(high[i]))
    return Exact(high, low, exponent)


def from_f64(value: Array) -> Exact:
    """Return f64 values as reference for f32."""
    high, exponent = np.frexp(value)
    return Exact(high, np.zeros_like(high), exponent.astype(np.int64))


def errors(got: Array, value: Exact, scale: Array | None = None) -> Array:
    """Return the distance from the exact values in units of their last place, infinite where the kind differs.

    An infinite result counts as the first power of two that is too large, since this is where it is rounded to. With
    `scale` the units are those of these numbers where they are larger.
    """
    digits, least, beyond = (24, -149, 128) if got.dtype == np.float32 else (53, -1074, 1024)
    high, low, exponent = value
    with np.errstate(all="ignore"):
        size = exponent if scale is None else np.maximum(exponent, np.frexp(scale)[1])
        unit = np.ldexp(1.0, np.clip(np.maximum(size - digits, least) - exponent, -digits, 1000))
        fraction, power = np.frexp(np.where(np.isinf(got), np.sign(got), got.astype(np.float64)))
        power = np.where(np.isinf(got), beyond + 1, power)
        scaled = np.ldexp(fraction, np.clip(power - exponent, -1000, 1000))
        error = abs((scaled - high) - low) / unit
        is_right = (got == high) | (np.isnan(got) & np.isnan(high))
        overflow = np.isinf(got) & (np.sign(got) == np.sign(high)) & (exponent > beyond)
    special = ~np.isfinite(high) | (high == 0)
    error = np.where(special, np.where(is_right, 0.0, np.inf), np.where(overflow, 0.0, error))
    return np.where(np.isnan(error), np.inf, error)
