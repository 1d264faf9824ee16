"""A fusion group into the arguments of its kernel, and a body into a kernel with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jitflow.dtypes import int64
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Expr,
    Var,
    as_index,
    const_index,
)
from jitflow.graph import Node
from jitflow.record import walk
from jitflow.simplify import free_vars
from jitflow.types import element_count
from lowering.fuse import FusionGroup
from lowering.loop_ir import Alloc, Body, Kernel, Store, statements
from lowering.trace import Checks, Element, Emitter, Subscripts, Values, flat_index


@dataclass(frozen=True, eq=False)
class Signature:
    """The arguments of a kernel: a buffer for each leaf and each output, in order, and the status if it is fallible.

    An array whose subscripts would be quotients and remainders (a reshape lies between it and the loops) is taken as
    one-dimensional: its row-major position is linear again.
    """

    leaves: Mapping[Node, Buffer]
    outputs: Mapping[Node, Buffer]
    checks: Checks | None

    def address(self, node: Node, at: Subscripts) -> Subscripts:
        """Return where the element of `node` at subscripts `at` lies in its buffer."""
        buffer = self.leaves.get(node) or self.outputs[node]
        return at if len(buffer.shape) == len(at) else (flat_index(at, node.shape),)

    def values(self, extents: Mapping[Var, Expr]) -> Values:
        """Return what an Emitter needs to know about the kernel inside loops with `extents`."""
        return Values(self.leaves, extents, self.checks, self.address)

    @property
    def params(self) -> tuple[Buffer, ...]:
        status = () if self.checks is None else (self.checks.status,)
        return (*self.leaves.values(), *self.outputs.values(), *status)


def signature_of(group: FusionGroup, names: Mapping[Node, str]) -> Signature:
    """Return the arguments of the kernel of `group`; buffers are called as `names` calls their nodes."""

    def buffer(node: Node, indices: Iterable[Subscripts | None]) -> Buffer:
        shape = [as_index(d) for d in node.shape]
        if any(i is not None and _divides(i) and not _divides((flat_index(i, node.shape, extents),)) for i in indices):
            shape = [as_index(element_count(node.shape))]
        return Buffer(names[node], node.dtype, shape)

    extents = group.extents

    fallible = [n for n in group.members if n.op.fallible]
    checks = None
    if fallible:
        status = Buffer("status", int64, (const_index(len(fallible)),))
        checks = Checks(status, {n: slot for slot, n in enumerate(fallible)})
    leaves = {n: buffer(n, group.wanted[n]) for n in group.leaves}
    return Signature(leaves, {n: buffer(n, [at]) for n, at in group.outputs}, checks)


def _divides(index: Subscripts) -> bool:
    """Tell whether a subscript is not linear in the loops: it holds a quotient or a remainder."""
    return any(isinstance(e, Binary) and e.op in ("floordiv", "mod") for i in index for e in walk(i))


def make_kernel(
    name: str, signature: Signature, body: Body, notes: tuple[str, ...], aliased: Iterable[Buffer] = ()
) -> Kernel:
    """Return a kernel with the arguments of `signature` and the dims that `body` uses, in order of their names."""
    dims = unbound_dims(body, signature.params)
    reads = frozenset(signature.leaves.values())
    return Kernel(name, signature.params, dims, body, reads, notes, aliased=frozenset(aliased))


def written_over(group: FusionGroup) -> tuple[Node, ...]:
    """Return the leaves in whose memory the kernel of `group` may put its result.

    Each of their elements is wanted at one point of the loops, where the same element of the only result is written.
    """
    if group.kind != "map" or len(group.outputs) != 1:
        return ()
    (result, at), extents = group.outputs[0], group.extents
    place = flat_index(at, result.shape, extents)

    def is_same(leaf: Node) -> bool:
        wanted = group.wanted[leaf]
        return (
            leaf.dtype.itemsize == result.dtype.itemsize
            and len(wanted) == 1
            and wanted[0] is not None
            and element_count(leaf.shape) == element_count(result.shape)
            and flat_index(wanted[0], leaf.shape, extents) == place
        )

    return tuple(filter(is_same, group.leaves))


def unbound_dims(body: Body, params: Iterable[Buffer] = ()) -> tuple[Var, ...]:
    """Return the index variables that `body` and the shapes of its buffers use and do not bind, sorted by name."""
    bound: set[Var] = set()
    used: set[Var] = set()

    def use_shape(b: Buffer) -> None:
        for d in b.shape:
            used.update(free_vars(d))

    for b in params:
        use_shape(b)
    for s in statements(body):
        for f in ("var",):
            v = getattr(s, f, None)
            if isinstance(v, Var):
                bound.add(v)
        if isinstance(s, Alloc):
            use_shape(s.buffer)
        for c in s._children():  # type: ignore[attr-defined]
            if isinstance(c, Expr):
                used.update(x for x in walk(c) if isinstance(x, Var) and x.type is INDEX)
    return tuple(sorted(used - bound, key=lambda v: (v.name, v.serial)))


def notes_of(group: FusionGroup, names: Mapping[Node, str]) -> tuple[str, ...]:
    """Return a line for each node of `group`: its text and the user's file:line."""
    lines = []
    for node in group.members:
        inputs = ", ".join(names[x] for x in node.inputs)
        site = f"  # {node.site}" if node.site else ""
        lines.append(f"{names[node]}: {node.type!r} = {node.op.name}({inputs}){site}")
    return tuple(lines)


def store_outputs(emitter: Emitter, outputs: Iterable[Element], signature: Signature) -> None:
    """Append to `emitter` what computes and stores elements of the group's outputs."""
    for node, at in outputs:
        value = emitter.value(node, at)
        store_output(emitter, signature, node, at, value)


def store_output(emitter: Emitter, signature: Signature, node: Node, at: Subscripts, value: Expr) -> None:
    """Append the store of `value` as the element of an output."""
    place = signature.address(node, emitter.canonical(at))
    emitter.statements.append(Store(signature.outputs[node], place, value))
