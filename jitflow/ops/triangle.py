"""triangle: matrices with a constant above (or below) a diagonal, chosen by subscripts and so without reading more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float64
from jitflow.errors import ShapeError
from jitflow.expr import Expr, const, select
from jitflow.graph import Index, Node, OpDef, Reader, Sample, define_op
from jitflow.ops.axes import check_matrices
from jitflow.ops.testdata import Array, draw
from jitflow.types import TensorType


def _infer(x: TensorType, *, k: int, upper: bool, fill: bool | int | float) -> TensorType:
    check_matrices("triangle", x.shape)
    return x


def _element(index: Index, x: Reader, *, k: int, upper: bool, fill: bool | int | float) -> Expr:
    row, column = index[-2:]
    kept = column >= row + k if upper else column <= row + k
    return select(kept, x(*index), const(fill, x.type.dtype))


def _numpy(x: Array, *, k: int, upper: bool, fill: bool | int | float) -> Array:
    kept = np.triu(np.ones(x.shape[-2:], np.bool_), k) if upper else np.tri(x.shape[-2], x.shape[-1], k, dtype=np.bool_)
    return np.where(kept, x, np.asarray(fill, x.dtype))


def _vjp(ct: Node, out: Node, x: Node, *, k: int, upper: bool, fill: bool | int | float) -> tuple[Node]:
    return (triangle_op(ct, k=k, upper=upper, fill=0.0),)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    cases: tuple[tuple[tuple[int, ...], int], ...] = (
        ((3, 5), 0),
        ((5, 3), 1),
        ((4, 4), -2),
        ((2, 3, 40), 7),
        ((3, 3), 9),
        ((3, 3), -9),
        ((1, 1), 0),
        ((0, 3), 0),
    )
    for shape, k in cases:
        for upper in (False, True):
            attrs: dict[str, Any] = {"k": k, "upper": upper, "fill": float("-inf") if upper else 0.0}
            yield Sample((draw(rng, float64, *shape),), attrs, smooth=not upper)
    for dtype in SUPPORTED:
        fill = 1.0 if dtype.is_float else bool(dtype.is_bool) or 1
        yield Sample((draw(rng, dtype, 5, 37),), {"k": 0, "upper": False, "fill": fill}, smooth=False)
    yield Sample((draw(rng, float64, 3),), {"k": 0, "upper": False, "fill": 0.0}, ShapeError, "at least two axes")


#: The elements of the last two axes on the diagonal `k` and below (`upper`: above) it, and `fill` elsewhere.
triangle_op: OpDef = define_op(
    "triangle",
    infer=_infer,
    element=_element,
    numpy=_numpy,
    vjp=_vjp,
    samples=_samples,
    exact=True,
    movement=True,
)
