"""A ``reduce`` group over axes that are not innermost into one GPU kernel: sums down columns.

Neighbouring threads take neighbouring results, so that they read neighbouring elements. The elements of a result are
dealt to `column_rows` threads: thread y takes positions y, y + rows, y + 2*rows, ... of the outermost reduced axis,
each with all positions of the other ones, and the partial results are folded in the order of y:

    block b in (m + 31) // 32:                          # out[j] = sum of x[i, j] over i
      thread t in 256:
        let j = b*32 + t % 32
        let y = t // 32
        if j < m: serial c in n // 8: fold x[c*8 + y, j] into sum_acc
        shared_sum[y, t % 32] = sum_acc
        barrier
        fold shared_sum[0, t % 32], shared_sum[1, t % 32], ...
        if y == 0 and j < m: out[j] = sum_acc

A product of a row and a matrix comes here too, and any contraction that is no matrix product: that one with a single
thread per result, because its order is one chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jitflow.expr import INDEX, Binary, Buffer, Const, Expr, Load, Var, compare, const_index, eq
from jitflow.simplify import simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu.fold import fold_slots
from lowering.gpu.rows import place_on, size_of
from lowering.gpu.schedule import GpuSchedule, power_of_two
from lowering.gpu.stages import Point, Stages, in_order
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Let, Stmt, Store
from lowering.reduction import Accumulator
from lowering.signature import Signature
from lowering.trace import flat_index


def build_columns(group: FusionGroup, signature: Signature, schedule: GpuSchedule, *, chained: bool = False) -> Body:
    """Return the loops of a ``reduce`` or ``contract`` group, a few threads per result; one if it is `chained`."""
    share = 1 if chained else _share(group.inner[0].extent, schedule)
    columns = schedule.threads // share
    count = size_of(group.rows)
    b, t, p, y = (Var(name, INDEX, floor=0) for name in "btpy")
    column = simplify_index(t % columns)
    body: list[Stmt] = [Let(p, simplify_index(b * columns + column)), Let(y, simplify_index(t // columns))]
    body += place_on(group.rows, p)
    is_column = None if simplify_index(count % columns) == const_index(0) else compare("lt", p, count)

    def loop(step: Callable[[Point], Body]) -> Body:
        inner = _over_items(group.inner, y, share, schedule.items, step)
        return inner if is_column is None else (If(is_column, inner),)

    stages = Stages(group, signature)
    for number in range(stages.count):
        accumulators = stages.accumulators(number)
        body += stages.run(number, accumulators, loop)
        if share > 1:
            body += _fold_shared(list(accumulators.values()), y, column, share, columns)
        body += stages.know(accumulators)
    if stages.outputs:
        tests = [] if share == 1 else [eq(y, const_index(0))]
        tests += [] if is_column is None else [is_column]
        stores = stages.finish()
        if tests:
            stores = (If(tests[0] if len(tests) == 1 else Binary("and", *tests), stores),)
        body += stores
    blocks = simplify_index((count + (columns - 1)) // columns)
    return (For(b, blocks, (For(t, const_index(schedule.threads), tuple(body), "thread"),), "block"),)


def _share(extent: Expr, schedule: GpuSchedule) -> int:
    """Return among how many threads the elements of one result are dealt."""
    if isinstance(extent, Const):
        return min(schedule.column_rows, power_of_two(int(extent.value)))
    return schedule.column_rows


def _over_items(axes: Sequence[Axis], y: Var, share: int, items: int, step: Callable[[Point], Body]) -> Body:
    """Return the loops over the elements of thread `y`, at most `items` of them written out."""

    def at(first: Expr) -> Body:
        """Return the loops over the other axes at `first` of the outermost one."""
        places = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in axes]
        extents = {a.var: a.extent for a in places}
        position = flat_index(tuple(extents), tuple(extents.values()), extents)
        body = step(Point(tuple(extents), extents, position, const_index(0)))
        for a in reversed(places[1:]):
            body = (For(a.var, a.extent, body),)
        return (Let(places[0].var, first), *body)

    extent = axes[0].extent
    beside = items if len(axes) == 1 else 1
    loop = in_order(simplify_index(extent // share), beside, lambda c: at(simplify_index(c * share + y)))
    rest = simplify_index(extent % share)
    if rest == const_index(0):
        return loop
    last = simplify_index(extent // share * share + y)
    return (*loop, If(compare("lt", y, rest), at(last)))


def _fold_shared(accumulators: Sequence[Accumulator], y: Var, column: Expr, share: int, columns: int) -> Body:
    """Return the statements that give every thread of a column its result."""
    if not accumulators:
        return ()
    shape = (const_index(share), const_index(columns))
    shared = {b: Buffer(f"{b.name}_parts", b.dtype, shape, "shared") for acc in accumulators for b in acc.buffers}
    out: list[Stmt] = [Alloc(b) for b in shared.values()]
    out += [Store(s, (y, column), Load(b, (const_index(0),))) for b, s in shared.items()]
    out.append(Barrier())
    for acc in accumulators:
        out += fold_slots(acc, shared, share, lambda w: (w, column))
    return tuple(out)
