"""diagonal, which picks the elements where the last two axes agree, and its transpose, which puts them among zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float64
from jitflow.errors import ShapeError
from jitflow.expr import Expr, as_index, const, eq, maximum, minimum, select
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, define_op, within
from jitflow.ops.axes import as_int, as_matrices, check_matrices
from jitflow.ops.reduce import sum
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import Array, draw
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import MAX_ELEMENTS, Dim, TensorType, fold_dim, shape_text, unify


def _infer_diagonal(x: TensorType) -> TensorType:
    check_matrices("diagonal", x.shape)
    n = unify(x.shape[-2], x.shape[-1], f"diagonal of {shape_text(x.shape)}: the last two axes must agree")
    return TensorType(x.dtype, (*x.shape[:-2], n))


def _samples_diagonal(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 3),))
    for shape in ((1, 1), (0, 0), (2, 4, 4), (2, 0, 5, 5)):
        yield Sample((draw(rng, float64, *shape),))
    yield Sample((draw(rng, float64, 2, 3),), raises=ShapeError, match=r"diagonal of \(2, 3\): .* must agree: 2 and 3")
    yield Sample((draw(rng, float64, 3),), raises=ShapeError, match="at least two axes are needed")


diagonal_op: OpDef = define_op(
    "diagonal",
    infer=_infer_diagonal,
    element=lambda index, x: x(*index, index[-1]),
    numpy=lambda x: np.diagonal(x, axis1=-2, axis2=-1).copy(),
    vjp=lambda ct, out, x: (undiagonal_op(ct),),
    samples=_samples_diagonal,
    exact=True,
    movement=True,
)


def _infer_undiagonal(x: TensorType) -> TensorType:
    if x.rank < 1:
        raise ShapeError("undiagonal: at least one axis is needed, got ()")
    return TensorType(x.dtype, (*x.shape, x.shape[-1]))


def _element_undiagonal(index: Index, x: Reader) -> Expr:
    *batch, i, j = index
    return select(eq(i, j), x(*batch, i), const(0, x.type.dtype))


def _numpy_undiagonal(x: Array) -> Array:
    out = np.zeros((*x.shape, x.shape[-1]), x.dtype)
    k = np.arange(x.shape[-1])
    out[..., k, k] = x
    return out


def _samples_undiagonal(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3),))
    for shape in ((1,), (0,), (2, 4), (2, 0, 5)):
        yield Sample((draw(rng, float64, *shape),))
    yield Sample((draw(rng, float64),), raises=ShapeError, match="at least one axis is needed")


#: The transpose of `diagonal`: square matrices that are zero beside their diagonal.
undiagonal_op: OpDef = define_op(
    "undiagonal",
    infer=_infer_undiagonal,
    element=_element_undiagonal,
    numpy=_numpy_undiagonal,
    vjp=lambda ct, out, x: (diagonal_op(ct),),
    samples=_samples_undiagonal,
    exact=True,
    movement=True,
)


@public("linalg")
def diagonal(x: Operand, /, *, offset: int = 0) -> Node:
    """Return the elements on a diagonal of the last two axes, as the last axis.

    Parameters
    ----------
    x
        A tensor of shape (..., n, m).
    offset
        How far right of the main diagonal; negative: below it.

    Raises
    ------
    ShapeError
        Below rank 2.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.diagonal(jf.constant([[1, 2, 3], [4, 5, 6]]), offset=1), {})
    array([2, 6])
    """
    node = as_matrices(x, "diagonal")
    rank = len(node.shape)
    n, m = node.shape[-2:]
    k = reachable(as_int(offset, "diagonal: offset"))
    down, right = (-k, 0) if k < 0 else (0, k)
    length = _length(n, m, down, right)
    cut = {rank - 2: (down, length, 1), rank - 1: (right, length, 1)}
    return diagonal_op(slice_axes(node, cut))


def reachable(k: int) -> int:
    """Return diagonal `k`, or, of those further off than any matrix has one, the nearest."""
    return max(-MAX_ELEMENTS, min(k, MAX_ELEMENTS))


def _length(n: Dim, m: Dim, down: int, right: int) -> Dim:
    """Return how many elements the diagonal from (`down`, `right`) of an `n` by `m` matrix has."""
    least = minimum(as_index(n) - down, as_index(m) - right)
    return fold_dim(simplify_index(maximum(least, 0)))


@public("linalg")
def trace(x: Operand, /, *, offset: int = 0, dtype: Any = None) -> Node:
    """Return the sum of a diagonal of the last two axes.

    Parameters
    ----------
    x
        A tensor of shape (..., n, m).
    offset
        How far right of the main diagonal; negative: below it.
    dtype
        The dtype to add in and of the result, as for `sum`.

    Raises
    ------
    ShapeError
        Below rank 2.
    DTypeError
        For a dtype of bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.linalg.trace(jf.constant([[1, 2], [3, 4]])), {})
    array(5)
    """
    with within("trace"):
        return sum(diagonal(x, offset=offset), axis=-1, dtype=dtype)
