"""How a kernel of ``block`` and ``thread`` loops is started: the kernel in, its grid, block and shared memory out.

The grid is a triple of expressions of the kernel's dims, so one kernel serves every size. A grid with a zero in it has
nothing to do and is not launched: the driver refuses it.
"""

from __future__ import annotations

from jitflow.errors import CompilerBug
from jitflow.expr import Buffer, Const, Expr, Var, as_index, const_index, maximum, substitute
from jitflow.record import record
from jitflow.simplify import free_vars, simplify_index
from lowering.loop_ir import Alloc, For, Kernel, Let, statements

#: What every GPU in scope has: threads in a block, and bytes of shared memory without asking the driver for more.
MAX_THREADS, MAX_SHARED = 1024, 48 << 10
#: Shared buffers begin at multiples of this: the widest access of one thread.
SHARED_ALIGN = 16


@record
class LaunchGeometry:
    """`grid`: blocks along x, y and z; `block`: threads along them; `shared_bytes`: shared memory of a block."""

    grid: tuple[Expr, ...]
    block: tuple[int, ...]
    shared_bytes: int

    @property
    def threads(self) -> int:
        """Threads in one block."""
        x, y, z = self.block
        return x * y * z


def launch_geometry(kernel: Kernel) -> LaunchGeometry:
    """Return how `kernel` is started: each axis is as large as the largest loop over it."""
    lets = {s.var: s.value for s in kernel.body if isinstance(s, Let)}
    grid: list[Expr] = [const_index(1)] * 3
    block = [1, 1, 1]
    seen: set[int] = set()
    for s in statements(kernel.body):
        if not isinstance(s, For) or s.kind not in ("block", "thread"):
            continue
        extent = simplify_index(_expand(s.extent, lets))
        if s.kind == "thread":
            if not isinstance(extent, Const):
                raise CompilerBug(f"{kernel.name}: a block of threads has a constant size")
            block[s.axis] = max(block[s.axis], int(extent.value))
            continue
        if not free_vars(extent) <= set(kernel.dims):
            raise CompilerBug(f"{kernel.name}: the number of blocks is no expression of its dims")
        grid[s.axis] = simplify_index(maximum(grid[s.axis], extent)) if s.axis in seen else extent
        seen.add(s.axis)
    geometry = LaunchGeometry(tuple(grid), tuple(block), shared_layout(kernel)[1])
    if geometry.threads > MAX_THREADS:
        raise CompilerBug(f"{kernel.name}: a block has {geometry.threads} threads, at most {MAX_THREADS} are possible")
    if geometry.shared_bytes > MAX_SHARED:
        raise CompilerBug(f"{kernel.name}: a block has {geometry.shared_bytes} bytes of shared memory, of {MAX_SHARED}")
    return geometry


def _expand(e: Expr, lets: dict[Var, Expr]) -> Expr:
    while any(v in lets for v in free_vars(e)):
        e = substitute(e, lets)
    return e


def shared_layout(kernel: Kernel) -> tuple[dict[Buffer, int], int]:
    """Return where each shared buffer of `kernel` begins, in bytes, and how many bytes they take together."""
    offsets: dict[Buffer, int] = {}
    total = 0
    for s in statements(kernel.body):
        if isinstance(s, Alloc) and s.buffer.space == "shared":
            offsets[s.buffer] = total
            total += -(-_bytes(s.buffer) // SHARED_ALIGN) * SHARED_ALIGN
    return offsets, total


def _bytes(b: Buffer) -> int:
    size = b.dtype.itemsize
    for n in b.shape:
        e = simplify_index(as_index(n))
        if not isinstance(e, Const):
            raise CompilerBug(f"the shared buffer {b.name} has no constant size")
        size *= int(e.value)
    return size
