"""max_pool and avg_pool: the greatest element and the mean of each window, over any number of axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import DType, as_dtype, bool_, float32, float64, int32
from jitflow.errors import DTypeError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, located, make_constant
from jitflow.ops.axes import as_flag
from jitflow.ops.broadcast import reduce_over, reduce_sum_op
from jitflow.ops.cast import as_float, cast_array, check_kinds
from jitflow.ops.convolution import Pairs, padded, padding_of, per_axis
from jitflow.ops.creation import full
from jitflow.ops.elementwise import divide_op
from jitflow.ops.fold import identity_of, ordered_fold
from jitflow.ops.reduce import reduce_max_op
from jitflow.ops.testdata import FLOATS, NUMBERS, Array, draw
from jitflow.ops.windows import Numbers, fitting_count, numpy_counts, windows
from jitflow.public import public
from jitflow.types import TensorType, add_dims, dim_text, shape_text


def _infer(name: str, x: TensorType, window: Numbers, strides: Numbers, padding: Pairs) -> TensorType:
    what = f"{name} of {shape_text(x.shape)}"
    if not len(window) == len(strides) == len(padding) == x.rank - 2 or not window:
        raise ShapeError(f"{what} by a window {shape_text(window)}: a batch, channels and an axis per size are needed")
    check_kinds(name, x.dtype, "if")
    out = []
    for axis, (n, size, stride, (before, after)) in enumerate(zip(x.shape[2:], window, strides, padding, strict=True)):
        if stride < 1 or size < 1 or min(before, after) < 0:
            raise ShapeError(f"{what}: window {size}, stride {stride} or padding {before} and {after} is too small")
        if max(before, after) >= size:
            raise ShapeError(f"{what}: padding {before} and {after} must be less than the window, {size}")
        total = add_dims(before, n, after)
        why = f"{what}: a window of {size} does not fit axis {axis + 2}, padded to {dim_text(total)}"
        out.append(fitting_count(total, size, stride, 1, why))
    return TensorType(x.dtype, (*x.shape[:2], *out))


def _windowed(x: Node, window: Numbers, strides: Numbers, padding: Pairs, fill: int | float) -> Node:
    """Return the windows of `x`, padded with `fill`: their elements are the axes after batch and channels."""
    return windows(padded(x, padding, fill), window, strides, (1,) * len(window))


def _over_windows(x: Array, window: Numbers, strides: Numbers, padding: Pairs, fill: float, fold: Any) -> Array:
    """Return `fold` of each window of `x`, padded with `fill`, one after the other."""
    x = np.pad(x, [(0, 0), (0, 0), *padding], constant_values=fill)
    counts = numpy_counts(x.shape[2:], window, strides, (1,) * len(window))
    out = np.empty((*x.shape[:2], *counts), x.dtype)
    axes = tuple(range(2, x.ndim))
    for place in np.ndindex(*counts):
        at: Any = (..., *(np.s_[p * s : p * s + k] for p, s, k in zip(place, strides, window, strict=True)))
        out[(..., *place)] = fold(x[at], axis=axes)
    return out


_CASES: tuple[tuple[tuple[int, ...], Numbers, Numbers, Pairs], ...] = (
    ((2, 3, 7), (3,), (1,), ((0, 0),)),
    ((2, 3, 7), (3,), (3,), ((1, 1),)),
    ((1, 1, 4), (4,), (1,), ((0, 0),)),
    ((2, 1, 5), (1,), (2,), ((0, 0),)),
    ((2, 2, 5, 6), (2, 3), (2, 1), ((1, 0), (0, 2))),
    ((1, 2, 4, 4), (2, 2), (2, 2), ((0, 0), (0, 0))),
    ((1, 1, 3, 4, 5), (2, 2, 2), (1, 2, 3), ((0, 1), (1, 0), (1, 1))),
    ((0, 3, 7), (3,), (1,), ((0, 0),)),
)


def _samples(rng: np.random.Generator, name: str, dtypes: tuple[DType, ...], **more: Any) -> Iterator[Sample]:
    for shape, window, strides, padding in _CASES:
        attrs = {"window": window, "strides": strides, "padding": padding, **more}
        yield Sample((draw(rng, float64, *shape),), attrs)
    flat = {"window": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1)), **more}
    for dtype in dtypes:
        yield Sample((draw(rng, dtype, 2, 2, 7, 35),), flat, smooth=False)
    x = draw(rng, float32, 1, 1, 4)
    plain = {"window": (2,), "strides": (1,), "padding": ((0, 0),), **more}
    yield Sample((x,), plain | {"window": (5,)}, ShapeError, "a window of 5 does not fit axis 2, padded to 4")
    yield Sample((x,), plain | {"padding": ((0, 2),)}, ShapeError, "padding 0 and 2 must be less than the window, 2")
    yield Sample((x[0],), plain, ShapeError, rf"{name} of \(1, 4\) by a window \(2,\): a batch, channels")
    yield Sample((x > 0,), plain, DTypeError, "not bool")


# ---- max_pool


def _greatest(x: Array, axis: tuple[int, ...]) -> Array:
    """Return the greatest elements over `axis`, folded serially: of zeros of both signs the order decides."""
    return ordered_fold("max", x[..., np.newaxis], axis, as_dtype(x.dtype))[..., 0]


def _infer_max(x: TensorType, *, window: Numbers, strides: Numbers, padding: Pairs) -> TensorType:
    return _infer("max_pool", x, window, strides, padding)


def _samples_max(rng: np.random.Generator) -> Iterator[Sample]:
    yield from _samples(rng, "max_pool", NUMBERS)
    x = draw(rng, float64, 1, 1, 6)
    x[0, 0, 2], x[0, 0, 5] = np.nan, -np.inf
    yield Sample((x,), {"window": (2,), "strides": (1,), "padding": ((1, 1),)}, smooth=False)
    zeros = np.where(draw(rng, bool_, 1, 1, 9, 9), 0.0, -0.0)
    yield Sample((zeros,), {"window": (3, 2), "strides": (1, 1), "padding": ((0, 0), (1, 1))}, smooth=False)


max_pool_op: OpDef = define_op(
    "max_pool",
    infer=_infer_max,
    expand=lambda x, *, window, strides, padding: reduce_over(
        reduce_max_op,
        _windowed(x, window, strides, padding, identity_of("max", x.dtype)),
        tuple(range(2, 2 + len(window))),
        False,
        "max_pool",
    ),
    numpy=lambda x, *, window, strides, padding: _over_windows(
        x, window, strides, padding, identity_of("max", as_dtype(x.dtype)), _greatest
    ),
    samples=_samples_max,
    exact=True,
)


@public("nn")
def max_pool(x: Operand, /, window: Any, *, stride: Any = None, padding: Any = 0) -> Node:
    """Return the greatest element of each window; NaN if there is one in it.

    The derivative is shared among equal greatest elements of a window, as that of `max` is.

    Parameters
    ----------
    x
        A tensor of numbers of shape (N, C, *S). Sizes may be symbolic.
    window
        The size of the window: an int, or one for each axis of S.
    stride
        How far apart windows are; by default the window's size, so that they do not overlap.
    padding
        How many places that never are the greatest to add around each axis, fewer than the window has: an int, one for
        each axis, a pair (before, after) for each axis, ``"valid"`` for none.

    Returns
    -------
    Node
        Of shape (N, C, *P), where P is ``(before + n + after - window) // stride + 1`` along each axis.

    Raises
    ------
    ShapeError
        If the window does not fit, or padding is as large as it.
    DTypeError
        For bool.
    GraphError
        For a window or stride below 1, or not as many numbers as axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.nn.max_pool(jf.constant([[[1, 5, 2, 3]]]), 2), {})
    array([[[5, 3]]])
    """
    node = as_node(x)
    window, strides, pairs = _arguments(node, window, stride, padding, "max_pool")
    return max_pool_op(node, window=window, strides=strides, padding=pairs)


def _arguments(x: Node, window: Any, stride: Any, padding: Any, name: str) -> tuple[Numbers, Numbers, Any]:
    spatial = len(x.shape) - 2
    if spatial < 1:
        raise located(ShapeError(f"{name} of {shape_text(x.shape)}: a batch, channels and an axis to slide along"))
    sizes = per_axis(window, spatial, f"{name}: window", 1)
    strides = sizes if stride is None else per_axis(stride, spatial, f"{name}: stride", 1)
    if padding == "same":
        raise located(ShapeError(f"{name}: padding must be 'valid', ints or pairs, got 'same'"))
    return sizes, strides, padding_of(padding, x.shape[2:], (), (), name)


# ---- avg_pool


def _sums(x: Node, window: Numbers, strides: Numbers, padding: Pairs) -> Node:
    axes = tuple(range(2, 2 + len(window)))
    parts = _windowed(x, window, strides, padding, 0)
    return reduce_over(reduce_sum_op, parts, axes, False, "avg_pool", dtype=x.dtype)


def _expand_avg(x: Node, *, window: Numbers, strides: Numbers, padding: Pairs, count_include_pad: bool) -> Node:
    total = _sums(x, window, strides, padding)
    if count_include_pad or all(pair == (0, 0) for pair in padding):
        return divide_op(total, make_constant(int(np.prod(window)), x.dtype))
    inside = full((1, 1, *x.shape[2:]), 1, dtype=x.dtype)
    return divide_op(total, _sums(inside, window, strides, padding))


def _numpy_avg(x: Array, *, window: Numbers, strides: Numbers, padding: Pairs, count_include_pad: bool) -> Array:
    wide = x.astype(np.float64)
    with np.errstate(all="ignore"):
        total = _over_windows(wide, window, strides, padding, 0.0, np.sum)
        ones = np.ones((1, 1, *x.shape[2:]))
        counts = _over_windows(ones, window, strides, padding, 0.0 if not count_include_pad else 1.0, np.sum)
        return cast_array(total / counts, as_dtype(x.dtype))


def _infer_avg(
    x: TensorType, *, window: Numbers, strides: Numbers, padding: Pairs, count_include_pad: bool
) -> TensorType:
    out = _infer("avg_pool", x, window, strides, padding)
    check_kinds("avg_pool", x.dtype, "f")
    return out


def _samples_avg(rng: np.random.Generator) -> Iterator[Sample]:
    for include in (True, False):
        yield from _samples(rng, "avg_pool", FLOATS, count_include_pad=include)
    attrs = {"window": (2,), "strides": (1,), "padding": ((0, 0),), "count_include_pad": True}
    yield Sample((draw(rng, int32, 1, 1, 4),), attrs, DTypeError, "avg_pool takes floats, not int32")


def _scale_avg(x: Array, *, window: Numbers, **attrs: Any) -> Any:
    """The mean of the magnitudes, as often as they may be rounded."""
    return _numpy_avg(np.asarray(x, np.float64), window=window, **attrs) * (4 + int(np.prod(window)))


avg_pool_op: OpDef = define_op(
    "avg_pool",
    infer=_infer_avg,
    expand=_expand_avg,
    numpy=_numpy_avg,
    samples=_samples_avg,
    scale=_scale_avg,
)


@public("nn")
def avg_pool(
    x: Operand, /, window: Any, *, stride: Any = None, padding: Any = 0, count_include_pad: bool = True
) -> Node:
    """Return the mean of each window.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S); bool and integers are taken as float64. Sizes may be symbolic.
    window, stride, padding
        As for `max_pool`. The elements that padding adds are 0.
    count_include_pad
        Whether these count in the number that the sum of a window is divided by.

    Returns
    -------
    Node
        Of the shape that `max_pool` gives.

    Raises
    ------
    ShapeError
        If the window does not fit, or padding is as large as it.
    GraphError
        For a window or stride below 1, or not as many numbers as axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[[1.0, 5.0, 2.0]]])
    >>> jf.interpret(jf.nn.avg_pool(x, 2, padding=((0, 1),)), {})
    array([[[3., 1.]]])
    >>> jf.interpret(jf.nn.avg_pool(x, 2, padding=((0, 1),), count_include_pad=False), {})
    array([[[3., 2.]]])
    """
    node = as_float(x)
    window, strides, pairs = _arguments(node, window, stride, padding, "avg_pool")
    return avg_pool_op(
        node,
        window=window,
        strides=strides,
        padding=pairs,
        count_include_pad=as_flag(count_include_pad, "avg_pool: count_include_pad"),
    )
