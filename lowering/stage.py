"""Fusion groups in order into fewer: those that hand an array on row by row become the stages of one group.

Scores, their softmax, and its product with the values are three groups, and two arrays of a score per query and key lie
between them. Row i of each depends on row i of the one before only. So a block of rows can go through all three before
the next one starts, and what lies between is as small as the block:

    group 0 contract over (i, j) folding (k)     writes s          group 0 stages over (i): contract, reduce, contract
    group 1 reduce over (i) folding (k), of s    writes e, t   ->    keeps s, e, t
    group 2 contract over (i, j), of e, t        writes o            writes o

A group of kind ``stages`` has a *spine*: rows that all its stages have in common, in one or several batches (a product
packs its right factor once for each). An array may be kept if nobody else reads it, if stage and reader
reach it by the same row of the spine, and if it is large: one that stays in the caches costs nothing where it is.

Nothing here changes what a stage computes, in which order it folds, or how it rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from jitflow.expr import INDEX, Binary, Compare, Const, Expr, Var, as_index, const_index
from jitflow.graph import Node
from jitflow.record import record
from jitflow.simplify import free_vars, same_index, simplify_index, split_linear
from jitflow.types import dim_of, element_count, mul_dims, same_dim
from lowering.analysis.contraction import contraction_of
from lowering.fuse import Axis, FusionGroup
from lowering.reduction import reduce_of
from lowering.schedule import Form, Schedule, choose_contraction
from lowering.target import Target
from lowering.trace import Subscripts, flat_index, trace

#: Bytes from which an array between groups is kept in rows: below, it stays in the second cache from group to group.
KEPT_BYTES = 256 << 10
#: Multiply-adds for each of its elements, before and after, up to which an array is kept. Writing and reading one
#: takes as long as 80; where that is little of all, what counts is that a product may be cut along its columns.
KEPT_STEPS = 1024
#: The same if a right factor has more than these bytes: each block of rows reads it from beyond the second cache, which
#: takes as long as a third of the block's multiply-adds.
FAR_BYTES, KEPT_STEPS_FAR = 1 << 20, 160
#: Rows of a block: a strip of the register tiles' loops. What is kept of them fits the second cache.
BLOCK_ROWS = 48
#: Rows that share packed factors: packing costs as much as multiplying some 40 of them.
RUN_ROWS = 480


@record
class StageSchedule:
    """How a group of stages is computed: `block` rows at a time, `shared` blocks in one iteration of the parallel loop.

    `products` are the schedules of the stages that are products, None for the others; `vector` the bytes of one.
    """

    block: int
    shared: int
    products: tuple[Schedule | None, ...]
    vector: int = 0
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for dumps."""
        return "; ".join([f"stages of {self.block} rows, {self.shared} blocks share what is packed", *self.reasons])


def choose_stages(group: FusionGroup, target: Target) -> StageSchedule:
    """Return the schedule of the stages of `group` for `target`."""
    spine = common_spine(group.stages)
    assert spine is not None
    if all(s.kind != "contract" for s in group.stages):
        return StageSchedule(1, BLOCK_ROWS, (None,) * len(group.stages), reasons=("no product: row by row",))
    block = BLOCK_ROWS
    shared = RUN_ROWS // block
    if isinstance(spine.extent, Const):
        rows = int(spine.extent.value)
        runs = max(1, -(-rows // RUN_ROWS))
        shared = max(1, -(-rows // (runs * block)))
    products = tuple(_product(s, block, target) if s.kind == "contract" else None for s in group.stages)
    return StageSchedule(block, shared, products, target.vector_bits // 8)


def _product(group: FusionGroup, block: int, target: Target) -> Schedule:
    """Return the schedule of a product as a stage: the tiles it would have alone, all columns of a block of rows."""
    s = choose_contraction(group, target)
    c = contraction_of(group)
    assert c is not None
    whole = isinstance(c.n.extent, Const) and c.n.extent.value % s.nr == 0
    place = c.right.place
    in_place = whole and c.right.unit == "across" and place is not None and place.along == const_index(s.nr)
    form: Form = "direct" if in_place or (whole and s.form == "direct") else "packed"
    return Schedule(
        form,
        s.mr,
        s.nr,
        s.rest,
        s.kc,
        block,
        block,
        s.nr,
        s.pack_a,
        form == "packed",
        s.left,
        s.masks,
        reasons=s.reasons,
    )


@dataclass(frozen=True, eq=False)
class Spine:
    """How the axes of a stage begin: with those of its `batch`, then with those of the `rows` of one of them."""

    batch: tuple[Axis, ...]
    rows: tuple[Axis, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        return (*self.batch, *self.rows)

    @property
    def batches(self) -> Expr:
        """The number of batches."""
        return _count(self.batch)

    @property
    def extent(self) -> Expr:
        """The number of rows of a batch."""
        return _count(self.rows)

    @property
    def position(self) -> Expr:
        """The row among those of all batches."""
        extents = {a.var: a.extent for a in self.axes}
        return flat_index(tuple(a.var for a in self.axes), [a.extent for a in self.axes], extents)


def spine_of(group: FusionGroup, like: Spine | None = None) -> Spine | None:
    """Return the spine of a stage: of a product its own; of another group one with the extents of `like`."""
    if group.kind == "contract":
        c = contraction_of(group)
        if c is None or (*c.batch, *c.m_axes) != group.rows[: len(c.batch) + len(c.m_axes)]:
            return None
        found = Spine(c.batch, c.m_axes)
        same = like is None or (_same(found.batches, like.batches) and _same(found.extent, like.extent))
        return found if same else None
    if like is None:
        return None
    cuts = range(len(group.rows) + 1)
    spines = (Spine(group.rows[:cut], group.rows[cut:end]) for end in reversed(cuts) for cut in cuts[: end + 1])
    return next((x for x in spines if _same(x.batches, like.batches) and _same(x.extent, like.extent)), None)


def common_spine(stages: Sequence[FusionGroup]) -> Spine | None:
    """Return the spine of `stages`: that of a product, which packs for each batch; else all rows of the second one."""
    product = next((s for s in stages if s.kind == "contract"), None)
    return Spine((), stages[1].rows) if product is None else spine_of(product)


def row_width(group: FusionGroup, spine: Spine, node: Node, index: Subscripts | None) -> Expr | None:
    """Return how many elements of `node` belong to each row of `spine`, if `index` reads or writes only those."""
    if index is None:
        return None
    extents = group.extents
    flat = flat_index(index, node.shape, extents)
    last = next((a for a in reversed(spine.axes) if a.extent != const_index(1)), None)
    split = None if last is None else split_linear(flat, last.var, extents)
    if split is None:
        return None
    width = split[0]
    rest = simplify_index(flat - spine.position * width, extents)
    if free_vars(width) & set(extents) or free_vars(rest) & {a.var for a in spine.axes}:
        return None
    rows = simplify_index(spine.batches * spine.extent * width)
    return width if same_dim(element_count(node.shape), dim_of(rows)) is True else None


def columns_read(group: FusionGroup, spine: Spine, node: Node) -> Expr | None:
    """Return up to which column `group` reads each row of `node`, exclusive: an expression of the last of its row axes.

    None if there is no such limit: then it reads them all. The rest of a row is not needed (a triangle of scores).
    """
    row = spine.rows[-1]
    limits: list[Expr] = []
    elements = [(m, at) for m in group.members if node in m.inputs for at in group.wanted.get(m, (None,))]
    for member, at in elements:
        if at is None:
            return None
        for d in trace(member, at).demands:
            if d.node is not node:
                continue
            flat = flat_index(d.at, node.shape, group.extents)
            width = row_width(group, spine, node, d.at)
            column = None if width is None else simplify_index(flat - spine.position * width, group.extents)
            limit = _limit(d.cond, column, row) if d.cond is not None and isinstance(column, Var) else None
            if limit is None:
                return None
            limits.append(limit)
    return limits[0] if limits and all(x == limits[0] for x in limits) else None


def _limit(cond: Expr, column: Expr | None, row: Axis) -> Expr | None:
    """Return what `column` is below wherever `cond` holds, if that grows with the row."""
    match cond:
        case Binary("and", a, b):
            return _limit(a, column, row) or _limit(b, column, row)
        case Compare("le" | "lt" as op, a, b) if a.type is INDEX and isinstance(column, Var):
            split = split_linear(b - a, column)
            if split is None or split[0] != const_index(-1):
                return None
            bound = simplify_index(split[1] + (op == "le"))
            slope = split_linear(bound, row.var)
            grows = slope is not None and isinstance(slope[0], Const) and slope[0].value > 0
            return bound if grows and free_vars(bound) <= {row.var} else None
        case _:
            return None


def stage(groups: Sequence[FusionGroup], fetches: Collection[Node], target: Target) -> tuple[FusionGroup, ...]:
    """Return `groups` with those joined that hand large arrays on row by row, in an order that still works."""
    number = {g: k for k, g in enumerate(groups)}
    readers: dict[Node, list[int]] = {}
    for g in groups:
        for node in g.leaves:
            readers.setdefault(node, []).append(number[g])
    fetched = set(fetches)
    home: dict[Node, FusionGroup] = {}
    order: dict[FusionGroup, None] = {}
    for group in groups:
        joined = group
        for first in dict.fromkeys(home[n] for n in group.leaves if n in home):
            taken = [n for n, _ in first.outputs if n in group.leaves]
            free = all(n not in fetched and readers[n] == [number[group]] for n in taken)
            # Nobody may wait for the first group in order to be done before the second.
            free = free and all(r >= number[group] for n, _ in first.outputs for r in readers.get(n, ()))
            found = _join(first, group, taken, target) if free and _is_large(taken) else None
            if found is not None:
                del order[first]
                joined = found
                break
        order[joined] = None
        home.update((node, joined) for node, _ in joined.outputs)
    return tuple(order)


def _join(first: FusionGroup, group: FusionGroup, taken: Collection[Node], target: Target) -> FusionGroup | None:
    """Return one group of the stages of `first` and of `group`, which keeps `taken`, or None if they share no rows."""
    stages = first.stages or (first,)
    spine = common_spine((*stages, group))
    mine = None if spine is None else spine_of(group, spine)
    if spine is None or mine is None or not all(_fits(s, target) for s in (*stages, group)):
        return None
    for node in taken:
        writer, index = next((s, at) for s in stages for n, at in s.outputs if n is node)
        theirs = spine_of(writer, spine)
        width = None if theirs is None else row_width(writer, theirs, node, index)
        most = KEPT_STEPS_FAR if _is_far(writer) or _is_far(group) else KEPT_STEPS
        if _steps(writer) + _steps(group, node) > most:
            return None
        if width is None or any(row_width(group, mine, node, at) != width for at in group.wanted[node]):
            return None
    return _staged((*stages, group), [*kept_by(first), *taken])


def _fits(group: FusionGroup, target: Target) -> bool:
    """Tell whether `group` can be a stage: tiles of a product, or rows folded along their innermost axis."""
    if any(n.op.fallible for n in group.members):
        return False
    if group.kind == "contract":
        return len(group.inner) == 1 and choose_contraction(group, target).form in ("packed", "direct")
    return group.kind == "reduce" and len(group.inner) == 1 and all(reduce_of(e).lanes > 1 for e in group.reductions)


def _steps(group: FusionGroup, node: Node | None = None) -> int:
    """Return how many steps `group` takes for an element of what it folds, or of a product's factor `node`."""
    if node is not None and group.contract is None:
        return 0
    axis = group.inner[-1] if node is None else group.rows[-1]
    return int(axis.extent.value) if isinstance(axis.extent, Const) else 0


def _is_far(group: FusionGroup) -> bool:
    """Tell whether the right factor of `group` is known to be larger than the second cache likes."""
    if group.contract is None:
        return False
    size = simplify_index(group.inner[-1].extent * group.rows[-1].extent * group.contract.dtype.itemsize)
    return isinstance(size, Const) and size.value > FAR_BYTES


def kept_by(group: FusionGroup) -> list[Node]:
    """Return what the stages of `group` hand on to each other."""
    written = {n for n, _ in group.outputs}
    return [n for s in group.stages for n, _ in s.outputs if n not in written]


def _staged(stages: tuple[FusionGroup, ...], kept: Collection[Node]) -> FusionGroup:
    members = dict.fromkeys(n for s in stages for n in s.members)
    leaves = dict.fromkeys(n for s in stages for n in s.leaves if n not in kept)
    wanted: dict[Node, tuple[Subscripts | None, ...]] = {}
    for s in stages:
        for node, at in s.wanted.items():
            wanted[node] = (*wanted.get(node, ()), *at)
    outputs = tuple(e for s in stages for e in s.outputs if e[0] not in kept)
    rows = stages[0].rows
    return FusionGroup("stages", rows, (), outputs, (), tuple(members), tuple(leaves), wanted, None, stages)


def _is_large(nodes: Iterable[Node]) -> bool:
    """Tell whether one of `nodes` is large, or may be."""
    sizes = (simplify_index(as_index(mul_dims(element_count(n.shape), n.dtype.itemsize))) for n in nodes)
    return any(not isinstance(e, Const) or e.value >= KEPT_BYTES for e in sizes)


def _count(axes: Iterable[Axis]) -> Expr:
    count: Expr = const_index(1)
    for a in axes:
        count = count * a.extent
    return simplify_index(count)


def _same(a: Expr, b: Expr) -> bool:
    return same_index(a, b) is True
