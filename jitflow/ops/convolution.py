"""conv, over any number of axes, as windows of the padded input and one matrix product.

The weights, ``[O, C/groups * K]``, are multiplied by the windows, ``[C/groups * K, batch * places]``, for each group.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import DType, as_dtype, float32, float64, int32
from jitflow.errors import DTypeError, GraphError, JitflowError, ShapeError
from jitflow.expr import as_index
from jitflow.expr import maximum as larger
from jitflow.graph import Node, OpDef, Operand, Sample, define_op, located
from jitflow.ops.axes import Dims, known_shape
from jitflow.ops.cast import cast_array, check_kinds, promoted
from jitflow.ops.elementwise import add_op
from jitflow.ops.matmul import contract, matmul_op, sum_in_dtype
from jitflow.ops.movement import flip_op, matrix_transpose, permute_dims, reshape_to
from jitflow.ops.padding import pad_op
from jitflow.ops.slicing import slice_axes
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.ops.windows import (
    Numbers,
    fitting_count,
    fold_windows_op,
    numpy_counts,
    numpy_places,
    window_count,
    window_extent,
    windows,
)
from jitflow.public import public
from jitflow.simplify import simplify_index
from jitflow.types import (
    Dim,
    Shape,
    TensorType,
    add_dims,
    dim_text,
    fold_dim,
    mul_dims,
    shape_text,
    unify,
)

#: What is added before and after each axis that windows slide along.
Padding: TypeAlias = tuple[tuple[Dim, Dim], ...]
#: The same where it is known.
Pairs: TypeAlias = tuple[tuple[int, int], ...]
#: Of a sample: the shapes of input and weights, and the attributes that are not plain.
Case: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]

#: Places of windows of one image below which all images of a batch share one product.
FEW_PLACES = 256


def per_axis(value: Any, count: int, what: str, least: int) -> Numbers:
    """Return one int, or `count` of them, as a tuple; GraphError for something else or one below `least`."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    try:
        numbers = tuple(operator.index(v) for v in items)
    except TypeError:
        numbers = ()
    if len(numbers) != count or any(n < least for n in numbers):
        wanted = f"an int of at least {least}" + (f", or {count} of them" if count > 1 else "")
        raise located(GraphError(f"{what} must be {wanted}, got {value!r}"))
    return numbers


def padding_of(padding: Any, shape: Shape, reach: Shape, strides: Numbers, what: str) -> Padding:
    """Return `padding` as users give it by axis: an int, ints, pairs, ``"valid"`` or ``"same"``.

    ``"same"`` adds what makes ``ceil(n / stride)`` windows of `reach` elements fit, the odd one after.
    """
    count = len(shape)
    if padding == "valid":
        return ((0, 0),) * count
    if padding == "same":
        return tuple(_same(n, e, s) for n, e, s in zip(shape, reach, strides, strict=True))
    if isinstance(padding, str):
        raise located(GraphError(f"{what}: padding must be 'same', 'valid', ints or pairs, got {padding!r}"))
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != count:
            raise located(GraphError(f"{what}: padding needs a pair for each of {count} axes, got {padding!r}"))
        pairs = [per_axis(p, 2, f"{what}: a pair of padding", 0) for p in padding]
        return tuple((before, after) for before, after in pairs)
    return tuple((p, p) for p in per_axis(padding, count, f"{what}: padding", 0))


def _same(n: Dim, reach: Dim, stride: int) -> tuple[Dim, Dim]:
    places = (as_index(n) + (stride - 1)) // stride
    total = simplify_index(larger((places - 1) * stride + reach - n, 0))
    before = fold_dim(simplify_index(total // 2))
    return before, fold_dim(simplify_index(total - before))


def padded(x: Node, padding: Padding, value: bool | int | float = 0) -> Node:
    """Return `x` with `value` added around its last axes."""
    if all(before == 0 and after == 0 for before, after in padding):
        return x
    lead = len(x.shape) - len(padding)
    return pad_op(x, widths=(((0, 0),) * lead + padding), value=float(value) if x.dtype.is_float else int(value))


def check_channels(name: str, x: TensorType, w: TensorType, groups: int, channels: int) -> None:
    """Raise unless the types of input, weights and groups fit; axis `channels` of the weights has no groups."""
    what = f"{name} of x {shape_text(x.shape)} and w {shape_text(w.shape)}"
    if x.rank < 3 or w.rank != x.rank:
        raise _rank_error(name, x.shape, w.shape)
    if w.dtype is not x.dtype:
        raise DTypeError(f"{what}: dtypes {x.dtype} and {w.dtype} differ")
    check_kinds(name, x.dtype, "if")
    for label, n in (("x", x.shape[1]), ("w", w.shape[channels])):
        why = f"{what}: {groups} groups do not divide the {dim_text(n)} channels of {label}"
        if isinstance(n, int) and n % groups:
            raise ShapeError(why)
        unify(fold_dim(simplify_index(as_index(n) // groups * groups)), n, why)


def _rank_error(name: str, x: Shape, w: Shape) -> JitflowError:
    what = f"{name} of x {shape_text(x)} and w {shape_text(w)}"
    return ShapeError(f"{what}: both have as many axes, batch and channels and at least one to slide along")


def check_bias(name: str, bias: Sequence[TensorType], x: TensorType, channels: Dim) -> None:
    """Raise unless each type of `bias`, of which there are none or one, has an element per channel of the result."""
    for t in bias:
        if t.rank != 1:
            raise ShapeError(f"{name}: bias {shape_text(t.shape)} must have one axis, of {dim_text(channels)} channels")
        if t.dtype is not x.dtype:
            raise DTypeError(f"{name}: bias must be {x.dtype}, got {t.dtype}")
        unify(t.shape[0], channels, f"{name}: bias for {dim_text(channels)} channels")


def with_bias(out: Node, bias: Sequence[Node]) -> Node:
    """Return `out` with its element of `bias`, if there is one, added to each channel."""
    for t in bias:
        out = add_op(out, reshape_to(t, (t.shape[0], *(1 for _ in out.shape[2:]))))
    return out


def divided(n: Dim, groups: int) -> Dim:
    """Return how many of `n` channels, which the groups divide, one group has."""
    return fold_dim(simplify_index(as_index(n) // groups))


# ---- conv


def _infer_conv(
    x: TensorType,
    w: TensorType,
    *bias: TensorType,
    strides: Numbers,
    padding: Padding,
    dilations: Numbers,
    groups: int,
) -> TensorType:
    check_channels("conv", x, w, groups, 0)
    what = f"conv of x {shape_text(x.shape)} and w {shape_text(w.shape)}"
    unify(mul_dims(w.shape[1], groups), x.shape[1], f"{what}: channels of w, {groups} groups, and of x")
    check_bias("conv", bias, x, w.shape[0])
    if not all(s >= 1 for s in (*strides, *dilations)):
        raise ShapeError(f"{what}: strides {strides} and dilations {dilations} must be at least 1")
    if any(isinstance(p, int) and p < 0 for pair in padding for p in pair):
        raise ShapeError(f"{what}: padding {padding} must not be negative")
    out: list[Dim] = []
    for axis, (n, size, (before, after)) in enumerate(zip(x.shape[2:], w.shape[2:], padding, strict=True)):
        total, reach = add_dims(before, n, after), dim_text(window_extent(size, dilations[axis]))
        if size == 0:
            raise ShapeError(f"{what}: axis {axis + 2} of w is empty")
        why = f"{what}: a window over {reach} elements does not fit axis {axis + 2}, padded to {dim_text(total)}"
        out.append(fitting_count(total, size, strides[axis], dilations[axis], why))
    return TensorType(x.dtype, (x.shape[0], w.shape[0], *out))


def _expand_conv(
    x: Node, w: Node, *bias: Node, strides: Numbers, padding: Padding, dilations: Numbers, groups: int
) -> Node:
    """Multiply the weights by windows: for each element of the batch and each group, or for small images all at once.

    Columns of the product are places of windows. Few of them would not fill the vectors that the product is computed
    in, so those of a whole batch become columns of one product; its result has to be put in order after it.
    """
    sizes, batch = w.shape[2:], x.shape[0]
    split = () if groups == 1 else (groups,)
    depth = mul_dims(w.shape[1], *sizes)
    left = reshape_to(w, (*split, divided(w.shape[0], groups), depth))
    inside = padded(x, padding)
    channels_first = (1, 0, *range(2, len(x.shape)))
    counts = [window_count(n, k, s, d) for n, k, s, d in zip(inside.shape[2:], sizes, strides, dilations, strict=True)]
    places = mul_dims(*counts)
    if batch != 1 and isinstance(places, int) and places < FEW_PLACES:
        patches = windows(permute_dims(inside, channels_first), (1, *sizes), (1, *strides), (1, *dilations))
        product = matmul_op(left, reshape_to(patches, (*split, depth, mul_dims(batch, places))))
        out = permute_dims(reshape_to(product, (w.shape[0], batch, *counts)), channels_first)
    else:
        patches = windows(inside, sizes, strides, dilations)
        product = matmul_op(left, reshape_to(patches, (batch, *split, depth, places)))
        out = reshape_to(product, (batch, w.shape[0], *counts))
    return with_bias(out, bias)


def added_up(x: Node, w: Node, parts: Shape, room: Shape, strides: Numbers, dilations: Numbers, groups: int) -> Node:
    """Return zeros to whose windows each element of `x`, times weights ``[C, O/groups, *K]``, has been added.

    One product has an element for each place of each window, so it is of shape `parts`, and the windows lie in `room`
    places along each axis.
    """
    split = () if groups == 1 else (groups,)
    inner = divided(w.shape[0], groups)
    weights = matrix_transpose(reshape_to(w, (*split, inner, mul_dims(*w.shape[1:]))))
    added = matmul_op(weights, reshape_to(x, (x.shape[0], *split, inner, mul_dims(*x.shape[2:]))))
    return fold_windows_op(reshape_to(added, parts), shape=room, strides=strides, dilations=dilations)


def _turned(ct: Node, w: Node, padding: Padding, strides: Numbers, dilations: Numbers, groups: int) -> Node | None:
    """Return the gradient of the input as a convolution with the weights turned around; None if windows skip places."""
    sizes = w.shape[2:]
    beyond: list[tuple[int, int]] = []
    for size, dilation, (before, after) in zip(sizes, dilations, padding, strict=True):
        reach = window_extent(size, dilation)
        if not (isinstance(reach, int) and isinstance(before, int) and isinstance(after, int)):
            return None
        beyond.append((reach - 1 - before, reach - 1 - after))
    if any(s != 1 for s in strides) or any(n < 0 for pair in beyond for n in pair):
        return None
    inner, outer = divided(w.shape[0], groups), w.shape[1]
    by_group = reshape_to(w, (groups, inner, outer, *sizes))
    swapped = permute_dims(by_group, (0, 2, 1, *range(3, len(by_group.shape))))
    turned = flip_op(reshape_to(swapped, (mul_dims(outer, groups), inner, *sizes)), axes=_sliding(sizes))
    return conv_op(ct, turned, strides=strides, padding=tuple(beyond), dilations=dilations, groups=groups)


def _sliding(sizes: Shape) -> tuple[int, ...]:
    """Return the axes that windows of `sizes` slide along."""
    return tuple(range(2, 2 + len(sizes)))


def _vjp_conv(
    ct: Node,
    out: Node,
    x: Node,
    w: Node,
    *bias: Node,
    strides: Numbers,
    padding: Padding,
    dilations: Numbers,
    groups: int,
) -> tuple[Node, ...]:
    """The gradient of the weights is one product over batch and places, that of the bias a sum over them."""
    inside, sizes = padded(x, padding), w.shape[2:]
    patches = windows(inside, sizes, strides, dilations)
    dx = _turned(ct, w, padding, strides, dilations, groups)
    if dx is None:
        whole = added_up(ct, w, patches.shape, inside.shape[2:], strides, dilations, groups)
        cut = enumerate(zip(padding, x.shape[2:], strict=True), 2)
        dx = slice_axes(whole, {axis: (before, n, 1) for axis, ((before, _), n) in cut})
    batch, places = x.shape[0], mul_dims(*ct.shape[2:])
    split, label = ((), ()) if groups == 1 else ((groups,), ("g",))
    by_group = reshape_to(ct, (batch, *split, divided(w.shape[0], groups), places))
    read = reshape_to(patches, (batch, *split, mul_dims(w.shape[1], *sizes), places))
    dw = contract(by_group, ("n", *label, "o", "p"), read, ("n", *label, "k", "p"), (*label, "o", "k"))
    own = [sum_in_dtype(ct, (0, *_sliding(sizes))) for _ in bias]
    return (dx, reshape_to(dw, w.shape), *own)


def _numpy_conv(
    x: Array,
    w: Array,
    *bias: Array,
    strides: Numbers,
    padding: Padding,
    dilations: Numbers,
    groups: int,
    dims: Dims,
) -> Array:
    """Add the products of one element of the window after the other, in float64."""
    dtype = as_dtype(x.dtype)
    x, w, *bias_ = (wide(t, dtype) for t in (x, w, *bias))
    x = np.pad(x, [(0, 0), (0, 0), *(known_shape(pair, dims) for pair in padding)])
    counts = numpy_counts(x.shape[2:], w.shape[2:], strides, dilations)
    out = np.zeros((x.shape[0], groups, w.shape[0] // groups, *counts), x.dtype)
    own = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    with np.errstate(all="ignore"):
        for at in np.ndindex(*w.shape[2:]):
            read = x[numpy_places(at, counts, strides, dilations)].reshape(x.shape[0], groups, w.shape[1], *counts)
            out += np.einsum("ngc...,goc->ngo...", read, own[(..., *at)])
        out = out.reshape(x.shape[0], w.shape[0], *counts)
        for t in bias_:
            out = out + t.reshape(-1, *(1 for _ in counts))
    return cast_array(out, dtype)


def wide(x: Array, dtype: DType) -> Array:
    """Return floats as float64."""
    return x.astype(np.float64) if dtype.is_float else x


def _scale_conv(x: Array, w: Array, *bias: Array, **attrs: Any) -> Any:
    """The sum of the magnitudes of the products, as often as they may be rounded."""
    depth = 3 + int(np.prod(w.shape[1:]))
    return _numpy_conv(*(np.asarray(t, np.float64) for t in (x, w, *bias)), **attrs, dims={}) * depth


def _samples_conv(rng: np.random.Generator) -> Iterator[Sample]:
    plain: dict[str, Any] = {"strides": (1,), "padding": ((0, 0),), "dilations": (1,), "groups": 1}
    cases: tuple[Case, ...] = (
        ((2, 3, 7), (4, 3, 3), {}),
        ((1, 1, 5), (1, 1, 5), {}),
        ((2, 3, 7), (4, 3, 1), {}),
        ((2, 3, 7), (4, 3, 1), {"strides": (3,)}),
        ((2, 3, 7), (4, 3, 2), {"strides": (3,)}),
        ((2, 4, 8), (6, 2, 3), {"groups": 2, "padding": ((1, 2),)}),
        ((2, 4, 8), (4, 1, 3), {"groups": 4, "dilations": (2,), "padding": ((2, 2),)}),
        ((0, 3, 7), (4, 3, 3), {}),
        ((2, 3, 7), (0, 3, 3), {}),
    )
    for shape, weights, change in cases:
        yield Sample((draw(rng, float64, *shape), draw(rng, float64, *weights)), plain | change)
    flat: dict[str, Any] = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilations": (1, 1), "groups": 1}
    flat_cases: tuple[Case, ...] = (
        ((1, 2, 5, 6), (3, 2, 3, 2), {}),
        ((2, 2, 5, 6), (3, 2, 3, 3), {"strides": (2, 1), "padding": ((1, 1), (0, 2)), "dilations": (1, 2)}),
        ((1, 4, 5, 5), (8, 1, 2, 2), {"groups": 4}),
    )
    for shape, weights, change in flat_cases:
        inputs = tuple(draw(rng, float64, *own) for own in (shape, weights, weights[:1]))
        yield Sample(inputs, flat | change)
    deep = {"strides": (1, 2, 1), "padding": ((0, 1),) * 3, "dilations": (1, 1, 2), "groups": 1}
    yield Sample((draw(rng, float64, 1, 2, 3, 4, 5), draw(rng, float64, 2, 2, 1, 2, 2)), deep)
    for dtype in (int32, *FLOATS):
        inputs = (draw(rng, dtype, 2, 2, 6, 20), draw(rng, dtype, 3, 2, 3, 3), draw(rng, dtype, 3))
        yield Sample(inputs, flat | {"padding": ((1, 1), (1, 1))}, smooth=False)
    x, w = draw(rng, float32, 2, 3, 7), draw(rng, float32, 4, 3, 3)
    yield Sample((x, w[:, :2]), plain, ShapeError, "channels of w, 1 groups, and of x: 2 and 3 differ")
    yield Sample((x, w), plain | {"groups": 2}, ShapeError, "2 groups do not divide the 3 channels of x")
    yield Sample((x[:, :2], w[:3, :1]), plain | {"groups": 2}, ShapeError, "2 groups do not divide the 3 channels of w")
    yield Sample(
        (x, w), plain | {"dilations": (4,)}, ShapeError, "a window over 9 elements does not fit axis 2, padded to 7"
    )
    yield Sample((x[0], w[0]), plain, ShapeError, "both have as many axes")
    yield Sample((x, w[0]), plain, ShapeError, "both have as many axes")
    yield Sample((x, w.astype(np.float64)), plain, DTypeError, "dtypes float32 and float64 differ")
    yield Sample((x > 0, w > 0), plain, DTypeError, "not bool")
    yield Sample((x, w, x[0, 0]), plain, ShapeError, "conv: bias for 4 channels: 7 and 4 differ")
    yield Sample((x, w, x), plain, ShapeError, r"bias \(2, 3, 7\) must have one axis, of 4 channels")


conv_op: OpDef = define_op(
    "conv",
    infer=_infer_conv,
    expand=_expand_conv,
    numpy=_numpy_conv,
    vjp=_vjp_conv,
    samples=_samples_conv,
    scale=_scale_conv,
    costly=True,
)


@public("nn")
def conv(
    x: Operand,
    w: Operand,
    /,
    bias: Operand | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Node:
    r"""Return the convolution of `x` with `w`, in the sense of neural networks: a correlation.

    ``out[n, o, p...] = bias[o] + sum over c, k... of w[o, c, k...] * x[n, c, p*stride + k*dilation - before, ...]``,
    elements outside `x` being 0.

    Parameters
    ----------
    x
        A tensor of shape (N, C, *S) with one or more axes to slide along. Sizes may be symbolic.
    w
        Weights of shape (O, C/groups, *K).
    bias
        A tensor of shape (O,), or None.
    stride, dilation
        How far apart windows, and the elements of a window, are: an int, or one for each axis.
    padding
        Zeros around each axis: an int, one for each axis, a pair (before, after) for each axis, ``"valid"`` for none,
        or ``"same"`` for ``ceil(n / stride)`` results along each axis, the odd zero after.
    groups
        Both kinds of channels are dealt to so many groups that do not mix; C of them are a depthwise convolution.

    Returns
    -------
    Node
        Of shape (N, O, *P), where P is ``(before + n + after - (k - 1)*dilation - 1) // stride + 1`` along each axis.
        Each element is one chain of multiply-adds over channels and window, row-major.

    Raises
    ------
    ShapeError
        If channels, groups, bias or the window do not fit.
    DTypeError
        For bool.
    GraphError
        For a stride, dilation or number of groups below 1, or a padding that is none of the above.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[[1.0, 2.0, 3.0, 4.0]]])
    >>> jf.interpret(jf.nn.conv(x, jf.constant([[[1.0, -1.0]]])), {})
    array([[[-1., -1., -1.]]])
    >>> image = jf.placeholder("image", jf.float32, ("n", 3, "h", "w"))
    >>> jf.nn.conv(image, jf.zeros((8, 3, 3, 3), dtype=jf.float32), padding=1).shape
    (n, 8, h, w)
    """
    given = [t for t in (bias,) if t is not None]
    node, weights, *rest = promoted(x, w, *given)
    spatial = sliding_axes(node, weights, "conv")
    strides, dilations = per_axis(stride, spatial, "conv: stride", 1), per_axis(dilation, spatial, "conv: dilation", 1)
    reach = tuple(window_extent(k, d) for k, d in zip(weights.shape[2:], dilations, strict=True))
    pairs = padding_of(padding, node.shape[2:], reach, strides, "conv")
    (count,) = per_axis(groups, 1, "conv: groups", 1)
    return conv_op(node, weights, *rest, strides=strides, padding=pairs, dilations=dilations, groups=count)


def sliding_axes(x: Node, w: Node, name: str) -> int:
    """Return along how many axes windows slide; ShapeError unless both have three axes or more, and as many."""
    if len(x.shape) < 3 or len(w.shape) != len(x.shape):
        raise located(_rank_error(name, x.shape, w.shape))
    return len(x.shape) - 2
