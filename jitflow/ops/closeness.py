"""Tensors compared as wholes or up to rounding: isclose, allclose, array_equal, isin, count_nonzero."""

from __future__ import annotations

from jitflow.dtypes import bool_, float64, int64
from jitflow.graph import Node, Operand, as_node, make_constant
from jitflow.ops.axes import Axis, as_flag, as_number
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.compare import equal, isfinite, isnan, less_equal_op, not_equal_op
from jitflow.ops.elementwise import abs_op, add_op, multiply_op, subtract_op
from jitflow.ops.logic import logical_and_op, logical_not_op, logical_or_op
from jitflow.ops.movement import reshape_to
from jitflow.ops.rearranging import ravel
from jitflow.ops.reduce import all, any, sum
from jitflow.ops.sorting import searchsorted, sort
from jitflow.public import public
from jitflow.types import same_shape

#: Up to so many elements to look for are compared one by one, in the same loop as what surrounds them.
_FEW = 16


@public()
def isclose(x1: Operand, x2: Operand, /, *, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Node:
    """Return whether ``abs(x1 - x2) <= atol + rtol*abs(x2)``, elementwise.

    Parameters
    ----------
    x1, x2
        Tensors that broadcast. Infinities are close to themselves only.
    rtol, atol
        How far they may be apart, relative to `x2` and absolutely.
    equal_nan
        Whether NaN is close to NaN.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isclose(jf.constant([1.0, 2.0]), [1.0 + 1e-9, 2.1]), {})
    array([ True, False])
    """
    x, y = promoted(x1, x2)
    if not x.dtype.is_float:
        x, y = as_dtype_of(x, float64), as_dtype_of(y, float64)
    least, share = as_number(atol, "isclose: atol"), as_number(rtol, "isclose: rtol")
    margin = add_op(make_constant(least, y.dtype), multiply_op(make_constant(share, y.dtype), abs_op(y)))
    near = logical_and_op(less_equal_op(abs_op(subtract_op(x, y)), margin), isfinite(y))
    close = logical_or_op(near, equal(x, y))
    return (
        logical_or_op(close, logical_and_op(isnan(x), isnan(y))) if as_flag(equal_nan, "isclose: equal_nan") else close
    )


@public()
def allclose(x1: Operand, x2: Operand, /, *, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Node:
    """Return whether all elements are close; see `isclose`. A 0-d tensor of bool.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.allclose(jf.constant([1.0, 2.0]), [1.0, 2.1]), {})
    array(False)
    """
    return all(isclose(x1, x2, rtol=rtol, atol=atol, equal_nan=equal_nan))


@public()
def array_equal(x1: Operand, x2: Operand, /, *, equal_nan: bool = False) -> Node:
    """Return whether two tensors have the same shape and elements. A 0-d tensor of bool.

    Shapes that are known to differ give False. Symbolic dims that are compared must agree when the graph runs.

    Parameters
    ----------
    x1, x2
        Any tensors.
    equal_nan
        Whether NaN equals NaN.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.array_equal(jf.constant([1, 2]), [1, 2]), {})
    array(True)
    """
    x, y = as_node(x1), as_node(x2)
    literal = [n for n in (*x.shape, *y.shape) if isinstance(n, int)]
    known = len(literal) == len(x.shape) + len(y.shape)
    if len(x.shape) != len(y.shape) or (known and not same_shape(x.shape, y.shape)):
        return make_constant(False, bool_)
    same = equal(x, y)
    if as_flag(equal_nan, "array_equal: equal_nan") and x.dtype.is_float and y.dtype.is_float:
        same = logical_or_op(same, logical_and_op(isnan(x), isnan(y)))
    return all(same)


@public()
def isin(x: Operand, test_elements: Operand, /, *, invert: bool = False) -> Node:
    """Return whether each element of `x` is one of `test_elements` (with `invert`: is none of them).

    NaN equals nothing. Unless `test_elements` are known to be a few, they are sorted and searched; but uint64 and
    signed integers, of which no dtype holds all, are compared one by one.

    Parameters
    ----------
    x
        Any tensor.
    test_elements
        A tensor of any shape, an array or a list.
    invert
        Whether to negate the result.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.isin(jf.constant([1, 2, 3]), [3, 1]), {})
    array([ True, False,  True])
    """
    node, wanted = as_node(x), ravel(test_elements)
    count = wanted.shape[0]
    line, sought = promoted(wanted, node)
    rounds = line.dtype.is_float and not (node.dtype.is_float or wanted.dtype.is_float)  # no dtype has all of both
    if rounds or (isinstance(count, int) and count <= _FEW):
        found = any(equal(reshape_to(node, (*node.shape, 1)), wanted), axis=-1)
    else:
        line = sort(line)
        first, end = (searchsorted(line, sought, side=side) for side in ("left", "right"))
        found = logical_and_op(not_equal_op(first, end), equal(sought, sought))  # a search finds NaN
    return logical_not_op(found) if as_flag(invert, "isin: invert") else found


@public()
def count_nonzero(x: Operand, /, *, axis: Axis = None, keepdims: bool = False) -> Node:
    """Return how many elements over `axis` are not zero, as int64.

    Parameters
    ----------
    x
        Any tensor. NaN is not zero.
    axis
        An axis, several, or None for all.
    keepdims
        Whether the reduced axes stay, with size 1.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis named twice.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.count_nonzero(jf.constant([[0, 1], [2, 3]]), axis=0), {})
    array([1, 2])
    """
    node = as_node(x)
    present = node if node.dtype.is_bool else not_equal_op(node, make_constant(0, node.dtype))
    return sum(present, axis=axis, dtype=int64, keepdims=keepdims)
