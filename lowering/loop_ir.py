"""The loop IR: kernels as immutable trees of loops, stores and scalar expressions (`jitflow.expr`).

A :class:`Kernel` has parameters (buffers in ``global`` space, then dims) and a body, a tuple of statements run in
order. A ``Let`` or ``Alloc`` is visible to the statements after it in the same body and to their bodies. A variable
is bound once in a kernel; a pass that copies a body renews its binders. A value used twice is bound by ``Let``.

Arithmetic: see `jitflow.expr`. Loops of kind ``serial`` and ``unrolled`` keep their order; the others promise that no
two iterations touch the same element unless both only read it. Loads and stores out of bounds are compiler bugs: the
interpreter raises, compiled code does not look.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, TypeAlias

from jitflow.expr import INDEX, Buffer, Expr, Var, substitute
from jitflow.record import children, map_children, record

LoopKind: TypeAlias = Literal["serial", "parallel", "vectorized", "unrolled", "block", "thread"]
LOOP_KINDS: tuple[LoopKind, ...] = ("serial", "parallel", "vectorized", "unrolled", "block", "thread")

#: How many threads share a kernel: a dim that the caller gives. What is cut into pieces may be cut by it, since no
#: result depends on how it is cut.
WORKERS = Var("workers", INDEX, floor=1)


class Stmt:
    """Base of all statements."""

    __slots__ = ("_hash",)


Body: TypeAlias = tuple[Stmt, ...]


@record
class Let(Stmt):
    """Bind `var` to `value` for the rest of the body."""

    var: Var
    value: Expr


@record
class Store(Stmt):
    """Write `value` to `buffer` at `index`; with lanes, only where `mask` is true.

    A bool is stored as one byte, 0 or 1. `stream` asks for a non-temporal store; of a vector it also says that it lies
    at a multiple of its size in memory.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr
    mask: Expr | None = None
    stream: bool = False


@record
class For(Stmt):
    """Run `body` with `var` = 0, 1, ... `extent` - 1.

    `extent` is read once, before the first iteration; zero or less means no iteration. ``parallel`` is allowed only
    as the outermost loop of a kernel; its iterations may run on any worker. ``vectorized`` becomes vector code,
    ``unrolled`` needs a constant extent. ``block`` and ``thread`` loops are spread over the GPU grid; `axis` says
    which of x, y, z they take.

    A ``serial`` loop with `poll` asks after every `poll` iterations whether the run is to be given up (a caller that
    waits for it may be interrupted). The kernel then returns at once; what it has written is undefined. Of a
    ``parallel`` loop the caller runs `poll` iterations at a time, and asks in between.
    """

    var: Var
    extent: Expr
    body: Body
    kind: LoopKind = "serial"
    axis: int = 0
    poll: Expr | None = None


@record
class While(Stmt):
    """Run `body` as long as `cond` is true, tested before each iteration."""

    cond: Expr
    body: Body


@record
class If(Stmt):
    """Run `then` if the scalar `cond` is true, else `otherwise`."""

    cond: Expr
    then: Body
    otherwise: Body = ()


@record
class Alloc(Stmt):
    """Make `buffer` available to the rest of the body; its contents are undefined.

    ``register`` and ``stack`` buffers are private to the thread, ``shared`` ones belong to the GPU block, ``scratch``
    ones lie in the worker's part of the arena and need not have a constant size.
    """

    buffer: Buffer


@record
class Barrier(Stmt):
    """Wait for every thread of the GPU block; what they wrote to shared and global memory is visible after."""


@record
class CheckIndex(Stmt):
    """Record a bad index: where `ok` is false, lower slot `slot` of the kernel's status to `position`.

    `status` is the kernel's int64 status buffer, whose slots start as the largest int64; `position` is the
    (row-major) position of the index in the user's index array. With lanes, each lane on its own.
    """

    status: Buffer
    slot: int
    ok: Expr
    position: Expr
    mask: Expr | None = None


@record
class Atomic(Stmt):
    """``buffer[index] = buffer[index] op value`` in one indivisible step. `op` is add, min or max."""

    op: str
    buffer: Buffer
    index: tuple[Expr, ...]
    value: Expr


@record
class Prefetch(Stmt):
    """Bring the cache line of an element near, which will be read soon; with `far`, no nearer than the second cache.

    A hint: it does nothing else, and the element need not exist.
    """

    buffer: Buffer
    index: tuple[Expr, ...]
    far: bool = False


@record
class CallKernel(Stmt):
    """Run a shared microkernel: `buffers[i]`, starting at flat element `offsets[i]`, and index arguments `args`.

    The callee sees each buffer as its own parameter of the same dtype whose element 0 lies at the offset.
    """

    kernel: str
    buffers: tuple[Buffer, ...]
    offsets: tuple[Expr, ...]
    args: tuple[Expr, ...]


@record
class Kernel:
    """One compiled loop nest.

    `params`: global buffers, inputs before outputs; `dims`: index variables given by the caller; `notes`: for each
    graph node it implements, a line with the node's text and the user's file:line; `callees`: microkernels that its
    body calls. The kernel never writes a buffer of `reads`. Those of `aliased` may be one memory: each element is
    then read before the same element is written, and at no other point of the loops. All others lie apart.
    """

    name: str
    params: tuple[Buffer, ...]
    dims: tuple[Var, ...]
    body: Body
    reads: frozenset[Buffer] = frozenset()
    notes: tuple[str, ...] = ()
    callees: tuple[Kernel, ...] = ()
    aliased: frozenset[Buffer] = frozenset()

    def with_body(self, body: Body) -> Kernel:
        """Return this kernel with another body (itself if it is the same object)."""
        if body is self.body:
            return self
        return Kernel(self.name, self.params, self.dims, body, self.reads, self.notes, self.callees, self.aliased)


def map_body(fn: object, body: Body) -> Body:
    """Return `body` with ``fn`` applied to each statement; a tuple result is spliced in."""
    out: list[Stmt] = []
    changed = False
    for s in body:
        new = fn(s)  # type: ignore[operator]
        changed = changed or new is not s
        if isinstance(new, tuple):
            out.extend(new)
        else:
            out.append(new)
    return tuple(out) if changed else body


def statements(body: Body) -> Iterator[Stmt]:
    """Yield every statement of `body`, parents before children."""
    stack = list(reversed(body))
    while stack:
        s = stack.pop()
        yield s
        stack.extend(c for c in reversed(children(s)) if isinstance(c, Stmt))


def binders(s: Stmt) -> tuple[Var, ...]:
    """Return the variables that `s` itself binds."""
    match s:
        case Let(var, _) | For(var, _, _, _, _):
            return (var,)
        case _:
            return ()


def replace(x: object, values: dict[Var, Expr], buffers: dict[Buffer, Buffer] | None = None) -> object:
    """Return statement or expression `x` with variables, and buffers if given, replaced."""

    def go(y: object) -> object:
        if isinstance(y, Var):
            return values.get(y, y)
        new = map_children(go, y)
        if buffers:
            b = getattr(new, "buffer", None)
            if b is not None and b in buffers:
                new = _with_buffer(new, buffers[b])
        return new

    if isinstance(x, Expr) and not buffers:
        return substitute(x, values)
    return go(x)


def _with_buffer(x: object, buffer: Buffer) -> object:
    fields = {f: getattr(x, f) for f in type(x).__record_fields__}  # type: ignore[attr-defined]
    fields["buffer"] = buffer
    return type(x)(**fields)
