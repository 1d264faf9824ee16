"""Comparisons, which give bool: equal and kin, isnan, isinf, isfinite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, bool_, int64, uint64
from jitflow.expr import compare
from jitflow.graph import (
    Node,
    OpDef,
    Operand,
    as_node,
    is_weak,
    make_constant,
)
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.elementwise import abs_op, binary_samples, define_elementwise, no_gradient
from jitflow.ops.logic import logical_and_op, logical_not_op, logical_or_op
from jitflow.public import public

# ---- comparison


def _comparison(name: str, op: str, numpy: Callable[..., Any]) -> OpDef:
    return define_elementwise(
        name,
        lambda a, b: compare(op, a, b),
        numpy=numpy,
        kinds="bif",
        result=bool_,
        vjp=no_gradient(2),
        samples=binary_samples(SUPPORTED),
    )


equal_op = _comparison("equal", "eq", np.equal)
not_equal_op = _comparison("not_equal", "ne", np.not_equal)
less_op = _comparison("less", "lt", np.less)
less_equal_op = _comparison("less_equal", "le", np.less_equal)
greater_op = _comparison("greater", "gt", np.greater)
greater_equal_op = _comparison("greater_equal", "ge", np.greater_equal)

#: The comparison of the same two in the other order.
_MIRRORED = {
    "equal": equal_op,
    "not_equal": not_equal_op,
    "less": greater_op,
    "less_equal": greater_equal_op,
    "greater": less_op,
    "greater_equal": less_equal_op,
}


def _compared(op: OpDef, x1: Operand, x2: Operand) -> Node:
    """Return the comparison by `op`; a Python int may be any, also where the other's dtype does not hold it."""
    if type(x1) is int:
        return _compared_with(_MIRRORED[op.name], x2, x1)
    if type(x2) is int:
        return _compared_with(op, x1, x2)
    if is_weak(x1) or is_weak(x2):
        return op(*promoted(x1, x2))
    x, y = as_node(x1), as_node(x2)
    if x.dtype is uint64 and y.dtype.kind == "i":
        return _compared_with_unsigned(_MIRRORED[op.name], y, x)
    if y.dtype is uint64 and x.dtype.kind == "i":
        return _compared_with_unsigned(op, x, y)
    return op(*promoted(x, y))


def _compared_with_unsigned(op: OpDef, x: Node, y: Node) -> Node:
    """Return the comparison of signed `x` with `y`, a uint64; the float64 they promote to does not hold them."""
    is_negative = less_op(x, make_constant(0, x.dtype))
    others = op(as_dtype_of(x, uint64), y)
    if op in (less_op, less_equal_op, not_equal_op):
        return logical_or_op(is_negative, others)
    return logical_and_op(logical_not_op(is_negative), others)


def _compared_with(op: OpDef, x: Operand, n: int) -> Node:
    """Return the comparison of `x` with a Python int."""
    if is_weak(x):
        return op(*promoted(x, n))
    node = as_node(x)
    if node.dtype.is_bool:
        node = as_dtype_of(node, int64)
    dtype = node.dtype
    if dtype.is_float or dtype.min <= n <= dtype.max:
        return op(*promoted(node, n))
    # All values are on one side of n, as they are not above the greatest of them.
    below = n > dtype.max
    holds = op is not_equal_op or op in ((less_op, less_equal_op) if below else (greater_op, greater_equal_op))
    return (less_equal_op if holds else greater_op)(node, make_constant(dtype.max, dtype))


@public()
def equal(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 == x2`` elementwise as bool. NaN equals nothing; -0.0 equals 0.0.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.equal(jf.constant([1, 2]), 2), {})
    array([False,  True])
    """
    return _compared(equal_op, x1, x2)


@public()
def not_equal(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 != x2`` elementwise as bool. NaN differs from everything.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.not_equal(jf.constant([1, 2]), 2), {})
    array([ True, False])
    """
    return _compared(not_equal_op, x1, x2)


@public()
def less(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 < x2`` elementwise as bool; false where either is NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.less(jf.constant([1, 2]), 2), {})
    array([ True, False])
    """
    return _compared(less_op, x1, x2)


@public()
def less_equal(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 <= x2`` elementwise as bool; false where either is NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.less_equal(jf.constant([1, 3]), 2), {})
    array([ True, False])
    """
    return _compared(less_equal_op, x1, x2)


@public()
def greater(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 > x2`` elementwise as bool; false where either is NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.greater(jf.constant([1, 3]), 2), {})
    array([False,  True])
    """
    return _compared(greater_op, x1, x2)


@public()
def greater_equal(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 >= x2`` elementwise as bool; false where either is NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.greater_equal(jf.constant([1, 2]), 2), {})
    array([False,  True])
    """
    return _compared(greater_equal_op, x1, x2)


# ---- tests of floats


@public()
def isnan(x: Operand, /) -> Node:
    """Return whether `x` is NaN, elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isnan(jf.constant([float("nan"), 1.0])), {})
    array([ True, False])
    """
    node = as_node(x)
    return not_equal_op(node, node)


@public()
def isinf(x: Operand, /) -> Node:
    """Return whether `x` is an infinity, elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isinf(jf.constant([float("-inf"), 1.0])), {})
    array([ True, False])
    """
    node = as_node(x)
    if not node.dtype.is_float:
        return not_equal_op(node, node)
    return equal_op(abs_op(node), make_constant(float("inf"), node.dtype))


@public()
def isfinite(x: Operand, /) -> Node:
    """Return whether `x` is neither NaN nor an infinity, elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isfinite(jf.constant([float("-inf"), 1.0])), {})
    array([False,  True])
    """
    node = as_node(x)
    if not node.dtype.is_float:
        return equal_op(node, node)
    return less_op(abs_op(node), make_constant(float("inf"), node.dtype))
