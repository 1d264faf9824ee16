"""Operators written with other operators: relu, sigmoid, silu, gelu, softmax, log_softmax, layer_norm.

They stay nodes, so that graphs, dumps and the oracle show them; lowering expands them. Their numpy rules compute in
float64 and round once: what the composition should give.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import bool_, float32, float64, float_of, int32, int64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, make_constant
from jitflow.ops.axes import normalize_axes, normalize_axis
from jitflow.ops.broadcast import kept_shape, reduce_sum_op
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.compare import greater_op, maximum_op, where_op
from jitflow.ops.creation import full
from jitflow.ops.elementwise import add_op, divide_op, multiply_op, negative_op, subtract_op, unary_samples
from jitflow.ops.exponential import exp_op, log_op, sqrt_op
from jitflow.ops.fold import first_greatest
from jitflow.ops.movement import reshape_op
from jitflow.ops.reduce import mean, reduce_max_op, sum
from jitflow.ops.testdata import FLOATS, NUMBERS, SHAPES, Array, draw, edges
from jitflow.ops.trigonometric import erf_array, erf_op, tanh_op
from jitflow.types import TensorType, shape_text, unify


def _number(value: float, like: Node) -> Node:
    return make_constant(value, like.dtype)


def _in_double(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` computed in float64 and rounded to the dtype of its first input, without warnings."""

    def rule(*xs: Array, **attrs: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(fn(*(x.astype(np.float64) for x in xs), **attrs)).astype(xs[0].dtype)

    return rule


def _as_float(x: Operand) -> Node:
    node = as_node(x)
    return as_dtype_of(node, float_of(node.dtype))


def _infer_float(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, **_: Any) -> TensorType:
        if not x.dtype.is_float:
            raise DTypeError(f"{name} takes floats, not {x.dtype}; convert with astype")
        return x

    return infer


_float_samples = unary_samples(FLOATS, wrong=(bool_, int32, int64))

# ---- relu


def _infer_relu(x: TensorType) -> TensorType:
    if x.dtype.is_bool:
        raise DTypeError("relu takes integers and floats, not bool; convert with astype")
    return x


relu_op: OpDef = define_op(
    "relu",
    infer=_infer_relu,
    expand=lambda x: maximum_op(x, _number(0, x)),
    numpy=lambda x: first_greatest(np.zeros((), x.dtype), x),
    vjp=lambda ct, out, x: (where_op(greater_op(x, _number(0, x)), ct, _number(0, ct)),),
    samples=unary_samples(NUMBERS, wrong=(bool_,)),
    exact=True,
)


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


# ---- sigmoid, silu, gelu


def _expand_sigmoid(x: Node) -> Node:
    one = _number(1, x)
    return divide_op(one, add_op(one, exp_op(negative_op(x))))


def _vjp_sigmoid(ct: Node, out: Node, x: Node) -> tuple[Node]:
    return (multiply_op(ct, multiply_op(out, subtract_op(_number(1, ct), out))),)


sigmoid_op: OpDef = define_op(
    "sigmoid",
    infer=_infer_float("sigmoid"),
    expand=_expand_sigmoid,
    numpy=_in_double(lambda x: 1 / (1 + np.exp(-x))),
    vjp=_vjp_sigmoid,
    samples=_float_samples,
    costly=True,
)


def sigmoid(x: Operand, /) -> Node:
    """Return ``1 / (1 + exp(-x))`` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.sigmoid(jf.constant([0.0, float("inf")])), {})
    array([0.5, 1. ])
    """
    return sigmoid_op(_as_float(x))


def _vjp_silu(ct: Node, out: Node, x: Node) -> tuple[Node]:
    """With s = sigmoid(x) the derivative is ``s + x * s * (1 - s)``."""
    s = sigmoid_op(x)
    slope = add_op(s, multiply_op(multiply_op(x, s), subtract_op(_number(1, x), s)))
    return (multiply_op(ct, slope),)


silu_op: OpDef = define_op(
    "silu",
    infer=_infer_float("silu"),
    expand=lambda x: divide_op(x, add_op(_number(1, x), exp_op(negative_op(x)))),
    numpy=_in_double(lambda x: x / (1 + np.exp(-x))),
    vjp=_vjp_silu,
    samples=_float_samples,
    costly=True,
)


def silu(x: Operand, /) -> Node:
    """Return ``x * sigmoid(x)`` elementwise. Integers and bool are taken as float64.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.silu(jf.constant([0.0, 30.0])), {})
    array([ 0., 30.])
    """
    return silu_op(_as_float(x))


_ROOT_HALF = math.sqrt(0.5)
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
#: Of the cubic term of the tanh form, from the paper that introduced gelu (arXiv 1606.08415).
_CUBIC = 0.044715


def _infer_gelu(x: TensorType, *, approximate: str) -> TensorType:
    if approximate not in ("none", "tanh"):
        raise GraphError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _infer_float("gelu")(x)


def _tanh_argument(x: Node) -> Node:
    cubic = multiply_op(multiply_op(multiply_op(x, x), x), _number(_CUBIC, x))
    return multiply_op(add_op(x, cubic), _number(_ROOT_2_OVER_PI, x))


def _expand_gelu(x: Node, *, approximate: str) -> Node:
    is_tanh = approximate == "tanh"
    step = tanh_op(_tanh_argument(x)) if is_tanh else erf_op(multiply_op(x, _number(_ROOT_HALF, x)))
    return multiply_op(multiply_op(x, _number(0.5, x)), add_op(step, _number(1, x)))


def _numpy_gelu(x: Array, *, approximate: str) -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh((x + _CUBIC * x * x * x) * _ROOT_2_OVER_PI))
    return 0.5 * x * (1 + erf_array(x * _ROOT_HALF))


def _vjp_gelu(ct: Node, out: Node, x: Node, *, approximate: str) -> tuple[Node]:
    """The derivative is ``cdf + x * pdf``, or that of the tanh form."""
    half, one = _number(0.5, x), _number(1, x)
    if approximate == "tanh":
        t = tanh_op(_tanh_argument(x))
        squared = multiply_op(multiply_op(x, x), _number(3 * _CUBIC * _ROOT_2_OVER_PI, x))
        inner = add_op(squared, _number(_ROOT_2_OVER_PI, x))
        bend = multiply_op(subtract_op(one, multiply_op(t, t)), inner)
        slope = multiply_op(half, add_op(add_op(one, t), multiply_op(x, bend)))
    else:
        cdf = multiply_op(half, add_op(one, erf_op(multiply_op(x, _number(_ROOT_HALF, x)))))
        bell = exp_op(multiply_op(multiply_op(x, x), _number(-0.5, x)))
        slope = add_op(cdf, multiply_op(x, multiply_op(bell, _number(1 / math.sqrt(2 * math.pi), x))))
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
    numpy=_in_double(_numpy_gelu),
    vjp=_vjp_gelu,
    samples=_samples_gelu,
    costly=True,
    ulp=8.0,
    scale=lambda x, *, approximate: x,
)


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
    return gelu_op(_as_float(x), approximate=approximate)


# ---- softmax, log_softmax


def _infer_along(name: str) -> Callable[..., TensorType]:
    def infer(x: TensorType, *, axis: int) -> TensorType:
        if not 0 <= axis < x.rank:
            raise ShapeError(f"{name}: axis {axis} is out of range for {shape_text(x.shape)}")
        return _infer_float(name)(x)

    return infer


def _shifted(x: Node, axis: int) -> Node:
    """Return `x` less its greatest element along `axis`, so that exp cannot overflow."""
    greatest = reduce_max_op(x, axes=(axis,), allow_empty=True)
    return subtract_op(x, reshape_op(greatest, shape=kept_shape(x.shape, (axis,))))


def _total(x: Node, axis: int) -> Node:
    return reshape_op(reduce_sum_op(x, axes=(axis,), dtype=x.dtype), shape=kept_shape(x.shape, (axis,)))


def _expand_softmax(x: Node, *, axis: int) -> Node:
    """One division per row: the sum is at least 1, so its reciprocal is a normal number."""
    e = exp_op(_shifted(x, axis))
    return multiply_op(e, divide_op(_number(1, x), _total(e, axis)))


def _expand_log_softmax(x: Node, *, axis: int) -> Node:
    s = _shifted(x, axis)
    return subtract_op(s, log_op(_total(exp_op(s), axis)))


def _numpy_softmax(x: Array, *, axis: int) -> Any:
    e = np.exp(x - x.max(axis=axis, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=axis, keepdims=True)


def _numpy_log_softmax(x: Array, *, axis: int) -> Any:
    s = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
    return s - np.log(np.exp(s).sum(axis=axis, keepdims=True))


def _vjp_softmax(ct: Node, out: Node, x: Node, *, axis: int) -> tuple[Node]:
    weighted = multiply_op(ct, out)
    return (subtract_op(weighted, multiply_op(out, _total(weighted, axis))),)


def _vjp_log_softmax(ct: Node, out: Node, x: Node, *, axis: int) -> tuple[Node]:
    return (subtract_op(ct, multiply_op(exp_op(out), _total(ct, axis))),)


def _samples_along(name: str) -> Callable[[np.random.Generator], Iterator[Sample]]:
    def samples(rng: np.random.Generator) -> Iterator[Sample]:
        for shape in SHAPES:
            for axis in range(len(shape)):
                if shape[axis]:
                    yield Sample((draw(rng, float64, *shape),), {"axis": axis})
        for dtype in FLOATS:
            yield Sample((draw(rng, dtype, 3, 67),), {"axis": 1})
            yield Sample((draw(rng, dtype, 4, 3) * 100,), {"axis": 0}, smooth=False)
            e = edges(dtype)
            rows = np.stack([e, np.where(np.isfinite(e), e, 0), np.full_like(e, -np.inf)])
            yield Sample((rows,), {"axis": 1}, smooth=False)
            yield Sample((np.array([[1.0, -np.inf], [np.inf, 0.0]], dtype.np),), {"axis": 1}, smooth=False)
        x = draw(rng, float32, 2, 3)
        yield Sample((x,), {"axis": 2}, ShapeError, rf"{name}: axis 2 is out of range for \(2, 3\)")
        yield Sample((x.astype(np.int32),), {"axis": 1}, DTypeError, f"{name} takes floats, not int32")

    return samples


softmax_op: OpDef = define_op(
    "softmax",
    infer=_infer_along("softmax"),
    expand=_expand_softmax,
    numpy=_in_double(_numpy_softmax),
    vjp=_vjp_softmax,
    samples=_samples_along("softmax"),
    costly=True,
)

log_softmax_op: OpDef = define_op(
    "log_softmax",
    infer=_infer_along("log_softmax"),
    expand=_expand_log_softmax,
    numpy=_in_double(_numpy_log_softmax),
    vjp=_vjp_log_softmax,
    samples=_samples_along("log_softmax"),
    costly=True,
)


def _along(op: OpDef, x: Operand, axis: int) -> Node:
    """Return `op` of `x` along `axis`; of nothing along an axis that is known to be empty."""
    node = _as_float(x)
    k = normalize_axis(axis, len(node.shape), op.name)
    return node if node.shape[k] == 0 else op(node, axis=k)


def softmax(x: Operand, /, axis: int = -1) -> Node:
    """Return ``exp(x) / sum(exp(x))`` along `axis`, computed without overflow.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    axis
        The axis along which the results add up to 1.

    Raises
    ------
    ShapeError
        For an axis that is not there.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.softmax(jf.constant([[0.0, 0.0], [-900.0, 900.0]])), {})
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    return _along(softmax_op, x, axis)


def log_softmax(x: Operand, /, axis: int = -1) -> Node:
    """Return the logarithm of `softmax`, exact also where that is nearly 0. Arguments and errors as for `softmax`.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.log_softmax(jf.constant([-900.0, 900.0])), {})
    array([-1800.,     0.])
    """
    return _along(log_softmax_op, x, axis)


# ---- layer_norm


def _infer_layer_norm(x: TensorType, *affine: TensorType, axes: tuple[int, ...], eps: float) -> TensorType:
    if not axes or list(axes) != sorted(set(axes)) or not 0 <= axes[0] <= axes[-1] < x.rank:
        raise ShapeError(f"layer_norm: axes {axes} are not ascending axes of {shape_text(x.shape)}")
    for name, t in zip(("scale", "bias"), affine, strict=False):
        if t.dtype is not x.dtype:
            raise DTypeError(f"layer_norm: {name} must be {x.dtype}, got {t.dtype}")
        wanted = tuple(x.shape[a] for a in axes)
        what = f"layer_norm: {name} of shape {shape_text(t.shape)} for axes {axes} of {shape_text(x.shape)}"
        if t.rank != len(wanted):
            raise ShapeError(f"{what}: expected {shape_text(wanted)}")
        for d, n in zip(t.shape, wanted, strict=True):
            unify(d, n, what)
    return _infer_float("layer_norm")(x)


def _on_axes(x: Node, axes: tuple[int, ...], rank: int) -> Node:
    """Return `x`, which has the axes `axes`, with size 1 at the others of `rank`."""
    if axes == tuple(range(rank - len(axes), rank)):
        return x
    dims = dict(zip(axes, x.shape, strict=True))
    return reshape_op(x, shape=tuple(dims.get(k, 1) for k in range(rank)))


def _normalized(x: Node, axes: tuple[int, ...], eps: float) -> tuple[Node, Node]:
    """Return `x` with mean 0 and variance 1 (less what `eps` takes), and the factor that made it so, per row."""
    deviation = subtract_op(x, mean(x, axis=axes, keepdims=True))
    variance = mean(multiply_op(deviation, deviation), axis=axes, keepdims=True)
    factor = divide_op(_number(1, x), sqrt_op(add_op(variance, _number(eps, x))))
    return multiply_op(deviation, factor), factor


def _expand_layer_norm(x: Node, *affine: Node, axes: tuple[int, ...], eps: float) -> Node:
    out, _ = _normalized(x, axes, eps)
    for op, t in zip((multiply_op, add_op), affine, strict=False):
        out = op(out, _on_axes(t, axes, len(x.shape)))
    return out


def _numpy_layer_norm(x: Array, *affine: Array, axes: tuple[int, ...], eps: float) -> Any:
    count = np.prod([x.shape[a] for a in axes])  # means by hand: numpy's own warn when there is nothing to average
    deviation = x - x.sum(axis=axes, keepdims=True) / count
    out = deviation / np.sqrt((deviation * deviation).sum(axis=axes, keepdims=True) / count + eps)
    shape = [n if k in axes else 1 for k, n in enumerate(x.shape)]
    if affine:
        out = out * affine[0].reshape(shape)
    return out + affine[1].reshape(shape) if len(affine) > 1 else out


def _vjp_layer_norm(ct: Node, out: Node, x: Node, *affine: Node, axes: tuple[int, ...], eps: float) -> tuple[Node, ...]:
    """With y normalized and g = ct * scale, dx is factor * (g - mean(g) - y * mean(g * y)) along the axes."""
    y, factor = _normalized(x, axes, eps)
    rank = len(x.shape)
    others = tuple(k for k in range(rank) if k not in axes)
    g = multiply_op(ct, _on_axes(affine[0], axes, rank)) if affine else ct
    along = multiply_op(y, mean(multiply_op(g, y), axis=axes, keepdims=True))
    dx = multiply_op(factor, subtract_op(subtract_op(g, mean(g, axis=axes, keepdims=True)), along))
    grads = [multiply_op(ct, y), ct][: len(affine)]
    return (dx, *(sum(t, axis=others) if others else t for t in grads))


def _samples_layer_norm(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axes in (
        ((3, 5), (1,)),
        ((3, 5), (0,)),
        ((2, 3, 4), (1, 2)),
        ((2, 3, 4), (0, 2)),
        ((7,), (0,)),
        ((0, 3), (1,)),
    ):
        own = [shape[a] for a in axes]
        for affine in ((), (1.0,), (1.0, 1.0)):
            inputs = tuple(draw(rng, float64, *own) for _ in affine)
            yield Sample((draw(rng, float64, *shape), *inputs), {"axes": axes, "eps": 1e-5})
    for dtype in FLOATS:
        x = draw(rng, dtype, 3, 67)
        yield Sample((x, x[0], x[1]), {"axes": (1,), "eps": 1e-5})
        yield Sample((np.full((2, 5), 3.0, dtype.np),), {"axes": (1,), "eps": 1e-3})
        x = x.copy()
        x[0, 5], x[1, 66] = np.nan, np.inf
        yield Sample((x,), {"axes": (1,), "eps": 1e-5}, smooth=False)
    x = draw(rng, float32, 2, 3)
    attrs = {"axes": (1,), "eps": 1e-5}
    yield Sample((x, x[0, :2]), attrs, ShapeError, r"layer_norm: scale of shape \(2,\) for axes \(1,\) of \(2, 3\)")
    yield Sample((x, x[0], x), attrs, ShapeError, r"layer_norm: bias .*: expected \(3,\)")
    yield Sample((x, x[0].astype(np.float64)), attrs, DTypeError, "scale must be float32, got float64")
    yield Sample((x.astype(np.int32),), attrs, DTypeError, "layer_norm takes floats, not int32")


layer_norm_op: OpDef = define_op(
    "layer_norm",
    infer=_infer_layer_norm,
    expand=_expand_layer_norm,
    numpy=_in_double(_numpy_layer_norm),
    vjp=_vjp_layer_norm,
    samples=_samples_layer_norm,
    costly=True,
)


def layer_norm(
    x: Operand,
    /,
    scale: Operand | None = None,
    bias: Operand | None = None,
    *,
    axis: int | tuple[int, ...] = -1,
    eps: float = 1e-5,
) -> Node:
    """Return `x` normalized along `axis`: ``(x - mean(x)) / sqrt(var(x) + eps) * scale + bias``.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    scale, bias
        Tensors with the dims of the normalized axes, in their order; None for 1 and 0.
    axis
        The axis to normalize along, or several.
    eps
        Added to the variance, so that equal elements give 0.

    Raises
    ------
    ShapeError
        For an axis that is not there, or a scale or bias of another shape.
    StaticIndexError
        For an axis that is not there.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.layer_norm(jf.constant([1.0, 3.0]), eps=0.0), {})
    array([-1.,  1.])
    """
    given = [t for t in (scale, bias) if t is not None]
    node, *affine = promoted(x, *given)
    dtype = float_of(node.dtype)
    node, *affine = (as_dtype_of(t, dtype) for t in (node, *affine))
    axes = tuple(sorted(normalize_axes(axis, len(node.shape), "layer_norm")))
    if scale is None and bias is not None:
        affine.insert(0, full(affine[0].shape, 1, dtype=dtype))
    return layer_norm_op(node, *affine, axes=axes, eps=float(eps))
