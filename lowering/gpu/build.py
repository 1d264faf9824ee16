"""A fusion group into GPU kernels: loops of kind ``block`` and ``thread`` over its domain.

Which form a group takes, and in which order each form folds (fixed by the group's types and the schedule alone; bits
may differ from the CPU's, except in matrix products):

- ``map``: `lowering.gpu.elementwise`, a few elements per thread; `lowering.gpu.transpose` for transposed operands.
- ``reduce`` over the innermost axis: `lowering.gpu.rows`, a row per block, warp or part of a warp; element k is folded
  by thread ``k % threads``, threads are halved inside each warp, the warps folded in order.
- ... of few long rows: `lowering.gpu.split`, several blocks per row and a kernel per stage.
- ``reduce`` over outer axes: `lowering.gpu.columns`, a column per thread or per few threads, folded in order.
- ``contract``: `lowering.gpu.matmul`, tiles in shared memory, one chain of Fma over increasing k as on the CPU. Where
  one side is declared as a single row or column, tiles would be mostly empty: then it is folded like a row or a column.
- ``kernel``: `lowering.build_kernel`, a row per thread.

A kernel's grid is one axis of blocks: y and z end at 65535, and sizes are known at run time only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jitflow.expr import Buffer
from jitflow.graph import Node
from lowering.build_kernel import build_kernel
from lowering.fuse import FusionGroup
from lowering.gpu.columns import build_columns
from lowering.gpu.elementwise import build_map
from lowering.gpu.matmul import as_product, build_matmul, runs_along_k
from lowering.gpu.rows import build_rows
from lowering.gpu.schedule import GpuSchedule
from lowering.gpu.split import build_split, split_of
from lowering.loop_ir import Kernel
from lowering.reduction import reduce_of
from lowering.signature import Signature, make_kernel, notes_of, signature_of, unbound_dims
from lowering.trace import Checks

#: Device memory begins at multiples of this wherever it comes from: the widest access of one thread.
GLOBAL_ALIGN = 16

DEFAULT = GpuSchedule()


@dataclass(frozen=True, eq=False)
class GpuKernels:
    """The kernels of a group in launch order, and the global buffers through which they pass partial results."""

    kernels: tuple[Kernel, ...]
    temporaries: tuple[Buffer, ...] = ()


def build_gpu(group: FusionGroup, name: str, names: Mapping[Node, str], schedule: GpuSchedule = DEFAULT) -> GpuKernels:
    """Return the kernels of `group`; buffers are called as `names` calls their nodes."""
    signature = gpu_signature(group, names)
    notes = notes_of(group, names)
    if group.kind == "kernel":
        body, temporaries = build_kernel(group, signature, for_gpu=True)
        params = (*signature.params, *temporaries)
        reads = frozenset(signature.leaves.values())
        return GpuKernels((Kernel(name, params, unbound_dims(body, params), body, reads, notes),), temporaries)
    if group.kind == "map":
        signature, body = build_map(group, signature, schedule)
    elif group.kind == "contract":
        product = as_product(group)
        if product is None:
            body = build_columns(group, signature, schedule, chained=True)
        elif product.matrix is None:
            body = build_matmul(group, product, signature, schedule)
        elif not runs_along_k(group, product, product.matrix, signature):
            body = build_columns(group, signature, schedule)
        else:
            return _rows(group, signature, schedule, name, notes)
    elif max(reduce_of(e).lanes for e in group.reductions) == 1:
        body = build_columns(group, signature, schedule)
    else:
        return _rows(group, signature, schedule, name, notes)
    return GpuKernels((make_kernel(name, signature, body, notes),))


def _rows(
    group: FusionGroup, signature: Signature, schedule: GpuSchedule, name: str, notes: tuple[str, ...]
) -> GpuKernels:
    split = split_of(group, schedule)
    if split is not None:
        return GpuKernels(*build_split(group, signature, schedule, split, name, notes))
    return GpuKernels((make_kernel(name, signature, build_rows(group, signature, schedule), notes),))


def gpu_signature(group: FusionGroup, names: Mapping[Node, str]) -> Signature:
    """Return the arguments of the kernels of `group`: those of the CPU's kernel, better aligned."""
    cpu = signature_of(group, names)

    def aligned(b: Buffer) -> Buffer:
        return Buffer(b.name, b.dtype, b.shape, b.space, GLOBAL_ALIGN)

    checks = None if cpu.checks is None else Checks(aligned(cpu.checks.status), cpu.checks.slots)
    leaves = {n: aligned(b) for n, b in cpu.leaves.items()}
    return Signature(leaves, {n: aligned(b) for n, b in cpu.outputs.items()}, checks)
