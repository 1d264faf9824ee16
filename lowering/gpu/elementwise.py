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

Where an operand does not run along (a broadcast row, a shifted slice), a thread's elements lie as far
apart as there are threads, so that neighbouring threads still touch neighbouring elements. Axes that cannot be merged
are spread over the blocks; only over a short innermost axis is an element's place found by division.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jitflow.expr import INDEX, Const, Expr, Load, Select, Var, compare, const_index
from jitflow.record import walk
from jitflow.simplify import free_vars, poly_of, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu.schedule import GpuSchedule
from lowering.gpu.space import Space, addresses, elements, flat_signature, flatten, merge_axes, placed
from lowering.gpu.transpose import build_transposition, find_transposed
from lowering.loop_ir import Body, For, If, Let, Stmt, Store, statements
from lowering.signature import Signature
from lowering.trace import flat_index, unflatten_index

#: An innermost axis of fewer elements than this does not fill the threads of a block.
SHORT_AXIS = 128


def build_map(group: FusionGroup, signature: Signature, schedule: GpuSchedule) -> tuple[Signature, Body]:
    """Return the loops of a ``map`` group, and its arguments: arrays that are addressed by position are flat."""
    trial = elements(group, signature)
    space = merge_axes(group.rows, addresses(trial, group.extents))
    transposed = find_transposed(group, signature, space, trial)
    if transposed is not None:
        return signature, build_transposition(group, signature, space, transposed, schedule)
    if len(space.axes) > 1 and _is_short(space.axes[-1].extent):
        space = flatten(space)
    signature = flat_signature(signature, placed(trial, space.places))
    trial = elements(group, signature)
    *outer, inner = space.axes or (Axis(Var("p", INDEX, floor=0), const_index(1)),)
    threads, items = schedule.threads, _items(space, inner, schedule)
    vector = items > 1 and _is_vector(placed(trial, space.places), inner, items)

    def element(p: Expr) -> Body:
        """Return the statements of the element at `p` of the inner axis."""
        return placed(placed(elements(group, signature), space.places), {inner.var: p})

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
