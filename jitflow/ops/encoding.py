"""Whole numbers into vectors: one_hot, and embedding, which looks vectors up in a table."""

from __future__ import annotations

from typing import Any

from jitflow.dtypes import float64, int64, uint64
from jitflow.errors import DTypeError, ShapeError
from jitflow.graph import Node, Operand, as_node, located
from jitflow.ops.axes import checked_shape, normalize_axis
from jitflow.ops.cast import as_dtype_of, astype
from jitflow.ops.compare import equal_op
from jitflow.ops.creation import arange_op
from jitflow.ops.index import take
from jitflow.ops.movement import expand_dims, reshape_to
from jitflow.public import public
from jitflow.types import shape_text


@public("nn")
def one_hot(indices: Operand, n: Any, /, *, axis: int = -1, dtype: Any = float64) -> Node:
    """Return vectors that are 1 at the place of their index and 0 elsewhere.

    Parameters
    ----------
    indices
        A tensor of integers; one that is negative, or `n` or more, gives zeros.
    n
        The length of the vectors: an int or a dim.
    axis
        Where the new axis is in the result.
    dtype
        The dtype of the result, which may be bool.

    Raises
    ------
    DTypeError
        If `indices` are no integers, or there is no such dtype.
    ShapeError
        If `n` is no dim.
    StaticIndexError
        For a place outside the result's axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.one_hot(jf.constant([2, 0]), 3), {})
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    node = as_node(indices)
    if not node.dtype.is_integer:
        raise located(DTypeError(f"one_hot: indices are integers, not {node.dtype}"))
    wide = uint64 if node.dtype is uint64 else int64
    rank = len(node.shape) + 1
    k = normalize_axis(axis, rank, "one_hot")
    (count,) = checked_shape((n,))
    places = arange_op(start=0, step=1, size=count, dtype=wide)
    places = reshape_to(places, tuple(count if j == k else 1 for j in range(rank)))
    return astype(equal_op(expand_dims(as_dtype_of(node, wide), axis=k), places), dtype)


@public("nn")
def embedding(table: Operand, indices: Operand, /) -> Node:
    """Return the rows of `table` that `indices` name.

    Parameters
    ----------
    table
        A tensor of shape (n, d).
    indices
        A tensor of integers from 0 to n - 1, or from -n, which counts from the end.

    Returns
    -------
    Node
        Of the shape of `indices`, and d.

    Raises
    ------
    ShapeError
        If `table` has not two axes.
    DTypeError
        If `indices` are no integers.
    IndexRangeError
        While the graph runs, for an index outside the table; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> table = jf.constant([[1.0, 2.0], [3.0, 4.0]])
    >>> jf.interpret(jf.nn.embedding(table, jf.constant([1, 1, 0])), {})
    array([[3., 4.],
           [3., 4.],
           [1., 2.]])
    """
    node = as_node(table)
    if len(node.shape) != 2:
        raise located(ShapeError(f"embedding: a table has two axes, got {shape_text(node.shape)}"))
    return take(node, indices, axis=0)
