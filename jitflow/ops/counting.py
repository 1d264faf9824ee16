"""bincount and histogram: elements into counts of how many are equal, or lie between two edges."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import float64, float_of, int64, uint64
from jitflow.errors import DTypeError, GraphError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.expr import as_index, compare, const_index, select
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, constant_op, define_op, located, make_constant
from jitflow.kernel import KernelBuilder, Memory
from jitflow.ops import reduce
from jitflow.ops.axes import Dims, as_flag, as_int, known_shape
from jitflow.ops.broadcast import broadcast_to, reduce_sum_op
from jitflow.ops.cast import as_dtype_of, as_float, as_numbers, promoted
from jitflow.ops.checked_index import as_subscript
from jitflow.ops.compare import equal
from jitflow.ops.creation import arange_op, guard_not_negative
from jitflow.ops.elementwise import add, divide, multiply, subtract
from jitflow.ops.joining import concat
from jitflow.ops.movement import reshape_to
from jitflow.ops.scattering import segment_sum_op
from jitflow.ops.selection import where
from jitflow.ops.slicing import slice_axes
from jitflow.ops.sorting import searchsorted_op
from jitflow.ops.testdata import INTEGERS, Array
from jitflow.ops.widen import widened_input
from jitflow.public import public
from jitflow.types import Dim, TensorType, element_count, shape_text

# ---- bincount


def _infer_count(x: TensorType, *, size: Dim) -> TensorType:
    if not x.dtype.is_integer:
        raise DTypeError(f"bincount: x must hold integers, got {x.dtype}")
    if x.rank != 1:
        raise ShapeError(f"bincount: x must be a vector, got shape {shape_text(x.shape)}")
    guard_not_negative(size, "bincount")
    if size == 0 and x.shape[0] != 0:
        raise StaticIndexError("bincount: there are numbers to count, but length is 0")
    return TensorType(int64, (size,))


def _kernel_count(b: KernelBuilder, out: Memory, x: Memory, *, size: Dim) -> None:
    with b.independent(size) as (k,):
        b.store(out, (k,), 0)
    with b.loop("k", x.type.shape[0]) as k:
        given = b.let("given", as_subscript(x(k)))
        # A negative number is none to count, so it must not count from the end.
        number = select(compare("lt", given, const_index(0)), as_index(size), given)
        at = b.check_index(number, size, k)
        with b.if_(compare("lt", const_index(0), as_index(size))):
            b.store(out, (at,), out(at) + 1)


def _numpy_count(x: Array, *, size: Dim, dims: Dims) -> Array:
    (length,) = known_shape((size,), dims)
    bad = (x < 0) | (x >= length)
    if bad.any():
        k = int(np.argmax(bad))
        raise IndexRangeError(f"bincount: {x[k]} at {k} is not one of 0 .. {length - 1}")
    return np.bincount(x.astype(np.int64), minlength=length)


def _samples_count(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in INTEGERS:
        yield Sample((rng.integers(0, 9, 50).astype(dtype.np),), {"size": 9})
    x = np.array([2, 0, 1])
    yield Sample((x[:0],), {"size": 3})
    yield Sample((x[:0],), {"size": 0})
    yield Sample((x,), {"size": 2}, IndexRangeError, "bincount: 2 at 0 is not one of 0 .. 1")
    yield Sample((x - 1,), {"size": 3}, IndexRangeError, "bincount: -1 at 1 is not one of 0 .. 2")
    yield Sample((x,), {"size": 0}, StaticIndexError, "but length is 0")
    yield Sample((x * 1.0,), {"size": 3}, DTypeError, "x must hold integers, got float64")
    yield Sample((x[None],), {"size": 3}, ShapeError, r"x must be a vector, got shape \(1, 3\)")


#: How often each of the numbers 0 .. `size` - 1 occurs; all must be one of them.
bincount_op: OpDef = define_op(
    "bincount",
    infer=_infer_count,
    kernel=_kernel_count,
    numpy=_numpy_count,
    vjp=lambda ct, out, x, *, size: (None,),
    samples=_samples_count,
    exact=True,
    fallible=True,
)


def _weights_of(x: Node, weights: Operand | None, what: str) -> Node:
    """Return what each element of `x` counts, in its shape: 1 if nothing is given."""
    if weights is None:
        return broadcast_to(make_constant(1, int64), x.shape)
    node = as_node(weights)
    if len(node.shape) != len(x.shape):
        told = f"{what}: weights of {shape_text(node.shape)} for x of {shape_text(x.shape)}"
        raise located(ShapeError(f"{told}: one for each element is needed"))
    return node


@public()
def bincount(x: Operand, /, *, weights: Operand | None = None, minlength: int = 0, length: int | None = None) -> Node:
    """Return how often each of the numbers 0 .. `length` - 1 is in `x`.

    Parameters
    ----------
    x
        A vector of integers that are not negative.
    weights
        What each element counts, taken as float64; 1 by default.
    minlength
        The least size of the result, as in numpy.
    length
        How many numbers to count. numpy finds out by looking for the greatest; here the size of a result cannot depend
        on data, so it must be given.

    Returns
    -------
    Node
        int64, or float64 if there are weights, which are added in the order of `x`.

    Raises
    ------
    GraphError
        Without `length`.
    DTypeError
        If `x` holds no integers.
    ShapeError
        If `x` is no vector, or there are not as many weights.
    IndexRangeError
        While the graph runs, for a number that is negative or not below `length`; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bincount(jf.constant([1, 3, 1]), length=4), {})
    array([0, 2, 0, 1])
    """
    node = as_node(x)
    if length is None:
        what = "bincount: length is needed, since the size of a result cannot depend on data"
        raise located(GraphError(f"{what}; give one more than the greatest number there can be"))
    size = max(as_int(length, "bincount: length"), as_int(minlength, "bincount: minlength"), 0)
    counts = bincount_op(node, size=size)
    if weights is None:
        return counts
    # As unsigned numbers negative ones are too large, instead of counting from the end.
    counted = as_dtype_of(_weights_of(node, weights, "bincount"), float64)
    return segment_sum_op(counted, as_dtype_of(node, uint64), axis=0, size=size)


# ---- histogram


@public()
def histogram(
    x: Operand,
    /,
    bins: Operand = 10,
    *,
    range: tuple[Any, Any] | None = None,
    weights: Operand | None = None,
    density: bool = False,
) -> tuple[Node, Node]:
    """Return how many elements of `x` lie in each bin, and the edges of the bins.

    Parameters
    ----------
    x
        A tensor of numbers, of any shape.
    bins
        How many bins of one width there are; or their edges, ascending, as a vector. Each bin has its left edge but
        not its right one, except for the last, which has both.
    range
        The outer edges of `bins` of one width: numbers or 0-d tensors; by default the least and the greatest element.
        Elements outside, and NaN, are not counted.
    weights
        What each element counts, in the shape of `x`; 1 by default.
    density
        Whether to give shares of the total per unit of width instead, so that the integral is 1.

    Returns
    -------
    tuple
        The counts, int64 or of the dtype of `weights`, or floats if `density`; and the edges, one more.

    Raises
    ------
    GraphError
        For fewer than one bin, or edges that are known and descend.
    DTypeError
        If `x` holds no numbers.
    ShapeError
        If `bins` are neither a number nor a vector, or `weights` do not fit; without `range` for no elements.

    Examples
    --------
    >>> import jitflow as jf
    >>> counts, edges = jf.histogram(jf.constant([1.0, 2.0, 1.0, 4.0]), 3, range=(1, 4))
    >>> jf.interpret([counts, edges], {})
    [array([2, 1, 1]), array([1., 2., 3., 4.])]
    """
    node = widened_input(as_numbers(x, "histogram"))
    counted = _weights_of(node, weights, "histogram")
    if counted.dtype.is_bool:
        counted = as_dtype_of(counted, int64)
    given = as_node(bins)
    edges = _checked_edges(given) if given.shape else _even_edges(node, _bin_count(given), range)
    line, values = promoted(edges, reshape_to(node, (element_count(node.shape),)))
    n = as_int(edges.shape[0], "histogram: the number of edges")
    # Place k of the search is bin k - 1: the first place lies before all edges, and the last one beyond them.
    place = searchsorted_op(line, values, side="right")
    last = slice_axes(line, {0: (n - 1, 1, 1)})
    place = where(equal(values, last), make_constant(n - 1, int64), place)
    flat = reshape_to(broadcast_to(counted, node.shape), values.shape)
    counts = slice_axes(segment_sum_op(flat, place, axis=0, size=n + 1), {0: (1, n - 1, 1)})
    if not as_flag(density, "histogram: density"):
        return counts, edges
    widths = subtract(slice_axes(edges, {0: (1, n - 1, 1)}), slice_axes(edges, {0: (0, n - 1, 1)}))
    shares = as_float(counts)
    total = reduce_sum_op(shares, axes=(0,), dtype=shares.dtype)
    return divide(divide(shares, widths), total), edges


def _bin_count(bins: Node) -> int:
    if bins.op is not constant_op or not bins.dtype.is_integer:
        raise located(GraphError("histogram: the number of bins must be an int that is known when the graph is built"))
    count = int(bins.attr("value").array)
    if count < 1:
        raise located(GraphError(f"histogram: there must be one bin or more, got {count}"))
    return count


def _checked_edges(edges: Node) -> Node:
    if len(edges.shape) != 1 or edges.shape[0] in (0, 1):
        raise located(ShapeError(f"histogram: edges must be a vector of two or more, got {shape_text(edges.shape)}"))
    if edges.dtype.is_bool:
        raise located(DTypeError("histogram: edges must be numbers, not bool"))
    if not isinstance(edges.shape[0], int):
        raise located(ShapeError(f"histogram: how many edges there are must be known, got {shape_text(edges.shape)}"))
    if edges.op is constant_op:
        values: np.ndarray[Any, Any] = edges.attr("value").array
        if (values[1:] < values[:-1]).any():
            raise located(GraphError("histogram: edges must ascend"))
    return edges


def _even_edges(x: Node, count: int, range: tuple[Any, Any] | None) -> Node:
    """Return the edges of `count` bins of one width, computed as ``np.linspace`` does."""
    dtype = float_of(x.dtype)
    if range is not None:
        try:
            low, high = range
        except (TypeError, ValueError):
            raise located(GraphError(f"histogram: range must be two numbers, got {range!r}")) from None
        known = [as_node(end) for end in (low, high)]
        if all(end.op is constant_op and not end.shape for end in known):
            ends = [float(end.attr("value").array) for end in known]
            return make_constant(_known_edges(ends[0], ends[1], count), dtype)
        first, last = (as_dtype_of(reshape_to(end, ()), dtype) for end in known)
    elif 0 in x.shape:
        return make_constant(np.linspace(0.0, 1.0, count + 1), dtype)
    else:
        first, last = (as_dtype_of(fold(x), dtype) for fold in (reduce.min, reduce.max))
    # A single value lies in the middle of a range of width 1.
    is_single = equal(first, last)
    first, last = where(is_single, subtract(first, 0.5), first), where(is_single, add(last, 0.5), last)
    steps = as_dtype_of(arange_op(start=0, step=1, size=count, dtype=int64), dtype)
    inner = add(multiply(steps, divide(subtract(last, first), float(count))), first)
    return concat([inner, reshape_to(last, (1,))])


def _known_edges(low: float, high: float, count: int) -> np.ndarray[Any, Any]:
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise located(GraphError(f"histogram: range must be two ascending, finite numbers, got ({low}, {high})"))
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, count + 1)
