"""Move what does not change inside a loop in front of it.

Before                                  After
    vectorized j in m:                      let t: f32 = s[i] * 2.0
      out[i, j] = a[i, j] * (s[i] * 2.0)    vectorized j in m:
                                              out[i, j] = a[i, j] * t

Moves ``Let``s and parts of expressions that hold a load, a call or arithmetic other than on indices (the emitter places
index arithmetic itself). A load moves only if its subscripts are proven to lie in the buffer whether or not the loop
runs, and nothing in the loop writes the buffer. Arms of an ``If`` and of a ``Select`` are left where they are.
"""

from __future__ import annotations

from jitflow.dtypes import index
from jitflow.expr import Binary, Bitcast, Buffer, Call, Cast, Const, Expr, Fma, Load, Select, Splat, Unary, Var
from jitflow.record import map_children, walk
from jitflow.simplify import Extents, is_less, is_nonnegative
from lowering.loop_ir import (
    Alloc,
    Atomic,
    Body,
    CallKernel,
    CheckIndex,
    For,
    If,
    Kernel,
    Let,
    Stmt,
    Store,
    While,
    binders,
    statements,
)


def hoist(kernel: Kernel) -> Kernel:
    """Return `kernel` with loop-invariant values moved out of its loops."""
    return kernel.with_body(_body(kernel.body, {}))


def _body(body: Body, extents: Extents) -> Body:
    out: list[Stmt] = []
    changed = False
    for s in body:
        new = _statement(s, extents)
        changed = changed or not (len(new) == 1 and new[0] is s)
        out += new
    return tuple(out) if changed else body


def _statement(s: Stmt, extents: Extents) -> Body:
    match s:
        case For(var, extent, body, kind, axis, poll):
            inner = _body(body, {**extents, var: extent})
            if kind in ("block", "thread"):
                return (s,) if inner is body else (For(var, extent, inner, kind, axis, poll),)
            moved, rest = _split(inner, var, extents)
            return (s,) if rest is body else (*moved, For(var, extent, rest, kind, axis, poll))
        case If(cond, then, otherwise):
            yes, no = _body(then, extents), _body(otherwise, extents)
            return (s,) if yes is then and no is otherwise else (If(cond, yes, no),)
        case While(cond, body):
            inner = _body(body, extents)
            return (s,) if inner is body else (While(cond, inner),)
        case _:
            return (s,)


def _split(body: Body, var: Var, extents: Extents) -> tuple[list[Stmt], Body]:
    """Return what can go in front of the loop over `var`, and the body without it."""
    inside: set[Var] = {var}
    local: set[Buffer] = set()
    for s in statements(body):
        inside.update(binders(s))
        if isinstance(s, Alloc):
            local.add(s.buffer)
    fixed = _Fixed(inside, _written(body) | local, extents)
    moved: list[Stmt] = []
    rest: list[Stmt] = []
    for s in body:
        if isinstance(s, Let) and fixed.is_movable(s.value):
            inside.discard(s.var)
            moved.append(s)
        else:
            rest.append(_pull(s, fixed, moved))
    return (moved, tuple(rest)) if moved else ([], body)


class _Fixed:
    """What is the same in every iteration of a loop."""

    def __init__(self, inside: set[Var], written: set[Buffer], extents: Extents) -> None:
        self.inside, self.written, self.extents = inside, written, extents

    def is_movable(self, e: Expr) -> bool:
        """Tell whether `e` may be computed once, in front of the loop."""
        loads = []
        for x in walk(e):
            if isinstance(x, Var):
                if x in self.inside:
                    return False
            elif isinstance(x, Load):
                if x.buffer in self.written or x.mask is not None:
                    return False
                loads.append(x)
        return all(self._is_inside(x) for x in loads)

    def _is_inside(self, e: Load) -> bool:
        return all(
            i.type.lanes == 1 and is_nonnegative(i, self.extents) and is_less(i, n, self.extents)
            for i, n in zip(e.index, e.buffer.shape, strict=True)
        )


def _written(body: Body) -> set[Buffer]:
    found: set[Buffer] = set()
    for s in statements(body):
        match s:
            case Store(buffer, _, _, _, _) | Atomic(_, buffer, _, _):
                found.add(buffer)
            case CheckIndex(status, _, _, _, _):
                found.add(status)
            case CallKernel(_, buffers, _, _):
                found.update(buffers)
            case _:
                pass
    return found


def _pull(s: Stmt, fixed: _Fixed, moved: list[Stmt]) -> Stmt:
    """Return `s` with its largest movable expressions replaced by variables bound in `moved`."""
    if isinstance(s, (For, If, While, Alloc)):
        return s
    return map_children(lambda e: _pull_expr(e, fixed, moved), s)


def _pull_expr(e: Expr, fixed: _Fixed, moved: list[Stmt]) -> Expr:
    if _is_worth_moving(e) and fixed.is_movable(e):
        known = next((s for s in moved if isinstance(s, Let) and s.value == e), None)
        if known is None:
            known = Let(Var("t", e.type), e)
            moved.append(known)
        return known.var
    if isinstance(e, Select):
        # Its arms are evaluated by choice; only the condition is evaluated always.
        cond = _pull_expr(e.cond, fixed, moved)
        return e if cond is e.cond else Select(cond, e.a, e.b)
    return map_children(lambda c: _pull_expr(c, fixed, moved), e)


def _is_worth_moving(e: Expr) -> bool:
    if e.type.dtype is index or isinstance(e, (Const, Var)):
        return False
    return isinstance(e, (Load, Call, Binary, Unary, Fma, Cast, Bitcast, Select, Splat)) and not (
        isinstance(e, Splat) and isinstance(e.a, (Const, Var))
    )
