"""Groups in their order in, a place for every array out: inputs, constants, outputs, or cells of the arena.

An array lives from the group that writes it to the last one that reads it; two that never live at once may share one.
"""

from __future__ import annotations

from collections.abc import Sequence

from jitflow.errors import CompilerBug
from jitflow.expr import Const, Expr, const_index, maximum
from jitflow.graph import Node
from jitflow.simplify import same_index, simplify_index
from lowering.fuse import FusionGroup
from lowering.plan import Place, nbytes_of

#: Cells of the arena begin at multiples of this: a cache line, and the widest vector.
ALIGN = 64


def padded(nbytes: Expr) -> Expr:
    """Return `nbytes` rounded up to whole cells' alignment."""
    return simplify_index((nbytes + (ALIGN - 1)) // ALIGN * ALIGN)


def place_arrays(
    groups: Sequence[FusionGroup], fetches: Sequence[Node], inputs: Sequence[Node], consts: Sequence[Node]
) -> tuple[dict[Node, Place], tuple[Expr, ...]]:
    """Return where each array that `groups` read or write is, and the sizes in bytes of the arena's cells."""
    places: dict[Node, Place] = {n: Place("input", k) for k, n in enumerate(inputs)}
    places.update({n: Place("const", k) for k, n in enumerate(consts)})
    for k, node in enumerate(fetches):
        places.setdefault(node, Place("output", k))
    last_use = {node: number for number, group in enumerate(groups) for node in group.leaves}
    arena = Arena()
    held: list[Node] = []
    for number, group in enumerate(groups):
        for node, _ in group.outputs:
            if node not in places:
                places[node] = Place("arena", arena.take(nbytes_of(node)))
                held.append(node)
        # What is read for the last time here is free for the next group, not for this one's own results.
        done = [node for node in held if last_use.get(node, -1) <= number]
        held = [node for node in held if node not in done]
        for node in done:
            arena.give_back(places[node].number)
    return places, tuple(arena.cells)


class Arena:
    """Gives cells to arrays as a plan is made; a cell is free again after the last step that reads its array."""

    def __init__(self) -> None:
        self.cells: list[Expr] = []
        self._free: list[int] = []

    def take(self, nbytes: Expr) -> int:
        """Return a cell of at least `nbytes`: a free one if it fits, else a new one."""
        size = padded(nbytes)
        exact = [c for c in self._free if same_index(self.cells[c], size) is True]
        if exact:
            self._free.remove(exact[0])
            return exact[0]
        if isinstance(size, Const):
            literal = [c for c in self._free if isinstance(self.cells[c], Const)]
            if literal:
                need = int(size.value)
                best = min(literal, key=lambda c: abs(_literal(self.cells[c]) - need))
                self._free.remove(best)
                self.cells[best] = const_index(max(_literal(self.cells[best]), need))
                return best
        elif self._free:
            symbolic = [c for c in self._free if not isinstance(self.cells[c], Const)]
            if symbolic:
                cell = symbolic[0]
                self._free.remove(cell)
                self.cells[cell] = simplify_index(maximum(self.cells[cell], size))
                return cell
        self.cells.append(size)
        return len(self.cells) - 1

    def give_back(self, cell: int) -> None:
        """Mark `cell` as free."""
        if cell in self._free:
            raise CompilerBug(f"arena cell {cell} is freed twice")
        self._free.append(cell)


def _literal(e: Expr) -> int:
    assert isinstance(e, Const)
    return int(e.value)
