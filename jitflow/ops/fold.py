"""The order in which reductions fold: fixed by dtype and axes, and computed here by numpy step by step.

`jitflow.expr.Reduce` states the order of one fold, :func:`fold_block` where a long one is cut into several.
Floating-point results depend on it, so it is part of a reduction's meaning; compiled code keeps it whatever it fuses,
and :func:`ordered_fold` is its independent statement for the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitflow.dtypes import DType
from jitflow.ops.testdata import Array
from jitflow.types import Dim, Shape, element_count

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


#: Bytes of accumulators' worth of elements in a block of a long reduction: 32 blocks in a million float32.
BLOCK_BYTES = 1 << 17
#: Results from which on there is work for every worker without blocks: rows, or strips of so many bytes.
MANY_RESULTS, STRIP_BYTES = 16, 1 << 14
#: Rows of a block at least: what blocks write is then a small part of what they read.
BLOCK_ROWS = 64


def fold_block(dtype: DType, shape: Shape, axes: tuple[int, ...]) -> int:
    """Return how many steps along ``axes[0]`` make a block of a reduction that accumulates in `dtype`; 0: no blocks.

    `axes` of `shape` are reduced, no two of them neighbours. There are no blocks where one would be all, where the
    results are many or not known to be few, and of several axes.
    """
    kept = [d for k, d in enumerate(shape) if k not in axes]
    if len(axes) != 1 or not all(isinstance(d, int) for d in kept):
        return 0
    (axis,) = axes
    inner = _product(shape[axis + 1 :]) * dtype.itemsize
    tasks = _product(shape[:axis]) * -(-inner // STRIP_BYTES)
    if not 0 < tasks < MANY_RESULTS:
        return 0
    block = BLOCK_BYTES // inner
    if axis != len(shape) - 1:
        block = max(block, BLOCK_ROWS)
    n = shape[axis]
    return 0 if isinstance(n, int) and n <= block else block


def merge_neighbours(shape: Shape, axes: tuple[int, ...]) -> tuple[Shape, tuple[int, ...]]:
    """Return `shape` and reduced `axes` with each run of neighbouring reduced axes merged into one."""
    out: list[Dim] = []
    reduced: list[int] = []
    for k, d in enumerate(shape):
        if k in axes and k - 1 in axes:
            out[-1] = element_count((out[-1], d))
            continue
        if k in axes:
            reduced.append(len(out))
        out.append(d)
    return tuple(out), tuple(reduced)


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
    """Return `x` (of `dtype`) folded over `axes` by `op`, in the order that this module and `Reduce` state."""
    shape, axes = merge_neighbours(x.shape, axes)
    x = x.reshape([d for d in shape if isinstance(d, int)])
    block = fold_block(dtype, shape, axes)
    if block:
        (axis,) = axes
        parts = [x.take(range(b, min(b + block, x.shape[axis])), axis) for b in range(0, x.shape[axis], block)]
        x = np.stack([_fold_once(op, p, axes, dtype) for p in parts], axis)
    return _fold_once(op, x, axes, dtype)


def _fold_once(op: str, x: Array, axes: tuple[int, ...], dtype: DType) -> Array:
    """Return `x` folded over `axes`, no two of them neighbours, without blocks."""
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
