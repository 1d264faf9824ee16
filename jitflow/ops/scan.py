"""Running folds along an axis: cumulative_sum, cumulative_prod.

Element k of the result is the fold of elements 0 .. k, one by one in this order: the order is part of the meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float32, float64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import Binary, as_index, compare, const_index
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op
from jitflow.kernel import KernelBuilder, Memory
from jitflow.ops.axes import normalize_axis
from jitflow.ops.fold import FOLDS
from jitflow.ops.movement import flip
from jitflow.ops.testdata import NUMBERS, SHAPES, Array, draw, edges
from jitflow.types import TensorType, shape_text


def _infer_scan(x: TensorType, *, op: str, axis: int) -> TensorType:
    if op not in FOLDS:
        raise GraphError(f"scan: op must be one of {', '.join(FOLDS)}, got {op!r}")
    if not 0 <= axis < x.rank:
        raise ShapeError(f"scan: axis {axis} is out of range for {shape_text(x.shape)}")
    if x.dtype.is_bool:
        raise DTypeError("scan takes integers and floats, not bool; convert with astype")
    return x


def _kernel_scan(b: KernelBuilder, out: Memory, x: Memory, *, op: str, axis: int) -> None:
    """Along the last axis a row keeps its total in a register; else all rows go along together, as vectors."""
    before, n, after = x.type.shape[:axis], x.type.shape[axis], x.type.shape[axis + 1 :]
    is_some = compare("lt", const_index(0), as_index(n))
    with b.rows(*before) as i, b.if_(is_some):
        if after:
            with b.independent(*after) as j:
                b.store(out, (*i, 0, *j), x(*i, 0, *j))
            with b.loop("k", as_index(n) - 1) as k, b.independent(*after) as j:
                b.store(out, (*i, k + 1, *j), Binary(op, out(*i, k, *j), x(*i, k + 1, *j)))
        else:
            total = b.variable("total", x.type.dtype, x(*i, 0))
            b.store(out, (*i, 0), total.get())
            with b.loop("k", as_index(n) - 1) as k:
                total.set(Binary(op, total.get(), x(*i, k + 1)))
                b.store(out, (*i, k + 1), total.get())


def _numpy_scan(x: Array, *, op: str, axis: int) -> Any:
    out = x.copy()
    lines, results = np.moveaxis(x, axis, 0), np.moveaxis(out, axis, 0)
    with np.errstate(all="ignore"):
        for k in range(1, x.shape[axis]):
            results[k] = FOLDS[op](results[k - 1], lines[k])
    return out


def _vjp_scan(ct: Node, out: Node, x: Node, *, op: str, axis: int) -> tuple[Node | None]:
    return (flip(scan_op(flip(ct, axis=axis), op="add", axis=axis), axis=axis),)


def _samples_scan(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in SHAPES:
        for axis in range(len(shape)):
            yield Sample((draw(rng, float64, *shape),), {"op": "add", "axis": axis})
    for dtype in NUMBERS:
        for op in FOLDS:
            yield Sample((draw(rng, dtype, 3, 17),), {"op": op, "axis": 0}, smooth=op == "add")
            yield Sample((edges(dtype),), {"op": op, "axis": 0}, smooth=False)
    yield Sample((draw(rng, float32, 2),), {"op": "add", "axis": 1}, ShapeError, r"axis 1 is out of range for \(2,\)")
    yield Sample((draw(rng, float32, 2),), {"op": "or", "axis": 0}, GraphError, "op must be one of add, mul")
    yield Sample((draw(rng, bool_, 2),), {"op": "add", "axis": 0}, DTypeError, "not bool")


scan_op: OpDef = define_op(
    "scan",
    infer=_infer_scan,
    kernel=_kernel_scan,
    numpy=_numpy_scan,
    vjp=_vjp_scan,
    samples=_samples_scan,
    exact=True,
)


def cumulative_sum(x: Operand, /, *, axis: int | None = None) -> Node:
    """Return the running sums along `axis`."""
    node = as_node(x)
    return scan_op(node, op="add", axis=normalize_axis(0 if axis is None else axis, len(node.shape), "cumulative_sum"))
