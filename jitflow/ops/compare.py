"""Comparison, logic and choice: equal ... greater_equal, logical and bitwise, where, maximum, minimum, clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, bool_, float32, float64, int32, int64, uint64
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Binary, Expr, compare, const, select
from jitflow.graph import (
    Index,
    Node,
    OpDef,
    Operand,
    Reader,
    Sample,
    as_node,
    define_op,
    is_weak,
    make_constant,
)
from jitflow.ops.broadcast import aligned, unbroadcast
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.elementwise import abs_op, binary_samples, define_elementwise, no_gradient, unary_samples
from jitflow.ops.fold import first_greatest, first_least
from jitflow.ops.testdata import BROADCASTS, FLOATS, INTEGERS, Array, draw, edge_pairs, edges, is_thorough
from jitflow.public import public
from jitflow.types import TensorType, broadcast_shapes

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


# ---- logic


def _logical(name: str, rule: Callable[..., Expr], numpy: Callable[..., Any]) -> OpDef:
    inputs = 1 if name == "logical_not" else 2
    make = unary_samples if inputs == 1 else binary_samples
    return define_elementwise(
        name,
        rule,
        numpy=numpy,
        kinds="b",
        vjp=no_gradient(inputs),
        samples=make((bool_,), wrong=(int32, float64)),
    )


logical_and_op = _logical("logical_and", lambda a, b: a & b, np.logical_and)
logical_or_op = _logical("logical_or", lambda a, b: a | b, np.logical_or)
logical_xor_op = _logical("logical_xor", lambda a, b: a ^ b, np.logical_xor)
logical_not_op = _logical("logical_not", lambda a: ~a, np.logical_not)


def _truth(x: Operand) -> Node:
    return as_dtype_of(as_node(x), bool_)


@public()
def logical_and(x1: Operand, x2: Operand, /) -> Node:
    """Return whether both are true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_and(jf.constant([True, False]), True), {})
    array([ True, False])
    """
    return logical_and_op(_truth(x1), _truth(x2))


@public()
def logical_or(x1: Operand, x2: Operand, /) -> Node:
    """Return whether either is true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_or(jf.constant([True, False]), False), {})
    array([ True, False])
    """
    return logical_or_op(_truth(x1), _truth(x2))


@public()
def logical_xor(x1: Operand, x2: Operand, /) -> Node:
    """Return whether exactly one is true (not zero), elementwise.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_xor(jf.constant([True, False]), True), {})
    array([False,  True])
    """
    return logical_xor_op(_truth(x1), _truth(x2))


@public()
def logical_not(x: Operand, /) -> Node:
    """Return whether `x` is false (zero), elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logical_not(jf.constant([True, False])), {})
    array([False,  True])
    """
    return logical_not_op(_truth(x))


def _bitwise(name: str, rule: Callable[..., Expr], numpy: Callable[..., Any], kinds: str = "bi") -> OpDef:
    dtypes = (bool_, *INTEGERS) if "b" in kinds else INTEGERS
    wrong = (float32,) if "b" in kinds else (bool_, float32)
    inputs = 1 if name == "bitwise_invert" else 2
    make = unary_samples if inputs == 1 else binary_samples
    return define_elementwise(
        name, rule, numpy=numpy, kinds=kinds, vjp=no_gradient(inputs), samples=make(dtypes, wrong=wrong)
    )


def _shift(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the numpy shift with counts outside 0 .. width - 1 taken for the width: everything is shifted out."""

    def rule(x: Array, y: Array) -> Any:
        bits = x.dtype.itemsize * 8
        count = np.where((y < 0) | (y >= bits), bits, y).astype(x.dtype)
        return fn(x, count)

    return rule


def _shift_count(op: str) -> Callable[[Expr, Expr], Expr]:
    def rule(a: Expr, b: Expr) -> Expr:
        return Binary(op, a, select(b < 0, const(a.type.dtype.bits, a.type), b))

    return rule


bitwise_and_op = _bitwise("bitwise_and", lambda a, b: a & b, np.bitwise_and)
bitwise_or_op = _bitwise("bitwise_or", lambda a, b: a | b, np.bitwise_or)
bitwise_xor_op = _bitwise("bitwise_xor", lambda a, b: a ^ b, np.bitwise_xor)
bitwise_invert_op = _bitwise("bitwise_invert", lambda a: ~a, np.bitwise_not)
bitwise_left_shift_op = _bitwise("bitwise_left_shift", _shift_count("shl"), _shift(np.left_shift), "i")
bitwise_right_shift_op = _bitwise("bitwise_right_shift", _shift_count("shr"), _shift(np.right_shift), "i")


@public()
def bitwise_and(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 & x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_and(jf.constant([6, 7]), 3), {})
    array([2, 3])
    """
    return bitwise_and_op(*promoted(x1, x2))


@public()
def bitwise_or(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 | x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_or(jf.constant([6, 7]), 8), {})
    array([14, 15])
    """
    return bitwise_or_op(*promoted(x1, x2))


@public()
def bitwise_xor(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 ^ x2`` elementwise, of bool or integers.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_xor(jf.constant([6, 7]), 3), {})
    array([5, 4])
    """
    return bitwise_xor_op(*promoted(x1, x2))


@public()
def bitwise_invert(x: Operand, /) -> Node:
    """Return ``~x`` elementwise, of bool or integers.

    Raises
    ------
    DTypeError
        For floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_invert(jf.constant([0, -1])), {})
    array([-1,  0])
    """
    return bitwise_invert_op(as_node(x))


@public()
def bitwise_left_shift(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 << x2`` elementwise; 0 for a count that is negative or not below the width.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool and floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_left_shift(jf.constant([1, 3]), 2), {})
    array([ 4, 12])
    """
    return bitwise_left_shift_op(*promoted(x1, x2))


@public()
def bitwise_right_shift(x1: Operand, x2: Operand, /) -> Node:
    """Return ``x1 >> x2`` elementwise, filled with the sign; nothing but the sign for a count outside the width.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.
    DTypeError
        For bool and floats.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.bitwise_right_shift(jf.constant([12, -1]), 2), {})
    array([ 3, -1])
    """
    return bitwise_right_shift_op(*promoted(x1, x2))


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
    return where_op(_truth(condition), *promoted(x1, x2))


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
