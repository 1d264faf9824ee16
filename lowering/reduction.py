"""What folding means, on every target: identities, accumulators, the passes that a group's reductions take."""

from __future__ import annotations

from collections.abc import Mapping

from jitflow.dtypes import DType, int32, int64
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Binary,
    Buffer,
    Const,
    Expr,
    Fma,
    Load,
    Reduce,
    Unary,
    Var,
    cast,
    compare,
    const,
    const_index,
    eq,
    ne,
    select,
)
from jitflow.graph import Node
from jitflow.simplify import free_vars, simplify_index
from lowering.fuse import COSTLY, FusionGroup
from lowering.loop_ir import Body, Let, Stmt, Store
from lowering.trace import Element, trace

#: Work (in ordinary operations) from which an element is kept in a row for the next pass rather than computed again:
#: a store, a load and the address of both cost about as much.
KEPT = 8


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
    """The running state of one reduction in `lanes` lanes: a value each, and its position for argmin/argmax.

    A position of -1 stands for nothing seen yet. With `seeded`, lanes start at positions that are given to `start`, of
    which one is 0, instead: as good, since position 0 is folded too, and a test per element less. Positions then are
    no wider than they must be.
    """

    def __init__(
        self, node: Node, reduce: Reduce, lanes: int, space: str = "register", *, seeded: bool = False
    ) -> None:
        self.reduce, self.lanes, self.seeded = reduce, lanes, seeded
        self.dtype = reduce.body.type.dtype
        self.is_arg = reduce.op in ("argmin", "argmax")
        position = int32 if seeded and _count_below(reduce, int32.max - lanes) else int64
        self.value = Buffer(f"{node.op.name}_acc", self.dtype, (const_index(lanes),), space)
        self.position = Buffer(f"{node.op.name}_at", position, (const_index(lanes),), space)

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        return (self.value, self.position) if self.is_arg else (self.value,)

    def start(self, lane: Expr, seed: Expr | None = None) -> Body:
        """Return the statements that empty `lane`; its position is `seed`, or that of nothing."""
        first: Stmt = Store(self.value, (lane,), identity_of(self.reduce.op, self.dtype))
        if not self.is_arg:
            return (first,)
        at = const(-1, int64) if seed is None or not self.seeded else cast(seed, self.position.dtype)
        return (first, Store(self.position, (lane,), at))

    def fold(self, lane: Expr, body: Expr, position: Expr) -> Body:
        """Return the statements that fold value `body`, at `position` of the reduced axes, into `lane`."""
        old = Load(self.value, (lane,))
        if not self.is_arg:
            if self.reduce.contract and isinstance(body, Binary) and self.dtype.is_float:
                return (Store(self.value, (lane,), Fma(body.a, body.b, old)),)
            return (Store(self.value, (lane,), Binary(self.reduce.op, old, body)),)
        # Positions come in increasing order, so that of two equal values the one seen stays.
        v, w = Var("best", old.type), Var("next", body.type)
        at = Load(self.position, (lane,))
        better: Expr
        if self.dtype.is_float:
            # Better, or NaN where there is none yet.
            worse = compare("le" if self.reduce.op == "argmax" else "ge", w, v)
            better = Binary("and", Unary("not", worse), eq(v, v))
        else:
            better = compare("gt" if self.reduce.op == "argmax" else "lt", w, v)
        if not self.seeded:
            better = Binary("or", compare("lt", at, 0), better)
        take = Var("take", better.type)
        return (
            Let(v, old),
            Let(w, body),
            Let(take, better),
            Store(self.value, (lane,), select(take, w, v)),
            Store(self.position, (lane,), select(take, cast(position, self.position.dtype), at)),
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
        if not self.seeded:
            empty, present = compare("lt", at, 0), compare("ge", w_at, 0)
            better = Binary("and", present, Binary("or", empty, better))
        take = Var("take", better.type)
        return (
            Let(v, old),
            Let(at, old_at),
            Let(w, new),
            Let(w_at, new_at),
            Let(take, better),
            Store(self.value, (lane,), select(take, w, v)),
            Store(self.position, (lane,), select(take, w_at, at)),
        )

    def result(self, lane: Expr) -> Expr:
        """Return the reduction's value, once everything is in `lane`."""
        return cast(Load(self.position, (lane,)), int64) if self.is_arg else Load(self.value, (lane,))


def _count_below(reduce: Reduce, limit: int) -> bool:
    """Tell whether `reduce` is known to fold fewer than `limit` elements."""
    count = 1
    for extent in reduce.extents:
        count *= _greatest(simplify_index(extent), limit)
    return count < limit


def _greatest(extent: Expr, unknown: int) -> int:
    match extent:
        case Const(value, _):
            return int(value)
        case Binary("min", a, b):
            return min(_greatest(a, unknown), _greatest(b, unknown))
        case _:
            return unknown


def levels_of(group: FusionGroup) -> dict[Node, int]:
    """Return for each member the first pass in which it can be computed: one more than the reductions it needs."""
    level: dict[Node, int] = {}
    reduced = {n for n, _ in group.reductions}
    for node in group.members:
        level[node] = max((level[x] + (x in reduced) for x in node.inputs if x in level), default=0)
    return level


def kept_rows(group: FusionGroup, level: Mapping[Node, int]) -> list[Element]:
    """Return the full-size elements worth keeping between passes: heavy, and used by a later pass at one index."""
    inner = {a.var for a in group.inner}
    members = set(group.members)
    heavy: dict[Node, int] = {}
    reduced = {n for n, _ in group.reductions}
    kept: list[Element] = []
    for node in group.members:
        if node in reduced:
            heavy[node] = 0
            continue
        own = COSTLY if node.op.costly else 0 if node.op.movement else 1
        heavy[node] = own + sum(heavy.get(x, 0) for x in node.inputs if x in members)
        wanted = group.wanted.get(node, ())
        if heavy[node] < KEPT or len(wanted) != 1 or wanted[0] is None:
            continue
        mentioned = {v for i in wanted[0] for v in free_vars(i)}
        if not inner <= mentioned:
            continue
        users = [m for m in group.members if node in m.inputs]
        if any(level[m] > level[node] for m in users):
            kept.append((node, wanted[0]))
            heavy[node] = 0
    return kept
