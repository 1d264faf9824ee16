"""A matrix product into one GPU kernel: tiles of both operands in shared memory, a small tile of results per thread.

    block b in batches * ceil(M / 64) * ceil(N / 64):
      thread t in 256:                                  # 16 x 16 threads, each 4 x 4 results
        fetch(0)
        serial c in ceil(K / 16):
          a_tile[c % 2, k, i], b_tile[c % 2, k, j] = what was fetched
          barrier
          if c + 1 < ceil(K / 16): fetch(c + 1)         # A[i, k], B[k, j] into registers, while it multiplies
          unrolled k in 16:
            acc[u, v] = fma(a_tile[c % 2, k, 4*y + u], b_tile[c % 2, k, 4*x + v], acc[u, v])
        out[i, j] = epilogue(acc[u, v])

There are two tiles of each operand, so one barrier per step is enough: who writes a tile has passed the barrier of the
step between, and so everyone has read what was there.

Operands are whatever their nodes compute (the prologue), results go through the group's other nodes (the epilogue).
Each result is one chain over increasing k, so the bits are those of the CPU. At the edges, rows and columns beyond the
matrix repeat the last one and are not stored; steps beyond K multiply -0.0 by 0.0, which leaves every sum as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jitflow.dtypes import DType
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Const,
    Expr,
    Fma,
    Load,
    Reduce,
    Var,
    as_index,
    compare,
    const,
    const_index,
    minimum,
    select,
)
from jitflow.record import walk
from jitflow.simplify import free_vars, poly_of, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu.schedule import GpuSchedule, power_of_two
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Let, Stmt, Store, statements
from lowering.signature import Signature, store_outputs
from lowering.trace import Demand, Emitter, Subscripts, flat_index, substitute_all, trace, unflatten_index

#: Added to the rows of a tile in shared memory, so that threads that store down a column meet different banks. A
#: multiple of four keeps the rows aligned for 16-byte loads.
PAD = 4
#: A tile is at least so many threads' results wide.
LEAST_ITEMS = 4


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor of the product, as an expression over demands, each after those that it needs."""

    expr: Expr
    demands: tuple[Demand, ...]

    def depends_on(self, axis: Axis) -> bool:
        """Tell whether the factor changes along `axis`."""
        used = set(free_vars(self.expr))
        for d in self.demands:
            for i in (*d.at, *(() if d.cond is None else (d.cond,))):
                used |= free_vars(i)
        return axis.var in used


@dataclass(frozen=True, eq=False)
class Product:
    """A group's contraction as a batch of matrix products.

    `batch`, `m_axes` and `n_axis` are its rows in order: the right factor does not change along `m_axes`, the left one
    not along `n_axis`. `k` is the variable of the demands' subscripts that is summed over.
    """

    batch: tuple[Axis, ...]
    m_axes: tuple[Axis, ...]
    n_axis: Axis
    k: Axis
    left: Operand
    right: Operand
    dtype: DType

    @property
    def matrix(self) -> Operand | None:
        """The operand that is a matrix if the other one is declared to be a single row or column, else None."""
        one = const_index(1)
        if self.n_axis.extent == one:
            return self.left
        return self.right if simplify_index(_count(self.m_axes)) == one else None


def as_product(group: FusionGroup) -> Product | None:
    """Return the group's contraction as matrix products, or None if it is none."""
    node, rows = group.contract, group.rows
    if node is None or len(rows) < 2:
        return None
    traced = trace(node, tuple(a.var for a in rows))
    reduce = traced.expr
    if not isinstance(reduce, Reduce) or reduce.op != "add" or len(reduce.vars) != 1:
        return None
    body, k = reduce.body, reduce.vars[0]
    if not (isinstance(body, Binary) and body.op == "mul" and isinstance(k, Var)):
        return None
    left, right = _operand(body.a, traced.demands), _operand(body.b, traced.demands)
    if left.depends_on(rows[-1]):
        left, right = right, left
    at = len(rows) - 1
    while at > 0 and not right.depends_on(rows[at - 1]):
        at -= 1
    if left.depends_on(rows[-1]) or at == len(rows) - 1:
        return None
    k_axis = Axis(k, simplify_index(reduce.extents[0]))
    return Product(rows[:at], rows[at:-1], rows[-1], k_axis, left, right, node.dtype)


def _operand(e: Expr, demands: Sequence[Demand]) -> Operand:
    wanted = set(free_vars(e))
    found: list[Demand] = []
    for d in reversed(demands):
        if d.var in wanted:
            found.append(d)
            for i in d.at:
                wanted |= free_vars(i)
    return Operand(e, tuple(reversed(found)))


def build_matmul(group: FusionGroup, product: Product, signature: Signature, schedule: GpuSchedule) -> Body:
    """Return the loops of a ``contract`` group that is a matrix product."""
    return _Tiles(group, product, signature, _fitted(product, schedule)).build()


def _fitted(product: Product, schedule: GpuSchedule) -> GpuSchedule:
    """Return `schedule` with a tile that is narrower, and up to twice as long, where a side is known to be short."""
    m, n = simplify_index(_count(product.m_axes)), product.n_axis.extent
    tile_m, tile_n = schedule.tile_m, schedule.tile_n
    if isinstance(n, Const) and n.value <= tile_n // 2:
        return schedule.with_tile(2 * tile_m, max(LEAST_ITEMS * schedule.item_n, power_of_two(int(n.value))))
    if isinstance(m, Const) and m.value <= tile_m // 2:
        return schedule.with_tile(max(LEAST_ITEMS * schedule.item_m, power_of_two(int(m.value))), 2 * tile_n)
    return schedule


def runs_along_k(group: FusionGroup, product: Product, operand: Operand, signature: Signature) -> bool:
    """Tell whether neighbouring elements of `operand` in memory are those of neighbouring k, as far as can be seen."""
    emitter = Emitter(signature.values(group.extents))
    k = product.k.var
    _value(operand, emitter, {})
    for s in statements(tuple(emitter.statements)):
        for x in walk(s):
            if isinstance(x, Load) and k in free_vars(address := flat_index(x.index, x.buffer.shape)):
                return poly_of(address).get((k,)) == 1
    return False


@dataclass(frozen=True, eq=False)
class Side:
    """One operand while it is multiplied: its free axes, in tiles of `width`, of which `number` is the block's.

    `along_k`: in memory its neighbours are those of neighbouring k. `tiles` are in shared memory, `items` what a thread
    needs of one for a step, `fetched` what it brings for the next.
    """

    operand: Operand
    axes: tuple[Axis, ...]
    extent: Expr
    width: int
    number: Expr
    along_k: bool
    tiles: Buffer
    items: Buffer
    fetched: Buffer

    @property
    def is_whole(self) -> bool:
        """Whether every tile lies inside the matrix."""
        return simplify_index(self.extent % self.width) == const_index(0)


class _Tiles:
    def __init__(self, group: FusionGroup, product: Product, signature: Signature, schedule: GpuSchedule) -> None:
        self.group, self.product, self.signature, self.schedule = group, product, signature, schedule
        s = schedule
        self.columns = s.tile_n // s.item_n
        self.threads = s.tile_m // s.item_m * self.columns
        self.thread, self.step = Var("t", INDEX, floor=0), Var("c", INDEX, floor=0)
        self.steps = simplify_index((product.k.extent + (s.tile_k - 1)) // s.tile_k)
        i, j = Var("tile_i", INDEX, floor=0), Var("tile_j", INDEX, floor=0)
        self.left = self._side("a", product.left, product.m_axes, i, s.tile_m, s.item_m)
        self.right = self._side("b", product.right, (product.n_axis,), j, s.tile_n, s.item_n)
        self.acc = self._buffer("acc", (s.item_m, s.item_n), "register")

    def _buffer(self, name: str, shape: Sequence[int], space: str) -> Buffer:
        return Buffer(name, self.product.dtype, [const_index(n) for n in shape], space, align=16)

    def _side(self, name: str, operand: Operand, axes: tuple[Axis, ...], number: Var, width: int, items: int) -> Side:
        depth = self.schedule.tile_k
        return Side(
            operand,
            axes,
            simplify_index(_count(axes)),
            width,
            number,
            runs_along_k(self.group, self.product, operand, self.signature),
            self._buffer(f"{name}_tile", (2, depth, width + PAD), "shared"),
            self._buffer(f"{name}_items", (items,), "register"),
            self._buffer(f"{name}_next", (depth * width // self.threads,), "register"),
        )

    def build(self) -> Body:
        s, batch_axes, b, c = self.schedule, self.product.batch, Var("b", INDEX, floor=0), self.step
        sides = (self.left, self.right)
        counts = [simplify_index((side.extent + (side.width - 1)) // side.width) for side in sides]
        blocks = simplify_index(_count(batch_axes) * simplify_index(counts[0] * counts[1]))
        place = unflatten_index(b, [*(a.extent for a in batch_axes), *counts])
        names = [*(a.var for a in batch_axes), *(side.number for side in sides)]
        first = tuple(self._fetch(side, const_index(0)) for side in sides)
        if not isinstance(self.steps, Const):
            first = (If(compare("lt", const_index(0), self.steps), first),)
        elif self.steps.value == 0:
            first = ()
        zero = const(0, self.product.dtype)
        more = simplify_index(c + 1)
        body: Body = (
            *(Alloc(x) for side in sides for x in (side.tiles, side.items, side.fetched)),
            Alloc(self.acc),
            _grid(s.item_m, s.item_n, lambda u, v: (Store(self.acc, (u, v), zero),)),
            *first,
            For(
                c,
                self.steps,
                (
                    *(self._hand_over(side) for side in sides),
                    Barrier(),
                    If(compare("lt", more, self.steps), tuple(self._fetch(side, more) for side in sides)),
                    self._multiply(),
                ),
            ),
            _grid(s.item_m, s.item_n, self._finish),
        )
        lets = tuple(Let(v, x) for v, x in zip(names, place, strict=True) if isinstance(v, Var))
        return (For(b, blocks, (*lets, For(self.thread, const_index(self.threads), body, "thread")), "block"),)

    def _spread(self, side: Side, u: Expr) -> tuple[Expr, Expr]:
        """Return which k and which row or column of a tile element `u` of the thread is: neighbours in memory go to
        neighbouring threads."""
        number = u * self.threads + self.thread
        depth = self.schedule.tile_k
        if side.along_k:
            return simplify_index(number % depth), simplify_index(number // depth)
        return simplify_index(number // side.width), simplify_index(number % side.width)

    def _fetch(self, side: Side, c: Expr) -> Stmt:
        """Return the loop that brings a thread's share of step `c` of an operand into registers."""
        depth, p = self.schedule.tile_k, self.product
        u, k, at = Var("u", INDEX, floor=0), Var("k", INDEX, floor=0), Var("at", INDEX, floor=0)
        k_in, at_in = self._spread(side, u)
        step = simplify_index(c * depth + k_in)
        whole = simplify_index(p.k.extent % depth) == const_index(0)
        lets = (
            Let(k, step if whole else minimum(step, simplify_index(p.k.extent - 1))),
            Let(at, self._clamped(side, simplify_index(side.number * side.width + at_in))),
        )
        emitter = self._emitter({k: p.k.extent, at: side.extent})
        value = _value(side.operand, emitter, {**self._place(side, at), p.k.var: k})
        if not whole:
            beyond = const(-0.0 if side is self.left and p.dtype.is_float else 0, p.dtype)
            value = select(compare("lt", step, p.k.extent), emitter.let("x", value), beyond)
        body = (*lets, *emitter.statements, Store(side.fetched, (u,), value))
        return For(u, as_index(side.fetched.shape[0]), body, "unrolled")

    def _clamped(self, side: Side, at: Expr) -> Expr:
        return at if side.is_whole else minimum(at, simplify_index(side.extent - 1))

    def _hand_over(self, side: Side) -> Stmt:
        """Return the loop that puts what was fetched into the tile of this step."""
        u = Var("u", INDEX, floor=0)
        place = (simplify_index(self.step % 2), *self._spread(side, u))
        return For(
            u, as_index(side.fetched.shape[0]), (Store(side.tiles, place, Load(side.fetched, (u,))),), "unrolled"
        )

    def _place(self, side: Side, at: Expr) -> dict[Var, Expr]:
        """Return where the free axes of an operand are at row or column `at`."""
        extents = {at: side.extent} if isinstance(at, Var) else {}
        parts = unflatten_index(at, [a.extent for a in side.axes], extents)
        return {a.var: part for a, part in zip(side.axes, parts, strict=True)}

    def _emitter(self, extents: Mapping[Var, Expr]) -> Emitter:
        batch = {a.var: a.extent for a in self.product.batch}
        return Emitter(self.signature.values({**batch, **extents}))

    def _mine(self, side: Side, u: Expr) -> Expr:
        """Return which row or column of a tile result `u` of the thread lies in."""
        number = self.thread // self.columns if side is self.left else self.thread % self.columns
        count = self.schedule.item_m if side is self.left else self.schedule.item_n
        return simplify_index(number * count + u)

    def _multiply(self) -> Stmt:
        """Return the loop over the steps of a tile."""
        left, right, s = self.left, self.right, self.schedule
        k, u, v = (Var(name, INDEX, floor=0) for name in "kuv")
        which = simplify_index(self.step % 2)

        def add(u: Expr, v: Expr) -> Body:
            a, b, old = Load(left.items, (u,)), Load(right.items, (v,)), Load(self.acc, (u, v))
            new = Fma(a, b, old) if self.product.dtype.is_float else Binary("add", old, Binary("mul", a, b))
            return (Store(self.acc, (u, v), new),)

        load_a = Store(left.items, (u,), Load(left.tiles, (which, k, self._mine(left, u))))
        load_b = Store(right.items, (v,), Load(right.tiles, (which, k, self._mine(right, v))))
        body: Body = (
            For(u, const_index(s.item_m), (load_a,), "unrolled"),
            For(v, const_index(s.item_n), (load_b,), "unrolled"),
            _grid(s.item_m, s.item_n, add),
        )
        return For(k, const_index(s.tile_k), body, "unrolled")

    def _finish(self, u: Expr, v: Expr) -> Body:
        """Return the statements that compute the group's outputs from result (u, v) of the thread and store them."""
        group = self.group
        assert group.contract is not None
        lets: list[Stmt] = []
        tests: list[Expr] = []
        place: dict[Var, Expr] = {}
        extents: dict[Var, Expr] = {}
        for side, name, item in ((self.left, "i", u), (self.right, "j", v)):
            at = simplify_index(side.number * side.width + self._mine(side, item))
            # Written out, the alignment of neighbours can be seen; bound, their bound can.
            if not side.is_whole:
                lets.append(Let(bound := Var(name, INDEX, floor=0), at))
                tests.append(compare("lt", bound, side.extent))
                extents[bound] = side.extent
                at = bound
            place |= self._place(side, at)
        emitter = self._emitter(extents)

        def moved(index: Subscripts) -> Subscripts:
            return tuple(substitute_all(e, place) for e in index)

        result = emitter.let(group.contract.op.name, Load(self.acc, (u, v)))
        emitter.know(group.contract, moved(tuple(a.var for a in group.rows)), result)
        store_outputs(emitter, [(node, moved(at)) for node, at in group.outputs], self.signature)
        body: Body = tuple(emitter.statements)
        if tests:
            body = (If(tests[0] if len(tests) == 1 else Binary("and", *tests), body),)
        return (*lets, *body)


def _count(axes: Sequence[Axis]) -> Expr:
    total: Expr = const_index(1)
    for a in axes:
        total = total * a.extent
    return total


def _value(operand: Operand, emitter: Emitter, place: Mapping[Var, Expr]) -> Expr:
    """Return the value of a factor with its variables replaced; what computes it is appended to `emitter`."""
    known = dict(place)
    for d in operand.demands:
        at = tuple(substitute_all(i, known) for i in d.at)
        known[d.var] = emitter.value(d.node, at, None if d.cond is None else substitute_all(d.cond, known))
    return substitute_all(operand.expr, known)


def _grid(rows: int, columns: int, make: Callable[[Expr, Expr], Body]) -> Stmt:
    """Return ``make(u, v)`` in two unrolled loops."""
    u, v = Var("u", INDEX, floor=0), Var("v", INDEX, floor=0)
    return For(u, const_index(rows), (For(v, const_index(columns), make(u, v), "unrolled"),), "unrolled")
