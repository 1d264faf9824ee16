"""Fusion groups and their kernels into a plan: what runs in which order, on which memory, under which guards.

A :class:`Plan` is data. Its sizes are expressions of the dims, evaluated natively before anything is allocated
(`lowering.plan_llvm` emits that, and the calls). Results that are not fetched live in the arena; two whose lifetimes
do not overlap share a *cell*, as large as the larger of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from jitflow.dtypes import DType
from jitflow.errors import GraphError, at_site
from jitflow.expr import INDEX, Const, Expr, Var, as_index, const_index, maximum
from jitflow.feeds import dims_of
from jitflow.graph import Node
from jitflow.record import record
from jitflow.simplify import free_vars, is_nonnegative, same_index, simplify_index, split_linear
from jitflow.types import Dim, dim_of, dim_text, element_count, mul_dims, shape_text
from lowering.llvm import parallel_extent
from lowering.loop_ir import Kernel


@record
class Place:
    """Where an array is: entry `number` of the inputs, outputs or constants, or cell `number` of the arena."""

    space: Literal["input", "output", "const", "arena"]
    number: int

    def __repr__(self) -> str:
        return f"{self.space}[{self.number}]"


@record
class Launch:
    """Run `kernel` on the arrays at `places`, its buffers in order.

    Status slots of a fallible kernel begin at `status`. `dims` are the values of its dims in this program. The
    parallel loop of the kernel is run `chunk` iterations at a time (in terms of `dims`), with a look between chunks at
    whether to go on; without a chunk it is one call.
    """

    kernel: Kernel
    places: tuple[Place, ...]
    dims: tuple[Expr, ...]
    status: int | None = None
    chunk: Expr | None = None


@record
class Copy:
    """Copy `nbytes` bytes from one array to another."""

    source: Place
    target: Place
    nbytes: Expr


@record
class Check:
    """Stop here if a fallible kernel among the steps before has recorded a bad index in slots `first` .. `last` - 1."""

    first: int
    last: int


Step: TypeAlias = Launch | Copy | Check


@record
class Equal:
    """A guard: `left` must equal `right`; otherwise the run is refused with `message`, as a bad index if it is one."""

    left: Expr
    right: Expr
    message: str
    is_index: bool = False


@record
class Solved:
    """Dim `var` follows from the size of an input's axis: ``(slot - rest) // factor``. A guard checks the formula."""

    var: Var
    slot: Var
    rest: Expr
    factor: int


@record
class Packed:
    """The factor of a matrix product that is packed once, when a session starts: `kernel` packs the array of `node`."""

    node: Node
    dtype: DType
    shape: tuple[int, ...]
    layout: str
    kernel: Kernel


@record
class Plan:
    """A whole program as data; see the module docstring.

    `sizes` are the distinct symbolic axis sizes of the inputs, and `slots` the variables that hold their values: a dim
    itself, or a variable of its own for a formula. A dim is one of them or `solved` from them. `cells` are the sizes
    in bytes of the arena's cells, `scratch` the bytes of working rows behind them. The sum of `work` is an estimate in
    nanoseconds.
    `checks` are the messages of the status slots.
    """

    inputs: tuple[Node, ...]
    consts: tuple[Node | Packed, ...]
    outputs: tuple[Node, ...]
    sizes: tuple[Expr, ...]
    slots: tuple[Var, ...]
    solved: tuple[Solved, ...]
    guards: tuple[Equal, ...]
    steps: tuple[Step, ...]
    cells: tuple[Expr, ...]
    scratch: Expr
    work: tuple[Expr, ...]
    checks: tuple[str, ...]

    @property
    def dims(self) -> tuple[Var, ...]:
        """What the program's dims table holds, in order: the sizes of inputs, then the dims solved from them."""
        return (*self.slots, *(s.var for s in self.solved))


def nbytes_of(node: Node) -> Expr:
    """Return the bytes of the array of `node`."""
    return as_index(mul_dims(element_count(node.shape), node.dtype.itemsize))


def bind_dims(inputs: Sequence[Node]) -> tuple[tuple[Expr, ...], tuple[Var, ...], tuple[Solved, ...]]:
    """Return the distinct symbolic sizes of `inputs`, a variable for each, and how further dims follow from them."""
    sizes = list(dict.fromkeys(d for node in inputs for d in node.shape if isinstance(d, Expr)))
    slots = [s if isinstance(s, Var) else Var(f"size_{k}", INDEX, floor=0) for k, s in enumerate(sizes)]
    bound = {s for s in sizes if isinstance(s, Var)}
    solved: list[Solved] = []
    changed = True
    while changed:
        changed = False
        for size, slot in zip(sizes, slots, strict=True):
            missing = free_vars(size) - bound
            if len(missing) != 1:
                continue
            (var,) = missing
            parts = split_linear(size, var)
            if parts is None or not isinstance(parts[0], Const) or parts[0].value == 0:
                continue
            solved.append(Solved(var, slot, parts[1], int(parts[0].value)))
            bound.add(var)
            changed = True
    return tuple(sizes), tuple(slots), tuple(solved)


def guards_of(
    order: Sequence[Node], sizes: Sequence[Expr], slots: Sequence[Var], solved: Sequence[Solved], leaves: set[Node]
) -> list[Equal]:
    """Return what must hold of the dims before the nodes of `order` may be computed.

    These are: that sizes which are formulas have the formula's value, the equalities that inference left open, and
    that no dim is negative. Raises GraphError for a guard over a dim that no input determines.
    """
    known = {*slots, *(s.var for s in solved)}
    found: dict[tuple[Expr, Expr], Equal] = {}

    def add(left: Dim, right: Dim, message: str, node: Node, is_index: bool = False) -> None:
        a, b = as_index(left), as_index(right)
        unknown = (free_vars(a) | free_vars(b)) - known
        if unknown:
            names = ", ".join(sorted(v.name for v in unknown))
            raise GraphError(at_site(f"the feeds do not determine dim {names} of {node!r}", node.site))
        if same_index(a, b) is not True:
            found.setdefault((a, b), Equal(a, b, at_site(message, node.site), is_index))

    for size, slot in zip(sizes, slots, strict=True):
        if size is not slot:
            owner = next(n for n in order if size in n.shape)
            add(
                slot,
                size,
                f"{owner!r} was fed with an axis that is not {dim_text(size)} for any size of its dims",
                owner,
            )
    for node in order:
        for d in node.shape if node in leaves else dims_of(node):
            unknown = free_vars(d) - known
            if unknown:
                names = ", ".join(sorted(v.name for v in unknown))
                raise GraphError(at_site(f"the feeds do not determine dim {names} of {node!r}", node.site))
        if node in leaves:
            continue
        for g in node.guards:
            add(g.left, g.right, f"{g.why}: {dim_text(g.left)} must equal {dim_text(g.right)}", node, g.is_index)
        for d in node.shape:
            if isinstance(d, Expr) and not is_nonnegative(d):
                low = simplify_index(maximum(d, const_index(0)))
                add(d, low, f"{node.op.name}: dim {dim_text(d)} of {shape_text(node.shape)} must not be negative", node)
    return list(found.values())


def show_plan(plan: Plan, names: Mapping[Node, str]) -> str:
    """Return `plan` as text."""
    lines = ["plan:"]
    for title, space, nodes in (
        ("inputs", "input", plan.inputs),
        ("constants", "const", plan.consts),
        ("outputs", "output", plan.outputs),
    ):
        lines.append(f"  {title}:")
        lines += [f"    {space}[{k}] {_array_text(x, names)}" for k, x in enumerate(nodes)]
    lines.append("  dims:")
    lines += [f"    {v.name} = {_axis_of(s, plan.inputs)}" for s, v in zip(plan.sizes, plan.slots, strict=True)]
    lines += [f"    {s.var.name} = ({s.slot.name} - {dim_text(dim_of(s.rest))}) // {s.factor}" for s in plan.solved]
    lines.append("  guards:")
    lines += [f"    {dim_text(dim_of(g.left))} == {dim_text(dim_of(g.right))}" for g in plan.guards]
    lines.append("  arena:")
    lines += [f"    arena[{k}] {dim_text(dim_of(c))} bytes" for k, c in enumerate(plan.cells)]
    lines.append(f"    scratch {dim_text(dim_of(plan.scratch))} bytes")
    lines.append("  steps:")
    for step in plan.steps:
        match step:
            case Launch(kernel, places, _, status, chunk):
                at = "" if status is None else f", status {status}"
                cut = "" if chunk is None else f" over {show_shared(kernel, chunk)}"
                lines.append(f"    launch {kernel.name}({', '.join(map(repr, places))}{at}){cut}")
            case Copy(source, target, nbytes):
                lines.append(f"    copy {source!r} to {target!r}, {dim_text(dim_of(nbytes))} bytes")
            case Check(first, last):
                lines.append(f"    check status {first}..{last - 1}")
    return "\n".join(lines) + "\n"


def show_shared(kernel: Kernel, chunk: Expr) -> str:
    """Return which iterations of `kernel` workers may share, as text."""
    extent = parallel_extent(kernel)
    assert extent is not None
    return f"{dim_text(dim_of(extent))} in chunks of at most {dim_text(dim_of(chunk))}"


def _axis_of(size: Expr, inputs: Sequence[Node]) -> str:
    """Return the first axis of an input that has `size`."""
    return next(f"input[{k}].shape[{a}]" for k, n in enumerate(inputs) for a, d in enumerate(n.shape) if d == size)


def _array_text(x: Node | Packed, names: Mapping[Node, str]) -> str:
    if isinstance(x, Packed):
        shape = ", ".join(map(str, x.shape))
        form = " of ".join(x.layout.split(" of ")[:2])  # "panels of 16"; what follows is how they are computed
        return f"{names.get(x.node, x.node.op.name)} packed as {form}: {x.dtype.short}[{shape}]"
    return f"{names.get(x, x.op.name)}: {x.type!r}"
