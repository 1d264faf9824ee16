"""Elements written, or added, to places that index tensors name: scatter, scatter_along_axis, segment_sum and its kin.

Updates are applied one by one in the row-major order of the indices: of two that name one place the last is kept, and
sums have one order, hence one result. Every index is checked; if one is outside its axis, nothing is written.

The operators here are the transposes of those in `jitflow.ops.index`, which imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, bool_, float32, float64, int64, promote
from jitflow.errors import DTypeError, GraphError, IndexRangeError, ShapeError, StaticIndexError
from jitflow.expr import Binary, Expr, as_index, compare, const, const_index
from jitflow.graph import OPS, Node, OpDef, Operand, Sample, as_node, define_op, is_weak, located, make_constant, within
from jitflow.kernel import KernelBuilder, Memory
from jitflow.ops.axes import Dims, check_axis, known_shape, normalize_axis, row_major
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.cast import as_dtype_of, as_float, as_numbers, check_kinds
from jitflow.ops.checked_index import as_subscript, check_indices, numpy_checked
from jitflow.ops.compare import equal_op
from jitflow.ops.creation import arange_op, guard_not_negative
from jitflow.ops.elementwise import divide_op, multiply_op
from jitflow.ops.fold import FOLDS, identity_of
from jitflow.ops.movement import reshape_op, reshape_to
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import FLOATS, INTEGERS, NUMBERS, Array, draw, edges
from jitflow.public import public
from jitflow.types import Dim, Shape, TensorType, as_dim, element_count, shape_text, unify

#: How an update changes the element at its place.
MODES = ("set", "add", "mul", "min", "max")


def _zeros(dtype: DType, shape: Shape) -> Node:
    return broadcast_to(make_constant(0, dtype), shape)


def _is_some(dims: Sequence[Dim]) -> Expr:
    """Return whether an array of `dims` has elements."""
    return compare("lt", const_index(0), as_index(element_count(dims)))


def _combined(mode: str, old: Expr, new: Expr) -> Expr:
    return new if mode == "set" else Binary(mode, old, new)


# ---- the loops


def _write(
    b: KernelBuilder,
    out: Memory,
    indices: Memory,
    updates: Memory,
    axis: int,
    mode: str,
    initial: Callable[..., Expr],
) -> None:
    """Fill `out` with `initial`, then apply `updates` in order. Rows of `out` along `axis` are independent."""
    shape = out.type.shape
    before, n, after = shape[:axis], shape[axis], shape[axis + 1 :]
    is_shared = indices.type.rank == 1 or not after  # by all columns of a row
    with b.rows(*before, columns=after) as i:
        if after:
            with b.loop("k", n) as k, b.columns() as j:
                b.store(out, (*i, k, *j), initial(*i, k, *j))
        else:
            with b.independent(n) as (k,):
                b.store(out, (*i, k), initial(*i, k))
        with b.if_(_is_some(after)), b.loop("k", updates.type.shape[axis]) as k:
            if is_shared:
                place = (k,) if indices.type.rank == 1 else (*i, k)
                at = b.check_index(as_subscript(indices(*place)), n, row_major(place, indices.type.shape))
                with b.if_(_is_some((n,))), b.columns() as j:
                    here = (*i, at, *j)
                    b.store(out, here, _combined(mode, out(*here), updates(*i, k, *j)))
            else:
                with b.columns() as j:
                    place = (*i, k, *j)  # every column has an index of its own
                    at = b.check_index(as_subscript(indices(*place)), n, row_major(place, indices.type.shape))
                    with b.if_(_is_some((n,))):
                        here = (*i, at, *j)
                        b.store(out, here, _combined(mode, out(*here), updates(*i, k, *j)))


def _numpy_write(what: str, out: Array, indices: Array, updates: Array, axis: int, mode: str) -> Array:
    """Apply `updates` to `out`, in place, and return it."""
    if 0 in updates.shape:
        return out  # nothing is written, so no index is looked at
    checked = numpy_checked(what, axis, out.shape[axis], indices)
    rows, values = np.moveaxis(out, axis, 0), np.moveaxis(updates, axis, 0)
    if indices.ndim == 1:
        places: Any = [(k,) for k in checked]
    else:
        others = np.ix_(*(np.arange(d) for d in rows.shape[1:]))
        places = [(k, *others) for k in np.moveaxis(checked, axis, 0)]
    for place, value in zip(places, values, strict=True):
        rows[place] = value if mode == "set" else FOLDS[mode](rows[place], value)
    return out


# ---- inference


def _check_updates(what: str, shape: Shape, indices: TensorType, updates: TensorType, axis: int, along: bool) -> None:
    """Check what is common to all: `shape` is the result's, `updates` has it but along `axis`."""
    check_axis(what, axis, shape)
    check_indices(what, indices)
    if indices.rank != (len(shape) if along else 1):
        wanted = "as many axes as the result" if along else "one axis"
        raise ShapeError(f"{what}: indices need {wanted}, got shape {shape_text(indices.shape)}")
    told = f"{what} into {shape_text(shape)} at {shape_text(indices.shape)}: updates of {shape_text(updates.shape)}"
    if updates.rank != len(shape):
        raise ShapeError(f"{told} have another rank")
    full = indices.shape if along else tuple(indices.shape[0] if k == axis else d for k, d in enumerate(shape))
    for k, (n, m) in enumerate(zip(full, updates.shape, strict=True)):
        unify(n, m, f"{told}: axis {k}")
        if along and k != axis:
            unify(shape[k], m, f"{told}: axis {k}")
    if shape[axis] == 0 and 0 not in updates.shape:
        raise StaticIndexError(f"{what}: axis {axis} of {shape_text(shape)} has no elements to write to")


def _infer_scatter(
    what: str, x: TensorType, indices: TensorType, updates: TensorType, axis: int, mode: str, along: bool
) -> TensorType:
    if mode not in MODES:
        raise GraphError(f"{what}: unknown mode {mode!r}; modes are {', '.join(map(repr, MODES))}")
    if updates.dtype is not x.dtype:
        raise DTypeError(f"{what}: updates of {updates.dtype} into {x.dtype}; convert with astype")
    if x.dtype.is_bool and mode != "set":
        raise DTypeError(f"{what}: mode {mode!r} takes integers and floats, not bool")
    _check_updates(what, x.shape, indices, updates, axis, along)
    return x


def _infer_segment_sum(
    what: str, updates: TensorType, indices: TensorType, axis: int, size: Dim, along: bool
) -> TensorType:
    check_kinds(what, updates.dtype, "if")
    guard_not_negative(size, what)
    check_axis(what, axis, updates.shape)
    shape = tuple(size if k == axis else d for k, d in enumerate(updates.shape))
    _check_updates(what, shape, indices, updates, axis, along)
    return TensorType(updates.dtype, shape)


# ---- gradients


def _vjp_scatter(
    scatter: OpDef, look_up: str, ct: Node, out: Node, x: Node, indices: Node, updates: Node, axis: int, mode: str
) -> tuple[Node, None, Node]:
    """`look_up` is the operator that reads where `scatter` writes."""

    def read(source: Node) -> Node:
        return OPS[look_up](source, indices, axis=axis)

    def written(into: Node, what: Node, how: str) -> Node:
        return scatter(into, indices, what, axis=axis, mode=how)

    zero, one = make_constant(0, ct.dtype), make_constant(1, ct.dtype)
    if mode == "add":
        return ct, None, read(ct)
    if mode == "set":
        # An update that a later one overwrote has no effect: the last to write its number at a place is the one kept.
        count = updates.shape[axis]
        steps = arange_op(start=0, step=1, size=count, dtype=int64)
        along = reshape_op(steps, shape=tuple(count if k == axis else 1 for k in range(len(ct.shape))))
        numbers = broadcast_to(along, updates.shape)
        kept = equal_op(read(written(_zeros(int64, x.shape), numbers, "set")), numbers)
        return written(ct, _zeros(ct.dtype, updates.shape), "set"), None, where_op(kept, read(ct), zero)
    if mode in ("min", "max"):
        # As in a reduction, those that are the extremum share alike.
        own = as_dtype_of(equal_op(x, out), ct.dtype)
        best = as_dtype_of(equal_op(updates, read(out)), ct.dtype)
        share = divide_op(ct, written(own, best, "add"))
        return multiply_op(own, where_op(equal_op(own, one), share, zero)), None, multiply_op(best, read(share))
    # The slope of a factor is the product of the others, also where it is zero: then that of the others must be known.
    x_is_zero, update_is_zero = equal_op(x, zero), equal_op(updates, zero)
    others = written(where_op(x_is_zero, one, x), where_op(update_is_zero, one, updates), "mul")
    zeros = written(as_dtype_of(x_is_zero, int64), as_dtype_of(update_is_zero, int64), "add")
    there, number = read(multiply_op(ct, others)), read(zeros)
    is_alone = where_op(equal_op(number, make_constant(1, int64)), update_is_zero, make_constant(False, bool_))
    nonzero = divide_op(there, where_op(update_is_zero, one, updates))
    slope = where_op(equal_op(number, make_constant(0, int64)), nonzero, where_op(is_alone, there, zero))
    return multiply_op(ct, written(broadcast_to(one, x.shape), updates, "mul")), None, slope


# ---- samples


def _places(rng: np.random.Generator, shape: tuple[int, ...], axis: int, count: int, along: bool) -> Array:
    n = shape[axis]
    wanted = (*shape[:axis], count, *shape[axis + 1 :]) if along else (count,)
    return rng.integers(-n, n, wanted) if n else np.zeros(wanted, np.int64)


def _cases(rng: np.random.Generator, along: bool) -> Iterator[tuple[tuple[int, ...], int, Array, Array]]:
    """Yield the shape of a result, an axis, indices and float64 updates."""
    for shape, axis, count in (
        ((5,), 0, 3),
        ((2,), 0, 9),
        ((3, 4), 0, 6),
        ((3, 4), 1, 6),
        ((2, 3, 17), 1, 4),
        ((3, 2), 0, 0),
        ((0, 2), 0, 0),
        ((2, 0), 0, 3),
        ((0, 2), 1, 3),
    ):
        updates = draw(rng, float64, *shape[:axis], count, *shape[axis + 1 :])
        yield shape, axis, _places(rng, shape, axis, count, along), updates


def _samples_scatter(what: str, along: bool) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for mode in MODES:
            for shape, axis, indices, updates in _cases(rng, along):
                yield Sample((draw(rng, float64, *shape), indices, updates), {"axis": axis, "mode": mode})
        for dtype in SUPPORTED:
            for mode in MODES if not dtype.is_bool else ("set",):
                i = _places(rng, (3, 2), 0, 5, along).astype(np.int8)
                pair = draw(rng, dtype, 3, 2), draw(rng, dtype, 5, 2)
                yield Sample((pair[0], i, pair[1]), {"axis": 0, "mode": mode}, smooth=False)
        for dtype in FLOATS:
            e = edges(dtype)
            order = rng.permutation(len(e))
            for mode in MODES:
                yield Sample((e, order, np.roll(e, 3)), {"axis": 0, "mode": mode}, smooth=False)
        products = np.array([0.0, 0.0, 2.0, 3.0]), np.array([0, 2, 2, 3, 3, 0]), np.array([2.0, 0, 3, 0, 0, 5])
        yield Sample(products, {"axis": 0, "mode": "mul"})
        for kind in INTEGERS:
            given = np.array([1, 0, 1], kind.np)
            yield Sample((draw(rng, float32, 3), given, draw(rng, float32, 3)), {"axis": 0, "mode": "set"})
        x, u = draw(rng, float32, 3, 2), draw(rng, float32, 2, 2)
        i = np.array([[0, 1], [3, -4]]) if along else np.array([0, 3])
        place = r"\(1, 0\)" if along else "1"
        attrs = {"axis": 0, "mode": "add"}
        outside = f"{what}: index 3 at {place} is out of range for axis 0 of size 3"
        yield Sample((x, i, u), attrs, IndexRangeError, outside)
        yield Sample((x, i, u[:1]), attrs, ShapeError, r"into \(3, 2\) at .*: updates of \(1, 2\): axis 0: 2 and 1")
        yield Sample((x, i, u[0]), attrs, ShapeError, "have another rank")
        yield Sample((x, i * 1.0, u), attrs, DTypeError, "indices must be integers, got float64")
        yield Sample((x, i, u.astype(float)), attrs, DTypeError, "updates of float64 into float32")
        yield Sample((x, i, u), {"axis": 2, "mode": "add"}, ShapeError, r"axis 2 is out of range for \(3, 2\)")
        yield Sample((x, i, u), {"axis": 0, "mode": "sub"}, GraphError, "unknown mode 'sub'; modes are 'set', 'add'")
        yield Sample((x > 0, i, u > 0), attrs, DTypeError, "mode 'add' takes integers and floats, not bool")
        yield Sample((x[:0], i, u), attrs, StaticIndexError, r"axis 0 of \(0, 2\) has no elements to write to")
        yield Sample((x, i[..., None], u), attrs, ShapeError, "indices need")

    return samples


def _samples_segment_sum(what: str, along: bool) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape, axis, indices, updates in _cases(rng, along):
            yield Sample((updates, indices), {"axis": axis, "size": shape[axis]})
        for dtype in NUMBERS:
            i = _places(rng, (3, 2), 0, 5, along).astype(np.int8)
            yield Sample((draw(rng, dtype, 5, 2), i), {"axis": 0, "size": 3})
            e = edges(dtype)
            yield Sample((e, rng.integers(0, 4, len(e))), {"axis": 0, "size": 4}, smooth=False)
        u = draw(rng, float32, 2, 2)
        i = np.array([[0, 1], [-4, 2]]) if along else np.array([2, -4])
        place = r"\(1, 0\)" if along else "1"
        attrs = {"axis": 0, "size": 3}
        outside = f"{what}: index -4 at {place} is out of range for axis 0 of size 3"
        yield Sample((u, i), attrs, IndexRangeError, outside)
        yield Sample((u[:1], i), attrs, ShapeError, r"updates of \(1, 2\): axis 0: 2 and 1 differ")
        yield Sample((u, i * 1.0), attrs, DTypeError, "indices must be integers, got float64")
        yield Sample((u, i), {"axis": 2, "size": 3}, ShapeError, r"axis 2 is out of range for \(2, 2\)")
        yield Sample((u, i), {"axis": 0, "size": 0}, StaticIndexError, r"axis 0 of \(0, 2\) has no elements")
        yield Sample((u > 0, i), attrs, DTypeError, "takes integers and floats, not bool")

    return samples


# ---- the operators


def _define_scatter(name: str, look_up: str, along: bool) -> OpDef:
    def infer(x: TensorType, indices: TensorType, updates: TensorType, *, axis: int, mode: str) -> TensorType:
        return _infer_scatter(name, x, indices, updates, axis, mode, along)

    def vjp(
        ct: Node, out: Node, x: Node, indices: Node, updates: Node, *, axis: int, mode: str
    ) -> tuple[Node, None, Node]:
        return _vjp_scatter(op, look_up, ct, out, x, indices, updates, axis, mode)

    op = define_op(
        name,
        infer=infer,
        kernel=lambda b, out, x, indices, updates, *, axis, mode: _write(b, out, indices, updates, axis, mode, x),
        numpy=lambda x, indices, updates, *, axis, mode: _numpy_write(name, x.copy(), indices, updates, axis, mode),
        vjp=vjp,
        samples=_samples_scatter(name, along),
        exact=True,
        fallible=True,
    )
    return op


def _define_segment_sum(name: str, look_up: str, along: bool) -> OpDef:
    def infer(updates: TensorType, indices: TensorType, *, axis: int, size: Dim) -> TensorType:
        return _infer_segment_sum(name, updates, indices, axis, size, along)

    def numpy(updates: Array, indices: Array, *, axis: int, size: Dim, dims: Dims) -> Array:
        shape = list(updates.shape)
        shape[axis] = known_shape((size,), dims)[0]
        return _numpy_write(name, np.zeros(shape, updates.dtype), indices, updates, axis, "add")

    def kernel(b: KernelBuilder, out: Memory, updates: Memory, indices: Memory, *, axis: int, size: Dim) -> None:
        _write(b, out, indices, updates, axis, "add", lambda *_: const(0, out.type.dtype))

    return define_op(
        name,
        infer=infer,
        kernel=kernel,
        numpy=numpy,
        vjp=lambda ct, out, updates, indices, *, axis, size: (OPS[look_up](ct, indices, axis=axis), None),
        samples=_samples_segment_sum(name, along),
        exact=True,
        fallible=True,
    )


#: ``out[..., indices[k], ...] = updates[..., k, ...]`` by `mode`, for k = 0, 1, ...: `x` elsewhere.
scatter_op: OpDef = _define_scatter("scatter", "take", along=False)
#: The same, where each row along `axis` has indices of its own.
scatter_along_axis_op: OpDef = _define_scatter("scatter_along_axis", "take_along_axis", along=True)
#: The transpose of `take`: zeros, with `updates` added at `indices` along `axis`, which has `size` elements.
segment_sum_op: OpDef = _define_segment_sum("segment_sum", "take", along=False)
#: The transpose of `take_along_axis`.
segment_sum_along_axis_op: OpDef = _define_segment_sum("segment_sum_along_axis", "take_along_axis", along=True)


# ---- what users call


def as_updates(updates: Operand, dtype: DType, what: str) -> Node:
    """Return `updates` as a node of `dtype`; DTypeError if that might not hold them."""
    if is_weak(updates) and not (isinstance(updates, float) and not dtype.is_float):
        return make_constant(updates, dtype)
    node = as_node(updates)
    if promote(node.dtype, dtype) is not dtype:
        raise located(DTypeError(f"{what}: updates of {node.dtype} into {dtype}; convert with astype"))
    return as_dtype_of(node, dtype)


@public()
def scatter(x: Operand, indices: Operand, updates: Operand, /, *, axis: int = 0, mode: str = "set") -> Node:
    """Return `x` with `updates` written, or added, where `indices` point along `axis`: the reverse of `take`.

    Parameters
    ----------
    x
        Any tensor. It is not changed.
    indices
        A tensor of integers of any shape; negative ones count from the end. They may repeat: updates are applied in
        the row-major order of their indices.
    updates
        What is written. Its shape is that of `x` with the axes of `indices` in place of `axis`, or broadcasts to it.
    axis
        The axis of `x`.
    mode
        What happens at each place: ``"set"`` keeps the last update, ``"add"`` and ``"mul"`` add and multiply them to
        the element of `x`, ``"min"`` and ``"max"`` keep the least and the greatest, NaN if there is one.

    Raises
    ------
    DTypeError
        If `indices` are no integers, or the dtype of `x` does not hold that of `updates`.
    GraphError
        For an unknown mode.
    ShapeError
        If the shapes do not fit.
    StaticIndexError
        For an axis that is not there.
    IndexRangeError
        While the graph runs, for an index outside the axis; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([10, 20, 30])
    >>> jf.interpret(jf.scatter(x, [2, 0, 2], [1, 2, 3], mode="add"), {})
    array([12, 20, 34])
    """
    node, where = as_node(x), as_node(indices)
    k = normalize_axis(axis, len(node.shape), "scatter")
    before, after = node.shape[:k], node.shape[k + 1 :]
    count = element_count(where.shape)
    new = as_updates(updates, node.dtype, "scatter")
    with within("scatter"):
        full = broadcast_to(new, (*before, *where.shape, *after))
    flat = reshape_to(full, (*before, count, *after))
    return scatter_op(node, reshape_to(where, (count,)), flat, axis=k, mode=mode)


@public()
def scatter_along_axis(x: Operand, indices: Operand, updates: Operand, /, *, axis: int = -1, mode: str = "set") -> Node:
    """Return `x` with `updates` written where `indices` point, each row along `axis` by indices of its own.

    The reverse of `take_along_axis`, and ``np.put_along_axis`` that returns its result.

    Parameters
    ----------
    x
        Any tensor. It is not changed.
    indices
        A tensor of integers with as many axes; but for `axis` they are those of `x`, or broadcast to them.
    updates
        What is written; its shape is that of `indices`, or broadcasts to it.
    axis
        The axis along which the indices count.
    mode
        As for `scatter`.

    Raises
    ------
    DTypeError
        If `indices` are no integers, or the dtype of `x` does not hold that of `updates`.
    GraphError
        For an unknown mode.
    ShapeError
        If the shapes do not fit.
    StaticIndexError
        For an axis that is not there.
    IndexRangeError
        While the graph runs, for an index outside the axis; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.scatter_along_axis(jf.zeros((2, 3)), [[1], [2]], 5.0), {})
    array([[0., 5., 0.],
           [0., 0., 5.]])
    """
    node, where = as_node(x), as_node(indices)
    k = normalize_axis(axis, len(node.shape), "scatter_along_axis")
    new = as_updates(updates, node.dtype, "scatter_along_axis")
    if len(where.shape) == len(node.shape):  # otherwise inference says what is wrong
        full = tuple(where.shape[a] if a == k else d for a, d in enumerate(node.shape))
        with within("scatter_along_axis"):
            where, new = broadcast_to(where, full), broadcast_to(new, full)
    return scatter_along_axis_op(node, where, new, axis=k, mode=mode)


def _segments(data: Operand, segment_ids: Operand, num_segments: Any, what: str) -> tuple[Node, Node, Dim]:
    node, ids = as_node(data), as_node(segment_ids)
    if not node.shape:
        raise located(ShapeError(f"{what}: data needs an axis of segments, got a 0-d tensor"))
    if not ids.dtype.is_integer:
        raise located(DTypeError(f"{what}: segment_ids must be integers, got {ids.dtype}"))
    try:
        return node, ids, as_dim(num_segments)
    except ShapeError as error:
        raise located(error) from None


@public()
def segment_sum(data: Operand, segment_ids: Operand, num_segments: Any, /) -> Node:
    """Return the sums of the elements of each segment: those along the first axis with the same number.

    Parameters
    ----------
    data
        A tensor of integers or floats.
    segment_ids
        For each element along the first axis of `data` the number of its segment, in any order; negative ones count
        from the end.
    num_segments
        How many segments there are; a dim, since it is the size of the result's first axis.

    Returns
    -------
    Node
        The sums, in the dtype of `data`; 0 for a segment without elements. Elements are added in their order.

    Raises
    ------
    DTypeError
        If `segment_ids` are no integers, or `data` is bool.
    ShapeError
        If there are not as many numbers as elements.
    IndexRangeError
        While the graph runs, for a number that is no segment's; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.segment_sum(jf.constant([1.0, 2.0, 4.0]), [0, 2, 0], 3), {})
    array([5., 0., 2.])
    """
    node, ids, size = _segments(data, segment_ids, num_segments, "segment_sum")
    return segment_sum_op(node, ids, axis=0, size=size)


def _folded(data: Operand, segment_ids: Operand, num_segments: Any, what: str, mode: str) -> Node:
    node, ids, size = _segments(data, segment_ids, num_segments, what)
    node = as_numbers(node, what)
    nothing = make_constant(identity_of(mode, node.dtype), node.dtype)
    return scatter_op(broadcast_to(nothing, (size, *node.shape[1:])), ids, node, axis=0, mode=mode)


@public()
def segment_prod(data: Operand, segment_ids: Operand, num_segments: Any, /) -> Node:
    """Return the product of each segment, 1 for one without elements. Arguments as for `segment_sum`.

    Raises
    ------
    DTypeError
        If `segment_ids` are no integers, or `data` is bool.
    ShapeError
        If there are not as many numbers as elements.
    IndexRangeError
        While the graph runs, for a number that is no segment's; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.segment_prod(jf.constant([3, 2, 4]), [0, 2, 0], 3), {})
    array([12,  1,  2])
    """
    return _folded(data, segment_ids, num_segments, "segment_prod", "mul")


@public()
def segment_max(data: Operand, segment_ids: Operand, num_segments: Any, /) -> Node:
    """Return the greatest element of each segment, NaN if there is one.

    A segment without elements has -inf, or the least integer. Arguments as for `segment_sum`.

    Raises
    ------
    DTypeError
        If `segment_ids` are no integers, or `data` is bool.
    ShapeError
        If there are not as many numbers as elements.
    IndexRangeError
        While the graph runs, for a number that is no segment's; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.segment_max(jf.constant([3.0, 2.0, 4.0]), [0, 2, 0], 3), {})
    array([  4., -inf,   2.])
    """
    return _folded(data, segment_ids, num_segments, "segment_max", "max")


@public()
def segment_min(data: Operand, segment_ids: Operand, num_segments: Any, /) -> Node:
    """Return the least element of each segment, NaN if there is one.

    A segment without elements has inf, or the greatest integer. Arguments as for `segment_sum`.

    Raises
    ------
    DTypeError
        If `segment_ids` are no integers, or `data` is bool.
    ShapeError
        If there are not as many numbers as elements.
    IndexRangeError
        While the graph runs, for a number that is no segment's; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.segment_min(jf.constant([3.0, 2.0, 4.0]), [0, 2, 0], 3), {})
    array([ 3., inf,  2.])
    """
    return _folded(data, segment_ids, num_segments, "segment_min", "min")


@public()
def segment_mean(data: Operand, segment_ids: Operand, num_segments: Any, /) -> Node:
    """Return the mean of each segment, NaN for one without elements; bool and integers are taken as float64.

    Arguments as for `segment_sum`.

    Raises
    ------
    DTypeError
        If `segment_ids` are no integers.
    ShapeError
        If there are not as many numbers as elements.
    IndexRangeError
        While the graph runs, for a number that is no segment's; it names the first.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.segment_mean(jf.constant([3.0, 2.0, 4.0]), [0, 1, 0], 2), {})
    array([3.5, 2. ])
    """
    node, ids, size = _segments(data, segment_ids, num_segments, "segment_mean")
    node = as_float(node)
    ones = broadcast_to(make_constant(1, int64), node.shape[:1])
    counts = as_dtype_of(segment_sum_op(ones, ids, axis=0, size=size), node.dtype)
    on_rows = reshape_to(counts, (size, *(1 for _ in node.shape[1:])))
    return divide_op(segment_sum_op(node, ids, axis=0, size=size), broadcast_to(on_rows, (size, *node.shape[1:])))
