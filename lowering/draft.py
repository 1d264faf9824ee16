"""A group while nodes are put into it, and what is asked about nodes before: their form, their place in its domain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from jitflow.dtypes import DType
from jitflow.expr import INDEX, Const, Expr, Reduce, Var, as_index
from jitflow.graph import Node
from jitflow.simplify import free_vars, simplify_index
from jitflow.types import dim_of, element_count, same_dim
from lowering.group import Axis, GroupKind
from lowering.trace import Demand, Element, Subscripts, flat_index, substitute_all, trace


class Draft:
    """A group being collected."""

    def __init__(self, kind: GroupKind, rows: Sequence[Axis]) -> None:
        self.kind: GroupKind = kind
        self.rows = list(rows)
        self.inner: list[Axis] = []
        self.outputs: list[Element] = []
        self.reductions: list[Element] = []
        self.members: dict[Node, None] = {}
        #: Nodes wanted here and at which subscripts; None: at subscripts that are data, known at run time only.
        self.wants: dict[Node, list[Subscripts | None]] = {}
        self.elements = 0
        self.contract: Node | None = None

    @property
    def extents(self) -> dict[Var, Expr]:
        return {a.var: a.extent for a in (*self.rows, *self.inner)}

    def want(self, demands: Iterable[Demand], renamed: Mapping[Var, Expr]) -> None:
        demands = list(demands)
        data = {d.var for d in demands}
        extents = self.extents
        for d in demands:
            index: Subscripts | None = None
            if not any(free_vars(i) & data for i in d.at):
                index = tuple(simplify_index(substitute_all(i, renamed), extents) for i in d.at)
            wanted = self.wants.setdefault(d.node, [])
            if index not in wanted:
                wanted.append(index)

    def include(self, node: Node, index: Subscripts) -> None:
        """Compute `node` at `index` in this group."""
        self.members[node] = None
        self.elements += 1
        self.want(trace(node, index).demands, {})

    def rename(self, renamed: Mapping[Var, Expr]) -> None:
        """Replace loop variables everywhere."""
        extents = self.extents

        def go(index: Subscripts) -> Subscripts:
            return tuple(simplify_index(substitute_all(i, renamed), extents) for i in index)

        self.outputs = [(n, go(i)) for n, i in self.outputs]
        self.reductions = [(n, go(i)) for n, i in self.reductions]
        for node, wanted in self.wants.items():
            self.wants[node] = list(dict.fromkeys(None if i is None else go(i) for i in wanted))

    # ---- questions

    def covers(self, node: Node, index: Subscripts | None) -> bool:
        """Tell whether its points visit each element of `node` exactly once (at `index`)."""
        if index is None:
            return False
        extents = self.extents
        position = flat_index(index, node.shape, extents)
        for axes in (self.rows, [*self.rows, *self.inner]):
            if self.contract is not None and axes is not self.rows:
                continue
            shape = [a.extent for a in axes]
            if same_dim(element_count(node.shape), element_count([dim_of(e) for e in shape])) is True:
                domain = flat_index(tuple(a.var for a in axes), shape, extents)
                if domain == position:
                    return True
        return False

    def visits_all(self, node: Node, index: Subscripts | None) -> bool:
        """Tell whether its points visit each element of `node` at least once (at `index`)."""
        if index is None:
            return False
        axes = (*self.rows, *self.inner)
        mentioned = [a for a in axes if mentions(index, [a])]
        if any(not isinstance(a.extent, Const) or a.extent.value == 0 for a in axes if a not in mentioned):
            return False  # nothing is visited if another axis is empty
        shape = [a.extent for a in mentioned]
        if same_dim(element_count(node.shape), element_count([dim_of(e) for e in shape])) is not True:
            return False
        domain = flat_index(tuple(a.var for a in mentioned), shape, self.extents)
        return flat_index(index, node.shape, self.extents) == domain

    def repeats(self, index: Subscripts | None) -> bool:
        """Tell whether computing something heavy at `index` would do it again for points that it does not depend on."""
        if index is None or not self.rows:
            return index is None
        if self.inner:
            # Not depending on the inner axes, it is computed once per row; else it must cover them all.
            axes = self.inner if mentions(index, self.inner) else self.rows
            return not all(mentions(index, [a]) for a in axes if a.extent != as_index(1))
        last = next((a for a in reversed(self.rows) if a.extent != as_index(1)), None)
        earlier = [a for a in self.rows if a is not last and a.extent != as_index(1)]
        if last is None:
            return False
        if mentions(index, [last]):
            return any(not mentions(index, [a]) for a in earlier)
        return not earlier

    def is_patch(self, index: Subscripts | None) -> bool:
        """Tell whether `index` adds a place along an inner axis to one along a row, as windows do."""
        rows, inner = {a.var for a in self.rows}, {a.var for a in self.inner}
        return index is not None and any(free_vars(i) & rows and free_vars(i) & inner for i in index)

    @property
    def lanes(self) -> int:
        """The lanes of its reductions."""
        return reduce_at(*self.reductions[0]).lanes


def position_of(axes: Sequence[Axis], extents: Mapping[Var, Expr]) -> Expr:
    """Return the row-major position among `axes`."""
    return flat_index(tuple(a.var for a in axes), [a.extent for a in axes], extents)


_AXIS_NAMES = "ijklmnopqrstuvwxyz"


def axes_of(node: Node) -> list[Axis]:
    """Return new axes, one for each of `node`."""
    return [Axis(Var(_AXIS_NAMES[n % len(_AXIS_NAMES)], INDEX, floor=0), as_index(d)) for n, d in enumerate(node.shape)]


def mentions(index: Subscripts | None, axes: Iterable[Axis]) -> bool:
    """Tell whether `index` depends on one of `axes`; None, which is data, may."""
    if index is None:
        return True
    vars = {a.var for a in axes}
    return any(free_vars(i) & vars for i in index)


def reduce_at(node: Node, index: Subscripts) -> Reduce:
    """Return the ``Reduce`` at the root of the element rule of `node`."""
    expr = trace(node, index).expr
    assert isinstance(expr, Reduce)
    return expr


def is_padding(node: Node) -> bool:
    """Tell whether `node` chooses, by where an element is, what to read."""
    return any(d.cond is not None for d in trace(node, tuple(a.var for a in axes_of(node))).demands)


_FORMS: dict[tuple[str, DType], str] = {}


def form_of(node: Node) -> str:
    """Return what the element rule of `node` is at its root (``contract``, ``reduce`` or ``map``), or ``kernel``."""
    if node.op.kernel is not None:
        return "kernel"
    # A rule may choose its root by dtype: a product of bools is no contraction.
    key = (node.op.name, node.dtype)
    form = _FORMS.get(key)
    if form is None:
        expr = trace(node, _anywhere(node)).expr
        form = "map"
        if isinstance(expr, Reduce):
            form = "contract" if expr.contract else "reduce"
        _FORMS[key] = form
    if form == "contract" and node.shape[-1:] == (1,) and reduce_at(node, _anywhere(node)).lanes > 1:
        return "reduce"  # products with a column are added in lanes, as sums are
    return form


def _anywhere(node: Node) -> Subscripts:
    return tuple(Var("i", INDEX, floor=0) for _ in node.shape)
