"""Random valid kernels: a seed in, a kernel out that verifies and runs without faults for every ``n >= 1``.

They hold loops of each CPU kind, local arrays, lets, ifs, whiles, scalars and (on demand) vectors of every supported
dtype, masked and gathering accesses, status checks, atomics and a shared microkernel. Independence of iterations is by
construction: inside a ``parallel`` or ``vectorized`` loop an output is touched only where the loop variable says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from jitflow.dtypes import ALL, DType, bool_, float32, float64, index, int32, int64
from jitflow.expr import (
    BOOL,
    INDEX,
    Binary,
    Bitcast,
    Buffer,
    Call,
    Cast,
    Compare,
    Const,
    Expr,
    Fma,
    Load,
    Ramp,
    Select,
    Shuffle,
    Splat,
    Type,
    Unary,
    Var,
    as_index,
    const,
    const_index,
    type_of,
)
from jitflow.record import record, walk
from lowering.loop_ir import (
    Alloc,
    Atomic,
    Barrier,
    Body,
    CallKernel,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    LoopKind,
    Prefetch,
    Stmt,
    Store,
    While,
)

DTYPES = ALL
_COMPARED = (*(d for d in ALL if not d.is_half), index)
LANES = (4, 8)
ROW = 8
_NAMES = ("x", "y", "i", "acc", "i_1", "row.max", "in")
_INTS = (0, 1, -1, 2, 3, 7, -5, 100)
_FLOATS = (0.0, -0.0, 1.0, -1.5, 0.1, 1e-30, 3e38, float("inf"), float("-inf"), float("nan"))


@record
class Place:
    """A buffer and per axis either the one subscript that is allowed (an Expr) or the size (an int, or None for n)."""

    buffer: Buffer
    axes: tuple[Expr | int | None, ...]  # not children: nothing walks a Place


@record
class Context:
    """What may be used at a point: index variables with their bound (None for n), values, places to read and write."""

    indices: tuple[tuple[Var, int | None], ...]
    values: tuple[Var, ...]
    readable: tuple[Place, ...]
    writable: tuple[Place, ...]


def random_kernel(seed: int, *, vectors: bool = True, calls: tuple[str, ...] = ("exp", "tanh")) -> Kernel:
    """Return the kernel of `seed`; `calls` are the vector-maths functions it may use."""
    return _Generator(random.Random(seed), vectors, calls).kernel(f"random_{seed}")


class _Generator:
    def __init__(self, rng: random.Random, vectors: bool, calls: tuple[str, ...]) -> None:
        self.rng, self.vectors, self.calls = rng, vectors, calls
        self.n = Var("n", INDEX, floor=0)
        self.status = Buffer("status", int64, [1])
        self.micro: Kernel | None = None

    def name(self) -> str:
        return self.rng.choice(_NAMES)

    # kernels and bodies

    def kernel(self, name: str) -> Kernel:
        rng = self.rng
        shapes: list[tuple[int | None, ...]] = [(None, ROW), (None,), (2 * ROW,)]
        inputs = [self.place(f"in{i}", rng.choice(DTYPES), s) for i, s in enumerate(shapes)]
        outputs = [self.place(f"out{i}", rng.choice(DTYPES), s) for i, s in enumerate(shapes[:2])]
        scratch = self.place("panel", float32, (ROW, ROW))
        if rng.random() < 0.2:
            self.micro = _micro()
        context = Context((), (), tuple(inputs + outputs), tuple(outputs))
        body: Body
        if rng.random() < 0.5:
            i = Var("i", INDEX, floor=0)
            lets: list[Stmt] = []
            for _ in range(rng.randrange(3)):
                context = self.let(context, lets)
            body = (*lets, For(i, self.n, self.body(self.owned(context, i, None), 3), "parallel"))
        else:
            body = self.body(context, 3)
        params = [p.buffer for p in (*inputs, *outputs)]
        callees: tuple[Kernel, ...] = ()
        if self.micro is not None:
            # The panel is filled before the call, so that the callee reads nothing undefined.
            i, j = Var("i", INDEX, floor=0), Var("j", INDEX, floor=0)
            params.append(scratch.buffer)
            fill = Store(scratch.buffer, (i, j), const(1.5, float32))
            call = CallKernel(
                "micro", (scratch.buffer, scratch.buffer), (const_index(0), const_index(ROW)), (const_index(3),)
            )
            before: Body = (For(i, const_index(ROW), (For(j, const_index(ROW), (fill,)),)), call)
            # A parallel loop stays the last statement, after lets only.
            if not any(isinstance(s, For) and s.kind == "parallel" for s in body):
                body, callees = (*before, *body), (self.micro,)
        notes = ("a note", "C:\\path at model.py:3") if rng.random() < 0.3 else ()
        reads = frozenset(p.buffer for p in inputs)
        return Kernel(name, (*params, self.status), (self.n,), body, reads, notes, callees)

    def place(self, name: str, dtype: DType, axes: tuple[int | None, ...]) -> Place:
        return Place(Buffer(name, dtype, [self.n if a is None else a for a in axes]), axes)

    def owned(self, c: Context, var: Var, bound: int | None) -> Context:
        """Return the context inside an independent loop: an output is reached only through its variable."""

        def own(p: Place) -> Place | None:
            for at, axis in enumerate(p.axes):
                if not isinstance(axis, Expr) and axis == bound:
                    return Place(p.buffer, (*p.axes[:at], var, *p.axes[at + 1 :]))
            return None

        written = {p.buffer for p in c.writable}
        writable = tuple(q for q in map(own, c.writable) if q is not None)
        readable = tuple(p for p in c.readable if p.buffer not in written) + writable
        return Context((*c.indices, (var, bound)), c.values, readable, writable)

    def body(self, c: Context, depth: int) -> Body:
        out: list[Stmt] = []
        for _ in range(self.rng.randint(1, 4)):
            c = self.statement(c, depth, out)
        return tuple(out)

    # statements: each appends to `out` and returns the context of what follows

    def statement(self, c: Context, depth: int, out: list[Stmt]) -> Context:
        simple: list[Callable[[Context, list[Stmt]], Context]] = [
            self.let,
            self.let,
            self.store,
            self.store,
            self.check,
        ]
        if self.vectors:
            simple += [self.store_lanes, self.store_lanes]
        nested = [self.loop, self.loop, self.branch, self.local, self.repeat]
        if depth > 0 and self.rng.random() < 0.5:
            return self.rng.choice(nested)(c, depth, out)
        return self.rng.choice(simple)(c, out)

    def let(self, c: Context, out: list[Stmt]) -> Context:
        of = type_of(self.rng.choice((*DTYPES, index)), self.rng.choice(LANES) if self.some_vector() else 1)
        var = Var(self.name(), of)
        out.append(Let(var, self.expr(c, of, 3)))
        return Context(c.indices, (*c.values, var), c.readable, c.writable)

    def store(self, c: Context, out: list[Stmt]) -> Context:
        if c.writable:
            p = self.rng.choice(c.writable)
            where = self.subscripts(c, p)
            dtype = p.buffer.dtype
            if p.buffer.space in ("global", "scratch") and self.rng.random() < 0.05:
                out.append(Prefetch(p.buffer, where, self.rng.random() < 0.5))
            if dtype in (int32, int64) and self.rng.random() < 0.2:
                out.append(
                    Atomic(self.rng.choice(("add", "min", "max")), p.buffer, where, self.expr(c, type_of(dtype), 2))
                )
            else:
                out.append(Store(p.buffer, where, self.expr(c, type_of(dtype), 3), None, self.rng.random() < 0.1))
        return c

    def store_lanes(self, c: Context, out: list[Stmt]) -> Context:
        places = [p for p in c.writable if any(axis == ROW for axis in p.axes)]
        if places:
            p, lanes = self.rng.choice(places), self.rng.choice(LANES)
            where, mask = self.lane_subscripts(c, p, lanes)
            out.append(Store(p.buffer, where, self.expr(c, type_of(p.buffer.dtype, lanes), 3), mask))
        return c

    def check(self, c: Context, out: list[Stmt]) -> Context:
        # The status is lowered by min, which does not depend on the order of iterations.
        if self.rng.random() < 0.3:
            ok, position = self.expr(c, BOOL, 2), self.expr(c, INDEX, 1)
            out.append(CheckIndex(self.status, 0, ok, position))
        return c

    def loop(self, c: Context, depth: int, out: list[Stmt]) -> Context:
        var = Var(self.name(), INDEX, floor=0)
        kinds: tuple[LoopKind, ...] = ("serial", "unrolled", "vectorized")
        kind = self.rng.choice(kinds)
        bound = ROW if kind != "serial" else self.rng.choice((None, 0, 1, 3, ROW))
        extent: Expr = self.n if bound is None else const_index(bound)
        if kind == "vectorized":
            inside = self.owned(c, var, bound)
        else:
            inside = Context((*c.indices, (var, bound)), c.values, c.readable, c.writable)
        out.append(For(var, extent, self.body(inside, depth - 1), kind))
        return c

    def branch(self, c: Context, depth: int, out: list[Stmt]) -> Context:
        cond = self.expr(c, BOOL, 2)
        otherwise = self.body(c, depth - 1) if self.rng.random() < 0.5 else ()
        out.append(If(cond, self.body(c, depth - 1), otherwise))
        return c

    def local(self, c: Context, depth: int, out: list[Stmt]) -> Context:
        """A local array: made, filled, then one more place to read and write."""
        b = Buffer(self.name(), self.rng.choice(DTYPES), [ROW], self.rng.choice(("stack", "register", "scratch")), 64)
        var = Var(self.name(), INDEX, floor=0)
        inside = Context((*c.indices, (var, ROW)), c.values, c.readable, ())
        fill = Store(b, (var,), self.expr(inside, type_of(b.dtype), 2))
        out += [Alloc(b), For(var, const_index(ROW), (fill,))]
        p = Place(b, (ROW,))
        return Context(c.indices, c.values, (*c.readable, p), (*c.writable, p))

    def repeat(self, c: Context, depth: int, out: list[Stmt]) -> Context:
        """A while loop that counts in memory."""
        counter = Buffer("count", int64, [1], "stack")
        zero, one = (const_index(0),), const(1, int64)
        step = Store(counter, zero, Binary("add", Load(counter, zero), one))
        cond = Compare("lt", Load(counter, zero), const(self.rng.randrange(3), int64))
        out += [Alloc(counter), Store(counter, zero, const(0, int64)), While(cond, (*self.body(c, depth - 1), step))]
        return c

    # subscripts

    def size(self, axis: int | None) -> Expr:
        return self.n if axis is None else const_index(axis)

    def subscript(self, c: Context, axis: Expr | int | None) -> Expr:
        """Return an index that is within the axis."""
        if isinstance(axis, Expr):
            return axis
        inside = [
            v for v, bound in c.indices if bound == axis or (bound is not None and axis is not None and bound <= axis)
        ]
        if inside and self.rng.random() < 0.6:
            return self.rng.choice(inside)
        if self.rng.random() < 0.5:
            return const_index(0 if axis is None else self.rng.randrange(axis))
        return Binary("mod", self.expr(c, INDEX, 1), self.size(axis))

    def subscripts(self, c: Context, p: Place) -> tuple[Expr, ...]:
        return tuple(self.subscript(c, axis) for axis in p.axes)

    def lane_subscripts(self, c: Context, p: Place, lanes: int) -> tuple[tuple[Expr, ...], Expr | None]:
        """Return subscripts with lanes along one free axis of `p`, and perhaps a mask."""
        at = self.rng.choice([i for i, axis in enumerate(p.axes) if not isinstance(axis, Expr)])
        axis = p.axes[at]
        assert not isinstance(axis, Expr)
        mask: Expr | None = None
        lane: Expr
        if axis is None:
            base = self.subscript(c, None)
            lane = Ramp(base, 1, lanes)
            mask = Compare("lt", lane, Splat(self.n, lanes))
        elif self.rng.random() < 0.6:
            lane = Ramp(const_index(self.rng.randint(0, axis - lanes)), 1, lanes)
        elif self.rng.random() < 0.5:
            lane = Ramp(const_index(lanes - 1), -1, lanes)
        else:
            lane = Binary("mod", self.expr(c, type_of(index, lanes), 1), Splat(const_index(axis), lanes))
        if mask is None and self.rng.random() < 0.4:
            mask = self.expr(c, type_of(bool_, lanes), 1)
        where = [self.subscript(c, other) for other in p.axes]
        where[at] = lane
        return tuple(where), mask

    # expressions

    def some_vector(self) -> bool:
        return self.vectors and self.rng.random() < 0.3

    def expr(self, c: Context, of: Type, depth: int) -> Expr:
        """Return a random expression of type `of`."""
        rng = self.rng
        if depth <= 0 or rng.random() < 0.15:
            return self.leaf(c, of)
        makers = [self.arithmetic, self.arithmetic, self.load, self.load, self.select, self.cast]
        if of.lanes > 1:
            makers.append(self.rearranged)
        elif self.vectors:
            makers.append(self.extracted)
        return rng.choice(makers)(c, of, depth - 1)

    def leaf(self, c: Context, of: Type) -> Expr:
        rng = self.rng
        found = [v for v in (*c.values, *(v for v, _ in c.indices), self.n) if v.type is of]
        if found and rng.random() < 0.7:
            return rng.choice(found)
        if of.lanes > 1 and rng.random() < 0.6:
            scalar = of.with_lanes(1)
            if of.dtype is index and rng.random() < 0.5:
                return Ramp(self.leaf(c, scalar), rng.choice((-1, 1, 2)), of.lanes)
            return Splat(self.leaf(c, scalar), of.lanes)
        if of.dtype.is_float:
            return const(rng.choice(_FLOATS), of)
        if of.dtype.is_bool:
            return Const(rng.random() < 0.5, of)
        return const(rng.choice(_INTS), of) if of is not INDEX else const_index(rng.choice(_INTS))

    def arithmetic(self, c: Context, of: Type, depth: int) -> Expr:
        rng, dtype = self.rng, of.dtype

        def operand() -> Expr:
            return self.expr(c, of, depth)

        if dtype.is_bool:
            choice = rng.randrange(3)
            if choice == 0:
                operands = type_of(rng.choice(_COMPARED), of.lanes)
                return Compare(rng.choice(Compare.OPS), self.expr(c, operands, depth), self.expr(c, operands, depth))
            return (
                Unary("not", operand())
                if choice == 1
                else Binary(rng.choice(("and", "or", "xor")), operand(), operand())
            )
        if dtype is index:
            # Products stay small, so that no index leaves 64 bits.
            op = rng.choice(("add", "sub", "min", "max", "floordiv", "mod"))
            if op not in ("floordiv", "mod"):
                return Binary(op, operand(), operand())
            # Index rules may take a divisor that is no literal for positive, as every dim and extent in use is.
            divisor = rng.choice((self.n, const_index(rng.randint(1, 9)), Binary("max", self.n, const_index(3))))
            return Binary(op, operand(), divisor if of.lanes == 1 else Splat(divisor, of.lanes))
        if dtype.is_half:
            return Cast(self.arithmetic(c, of.with_dtype(float32), depth), dtype)
        if dtype.is_float:
            choice = rng.randrange(6)
            if choice == 0:
                return Fma(operand(), operand(), operand())
            if choice == 1 and self.calls:
                return Call(rng.choice(self.calls), (operand(),), of)
            if choice == 2:
                return Unary(rng.choice(("neg", "abs", "sqrt", "floor", "ceil", "trunc", "round")), operand())
            return Binary(rng.choice(("add", "sub", "mul", "div", "min", "max")), operand(), operand())
        if rng.random() < 0.2:
            return Unary(rng.choice(("neg", "not", "abs")), operand())
        ops = ("add", "sub", "mul", "floordiv", "mod", "min", "max", "and", "or", "xor", "shl", "shr")
        return Binary(rng.choice(ops), operand(), operand())

    def load(self, c: Context, of: Type, depth: int) -> Expr:
        places = [p for p in c.readable if p.buffer.dtype is of.dtype]
        if of.lanes > 1:
            places = [p for p in places if any(not isinstance(axis, Expr) for axis in p.axes)]
        if not places:
            return self.arithmetic(c, of, depth)
        p = self.rng.choice(places)
        if of.lanes == 1:
            return Load(p.buffer, self.subscripts(c, p))
        return Load(p.buffer, *self.lane_subscripts(c, p, of.lanes))

    def select(self, c: Context, of: Type, depth: int) -> Expr:
        lanes = of.lanes if self.rng.random() < 0.8 else 1
        cond = self.expr(c, type_of(bool_, lanes), depth)
        a, b = self.expr(c, of, depth), self.expr(c, of, depth)
        if lanes > 1 and any(_shuffles_loads(x) for arm in (a, b) for x in walk(arm)):
            a, b = self.leaf(c, of), self.leaf(c, of)
        return Select(cond, a, b)

    def cast(self, c: Context, of: Type, depth: int) -> Expr:
        rng = self.rng
        twin = {float32: int32, int32: float32, float64: int64, int64: float64}.get(of.dtype)
        if twin is not None and rng.random() < 0.2:
            if of.dtype.is_float:
                return Bitcast(self.expr(c, of.with_dtype(twin), depth), of.dtype)
            # The bits of a computed NaN are nobody's promise, so the float comes from an integer.
            return Bitcast(Cast(self.expr(c, of, depth), twin), of.dtype)
        # An index made from anything but a small integer could leave 64 bits in later sums.
        source = bool_ if of.dtype is index else rng.choice([d for d in DTYPES if d is not of.dtype])
        return Cast(self.expr(c, of.with_dtype(source), depth), of.dtype)

    def rearranged(self, c: Context, of: Type, depth: int) -> Expr:
        source = self.rng.choice(LANES)
        if self.rng.random() < 0.5:
            lanes = tuple(self.rng.randrange(2 * source) for _ in range(of.lanes))
            a, b = (self.expr(c, of.with_lanes(source), depth) for _ in range(2))
            return Shuffle(a, lanes, b)
        lanes = tuple(self.rng.randrange(source) for _ in range(of.lanes))
        return Shuffle(self.expr(c, of.with_lanes(source), depth), lanes)

    def extracted(self, c: Context, of: Type, depth: int) -> Expr:
        lanes = self.rng.choice(LANES)
        if of is BOOL and self.rng.random() < 0.5:
            return Call(self.rng.choice(("any", "all")), (self.expr(c, of.with_lanes(lanes), depth),), BOOL)
        return Shuffle(self.expr(c, of.with_lanes(lanes), depth), (self.rng.randrange(lanes),))


def _shuffles_loads(e: Expr) -> bool:
    return isinstance(e, (Shuffle, Call)) and any(isinstance(x, Load) for x in walk(e))


def _micro() -> Kernel:
    """Return a microkernel: it adds `count` rows of `a` into the row `b`."""
    count = Var("count", INDEX, floor=0)
    a, b = Buffer("a", float32, [count, ROW]), Buffer("b", float32, [ROW])
    k, j = Var("k", INDEX, floor=0), Var("j", INDEX, floor=0)
    total = Binary("add", Load(b, (j,)), Load(a, (k, j)))
    body = (For(k, count, (For(j, const_index(ROW), (Store(b, (j,), total),), "unrolled"),)),)
    return Kernel("micro", (a, b), (count,), body)


def random_gpu_kernel(seed: int) -> Kernel:
    """Return a kernel of blocks of 64 threads that pass values on by shared memory, barriers and shuffles."""
    rng = random.Random(seed)
    n = Var("n", INDEX, floor=0)
    a, out = Buffer("a", float32, [n]), Buffer("out", float32, [n])
    b, t = Var("b", INDEX, floor=0), Var("t", INDEX, floor=0)
    i = Var("i", INDEX)
    threads = 64
    shared = Buffer("tile", float32, [threads], "shared")
    x: Expr = Var("x", type_of(float32))
    load = Select(Compare("lt", i, n), Load(a, (i,)), const(0.5, float32))
    assert isinstance(x, Var)
    body: list[Stmt] = [Let(i, b * threads + t), Let(x, load)]
    value: Expr = x
    for step in range(rng.randint(1, 4)):
        y = Var(f"x{step}", type_of(float32))
        if rng.random() < 0.5:
            name, by = rng.choice((("shfl_down", 1), ("shfl_xor", 8), ("shfl_idx", 5), ("shfl_up", 3)))
            body.append(Let(y, value + Call(name, (value, const_index(by)), type_of(float32))))
        else:
            other = Binary("mod", t + rng.randrange(threads), as_index(threads))
            body += [Store(shared, (t,), value), Barrier(), Let(y, value - Load(shared, (other,))), Barrier()]
        value = y
    body.append(If(Compare("lt", i, n), (Store(out, (i,), value),)))
    threads_loop = For(t, const_index(threads), tuple(body), "thread")
    blocks = For(b, (n + (threads - 1)) // threads, (Alloc(shared), threads_loop), "block")
    return Kernel(f"gpu_{seed}", (a, out), (n,), (blocks,), frozenset({a}))
