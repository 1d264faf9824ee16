"""Take several rows at a time through the passes over them: loop distribution.

Before                                  After (4 rows; arrays of 4 in space ``stack``)
    parallel i in n:                        parallel i_t in (n + 3) // 4:
      serial c in 16: ... x[i, c] ...         serial r in min(4, n - i_t * 4): ... x[i_t * 4 + r, c] ...
      let total: f32 = acc[0]                   total_4[r] = acc[0]
      let scale: f32 = 1.0 / total            vectorized r in min(4, n - i_t * 4):
      vectorized j in 256:                      scale_4[r] = 1.0 / total_4[r]
        out[i, j] = x[i, j] * scale           serial r in min(4, n - i_t * 4):
                                                vectorized j in 256: ... * scale_4[r]

What ends a pass over a row (folding the lanes of a sum into one, a division) is a chain of operations that wait for
each other, and the next pass waits for its result. Now the pass over the next row runs meanwhile, and what is computed
once per row is computed for all rows in one vector.

Needs: rows that do not depend on each other, at least two passes, of constant length, over rows so short that several
stay in the first-level cache, and a call of a function (passes of additions alone got 20 % slower, those of softmax
10 to 40 % faster, log_softmax of 16 elements 2.4 times). Keeps: the order of everything within a row. Gives up where a
buffer of its own is used by several passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jitflow.expr import INDEX, Buffer, Call, Const, Load, Var, const, const_index, minimum
from jitflow.record import walk
from jitflow.simplify import simplify_index
from lowering.loop_ir import (
    Alloc,
    Atomic,
    Body,
    CallKernel,
    CheckIndex,
    For,
    Kernel,
    Let,
    Stmt,
    Store,
    While,
    statements,
)
from lowering.renew import renew

#: Bytes of rows, read and written, that are worked on at a time: two thirds of a small first-level cache.
CACHE_BYTES = 1 << 15
#: Rows at a time at most: a vector of float32. Pieces of work that are to be left for the workers.
MOST_ROWS, LEAST_WORK = 16, 32


def distribute(kernel: Kernel) -> Kernel:
    """Return `kernel` with its loop over rows cut into tiles, in which every pass has a loop of its own."""
    if not kernel.body:
        return kernel
    *before, last = kernel.body
    if not isinstance(last, For) or not all(isinstance(s, Let) for s in before):
        return kernel
    written = {s.buffer for s in statements((last,)) if isinstance(s, Store)} & set(kernel.params)
    new = _loop(last, written)
    return kernel if new is last else kernel.with_body((*before, new))


def _loop(loop: For, written: set[Buffer]) -> For:
    """Return `loop`, or the one loop inside of it, distributed."""
    if not loop.body:
        return loop
    units = _units(loop.body)
    if units is not None and sum(u.is_pass for u in units) > 1 and _is_heavy(loop):
        rows = _rows_at_a_time(loop, units)
        independent = loop.kind == "parallel" or (loop.kind == "serial" and _is_independent(loop, written))
        return _tiled(loop, units, rows) if rows > 1 and independent else loop
    *before, last = loop.body
    if isinstance(last, For) and last.kind == "serial" and all(isinstance(s, Let) for s in before):
        inner = _loop(last, written)
        if inner is not last:
            return For(loop.var, loop.extent, (*before, inner), loop.kind, loop.axis, loop.poll)
    return loop


# ---- what a row consists of


class _Unit(NamedTuple):
    """Statements that stay together: a pass over the row, or (without loops) what is computed once per row."""

    body: Body
    is_pass: bool


def _units(body: Body) -> list[_Unit] | None:
    """Return the passes of a row and what is between them; None if a buffer is used by several of them.

    Index arithmetic belongs to none: it is repeated where it is used.
    """
    units: list[_Unit] = []
    own: set[Buffer] = set()
    done = True
    for s in body:
        if isinstance(s, Let) and s.var.type is INDEX:
            continue
        if isinstance(s, Let) and any(isinstance(x, Load) and x.buffer in own for x in walk(s.value)):
            # The result of a pass belongs to it and ends it.
            units[-1] = _Unit((*units[-1].body, s), True)
            done = True
            continue
        is_pass = not isinstance(s, Let) and not (isinstance(s, Store) and s.mask is None and s.buffer not in own)
        if done or units[-1].is_pass != is_pass:
            units.append(_Unit((), is_pass))
        units[-1] = _Unit((*units[-1].body, s), is_pass)
        done = False
        if isinstance(s, Alloc):
            own.add(s.buffer)
    for k, unit in enumerate(units):
        inside = {s.buffer for s in unit.body if isinstance(s, Alloc)}
        if any(_buffers(other.body) & inside for other in units[k + 1 :]):
            return None
    return units


def _buffers(body: Body) -> set[Any]:
    return {x.buffer for s in body for x in walk(s) if isinstance(x, (Load, Store, Alloc, Atomic))}


def _is_heavy(loop: For) -> bool:
    """Tell whether a function is called: light passes are over before what they wait for would matter."""
    return any(isinstance(x, Call) for s in loop.body for x in walk(s))


def _rows_at_a_time(loop: For, units: Sequence[_Unit]) -> int:
    """Return how many rows of a few buffers stay in the cache; 1 if the length of a row is not known."""
    length = max((_length(s) for u in units for s in u.body if isinstance(s, For)), default=0)
    widest = max(x.type.dtype.itemsize for u in units for s in u.body for x in walk(s) if isinstance(x, Load))
    rows = MOST_ROWS
    while rows > 1 and rows * length * widest * 2 > CACHE_BYTES:
        rows //= 2
    if isinstance(loop.extent, Const):
        while rows > 1 and int(loop.extent.value) < rows * (LEAST_WORK if loop.kind == "parallel" else 1):
            rows //= 2
    return rows


def _length(loop: For) -> int:
    """Return the iterations of a nest of loops; more than fit into any cache if they are not known."""
    count = int(loop.extent.value) if isinstance(loop.extent, Const) else CACHE_BYTES
    return count * max((_length(s) for s in loop.body if isinstance(s, For)), default=1)


def _is_independent(loop: For, written: set[Buffer]) -> bool:
    """Tell whether no iteration reads or writes what another one writes: each keeps to its own subscript of an axis."""
    axes: dict[Buffer, set[int]] = {}
    for s in loop.body:
        for x in walk(s):
            if isinstance(x, (Atomic, CallKernel, CheckIndex, While)):
                return False
            if isinstance(x, (Load, Store)) and x.buffer in written:
                own = {k for k, i in enumerate(x.index) if i is loop.var}
                axes[x.buffer] = axes.get(x.buffer, own) & own
    return all(axes.values())


# ---- the new loops


def _tiled(loop: For, units: Sequence[_Unit], rows: int) -> For:
    """Return a loop over tiles of `rows` iterations of `loop`, in which every unit has a loop of its own."""
    tile = Var(f"{loop.var.name}_t", INDEX, 0)
    first = tile * rows
    whole = isinstance(loop.extent, Const) and loop.extent.value % rows == 0
    count = const_index(rows) if whole else simplify_index(minimum(const_index(rows), loop.extent - first))
    lets = [s for s in loop.body if isinstance(s, Let) and s.var.type is INDEX]
    kept = _crossing(units, rows)
    body: list[Stmt] = []
    filled: dict[Buffer, None] = {}
    for unit in units:
        r = Var("r", INDEX, 0)
        inside = _with_arrays(unit.body, r, kept)
        needed = _needed(lets, inside)
        alone = not (unit.is_pass or needed or loop.var in _vars(inside) or _buffers(inside) - set(kept.values()))
        if alone and not whole:
            # A vector of all rows reads those that the last tile has not, too.
            stored = {s.buffer for s in inside if isinstance(s, Store)}
            filled.update((b, None) for b in kept.values() if b in _buffers(inside) - stored)
        copy = renew((*needed, *inside), {loop.var: simplify_index(first + r)})
        body.append(For(r, const_index(rows) if alone else count, copy, "serial" if unit.is_pass else "vectorized"))
    fills = [_fill(b, rows) for b in filled]
    body = [*(Alloc(b) for b in kept.values()), *fills, *body]
    tiles = simplify_index((loop.extent + (rows - 1)) // rows)
    return For(tile, tiles, tuple(body), loop.kind, loop.axis, loop.poll)


def _fill(buffer: Buffer, rows: int) -> For:
    r = Var("r", INDEX, 0)
    return For(r, const_index(rows), (Store(buffer, (r,), const(0, buffer.dtype)),), "vectorized")


def _crossing(units: Sequence[_Unit], rows: int) -> dict[Var, Buffer]:
    """Return an array of an element per row for each variable that is used by a later unit than its own."""
    kept: dict[Var, Buffer] = {}
    for k, unit in enumerate(units):
        later = {v for other in units[k + 1 :] for v in _vars(other.body)}
        for s in unit.body:
            if isinstance(s, Let) and s.var in later:
                kept[s.var] = Buffer(f"{s.var.name}_{rows}", s.var.type.dtype, (const_index(rows),), "stack", 64)
    return kept


def _vars(body: Body) -> set[Any]:
    return {x for s in body for x in walk(s) if isinstance(x, Var)}


def _with_arrays(body: Body, r: Var, kept: dict[Var, Buffer]) -> Body:
    """Return `body` for row `r` with the crossing values that it uses loaded first, and those it binds stored."""
    bound = {s.var for s in body if isinstance(s, Let)}
    given = [v for v in kept if v in _vars(body) and v not in bound]
    out: list[Stmt] = [Let(v, Load(kept[v], (r,))) for v in given]
    for s in body:
        out.append(s)
        if isinstance(s, Let) and s.var in kept:
            out.append(Store(kept[s.var], (r,), s.var))
    return tuple(out)


def _needed(lets: Sequence[Let], body: Body) -> list[Let]:
    """Return those of `lets` that `body` uses, directly or not, in their order."""
    wanted = _vars(body)
    out: list[Let] = []
    for s in reversed(lets):
        if s.var in wanted:
            out.insert(0, s)
            wanted |= _vars((s,))
    return out
