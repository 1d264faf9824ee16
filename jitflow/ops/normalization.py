"""Normalization by mean and variance: layer_norm, rms_norm, group_norm, instance_norm, batch_norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import float32, float64, float_of
from jitflow.errors import DTypeError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, define_op
from jitflow.ops.axes import normalize_axes
from jitflow.ops.cast import as_dtype_of, promoted
from jitflow.ops.composite import in_double, infer_float
from jitflow.ops.creation import full
from jitflow.ops.elementwise import add_op, divide_op, multiply_op, subtract_op
from jitflow.ops.exponential import sqrt_op
from jitflow.ops.maths import number
from jitflow.ops.movement import reshape_op
from jitflow.ops.reduce import mean, sum
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.types import TensorType, shape_text, unify

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
    return infer_float("layer_norm")(x)


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
    factor = divide_op(number(1, x), sqrt_op(add_op(variance, number(eps, x))))
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
    numpy=in_double(_numpy_layer_norm),
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
