"""The stages of a reduction group: what is folded, kept and stored in each pass over the reduced elements of a result.

A stage holds the reductions, and the full-size outputs, whose inputs are there: softmax has three (maximum, sum of
exponentials, quotients). :class:`Stages` builds the work at one element; which threads take which elements, and how
their partial results meet, is up to `lowering.gpu.rows`, `lowering.gpu.columns` and `lowering.gpu.split`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from jitflow.expr import INDEX, Buffer, Expr, Load, Var, const_index
from jitflow.simplify import free_vars, simplify_index
from lowering.fuse import FusionGroup
from lowering.gpu.fold import fold, new_accumulator
from lowering.loop_ir import Alloc, Body, For, Let, Stmt, Store
from lowering.reduction import Accumulator, kept_rows, levels_of, reduce_of
from lowering.signature import Signature, store_output, store_outputs
from lowering.trace import Element, Emitter, Subscripts, substitute_all


class Point(NamedTuple):
    """One reduced element: where it lies on the inner axes, their bounds, its row-major position among all of them, and
    the register slot of what the thread keeps of it."""

    at: Sequence[Expr]
    extents: Mapping[Var, Expr]
    position: Expr
    slot: Expr


#: Given the work at one element, returns the loop over all elements of a thread.
Loop: TypeAlias = Callable[[Callable[[Point], Body]], Body]


class Stages:
    """See the module docstring. `items` is the number of elements of a thread if they may be kept, or None.

    `known` are the results of earlier stages; it grows by :meth:`know`.
    """

    def __init__(self, group: FusionGroup, signature: Signature, items: int | None = None) -> None:
        self.group, self.signature = group, signature
        self.level = levels_of(group)
        self.reductions: list[Element] = list(group.reductions)
        if group.contract is not None:
            self.reductions = [(group.contract, tuple(a.var for a in group.rows))]
        self._inner = {a.var for a in group.inner}
        self.inner_outputs = [e for e in group.outputs if self._is_inner(e[1])]
        self.outputs = [e for e in group.outputs if e not in self.inner_outputs]
        self.count = max(self.level[n] for n, _ in (*self.reductions, *self.inner_outputs)) + 1
        kept = self._kept() if items is not None and self.count > 1 else {}
        #: Elements that stay in registers between stages: the stage that computes each, and its slots.
        self.kept = {
            e: (made, Buffer(f"{_name(e)}_row", e[0].dtype, (const_index(items or 0),), "register"))
            for e, made in kept.items()
        }
        self.known: dict[Element, Expr] = {}

    def _is_inner(self, at: Subscripts) -> bool:
        return any(free_vars(i) & self._inner for i in at)

    def _kept(self) -> dict[Element, int]:
        """Return what is worth keeping: costly values, and what the first and a later stage read from memory."""
        kept = {e: self.level[e[0]] for e in kept_rows(self.group, self.level)}
        for leaf in self.group.leaves:
            wanted = self.group.wanted.get(leaf, ())
            users = {self.level[m] for m in self.group.members if leaf in m.inputs}
            if len(wanted) != 1 or wanted[0] is None or not self._is_inner(wanted[0]):
                continue
            if min(users, default=1) == 0 and max(users) > 0:
                kept[leaf, wanted[0]] = 0
        return kept

    @property
    def slots(self) -> Body:
        """The statements that make room for what is kept."""
        return tuple(Alloc(b) for _, b in self.kept.values())

    def accumulators(self, number: int) -> dict[Element, Accumulator]:
        """Return a new accumulator for each reduction of stage `number`: a lane for the thread, one for a partner."""
        return {e: Accumulator(e[0], reduce_of(e), 2) for e in self.reductions if self.level[e[0]] == number}

    def run(self, number: int, accumulators: dict[Element, Accumulator], loop: Loop) -> Body:
        """Return stage `number` up to the partial result of each thread."""
        out: list[Stmt] = []
        for acc in accumulators.values():
            out += new_accumulator(acc)
        return (*out, *loop(lambda point: self._step(number, accumulators, point)))

    def _step(self, number: int, accumulators: dict[Element, Accumulator], point: Point) -> Body:
        rows = {a.var: a.extent for a in self.group.rows}
        emitter = Emitter(self.signature.values({**rows, **point.extents}), self.known)
        here = {a.var: i for a, i in zip(self.group.inner, point.at, strict=True)}

        def moved(e: Element) -> Subscripts:
            return tuple(substitute_all(i, here) for i in e[1])

        for e, (made, slots) in self.kept.items():
            if made < number:
                emitter.know(e[0], moved(e), emitter.let(_name(e), Load(slots, (point.slot,))))
        for e, (made, slots) in self.kept.items():
            if made == number:
                value = emitter.let(_name(e), emitter.value(e[0], moved(e)))
                emitter.statements.append(Store(slots, (point.slot,), value))
        for e in self.inner_outputs:
            if self.level[e[0]] == number:
                store_output(emitter, self.signature, e[0], moved(e), emitter.value(e[0], moved(e)))
        for (node, at), acc in accumulators.items():
            _, value = emitter.reduce(node, at, point.at)
            emitter.statements += fold(acc, value, point.position)
        return tuple(emitter.statements)

    def know(self, accumulators: dict[Element, Accumulator]) -> Body:
        """Return the statements that name the results, which the stages after this one use."""
        out: list[Stmt] = []
        for e, acc in accumulators.items():
            result = acc.result(const_index(0))
            self.known[e] = var = Var(e[0].op.name, result.type)
            out.append(Let(var, result))
        return tuple(out)

    def finish(self) -> Body:
        """Return the stores of the outputs that have one element per result."""
        emitter = Emitter(self.signature.values({a.var: a.extent for a in self.group.rows}), self.known)
        store_outputs(emitter, self.outputs, self.signature)
        return tuple(emitter.statements)


def in_order(count: Expr, items: int, at: Callable[[Expr], Body]) -> Body:
    """Return the loop over ``at(0)`` .. ``at(count - 1)``, written out `items` at a time: their loads can be on the way
    together, while what is folded keeps its order."""
    whole, rest = simplify_index(count // items), simplify_index(count % items)
    out: list[Stmt] = []
    if whole != const_index(0):
        c, u = Var("c", INDEX, floor=0), Var("u", INDEX, floor=0)
        out.append(For(c, whole, (For(u, const_index(items), at(simplify_index(c * items + u)), "unrolled"),)))
    if rest != const_index(0):
        c = Var("c", INDEX, floor=0)
        out.append(For(c, rest, at(simplify_index(whole * items + c))))
    return tuple(out)


def _name(e: Element) -> str:
    return e[0].name or e[0].op.name
