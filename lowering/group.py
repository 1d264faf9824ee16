"""What becomes one kernel: nodes that are computed together over a common domain, as data.

A :class:`FusionGroup` is a set of nodes computed together over a common domain: `rows` (axes shared by everything in
the group, spread over workers) and, for reductions, `inner` axes (folded). The kinds:

- ``map``: every output has one element per point of `rows`.
- ``reduce``: reductions over `inner`, computed in passes over it (a pass needs the results of the one before), with
  row-level and full-size maps before, between and after them: softmax, layer norm, sums with their prologue.
- ``contract``: one matrix product whose operands may be computed while packing, and whose element is the start of a map
  over `rows`: the epilogue.
- ``kernel``: one operator that states its own loops, between arrays in memory; `rows` are the axes of its result.
- ``stages``: several of these, computed a block of rows at a time (`lowering.stage` joins them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from jitflow.expr import Expr, Var
from jitflow.graph import Node
from lowering.trace import Element, Subscripts

GroupKind: TypeAlias = Literal["map", "reduce", "contract", "kernel", "stages"]

#: What a costly operator (a transcendental function) weighs; an ordinary one weighs 1, a movement 0.
COSTLY = 20


class Axis(NamedTuple):
    """A loop of the group's domain."""

    var: Var
    extent: Expr


@dataclass(frozen=True, eq=False)
class FusionGroup:
    """Nodes that become one kernel; see the module docstring.

    `outputs` are the elements written to memory, `reductions` those folded over `inner`, in topological order, each
    with its subscripts in terms of the axes' variables. `members` are all nodes computed here, `leaves` those read
    from memory, `wanted` the subscripts at which each of both is used. `contract` is the matrix product of a
    ``contract`` group, at subscripts `rows`; `stages` are the groups that one of kind ``stages`` consists of.
    """

    kind: GroupKind
    rows: tuple[Axis, ...]
    inner: tuple[Axis, ...]
    outputs: tuple[Element, ...]
    reductions: tuple[Element, ...]
    members: tuple[Node, ...]
    leaves: tuple[Node, ...]
    wanted: Mapping[Node, tuple[Subscripts | None, ...]]
    contract: Node | None = None
    stages: tuple[FusionGroup, ...] = ()

    @property
    def extents(self) -> dict[Var, Expr]:
        return {a.var: a.extent for a in (*self.rows, *self.inner)}
