"""Elements looked up by index tensors: take, take_along_axis, and gather, which takes one tensor for each axis.

Negative indices count from the end. Every index is checked when the graph runs, also of elements that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64, int64
from jitflow.errors import DTypeError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.expr import Expr, as_index, call, const, select
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op, located, make_constant
from jitflow.ops.axes import check_axis, normalize_axis, row_major
from jitflow.ops.broadcast import aligned, broadcast_to
from jitflow.ops.cast import as_dtype_of
from jitflow.ops.checked_index import as_subscript, check_indices, numpy_checked
from jitflow.ops.compare import less_op
from jitflow.ops.creation import dim_size
from jitflow.ops.elementwise import add_op, multiply_op
from jitflow.ops.movement import reshape_to
from jitflow.ops.scattering import segment_sum_along_axis_op, segment_sum_op
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import INTEGERS, Array, draw
from jitflow.public import public
from jitflow.types import (
    Dim,
    TensorType,
    broadcast_shapes,
    element_count,
    mul_dims,
    shape_text,
    unify,
)


def _checked(raw: Expr, extent: Dim, position: Expr) -> Expr:
    """Return index `raw`, number `position` of its tensor, as a subscript of an axis of size `extent`."""
    return call("check_index", as_subscript(raw), as_index(extent), position)


def _from_front(indices: Node, n: Dim) -> Node:
    """Return `indices` as int64, negative ones counted from the end of an axis of size `n`."""
    given = as_dtype_of(indices, int64)
    return where_op(less_op(given, make_constant(0, int64)), add_op(given, dim_size(n, int64)), given)


# ---- take


def _infer_take(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    check_axis("take", axis, x.shape)
    check_indices("take", indices)
    if x.shape[axis] == 0 and 0 not in indices.shape:
        raise StaticIndexError(f"take: axis {axis} of {shape_text(x.shape)} has no elements to take")
    return TensorType(x.dtype, x.shape[:axis] + indices.shape + x.shape[axis + 1 :])


def _element_take(index: Index, x: Reader, indices: Reader, *, axis: int) -> Expr:
    """Read at the checked index; where the axis is empty there is nothing to read, and the check has failed."""
    rank = len(indices.type.shape)
    where = index[axis : axis + rank]
    extent = x.type.shape[axis]
    safe = _checked(indices(*where), extent, row_major(where, indices.type.shape))
    value = x(*index[:axis], safe, *index[axis + rank :])
    return select(as_index(extent) > 0, value, const(0, value.type))


def _numpy_take(x: Array, indices: Array, *, axis: int) -> Array:
    shape = x.shape[:axis] + indices.shape + x.shape[axis + 1 :]
    if 0 in shape:
        return np.zeros(shape, x.dtype)  # nothing is taken, so no index is looked at
    return np.asarray(np.take(x, numpy_checked("take", axis, x.shape[axis], indices), axis))


def _vjp_take(ct: Node, out: Node, x: Node, indices: Node, *, axis: int) -> tuple[Node, None]:
    count = element_count(indices.shape)
    flat = reshape_to(ct, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    return segment_sum_op(flat, reshape_to(indices, (count,)), axis=axis, size=x.shape[axis]), None


def _samples_take(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axis, indices in (
        ((5,), 0, [0, 4, -1, -5, 2, 2]),
        ((3, 4), 1, [3, 0]),
        ((3, 4), 0, [[1, 2], [-1, 0]]),
        ((2, 3, 2), 1, 2),
        ((3, 0), 0, [1]),
        ((3,), 0, np.zeros((0, 2), np.int64)),
        ((0, 2), 0, np.zeros(0, np.int64)),
        ((3, 0), 0, [7]),
    ):
        yield Sample((draw(rng, float64, *shape), np.asarray(indices)), {"axis": axis})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 4), np.array([3, -4], np.int32)), {"axis": 0})
    for dtype in INTEGERS:
        yield Sample((draw(rng, float32, 4), np.array([3, 0, 2], dtype.np)), {"axis": 0})
    x = draw(rng, float32, 3, 4)
    i = np.array([1, 4, -5])
    yield Sample((x, i), {"axis": 1}, IndexRangeError, "index 4 at 1 is out of range for axis 1 of size 4")
    yield Sample((x, i[2]), {"axis": 1}, IndexRangeError, "index -5 is out of range for axis 1 of size 4")
    yield Sample((x, np.array([[0], [-4]])), {"axis": 0}, IndexRangeError, r"index -4 at \(1, 0\) is out of range")
    huge = np.array([0, 2**64 - 1], np.uint64)
    yield Sample((x, huge), {"axis": 0}, IndexRangeError, "index 18446744073709551615 at 1 is out of range")
    yield Sample((x, i * 1.0), {"axis": 0}, DTypeError, "take: indices must be integers, got float64")
    yield Sample((x, i), {"axis": 2}, ShapeError, r"take: axis 2 is out of range for \(3, 4\)")
    yield Sample((x[:0], i), {"axis": 0}, StaticIndexError, "no elements to take")


take_op: OpDef = define_op(
    "take",
    infer=_infer_take,
    element=_element_take,
    numpy=_numpy_take,
    vjp=_vjp_take,
    samples=_samples_take,
    exact=True,
    storage=True,
    fallible=True,
)


@public()
def take(x: Operand, indices: Operand, /, *, axis: int | None = None) -> Node:
    """Return the elements of `x` at `indices` along `axis`.

    Parameters
    ----------
    x
        Any tensor.
    indices
        A tensor of integers; negative ones count from the end. Its axes take the place of `axis`.
    axis
        The axis; it may be left out for a vector.

    Raises
    ------
    DTypeError
        If `indices` are no integers.
    ShapeError
        For an axis that is not there.
    IndexRangeError
        While the graph runs, for an index outside the axis; it names the first.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.take(jf.constant([10, 20, 30]), jf.constant([2, 0, -1])), {})
    array([30, 10, 30])
    """
    node, where = as_node(x), as_node(indices)
    rank = len(node.shape)
    if axis is None and rank != 1:
        raise located(ShapeError(f"take: axis is needed, since x has shape {shape_text(node.shape)}"))
    return take_op(node, where, axis=0 if axis is None else normalize_axis(axis, rank, "take"))


# ---- take_along_axis


def _infer_along(x: TensorType, indices: TensorType, *, axis: int) -> TensorType:
    check_axis("take_along_axis", axis, x.shape)
    check_indices("take_along_axis", indices)
    what = f"take_along_axis of {shape_text(x.shape)} at {shape_text(indices.shape)}"
    if x.rank != indices.rank:
        raise ShapeError(f"{what}: both must have the same rank")
    if x.shape[axis] == 0 and 0 not in indices.shape:
        raise StaticIndexError(f"{what}: axis {axis} has no elements to take")
    pairs = enumerate(zip(x.shape, indices.shape, strict=True))
    return TensorType(x.dtype, tuple(k if a == axis else unify(n, k, f"{what}: axis {a}") for a, (n, k) in pairs))


def _element_along(index: Index, x: Reader, indices: Reader, *, axis: int) -> Expr:
    extent = x.type.shape[axis]
    safe = _checked(indices(*index), extent, row_major(index, indices.type.shape))
    value = x(*index[:axis], safe, *index[axis + 1 :])
    return select(as_index(extent) > 0, value, const(0, value.type))


def _numpy_along(x: Array, indices: Array, *, axis: int) -> Array:
    if 0 in indices.shape:
        return np.zeros(indices.shape, x.dtype)
    checked = numpy_checked("take_along_axis", axis, x.shape[axis], indices)
    return np.take_along_axis(x, checked, axis)


def _vjp_along(ct: Node, out: Node, x: Node, indices: Node, *, axis: int) -> tuple[Node, None]:
    return segment_sum_along_axis_op(ct, indices, axis=axis, size=x.shape[axis]), None


def _samples_along(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axis, count in (((5,), 0, 7), ((3, 4), 1, 2), ((3, 4), 0, 5), ((2, 3, 4), 1, 3), ((0, 3), 1, 2)):
        indices = rng.integers(-shape[axis], shape[axis], (*shape[:axis], count, *shape[axis + 1 :]))
        yield Sample((draw(rng, float64, *shape), indices), {"axis": axis})
    yield Sample((draw(rng, float64, 3, 0), np.zeros((3, 0), np.int64)), {"axis": 1})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 2, 3), np.array([[2, -3], [0, 0]], np.int8)), {"axis": 1})
    x = draw(rng, float32, 2, 3)
    i = np.array([[0, 1], [2, 3]])
    outside = r"take_along_axis: index 3 at \(1, 1\) is out of range for axis 1 of size 3"
    yield Sample((x, i), {"axis": 1}, IndexRangeError, outside)
    yield Sample((x, i), {"axis": 0}, ShapeError, r"take_along_axis of \(2, 3\) at \(2, 2\): axis 1: 3 and 2 differ")
    yield Sample((x, i[0]), {"axis": 0}, ShapeError, "same rank")
    yield Sample((x, i > 0), {"axis": 1}, DTypeError, "indices must be integers, got bool")
    yield Sample((x, i), {"axis": 2}, ShapeError, "axis 2 is out of range")
    yield Sample((x[:, :0], i), {"axis": 1}, StaticIndexError, "axis 1 has no elements to take")


take_along_axis_op: OpDef = define_op(
    "take_along_axis",
    infer=_infer_along,
    element=_element_along,
    numpy=_numpy_along,
    vjp=_vjp_along,
    samples=_samples_along,
    exact=True,
    storage=True,
    fallible=True,
)


@public()
def take_along_axis(x: Operand, indices: Operand, /, *, axis: int = -1) -> Node:
    """Return the elements of `x` that `indices` name along `axis`, each row by indices of its own.

    Parameters
    ----------
    x
        Any tensor.
    indices
        A tensor of integers with as many axes, such as `argsort` gives; the other axes broadcast. Negative ones count
        from the end.
    axis
        The axis along which the indices count.

    Raises
    ------
    DTypeError
        If `indices` are no integers.
    ShapeError
        If the two have not the same rank, or other axes do not broadcast.
    StaticIndexError
        For an axis that is not there.
    IndexRangeError
        While the graph runs, for an index outside the axis; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[10, 20, 30], [40, 50, 60]])
    >>> jf.interpret(jf.take_along_axis(x, jf.constant([[2, 0], [1, -1]])), {})
    array([[30, 10],
           [50, 60]])
    """
    node, where = as_node(x), as_node(indices)
    k = normalize_axis(axis, len(node.shape), "take_along_axis")
    if len(node.shape) != len(where.shape):
        return take_along_axis_op(node, where, axis=k)  # which says what is wrong
    rest = [(*shape[:k], *shape[k + 1 :]) for shape in (node.shape, where.shape)]
    try:
        shape = broadcast_shapes(rest, "take_along_axis")
    except ShapeError as error:
        raise located(error) from None
    full, wide = ((*shape[:k], d, *shape[k:]) for d in (node.shape[k], where.shape[k]))
    return take_along_axis_op(broadcast_to(node, full), broadcast_to(where, wide), axis=k)


# ---- gather


def _infer_gather(x: TensorType, *indices: TensorType) -> TensorType:
    if not 0 < len(indices) <= x.rank:
        raise ShapeError(f"gather: {len(indices)} tensors of indices for {shape_text(x.shape)}")
    for i in indices:
        check_indices("gather", i)
    picked = broadcast_shapes([i.shape for i in indices], "gather: indices of")
    if 0 in x.shape[: len(indices)] and 0 not in picked:
        raise StaticIndexError(f"gather: {shape_text(x.shape)} has no elements to take")
    return TensorType(x.dtype, picked + x.shape[len(indices) :])


def _element_gather(index: Index, x: Reader, *indices: Reader) -> Expr:
    """Read at the checked indices; where an axis is empty there is nothing to read, and a check has failed."""
    if 0 in x.type.shape[: len(indices)]:
        return const(0, x.type.dtype)  # of no element: there must be none to take
    picked = broadcast_shapes([i.type.shape for i in indices], "gather")
    where = Index(index[: len(picked)], index.type)
    position = row_major(where, picked)
    safe = [_checked(aligned(where, i), n, position) for i, n in zip(indices, x.type.shape, strict=False)]
    value = x(*safe, *index[len(picked) :])
    for n in x.type.shape[: len(indices)]:
        value = select(as_index(n) > 0, value, const(0, value.type))
    return value


def _numpy_gather(x: Array, *indices: Array) -> Array:
    shape = np.broadcast_shapes(*(i.shape for i in indices)) + x.shape[len(indices) :]
    if 0 in shape:
        return np.zeros(shape, x.dtype)
    full = np.broadcast_arrays(*indices)
    return np.asarray(x[tuple(numpy_checked("gather", axis, x.shape[axis], i) for axis, i in enumerate(full))])


def _vjp_gather(ct: Node, out: Node, x: Node, *indices: Node) -> tuple[Node | None, ...]:
    """As that of `take`, with the axes that are indexed made one."""
    rank = len(indices)
    picked, rest = ct.shape[: len(ct.shape) - len(x.shape) + rank], x.shape[rank:]
    positions: Node | None = None
    for i, n in zip(indices, x.shape, strict=False):
        own = _from_front(i, n)
        positions = own if positions is None else add_op(multiply_op(positions, dim_size(n, int64)), own)
    assert positions is not None
    count = element_count(picked)
    flat = reshape_to(broadcast_to(positions, picked), (count,))
    total = segment_sum_op(reshape_to(ct, (count, *rest)), flat, axis=0, size=mul_dims(*x.shape[:rank]))
    return (reshape_to(total, x.shape), *(None for _ in indices))


def _samples_gather(rng: np.random.Generator) -> Iterator[Sample]:
    def pick(n: int, *shape: int) -> Array:
        return rng.integers(-n, n, shape)

    for shape, indices in (
        ((5,), (pick(5, 3),)),
        ((3, 4), (pick(3, 6), pick(4, 6))),
        ((3, 4, 2), (pick(3, 2, 1), pick(4, 3))),
        ((3, 4, 5), (pick(3, 2), pick(4, 2), pick(5))),
        ((3, 4), (pick(3), pick(4))),
        ((3, 0), (np.zeros((0, 2), np.int64), np.zeros(2, np.int64))),
        ((2, 3, 0), (pick(2, 2), pick(3, 2))),
    ):
        yield Sample((draw(rng, float64, *shape), *indices))
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 2, 3), np.array([1, 0, -1], np.int16), np.array(2, np.uint8)))
    x = draw(rng, float32, 3, 4)
    i = np.array([0, 3])
    yield Sample((x, i, i), {}, IndexRangeError, "gather: index 3 at 1 is out of range for axis 0 of size 3")
    yield Sample((x, i[:1], i + 1), {}, IndexRangeError, "gather: index 4 at 1 is out of range for axis 1 of size 4")
    yield Sample((x, i, i * 1.0), {}, DTypeError, "gather: indices must be integers, got float64")
    yield Sample((x, i, i, i), {}, ShapeError, r"gather: 3 tensors of indices for \(3, 4\)")
    yield Sample((x, i, np.zeros(3, np.int64)), {}, ShapeError, r"shapes \(2,\) and \(3,\) do not broadcast")
    yield Sample((x[:, :0], i, i), {}, StaticIndexError, r"gather: \(3, 0\) has no elements to take")


#: ``gather(x, i, j)[k] == x[i[k], j[k]]``: the first axes of `x` by index tensors that broadcast, which come first.
gather_op: OpDef = define_op(
    "gather",
    infer=_infer_gather,
    element=_element_gather,
    numpy=_numpy_gather,
    vjp=_vjp_gather,
    samples=_samples_gather,
    exact=True,
    storage=True,
    fallible=True,
)
