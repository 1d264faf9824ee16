"""Normalization by mean and variance: layer_norm, rms_norm, group_norm, instance_norm, batch_norm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import float32, float64
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import as_index
from jitflow.graph import Node, OpDef, Operand, Sample, define_op, located
from jitflow.ops.axes import as_number, normalize_axes
from jitflow.ops.broadcast import check_axes
from jitflow.ops.cast import as_float, check_kinds, promoted_floats
from jitflow.ops.convolution import per_axis
from jitflow.ops.creation import full
from jitflow.ops.elementwise import add_op, divide_op, in_double, multiply_op, subtract_op
from jitflow.ops.exponential import sqrt_op
from jitflow.ops.maths import number
from jitflow.ops.movement import reshape_op
from jitflow.ops.reduce import mean, sum, var
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import Dim, TensorType, dim_text, fold_dim, mul_dims, shape_text, unify

# ---- scale and bias


def _floats(*xs: Operand | None) -> list[Node]:
    """Return the tensors among `xs` as floats of one dtype."""
    return [*promoted_floats(*(x for x in xs if x is not None))]


def _floats_with_scale(*xs: Operand | None) -> list[Node]:
    """Return the tensors among `xs`, the last of which are scale and bias; ones for a scale that goes with a bias."""
    *_, scale, bias = xs
    nodes = _floats(*xs)
    if scale is None and bias is not None:
        nodes.insert(-1, full(nodes[-1].shape, 1, dtype=nodes[-1].dtype))
    return nodes


def _numpy_affine(out: Array, affine: tuple[Array, ...], shape: Sequence[int]) -> Array:
    """Return `out` times the scale, plus the bias, if they are given, each in `shape`."""
    for fn, t in zip((np.multiply, np.add), affine, strict=False):
        out = fn(out, t.reshape(shape))
    return out


# ---- layer_norm


def _infer_affine(name: str, x: TensorType, affine: tuple[TensorType, ...], axes: tuple[int, ...]) -> TensorType:
    """Return the type of `x` normalized along `axes`, to which the types of a scale and a bias must fit."""
    check_axes(name, x, axes)
    for label, t in zip(("scale", "bias"), affine, strict=False):
        if t.dtype is not x.dtype:
            raise DTypeError(f"{name}: {label} must be {x.dtype}, got {t.dtype}")
        wanted = tuple(x.shape[a] for a in axes)
        what = f"{name}: {label} of shape {shape_text(t.shape)} for axes {axes} of {shape_text(x.shape)}"
        if t.rank != len(wanted):
            raise ShapeError(f"{what}: expected {shape_text(wanted)}")
        for d, n in zip(t.shape, wanted, strict=True):
            unify(d, n, what)
    check_kinds(name, x.dtype, "f")
    return x


def _infer_layer_norm(x: TensorType, *affine: TensorType, axes: tuple[int, ...], eps: float) -> TensorType:
    return _infer_affine("layer_norm", x, affine, axes)


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
    return _numpy_affine(out, affine, shape)


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


@public("jitflow", "nn")
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
    node, *affine = _floats_with_scale(x, scale, bias)
    axes = tuple(sorted(normalize_axes(axis, len(node.shape), "layer_norm")))
    return layer_norm_op(node, *affine, axes=axes, eps=as_number(eps, "layer_norm: eps"))


# ---- rms_norm


def _infer_rms_norm(x: TensorType, *affine: TensorType, axes: tuple[int, ...], eps: float) -> TensorType:
    if len(affine) > 1:
        raise GraphError(f"rms_norm takes a scale at most, got {len(affine)} more inputs")
    return _infer_affine("rms_norm", x, affine, axes)


def _root_mean_square(x: Node, axes: tuple[int, ...], eps: float) -> Node:
    return sqrt_op(add_op(mean(multiply_op(x, x), axis=axes, keepdims=True), number(eps, x)))


def _expand_rms_norm(x: Node, *affine: Node, axes: tuple[int, ...], eps: float) -> Node:
    out = multiply_op(x, divide_op(number(1, x), _root_mean_square(x, axes, eps)))
    for scale in affine:
        out = multiply_op(out, _on_axes(scale, axes, len(x.shape)))
    return out


def _numpy_rms_norm(x: Array, *affine: Array, axes: tuple[int, ...], eps: float) -> Any:
    count = np.prod([x.shape[a] for a in axes])
    out = x / np.sqrt((x * x).sum(axis=axes, keepdims=True) / count + eps)
    shape = [n if k in axes else 1 for k, n in enumerate(x.shape)]
    return _numpy_affine(out, affine, shape)


def _samples_rms_norm(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, axes in (((3, 5), (1,)), ((2, 3, 4), (0, 2)), ((7,), (0,)), ((0, 3), (1,))):
        own = draw(rng, float64, *(shape[a] for a in axes))
        for affine in ((), (own,)):
            yield Sample((draw(rng, float64, *shape), *affine), {"axes": axes, "eps": 1e-5})
    for dtype in FLOATS:
        x = draw(rng, dtype, 3, 67)
        yield Sample((x, x[0]), {"axes": (1,), "eps": 1e-5}, smooth=False)
    x = draw(rng, float32, 2, 3)
    attrs = {"axes": (1,), "eps": 1e-5}
    yield Sample((x, x[0, :2]), attrs, ShapeError, r"rms_norm: scale of shape \(2,\) for axes \(1,\) of \(2, 3\)")
    yield Sample((x, x[0], x[0]), attrs, GraphError, "rms_norm takes a scale at most")
    yield Sample((x.astype(np.int32),), attrs, DTypeError, "rms_norm takes floats, not int32")


rms_norm_op: OpDef = define_op(
    "rms_norm",
    infer=_infer_rms_norm,
    expand=_expand_rms_norm,
    numpy=in_double(_numpy_rms_norm),
    samples=_samples_rms_norm,
    costly=True,
)


@public("nn")
def rms_norm(
    x: Operand, /, scale: Operand | None = None, *, axis: int | tuple[int, ...] = -1, eps: float = 1e-5
) -> Node:
    """Return `x` over the root of its mean square along `axis`: ``x / sqrt(mean(x*x) + eps) * scale``.

    Parameters
    ----------
    x
        Any tensor; integers and bool are taken as float64.
    scale
        A tensor with the dims of the normalized axes, in their order; None for 1.
    axis
        The axis to normalize along, or several.
    eps
        Added to the mean square, so that zeros give 0.

    Raises
    ------
    StaticIndexError
        For an axis that is not there.
    ShapeError
        For an axis that is named twice, or a scale of another shape.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.rms_norm(jf.constant([3.0, -3.0]), eps=0.0), {})
    array([ 1., -1.])
    """
    node, *affine = _floats(x, scale)
    axes = tuple(sorted(normalize_axes(axis, len(node.shape), "rms_norm")))
    return rms_norm_op(node, *affine, axes=axes, eps=as_number(eps, "rms_norm: eps"))


# ---- group_norm, instance_norm


def _channels(name: str, x: TensorType, per_channel: tuple[tuple[str, TensorType], ...]) -> Dim:
    """Return the number of channels of `x`, axis 1; raise unless each of `per_channel` is a vector of them."""
    if x.rank < 2:
        raise ShapeError(f"{name} of {shape_text(x.shape)}: a batch and channels are needed")
    for label, t in per_channel:
        if t.dtype is not x.dtype:
            raise DTypeError(f"{name}: {label} must be {x.dtype}, got {t.dtype}")
        what = f"{name}: {label} of shape {shape_text(t.shape)} for {dim_text(x.shape[1])} channels"
        if t.rank != 1:
            raise ShapeError(f"{what}: a vector is needed")
        unify(t.shape[0], x.shape[1], what)
    check_kinds(name, x.dtype, "f")
    return x.shape[1]


def _per_channel(t: Node, rank: int) -> Node:
    return reshape_op(t, shape=(t.shape[0], *(1 for _ in range(rank - 2))))


def _affine_channels(out: Node, affine: tuple[Node, ...]) -> Node:
    for op, t in zip((multiply_op, add_op), affine, strict=False):
        out = op(out, _per_channel(t, len(out.shape)))
    return out


def _infer_group_norm(x: TensorType, *affine: TensorType, groups: int, eps: float) -> TensorType:
    channels = _channels("group_norm", x, tuple(zip(("scale", "bias"), affine, strict=False)))
    why = f"group_norm of {shape_text(x.shape)}: {groups} groups do not divide {dim_text(channels)} channels"
    if groups < 0 or (isinstance(channels, int) and groups and channels % groups):
        raise ShapeError(why)
    if groups:
        unify(fold_dim(simplify_index(as_index(channels) // groups * groups)), channels, why)
    return x


def _expand_group_norm(x: Node, *affine: Node, groups: int, eps: float) -> Node:
    """Normalize along one axis that holds a group; without a number of groups each channel is one."""
    batch, channels, *rest = x.shape
    parts: Dim = groups or channels
    size = mul_dims(fold_dim(simplify_index(as_index(channels) // groups)), *rest) if groups else mul_dims(*rest)
    flat, _ = _normalized(reshape_op(x, shape=(batch, parts, size)), (2,), eps)
    return _affine_channels(reshape_op(flat, shape=x.shape), affine)


def _numpy_group_norm(x: Array, *affine: Array, groups: int, eps: float) -> Any:
    count = groups or x.shape[1]
    out = np.empty_like(x)
    for k in range(count):
        own = slice(k * x.shape[1] // count, (k + 1) * x.shape[1] // count)
        part = x[:, own]
        axes = tuple(range(1, x.ndim))
        n = part[0].size if len(part) else 1
        deviation = part - part.sum(axis=axes, keepdims=True) / n
        out[:, own] = deviation / np.sqrt((deviation * deviation).sum(axis=axes, keepdims=True) / n + eps)
    shape = (-1, *(1 for _ in x.shape[2:]))
    return _numpy_affine(out, affine, shape)


def _samples_group_norm(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, groups in (
        ((2, 4, 3), 2),
        ((2, 4, 3, 2), 4),
        ((2, 6), 3),
        ((2, 4, 3), 1),
        ((3, 2, 5), 0),
        ((0, 4, 3), 2),
    ):
        for count in (0, 1, 2):
            affine = (draw(rng, float64, shape[1]) for _ in range(count))
            yield Sample((draw(rng, float64, *shape), *affine), {"groups": groups, "eps": 1e-5})
    for dtype in FLOATS:
        own = (draw(rng, dtype, 2, 6, 11), draw(rng, dtype, 6), draw(rng, dtype, 6))
        yield Sample(own, {"groups": 2, "eps": 1e-5}, smooth=False)
    x = draw(rng, float32, 2, 4, 3)
    attrs = {"groups": 3, "eps": 1e-5}
    yield Sample((x,), attrs, ShapeError, r"group_norm of \(2, 4, 3\): 3 groups do not divide 4 channels")
    yield Sample((x, x[0, 0]), attrs | {"groups": 2}, ShapeError, "scale of shape .* for 4 channels: 3 and 4 differ")
    yield Sample((x, x[0]), attrs | {"groups": 2}, ShapeError, "a vector is needed")
    yield Sample((x[0, 0],), attrs, ShapeError, "a batch and channels are needed")
    yield Sample((x.astype(np.int32),), attrs | {"groups": 2}, DTypeError, "group_norm takes floats, not int32")


group_norm_op: OpDef = define_op(
    "group_norm",
    infer=_infer_group_norm,
    expand=_expand_group_norm,
    numpy=in_double(_numpy_group_norm),
    samples=_samples_group_norm,
    costly=True,
)


@public("nn")
def group_norm(
    x: Operand,
    /,
    groups: int,
    scale: Operand | None = None,
    bias: Operand | None = None,
    *,
    eps: float = 1e-5,
) -> Node:
    """Return `x` normalized over groups of channels and all places, for each element of the batch.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S); integers and bool are taken as float64. Sizes may be symbolic.
    groups
        Into how many groups the channels are dealt, neighbours first.
    scale, bias
        Tensors of shape (C,), applied afterwards; None for 1 and 0.
    eps
        Added to the variance.

    Raises
    ------
    ShapeError
        If the groups do not divide the channels, or a scale or bias has another shape.
    GraphError
        If `groups` is no int of at least 1.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.group_norm(jf.constant([[1.0, 3.0, 10.0, 30.0]]), 2, eps=0.0), {})
    array([[-1.,  1., -1.,  1.]])
    """
    (count,) = per_axis(groups, 1, "group_norm: groups", 1)
    node, *affine = _floats_with_scale(x, scale, bias)
    return group_norm_op(node, *affine, groups=count, eps=as_number(eps, "group_norm: eps"))


@public("nn")
def instance_norm(
    x: Operand, /, scale: Operand | None = None, bias: Operand | None = None, *, eps: float = 1e-5
) -> Node:
    """Return `x` normalized over its places, for each channel of each element of the batch.

    It is `group_norm` with a group for each channel.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S); integers and bool are taken as float64. Sizes may be symbolic.
    scale, bias
        Tensors of shape (C,), applied afterwards; None for 1 and 0.
    eps
        Added to the variance.

    Raises
    ------
    ShapeError
        Below rank 2, or if a scale or bias has another shape.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.instance_norm(jf.constant([[[1.0, 3.0], [10.0, 30.0]]]), eps=0.0), {})
    array([[[-1.,  1.],
            [-1.,  1.]]])
    """
    node, *affine = _floats_with_scale(x, scale, bias)
    return group_norm_op(node, *affine, groups=0, eps=as_number(eps, "instance_norm: eps"))


# ---- batch_norm


def _infer_batch_norm(x: TensorType, mean: TensorType, var: TensorType, *affine: TensorType, eps: float) -> TensorType:
    named = (("mean", mean), ("var", var), *zip(("scale", "bias"), affine, strict=False))
    _channels("batch_norm", x, named)
    return x


def _expand_batch_norm(x: Node, mean: Node, var: Node, *affine: Node, eps: float) -> Node:
    """One factor per channel, then a subtraction, a product and a sum per element."""
    factor = divide_op(number(1, x), sqrt_op(add_op(var, number(eps, x))))
    if affine:
        factor = multiply_op(factor, affine[0])
    rank = len(x.shape)
    out = multiply_op(subtract_op(x, _per_channel(mean, rank)), _per_channel(factor, rank))
    return add_op(out, _per_channel(affine[1], rank)) if len(affine) > 1 else out


def _numpy_batch_norm(x: Array, mean: Array, var: Array, *affine: Array, eps: float) -> Any:
    shape = (-1, *(1 for _ in x.shape[2:]))
    out = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return _numpy_affine(out, affine, shape)


def _samples_batch_norm(rng: np.random.Generator) -> Iterator[Sample]:
    for shape in ((2, 3, 4), (2, 3), (2, 3, 2, 2), (0, 3, 4)):
        for count in (0, 1, 2):
            own = [draw(rng, float64, 3) for _ in range(2 + count)]
            own[1] = np.abs(own[1])
            yield Sample((draw(rng, float64, *shape), *own), {"eps": 1e-3})
    for dtype in FLOATS:
        own = [draw(rng, dtype, 5) for _ in range(4)]
        own[1] = np.abs(own[1])
        yield Sample((draw(rng, dtype, 2, 5, 33), *own), {"eps": 1e-3}, smooth=False)
    x = draw(rng, float32, 2, 3, 4)
    c = x[0, :, 0]
    attrs = {"eps": 1e-3}
    yield Sample((x, c, c[:2]), attrs, ShapeError, r"batch_norm: var of shape \(2,\) for 3 channels: 2 and 3 differ")
    yield Sample((x, c, c, x[0]), attrs, ShapeError, "scale of shape .* a vector is needed")
    yield Sample((x, c, c.astype(np.float64)), attrs, DTypeError, "var must be float32, got float64")
    yield Sample((x[0, 0], c, c), attrs, ShapeError, "a batch and channels are needed")


batch_norm_op: OpDef = define_op(
    "batch_norm",
    infer=_infer_batch_norm,
    expand=_expand_batch_norm,
    numpy=in_double(_numpy_batch_norm),
    samples=_samples_batch_norm,
    costly=True,
)


@public("nn")
def batch_norm(
    x: Operand,
    mean: Operand,
    var: Operand,
    /,
    scale: Operand | None = None,
    bias: Operand | None = None,
    *,
    eps: float = 1e-5,
) -> Node:
    """Return ``(x - mean) / sqrt(var + eps) * scale + bias`` with a mean and a variance for each channel.

    In inference these are kept from training; in training they are those of the batch, `batch_statistics`, through
    which gradients flow.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S); integers and bool are taken as float64. Sizes may be symbolic.
    mean, var
        Tensors of shape (C,).
    scale, bias
        Tensors of shape (C,), or None for 1 and 0.
    eps
        Added to the variance.

    Raises
    ------
    ShapeError
        If a mean, variance, scale or bias has another shape.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[1.0, 10.0], [3.0, 30.0]])
    >>> jf.interpret(jf.nn.batch_norm(x, *jf.nn.batch_statistics(x), eps=0.0), {})
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    nodes = _floats_with_scale(x, mean, var, scale, bias)
    return batch_norm_op(*nodes, eps=as_number(eps, "batch_norm: eps"))


@public("nn")
def batch_statistics(x: Operand, /) -> tuple[Node, Node]:
    """Return mean and variance of each channel over batch and places, for `batch_norm`.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S); integers and bool are taken as float64. Sizes may be symbolic.

    Returns
    -------
    tuple
        Two tensors of shape (C,). The variance is that of the population (``correction=0``).

    Raises
    ------
    ShapeError
        Below rank 2.

    Examples
    --------
    >>> import jitflow as jf
    >>> mean, var = jf.nn.batch_statistics(jf.constant([[1.0, 10.0], [3.0, 30.0]]))
    >>> jf.interpret([mean, var], {})
    [array([ 2., 20.]), array([  1., 100.])]
    """
    node = as_float(x)
    if len(node.shape) < 2:
        raise located(ShapeError(f"batch_statistics of {shape_text(node.shape)}: a batch and channels are needed"))
    axes = (0, *range(2, len(node.shape)))
    return mean(node, axis=axes), var(node, axis=axes)
