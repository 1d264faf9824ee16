"""Functions of real numbers: sqrt, square, exp, log, tanh, sin, cos, erf, pow.

Except for sqrt they are vector-maths intrinsics, ``call(name, x)``, which lowering writes out. Compiled, they are
within 1 ULP in float32 (over all arguments), and within 1.5 ULP in float64 and on targets without fused multiply-add
(over millions of random ones); sqrt is exact to half a ULP. The oracle computes float32 in float64 and rounds, which
gives the nearest float32 but for rare ties; its float64 is numpy's, within 2 ULP.

Special values: exp(-inf) = 0; log(0) = -inf and log(x < 0) is NaN; sin and cos of infinities are NaN; tanh and erf of
infinities are +-1; odd functions keep the sign of zero; pow(x, 0) and pow(1, y) are 1, otherwise NaN propagates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float_of, int32, int64
from jitflow.errors import DTypeError, GraphError
from jitflow.expr import Unary, call
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, is_weak, located, make_constant
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.compare import equal_op, greater_op, where_op
from jitflow.ops.elementwise import (
    define_elementwise,
    divide_op,
    multiply_op,
    negative_op,
    subtract_op,
    unary_samples,
)
from jitflow.ops.testdata import BROADCASTS, FLOATS, INTEGERS, Array, draw, edge_pairs, edges


def _in_double(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` computed in float64 and rounded to the dtype of its input."""
    return lambda *xs: np.asarray(fn(*(x.astype(np.float64) for x in xs))).astype(xs[0].dtype)


def _samples_maths(low: float, high: float) -> Callable[[np.random.Generator], Iterator[Sample]]:
    """Return `samples` that add to those of any float function a range in which the function has something to do."""
    common = unary_samples(FLOATS, wrong=(bool_, int32, int64))

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for sample in common(rng):
            # Central differences would leave the domain of log and sqrt near zero.
            yield Sample(sample.inputs, sample.attrs, sample.raises, sample.match, smooth=low < 0 and sample.smooth)
        for dtype in FLOATS:
            assert dtype.np is not None
            yield Sample((rng.uniform(max(low, 0.25), 3.0, 9).astype(dtype.np),))
            yield Sample((rng.uniform(low, high, 67).astype(dtype.np),), smooth=False)

    return samples


def _function(
    name: str, fn: Callable[..., Any], low: float, high: float, vjp: Callable[..., tuple[Node, ...]]
) -> OpDef:
    return define_elementwise(
        name,
        lambda a: call(name, a),
        numpy=_in_double(fn),
        kinds="f",
        vjp=vjp,
        samples=_samples_maths(low, high),
        exact=False,
        costly=True,
    )


def _applied(op: OpDef, x: Operand) -> Node:
    node = as_node(x)
    return op(as_dtype_of(node, float_of(node.dtype)))


def _number(value: float, like: Node) -> Node:
    return make_constant(value, like.dtype)


sqrt_op: OpDef = define_elementwise(
    "sqrt",
    lambda a: Unary("sqrt", a),
    numpy=np.sqrt,
    kinds="f",
    vjp=lambda ct, out, x: (divide_op(multiply_op(ct, _number(0.5, ct)), out),),
    samples=_samples_maths(0.0, 1e6),
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
    return _applied(sqrt_op, x)


exp_op: OpDef = _function("exp", np.exp, -110.0, 100.0, lambda ct, out, x: (multiply_op(ct, out),))


def exp(x: Operand, /) -> Node:
    """Return e to the power `x` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.exp(jf.constant([0.0, float("-inf")])), {})
    array([1., 0.])
    """
    return _applied(exp_op, x)


log_op: OpDef = _function("log", np.log, 0.0, 1e6, lambda ct, out, x: (divide_op(ct, x),))


def log(x: Operand, /) -> Node:
    """Return the natural logarithm elementwise: -inf at 0, NaN below. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log(jf.constant([1.0, 0.0])), {})
    array([  0., -inf])
    """
    return _applied(log_op, x)


def _vjp_tanh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (multiply_op(ct, subtract_op(_number(1, ct), multiply_op(out, out))),)


tanh_op: OpDef = _function("tanh", np.tanh, -12.0, 12.0, _vjp_tanh)


def tanh(x: Operand, /) -> Node:
    """Return the hyperbolic tangent elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tanh(jf.constant([0.0, float("inf")])), {})
    array([0., 1.])
    """
    return _applied(tanh_op, x)


sin_op: OpDef = _function("sin", np.sin, -1e5, 1e5, lambda ct, out, x: (multiply_op(ct, cos_op(x)),))


def sin(x: Operand, /) -> Node:
    """Return the sine of `x` in radians elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sin(jf.constant([0.0])), {})
    array([0.])
    """
    return _applied(sin_op, x)


cos_op: OpDef = _function("cos", np.cos, -1e5, 1e5, lambda ct, out, x: (negative_op(multiply_op(ct, sin_op(x))),))


def cos(x: Operand, /) -> Node:
    """Return the cosine of `x` in radians elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cos(jf.constant([0.0])), {})
    array([1.])
    """
    return _applied(cos_op, x)


def erf_array(x: Array) -> Array:
    """Return the error function of a float64 array."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(np.float64)


def _vjp_erf(ct: Node, out: Node, x: Node) -> tuple[Node]:
    bell = exp_op(negative_op(multiply_op(x, x)))
    return (multiply_op(ct, multiply_op(bell, _number(2 / math.sqrt(math.pi), ct))),)


erf_op: OpDef = _function("erf", erf_array, -6.0, 6.0, _vjp_erf)


def erf(x: Operand, /) -> Node:
    """Return the error function ``2/sqrt(pi) * integral of exp(-t**2) from 0 to x`` elementwise.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.erf(jf.constant([0.0, float("-inf")])), {})
    array([ 0., -1.])
    """
    return _applied(erf_op, x)


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
    return _int_power(x, y) if x.dtype.kind == "i" else _in_double(np.power)(x, y)


def _vjp_pow(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node | None, ...]:
    if not x.dtype.is_float:
        return (None, None)
    one, zero = _number(1, x), _number(0, x)
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
        for a, b in BROADCASTS:
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
