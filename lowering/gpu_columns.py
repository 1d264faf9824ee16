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

A contraction that is no matrix product of tiles (`lowering.gpu_matmul`) comes here too, with one thread per result: its
order is one chain.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitflow.expr import INDEX, Binary, Buffer, Const, Expr, Load, Var, compare, const_index, eq
from jitflow.simplify import simplify_index
from lowering.build import Accumulator, Signature, levels_of, reduce_of, store_outputs
from lowering.fuse import Axis, FusionGroup
from lowering.gpu_fold import fold, fold_slots, new_accumulator
from lowering.gpu_rows import place_rows, row_count
from lowering.gpu_schedule import GpuSchedule, power_of_two
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Let, Stmt, Store
from lowering.trace import Element, Emitter, flat_index


def build_columns(group: FusionGroup, signature: Signature, schedule: GpuSchedule) -> Body:
    """Return the loops of a ``reduce`` or ``contract`` group, a few threads per result."""
    reductions: list[Element] = list(group.reductions)
    share = _share(group.inner[0].extent, schedule)
    if group.contract is not None:
        reductions, share = [(group.contract, tuple(a.var for a in group.rows))], 1
    columns = schedule.threads // share
    count = row_count(group)
    b, t, p, y = (Var(name, INDEX, floor=0) for name in "btpy")
    column = simplify_index(t % columns)
    body: list[Stmt] = [Let(p, simplify_index(b * columns + column)), Let(y, simplify_index(t // columns))]
    body += place_rows(group, p)
    is_column = None if simplify_index(count % columns) == const_index(0) else compare("lt", p, count)
    level = levels_of(group)
    known: dict[Element, Expr] = {}
    for number in sorted({level[n] for n, _ in reductions}):
        accumulators = {e: Accumulator(e[0], reduce_of(e), 2) for e in reductions if level[e[0]] == number}
        for acc in accumulators.values():
            body += new_accumulator(acc)
        loop = _loop(group, signature, known, accumulators, y, share)
        body += loop if is_column is None else (If(is_column, loop),)
        if share > 1:
            body += _fold_shared(list(accumulators.values()), y, column, share, columns)
        for e, acc in accumulators.items():
            result = acc.result(const_index(0))
            known[e] = var = Var(e[0].op.name, result.type)
            body.append(Let(var, result))
    emitter = Emitter(signature.values({a.var: a.extent for a in group.rows}), known)
    store_outputs(emitter, group.outputs, signature)
    leads = None if share == 1 else eq(y, const_index(0))
    cond = is_column if leads is None else leads if is_column is None else Binary("and", leads, is_column)
    body += emitter.statements if cond is None else (If(cond, tuple(emitter.statements)),)
    blocks = simplify_index((count + (columns - 1)) // columns)
    return (For(b, blocks, (For(t, const_index(schedule.threads), tuple(body), "thread"),), "block"),)


def _share(extent: Expr, schedule: GpuSchedule) -> int:
    """Return among how many threads the elements of one result are dealt."""
    if isinstance(extent, Const):
        return min(schedule.column_rows, power_of_two(max(1, int(extent.value))))
    return schedule.column_rows


def _loop(
    group: FusionGroup,
    signature: Signature,
    known: dict[Element, Expr],
    accumulators: dict[Element, Accumulator],
    y: Var,
    share: int,
) -> Body:
    """Return the loops over the elements of thread `y`."""
    inner = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in group.inner]
    first = inner[0]
    extents = {a.var: a.extent for a in (*group.rows, *inner)}
    emitter = Emitter(signature.values(extents), known)
    position = flat_index(tuple(a.var for a in inner), [a.extent for a in inner], extents)
    for (node, at), acc in accumulators.items():
        _, value = emitter.reduce(node, at, [a.var for a in inner])
        emitter.statements += fold(acc, value, position)
    body: Body = tuple(emitter.statements)
    for a in reversed(inner[1:]):
        body = (For(a.var, a.extent, body),)
    if share == 1:
        return (For(first.var, first.extent, body),)
    c = Var("c", INDEX, floor=0)
    let = Let(first.var, simplify_index(c * share + y))
    if simplify_index(first.extent % share) != const_index(0):
        body = (If(compare("lt", first.var, first.extent), body),)
    return (For(c, simplify_index((first.extent + (share - 1)) // share), (let, *body)),)


def _fold_shared(accumulators: Sequence[Accumulator], y: Var, column: Expr, share: int, columns: int) -> list[Stmt]:
    """Return the statements that give every thread of a column its result."""
    out: list[Stmt] = []
    shape = (const_index(share), const_index(columns))
    shared = {b: Buffer(f"{b.name}_parts", b.dtype, shape, "shared") for acc in accumulators for b in acc.buffers}
    out += [Alloc(b) for b in shared.values()]
    out += [Store(s, (y, column), Load(b, (const_index(0),))) for b, s in shared.items()]
    out.append(Barrier())
    for acc in accumulators:
        out += fold_slots(acc, shared, share, lambda w: (w, column))
    return out
