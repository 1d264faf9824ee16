"""A right factor packed in runs: windows of images into the rows of a block, by rows of the images.

The columns of such a factor are the points of several axes merged into one, and its subscripts are quotients and
remainders of the column. From one multiple of the innermost axis to the next they are linear, so each row of the block
is filled in such runs, by vector copies::

    for each run that the block's columns touch:
      for each k of the block:
        b_block[k, offset + x] = right[k, run * length + start + x]      for all x of the run that are in the block
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jitflow.expr import Buffer, Const, Expr, Var, compare, const, const_index, maximum, minimum
from jitflow.simplify import simplify_index
from lowering.contract_nest import Nest, ceil_div
from lowering.loop_ir import Body, If, Stmt, Store
from lowering.microkernel import loop


def pack_runs(nest: Nest, at: Mapping[Var, Expr], j: Expr, cols: Expr, k0: Expr, depth: Expr, block: Buffer) -> Body:
    """Return the copy of columns `j` to `j` + `cols` of the right factor, from row `k0` on, to ``block[k, column]``."""
    c = nest.c
    run = c.right.run
    assert run is not None
    out: list[Stmt] = []
    end = nest.let(out, "end", j + cols)
    first = nest.let(out, "first", j // run)
    count = nest.let(out, "runs", (end + (run - 1)) // run - first)
    runs = simplify_index(c.n.extent // run)

    def one(u: Expr) -> Body:
        out: list[Stmt] = []
        number = nest.let(out, "run", first + u, runs)
        low = nest.let(out, "low", maximum(number * run, j))
        start = nest.let(out, "start", low - number * run)
        length = nest.let(out, "length", minimum((number + 1) * run, end) - low)
        offset = nest.let(out, "offset", low - j)

        def rows(extent: Expr) -> Body:
            return nested(nest, k0, depth, lambda k, kk: row(extent, k, kk))

        def row(extent: Expr, k: Expr, kk: Expr) -> Body:
            def element(x: Expr) -> Body:
                out: list[Stmt] = []
                place = nest.let(out, "place", start + x, run)
                where = {**at, c.n.var: number * run + place, c.k.var: k}
                return (*out, *nest.copy(c.right, where, block, (kk, simplify_index(offset + x))))

            return loop("x", extent, element, "vectorized")

        if isinstance(run, Const) and not isinstance(length, Const):
            return (*out, If(compare("eq", length, run), rows(run), rows(length)))
        return (*out, *rows(length))

    out += loop("u", count, one)
    return (*out, *_clear(nest, cols, depth, block))


def nested(nest: Nest, k0: Expr, depth: Expr, make: Callable[[Expr, Expr], Body], *, unrolled: int = 0) -> Body:
    """Return a loop for each of the axes that k walks, with ``make(k0 + kk, kk)`` inside for every kk below `depth`.

    Both `k0` and `depth` are multiples of what the outermost axis takes in one step. The inner loops are written out if
    all of them together have no more than `unrolled` steps.
    """
    steps = (*nest.c.right.steps, 1)
    out: list[Stmt] = []
    origin = nest.let(out, "origin", k0 // steps[0]) * steps[0]

    def level(n: int, kk: Expr) -> Body:
        if n == len(steps):
            return make(simplify_index(origin + kk, nest.extents), simplify_index(kk, nest.extents))
        # Of the outermost axis only a part is here, but its number is below that of all.
        known = ceil_div(nest.c.k.extent, steps[0]) if n == 0 else const_index(steps[n - 1] // steps[n])

        def inside(v: Expr) -> Body:
            if isinstance(v, Var):
                nest.extents[v] = known
            return level(n + 1, kk + v * steps[n])

        count = simplify_index(depth // steps[0]) if n == 0 else known
        # What is left of k from here on, and the outermost loop runs once if it is all.
        rest = steps[n - 1] if n else steps[0] * int(count.value) if isinstance(count, Const) else unrolled + 1
        return loop("k", count, inside, "unrolled" if rest <= unrolled else "serial")

    return (*out, *level(0, const_index(0)))


def _clear(nest: Nest, cols: Expr, depth: Expr, block: Buffer) -> Body:
    """Return the statements that fill up a last panel that is not full: tiles read it all."""
    nr = nest.schedule.nr
    width = simplify_index(ceil_div(cols, nr) * nr - cols)

    def nothing(kk: Expr, l: Expr) -> Stmt:
        return Store(block, (kk, simplify_index(cols + l)), const(0, nest.dtype))

    def row(kk: Expr) -> Body:
        return loop("l", width, lambda l: (nothing(kk, l),), "vectorized")

    return loop("kk", depth, row)
