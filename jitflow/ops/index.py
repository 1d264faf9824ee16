"""Indexing: ``x[key]`` of integers, slices, ``...`` and newaxis into slices and reshapes; `take` by an index tensor.

Slices of a symbolic axis are clamped as Python clamps them, by minima and maxima of dims; an integer that may lie
outside a symbolic axis becomes a guard, and one that must is an error at once.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64, int64
from jitflow.dtypes import index as index_dtype
from jitflow.errors import DTypeError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.expr import Expr, as_index, call, cast, const, maximum, minimum, select
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op, located, make_constant
from jitflow.ops.axes import normalize_axis, row_major
from jitflow.ops.broadcast import reduce_sum_op
from jitflow.ops.cast import as_dtype_of
from jitflow.ops.compare import equal_op, less_op, where_op
from jitflow.ops.creation import arange_op, dim_size
from jitflow.ops.elementwise import add_op
from jitflow.ops.movement import permute_dims, reshape_op
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import Array, draw
from jitflow.simplify import is_nonnegative, simplify_index
from jitflow.types import Dim, Shape, SymDim, TensorType, as_dim, dim_text, element_count, fold_dim, shape_text

# ---- take


def _infer_take(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    if not 0 <= axis < x.rank:
        raise ShapeError(f"take: axis {axis} is out of range for {shape_text(x.shape)}")
    if not indices.dtype.is_integer:
        raise DTypeError(f"take: indices must be integers, got {indices.dtype}")
    if x.shape[axis] == 0 and 0 not in indices.shape:
        raise StaticIndexError(f"take: axis {axis} of {shape_text(x.shape)} has no elements to take")
    return TensorType(x.dtype, x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _element_take(index: Index, x: Reader, indices: Reader, *, axis: int) -> Expr:
    """Read at the checked index; where the axis is empty there is nothing to read, and the check has failed."""
    rank = len(indices.type.shape)
    where = index[axis : axis + rank]
    extent = as_index(x.type.shape[axis])
    raw = cast(indices(*where), index_dtype)
    safe = call("check_index", raw, extent, row_major(where, indices.type.shape))
    value = x(*index[:axis], safe, *index[axis + rank :])
    return select(extent > 0, value, const(0, value.type))


def _numpy_take(x: Array, indices: Array, *, axis: int) -> Array:
    n = x.shape[axis]
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    if 0 in shape:
        return np.zeros(shape, x.dtype)  # nothing is taken, so no index is looked at
    wrapped = np.where(indices < 0, indices + np.int64(n), indices)
    bad = (wrapped < 0) | (wrapped >= n)
    if bad.any():
        raise IndexRangeError(bad_index_text(axis, n, indices, int(np.argmax(bad))))
    return np.asarray(np.take(x, wrapped, axis))


def bad_index_text(axis: int, size: int, indices: Array, position: int) -> str:
    """Return the message about the index at row-major `position`, the first one outside `size`."""
    place = tuple(int(k) for k in np.unravel_index(position, indices.shape))
    where = f" at {place[0] if len(place) == 1 else place}" if place else ""
    return f"take: index {indices[place]}{where} is out of range for axis {axis} of size {size}"


def _vjp_take(ct: Node, out: Node, x: Node, indices: Node, *, axis: int) -> tuple[Node, None]:
    """Add up, for each position of the axis, the cotangents of the indices that name it.

    A sum over a comparison of every position with every index: exact, in a fixed order, and no scatter is needed.
    """
    n, count = x.shape[axis], element_count(indices.shape)
    flat = reshape_op(as_dtype_of(indices, int64), shape=(count,))
    wrapped = where_op(less_op(flat, make_constant(0, int64)), add_op(flat, dim_size(n, int64)), flat)
    places = reshape_op(arange_op(start=0, step=1, size=n, dtype=int64), shape=(n, 1))
    hits = equal_op(places, reshape_op(wrapped, shape=(1, count)))
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    spread_ct = reshape_op(ct, shape=(*before, 1, count, *after))
    on_axes = reshape_op(hits, shape=(*(1 for _ in before), n, count, *(1 for _ in after)))
    chosen = where_op(on_axes, spread_ct, make_constant(0, ct.dtype))
    return reduce_sum_op(chosen, axes=(axis + 1,), dtype=ct.dtype), None


def _samples_take(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axis, indices in (
        ((5,), 0, [0, 4, -1, -5, 2, 2]),
        ((3, 4), 1, [3, 0]),
        ((3, 4), 0, [[1, 2], [-1, 0]]),
        ((2, 3, 2), 1, 2),
        ((3, 0), 0, [1]),
        ((3,), 0, np.zeros((0, 2), np.int64)),
        ((0, 2), 0, np.zeros(0, np.int64)),
        ((3, 0), 0, [7]),
    ):
        yield Sample((draw(rng, float64, *shape), np.asarray(indices)), {"axis": axis})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 4), np.array([3, -4], np.int32)), {"axis": 0})
    x = draw(rng, float32, 3, 4)
    i = np.array([1, 4, -5])
    yield Sample((x, i), {"axis": 1}, IndexRangeError, "index 4 at 1 is out of range for axis 1 of size 4")
    yield Sample((x, i[2]), {"axis": 1}, IndexRangeError, "index -5 is out of range for axis 1 of size 4")
    yield Sample((x, np.array([[0], [-4]])), {"axis": 0}, IndexRangeError, r"index -4 at \(1, 0\) is out of range")
    yield Sample((x, i * 1.0), {"axis": 0}, DTypeError, "take: indices must be integers, got float64")
    yield Sample((x, i), {"axis": 2}, ShapeError, r"take: axis 2 is out of range for \(3, 4\)")
    yield Sample((x[:0], i), {"axis": 0}, StaticIndexError, "no elements to take")


take_op: OpDef = define_op(
    "take",
    infer=_infer_take,
    element=_element_take,
    numpy=_numpy_take,
    vjp=_vjp_take,
    samples=_samples_take,
    exact=True,
    storage=True,
    fallible=True,
)


def take(x: Operand, indices: Operand, /, *, axis: int | None = None) -> Node:
    """Return the elements of `x` at `indices` along `axis`.

    Parameters
    ----------
    x
        Any tensor.
    indices
        A tensor of integers; negative ones count from the end. Its axes take the place of `axis`.
    axis
        The axis; it may be left out for a vector.

    Raises
    ------
    DTypeError
        If `indices` are no integers.
    ShapeError
        For an axis that is not there.
    IndexRangeError
        While the graph runs, for an index outside the axis; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.take(jf.constant([10, 20, 30]), jf.constant([2, 0, -1])), {})
    array([30, 10, 30])
    """
    node, where = as_node(x), as_node(indices)
    rank = len(node.shape)
    if axis is None and rank != 1:
        raise located(ShapeError(f"take: axis is needed, since x has shape {shape_text(node.shape)}"))
    return take_op(node, where, axis=0 if axis is None else normalize_axis(axis, rank, "take"))


# ---- getitem


def getitem(x: Operand, key: Any) -> Node:
    """Return ``x[key]`` for integers, slices, ``...``, None (newaxis), and at most one array or tensor of integers.

    Basic indexing is numpy's. Slices of a symbolic axis are clamped when the graph runs.

    Raises
    ------
    StaticIndexError
        For too many indices, or an integer outside its axis.
    ShapeError
        For a slice whose step is zero or not a literal.
    DTypeError
        For a boolean mask, a float, or several arrays.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n", 4))
    >>> x[1:, ::-2].shape
    (max(0, n - 1), 2)
    """
    node = as_node(x)
    items = _without_ellipsis(key if isinstance(key, tuple) else (key,), node.shape)
    slices: dict[int, tuple[Dim, Dim, int]] = {}
    #: Of each axis of the result: its size, or None for one whose single element an integer picked.
    shape: list[Dim | None] = []
    array: tuple[int, Node] | None = None
    axis = 0
    for item in items:
        if item is None:
            shape.append(1)
            continue
        n = node.shape[axis]
        if isinstance(item, slice):
            slices[axis] = _sliced(item, n, axis)
            shape.append(slices[axis][1])
        elif _is_integer(item):
            slices[axis] = (_position(item, n, axis, node.shape), 1, 1)
            shape.append(None)
        else:
            if array is not None:
                raise located(DTypeError("indexing: at most one index array is supported; use take"))
            array = len(shape), _index_array(item)
            shape.append(n)
        axis += 1
    cut = slice_axes(node, slices)
    kept = tuple(d for d in shape if d is not None)
    out = cut if cut.shape == kept else reshape_op(cut, shape=kept)
    return out if array is None else _gathered(out, shape, *array)


def _gathered(x: Node, shape: list[Dim | None], place: int, indices: Node) -> Node:
    """Take along the axis at `place` of `shape`; next to integers, numpy may put the new axes in front."""
    picked = [k for k, d in enumerate(shape) if d is None]
    axis = place - len([k for k in picked if k < place])
    out = take_op(x, indices, axis=axis)
    together = sorted([*picked, place])
    rank = len(indices.shape)
    if not picked or together[-1] - together[0] == len(together) - 1:
        # All index arrays, integers among them, are neighbours: the result's axes stay there.
        return out
    moved = range(axis, axis + rank)
    return permute_dims(out, (*moved, *(k for k in range(len(out.shape)) if k not in moved)))


def _without_ellipsis(key: tuple[Any, ...], shape: Shape) -> list[Any]:
    """Return `key` with ``...``, or its end, written out as full slices."""
    items = list(key)
    used = len([i for i in items if i is not None and i is not Ellipsis])
    if used > len(shape):
        what = f"indexing: {used} indices for {len(shape)} axes, shape {shape_text(shape)}"
        raise located(StaticIndexError(what))
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise located(StaticIndexError("indexing: '...' may occur once only"))
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (len(shape) - used), *items[at + 1 :]]


def _is_integer(item: Any) -> bool:
    """Tell whether `item` is one integer (an array of none or more axes is not, nor a bool)."""
    if isinstance(item, (bool, np.bool_, np.ndarray)):
        return False
    return isinstance(item, SymDim) or hasattr(item, "__index__")


def _index_array(item: Any) -> Node:
    if isinstance(item, (bool, np.bool_, float)):
        raise located(DTypeError(f"indexing: {item!r} is no index"))
    node = as_node(np.asarray(item, dtype=np.int64) if isinstance(item, (list, tuple)) and not item else item)
    if node.dtype.is_bool:
        raise located(DTypeError("indexing: a boolean mask gives a shape that depends on data; use where"))
    if not node.dtype.is_integer:
        raise located(DTypeError(f"indexing: indices must be integers, got {node.dtype}"))
    return node


def _position(item: Any, n: Dim, axis: int, shape: Shape) -> Dim:
    """Return the non-negative place that integer `item` names on an axis of size `n`."""
    if isinstance(item, SymDim):
        return fold_dim(simplify_index(item.expr))
    k = operator.index(item)
    if isinstance(n, int) and not -n <= k < n:
        raise located(StaticIndexError(f"indexing: index {k} is out of range for axis {axis} of {shape_text(shape)}"))
    if k >= 0:
        return k
    return n + k if isinstance(n, int) else simplify_index(n + k)


def _sliced(item: slice, n: Dim, axis: int) -> tuple[Dim, Dim, int]:
    """Return (start, size, step) of a slice of an axis of size `n`, clamped as Python clamps."""
    step = 1 if item.step is None else _bound(item.step, axis)
    if not isinstance(step, int) or step == 0:
        raise located(ShapeError(f"indexing: the step of axis {axis} must be a literal other than 0, got {item.step}"))
    first = None if item.start is None else _bound(item.start, axis)
    last = None if item.stop is None else _bound(item.stop, axis)
    if isinstance(n, int) and not isinstance(first, Expr) and not isinstance(last, Expr):
        start, stop, _ = slice(first, last, step).indices(n)
        return start, len(range(start, stop, step)), step
    extent = as_index(n)
    if step > 0:
        start_at = _from_front(first, extent)
        end = extent if last is None else minimum(extent, last) if _counts_up(last) else extent + last
        distance = end - start_at
        if last is None and isinstance(first, int) and first < 0:
            # x[-3:] has min(3, n) elements; the general formula would hide that.
            distance = minimum(extent, -first)
    else:
        start_at = extent - 1 if first is None else minimum(extent - 1, first) if _counts_up(first) else extent + first
        end = as_index(-1) if last is None else as_index(last) if _counts_up(last) else maximum(extent + last, -1)
        distance = start_at - end
    size = maximum((distance + (abs(step) - 1)) // abs(step), 0)
    return _literal(simplify_index(start_at)), fold_dim(simplify_index(size)), step


def _from_front(first: int | Expr | None, extent: Expr) -> Expr:
    """Return where a forward slice starts; beyond the end is as good as at the end, for nothing is read."""
    if first is None:
        return as_index(0)
    return as_index(first) if _counts_up(first) else maximum(extent + first, 0)


def _bound(bound: Any, axis: int) -> int | Expr:
    """Return a bound of a slice as a Python int or an expression of dims."""
    if isinstance(bound, (SymDim, Expr)):
        return _literal(as_index(as_dim(bound)))
    try:
        return operator.index(bound)
    except TypeError:
        raise located(DTypeError(f"indexing: {bound!r} is no bound of a slice (axis {axis})")) from None


def _literal(e: Expr) -> int | Expr:
    d = simplify_index(e)
    return int(d.value) if hasattr(d, "value") else d


def _counts_up(bound: int | Expr) -> bool:
    """Tell whether `bound` counts from the front; ShapeError if that depends on a run."""
    if isinstance(bound, int):
        return bound >= 0
    if not is_nonnegative(bound):
        raise located(ShapeError(f"indexing: bound {dim_text(bound)} may be negative; slices need its sign"))
    return True
