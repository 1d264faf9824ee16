"""Cut a long vectorized loop that is a whole kernel into tiles that workers can share.

Before                              After (tile=4096)
    vectorized i in n:                  parallel i_t in (n + 4095) // 4096:
      out[i] = a[i] * 2.0                 vectorized i in min(4096, n - i_t * 4096):
                                            out[i_t * 4096 + i] = a[i_t * 4096 + i] * 2.0

Needs: the loop is the last statement of the kernel, after Lets and Allocs only, and allocates nothing outside itself. A
constant extent of no more than two tiles is left alone: it would not pay to wake a worker for it. So is a body that
chooses between many parts: each tile would have to find those that it meets (100 arrays of 1350 elements: thrice the
time).
"""

from __future__ import annotations

from jitflow.expr import INDEX, Compare, Const, Var, const_index, minimum
from jitflow.record import walk
from jitflow.simplify import simplify_index
from lowering.loop_ir import For, Kernel, Let
from lowering.renew import renew

#: Most conditions on positions in the body of a loop that is cut into tiles.
MOST_CONDITIONS = 16


def parallelize(kernel: Kernel, *, tile: int = 4096) -> Kernel:
    """Return `kernel` with its outermost vectorized loop cut into parallel tiles of `tile` iterations."""
    if not kernel.body or not all(isinstance(s, Let) for s in kernel.body[:-1]):
        return kernel
    loop = kernel.body[-1]
    if not (isinstance(loop, For) and loop.kind == "vectorized"):
        return kernel
    extent = simplify_index(loop.extent)
    if isinstance(extent, Const) and extent.value <= 2 * tile:
        return kernel
    conditions = {x for s in loop.body for x in walk(s) if isinstance(x, Compare) and x.a.type is INDEX}
    if len(conditions) > MOST_CONDITIONS:
        return kernel
    outer = Var(f"{loop.var.name}_t", loop.var.type, 0)
    inner = Var(loop.var.name, loop.var.type, 0)
    start = outer * tile
    length = minimum(const_index(tile), extent - start)
    if isinstance(extent, Const) and extent.value % tile == 0:
        length = const_index(tile)
    body = renew(loop.body, {loop.var: start + inner})
    count = simplify_index((extent + (tile - 1)) // tile)
    tiled = For(outer, count, (For(inner, length, body, "vectorized"),), "parallel")
    return kernel.with_body((*kernel.body[:-1], tiled))
