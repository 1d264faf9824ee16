"""A ``reduce`` group over its innermost axis into one GPU kernel: softmax, layer norm, sums along rows.

A *team* of threads computes one row: a whole block, or for a row of few elements (a constant) a warp or a part of one,
with several rows to a block. The passes are those of `lowering.build`: a pass holds the reductions, and the full-size
outputs, whose inputs are there. Thread i of a team of w takes elements i, i + w, i + 2w, ... in this order; their
partial results meet in `lowering.gpu_fold`. Where a row is short enough to be unrolled, what a later pass wants again
stays in registers:

    block i in n:                                       # softmax of rows of 1024
      thread t in 256:
        unrolled u in 4: x_row[u] = x[i, u*256 + t], and fold it into max_acc
        ...                                             # shuffles and a barrier
        unrolled u in 4: exp_row[u] = exp(x_row[u] - max), and fold it into sum_acc
        ...
        unrolled u in 4: out[i, u*256 + t] = exp_row[u] / sum
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from jitflow.expr import INDEX, Binary, Buffer, Const, Expr, Load, Var, compare, const_index, eq
from jitflow.graph import Node
from jitflow.simplify import free_vars, simplify_index
from lowering.build import Accumulator, Signature, kept_rows, levels_of, reduce_of, store_output, store_outputs
from lowering.fuse import FusionGroup
from lowering.gpu_fold import fold, fold_block, fold_segment, new_accumulator, share_segment
from lowering.gpu_schedule import WARP, GpuSchedule, power_of_two
from lowering.loop_ir import Alloc, Body, For, If, Let, Stmt, Store
from lowering.trace import Element, Emitter, Subscripts, substitute_all, unflatten_index

#: Given the work at one element k and the number of its slot, returns the loop over all of a thread's elements.
Loop: TypeAlias = "Callable[[Callable[[Var, Expr], Body]], Body]"


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
    (axis,) = group.inner
    team = team_of(axis.extent, schedule)
    count = row_count(group)
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
    body += place_rows(group, row)

    def loop(step: Callable[[Var, Expr], Body]) -> Body:
        inner = _over_items(axis.extent, team, lane, step)
        return inner if is_row is None else (If(is_row, inner),)

    passes = RowPasses(group, signature, team.items)
    body += passes.rows
    for number in range(passes.count):
        accumulators = passes.accumulators(number)
        body += passes.fold_all(number, accumulators, loop)
        last = number == passes.count - 1
        for acc in accumulators.values():
            if team.rows == 1:
                body += fold_block(acc, t, team.width)
            else:
                body += fold_segment(acc, team.width)
                body += () if last else share_segment(acc, t, team.width)
        body += passes.know(accumulators)
    outputs = passes.row_outputs()
    if outputs:
        leader = eq(lane, const_index(0))
        body.append(If(leader if is_row is None else Binary("and", is_row, leader), outputs))
    blocks = simplify_index((count + (team.rows - 1)) // team.rows)
    threads = const_index(team.width * team.rows)
    return (For(b, blocks, (For(t, threads, tuple(body), "thread"),), "block"),)


def row_count(group: FusionGroup) -> Expr:
    """Return the number of rows of `group`."""
    count: Expr = const_index(1)
    for a in group.rows:
        count = simplify_index(count * a.extent)
    return count


def place_rows(group: FusionGroup, row: Expr) -> list[Stmt]:
    """Return the statements that bind the row axes for row number `row`."""
    place = unflatten_index(row, [a.extent for a in group.rows])
    return [Let(a.var, i) for a, i in zip(group.rows, place, strict=True)]


def _over_items(extent: Expr, team: Team, lane: Expr, step: Callable[[Var, Expr], Body]) -> Body:
    """Return the loop over the elements of the thread at `lane` of its team."""

    def at(number: Expr) -> tuple[Let, Body]:
        k = Var("k", INDEX, floor=0)
        let = Let(k, simplify_index(number * team.width + lane))
        return let, step(k, number)

    whole, rest = simplify_index(extent // team.width), simplify_index(extent % team.width)
    if team.items is not None:
        u = Var("u", INDEX, floor=0)
        let, body = at(u)
        if rest != const_index(0):
            body = (If(compare("lt", let.var, extent), body),)
        return (For(u, const_index(team.items), (let, *body), "unrolled"),)
    c = Var("c", INDEX, floor=0)
    let, body = at(c)
    out: list[Stmt] = [For(c, whole, (let, *body))]
    if rest != const_index(0):
        let, body = at(whole)
        out.append(If(compare("lt", lane, rest), (let, *body)))
    return tuple(out)


class RowPasses:
    """The passes over a row, for whatever threads run them: what is folded, kept and stored in each.

    `items` is the number of register slots for values that stay between passes, or None for none.
    """

    def __init__(self, group: FusionGroup, signature: Signature, items: int | None) -> None:
        self.group, self.signature = group, signature
        (self.axis,) = group.inner
        self.level = levels_of(group)
        inner = [e for e in group.outputs if any(self.axis.var in free_vars(i) for i in e[1])]
        self.inner_outputs = inner
        self.outputs = [e for e in group.outputs if e not in inner]
        self.count = max([self.level[n] for n, _ in (*group.reductions, *inner)], default=0) + 1
        self.kept = self._kept() if items is not None and self.count > 1 else {}
        self._registers = {
            e: Buffer(f"{e[0].name or e[0].op.name}_row", e[0].dtype, (const_index(items or 0),), "register")
            for e in self.kept
        }
        self.known: dict[Element, Expr] = {}

    def _kept(self) -> dict[Element, int]:
        """Return the elements worth keeping in registers between passes, each with the pass that computes it."""
        kept = {e: self.level[e[0]] for e in kept_rows(self.group, self.level)}
        for leaf in self.group.leaves:
            wanted = self.group.wanted.get(leaf, ())
            users = {self.level[m] for m in self.group.members if leaf in m.inputs}
            if len(wanted) != 1 or wanted[0] is None or not any(self.axis.var in free_vars(i) for i in wanted[0]):
                continue
            if min(users, default=1) == 0 and max(users) > 0:
                kept[leaf, wanted[0]] = 0
        return kept

    @property
    def rows(self) -> list[Stmt]:
        """The register slots of values that stay."""
        return [Alloc(b) for b in self._registers.values()]

    def accumulators(self, number: int) -> dict[Element, Accumulator]:
        """Return a new accumulator for each reduction of pass `number`."""
        return {e: Accumulator(e[0], reduce_of(e), 2) for e in self.group.reductions if self.level[e[0]] == number}

    def fold_all(self, number: int, accumulators: dict[Element, Accumulator], loop: Loop) -> Body:
        """Return pass `number`, up to the partial result of each thread."""
        out: list[Stmt] = []
        for acc in accumulators.values():
            out += new_accumulator(acc)
        out += loop(lambda k, slot: self._step(number, accumulators, k, slot))
        return tuple(out)

    def _step(self, number: int, accumulators: dict[Element, Accumulator], k: Var, slot: Expr) -> Body:
        """Return the work of pass `number` at inner position `k`."""
        extents = {a.var: a.extent for a in self.group.rows}
        extents[k] = self.axis.extent
        emitter = Emitter(self.signature.values(extents), self.known)
        at_k: dict[Var, Expr] = {self.axis.var: k}

        def moved(element: Element) -> Subscripts:
            return tuple(substitute_all(i, at_k) for i in element[1])

        for e, made in self.kept.items():
            if made < number:
                emitter.know(e[0], moved(e), emitter.let(_name(e[0]), Load(self._registers[e], (slot,))))
        for e, made in self.kept.items():
            if made == number:
                value = emitter.let(_name(e[0]), emitter.value(e[0], moved(e)))
                emitter.statements.append(Store(self._registers[e], (slot,), value))
        for e in self.inner_outputs:
            if self.level[e[0]] == number:
                store_output(emitter, self.signature, e[0], moved(e), emitter.value(e[0], moved(e)))
        for (node, at), acc in accumulators.items():
            _, value = emitter.reduce(node, at, (k,))
            emitter.statements += fold(acc, value, k)
        return tuple(emitter.statements)

    def know(self, accumulators: dict[Element, Accumulator]) -> Body:
        """Return the statements that name the results, from here on known to later passes."""
        out: list[Stmt] = []
        for e, acc in accumulators.items():
            result = acc.result(const_index(0))
            var = Var(e[0].op.name, result.type)
            out.append(Let(var, result))
            self.known[e] = var
        return tuple(out)

    def row_outputs(self) -> Body:
        """Return the stores of outputs with one element per row; results of all passes are known."""
        extents = {a.var: a.extent for a in self.group.rows}
        emitter = Emitter(self.signature.values(extents), self.known)
        store_outputs(emitter, self.outputs, self.signature)
        return tuple(emitter.statements)


def _name(node: Node) -> str:
    return node.name or node.op.name
