"""matmul, and products of tensors with labelled axes, which it computes.

`matmul` contracts the last axis of one tensor with the last but one of another. :func:`contract` is the product of two
tensors whose axes have labels, as in ``einsum``: everything that is a matrix product becomes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, as_dtype, bool_, float32, float64, int32
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, Reduce, Var, as_index, const_index
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, define_op, located
from jitflow.ops.broadcast import reduce_over, reduce_sum_op
from jitflow.ops.cast import cast_array, promoted
from jitflow.ops.elementwise import multiply_op
from jitflow.ops.fold import reduce_lanes
from jitflow.ops.logic import logical_and_op
from jitflow.ops.movement import matrix_transpose, permute_dims, permute_dims_op, reshape_op, reshape_to
from jitflow.ops.reduce import reduce_any_op
from jitflow.ops.testdata import Array, draw, edges, is_thorough
from jitflow.public import public
from jitflow.types import Shape, TensorType, broadcast_shapes, element_count, shape_text, unify

#: A label for each axis of a tensor.
Labels: TypeAlias = tuple[str, ...]


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
    """Fused multiply-adds for numbers, "or" of "and" for bool.

    They are one chain over increasing k, which has its fellows along a row of the result. A column has none, so its
    elements are added in as many lanes as a sum's.
    """
    k = Var("k", floor=0)
    *batch, i, j = index
    left = a(*_batch(tuple(batch), a), i, k)
    right = b(*_batch(tuple(batch), b), k, j)
    extent = as_index(a.type.shape[-1])
    if a.type.dtype is bool_:
        return Reduce("or", (k,), (extent,), left & right)
    lanes = reduce_lanes(a.type.dtype, (a.type.shape[-1],), (0,)) if b.type.shape[-1] == 1 else 1
    return Reduce("add", (k,), (extent,), left * right, lanes=lanes, contract=True)


def _numpy(a: Array, b: Array) -> Array:
    """Return the product, of narrower floats by way of float64: each element is then the exact sum, rounded."""
    dtype = as_dtype(a.dtype)
    with np.errstate(all="ignore"):
        if dtype.is_float and dtype is not float64:
            return cast_array(np.matmul(a.astype(np.float64), b.astype(np.float64)), dtype)
        return np.asarray(np.matmul(a, b))


def _vjp(ct: Node, out: Node, a: Node, b: Node) -> tuple[Node, Node]:
    """Contract the cotangent with the other factor, along its columns and every batch axis the factor is shared by.

    So the gradient of a weight that multiplies a whole batch is one product over rows and batch, not a sum of products.
    """
    batch = tuple(f"batch {k}" for k in range(len(out.shape) - 2))
    labels = (*batch, "m", "n")
    left = _own_axes(a, batch, ("m", "k"), out.shape)
    right = _own_axes(b, batch, ("k", "n"), out.shape)
    da = contract(ct, labels, *right, left[1])
    db = contract(*left, ct, labels, right[1])
    return reshape_to(da, a.shape), reshape_to(db, b.shape)


def _own_axes(x: Node, batch: Labels, matrix: Labels, shape: Shape) -> tuple[Node, Labels]:
    """Return a factor of a product of `shape` without the batch axes that broadcast, and the labels of the others."""
    own = (*batch[len(batch) - (len(x.shape) - 2) :], *matrix)
    full = dict(zip(batch, shape, strict=False))
    kept = [k for k, label in enumerate(own) if label in matrix or x.shape[k] != 1 or full[label] == 1]
    return reshape_to(x, tuple(x.shape[k] for k in kept)), tuple(own[k] for k in kept)


_SHAPES = (
    ((3, 17), (17, 2)),
    ((2, 3), (3, 4)),
    ((1, 1), (1, 1)),
    ((2, 0), (0, 3)),
    ((0, 3), (3, 2)),
    ((2, 3, 4), (4, 2)),
    ((2, 2), (3, 2, 1)),
    ((2, 1, 2, 3), (3, 3, 2)),
)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in SUPPORTED:
        for a, b in _SHAPES if is_thorough(dtype, SUPPORTED) else _SHAPES[:1]:
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


@public("jitflow", "linalg")
def matmul(x1: Operand, x2: Operand, /) -> Node:
    """Return the matrix product of the last two axes; the axes before them broadcast.

    Floats are added by one chain of fused multiply-adds over increasing k; in a product with a column, and in a row
    times a transposed matrix, in lanes like those of ``sum``. Integers wrap around; of bool it is whether any pair is
    true.

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
    out = matrix_product(left, right)
    shape = out.shape[:-2]
    shape += () if len(a.shape) == 1 else (out.shape[-2],)
    shape += () if len(b.shape) == 1 else (out.shape[-1],)
    return out if shape == out.shape else reshape_op(out, shape=shape)


def matrix_product(a: Node, b: Node) -> Node:
    """Return the product of matrices; of a vector and a transposed matrix by way of the matrix itself.

    A row times a matrix adds up its rows, a matrix times a column multiplies its rows: either reads rows.
    """
    is_row, is_column = a.shape[-2] == 1, b.shape[-1] == 1
    if is_row is is_column or not _is_transposed(b if is_row else a):
        return matmul_op(a, b)
    out = matmul_op(matrix_transpose(b), matrix_transpose(a))
    return reshape_to(out, (*out.shape[:-2], out.shape[-1], out.shape[-2]))


def _is_transposed(x: Node) -> bool:
    """Tell whether neighbours in the columns of `x` are neighbours in the tensor it was permuted from."""
    return x.op is permute_dims_op and dict(x.attrs)["axes"][-2] == len(x.shape) - 1


# ---- products of labelled axes


def contract(a: Node, a_labels: Labels, b: Node, b_labels: Labels, keep: Labels) -> Node:
    """Return the product of `a` and `b`, whose axes are labelled, summed over the labels that are not in `keep`.

    The result's axes are `keep`, in that order. No label occurs twice in one tensor, axes of one label have one size,
    and a label that only one of the two has is kept.
    """
    batch = tuple(k for k in a_labels if k in b_labels and k in keep)
    along = tuple(k for k in a_labels if k in b_labels and k not in keep)
    rows = tuple(k for k in a_labels if k not in b_labels)
    cols = tuple(k for k in b_labels if k not in a_labels)
    sizes = dict(zip((*a_labels, *b_labels), (*a.shape, *b.shape), strict=True))
    if not along:
        order = (*batch, *rows, *cols)
        out = product(_arranged(a, a_labels, order), _arranged(b, b_labels, order))
    elif not rows and not cols:
        # Products of two vectors are added in lanes, which one chain of multiply-adds could not use.
        order = (*batch, *along)
        both = product(_arranged(a, a_labels, order), _arranged(b, b_labels, order))
        out = sum_in_dtype(both, tuple(range(len(batch), len(order))))
    else:
        left = _merged(_arranged(a, a_labels, (*batch, *rows, *along)), len(batch), len(rows))
        right = _merged(_arranged(b, b_labels, (*batch, *along, *cols)), len(batch), len(along))
        out = matrix_product(left, right)
    found = (*batch, *rows, *cols)
    out = reshape_to(out, tuple(sizes[k] for k in found))
    return permute_dims(out, tuple(found.index(k) for k in keep))


def _arranged(x: Node, labels: Labels, order: Labels) -> Node:
    """Return `x` with its axes as in `order`, and an axis of size 1 for each label that it lacks."""
    moved = permute_dims(x, tuple(labels.index(k) for k in order if k in labels))
    sizes = dict(zip(labels, x.shape, strict=True))
    return reshape_to(moved, tuple(sizes.get(k, 1) for k in order))


def _merged(x: Node, batch: int, rows: int) -> Node:
    """Return `x` as matrices: the `rows` axes after the `batch` ones merged into one, and all that follow."""
    cut = batch + rows
    return reshape_to(x, (*x.shape[:batch], element_count(x.shape[batch:cut]), element_count(x.shape[cut:])))


def product(a: Node, b: Node) -> Node:
    """Return the product of the elements of two tensors, which broadcast; of bool, whether both are true."""
    return logical_and_op(a, b) if a.dtype.is_bool else multiply_op(a, b)


def sum_in_dtype(x: Node, axes: tuple[int, ...]) -> Node:
    """Return the sum of `x` over `axes` in its own dtype: of bool whether any is true, of integers wrapped around."""
    if not axes:
        return x
    if x.dtype.is_bool:
        return reduce_over(reduce_any_op, x, axes, False, "sum")
    return reduce_over(reduce_sum_op, x, axes, False, "sum", dtype=x.dtype)
