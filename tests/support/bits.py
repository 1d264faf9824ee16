"""Comparison of arrays by their bits, any NaN being as good as another."""

from __future__ import annotations

from typing import Any

import numpy as np

from jitflow.dtypes import as_dtype


def is_float(x: np.ndarray[Any, Any]) -> bool:
    """Tell whether `x` holds floats, bfloat16 among them (which numpy itself does not count as such)."""
    return as_dtype(x.dtype).is_float


def equal_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> Any:
    """Return where two arrays of one dtype and shape have the same bits."""
    if not is_float(a):
        return a == b
    word = np.dtype(f"i{a.dtype.itemsize}")
    x, y = np.ascontiguousarray(a), np.ascontiguousarray(b)
    # Looking at a signalling NaN of bfloat16 counts as an invalid operation.
    with np.errstate(invalid="ignore"):
        return ((x.view(word) == y.view(word)) | (np.isnan(x) & np.isnan(y))).reshape(a.shape)


def same_bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Tell whether two arrays are of one dtype and shape and equal to the last bit."""
    return bool(a.dtype == b.dtype and a.shape == b.shape and np.all(equal_bits(a, b)))
