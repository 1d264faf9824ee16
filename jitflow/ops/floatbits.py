"""Float functions that are operations on bits: copysign, nextafter, signbit. Exact in every float dtype.

float16 and bfloat16 are taken as they are: their neighbours are not those of the same number in float32.
"""

from __future__ import annotations

import numpy as np

from jitflow.dtypes import DType, bfloat16, bool_, float16, float32, float64, int16, int32, int64
from jitflow.expr import Bitcast, Expr, compare, const, eq, select
from jitflow.graph import Node, OpDef, Operand
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import promoted_floats
from jitflow.ops.elementwise import binary_samples, define_elementwise, multiply_op, no_gradient, unary_samples
from jitflow.ops.maths import apply_to_floats, number
from jitflow.ops.testdata import FLOATS, Array
from jitflow.public import public

#: Per float dtype the integers as wide, and the bits of infinity: every exponent bit.
_LAYOUTS: dict[DType, tuple[DType, int]] = {
    float16: (int16, 0x7C00),
    bfloat16: (int16, 0x7F80),
    float32: (int32, 0x7F800000),
    float64: (int64, 0x7FF0000000000000),
}


def _bits(x: Expr) -> Expr:
    return Bitcast(x, _LAYOUTS[x.type.dtype][0])


def _sign(x: Expr) -> Expr:
    """Return the sign bit of `x`, all others being zero."""
    bits = _bits(x)
    return bits & const(-1 << (bits.type.dtype.bits - 1), bits.type)


def _magnitude(x: Expr) -> Expr:
    """Return the bits of the absolute value of `x`."""
    bits = _bits(x)
    return bits & const((1 << (bits.type.dtype.bits - 1)) - 1, bits.type)


def _order(x: Expr) -> Expr:
    """Return an integer that is less than another's just where the numbers are; 0 for both zeros."""
    return select(compare("lt", _bits(x), 0), -_magnitude(x), _bits(x))


def _is_nan(x: Expr) -> Expr:
    return compare("gt", _magnitude(x), _LAYOUTS[x.type.dtype][1])


# ---- copysign


def _vjp_copysign(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, None]:
    one = number(1, x)
    sign = multiply_op(copysign_op(one, x), copysign_op(one, y))
    return unbroadcast(multiply_op(ct, sign), x.shape), None


copysign_op: OpDef = define_elementwise(
    "copysign",
    lambda x, y: Bitcast(_magnitude(x) | _sign(y), x.type.dtype),
    numpy=np.copysign,
    kinds="f",
    vjp=_vjp_copysign,
    samples=binary_samples(FLOATS, wrong=(bool_, int32, int64)),
    storage=True,
)


@public()
def copysign(x1: Operand, x2: Operand, /) -> Node:
    """Return `x1` with the sign of `x2` elementwise, that of zeros and NaN included.

    The two are promoted to one dtype, integers and bool to float64. The derivative is 1 where the signs agree, else
    -1.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.copysign(jf.constant([1.5, -2.0]), jf.constant([-0.0, 3.0])), {})
    array([-1.5,  2. ])
    """
    return copysign_op(*promoted_floats(x1, x2))


# ---- nextafter


def _nextafter(x: Expr, y: Expr) -> Expr:
    """One step of the bits of x: away from zero, if y is further in the direction of x's sign, else towards it."""
    is_further = compare("gt", _order(y), _order(x)) ^ compare("lt", _bits(x), 0)
    one = const(1, _bits(x).type)
    moved = _bits(x) + select(is_further, one, -1)
    step = select(eq(_magnitude(x), 0), _sign(y) | one, moved)
    stays = _is_nan(y) | eq(_order(x), _order(y))
    return select(_is_nan(x), x, select(stays, y, Bitcast(step, x.type.dtype)))


def _numpy_nextafter(x: Array, y: Array) -> Array:
    # numpy's own gives the first of two equal numbers in float16, and the second in wider dtypes.
    return np.where(x == y, y, np.nextafter(x, y))


nextafter_op: OpDef = define_elementwise(
    "nextafter",
    _nextafter,
    numpy=_numpy_nextafter,
    kinds="f",
    vjp=lambda ct, out, x, y: (unbroadcast(ct, x.shape), None),
    samples=binary_samples(FLOATS, wrong=(bool_, int32, int64)),
    storage=True,
)


@public()
def nextafter(x1: Operand, x2: Operand, /) -> Node:
    """Return the number of the dtype that follows `x1` in the direction of `x2`, elementwise.

    `x2` where the two are equal (so the sign of a zero may change), NaN where either is. From the largest number
    upwards is infinity; from the least towards zero is a zero of the same sign. The two are promoted to one dtype,
    integers and bool to float64. The derivative by `x1` is 1.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nextafter(jf.constant([1.0]), 2.0) - 1.0, {})
    array([2.22044605e-16])
    """
    return nextafter_op(*promoted_floats(x1, x2))


# ---- signbit

signbit_op: OpDef = define_elementwise(
    "signbit",
    lambda x: compare("lt", _bits(x), 0),
    numpy=np.signbit,
    kinds="f",
    vjp=no_gradient(1),
    samples=unary_samples(FLOATS, wrong=(bool_, int32, int64)),
    result=bool_,
    storage=True,
)


@public()
def signbit(x: Operand, /) -> Node:
    """Return whether the sign bit is set, elementwise, as bool: true for -0.0 and NaN with that sign.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.signbit(jf.constant([-1.0, -0.0, 0.0])), {})
    array([ True,  True, False])
    """
    return apply_to_floats(signbit_op, x)
