"""Groups in their order in, a place for every array out: inputs, constants, outputs, or cells of the arena.

An array lives from the group that writes it to the last one that reads it; two that never live at once may share one.
A result may also take the place of what it is computed from, element by element.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jitflow.errors import CompilerBug
from jitflow.expr import Const, Expr, const_index, maximum
from jitflow.graph import Node
from jitflow.simplify import is_nonnegative, simplify_index
from lowering.fuse import FusionGroup
from lowering.plan import Place, nbytes_of
from lowering.signature import written_over

#: Cells of the arena begin at multiples of this: a cache line, and the widest vector.
ALIGN = 64


def padded(nbytes: Expr) -> Expr:
    """Return `nbytes` rounded up to whole cells' alignment."""
    return simplify_index((nbytes + (ALIGN - 1)) // ALIGN * ALIGN)


def place_arrays(
    groups: Sequence[FusionGroup],
    fetches: Sequence[Node],
    inputs: Sequence[Node],
    consts: Sequence[Node],
    gap: int = 0,
) -> tuple[dict[Node, Place], tuple[Expr, ...]]:
    """Return where each array that `groups` read or write is, and the sizes in bytes of the arena's cells.

    Each cell ends with `gap` bytes that belong to no array (a multiple of the alignment).
    """
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
                over = [n for n in written_over(group) if n in held and last_use[n] == number]
                if over:
                    places[node] = places[over[0]]
                    held.remove(over[0])
                else:
                    places[node] = Place("arena", arena.take(nbytes_of(node)))
                held.append(node)
        # What is read for the last time here is free for the next group, not for this one's own results.
        done = [node for node in held if last_use.get(node, -1) <= number]
        held = [node for node in held if node not in done]
        for node in done:
            arena.give_back(places[node].number)
    return places, tuple(simplify_index(cell + gap) if gap else cell for cell in arena.cells)


def greatest(sizes: Iterable[Expr]) -> Expr:
    """Return the maximum of `sizes`, 0 if there is none, as a balanced tree that is not simplified.

    Simplifying would compare each with each, and what is inside them: the cost grows too fast with their number.
    """
    level = list(dict.fromkeys(sizes))
    literals = [e for e in level if isinstance(e, Const)]
    level = [e for e in level if not isinstance(e, Const)]
    if literals:
        level.append(max(literals, key=_literal))
    while len(level) > 1:
        level = [maximum(*level[k : k + 2]) if k + 1 < len(level) else level[k] for k in range(0, len(level), 2)]
    return level[0] if level else const_index(0)


class Arena:
    """Gives cells to arrays as a plan is made; a cell is free again after the last step that reads its array.

    A cell is as large as the largest of its arrays. Which of two symbolic sizes is larger may be unknown; then both
    count, up to `MAX_SIZES` of them: comparing sizes must stay cheap however many arrays there are.
    """

    def __init__(self) -> None:
        self._sizes: list[list[Expr]] = []
        self._free: list[int] = []

    @property
    def cells(self) -> list[Expr]:
        """The sizes in bytes of the cells."""
        return [greatest(map(padded, sizes)) for sizes in self._sizes]

    def take(self, nbytes: Expr) -> int:
        """Return a cell of at least `nbytes`: a free one if it fits or can be made to fit, else a new one."""
        cell = self._choose(nbytes)
        if cell is None:
            self._sizes.append([nbytes])
            return len(self._sizes) - 1
        self._free.remove(cell)
        others = [size for size in self._sizes[cell] if not _holds(nbytes, size)]
        if not any(_holds(size, nbytes) for size in others):
            others.append(nbytes)
        self._sizes[cell] = others
        return cell

    def _choose(self, nbytes: Expr) -> int | None:
        """Return the free cell that wastes least: one of this very size, a larger, a smaller, any other."""
        for cell in self._free:
            if self._sizes[cell] == [nbytes]:
                return cell
        larger = [c for c in self._free if any(_holds(size, nbytes) for size in self._sizes[c])]
        if larger:
            return min(larger, key=lambda c: (_literal(self._sizes[c][0]), len(self._sizes[c])))
        smaller = [c for c in self._free if all(_holds(nbytes, size) for size in self._sizes[c])]
        if smaller:
            return max(smaller, key=lambda c: _literal(self._sizes[c][0]))
        # A literal next to a formula would be kept for ever, whatever the formula's value.
        if isinstance(nbytes, Const):
            return None
        mixed = [c for c in self._free if len(self._sizes[c]) < MAX_SIZES and not isinstance(self._sizes[c][0], Const)]
        return mixed[0] if mixed else None

    def give_back(self, cell: int) -> None:
        """Mark `cell` as free."""
        if cell in self._free:
            raise CompilerBug(f"arena cell {cell} is freed twice")
        self._free.append(cell)


#: Sizes of unknown order in one cell.
MAX_SIZES = 4


def _holds(large: Expr, small: Expr) -> bool:
    """Tell whether `large` bytes are proven to be at least `small`."""
    return large == small or is_nonnegative(large - small)


def _literal(e: Expr) -> int:
    return int(e.value) if isinstance(e, Const) else 0
