"""NaN and infinities passed over, replaced or looked for: fmax, fmin, nan_to_num, isposinf, isneginf."""

from __future__ import annotations

import math

from jitflow.dtypes import FLOAT_FORMATS
from jitflow.graph import Node, OpDef, Operand, as_node, make_constant
from jitflow.ops.axes import as_number
from jitflow.ops.cast import promoted
from jitflow.ops.compare import equal_op, isnan, not_equal_op
from jitflow.ops.selection import maximum_op, minimum_op, where_op
from jitflow.public import public


def _of_numbers(op: OpDef, x1: Operand, x2: Operand) -> Node:
    """Return ``op(x1, x2)``, the other operand where one is NaN."""
    x, y = promoted(x1, x2)
    if not x.dtype.is_float:
        return op(x, y)
    return where_op(isnan(x), y, where_op(isnan(y), x, op(x, y)))


@public()
def fmax(x1: Operand, x2: Operand, /) -> Node:
    """Return the greater of two, elementwise; the number where one of them is NaN. Otherwise as `maximum`.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.fmax(jf.constant([1.0, float("nan")]), 0.0), {})
    array([1., 0.])
    """
    return _of_numbers(maximum_op, x1, x2)


@public()
def fmin(x1: Operand, x2: Operand, /) -> Node:
    """Return the lesser of two, elementwise; the number where one of them is NaN. Otherwise as `minimum`.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.fmin(jf.constant([1.0, float("nan")]), 3.0), {})
    array([1., 3.])
    """
    return _of_numbers(minimum_op, x1, x2)


@public()
def nan_to_num(x: Operand, /, *, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Node:
    """Return `x` with NaN and infinities replaced. Integers and bool have none.

    Parameters
    ----------
    x
        Any tensor.
    nan
        What comes for NaN.
    posinf, neginf
        What comes for the infinities; by default the greatest and least finite number of the dtype.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nan_to_num(jf.constant([float("nan"), float("inf")]), posinf=9.0), {})
    array([0., 9.])
    """
    node = as_node(x)
    if not node.dtype.is_float:
        return node
    largest = FLOAT_FORMATS[node.dtype].largest
    out = where_op(isnan(node), make_constant(as_number(nan, "nan_to_num: nan"), node.dtype), node)
    for infinity, given, what in ((math.inf, posinf, "posinf"), (-math.inf, neginf, "neginf")):
        greatest = math.copysign(largest, infinity)
        value = greatest if given is None else as_number(given, f"nan_to_num: {what}")
        is_it = equal_op(node, make_constant(infinity, node.dtype))
        out = where_op(is_it, make_constant(value, node.dtype), out)
    return out


@public()
def isposinf(x: Operand, /) -> Node:
    """Return whether `x` is plus infinity, elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isposinf(jf.constant([float("-inf"), float("inf")])), {})
    array([False,  True])
    """
    return _is_infinity(x, float("inf"))


@public()
def isneginf(x: Operand, /) -> Node:
    """Return whether `x` is minus infinity, elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isneginf(jf.constant([float("-inf"), float("inf")])), {})
    array([ True, False])
    """
    return _is_infinity(x, float("-inf"))


def _is_infinity(x: Operand, infinity: float) -> Node:
    node = as_node(x)
    if not node.dtype.is_float:
        return not_equal_op(node, node)
    return equal_op(node, make_constant(infinity, node.dtype))
