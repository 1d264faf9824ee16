"""Trigonometric and hyperbolic functions, their inverses, and the error function.

They are vector-maths intrinsics, which lowering writes out without any library. How far compiled code is from the exact
result is measured (`lowering/ACCURACY.md`), for float32 over all arguments: within 1 ULP (atan: 1.01), but 2
for tan and atan2, whose quotients would cost more. Targets without fused multiply-add add up to 0.2 ULP.

Arguments of every size are reduced exactly. Special values are those of the array API standard and of C: NaN
propagates; odd functions keep the sign of zero; outside its domain a function is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from jitflow.dtypes import bool_, int32, int64
from jitflow.expr import call
from jitflow.graph import Node, OpDef, Operand, Sample
from jitflow.ops.broadcast import unbroadcast
from jitflow.ops.cast import cast_array, promoted_floats
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
from jitflow.ops.exponential import exp_op, sqrt_op
from jitflow.ops.maths import apply_to_floats, define_function, number
from jitflow.ops.testdata import FLOATS, Array
from jitflow.public import public


def _one_and_square(x: Node) -> tuple[Node, Node]:
    return number(1, x), multiply_op(x, x)


# ---- sine, cosine, tangent

sin_op: OpDef = define_function("sin", np.sin, -1e5, 1e5, lambda ct, out, x: (multiply_op(ct, cos_op(x)),))


@public()
def sin(x: Operand, /) -> Node:
    """Return the sine of `x` in radians elementwise; NaN for infinities. Integers and bool are taken as float64.

    Within 0.6 ULP in float32 and 1 in float64, for arguments of every size.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sin(jf.constant([0.0])), {})
    array([0.])
    """
    return apply_to_floats(sin_op, x)


cos_op: OpDef = define_function("cos", np.cos, -1e5, 1e5, lambda ct, out, x: (negative_op(multiply_op(ct, sin_op(x))),))


@public()
def cos(x: Operand, /) -> Node:
    """Return the cosine of `x` in radians elementwise; NaN for infinities. Integers and bool are taken as float64.

    Within 0.6 ULP in float32 and 1 in float64, for arguments of every size.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cos(jf.constant([0.0])), {})
    array([1.])
    """
    return apply_to_floats(cos_op, x)


def _vjp_tan(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one, square = _one_and_square(out)
    return (multiply_op(ct, add_op(one, square)),)


tan_op: OpDef = define_function("tan", np.tan, -1e5, 1e5, _vjp_tan, smooth=(-1.4, 1.4))


@public()
def tan(x: Operand, /) -> Node:
    """Return the tangent of `x` in radians elementwise; NaN for infinities. Integers and bool are taken as float64.

    Within 2 ULP, for arguments of every size.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tan(jf.constant([0.0, -0.0])), {})
    array([ 0., -0.])
    """
    return apply_to_floats(tan_op, x)


# ---- their inverses


def _vjp_asin(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one, square = _one_and_square(x)
    return (divide_op(ct, sqrt_op(subtract_op(one, square))),)


asin_op: OpDef = define_function("asin", np.arcsin, -1.0, 1.0, _vjp_asin, smooth=(-0.9, 0.9))


@public()
def asin(x: Operand, /) -> Node:
    """Return the angle between -pi/2 and pi/2 whose sine is `x`, elementwise; NaN outside -1 to 1.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.asin(jf.constant([0.0, 1.0, 2.0])), {})
    array([0.        , 1.57079633,        nan])
    """
    return apply_to_floats(asin_op, x)


acos_op: OpDef = define_function(
    "acos", np.arccos, -1.0, 1.0, lambda ct, out, x: (negative_op(_vjp_asin(ct, out, x)[0]),), smooth=(-0.9, 0.9)
)


@public()
def acos(x: Operand, /) -> Node:
    """Return the angle between 0 and pi whose cosine is `x`, elementwise; NaN outside -1 to 1.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.acos(jf.constant([1.0, 0.0, -1.0])), {})
    array([0.        , 1.57079633, 3.14159265])
    """
    return apply_to_floats(acos_op, x)


def _vjp_atan(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one, square = _one_and_square(x)
    return (divide_op(ct, add_op(one, square)),)


atan_op: OpDef = define_function("atan", np.arctan, -20.0, 20.0, _vjp_atan)


@public()
def atan(x: Operand, /) -> Node:
    """Return the angle between -pi/2 and pi/2 whose tangent is `x`, elementwise; +-pi/2 for infinities.

    Integers and bool are taken as float64. Within 1.01 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.atan(jf.constant([1.0, float("-inf")])), {})
    array([ 0.78539816, -1.57079633])
    """
    return apply_to_floats(atan_op, x)


def _vjp_atan2(ct: Node, out: Node, y: Node, x: Node) -> tuple[Node, Node]:
    over = divide_op(ct, add_op(multiply_op(x, x), multiply_op(y, y)))
    return unbroadcast(multiply_op(over, x), y.shape), unbroadcast(negative_op(multiply_op(over, y)), x.shape)


def _samples_atan2(rng: np.random.Generator) -> Iterator[Sample]:
    yield from binary_samples(FLOATS, wrong=(bool_, int32, int64))(rng)
    for dtype in FLOATS:
        angle, radius = rng.uniform(-math.pi, math.pi, 67), np.exp(rng.uniform(-8, 8, 67))
        y, x = (cast_array(radius * f(angle), dtype) for f in (np.sin, np.cos))
        yield Sample((y, x), smooth=False)


atan2_op: OpDef = define_elementwise(
    "atan2",
    lambda y, x: call("atan2", y, x),
    numpy=in_double(np.arctan2),
    kinds="f",
    vjp=_vjp_atan2,
    samples=_samples_atan2,
    exact=False,
    costly=True,
)


@public()
def atan2(x1: Operand, x2: Operand, /) -> Node:
    """Return the angle of the point with ordinate `x1` and abscissa `x2`, between -pi and pi, elementwise.

    A negative zero is on the negative side: ``atan2(0.0, -0.0)`` is pi, ``atan2(-0.0, -0.0)`` is -pi. Infinite
    coordinates are the limits of equal large ones: ``atan2(inf, inf)`` is pi/4. The two are promoted to one dtype,
    integers and bool to float64. Within 2 ULP.

    Raises
    ------
    ShapeError
        If the shapes do not broadcast.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.atan2(jf.constant([1.0, 0.0, -0.0]), jf.constant([1.0, -1.0, -1.0])), {})
    array([ 0.78539816,  3.14159265, -3.14159265])
    """
    return atan2_op(*promoted_floats(x1, x2))


# ---- hyperbolic functions

sinh_op: OpDef = define_function("sinh", np.sinh, -90.0, 90.0, lambda ct, out, x: (multiply_op(ct, cosh_op(x)),))


@public()
def sinh(x: Operand, /) -> Node:
    """Return the hyperbolic sine elementwise; infinite where the result is too large for the dtype.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sinh(jf.constant([-0.0, float("inf"), -1000.0])), {})
    array([ -0.,  inf, -inf])
    """
    return apply_to_floats(sinh_op, x)


cosh_op: OpDef = define_function("cosh", np.cosh, -90.0, 90.0, lambda ct, out, x: (multiply_op(ct, sinh_op(x)),))


@public()
def cosh(x: Operand, /) -> Node:
    """Return the hyperbolic cosine elementwise; infinite where the result is too large for the dtype.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cosh(jf.constant([0.0, float("-inf")])), {})
    array([ 1., inf])
    """
    return apply_to_floats(cosh_op, x)


def _vjp_tanh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one, square = _one_and_square(out)
    return (multiply_op(ct, subtract_op(one, square)),)


tanh_op: OpDef = define_function("tanh", np.tanh, -12.0, 12.0, _vjp_tanh)


@public()
def tanh(x: Operand, /) -> Node:
    """Return the hyperbolic tangent elementwise; +-1 for infinities. Integers and bool are taken as float64.

    Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tanh(jf.constant([0.0, float("inf")])), {})
    array([0., 1.])
    """
    return apply_to_floats(tanh_op, x)


# ---- their inverses


def _vjp_asinh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one, square = _one_and_square(x)
    return (divide_op(ct, sqrt_op(add_op(square, one))),)


asinh_op: OpDef = define_function("asinh", np.arcsinh, -50.0, 50.0, _vjp_asinh)


@public()
def asinh(x: Operand, /) -> Node:
    """Return the number whose hyperbolic sine is `x`, elementwise. Integers and bool are taken as float64.

    Within 1 ULP, for arguments of every size.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.asinh(jf.constant([-0.0, float("-inf")])), {})
    array([ -0., -inf])
    """
    return apply_to_floats(asinh_op, x)


def _vjp_acosh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one = number(1, x)
    # Of x^2 - 1 the difference of the squares, which does not cancel near 1.
    return (divide_op(ct, sqrt_op(multiply_op(subtract_op(x, one), add_op(x, one)))),)


acosh_op: OpDef = define_function("acosh", np.arccosh, 1.0, 60.0, _vjp_acosh, smooth=(1.2, 3.0))


@public()
def acosh(x: Operand, /) -> Node:
    """Return the number from 0 up whose hyperbolic cosine is `x`, elementwise; NaN below 1.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.acosh(jf.constant([1.0, 0.5, float("inf")])), {})
    array([ 0., nan, inf])
    """
    return apply_to_floats(acosh_op, x)


def _vjp_atanh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    one = number(1, x)
    return (divide_op(ct, multiply_op(subtract_op(one, x), add_op(one, x))),)


atanh_op: OpDef = define_function("atanh", np.arctanh, -1.0, 1.0, _vjp_atanh, smooth=(-0.9, 0.9))


@public()
def atanh(x: Operand, /) -> Node:
    """Return the number whose hyperbolic tangent is `x`, elementwise; infinite at -1 and 1, NaN beyond.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.atanh(jf.constant([0.0, 1.0, 2.0])), {})
    array([ 0., inf, nan])
    """
    return apply_to_floats(atanh_op, x)


# ---- the error function


def erf_array(x: Array) -> Array:
    """Return the error function of a float64 array."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(np.float64)


def _vjp_erf(ct: Node, out: Node, x: Node) -> tuple[Node]:
    bell = exp_op(negative_op(multiply_op(x, x)))
    return (multiply_op(ct, multiply_op(bell, number(2 / math.sqrt(math.pi), ct))),)


erf_op: OpDef = define_function("erf", erf_array, -6.0, 6.0, _vjp_erf)


@public()
def erf(x: Operand, /) -> Node:
    """Return the error function ``2/sqrt(pi) * integral of exp(-t**2) from 0 to x`` elementwise.

    Integers and bool are taken as float64. Within 1 ULP.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.erf(jf.constant([0.0, float("-inf")])), {})
    array([ 0., -1.])
    """
    return apply_to_floats(erf_op, x)
