"""A contraction group and its Schedule into a loop nest: register tiles, packed factors, fused prologue and epilogue.

Form ``packed`` (``direct`` leaves out packing the right factor), for each block of the result, in parallel::

    for each k block:
      pack the right factor into panels of nr columns        prologue of the right factor
      for each strip of mc rows:
        pack the left factor into a block                    prologue of the left factor, unless it is read in place
        for each panel:
          for each register tile: call the microkernel       result = or += left * right
          after the last k block: the rest of the group      epilogue

Partial sums stay in memory: in the output whose elements are the product's or come one by one from them, else in
scratch. Each element is one chain of Fma over increasing k from 0, continued from its partial sum, in every form. So
all schedules give the same bits as the plain nest of `lowering.build`.

A right factor that does not change between runs can be packed once (:func:`packed_operand`, :func:`build_pack`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from jitflow.dtypes import DType
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Buffer,
    Const,
    Expr,
    Fma,
    Load,
    Var,
    as_index,
    compare,
    const,
    const_index,
    maximum,
    minimum,
    select,
)
from jitflow.graph import Node
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction, Factor, contraction_of
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, CallKernel, If, Kernel, Let, Stmt, Store
from lowering.microkernel import loop, microkernel
from lowering.schedule import Schedule
from lowering.signature import Signature, make_kernel, notes_of, signature_of, store_output
from lowering.text import show
from lowering.trace import (
    Element,
    Emitter,
    Subscripts,
    flat_index,
    literal_of,
    substitute_all,
    unflatten_index,
)

#: Rows up to which packing the right factor costs more than reading it as it lies, if only a run knows how many.
UNPACKED_ROWS = 12
#: Rows of B read side by side in form ``vector``: the partial sums are read and written once for so many.
ROWS_AT_ONCE = 8
#: Sums that run side by side in form ``dots``: two units, a latency of 4, and as many streams as prefetchers follow.
SUMS_AT_ONCE = 16
#: Columns of one parallel block of form ``vector``: its partial sums (16 KB of f32) stay in the first cache.
VECTOR_COLS = 4096
#: Sums of one parallel block of form ``dots``.
DOTS = 64


def build_contract(
    group: FusionGroup,
    name: str,
    names: Mapping[Node, str],
    schedule: Schedule,
    packed: Mapping[Node, Buffer] | None = None,
) -> Kernel:
    """Return the kernel of contraction `group`. Its parameters are those of `lowering.build.signature_of`.

    `packed` gives, in the place of a leaf, the buffer that :func:`build_pack` has filled from it.
    """
    signature = signature_of(group, names)
    packed = packed or {}
    signature = Signature(
        {n: packed.get(n, b) for n, b in signature.leaves.items()}, signature.outputs, signature.checks
    )
    c = _contraction(group)
    if schedule.form in ("packed", "direct"):
        nest = _Tiles(group, c, signature, schedule, next(iter(packed.values()), None))
        body, callees = nest.body(), tuple(nest.callees.values())
    elif schedule.form == "vector":
        body, callees = _Vector(group, c, signature, schedule).body(), ()
    elif schedule.form == "dots":
        body, callees = _Dots(group, c, signature, schedule).body(), ()
    else:
        raise CompilerBug(f"form {schedule.form!r} is built by lowering.build")
    notes = (*notes_of(group, names), str(schedule))
    k = make_kernel(name, signature, body, notes)
    return Kernel(k.name, k.params, k.dims, k.body, k.reads, k.notes, callees)


def _contraction(group: FusionGroup) -> Contraction:
    c = contraction_of(group)
    if c is None:
        raise CompilerBug("this group has no product of two factors")
    return c


def ceil_div(a: Expr | int, b: int) -> Expr:
    """Return ``a / b`` rounded up."""
    return simplify_index((as_index(a) + (b - 1)) // b)


def part_of(extent: Expr, start: Expr, step: Expr | int) -> Expr:
    """Return how much of `extent` is in the part of size `step` that begins at `start`, a multiple of it."""
    step = as_index(step)
    if isinstance(extent, Const) and isinstance(step, Const) and step.value and extent.value % step.value == 0:
        return step
    return minimum(extent - start, step)


class _Nest:
    """What all forms share: index variables bound by Lets, elements of the factors, and the epilogue."""

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        self.group, self.c, self.signature, self.schedule = group, c, signature, schedule
        self.dtype: DType = c.node.dtype
        #: Exclusive bounds of the index variables bound so far.
        self.extents: dict[Var, Expr] = {}
        self.target = self._target()
        #: Whether the product itself is all that is computed, in place.
        self.is_plain = self.target is not None and self.target[0] is c.node and len(group.outputs) == 1

    def _target(self) -> Element | None:
        """Return the output whose memory can hold the partial sums: each element in its place, and of their dtype."""
        rows = self.group.rows
        extents = {a.var: a.extent for a in rows}
        position = flat_index(tuple(a.var for a in rows), [a.extent for a in rows], extents)
        for node, at in self.group.outputs:
            if node.dtype is self.dtype and flat_index(at, node.shape, extents) == position:
                return node, at
        return None

    def let(self, out: list[Stmt], name: str, value: Expr | int, extent: Expr | None = None) -> Expr:
        """Bind `value`, if it is worth it, to a variable below `extent`; append the Let to `out`."""
        value = simplify_index(value, self.extents)
        if isinstance(value, (Const, Var)):
            return value
        var = Var(name, floor=0)
        if extent is not None:
            self.extents[var] = extent
        out.append(Let(var, value))
        return var

    def unflatten(self, out: list[Stmt], axes: Sequence[Axis], position: Expr) -> dict[Var, Expr]:
        """Return values for the variables of `axes` at row-major `position`."""
        parts = unflatten_index(position, [a.extent for a in axes], self.extents)
        return {a.var: self.let(out, a.var.name, p, a.extent) for a, p in zip(axes, parts, strict=True)}

    def emitter(self) -> Emitter:
        return Emitter(self.signature.values(dict(self.extents)))

    def factor(self, emitter: Emitter, f: Factor, at: Mapping[Var, Expr]) -> Expr:
        """Return the element of factor `f` where the axes have the values `at`."""
        values = dict(at)
        for d in f.demands:
            cond = None if d.cond is None else substitute_all(d.cond, values)
            index = tuple(substitute_all(i, values) for i in d.at)
            values[d.var] = emitter.value(d.node, index, cond)
        return substitute_all(f.expr, values)

    def copy(self, f: Factor, at: Mapping[Var, Expr], buffer: Buffer, index: Subscripts) -> Body:
        """Return the statements that write one element of factor `f` to `buffer`."""
        emitter = self.emitter()
        value = self.factor(emitter, f, at)
        return (*emitter.statements, Store(buffer, index, value))

    def finish(self, at: Mapping[Var, Expr], sums: Callable[[Emitter], Expr]) -> Body:
        """Return the epilogue of one element; `sums` gives the element of the product."""
        emitter = self.emitter()
        value = emitter.let(self.c.node.op.name, sums(emitter))
        emitter.know(self.c.node, tuple(at[a.var] for a in self.group.rows), value)
        for node, index in self.group.outputs:
            if self.target is not None and node is self.c.node and self.target[0] is node:
                continue
            where = self.moved(emitter, index, at)
            store_output(emitter, self.signature, node, where, emitter.value(node, where))
        return tuple(emitter.statements)

    def moved(self, emitter: Emitter, index: Subscripts, at: Mapping[Var, Expr]) -> Subscripts:
        """Return `index` of an output where the axes have the values `at`."""
        return emitter.canonical(tuple(substitute_all(i, at) for i in index))

    def read_target(self, emitter: Emitter, at: Mapping[Var, Expr]) -> Expr:
        """Return the partial sum kept in an output."""
        assert self.target is not None
        node, index = self.target
        return Load(self.signature.outputs[node], self.signature.address(node, self.moved(emitter, index, at)))

    def piece(self, at: Mapping[Var, Expr], n0: Expr, width: Expr, k: Expr, buffer: Buffer, before: Subscripts) -> Body:
        """Return row `k` of a panel of the right factor: `width` columns from `n0` on, and zeros up to ``nr``."""
        nr = self.schedule.nr

        def element(l: Expr) -> Body:
            out: list[Stmt] = []
            column = self.walk(out, self.c.n, self.c.n_axes, n0 + l)
            return (*out, *self.copy(self.c.right, {**at, **column, self.c.k.var: k}, buffer, (*before, l)))

        def nothing(l: Expr) -> Body:
            return (Store(buffer, (*before, simplify_index(width + l)), const(0, self.dtype)),)

        return (*loop("l", width, element, "vectorized"), *loop("l", nr - width, nothing, "vectorized"))

    def walk(self, out: list[Stmt], axis: Axis, axes: Sequence[Axis], position: Expr) -> dict[Var, Expr]:
        """Return values for `axis`, which walks `axes`, and for these."""
        at = self.let(out, axis.var.name, position, axis.extent)
        return {axis.var: at, **self.unflatten(out, axes, at)}

    @property
    def batch_extent(self) -> Expr:
        return _extent(self.c.batch)


@dataclass(frozen=True, eq=False)
class _Matrix:
    """A part of a matrix in memory: where its row (or panel) with a number begins, and how far its rows are apart."""

    buffer: Buffer
    offset: Callable[[Expr], Expr]
    stride: Expr


#: Given a panel and what to do with its matrix, the statements that do it.
_Right: TypeAlias = Callable[[Expr, Callable[[_Matrix], Body]], Body]


@dataclass(frozen=True, eq=False)
class _Tile:
    """The extents of a strip in one panel and k block, `tall` whole tiles of rows; `first` is 0 where sums begin."""

    rows: Expr
    tall: Expr
    cols: Expr
    depth: Expr
    first: Expr


@dataclass(frozen=True, eq=False)
class _Block:
    """The part of the result that one parallel iteration computes: `batch`'s number, origin and size."""

    batch: Expr
    at: Mapping[Var, Expr]
    i: Expr
    j: Expr
    rows: Expr
    cols: Expr


class _Tiles(_Nest):
    """Forms ``packed`` and ``direct``."""

    def __init__(
        self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule, panels: Buffer | None
    ) -> None:
        super().__init__(group, c, signature, schedule)
        self.panels = panels
        self.callees: dict[str, Kernel] = {}
        s = schedule
        shape = (s.mc, s.kc) if s.left == "rows" else (s.kc, s.mc)
        self.a_block = Buffer("a_block", self.dtype, shape, "scratch", 64)
        count = s.block_n // s.nr if s.pack_b else 1
        self.b_block = Buffer("b_block", self.dtype, (count, s.kc, s.nr), "scratch", 64)
        self.c_block = Buffer("c_block", self.dtype, (s.block_m, s.block_n), "scratch", 64)

    def body(self) -> Body:
        c, s = self.c, self.schedule
        top: list[Stmt] = []
        m_blocks = self.let(top, "m_blocks", ceil_div(c.m.extent, s.block_m))
        n_blocks = self.let(top, "n_blocks", ceil_div(c.n.extent, s.block_n))
        k_blocks = self.let(top, "k_blocks", maximum(ceil_div(c.k.extent, s.kc), const_index(1)))
        k_step = self.let(top, "k_step", (c.k.extent + (k_blocks - 1)) // k_blocks)
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
            j = self.let(out, "j0", tile // m_blocks * s.block_n)
            rows = self.let(out, "rows", part_of(c.m.extent, i, s.block_m))
            cols = self.let(out, "cols", part_of(c.n.extent, j, s.block_n))
            where = _Block(batch, self.unflatten(out, c.batch, batch), i, j, rows, cols)
            out += loop("p", k_blocks, lambda p: self.k_block(where, p, k_blocks, k_step))
            return tuple(out)

        top += loop("t", total, block, "parallel")
        return tuple(top)

    def scratch(self) -> list[Buffer]:
        s = self.schedule
        packs = self.panels is None and (s.pack_b or not _divides(s.nr, self.c.n.extent))
        used = [self.a_block] * s.pack_a + [self.b_block] * packs
        return used + ([self.c_block] if self.target is None else [])

    def k_block(self, where: _Block, p: Expr, k_blocks: Expr, k_step: Expr) -> Body:
        """Return the work on depth ``p * k_step`` and on."""
        c, s = self.c, self.schedule
        out: list[Stmt] = []
        k0 = self.let(out, "k0", p * k_step)
        depth = self.let(out, "depth", part_of(c.k.extent, k0, k_step))
        in_place = self.in_place(out, where)
        out += self.pack_right(where, in_place, k0, depth)
        right = self.right(where, in_place, k0)
        is_last = None if k_blocks == const_index(1) else compare("eq", p, k_blocks - 1)

        def strip(q: Expr) -> Body:
            out: list[Stmt] = []
            i = self.let(out, "i1", where.i + q * s.mc)
            rows = self.let(out, "strip", part_of(where.rows, q * s.mc, s.mc))
            tall = self.let(out, "tall", rows // s.mr)
            if s.pack_a:
                out += self.pack_left(where.at, i, rows, k0, depth)
            left = self.left(where, i, k0)

            def panel(q: Expr) -> Body:
                out: list[Stmt] = []
                exact = _divides(s.nr, c.n.extent)
                cols = self.let(out, "width", s.nr if exact else minimum(where.cols - q * s.nr, const_index(s.nr)))
                sums = self.sums(where, i, q)

                def multiply(right: _Matrix) -> Body:
                    return self.multiply(left, right, sums, q, _Tile(rows, tall, cols, depth, p))

                out += right(q, multiply)
                if not self.is_plain:
                    done = self.epilogue(where, i, q, rows, cols)
                    out += done if is_last is None else (If(is_last, done),)
                return tuple(out)

            out += loop("q", ceil_div(where.cols, s.nr), panel)
            return tuple(out)

        out += loop("strip", ceil_div(where.rows, s.mc), strip)
        return tuple(out)

    def left(self, where: _Block, i: Expr, k0: Expr) -> _Matrix:
        """Return where the left factor is: row `r` from `i` on, at `k0`."""
        s, place = self.schedule, self.c.left.place
        if s.pack_a:
            stride = const_index(s.kc if s.left == "rows" else s.mc)
            return _Matrix(self.a_block, lambda r: r * stride if s.left == "rows" else r, stride)
        assert place is not None
        flat = place.flat

        def offset(r: Expr) -> Expr:
            return substitute_all(flat, {**where.at, self.c.m.var: i + r, self.c.k.var: k0})

        buffer = self.signature.leaves[place.node]
        return _Matrix(buffer, offset, place.across if s.left == "rows" else place.along)

    def in_place(self, out: list[Stmt], where: _Block) -> Expr:
        """Return how many panels of the block are read where they are: the first ones, each as wide as a tile."""
        c, nr = self.c, self.schedule.nr
        whole = self.let(out, "whole", where.cols // nr)
        if not self.schedule.pack_b:
            return whole
        place = c.right.place
        if self.panels is not None or place is None or c.right.unit != "across" or isinstance(c.m.extent, Const):
            return const_index(0)
        return self.let(out, "in_place", select(compare("le", c.m.extent, UNPACKED_ROWS), whole, 0))

    def right(self, where: _Block, in_place: Expr, k0: Expr) -> _Right:
        """Return what chooses, for panel `q`, where the right factor is."""
        s, c, place = self.schedule, self.c, self.c.right.place
        nr = const_index(s.nr)
        if self.panels is not None:
            axes = _right_batch(c)
            batch = flat_index(tuple(where.at[a.var] for a in axes), [a.extent for a in axes], self.extents)
            first = batch * ceil_div(c.n.extent, s.nr) + where.j // s.nr
            ready = _Matrix(self.panels, lambda q: ((first + q) * c.k.extent + k0) * s.nr, nr)
            return lambda q, use: use(ready)
        packed = _Matrix(self.b_block, lambda q: (q - in_place) * (s.kc * s.nr), nr)
        if in_place == const_index(0) or place is None:
            return lambda q, use: use(packed)
        flat = place.flat

        def offset(q: Expr) -> Expr:
            return substitute_all(flat, {**where.at, c.n.var: where.j + q * s.nr, c.k.var: k0})

        here = _Matrix(self.signature.leaves[place.node], offset, place.along)
        if not s.pack_b and _divides(s.nr, c.n.extent):
            return lambda q, use: use(here)
        return lambda q, use: (If(compare("lt", q, in_place), use(here), use(packed)),)

    def sums(self, where: _Block, i: Expr, q: Expr) -> _Matrix:
        """Return where the sums of panel `q` are: row `r` from `i` on."""
        c, s = self.c, self.schedule
        if self.target is None:
            stride = const_index(s.block_n)
            return _Matrix(self.c_block, lambda r: (i - where.i + r) * stride + q * s.nr, stride)

        def offset(r: Expr) -> Expr:
            return (where.batch * c.m.extent + i + r) * c.n.extent + where.j + q * s.nr

        return _Matrix(self.signature.outputs[self.target[0]], offset, c.n.extent)

    def multiply(self, left: _Matrix, right: _Matrix, sums: _Matrix, q: Expr, part: _Tile) -> Body:
        """Return the calls of the microkernels on a strip of rows and panel `q`."""
        s = self.schedule

        def call(height: int, r: Expr, count: Expr) -> Body:
            kernel = microkernel(self.dtype, height, s.nr, left=s.left, masks=s.masks)
            self.callees[kernel.name] = kernel
            offsets = (left.offset(r), right.offset(q), sums.offset(r))
            return (
                CallKernel(
                    kernel.name,
                    (left.buffer, right.buffer, sums.buffer),
                    tuple(simplify_index(o, self.extents) for o in offsets),
                    (count, part.cols, part.depth, left.stride, right.stride, sums.stride, part.first),
                ),
            )

        whole = loop("r", part.tall, lambda r: call(s.mr, r * s.mr, const_index(s.mr)))
        if _divides(s.mr, self.c.m.extent):
            return whole
        height = s.rest or s.mr
        done = simplify_index(part.tall * s.mr)

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

            return (*out, *loop("y", depth if by_rows else rows, element, "vectorized"))

        return loop("x", rows if by_rows else depth, row)

    def pack_right(self, where: _Block, in_place: Expr, k0: Expr, depth: Expr) -> Body:
        """Return the copy of the panels after the first `in_place` to ``b_block[q, k, l]``, with zeros past the end.

        Where rows are contiguous, a row is dealt to all panels before the next is read; else one panel is filled after
        the other, so that the lines its elements come from stay in the cache.
        """
        nr, k = self.schedule.nr, self.c.k
        if self.panels is not None:
            return ()
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
        elif self.schedule.pack_b:
            body = loop("kk", depth, lambda kk: loop("q", whole, lambda q: piece(q, kk, full)))
        if _divides(nr, self.c.n.extent):
            return body
        return (*body, If(compare("gt", rest, 0), loop("kk", depth, lambda kk: piece(whole, kk, rest))))

    def epilogue(self, where: _Block, i: Expr, q: Expr, rows: Expr, cols: Expr) -> Body:
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


def _divides(step: int, extent: Expr) -> bool:
    return isinstance(extent, Const) and extent.value % step == 0


# ---- few rows


class _Rows(_Nest):
    """Forms for a few rows, each a literal: what ``vector`` and ``dots`` share."""

    #: Columns of one parallel block.
    width: int

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        super().__init__(group, c, signature, schedule)
        self.c_block = Buffer("c_block", self.dtype, (schedule.mr, self.width), "scratch", 64)

    def body(self) -> Body:
        c = self.c
        top: list[Stmt] = []
        blocks = self.let(top, "n_blocks", ceil_div(c.n.extent, self.width))
        total = simplify_index(self.batch_extent * blocks)

        def block(t: Expr) -> Body:
            assert isinstance(t, Var)
            out: list[Stmt] = [] if self.target is not None else [Alloc(self.c_block)]
            self.extents[t] = total
            batch = self.let(out, "batch", t // blocks, self.batch_extent)
            at = self.unflatten(out, c.batch, batch)
            j = self.let(out, "j0", simplify_index(t % blocks, self.extents) * self.width)
            cols = self.let(out, "cols", part_of(c.n.extent, j, self.width))
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


class _Vector(_Rows):
    """Form ``vector``: the matrix is read row by row, a few rows side by side, and added to sums that stay near."""

    width = VECTOR_COLS

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


class _Dots(_Rows):
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


# ---- factors packed ahead of time


@dataclass(frozen=True, eq=False)
class PackedOperand:
    """The right factor of a contraction as a function of one leaf, `node`, alone, so that it can be packed ahead.

    The packed array has `shape` (batch, panels, k, nr) and `dtype`; it runs fastest aligned to `align` bytes. `layout`
    names the layout: arrays packed from one node in one layout are the same.
    """

    node: Node
    dtype: DType
    shape: tuple[Expr, ...]
    layout: str
    align: int = 64

    def buffer(self, name: str) -> Buffer:
        """Return the packed array as a parameter of kernels."""
        return Buffer(name, self.dtype, self.shape)


def packed_operand(group: FusionGroup, schedule: Schedule) -> PackedOperand | None:
    """Return what can be packed ahead for `group`, or None if its right factor is no function of one leaf alone."""
    if schedule.form != "packed":
        return None
    c = _contraction(group)
    members = set(group.members)
    leaves = set(group.leaves)
    reached = _reached([d.node for d in c.right.demands], members)
    mine = [n for n in reached if n in leaves]
    others = _reached([d.node for d in c.left.demands] + [n for n, _ in group.outputs], members, stop=c.node)
    if len(mine) != 1 or mine[0] in others or any(n.op.fallible for n in reached):
        return None
    batch = _extent(_right_batch(c))
    shape = (batch, ceil_div(c.n.extent, schedule.nr), c.k.extent, const_index(schedule.nr))
    return PackedOperand(mine[0], c.node.dtype, shape, f"panels of {schedule.nr} of {_recipe(c, reached, members)}")


def _right_batch(c: Contraction) -> tuple[Axis, ...]:
    """Return the axes of the batch along which the right factor differs: only these are packed."""
    return tuple(a for a in c.batch if c.right.depends_on(a))


def _extent(axes: Sequence[Axis]) -> Expr:
    extent: Expr = const_index(1)
    for a in axes:
        extent = extent * a.extent
    return simplify_index(extent)


def _recipe(c: Contraction, reached: Sequence[Node], members: Collection[Node]) -> str:
    """Return how the right factor is made of its leaf, in words that are equal only if that is."""
    number = {n: k for k, n in enumerate(reached)}
    axes = {"b": _right_batch(c), "n": c.n_axes, "k": (c.k,)}
    renamed: dict[Var, Expr] = {a.var: Var(f"{name}{k}") for name, some in axes.items() for k, a in enumerate(some)}
    read = []
    for d in c.right.demands:
        parts = (*d.at, *(() if d.cond is None else (d.cond,)))
        read.append(f"%{number[d.node]}[{', '.join(show(substitute_all(x, renamed)) for x in parts)}]")
    steps = []
    for node in reached:
        if node not in members:
            continue
        # An array prints as its shape only; its key holds its bits.
        attrs = {name: getattr(value, "key", value) for name, value in node.attrs}
        inputs = (repr(literal_of(x)) if literal_of(x) is not None else f"%{number[x]}" for x in node.inputs)
        steps.append(f"%{number[node]} = {node.op.name}{attrs or ''}({', '.join(inputs)})" if node.inputs else "")
    return "; ".join([show(c.right.expr), *read, *filter(None, steps)])


def build_pack(group: FusionGroup, name: str, names: Mapping[Node, str], schedule: Schedule) -> Kernel:
    """Return the kernel that fills the packed array of :func:`packed_operand`: its leaf in, the array out."""
    operand = packed_operand(group, schedule)
    if operand is None:
        raise CompilerBug("the right factor of this group cannot be packed ahead")
    c = _contraction(group)
    source = signature_of(group, names).leaves[operand.node]
    packed = operand.buffer("packed")
    nest = _Nest(group, c, Signature({operand.node: source}, {c.node: packed}, None), schedule)
    panels = operand.shape[1]
    total = simplify_index(operand.shape[0] * panels)

    def panel(t: Expr) -> Body:
        assert isinstance(t, Var)
        nest.extents[t] = total
        out: list[Stmt] = []
        batch = nest.let(out, "batch", t // panels, operand.shape[0])
        q = nest.let(out, "q", t % panels, panels)
        at = nest.unflatten(out, _right_batch(c), batch)
        nr = schedule.nr
        n0 = simplify_index(q * nr)
        width = const_index(nr) if _divides(nr, c.n.extent) else minimum(c.n.extent - n0, const_index(nr))
        width = nest.let(out, "width", width)

        def row(k: Expr) -> Body:
            if isinstance(k, Var):
                nest.extents[k] = c.k.extent
            return nest.piece(at, n0, width, k, packed, (batch, q, k))

        return (*out, *loop("k", c.k.extent, row))

    body = loop("t", total, panel, "parallel")
    return make_kernel(name, nest.signature, body, (f"{names[operand.node]} packed: {operand.layout}",))


def _reached(start: Sequence[Node], members: Collection[Node], stop: Node | None = None) -> list[Node]:
    """Return the nodes that `start` are computed from inside the group, leaves included."""
    found: dict[Node, None] = {}
    stack = list(start)
    while stack:
        node = stack.pop()
        if node in found or node is stop:
            continue
        found[node] = None
        if node in members:
            stack += node.inputs
    return list(found)
