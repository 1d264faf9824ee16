"""Bring subscripts and extents into canonical form and drop what is decided.

Before                                      After
    serial i in 4 * (n // 4 - n // 4 + 1):      serial i in 4:
      if i < 8:                                   out[i * 2 + 1] = a[i]
        out[i + i + 1] = a[i] * 1

Folds comparisons of indices that the extents of the loops around them decide, conditions and loops that are constant,
and integer arithmetic with neutral elements. Float arithmetic is left alone but for ``x * 1.0``, which is exact.
"""

from __future__ import annotations

from jitflow.dtypes import index
from jitflow.expr import (
    BOOL,
    INDEX,
    Binary,
    Compare,
    Const,
    Expr,
    Select,
    Splat,
    Unary,
    Var,
    const,
    const_index,
)
from jitflow.record import map_children
from jitflow.simplify import Extents, is_nonnegative, known_sign, simplify_index
from lowering.loop_ir import Body, For, If, Kernel, Let, Stmt, While


def simplify(kernel: Kernel) -> Kernel:
    """Return `kernel` simplified."""
    return kernel.with_body(simplify_body(kernel.body, {}, {}))


def simplify_body(body: Body, extents: Extents, values: dict[Var, Expr]) -> Body:
    """Return `body` simplified inside loops with `extents`, with `values` put in."""
    out: list[Stmt] = []
    changed = False
    for s in body:
        new = _statement(s, extents, values)
        changed = changed or not (len(new) == 1 and new[0] is s)
        out += new
    return tuple(out) if changed else body


def _statement(s: Stmt, extents: Extents, values: dict[Var, Expr]) -> Body:
    match s:
        case Let(var, value):
            new = fold(value, extents, values)
            if isinstance(new, (Const, Var)):
                values[var] = new
                return ()
            return (s,) if new is value else (Let(var, new),)
        case For(var, extent, body, kind, axis, poll):
            count = fold(extent, extents, values)
            if isinstance(count, Const) and kind in ("serial", "unrolled", "vectorized"):
                if count.value <= 0:
                    return ()
                if count.value == 1:
                    values[var] = const_index(0)
                    return simplify_body(body, extents, values)
            often = None if poll is None else fold(poll, extents, values)
            inner = simplify_body(body, {**extents, var: count}, values)
            if not inner and kind != "parallel":
                return ()
            same = inner is body and count is extent and often is poll
            return (s,) if same else (For(var, count, inner, kind, axis, often),)
        case If(cond, then, otherwise):
            test = fold(cond, extents, values)
            if isinstance(test, Const):
                return simplify_body(then if test.value else otherwise, extents, values)
            yes, no = simplify_body(then, extents, values), simplify_body(otherwise, extents, values)
            if not (yes or no):
                return ()
            return (s,) if test is cond and yes is then and no is otherwise else (If(test, yes, no),)
        case While(cond, body):
            test = fold(cond, extents, values)
            if isinstance(test, Const) and not test.value:
                return ()
            inner = simplify_body(body, extents, values)
            return (s,) if test is cond and inner is body else (While(test, inner),)
        case _:
            return (map_children(lambda e: fold(e, extents, values), s),)


def fold(e: Expr, extents: Extents, values: dict[Var, Expr]) -> Expr:
    """Return `e` with `values` put in, its index arithmetic canonical, and what is decided folded."""
    if isinstance(e, Const):
        return e
    if isinstance(e, Var):
        return values.get(e, e)
    if e.type is INDEX and isinstance(e, Binary):
        new = simplify_index(_atoms(e, extents, values), extents)
        return e if new == e else new
    new = map_children(lambda c: fold(c, extents, values), e)
    match new:
        case Compare(op, a, b) if a.type is INDEX:
            decided = decide(op, a, b, extents)
            return new if decided is None else Const(decided, BOOL)
        case Select(cond, a, b):
            known = _truth(cond)
            return new if known is None else a if known else b
        case Unary("not", Const(value, of)) if of.dtype.is_bool:
            return Const(not value, of)
        case Binary():
            return _fold_binary(new)
        case _:
            return new


def decide(op: str, a: Expr, b: Expr, extents: Extents) -> bool | None:
    """Return whether ``a op b`` holds for all indices below `extents`, or None if that is open."""
    match op:
        case "lt":
            return True if is_nonnegative(b - a - 1, extents) else False if is_nonnegative(a - b, extents) else None
        case "gt":
            return decide("lt", b, a, extents)
        case "le" | "ge":
            below = decide("lt", b, a, extents) if op == "le" else decide("lt", a, b, extents)
            return None if below is None else not below
        case _:
            sign = known_sign(a - b, extents)
            return None if sign is None else (sign == 0) == (op == "eq")


def _atoms(e: Expr, extents: Extents, values: dict[Var, Expr]) -> Expr:
    """Return index arithmetic with what it is made of folded."""
    if isinstance(e, Binary) and e.type is INDEX:
        return map_children(lambda c: _atoms(c, extents, values), e)
    return fold(e, extents, values)


def _truth(cond: Expr) -> bool | None:
    """Return the value of a condition that is the same literal in all lanes, else None."""
    if isinstance(cond, Splat):
        cond = cond.a
    return bool(cond.value) if isinstance(cond, Const) else None


def _fold_binary(e: Binary) -> Expr:
    a, b, dtype = e.a, e.b, e.type.dtype
    if dtype.is_bool and e.op in ("and", "or"):
        for one, other in ((a, b), (b, a)):
            known = _truth(one)
            if known is not None:
                decides = known == (e.op == "or")
                return const(known, e.type) if decides else other
        return a if a == b else e
    if not (isinstance(b, Const) or isinstance(a, Const)):
        return e
    if dtype.is_float:
        return a if e.op == "mul" and isinstance(b, Const) and b.value == 1 else e
    if dtype is index or dtype.is_bool:
        return e
    if isinstance(a, Const) and isinstance(b, Const) and e.op in ("add", "sub", "mul"):
        x, y = int(a.value), int(b.value)
        return const({"add": x + y, "sub": x - y, "mul": x * y}[e.op], e.type)
    if isinstance(b, Const):
        if b.value == 0 and e.op in ("add", "sub", "or", "xor", "shl", "shr"):
            return a
        if b.value == 1 and e.op in ("mul", "floordiv"):
            return a
    if isinstance(a, Const) and ((a.value == 0 and e.op == "add") or (a.value == 1 and e.op == "mul")):
        return b
    return e
