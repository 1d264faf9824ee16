"""A matrix product into one GPU kernel: tiles of both operands in shared memory, a small tile of results per thread.

    block b in batches * ceil(M / 64) * ceil(N / 64):
      thread t in 256:                                  # 16 x 16 threads, each 4 x 4 results
        serial c in ceil(K / 16):
          a_tile[k, i] = A[i0 + i, c*16 + k]            # 4 elements per thread
          b_tile[k, j] = B[c*16 + k, j0 + j]
          barrier
          unrolled k in 16: acc[u, v] = fma(a_tile[k, 4*y + u], b_tile[k, 4*x + v], acc[u, v])
          barrier
        out[i0 + 4*y + u, j0 + 4*x + v] = epilogue(acc[u, v])

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
    Expr,
    Fma,
    Load,
    Reduce,
    Var,
    compare,
    const,
    const_index,
    minimum,
    select,
)
from jitflow.record import walk
from jitflow.simplify import free_vars, poly_of, simplify_index
from lowering.build import Signature, store_outputs
from lowering.fuse import Axis, FusionGroup
from lowering.gpu_schedule import GpuSchedule
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Let, Stmt, Store, statements
from lowering.trace import Demand, Emitter, Subscripts, flat_index, substitute_all, trace, unflatten_index

#: Added to the rows of a tile in shared memory, so that threads that store down a column meet different banks. A
#: multiple of four keeps the rows aligned for 16-byte loads.
PAD = 4


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
    return _Tiles(group, product, signature, schedule).build()


class _Tiles:
    def __init__(self, group: FusionGroup, product: Product, signature: Signature, schedule: GpuSchedule) -> None:
        self.group, self.product, self.signature, self.schedule = group, product, signature, schedule
        s, dtype = schedule, product.dtype
        self.columns = s.tile_n // s.item_n
        self.threads = s.tile_m // s.item_m * self.columns
        self.m = simplify_index(_count(product.m_axes))
        self.n, self.k = product.n_axis.extent, product.k.extent
        self.thread = Var("t", INDEX, floor=0)
        self.row0, self.column0 = Var("i0", INDEX, floor=0), Var("j0", INDEX, floor=0)

        def buffer(name: str, shape: Sequence[int], space: str) -> Buffer:
            return Buffer(name, dtype, [const_index(n) for n in shape], space, align=16)

        self.left = buffer("a_tile", (s.tile_k, s.tile_m + PAD), "shared")
        self.right = buffer("b_tile", (s.tile_k, s.tile_n + PAD), "shared")
        self.a, self.b = buffer("a_items", (s.item_m,), "register"), buffer("b_items", (s.item_n,), "register")
        self.acc = buffer("acc", (s.item_m, s.item_n), "register")

    def build(self) -> Body:
        s, p = self.schedule, self.product
        m_tiles = simplify_index((self.m + (s.tile_m - 1)) // s.tile_m)
        n_tiles = simplify_index((self.n + (s.tile_n - 1)) // s.tile_n)
        blocks = simplify_index(m_tiles * n_tiles)
        blocks = simplify_index(_count(p.batch) * blocks)
        b, c = Var("b", INDEX, floor=0), Var("c", INDEX, floor=0)
        *batch, i, j = unflatten_index(b, [*(a.extent for a in p.batch), m_tiles, n_tiles])
        lets: list[Stmt] = [Let(a.var, x) for a, x in zip(p.batch, batch, strict=True)]
        lets += [Let(self.row0, simplify_index(i * s.tile_m)), Let(self.column0, simplify_index(j * s.tile_n))]
        zero = const(0, p.dtype)
        steps = simplify_index((self.k + (s.tile_k - 1)) // s.tile_k)
        body: Body = (
            *(Alloc(x) for x in (self.left, self.right, self.a, self.b, self.acc)),
            _grid(s.item_m, s.item_n, lambda u, v: (Store(self.acc, (u, v), zero),)),
            For(c, steps, (self._load(c, True), self._load(c, False), Barrier(), self._multiply(), Barrier())),
            _grid(s.item_m, s.item_n, self._finish),
        )
        return (For(b, blocks, (*lets, For(self.thread, const_index(self.threads), body, "thread")), "block"),)

    def _load(self, c: Var, is_left: bool) -> Stmt:
        """Return the loop that fills a tile with step `c` of an operand."""
        s, p = self.schedule, self.product
        operand, tile = (p.left, self.left) if is_left else (p.right, self.right)
        width = s.tile_m if is_left else s.tile_n
        u = Var("u", INDEX, floor=0)
        number = u * self.threads + self.thread
        if self._runs_along_k(operand):
            k_in, at = simplify_index(number % s.tile_k), simplify_index(number // s.tile_k)
        else:
            k_in, at = simplify_index(number // width), simplify_index(number % width)
        step = simplify_index(c * s.tile_k + k_in)
        k = self._clamped("k", step, self.k, s.tile_k)
        row = (
            self._clamped("i", self.row0 + at, self.m, s.tile_m)
            if is_left
            else self._clamped("j", self.column0 + at, self.n, s.tile_n)
        )
        place = self._place(row.var, p.m_axes if is_left else (p.n_axis,))
        emitter = self._emitter({k.var: self.k, row.var: self.m if is_left else self.n})
        value = _value(operand, emitter, {**place, p.k.var: k.var})
        if simplify_index(self.k % s.tile_k) != const_index(0):
            # Beyond K the product is -0.0 * 0.0 = -0.0, which added to any sum leaves it as it is.
            beyond = const(-0.0 if is_left and p.dtype.is_float else 0, p.dtype)
            value = select(compare("lt", step, self.k), emitter.let("x", value), beyond)
        body = (k, row, *emitter.statements, Store(tile, (k_in, at), value))
        return For(u, const_index(s.tile_k * width // self.threads), body, "unrolled")

    def _clamped(self, name: str, at: Expr, extent: Expr, tile: int) -> Let:
        """Bind position `at` of an axis, or its last one where the tile reaches beyond it."""
        if simplify_index(extent % tile) != const_index(0):
            at = minimum(at, simplify_index(extent - 1))
        return Let(Var(name, INDEX, floor=0), simplify_index(at))

    def _place(self, position: Var, axes: Sequence[Axis]) -> dict[Var, Expr]:
        extents = {position: simplify_index(_count(axes))}
        parts = unflatten_index(position, [a.extent for a in axes], extents)
        return {a.var: part for a, part in zip(axes, parts, strict=True)}

    def _emitter(self, extents: Mapping[Var, Expr]) -> Emitter:
        batch = {a.var: a.extent for a in self.product.batch}
        return Emitter(self.signature.values({**batch, **extents}))

    def _runs_along_k(self, operand: Operand) -> bool:
        """Tell whether neighbouring elements in memory are those of neighbouring k, as far as can be seen."""
        emitter = Emitter(self.signature.values(self.group.extents))
        k = self.product.k.var
        _value(operand, emitter, {})
        for s in statements(tuple(emitter.statements)):
            for x in walk(s):
                if isinstance(x, Load) and k in free_vars(address := flat_index(x.index, x.buffer.shape)):
                    return poly_of(address).get((k,)) == 1
        return False

    def _multiply(self) -> Stmt:
        """Return the loop over the steps of a tile."""
        s, dtype = self.schedule, self.product.dtype
        k, u, v = (Var(name, INDEX, floor=0) for name in "kuv")
        y, x = simplify_index(self.thread // self.columns), simplify_index(self.thread % self.columns)

        def add(u: Expr, v: Expr) -> Body:
            a, b, old = Load(self.a, (u,)), Load(self.b, (v,)), Load(self.acc, (u, v))
            new = Fma(a, b, old) if dtype.is_float else Binary("add", old, Binary("mul", a, b))
            return (Store(self.acc, (u, v), new),)

        load_a = Store(self.a, (u,), Load(self.left, (k, simplify_index(y * s.item_m + u))))
        load_b = Store(self.b, (v,), Load(self.right, (k, simplify_index(x * s.item_n + v))))
        body: Body = (
            For(u, const_index(s.item_m), (load_a,), "unrolled"),
            For(v, const_index(s.item_n), (load_b,), "unrolled"),
            _grid(s.item_m, s.item_n, add),
        )
        return For(k, const_index(s.tile_k), body, "unrolled")

    def _finish(self, u: Expr, v: Expr) -> Body:
        """Return the statements that compute the group's outputs from result (u, v) of the thread and store them."""
        s, p, group = self.schedule, self.product, self.group
        assert group.contract is not None
        y, x = simplify_index(self.thread // self.columns), simplify_index(self.thread % self.columns)
        i, j = Var("i", INDEX, floor=0), Var("j", INDEX, floor=0)
        lets: Body = (
            Let(i, simplify_index(self.row0 + (y * s.item_m + u))),
            Let(j, simplify_index(self.column0 + (x * s.item_n + v))),
        )
        place = {**self._place(i, p.m_axes), p.n_axis.var: j}
        emitter = self._emitter({i: self.m, j: self.n})

        def moved(index: Subscripts) -> Subscripts:
            return tuple(substitute_all(e, place) for e in index)

        emitter.know(
            group.contract,
            moved(tuple(a.var for a in group.rows)),
            emitter.let(group.contract.op.name, Load(self.acc, (u, v))),
        )
        store_outputs(emitter, [(node, moved(at)) for node, at in group.outputs], self.signature)
        tests = [
            compare("lt", position, extent)
            for position, extent, tile in ((i, self.m, s.tile_m), (j, self.n, s.tile_n))
            if simplify_index(extent % tile) != const_index(0)
        ]
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
