"""A group of reductions along the innermost axis into loops: accumulators in register lanes, halved at the end.

The inner axis is folded in *passes*. A pass holds the reductions, and the full-size outputs, whose inputs are there;
what a later pass would have to recompute at a price is kept in a row, in scratch or where an output will be. The order
is that of `jitflow.expr.Reduce`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jitflow.expr import (
    INDEX,
    Buffer,
    Expr,
    Load,
    Var,
    compare,
    const_index,
)
from jitflow.graph import Node
from jitflow.simplify import free_vars, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, For, If, Let, Stmt, Store
from lowering.nest import at_place, nest, over_lanes, position_on, row_position
from lowering.reduction import Accumulator, kept_rows, levels_of, reduce_of
from lowering.signature import Signature, store_output, store_outputs
from lowering.trace import Element, Emitter, Subscripts, flat_index, substitute_all


class _Row(NamedTuple):
    """Where a kept element lies between passes: in `buffer` at its inner position, or where output `host` will be."""

    buffer: Buffer
    host: Element | None


def _rows(
    group: FusionGroup, level: Mapping[Node, int], kept: Sequence[Element], outputs: Sequence[Element]
) -> dict[Node, _Row]:
    """Return a row for each of `kept`: the memory of an output that is written by the last pass to read it, if one is.

    Then the row costs nothing, and the memory of the output is fetched while the first pass computes.
    """
    rows: dict[Node, _Row] = {}
    written = {n for n, _ in group.outputs}
    free = list(outputs)
    for node, at in kept:
        if node in written:
            continue
        position = flat_index(at, node.shape, group.extents)
        last = last_pass(group, level, node)
        hosts = (
            e
            for e in free
            if e[0].dtype is node.dtype
            and level[e[0]] >= last
            and flat_index(e[1], e[0].shape, group.extents) == position
        )
        host = next(hosts, None)
        if host is not None:
            free.remove(host)
        axis = group.inner[-1]
        rows[node] = _Row(Buffer(f"{node.op.name}_row", node.dtype, (axis.extent,), "scratch"), host)
    return rows


def last_pass(group: FusionGroup, level: Mapping[Node, int], node: Node) -> int:
    """Return the last pass in which `node` may be read: whatever is computed from it may be computed again there."""
    reduced = {n for n, _ in group.reductions}
    reached = {node}
    last = level.get(node, 0)
    for m in group.members:
        if any(x in reached for x in m.inputs):
            last = max(last, level[m])
            if m not in reduced:
                reached.add(m)
    return last


def build_lanes(group: FusionGroup, signature: Signature) -> Body:
    """Return the loops of `group`, whose reductions fold their innermost axis."""
    level = levels_of(group)
    axis = group.inner[-1]
    kept = kept_rows(group, level) if len(group.inner) == 1 else []
    inner_outputs = [e for e in group.outputs if any(axis.var in free_vars(i) for i in e[1])]
    row_outputs = [e for e in group.outputs if e not in inner_outputs]
    rows = _rows(group, level, kept, inner_outputs)
    passes = max([level[n] for n, _ in (*group.reductions, *inner_outputs)], default=0) + 1
    known: dict[Element, Expr] = {}
    body: list[Stmt] = [Alloc(row.buffer) for row in rows.values() if row.host is None]
    for number in range(passes):
        folds = [e for e in group.reductions if level[e[0]] == number]
        stores = [e for e in inner_outputs if level[e[0]] == number]
        keeps = [e for e in kept if level[e[0]] == number and e[0] in rows]
        seen = [e for e in kept if level[e[0]] < number]
        by_lanes: dict[int, list[Element]] = {}
        for e in folds:
            by_lanes.setdefault(reduce_of(e).lanes, []).append(e)
        if not by_lanes:
            by_lanes[0] = []
        for count, (lanes, some) in enumerate(by_lanes.items()):
            body += _lanes_pass(
                group, signature, known, some, [] if count else stores, [] if count else keeps, seen, rows, lanes
            )
    emitter = Emitter(signature.values(group.extents), known)
    store_outputs(emitter, row_outputs, signature)
    body += emitter.statements
    return nest(group.rows, tuple(body), first="parallel")


def _lanes_pass(
    group: FusionGroup,
    signature: Signature,
    known: dict[Element, Expr],
    folds: Sequence[Element],
    stores: Sequence[Element],
    keeps: Sequence[Element],
    seen: Sequence[Element],
    rows: Mapping[Node, _Row],
    lanes: int,
) -> list[Stmt]:
    """Return one pass over the inner axes. `known` gains the results of `folds`."""
    axis = group.inner[-1]
    outer = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in group.inner[:-1]]
    outer_vars = dict(zip((a.var for a in group.inner[:-1]), (a.var for a in outer), strict=True))
    accumulators = [Accumulator(n, reduce_of((n, at)), lanes, seeded=True) for n, at in folds]

    def step(lane: Expr, k: Expr) -> Body:
        """Return the work at inner position `k` for accumulator lane `lane`."""
        if isinstance(k, Var):
            return work(lane, k)
        return at_place(axis.var.name, k, lambda position: work(lane, position))

    def work(lane: Expr, k: Var) -> Body:
        """Return the work at position `k` of the inner axis."""
        at_k: dict[Var, Expr] = {axis.var: k, **outer_vars}
        inside = {a.var: a.extent for a in (*group.rows, *outer)} | {k: axis.extent}

        def moved(element: Element) -> Subscripts:
            return tuple(substitute_all(i, at_k) for i in element[1])

        emitter = Emitter(signature.values(inside), known)

        def place(e: Element) -> tuple[Buffer, Subscripts]:
            """Return where `e` is kept."""
            row = rows.get(e[0])
            if row is not None and row.host is None:
                return row.buffer, (k,)
            host = e if row is None or row.host is None else row.host
            return signature.outputs[host[0]], signature.address(host[0], emitter.canonical(moved(host)))

        for e in seen:
            emitter.know(e[0], moved(e), emitter.let(e[0].op.name, Load(*place(e))))
        for e in keeps:
            emitter.statements.append(Store(*place(e), emitter.value(e[0], moved(e))))
        for e in stores:
            store_output(emitter, signature, e[0], moved(e), emitter.value(e[0], moved(e)))
        for (node, at), acc in zip(folds, accumulators, strict=True):
            where = [*(position_on(a) for a in outer), k]
            _, value = emitter.reduce(node, at, where)
            emitter.statements.extend(acc.fold(lane, value, row_position([*outer, axis], where)))
        return tuple(emitter.statements)

    out: list[Stmt] = []
    if not folds:
        k = Var(axis.var.name, INDEX, floor=0)
        return [For(k, axis.extent, step(const_index(0), k), "vectorized")]
    for acc in accumulators:
        out += [Alloc(b) for b in acc.buffers]
        out.append(over_lanes(lanes, lambda l, acc=acc: acc.start(l, l)))
    whole, rest = simplify_index(axis.extent // lanes), simplify_index(axis.extent % lanes)
    folding: list[Stmt] = []
    if whole == const_index(1):
        folding.append(over_lanes(lanes, lambda l: step(l, l)))
    elif whole != const_index(0):
        c = Var("c", INDEX, floor=0)
        folding.append(For(c, whole, (over_lanes(lanes, lambda l: step(l, c * lanes + l)),)))
    if rest != const_index(0):
        start = whole * lanes

        def tail(l: Expr) -> Body:
            k = simplify_index(start + l)
            return (If(compare("lt", l, rest), step(l, k)),)

        folding.append(over_lanes(lanes, tail))
    out += nest(outer, tuple(folding))
    half = lanes // 2
    while half:
        for acc in accumulators:
            out.append(over_lanes(half, lambda l, acc=acc, half=half: acc.halve(l, half)))
        half //= 2
    for (node, at), acc in zip(folds, accumulators, strict=True):
        result = Var(node.op.name, acc.result(const_index(0)).type)
        out.append(Let(result, acc.result(const_index(0))))
        known[node, at] = result
    return out
