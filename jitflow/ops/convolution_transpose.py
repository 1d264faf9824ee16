"""conv_transpose, over any number of axes: a matrix product gives what each element adds to its window, all added up.

It is what `conv` does to cotangents, and computed in the same way, by `fold_windows`. The alternative, a convolution of
the input with zeros between its elements, multiplies by all those zeros: ``stride`` times the work along each axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jitflow.dtypes import as_dtype, float32, float64, int32
from jitflow.errors import DTypeError, GraphError, ShapeError
from jitflow.expr import as_index
from jitflow.expr import maximum as larger
from jitflow.graph import Node, OpDef, Operand, Sample, define_op, located
from jitflow.ops.cast import cast_array, promoted
from jitflow.ops.convolution import (
    Case,
    Pairs,
    added_up,
    check_bias,
    check_channels,
    padded,
    padding_of,
    per_axis,
    sliding_axes,
    wide,
    with_bias,
)
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.ops.windows import Numbers, window_extent
from jitflow.public import public
from jitflow.simplify import known_sign, simplify_index
from jitflow.types import Dim, Shape, TensorType, dim_of, fold_dim, mul_dims, shape_text, unify


def _infer_transpose(
    x: TensorType,
    w: TensorType,
    *bias: TensorType,
    strides: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilations: Numbers,
    groups: int,
) -> TensorType:
    check_channels("conv_transpose", x, w, groups, 0)
    what = f"conv_transpose of x {shape_text(x.shape)} and w {shape_text(w.shape)}"
    unify(w.shape[0], x.shape[1], f"{what}: channels of w and of x")
    channels = mul_dims(w.shape[1], groups)
    check_bias("conv_transpose", bias, x, channels)
    if not all(s >= 1 for s in (*strides, *dilations)) or not all(p >= 0 for pair in padding for p in pair):
        raise ShapeError(f"{what}: strides and dilations are at least 1, padding is not negative")
    if not all(more >= 0 for more in output_padding):
        raise ShapeError(f"{what}: output_padding {output_padding} must not be negative")
    out: list[Dim] = []
    for axis, (n, (before, after), more) in enumerate(
        zip(_reached(x.shape, w.shape, strides, dilations), padding, output_padding, strict=True)
    ):
        if more >= max(strides[axis], dilations[axis]):
            limit = f"less than the stride {strides[axis]} or the dilation {dilations[axis]}"
            raise ShapeError(f"{what}: output_padding {more} along axis {axis + 2} must be {limit}")
        size = simplify_index(as_index(n) - before - after + more)
        why = f"{what}: padding {before} and {after} take more than there is of axis {axis + 2}"
        if known_sign(size) == -1:
            raise ShapeError(why)
        unify(simplify_index(larger(size, 0)), dim_of(size), why)
        out.append(fold_dim(size))
    return TensorType(x.dtype, (x.shape[0], channels, *out))


def _reached(x: Shape, w: Shape, strides: Numbers, dilations: Numbers) -> Shape:
    """Return how many places the windows of all elements reach over, along each axis."""
    out = []
    for n, size, stride, dilation in zip(x[2:], w[2:], strides, dilations, strict=True):
        if n == 0 or size == 0:
            raise ShapeError(
                f"conv_transpose of x {shape_text(x)} and w {shape_text(w)}: an axis to slide along is empty"
            )
        out.append(fold_dim(simplify_index((as_index(n) - 1) * stride + window_extent(size, dilation))))
    return tuple(out)


def _expand_transpose(
    x: Node,
    w: Node,
    *bias: Node,
    strides: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilations: Numbers,
    groups: int,
) -> Node:
    parts = (x.shape[0], mul_dims(w.shape[1], groups), *w.shape[2:], *x.shape[2:])
    shape = _reached(x.shape, w.shape, strides, dilations)
    whole = added_up(x, w, parts, shape, strides, dilations, groups)
    # `output_padding` gives back what `padding` takes away, and may add places that no window reaches.
    beyond = tuple((0, max(more - after, 0)) for more, (_, after) in zip(output_padding, padding, strict=True))
    whole = padded(whole, beyond)
    cut: dict[int, tuple[Dim, Dim, int]] = {}
    for axis, (n, (before, after), more) in enumerate(zip(shape, padding, output_padding, strict=True)):
        cut[axis + 2] = before, fold_dim(simplify_index(as_index(n) - before - after + more)), 1
    return with_bias(slice_axes(whole, cut), bias)


def _numpy_transpose(
    x: Array,
    w: Array,
    *bias: Array,
    strides: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilations: Numbers,
    groups: int,
) -> Array:
    """Add every element of `x`, times the weights, to its window, in float64."""
    dtype = as_dtype(x.dtype)
    x, w, *bias_ = (wide(t, dtype) for t in (x, w, *bias))
    inner, outer = w.shape[0] // groups, w.shape[1]
    sizes = zip(x.shape[2:], w.shape[2:], strides, dilations, output_padding, strict=True)
    room = [(n - 1) * s + (k - 1) * d + 1 + more for n, k, s, d, more in sizes]
    out = np.zeros((x.shape[0], groups, outer, *room), x.dtype)
    with np.errstate(all="ignore"):
        for place in np.ndindex(*x.shape[2:]):
            element = x[(..., *place)].reshape(x.shape[0], groups, inner)
            part = np.einsum("ngc,gco...->ngo...", element, w.reshape(groups, inner, *w.shape[1:]))
            each = zip(place, w.shape[2:], strides, dilations, strict=True)
            window: Any = (..., *(np.s_[p * s : p * s + (k - 1) * d + 1 : d] for p, k, s, d in each))
            out[window] += part
        out = out.reshape(x.shape[0], groups * outer, *room)
        each_end = zip(room, padding, strict=True)
        cut: Any = (..., *(np.s_[before : n - after] for n, (before, after) in each_end))
        out = out[cut]
        for t in bias_:
            out = out + t.reshape(-1, *(1 for _ in room))
    return cast_array(out, dtype)


def _scale_transpose(x: Array, w: Array, *bias: Array, **attrs: Any) -> Any:
    """The sum of the magnitudes of the products, as often as they may be rounded."""
    count = 4 + int(np.prod(w.shape))
    return _numpy_transpose(*(np.asarray(t, np.float64) for t in (x, w, *bias)), **attrs) * count


def _samples_transpose(rng: np.random.Generator) -> Iterator[Sample]:
    plain: dict[str, Any] = {
        "strides": (1,),
        "padding": ((0, 0),),
        "output_padding": (0,),
        "dilations": (1,),
        "groups": 1,
    }
    cases: tuple[Case, ...] = (
        ((2, 3, 5), (3, 4, 3), {}),
        ((1, 1, 1), (1, 1, 1), {}),
        ((2, 3, 5), (3, 4, 3), {"strides": (2,), "padding": ((1, 1),), "output_padding": (1,)}),
        ((2, 3, 5), (3, 4, 2), {"strides": (3,), "output_padding": (2,)}),
        ((2, 3, 5), (3, 4, 3), {"dilations": (3,), "padding": ((0, 2),), "output_padding": (2,)}),
        ((2, 4, 5), (4, 1, 3), {"groups": 2, "strides": (2,)}),
        ((2, 4, 5), (4, 2, 3), {"groups": 4}),
        ((0, 3, 5), (3, 4, 3), {}),
    )
    for shape, weights, change in cases:
        yield Sample((draw(rng, float64, *shape), draw(rng, float64, *weights)), plain | change)
    flat = plain | {"strides": (2, 1), "padding": ((1, 0), (0, 1)), "output_padding": (1, 0), "dilations": (1, 2)}
    for dtype in (int32, float64, *FLOATS):
        inputs = (draw(rng, dtype, 2, 3, 4, 5), draw(rng, dtype, 3, 2, 3, 2), draw(rng, dtype, 2))
        yield Sample(inputs, flat, smooth=dtype is float64)
    x, w = draw(rng, float32, 2, 3, 5), draw(rng, float32, 3, 4, 3)
    yield Sample((x, w[:2]), plain, ShapeError, "channels of w and of x: 2 and 3 differ")
    yield Sample((x, w), plain | {"groups": 2}, ShapeError, "2 groups do not divide the 3 channels of x")
    yield Sample((x, w), plain | {"output_padding": (1,)}, ShapeError, "output_padding 1 .* must be less than")
    yield Sample((x, w), plain | {"padding": ((4, 4),)}, ShapeError, "padding 4 and 4 take more than there is")
    yield Sample((x[..., :0], w), plain, ShapeError, "an axis to slide along is empty")
    yield Sample((x, w, x[0, 0]), plain, ShapeError, "bias for 4 channels: 5 and 4 differ")
    yield Sample((x[0], w), plain, ShapeError, "both have as many axes")
    yield Sample((x, w.astype(np.float64)), plain, DTypeError, "dtypes float32 and float64 differ")


conv_transpose_op: OpDef = define_op(
    "conv_transpose",
    infer=_infer_transpose,
    expand=_expand_transpose,
    numpy=_numpy_transpose,
    samples=_samples_transpose,
    scale=_scale_transpose,
    costly=True,
)


@public("nn")
def conv_transpose(
    x: Operand,
    w: Operand,
    /,
    bias: Operand | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Node:
    r"""Return the transpose of the convolution that `w` and the other arguments describe, applied to `x`.

    Each element of `x`, times the weights, is added to a window of the result, which is how the gradient of `conv` with
    respect to its input is computed.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S) with one or more axes to slide along. Sizes may be symbolic.
    w
        Weights of shape (C, O/groups, *K).
    bias
        A tensor of shape (O,), or None.
    stride, dilation
        How far apart the windows, and the elements of a window, are: an int, or one for each axis.
    padding
        How many places to leave out at both ends of each axis: an int, one for each axis, or a pair for each axis.
    output_padding
        How many more places to keep at the end of each axis, since several sizes have the same number of windows.
    groups
        Both kinds of channels are dealt to so many groups that do not mix.

    Returns
    -------
    Node
        Of shape (N, O, *P) with ``(n - 1)*stride - before - after + (k - 1)*dilation + 1 + output_padding`` places
        along each axis.

    Raises
    ------
    ShapeError
        If channels, groups or bias do not fit, padding leaves nothing, or `output_padding` is not less than the stride
        or the dilation.
    DTypeError
        For bool.
    GraphError
        For numbers that are out of range, or not as many as there are axes.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[[1.0, 10.0]]])
    >>> jf.interpret(jf.nn.conv_transpose(x, jf.constant([[[1.0, 2.0, 3.0]]]), stride=2), {})
    array([[[ 1.,  2., 13., 20., 30.]]])
    """
    given = [t for t in (bias,) if t is not None]
    node, weights, *rest = promoted(x, w, *given)
    spatial = sliding_axes(node, weights, "conv_transpose")
    if isinstance(padding, str):
        raise located(GraphError(f"conv_transpose: padding must be ints or pairs, got {padding!r}"))
    pairs = padding_of(padding, node.shape[2:], (), (), "conv_transpose")
    (count,) = per_axis(groups, 1, "conv_transpose: groups", 1)
    return conv_transpose_op(
        node,
        weights,
        *rest,
        strides=per_axis(stride, spatial, "conv_transpose: stride", 1),
        padding=pairs,
        output_padding=per_axis(output_padding, spatial, "conv_transpose: output_padding", 0),
        dilations=per_axis(dilation, spatial, "conv_transpose: dilation", 1),
        groups=count,
    )
