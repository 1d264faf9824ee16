"""median, quantile and percentile: elements of the sorted axis, and what lies between them.

Halves are taken as float32 and rounded once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jitflow.dtypes import DType, float64, float_of, int64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import as_index
from jitflow.graph import Node, Operand, as_node, constant_op, located, make_constant
from jitflow.ops.axes import Axis, as_flag, normalize_axes
from jitflow.ops.broadcast import kept_shape
from jitflow.ops.cast import as_dtype_of
from jitflow.ops.compare import equal, greater_equal
from jitflow.ops.creation import dim_size
from jitflow.ops.elementwise import add, ceil, divide, floor, multiply, round, subtract
from jitflow.ops.index import take_op
from jitflow.ops.logic import logical_or
from jitflow.ops.movement import permute_dims, reshape_to
from jitflow.ops.selection import clip, minimum, where
from jitflow.ops.slicing import slice_axes
from jitflow.ops.sorting import sort_op
from jitflow.ops.widen import widened_dtype
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import Dim, Shape, dim_of, element_count, shape_text

#: What to give for a position between two elements.
METHODS = ("linear", "lower", "higher", "midpoint", "nearest")


class _Sorted(NamedTuple):
    """`lines`: what is reduced, as the sorted last axis. `dtype` and `kept` are those of the result."""

    lines: Node
    dtype: DType
    kept: Shape

    def at(self, place: Dim) -> Node:
        """Return the element at `place` of each line."""
        last = len(self.lines.shape) - 1
        return reshape_to(slice_axes(self.lines, {last: (place, 1, 1)}), self.lines.shape[:last])

    def result(self, value: Node, shape: Shape) -> Node:
        """Return `value`, or NaN for a line that has one, which is last then."""
        last = self.at(_middle(self.lines.shape[-1], -1, 1))
        return reshape_to(as_dtype_of(where(equal(last, last), value, last), self.dtype), shape)


def _sorted_over(x: Operand, axis: Axis | Sequence[int], keepdims: bool, what: str) -> _Sorted:
    node = as_node(x)
    dtype = float_of(node.dtype)
    shape, axes = node.shape, tuple(sorted(normalize_axes(axis, len(node.shape), what)))
    rest = [k for k in range(len(shape)) if k not in axes]
    count = element_count([shape[a] for a in axes])
    if count == 0:
        raise located(ShapeError(f"{what} of no elements: shape {shape_text(shape)} over axes {axes}"))
    lines = reshape_to(permute_dims(node, (*rest, *axes)), (*(shape[k] for k in rest), count))
    kept = kept_shape(shape, axes) if as_flag(keepdims, f"{what}: keepdims") else tuple(shape[k] for k in rest)
    return _Sorted(sort_op(as_dtype_of(lines, widened_dtype(dtype)), descending=False), dtype, kept)


def _middle(n: Dim, more: int, parts: int) -> Dim:
    return dim_of(simplify_index((as_index(n) + more) // parts))


@public()
def median(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return the median over `axis`: the middle element in order, or the mean of the two in the middle.

    Parameters
    ----------
    x
        Any tensor; bool and integers are taken as float64.
    axis
        An axis, several, or None for all.
    keepdims
        Whether the reduced axes stay, with size 1.

    Returns
    -------
    Node
        The medians; NaN where there is a NaN.

    Raises
    ------
    ShapeError
        For no elements, or an axis that is named twice.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.median(jf.constant([[1.0, 9.0, 2.0, 3.0]]), axis=1), {})
    array([2.5])
    """
    found = _sorted_over(x, axis, keepdims, "median")
    n = found.lines.shape[-1]
    low, high = found.at(_middle(n, -1, 2)), found.at(_middle(n, 0, 2))
    # Halves first, so that nothing overflows; not of equal ones, which may be too small to be halved.
    mean = where(equal(low, high), low, add(multiply(low, 0.5), multiply(high, 0.5)))
    return found.result(mean, found.kept)


@public()
def quantile(x: Operand, q: Operand, /, *, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Node:
    """Return the values below which a share `q` of the elements over `axis` lies.

    Parameters
    ----------
    x
        Any tensor; bool and integers are taken as float64.
    q
        One share or a tensor of them, from 0 to 1. Its axes come first in the result.
    axis
        An axis, several, or None for all.
    method
        What to give between two elements: ``"linear"`` interpolation, the ``"lower"``, ``"higher"`` or ``"nearest"``
        one (of two equally near ones that at an even position), or their ``"midpoint"``.
    keepdims
        Whether the reduced axes stay, with size 1.

    Returns
    -------
    Node
        The quantiles; NaN where there is a NaN.

    Raises
    ------
    GraphError
        For an unknown method, or a constant `q` outside 0 to 1. A computed one is clipped.
    ShapeError
        For no elements, or an axis that is named twice.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.quantile(jf.constant([1.0, 2.0, 3.0, 5.0]), [0.5, 1.0]), {})
    array([2.5, 5. ])
    """
    if method not in METHODS:
        raise located(GraphError(f"quantile: unknown method {method!r}; methods are {', '.join(map(repr, METHODS))}"))
    share = _share(q)
    found = _sorted_over(x, axis, keepdims, "quantile")
    lines = found.lines
    rank, count = len(lines.shape) - 1, element_count(share.shape)
    last = subtract(dim_size(lines.shape[-1], float64), 1.0)
    place = reshape_to(multiply(share, last), (count,))
    if method == "midpoint":
        place = multiply(add(floor(place), ceil(place)), 0.5)
    elif method != "linear":
        place = {"lower": floor, "higher": ceil, "nearest": round}[method](place)
    below = floor(place)
    low = take_op(lines, as_dtype_of(below, int64), axis=rank)
    high = take_op(lines, as_dtype_of(minimum(add(below, 1.0), last), int64), axis=rank)
    way = as_dtype_of(subtract(place, below), lines.dtype)
    step = subtract(high, low)
    # From the nearer end, as numpy: so that it grows with q, and meets both ends.
    between = where(
        greater_equal(way, 0.5),
        subtract(high, multiply(step, subtract(1.0, way))),
        add(low, multiply(step, way)),
    )
    value = where(logical_or(equal(way, 0.0), equal(low, high)), low, between)
    turned = reshape_to(permute_dims(value, (rank, *range(rank))), (*share.shape, *lines.shape[:rank]))
    return found.result(turned, (*share.shape, *found.kept))


def _share(q: Operand) -> Node:
    node = as_node(q)
    if node.dtype.is_bool:
        raise located(DTypeError("quantile: q must be a number, not bool"))
    share = as_dtype_of(node, float64)
    if node.op is not constant_op:
        return clip(share, 0.0, 1.0)
    values: np.ndarray[Any, Any] = node.attr("value").array.astype(np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise located(GraphError(f"quantile: q must lie between 0 and 1, got {values.tolist()}"))
    return make_constant(values, float64)


@public()
def percentile(x: Operand, q: Operand, /, *, axis: Axis = None, method: str = "linear", keepdims: bool = False) -> Node:
    """Return the values below which `q` percent of the elements over `axis` lie: ``quantile(x, q / 100)``.

    Other arguments as for `quantile`.

    Raises
    ------
    GraphError
        For an unknown method, or a constant `q` outside 0 to 100. A computed one is clipped.
    ShapeError
        For no elements, or an axis that is named twice.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.percentile(jf.constant([1.0, 2.0, 3.0, 5.0]), 50), {})
    array(2.5)
    """
    node = as_node(q)
    if node.op is constant_op and not node.dtype.is_bool:
        values: np.ndarray[Any, Any] = node.attr("value").array.astype(np.float64)
        if not ((values >= 0) & (values <= 100)).all():
            raise located(GraphError(f"percentile: q must lie between 0 and 100, got {values.tolist()}"))
        share: Operand = make_constant(values / 100, float64)
    else:
        share = divide(node, 100.0)
    return quantile(x, share, axis=axis, method=method, keepdims=keepdims)
