"""The right factor of a contraction packed ahead: what can be, and the kernel that does it.

A weight is packed once, when a session starts, and then read in the place of its leaf by the kernels that
`lowering.contract` builds with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from jitflow.dtypes import DType
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Buffer,
    Expr,
    Var,
    const_index,
    minimum,
)
from jitflow.graph import Node
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction
from lowering.contract_nest import Nest, ceil_div, contraction, divides, extent_of, right_batch
from lowering.fuse import FusionGroup
from lowering.loop_ir import Body, Kernel, Stmt
from lowering.microkernel import loop
from lowering.schedule import Schedule
from lowering.signature import Signature, make_kernel, signature_of
from lowering.text import show
from lowering.trace import (
    literal_of,
    substitute_all,
)


@dataclass(frozen=True, eq=False)
class PackedOperand:
    """The right factor of a contraction as a function of one leaf, `node`, alone, so that it can be packed ahead.

    The packed array has `shape` (batch, panels, k, nr) and `dtype`; it runs fastest aligned to `align` bytes. `layout`
    names the layout: arrays packed from one node in one layout are the same.
    """

    node: Node
    dtype: DType
    shape: tuple[Expr, ...]
    layout: str
    align: int = 64

    def buffer(self, name: str) -> Buffer:
        """Return the packed array as a parameter of kernels."""
        return Buffer(name, self.dtype, self.shape)


def packed_operand(group: FusionGroup, schedule: Schedule) -> PackedOperand | None:
    """Return what can be packed ahead for `group`, or None if its right factor is no function of one leaf alone."""
    if schedule.form != "packed":
        return None
    c = contraction(group)
    members = set(group.members)
    leaves = set(group.leaves)
    reached = _reached([d.node for d in c.right.demands], members)
    mine = [n for n in reached if n in leaves]
    others = _reached([d.node for d in c.left.demands] + [n for n, _ in group.outputs], members, stop=c.node)
    if len(mine) != 1 or mine[0] in others or any(n.op.fallible for n in reached):
        return None
    batch = extent_of(right_batch(c))
    shape = (batch, ceil_div(c.n.extent, schedule.nr), c.k.extent, const_index(schedule.nr))
    return PackedOperand(mine[0], c.node.dtype, shape, f"panels of {schedule.nr} of {_recipe(c, reached, members)}")


def _recipe(c: Contraction, reached: Sequence[Node], members: Collection[Node]) -> str:
    """Return how the right factor is made of its leaf, in words that are equal only if that is."""
    number = {n: k for k, n in enumerate(reached)}
    axes = {"b": right_batch(c), "n": c.n_axes, "k": (c.k,)}
    renamed: dict[Var, Expr] = {a.var: Var(f"{name}{k}") for name, some in axes.items() for k, a in enumerate(some)}
    read = []
    for d in c.right.demands:
        parts = (*d.at, *(() if d.cond is None else (d.cond,)))
        read.append(f"%{number[d.node]}[{', '.join(show(substitute_all(x, renamed)) for x in parts)}]")
    steps = []
    for node in reached:
        if node not in members:
            continue
        # An array prints as its shape only; its key holds its bits.
        attrs = {name: getattr(value, "key", value) for name, value in node.attrs}
        inputs = (repr(literal_of(x)) if literal_of(x) is not None else f"%{number[x]}" for x in node.inputs)
        steps.append(f"%{number[node]} = {node.op.name}{attrs or ''}({', '.join(inputs)})")
    return "; ".join([show(c.right.expr), *read, *steps])


def build_pack(group: FusionGroup, name: str, names: Mapping[Node, str], schedule: Schedule) -> Kernel:
    """Return the kernel that fills the packed array of :func:`packed_operand`: its leaf in, the array out."""
    operand = packed_operand(group, schedule)
    if operand is None:
        raise CompilerBug("the right factor of this group cannot be packed ahead")
    c = contraction(group)
    source = signature_of(group, names).leaves[operand.node]
    packed = operand.buffer("packed")
    nest = Nest(group, c, Signature({operand.node: source}, {c.node: packed}, None), schedule)
    panels = operand.shape[1]
    total = simplify_index(operand.shape[0] * panels)

    def panel(t: Expr) -> Body:
        assert isinstance(t, Var)
        nest.extents[t] = total
        out: list[Stmt] = []
        batch = nest.let(out, "batch", t // panels, operand.shape[0])
        q = nest.let(out, "q", t % panels, panels)
        at = nest.unflatten(out, right_batch(c), batch)
        nr = schedule.nr
        n0 = simplify_index(q * nr)
        width = const_index(nr) if divides(nr, c.n.extent) else minimum(c.n.extent - n0, const_index(nr))
        width = nest.let(out, "width", width)

        def row(k: Expr) -> Body:
            if isinstance(k, Var):
                nest.extents[k] = c.k.extent
            return nest.piece(at, n0, width, k, packed, (batch, q, k))

        return (*out, *loop("k", c.k.extent, row))

    body = loop("t", total, panel, "parallel")
    return make_kernel(name, nest.signature, body, (f"{names[operand.node]} packed: {operand.layout}",))


def _reached(start: Sequence[Node], members: Collection[Node], stop: Node | None = None) -> list[Node]:
    """Return the nodes that `start` are computed from inside the group, leaves included."""
    found: dict[Node, None] = {}
    stack = list(start)
    while stack:
        node = stack.pop()
        if node in found or node is stop:
            continue
        found[node] = None
        if node in members:
            stack += node.inputs
    return list(found)
