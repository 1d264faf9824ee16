"""Walk two axes of a nest in tiles where an array lies across its innermost loop, and turn the tiles in registers.

Before                                 After (vectors of 4 lanes)
    parallel i in 8:                       parallel t in 1:
      vectorized j in 12:                    serial a in 2:
        o[i, j] = x[j, i]                      serial b in 3:
                                                 let v: f32x4 = x[b * 4, ramp(a * 4, 1, 4)]
                                                 ... three more rows, eight shuffles ...
                                                 o[a * 4, ramp(b * 4, 1, 4)] = v_8
                                                 ... three more columns ...

Element by element such an array costs a cache line for each. A tile reads whole vectors along the loop that the array
follows, and makes vectors along the innermost loop of them (`lowering.shuffles`). Small tiles are walked within larger
ones, of some hundred bytes each way, so that lines and pages are used while they are near; workers share strips of
those. A larger tile is first turned into a scratch buffer, which the body reads as it would have read the array. Only
an array that is small, and does nothing but move, goes without: in a large one the rows of a tile may fall on the same
few places of the cache, and each is best written in one go. A tile that is as wide as the result, and only moved, is
turned as it will lie there, and written as one run: short rows alone could not bypass the caches.

Tiles at an end begin as far before it as they are long, and do part of the work again: no element is read that does not
exist, and none is stored with another value. Axes of a constant extent less than a tile have tiles of their own,
with lanes that are off; where a run-time extent is less than a tile, elements go one by one.

Works on a kernel whose body is one perfect nest that stores results in row-major order and reads only what it does not
write. Gives up where no array that is read without a condition lies across the innermost loop and along another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from jitflow.dtypes import DType, index, uint8, uint16
from jitflow.expr import (
    INDEX,
    Bitcast,
    Buffer,
    Cast,
    Compare,
    Const,
    Expr,
    Load,
    Ramp,
    Select,
    Var,
    compare,
    const,
    const_index,
    maximum,
    minimum,
    select,
    substitute,
    type_of,
)
from jitflow.record import children, map_children
from jitflow.simplify import depends_on, simplify_index, split_linear
from lowering.loop_ir import Alloc, Body, For, If, Kernel, Let, Stmt, Store
from lowering.passes.collapse import flat, flattened
from lowering.renew import renew
from lowering.shuffles import transposed
from lowering.target import Target

#: Up to this distance between its elements, a vector is better picked from all that lies in between.
NEAR = 4
#: Most rows of a tile in registers: its vectors, and some on their way, must fit the register file.
MOST_ROWS = 16
#: Bytes along the sides of a tile in the cache: where the array is read, a line of it, and where results are written.
#: The longer what is written in one go, the fewer lines are written in two halves, which cannot bypass the caches.
SIDES = (64, 2048)
#: Bytes of an array that is moved tile by tile without a stop in scratch: near as it is, it would only be copied twice.
DIRECT = 256 << 10
#: Bytes along the axis that the array follows, of tiles that are taken in a row: they share pages.
DEEP = 1024
#: A pair of axes of fewer elements than this gains nothing.
FEW = 16

#: Makes the statements that put a vector along the innermost loop where it belongs, given its first element.
_Put: TypeAlias = Callable[[Expr, Expr, Expr, int], Stmt]
#: Returns where in a buffer an element of a tile goes.
_Place: TypeAlias = Callable[[Expr, Expr], tuple[Expr, ...]]


def transpose(kernel: Kernel, *, target: Target) -> Kernel:
    """Return `kernel` with tiles turned in registers of `target` where an array lies across its innermost loop."""
    found = _find(kernel, target)
    if found is not None and _Tiles(found, target).are_runs():
        kernel = flattened(kernel)
        found = _find(kernel, target)
    return kernel if found is None else kernel.with_body(_Tiles(found, target).body())


@dataclass(frozen=True)
class _Crossing:
    """A nest over `outer`, `i` and `j`, the innermost, in whose body `loads` follow i and lie across j."""

    outer: tuple[For, ...]
    i: For
    j: For
    body: Body
    loads: tuple[Load, ...]

    @property
    def moved(self) -> Store | None:
        """The store of the body, if it does nothing but store the one array it reads."""
        match self.body:
            case (Store(_, _, Load()) as store,):
                return store
            case (Let(var, Load()), Store(_, _, value) as store):
                return store if value is var else None
            case _:
                return None

    @property
    def is_run(self) -> bool:
        """Whether the body moves, and what follows along i follows in the memory of the result."""
        if self.moved is None:
            return False
        step = split_linear(flat(self.moved.buffer, self.moved.index), self.i.var)
        return step is not None and step[0] == simplify_index(self.j.extent)


def _find(kernel: Kernel, target: Target) -> _Crossing | None:
    """Return the nest of `kernel` if there is something to turn in it."""
    loops, body = nest_of(kernel)
    if len(loops) < 2 or loops[-1].kind != "vectorized" or not is_map(loops, body, kernel):
        return None
    inner = loops[-1]
    crossed: dict[For, list[Load]] = {}
    for load in dict.fromkeys(x for s in body for x in _loads(s)):
        offset = flat(load.buffer, load.index)
        step = split_linear(offset, inner.var)
        if step is None or (isinstance(step[0], Const) and abs(step[0].value) <= NEAR):
            continue
        for loop in loops[:-1]:
            if _is_along(load, loop.var):
                crossed.setdefault(loop, []).append(load)
    if not crossed:
        return None
    i = max(crossed, key=lambda loop: len(crossed[loop]))
    loads = tuple(x for x in crossed[i] if _has_tiles(x.buffer.dtype, i, inner, target))
    elements = simplify_index(i.extent * inner.extent)
    if not loads or (isinstance(elements, Const) and elements.value < FEW):
        return None
    return _Crossing(tuple(x for x in loops[:-1] if x is not i), i, inner, body, loads)


def nest_of(kernel: Kernel) -> tuple[list[For], Body]:
    """Return the loops of a perfect nest, outermost first, and what is in the innermost."""
    body, loops = kernel.body, []
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    return loops, body


def is_map(loops: list[For], body: Body, kernel: Kernel) -> bool:
    """Tell whether the iterations can run in any order: each stores elements of its own, in row-major order."""
    variables = [loop.var for loop in loops]
    if any(depends_on(loop.extent, v) for loop in loops for v in variables):
        return False
    if any(loop.kind not in ("serial", "parallel", "vectorized") for loop in loops):
        return False
    place: Expr = const_index(0)
    for loop in loops:
        place = place * loop.extent + loop.var
    place = simplify_index(place)
    for s in body:
        if isinstance(s, Store):
            if s.mask is not None or s.buffer in kernel.reads or flat(s.buffer, s.index) != place:
                return False
        elif not isinstance(s, Let):
            return False
    return all(x.buffer in kernel.reads and x.mask is None for s in body for x in _loads(s, guarded=True))


def _loads(x: Stmt | Expr, *, guarded: bool = False) -> Iterator[Load]:
    """Yield the loads in `x`; those in the arms of a select only if `guarded`."""
    if isinstance(x, Load):
        yield x
    parts = (x.cond,) if isinstance(x, Select) and not guarded else children(x)
    for c in parts:
        yield from _loads(c, guarded=guarded)


def _is_along(load: Load, var: Var) -> bool:
    """Tell whether one step of `var` is one step through memory, and in one subscript alone."""
    split = split_linear(flat(load.buffer, load.index), var)
    if split is None or split[0] != const_index(1):
        return False
    hits = [i for i in load.index if depends_on(i, var)]
    own = split_linear(hits[0], var) if len(hits) == 1 else None
    return own is not None and own[0] == const_index(1)


def _sides(dtype: DType, i: For, j: For, target: Target) -> tuple[int, int]:
    """Return the extents along i and j of the tiles that fit the registers: powers of two."""
    lanes = target.lanes(dtype)
    return _least(i.extent, lanes), _least(j.extent, min(lanes, MOST_ROWS))


def _least(extent: Expr, most: int) -> int:
    n = simplify_index(extent)
    return min(most, 1 << (int(n.value) - 1).bit_length()) if isinstance(n, Const) and n.value > 0 else most


def _has_tiles(dtype: DType, i: For, j: For, target: Target) -> bool:
    """Tell whether vectors of `dtype` can do it: where an axis is no whole tile, with some lanes off."""
    sides = _sides(dtype, i, j, target)
    if min(sides) < 2:
        return False
    short = any(isinstance(x.extent, Const) and x.extent.value < n for x, n in zip((i, j), sides, strict=True))
    return target.can_mask(dtype) or not short


class _Tiles:
    """Builds the loops over tiles."""

    def __init__(self, nest: _Crossing, target: Target) -> None:
        self.nest, self.target = nest, target
        self.outer: dict[Var, Expr] = {}

    def body(self) -> Body:
        """Return a parallel loop over the first outer axis and the larger tiles; other axes are loops inside."""
        nest = self.nest
        edge_i, edge_j = self.edges()
        tall = _whole(DEEP // max(x.buffer.dtype.itemsize for x in nest.loads), edge_i)
        blocks_i, blocks_j = _blocks(nest.i.extent, tall), _blocks(nest.j.extent, edge_j)
        first, rest = nest.outer[:1], nest.outer[1:]
        t = Var("t", INDEX, 0)
        out: list[Stmt] = []
        where: Expr = t
        number_j, where = _digit(out, f"{nest.j.var.name}_b", where, blocks_j)
        number_i, where = _digit(out, f"{nest.i.var.name}_b", where, blocks_i)
        total = simplify_index(blocks_i * blocks_j)
        if first:
            total = simplify_index(first[0].extent * total)
            self.outer[first[0].var] = _let(out, first[0].var.name, where)
        i, rows = _span(out, nest.i, number_i, blocks_i, tall)
        j, cols = _span(out, nest.j, number_j, blocks_j, edge_j)
        for loop in rest:
            self.outer[loop.var] = Var(loop.var.name, INDEX, 0)
        inner = self.strip(out, i, j, rows, cols, (edge_i, edge_j))
        for loop in reversed(rest):
            var = self.outer[loop.var]
            assert isinstance(var, Var)
            inner = (For(var, loop.extent, inner),)
        return (For(t, total, (*out, *inner), "parallel"),)

    def edges(self) -> tuple[int, int]:
        """Return the extents of a tile; the last one along an axis may have almost twice as many."""
        nest = self.nest
        width = max(x.buffer.dtype.itemsize for x in nest.loads)
        edge_i, edge_j = (side // width for side in SIDES)
        area = edge_i * edge_j
        sides = [_sides(x.buffer.dtype, nest.i, nest.j, self.target) for x in nest.loads]
        n, m = simplify_index(nest.i.extent), simplify_index(nest.j.extent)
        # Where one axis is short, the other one may be long.
        if isinstance(m, Const) and m.value < edge_j:
            edge_j = max(int(m.value), 1)
            edge_i = _whole(area // edge_j, max(s[0] for s in sides))
        if isinstance(n, Const) and n.value < edge_i:
            edge_i = max(int(n.value), 1)
            if not (isinstance(m, Const) and m.value <= edge_j):
                edge_j = _whole(area // edge_i, max(s[1] for s in sides))
        return edge_i, edge_j

    def strip(self, out: list[Stmt], i: Expr, j: Expr, rows: Expr, cols: Expr, edges: tuple[int, int]) -> Body:
        """Return the work on several tiles that follow each other along i."""
        n = simplify_index(rows)
        if isinstance(n, Const) and n.value <= edges[0]:
            return self.tile(out, i, j, rows, cols, edges)
        var = Var("c", INDEX, 0)
        inner: list[Stmt] = []
        count = _blocks(n, edges[0])
        first, height = _span(inner, For(self.nest.i.var, n, ()), var, count, edges[0])
        start = _let(inner, f"{self.nest.i.var.name}_1", i + first)
        return (For(var, count, (*inner, *self.tile(out, start, j, height, cols, edges))),)

    def tile(self, out: list[Stmt], i: Expr, j: Expr, rows: Expr, cols: Expr, edges: tuple[int, int]) -> Body:
        """Return the work on the tile at `i`, `j`; what is allocated for it goes to `out`."""
        nest = self.nest
        store = nest.moved
        if store is not None and self.is_near():

            def put(value: Expr, ii: Expr, jj: Expr, count: int) -> Stmt:
                lanes = value.type.lanes
                at = {**self.outer, nest.i.var: i + ii, nest.j.var: j + jj}
                where = self.subscripts(store.buffer, store.index, nest.j.var, at, lanes)
                return Store(store.buffer, where, value, _first(count, lanes), store.stream)

            return self.move(nest.loads[0], i, j, rows, cols, put, self.rows(nest.body, {}, i, j, rows, cols))
        if store is not None and self.are_runs():
            return self.run(out, store, i, rows, edges)
        body: list[Stmt] = []
        turned: dict[Load, tuple[Buffer, Expr, Expr]] = {}
        for load in nest.loads:
            shape = (_most(nest.i.extent, edges[0]), _most(nest.j.extent, edges[1]))
            # A vector that is longer than its axis is written whole.
            spare = _sides(load.buffer.dtype, nest.i, nest.j, self.target)[1]
            buffer = Buffer("turned", load.buffer.dtype, (shape[0], maximum(shape[1], spare)), "scratch", 64)
            out.append(Alloc(buffer))
            turned[load] = buffer, i, j
            body += self.fill(load, buffer, lambda ii, jj: (ii, jj), i, j, rows, cols)
        return (*body, *self.rows(nest.body, turned, i, j, rows, cols))

    def run(self, out: list[Stmt], store: Store, i: Expr, rows: Expr, edges: tuple[int, int]) -> Body:
        """Return the work on a tile as wide as the result, which is turned as it lies there and written in one go."""
        nest, load = self.nest, self.nest.loads[0]
        width = nest.j.extent
        # A vector that is longer than a row is written whole; what it writes too much, the next row overwrites.
        spare = _sides(load.buffer.dtype, nest.i, nest.j, self.target)[1]
        size = simplify_index(_most(nest.i.extent, edges[0]) * width + spare)
        buffer = Buffer("turned", load.buffer.dtype, (size,), "scratch", 64)
        out.append(Alloc(buffer))
        zero = const_index(0)
        fill = self.fill(load, buffer, lambda ii, jj: (ii * width + jj,), i, zero, rows, width)
        n = Var("n", INDEX, 0)
        at = {**self.outer, nest.i.var: i, nest.j.var: zero}
        (first,) = (simplify_index(substitute(e, at)) for e in store.index)
        copy = Store(store.buffer, (simplify_index(first + n),), Load(buffer, (n,)), None, store.stream)
        return (*fill, For(n, simplify_index(rows * width), (copy,), "vectorized"))

    def are_runs(self) -> bool:
        """Tell whether tiles are turned in scratch, and each is one run through the memory of the result."""
        whole = _blocks(self.nest.j.extent, self.edges()[1]) == const_index(1)
        return whole and self.nest.is_run and not self.is_near()

    def is_near(self) -> bool:
        """Tell whether all of the array stays in the second-level cache while it is turned."""
        size: Expr = const_index(self.nest.loads[0].buffer.dtype.itemsize)
        for loop in (*self.nest.outer, self.nest.i, self.nest.j):
            size = size * loop.extent
        size = simplify_index(size)
        return isinstance(size, Const) and size.value <= DIRECT

    def fill(self, load: Load, buffer: Buffer, place: _Place, i: Expr, j: Expr, rows: Expr, cols: Expr) -> Body:
        """Return what turns the tile of `load` into `buffer`, where `place` says."""

        def put(value: Expr, ii: Expr, jj: Expr, count: int) -> Stmt:
            *before, last = place(ii, jj)
            where = (*map(simplify_index, before), Ramp(simplify_index(last), 1, value.type.lanes))
            return Store(buffer, where, value)

        nest = self.nest
        var = Var("x", type_of(load.buffer.dtype))
        ii, jj = Var(nest.i.var.name, INDEX, 0), Var(nest.j.var.name, INDEX, 0)
        copy = (Let(var, load), Store(buffer, place(ii, jj), var))
        at = {**self.outer, nest.i.var: i + ii, nest.j.var: j + jj}
        plain = (For(ii, rows, (For(jj, cols, renew(copy, at), "vectorized"),)),)
        return self.move(load, i, j, rows, cols, put, plain)

    def move(self, load: Load, i: Expr, j: Expr, rows: Expr, cols: Expr, put: _Put, plain: Body) -> Body:
        """Return what reads the tile at `i`, `j` in small ones and `put`s them; `plain` where there is no whole one."""
        nest, dtype = self.nest, load.buffer.dtype
        side_i, side_j = _sides(dtype, nest.i, nest.j, self.target)
        tests = [
            compare("ge", n, side)
            for n, side, loop in ((rows, side_i, nest.i), (cols, side_j, nest.j))
            if not isinstance(simplify_index(loop.extent), Const)
        ]

        def small(ii: Expr, jj: Expr) -> Body:
            body: list[Stmt] = []

            def bind(e: Expr) -> Expr:
                var = Var("v", e.type)
                body.append(Let(var, e))
                return var

            height, width = _inside(cols, side_j), _inside(rows, side_i)
            lines = []
            for k in range(height):
                at = {**self.outer, nest.i.var: i + ii, nest.j.var: j + jj + k}
                where = self.subscripts(load.buffer, load.index, nest.i.var, at, side_i)
                lines.append(bind(_as_bits(Load(load.buffer, where, _first(width, side_i)))))
            lines += lines[:1] * (side_j - height)
            for k, column in enumerate(transposed(lines, bind)[:width]):
                body.append(put(_from_bits(column, dtype), ii + k, jj, height))
            return tuple(body)

        tiles = _over("a", rows, side_i, lambda ii: _over("b", cols, side_j, lambda jj: small(ii, jj)))
        for test in tests:
            tiles = (If(test, tiles, renew(plain, {})),)
        return tiles

    def subscripts(
        self, buffer: Buffer, subscripts: tuple[Expr, ...], along: Var, at: dict[Var, Expr], lanes: int
    ) -> tuple[Expr, ...]:
        """Return `subscripts` at the variables `at`, as a vector where they use the variable `along`."""
        return tuple(
            Ramp(simplify_index(substitute(e, at)), 1, lanes)
            if depends_on(e, along)
            else simplify_index(substitute(e, at))
            for e in subscripts
        )

    def rows(
        self, body: Body, turned: dict[Load, tuple[Buffer, Expr, Expr]], i: Expr, j: Expr, rows: Expr, cols: Expr
    ) -> Body:
        """Return `body` over the tile at `i`, `j`, its loads replaced by those of the buffers in `turned`."""
        nest = self.nest
        ii, jj = Var(nest.i.var.name, INDEX, 0), Var(nest.j.var.name, INDEX, 0)

        def go(e: Expr) -> Expr:
            if isinstance(e, Load) and e in turned:
                return Load(turned[e][0], (ii, jj))
            return map_children(go, e)

        new = tuple(map_children(go, s) for s in body) if turned else body
        at = {**self.outer, nest.i.var: i + ii, nest.j.var: j + jj}
        return (For(ii, rows, (For(jj, cols, renew(new, at), "vectorized"),)),)


def _whole(length: int, side: int) -> int:
    """Return the greatest multiple of `side` up to `length`, but at least `side`."""
    return max(length // side, 1) * side


def _blocks(extent: Expr, edge: int) -> Expr:
    """Return how many tiles of `edge` there are along `extent`; the last one takes what is left."""
    return simplify_index(maximum(extent // edge, const_index(1)))


def _digit(out: list[Stmt], name: str, number: Expr, base: Expr) -> tuple[Expr, Expr]:
    """Return ``number % base`` and ``number // base``."""
    if base == const_index(1):
        return const_index(0), number
    return _let(out, name, number % base), simplify_index(number // base)


def _span(out: list[Stmt], loop: For, number: Expr, blocks: Expr, edge: int) -> tuple[Expr, Expr]:
    """Return where tile `number` along `loop` begins, and how long it is."""
    if blocks == const_index(1):
        return const_index(0), loop.extent
    name, extent = loop.var.name, simplify_index(loop.extent)
    start = _let(out, f"{name}_0", number * edge)
    if isinstance(extent, Const) and extent.value % edge == 0:
        return start, const_index(edge)
    return start, _let(out, f"{name}_n", select(compare("lt", number, blocks - 1), edge, extent - start))


def _let(out: list[Stmt], name: str, value: Expr) -> Expr:
    value = simplify_index(value) if not isinstance(value, Select) else value
    if isinstance(value, (Const, Var)):
        return value
    var = Var(name, INDEX, 0)
    out.append(Let(var, value))
    return var


def _most(extent: Expr, edge: int) -> Expr:
    """Return the greatest length of a tile along an axis of `extent`."""
    n = simplify_index(extent)
    if isinstance(n, Const):
        size = int(n.value)
        return const_index(max(edge, size - max(0, size // edge - 1) * edge))
    return const_index(2 * edge - 1)


def _inside(length: Expr, side: int) -> int:
    """Return how many of `side` lie inside an axis of `length`."""
    n = simplify_index(length)
    return min(side, int(n.value)) if isinstance(n, Const) else side


def _over(name: str, length: Expr, side: int, make: Callable[[Expr], Body]) -> Body:
    """Return ``make(start)`` for starts `side` apart; the last one so that it ends at `length`."""
    n = simplify_index(length)
    if isinstance(n, Const) and n.value <= side:
        return make(const_index(0))
    var = Var(name, INDEX, 0)
    count = simplify_index((n + (side - 1)) // side)
    if isinstance(n, Const) and n.value % side == 0:
        return (For(var, count, make(var * side)),)
    start = Var(f"{name}_0", INDEX, 0)
    return (For(var, count, (Let(start, minimum(var * side, n - side)), *make(start))),)


def _first(count: int, lanes: int) -> Expr | None:
    """Return the mask of the first `count` lanes; None for all of them."""
    if count == lanes:
        return None
    return compare("lt", Ramp(const_index(0), 1, lanes), const(count, type_of(index, lanes)))


def _as_bits(e: Expr) -> Expr:
    """Return vector `e` in a dtype that is shuffled as it lies in memory."""
    if e.type.dtype.is_bool:
        return Cast(e, uint8)
    return Bitcast(e, uint16) if e.type.dtype.is_half else e


def _from_bits(e: Expr, dtype: DType) -> Expr:
    if dtype.is_bool:
        return Compare("ne", e, const(0, e.type))
    return Bitcast(e, dtype) if dtype.is_half else e
