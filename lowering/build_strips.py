"""A group of serial reductions, or a small contraction, into loops: the vector goes across the last axis of the rows.

Each element is folded one by one in the order of `jitflow.expr.Reduce` (for contractions: one chain of Fma), a strip of
neighbouring elements at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jitflow.expr import (
    INDEX,
    Const,
    Expr,
    Var,
    compare,
    const_index,
    minimum,
)
from jitflow.simplify import free_vars, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, For, If, Stmt, Store
from lowering.nest import at_place, nest, position_on, row_position
from lowering.reduction import Accumulator, levels_of, reduce_of
from lowering.signature import Signature
from lowering.trace import Element, Emitter, substitute_all

#: Bytes across which a strip of serial reductions runs when its accumulators are registers: four of the widest
#: vectors, enough to hide an add's latency.
STRIP_BYTES = 256
#: Bytes of a strip whose accumulators lie in the first-level cache: rows are then read in runs of several pages.
WIDE_STRIP_BYTES = 16384


def build_strips(group: FusionGroup, signature: Signature) -> Body:
    """Return serial reductions, vectorized across a strip of the last row axis.

    A narrow strip has its accumulators in registers. A wide one has them in scratch, where each step over the inner
    axes costs a load and a store more, but reads its row of memory in long runs.
    """
    element: list[Element] = list(group.reductions)
    if group.contract is not None:
        element = [(group.contract, tuple(a.var for a in group.rows))]
    level = levels_of(group)
    itemsize = max(e[0].dtype.itemsize for e in element)
    width = STRIP_BYTES // itemsize
    outer = list(group.rows)
    strip: Axis | None = None
    start: Expr = const_index(0)
    last = outer.pop() if outer and outer[-1].extent != const_index(1) else None
    wide = False
    if last is None:
        width = 1
    else:
        if group.contract is None and not (isinstance(last.extent, Const) and last.extent.value <= width):
            wide, width = True, WIDE_STRIP_BYTES // itemsize
        if isinstance(last.extent, Const):
            while width > 1 and width // 2 >= last.extent.value:
                width //= 2
        count = simplify_index((last.extent + (width - 1)) // width)
        if count != const_index(1):
            strip = Axis(Var("s", INDEX, floor=0), count)
            start = strip.var * width
    partial = last is not None and simplify_index(last.extent % width) != const_index(0)

    def at_lane(body: Any) -> Stmt:
        """Return the vectorized loop over a strip of ``body(renamed, lane, inside)``; `inside`: short of its end."""
        lane = Var("l", INDEX, floor=0)
        if last is None:
            return For(lane, const_index(1), body({}, lane, None), "vectorized")
        j = simplify_index(start + lane)

        def made(inside: Expr | None) -> Body:
            return at_place(last.var.name, j, lambda place: body({last.var: place}, lane, inside))

        if wide:
            length = simplify_index(minimum(last.extent - start, width))
            return For(lane, length, made(None), "vectorized")
        inside = compare("lt", j, last.extent) if partial else None
        return For(lane, const_index(width), made(inside), "vectorized")

    known_lanes: list[tuple[Element, Accumulator]] = []
    body: list[Stmt] = []
    extents = {a.var: a.extent for a in outer}
    if strip is not None:
        extents[strip.var] = strip.extent

    def emitter_at(renamed: Mapping[Var, Expr], lane: Expr, more: Mapping[Var, Expr]) -> Emitter:
        bounds = {} if last is None else {v: last.extent for v in renamed.values() if isinstance(v, Var)}
        emitter = Emitter(signature.values({**extents, **more, **bounds}))
        for (node, at), acc in known_lanes:
            where = tuple(substitute_all(i, renamed) for i in at)
            emitter.know(node, where, emitter.let(node.op.name, acc.result(lane)))
        return emitter

    folded = {a.var for a in group.inner}
    inner_outputs = [e for e in group.outputs if any(free_vars(i) & folded for i in e[1])]
    for number in sorted({level[n] for n, _ in (*element, *inner_outputs)}):
        space = "scratch" if wide else "register"
        some = [
            (e, Accumulator(e[0], reduce_of(e), width, space, seeded=True)) for e in element if level[e[0]] == number
        ]
        for _, acc in some:
            body += [Alloc(b) for b in acc.buffers]

        def empty(renamed: Mapping[Var, Expr], lane: Expr, inside: Expr | None, some: Any = some) -> Body:
            return tuple(s for _, a in some for s in a.start(lane, const_index(0)))

        body.append(at_lane(empty))
        inner = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in group.inner]
        stores = [e for e in inner_outputs if level[e[0]] == number]

        def step(
            renamed: Mapping[Var, Expr],
            lane: Expr,
            inside: Expr | None,
            some: Any = some,
            inner: Any = inner,
            stores: Any = stores,
        ) -> Body:
            # Lanes beyond the end fold zeros that nobody looks at: cheaper than keeping their accumulators.
            emitter = emitter_at(renamed, lane, {a.var: a.extent for a in inner})
            for (node, at), acc in some:
                where = tuple(substitute_all(i, renamed) for i in at)
                _, value = emitter.reduce(node, where, [position_on(a) for a in inner], inside)
                emitter.statements.extend(acc.fold(lane, value, row_position(inner, [position_on(a) for a in inner])))
            here = {**renamed, **{a.var: position_on(b) for a, b in zip(group.inner, inner, strict=True)}}
            # The stores come first here: what they need is appended to the emitter.
            written = _guarded_stores(emitter, stores, signature, here, inside)
            return (*emitter.statements, *written)

        body += nest(inner, (at_lane(step),))
        known_lanes += some

    def finish(renamed: Mapping[Var, Expr], lane: Expr, inside: Expr | None) -> Body:
        emitter = emitter_at(renamed, lane, {})
        stores = _guarded_stores(emitter, row_outputs, signature, renamed, inside)
        return (*emitter.statements, *stores)

    row_outputs = [e for e in group.outputs if e not in inner_outputs]
    if row_outputs:
        body.append(at_lane(finish))
    return nest([*outer, strip] if strip is not None else outer, tuple(body), first="parallel")


def _guarded_stores(
    emitter: Emitter,
    outputs: Iterable[Element],
    signature: Signature,
    renamed: Mapping[Var, Expr],
    inside: Expr | None,
) -> Body:
    """Return the stores of `outputs` where `inside`; what they need goes to `emitter`, but for guarded loads."""
    values = []
    for node, at in outputs:
        where = tuple(substitute_all(i, renamed) for i in at)
        values.append((node, where, emitter.value(node, where, inside)))
    stores = tuple(
        Store(signature.outputs[node], signature.address(node, emitter.canonical(where)), value)
        for node, where, value in values
    )
    return stores if inside is None or not stores else (If(inside, stores),)
