"""The domain of a ``map`` group as GPU kernels see it: its axes merged where memory runs through them in one go.

Before                                   After
    i in n, j in m: out[i, j] = a[i, j]      p in n*m: out[p] = a[p]

The work at one element is traced over the group's own axes, where elements of nodes can be compared, and then moved to
the merged ones (:func:`placed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from jitflow.expr import INDEX, Binary, Buffer, Expr, Load, Var, as_index, const_index
from jitflow.record import children, map_children, walk
from jitflow.simplify import simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Body, Stmt, Store
from lowering.signature import Signature, store_outputs
from lowering.trace import Element, Emitter, flat_index, substitute_all, unflatten_index


class Space(NamedTuple):
    """A domain after merging: its axes, and the variables of the original axes as expressions of theirs."""

    axes: tuple[Axis, ...]
    places: dict[Var, Expr]

    @property
    def extents(self) -> dict[Var, Expr]:
        return {a.var: a.extent for a in self.axes}


def merge_axes(rows: tuple[Axis, ...], indices: list[Expr]) -> Space:
    """Return the axes `rows` with neighbours merged where that adds no division to `indices`."""
    axes = [a for a in rows if a.extent != const_index(1)]
    places: dict[Var, Expr] = {a.var: a.var if a in axes else const_index(0) for a in rows}
    k = len(axes) - 2
    while k >= 0:
        merged, parts = _merged(axes[k : k + 2])
        extents = {a.var: a.extent for a in (*axes, merged)}
        new = [simplify_index(substitute_all(e, parts), extents) for e in indices]
        if sum(map(_divisions, new)) <= sum(map(_divisions, indices)):
            indices = new
            places = {v: simplify_index(substitute_all(e, parts), extents) for v, e in places.items()}
            axes[k : k + 2] = [merged]
        k -= 1
    return Space(tuple(axes), places)


def flatten(space: Space) -> Space:
    """Return `space` as a single axis."""
    merged, parts = _merged(space.axes)
    extents = {**space.extents, merged.var: merged.extent}
    places = {v: simplify_index(substitute_all(e, parts), extents) for v, e in space.places.items()}
    return Space((merged,), places)


def _merged(axes: Sequence[Axis]) -> tuple[Axis, dict[Var, Expr]]:
    """Return one axis for several, and their variables as expressions of its variable."""
    total: Expr = const_index(1)
    for a in axes:
        total = simplify_index(total * a.extent)
    merged = Axis(Var("p", INDEX, floor=0), total)
    parts = unflatten_index(merged.var, [a.extent for a in axes], {merged.var: total})
    return merged, {a.var: part for a, part in zip(axes, parts, strict=True)}


def _divisions(e: Expr) -> int:
    return sum(1 for x in walk(e) if isinstance(x, Binary) and x.op in ("floordiv", "mod"))


def addresses(body: Body, extents: Mapping[Var, Expr]) -> list[Expr]:
    """Return the index expressions of `body`: the flat addresses of its accesses, and those that are data."""
    found: list[Expr] = []

    def visit(x: Any) -> None:
        if isinstance(x, (Load, Store)):
            found.append(flat_index(x.index, x.buffer.shape, extents))
            rest = [x.value] if isinstance(x, Store) else []
            rest += [i for i in x.index if any(isinstance(y, Load) for y in walk(i))]
        elif isinstance(x, Expr) and x.type is INDEX:
            found.append(simplify_index(x, extents))
            rest = []
        else:
            rest = list(children(x))
        for y in rest:
            visit(y)

    for s in body:
        visit(s)
    return found


def elements(group: FusionGroup, signature: Signature, known: Mapping[Element, Expr] | None = None) -> Body:
    """Return the statements of one point of the group's domain, with variables of their own.

    `known` are values of elements that are not to be read or computed.
    """
    emitter = Emitter(signature.values(group.extents), known)
    store_outputs(emitter, group.outputs, signature)
    return tuple(emitter.statements)


def flat_signature(signature: Signature, body: Body) -> Signature:
    """Return `signature` with arrays made one-dimensional where `body` finds their elements with fewer divisions."""
    flat: dict[Buffer, Buffer] = {}
    for s in body:
        for x in walk(s):
            if isinstance(x, (Load, Store)) and len(x.index) > 1:
                shape = x.buffer.shape
                if sum(map(_divisions, x.index)) > _divisions(flat_index(x.index, shape)):
                    size = simplify_index(prod(map(as_index, shape), start=const_index(1)))
                    flat[x.buffer] = Buffer(x.buffer.name, x.buffer.dtype, (size,), x.buffer.space, x.buffer.align)
    leaves = {n: flat.get(b, b) for n, b in signature.leaves.items()}
    return Signature(leaves, {n: flat.get(b, b) for n, b in signature.outputs.items()}, signature.checks)


def placed(body: Body, places: Mapping[Var, Expr]) -> Body:
    """Return `body` with variables replaced and its subscripts simplified."""
    return tuple(_substitute(s, places) for s in body)


def _substitute(s: Stmt, values: Mapping[Var, Expr]) -> Stmt:
    def go(x: Any) -> Any:
        return substitute_all(x, values) if isinstance(x, Expr) else map_children(go, x)

    new: Stmt = go(s)
    return new
