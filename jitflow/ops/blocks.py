"""Reductions with few results and long axes, into reductions over blocks and one over what these give.

Each block is folded on its own, in the order of `jitflow.expr.Reduce`, and may be so by another worker; the partial
results are folded in their turn, in the same order. Where the blocks end depends on the type of the reduction alone
(:func:`fold_block`), so that neither the number of workers nor fusion changes a bit. Sums gain accuracy: no chain of
additions is longer than a block.

The rewrite ``split_reductions`` applies :func:`in_blocks`; :func:`jitflow.ops.fold.ordered_fold` follows the same rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import DType, as_dtype, bool_, float32, float64, int64
from jitflow.errors import ShapeError
from jitflow.expr import Expr, Reduce, Var, as_index, cast, const_index, minimum
from jitflow.graph import Index, Node, OpDef, Reader, Sample, define_op, make_node
from jitflow.ops.axes import check_axis
from jitflow.ops.broadcast import accumulator_of, kept_shape, reduce_sum_op
from jitflow.ops.cast import cast_array
from jitflow.ops.compare import equal_op
from jitflow.ops.creation import arange_op
from jitflow.ops.elementwise import add_op, multiply_op
from jitflow.ops.fold import fold_block, merge_neighbours, ordered_fold, reduce_lanes
from jitflow.ops.maths import number
from jitflow.ops.movement import reshape_op
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import NUMBERS, Array, draw
from jitflow.simplify import simplify_index
from jitflow.types import Dim, TensorType, dim_of, shape_text

# ---- fold_blocks


def _block_count(n: Dim, block: int) -> Dim:
    return dim_of(simplify_index((as_index(n) + (block - 1)) // block))


def _infer(x: TensorType, *, axis: int, op: str, block: int, dtype: DType) -> TensorType:
    check_axis("fold_blocks", axis, x.shape)
    if block < 1:
        raise ShapeError(f"fold_blocks: blocks of {block} elements along axis {axis} of {shape_text(x.shape)}")
    shape = (*x.shape[:axis], _block_count(x.shape[axis], block), *x.shape[axis + 1 :])
    return TensorType(int64 if op in _ARGS else dtype, shape)


def _element(index: Index, x: Reader, *, axis: int, op: str, block: int, dtype: DType) -> Expr:
    """Fold ``block * b + k`` for k below the length of block b: the last one may be shorter."""
    n, k = as_index(x.type.shape[axis]), Var("k", floor=0)
    count = _block_count(x.type.shape[axis], block)
    # Of a single block the length must not seem to depend on which one it is: that axis gets no loop.
    start = const_index(0) if isinstance(count, int) and count <= 1 else index[axis] * block
    body = x(*index[:axis], start + k, *index[axis + 1 :])
    lanes = reduce_lanes(accumulator_of(op, dtype), x.type.shape, (axis,))
    return Reduce(op, (k,), (simplify_index(minimum(n - start, block)),), cast(body, dtype), lanes=lanes)


def _numpy(x: Array, *, axis: int, op: str, block: int, dtype: DType) -> Any:
    kind = np.dtype(np.int64) if op in _ARGS else dtype.np
    parts = [
        _FOLDED[op](cast_array(np.take(x, range(b, min(b + block, x.shape[axis])), axis), dtype), axis)
        for b in range(0, x.shape[axis], block)
    ]
    shape = (*x.shape[:axis], 0, *x.shape[axis + 1 :])
    return np.stack(parts, axis).astype(kind) if parts else np.empty(shape, kind)


def _ordered(op: str) -> Any:
    return lambda x, axis: ordered_fold(op, x, (axis,), as_dtype(x.dtype))


_ARGS = ("argmin", "argmax")
_FOLDED: dict[str, Any] = {
    **{op: _ordered(op) for op in ("add", "mul", "max", "min")},
    "or": lambda x, axis: np.any(x, axis=axis),
    "and": lambda x, axis: np.all(x, axis=axis),
    "argmax": lambda x, axis: np.argmax(x, axis=axis),
    "argmin": lambda x, axis: np.argmin(x, axis=axis),
}


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    cases = (
        ((7,), 0, 3),
        ((6,), 0, 3),
        ((0,), 0, 3),
        ((1,), 0, 3),
        ((5,), 0, 64),
        ((200,), 0, 67),
        ((2, 37, 3), 1, 16),
    )
    for shape, axis, block in cases:
        for op in ("add", "mul", "max", "min", *_ARGS):
            yield Sample((draw(rng, float64, *shape),), {"axis": axis, "op": op, "block": block, "dtype": float64})
    for dtype in NUMBERS:
        for op in ("add", "max", "argmin"):
            x = draw(rng, dtype, 2, 70)
            yield Sample((x,), {"axis": 1, "op": op, "block": 64, "dtype": dtype}, smooth=False)
    for op in ("or", "and"):
        yield Sample((draw(rng, bool_, 67, 2),), {"axis": 0, "op": op, "block": 16, "dtype": bool_})
    x = draw(rng, float32, 100)
    x[5] = x[70] = np.nan
    for op in ("max", "argmax"):
        yield Sample((x,), {"axis": 0, "op": op, "block": 32, "dtype": float32})
    yield Sample((x,), {"axis": 1, "op": "add", "block": 8, "dtype": float32}, ShapeError, "fold_blocks: axis 1")
    yield Sample((x,), {"axis": 0, "op": "add", "block": 0, "dtype": float32}, ShapeError, "blocks of 0 elements")


fold_blocks_op: OpDef = define_op(
    "fold_blocks",
    infer=_infer,
    element=_element,
    numpy=_numpy,
    samples=_samples,
)

# ---- the rewrite

_FOLD_OF = {
    "reduce_sum": "add",
    "reduce_prod": "mul",
    "reduce_max": "max",
    "reduce_min": "min",
    "reduce_any": "or",
    "reduce_all": "and",
    "argmax": "argmax",
    "argmin": "argmin",
}


def in_blocks(node: Node) -> Node | None:
    """Return reduction `node` as reductions over blocks and one of their results; None if its axes are short."""
    op = _FOLD_OF.get(node.op.name)
    if op is None:
        return None
    (x,) = node.inputs
    if x.op is fold_blocks_op:
        return None  # the partial results: these are not cut again, whatever their number
    merged, axes = merge_neighbours(x.shape, node.attr("axes"))
    dtype = node.dtype if op in ("add", "mul") else x.dtype
    block = fold_block(accumulator_of(op, dtype), merged, axes)
    if not block:
        return None
    x = x if merged == x.shape else reshape_op(x, shape=merged)
    (axis,) = axes
    attrs = {"axis": axis, "block": block, "dtype": dtype}
    if op in _ARGS:
        return _position(node, fold_blocks_op(x, op=op, **attrs), fold_blocks_op(x, op=op[3:], **attrs), axis, block)
    # Of no blocks the result is the identity: that nothing is reduced has been refused before, where it is.
    more = {"allow_empty": True} if op in ("max", "min") else {}
    return make_node(node.op, (fold_blocks_op(x, op=op, **attrs),), {**dict(node.attrs), **more, "axes": axes})


def _position(node: Node, positions: Node, values: Node, axis: int, block: int) -> Node:
    """Return the position of the best of `values`, one per block: where its block begins, and its own inside of it."""
    best = make_node(node.op, (values,), {"axes": (axis,)})
    numbers = arange_op(start=0, step=1, size=values.shape[axis], dtype=int64)
    numbers = reshape_op(numbers, shape=tuple(d if k == axis else 1 for k, d in enumerate(values.shape)))
    is_best = equal_op(numbers, reshape_op(best, shape=kept_shape(values.shape, (axis,))))
    whole = add_op(positions, multiply_op(numbers, number(block, positions)))
    return reduce_sum_op(where_op(is_best, whole, number(0, whole)), axes=(axis,), dtype=int64)
