"""broadcast_to and reduce_sum: each the other's transpose, so that both are known before anything is differentiated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, DType, as_dtype, float32, float64, int32, int64, uint64
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, Reduce, Var, as_index, cast, const_index
from jitflow.graph import Index, Node, OpDef, Operand, Reader, Sample, as_node, define_op
from jitflow.ops.axes import as_flag, checked_shape, known_shape, normalize_axes
from jitflow.ops.cast import as_dtype_of, cast_array
from jitflow.ops.fold import merge_neighbours, ordered_fold, reduce_lanes
from jitflow.ops.movement import reshape_op, unravel
from jitflow.ops.testdata import NUMBERS, SHAPES, Array, draw, edges, is_thorough
from jitflow.public import public
from jitflow.types import Dim, Shape, TensorType, element_count, same_dim, shape_text, unify


def aligned(index: Index, x: Reader) -> Expr:
    """Return the element of `x` that broadcasting puts at `index`: axes match from the last, size 1 is read at 0."""
    shape = x.type.shape
    skip = len(index) - len(shape)
    return x(*(const_index(0) if d == 1 else index[skip + k] for k, d in enumerate(shape)))


# ---- broadcast_to


def _infer_broadcast(x: TensorType, *, shape: Shape) -> TensorType:
    if x.rank > len(shape):
        raise ShapeError(f"broadcast_to: {shape_text(x.shape)} does not broadcast to {shape_text(shape)}")
    out = list(shape)
    for k in range(-x.rank, 0):
        if x.shape[k] != 1 and x.shape[k] != shape[k]:
            what = f"broadcast_to: {shape_text(x.shape)} does not broadcast to {shape_text(shape)}"
            out[k] = unify(shape[k], x.shape[k], f"{what}: axis {k}")
    return TensorType(x.dtype, tuple(out))


def _samples_broadcast(rng: np.random.Generator) -> Iterator[Sample]:
    for before, after in (
        ((), (3,)),
        ((3,), (2, 3)),
        ((3, 1), (2, 3, 4)),
        ((1,), (0,)),
        ((0, 1), (0, 2)),
        ((1, 1), (1, 1)),
        ((), ()),
    ):
        yield Sample((draw(rng, float64, *before),), {"shape": after})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 1),), {"shape": (2, 3, 70)})
    for before, after in (((3,), (2,)), ((2, 3), (3,)), ((3,), (3, 1))):
        x = draw(rng, float32, *before)
        yield Sample((x,), {"shape": after}, ShapeError, "broadcast_to: .* does not broadcast")


broadcast_to_op: OpDef = define_op(
    "broadcast_to",
    infer=_infer_broadcast,
    element=lambda index, x, *, shape: aligned(index, x),
    numpy=lambda x, *, shape, dims: np.broadcast_to(x, known_shape(shape, dims)),
    vjp=lambda ct, out, x, *, shape: (unbroadcast(ct, x.shape),),
    samples=_samples_broadcast,
    exact=True,
    movement=True,
)


@public()
def broadcast_to(x: Operand, /, shape: Any) -> Node:
    """Return `x` repeated along new axes in front and along axes of size 1, so that it has `shape`.

    A symbolic axis of `x` is never taken for 1: it must equal the dim asked for, which is checked when the graph runs
    if it cannot be decided before.

    Raises
    ------
    ShapeError
        If the shapes do not fit. (For symbolic dims that turn out different it is a FeedError of the run.)

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.broadcast_to(jf.constant([1, 2]), (2, 2)), {})
    array([[1, 2],
           [1, 2]])
    """
    node = as_node(x)
    wanted = checked_shape(shape)
    return node if node.shape == wanted else broadcast_to_op(node, shape=wanted)


# ---- reduce_sum


def reduced_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return `shape` without `axes`."""
    return tuple(d for k, d in enumerate(shape) if k not in axes)


def kept_shape(shape: Shape, axes: tuple[int, ...]) -> Shape:
    """Return `shape` with size 1 at `axes`."""
    return tuple(1 if k in axes else d for k, d in enumerate(shape))


def reduce_element(op: str, index: Index, x: Reader, axes: tuple[int, ...], dtype: DType) -> Expr:
    """Return the fold by `op` over `axes` of `x`, accumulated in `dtype`, at `index` of the axes that stay.

    Neighbouring axes are folded as the one axis that they make up in row-major order. They get a variable each where
    that is the same order: with one accumulator, or where all have a turn before the innermost axis begins anew.
    """
    shape = x.type.shape
    merged, merged_axes = merge_neighbours(shape, axes)
    lanes = reduce_lanes(accumulator_of(op, dtype), merged, merged_axes)
    innermost = shape[axes[-1]]
    has_turns = lanes == 1 or (isinstance(innermost, int) and innermost % lanes == 0)
    runs = [[a] for a in axes] if has_turns else _runs(axes)
    bound = [Var(f"k{run[0]}" if len(runs) > 1 else "k", floor=0) for run in runs]
    outer = dict(zip((k for k in range(len(shape)) if k not in axes), index, strict=True))
    for run, k in zip(runs, bound, strict=True):
        outer.update(zip(run, unravel(k, [shape[a] for a in run]), strict=True))
    body = x(*(outer[k] for k in range(len(shape))))
    extents = tuple(as_index(element_count(tuple(shape[a] for a in run))) for run in runs)
    return Reduce(op, tuple(bound), extents, cast(body, dtype), lanes=lanes)


def _runs(axes: tuple[int, ...]) -> list[list[int]]:
    """Return ascending `axes` as runs of neighbours."""
    runs: list[list[int]] = []
    for a in axes:
        if runs and runs[-1][-1] == a - 1:
            runs[-1].append(a)
        else:
            runs.append([a])
    return runs


def accumulator_of(op: str, dtype: DType) -> DType:
    """Return a dtype as wide as an accumulator of a fold by `op` in `dtype`: of argmin and argmax it has a position.

    These two find the same position in any order.
    """
    return int32 if op in ("argmin", "argmax") and dtype.itemsize < 4 else dtype


def check_axes(what: str, x: TensorType, axes: tuple[int, ...]) -> None:
    """Raise ShapeError unless `axes` are distinct, ascending axes of `x`, at least one."""
    if not axes or list(axes) != sorted(set(axes)) or not 0 <= axes[0] <= axes[-1] < x.rank:
        raise ShapeError(f"{what}: axes {axes} are not ascending axes of {shape_text(x.shape)}")


def sum_dtype(dtype: DType) -> DType:
    """Return the dtype of a sum of `dtype`: int64 for bool and signed integers, uint64 for unsigned ones."""
    return dtype if dtype.is_float else uint64 if dtype.kind == "u" else int64


def _infer_sum(x: TensorType, *, axes: tuple[int, ...], dtype: DType) -> TensorType:
    check_axes("reduce_sum", x, axes)
    if dtype.is_bool:
        raise DTypeError("reduce_sum: a sum of bool is a number; ask for dtype int64, or use any")
    return TensorType(dtype, reduced_shape(x.shape, axes))


def spread(ct: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """Return `ct`, a value per reduction over `axes` of `shape`, repeated along the reduced axes."""
    kept = reshape_op(ct, shape=kept_shape(shape, axes)) if axes else ct
    return broadcast_to(kept, shape)


def reduce_samples(
    rng: np.random.Generator, dtypes: Sequence[DType], empty: bool = True
) -> Iterator[tuple[Array, tuple[int, ...]]]:
    """Yield arrays and ascending axes to reduce: every subset of axes, long axes, edge values."""
    for shape in SHAPES:
        x = draw(rng, float64, *shape)
        for bits in range(1, 1 << len(shape)):
            axes = tuple(k for k in range(len(shape)) if bits >> k & 1)
            if empty or all(shape[k] for k in axes):
                yield x, axes
    for dtype in dtypes:
        e = edges(dtype)
        yield e, (0,)
        for n in (1, 2, 3, 31, 67, 200) if is_thorough(dtype, tuple(dtypes)) else (200,):
            yield draw(rng, dtype, n), (0,)
        yield draw(rng, dtype, 2, 3, 37), (0, 2)
        yield draw(rng, dtype, 37, 3), (0,)
        yield np.stack([e[::-1], np.roll(e, 3)]), (1,)
    yield np.array([-0.0, 0.0, -0.0]), (0,)
    yield np.array([0.0, -0.0]), (0,)
    yield np.array([-0.0]), (0,)


def _samples_sum(rng: np.random.Generator) -> Iterator[Sample]:
    for x, axes in reduce_samples(rng, NUMBERS):
        yield Sample((x,), {"axes": axes, "dtype": sum_dtype(as_dtype(x.dtype))})
    yield Sample((np.array([[True, False, True]]),), {"axes": (1,), "dtype": int64})
    yield Sample((draw(rng, float32, 9),), {"axes": (0,), "dtype": float64})
    x = draw(rng, float32, 2, 3)
    for axes in ((), (2,), (1, 0), (0, 0)):
        yield Sample((x,), {"axes": axes, "dtype": float32}, ShapeError, r"reduce_sum: axes .* of \(2, 3\)")


reduce_sum_op: OpDef = define_op(
    "reduce_sum",
    infer=_infer_sum,
    element=lambda index, x, *, axes, dtype: reduce_element("add", index, x, axes, dtype),
    numpy=lambda x, *, axes, dtype: ordered_fold("add", cast_array(x, dtype), axes, dtype),
    vjp=lambda ct, out, x, *, axes, dtype: (
        as_dtype_of(spread(ct, x.shape, axes), x.dtype) if x.dtype.is_float and dtype.is_float else None,
    ),
    samples=_samples_sum,
)


def merge_axes(x: Node, axes: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
    """Return `x` with several trailing reduced axes merged into one, which makes one long run to fold.

    A 0-d tensor becomes a vector of one element.
    """
    rank = len(x.shape)
    axes = tuple(sorted(axes))
    if rank == 0:
        return reshape_op(x, shape=(1,)), (0,)
    first = rank
    while first - 1 in axes:
        first -= 1
    if rank - first < 2:
        return x, axes
    merged = reshape_op(x, shape=(*x.shape[:first], element_count(x.shape[first:])))
    return merged, (*(a for a in axes if a < first), first)


def reduce_over(op: OpDef, x: Node, axis: int | Sequence[int] | None, keepdims: bool, what: str, **attrs: Any) -> Node:
    """Return `x` reduced by `op` over `axis` as users give it; no axis at all reduces single elements."""
    rank, kept = len(x.shape), as_flag(keepdims, f"{what}: keepdims")
    axes = tuple(sorted(normalize_axes(axis, rank, what)))
    if not axes and rank:
        return reshape_op(op(reshape_op(x, shape=(*x.shape, 1)), axes=(rank,), **attrs), shape=x.shape)
    merged, inner = merge_axes(x, axes)
    out = op(merged, axes=inner, **attrs)
    return reshape_op(out, shape=kept_shape(x.shape, axes)) if kept and rank else out


def unbroadcast(ct: Node, shape: Shape) -> Node:
    """Return `ct` summed over the axes along which a tensor of `shape` was repeated to become like `ct`."""
    if ct.shape == shape:
        return ct
    extra = len(ct.shape) - len(shape)
    axes = [*range(extra)]
    for k, d in enumerate(shape):
        c: Dim = ct.shape[extra + k]
        if d == 1 and same_dim(c, 1) is not True:
            axes.append(extra + k)
    total = ct if not axes else reduce_over(reduce_sum_op, ct, tuple(axes), False, "sum", dtype=ct.dtype)
    return total if total.shape == shape or len(total.shape) == len(shape) else reshape_op(total, shape=shape)
