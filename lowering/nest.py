"""Axes and a body into loops; positions along axes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jitflow.expr import (
    INDEX,
    Binary,
    Expr,
    Var,
    const_index,
)
from jitflow.record import map_children
from jitflow.simplify import simplify_index
from lowering.fuse import Axis
from lowering.loop_ir import Body, For, LoopKind, Stmt
from lowering.renew import renew


def nest(axes: Sequence[Axis], body: Body, *, first: LoopKind = "serial", last: LoopKind = "serial") -> Body:
    """Return `body` inside loops over `axes`, the first outermost. An axis of extent 1 has no loop: its index is 0."""
    real = real_axes(axes)
    for number, axis in reversed(list(enumerate(real))):
        kind = last if number == len(real) - 1 and last != "serial" else first if number == 0 else "serial"
        body = (For(axis.var, axis.extent, body, kind),)
    return body


def real_axes(axes: Iterable[Axis]) -> list[Axis]:
    """Return the axes that get a loop."""
    return [a for a in axes if a.extent != const_index(1)]


def position_on(axis: Axis) -> Expr:
    """Return the subscript along `axis` inside :func:`nest`."""
    return axis.var if axis.extent != const_index(1) else const_index(0)


def row_position(axes: Sequence[Axis], values: Sequence[Expr]) -> Expr:
    """Return the row-major position of subscripts `values` along `axes`."""
    position: Expr = const_index(0)
    for axis, value in zip(axes, values, strict=True):
        position = position * axis.extent + value
    return simplify_index(position)


def at_place(name: str, place: Expr, make: Callable[[Var], Body]) -> Body:
    """Return ``make(place)``, built with a variable instead.

    A variable has the bounds that `make` knows of, those of its axis, which `place` (``c*64 + l``) does not show; by
    them the simplifier knows rows to be the same.
    """
    var = Var(name, INDEX, floor=0)
    return tuple(_simplified(s) for s in renew(make(var), {var: place}))


def _simplified(x: Any) -> Any:
    return simplify_index(x) if isinstance(x, Binary) and x.type is INDEX else map_children(_simplified, x)


def over_lanes(lanes: int, make: Any) -> Stmt:
    """Return a vectorized loop over `lanes` with body ``make(lane)``; no loop for a single lane."""
    lane = Var("l", INDEX, floor=0)
    return For(lane, const_index(lanes), make(lane), "vectorized")
