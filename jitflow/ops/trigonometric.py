"""Trigonometric and hyperbolic functions and the error function: sin, cos, tanh, erf.

They are vector-maths intrinsics, which lowering writes out. Compiled, they are within 1 ULP in float32 (over all
arguments), and within 1.5 ULP in float64 and on targets without fused multiply-add (over millions of random ones).

Special values: sin and cos of infinities are NaN; tanh and erf of infinities are +-1; odd functions keep the sign of
zero; NaN propagates.
"""

from __future__ import annotations

import math

import numpy as np

from jitflow.graph import Node, OpDef, Operand
from jitflow.ops.elementwise import multiply_op, negative_op, subtract_op
from jitflow.ops.exponential import exp_op
from jitflow.ops.maths import apply_to_floats, define_function, number
from jitflow.ops.testdata import Array

sin_op: OpDef = define_function("sin", np.sin, -1e5, 1e5, lambda ct, out, x: (multiply_op(ct, cos_op(x)),))


def sin(x: Operand, /) -> Node:
    """Return the sine of `x` in radians elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sin(jf.constant([0.0])), {})
    array([0.])
    """
    return apply_to_floats(sin_op, x)


cos_op: OpDef = define_function("cos", np.cos, -1e5, 1e5, lambda ct, out, x: (negative_op(multiply_op(ct, sin_op(x))),))


def cos(x: Operand, /) -> Node:
    """Return the cosine of `x` in radians elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.cos(jf.constant([0.0])), {})
    array([1.])
    """
    return apply_to_floats(cos_op, x)


def _vjp_tanh(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (multiply_op(ct, subtract_op(number(1, ct), multiply_op(out, out))),)


tanh_op: OpDef = define_function("tanh", np.tanh, -12.0, 12.0, _vjp_tanh)


def tanh(x: Operand, /) -> Node:
    """Return the hyperbolic tangent elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.tanh(jf.constant([0.0, float("inf")])), {})
    array([0., 1.])
    """
    return apply_to_floats(tanh_op, x)


def erf_array(x: Array) -> Array:
    """Return the error function of a float64 array."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(np.float64)


def _vjp_erf(ct: Node, out: Node, x: Node) -> tuple[Node]:
    bell = exp_op(negative_op(multiply_op(x, x)))
    return (multiply_op(ct, multiply_op(bell, number(2 / math.sqrt(math.pi), ct))),)


erf_op: OpDef = define_function("erf", erf_array, -6.0, 6.0, _vjp_erf)


def erf(x: Operand, /) -> Node:
    """Return the error function ``2/sqrt(pi) * integral of exp(-t**2) from 0 to x`` elementwise.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.erf(jf.constant([0.0, float("-inf")])), {})
    array([ 0., -1.])
    """
    return apply_to_floats(erf_op, x)
