"""Exponential functions, logarithms, roots and powers.

Except for sqrt they are vector-maths intrinsics, which lowering writes out without any library. How far compiled code
may be from the exact result is measured, for float32 over all arguments (`lowering/ACCURACY.md`): in float32 at most 1
ULP, pow 2; in float64 at most 1, pow 1.5; on targets without fused multiply-add at most 1.5. sqrt is correctly rounded.

Special values are those of the array API standard and of C: NaN propagates but for the cases that are said; results
underflow gradually; outside its domain a function is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, int32, int64
from jitflow.errors import DTypeError, GraphError
from jitflow.expr import Unary, call
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, is_weak, located, make_constant
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import as_float, cast_array, promoted, promoted_floats
from jitflow.ops.compare import equal_op, greater_op
from jitflow.ops.elementwise import (
    add_op,
    binary_samples,
    define_elementwise,
    divide_op,
    in_double,
    multiply_op,
    negative_op,
    subtract_op,
)
from jitflow.ops.maths import apply_to_floats, define_function, number, samples_between
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import BROADCASTS, FLOATS, INTEGERS, Array, draw, edge_pairs, edges, is_thorough
from jitflow.public import public

# ---- exponentials

exp_op: OpDef = define_function("exp", np.exp, -110.0, 100.0, lambda ct, out, x: (multiply_op(ct, out),))


@public()
def exp(x: Operand, /) -> Node:
    """Return e to the power `x` elementwise: 0 for -inf. Integers and bool are taken as float64.

    Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.exp(jf.constant([0.0, float("-inf")])), {})
    array([1., 0.])
    """
    return apply_to_floats(exp_op, x)


exp2_op: OpDef = define_function(
    "exp2",
    np.exp2,
    -155.0,
    130.0,
    lambda ct, out, x: (multiply_op(ct, multiply_op(out, number(math.log(2), ct))),),
)


@public()
def exp2(x: Operand, /) -> Node:
    """Return 2 to the power `x` elementwise, exact where `x` is whole: 0 for -inf.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.exp2(jf.constant([3.0, -1.0, float("-inf")])), {})
    array([8. , 0.5, 0. ])
    """
    return apply_to_floats(exp2_op, x)


expm1_op: OpDef = define_function(
    "expm1", np.expm1, -20.0, 90.0, lambda ct, out, x: (multiply_op(ct, add_op(out, number(1, ct))),)
)


@public()
def expm1(x: Operand, /) -> Node:
    """Return ``exp(x) - 1`` elementwise, precise also where `x` is nearly 0; -1 for -inf, and -0.0 for -0.0.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.expm1(jf.constant([1e-20, -0.0, float("-inf")])), {})
    array([ 1.e-20, -0.e+00, -1.e+00])
    """
    return apply_to_floats(expm1_op, x)


def logistic(x: Array) -> Any:
    """Return ``1 / (1 + exp(-x))``, which underflows gradually: where exp(-x) is infinite exp(x) is the result."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


def _vjp_sigmoid(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (multiply_op(ct, multiply_op(out, subtract_op(number(1, ct), out))),)


sigmoid_op: OpDef = define_function("sigmoid", logistic, -110.0, 20.0, _vjp_sigmoid, smooth=(-6.0, 6.0))


@public("jitflow", "nn")
def sigmoid(x: Operand, /) -> Node:
    """Return ``1 / (1 + exp(-x))`` elementwise, precise also where it is nearly 0: 0 for -inf and 1 for inf.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sigmoid(jf.constant([0.0, float("inf"), -700.0])), {})
    array([5.00000000e-001, 1.00000000e+000, 9.85967654e-305])
    """
    return apply_to_floats(sigmoid_op, x)


# ---- logarithms

log_op: OpDef = define_function("log", np.log, 0.0, 1e6, lambda ct, out, x: (divide_op(ct, x),))


@public()
def log(x: Operand, /) -> Node:
    """Return the natural logarithm elementwise: -inf at 0, NaN below. Integers and bool are taken as float64.

    Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log(jf.constant([1.0, 0.0])), {})
    array([  0., -inf])
    """
    return apply_to_floats(log_op, x)


def _vjp_of_log(base: float) -> Callable[[Node, Node, Node], tuple[Node]]:
    return lambda ct, out, x: (divide_op(ct, multiply_op(x, number(math.log(base), x))),)


log2_op: OpDef = define_function("log2", np.log2, 0.0, 1e6, _vjp_of_log(2))


@public()
def log2(x: Operand, /) -> Node:
    """Return the logarithm to base 2 elementwise, exact for powers of 2: -inf at 0, NaN below.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log2(jf.constant([8.0, 0.25, 0.0])), {})
    array([  3.,  -2., -inf])
    """
    return apply_to_floats(log2_op, x)


log10_op: OpDef = define_function("log10", np.log10, 0.0, 1e6, _vjp_of_log(10))


@public()
def log10(x: Operand, /) -> Node:
    """Return the logarithm to base 10 elementwise: -inf at 0, NaN below. Integers and bool are taken as float64.

    Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log10(jf.constant([1000.0, 1.0, 0.0])), {})
    array([  3.,   0., -inf])
    """
    return apply_to_floats(log10_op, x)


log1p_op: OpDef = define_function(
    "log1p", np.log1p, -1.0, 50.0, lambda ct, out, x: (divide_op(ct, add_op(x, number(1, x))),), smooth=(-0.75, 3.0)
)


@public()
def log1p(x: Operand, /) -> Node:
    """Return ``log(1 + x)`` elementwise, precise also where `x` is nearly 0: -inf at -1, NaN below, -0.0 for -0.0.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log1p(jf.constant([1e-20, -0.0, -1.0])), {})
    array([ 1.e-20, -0.e+00,    -inf])
    """
    return apply_to_floats(log1p_op, x)


def _vjp_logaddexp(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # Equal infinities have no difference.
    difference = where_op(equal_op(x, y), number(0, x), subtract_op(x, y))
    by_x = multiply_op(ct, sigmoid_op(difference))
    by_y = multiply_op(ct, sigmoid_op(negative_op(difference)))
    return unbroadcast(by_x, x.shape), unbroadcast(by_y, y.shape)


def _samples_logaddexp(rng: np.random.Generator) -> Iterator[Sample]:
    yield from binary_samples(FLOATS, wrong=(bool_, int32, int64))(rng)
    for dtype in FLOATS:
        yield Sample((cast_array(rng.uniform(-110, 110, 67), dtype), cast_array(rng.uniform(-110, 110, 67), dtype)))


logaddexp_op: OpDef = define_elementwise(
    "logaddexp",
    lambda a, b: call("logaddexp", a, b),
    numpy=in_double(np.logaddexp),
    kinds="f",
    vjp=_vjp_logaddexp,
    samples=_samples_logaddexp,
    exact=False,
    costly=True,
    scale=np.maximum,
)


@public()
def logaddexp(x1: Operand, x2: Operand, /) -> Node:
    """Return ``log(exp(x1) + exp(x2))`` elementwise, without overflow.

    Equal infinities give themselves. The two are promoted to one dtype, integers and bool to float64. Within 1 ULP,
    of the larger argument where the result is nearly 0.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.logaddexp(jf.constant([1000.0, 0.0]), jf.constant([1000.0, float("-inf")])), {})
    array([1000.69314718,    0.        ])
    """
    return logaddexp_op(*promoted_floats(x1, x2))


# ---- roots

sqrt_op: OpDef = define_elementwise(
    "sqrt",
    lambda a: Unary("sqrt", a),
    numpy=np.sqrt,
    kinds="f",
    vjp=lambda ct, out, x: (divide_op(multiply_op(ct, number(0.5, ct)), out),),
    samples=samples_between(0.0, 1e6),
)


@public()
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


def _vjp_rsqrt(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (multiply_op(ct, divide_op(multiply_op(out, number(-0.5, out)), x)),)


rsqrt_op: OpDef = define_function("rsqrt", lambda x: 1.0 / np.sqrt(x), 0.0, 1e6, _vjp_rsqrt)


@public()
def rsqrt(x: Operand, /) -> Node:
    """Return ``1 / sqrt(x)`` elementwise: inf at 0, -inf at -0.0, NaN below, 0 for inf.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.rsqrt(jf.constant([4.0, 0.0, float("inf")])), {})
    array([0.5, inf, 0. ])
    """
    return apply_to_floats(rsqrt_op, x)


def _vjp_cbrt(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (divide_op(ct, multiply_op(number(3, out), multiply_op(out, out))),)


cbrt_op: OpDef = define_function("cbrt", np.cbrt, -1e6, 1e6, _vjp_cbrt, smooth=(0.25, 3.0))


@public()
def cbrt(x: Operand, /) -> Node:
    """Return the cube root elementwise, negative below 0; zeros and infinities are their own.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cbrt(jf.constant([-8.0, 27.0])), {})
    array([-2.,  3.])
    """
    return apply_to_floats(cbrt_op, x)


def _vjp_hypot(ct: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # At the origin, where there is no slope, 0.
    safe = where_op(equal_op(out, number(0, out)), number(1, out), out)
    by_x, by_y = (multiply_op(ct, divide_op(v, safe)) for v in (x, y))
    return unbroadcast(by_x, x.shape), unbroadcast(by_y, y.shape)


def _samples_hypot(rng: np.random.Generator) -> Iterator[Sample]:
    yield from binary_samples(FLOATS, wrong=(bool_, int32, int64))(rng)
    for dtype in FLOATS:
        x, y = (np.exp(rng.uniform(-85, 85, 67)) for _ in range(2))
        yield Sample((cast_array(x, dtype), cast_array(y, dtype)), smooth=False)


hypot_op: OpDef = define_elementwise(
    "hypot",
    lambda a, b: call("hypot", a, b),
    numpy=in_double(np.hypot),
    kinds="f",
    vjp=_vjp_hypot,
    samples=_samples_hypot,
    exact=False,
    costly=True,
)


@public()
def hypot(x1: Operand, x2: Operand, /) -> Node:
    """Return ``sqrt(x1**2 + x2**2)`` elementwise, without overflow on the way.

    If either is infinite the result is, even if the other is NaN. The two are promoted to one dtype, integers and
    bool to float64. Within 1 ULP.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.hypot(jf.constant([3.0, float("inf")]), jf.constant([4.0, float("nan")])), {})
    array([ 5., inf])
    """
    return hypot_op(*promoted_floats(x1, x2))


# ---- powers


@public()
def reciprocal(x: Operand, /) -> Node:
    """Return ``1 / x`` elementwise, correctly rounded: infinite at 0, with its sign.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.reciprocal(jf.constant([4.0, -0.0])), {})
    array([0.25, -inf])
    """
    floats = as_float(x)
    return divide_op(number(1, floats), floats)


@public()
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


@public()
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
