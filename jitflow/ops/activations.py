"""Activation functions: relu, silu, gelu and their kin, written with other elementwise operators.

They stay nodes, so that graphs, dumps and the oracle show them; lowering expands them. Their numpy rules compute in
float64 and round once: what the composition should give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float32, int32, int64
from jitflow.errors import GraphError
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op
from jitflow.ops.axes import as_number
from jitflow.ops.cast import as_dtype_of, as_float, cast_array, check_kinds
from jitflow.ops.compare import greater_equal_op, greater_op, less_op
from jitflow.ops.elementwise import (
    abs_op,
    add_op,
    divide_op,
    in_double,
    multiply_op,
    negative_op,
    subtract_op,
    unary_samples,
)
from jitflow.ops.exponential import exp_op, logaddexp_op, logistic, sigmoid_op
from jitflow.ops.fold import first_greatest
from jitflow.ops.logic import logical_and_op
from jitflow.ops.maths import number
from jitflow.ops.selection import maximum_op, minimum_op, where_op
from jitflow.ops.testdata import FLOATS, NUMBERS, Array, draw
from jitflow.ops.trigonometric import erf_array, erf_op, tanh_op
from jitflow.public import public
from jitflow.types import TensorType

#: Samples of a function that takes floats.
_float_samples = unary_samples(FLOATS, wrong=(bool_, int32, int64))


def _infer_float(name: str) -> Callable[..., TensorType]:
    """Return the type rule of a function that takes floats and has no attributes."""

    def infer(x: TensorType) -> TensorType:
        check_kinds(name, x.dtype, "f")
        return x

    return infer


# ---- relu


def _infer_relu(x: TensorType) -> TensorType:
    check_kinds("relu", x.dtype, "if")
    return x


relu_op: OpDef = define_op(
    "relu",
    infer=_infer_relu,
    expand=lambda x: maximum_op(x, number(0, x)),
    numpy=lambda x: first_greatest(np.zeros((), x.dtype), x),
    vjp=lambda ct, out, x: (where_op(greater_op(x, number(0, x)), ct, number(0, ct)),),
    samples=unary_samples(NUMBERS, wrong=(bool_,)),
    exact=True,
)


@public("jitflow", "nn")
def relu(x: Operand, /) -> Node:
    """Return ``maximum(x, 0)`` elementwise; NaN stays NaN, and the derivative at 0 is 0.

    Raises
    ------
    DTypeError
        For bool.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.relu(jf.constant([-1.0, 2.0])), {})
    array([0., 2.])
    """
    return relu_op(as_node(x))


# ---- silu, gelu


def _vjp_silu(ct: Node, out: Node, x: Node) -> tuple[Node]:
    """With s = sigmoid(x) the derivative is ``s + x * s * (1 - s)``."""
    s = sigmoid_op(x)
    slope = add_op(s, multiply_op(multiply_op(x, s), subtract_op(number(1, x), s)))
    return (multiply_op(ct, slope),)


silu_op: OpDef = define_op(
    "silu",
    infer=_infer_float("silu"),
    expand=lambda x: multiply_op(x, sigmoid_op(x)),
    numpy=in_double(lambda x: x * logistic(x)),
    vjp=_vjp_silu,
    samples=_float_samples,
    costly=True,
)


@public("jitflow", "nn")
def silu(x: Operand, /) -> Node:
    """Return ``x * sigmoid(x)`` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.silu(jf.constant([0.0, 30.0])), {})
    array([ 0., 30.])
    """
    return silu_op(as_float(x))


_ROOT_HALF = math.sqrt(0.5)
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
#: Of the cubic term of the tanh form, from the paper that introduced gelu (arXiv 1606.08415).
_CUBIC = 0.044715


def _infer_gelu(x: TensorType, *, approximate: str) -> TensorType:
    if approximate not in ("none", "tanh"):
        raise GraphError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    check_kinds("gelu", x.dtype, "f")
    return x


def _tanh_argument(x: Node) -> Node:
    cubic = multiply_op(multiply_op(multiply_op(x, x), x), number(_CUBIC, x))
    return multiply_op(add_op(x, cubic), number(_ROOT_2_OVER_PI, x))


def _expand_gelu(x: Node, *, approximate: str) -> Node:
    is_tanh = approximate == "tanh"
    step = tanh_op(_tanh_argument(x)) if is_tanh else erf_op(multiply_op(x, number(_ROOT_HALF, x)))
    return multiply_op(multiply_op(x, number(0.5, x)), add_op(step, number(1, x)))


def _numpy_gelu(x: Array, *, approximate: str) -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh((x + _CUBIC * x * x * x) * _ROOT_2_OVER_PI))
    return 0.5 * x * (1 + erf_array(x * _ROOT_HALF))


def _vjp_gelu(ct: Node, out: Node, x: Node, *, approximate: str) -> tuple[Node]:
    """The derivative is ``cdf + x * pdf``, or that of the tanh form."""
    half, one = number(0.5, x), number(1, x)
    if approximate == "tanh":
        t = tanh_op(_tanh_argument(x))
        squared = multiply_op(multiply_op(x, x), number(3 * _CUBIC * _ROOT_2_OVER_PI, x))
        inner = add_op(squared, number(_ROOT_2_OVER_PI, x))
        bend = multiply_op(subtract_op(one, multiply_op(t, t)), inner)
        slope = multiply_op(half, add_op(add_op(one, t), multiply_op(x, bend)))
    else:
        cdf = multiply_op(half, add_op(one, erf_op(multiply_op(x, number(_ROOT_HALF, x)))))
        bell = exp_op(multiply_op(multiply_op(x, x), number(-0.5, x)))
        slope = add_op(cdf, multiply_op(x, multiply_op(bell, number(1 / math.sqrt(2 * math.pi), x))))
    return (multiply_op(ct, slope),)


def _samples_gelu(rng: np.random.Generator) -> Iterator[Sample]:
    for approximate in ("none", "tanh"):
        for s in _float_samples(rng):
            yield Sample(s.inputs, {"approximate": approximate}, s.raises, s.match, s.smooth)
    yield Sample((draw(rng, float32, 3),), {"approximate": "erf"}, GraphError, "must be 'none' or 'tanh', got 'erf'")


gelu_op: OpDef = define_op(
    "gelu",
    infer=_infer_gelu,
    expand=_expand_gelu,
    numpy=in_double(_numpy_gelu),
    vjp=_vjp_gelu,
    samples=_samples_gelu,
    costly=True,
    ulp=8.0,
    scale=lambda x, *, approximate: x,
)


@public("jitflow", "nn")
def gelu(x: Operand, /, *, approximate: str = "none") -> Node:
    """Return ``x`` times the normal distribution function of `x`, elementwise.

    It is computed as ``x/2 * (1 + erf(x / sqrt(2)))``, whose error is a few ULP of `x`: far below zero, where the
    result is a small difference, less than that of the result is right.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    approximate
        ``"none"`` computes it by `erf`, ``"tanh"`` by the approximation with `tanh`.

    Raises
    ------
    GraphError
        For another word.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.gelu(jf.constant([0.0, 30.0])), {})
    array([ 0., 30.])
    """
    return gelu_op(as_float(x), approximate=approximate)


# ---- pieces of lines


def define_activation(
    name: str,
    expand: Callable[..., Node],
    numpy: Callable[..., Any],
    derivative: Callable[..., Node],
    scale: Callable[..., Any] | None = None,
    infer: Callable[..., TensorType] | None = None,
    **attrs: float,
) -> OpDef:
    """Define an elementwise function of floats; `derivative` is taken of (out, x).

    One that has attributes needs a type rule that names them, and `attrs` to test it with.
    """

    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for s in _float_samples(rng):
            yield Sample(s.inputs, attrs, s.raises, s.match, s.smooth)
        for dtype in FLOATS:
            yield Sample((cast_array(rng.uniform(-12, 12, 67), dtype),), attrs, smooth=False)

    return define_op(
        name,
        infer=infer or _infer_float(name),
        expand=expand,
        numpy=in_double(numpy),
        vjp=lambda ct, out, x, **given: (multiply_op(ct, derivative(out, x, **given)),),
        samples=samples,
        costly=True,
        ulp=8.0,
        scale=scale,
    )


def _positive(x: Node) -> Node:
    return greater_op(x, number(0, x))


def _one_or(x: Node, otherwise: Node) -> Node:
    """Return 1 where `x` is positive, else `otherwise`."""
    return where_op(_positive(x), number(1, x), otherwise)


def _infer_leaky_relu(x: TensorType, *, slope: float) -> TensorType:
    check_kinds("leaky_relu", x.dtype, "f")
    return x


leaky_relu_op = define_activation(
    "leaky_relu",
    lambda x, *, slope: where_op(_positive(x), x, multiply_op(x, number(slope, x))),
    lambda x, *, slope: np.where(x > 0, x, x * slope),
    lambda out, x, *, slope: _one_or(x, number(slope, x)),
    infer=_infer_leaky_relu,
    slope=0.01,
)


@public("nn")
def leaky_relu(x: Operand, /, slope: float = 0.01) -> Node:
    """Return `x` where it is positive, else ``slope * x``. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.leaky_relu(jf.constant([-1.0, 2.0]), 0.5), {})
    array([-0.5,  2. ])
    """
    return leaky_relu_op(as_float(x), slope=as_number(slope, "leaky_relu: slope"))


def _between(x: Node, low: float, high: float) -> Node:
    return minimum_op(maximum_op(x, number(low, x)), number(high, x))


def _is_between(x: Node, low: float, high: float) -> Node:
    return logical_and_op(greater_op(x, number(low, x)), less_op(x, number(high, x)))


def _flag(condition: Node, x: Node) -> Node:
    return as_dtype_of(condition, x.dtype)


relu6_op = define_activation(
    "relu6",
    lambda x: _between(x, 0, 6),
    lambda x: np.clip(x, 0, 6),
    lambda out, x: _flag(_is_between(x, 0, 6), x),
)


@public("nn")
def relu6(x: Operand, /) -> Node:
    """Return `x` limited to 0 ... 6, elementwise; the derivative at both ends is 0.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.relu6(jf.constant([-1.0, 2.0, 8.0])), {})
    array([0., 2., 6.])
    """
    return relu6_op(as_float(x))


def _expand_hard_sigmoid(x: Node) -> Node:
    return multiply_op(_between(add_op(x, number(3, x)), 0, 6), number(1 / 6, x))


hard_sigmoid_op = define_activation(
    "hard_sigmoid",
    _expand_hard_sigmoid,
    lambda x: np.clip(x + 3, 0, 6) / 6,
    lambda out, x: multiply_op(_flag(_is_between(x, -3, 3), x), number(1 / 6, x)),
    scale=lambda x: np.ones_like(x),
)


@public("nn")
def hard_sigmoid(x: Operand, /) -> Node:
    """Return ``relu6(x + 3) / 6``: a sigmoid made of lines. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.hard_sigmoid(jf.constant([-4.0, 0.0, 4.0])), {})
    array([0. , 0.5, 1. ])
    """
    return hard_sigmoid_op(as_float(x))


def _slope_hard_swish(out: Node, x: Node) -> Node:
    """The derivative is ``x/3 + 1/2`` between -3 and 3."""
    inner = add_op(multiply_op(x, number(1 / 3, x)), number(0.5, x))
    return where_op(_is_between(x, -3, 3), inner, _flag(greater_op(x, number(0, x)), x))


hard_swish_op = define_activation(
    "hard_swish",
    lambda x: multiply_op(x, _expand_hard_sigmoid(x)),
    lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    _slope_hard_swish,
    scale=lambda x: x,
)


@public("nn")
def hard_swish(x: Operand, /) -> Node:
    """Return ``x * relu6(x + 3) / 6``: silu made of pieces of polynomials. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.hard_swish(jf.constant([-4.0, 3.0])), {})
    array([-0.,  3.])
    """
    return hard_swish_op(as_float(x))


# ---- exponentials on one side


def _exp_minus_one(x: Node) -> Node:
    """Return ``exp(x) - 1`` for x <= 0, without the cancellation near 0: ``2t / (1 - t)`` with t = tanh(x/2)."""
    t = tanh_op(multiply_op(x, number(0.5, x)))
    return divide_op(add_op(t, t), subtract_op(number(1, x), t))


def _expand_elu(x: Node, *, alpha: float) -> Node:
    return where_op(_positive(x), x, multiply_op(_exp_minus_one(x), number(alpha, x)))


def _infer_elu(x: TensorType, *, alpha: float) -> TensorType:
    check_kinds("elu", x.dtype, "f")
    return x


elu_op = define_activation(
    "elu",
    _expand_elu,
    lambda x, *, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
    lambda out, x, *, alpha: _one_or(x, add_op(out, number(alpha, x))),
    infer=_infer_elu,
    alpha=1.0,
)


@public("nn")
def elu(x: Operand, /, alpha: float = 1.0) -> Node:
    """Return `x` where it is positive, else ``alpha * (exp(x) - 1)``. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.elu(jf.constant([-float("inf"), 2.0])), {})
    array([-1.,  2.])
    """
    return elu_op(as_float(x), alpha=as_number(alpha, "elu: alpha"))


#: Chosen so that layers keep mean 0 and variance 1 (arXiv 1706.02515).
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


selu_op = define_activation(
    "selu",
    lambda x: multiply_op(_expand_elu(x, alpha=_SELU_ALPHA), number(_SELU_SCALE, x)),
    lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(x)),
    lambda out, x: where_op(_positive(x), number(_SELU_SCALE, x), add_op(out, number(_SELU_SCALE * _SELU_ALPHA, x))),
)


@public("nn")
def selu(x: Operand, /) -> Node:
    """Return ``s * elu(x, a)`` with the s and a that keep mean 0 and variance 1 from layer to layer.

    Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.selu(jf.constant([0.0, 1.0])), {})
    array([0.        , 1.05070099])
    """
    return selu_op(as_float(x))


softplus_op = define_activation(
    "softplus",
    lambda x: logaddexp_op(x, number(0, x)),
    lambda x: np.logaddexp(0.0, x),
    lambda out, x: sigmoid_op(x),
)


@public("jitflow", "nn")
def softplus(x: Operand, /) -> Node:
    """Return ``log(1 + exp(x))`` elementwise, without overflow. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.softplus(jf.constant([-800.0, 800.0])), {})
    array([  0., 800.])
    """
    return softplus_op(as_float(x))


log_sigmoid_op = define_activation(
    "log_sigmoid",
    lambda x: negative_op(logaddexp_op(negative_op(x), number(0, x))),
    lambda x: -np.logaddexp(0.0, -x),
    lambda out, x: sigmoid_op(negative_op(x)),
)


@public("nn")
def log_sigmoid(x: Operand, /) -> Node:
    """Return the logarithm of `sigmoid`, exact also where that is nearly 0. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.log_sigmoid(jf.constant([-800.0, 800.0])), {})
    array([-800.,   -0.])
    """
    return log_sigmoid_op(as_float(x))


def _mish_factor(x: Node) -> Node:
    """Return ``tanh(softplus(x))``: with t = exp(-|x|) it is n / (n + d), n and d being polynomials of t.

    For x >= 0 they are ``1 + 2t`` and ``2t*t``, else ``t*(t + 2)`` and 2: nothing overflows or cancels.
    """
    t = exp_op(negative_op(abs_op(x)))
    one, two = number(1, x), number(2, x)
    above = add_op(multiply_op(two, t), one)
    below = multiply_op(t, add_op(t, two))
    is_above = greater_equal_op(x, number(0, x))
    top = where_op(is_above, above, below)
    more = where_op(is_above, multiply_op(two, multiply_op(t, t)), two)
    return divide_op(top, add_op(top, more))


def _slope_mish(out: Node, x: Node) -> Node:
    """With f = tanh(softplus(x)) the derivative is ``f + x * sigmoid(x) * (1 - f*f)``."""
    f = _mish_factor(x)
    bend = multiply_op(sigmoid_op(x), subtract_op(number(1, x), multiply_op(f, f)))
    return add_op(f, multiply_op(x, bend))


mish_op = define_activation(
    "mish",
    lambda x: multiply_op(x, _mish_factor(x)),
    lambda x: x * np.tanh(np.logaddexp(0.0, x)),
    _slope_mish,
)


@public("nn")
def mish(x: Operand, /) -> Node:
    """Return ``x * tanh(softplus(x))`` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.mish(jf.constant([0.0, 40.0])), {})
    array([ 0., 40.])
    """
    return mish_op(as_float(x))
