"""matmul: the contraction of the last axis of one tensor with the last but one of another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jitflow.dtypes import SUPPORTED, bool_, float32, float64, int32
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, Reduce, Var, as_index, const_index
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, define_op, located
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import promoted
from jitflow.ops.movement import matrix_transpose, reshape_op
from jitflow.ops.testdata import Array, draw, edges
from jitflow.types import TensorType, broadcast_shapes, shape_text, unify


def _infer(a: TensorType, b: TensorType) -> TensorType:
    what = f"matmul of {shape_text(a.shape)} and {shape_text(b.shape)}"
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(f"{what}: both need two axes at least")
    if a.dtype is not b.dtype:
        raise DTypeError(f"{what}: dtypes {a.dtype} and {b.dtype} differ")
    unify(a.shape[-1], b.shape[-2], f"{what}: axes -1 and -2")
    batch = broadcast_shapes([a.shape[:-2], b.shape[:-2]], f"{what}: batch axes")
    return TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1]))


def _batch(index: tuple[Expr, ...], x: Reader) -> tuple[Expr, ...]:
    """Return the subscripts of the batch axes of `x`, aligned from the last; size 1 is read at 0."""
    dims = x.type.shape[:-2]
    skip = len(index) - len(dims)
    return tuple(const_index(0) if d == 1 else index[skip + k] for k, d in enumerate(dims))


def _element(index: Index, a: Reader, b: Reader) -> Expr:
    """One chain over increasing k: fused multiply-adds for numbers, "or" of "and" for bool."""
    k = Var("k", floor=0)
    *batch, i, j = index
    left = a(*_batch(tuple(batch), a), i, k)
    right = b(*_batch(tuple(batch), b), k, j)
    extent = as_index(a.type.shape[-1])
    if a.type.dtype is bool_:
        return Reduce("or", (k,), (extent,), left & right)
    return Reduce("add", (k,), (extent,), left * right, contract=True)


def _numpy(a: Array, b: Array) -> Array:
    """Return the product, of float32 by way of float64: each element is then the exact sum, rounded."""
    with np.errstate(all="ignore"):
        if a.dtype == np.float32:
            return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(np.float32))
        return np.asarray(np.matmul(a, b))


def _vjp(ct: Node, out: Node, a: Node, b: Node) -> tuple[Node, Node]:
    da = matmul_op(ct, matrix_transpose(b))
    db = matmul_op(matrix_transpose(a), ct)
    return unbroadcast(da, a.shape), unbroadcast(db, b.shape)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in SUPPORTED:
        for a, b in (
            ((2, 3), (3, 4)),
            ((1, 1), (1, 1)),
            ((3, 17), (17, 2)),
            ((2, 0), (0, 3)),
            ((0, 3), (3, 2)),
            ((2, 3, 4), (4, 2)),
            ((2, 2), (3, 2, 1)),
            ((2, 1, 2, 3), (3, 3, 2)),
        ):
            yield Sample((draw(rng, dtype, *a), draw(rng, dtype, *b)))
    for dtype in SUPPORTED:
        e = edges(dtype)
        yield Sample((e[:, None], e[None, :]), smooth=False)
        yield Sample((e[None, :], draw(rng, dtype, len(e), 2)), smooth=False)
    x = draw(rng, float32, 2, 3)
    yield Sample((x, x), raises=ShapeError, match=r"matmul of \(2, 3\) and \(2, 3\): axes -1 and -2: 3 and 2 differ")
    yield Sample((x[0], x.T), raises=ShapeError, match="both need two axes at least")
    yield Sample((x, draw(rng, float64, 3, 2)), raises=DTypeError, match="float32 and float64 differ")
    yield Sample((draw(rng, int32, 2, 2, 2), draw(rng, int32, 3, 2, 2)), raises=ShapeError, match="batch axes")


matmul_op: OpDef = define_op(
    "matmul",
    infer=_infer,
    element=_element,
    numpy=_numpy,
    vjp=_vjp,
    samples=_samples,
    ulp=2.0,
    scale=lambda a, b: np.matmul(a, b) * (4 + a.shape[-1]),
)


def matmul(x1: Operand, x2: Operand, /) -> Node:
    """Return the matrix product of the last two axes; the axes before them broadcast.

    Floats are added by one chain of fused multiply-adds over increasing k. Integers wrap around; of bool it is whether
    any pair is true.

    Parameters
    ----------
    x1, x2
        Tensors of rank 1 or more, promoted to one dtype. A vector is a row on the left and a column on the right, and
        its axis does not occur in the result.

    Raises
    ------
    ShapeError
        If the contracted axes differ, the others do not broadcast, or one is 0-d.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.matmul(jf.constant([[1.0, 2.0], [3.0, 4.0]]), jf.constant([1.0, 1.0])), {})
    array([3., 7.])
    """
    a, b = promoted(x1, x2)
    if not a.shape or not b.shape:
        what = f"matmul of {shape_text(a.shape)} and {shape_text(b.shape)}"
        raise located(ShapeError(f"{what}: a 0-d tensor has no axis to contract; use multiply"))
    left = reshape_op(a, shape=(1, *a.shape)) if len(a.shape) == 1 else a
    right = reshape_op(b, shape=(*b.shape, 1)) if len(b.shape) == 1 else b
    out = matmul_op(left, right)
    shape = out.shape[:-2]
    shape += () if len(a.shape) == 1 else (out.shape[-2],)
    shape += () if len(b.shape) == 1 else (out.shape[-1],)
    return out if shape == out.shape else reshape_op(out, shape=shape)
