"""Contractions by register tiles: the forms ``packed`` and ``direct`` of a Schedule as a loop nest.

For each block of the result, in parallel::

    for each k block:
      pack the right factor into panels of nr columns        prologue of the right factor
      for each strip of mc rows:
        pack the left factor into a block                    prologue of the left factor, unless it is read in place
        for each panel:
          for each register tile: call the microkernel       result = or += left * right
          after the last k block: the rest of the group      epilogue

A right factor whose rows lie in memory is packed by the first tile of a block, as it multiplies; before, only a last
panel that is narrower than a tile. Form ``direct`` packs nothing else, nor does a block that is no higher than a tile.
If only a run knows that there are no more rows than that, blocks are wider and less deep (`Schedule.low`).
Partial sums stay in memory: in the output whose elements are the product's or come one by one from them, else in
scratch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from jitflow.expr import (
    Binary,
    Buffer,
    Const,
    Expr,
    Load,
    Var,
    as_index,
    compare,
    const_index,
    maximum,
    minimum,
    select,
)
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction
from lowering.contract_nest import Nest, ceil_div, divides, part_of, right_batch
from lowering.contract_runs import pack_runs
from lowering.fuse import FusionGroup
from lowering.loop_ir import Alloc, Body, CallKernel, If, Kernel, Prefetch, Stmt
from lowering.microkernel import LINE, loop, microkernel
from lowering.schedule import Schedule
from lowering.signature import Signature
from lowering.trace import (
    Emitter,
    flat_index,
    substitute_all,
    unflatten_index,
)

#: Rows of the right factor that a prefetch is ahead: at 12 cycles each, what memory takes to answer.
ROWS_AHEAD = 8


@dataclass(frozen=True, eq=False)
class Matrix:
    """A part of a matrix in memory: where its row (or panel) with a number begins, and how far its rows are apart.

    `ahead` is the distance of what is worth prefetching when a row of a panel is read: rows that follow by default.
    `is_whole` says that its panels are all as wide as a tile.
    """

    buffer: Buffer
    offset: Callable[[Expr], Expr]
    stride: Expr
    ahead: Expr | None = None
    is_whole: bool = False

    @property
    def prefetched(self) -> Expr:
        return self.stride * ROWS_AHEAD if self.ahead is None else self.ahead


#: Given a panel and what to do with its matrix, the statements that do it.
Right: TypeAlias = Callable[[Expr, Callable[[Matrix], Body]], Body]


@dataclass(frozen=True, eq=False)
class _Tile:
    """The extents of a strip in one panel and k block, `tall` whole tiles of rows; `first` is 0 where sums begin.

    `done` of the whole tiles have been multiplied already.
    """

    rows: Expr
    tall: Expr
    done: Expr
    cols: Expr
    depth: Expr
    first: Expr


@dataclass(frozen=True, eq=False)
class Block:
    """The part of the result that one parallel iteration computes: `batch`'s number, origin and size."""

    batch: Expr
    at: Mapping[Var, Expr]
    i: Expr
    j: Expr
    rows: Expr
    cols: Expr


class Tiles(Nest):
    """Forms ``packed`` and ``direct``."""

    def __init__(
        self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule, panels: Buffer | None
    ) -> None:
        super().__init__(group, c, signature, schedule)
        self.panels = panels
        self.callees: dict[str, Kernel] = {}
        s = schedule
        #: Whether the first tile of a block packs the right factor.
        self.copies = s.pack_b and panels is None and c.right.place is not None and c.right.unit == "across"
        #: The right factor is packed in runs, so that its rows are not cut into panels.
        self.in_runs = s.pack_b and panels is None and c.right.run is not None
        #: A k block has whole steps of the outermost of the axes that k walks, so it may be a little deeper than `kc`.
        self.step = c.right.steps[0] if self.in_runs and c.right.steps else 1
        self.kc = -(-s.kc // self.step) * self.step
        #: What is prefetched of a right factor in memory, if not the rows that follow.
        self.ahead: Expr | None = const_index(s.nr) if s.across else None
        shape = (s.mc, self.kc) if s.left == "rows" else (self.kc, s.mc)
        self.a_block = Buffer("a_block", self.dtype, shape, "scratch", 64)
        count = s.block_n // s.nr if s.pack_b else 1
        b_shape = (self.kc, s.block_n) if self.in_runs else (count, self.kc, s.nr)
        self.b_block = Buffer("b_block", self.dtype, b_shape, "scratch", 64)
        self.c_block = Buffer("c_block", self.dtype, (s.block_m, s.block_n), "scratch", 64)

    def body(self) -> Body:
        c, s = self.c, self.schedule
        top: list[Stmt] = []
        m_blocks = self.let(top, "m_blocks", ceil_div(c.m.extent, s.block_m))
        width, depth = self.block_size(top)
        n_blocks = self.let(top, "n_blocks", (c.n.extent + (width - 1)) // width)
        k_blocks = self.let(top, "k_blocks", maximum((c.k.extent + (depth - 1)) // depth, const_index(1)))
        k_step = self.let(top, "k_step", self.whole_steps((c.k.extent + (k_blocks - 1)) // k_blocks))
        tiles = simplify_index(m_blocks * n_blocks)
        total = simplify_index(self.batch_extent * tiles)

        def block(t: Expr) -> Body:
            assert isinstance(t, Var)
            out: list[Stmt] = [Alloc(b) for b in self.scratch()]
            self.extents[t] = total
            batch = self.let(out, "batch", t // tiles, self.batch_extent)
            tile = simplify_index(t % tiles, self.extents)
            # Blocks that follow each other share columns, and so the packed right factor.
            i = self.let(out, "i0", tile % m_blocks * s.block_m)
            j = self.let(out, "j0", tile // m_blocks * width)
            rows = self.let(out, "rows", part_of(c.m.extent, i, s.block_m))
            cols = self.let(out, "cols", part_of(c.n.extent, j, width))
            where = Block(batch, self.unflatten(out, c.batch, batch), i, j, rows, cols)
            out += loop("p", k_blocks, lambda p: self.k_block(where, p, k_blocks, k_step))
            return tuple(out)

        top += loop("t", total, block, "parallel")
        return tuple(top)

    def block_size(self, out: list[Stmt]) -> tuple[Expr, Expr]:
        """Return the columns of a block and the depth of its panels."""
        c, s, place = self.c, self.schedule, self.c.right.place
        width, depth = const_index(s.block_n), const_index(self.kc)
        if s.low is None or not self.copies or self.target is None or place is None:
            return width, depth
        # Of the number of blocks the plan must be able to compute with: it has no choices, but minima.
        is_high = self.let(out, "is_high", minimum(const_index(1), maximum(c.m.extent - 1, const_index(0)) // s.mr))

        def choose(name: str, low: int, high: Expr) -> Expr:
            return self.let(out, name, low + is_high * (high - low))

        self.ahead = choose("ahead", s.nr, place.along * ROWS_AHEAD)
        return choose("block", s.low[1], width), choose("most", s.low[0], depth)

    def whole_steps(self, depth: Expr) -> Expr:
        """Return `depth` rounded up to steps of the outermost of the axes that k walks."""
        return simplify_index(ceil_div(depth, self.step) * self.step)

    def scratch(self) -> list[Buffer]:
        s = self.schedule
        packs = self.panels is None and (s.pack_b or not divides(s.nr, self.c.n.extent))
        used = [self.a_block] * s.pack_a + [self.b_block] * packs
        return used + ([self.c_block] if self.target is None else [])

    def k_block(self, where: Block, p: Expr, k_blocks: Expr, k_step: Expr) -> Body:
        """Return the work on depth ``p * k_step`` and on."""
        c, s = self.c, self.schedule
        out: list[Stmt] = []
        k0 = self.let(out, "k0", p * k_step)
        depth = self.let(out, "depth", part_of(c.k.extent, k0, k_step))
        in_place = self.in_place(out, where)
        out += self.pack_right(where, in_place, k0, depth)
        right = self.right(where, in_place, k0)
        is_last = None if k_blocks == const_index(1) else compare("eq", p, k_blocks - 1)

        def strip(number: Expr) -> Body:
            out: list[Stmt] = []
            i = self.let(out, "i1", where.i + number * s.mc)
            rows = self.let(out, "strip", part_of(where.rows, number * s.mc, s.mc))
            tall = self.let(out, "tall", rows // s.mr)
            if s.pack_a:
                out += self.pack_left(where.at, i, rows, k0, depth)
            left = self.left(where, i, k0)

            def panel(q: Expr) -> Body:
                out: list[Stmt] = []
                exact = divides(s.nr, c.n.extent)
                cols = self.let(out, "width", s.nr if exact else minimum(where.cols - q * s.nr, const_index(s.nr)))
                sums = self.sums(where, i, q)
                done: Expr = const_index(0)
                if self.copies and not self.is_low():
                    first = self.is_first(where, in_place, number, q)
                    done = const_index(1) if first is None else self.let(out, "done", select(first, const_index(1), 0))
                    copy = self.copy_panel(left, self.place(where, k0), sums, q, depth, p)
                    out += copy if first is None else (If(compare("gt", done, 0), copy),)
                tile = _Tile(rows, tall, done, cols, depth, p)
                out += right(q, lambda right: self.multiply(left, right, sums, q, tile))
                if not self.is_plain:
                    rest = self.epilogue(where, i, q, rows, cols)
                    out += rest if is_last is None else (If(is_last, rest),)
                return tuple(out)

            out += loop("q", ceil_div(where.cols, s.nr), panel)
            return tuple(out)

        out += loop("strip", ceil_div(where.rows, s.mc), strip)
        return tuple(out)

    def left(self, where: Block, i: Expr, k0: Expr) -> Matrix:
        """Return where the left factor is: row `r` from `i` on, at `k0`."""
        s, place = self.schedule, self.c.left.place
        if s.pack_a:
            stride = const_index(self.kc if s.left == "rows" else s.mc)
            return Matrix(self.a_block, lambda r: r * stride if s.left == "rows" else r, stride)
        assert place is not None
        flat = place.flat

        def offset(r: Expr) -> Expr:
            return substitute_all(flat, {**where.at, self.c.m.var: i + r, self.c.k.var: k0})

        buffer = self.signature.leaves[place.node]
        return Matrix(buffer, offset, place.across if s.left == "rows" else place.along)

    def in_place(self, out: list[Stmt], where: Block) -> Expr:
        """Return how many panels of the block are read where they are: the first ones, each as wide as a tile."""
        whole = self.let(out, "whole", where.cols // self.schedule.nr)
        if not self.schedule.pack_b or (self.copies and self.is_low()):
            return whole
        if not self.copies or self.is_high():
            return const_index(0)
        return self.let(out, "in_place", select(compare("le", where.rows, self.schedule.mr), whole, 0))

    def is_low(self) -> bool:
        """Tell whether all blocks are known to be no higher than a tile."""
        m = self.c.m.extent
        return isinstance(m, Const) and m.value <= self.schedule.mr

    def is_high(self) -> bool:
        """Tell whether all blocks are known to be higher than a tile, as they are if the last one is."""
        m, s = self.c.m.extent, self.schedule
        return isinstance(m, Const) and (int(m.value) - 1) % s.block_m + 1 > s.mr

    def is_first(self, where: Block, in_place: Expr, strip: Expr, q: Expr) -> Expr | None:
        """Return whether panel `q` is yet to be packed in `strip`, by a tile that is whole; None if that is known."""
        tests: list[Expr] = []
        if strip != const_index(0):
            tests.append(compare("eq", strip, 0))
        if not divides(self.schedule.nr, self.c.n.extent):
            tests.append(compare("lt", q, where.cols // self.schedule.nr))
        if not self.is_high():
            tests.append(compare("eq", in_place, 0))
        return functools.reduce(lambda a, b: Binary("and", a, b), tests) if tests else None

    def copy_panel(self, left: Matrix, here: Matrix, sums: Matrix, q: Expr, depth: Expr, first: Expr) -> Body:
        """Return the call that multiplies the first tile of rows and packs panel `q` of the right factor, `here`."""
        s, zero = self.schedule, const_index(0)
        kernel = microkernel(self.dtype, s.mr, s.nr, left=s.left, masks=s.masks, copies=True)
        self.callees[kernel.name] = kernel
        offsets = (left.offset(zero), here.offset(q), sums.offset(zero), q * (s.kc * s.nr))
        return (
            CallKernel(
                kernel.name,
                (left.buffer, here.buffer, sums.buffer, self.b_block),
                tuple(simplify_index(o, self.extents) for o in offsets),
                (
                    const_index(s.mr),
                    const_index(s.nr),
                    depth,
                    left.stride,
                    here.stride,
                    sums.stride,
                    first,
                    here.prefetched,
                ),
            ),
        )

    def right(self, where: Block, in_place: Expr, k0: Expr) -> Right:
        """Return what chooses, for panel `q`, where the right factor is."""
        s, c, place = self.schedule, self.c, self.c.right.place
        nr = const_index(s.nr)
        if self.panels is not None:
            axes = right_batch(c)
            batch = flat_index(tuple(where.at[a.var] for a in axes), [a.extent for a in axes], self.extents)
            first = batch * ceil_div(c.n.extent, s.nr) + where.j // s.nr
            ready = Matrix(self.panels, lambda q: ((first + q) * c.k.extent + k0) * s.nr, nr)
            return lambda q, use: use(ready)
        if self.in_runs:
            rows = Matrix(self.b_block, lambda q: q * s.nr, const_index(s.block_n))
            return lambda q, use: use(rows)
        packed = Matrix(self.b_block, lambda q: (q - in_place) * (self.kc * s.nr), nr)
        if in_place == const_index(0) or place is None:
            return lambda q, use: use(packed)
        here = self.place(where, k0)
        if not s.pack_b and divides(s.nr, c.n.extent):
            return lambda q, use: use(here)
        return lambda q, use: (If(compare("lt", q, in_place), use(here), use(packed)),)

    def place(self, where: Block, k0: Expr) -> Matrix:
        """Return where the right factor lies in memory: panel `q` of the block, at `k0`."""
        c, place = self.c, self.c.right.place
        assert place is not None
        flat = place.flat

        def offset(q: Expr) -> Expr:
            return substitute_all(flat, {**where.at, c.n.var: where.j + q * self.schedule.nr, c.k.var: k0})

        return Matrix(self.signature.leaves[place.node], offset, place.along, self.ahead, is_whole=True)

    def sums(self, where: Block, i: Expr, q: Expr) -> Matrix:
        """Return where the sums of panel `q` are: row `r` from `i` on."""
        c, s = self.c, self.schedule
        if self.target is None:
            stride = as_index(self.c_block.shape[1])
            return Matrix(self.c_block, lambda r: (i - where.i + r) * stride + q * s.nr, stride)

        def offset(r: Expr) -> Expr:
            return (where.batch * c.m.extent + i + r) * c.n.extent + where.j + q * s.nr

        return Matrix(self.signature.outputs[self.target[0]], offset, c.n.extent)

    def multiply(self, left: Matrix, right: Matrix, sums: Matrix, q: Expr, part: _Tile) -> Body:
        """Return the calls of the microkernels on a strip of rows and panel `q`."""
        s = self.schedule
        wide = self.tiles(s.mr, s.nr, s.rest, left, right, sums, q, part)
        if s.last is None or right.is_whole:
            return wide
        tall = simplify_index(part.rows // s.last[0], self.extents)
        narrow = dataclasses.replace(part, tall=tall, done=const_index(0))
        last = self.tiles(*s.last, 0, left, right, sums, q, narrow)
        # Form ``direct`` packs nothing else.
        return last if not s.pack_b else (If(compare("lt", part.cols, s.nr), last, wide),)

    def tiles(
        self, mr: int, nr: int, rest: int, left: Matrix, right: Matrix, sums: Matrix, q: Expr, part: _Tile
    ) -> Body:
        """Return the calls of the `mr` x `nr` microkernel, and of one `rest` high for what is left of the rows."""
        s = self.schedule

        def call(height: int, r: Expr, count: Expr) -> Body:
            kernel = microkernel(self.dtype, height, nr, left=s.left, masks=s.masks)
            self.callees[kernel.name] = kernel
            offsets = (left.offset(r), right.offset(q), sums.offset(r))
            return (
                CallKernel(
                    kernel.name,
                    (left.buffer, right.buffer, sums.buffer),
                    tuple(simplify_index(o, self.extents) for o in offsets),
                    (
                        count,
                        part.cols,
                        part.depth,
                        left.stride,
                        right.stride,
                        sums.stride,
                        part.first,
                        right.prefetched,
                    ),
                ),
            )

        start = part.done
        whole = loop("r", part.tall - start, lambda r: call(mr, (r + start) * mr, const_index(mr)))
        # All rows may make whole tiles, and those of a block or strip yet not: these are made for the usual height.
        if divides(mr, self.c.m.extent) and self.schedule.block_m % mr == 0 and self.schedule.mc % mr == 0:
            return whole
        height = rest or mr
        done = simplify_index(part.tall * mr)

        def short(r: Expr) -> Body:
            top = simplify_index(done + r * height)
            return call(height, top, minimum(part.rows - top, const_index(height)))

        return (*whole, *loop("r", ceil_div(part.rows - done, height), short))

    def pack_left(self, at: Mapping[Var, Expr], i: Expr, rows: Expr, k0: Expr, depth: Expr) -> Body:
        """Return the copy of the left factor to its block, along what is contiguous in memory."""
        c = self.c
        by_rows = self.schedule.left == "rows"

        def row(x: Expr) -> Body:
            out: list[Stmt] = []
            outer = (
                self.walk(out, c.m, c.m_axes, i + x) if by_rows else {c.k.var: self.let(out, "k", k0 + x, c.k.extent)}
            )

            def element(y: Expr) -> Body:
                out: list[Stmt] = []
                inner = (
                    {c.k.var: self.let(out, "k", k0 + y, c.k.extent)}
                    if by_rows
                    else self.walk(out, c.m, c.m_axes, i + y)
                )
                return (*out, *self.copy(c.left, {**at, **outer, **inner}, self.a_block, (x, y)))

            if not by_rows:
                out += self.prefetch_left({**at, c.m.var: i, c.k.var: outer[c.k.var] + ROWS_AHEAD})
            return (*out, *loop("y", depth if by_rows else rows, element, "vectorized"))

        return loop("x", rows if by_rows else depth, row)

    def prefetch_left(self, at: Mapping[Var, Expr]) -> Body:
        """Return prefetches of a strip's part of a column of the left factor, from `at` on, if it is in memory."""
        place, line = self.c.left.place, LINE // self.dtype.itemsize
        if place is None:
            return ()
        start = substitute_all(place.flat, at)
        buffer = self.signature.leaves[place.node]
        places = (start + v for v in range(0, self.schedule.mc, line))
        return tuple(Prefetch(buffer, unflatten_index(p, buffer.shape, self.extents)) for p in places)

    def pack_right(self, where: Block, in_place: Expr, k0: Expr, depth: Expr) -> Body:
        """Return the copy of the panels after the first `in_place` to ``b_block[q, k, l]``, with zeros past the end.

        Where rows are contiguous, a row is dealt to all panels before the next is read; else one panel is filled after
        the other, so that the lines its elements come from stay in the cache.
        """
        nr, k = self.schedule.nr, self.c.k
        if self.panels is not None:
            return ()
        if self.in_runs:
            return pack_runs(self, where.at, where.j, where.cols, k0, depth, self.b_block)
        whole, rest = simplify_index(where.cols // nr - in_place), simplify_index(where.cols % nr)

        def piece(q: Expr, kk: Expr, width: Expr) -> Body:
            out: list[Stmt] = []
            at_k = self.let(out, "k", k0 + kk, k.extent)
            n0 = simplify_index(where.j + (in_place + q) * nr)
            return (*out, *self.piece(where.at, n0, width, at_k, self.b_block, (q, kk)))

        full = const_index(nr)
        body: Body = ()
        if self.schedule.pack_b and self.c.right.unit == "along":
            body = loop("q", whole, lambda q: loop("kk", depth, lambda kk: piece(q, kk, full)))
        elif self.schedule.pack_b and not self.copies:
            body = loop("kk", depth, lambda kk: loop("q", whole, lambda q: piece(q, kk, full)))
        if divides(nr, self.c.n.extent):
            return body
        last = loop("kk", depth, lambda kk: piece(whole, kk, rest))
        return (*body, *(last if isinstance(rest, Const) else (If(compare("gt", rest, 0), last),)))

    def epilogue(self, where: Block, i: Expr, q: Expr, rows: Expr, cols: Expr) -> Body:
        """Return the rest of the group on a strip of rows and panel `q`."""

        def row(r: Expr) -> Body:
            out: list[Stmt] = []
            at_row = {**where.at, **self.walk(out, self.c.m, self.c.m_axes, i + r)}

            def element(l: Expr) -> Body:
                out: list[Stmt] = []
                at = {**at_row, **self.walk(out, self.c.n, self.c.n_axes, where.j + q * self.schedule.nr + l)}

                def sums(emitter: Emitter) -> Expr:
                    if self.target is not None:
                        return self.read_target(emitter, at)
                    return Load(self.c_block, (i - where.i + r, q * self.schedule.nr + l))

                return (*out, *self.finish(at, sums))

            return (*out, *loop("l", cols, element, "vectorized"))

        return loop("r", rows, row)
