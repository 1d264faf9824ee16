"""Copies of statements: a body in, the same body with variables replaced and every binder new out.

A variable is bound once in a kernel, so a pass that writes a body twice must renew what the second copy binds.
"""

from __future__ import annotations

from jitflow.expr import INDEX, Binary, Buffer, Expr, Load, Var, binary, substitute
from jitflow.record import map_children
from lowering.loop_ir import Alloc, Atomic, Body, CallKernel, CheckIndex, For, Let, Stmt, Store


def renew(body: Body, values: dict[Var, Expr], buffers: dict[Buffer, Buffer] | None = None) -> Body:
    """Return a copy of `body` in which `values` and `buffers` are replaced and all binders and allocations are new."""
    known, places = dict(values), dict(buffers or {})

    def expression(e: Expr) -> Expr:
        if not places:
            return substitute(e, known)
        if isinstance(e, Var):
            return known.get(e, e)
        new = map_children(expression, e)
        if isinstance(new, Load) and new.buffer in places:
            return Load(places[new.buffer], new.index, new.mask)
        if new is not e and isinstance(new, Binary) and new.type is INDEX:
            return binary(new.op, new.a, new.b)
        return new

    def statement(s: Stmt) -> Stmt:
        match s:
            case Let(var, value):
                new_value = expression(value)
                known[var] = copy = Var(var.name, var.type, var.floor)
                return Let(copy, new_value)
            case For(var, extent, inner, kind, axis, poll):
                new_extent = expression(extent)
                new_poll = None if poll is None else expression(poll)
                known[var] = copy = Var(var.name, var.type, var.floor)
                return For(copy, new_extent, tuple(map(statement, inner)), kind, axis, new_poll)
            case Alloc(buffer):
                shape = tuple(expression(n) if isinstance(n, Expr) else n for n in buffer.shape)
                places[buffer] = Buffer(buffer.name, buffer.dtype, shape, buffer.space, buffer.align)
                return Alloc(places[buffer])
            case _:
                new = map_children(lambda x: expression(x) if isinstance(x, Expr) else statement(x), s)
                return with_buffers(new, places)

    return tuple(map(statement, body))


def with_buffers(s: Stmt, places: dict[Buffer, Buffer]) -> Stmt:
    """Return statement `s` with the buffers that it names itself replaced."""
    match s:
        case Store(buffer, index, value, mask, stream) if buffer in places:
            return Store(places[buffer], index, value, mask, stream)
        case Atomic(op, buffer, index, value) if buffer in places:
            return Atomic(op, places[buffer], index, value)
        case CheckIndex(status, slot, ok, position, mask) if status in places:
            return CheckIndex(places[status], slot, ok, position, mask)
        case CallKernel(kernel, buffers, offsets, args) if any(b in places for b in buffers):
            return CallKernel(kernel, tuple(places.get(b, b) for b in buffers), offsets, args)
        case _:
            return s
