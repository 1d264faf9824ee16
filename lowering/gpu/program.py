"""A graph of primitive operators into the text of a GPU program: groups, block/thread kernels, launches, PTX.

The groups, places and guards are those of the CPU (`lowering.program.prepare`); only kernels and launches differ.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jitflow.expr import Const, Expr, const_index
from jitflow.graph import Node
from jitflow.types import dim_text
from lowering.fuse import FusionGroup
from lowering.gpu.build import GpuKernels, build_gpu
from lowering.launch import launch_geometry
from lowering.loop_ir import Kernel
from lowering.nvptx import emit_llvm, emit_ptx
from lowering.pipeline import run_pipeline
from lowering.program import Clock, Frame, group_key, label_of, local_names, prepare, show_group
from lowering.report import show_report
from lowering.target import Target
from lowering.text import show


@dataclass(frozen=True, eq=False)
class GpuBuilt:
    """The kernels of a group in launch order: as built, and after the loop passes."""

    made: GpuKernels
    final: tuple[Kernel, ...]


@dataclass(frozen=True, eq=False)
class GpuProgram:
    """A lowered fetch set for a GPU. It has texts; nothing here runs it."""

    frame: Frame
    fetches: tuple[Node, ...]
    inputs: tuple[Node, ...]
    built: Mapping[Any, GpuBuilt]
    names: Mapping[Node, str]
    target: Target

    @property
    def groups(self) -> tuple[FusionGroup, ...]:
        return self.frame.groups

    @property
    def kernel_names(self) -> tuple[str, ...]:
        """The names of all kernels, in the order in which they first run."""
        return tuple(k.name for b in self.built.values() for k in b.final)

    def text(self, stage: str, kernel: str | None = None) -> str:
        """Return stage ``fused``, ``loops``, ``loops-opt``, ``plan``, ``llvm`` or ``ptx`` as text."""
        if stage == "fused":
            return "\n".join(show_group(g, k, self.names) for k, g in enumerate(self.groups))
        if stage == "loops":
            made = [k for b in self.built.values() for k in b.made.kernels]
            return "\n".join(show(k) for k in made if kernel in (None, k.name))
        if stage == "plan":
            return self._plan()
        if stage == "loops-opt":
            return "\n".join(show(k) for b in self.built.values() for k in b.final if kernel in (None, k.name))
        final = [k for b in self.built.values() for k in b.final if kernel in (None, k.name)]
        return emit_llvm(final, self.target) if stage == "llvm" else emit_ptx(final, self.target)

    def report(self, workers: int) -> str:
        """Return a table of kernels with their work, and the buffers; a GPU has no working rows for its `workers`."""
        frame = self.frame

        def kernel_of(group: FusionGroup) -> str:
            return self.built[group_key(group)].final[0].name

        zero = const_index(0)
        where = (frame.places, frame.cells, zero)
        return show_report(frame.groups, kernel_of, *where, self.names, frame.consts, workers, {})

    def _plan(self) -> str:
        lines = ["plan:"]
        for title, nodes in (("inputs", self.inputs), ("constants", self.frame.consts), ("outputs", self.fetches)):
            lines.append(f"  {title}:")
            lines += [f"    {self.names.get(n, n.op.name)}: {n.type!r}" for n in nodes]
        lines.append("  guards:")
        lines += [f"    {_dim(g.left)} == {_dim(g.right)}" for g in self.frame.guards]
        lines.append("  arena:")
        lines += [f"    arena[{k}] {_dim(c)} bytes" for k, c in enumerate(self.frame.cells)]
        lines.append("  steps:")
        for group in self.groups:
            places = [repr(self.frame.places[n]) for n in (*group.leaves, *(n for n, _ in group.outputs))]
            built = self.built[group_key(group)]
            places += [f"{b.name}: {b.dtype.short}[{', '.join(map(_dim, b.shape))}]" for b in built.made.temporaries]
            for k in built.final:
                g = launch_geometry(k)
                grid, block = ", ".join(map(_dim, g.grid)), ", ".join(map(str, g.block))
                lines.append(f"    launch {k.name} grid ({grid}) block ({block}) shared {g.shared_bytes} bytes")
                lines.append(f"      on {', '.join(places)}")
        lines += [f"    copy {c.source!r} to {c.target!r}" for c in self.frame.copies(self.fetches)]
        return "\n".join(lines) + "\n"


def _dim(e: Expr | int) -> str:
    return dim_text(int(e.value) if isinstance(e, Const) else e)


def lower_gpu(
    fetches: Sequence[Node],
    inputs: Sequence[Node],
    static: Collection[Node],
    original: Sequence[Node],
    names: Mapping[Node, str],
    target: Target,
    *,
    fused: bool = True,
    gap: int = 0,
    observer: Any = None,
    check: bool = False,
    clock: Clock = lambda step, what, seconds: None,
) -> GpuProgram:
    """Return the GPU program that computes `fetches`; the arguments are those of `lowering.program.lower`."""
    frame = prepare(fetches, inputs, static, original, fused=fused, gap=gap, clock=clock)
    built: dict[Any, GpuBuilt] = {}
    for group in frame.groups:
        key = group_key(group)
        if key in built:
            continue
        name = f"k{len(built)}_{label_of(group, names)}"
        start = time.perf_counter()
        made = build_gpu(group, name, local_names(group, names))
        clock("build", name, time.perf_counter() - start)
        start = time.perf_counter()
        final = tuple(run_pipeline(k, target, observer=observer, check=check) for k in made.kernels)
        clock("passes", name, time.perf_counter() - start)
        built[key] = GpuBuilt(made, final)
    return GpuProgram(frame, tuple(fetches), tuple(inputs), built, names, target)
