"""Elements chosen from several: where, maximum, minimum, clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, bool_, float32, float64
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Binary, Expr, select
from jitflow.graph import (
    Index,
    Node,
    OpDef,
    Operand,
    Reader,
    Sample,
    as_node,
    define_op,
    make_constant,
)
from jitflow.ops.broadcast import aligned, unbroadcast
from jitflow.ops.cast import promoted
from jitflow.ops.compare import greater_op, less_op
from jitflow.ops.elementwise import binary_samples, define_elementwise
from jitflow.ops.fold import first_greatest, first_least
from jitflow.ops.logic import as_truth, logical_not_op
from jitflow.ops.testdata import BROADCASTS, FLOATS, INTEGERS, draw, edge_pairs, edges, is_thorough
from jitflow.public import public
from jitflow.types import TensorType, broadcast_shapes

# ---- where


def _infer_where(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError(f"where: the condition must be bool, got {condition.dtype}")
    if x.dtype is not y.dtype:
        raise DTypeError(f"where: inputs must have one dtype, got {x.dtype} and {y.dtype}")
    return TensorType(x.dtype, broadcast_shapes([condition.shape, x.shape, y.shape], "where"))


def _element_where(index: Index, condition: Reader, x: Reader, y: Reader) -> Expr:
    return select(aligned(index, condition), aligned(index, x), aligned(index, y))


def _vjp_where(ct: Node, out: Node, condition: Node, x: Node, y: Node) -> tuple[Node | None, ...]:
    zero = make_constant(0, ct.dtype)
    return (
        None,
        unbroadcast(where_op(condition, ct, zero), x.shape),
        unbroadcast(where_op(condition, zero, ct), y.shape),
    )


def _samples_where(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in SUPPORTED:
        for a, b in BROADCASTS if is_thorough(dtype, SUPPORTED) else BROADCASTS[2:3]:
            yield Sample((draw(rng, bool_, *a), draw(rng, dtype, *b), draw(rng, dtype, *a)))
            yield Sample((draw(rng, bool_), draw(rng, dtype, *b), draw(rng, dtype, *a)))
        pairs = edge_pairs(dtype)
        yield Sample((draw(rng, bool_, len(pairs[0])), *pairs), smooth=False)
    bits, x = draw(rng, bool_, 3), draw(rng, float32, 3)
    yield Sample((bits, x, draw(rng, float64, 3)), raises=DTypeError, match="one dtype, got float32 and float64")
    yield Sample((x, x, x), raises=DTypeError, match="condition must be bool, got float32")
    yield Sample((bits, x, draw(rng, float32, 2)), raises=ShapeError, match=r"shapes \(3,\) and \(3,\) and \(2,\)")


where_op: OpDef = define_op(
    "where",
    infer=_infer_where,
    element=_element_where,
    numpy=np.where,
    vjp=_vjp_where,
    samples=_samples_where,
    exact=True,
    storage=True,
)


@public()
def where(condition: Operand, x1: Operand, x2: Operand, /) -> Node:
    """Return `x1` where `condition` is true (not zero), else `x2`, elementwise; all three broadcast.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([-1.0, 4.0])
    >>> jf.interpret(jf.where(x > 0, x, 0), {})
    array([0., 4.])
    """
    return where_op(as_truth(condition), *promoted(x1, x2))


# ---- maximum, minimum, clip


def _extremum(name: str, op: str, on_bool: str, numpy: Callable[..., Any]) -> OpDef:
    """Define maximum or minimum. ``Binary`` gives the first of equal operands, numpy the second: hence the exchange."""

    def vjp(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
        first = (greater_op if op == "max" else less_op)(x, y)
        zero = make_constant(0, ct.dtype)
        return unbroadcast(where_op(first, ct, zero), x.shape), unbroadcast(where_op(first, zero, ct), y.shape)

    return define_elementwise(
        name,
        lambda a, b: Binary(on_bool, a, b) if a.type.dtype is bool_ else Binary(op, b, a),
        numpy=lambda x, y: numpy(y, x),
        kinds="bif",
        vjp=vjp,
        samples=binary_samples(SUPPORTED),
    )


maximum_op = _extremum("maximum", "max", "or", first_greatest)
minimum_op = _extremum("minimum", "min", "and", first_least)


@public()
def maximum(x1: Operand, x2: Operand, /) -> Node:
    """Return the greater of two, elementwise; NaN where either is NaN.

    Of equal ones the second is taken, so ``maximum(0.0, -0.0)`` is -0.0, as in numpy; the derivative goes to it too.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.maximum(jf.constant([1.0, float("nan")]), 2.0), {})
    array([ 2., nan])
    """
    return maximum_op(*promoted(x1, x2))


@public()
def minimum(x1: Operand, x2: Operand, /) -> Node:
    """Return the lesser of two, elementwise; NaN where either is NaN.

    Of equal ones the second is taken, so ``minimum(-0.0, 0.0)`` is 0.0, as in numpy; the derivative goes to it too.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.minimum(jf.constant([1.0, 3.0]), 2.0), {})
    array([1., 2.])
    """
    return minimum_op(*promoted(x1, x2))


@public()
def clip(x: Operand, /, min: Operand | None = None, max: Operand | None = None) -> Node:
    """Return ``minimum(maximum(x, min), max)``, elementwise; NaN stays NaN.

    Parameters
    ----------
    x
        Any tensor.
    min, max
        Bounds that broadcast with `x`; None for none. Where `min` is above `max` the result is `max`.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.clip(jf.constant([-2.0, 0.5, 7.0]), 0, 1), {})
    array([0. , 0.5, 1. ])
    """
    node = as_node(x)
    if node.dtype.is_integer:
        # Python's integers have no bounds: those beyond the dtype's keep nothing out.
        min = None if type(min) is int and min <= node.dtype.min else min
        max = None if type(max) is int and max >= node.dtype.max else max
    if min is None and max is None:
        return node
    if min is None:
        return minimum(x, max)
    if max is None:
        return maximum(x, min)
    node, low, high = promoted(x, min, max)
    return clip_op(node, low, high)


def _vjp_clip(ct: Node, out: Node, x: Node, low: Node, high: Node) -> tuple[Node, ...]:
    zero = make_constant(0, ct.dtype)
    above = logical_not_op(less_op(maximum_op(x, low), high))
    inside = greater_op(x, low)
    return (
        unbroadcast(where_op(above, zero, where_op(inside, ct, zero)), x.shape),
        unbroadcast(where_op(above, zero, where_op(inside, zero, ct)), low.shape),
        unbroadcast(where_op(above, ct, zero), high.shape),
    )


def _samples_clip(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in (*INTEGERS, *FLOATS):
        for a, b in BROADCASTS:
            yield Sample((draw(rng, dtype, *a), draw(rng, dtype, *b), draw(rng, dtype, *a)))
        e = edges(dtype)
        n = len(e)
        ix, iy, iz = np.unravel_index(rng.permutation(n**3)[:300], (n, n, n))
        yield Sample((e[ix], e[iy], e[iz]), smooth=False)
    yield Sample((edges(bool_),) * 3, raises=DTypeError, match="clip takes integers and floats, not bool")


clip_op: OpDef = define_elementwise(
    "clip",
    lambda x, low, high: Binary("min", high, Binary("max", low, x)),
    numpy=lambda x, low, high: first_least(high, first_greatest(low, x)),
    kinds="if",
    vjp=_vjp_clip,
    samples=_samples_clip,
)
