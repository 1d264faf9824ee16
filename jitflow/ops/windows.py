"""windows, which reads a tensor at every place of a sliding window, and its transpose fold_windows, which adds up.

``windows(x)[..., k, o] = x[..., o*stride + k*dilation]`` along each of the last axes: the implicit patches of a
convolution or a pooling. It is index arithmetic, so that nothing is copied where a reader computes it on the fly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64
from jitflow.errors import DTypeError, ShapeError
from jitflow.expr import Expr, Reduce, Var, as_index, const, eq
from jitflow.expr import maximum as larger
from jitflow.graph import Index, Node, OpDef, Reader, Sample, define_op
from jitflow.ops.axes import Dims, known_shape
from jitflow.ops.cast import check_kinds
from jitflow.ops.movement import reshape_to
from jitflow.ops.slicing import guarded
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.simplify import simplify_index
from jitflow.types import Dim, Shape, TensorType, dim_text, fold_dim, shape_text, unify

#: A number for each axis that windows slide along, the last axes of a tensor.
Numbers: TypeAlias = tuple[int, ...]


def window_extent(size: Dim, dilation: int) -> Dim:
    """Return how many elements a window of `size` elements that lie `dilation` apart reaches over."""
    return fold_dim(simplify_index((as_index(size) - 1) * dilation + 1))


def window_count(n: Dim, size: Dim, stride: int, dilation: int) -> Dim:
    """Return how many windows fit an axis of size `n`, which is at least as long as one."""
    rest = simplify_index(as_index(n) - window_extent(size, dilation))
    return fold_dim(simplify_index(as_index(rest) // stride + 1))


def fitting_count(n: Dim, size: Dim, stride: int, dilation: int, why: str) -> Dim:
    """Return how many windows fit an axis of size `n`; ShapeError, or a guard, for `why` unless one does.

    Of windows of one element none is right for an axis of none.
    """
    reach = window_extent(size, dilation)
    if reach == 1:
        return window_count(n, size, stride, dilation)
    if isinstance(n, int) and isinstance(reach, int) and reach > n:
        raise ShapeError(why)
    unify(simplify_index(larger(as_index(n), as_index(reach))), n, why)
    return window_count(n, size, stride, dilation)


def _check(what: str, rank: int, *numbers: tuple[object, ...]) -> int:
    """Return the number of axes that windows slide along; ShapeError if attributes and rank do not fit."""
    spatial = len(numbers[0])
    if spatial == 0 or any(len(n) != spatial for n in numbers) or rank < spatial:
        raise ShapeError(f"{what}: {spatial} axes to slide along do not fit a tensor with {rank} axes")
    return spatial


def _infer_windows(x: TensorType, *, sizes: Shape, strides: Numbers, dilations: Numbers) -> TensorType:
    spatial = _check("windows", x.rank, sizes, strides, dilations)
    lead = x.shape[: x.rank - spatial]
    counts: list[Dim] = []
    for n, size, stride, dilation in zip(x.shape[len(lead) :], sizes, strides, dilations, strict=True):
        if size == 0 or stride < 1 or dilation < 1:
            raise ShapeError(f"windows: sizes, strides and dilations are at least 1, got {size}, {stride}, {dilation}")
        reach = dim_text(window_extent(size, dilation))
        what = f"windows over {reach} elements of an axis of {dim_text(n)} in {shape_text(x.shape)}"
        counts.append(fitting_count(n, size, stride, dilation, f"{what}: the axis is too short"))
    return TensorType(x.dtype, (*lead, *sizes, *counts))


def _element_windows(index: Index, x: Reader, *, sizes: Shape, strides: Numbers, dilations: Numbers) -> Expr:
    spatial = len(sizes)
    lead, within, place = index[: -2 * spatial], index[-2 * spatial : -spatial], index[-spatial:]
    return x(*lead, *(o * s + k * d for o, k, s, d in zip(place, within, strides, dilations, strict=True)))


def _numpy_windows(x: Array, *, sizes: Shape, strides: Numbers, dilations: Numbers, dims: Dims) -> Array:
    window, spatial = known_shape(sizes, dims), len(sizes)
    lead = x.shape[: x.ndim - spatial]
    counts = numpy_counts(x.shape[len(lead) :], window, strides, dilations)
    out = np.empty((*lead, *window, *counts), x.dtype)
    for at in np.ndindex(*window):
        out[(..., *at, *(slice(None),) * spatial)] = x[numpy_places(at, counts, strides, dilations)]
    return out


def numpy_counts(shape: Numbers, sizes: Numbers, strides: Numbers, dilations: Numbers) -> Numbers:
    """Return how many windows fit along each axis of an array of `shape`."""
    return tuple((n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(shape, sizes, strides, dilations, strict=True))


def numpy_places(at: Numbers, counts: Numbers, strides: Numbers, dilations: Numbers) -> Any:
    """Return where the windows have their elements `at`, as an index of the whole array."""
    each = zip(at, counts, strides, dilations, strict=True)
    return (..., *(np.s_[k * d : k * d + (c - 1) * s + 1 : s] for k, c, s, d in each))


#: Shapes, sizes, strides and dilations that the samples of both operators have.
_CASES: tuple[tuple[tuple[int, ...], Numbers, Numbers, Numbers], ...] = (
    ((7,), (3,), (1,), (1,)),
    ((7,), (3,), (2,), (1,)),
    ((8,), (3,), (3,), (2,)),
    ((5,), (5,), (4,), (1,)),
    ((2, 6), (2,), (4,), (1,)),
    ((2, 5, 6), (3, 2), (1, 2), (1, 3)),
    ((2, 3, 4, 3, 5), (2, 1, 3), (2, 1, 1), (1, 2, 1)),
    ((0, 4), (2,), (1,), (1,)),
    ((3, 1), (1,), (1,), (1,)),
)


def _samples_windows(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, sizes, strides, dilations in _CASES:
        attrs = {"sizes": sizes, "strides": strides, "dilations": dilations}
        yield Sample((draw(rng, float64, *shape),), attrs)
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 5),), {"sizes": (2,), "strides": (1,), "dilations": (2,)})
    x = draw(rng, float32, 2, 4)
    one = {"strides": (1,), "dilations": (1,)}
    short = r"windows over 5 elements of an axis of 4 in \(2, 4\): the axis is too short"
    yield Sample((x,), {"sizes": (5,), **one}, ShapeError, short)
    yield Sample((x,), {"sizes": (3,), "strides": (1,), "dilations": (2,)}, ShapeError, short)
    yield Sample((x,), {"sizes": (2,), "strides": (0,), "dilations": (1,)}, ShapeError, "are at least 1, got 2, 0, 1")
    yield Sample((x,), {"sizes": (2, 2), **one}, ShapeError, "2 axes to slide along do not fit")


windows_op: OpDef = define_op(
    "windows",
    infer=_infer_windows,
    element=_element_windows,
    numpy=_numpy_windows,
    vjp=lambda ct, out, x, *, sizes, strides, dilations: (
        fold_windows_op(ct, shape=x.shape[-len(sizes) :], strides=strides, dilations=dilations),
    ),
    samples=_samples_windows,
    exact=True,
    movement=True,
)


# ---- fold_windows


def _infer_fold(x: TensorType, *, shape: Shape, strides: Numbers, dilations: Numbers) -> TensorType:
    spatial = _check("fold_windows", x.rank // 2, shape, strides, dilations)
    check_kinds("fold_windows", x.dtype, "if")
    sizes, counts = x.shape[-2 * spatial : -spatial], x.shape[-spatial:]
    for n, size, count, stride, dilation in zip(shape, sizes, counts, strides, dilations, strict=True):
        what = f"fold_windows of {shape_text(x.shape)} into {shape_text(shape)}"
        if stride < 1 or dilation < 1:
            raise ShapeError(f"{what}: strides and dilations are at least 1, got {stride} and {dilation}")
        unify(window_count(n, size, stride, dilation), count, f"{what}: windows along an axis")
    return TensorType(x.dtype, (*x.shape[: -2 * spatial], *shape))


def _element_fold(index: Index, x: Reader, *, shape: Shape, strides: Numbers, dilations: Numbers) -> Expr:
    """Add up the windows that read this place: those at (i - k*dilation) / stride, where that is one, for each k."""
    spatial = len(shape)
    lead, place = index[:-spatial], index[-spatial:]
    sizes, counts = x.type.shape[-2 * spatial : -spatial], x.type.shape[-spatial:]
    within = tuple(Var(f"k{a}" if spatial > 1 else "k", floor=0) for a in range(spatial))
    conditions: list[Expr] = []
    window: list[Expr] = []
    for i, k, count, stride, dilation in zip(place, within, counts, strides, dilations, strict=True):
        distance = i - k * dilation
        conditions.append(distance >= 0)
        if stride > 1:
            conditions.append(eq(distance % stride, 0))
            distance = distance // stride
        conditions.append(distance < as_index(count))
        window.append(distance)
    value = guarded(conditions, x(*lead, *within, *window), const(0, x.type.dtype))
    return Reduce("add", within, tuple(as_index(k) for k in sizes), value)


def _numpy_fold(x: Array, *, shape: Shape, strides: Numbers, dilations: Numbers, dims: Dims) -> Array:
    """Add the elements of each place of the window to where they were read, in the order of the fold."""
    to, spatial = known_shape(shape, dims), len(shape)
    sizes, counts = x.shape[-2 * spatial : -spatial], x.shape[-spatial:]
    out = np.zeros((*x.shape[: -2 * spatial], *to), x.dtype)
    with np.errstate(all="ignore"):
        for at in np.ndindex(*sizes):
            out[numpy_places(at, counts, strides, dilations)] += x[(..., *at, *(slice(None),) * spatial)]
    return out


def _samples_fold(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, sizes, strides, dilations in _CASES:
        spatial = len(sizes)
        lead, own = shape[: len(shape) - spatial], shape[len(shape) - spatial :]
        counts = numpy_counts(own, sizes, strides, dilations)
        attrs = {"shape": own, "strides": strides, "dilations": dilations}
        yield Sample((draw(rng, float64, *lead, *sizes, *counts),), attrs)
    for dtype in FLOATS:
        yield Sample((draw(rng, dtype, 3, 35),), {"shape": (37,), "strides": (1,), "dilations": (1,)}, smooth=False)
    attrs = {"shape": (6,), "strides": (1,), "dilations": (1,)}
    x = draw(rng, float32, 3, 2)
    yield Sample(
        (x,), attrs, ShapeError, r"fold_windows of \(3, 2\) into \(6,\): windows along an axis: 4 and 2 differ"
    )
    yield Sample((x > 0,), attrs, DTypeError, "not bool")
    yield Sample((x[0],), attrs, ShapeError, "1 axes to slide along do not fit")


#: The transpose of `windows`: zeros of `shape` along the last axes, and to each place added what windows read there.
fold_windows_op: OpDef = define_op(
    "fold_windows",
    infer=_infer_fold,
    element=_element_fold,
    numpy=_numpy_fold,
    vjp=lambda ct, out, x, *, shape, strides, dilations: (
        windows_op(ct, sizes=x.shape[-2 * len(shape) : -len(shape)], strides=strides, dilations=dilations),
    ),
    samples=_samples_fold,
)


def windows(x: Node, sizes: Shape, strides: Numbers, dilations: Numbers) -> Node:
    """Return the windows of `x`; windows of a single element that move by one are the tensor itself."""
    if all(k == 1 for k in sizes) and all(s == 1 for s in strides):
        lead = x.shape[: len(x.shape) - len(sizes)]
        from_lead = (*lead, *sizes, *x.shape[len(lead) :])
        return reshape_to(x, from_lead)
    return windows_op(x, sizes=sizes, strides=strides, dilations=dilations)
