"""Contractions of a few rows, which read their matrix once: the forms ``vector`` and ``dots`` as loop nests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jitflow.expr import (
    Buffer,
    Const,
    Expr,
    Fma,
    Load,
    Var,
    const,
    const_index,
    minimum,
)
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction
from lowering.contract_nest import Nest, part_of
from lowering.fuse import FusionGroup
from lowering.loop_ir import WORKERS, Alloc, Body, Stmt, Store
from lowering.microkernel import loop
from lowering.schedule import Schedule
from lowering.signature import Signature, store_output
from lowering.trace import (
    Emitter,
)

#: Rows of the matrix read side by side in form ``vector``: partial sums are read and written once for so many.
ROWS_AT_ONCE = 8
#: Sums that run side by side in form ``dots``: two units, a latency of 4, and as many streams as prefetchers follow.
SUMS_AT_ONCE = 16
#: Columns of one parallel block of form ``vector``: its partial sums (16 KB of f32) stay in the first cache. Long rows
#: are read faster, 2048 by 8 % than 1024, so where there are fewer columns there is one block for each worker.
VECTOR_COLS, LEAST_COLS = 4096, 512
#: Elements of a matrix that is read in some 10 us: not worth sharing.
SMALL_MATRIX = 1 << 17
#: Sums of one parallel block of form ``dots``.
DOTS = 64


class _Rows(Nest):
    """Forms for a few rows, each a literal: what ``vector`` and ``dots`` share."""

    #: Columns of one parallel block at most.
    width: int

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        super().__init__(group, c, signature, schedule)
        # Rows a cache line apart from a power of two: elements of one column do not compete for places in the cache.
        shape = (schedule.mr, self.width + 64 // self.dtype.itemsize)
        self.c_block = Buffer("c_block", self.dtype, shape, "scratch", 64)

    def body(self) -> Body:
        c = self.c
        top: list[Stmt] = []
        width = self.let(top, "width", self.block_width())
        blocks = self.let(top, "n_blocks", simplify_index((c.n.extent + (width - 1)) // width))
        total = simplify_index(self.batch_extent * blocks)

        def block(t: Expr) -> Body:
            assert isinstance(t, Var)
            out: list[Stmt] = [] if self.target is not None else [Alloc(self.c_block)]
            self.extents[t] = total
            batch = self.let(out, "batch", t // blocks, self.batch_extent)
            at = self.unflatten(out, c.batch, batch)
            j = self.let(out, "j0", simplify_index(t % blocks, self.extents) * width)
            cols = self.let(out, "cols", part_of(c.n.extent, j, width))
            rows = [
                {**at, c.m.var: const_index(r), **self.unflatten(out, c.m_axes, const_index(r))} for r in self.heights
            ]
            out += self.sums(rows, j, cols)
            if not self.is_plain:
                for r, row in zip(self.heights, rows, strict=True):
                    out += loop("l", cols, lambda l, r=r, row=row: self.last(r, row, j, l), "vectorized")  # type: ignore[misc]
            return tuple(out)

        top += loop("t", total, block, "parallel")
        return tuple(top)

    def block_width(self) -> Expr:
        """Return the columns of one parallel block."""
        return const_index(self.width)

    @property
    def heights(self) -> range:
        return range(self.schedule.mr)

    def sums(self, rows: Sequence[Mapping[Var, Expr]], j: Expr, cols: Expr) -> Body:
        """Return the statements that compute the product in the columns from `j`."""
        raise NotImplementedError

    def column(self, out: list[Stmt], j: Expr, l: Expr) -> dict[Var, Expr]:
        return self.walk(out, self.c.n, self.c.n_axes, j + l)

    def last(self, r: int, row: Mapping[Var, Expr], j: Expr, l: Expr) -> Body:
        """Return the epilogue of one element."""
        out: list[Stmt] = []
        at = {**row, **self.column(out, j, l)}
        return (*out, *self.finish(at, lambda emitter: self.load(emitter, r, at, l)))

    def load(self, emitter: Emitter, r: int, at: Mapping[Var, Expr], l: Expr) -> Expr:
        """Return the partial sum in row `r` and column `l` of the block."""
        return Load(self.c_block, (const_index(r), l)) if self.target is None else self.read_target(emitter, at)

    def store(self, emitter: Emitter, r: int, at: Mapping[Var, Expr], l: Expr, value: Expr) -> None:
        """Append the store of a partial sum."""
        if self.target is None:
            emitter.statements.append(Store(self.c_block, (const_index(r), l), value))
        else:
            node, index = self.target
            store_output(emitter, self.signature, node, self.moved(emitter, index, at), value)


class Vector(_Rows):
    """Form ``vector``: the matrix is read row by row, a few rows side by side, and added to sums that stay near."""

    width = VECTOR_COLS

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        super().__init__(group, c, signature, schedule)
        if not isinstance(self.block_width(), Const):
            # Where one block of the result ends and the next begins, two workers would write to one line all the time.
            self.target, self.is_plain = None, False

    def block_width(self) -> Expr:
        n, elements = self.c.n.extent, simplify_index(self.c.n.extent * self.c.k.extent)
        is_small = isinstance(elements, Const) and elements.value <= SMALL_MATRIX
        if is_small or (isinstance(n, Const) and n.value <= LEAST_COLS):
            return const_index(self.width)
        even = (n + (LEAST_COLS * WORKERS - 1)) // (LEAST_COLS * WORKERS) * LEAST_COLS
        return minimum(const_index(self.width), even)

    def sums(self, rows: Sequence[Mapping[Var, Expr]], j: Expr, cols: Expr) -> Body:
        c = self.c
        count = max(2, ROWS_AT_ONCE // self.schedule.mr)

        def clear(l: Expr) -> Body:
            out: list[Stmt] = []
            column = self.column(out, j, l)
            emitter = self.emitter()
            for r, row in zip(self.heights, rows, strict=True):
                self.store(emitter, r, {**row, **column}, l, const(0, self.dtype))
            return (*out, *emitter.statements)

        def add(start: Expr, count: int) -> Body:
            out: list[Stmt] = []
            ks = [self.let(out, "k", start + u, c.k.extent) for u in range(count)]
            emitter = self.emitter()
            x = [[emitter.let("x", self.factor(emitter, c.left, {**row, c.k.var: k})) for k in ks] for row in rows]
            out += emitter.statements

            def element(l: Expr) -> Body:
                out: list[Stmt] = []
                column = self.column(out, j, l)
                emitter = self.emitter()
                at = [{**row, **column} for row in rows]
                acc = [emitter.let("acc", self.load(emitter, r, at[r], l)) for r in self.heights]
                for u, k in enumerate(ks):
                    y = emitter.let("y", self.factor(emitter, c.right, {**at[0], c.k.var: k}))
                    acc = [emitter.let("acc", Fma(x[r][u], y, acc[r])) for r in self.heights]
                for r in self.heights:
                    self.store(emitter, r, at[r], l, acc[r])
                return (*out, *emitter.statements)

            return (*out, *loop("l", cols, element, "vectorized"))

        whole, rest = simplify_index(c.k.extent // count), simplify_index(c.k.extent % count)
        done = simplify_index(whole * count)
        return (
            *loop("l", cols, clear, "vectorized"),
            *loop("p", whole, lambda p: add(p * count, count)),
            *loop("p", rest, lambda p: add(done + p, 1)),
        )


class Dots(_Rows):
    """Form ``dots``: sums along k, which is contiguous, several side by side because each is one chain."""

    width = DOTS

    def sums(self, rows: Sequence[Mapping[Var, Expr]], j: Expr, cols: Expr) -> Body:
        count = max(1, SUMS_AT_ONCE // self.schedule.mr)
        whole, rest = simplify_index(cols // count), simplify_index(cols % count)
        done = simplify_index(whole * count)
        return (
            *loop("g", whole, lambda g: self.group_of(rows, j, g * count, count)),
            *loop("g", rest, lambda g: self.group_of(rows, j, done + g, 1)),
        )

    def group_of(self, rows: Sequence[Mapping[Var, Expr]], j: Expr, start: Expr, count: int) -> Body:
        """Return `count` columns from `start`, side by side."""
        c = self.c
        acc = Buffer("acc", self.dtype, (self.schedule.mr, count), "register")
        out: list[Stmt] = [Alloc(acc)]
        columns = [self.column(out, j, simplify_index(start + u)) for u in range(count)]
        cells = [(r, u) for r in self.heights for u in range(count)]
        at = [(const_index(r), const_index(u)) for r, u in cells]
        out += [Store(acc, i, const(0, self.dtype)) for i in at]

        def step(k: Expr) -> Body:
            if isinstance(k, Var):
                self.extents[k] = c.k.extent
            emitter = self.emitter()
            x = [emitter.let("x", self.factor(emitter, c.left, {**row, c.k.var: k})) for row in rows]
            for u, column in enumerate(columns):
                y = emitter.let("y", self.factor(emitter, c.right, {**rows[0], **column, c.k.var: k}))
                for r in self.heights:
                    i = (const_index(r), const_index(u))
                    emitter.statements.append(Store(acc, i, Fma(x[r], y, Load(acc, i))))
            return tuple(emitter.statements)

        out += loop("k", c.k.extent, step)
        emitter = self.emitter()
        for (r, u), i in zip(cells, at, strict=True):
            self.store(emitter, r, {**rows[r], **columns[u]}, simplify_index(start + u), Load(acc, i))
        return (*out, *emitter.statements)
