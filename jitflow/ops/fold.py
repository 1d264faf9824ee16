"""The order in which reductions fold: fixed by dtype and axes, and computed here by numpy step by step.

`jitflow.expr.Reduce` states the order. Floating-point results depend on it, so it is part of a reduction's meaning;
compiled code keeps it whatever it fuses, and :func:`ordered_fold` is its independent statement for the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitflow.dtypes import DType
from jitflow.ops.testdata import Array
from jitflow.types import Shape

#: Four 512-bit registers of accumulators hide the latency of an add; narrower machines take several each.
FOLD_BYTES = 256


def reduce_lanes(dtype: DType, shape: Shape, axes: tuple[int, ...]) -> int:
    """Return the number of accumulators of a reduction over `axes` of `shape` that accumulates in `dtype`.

    One, unless the innermost axis is reduced: then neighbours in memory go to different accumulators. A short axis
    needs no more accumulators than elements; the ones left out would only add identities, which changes nothing.
    """
    if not axes or axes[-1] != len(shape) - 1:
        return 1
    most = FOLD_BYTES // dtype.itemsize
    n = shape[-1]
    return min(most, 1 << (max(n, 1) - 1).bit_length()) if isinstance(n, int) else most


def first_greatest(a: Array, b: Array) -> Array:
    """Return NaN where either is NaN, else the greater; of -0.0 and 0.0 the first."""
    return np.where((a >= b) | (a != a), a, b)


def first_least(a: Array, b: Array) -> Array:
    """Return NaN where either is NaN, else the lesser; of -0.0 and 0.0 the first."""
    return np.where((a <= b) | (a != a), a, b)


FOLDS: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": first_greatest,
    "min": first_least,
}


def identity_of(op: str, dtype: DType) -> int | float:
    """Return what `op` leaves every value of `dtype` unchanged with."""
    if op in ("add", "mul"):
        return int(op == "mul")
    if dtype.is_float:
        return float("-inf") if op == "max" else float("inf")
    return dtype.min if op == "max" else dtype.max


def ordered_fold(op: str, x: Array, axes: tuple[int, ...], dtype: DType) -> Array:
    """Return `x` (of `dtype`) folded over `axes` by `op`, in the order that `jitflow.expr.Reduce` states."""
    kept = tuple(k for k in range(x.ndim) if k not in axes)
    outer = tuple(x.shape[k] for k in kept)
    extents = [x.shape[k] for k in axes]
    lanes = FOLD_BYTES // dtype.itemsize if axes[-1] == x.ndim - 1 else 1
    identity = identity_of(op, dtype)
    rows = x.transpose(kept + axes).reshape(*outer, -1 if 0 not in x.shape else _product(extents[:-1]), extents[-1])
    filler = np.full((*rows.shape[:-1], -extents[-1] % lanes), identity, x.dtype)
    dealt = np.concatenate([rows, filler], axis=-1)
    dealt = dealt.reshape(*outer, _product(dealt.shape[len(outer) :]) // lanes, lanes)
    step = FOLDS[op]
    total: Any = np.full((*outer, lanes), identity, x.dtype)
    with np.errstate(all="ignore"):
        for k in range(dealt.shape[-2]):
            total = step(total, dealt[..., k, :])
        while lanes > 1:
            lanes //= 2
            total = step(total[..., :lanes], total[..., lanes:])
    return np.asarray(total[..., 0])


def _product(sizes: Any) -> int:
    out = 1
    for n in sizes:
        out *= int(n)
    return out
