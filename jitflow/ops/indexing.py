"""``x[key]`` into slices, reshapes and gathers: integers, slices, ``...``, newaxis, arrays of integers, constant masks.

Slices of a symbolic axis are clamped as Python clamps them, by minima and maxima of dims; an integer that may lie
outside a symbolic axis becomes a guard, and one that must is an error at once. Arrays of indices broadcast against each
other, and their axes go where numpy puts them.
"""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import numpy as np

from jitflow.dtypes import int64
from jitflow.errors import DTypeError, ShapeError, StaticIndexError
from jitflow.expr import Expr, as_index, maximum, minimum
from jitflow.graph import Node, Operand, as_node, constant_op, located, make_constant
from jitflow.ops.index import gather_op, take_op
from jitflow.ops.movement import permute_dims, reshape_to
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import Array
from jitflow.simplify import is_nonnegative, simplify_index
from jitflow.types import MAX_ELEMENTS, Dim, Shape, SymDim, as_dim, dim_text, fold_dim, same_dim, shape_text


def getitem(x: Operand, key: Any) -> Node:
    """Return ``x[key]`` for integers, slices, ``...``, None (newaxis), arrays of integers and constant boolean masks.

    Indexing is numpy's. Slices of a symbolic axis are clamped when the graph runs. An array of indices is an array, a
    list or a tensor of integers; several broadcast against each other. A boolean mask must be known when the graph is
    built: it stands for the positions where it is true.

    Raises
    ------
    StaticIndexError
        For too many indices, an integer outside its axis, or a mask of another shape.
    ShapeError
        For a slice whose step is zero or not a literal, or arrays of indices that do not broadcast.
    DTypeError
        For a float, or a mask that is computed: how many elements it picks depends on the run.
    IndexRangeError
        While the graph runs, for an index outside its axis.
    FeedIndexError
        When the graph runs on sizes for which an integer of the key is outside its axis.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n", 4))
    >>> x[1:, ::-2].shape
    (max(0, n - 1), 2)
    >>> rows = jf.placeholder("rows", jf.int64, ("k",))
    >>> x[rows, [[0], [3]]].shape
    (2, k)
    """
    parsed = parse_key(as_node(x), key)
    out = reshape_to(slice_axes(parsed.x, parsed.slices), parsed.picked_shape())
    return _gathered(out, parsed.shape, parsed.arrays, parsed.stay) if parsed.arrays else out


class ParsedKey(NamedTuple):
    """A key, item by item.

    - `x`: what it indexes; an axis with a mask has the mask's size.
    - `slices`: the (start, size, step) of each axis that is cut, also by an integer.
    - `shape`: of each axis of the result its size, or None for one whose single element an integer picked.
    - `arrays`: tensors of indices, by their place in `shape`; `stay`: whether their axes stay there, or come first.
    """

    x: Node
    slices: dict[int, tuple[Dim, Dim, int]]
    shape: list[Dim | None]
    arrays: dict[int, Node]
    stay: bool

    def picked_shape(self) -> Shape:
        """Return the shape of what is picked, with the axes that arrays index as they are."""
        return tuple(d for d in self.shape if d is not None)


def parse_key(node: Node, key: Any) -> ParsedKey:
    """Return what ``node[key]`` picks; errors as of `getitem`."""
    items = _written_out(key if isinstance(key, tuple) else (key,), node.shape)
    slices: dict[int, tuple[Dim, Dim, int]] = {}
    shape: list[Dim | None] = []
    arrays: dict[int, Node] = {}
    #: Which items are integers or arrays: numpy asks whether they are neighbours.
    numbers: list[int] = []
    axis = 0
    for number, item in enumerate(items):
        if item is None or item is Ellipsis:
            shape += [1] if item is None else []
            continue
        n = node.shape[axis]
        if isinstance(item, slice):
            slices[axis] = _sliced(item, n, axis)
            shape.append(slices[axis][1])
        elif isinstance(item, _Picks):
            size = _size_for(item, n, axis, node.shape)
            # A symbolic axis becomes the mask's, one axis at a time, so that every one of them is checked.
            node = reshape_to(node, (*node.shape[:axis], size, *node.shape[axis + 1 :]))
            arrays[len(shape)] = item.indices
            shape.append(size)
            numbers.append(number)
        else:
            numbers.append(number)
            slices[axis] = (_position(item, n, axis, node.shape), 1, 1)
            shape.append(None)
        axis += 1
    stay = bool(numbers) and numbers[-1] - numbers[0] == len(numbers) - 1
    return ParsedKey(node, slices, shape, arrays, stay)


def _gathered(x: Node, shape: list[Dim | None], arrays: dict[int, Node], stay: bool) -> Node:
    """Return `x` indexed by `arrays`, whose axes `stay` where they are or come first."""
    picked = [k for k, d in enumerate(shape) if d is None]
    axes = [place - len([k for k in picked if k < place]) for place in arrays]
    rest = [k for k in range(len(x.shape)) if k not in axes]
    if len(axes) == 1:
        (indices,) = arrays.values()
        out, rank, at = take_op(x, indices, axis=axes[0]), len(indices.shape), axes[0]
    else:
        out = gather_op(permute_dims(x, (*axes, *rest)), *arrays.values())
        rank, at = len(out.shape) - len(rest), 0
    wanted = axes[0] if stay else 0
    if wanted == at:
        return out
    moved = range(at, at + rank)
    others = [k for k in range(len(out.shape)) if k not in moved]
    return permute_dims(out, (*others[:wanted], *moved, *others[wanted:]))


# ---- the key


def _written_out(key: tuple[Any, ...], shape: Shape) -> list[Any]:
    """Return one item per axis, None and ``...``, with full slices for what these last stand for.

    Arrays and masks come as `_Picks`. ``...`` stays, since even where it stands for nothing it parts its neighbours.
    """
    items: list[Any] = []
    for item in key:
        if item is None or item is Ellipsis or isinstance(item, slice) or _is_integer(item):
            items.append(item)
        else:
            items += _index_arrays(item)
    used = len([i for i in items if i is not None and i is not Ellipsis])
    if used > len(shape):
        what = f"indexing: {used} indices for {len(shape)} axes, shape {shape_text(shape)}"
        raise located(StaticIndexError(what))
    dots = [k for k, i in enumerate(items) if i is Ellipsis]
    if len(dots) > 1:
        raise located(StaticIndexError("indexing: '...' may occur once only"))
    at = dots[0] if dots else len(items)
    return [*items[: at + 1], *[slice(None)] * (len(shape) - used), *items[at + 1 :]]


def _is_integer(item: Any) -> bool:
    """Tell whether `item` is one integer (an array of none or more axes is not, nor a bool)."""
    if isinstance(item, (bool, np.bool_, np.ndarray)):
        return False
    return isinstance(item, SymDim) or hasattr(item, "__index__")


class _Picks(NamedTuple):
    """An array of indices of one axis; of a mask also the size that the axis must have."""

    indices: Node
    size: int | None = None


def _index_arrays(item: Any) -> list[_Picks]:
    """Return what `item` picks: indices along one axis, or those of a mask along each of its axes."""
    if isinstance(item, (bool, np.bool_, float)):
        raise located(DTypeError(f"indexing: {item!r} is no index"))
    try:
        node = as_node(np.asarray(item, dtype=np.int64) if isinstance(item, (list, tuple)) and not item else item)
    except DTypeError:
        raise located(DTypeError(f"indexing: {item!r} is no index")) from None
    if node.dtype.is_integer:
        return [_Picks(node)]
    if not node.dtype.is_bool:
        raise located(DTypeError(f"indexing: indices must be integers, got {node.dtype}"))
    if node.op is not constant_op:
        what = "indexing: a boolean mask gives a shape that depends on data"
        advice = "use where(mask, x, y), or give the mask as an array if it is known"
        raise located(DTypeError(f"{what}; {advice}"))
    mask: Array = node.attr("value").array
    if mask.ndim == 0:
        raise located(DTypeError(f"indexing: {mask.item()!r} is no index"))
    where = np.nonzero(mask)
    return [_Picks(make_constant(k, int64), size) for k, size in zip(where, mask.shape, strict=True)]


def _size_for(picks: _Picks, n: Dim, axis: int, shape: Shape) -> Dim:
    """Return the size of the axis that `picks` index: `n`, or that of a mask. StaticIndexError if they do not fit."""
    if picks.size == 0:
        return n  # a mask without elements picks nothing of an axis of any size
    if picks.size is not None and same_dim(n, picks.size) is False:
        what = f"indexing: a mask of size {picks.size} along axis {axis} of {shape_text(shape)}"
        raise located(StaticIndexError(what))
    if picks.size is None and isinstance(n, int) and picks.indices.op is constant_op:
        values: Array = picks.indices.attr("value").array
        bad = values[(values < -n) | (values >= n)] if values.dtype.kind == "i" else values[values >= n]
        if bad.size and 0 not in shape:
            what = f"indexing: index {bad[0]} is out of range for axis {axis} of {shape_text(shape)}"
            raise located(StaticIndexError(what))
    return n if picks.size is None else picks.size


def _position(item: Any, n: Dim, axis: int, shape: Shape) -> Dim:
    """Return the non-negative place that integer `item` names on an axis of size `n`."""
    if isinstance(item, SymDim):
        return fold_dim(simplify_index(item.expr))
    k = operator.index(item)
    most = n if isinstance(n, int) else MAX_ELEMENTS
    if not -most <= k < most:
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
        # Beyond this there is nothing on any axis, and it would not fit 64 bits.
        return max(-MAX_ELEMENTS, min(operator.index(bound), MAX_ELEMENTS))
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
