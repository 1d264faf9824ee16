"""Split a loop where a condition on its variable changes, so that the condition is constant in each part.

Before                                              After
    vectorized j in n + m:                              vectorized j in n:
      o[j] = select(j < n, a[j], b[j - n])                o[j] = a[j]
                                                        vectorized j in m:
                                                          o[j + n] = b[j]

Looks at the conditions of ``If``s and of ``Select``s that guard loads: comparisons of indices that are linear in the
variable, with a literal factor. A condition that also uses variables of loops inside is constant for all of them up to
one breakpoint and from another one on; in between it stays. A ``parallel`` loop cannot be split: its body is written
once per part, behind an ``If``.

Gives up on what is not linear, on unrolled loops, on short vectorized loops (masks are cheaper there), on loops over
registers, and when the copies would grow past `max_nodes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from jitflow.expr import (
    BOOL,
    INDEX,
    Binary,
    Compare,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    compare,
    const,
    const_index,
    maximum,
    minimum,
)
from jitflow.record import children, map_children, record, walk
from jitflow.simplify import Extents, Poly, from_poly, is_nonnegative, poly_of, simplify_index
from lowering.loop_ir import Body, For, If, Kernel, Let, Stmt, Store, While, statements
from lowering.passes.simplify import simplify_body
from lowering.renew import renew

#: A vectorized loop up to this constant extent is a few vectors; masks in them cost less than another tail.
SHORT = 256

#: A loop of up to so many turns, as over a window, stays whole where only the run could say which turns are clean, if
#: a loop over rows inside is split by the same condition: windows of an image of any size would be fifty loops.
FEW = 16


def partition(kernel: Kernel, *, max_nodes: int = 4000) -> Kernel:
    """Return `kernel` with loops split at the breakpoints of their conditions, up to `max_nodes` nodes of code."""
    return kernel.with_body(_Partition(max_nodes).body(kernel.body, {}))


@record
class _Cut:
    """Where condition `cond` of a loop changes: it is `before` below `first`, the opposite from `second` on.

    Both may lie outside the loop.
    """

    cond: Expr
    first: Expr
    second: Expr
    before: bool

    @property
    def is_clean(self) -> bool:
        return self.first == self.second

    @property
    def is_known(self) -> bool:
        return isinstance(self.first, Const) and isinstance(self.second, Const)


class _Partition:
    """Splits loops as long as the code stays below a size."""

    def __init__(self, max_nodes: int) -> None:
        self.left = max_nodes

    def body(self, body: Body, extents: Extents) -> Body:
        """Return `body` with its loops split."""
        out: list[Stmt] = []
        changed = False
        for s in body:
            new = self.statement(s, extents)
            changed = changed or not (len(new) == 1 and new[0] is s)
            out += new
        return tuple(out) if changed else body

    def statement(self, s: Stmt, extents: Extents) -> Body:
        match s:
            case For():
                return self.loop(s, extents)
            case If(cond, then, otherwise):
                yes, no = self.body(then, extents), self.body(otherwise, extents)
                return (s,) if yes is then and no is otherwise else (If(cond, yes, no),)
            case While(cond, body):
                inner = self.body(body, extents)
                return (s,) if inner is body else (While(cond, inner),)
            case _:
                return (s,)

    def loop(self, s: For, extents: Extents) -> Body:
        """Return the parts of loop `s`."""
        # Parts of an unrolled loop would have symbolic extents, and then nothing could unroll them.
        cut = None if s.kind in ("block", "thread", "unrolled") else self.cut(s, s.body, extents)
        if s.kind == "parallel":
            inner = self.versions(s, s.body, extents, cut)
            return (s,) if inner is s.body else (For(s.var, s.extent, inner, s.kind, s.axis, s.poll),)
        if cut is None or not self.can_copy(s.body, 1 if cut.is_clean else 2):
            inner = self.body(s.body, {**extents, s.var: s.extent})
            return (s,) if inner is s.body else (For(s.var, s.extent, inner, s.kind, s.axis, s.poll),)
        out: list[Stmt] = []
        first, second = _clamp(cut.first, s.extent, extents), _clamp(cut.second, s.extent, extents)
        pieces: list[tuple[Expr, Expr, bool | None]] = [(const_index(0), first, cut.before)]
        if not cut.is_clean:
            pieces.append((first, second, None))
        pieces.append((second, s.extent, not cut.before))
        for low, high, known in pieces:
            count = simplify_index(high - low, extents)
            if isinstance(count, Const) and count.value <= 0:
                continue
            body = s.body if known is None else _with(s.body, cut.cond, known)
            var = Var(s.var.name, INDEX, 0)
            body = renew(body, {s.var: simplify_index(var + low)})
            body = simplify_body(body, {**extents, var: count}, {})
            piece = For(var, count, body, s.kind, s.axis, s.poll)
            if known is None:
                # Its condition is open by construction: splitting the same loop again would not end.
                inner = self.body(body, {**extents, var: count})
                out.append(piece if inner is body else For(var, count, inner, s.kind, s.axis, s.poll))
            elif body:
                out += self.loop(piece, extents)
        return tuple(out)

    def versions(self, s: For, body: Body, extents: Extents, cut: _Cut | None) -> Body:
        """Return the body of parallel loop `s` as branches on its variable."""
        inside = {**extents, s.var: s.extent}
        if cut is None or not self.can_copy(body, 1 if cut.is_clean else 2):
            return self.body(body, inside)

        def version(known: bool) -> Body:
            copy = simplify_body(renew(_with(body, cut.cond, known), {}), inside, {})
            return self.versions(s, copy, extents, self.cut(s, copy, extents))

        if cut.is_clean:
            rest = version(not cut.before)
        else:
            last = version(not cut.before)
            middle = self.body(renew(body, {}), inside)
            rest = (If(compare("lt", s.var, cut.second), middle, last),) if cut.second != s.extent else middle
        return (If(compare("lt", s.var, cut.first), version(cut.before), rest),)

    def can_copy(self, body: Body, times: int) -> bool:
        """Tell whether `times` more copies of `body` are affordable, and pay for them."""
        size = times * sum(1 for s in body for _ in walk(s))
        if size > self.left:
            return False
        self.left -= size
        return True

    def cut(self, s: For, body: Body, extents: Extents) -> _Cut | None:
        """Return the first condition in `body` at which loop `s` can be split."""
        if s.kind == "vectorized":
            if isinstance(s.extent, Const) and s.extent.value <= SHORT:
                return None
            if any(x.buffer.space == "register" for t in body for x in walk(t) if isinstance(x, (Load, Store))):
                return None
        inner = {t.var: t.extent for t in statements(body) if isinstance(t, For)}
        fixed = {t.var for t in statements(body) if isinstance(t, Let)}
        rows = {t.var for t in statements(body) if isinstance(t, For) and t.kind == "serial"}
        few = isinstance(s.extent, Const) and s.extent.value <= FEW
        for cond in _conditions(body):
            found = _cut(cond, s, inner, fixed, extents)
            if found is None or (few and _mentions((cond,), rows) and not found.is_known):
                continue
            return found
        return None


def _conditions(body: Body) -> Iterator[Compare]:
    """Yield the comparisons of indices that decide which code runs or which memory is read."""
    for s in body:
        for x in walk(s):
            if isinstance(x, If) or (
                isinstance(x, Select) and any(isinstance(y, Load) for y in (*walk(x.a), *walk(x.b)))
            ):
                yield from _comparisons(x.cond)


def _comparisons(cond: Expr) -> Iterator[Compare]:
    match cond:
        case Compare("lt" | "le" | "gt" | "ge", a, _) if a.type is INDEX:
            yield cond
        case Binary("and" | "or", a, b):
            yield from _comparisons(a)
            yield from _comparisons(b)
        case Unary("not", a):
            yield from _comparisons(a)
        case _:
            pass


def _cut(cond: Compare, s: For, inner: Extents, fixed: set[Var], extents: Extents) -> _Cut | None:
    """Return where `cond` changes over loop `s`, or None if it does not or cannot be told."""
    # Each comparison is "p < 0" or its opposite.
    p = poly_of(cond.a - cond.b if cond.op in ("lt", "ge") else cond.b - cond.a)
    holds = cond.op in ("lt", "gt")
    factor = p.get((s.var,), 0)
    rest = {m: c for m, c in p.items() if m != (s.var,)}
    if factor == 0 or any(_mentions(m, {s.var} | fixed) for m in rest):
        return None
    low, high = _extremes(rest, {v: _bound(n, s.var) for v, n in inner.items()})
    if low is None or high is None or any(_mentions((e,), {s.var}) for e in (low, high)):
        return None
    if factor > 0:
        # factor * v + rest < 0 for all of the rest below -high / factor, for none from -low / factor on.
        first, second = _ceil(0 - high, factor), _ceil(0 - low, factor)
    else:
        # v > rest / -factor: for none up to low / -factor, for all beyond high / -factor.
        first, second = low // -factor + 1, high // -factor + 1
    first, second = simplify_index(first, extents), simplify_index(second, extents)
    zero, inside = const_index(0), (_clamp(first, s.extent, extents), _clamp(second, s.extent, extents))
    if inside in ((zero, zero), (s.extent, s.extent), (zero, s.extent)):
        return None
    return _Cut(cond, first, second, (factor > 0) == holds)


def _bound(extent: Expr, var: Var) -> Expr:
    """Return a bound of `extent` that does not depend on `var`, if it is the least of two; else `extent`."""
    if isinstance(extent, Binary) and extent.op == "min":
        return next((e for e in (extent.a, extent.b) if not _mentions((e,), {var})), extent)
    return extent


def _ceil(e: Expr, n: int) -> Expr:
    return (e + (n - 1)) // n


def _clamp(e: Expr, extent: Expr, extents: Extents) -> Expr:
    return simplify_index(minimum(maximum(e, const_index(0)), extent), extents)


def _mentions(monomial: tuple[Expr, ...], variables: set[Var]) -> bool:
    return any(x in variables for atom in monomial for x in walk(atom) if isinstance(x, Var))


def _extremes(p: Poly, inner: Extents) -> tuple[Expr | None, Expr | None]:
    """Return the least and greatest value of `p` over the variables of inner loops; None if that cannot be told."""
    low: Expr = const_index(0)
    high: Expr = const_index(0)
    variables = set(inner)
    for m, c in p.items():
        hits = [a for a in m if a in variables]
        term = from_poly({m: c})
        if not hits and not _mentions(m, variables):
            low, high = low + term, high + term
            continue
        others = tuple(a for a in m if a not in variables)
        extent = inner[hits[0]] if len(hits) == 1 and isinstance(hits[0], Var) else None
        if extent is None or _mentions(others, variables) or any(_mentions((extent,), {v}) for v in variables):
            return None, None
        if not all(is_nonnegative(a) for a in others):
            return None, None
        most = (extent - 1) * from_poly({others: c})
        low, high = (low, high + most) if c > 0 else (low + most, high)
    return low, high


def _with(body: Body, cond: Expr, value: bool) -> Body:
    """Return `body` where `cond` is known."""
    known = const(value, BOOL)

    def go(x: Stmt | Expr) -> Stmt | Expr:
        if isinstance(x, Compare) and x == cond:
            return known
        return map_children(go, x) if children(x) else x

    return tuple(go(s) for s in body)  # type: ignore[misc]
