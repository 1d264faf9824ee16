"""A kernel and its results that nothing in the program reads again, into the kernel with streaming stores for them.

A streaming (non-temporal) store writes a whole cache line without reading it first and without driving others out of
the caches. It pays where the arrays are too large to stay in them anyway (`Target.stream_bytes`): copying 64 MB takes
1.6 times as long without. It costs where they would have stayed: twice the time in the second-level cache. So a store
marked here is a wish, which `lowering.passes.vectorize` grants to whole vectors that begin at a cache line, where the
arrays are large: at run time, if dims decide that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from jitflow.expr import Buffer, Const, Expr, Load, compare, const_index
from jitflow.record import map_children, walk
from jitflow.simplify import simplify_index
from lowering.loop_ir import Kernel, Stmt, Store
from lowering.target import Target


def is_large(sizes: Iterable[Expr], target: Target) -> Expr | bool:
    """Return whether arrays of `sizes` bytes are too large to stay in the caches: a condition where dims decide."""
    total: Expr = const_index(0)
    for size in sizes:
        total = total + size
    total = simplify_index(total)
    if isinstance(total, Const):
        return int(total.value) >= target.stream_bytes
    return compare("ge", total, target.stream_bytes)


def array_bytes(kernel: Kernel) -> Iterator[Expr]:
    """Yield the bytes of each array that `kernel` is given."""
    for b in kernel.params:
        size: Expr = const_index(b.dtype.itemsize)
        for n in b.shape:
            size = size * n
        yield size


def stream_results(kernel: Kernel, results: Collection[Buffer]) -> Kernel:
    """Return `kernel` with its stores to `results` marked, save those of arrays that it reads itself."""
    read = {x.buffer for s in kernel.body for x in walk(s) if isinstance(x, Load)}
    wanted = set(results) - read
    if not wanted:
        return kernel

    def mark(x: object) -> object:
        if isinstance(x, Store):
            return Store(x.buffer, x.index, x.value, x.mask, True) if x.buffer in wanted and x.mask is None else x
        return map_children(mark, x) if isinstance(x, Stmt) else x

    return kernel.with_body(tuple(mark(s) for s in kernel.body))  # type: ignore[misc]
