"""Merge nested loops that walk through memory without a break into one.

Before                                      After
    kernel f(a: f32[n, m], o: f32[n, m]):       kernel f(a: f32[n * m], o: f32[n * m]):
      parallel i in n:                            vectorized i in n * m:
        vectorized j in m:                          o[i] = a[i] * 2.0
          o[i, j] = a[i, j] * 2.0

Works on a kernel whose body is one perfect nest. Two neighbouring loops i in n, j in m merge if every access moves by
m times as much for i as for j, and neither variable is used for anything else. Where something merged, the parameters
become one-dimensional (the memory is the same). Gives up on vectors, local buffers indexed by the loops, and broadcasts
along only one of two loops.
"""

from __future__ import annotations

from jitflow.dtypes import index
from jitflow.expr import INDEX, Buffer, Expr, Load, Var, as_index, const_index
from jitflow.record import children, map_children
from jitflow.simplify import (
    Poly,
    add_polys,
    depends_on,
    from_poly,
    multiply_polys,
    poly_of,
    simplify_index,
    split_linear,
)
from lowering.loop_ir import Alloc, Body, CallKernel, For, Kernel, LoopKind, Stmt, Store
from lowering.renew import with_buffers

_MERGED: dict[tuple[LoopKind, LoopKind], LoopKind] = {
    ("serial", "serial"): "serial",
    ("serial", "vectorized"): "vectorized",
    ("parallel", "serial"): "parallel",
    ("parallel", "vectorized"): "vectorized",
    ("vectorized", "vectorized"): "vectorized",
}


def collapse(kernel: Kernel) -> Kernel:
    """Return `kernel` with the loops of its nest merged where they can be."""
    loops, body = _nest(kernel.body)
    if len(loops) < 2:
        return kernel
    accesses = _Accesses(kernel.params)
    if not all(accesses.collect(s) for s in body):
        return kernel
    merged = _merge(loops, accesses)
    if len(merged) == len(loops):
        return kernel
    return _rebuild(kernel, loops, body, merged)


def flattened(kernel: Kernel) -> Kernel:
    """Return `kernel`, a perfect nest without masks, with parameters of one dimension and the same loops."""
    if all(len(b.shape) == 1 for b in kernel.params):
        return kernel
    loops, body = _nest(kernel.body)
    return _rebuild(kernel, loops, body, loops)


def _nest(body: Body) -> tuple[list[For], Body]:
    """Return the loops of a perfect nest, outermost first, and what is in the innermost."""
    loops: list[For] = []
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    return loops, body


class _Accesses:
    """The flat element numbers that the body reads and writes, and the indices it uses for anything else."""

    def __init__(self, params: tuple[Buffer, ...]) -> None:
        self.params = set(params)
        self.offsets: list[Expr] = []
        self.others: list[Expr] = []

    def collect(self, x: Stmt | Expr) -> bool:
        """Take in `x`. False if it holds something that cannot be looked through."""
        if isinstance(x, (For, Alloc, CallKernel)) or (isinstance(x, Expr) and x.type.lanes > 1):
            return False
        if isinstance(x, (Load, Store)) and x.mask is not None:
            return False
        if isinstance(x, (Load, Store)) and x.buffer in self.params:
            self.offsets.append(flat(x.buffer, x.index))
            rest = [c for c in children(x) if all(c is not i for i in x.index)]
            # A subscript that is not linear, such as one that is loaded, has its own accesses inside.
            inner = [c for i in x.index for c in _opaque(i)]
            return all(self.collect(c) for c in (*rest, *inner))
        if isinstance(x, Expr) and x.type.dtype is index:
            self.others.append(x)
            return all(self.collect(c) for c in _opaque(x))
        return all(self.collect(c) for c in children(x))


def _opaque(e: Expr) -> list[Expr]:
    """Return the parts of an index expression that are no index arithmetic."""
    found: list[Expr] = []
    stack = [e]
    while stack:
        x = stack.pop()
        for c in children(x):
            if c.type is INDEX:
                stack.append(c)
            else:
                found.append(c)
    return found


def flat(buffer: Buffer, subscripts: tuple[Expr, ...]) -> Expr:
    """Return the element number of ``buffer[subscripts]`` in memory."""
    total: Poly = {}
    step = poly_of(1)
    for i, n in zip(reversed(subscripts), reversed(buffer.shape), strict=True):
        total = add_polys(total, multiply_polys(poly_of(i), step))
        step = multiply_polys(step, poly_of(n))
    return from_poly(total)


def _merge(loops: list[For], accesses: _Accesses) -> list[For]:
    """Return the loops left when all neighbours that can be merged are; inner pairs first."""
    out = [loops[-1]]
    for outer in reversed(loops[:-1]):
        inner = out[0]
        kind = _MERGED.get((outer.kind, inner.kind))
        if kind is not None and not depends_on(inner.extent, outer.var) and _can_merge(outer, inner, accesses):
            extent = simplify_index(outer.extent * inner.extent)
            accesses.offsets = [_without(e, outer.var) for e in accesses.offsets]
            out[0] = For(inner.var, extent, inner.body, kind)
        else:
            out.insert(0, outer)
    return out


def _can_merge(outer: For, inner: For, accesses: _Accesses) -> bool:
    if any(depends_on(e, v) for e in accesses.others for v in (outer.var, inner.var)):
        return False
    for e in accesses.offsets:
        by_outer, by_inner = split_linear(e, outer.var), split_linear(e, inner.var)
        if by_outer is None or by_inner is None:
            return False
        if simplify_index(by_inner[0] * inner.extent) != by_outer[0]:
            return False
    return True


def _without(e: Expr, var: Var) -> Expr:
    """Return linear offset `e` where `var` is 0."""
    parts = split_linear(e, var)
    return e if parts is None else parts[1]


def _rebuild(kernel: Kernel, loops: list[For], body: Body, merged: list[For]) -> Kernel:
    flattened = {b: Buffer(b.name, b.dtype, (_size(b),), b.space, b.align) for b in kernel.params}
    left = {loop.var for loop in merged}
    # The inner variable of a merged pair counts for both, the outer one is gone.
    gone: dict[Var, Expr] = {loop.var: const_index(0) for loop in loops if loop.var not in left}

    def expression(e: Expr) -> Expr:
        if isinstance(e, Var):
            return gone.get(e, e)
        if isinstance(e, Load) and e.buffer in flattened:
            return Load(flattened[e.buffer], (simplify_index(expression(flat(e.buffer, e.index))),))
        return map_children(expression, e)

    def statement(s: Stmt) -> Stmt:
        if isinstance(s, Store) and s.buffer in flattened:
            where = simplify_index(expression(flat(s.buffer, s.index)))
            return Store(flattened[s.buffer], (where,), expression(s.value), None, s.stream)
        new = map_children(lambda x: expression(x) if isinstance(x, Expr) else statement(x), s)
        return with_buffers(new, flattened)

    inner: Body = tuple(map(statement, body))
    for loop in reversed(merged):
        inner = (For(loop.var, loop.extent, inner, loop.kind),)
    params = tuple(flattened[b] for b in kernel.params)
    reads = frozenset(flattened[b] for b in kernel.reads)
    aliased = frozenset(flattened[b] for b in kernel.aliased)
    return Kernel(kernel.name, params, kernel.dims, inner, reads, kernel.notes, kernel.callees, aliased)


def _size(buffer: Buffer) -> Expr:
    total: Expr = const_index(1)
    for n in buffer.shape:
        total = total * as_index(n)
    return simplify_index(total)
