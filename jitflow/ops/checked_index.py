"""Indices that are data into subscripts that are safe to use: what reads and writes at index tensors share.

Negative indices count from the end. Where one is outside its axis, the run fails and names the first.
"""

from __future__ import annotations

import numpy as np

from jitflow.dtypes import index as index_dtype
from jitflow.dtypes import int64, uint64
from jitflow.errors import DTypeError, IndexRangeError
from jitflow.expr import Expr, cast, const, minimum
from jitflow.ops.testdata import Array
from jitflow.types import TensorType

_LARGEST = int64.max


def check_indices(what: str, indices: TensorType) -> None:
    """Raise DTypeError unless `indices` are integers."""
    if not indices.dtype.is_integer:
        raise DTypeError(f"{what}: indices must be integers, got {indices.dtype}")


def as_subscript(raw: Expr) -> Expr:
    """Return integer `raw` as an index expression, which is still to be checked."""
    if raw.type.dtype is uint64:
        raw = minimum(raw, const(_LARGEST, raw.type))  # an index of 2**63 is none, and must not become negative
    return cast(raw, index_dtype)


def numpy_checked(what: str, axis: int, n: int, indices: Array) -> Array:
    """Return `indices` counted from the front; IndexRangeError names the first that is outside an axis of size `n`."""
    signed = np.minimum(indices, _LARGEST).astype(np.int64) if indices.dtype == np.uint64 else indices.astype(np.int64)
    wrapped = np.where(signed < 0, signed + n, signed)
    bad = (wrapped < 0) | (wrapped >= n)
    if bad.any():
        place = tuple(int(k) for k in np.unravel_index(int(np.argmax(bad)), bad.shape))
        where = f" at {place[0] if len(place) == 1 else place}" if place else ""
        raise IndexRangeError(f"{what}: index {indices[place]}{where} is out of range for axis {axis} of size {n}")
    return wrapped
