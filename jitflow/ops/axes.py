"""Axes, subscripts and shapes: what users give into what rules work with. Shared by all operators that have axes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from jitflow.errors import DeviceError, DTypeError, OutOfBoundsError, ShapeError, StaticIndexError
from jitflow.expr import Expr, Var, as_index
from jitflow.graph import Node, Operand, as_node, located
from jitflow.simplify import evaluate_index
from jitflow.types import Shape, as_shape, shape_text

#: What users give for the axes of a reduction: one, several, or (None) all.
Axis: TypeAlias = "int | tuple[int, ...] | None"
#: The values of symbolic dims in one run, as numpy rules get them.
Dims: TypeAlias = Mapping[Var, int]


def normalize_axis(axis: int, rank: int, what: str) -> int:
    """Return `axis`, counted from the end if negative, as one of 0 .. `rank` - 1; StaticIndexError outside."""
    try:
        k = operator.index(axis)
    except TypeError:
        raise located(DTypeError(f"{what}: axis must be an int, got {axis!r}")) from None
    if not -rank <= k < rank:
        raise located(StaticIndexError(f"{what}: axis {k} is out of range for rank {rank}"))
    return k + rank if k < 0 else k


def normalize_axes(axis: int | Sequence[int] | None, rank: int, what: str) -> tuple[int, ...]:
    """Return `axis` (None: all of them) as distinct non-negative axes in the order given."""
    if axis is None:
        return tuple(range(rank))
    items = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normalize_axis(a, rank, what) for a in items)
    if len(set(axes)) != len(axes):
        raise located(ShapeError(f"{what}: axes {tuple(items)} name an axis twice (rank {rank})"))
    return axes


def check_axis(what: str, axis: int, shape: Shape) -> None:
    """Raise ShapeError unless `axis` is one of 0 .. rank - 1 of `shape`."""
    if not 0 <= axis < len(shape):
        raise ShapeError(f"{what}: axis {axis} is out of range for {shape_text(shape)}")


def check_matrices(what: str, shape: Shape) -> None:
    """Raise ShapeError unless a tensor of `shape` has the two axes of a matrix."""
    if len(shape) < 2:
        raise ShapeError(f"{what}: at least two axes are needed, got {shape_text(shape)}")


def as_matrices(x: Operand, what: str) -> Node:
    """Return `x` as a node of two axes or more; ShapeError for fewer."""
    node = as_node(x)
    try:
        check_matrices(what, node.shape)
    except ShapeError as error:
        raise located(error) from None
    return node


def as_int(x: Any, what: str) -> int:
    """Return `x`, one of the integers that numpy takes for one, as a Python int; DTypeError says `what` needs it."""
    if not isinstance(x, (bool, np.bool_)):
        try:
            return operator.index(x)
        except TypeError:
            pass
    raise located(DTypeError(f"{what} must be an int, got {x!r}"))


def as_number(x: Any, what: str) -> float:
    """Return `x`, a number of Python's or numpy's, as a float; DTypeError says `what` needs one."""
    if not isinstance(x, (int, float, np.integer, np.floating)):
        raise located(DTypeError(f"{what} must be a number, got {x!r}"))
    try:
        return float(x)
    except OverflowError:
        raise located(OutOfBoundsError(f"{what} is out of bounds for a float")) from None


def as_flag(x: Any, what: str) -> bool:
    """Return `x`, which must be True or False (or 1 or 0), as a bool; DTypeError says `what` needs it."""
    if isinstance(x, (bool, np.bool_)) or (isinstance(x, (int, np.integer)) and x in (0, 1)):
        return bool(x)
    raise located(DTypeError(f"{what} must be True or False, got {x!r}"))


#: Where tensors are, in the standard's words: the session that runs a graph chooses the device, no tensor does.
DEVICE = "session"


def check_device(device: Any, what: str) -> None:
    """Raise DeviceError unless `device` is None or the one device there is, `DEVICE`."""
    if device is not None and not (isinstance(device, str) and device == DEVICE):
        advice = "the device is chosen for a whole graph, as in jf.Session(fetches, device='cpu')"
        raise located(DeviceError(f"{what}: a tensor cannot be on device {device!r}; {advice}"))


def row_major(subscripts: Sequence[Expr], shape: Shape) -> Expr:
    """Return the position of `subscripts` in an array of `shape` whose last axis varies fastest."""
    position: Expr = as_index(0)
    for i, d in zip(subscripts, shape, strict=True):
        position = position * as_index(d) + i
    return position


def known_shape(shape: Shape, dims: Dims) -> tuple[int, ...]:
    """Return `shape` for given values of the symbolic dims."""
    return tuple(d if isinstance(d, int) else evaluate_index(d, dims) for d in shape)


def checked_shape(shape: Any) -> Shape:
    """Return a shape as users give it; errors carry their line."""
    try:
        return as_shape(shape)
    except ShapeError as error:
        raise located(error) from None
