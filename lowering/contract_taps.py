"""Contractions of a few rows whose columns are windows: the form ``taps``, for depthwise convolutions and their like.

Nothing is copied: the windows of neighbouring places lie one element (or a stride) apart, so each step of k is a vector
load and a multiply-add for each row::

    for each element of the batch and each block of runs, in parallel:
      for each run of the block, for vectors of neighbours x in it:
        acc[r] = fma(left[r, k], right[k, run * length + x], acc[r])      for increasing k
        the rest of the group                                             epilogue
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jitflow.expr import Buffer, Const, Expr, Fma, Load, Var, const, const_index
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction
from lowering.contract_nest import Nest, ceil_div, part_of
from lowering.contract_runs import nested
from lowering.fuse import FusionGroup
from lowering.loop_ir import Alloc, Body, Stmt, Store
from lowering.microkernel import loop
from lowering.schedule import Schedule
from lowering.signature import Signature

#: Columns of one parallel block, about: some ten microseconds for a window of nine.
COLUMNS = 8192
#: Elements of a window up to which its loops are written out.
UNROLLED = 64


class Taps(Nest):
    """Form ``taps``."""

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        super().__init__(group, c, signature, schedule)
        #: Sums are registers: no output holds partial ones.
        self.target = None

    def body(self) -> Body:
        c, run = self.c, self.c.right.run
        assert run is not None
        top: list[Stmt] = []
        runs = self.let(top, "runs", c.n.extent // run)
        height = max(1, COLUMNS // int(run.value)) if isinstance(run, Const) else 1
        blocks = self.let(top, "n_blocks", ceil_div(runs, height))
        total = simplify_index(self.batch_extent * blocks)

        def block(t: Expr) -> Body:
            assert isinstance(t, Var)
            self.extents[t] = total
            out: list[Stmt] = []
            batch = self.let(out, "batch", t // blocks, self.batch_extent)
            at = self.unflatten(out, c.batch, batch)
            first = self.let(out, "first", simplify_index(t % blocks, self.extents) * height, runs)
            count = self.let(out, "count", part_of(runs, first, height))
            return (*out, *loop("u", count, lambda u: self.run(at, simplify_index(first + u), run, runs)))

        top += loop("t", total, block, "parallel")
        return tuple(top)

    def run(self, at: Mapping[Var, Expr], number: Expr, run: Expr, runs: Expr) -> Body:
        """Return the work on the columns of run `number`."""
        out: list[Stmt] = []
        number = self.let(out, "run", number, runs)
        for start, width in self.pieces(run):
            out += loop("x", width, lambda x, start=start: self.element(at, number, start + x), "vectorized")  # type: ignore[misc]
        return tuple(out)

    def pieces(self, run: Expr) -> Iterator[tuple[Expr, Expr]]:
        """Yield the parts of a run as starts and widths.

        Elements that are not neighbours are gathered one by one under a mask, so there the rest of a run beyond whole
        vectors becomes vectors of 8, 4, 2 and 1 lanes.
        """
        zero = const_index(0)
        if self.c.right.unit == "across" or not isinstance(run, Const):
            yield zero, run
            return
        whole = int(run.value) // self.schedule.nr * self.schedule.nr
        if whole:
            yield zero, const_index(whole)
        rest = int(run.value) - whole
        while rest:
            width = 1 << (rest.bit_length() - 1)
            yield const_index(int(run.value) - rest), const_index(width)
            rest -= width

    def element(self, at: Mapping[Var, Expr], number: Expr, x: Expr) -> Body:
        """Return what computes the elements of all rows at place `x` of run `number`."""
        c, run = self.c, self.c.right.run
        assert run is not None
        acc = Buffer("acc", self.dtype, (self.schedule.mr,), "register")
        out: list[Stmt] = [Alloc(acc)]
        place = self.let(out, "place", x, run)
        column = {**at, **self.walk(out, c.n, c.n_axes, number * run + place)}
        places = [const_index(r) for r in range(self.schedule.mr)]
        rows = [{**column, c.m.var: r, **self.unflatten(out, c.m_axes, r)} for r in places]
        out += [Store(acc, (r,), const(0, self.dtype)) for r in places]

        def step(k: Expr, _: Expr) -> Body:
            emitter = self.emitter()
            y = emitter.let("y", self.factor(emitter, c.right, {**column, c.k.var: k}))
            for r, row in zip(places, rows, strict=True):
                w = emitter.let("w", self.factor(emitter, c.left, {**row, c.k.var: k}))
                emitter.statements.append(Store(acc, (r,), Fma(w, y, Load(acc, (r,)))))
            return tuple(emitter.statements)

        out += nested(self, const_index(0), c.k.extent, step, unrolled=UNROLLED)
        for r, row in zip(places, rows, strict=True):
            out += self.finish(row, lambda _, r=r: Load(acc, (r,)))  # type: ignore[misc]
        return tuple(out)
