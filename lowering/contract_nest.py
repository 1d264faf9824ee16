"""What the loop nests of contractions have in common: index variables, elements of the factors, the epilogue.

A :class:`Nest` takes a contraction group apart; `lowering.contract_tiles` and `lowering.contract_rows` put loops around
the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from jitflow.dtypes import DType
from jitflow.errors import CompilerBug
from jitflow.expr import (
    Buffer,
    Const,
    Expr,
    Load,
    Var,
    as_index,
    const,
    const_index,
    minimum,
)
from jitflow.simplify import simplify_index
from lowering.analysis.contraction import Contraction, Factor, contraction_of
from lowering.fuse import Axis, FusionGroup
from lowering.loop_ir import Body, Let, Stmt, Store
from lowering.microkernel import loop
from lowering.schedule import Schedule
from lowering.signature import Signature, store_output
from lowering.trace import (
    Element,
    Emitter,
    Subscripts,
    flat_index,
    substitute_all,
    unflatten_index,
)


def contraction(group: FusionGroup) -> Contraction:
    """Return what `group` multiplies; it must be a product of two factors."""
    c = contraction_of(group)
    if c is None:
        raise CompilerBug("this group has no product of two factors")
    return c


def ceil_div(a: Expr | int, b: int) -> Expr:
    """Return ``a / b`` rounded up."""
    return simplify_index((as_index(a) + (b - 1)) // b)


def part_of(extent: Expr, start: Expr, step: Expr | int) -> Expr:
    """Return how much of `extent` is in the part of size `step` that begins at `start`, a multiple of it."""
    step = as_index(step)
    if isinstance(extent, Const) and isinstance(step, Const) and step.value and extent.value % step.value == 0:
        return step
    return minimum(extent - start, step)


def divides(step: int, extent: Expr) -> bool:
    """Tell whether `extent` is known to be a multiple of `step`."""
    return isinstance(extent, Const) and extent.value % step == 0


def extent_of(axes: Sequence[Axis]) -> Expr:
    """Return the number of points of `axes`."""
    extent: Expr = const_index(1)
    for a in axes:
        extent = extent * a.extent
    return simplify_index(extent)


def right_batch(c: Contraction) -> tuple[Axis, ...]:
    """Return the axes of the batch along which the right factor differs: only these are packed ahead."""
    return tuple(a for a in c.batch if c.right.depends_on(a))


class Nest:
    """What all forms share: index variables bound by Lets, elements of the factors, and the epilogue."""

    def __init__(self, group: FusionGroup, c: Contraction, signature: Signature, schedule: Schedule) -> None:
        self.group, self.c, self.signature, self.schedule = group, c, signature, schedule
        self.dtype: DType = c.node.dtype
        #: Exclusive bounds of the index variables bound so far.
        self.extents: dict[Var, Expr] = {}
        self.target = self._target()
        #: Whether the product itself is all that is computed, in place.
        self.is_plain = self.target is not None and self.target[0] is c.node and len(group.outputs) == 1

    def _target(self) -> Element | None:
        """Return the output whose memory can hold the partial sums: each element in its place, and of their dtype."""
        rows = self.group.rows
        extents = {a.var: a.extent for a in rows}
        position = flat_index(tuple(a.var for a in rows), [a.extent for a in rows], extents)
        for node, at in self.group.outputs:
            if node.dtype is self.dtype and flat_index(at, node.shape, extents) == position:
                return node, at
        return None

    def let(self, out: list[Stmt], name: str, value: Expr | int, extent: Expr | None = None) -> Expr:
        """Bind `value`, if it is worth it, to a variable below `extent`; append the Let to `out`."""
        value = simplify_index(value, self.extents)
        if isinstance(value, Var) and extent is not None:
            self.extents.setdefault(value, extent)
        if isinstance(value, (Const, Var)):
            return value
        var = Var(name, floor=0)
        if extent is not None:
            self.extents[var] = extent
        out.append(Let(var, value))
        return var

    def unflatten(self, out: list[Stmt], axes: Sequence[Axis], position: Expr) -> dict[Var, Expr]:
        """Return values for the variables of `axes` at row-major `position`."""
        parts = unflatten_index(position, [a.extent for a in axes], self.extents)
        return {a.var: self.let(out, a.var.name, p, a.extent) for a, p in zip(axes, parts, strict=True)}

    def emitter(self) -> Emitter:
        return Emitter(self.signature.values(dict(self.extents)))

    def factor(self, emitter: Emitter, f: Factor, at: Mapping[Var, Expr]) -> Expr:
        """Return the element of factor `f` where the axes have the values `at`."""
        values = dict(at)
        for d in f.demands:
            cond = None if d.cond is None else substitute_all(d.cond, values)
            index = tuple(substitute_all(i, values) for i in d.at)
            values[d.var] = emitter.value(d.node, index, cond)
        return substitute_all(f.expr, values)

    def copy(self, f: Factor, at: Mapping[Var, Expr], buffer: Buffer, index: Subscripts) -> Body:
        """Return the statements that write one element of factor `f` to `buffer`."""
        emitter = self.emitter()
        value = self.factor(emitter, f, at)
        return (*emitter.statements, Store(buffer, index, value))

    def finish(self, at: Mapping[Var, Expr], sums: Callable[[Emitter], Expr]) -> Body:
        """Return the epilogue of one element; `sums` gives the element of the product."""
        emitter = self.emitter()
        value = emitter.let(self.c.node.op.name, sums(emitter))
        emitter.know(self.c.node, tuple(at[a.var] for a in self.group.rows), value)
        for node, index in self.group.outputs:
            if self.target is not None and node is self.c.node and self.target[0] is node:
                continue
            where = self.moved(emitter, index, at)
            store_output(emitter, self.signature, node, where, emitter.value(node, where))
        return tuple(emitter.statements)

    def moved(self, emitter: Emitter, index: Subscripts, at: Mapping[Var, Expr]) -> Subscripts:
        """Return `index` of an output where the axes have the values `at`."""
        return emitter.canonical(tuple(substitute_all(i, at) for i in index))

    def read_target(self, emitter: Emitter, at: Mapping[Var, Expr]) -> Expr:
        """Return the partial sum kept in an output."""
        assert self.target is not None
        node, index = self.target
        return Load(self.signature.outputs[node], self.signature.address(node, self.moved(emitter, index, at)))

    def piece(self, at: Mapping[Var, Expr], n0: Expr, width: Expr, k: Expr, buffer: Buffer, before: Subscripts) -> Body:
        """Return row `k` of a panel of the right factor: `width` columns from `n0` on, and zeros up to ``nr``."""
        nr = self.schedule.nr

        def element(l: Expr) -> Body:
            out: list[Stmt] = []
            column = self.walk(out, self.c.n, self.c.n_axes, n0 + l)
            return (*out, *self.copy(self.c.right, {**at, **column, self.c.k.var: k}, buffer, (*before, l)))

        def nothing(l: Expr) -> Body:
            return (Store(buffer, (*before, simplify_index(width + l)), const(0, self.dtype)),)

        return (*loop("l", width, element, "vectorized"), *loop("l", nr - width, nothing, "vectorized"))

    def walk(self, out: list[Stmt], axis: Axis, axes: Sequence[Axis], position: Expr) -> dict[Var, Expr]:
        """Return values for `axis`, which walks `axes`, and for these."""
        at = self.let(out, axis.var.name, position, axis.extent)
        return {axis.var: at, **self.unflatten(out, axes, at)}

    @property
    def batch_extent(self) -> Expr:
        return extent_of(self.c.batch)
