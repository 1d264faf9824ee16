"""Replace each loop of kind ``vectorized`` by vector statements.

Before                                  After (16 lanes, unroll=1, masks)
    vectorized i in n:                      serial i_o in n // 16:
      out[i] = a[i] * 2.0                     out[ramp(i_o*16, 1, 16)] = a[ramp(i_o*16, 1, 16)] * 2.0
                                            if n // 16 * 16 < n:
                                              let m = ramp(n // 16 * 16, 1, 16) < n
                                              out[ramp(...), m] = a[ramp(...), m] * 2.0

Values that do not depend on the loop variable stay scalar and are splatted where they meet a vector. A ``Let``
becomes a vector, or is written into its uses if it is a linear subscript. An inner loop is kept around its vectorized
body, with the `unroll` copies of a statement side by side in it; an ``If`` on a varying condition becomes masks; a
buffer allocated inside gets an axis of lanes. With a constant extent there is no tail test: full vectors, then one
narrower or masked vector. Where memory is what a long loop waits for, whole vectors begin at a cache line of what it
writes, and stores marked so bypass the caches if the arrays are large. Without masks in the target the tail is a
scalar loop (or vectors of 2, 4, ... lanes, if constant).

Gives up, leaving a ``serial`` loop, where the body has no vector form: an inner extent or ``While`` that depends on the
variable, an ``Atomic``, a call of a microkernel, a store to one element by all iterations, large buffers of its own.
"""

from __future__ import annotations

import itertools

from jitflow.dtypes import DType, bool_, index
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Ramp,
    Select,
    Shuffle,
    Splat,
    Unary,
    Var,
    binary,
    compare,
    const,
    const_index,
    minimum,
    select,
    type_of,
)
from jitflow.record import children, map_children, walk
from jitflow.simplify import depends_on, free_vars, simplify_index, split_linear
from lowering.loop_ir import (
    Alloc,
    Body,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    Stmt,
    Store,
    While,
    binders,
    map_body,
    statements,
)
from lowering.renew import renew
from lowering.stream import array_bytes, is_large
from lowering.target import Target

#: A constant number of vectors of a cheap body up to this is written out; more become a loop.
STRAIGHT = 16
#: Loops of so many copies, and so many vectors, are bound by memory and long enough for their stores to be aligned.
LIGHT, LONG = 4, 256
#: Vectors from which on a loop is long enough for streaming stores.
LONG_STREAM = 32
#: Bytes that the lanes of a loop's own buffers may take on the stack: half of what a kernel may.
STACK_LIMIT = 8 << 10


class _GiveUp(Exception):
    """The body has no vector form."""


class _Part:
    """One vector's worth of iterations: what variables and private buffers are in it, and which lanes are on.

    `may_be_off`: the mask may have no lane on (that of an ``If``), so a scalar load is not safe under it.
    """

    __slots__ = ("buffers", "lanes", "mask", "may_be_off", "values")

    def __init__(
        self,
        lanes: int,
        values: dict[Var, Expr],
        buffers: dict[Buffer, Buffer],
        mask: Expr | None = None,
        may_be_off: bool = False,
    ) -> None:
        self.lanes, self.values, self.buffers = lanes, values, buffers
        self.mask, self.may_be_off = mask, may_be_off

    def under(self, mask: Expr | None, may_be_off: bool) -> _Part:
        """Return this part under another mask; what is bound there is not seen here."""
        return _Part(self.lanes, dict(self.values), dict(self.buffers), mask, may_be_off)


def vectorize(kernel: Kernel, *, target: Target, lanes: int | None = None, unroll: int | None = None) -> Kernel:
    """Vectorize the loops of `kernel` for `target`; see the module docstring.

    `lanes`: of each vector (default: as many of the widest dtype in the body as fill a register); `unroll`: vectors
    per iteration of the main loop (default by the size of the body).
    """

    large = is_large(array_bytes(kernel), target)

    def statement(s: Stmt) -> Stmt | Body:
        if isinstance(s, Store) and s.stream:
            return _cached(s)
        if isinstance(s, For):
            if s.kind == "vectorized" and not any(isinstance(x, For) for x in statements(s.body)):
                loop = s
            else:
                inner = map_body(statement, s.body)
                loop = s if inner is s.body else For(s.var, s.extent, inner, s.kind, s.axis, s.poll)
            if loop.kind != "vectorized":
                return loop
            try:
                return _vectorize(loop, target, lanes, unroll, large)
            except _GiveUp:
                return For(loop.var, loop.extent, loop.body, "serial")
        if isinstance(s, (If, While)):
            return map_children(lambda x: statement(x) if isinstance(x, Stmt) else x, s)
        return s

    return kernel.with_body(map_body(statement, kernel.body))


def _vectorize(loop: For, target: Target, lanes: int | None, unroll: int | None, large: Expr | bool) -> Body:
    full = lanes or default_lanes(loop.body, target)
    copies = unroll or default_unroll(loop.body)
    extent = simplify_index(loop.extent)
    private = full * sum(_bytes(x.buffer) for x in statements(loop.body) if isinstance(x, Alloc))
    copies = max(1, min(copies, STACK_LIMIT // max(private, 1)))
    if private > STACK_LIMIT:
        raise _GiveUp
    masks = full > 1 and all(target.can_mask(d) for d in _memory_dtypes(loop.body))
    if masks:
        first = _first_store(loop)
        shortest = LONG if large is False or first is None or not _is_marked(loop, first) else LONG_STREAM
        if isinstance(extent, Const) and int(extent.value) < shortest * full:
            first = None
        if first is not None and (copies >= LIGHT or shortest < LONG):
            return _aligned(loop, first, extent, full, copies, large)
    loop = _without_streams(loop)
    if isinstance(extent, Const):
        return _constant(loop, int(extent.value), full, copies, masks)
    return _symbolic(loop, extent, full, copies, masks)


def _bytes(buffer: Buffer) -> int:
    size = buffer.dtype.itemsize
    for n in buffer.shape:
        count = simplify_index(n)
        size *= int(count.value) if isinstance(count, Const) else STACK_LIMIT
    return size


def default_lanes(body: Body, target: Target) -> int:
    """Return how many lanes of the widest dtype in `body` fill a vector register of `target`."""
    widest = max((d.itemsize for d in _dtypes(body)), default=1)
    return max(1, target.vector_bits // (8 * widest))


def default_unroll(body: Body) -> int:
    """Return how many independent vectors to work on at once: enough to hide latency, few enough for the registers."""
    cost = sum(20 if isinstance(x, Call) else 1 for s in body for x in walk(s) if isinstance(x, (Binary, Unary, Call)))
    return 4 if cost <= 16 else 2 if cost <= 80 else 1


def _dtypes(body: Body) -> list[DType]:
    """Return the dtypes that `body` computes with, subscripts and conditions aside."""
    return [
        x.type.dtype
        for s in body
        for x in walk(s)
        if isinstance(x, Expr) and x.type.dtype is not index and not x.type.dtype.is_bool
    ]


def _memory_dtypes(body: Body) -> set[DType]:
    found = {x.buffer.dtype for s in body for x in walk(s) if isinstance(x, (Load, Store))}
    return {type_of(d).dtype for d in found}


def _constant(loop: For, extent: int, full: int, copies: int, masks: bool) -> Body:
    """Vectors for an extent that is known."""
    out: list[Stmt] = []
    while full > extent > 0 and full // 2 >= extent:
        full //= 2
    whole, done = extent // full, 0
    # Where a body is so long that fewer copies of it fill the machine, a loop costs nothing and compiles faster.
    straight = STRAIGHT if copies >= 4 else copies
    if whole > straight and not _indexes_registers(loop):
        outer = Var(f"{loop.var.name}_o", INDEX, 0)
        out.append(For(outer, const_index(whole // copies), _statements(loop, outer * (full * copies), full, copies)))
        done = whole // copies * copies
    while done < whole:
        count = min(copies, whole - done)
        out += _statements(loop, const_index(done * full), full, count)
        done += count
    start, rest = whole * full, extent - whole * full
    # A wider vector, masked, would not end where a register buffer from outside ends.
    if rest and masks and not _indexes_registers(loop):
        width = 1 << (rest - 1).bit_length()
        mask = (
            None if rest == width else compare("lt", Ramp(const_index(0), 1, width), const(rest, type_of(index, width)))
        )
        out += _statements(loop, const_index(start), width, 1, mask)
        return tuple(out)
    while rest:
        width = 1 << (rest.bit_length() - 1)
        out += _statements(loop, const_index(start), width, 1)
        start, rest = start + width, rest - width
    return tuple(out)


def _symbolic(loop: For, extent: Expr, full: int, copies: int, masks: bool) -> Body:
    """A main loop of whole vectors and a tail."""
    if _indexes_registers(loop):
        raise _GiveUp
    out: list[Stmt] = []
    if not isinstance(extent, Var):
        extent = _let(out, "n", extent)
    step = full * copies
    count = _let(out, f"{loop.var.name}_whole", extent // step)
    outer = Var(f"{loop.var.name}_o", INDEX, 0)
    out.append(For(outer, count, _statements(loop, outer * step, full, copies)))
    done = _let(out, f"{loop.var.name}_done", count * step)
    if not masks:
        inner = Var(loop.var.name, INDEX, 0)
        out.append(For(inner, extent - done, renew(loop.body, {loop.var: done + inner})))
        return tuple(out)
    tail = Var(f"{loop.var.name}_t", INDEX, 0)
    start = done + tail * full if copies > 1 else done
    mask = Var("mask", type_of(bool_, full))
    body = (
        Let(mask, compare("lt", Ramp(start, 1, full), Splat(extent, full))),
        *_statements(loop, start, full, 1, mask),
    )
    if copies == 1:
        out.append(If(compare("lt", done, extent), body))
    else:
        out.append(For(tail, (extent - done + (full - 1)) // full, body))
    return tuple(out)


def _first_store(loop: For) -> Load | None:
    """Return the first element that the loop writes to an array in memory, one after the other; None if there is none.

    Of stores that do not come in whole registers the addresses do not matter.
    """
    widest = max((d.itemsize for d in _dtypes(loop.body)), default=1)
    for s in loop.body:
        if not isinstance(s, Store) or s.mask is not None or s.buffer.space != "global" or not s.index:
            continue
        if s.buffer.dtype.itemsize != widest or any(depends_on(i, loop.var) for i in s.index[:-1]):
            continue
        parts = split_linear(s.index[-1], loop.var)
        if parts is not None and parts[0] == const_index(1) and not _binds(loop, (*s.index[:-1], parts[1])):
            return Load(s.buffer, (*s.index[:-1], parts[1]))
    return None


def _binds(loop: For, subscripts: tuple[Expr, ...]) -> bool:
    """Tell whether the body of `loop` binds a variable of `subscripts`."""
    inside = {v for s in statements(loop.body) for v in binders(s)}
    return any(free_vars(i) & inside for i in subscripts)


def _is_marked(loop: For, first: Load) -> bool:
    return any(isinstance(s, Store) and s.buffer is first.buffer and s.stream for s in loop.body)


def _cached(s: Stmt, besides: Buffer | None = None) -> Stmt:
    """Return `s` with ordinary stores, but those to `besides` as they are."""
    if isinstance(s, Store):
        return Store(s.buffer, s.index, s.value, s.mask) if s.stream and s.buffer is not besides else s
    return map_children(lambda x: _cached(x, besides) if isinstance(x, Stmt) else x, s)


def _without_streams(loop: For, first: Load | None = None) -> For:
    """Return `loop` with ordinary stores, but that of `first`, which is aligned, as it is."""
    if not any(isinstance(s, Store) and s.stream for s in statements(loop.body)):
        return loop
    body = tuple(_cached(s, None if first is None else first.buffer) for s in loop.body)
    return For(loop.var, loop.extent, body, loop.kind, loop.axis, loop.poll)


def _aligned(loop: For, first: Load, extent: Expr, full: int, copies: int, large: Expr | bool) -> Body:
    """A main loop whose stores begin at cache lines; the vectors before and behind it are masked, in one loop.

    A store across two lines costs two. Inputs that lie as the output does are read in whole lines, too. Marked stores
    bypass the caches if the arrays are `large`.
    """
    out: list[Stmt] = []
    if not isinstance(extent, (Var, Const)):
        extent = _let(out, "n", extent)
    name = loop.var.name
    lead = _let(out, f"{name}_lead", minimum(Call("lead", (first,), INDEX), extent))
    step = full * copies
    count = _let(out, f"{name}_whole", (extent - lead) // step)
    cached = _without_streams(loop)
    outer = Var(f"{name}_o", INDEX, 0)
    main = _statements(cached if large is False else _without_streams(loop, first), lead + outer * step, full, copies)
    if isinstance(large, Expr) and _is_marked(loop, first):
        main = _either_way(_let(out, "large", large), main)
    out.append(For(outer, count, main))
    loop = cached
    done = _let(out, f"{name}_done", lead + count * step)
    heads = _let(out, f"{name}_heads", (lead + (full - 1)) // full)
    edge = Var(f"{name}_t", INDEX, 0)
    body: list[Stmt] = []
    is_head = compare("lt", edge, heads)
    start = _let(body, "start", select(is_head, edge * full, done + (edge - heads) * full))
    end = _let(body, "end", select(is_head, lead, extent))
    mask = Var("mask", type_of(bool_, full))
    body.append(Let(mask, compare("lt", Ramp(start, 1, full), Splat(end, full))))
    body += _statements(loop, start, full, 1, mask)
    out.append(For(edge, heads + (extent - done + (full - 1)) // full, tuple(body)))
    return tuple(out)


def _either_way(large: Var, body: Body) -> Body:
    """Return `body` with its streaming stores made only if `large`, else ordinary ones.

    The choice is in the loop, where it costs a branch that is always foretold: two loops would compile twice as long.
    """
    out: list[Stmt] = []
    for streams, group in itertools.groupby(body, lambda s: isinstance(s, Store) and s.stream):
        if not streams:
            out += map(_cached, group)
            continue
        stores = []
        for s in group:
            assert isinstance(s, Store)
            value = s.value
            if not isinstance(value, (Var, Const)):
                value = Var("value", s.value.type)
                out.append(Let(value, s.value))
            stores.append(Store(s.buffer, s.index, value, s.mask, True))
        out.append(If(large, tuple(stores), tuple(map(_cached, stores))))
    return tuple(out)


def _let(out: list[Stmt], name: str, value: Expr) -> Var:
    var = Var(name, value.type, 0 if value.type is INDEX else None)
    out.append(Let(var, value))
    return var


def _indexes_registers(loop: For) -> bool:
    """Tell whether the body reaches registers from outside by the loop variable, so that it must be written out."""
    inside = {s.buffer for s in loop.body for s in walk(s) if isinstance(s, Alloc)}
    for s in loop.body:
        for x in walk(s):
            if (
                isinstance(x, (Load, Store))
                and x.buffer.space == "register"
                and x.buffer not in inside
                and any(y is loop.var for i in x.index for y in walk(i))
            ):
                return True
    return False


def _statements(loop: For, start: Expr, lanes: int, copies: int, mask: Expr | None = None) -> Body:
    """Return the body for iterations `start` .. `start` + lanes * copies - 1."""
    if lanes == 1:
        return tuple(s for k in range(copies) for s in renew(loop.body, {loop.var: start + k}))
    parts = [_Part(lanes, {loop.var: Ramp(start + k * lanes, 1, lanes)}, {}, mask) for k in range(copies)]
    return _body(loop.body, parts)


def _body(body: Body, parts: list[_Part]) -> Body:
    out: list[Stmt] = []
    for s in body:
        out += _statement(s, parts)
    return tuple(out)


def _statement(s: Stmt, parts: list[_Part]) -> list[Stmt]:
    out: list[Stmt] = []
    match s:
        case Let(var, value):
            _bind(var, value, parts, out)
        case Store():
            out += [_store(s, p) for p in parts]
        case For(var, extent, inner, kind, axis):
            count = _uniform(extent, parts)
            copy = Var(var.name, INDEX, var.floor)
            for p in parts:
                p.values[var] = copy
            out.append(For(copy, count, _body(inner, parts), "serial" if kind == "vectorized" else kind, axis))
        case While(cond, inner):
            out.append(While(_uniform(cond, parts), _body(inner, parts)))
        case If(cond, then, otherwise):
            _branch(cond, then, otherwise, parts, out)
        case Alloc(buffer):
            if buffer.space not in ("register", "stack"):
                raise _GiveUp
            for p in parts:
                p.buffers[buffer] = Buffer(buffer.name, buffer.dtype, (*buffer.shape, p.lanes), buffer.space, 64)
                out.append(Alloc(p.buffers[buffer]))
        case CheckIndex(status, slot, ok, position, mask):
            for p in parts:
                test, where = wide(_vector(ok, p), p.lanes), wide(_vector(position, p), p.lanes)
                out.append(CheckIndex(status, slot, test, where, _mask(mask, p)))
        case _:
            raise _GiveUp
    return out


def _store(s: Store, p: _Part) -> Store:
    place, where = _place(s.buffer, s.index, p)
    if all(i.type.lanes == 1 for i in where):
        raise _GiveUp
    value, mask = wide(_vector(s.value, p), p.lanes), _mask(s.mask, p)
    if place.space == "register" and mask is not None:
        # A masked store would keep the buffer in memory. In lanes past the end, private registers hold what they like.
        if place is s.buffer or p.may_be_off or s.mask is not None:
            value = Select(mask, value, Load(place, where))
        mask = None
    return Store(place, where, value, mask, s.stream)


def _bind(var: Var, value: Expr, parts: list[_Part], out: list[Stmt]) -> None:
    first = _vector(value, parts[0])
    if first.type.lanes == 1:
        copy = Var(var.name, var.type, var.floor)
        out.append(Let(copy, first))
        for p in parts:
            p.values[var] = copy
        return
    for p in parts:
        new = _vector(value, p)
        if isinstance(new, Ramp):
            p.values[var] = new
        else:
            copy = Var(var.name, new.type, var.floor)
            out.append(Let(copy, new))
            p.values[var] = copy


def _branch(cond: Expr, then: Body, otherwise: Body, parts: list[_Part], out: list[Stmt]) -> None:
    tests = [_vector(cond, p) for p in parts]
    if tests[0].type.lanes == 1:
        arms = [_body(arm, [p.under(p.mask, p.may_be_off) for p in parts]) for arm in (then, otherwise)]
        out.append(If(tests[0], *arms))
        return
    masks = []
    for test in tests:
        var = Var("on", test.type)
        out.append(Let(var, test))
        masks.append(var)
    for body, flip in ((then, False), (otherwise, True)):
        if not body:
            continue
        inner = []
        for p, m in zip(parts, masks, strict=True):
            mask: Expr = Unary("not", m) if flip else m
            if p.mask is not None:
                mask = Binary("and", p.mask, mask)
            if not isinstance(mask, Var):
                copy = Var("on", mask.type)
                out.append(Let(copy, mask))
                mask = copy
            inner.append(p.under(mask, True))
        out += _body(body, inner)


def _mask(own: Expr | None, p: _Part) -> Expr | None:
    if own is None:
        return p.mask
    mine = wide(_vector(own, p), p.lanes)
    return mine if p.mask is None else Binary("and", p.mask, mine)


def _uniform(e: Expr, parts: list[_Part]) -> Expr:
    """Return `e` as a scalar that all parts share. Raises _GiveUp if there is none."""
    value = _vector(e, parts[0])
    if value.type.lanes > 1:
        raise _GiveUp
    return value


def wide(e: Expr, lanes: int) -> Expr:
    """Return `e` with `lanes`, splatted if it is a scalar."""
    if e.type.lanes == lanes:
        return e
    if isinstance(e, Const):
        return Const(e.value, e.of.with_lanes(lanes))
    return Splat(e, lanes)


def _place(buffer: Buffer, subscripts: tuple[Expr, ...], p: _Part) -> tuple[Buffer, tuple[Expr, ...]]:
    where = tuple(_vector(i, p) for i in subscripts)
    private = p.buffers.get(buffer)
    if private is None:
        return buffer, where
    if any(i.type.lanes > 1 for i in where):
        raise _GiveUp
    return private, (*where, Ramp(const_index(0), 1, p.lanes))


def _vector(e: Expr, p: _Part) -> Expr:
    """Return `e` for the iterations of `p`: a scalar if it is the same in all of them."""
    match e:
        case Const():
            return e
        case Var():
            return p.values.get(e, e)
        case Load(buffer, subscripts, mask):
            return _load(buffer, subscripts, mask, p)
        case Binary(op, a, b) if e.type is INDEX:
            return _index_binary(op, _vector(a, p), _vector(b, p))
        case Splat() | Ramp() | Shuffle():
            raise _GiveUp
        case Cast(a, to) if a.type is INDEX and to.is_integer and isinstance(ramp := _vector(a, p), Ramp):
            # As wide as the lanes are from the start. Both wrap around.
            return Ramp(Cast(ramp.base, to), ramp.stride, ramp.lanes)
        case Select(cond, a, b):
            c, x, y = _vector(cond, p), _vector(a, p), _vector(b, p)
            lanes = max(c.type.lanes, x.type.lanes, y.type.lanes)
            return Select(wide(c, lanes), wide(x, lanes), wide(y, lanes))
        case Call(name, args, of):
            given = [_vector(a, p) for a in args]
            lanes = max((a.type.lanes for a in given), default=1)
            return Call(name, tuple(wide(a, lanes) for a in given), of.with_lanes(lanes))
        case _:
            new = map_children(lambda c: _vector(c, p), e)
            lanes = max((c.type.lanes for c in children(new)), default=1)
            return map_children(lambda c: wide(c, lanes), new) if lanes > 1 else new


def _load(buffer: Buffer, subscripts: tuple[Expr, ...], mask: Expr | None, p: _Part) -> Expr:
    place, where = _place(buffer, subscripts, p)
    if all(i.type.lanes == 1 for i in where) and mask is None:
        if not p.may_be_off:
            return Load(place, where)
        where = (wide(where[0], p.lanes), *where[1:]) if where else where
        if not where:
            return Load(place, where)
    own = _mask(mask, p)
    if all(i.type.lanes == 1 for i in where):
        where = (wide(where[0], p.lanes), *where[1:])
    # Registers exist whatever the mask says, and plain loads of them become SSA values.
    return Load(place, where, None if place.space == "register" else own)


def _index_binary(op: str, a: Expr, b: Expr) -> Expr:
    """Return index arithmetic on scalars and vectors, a Ramp where the result is one."""
    lanes = max(a.type.lanes, b.type.lanes)
    if lanes == 1:
        return binary(op, a, b)
    x, y = _ramp(a), _ramp(b)
    if x is not None and y is not None:
        (base, stride), (base_b, stride_b) = x, y
        if op == "add":
            return _as_ramp(base + base_b, stride + stride_b, lanes)
        if op == "sub":
            return _as_ramp(base - base_b, stride - stride_b, lanes)
        if op == "mul" and stride_b == 0 and isinstance(base_b, Const):
            return _as_ramp(base * base_b, stride * int(base_b.value), lanes)
        if op == "mul" and stride == 0 and isinstance(base, Const):
            return _as_ramp(base_b * base, stride_b * int(base.value), lanes)
    return Binary(op, wide(a, lanes), wide(b, lanes))


def _ramp(e: Expr) -> tuple[Expr, int] | None:
    match e:
        case Ramp(base, stride, _):
            return base, stride
        case Splat(a, _):
            return a, 0
        case Const(value, _):
            return const_index(int(value)), 0
        case _:
            return (e, 0) if e.type.lanes == 1 else None


def _as_ramp(base: Expr, stride: int, lanes: int) -> Expr:
    return Ramp(base, stride, lanes) if stride else Splat(base, lanes)
