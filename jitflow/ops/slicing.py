"""slice, which picks evenly spaced elements along each axis, and its transpose unslice, which puts them among zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from jitflow.dtypes import SUPPORTED, float32, float64
from jitflow.errors import ShapeError
from jitflow.expr import Expr, as_index, const, eq, maximum, minimum, select
from jitflow.graph import Index, Node, OpDef, Reader, Sample, define_op
from jitflow.ops.axes import Dims, known_shape
from jitflow.ops.testdata import Array, draw
from jitflow.simplify import is_nonnegative, simplify_index
from jitflow.types import (
    Dim,
    Shape,
    TensorType,
    dim_text,
    guard_zero,
    guards_all,
    same_dim,
    shape_text,
    unify,
)

Slices = tuple[Dim, ...]


def _infer_slice(x: TensorType, *, starts: Slices, sizes: Slices, steps: tuple[int, ...]) -> TensorType:
    """Check the slices; whether an element picked from a symbolic axis exists becomes a guard.

    Slices of unknown size come from `getitem`, which clamps them to the axis.
    """
    if not len(starts) == len(sizes) == len(steps) == x.rank:
        raise ShapeError(f"slice: one slice per axis of {shape_text(x.shape)} is needed")
    for axis, (start, size, step, n) in enumerate(zip(starts, sizes, steps, x.shape, strict=True)):
        if step == 0:
            raise ShapeError(f"slice: the step of axis {axis} is zero")
        if not isinstance(size, int):
            _guard_reach(f"slice: axis {axis} of {shape_text(x.shape)}", start, size, step, n)
            continue
        if size == 0:
            continue
        what = f"slice: axis {axis} of {shape_text(x.shape)} has no element"
        ends = (as_index(start), as_index(start) + (size - 1) * step)
        low, high = ends if step > 0 else ends[::-1]
        if is_nonnegative(-simplify_index(low) - 1) or is_nonnegative(simplify_index(high) - as_index(n)):
            raise ShapeError(f"{what} {dim_text(simplify_index(high if is_nonnegative(low) else low))}")
        first, last = simplify_index(low), simplify_index(high)
        unify(simplify_index(maximum(low, 0)), first, f"{what} {dim_text(first)}", is_index=True)
        unify(simplify_index(maximum(as_index(n), high + 1)), n, f"{what} {dim_text(last)}", is_index=True)
    return TensorType(x.dtype, sizes)


def _guard_reach(what: str, start: Dim, size: Dim, step: int, n: Dim) -> None:
    """Guard that all of a slice is on an axis of `n`, if its attributes were not made by `getitem`."""
    if not guards_all():
        return
    ends = (as_index(start), as_index(start) + (as_index(size) - 1) * step)
    low, high = ends if step > 0 else ends[::-1]
    some = minimum(as_index(size), 1)  # an empty slice may begin anywhere
    guard_zero(minimum(low, 0) * some, f"{what} has no element {dim_text(simplify_index(low))}")
    guard_zero(maximum(high - n + 1, 0) * some, f"{what} has no element {dim_text(simplify_index(high))}")


def _element_slice(index: Index, x: Reader, *, starts: Slices, sizes: Slices, steps: tuple[int, ...]) -> Expr:
    return x(*(as_index(start) + i * step for i, start, step in zip(index, starts, steps, strict=True)))


def numpy_positions(
    starts: Slices, sizes: Slices, steps: tuple[int, ...], dims: Dims
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], ...]:
    """Return the positions that slices pick, by axis, ready to index an array."""
    picked = (
        start + np.arange(size, dtype=np.int64) * step
        for start, size, step in zip(known_shape(starts, dims), known_shape(sizes, dims), steps, strict=True)
    )
    return np.ix_(*picked)


def _numpy_slice(x: Array, *, starts: Slices, sizes: Slices, steps: tuple[int, ...], dims: Dims) -> Array:
    return np.asarray(x[numpy_positions(starts, sizes, steps, dims)])


def _vjp_slice(ct: Node, out: Node, x: Node, *, starts: Slices, sizes: Slices, steps: tuple[int, ...]) -> tuple[Node]:
    if x.shape == ct.shape and all(step > 0 for step in steps):
        return (ct,)  # all of x in its order; with a negative step it would be reversed
    return (unslice_op(ct, shape=x.shape, starts=starts, steps=steps),)


def _samples_slice(rng: np.random.Generator) -> Iterator[Sample]:
    for shape, starts, sizes, steps in (
        ((7,), (2,), (3,), (1,)),
        ((7,), (6,), (4,), (-2,)),
        ((7,), (0,), (4,), (2,)),
        ((5,), (4,), (5,), (-1,)),
        ((3, 5), (1, 4), (1, 5), (1, -1)),
        ((4, 6), (0, 1), (4, 0), (1, 3)),
        ((0, 2), (0, 0), (0, 2), (1, 1)),
        ((), (), (), ()),
    ):
        yield Sample((draw(rng, float64, *shape),), {"starts": starts, "sizes": sizes, "steps": steps})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 3, 99),), {"starts": (2, 1), "sizes": (3, 70), "steps": (-1, 1)})
    outside = r"slice: axis 0 of \(3,\) has no element"
    x = draw(rng, float32, 3)
    yield Sample((x,), {"starts": (1,), "sizes": (3,), "steps": (1,)}, ShapeError, outside + " 3")
    yield Sample((x,), {"starts": (1,), "sizes": (3,), "steps": (-1,)}, ShapeError, outside + " -1")
    yield Sample((x,), {"starts": (1,), "sizes": (2,), "steps": (0,)}, ShapeError, "step of axis 0 is zero")


slice_op: OpDef = define_op(
    "slice",
    infer=_infer_slice,
    element=_element_slice,
    numpy=_numpy_slice,
    vjp=_vjp_slice,
    samples=_samples_slice,
    exact=True,
    movement=True,
)


def slice_axes(x: Node, slices: Mapping[int, tuple[Dim, Dim, int]]) -> Node:
    """Return `x` with axis k cut to the (start, size, step) of ``slices[k]``; other axes stay whole."""
    full = [slices.get(k, (0, n, 1)) for k, n in enumerate(x.shape)]
    if all(
        step == 1 and start == 0 and same_dim(size, n) for (start, size, step), n in zip(full, x.shape, strict=True)
    ):
        return x
    starts, sizes, steps = zip(*full, strict=True)
    return slice_op(x, starts=starts, sizes=sizes, steps=steps)


def _infer_unslice(x: TensorType, *, shape: Shape, starts: Slices, steps: tuple[int, ...]) -> TensorType:
    if not len(shape) == len(starts) == len(steps) == x.rank:
        raise ShapeError(f"unslice: one slice per axis of {shape_text(x.shape)} is needed")
    for axis, (start, size, step, n) in enumerate(zip(starts, x.shape, steps, shape, strict=True)):
        if step == 0:
            raise ShapeError(f"unslice: the step of axis {axis} is zero")
        _guard_reach(f"unslice: axis {axis} of {shape_text(shape)}", start, size, step, n)
    return TensorType(x.dtype, shape)


def _element_unslice(index: Index, x: Reader, *, shape: Shape, starts: Slices, steps: tuple[int, ...]) -> Expr:
    places, inside = block_places(index, shape, x.type.shape, starts, steps)
    return guarded(inside, x(*places), const(0, x.type.dtype))


def block_places(
    index: Index, shape: Shape, sizes: Shape, starts: Slices, steps: tuple[int, ...]
) -> tuple[list[Expr], list[Expr]]:
    """Return where in a block of `sizes`, cut from `shape`, the element at `index` is, and what must hold for that."""
    places: list[Expr] = []
    inside: list[Expr] = []
    for i, start, step, n, size in zip(index, starts, steps, shape, sizes, strict=True):
        distance = i - as_index(start) if step > 0 else as_index(start) - i
        place = distance // abs(step)
        places.append(place)
        if start == 0 and step == 1 and same_dim(n, size):
            continue
        inside += [distance >= 0, place < as_index(size)]
        if abs(step) > 1:
            inside.append(eq(distance % abs(step), 0))
    return places, inside


def guarded(conditions: Iterable[Expr], value: Expr, otherwise: Expr) -> Expr:
    """Return `value` where all `conditions` hold, else `otherwise`. Literally true conditions vanish."""
    test: Expr | None = None
    for c in conditions:
        test = c if test is None else test & c
    return value if test is None else select(test, value, otherwise)


def _numpy_unslice(x: Array, *, shape: Shape, starts: Slices, steps: tuple[int, ...], dims: Dims) -> Array:
    out = np.zeros(known_shape(shape, dims), x.dtype)
    out[numpy_positions(starts, x.shape, steps, dims)] = x
    return out


def _samples_unslice(rng: np.random.Generator) -> Iterator[Sample]:
    for size, shape, starts, steps in (
        ((3,), (7,), (2,), (1,)),
        ((4,), (7,), (6,), (-2,)),
        ((4,), (8,), (0,), (2,)),
        ((1, 5), (3, 5), (1, 4), (1, -1)),
        ((4, 0), (4, 6), (0, 1), (1, 3)),
        ((), (), (), ()),
    ):
        yield Sample((draw(rng, float64, *size),), {"shape": shape, "starts": starts, "steps": steps})
    for dtype in SUPPORTED:
        yield Sample((draw(rng, dtype, 2, 33),), {"shape": (5, 70), "starts": (1, 2), "steps": (2, 2)})
    yield Sample(
        (draw(rng, float32, 3),), {"shape": (3, 3), "starts": (0,), "steps": (1,)}, ShapeError, "one slice per axis"
    )


#: The transpose of `slice`: zeros of `shape`, with `x` at the places that the slice reads.
unslice_op: OpDef = define_op(
    "unslice",
    infer=_infer_unslice,
    element=_element_unslice,
    numpy=_numpy_unslice,
    vjp=lambda ct, out, x, *, shape, starts, steps: (slice_op(ct, starts=starts, sizes=x.shape, steps=steps),),
    samples=_samples_unslice,
    exact=True,
    movement=True,
)
