"""Folding across the threads of a GPU: partial results in registers in, one result in every thread out.

Order: threads of a *segment* (a warp, or 2, 4, 8, 16 neighbours in it) are halved, thread i with i + width/2, then with
i + width/4, and so on; the warps of a block are folded in order. It depends on the number of threads alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jitflow.expr import INDEX, Buffer, Call, Expr, Load, Var, const_index, eq
from jitflow.simplify import simplify_index
from lowering.gpu.schedule import WARP
from lowering.loop_ir import Alloc, Barrier, Body, For, If, Stmt, Store
from lowering.reduction import Accumulator

_OWN, _OTHER = const_index(0), const_index(1)


def new_accumulator(acc: Accumulator) -> Body:
    """Return the statements that make an accumulator of two lanes, its own and a partner's, and empty the first."""
    return (*(Alloc(b) for b in acc.buffers), *acc.start(_OWN))


def fold(acc: Accumulator, body: Expr, position: Expr) -> Body:
    """Return the statements that fold `body` at `position` into the thread's own lane."""
    return acc.fold(_OWN, body, position)


def fold_segment(acc: Accumulator, width: int) -> Body:
    """Return the statements that leave the result of `width` neighbouring threads in the first of them.

    All threads of the warp must come here.
    """
    out: list[Stmt] = []
    offset = width // 2
    while offset:
        out += [Store(b, (_OTHER,), _shuffle("shfl_down", b, const_index(offset))) for b in acc.buffers]
        out += acc.halve(_OWN, 1)
        offset //= 2
    return tuple(out)


def share_segment(acc: Accumulator, thread: Expr, width: int) -> Body:
    """Return the statements that give the first thread's result to all of a segment."""
    if width == 1:
        return ()
    leader = simplify_index(thread % WARP // width * width)
    return tuple(Store(b, (_OWN,), _shuffle("shfl_idx", b, leader)) for b in acc.buffers)


def fold_block(acc: Accumulator, thread: Expr, threads: int) -> Body:
    """Return the statements that leave the result of the whole block in every thread. All threads must come here."""
    out: list[Stmt] = list(fold_segment(acc, min(threads, WARP)))
    warps = threads // WARP
    if warps <= 1:
        return (*out, *share_segment(acc, thread, min(threads, WARP)))
    shared = {b: Buffer(f"{b.name}_warps", b.dtype, (const_index(warps),), "shared") for b in acc.buffers}
    out += [Alloc(b) for b in shared.values()]
    warp = simplify_index(thread // WARP)
    first = tuple(Store(shared[b], (warp,), Load(b, (_OWN,))) for b in acc.buffers)
    out += [If(eq(simplify_index(thread % WARP), const_index(0)), first), Barrier()]
    out += fold_slots(acc, shared, warps, lambda w: (w,))
    return tuple(out)


def fold_slots(
    acc: Accumulator, shared: Mapping[Buffer, Buffer], count: int, at: Callable[[Expr], tuple[Expr, ...]]
) -> Body:
    """Return the statements that fold `count` partial results in shared memory, the one `w` at subscripts ``at(w)``."""
    out: list[Stmt] = [Store(b, (_OWN,), Load(shared[b], at(const_index(0)))) for b in acc.buffers]
    if count > 1:
        w = Var("w", INDEX, floor=0)
        load = tuple(Store(b, (_OTHER,), Load(shared[b], at(w + 1))) for b in acc.buffers)
        out.append(For(w, const_index(count - 1), (*load, *acc.halve(_OWN, 1)), "unrolled"))
    return tuple(out)


def _shuffle(name: str, b: Buffer, by: Expr) -> Expr:
    own = Load(b, (_OWN,))
    return Call(name, (own, by), own.type)
