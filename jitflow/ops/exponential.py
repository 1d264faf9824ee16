"""Functions of the exponential family: sqrt, square, exp, log, pow.

Except for sqrt they are vector-maths intrinsics, which lowering writes out. Compiled, they are within 1 ULP in float32
(over all arguments), and within 1.5 ULP in float64 and on targets without fused multiply-add (over millions of random
ones); sqrt is exact to half a ULP.

Special values: exp(-inf) = 0; log(0) = -inf and log(x < 0) is NaN; pow(x, 0) and pow(1, y) are 1, otherwise NaN
propagates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_
from jitflow.errors import DTypeError, GraphError
from jitflow.expr import Unary, call
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, is_weak, located, make_constant
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import promoted
from jitflow.ops.compare import equal_op, greater_op, where_op
from jitflow.ops.elementwise import define_elementwise, divide_op, multiply_op, subtract_op
from jitflow.ops.maths import apply_to_floats, define_function, in_double, number, samples_between
from jitflow.ops.testdata import BROADCASTS, FLOATS, INTEGERS, Array, draw, edge_pairs, edges, is_thorough

sqrt_op: OpDef = define_elementwise(
    "sqrt",
    lambda a: Unary("sqrt", a),
    numpy=np.sqrt,
    kinds="f",
    vjp=lambda ct, out, x: (divide_op(multiply_op(ct, number(0.5, ct)), out),),
    samples=samples_between(0.0, 1e6),
)


def sqrt(x: Operand, /) -> Node:
    """Return the square root elementwise, correctly rounded; NaN below 0, and -0.0 for -0.0.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sqrt(jf.constant([4.0, 2.25])), {})
    array([2. , 1.5])
    """
    return apply_to_floats(sqrt_op, x)


exp_op: OpDef = define_function("exp", np.exp, -110.0, 100.0, lambda ct, out, x: (multiply_op(ct, out),))


def exp(x: Operand, /) -> Node:
    """Return e to the power `x` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.exp(jf.constant([0.0, float("-inf")])), {})
    array([1., 0.])
    """
    return apply_to_floats(exp_op, x)


log_op: OpDef = define_function("log", np.log, 0.0, 1e6, lambda ct, out, x: (divide_op(ct, x),))


def log(x: Operand, /) -> Node:
    """Return the natural logarithm elementwise: -inf at 0, NaN below. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log(jf.constant([1.0, 0.0])), {})
    array([  0., -inf])
    """
    return apply_to_floats(log_op, x)


def square(x: Operand, /) -> Node:
    """Return ``x * x`` elementwise.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.square(jf.constant([-3, 2])), {})
    array([9, 4])
    """
    node = as_node(x)
    return multiply_op(node, node)


# ---- pow


def _int_power(x: Array, y: Array) -> Array:
    power = np.power(x, np.maximum(y, 0))
    alternating = np.where(y & 1 == 1, x, 1)
    return np.where(y >= 0, power, np.where(x == 1, 1, np.where(x == -1, alternating, 0))).astype(x.dtype)


def _numpy_pow(x: Array, y: Array) -> Any:
    return _int_power(x, y) if x.dtype.kind in "iu" else in_double(np.power)(x, y)


def _vjp_pow(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node | None, ...]:
    if not x.dtype.is_float:
        return (None, None)
    one, zero = number(1, x), number(0, x)
    # At y = 0 the factor x**-1 may be infinite; for x <= 0 the function of y is not smooth.
    slope = where_op(equal_op(y, zero), zero, multiply_op(y, pow_op(x, subtract_op(y, one))))
    is_positive = greater_op(x, zero)
    log_x = where_op(is_positive, log_op(where_op(is_positive, x, one)), zero)
    return (
        unbroadcast(multiply_op(ct, slope), x.shape),
        unbroadcast(multiply_op(multiply_op(ct, out), log_x), y.shape),
    )


def _samples_pow(rng: np.random.Generator) -> Iterator[Sample]:
    for dtype in FLOATS:
        assert dtype.np is not None
        for a, b in BROADCASTS if is_thorough(dtype, FLOATS) else BROADCASTS[2:3]:
            yield Sample((rng.uniform(0.3, 3, a).astype(dtype.np), draw(rng, dtype, *b)))
        yield Sample((np.array([0.5, 2.0, 3.0], dtype.np), np.array([0.0, 0.0, 1.0], dtype.np)))
        yield Sample(edge_pairs(dtype), smooth=False)
        x = np.repeat(np.array([-2.5, -1.0, 0.7, 10.0], dtype.np), 5)
        yield Sample((x, np.tile(np.array([-3.0, 2.0, 0.5, 7.0, 38.0], dtype.np), 4)), smooth=False)
    for dtype in INTEGERS:
        yield Sample(edge_pairs(dtype))
        yield Sample((draw(rng, dtype, 3, 1), np.abs(draw(rng, dtype, 4))))
    yield Sample((edges(bool_), edges(bool_)), raises=DTypeError, match="pow takes integers and floats, not bool")


pow_op: OpDef = define_elementwise(
    "pow",
    lambda a, b: call("pow", a, b),
    numpy=_numpy_pow,
    kinds="if",
    vjp=_vjp_pow,
    samples=_samples_pow,
    exact=False,
    costly=True,
)

#: Integer exponents up to here become products: at most 2 * log2 of it.
_LARGEST_CHAIN = 64


def pow(x1: Operand, x2: Operand, /) -> Node:
    """Return `x1` to the power `x2` elementwise.

    Integers wrap around. A negative exponent of integers gives the quotient ``1 / x1**-x2`` truncated: 0 except for
    the bases 1 and -1, and 0 for the base 0. Squares are products, and so are powers of integers by a small Python
    int.

    Parameters
    ----------
    x1
        The base.
    x2
        The exponent; they are promoted to one dtype.

    Raises
    ------
    DTypeError
        For two bool tensors.
    GraphError
        For an integer base and a negative Python int, whose powers are fractions.
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.pow(jf.constant([2.0, 9.0]), 0.5), {})
    array([1.41421356, 3.        ])
    """
    base, exponent = promoted(x1, x2)
    if is_weak(x2) and not is_weak(x1):
        if x2 == 2 and not base.dtype.is_bool:
            return multiply_op(base, base)
        if base.dtype.is_integer and x2 < 0:
            raise located(GraphError("pow: an integer to a negative power is a fraction; use a float exponent"))
        if base.dtype.is_integer and x2 <= _LARGEST_CHAIN:
            return _product_chain(base, int(x2))
    return pow_op(base, exponent)


def _product_chain(x: Node, n: int) -> Node:
    """Return ``x**n`` for n >= 0 by squaring and multiplying."""
    out: Node | None = None
    while n:
        if n & 1:
            out = x if out is None else multiply_op(out, x)
        n >>= 1
        x = multiply_op(x, x) if n else x
    return pow_op(x, make_constant(0, x.dtype)) if out is None else out
