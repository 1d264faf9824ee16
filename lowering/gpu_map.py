"""A ``map`` group into an elementwise GPU kernel: every thread computes a few elements of every output.

Axes that memory runs through in one go are merged first, so that most kernels see one flat range of elements:

    block b in (n*m + 1023) // 1024:
      thread t in 256:
        let q = b*256 + t
        if q*4 + 4 <= n*m:
          unrolled u in 4:              # neighbours: LLVM makes one 16-byte access of the four
            out[...] = f(a[...])
        else:
          serial u in 4:
            if q*4 + u < n*m: ...

Where an operand does not run along (a broadcast row, a transposition, a shifted slice), a thread's elements lie as far
apart as there are threads, so that neighbouring threads still touch neighbouring elements. Axes that cannot be merged
are spread over the blocks; only over a short innermost axis is an element's place found by division.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple

from jitflow.expr import INDEX, Binary, Buffer, Const, Expr, Load, Select, Var, as_index, compare, const_index
from jitflow.record import children, map_children, walk
from jitflow.simplify import free_vars, poly_of, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu_schedule import GpuSchedule
from lowering.loop_ir import Body, For, If, Let, Stmt, Store, statements
from lowering.signature import Signature, store_outputs
from lowering.trace import Emitter, flat_index, substitute_all, unflatten_index

#: An innermost axis of fewer elements than this does not fill the threads of a block.
SHORT_AXIS = 128


class Space(NamedTuple):
    """A domain after merging: its axes, and the variables of the original axes as expressions of theirs."""

    axes: tuple[Axis, ...]
    places: dict[Var, Expr]

    @property
    def extents(self) -> dict[Var, Expr]:
        return {a.var: a.extent for a in self.axes}


def build_map(group: FusionGroup, signature: Signature, schedule: GpuSchedule) -> tuple[Signature, Body]:
    """Return the loops of a ``map`` group, and its arguments: arrays that are addressed by position are flat."""
    trial = _elements(group, signature)
    space = merge_axes(group.rows, _addresses(trial, group.extents))
    if len(space.axes) > 1 and _is_short(space.axes[-1].extent):
        space = _flatten(space)
    signature = _flat_signature(signature, _placed(trial, space))
    trial = _elements(group, signature)
    *outer, inner = space.axes or (Axis(Var("p", INDEX, floor=0), const_index(1)),)
    threads, items = schedule.threads, _items(space, inner, schedule)
    vector = items > 1 and _is_vector(_placed(trial, space), inner, items)

    def element(p: Expr) -> Body:
        """Return the statements of the element at `p` of the inner axis."""
        body = _placed(_elements(group, signature), space)
        return tuple(_substitute(s, {inner.var: p}) for s in body)

    b, t = Var("b", INDEX, floor=0), Var("t", INDEX, floor=0)
    chunk = threads * items
    chunks = simplify_index((inner.extent + (chunk - 1)) // chunk)
    lets, block = _decode(b, outer, chunks)
    if vector:
        q = Var("q", INDEX, floor=0)
        first: Body = (Let(q, simplify_index(block * threads + t)),)
        last, spread = q * items + (items - 1), lambda u: q * items + u
    else:
        first = ()
        last, spread = simplify_index(block * chunk + (chunk - 1)), lambda u: block * chunk + (u * threads + t)
    body = _guarded(inner.extent, chunk, items, last, spread, element, vector)
    thread = For(t, const_index(threads), (*first, *body), "thread")
    return signature, (For(b, _blocks(outer, chunks), (*lets, thread), "block"),)


def _guarded(
    extent: Expr,
    chunk: int,
    items: int,
    last: Expr,
    spread: Callable[[Expr], Expr],
    element: Callable[[Expr], Body],
    in_step: bool,
) -> Body:
    """Return the loop over a thread's `items`; tested element by element only where the last could lie outside.

    `in_step`: the items are neighbours, so subscripts keep the form ``q*items + u``, whose alignment can be seen.
    """

    def loop(kind: Any, tested: bool) -> Body:
        if items == 1:
            u: Expr = const_index(0)
        else:
            u = Var("u", INDEX, floor=0)
        p = simplify_index(spread(u))
        let: Body = ()
        if not in_step and not isinstance(p, Var):
            let = (Let(place := Var("p", INDEX, floor=0), p),)
            p = place
        body = element(p)
        if tested:
            body = (If(compare("lt", p, extent), body),)
        body = (*let, *body)
        return (For(u, const_index(items), body, kind),) if isinstance(u, Var) else body

    if simplify_index(extent % chunk) == const_index(0):
        return loop("unrolled", False)
    if items == 1:
        return loop("serial", True)
    return (If(compare("lt", last, extent), loop("unrolled", False), loop("serial", True)),)


def _items(space: Space, inner: Axis, schedule: GpuSchedule) -> int:
    """Return how many elements a thread computes: one where there are too few to fill a GPU."""
    count: Expr = const_index(1)
    for a in space.axes:
        count = simplify_index(count * a.extent)
    few = isinstance(count, Const) and count.value < schedule.threads * schedule.items * 128
    short = isinstance(inner.extent, Const) and inner.extent.value < schedule.threads * schedule.items
    return 1 if few or short else schedule.items


def _decode(b: Expr, outer: list[Axis], chunks: Expr) -> tuple[list[Stmt], Expr]:
    """Return the Lets that place block `b` on the outer axes, and its number along the inner one."""
    if not outer:
        return [], b
    lets: list[Stmt] = []
    block = simplify_index(b % chunks)
    if not isinstance(block, Const):
        lets.append(Let(c := Var("c", INDEX, floor=0), block))
        block = c
    parts = unflatten_index(simplify_index(b // chunks), [a.extent for a in outer])
    lets += [Let(a.var, part) for a, part in zip(outer, parts, strict=True)]
    return lets, block


def _blocks(outer: list[Axis], chunks: Expr) -> Expr:
    total = chunks
    for a in outer:
        total = simplify_index(a.extent * total)
    return total


def _is_short(extent: Expr) -> bool:
    return isinstance(extent, Const) and extent.value < SHORT_AXIS


# ---- merging axes


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


def _flatten(space: Space) -> Space:
    merged, parts = _merged(space.axes)
    extents = {**space.extents, merged.var: merged.extent}
    places = {v: simplify_index(substitute_all(e, parts), extents) for v, e in space.places.items()}
    return Space((merged,), places)


def _merged(axes: Any) -> tuple[Axis, dict[Var, Expr]]:
    """Return one axis for several, and their variables as expressions of its variable."""
    total: Expr = const_index(1)
    for a in axes:
        total = simplify_index(total * a.extent)
    merged = Axis(Var("p", INDEX, floor=0), total)
    parts = unflatten_index(merged.var, [a.extent for a in axes], {merged.var: total})
    return merged, {a.var: part for a, part in zip(axes, parts, strict=True)}


def _divisions(e: Expr) -> int:
    return sum(1 for x in walk(e) if isinstance(x, Binary) and x.op in ("floordiv", "mod"))


def _addresses(body: Body, extents: Mapping[Var, Expr]) -> list[Expr]:
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


# ---- elements


def _elements(group: FusionGroup, signature: Signature) -> Body:
    """Return the statements of one point of the group's domain, with variables of their own."""
    emitter = Emitter(signature.values(group.extents))
    store_outputs(emitter, group.outputs, signature)
    return tuple(emitter.statements)


def _flat_signature(signature: Signature, body: Body) -> Signature:
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


def _placed(body: Body, space: Space) -> Body:
    return tuple(_substitute(s, space.places) for s in body)


def _substitute(s: Stmt, values: Mapping[Var, Expr]) -> Stmt:
    def go(x: Any) -> Any:
        return substitute_all(x, values) if isinstance(x, Expr) else map_children(go, x)

    new: Stmt = go(s)
    return new


def _is_vector(body: Body, inner: Axis, items: int) -> bool:
    """Tell whether all accesses that move with the inner axis do so in step, from addresses that `items` divides."""
    for s in statements(body):
        for x in walk(s):
            if isinstance(x, Select) and any(isinstance(y, Load) for y in walk(x)):
                return False
            if not isinstance(x, (Load, Store)):
                continue
            address = flat_index(x.index, x.buffer.shape)
            if inner.var not in free_vars(address):
                continue
            p = dict(poly_of(address))
            if p.pop((inner.var,), None) != 1:
                return False
            if any(inner.var in free_vars(atom) for m in p for atom in m) or any(c % items for c in p.values()):
                return False
    return True
