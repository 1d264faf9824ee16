"""A ``reduce`` group over its innermost axis into one GPU kernel: softmax, layer norm, sums along rows.

A *team* of threads computes one row: a whole block, or for a row of few elements (a constant) a warp or a part of one,
with several rows to a block. Thread i of a team of w takes elements i, i + w, i + 2w, ... in this order; their partial
results meet in `lowering.gpu.fold`. Where a row is short enough to be unrolled, what a later stage wants again stays in
registers:

    block i in n:                                       # softmax of rows of 1024
      thread t in 256:
        unrolled u in 4: x_row[u] = x[i, u*256 + t], and fold it into max_acc
        ...                                             # shuffles and a barrier
        unrolled u in 4: exp_row[u] = exp(x_row[u] - max), and fold it into sum_acc
        ...
        unrolled u in 4: out[i, u*256 + t] = exp_row[u] / sum
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jitflow.expr import INDEX, Binary, Const, Expr, Var, compare, const_index, eq
from jitflow.simplify import simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu.fold import fold_block, fold_segment, share_segment
from lowering.gpu.schedule import WARP, GpuSchedule, power_of_two
from lowering.gpu.stages import Point, Stages, in_order
from lowering.loop_ir import Body, For, If, Let, Stmt
from lowering.signature import Signature
from lowering.trace import unflatten_index


@dataclass(frozen=True)
class Team:
    """Who computes a row: `width` threads, `rows` such teams in a block; each thread has at most `items` elements.

    `items` is None if the row's length is no constant, or too large for a copy of the code per element.
    """

    width: int
    rows: int
    items: int | None


def team_of(extent: Expr, schedule: GpuSchedule) -> Team:
    """Return the team for rows of `extent` elements."""
    if not isinstance(extent, Const):
        return Team(schedule.threads, 1, None)
    length = int(extent.value)
    if length <= WARP * schedule.row_items:
        width = min(WARP, power_of_two(length))
        return Team(width, max(1, schedule.threads // width), -(-length // width))
    width = min(schedule.row_threads, max(2 * WARP, power_of_two(-(-length // schedule.items))))
    items = -(-length // width)
    return Team(width, 1, items if items <= schedule.row_items else None)


def build_rows(group: FusionGroup, signature: Signature, schedule: GpuSchedule) -> Body:
    """Return the loops of a ``reduce`` group whose innermost axis is folded."""
    length, count = size_of(group.inner), size_of(group.rows)
    team = team_of(length, schedule)
    b, t = Var("b", INDEX, floor=0), Var("t", INDEX, floor=0)
    row: Expr = b
    lane: Expr = t
    body: list[Stmt] = []
    is_row: Expr | None = None
    if team.rows > 1:
        row, lane = Var("row", INDEX, floor=0), Var("lane", INDEX, floor=0)
        body += [Let(row, simplify_index(b * team.rows + t // team.width)), Let(lane, simplify_index(t % team.width))]
        if simplify_index(count % team.rows) != const_index(0):
            is_row = compare("lt", row, count)
    body += place_on(group.rows, row)

    def loop(step: Callable[[Point], Body]) -> Body:
        inner = _over_items(group.inner, length, team, lane, schedule.items, step)
        return inner if is_row is None else (If(is_row, inner),)

    stages = Stages(group, signature, team.items)
    body += stages.slots
    for number in range(stages.count):
        accumulators = stages.accumulators(number)
        body += stages.run(number, accumulators, loop)
        for acc in accumulators.values():
            if team.rows == 1:
                body += fold_block(acc, t, team.width)
                continue
            body += fold_segment(acc, team.width)
            if number < stages.count - 1:
                body += share_segment(acc, t, team.width)
        body += stages.know(accumulators)
    if stages.outputs:
        leads = eq(lane, const_index(0))
        body.append(If(leads if is_row is None else Binary("and", is_row, leads), stages.finish()))
    blocks = simplify_index((count + (team.rows - 1)) // team.rows)
    return (For(b, blocks, (For(t, const_index(team.width * team.rows), tuple(body), "thread"),), "block"),)


def size_of(axes: Sequence[Axis]) -> Expr:
    """Return the number of points of a domain."""
    size: Expr = const_index(1)
    for a in axes:
        size = simplify_index(size * a.extent)
    return size


def place_on(axes: Sequence[Axis], position: Expr) -> list[Stmt]:
    """Return the statements that bind the variables of `axes` at a row-major position."""
    parts = unflatten_index(position, [a.extent for a in axes])
    return [Let(a.var, part) for a, part in zip(axes, parts, strict=True)]


def point_at(axes: Sequence[Axis], length: Expr, position: Expr, slot: Expr) -> tuple[Body, Point]:
    """Return the statements that bind a position on the inner `axes`, and the point they make."""
    k = Var("k", INDEX, floor=0)
    if len(axes) == 1:
        return (Let(k, position),), Point((k,), {k: length}, k, slot)
    places = [Axis(Var(a.var.name, INDEX, floor=0), a.extent) for a in axes]
    extents = {a.var: a.extent for a in places}
    return (Let(k, position), *place_on(places, k)), Point([a.var for a in places], extents, k, slot)


def _over_items(
    axes: Sequence[Axis], length: Expr, team: Team, lane: Expr, items: int, step: Callable[[Point], Body]
) -> Body:
    """Return the loop over the elements of the thread at `lane` of its team, at most `items` of them written out."""

    def at(number: Expr, tested: bool = False) -> Body:
        lets, point = point_at(axes, length, simplify_index(number * team.width + lane), number)
        body = step(point)
        if tested:
            body = (If(compare("lt", point.position, length), body),)
        return (*lets, *body)

    whole, rest = simplify_index(length // team.width), simplify_index(length % team.width)
    if team.items is not None:
        u = Var("u", INDEX, floor=0)
        return (For(u, const_index(team.items), at(u, rest != const_index(0)), "unrolled"),)
    loop = in_order(whole, items, at)
    if rest == const_index(0):
        return loop
    return (*loop, If(compare("lt", lane, rest), at(whole)))
