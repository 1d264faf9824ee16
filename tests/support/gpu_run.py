"""Run graphs as GPU kernels in the loop interpreter: every thread, barriers and shuffles, races and bounds watched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.expr import Var
from jitflow.graph import Node, as_node, toposort
from jitflow.rewrite import expand, widen
from jitflow.simplify import evaluate_index
from jitflow.types import Dim
from lowering.fuse import FusionGroup, fuse
from lowering.gpu.build import GpuKernels, build_gpu
from lowering.gpu.schedule import GpuSchedule
from lowering.interp import interpret
from lowering.loop_ir import Kernel
from lowering.pipeline import run_pipeline
from lowering.target import from_name
from lowering.text import parse_kernel, show
from lowering.verify import verify

Array = np.ndarray[Any, np.dtype[Any]]

#: Few threads and small tiles: a handful of elements fills several blocks, and the interpreter stays quick.
SMALL = GpuSchedule(
    threads=64,
    items=4,
    row_threads=64,
    row_items=2,
    column_rows=4,
    split_from=256,
    splits=4,
    unknown_splits=4,
    tile_m=8,
    tile_n=8,
    tile_k=4,
    item_m=2,
    item_n=2,
)
NORMAL = GpuSchedule()
SM_90 = from_name("nvptx:sm_90")


def gpu_groups(fetches: Sequence[Any], *, fused: bool = True) -> tuple[list[Node], list[FusionGroup]]:
    """Return the primitive nodes that `fetches` become, and the fusion groups that compute them."""
    nodes = [as_node(x) for x in fetches]
    for run in (widen, expand):
        found = run(nodes, frozenset())
        nodes = [found[n] for n in nodes]
    primitive = nodes
    return primitive, fuse(primitive, enabled=fused)


def build_group(group: FusionGroup, name: str, schedule: GpuSchedule = NORMAL) -> GpuKernels:
    """Return the kernels of `group`, each verified and read back from its text."""
    nodes = dict.fromkeys((*group.leaves, *(x for m in group.members for x in m.inputs), *group.members))
    made = build_gpu(group, name, {n: f"{n.name or n.op.name}_{k}" for k, n in enumerate(nodes)}, schedule)
    for kernel in made.kernels:
        verify(kernel)
        assert show(parse_kernel(show(kernel))) == show(kernel)
    return made


def gpu_kernels(fetches: Sequence[Any], schedule: GpuSchedule = NORMAL) -> list[Kernel]:
    """Return the kernels that compute `fetches`, before the passes."""
    groups = gpu_groups(fetches)[1]
    return [k for n, group in enumerate(groups) for k in build_group(group, f"k{n}", schedule).kernels]


def final_kernels(fetches: Sequence[Any], schedule: GpuSchedule = NORMAL) -> list[Kernel]:
    """Return the kernels that compute `fetches`, after the passes."""
    return [run_pipeline(k, SM_90, check=True) for k in gpu_kernels(fetches, schedule)]


def run_gpu(
    fetches: Sequence[Any],
    feeds: Mapping[str, Array] | None = None,
    *,
    schedule: GpuSchedule = SMALL,
    reverse: bool = False,
    final: bool = False,
    fused: bool = True,
) -> list[Array]:
    """Return the values of `fetches`, computed by their GPU kernels; `final`: as they are after the passes.

    Raises IndexError, with the position, where a kernel reports a bad index.
    """
    primitive, groups = gpu_groups(fetches, fused=fused)
    memory: dict[Node, Array] = {}
    dims: dict[Var, int] = {}
    for node in toposort(primitive):
        if node.op.name == "placeholder":
            memory[node] = np.array((feeds or {})[node.name or ""])
            dims.update((d, n) for d, n in zip(node.shape, memory[node].shape, strict=True) if isinstance(d, Var))
        elif node.op.source:
            memory[node] = np.array(node.attr("value").array)
    for number, group in enumerate(groups):
        made = build_group(group, f"k{number}", schedule)
        outputs = {n: _poisoned(n.dtype.np, n.shape, dims) for n, _ in group.outputs}
        status = np.full(sum(n.op.fallible for n in group.members), np.iinfo(np.int64).max)
        arrays = [*(memory[n] for n in group.leaves), *outputs.values()] + [status] * bool(status.size)
        parts = {id(b): _poisoned(b.dtype.np, b.shape, dims) for b in made.temporaries}
        for kernel in made.kernels:
            rest = iter(arrays)
            given = [parts[id(b)] if id(b) in parts else next(rest) for b in kernel.params]
            shaped = [a.reshape(_sizes(b.shape, dims)) for a, b in zip(given, kernel.params, strict=True)]
            run = run_pipeline(kernel, SM_90, check=True) if final else kernel
            interpret(run, shaped, {v.name: dims[v] for v in run.dims}, reverse=reverse)
        if status.size and status.min() < np.iinfo(np.int64).max:
            raise IndexError(int(status.min()))
        memory.update(outputs)
    return [memory[n] if n in memory else n.attr("value").array for n in primitive]


def _sizes(shape: Sequence[Dim], dims: Mapping[Var, int]) -> tuple[int, ...]:
    return tuple(evaluate_index(d, dims) for d in shape)


def _poisoned(dtype: Any, shape: Sequence[Dim], dims: Mapping[Var, int]) -> Array:
    """Return memory full of values that no test expects."""
    return np.full(_sizes(shape, dims), np.nan if dtype.kind == "f" else 77, dtype)
