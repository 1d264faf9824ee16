"""A graph of primitive operators into an ordered list of fusion groups; each becomes one kernel.

Nodes are taken from the results to the inputs, so when a node's turn comes, all its readers have a home and have said
at which subscripts they want it. Then it is computed inside its readers (recomputed, if cheap, in several), becomes one
more output of a group whose domain it matches, or starts a group of its own. Whether a node matches a domain is decided
by comparing row-major positions as polynomials (`jitflow.simplify`), which sees through reshapes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from jitflow.errors import CompilerBug
from jitflow.expr import INDEX, Binary, Expr, Reduce, Var, as_index, const_index
from jitflow.graph import Node, toposort
from jitflow.record import walk
from jitflow.simplify import free_vars, simplify_index
from jitflow.types import dim_of, element_count, same_dim
from lowering.draft import Draft, axes_of, form_of, is_padding, mentions, position_of, reduce_at
from lowering.group import COSTLY, Axis, FusionGroup, GroupKind
from lowering.trace import (
    Subscripts,
    flat_index,
    literal_of,
    substitute_all,
    trace,
    unflatten_index,
)

__all__ = ["COSTLY", "Axis", "FusionGroup", "GroupKind", "fuse", "is_leaf"]

#: Work per element: a node at most this heavy is recomputed rather than stored when several places want it.
CHEAP = 4
#: Elements in one group. It bounds the size of a kernel, and so LLVM's time, which grows faster than linearly.
MAX_ELEMENTS = 128


def fuse(fetches: Iterable[Node], feeds: Collection[Node] = (), *, enabled: bool = True) -> list[FusionGroup]:
    """Return the groups that compute `fetches` from sources and `feeds`, producers first.

    Expects primitive operators only. With ``enabled=False`` every node becomes a group of its own; this changes no bit
    of the results.
    """
    fetches = list(dict.fromkeys(fetches))
    return _Fuser(fetches, frozenset(feeds), enabled).run()


def is_leaf(node: Node, feeds: Collection[Node]) -> bool:
    """Tell whether `node` is in memory before the program runs."""
    return node.op.source or node in feeds


class _Fuser:
    def __init__(self, fetches: list[Node], feeds: frozenset[Node], enabled: bool) -> None:
        self.fetched = set(fetches)
        self.feeds = feeds
        self.enabled = enabled
        self.order = toposort(fetches, feeds)
        self.drafts: list[Draft] = []
        self.readers: dict[Node, list[Draft]] = {}
        #: Where a node is written to memory.
        self.home: dict[Node, Draft] = {}
        #: The drafts that each draft reads results of.
        self.needs: dict[Draft, set[Draft]] = {}
        self.weight = self._weigh()

    def run(self) -> list[FusionGroup]:
        for node in reversed(self.order):
            if not is_leaf(node, self.feeds):
                self._place(node)
        return [self._finish(d) for d in self._sorted()]

    # ---- questions

    def _weigh(self) -> dict[Node, int]:
        """Return for each node the work of one element if everything up to memory and reductions is recomputed."""
        weight: dict[Node, int] = {}
        for node in self.order:
            if is_leaf(node, self.feeds) or form_of(node) != "map":
                weight[node] = 0
                continue
            own = 0 if node.op.movement else COSTLY if node.op.costly else 1
            weight[node] = min(own + sum(weight[x] for x in node.inputs), 1_000_000)
        return weight

    def _demands(self, node: Node) -> list[tuple[Draft, list[Subscripts | None]]]:
        return [(d, d.wants[node]) for d in self.readers.get(node, ())]

    def _reaches(self, start: Draft, targets: Collection[Draft]) -> bool:
        """Tell whether `start` needs, directly or not, a result of one of `targets`."""
        seen = {start}
        stack = [start]
        while stack:
            for d in self.needs.get(stack.pop(), ()):
                if d in targets:
                    return True
                if d not in seen:
                    seen.add(d)
                    stack.append(d)
        return False

    # ---- placing

    def _place(self, node: Node) -> None:
        if node not in self.fetched and not self.readers.get(node):
            # Nobody reads it; but if it is fallible, its indices are to be checked.
            if node.op.fallible and node.op.kernel is not None:
                self._place_kernel(node)
            elif node.op.fallible:
                self._start(node, [])
            return
        match form_of(node):
            case "contract":
                self._place_contraction(node)
            case "reduce":
                self._place_reduction(node)
            case "kernel":
                self._place_kernel(node)
            case _:
                self._place_map(node)

    def _place_map(self, node: Node) -> None:
        demands = self._demands(node)
        sites = sum(len(wanted) for _, wanted in demands)
        cheap = self._is_cheap(node)
        if (
            self.enabled
            and node not in self.fetched
            and (cheap or sites == 1)
            and all(self._may_inline(d, node, wanted) for d, wanted in demands)
        ):
            for d, wanted in demands:
                for index in wanted:
                    assert index is not None
                    self._include(d, node, index)
            return
        for d, wanted in demands if self.enabled else ():
            at = next((i for i in wanted if d.covers(node, i)), None)
            others = [x for x, _ in demands if x is not d]
            repeated = len(wanted) > 1 and not cheap
            if at is None or repeated or None in wanted or d.elements + len(wanted) > MAX_ELEMENTS:
                continue
            if self._reaches(d, others):
                continue
            for index in wanted:
                assert index is not None
                self._include(d, node, index)
            self._write(node, at, d, others)
            return
        self._start(node, demands)

    def _is_cheap(self, node: Node) -> bool:
        """Tell whether to compute `node` where it is read, rather than to store it.

        A movement always is: what it moves is asked in its turn, so that a heavy value is stored in its own shape, not
        in that of a view of it.
        """
        return node.op.movement or self.weight[node] <= CHEAP

    def _may_inline(self, d: Draft, node: Node, wanted: list[Subscripts | None]) -> bool:
        if None in wanted or d.elements + len(wanted) > MAX_ELEMENTS:
            return False
        if node.op.fallible and not all(d.visits_all(node, i) for i in wanted):
            return False  # every index is to be checked, also of elements that nobody reads
        if d.contract is not None and any(d.is_patch(i) for i in wanted) and is_padding(node):
            return False  # the places of all windows are looked at once, not for each element of each window
        if self._is_cheap(node):
            return True
        if d.contract is not None and any(mentions(i, d.inner) for i in wanted):
            return False  # an operand is read once per panel: pay a function once, not per panel
        return len(wanted) == 1 and not d.repeats(wanted[0])

    def _include(self, d: Draft, node: Node, index: Subscripts) -> None:
        d.include(node, index)
        self._note_readers(d)

    def _note_readers(self, d: Draft) -> None:
        for x in d.wants:
            known = self.readers.setdefault(x, [])
            if d not in known:
                known.append(d)

    def _write(self, node: Node, index: Subscripts, d: Draft, readers: Iterable[Draft]) -> None:
        d.outputs.append((node, index))
        self.home[node] = d
        for r in readers:
            if r is not d:
                self.needs.setdefault(r, set()).add(d)

    def _start(self, node: Node, demands: list[tuple[Draft, list[Subscripts | None]]]) -> None:
        """Give `node` a group of its own, or a place in one over the same domain that shares an input."""
        readers = [d for d, _ in demands]
        for d in self.drafts[-32:] if self.enabled else ():
            if d.kind != "map" or d in readers or d.elements >= MAX_ELEMENTS:
                continue
            if len(d.rows) != len(node.shape) or not any(x in d.wants for x in node.inputs):
                continue
            if not all(same_dim(dim_of(a.extent), s) is True for a, s in zip(d.rows, node.shape, strict=True)):
                continue
            if self._reaches(d, readers):
                continue
            index = tuple(a.var for a in d.rows)
            self._include(d, node, index)
            self._write(node, index, d, readers)
            return
        d = self._new("map", axes_of(node))
        index = tuple(a.var for a in d.rows)
        self._include(d, node, index)
        self._write(node, index, d, readers)

    def _new(self, kind: GroupKind, rows: Sequence[Axis]) -> Draft:
        d = Draft(kind, rows)
        self.drafts.append(d)
        return d

    def _place_reduction(self, node: Node) -> None:
        demands = self._demands(node)
        for d, wanted in demands if self.enabled else ():
            others = [x for x, _ in demands if x is not d]
            if len(wanted) != 1 or wanted[0] is None or d.elements >= MAX_ELEMENTS or self._reaches(d, others):
                continue
            if self._join_reduction(d, node, wanted[0]):
                if others or node in self.fetched:
                    self._write(node, d.reductions[-1][1], d, others)
                return
        readers = [d for d, _ in demands]
        for d in self.drafts[-32:] if self.enabled else ():
            if (
                d.kind != "reduce"
                or d in readers
                or not any(x in d.wants for x in node.inputs)
                or self._reaches(d, readers)
            ):
                continue
            if len(d.rows) == len(node.shape) and self._join_reduction(d, node, tuple(a.var for a in d.rows)):
                self._write(node, d.reductions[-1][1], d, readers)
                return
        d = self._new("reduce", axes_of(node))
        index = tuple(a.var for a in d.rows)
        self._add_reduction(d, node, index)
        self._write(node, index, d, readers)

    def _join_reduction(self, d: Draft, node: Node, index: Subscripts) -> bool:
        """Make `node` a reduction of `d` if the domain allows it, and tell whether it did."""
        if d.contract is not None:
            return False
        reduce = reduce_at(node, index)
        position = flat_index(index, node.shape, d.extents)
        count = element_count(node.shape)
        total = element_count([dim_of(simplify_index(e)) for e in reduce.extents])
        row_count = element_count([dim_of(a.extent) for a in d.rows])
        if same_dim(count, row_count) is True and position == position_of(d.rows, d.extents):
            if d.inner:
                same = len(d.inner) == len(reduce.vars) and all(
                    same_dim(dim_of(a.extent), dim_of(simplify_index(e))) is True
                    for a, e in zip(d.inner, reduce.extents, strict=True)
                )
                if not same or (d.lanes == 1) != (reduce.lanes == 1):
                    return False
            self._add_reduction(d, node, index)
            return True
        if d.inner or d.kind != "map" or len(reduce.vars) != 1 or reduce.lanes == 1:
            return False
        # The readers run over (row, k) and the reduction over k: split the domain there.
        for cut in range(len(d.rows) - 1, -1, -1):
            rows, tail = d.rows[:cut], d.rows[cut:]
            if same_dim(element_count([dim_of(a.extent) for a in tail]), total) is not True:
                continue
            if same_dim(element_count([dim_of(a.extent) for a in rows]), count) is not True:
                continue
            if position != position_of(rows, d.extents):
                continue
            if len(tail) == 1:
                d.rows, d.inner = rows, tail
            else:
                merged = Axis(Var("k", INDEX, floor=0), as_index(total))
                d.rows, d.inner = rows, [merged]
                parts = unflatten_index(merged.var, [a.extent for a in tail], d.extents)
                d.rename(dict(zip((a.var for a in tail), parts, strict=True)))
                index = tuple(
                    simplify_index(substitute_all(i, dict(zip((a.var for a in tail), parts, strict=True))), d.extents)
                    for i in index
                )
            d.kind = "reduce"
            self._add_reduction(d, node, index)
            return True
        return False

    def _add_reduction(self, d: Draft, node: Node, index: Subscripts) -> None:
        traced = trace(node, index)
        reduce = traced.expr
        assert isinstance(reduce, Reduce)
        if not d.inner:
            d.inner = [
                Axis(Var(f"k{n}" if n else "k", INDEX, floor=0), simplify_index(e))
                for n, e in enumerate(reduce.extents)
            ]
        d.kind = "reduce"
        d.members[node] = None
        d.elements += 1
        d.reductions.append((node, index))
        d.want(traced.demands, dict(zip(reduce.vars, (a.var for a in d.inner), strict=True)))  # type: ignore[arg-type]
        self._note_readers(d)

    def _place_contraction(self, node: Node) -> None:
        demands = self._demands(node)
        readers = [d for d, _ in demands]
        home: Draft | None = None
        for d, wanted in demands if self.enabled else ():
            others = [x for x in readers if x is not d]
            if (
                d.kind == "map"
                and len(wanted) == 1
                and self._walks(d, node, wanted[0])
                and not self._reaches(d, others)
                and not _reads(d, node)
            ):
                home = d
                break
        if home is None:
            home = self._new("contract", axes_of(node))
            self._write(node, tuple(a.var for a in home.rows), home, readers)
        elif len(readers) > 1 or node in self.fetched:
            self._write(node, tuple(a.var for a in home.rows), home, [r for r in readers if r is not home])
        index = tuple(a.var for a in home.rows)
        traced = trace(node, index)
        reduce = traced.expr
        assert isinstance(reduce, Reduce)
        home.kind, home.contract = "contract", node
        home.inner = [Axis(Var("k", INDEX, floor=0), simplify_index(reduce.extents[0]))]
        home.members[node] = None
        home.elements += 1
        home.want(traced.demands, {reduce.vars[0]: home.inner[0].var})  # type: ignore[dict-item]
        self._note_readers(home)

    def _walks(self, d: Draft, node: Node, index: Subscripts | None) -> bool:
        """Tell whether map `d` is one over the elements of `node` in their order; its rows then become `node`'s axes.

        Where a reshape lies between the two, row-major positions are equal but not the axes. They are replaced unless
        something would then be read, along the last axis, at quotients.
        """
        if index is None or not d.covers(node, index):
            return False
        axes = axes_of(node)
        same = [same_dim(dim_of(a.extent), dim_of(b.extent)) is True for a, b in zip(d.rows, axes, strict=False)]
        if len(d.rows) == len(axes) and all(same):
            return True
        extents = {a.var: a.extent for a in axes}
        position = flat_index(tuple(a.var for a in axes), [a.extent for a in axes], extents)
        parts = unflatten_index(position, [a.extent for a in d.rows], extents)
        renamed = dict(zip((a.var for a in d.rows), parts, strict=True))
        found = (simplify_index(substitute_all(i, renamed), extents) for i in index)
        if any(i not in (a.var, const_index(0)) for i, a in zip(found, axes, strict=True)):
            return False  # not in so many words
        for x, wanted in d.wants.items():
            for i in wanted:
                if i is None:
                    return False
                at = tuple(substitute_all(e, renamed) for e in i)
                if _is_divided(flat_index(at, x.shape, extents), axes[-1].var):
                    return False
        d.rows = axes
        d.rename(renamed)
        return True

    def _place_kernel(self, node: Node) -> None:
        d = self._new("kernel", axes_of(node))
        d.members[node] = None
        d.elements = MAX_ELEMENTS
        for x in node.inputs:
            d.wants[x] = [None]
        self._note_readers(d)
        self._write(node, tuple(a.var for a in d.rows), d, [r for r, _ in self._demands(node)])

    def _literal(self, node: Node) -> bool:
        return node not in self.feeds and literal_of(node) is not None

    # ---- finishing

    def _sorted(self) -> list[Draft]:
        """Return the drafts so that each comes after those it needs; among free ones, in the order of their nodes."""
        number = {d: -n for n, d in enumerate(self.drafts)}
        done: dict[Draft, None] = {}
        for root in sorted(self.drafts, key=number.__getitem__):
            stack = [(root, iter(sorted(self.needs.get(root, ()), key=number.__getitem__)))]
            visiting = {root}
            if root in done:
                continue
            while stack:
                d, rest = stack[-1]
                for x in rest:
                    if x in visiting:
                        raise CompilerBug("fusion groups depend on each other in a circle")
                    if x not in done:
                        visiting.add(x)
                        stack.append((x, iter(sorted(self.needs.get(x, ()), key=number.__getitem__))))
                        break
                else:
                    done[d] = None
                    visiting.discard(d)
                    stack.pop()
        return list(done)

    def _finish(self, d: Draft) -> FusionGroup:
        place = {n: k for k, n in enumerate(self.order)}
        by_order = sorted(d.members, key=place.__getitem__)
        return FusionGroup(
            d.kind,
            tuple(d.rows),
            tuple(d.inner),
            tuple(sorted(d.outputs, key=lambda e: place[e[0]])),
            tuple(sorted(d.reductions, key=lambda e: place[e[0]])),
            tuple(by_order),
            tuple(sorted((x for x in d.wants if x not in d.members and not self._literal(x)), key=place.__getitem__)),
            {n: tuple(wanted) for n, wanted in d.wants.items()},
            d.contract,
        )


def _reads(d: Draft, node: Node) -> bool:
    """Tell whether an operand of contraction `node` is computed in `d` already (it would have to exist before)."""
    return any(x in d.members for x in node.inputs)


def _is_divided(e: Expr, var: Var) -> bool:
    """Tell whether `e` holds a quotient or a remainder of something with `var` in it."""
    quotients = (x for x in walk(e) if isinstance(x, Binary) and x.op in ("floordiv", "mod"))
    return any(var in free_vars(x) for x in quotients)
