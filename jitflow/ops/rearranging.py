"""Rearrangements written with reshape, permute_dims, flip and broadcast_to: tile, repeat, swapaxes, rot90, ravel.

They are functions, not operators: graphs show what they are made of, which costs nothing once fused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import int64
from jitflow.errors import DataDependentShapeError, DTypeError, ShapeError
from jitflow.graph import Node, Operand, as_node, constant_op, located, make_constant, within
from jitflow.ops.axes import as_int, normalize_axes, normalize_axis
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.index import take_op
from jitflow.ops.joining import concat
from jitflow.ops.movement import flip_op, permute_dims, reshape_to
from jitflow.public import public
from jitflow.types import Dim, SymDim, as_dim, element_count, mul_dims, same_dim, shape_text

#: Up to so many copies `tile` joins; more would make long code.
_JOINED = 8


@public()
def tile(x: Operand, repetitions: int | Sequence[int], /) -> Node:
    """Return `x` set side by side: ``repetitions[k]`` copies along axis k, counted from the last.

    Parameters
    ----------
    x
        Any tensor.
    repetitions
        A dim, or several, which may be symbolic. If they are more than the axes of `x`, it gets new ones in front; if
        they are fewer, the first axes stay as they are.

    Raises
    ------
    ShapeError
        For a negative number of copies.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tile(jf.constant([1, 2]), (2, 2)), {})
    array([[1, 2, 1, 2],
           [1, 2, 1, 2]])
    """
    node = as_node(x)
    given = repetitions if isinstance(repetitions, (tuple, list)) else (repetitions,)
    rank = max(len(node.shape), len(given))
    shape = (1,) * (rank - len(node.shape)) + node.shape
    copies = [1 if r is None else _count(r, "tile") for r in (*[None] * (rank - len(given)), *given)]
    node = reshape_to(node, shape)
    for axis, (n, r) in enumerate(zip(shape, copies, strict=True)):
        # A few copies of an axis of unknown size: joined, they are found without dividing by it.
        if not isinstance(n, int) and isinstance(r, int) and 1 < r <= _JOINED:
            node = concat([node] * r, axis=axis)
            copies[axis] = 1
    # Every other axis that is copied gets one before it, along which the copies lie.
    apart: list[Dim] = []
    wide: list[Dim] = []
    for n, r in zip(node.shape, copies, strict=True):
        apart += [1, n] if r != 1 else [n]
        wide += [r, n] if r != 1 else [n]
    spread = broadcast_to(reshape_to(node, tuple(apart)), tuple(wide))
    return reshape_to(spread, tuple(mul_dims(r, n) for n, r in zip(node.shape, copies, strict=True)))


def _count(given: Any, what: str) -> Dim:
    """Return a number of copies as a dim."""
    try:
        return as_dim(given if isinstance(given, SymDim) else as_int(given, f"{what}: a number of copies"))
    except ShapeError as error:
        raise located(ShapeError(f"{what}: {error}")) from None


@public()
def repeat(x: Operand, repeats: int | Sequence[int], /, *, axis: int | None = None) -> Node:
    """Return `x` with each element repeated along `axis`, neighbours staying neighbours.

    Parameters
    ----------
    x
        Any tensor.
    repeats
        How often: a dim, or one number per element of the axis, known when the graph is built.
    axis
        The axis; None repeats the elements of the flattened tensor.

    Raises
    ------
    ShapeError
        For a negative number, or if there are not as many numbers as elements. (For a symbolic axis that is a
        FeedError of the run.)
    DataDependentShapeError
        If `repeats` is a tensor that is no constant: the shape would depend on its values.
    DTypeError
        If `repeats` are no integers.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.repeat(jf.constant([1, 2]), 2), {})
    array([1, 1, 2, 2])
    >>> jf.interpret(jf.repeat(jf.constant([1, 2, 3]), [0, 2, 1]), {})
    array([2, 2, 3])
    """
    node = as_node(x)
    if axis is None:
        node, k = ravel(node), 0
    else:
        k = normalize_axis(axis, len(node.shape), "repeat")
    counts = _known_counts(repeats)
    before, n, after = node.shape[:k], node.shape[k], node.shape[k + 1 :]
    if counts is None or counts.size == 1:
        times = _count(repeats if counts is None else counts.item(), "repeat")
        spread = broadcast_to(reshape_to(node, (*before, n, 1, *after)), (*before, n, times, *after))
        return reshape_to(spread, (*before, mul_dims(n, times), *after))
    if counts.ndim != 1 or same_dim(n, counts.size) is False:
        got = shape_text(counts.shape)
        raise located(ShapeError(f"repeat: repeats of shape {got} for an axis of {shape_text(node.shape[k : k + 1])}"))
    if counts.min(initial=0) < 0:
        raise located(ShapeError(f"repeat: {int(counts.min())} is no number of copies"))
    known = reshape_to(node, (*before, counts.size, *after))
    return take_op(known, make_constant(np.repeat(np.arange(counts.size), counts), int64), axis=k)


def _known_counts(repeats: Any) -> np.ndarray[Any, Any] | None:
    """Return several numbers of copies as an array; None if `repeats` is a single one."""
    if isinstance(repeats, (SymDim, int)):
        return None
    with within("repeat"):
        node = as_node(repeats)
    if node.op is not constant_op:
        advice = "give the numbers as a Python list or an array, or take at indices of a known length"
        raise located(DataDependentShapeError(f"repeat: the shape would depend on the values of {node!r}; {advice}"))
    counts: np.ndarray[Any, Any] = node.attr("value").array
    if counts.size == 0:
        return counts.astype(np.int64)
    if not node.dtype.is_integer:
        raise located(DTypeError(f"repeat: repeats must be integers, got {node.dtype}"))
    return counts


@public()
def swapaxes(x: Operand, axis1: int, axis2: int, /) -> Node:
    """Return `x` with two axes exchanged.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.swapaxes(jf.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    node = as_node(x)
    rank = len(node.shape)
    a, b = (normalize_axis(k, rank, "swapaxes") for k in (axis1, axis2))
    order = list(range(rank))
    order[a], order[b] = b, a
    return permute_dims(node, order)


@public()
def ravel(x: Operand, /) -> Node:
    """Return the elements of `x` in row-major order as one axis.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.ravel(jf.placeholder("x", jf.float32, ("n", 2))).shape
    (n*2,)
    """
    node = as_node(x)
    return node if len(node.shape) == 1 else reshape_to(node, (element_count(node.shape),))


@public()
def rot90(x: Operand, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Node:
    """Return `x` rotated by `k` quarter turns in the plane of two axes, from the first towards the second.

    Raises
    ------
    ShapeError
        Unless `axes` are two different ones.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        For a `k` that is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.rot90(jf.constant([[1, 2], [3, 4]])), {})
    array([[2, 4],
           [1, 3]])
    """
    node = as_node(x)
    plane = normalize_axes(axes, len(node.shape), "rot90")
    if len(plane) != 2:
        raise located(ShapeError(f"rot90: axes must be two, got {axes}"))
    a, b = plane
    turns = as_int(k, "rot90: k") % 4
    if turns == 0:
        return node
    if turns == 2:
        return flip_op(node, axes=tuple(sorted(plane)))
    return swapaxes(flip_op(node, axes=(b,)), a, b) if turns == 1 else flip_op(swapaxes(node, a, b), axes=(b,))


@public()
def atleast_1d(x: Operand, /) -> Node:
    """Return `x`, a single number as a vector of one element.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.atleast_1d(jf.constant(3)).shape
    (1,)
    """
    node = as_node(x)
    return reshape_to(node, (1,)) if not node.shape else node


@public()
def atleast_2d(x: Operand, /) -> Node:
    """Return `x` with at least two axes: new ones of size 1 come in front.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.atleast_2d(jf.constant([3, 4])).shape
    (1, 2)
    """
    node = as_node(x)
    return reshape_to(node, (1,) * (2 - len(node.shape)) + node.shape)


@public()
def atleast_3d(x: Operand, /) -> Node:
    """Return `x` with at least three axes, as numpy does: a vector becomes ``(1, n, 1)``, a matrix ``(n, m, 1)``.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.atleast_3d(jf.constant([3, 4])).shape
    (1, 2, 1)
    """
    node = atleast_1d(x)
    if len(node.shape) == 1:
        return reshape_to(node, (1, *node.shape, 1))
    return reshape_to(node, (*node.shape, 1)) if len(node.shape) == 2 else node
