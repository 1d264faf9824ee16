"""A fusion group into a loop nest for the CPU, by asking its nodes' element rules for values (`lowering.trace`).

``map`` groups become one nest over `rows`; the outermost loop is parallel, the innermost vectorized.

``reduce`` groups fold in *passes* over `inner`. A pass holds the reductions, and the full-size outputs, whose inputs
are there; what a later pass would have to recompute at a price is kept in a scratch row. Two forms, chosen by the
Reduce's order (`jitflow.expr.Reduce`), which they keep exactly:

- *lanes*: the inner axis is cut into `lanes` accumulators in registers, vectorized, and halved at the end;
- *strips*: the order is serial, so the vector goes across the last axis of `rows`, a strip of it at a time.

``contract`` groups whose shapes do not suit `lowering.contract` take the strip form: one chain of Fma per element.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitflow.dtypes import DType, int64
from jitflow.errors import CompilerBug
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Const,
    Expr,
    Fma,
    Load,
    Reduce,
    Var,
    as_index,
    cast,
    compare,
    const,
    const_index,
    eq,
    minimum,
    ne,
    select,
)
from jitflow.graph import Node
from jitflow.record import walk
from jitflow.simplify import free_vars, simplify_index
from jitflow.types import element_count
from lowering.fuse import COSTLY, Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, For, If, Kernel, Let, LoopKind, Stmt, Store, statements
from lowering.trace import Checks, Element, Emitter, Subscripts, Values, flat_index, substitute_all, trace

#: Bytes across which a strip of serial reductions runs when its accumulators are registers: four of the widest
#: vectors, enough to hide an add's latency.
STRIP_BYTES = 256
#: Bytes of a strip whose accumulators lie in the first-level cache: rows are then read in runs of several pages.
WIDE_STRIP_BYTES = 16384


@dataclass(frozen=True, eq=False)
class Signature:
    """The arguments of a kernel: a buffer for each leaf and each output, in order, and the status if it is fallible.

    An array whose subscripts would be quotients and remainders (a reshape lies between it and the loops) is taken as
    one-dimensional: its row-major position is linear again.
    """

    leaves: Mapping[Node, Buffer]
    outputs: Mapping[Node, Buffer]
    checks: Checks | None

    def address(self, node: Node, at: Subscripts) -> Subscripts:
        """Return where the element of `node` at subscripts `at` lies in its buffer."""
        buffer = self.leaves.get(node) or self.outputs[node]
        return at if len(buffer.shape) == len(at) else (flat_index(at, node.shape),)

    def values(self, extents: Mapping[Var, Expr]) -> Values:
        """Return what an Emitter needs to know about the kernel inside loops with `extents`."""
        return Values(self.leaves, extents, self.checks, self.address)

    @property
    def params(self) -> tuple[Buffer, ...]:
        status = () if self.checks is None else (self.checks.status,)
        return (*self.leaves.values(), *self.outputs.values(), *status)


def signature_of(group: FusionGroup, names: Mapping[Node, str]) -> Signature:
    """Return the arguments of the kernel of `group`; buffers are called as `names` calls their nodes."""

    def buffer(node: Node, indices: Iterable[Subscripts | None]) -> Buffer:
        shape = [as_index(d) for d in node.shape]
        if any(i is not None and _divides(i) and not _divides((flat_index(i, node.shape, extents),)) for i in indices):
            shape = [as_index(element_count(node.shape))]
        return Buffer(names[node], node.dtype, shape)

    extents = group.extents

    fallible = [n for n in group.members if n.op.fallible]
    checks = None
    if fallible:
        status = Buffer("status", int64, (const_index(len(fallible)),))
        checks = Checks(status, {n: slot for slot, n in enumerate(fallible)})
    leaves = {n: buffer(n, group.wanted[n]) for n in group.leaves}
    return Signature(leaves, {n: buffer(n, [at]) for n, at in group.outputs}, checks)


def _divides(index: Subscripts) -> bool:
    """Tell whether a subscript is not linear in the loops: it holds a quotient or a remainder."""
    return any(isinstance(e, Binary) and e.op in ("floordiv", "mod") for i in index for e in walk(i))


def build(group: FusionGroup, name: str, names: Mapping[Node, str]) -> Kernel:
    """Return the kernel of `group`. Its parameters are those of :func:`signature_of`, its dims those its text uses."""
    signature = signature_of(group, names)
    if group.kind == "map":
        body = _build_map(group, signature)
    elif group.kind == "contract":
        body = _build_strips(group, signature)
    else:
        lanes = max(reduce_of(e).lanes for e in group.reductions)
        body = _build_strips(group, signature) if lanes == 1 else _build_lanes(group, signature)
    return make_kernel(name, signature, body, notes_of(group, names))


def make_kernel(name: str, signature: Signature, body: Body, notes: tuple[str, ...]) -> Kernel:
    """Return a kernel with the arguments of `signature` and the dims that `body` uses, in order of their names."""
    return Kernel(
        name, signature.params, unbound_dims(body, signature.params), body, frozenset(signature.leaves.values()), notes
    )


def unbound_dims(body: Body, params: Iterable[Buffer] = ()) -> tuple[Var, ...]:
    """Return the index variables that `body` and the shapes of its buffers use and do not bind, sorted by name."""
    bound: set[Var] = set()
    used: set[Var] = set()

    def use_shape(b: Buffer) -> None:
        for d in b.shape:
            used.update(free_vars(d))

    for b in params:
        use_shape(b)
    for s in statements(body):
        for f in ("var",):
            v = getattr(s, f, None)
            if isinstance(v, Var):
                bound.add(v)
        if isinstance(s, Alloc):
            use_shape(s.buffer)
        for c in s._children():  # type: ignore[attr-defined]
            if isinstance(c, Expr):
                used.update(x for x in walk(c) if isinstance(x, Var) and x.type is INDEX)
    return tuple(sorted(used - bound, key=lambda v: (v.name, v.serial)))


def notes_of(group: FusionGroup, names: Mapping[Node, str]) -> tuple[str, ...]:
    """Return a line for each node of `group`: its text and the user's file:line."""
    lines = []
    for node in group.members:
        inputs = ", ".join(names[x] for x in node.inputs)
        site = f"  # {node.site}" if node.site else ""
        lines.append(f"{names[node]}: {node.type!r} = {node.op.name}({inputs}){site}")
    return tuple(lines)


# ---- maps


def _build_map(group: FusionGroup, signature: Signature) -> Body:
    emitter = Emitter(signature.values(group.extents))
    store_outputs(emitter, group.outputs, signature)
    return nest(group.rows, tuple(emitter.statements), first="parallel", last="vectorized")


def nest(axes: Sequence[Axis], body: Body, *, first: LoopKind = "serial", last: LoopKind = "serial") -> Body:
    """Return `body` inside loops over `axes`, the first outermost. An axis of extent 1 has no loop: its index is 0."""
    real = _real(axes)
    for number, axis in reversed(list(enumerate(real))):
        kind = last if number == len(real) - 1 and last != "serial" else first if number == 0 else "serial"
        body = (For(axis.var, axis.extent, body, kind),)
    return body


def _real(axes: Iterable[Axis]) -> list[Axis]:
    return [a for a in axes if a.extent != const_index(1)]


def _position(axis: Axis) -> Expr:
    """Return the subscript along `axis` inside :func:`nest`."""
    return axis.var if axis.extent != const_index(1) else const_index(0)


def store_outputs(emitter: Emitter, outputs: Iterable[Element], signature: Signature) -> None:
    """Append to `emitter` what computes and stores elements of the group's outputs."""
    for node, at in outputs:
        value = emitter.value(node, at)
        store_output(emitter, signature, node, at, value)


def store_output(emitter: Emitter, signature: Signature, node: Node, at: Subscripts, value: Expr) -> None:
    """Append the store of `value` as the element of an output."""
    place = signature.address(node, emitter.canonical(at))
    emitter.statements.append(Store(signature.outputs[node], place, value))


# ---- reductions


def reduce_of(element: Element) -> Reduce:
    """Return the ``Reduce`` at the root of the element rule of a reduction or contraction."""
    expr = trace(*element).expr
    if not isinstance(expr, Reduce):
        raise CompilerBug(f"{element[0]!r} is no reduction")
    return expr


def identity_of(op: str, dtype: DType) -> Const:
    """Return the value that `op` folds from."""
    if op == "add":
        return const(0, dtype)
    if op == "mul":
        return const(1, dtype)
    if op in ("and", "or"):
        return const(op == "and", dtype)
    greatest = op in ("min", "argmin")
    if dtype.is_float:
        return const(float("inf") if greatest else float("-inf"), dtype)
    if dtype.is_bool:
        return const(greatest, dtype)
    return const(dtype.max if greatest else dtype.min, dtype)


class Accumulator:
    """The running state of one reduction in `lanes` lanes: a value each, and its position for argmin/argmax."""

    def __init__(self, node: Node, reduce: Reduce, lanes: int, space: str = "register") -> None:
        self.reduce, self.lanes = reduce, lanes
        self.dtype = reduce.body.type.dtype
        self.is_arg = reduce.op in ("argmin", "argmax")
        self.value = Buffer(f"{node.op.name}_acc", self.dtype, (const_index(lanes),), space)
        self.position = Buffer(f"{node.op.name}_at", int64, (const_index(lanes),), space)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.value, self.position) if self.is_arg else (self.value,)

    def start(self, lane: Expr) -> Body:
        """Return the statements that empty `lane`. A position of -1 stands for nothing seen yet."""
        first: Stmt = Store(self.value, (lane,), identity_of(self.reduce.op, self.dtype))
        return (first, Store(self.position, (lane,), const(-1, int64))) if self.is_arg else (first,)

    def fold(self, lane: Expr, body: Expr, position: Expr) -> Body:
        """Return the statements that fold value `body`, at `position` of the reduced axes, into `lane`."""
        old = Load(self.value, (lane,))
        if not self.is_arg:
            if self.reduce.contract and isinstance(body, Binary) and self.dtype.is_float:
                return (Store(self.value, (lane,), Fma(body.a, body.b, old)),)
            return (Store(self.value, (lane,), Binary(self.reduce.op, old, body)),)
        # Positions come in increasing order, so that of two equal values the one seen stays.
        v, w = Var("best", old.type), Var("next", body.type)
        better = compare("gt" if self.reduce.op == "argmax" else "lt", w, v)
        if self.dtype.is_float:
            better = Binary("or", better, Binary("and", ne(w, w), eq(v, v)))
        at = Load(self.position, (lane,))
        take = Var("take", better.type)
        return (
            Let(v, old),
            Let(w, body),
            Let(take, Binary("or", compare("lt", at, 0), better)),
            Store(self.value, (lane,), select(take, w, v)),
            Store(self.position, (lane,), select(take, cast(position, int64), at)),
        )

    def halve(self, lane: Expr, half: int) -> Body:
        """Return the statements that fold lane + half into lane."""
        other = lane + half
        old, new = Load(self.value, (lane,)), Load(self.value, (other,))
        if not self.is_arg:
            return (Store(self.value, (lane,), Binary(self.reduce.op, old, new)),)
        return self._fold_position(lane, old, Load(self.position, (lane,)), new, Load(self.position, (other,)))

    def _fold_position(self, lane: Expr, old: Expr, old_at: Expr, new: Expr, new_at: Expr) -> Body:
        """Take (new, new_at) if it is better than (old, old_at): NaN first, then the extreme, then the lower position.

        A position of -1 is worse than everything.
        """
        v, at = Var("best", old.type), Var("best_at", old_at.type)
        w, w_at = Var("next", new.type), Var("next_at", new_at.type)
        better = compare("gt" if self.reduce.op == "argmax" else "lt", w, v)
        tie = eq(w, v)
        if self.dtype.is_float:
            new_nan, old_nan = ne(w, w), ne(v, v)
            better = Binary("or", better, Binary("and", new_nan, eq(v, v)))
            tie = Binary("or", tie, Binary("and", new_nan, old_nan))
        better = Binary("or", better, Binary("and", tie, compare("lt", w_at, at)))
        empty, present = compare("lt", at, 0), compare("ge", w_at, 0)
        take = Var("take", better.type)
        return (
            Let(v, old),
            Let(at, old_at),
            Let(w, new),
            Let(w_at, new_at),
            Let(take, Binary("and", present, Binary("or", empty, better))),
            Store(self.value, (lane,), select(take, w, v)),
            Store(self.position, (lane,), select(take, w_at, at)),
        )

    def result(self, lane: Expr) -> Expr:
        """Return the reduction's value, once everything is in `lane`."""
        return Load(self.position if self.is_arg else self.value, (lane,))


def _row_position(axes: Sequence[Axis], values: Sequence[Expr]) -> Expr:
    position: Expr = const_index(0)
    for axis, value in zip(axes, values, strict=True):
        position = position * axis.extent + value
    return simplify_index(position)


def levels_of(group: FusionGroup) -> dict[Node, int]:
    """Return for each member the first pass in which it can be computed: one more than the reductions it needs."""
    level: dict[Node, int] = {}
    reduced = {n for n, _ in group.reductions}
    for node in group.members:
        level[node] = max((level[x] + (x in reduced) for x in node.inputs if x in level), default=0)
    return level


def kept_rows(group: FusionGroup, level: Mapping[Node, int]) -> list[Element]:
    """Return the full-size elements worth keeping between passes: costly, and used by a later pass at one index."""
    inner = {a.var for a in group.inner}
    members = set(group.members)
    heavy: dict[Node, int] = {}
    reduced = {n for n, _ in group.reductions}
    kept: list[Element] = []
    for node in group.members:
        if node in reduced:
            heavy[node] = 0
            continue
        own = COSTLY if node.op.costly else 0
        heavy[node] = own + sum(heavy.get(x, 0) for x in node.inputs if x in members)
        wanted = group.wanted.get(node, ())
        if heavy[node] < COSTLY or len(wanted) != 1 or wanted[0] is None:
            continue
        mentioned = {v for i in wanted[0] for v in free_vars(i)}
        if not inner <= mentioned:
            continue
        users = [m for m in group.members if node in m.inputs]
        if any(level[m] > level[node] for m in users):
            kept.append((node, wanted[0]))
            heavy[node] = 0
    return kept


def _build_lanes(group: FusionGroup, signature: Signature) -> Body:
    level = levels_of(group)
    axis = group.inner[-1]
    kept = kept_rows(group, level) if len(group.inner) == 1 else []
    written = {n for n, _ in group.outputs}
    rows = {n: Buffer(f"{n.op.name}_row", n.dtype, (axis.extent,), "scratch") for n, _ in kept if n not in written}
    inner_outputs = [e for e in group.outputs if any(axis.var in free_vars(i) for i in e[1])]
    row_outputs = [e for e in group.outputs if e not in inner_outputs]
    passes = max([level[n] for n, _ in (*group.reductions, *inner_outputs)], default=0) + 1
    known: dict[Element, Expr] = {}
    body: list[Stmt] = [Alloc(b) for b in rows.values()]
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
    rows: Mapping[Node, Buffer],
    lanes: int,
) -> list[Stmt]:
    """Return one pass over the inner axes. `known` gains the results of `folds`."""
    axis = group.inner[-1]
    outer = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in group.inner[:-1]]
    outer_vars = dict(zip((a.var for a in group.inner[:-1]), (a.var for a in outer), strict=True))
    accumulators = [Accumulator(n, reduce_of((n, at)), lanes) for n, at in folds]

    def step(lane: Expr, k: Expr) -> Body:
        """Return the work at inner position `k` for accumulator lane `lane`."""
        at_k: dict[Var, Expr] = {axis.var: k, **outer_vars}
        inside = {**_extents(group, axis, k), **{a.var: a.extent for a in outer}}

        def moved(element: Element) -> Subscripts:
            return tuple(substitute_all(i, at_k) for i in element[1])

        emitter = Emitter(signature.values(inside), known)
        for e in seen:
            place = signature.address(e[0], emitter.canonical(moved(e))) if e[0] not in rows else (k,)
            source = Load(rows.get(e[0]) or signature.outputs[e[0]], place)
            emitter.know(e[0], moved(e), emitter.let(e[0].op.name, source))
        for e in keeps:
            emitter.statements.append(Store(rows[e[0]], (k,), emitter.value(e[0], moved(e))))
        for e in stores:
            store_output(emitter, signature, e[0], moved(e), emitter.value(e[0], moved(e)))
        for (node, at), acc in zip(folds, accumulators, strict=True):
            where = [*(_position(a) for a in outer), k]
            _, value = emitter.reduce(node, at, where)
            emitter.statements.extend(acc.fold(lane, value, _row_position([*outer, axis], where)))
        return tuple(emitter.statements)

    out: list[Stmt] = []
    if not folds:
        k = Var(axis.var.name, INDEX, floor=0)
        return [For(k, axis.extent, step(const_index(0), k), "vectorized")]
    for acc in accumulators:
        out += [Alloc(b) for b in acc.buffers]
        out.append(_over_lanes(lanes, acc.start))
    whole, rest = simplify_index(axis.extent // lanes), simplify_index(axis.extent % lanes)
    folding: list[Stmt] = []
    if whole == const_index(1):
        folding.append(_over_lanes(lanes, lambda l: step(l, l)))
    elif whole != const_index(0):
        c = Var("c", INDEX, floor=0)
        folding.append(For(c, whole, (_over_lanes(lanes, lambda l: step(l, c * lanes + l)),)))
    if rest != const_index(0):
        start = whole * lanes

        def tail(l: Expr) -> Body:
            k = simplify_index(start + l)
            return (If(compare("lt", l, rest), step(l, k)),)

        folding.append(_over_lanes(lanes, tail))
    out += nest(outer, tuple(folding))
    half = lanes // 2
    while half:
        for acc in accumulators:
            out.append(_over_lanes(half, lambda l, acc=acc, half=half: acc.halve(l, half)))
        half //= 2
    for (node, at), acc in zip(folds, accumulators, strict=True):
        result = Var(node.op.name, acc.result(const_index(0)).type)
        out.append(Let(result, acc.result(const_index(0))))
        known[node, at] = result
    return out


def _extents(group: FusionGroup, axis: Axis, k: Expr) -> dict[Var, Expr]:
    """Return the bounds of the group's axes, with `k` in the place of `axis` if it is a variable."""
    extents = {a.var: a.extent for a in group.rows}
    if isinstance(k, Var):
        extents[k] = axis.extent
    return extents


def _over_lanes(lanes: int, make: Any) -> Stmt:
    """Return a vectorized loop over `lanes` with body ``make(lane)``; no loop for a single lane."""
    lane = Var("l", INDEX, floor=0)
    return For(lane, const_index(lanes), make(lane), "vectorized")


def _build_strips(group: FusionGroup, signature: Signature) -> Body:
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
        if wide:
            length = simplify_index(minimum(last.extent - start, width))
            return For(lane, length, body({last.var: j}, lane, None), "vectorized")
        inside = compare("lt", j, last.extent) if partial else None
        return For(lane, const_index(width), body({last.var: j}, lane, inside), "vectorized")

    known_lanes: list[tuple[Element, Accumulator]] = []
    body: list[Stmt] = []
    extents = {a.var: a.extent for a in outer}
    if strip is not None:
        extents[strip.var] = strip.extent

    def emitter_at(renamed: Mapping[Var, Expr], lane: Expr, more: Mapping[Var, Expr]) -> Emitter:
        emitter = Emitter(signature.values({**extents, **more}))
        for (node, at), acc in known_lanes:
            where = tuple(substitute_all(i, renamed) for i in at)
            emitter.know(node, where, emitter.let(node.op.name, acc.result(lane)))
        return emitter

    folded = {a.var for a in group.inner}
    inner_outputs = [e for e in group.outputs if any(free_vars(i) & folded for i in e[1])]
    for number in sorted({level[n] for n, _ in (*element, *inner_outputs)}):
        space = "scratch" if wide else "register"
        some = [(e, Accumulator(e[0], reduce_of(e), width, space)) for e in element if level[e[0]] == number]
        for _, acc in some:
            body += [Alloc(b) for b in acc.buffers]
        body.append(at_lane(lambda renamed, lane, inside, some=some: tuple(s for _, a in some for s in a.start(lane))))
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
                _, value = emitter.reduce(node, where, [_position(a) for a in inner], inside)
                emitter.statements.extend(acc.fold(lane, value, _row_position(inner, [_position(a) for a in inner])))
            here = {**renamed, **{a.var: _position(b) for a, b in zip(group.inner, inner, strict=True)}}
            return (*emitter.statements, *_guarded_stores(emitter, stores, signature, here, inside))

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
