"""Equality to the last bit, for results that must not differ in any."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def same_bits(a: Array, b: Array) -> bool:
    """Tell whether two arrays have one dtype, one shape and the same bits; any NaN equals any NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    word = np.dtype(f"i{a.dtype.itemsize}")
    equal = np.ascontiguousarray(a).reshape(-1).view(word) == np.ascontiguousarray(b).reshape(-1).view(word)
    return bool(np.all(equal | (np.isnan(a.reshape(-1)) & np.isnan(b.reshape(-1)))))
