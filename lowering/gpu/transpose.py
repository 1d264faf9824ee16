"""A ``map`` group with transposed operands into a GPU kernel: tiles are turned around in shared memory.

Along its last axis the domain is where results are neighbours in memory; an operand whose neighbours lie along another
axis would be read one element per line of memory. So a tile is read along that axis, and then used along the other:

    block b in ceil(n / 32) * ceil(m / 32):              # out[i, j] = f(a[j, i])
      thread t in 256:
        unrolled u in 4: a_tile[t // 32 + 8*u, t % 32] = a[j0 + t // 32 + 8*u, i0 + t % 32]
        barrier
        unrolled u in 4: out[i0 + t // 32 + 8*u, j0 + t % 32] = f(a_tile[t % 32, t // 32 + 8*u])
"""

from __future__ import annotations

from typing import NamedTuple

from jitflow.expr import INDEX, Binary, Buffer, Const, Expr, Load, Select, Var, compare, const_index
from jitflow.graph import Node
from jitflow.record import walk
from jitflow.simplify import free_vars, poly_of, simplify_index
from lowering.fuse import Axis, FusionGroup
from lowering.gpu.schedule import WARP, GpuSchedule
from lowering.gpu.space import Space, elements, placed
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Let, Stmt, Store, statements
from lowering.signature import Signature
from lowering.trace import Element, Emitter, flat_index, substitute_all, unflatten_index

#: Tiles in shared memory: 8 KB each for 8-byte elements.
MAX_TILES = 4


class Transposed(NamedTuple):
    """The elements of `leaves` are neighbours in memory along axis number `axis` of the domain, not along the last."""

    axis: int
    leaves: tuple[Element, ...]


def find_transposed(group: FusionGroup, signature: Signature, space: Space, trial: Body) -> Transposed | None:
    """Return the operands that are worth turning around, or None. `trial` is the work at one element."""
    if len(space.axes) < 2 or _is_short(space.axes[-1]):
        return None
    axes: dict[Node, int] = {}
    guarded = {y.buffer for s in statements(trial) for x in walk(s) if isinstance(x, Select) for y in _loads(x)}
    for node, buffer in signature.leaves.items():
        wanted = group.wanted.get(node, ())
        if len(wanted) != 1 or wanted[0] is None or buffer in guarded:
            continue
        for k, axis in enumerate(space.axes[:-1]):
            if not _is_short(axis) and _runs_along(node, wanted[0], space, axis):
                axes[node] = k
    if not axes:
        return None
    number = next(iter(axes.values()))
    leaves = [n for n, k in axes.items() if k == number][:MAX_TILES]
    return Transposed(number, tuple((n, group.wanted[n][0] or ()) for n in leaves))


def _loads(e: Expr) -> list[Load]:
    return [x for x in walk(e) if isinstance(x, Load)]


def _is_short(axis: Axis) -> bool:
    return isinstance(axis.extent, Const) and axis.extent.value < WARP


def _runs_along(node: Node, at: tuple[Expr, ...], space: Space, axis: Axis) -> bool:
    """Tell whether the elements of `node` at `at` are neighbours along `axis` and far apart along the last axis."""
    p = dict(poly_of(substitute_all(flat_index(at, node.shape), space.places), space.extents))
    last = space.axes[-1].var
    if p.pop((axis.var,), None) != 1:
        return False
    others = {v for m in p for atom in m for v in free_vars(atom)}
    return axis.var not in others and last in others


def build_transposition(
    group: FusionGroup, signature: Signature, space: Space, transposed: Transposed, schedule: GpuSchedule
) -> Body:
    """Return the loops of a ``map`` group with transposed operands."""
    long, last = space.axes[transposed.axis], space.axes[-1]
    outer = [a for a in space.axes if a not in (long, last)]
    lines = schedule.threads // WARP
    b, t, u, v = (Var(name, INDEX, floor=0) for name in "btuv")
    tile_i, tile_j = Var("tile_i", INDEX, floor=0), Var("tile_j", INDEX, floor=0)
    counts = [simplify_index((a.extent + (WARP - 1)) // WARP) for a in (long, last)]
    blocks = simplify_index(counts[0] * counts[1])
    for a in outer:
        blocks = simplify_index(a.extent * blocks)
    place = unflatten_index(b, [*(a.extent for a in outer), *counts])
    lets = tuple(Let(x, at) for x, at in zip([*(a.var for a in outer), tile_i, tile_j], place, strict=True))
    x, y = simplify_index(t % WARP), simplify_index(t // WARP)
    shape = (const_index(WARP), const_index(WARP + 1))
    tiles = {e: Buffer(f"{e[0].name or e[0].op.name}_tile", e[0].dtype, shape, "shared") for e in transposed.leaves}

    def at(i: Expr, j: Expr, body: Body) -> Body:
        """Return `body` at (i, j) of the tile, where that lies in the domain."""
        here_i, here_j = Var("i", INDEX, floor=0), Var("j", INDEX, floor=0)
        body = placed(placed(body, space.places), {long.var: here_i, last.var: here_j})
        tests = [
            compare("lt", here, a.extent)
            for here, a in ((here_i, long), (here_j, last))
            if simplify_index(a.extent % WARP) != const_index(0)
        ]
        if tests:
            body = (If(tests[0] if len(tests) == 1 else Binary("and", *tests), body),)
        return (
            Let(here_i, simplify_index(tile_i * WARP + i)),
            Let(here_j, simplify_index(tile_j * WARP + j)),
            *body,
        )

    read = Emitter(signature.values(group.extents))
    down = simplify_index(y + v * lines)
    for e, tile in tiles.items():
        read.statements.append(Store(tile, (down, x), read.value(*e)))
    turned: list[Stmt] = []
    known: dict[Element, Expr] = {}
    across = simplify_index(y + u * lines)
    for e, tile in tiles.items():
        known[e] = var = Var(e[0].name or e[0].op.name, read.value(*e).type)
        turned.append(Let(var, Load(tile, (x, across))))
    passes = const_index(WARP // lines)
    body: Body = (
        *(Alloc(tile) for tile in tiles.values()),
        For(v, passes, at(x, down, tuple(read.statements)), "unrolled"),
        Barrier(),
        For(u, passes, at(across, x, (*turned, *elements(group, signature, known))), "unrolled"),
    )
    return (For(b, blocks, (*lets, For(t, const_index(schedule.threads), body, "thread")), "block"),)
