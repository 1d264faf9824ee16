"""Arrays of numbers into arrays of float16 or bfloat16, each number rounded once.

numpy and ml_dtypes convert some types by way of float32 and so round twice. Here the first rounding is *to odd*: an
inexact result gets its last bit set, which tells the second rounding on which side of a tie the number was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def nearest_half(x: Array, of: np.dtype[Any]) -> Array:
    """Return the bools, integers or floats of `x` as the nearest numbers of the 16-bit dtype `of`, ties to even."""
    with np.errstate(all="ignore"):
        wide = _in_double(x)
        single = wide.astype(np.float32)
        bits = single.view(np.int32)
        inexact = np.isfinite(single) & (single != wide)
        too_large = np.abs(single.astype(np.float64)) > np.abs(wide)
        odd = np.where(inexact & ((bits & 1) == 0), np.where(too_large, bits - 1, bits + 1), bits)
        return np.asarray(odd.astype(np.int32).view(np.float32).astype(of))


def _in_double(x: Array) -> Array:
    """Return `x` as float64; integers beyond 32 bits as odd multiples of 2**16 if they are no multiples of it."""
    if x.dtype.kind not in "iu" or x.dtype.itemsize < 8:
        return x.astype(np.float64)
    step = 1 << 16
    high = x // step
    return np.where(np.abs(x) < 1 << 32, x, (high | (high * step != x)) * np.float64(step))
