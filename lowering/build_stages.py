"""A group of stages and a StageSchedule into a kernel: a block of rows goes through all stages before the next one.

For each run of blocks, in parallel::

    for each product: pack its right factor             unless it is packed ahead, or read in place
    for each block of rows:
      for each stage: what it computes of these rows    from memory and from what the stages before have kept

What is kept lies in scratch, as large as a block: element (b, i, c) of an array with rows of w elements is element
``(i - first row) * w + c``. The stages are built by the modules that build them alone, and so with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from jitflow.expr import Buffer, Const, Expr, Load, Ramp, Var, const_index, maximum, minimum, substitute
from jitflow.graph import Node
from jitflow.simplify import depends_on, simplify_index, split_linear
from lowering.analysis.contraction import Contraction
from lowering.build_lanes import build_lanes, last_pass
from lowering.contract_nest import ceil_div, contraction, divides, part_of
from lowering.contract_pack import PackedOperand, packed_operand
from lowering.contract_tiles import Block, Matrix, Right, Tiles
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Alloc, Body, For, Kernel, Let, Stmt, Store
from lowering.microkernel import loop
from lowering.nest import position_on, real_axes
from lowering.reduction import levels_of
from lowering.schedule import Schedule
from lowering.shuffles import transposed
from lowering.signature import Signature, make_kernel, notes_of, signature_of
from lowering.stage import Spine, StageSchedule, columns_read, common_spine, kept_by, row_width, spine_of
from lowering.trace import Element, Subscripts, Values, flat_index, unflatten_index


@dataclass(frozen=True, eq=False)
class _StageSignature(Signature):
    """The arguments of a stage, some of which are `kept`: the buffer of a block, and the elements of a row.

    Row `origin` of all batches is the first one of a block; `inside` are the bounds of variables around the stage.
    """

    kept: Mapping[Node, tuple[Buffer, Expr]]
    origin: Expr
    inside: Mapping[Var, Expr]

    def address(self, node: Node, at: Subscripts) -> Subscripts:
        if node not in self.kept:
            return super().address(node, at)
        width = self.kept[node][1]
        return (simplify_index(flat_index(at, node.shape) - self.origin * width),)

    def values(self, extents: Mapping[Var, Expr]) -> Values:
        return super().values({**self.inside, **extents})


class _StageTiles(Tiles):
    """A product as a stage: all columns of a block of rows; `panels` hold its right factor, packed before."""

    def __init__(
        self,
        group: FusionGroup,
        c: Contraction,
        signature: _StageSignature,
        schedule: Schedule,
        panels: Buffer | None,
        *,
        ahead: bool,
        lanes: int,
    ) -> None:
        super().__init__(group, c, signature, schedule, panels)
        self.kept, self.origin, self.lanes = signature.kept, signature.origin, lanes
        self.is_packed_ahead = ahead
        width = simplify_index(ceil_div(c.n.extent, schedule.nr) * schedule.nr)
        self.c_block = Buffer("c_block", self.dtype, (const_index(schedule.block_m), width), "scratch", 64)

    def left(self, where: Block, i: Expr, k0: Expr) -> Matrix:
        place = self.c.left.place
        found = super().left(where, i, k0)
        return found if self.schedule.pack_a or place is None else self._in_block(place.node, found)

    def sums(self, where: Block, i: Expr, q: Expr) -> Matrix:
        found = super().sums(where, i, q)
        return found if self.target is None else self._in_block(self.target[0], found)

    def in_place(self, out: list[Stmt], where: Block) -> Expr:
        return const_index(0) if self.panels is not None else super().in_place(out, where)

    def right(self, where: Block, in_place: Expr, k0: Expr) -> Right:
        if self.panels is None or self.is_packed_ahead:
            return super().right(where, in_place, k0)
        depth, nr = self.c.k.extent, self.schedule.nr
        packed = Matrix(self.panels, lambda q: (q * depth + k0) * nr, const_index(nr))
        return lambda q, use: use(packed)

    def _in_block(self, node: Node, matrix: Matrix) -> Matrix:
        """Return where `matrix`, a part of the array of `node`, is, if that is kept."""
        if node not in self.kept:
            return matrix
        base = self.origin * self.kept[node][1]
        return Matrix(matrix.buffer, lambda r: matrix.offset(r) - base, matrix.stride)

    def rows_of(self, batch: Expr, at: Mapping[Var, Expr], first: Expr, rows: Expr, limit: Expr | None) -> Body:
        """Return the statements that compute `rows` rows from `first` on, columns from `limit` on left out."""
        c = self.c
        out: list[Stmt] = [Alloc(b) for b in self.scratch()]
        cols = c.n.extent
        if limit is not None:
            cols = self.let(out, "cols", minimum(c.n.extent, maximum(limit, const_index(0))))
        k_blocks = self.let(out, "k_blocks", maximum(ceil_div(c.k.extent, self.schedule.kc), const_index(1)))
        k_step = self.let(out, "k_step", (c.k.extent + (k_blocks - 1)) // k_blocks)
        block = Block(batch, at, first, const_index(0), rows, cols)
        return (*out, *loop("p", k_blocks, lambda p: self.k_block(block, p, k_blocks, k_step)))

    def _line(self, at: Mapping[Var, Expr], n: Expr, k: Expr) -> Load | None:
        """Return the load of a vector of the right factor along k, if its elements are neighbours in memory."""
        c, var = self.c, Var("k", floor=0)
        if len(c.n_axes) != 1 or c.right.place is None:
            return None
        emitter = self.emitter()
        self.factor(emitter, c.right, {**at, c.n.var: n, c.k.var: var})
        found = emitter.statements[0] if len(emitter.statements) == 1 else None
        if not isinstance(found, Let) or not isinstance(found.value, Load):
            return None
        *before, last = found.value.index
        split = split_linear(last, var)
        if split is None or split[0] != const_index(1) or any(depends_on(i, var) for i in before):
            return None
        return Load(found.value.buffer, (*before, Ramp(simplify_index(split[1] + k), 1, self.lanes)))

    def _turned(self, at: Mapping[Var, Expr], q: Expr) -> Body:
        """Return the statements that fill panel `q`, as deep as whole vectors go, by turning squares in registers.

        Element by element, each row of the panel would be gathered from as many cache lines as it has columns.
        """
        nr, lanes, panels = self.schedule.nr, self.lanes, self.panels
        assert panels is not None

        def square(block: Expr, part: Expr) -> Body:
            out: list[Stmt] = []
            k = self.let(out, "k0", block * lanes)
            left = self.let(out, "l0", part * lanes)
            emitter = self.emitter()
            lines = [self._line(at, self.let(out, "n", q * nr + left + r), k) for r in range(lanes)]
            rows = [emitter.let("line", x) for x in lines if x is not None]
            columns = transposed(rows, lambda e: emitter.let("turned", e))
            stores = [Store(panels, (q, simplify_index(k + r), Ramp(left, 1, lanes)), x) for r, x in enumerate(columns)]
            return (*out, *emitter.statements, *stores)

        depth, parts = simplify_index(self.c.k.extent // lanes), nr // lanes
        return loop("square", depth, lambda b: loop("part", parts, lambda part: square(b, part)))

    def pack_all(self, at: Mapping[Var, Expr]) -> Body:
        """Return the statements that pack the whole right factor of a batch."""
        c, nr = self.c, self.schedule.nr
        panels = self.panels
        if panels is None or self.is_packed_ahead:
            return ()
        count = ceil_div(c.n.extent, nr)

        def piece(q: Expr, k: Expr) -> Body:
            out: list[Stmt] = []
            if isinstance(k, Var):
                self.extents[k] = c.k.extent
            n0 = simplify_index(q * nr)
            width = const_index(nr) if divides(nr, c.n.extent) else minimum(c.n.extent - n0, const_index(nr))
            width = self.let(out, "width", width)
            return (*out, *self.piece(at, n0, width, k, panels, (q, k)))

        if c.right.unit == "along":
            turns = not nr % self.lanes and self._line(at, Var("n", floor=0), const_index(0)) is not None
            turned = simplify_index(c.n.extent // nr) if turns else const_index(0)
            depth = simplify_index(c.k.extent // self.lanes * self.lanes)

            def panel(q: Expr, done: Expr) -> Body:
                return loop("kk", simplify_index(c.k.extent - done), lambda k: piece(q, simplify_index(done + k)))

            return (
                *loop("q", turned, lambda q: (*self._turned(at, q), *panel(q, depth))),
                *loop("q", simplify_index(count - turned), lambda q: panel(simplify_index(turned + q), const_index(0))),
            )
        return loop("kk", c.k.extent, lambda k: loop("q", count, lambda q: piece(q, k)))


def build_stages(
    group: FusionGroup,
    name: str,
    names: Mapping[Node, str],
    schedule: StageSchedule,
    packed: Mapping[Node, Buffer] | None = None,
) -> Kernel:
    """Return the kernel of `group`. Its parameters are those of `lowering.signature.signature_of`.

    `packed` gives, in the place of a leaf, the buffer that the kernel of `lowering.contract_pack` has filled from it.
    """
    return _Stages(group, names, schedule, packed or {}).kernel(name)


@dataclass(frozen=True, eq=False)
class PackedFactor:
    """The right factor of a product, `group` or a stage of it, that can be packed ahead, and how the product runs."""

    group: FusionGroup
    schedule: Schedule
    operand: PackedOperand


def packed_factors(group: FusionGroup, schedule: Schedule | StageSchedule) -> list[PackedFactor]:
    """Return what can be packed ahead for `group`: arrays that only one of its stages reads."""
    if isinstance(schedule, Schedule):
        operand = packed_operand(group, schedule) if group.kind == "contract" else None
        return [] if operand is None else [PackedFactor(group, schedule, operand)]
    found = []
    for s, product in zip(group.stages, schedule.products, strict=True):
        operand = None if product is None else packed_operand(s, product)
        if product is None or operand is None or operand.node not in group.leaves:
            continue
        if sum(operand.node in x.leaves for x in group.stages) == 1:
            found.append(PackedFactor(s, product, operand))
    return found


#: Given the first row of a block and how many rows it has: the statements of a stage.
_Rows: TypeAlias = Callable[[Expr, Expr], Body]


class _Stages:
    """What the stages share: their arguments, what they keep, the loops around them."""

    def __init__(
        self, group: FusionGroup, names: Mapping[Node, str], schedule: StageSchedule, packed: Mapping[Node, Buffer]
    ) -> None:
        packs = any(
            p is not None and p.pack_b and not any(n in packed for n in s.leaves)
            for s, p in zip(group.stages, schedule.products, strict=True)
        )
        if any(schedule.products) and not packs:
            # Nothing to share: the more iterations, the better they spread.
            schedule = StageSchedule(schedule.block, 1, schedule.products, schedule.vector, schedule.reasons)
        self.group, self.names, self.schedule, self.packed = group, names, schedule, packed
        spine = common_spine(group.stages)
        assert spine is not None
        self.spine: Spine = spine
        self.signature = staged_signature(group, names, packed)
        self.kept = self._kept()
        self.callees: dict[str, Kernel] = {}

    def _kept(self) -> dict[Node, tuple[Buffer, Expr]]:
        """Return the buffers of what the stages hand on."""
        found: dict[Node, tuple[Buffer, Expr]] = {}
        nodes = set(kept_by(self.group))
        for number, s in enumerate(self.group.stages):
            free = [
                n for n in found if n in s.leaves and not any(n in x.leaves for x in self.group.stages[number + 1 :])
            ]
            for node, at in s.outputs:
                if node not in nodes:
                    continue
                width = row_width(s, self._spine_of(s), node, at)
                assert width is not None
                size = simplify_index(width * self.schedule.block)
                host = next((n for n in free if found[n][1] == width and _may_overwrite(s, n, (node, at))), None)
                if host is not None:
                    free.remove(host)
                    found[node] = found[host]
                else:
                    found[node] = Buffer(self.names[node], node.dtype, (size,), "scratch", 64), width
        return found

    def _spine_of(self, s: FusionGroup) -> Spine:
        spine = spine_of(s, self.spine)
        assert spine is not None
        return spine

    def kernel(self, name: str) -> Kernel:
        """Return the whole kernel."""
        s, extent = self.schedule, self.spine.extent
        top: list[Stmt] = []
        length = s.block * s.shared
        runs = _let(top, "runs", ceil_div(extent, length))
        total = simplify_index(self.spine.batches * runs)

        def run(t: Expr) -> Body:
            out: list[Stmt] = [Alloc(b) for b in dict.fromkeys(b for b, _ in self.kept.values())]
            bounds = {t: total} if isinstance(t, Var) else {}
            batch = _let(out, "batch", simplify_index(t // runs, bounds))
            start = _let(out, "start", simplify_index(t % runs * length, bounds))
            stages = [self._stage(out, x, p, batch) for x, p in zip(self.group.stages, s.products, strict=True)]

            def block(q: Expr) -> Body:
                out: list[Stmt] = []
                first = _let(out, "first", start + q * s.block)
                rows = _let(out, "rows", part_of(extent, first, s.block))
                for make in stages:
                    out += make(first, rows)
                return tuple(out)

            blocks = ceil_div(part_of(extent, start, length), s.block)
            return (*out, *loop("block", blocks, block))

        top += loop("t", total, run, "parallel")
        notes = (*notes_of(self.group, self.names), str(s))
        k = make_kernel(name, self.signature, tuple(top), notes)
        return Kernel(k.name, k.params, k.dims, k.body, k.reads, k.notes, tuple(self.callees.values()))

    def _stage(self, out: list[Stmt], s: FusionGroup, schedule: Schedule | None, batch: Expr) -> _Rows:
        """Append to `out` what a stage does once for all blocks, and return what it does for each."""
        return self._folded(out, s, batch) if schedule is None else self._product(out, s, schedule, batch)

    def _arguments(self, s: FusionGroup, origin: Expr, inside: Mapping[Var, Expr]) -> _StageSignature:
        mine = {n: b for n, (b, _) in self.kept.items()}
        leaves = {n: mine.get(n) or self.signature.leaves[n] for n in s.leaves}
        outputs = {n: mine.get(n) or self.signature.outputs[n] for n, _ in s.outputs}
        return _StageSignature(leaves, outputs, None, self.kept, origin, inside)

    def _product(self, out: list[Stmt], s: FusionGroup, schedule: Schedule, batch: Expr) -> _Rows:
        c = contraction(s)
        lanes = self.schedule.vector // c.node.dtype.itemsize
        operand = packed_operand(s, schedule)
        panels = None if operand is None else self.packed.get(operand.node)
        ahead = panels is not None
        if panels is None and schedule.pack_b:
            shape = (ceil_div(c.n.extent, schedule.nr), c.k.extent, const_index(schedule.nr))
            panels = Buffer("panels", c.node.dtype, shape, "scratch", 64)
            out.append(Alloc(panels))
        packer = _StageTiles(s, c, self._arguments(s, const_index(0), {}), schedule, panels, ahead=ahead, lanes=lanes)
        at = packer.unflatten(out, c.batch, batch)
        out += packer.pack_all(at)
        before = flat_index(tuple(at[a.var] for a in c.batch), [a.extent for a in c.batch]) * c.m.extent
        seen = self._columns_read(s)

        def rows(first: Expr, count: Expr) -> Body:
            limit = None if seen is None else substitute(seen[1], {seen[0]: simplify_index(first + count - 1)})
            signature = self._arguments(s, simplify_index(before + first), {})
            tiles = _StageTiles(s, c, signature, schedule, panels, ahead=ahead, lanes=lanes)
            tiles.extents.update(packer.extents)
            body = tiles.rows_of(batch, at, first, count, limit)
            self.callees.update(tiles.callees)
            return body

        return rows

    def _columns_read(self, s: FusionGroup) -> tuple[Var, Expr] | None:
        """Return up to which column of each row the result of `s` is read, and the variable of that row, if known."""
        (node, _), *others = s.outputs
        readers = [x for x in self.group.stages if node in x.leaves]
        if others or node not in self.kept or len(readers) != 1:
            return None
        spine = self._spine_of(readers[0])
        limit = columns_read(readers[0], spine, node) if len(spine.rows) == 1 else None
        return None if limit is None else (spine.rows[0].var, limit)

    def _folded(self, out: list[Stmt], s: FusionGroup, batch: Expr) -> _Rows:
        spine = self._spine_of(s)
        _bind(out, spine.batch, batch)
        before = flat_index(tuple(map(position_on, spine.batch)), [a.extent for a in spine.batch]) * spine.extent
        inside = {a.var: a.extent for a in spine.axes}
        columns = s.rows[len(spine.axes) :]

        def rows(first: Expr, count: Expr) -> Body:
            signature = self._arguments(s, simplify_index(before + first), inside)
            inner = _serial(build_lanes(replace(s, rows=columns), signature))

            def row(r: Expr) -> Body:
                out: list[Stmt] = []
                _bind(out, spine.rows, first + r)
                return (*out, *inner)

            return loop("r", count, row)

        return rows


def _may_overwrite(s: FusionGroup, leaf: Node, element: Element) -> bool:
    """Tell whether `s` may write `element` where it reads `leaf`: each just after it has read it for the last time."""
    node, at = element
    read = s.wanted[leaf]
    if s.kind != "reduce" or node.dtype is not leaf.dtype or len(read) != 1 or read[0] is None:
        return False
    level = levels_of(s)
    same = flat_index(read[0], leaf.shape, s.extents) == flat_index(at, node.shape, s.extents)
    return same and level[node] == last_pass(s, level, leaf)


def _serial(body: Body) -> Body:
    """Return `body` with its outermost loops, which would be a kernel's, as loops inside one."""
    return tuple(For(x.var, x.extent, x.body) if isinstance(x, For) and x.kind == "parallel" else x for x in body)


def _let(out: list[Stmt], name: str, value: Expr) -> Expr:
    """Return `value`, bound to a variable if that is worth it."""
    value = simplify_index(value)
    if isinstance(value, (Const, Var)):
        return value
    var = Var(name, floor=0)
    out.append(Let(var, value))
    return var


def _bind(out: list[Stmt], axes: Sequence[Axis], position: Expr) -> None:
    """Bind the variables of `axes` to their values at row-major `position`."""
    real = real_axes(axes)
    if len(real) > 1:
        position = _let(out, "row", position)
    for a, value in zip(real, unflatten_index(position, [a.extent for a in real]), strict=True):
        out.append(Let(a.var, simplify_index(value)))


def staged_signature(group: FusionGroup, names: Mapping[Node, str], packed: Mapping[Node, Buffer]) -> Signature:
    """Return the arguments of a group of stages: an array that one of them takes as one-dimensional is so for all."""
    leaves: dict[Node, Buffer] = {}
    outputs: dict[Node, Buffer] = {}
    for s in group.stages:
        mine = signature_of(s, names)
        for found, wanted in ((leaves, mine.leaves), (outputs, mine.outputs)):
            for node, b in wanted.items():
                if node not in found or len(b.shape) < len(found[node].shape):
                    found[node] = b
    return Signature(
        {n: packed.get(n) or leaves[n] for n in group.leaves}, {n: outputs[n] for n, _ in group.outputs}, None
    )
