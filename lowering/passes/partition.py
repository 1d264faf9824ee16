"""Split a loop where a condition on its variable changes, so that the condition is constant in each part.

Before                                              After
    vectorized j in n + m:                              vectorized j in n:
      o[j] = select(j < n, a[j], b[j - n])                o[j] = a[j]
                                                        vectorized j in m:
                                                          o[j + n] = b[j]

Looks at the conditions of ``If``s and of ``Select``s that guard loads: comparisons of indices that are linear in the
variable, with a literal factor. A condition that also uses variables of loops inside is constant for all of them up to
one breakpoint and from another one on; in between it stays. A ``parallel`` loop cannot be split: its body is written
once per part, behind an ``If``, unless the condition can be left to a vectorized loop inside, of which it is the tile.
Where many breakpoints lie a few iterations from the ends, as in a sum of shifted arrays, those iterations keep the
conditions, and only what lies in between is free of them.

Gives up on what is not linear, on unrolled loops, on short vectorized loops (masks are cheaper there), on loops over
registers, and when the code would grow by more than `max_nodes` nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

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

#: Breakpoints this near to an end of a loop are one: what lies beyond is computed element by element.
EDGE = 16

#: More breakpoints, and more parts of a tile, than this are too many to be handled each on its own.
SEVERAL = 2

#: Conditions in a body of which each is looked at before anything is decided.
MANY = 48

#: Nodes that a loop is worth.
LOOP_NODES = 40

#: Bounds of parts that are longer than this are computed once, and bound to a variable.
LONG = 15


def partition(kernel: Kernel, *, max_nodes: int = 4000) -> Kernel:
    """Return `kernel` with loops split at the breakpoints of their conditions, at most `max_nodes` nodes larger."""
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


@record
class _Edges:
    """The conditions in `known` are decided but for the first `low` and the last `high` iterations of a loop."""

    low: int
    high: int
    known: Mapping[Expr, bool]


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
        if s.kind in ("block", "thread", "unrolled"):
            return self.whole(s, extents)
        edges = self.edges(s, s.body, extents)
        if s.kind == "parallel":
            inner = self.inside(s, s.body, extents, edges)
            return (s,) if inner is s.body else (For(s.var, s.extent, inner, s.kind, s.axis, s.poll),)
        if edges is not None:
            return self.between_edges(s, edges, extents)
        cut = self.cut(s, s.body, extents)
        if cut is None:
            return self.whole(s, extents)
        lets: list[Stmt] = []
        first = _bound_to(lets, _clamp(cut.first, s.extent, extents))
        second = first if cut.is_clean else _bound_to(lets, _clamp(cut.second, s.extent, extents))
        pieces = [self.piece(s, const_index(0), first, {cut.cond: cut.before}, extents)]
        if not cut.is_clean:
            pieces.append(self.piece(s, first, second, {}, extents))
        pieces.append(self.piece(s, second, s.extent, {cut.cond: not cut.before}, extents))
        if not self.can_grow(s.body, [p.body for p in pieces]):
            return self.whole(s, extents)
        out = lets
        for k, piece in enumerate(pieces):
            if isinstance(piece.extent, Const) and piece.extent.value <= 0:
                continue
            # The condition of a middle part is open by construction: splitting it again would not end.
            is_open = not cut.is_clean and k == 1
            parts = self.whole(piece, extents) if is_open else self.loop(piece, extents) if piece.body else ()
            # Many parts of which a tile touches a few are skipped together.
            several = len(parts) > SEVERAL and not isinstance(piece.extent, Const)
            out += [If(compare("gt", piece.extent, 0), parts)] if several else parts
        return tuple(out)

    def whole(self, s: For, extents: Extents) -> Body:
        """Return loop `s` with only the loops inside it split."""
        inner = self.body(s.body, {**extents, s.var: s.extent})
        return (s,) if inner is s.body else (For(s.var, s.extent, inner, s.kind, s.axis, s.poll),)

    def piece(self, s: For, low: Expr, high: Expr, known: Mapping[Expr, bool], extents: Extents) -> For:
        """Return loop `s` from `low` to `high`, where the conditions in `known` are decided."""
        count = simplify_index(high - low, extents)
        var = Var(s.var.name, INDEX, 0)
        body = renew(_with(s.body, known), {s.var: simplify_index(var + low)})
        return For(var, count, simplify_body(body, {**extents, var: count}, {}), s.kind, s.axis, s.poll)

    def inside(self, s: For, body: Body, extents: Extents, edges: _Edges | None) -> Body:
        """Return the body of parallel loop `s` as branches on its variable."""
        if edges is None:
            return self.versions(s, body, extents, self.cut(s, body, extents))
        within = {**extents, s.var: s.extent}
        common = simplify_body(renew(_with(body, edges.known), {}), within, {})
        if not self.can_grow(body, [common, body]):
            return self.body(body, within)
        test = Binary(
            "and", compare("ge", s.var, edges.low), compare("lt", s.var, simplify_index(s.extent - edges.high, extents))
        )
        return (If(test, self.inside(s, common, extents, None), self.body(renew(body, {}), within)),)

    def between_edges(self, s: For, edges: _Edges, extents: Extents) -> Body:
        """Return loop `s` as what most of its iterations do, and the few before and after element by element."""
        lets: list[Stmt] = []
        low = _bound_to(lets, simplify_index(minimum(const_index(edges.low), s.extent), extents))
        high = _bound_to(lets, simplify_index(maximum(low, s.extent - edges.high), extents))
        before, most = self.piece(s, const_index(0), low, {}, extents), self.piece(s, low, high, edges.known, extents)
        after = self.piece(s, high, s.extent, {}, extents)
        if not self.can_grow(s.body, [before.body, most.body, after.body]):
            return self.whole(s, extents)
        out = lets
        for piece in (before, most, after):
            if isinstance(piece.extent, Const) and piece.extent.value <= 0:
                continue
            if piece is most:
                out += self.loop(piece, extents) if piece.body else ()
            else:
                out += self.whole(For(piece.var, piece.extent, piece.body, "serial"), extents)
        return tuple(out)

    def versions(self, s: For, body: Body, extents: Extents, cut: _Cut | None) -> Body:
        """Return the body of parallel loop `s` as branches on its variable."""
        inside = {**extents, s.var: s.extent}
        if cut is None:
            return self.body(body, inside)

        def version(known: bool) -> Body:
            return simplify_body(renew(_with(body, {cut.cond: known}), {}), inside, {})

        def split(copy: Body) -> Body:
            return self.versions(s, copy, extents, self.cut(s, copy, extents))

        before, after = version(cut.before), version(not cut.before)
        if not self.can_grow(body, [before, after] if cut.is_clean else [before, body, after]):
            return self.body(body, inside)
        rest = split(after)
        if not cut.is_clean:
            middle = self.body(renew(body, {}), inside)
            rest = (If(compare("lt", s.var, cut.second), middle, rest),) if cut.second != s.extent else middle
        return (If(compare("lt", s.var, cut.first), split(before), rest),)

    def can_grow(self, body: Body, copies: Iterable[Body]) -> bool:
        """Tell whether replacing `body` by `copies` is affordable, and pay for it."""
        growth = sum(map(_size, copies)) - _size(body)
        if growth > self.left:
            return False
        self.left -= max(growth, 0)
        return True

    def edges(self, s: For, body: Body, extents: Extents) -> _Edges | None:
        """Return where the conditions in `body` are known but for few iterations at both ends of loop `s`.

        None if there are not so many breakpoints that a copy of the body for each part would be too much.
        """
        if not self.may_split(s, body):
            return None
        conds = list(itertools.islice(dict.fromkeys(_conditions(body)), MANY + 1))
        if not SEVERAL < len(conds) <= MANY:
            return None
        scope = _scope_of(body)
        known: dict[Expr, bool] = {}
        starts: set[int] = set()
        ends: set[int] = set()
        for cond in conds:
            cut = _cut(cond, s, *scope, extents)
            if cut is None or not cut.is_clean:
                continue
            rest = _most(s.extent - cut.first, extents)
            if isinstance(cut.first, Const) and cut.first.value <= EDGE:
                starts.add(max(int(cut.first.value), 0))
                known[cond] = not cut.before
            elif rest is not None and rest <= EDGE:
                ends.add(max(rest, 0))
                known[cond] = cut.before
        if len(starts - {0}) + len(ends - {0}) <= SEVERAL:
            return None
        return _Edges(max(starts, default=0), max(ends, default=0), known)

    def may_split(self, s: For, body: Body) -> bool:
        """Tell whether vectorized loop `s` is long enough, and not one over registers; any other loop will do."""
        if s.kind != "vectorized":
            return True
        if isinstance(s.extent, Const) and s.extent.value <= SHORT:
            return False
        return not any(x.buffer.space == "register" for t in body for x in walk(t) if isinstance(x, (Load, Store)))

    def cut(self, s: For, body: Body, extents: Extents) -> _Cut | None:
        """Return the first condition in `body` at which loop `s` can be split."""
        if not self.may_split(s, body):
            return None
        inner, fixed = _scope_of(body)
        rows = {t.var for t in statements(body) if isinstance(t, For) and t.kind == "serial"}
        few = isinstance(s.extent, Const) and s.extent.value <= FEW
        for cond in _conditions(body):
            found = _cut(cond, s, inner, fixed, extents)
            if found is None or (few and _mentions((cond,), rows) and not found.is_known):
                continue
            if s.kind == "parallel" and not found.is_clean and self.splits_inside(cond, s, body, extents):
                return None
            return found
        return None

    def splits_inside(self, cond: Compare, s: For, body: Body, extents: Extents) -> bool:
        """Tell whether iterations of `s` are tiles of one axis: a vectorized loop that can be split at `cond`."""
        tile = body[-1]
        if not (isinstance(tile, For) and tile.kind == "vectorized" and self.may_split(tile, tile.body)):
            return False
        found = _cut(cond, tile, *_scope_of(tile.body), {**extents, s.var: s.extent})
        return found is not None and found.is_clean


def _scope_of(body: Body) -> tuple[Extents, set[Var]]:
    """Return the extents of the loops in `body`, and the variables that are bound to a value."""
    inner = {t.var: t.extent for t in statements(body) if isinstance(t, For)}
    return inner, {t.var for t in statements(body) if isinstance(t, Let)}


def _most(e: Expr, extents: Extents) -> int | None:
    """Return a literal that `e` does not exceed, if there is one at first sight."""
    p = poly_of(e, extents)
    for m, c in p.items():
        (atom,) = m if len(m) == 1 else (None,)
        if c == -1 and isinstance(atom, Binary) and atom.op == "max":
            less = from_poly({k: v for k, v in p.items() if k != m})
            found = [simplify_index(less - x, extents) for x in (atom.a, atom.b)]
            return next((int(x.value) for x in found if isinstance(x, Const)), None)
    return p.get((), 0) if set(p) <= {()} else None


def _bound_to(lets: list[Stmt], e: Expr) -> Expr:
    """Return `e`, or a variable for it if it is so long that parts of parts would have endless bounds."""
    if sum(1 for _ in walk(e)) <= LONG:
        return e
    var = Var("cut", INDEX, 0)
    lets.append(Let(var, e))
    return var


def _size(body: Body) -> int:
    """Return the number of nodes of `body`, index arithmetic aside: most of it is done outside of loops.

    A loop counts for what becomes of it: several, with bounds of their own, once it is vectorized.
    """
    nodes = (x for s in body for x in walk(s) if not (isinstance(x, Expr) and x.type is INDEX))
    return sum(LOOP_NODES if isinstance(x, For) else 1 for x in nodes)


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


_OPPOSITE = {"lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}


def _with(body: Body, known: Mapping[Expr, bool]) -> Body:
    """Return `body` where the conditions in `known`, and so their opposites, are decided."""
    if not known:
        return body
    decided: dict[Expr, Expr] = {}
    for cond, value in known.items():
        assert isinstance(cond, Compare)
        decided[cond] = const(value, BOOL)
        decided[Compare(_OPPOSITE[cond.op], cond.a, cond.b)] = const(not value, BOOL)

    def go(x: Stmt | Expr) -> Stmt | Expr:
        if isinstance(x, Compare) and x in decided:
            return decided[x]
        return map_children(go, x) if children(x) else x

    return tuple(go(s) for s in body)  # type: ignore[misc]
