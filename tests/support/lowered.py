"""Tensors in, fusion groups and kernels out, as text: what tests of `fuse`, `build` and `plan` look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jitflow.graph import Node, name_nodes, toposort
from jitflow.rewrite import rewrite
from lowering.build import build
from lowering.fuse import FusionGroup, fuse
from lowering.loop_ir import Kernel


def primitive(fetches: Sequence[Any]) -> tuple[list[Node], list[Node]]:
    """Return the rewritten nodes of `fetches` and the placeholders below them."""
    nodes = [t.node for t in fetches]
    inputs = [n for n in toposort(nodes) if n.op.name == "placeholder"]
    replaced = rewrite(nodes, inputs)
    return [replaced[n] for n in nodes], [replaced[n] for n in inputs]


def groups_of(*fetches: Any) -> list[FusionGroup]:
    """Return the fusion groups of `fetches`."""
    nodes, inputs = primitive(fetches)
    return fuse(nodes, inputs)


def outline(*fetches: Any) -> list[str]:
    """Return a line for each group: its kind, and the operators it computes, what it writes marked by ``*``."""
    lines = []
    for g in groups_of(*fetches):
        written = {n for n, _ in g.outputs}
        lines.append(f"{g.kind}: " + " ".join(n.op.name + ("*" if n in written else "") for n in g.members))
    return lines


def kernels_of(*fetches: Any) -> list[Kernel]:
    """Return the kernels of `fetches` as they are built, in order."""
    nodes, inputs = primitive(fetches)
    names = name_nodes(toposort(nodes))
    return [build(g, f"k{k}", names) for k, g in enumerate(fuse(nodes, inputs))]
