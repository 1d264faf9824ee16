"""Tensors put together: concat, stack.

An element comes from one of several places: the rule reads each in an arm of a ``Select`` on where the subscript lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64, int32
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, as_index, const_index, select
from jitflow.graph import Index, Node, Operand, Reader, Sample, define_op, located
from jitflow.ops.axes import normalize_axis
from jitflow.ops.cast import promoted
from jitflow.ops.movement import expand_dims, reshape, reshape_to
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import draw
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import (
    Dim,
    TensorType,
    add_dims,
    shape_text,
    unify,
)

# ---- concat and stack


def _infer_concat(*xs: TensorType, axis: int) -> TensorType:
    first = xs[0]
    what = f"concat of {' and '.join(shape_text(x.shape) for x in xs[:4])}{' ...' if len(xs) > 4 else ''}"
    if first.rank == 0:
        raise ShapeError(f"{what}: a 0-d tensor has no axis to join")
    shape = list(first.shape)
    for x in xs[1:]:
        if x.dtype is not first.dtype:
            raise DTypeError(f"{what}: dtypes {first.dtype} and {x.dtype} differ")
        if x.rank != first.rank:
            raise ShapeError(f"{what}: all must have the same rank")
        for k in range(first.rank):
            if k != axis:
                shape[k] = unify(shape[k], x.shape[k], f"{what}: axis {k}")
    shape[axis] = add_dims(*(x.shape[axis] for x in xs))
    return TensorType(first.dtype, tuple(shape))


def _element_concat(index: Index, *xs: Reader, axis: int) -> Expr:
    """Select by position, in a tree as deep as the logarithm of the number of inputs."""
    starts: list[Expr] = [const_index(0)]
    for x in xs:
        starts.append(simplify_index(starts[-1] + as_index(x.type.shape[axis])))
    parts = [k for k, x in enumerate(xs) if x.type.shape[axis] != 0] or [0]
    i = index[axis]

    def pick(low: int, high: int) -> Expr:
        if high - low == 1:
            k = parts[low]
            return xs[k](*index[:axis], i - starts[k], *index[axis + 1 :])
        middle = (low + high) // 2
        return select(i < starts[parts[middle]], pick(low, middle), pick(middle, high))

    return pick(0, len(parts))


def _vjp_concat(ct: Node, out: Node, *xs: Node, axis: int) -> tuple[Node, ...]:
    grads = []
    start: Dim = 0
    for x in xs:
        grads.append(slice_axes(ct, {axis: (start, x.shape[axis], 1)}))
        start = add_dims(start, x.shape[axis])
    return tuple(grads)


def _samples_concat(rng: np.random.Generator) -> Iterator[Sample]:
    for axis, shapes in (
        (0, ((3,), (2,))),
        (1, ((2, 1), (2, 3), (2, 2))),
        (0, ((0, 2), (1, 2), (0, 2))),
        (0, ((0,), (0,))),
        (0, ((4,),)),
        (0, ((1,),) * 9),
    ):
        yield Sample(tuple(draw(rng, float64, *s) for s in shapes), {"axis": axis})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 70), draw(rng, dtype, 3, 9)), {"axis": 1})
    a = draw(rng, float32, 2, 3)
    yield Sample((a, draw(rng, float32, 3, 3)), {"axis": 1}, ShapeError, r"concat of \(2, 3\) and \(3, 3\): axis 0")
    yield Sample((a, draw(rng, float32, 3)), {"axis": 0}, ShapeError, "same rank")
    yield Sample((a, draw(rng, int32, 2, 3)), {"axis": 0}, DTypeError, "float32 and int32 differ")
    yield Sample((a[0, 0], a[0, 0]), {"axis": 0}, ShapeError, "0-d")


concat_op = define_op(
    "concat",
    infer=_infer_concat,
    element=_element_concat,
    numpy=lambda *xs, axis: np.concatenate(xs, axis),
    vjp=_vjp_concat,
    samples=_samples_concat,
    exact=True,
    movement=True,
)


def _sequence(xs: Any, what: str) -> tuple[Node, ...]:
    """Return the tensors of a tuple or list, promoted to one dtype."""
    if not isinstance(xs, (tuple, list)):
        raise located(DTypeError(f"{what}: a tuple or list of tensors is needed, got {type(xs).__name__}"))
    if not xs:
        raise located(ShapeError(f"{what}: at least one tensor is needed"))
    return promoted(*xs)


@public()
def concat(arrays: Sequence[Operand], /, *, axis: int | None = 0) -> Node:
    """Return tensors joined along `axis` (None: each flattened first), promoted to one dtype.

    Parameters
    ----------
    arrays
        A tuple or list of tensors that agree in all other axes.
    axis
        The axis to join; its size is the sum of theirs.

    Raises
    ------
    ShapeError
        If ranks or other axes differ, or there is nothing to join.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        If `arrays` is no tuple or list.

    Examples
    --------
    >>> import jitflow as jf
    >>> a, b = jf.placeholder("a", jf.float32, ("n",)), jf.placeholder("b", jf.float32, ("m",))
    >>> jf.concat([a, b]).shape
    (m + n,)
    """
    nodes = _sequence(arrays, "concat")
    if axis is None:
        nodes, axis = tuple(reshape(x, (-1,)) for x in nodes), 0
    rank = len(nodes[0].shape)
    if rank:
        axis = normalize_axis(axis, rank, "concat")
    return nodes[0] if len(nodes) == 1 and rank else concat_op(*nodes, axis=axis)


def _infer_stack(*xs: TensorType, axis: int) -> TensorType:
    shape = list(xs[0].shape)
    if not 0 <= axis <= len(shape):
        raise ShapeError(f"stack: axis {axis} is out of range for {len(shape) + 1} axes")
    for x in xs[1:]:
        if x.dtype is not xs[0].dtype:
            raise DTypeError(f"stack: dtypes {xs[0].dtype} and {x.dtype} differ")
        if x.rank != len(shape):
            raise ShapeError(f"stack: shapes {shape_text(shape)} and {shape_text(x.shape)} differ")
        what = f"stack of {shape_text(xs[0].shape)} and {shape_text(x.shape)}"
        shape = [unify(a, b, f"{what}: axis {k}") for k, (a, b) in enumerate(zip(shape, x.shape, strict=True))]
    return TensorType(xs[0].dtype, (*shape[:axis], len(xs), *shape[axis:]))


def _samples_stack(rng: np.random.Generator) -> Iterator[Sample]:
    for axis, count, shape in ((0, 2, (3,)), (1, 3, (3,)), (0, 4, ()), (2, 1, (2, 3)), (1, 2, (2, 0))):
        yield Sample(tuple(draw(rng, float64, *shape) for _ in range(count)), {"axis": axis})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 70), draw(rng, dtype, 70)), {"axis": 1})
    a, b = draw(rng, float64, 2), draw(rng, float64, 3)
    yield Sample((a, b), {"axis": 0}, ShapeError, r"stack of \(2,\) and \(3,\): axis 0")
    yield Sample((a, a.astype(np.int64)), {"axis": 0}, DTypeError, "float64 and int64 differ")


stack_op = define_op(
    "stack",
    infer=_infer_stack,
    expand=lambda *xs, axis: concat([expand_dims(x, axis=axis) for x in xs], axis=axis),
    numpy=lambda *xs, axis: np.stack(xs, axis),
    vjp=lambda ct, out, *xs, axis: tuple(
        reshape_to(slice_axes(ct, {axis: (k, 1, 1)}), x.shape) for k, x in enumerate(xs)
    ),
    samples=_samples_stack,
    exact=True,
    movement=True,
)


@public()
def stack(arrays: Sequence[Operand], /, *, axis: int = 0) -> Node:
    """Return tensors of one shape joined along a new axis, promoted to one dtype.

    Raises
    ------
    ShapeError
        If their shapes differ, or there is nothing to join.
    StaticIndexError
        For a place outside the result's axes.
    DTypeError
        If `arrays` is no tuple or list.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.stack([jf.zeros((3,)), jf.ones((3,))], axis=-1).shape
    (3, 2)
    """
    nodes = _sequence(arrays, "stack")
    return stack_op(*nodes, axis=normalize_axis(axis, len(nodes[0].shape) + 1, "stack"))
