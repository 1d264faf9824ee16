"""Tensors of what follows from subscripts: linspace, broadcast_arrays, meshgrid, eye, tril, triu, diag."""

from __future__ import annotations

import math
from typing import Any

from jitflow.dtypes import DType, float64, int64
from jitflow.errors import GraphError, ShapeError
from jitflow.expr import as_index, maximum
from jitflow.graph import Node, OpDef, Operand, as_node, located, make_constant
from jitflow.ops.axes import as_flag, as_int, as_matrices, check_device, checked_shape
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import as_dtype_of, checked_dtype
from jitflow.ops.compare import equal_op, greater_equal_op
from jitflow.ops.creation import arange_op, dim_size
from jitflow.ops.diagonal import diagonal, reachable, undiagonal_op
from jitflow.ops.elementwise import add_op, divide_op, floor_op, multiply_op, subtract_op
from jitflow.ops.movement import reshape_to
from jitflow.ops.padding import pad
from jitflow.ops.selection import where_op
from jitflow.ops.triangle import triangle_op
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import Dim, SymDim, broadcast_shapes, dim_of, shape_text


def _count(size: Dim, dtype: DType = int64) -> Node:
    """Return 0, 1, ... `size` - 1."""
    return arange_op(start=0.0 if dtype.is_float else 0, step=1.0 if dtype.is_float else 1, size=size, dtype=dtype)


# ---- linspace


@public()
def linspace(
    start: Operand,
    stop: Operand,
    /,
    num: int | SymDim,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Node:
    """Return `num` numbers from `start` to `stop`, evenly spaced.

    Parameters
    ----------
    start, stop
        The ends: numbers, or tensors of no axes.
    num
        How many, at least 0. A dim, such as ``x.shape[0]``, makes a vector of symbolic length.
    dtype
        The dtype; by default float64. They are computed in float64 and converted, rounded down for integers, of which
        the ends are exact if they are Python integers.
    device
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.
    endpoint
        Whether `stop` itself is the last number. Otherwise it is the one after it.

    Raises
    ------
    ShapeError
        If `num` is negative, or an end has axes.
    DTypeError
        If `num` is no int, or jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linspace(0, 1, 5), {})
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    check_device(device, "linspace")
    to = float64 if dtype is None else checked_dtype(dtype)
    (size,) = checked_shape(num if isinstance(num, SymDim) else as_int(num, "linspace: num"))
    first, last = (as_dtype_of(_scalar(x), float64) for x in (start, stop))
    reached = as_flag(endpoint, "linspace: endpoint")
    gaps = size if not reached else dim_of(simplify_index(maximum(as_index(size) - 1, 1)))
    if gaps == 0:
        gaps = 1
    count, steps = dim_size(gaps, float64), _count(size, float64)
    values = _spread(first, last, steps, count) if _are_far_apart(start, stop) else _stepped(first, last, steps, count)
    # Rounding must not keep it from the end; of a single number that is the start.
    is_last = greater_equal_op(steps, count)
    if not to.is_integer:
        return as_dtype_of(where_op(is_last, last, values) if reached else values, to)
    out = as_dtype_of(floor_op(values), to)
    # float64 may hold neither end.
    out = where_op(equal_op(steps, make_constant(0.0, float64)), _whole_end(start, first, to), out)
    return where_op(is_last, _whole_end(stop, last, to), out) if reached else out


def _scalar(x: Operand) -> Node:
    node = make_constant(x, float64) if type(x) is int else as_node(x)
    if node.shape:
        raise located(ShapeError(f"linspace: an end must be a single number, got shape {shape_text(node.shape)}"))
    return node


def _whole_end(x: Operand, value: Node, dtype: DType) -> Node:
    """Return the end `x`, which is `value` in float64, in the integer `dtype`; exactly if it is a Python integer."""
    if type(x) is int and dtype.min <= x <= dtype.max:
        return make_constant(x, dtype)
    return as_dtype_of(floor_op(value), dtype)


def _stepped(first: Node, last: Node, steps: Node, count: Node) -> Node:
    """Return ``first + steps*step`` for the step that leads from `first` to `last` in `count` of them."""
    distance = subtract_op(last, first)
    step = divide_op(distance, count)
    # A step that rounds to nothing would lose the distance: then it is shared out by element.
    along = where_op(
        equal_op(step, make_constant(0.0, float64)),
        multiply_op(divide_op(steps, count), distance),
        multiply_op(steps, step),
    )
    return add_op(along, first)


def _are_far_apart(start: Operand, stop: Operand) -> bool:
    """Tell whether two numbers have a distance that is no float."""
    known = isinstance(start, (int, float)) and isinstance(stop, (int, float))
    return known and math.isinf(float(stop) - float(start)) and math.isfinite(start) and math.isfinite(stop)


def _spread(first: Node, last: Node, steps: Node, count: Node) -> Node:
    """Return the numbers of `_stepped` without their distance: as means of the ends, by weight."""
    weight = divide_op(steps, count)
    rest = subtract_op(make_constant(1.0, float64), weight)
    return add_op(multiply_op(first, rest), multiply_op(last, weight))


# ---- broadcast_arrays and meshgrid


@public()
def broadcast_arrays(*arrays: Operand) -> list[Node]:
    """Return tensors repeated to the shape that they broadcast to, each in its own dtype.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> [x.shape for x in jf.broadcast_arrays(jf.zeros((3, 1)), jf.arange(2))]
    [(3, 2), (3, 2)]
    """
    nodes = [as_node(x) for x in arrays]
    if not nodes:
        return []
    try:
        shape = broadcast_shapes([x.shape for x in nodes], "broadcast_arrays")
    except ShapeError as error:
        raise located(error) from None
    return [broadcast_to(x, shape) for x in nodes]


@public()
def meshgrid(*arrays: Operand, indexing: str = "xy") -> list[Node]:
    """Return each vector repeated along an axis per other vector: the coordinates of a grid.

    Parameters
    ----------
    arrays
        Vectors, or single numbers.
    indexing
        ``"ij"``: axis k of the results goes with vector k. ``"xy"``: the first two axes are exchanged.

    Raises
    ------
    GraphError
        For another `indexing`.
    ShapeError
        For a tensor of more than one axis.

    Examples
    --------
    >>> import jitflow as jf
    >>> xs, ys = jf.meshgrid(jf.arange(3), jf.arange(2))
    >>> jf.interpret(xs + 10 * ys, {})
    array([[ 0,  1,  2],
           [10, 11, 12]])
    """
    if indexing not in ("xy", "ij"):
        raise located(GraphError(f"meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}"))
    nodes = []
    for x in arrays:
        node = as_node(x)
        if len(node.shape) > 1:
            raise located(ShapeError(f"meshgrid: vectors are needed, got shape {shape_text(node.shape)}"))
        nodes.append(reshape_to(node, node.shape or (1,)))
    places = list(range(len(nodes)))
    if indexing == "xy" and len(nodes) > 1:
        places[:2] = [1, 0]
    shape: list[Dim] = [1] * len(nodes)
    for node, k in zip(nodes, places, strict=True):
        shape[k] = node.shape[0]
    out = []
    for node, k in zip(nodes, places, strict=True):
        own = tuple(d if axis == k else 1 for axis, d in enumerate(shape))
        out.append(broadcast_to(reshape_to(node, own), tuple(shape)))
    return out


# ---- diagonals and triangles


def _on_diagonal(compare: OpDef, rows: Dim, columns: Dim, k: int) -> Node:
    """Return ``compare(column, row + k)`` for each element of a matrix."""
    row = add_op(reshape_to(_count(rows), (rows, 1)), make_constant(reachable(k), int64))
    return compare(reshape_to(_count(columns), (1, columns)), row)


@public()
def eye(
    n_rows: int | SymDim, n_cols: int | SymDim | None = None, /, *, k: int = 0, dtype: Any = None, device: Any = None
) -> Node:
    """Return a matrix of ones on a diagonal and zeros elsewhere.

    Parameters
    ----------
    n_rows, n_cols
        Its sizes, which may be dims; as many columns as rows by default.
    k
        Which diagonal: 0 the main one, above it for positive `k`, below for negative.
    dtype
        The dtype; by default float64.
    device
        Accepted for the standard's sake: None or "session", since the session that runs a graph chooses the device.

    Raises
    ------
    ShapeError
        For a negative size.
    DTypeError
        If `k` is no int, or jitflow has no such dtype.
    DeviceError
        For another `device`.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.eye(2, 3, k=1, dtype=jf.int32), {})
    array([[0, 1, 0],
           [0, 0, 1]], dtype=int32)
    """
    check_device(device, "eye")
    rows, columns = checked_shape((n_rows, n_rows if n_cols is None else n_cols))
    to = float64 if dtype is None else checked_dtype(dtype)
    return as_dtype_of(_on_diagonal(equal_op, rows, columns, as_int(k, "eye: k")), to)


def _triangle(what: str, x: Operand, k: int, upper: bool) -> Node:
    node = as_matrices(x, what)
    fill = 0.0 if node.dtype.is_float else False if node.dtype.is_bool else 0
    return triangle_op(node, k=reachable(as_int(k, f"{what}: k")), upper=upper, fill=fill)


@public()
def tril(x: Operand, /, *, k: int = 0) -> Node:
    """Return matrices (the last two axes) with zeros above the diagonal `k`.

    Raises
    ------
    ShapeError
        Below rank 2.
    DTypeError
        If `k` is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tril(jf.constant([[1, 2], [3, 4]])), {})
    array([[1, 0],
           [3, 4]])
    """
    return _triangle("tril", x, k, upper=False)


@public()
def triu(x: Operand, /, *, k: int = 0) -> Node:
    """Return matrices (the last two axes) with zeros below the diagonal `k`.

    Raises
    ------
    ShapeError
        Below rank 2.
    DTypeError
        If `k` is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.triu(jf.constant([[1, 2], [3, 4]]), k=1), {})
    array([[0, 2],
           [0, 0]])
    """
    return _triangle("triu", x, k, upper=True)


@public()
def diag(x: Operand, k: int = 0) -> Node:
    """Return a vector on the diagonal `k` of a matrix of zeros; of a matrix, the vector on its diagonal `k`.

    Raises
    ------
    ShapeError
        Unless `x` has one axis or two.
    DTypeError
        If `k` is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.diag(jf.constant([1, 2])), {})
    array([[1, 0],
           [0, 2]])
    >>> jf.interpret(jf.diag(jf.constant([[1, 2], [3, 4]]), 1), {})
    array([2])
    """
    node = as_node(x)
    offset = as_int(k, "diag: k")
    if len(node.shape) == 2:
        return diagonal(node, offset=offset)
    if len(node.shape) != 1:
        raise located(ShapeError(f"diag: one axis or two are needed, got {shape_text(node.shape)}"))
    down, right = max(-offset, 0), max(offset, 0)
    return pad(undiagonal_op(node), ((down, right), (right, down)))
