"""The innermost part of matrix products: a register tile, as a small kernel that many kernels call.

    kernel multiply_f32_6x64(a, b, c; rows, cols, depth, lda, ldb, ldc, first, ahead):
      for r < rows <= 6, l < cols <= 64:
        c[r, l] = (0 if first == 0 else c[r, l]) + sum over k < depth of a[r, k] * b[k, l]

Each element is one chain of Fma over increasing k, continued from `c`, so neither the tile nor where k is cut changes
a bit. The tile is in registers; one row of `b` at a time is loaded and used for every row of `a`. At the edges of a
matrix `rows` and `cols` say how much of the tile is there; rows that are not repeat the last one and are not stored.

What lies `ahead` elements behind a row of `b` is prefetched with it, since hardware looks no further than the end of a
page. A tile that `copies` also writes the rows of `b` to a panel: that costs less than to do it before, since
multiplications leave the ports for stores idle.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal, TypeAlias

from jitflow.dtypes import DType
from jitflow.expr import (
    INDEX,
    Binary,
    Buffer,
    Expr,
    Fma,
    Load,
    Var,
    compare,
    const,
    const_index,
    minimum,
    type_of,
)
from jitflow.simplify import simplify_index
from lowering.loop_ir import Alloc, Body, For, If, Kernel, Let, LoopKind, Prefetch, Stmt, Store

#: Bytes of a cache line.
LINE = 64

#: How the left factor lies in memory: its rows or its columns are contiguous.
LeftForm: TypeAlias = Literal["rows", "columns"]


def loop(name: str, extent: Expr | int, make: Callable[[Expr], Body], kind: LoopKind = "serial") -> Body:
    """Return a loop over `extent` with body ``make(variable)``; just the body if it runs once, nothing if never."""
    count = simplify_index(extent)
    if count == const_index(0):
        return ()
    if count == const_index(1) and kind != "parallel":
        return make(const_index(0))
    var = Var(name, INDEX, 0)
    return (For(var, count, make(var), kind),)


@functools.cache
def microkernel(
    dtype: DType, mr: int, nr: int, *, left: LeftForm = "rows", masks: bool = True, copies: bool = False
) -> Kernel:
    """Return the kernel of an `mr` x `nr` tile; see the module docstring. The same arguments give the same object.

    Its dims are ``rows, cols, depth, lda, ldb, ldc, first, ahead``; `lda`, `ldb`, `ldc` are the distances of rows (of
    columns, where `left` is ``columns``) in elements. Rows of `b` are read up to `nr`, whatever `cols` is. With
    `masks`, the edges of `c` are masked loads and stores, else they take a way of their own through memory. One that
    `copies` has a fourth parameter, ``panel[depth, nr]``, and is for whole tiles only.
    """
    rows, cols, depth, lda, ldb, ldc, first, ahead = dims = tuple(
        Var(name, INDEX, 0) for name in ("rows", "cols", "depth", "lda", "ldb", "ldc", "first", "ahead")
    )
    a = Buffer("a", dtype, (rows, lda) if left == "rows" else (depth, lda))
    b = Buffer("b", dtype, (depth, ldb))
    c = Buffer("c", dtype, (rows, ldc))
    panel = Buffer("panel", dtype, (depth, nr))
    line = LINE // dtype.itemsize
    acc = Buffer("acc", dtype, (mr, nr), "register")
    row = Buffer("row", dtype, (nr,), "register")

    def across(make: Callable[[Expr], Body]) -> Body:
        return loop("l", nr, make, "vectorized")

    def whole(make: Callable[[Expr, Expr], Stmt]) -> Body:
        return loop("r", mr, lambda r: across(lambda l: (make(r, l),)), "unrolled")

    def step(k: Expr) -> Body:
        def multiply(r: Expr) -> Body:
            x = Var("x", type_of(dtype))
            at = minimum(r, rows - 1)
            return (
                Let(x, Load(a, (at, k) if left == "rows" else (k, at))),
                *across(lambda l: (Store(acc, (r, l), Fma(x, Load(row, (l,)), Load(acc, (r, l)))),)),
            )

        return (
            Alloc(row),
            *across(lambda l: (Store(row, (l,), Load(b, (k, l))),)),
            *loop("v", -(-nr // line), lambda v: (Prefetch(b, (k, ahead + v * line)),), "unrolled"),
            *(across(lambda l: (Store(panel, (k, l), Load(row, (l,))),)) if copies else ()),
            *loop("r", mr, multiply, "unrolled"),
        )

    edges = _whole_edges if copies else _masked_edges if masks else _tile_edges
    start, end = edges(acc, c, rows, cols, whole)

    body: Body = (
        Alloc(acc),
        *whole(lambda r, l: Store(acc, (r, l), const(0, dtype))),
        If(compare("ne", first, 0), start),
        *loop("k", depth, step),
        *end,
    )
    name = f"multiply_{dtype.short}_{mr}x{nr}" + "_columns" * (left == "columns") + "_copy" * copies
    return Kernel(name, (a, b, c, panel) if copies else (a, b, c), dims, body, frozenset((a, b)))


_Whole: TypeAlias = "Callable[[Callable[[Expr, Expr], Stmt]], Body]"


def _whole_edges(acc: Buffer, c: Buffer, rows: Expr, cols: Expr, whole: _Whole) -> tuple[Body, Body]:
    """Return how a tile that is whole is read from and written to `c`."""
    return (
        whole(lambda r, l: Store(acc, (r, l), Load(c, (r, l)))),
        whole(lambda r, l: Store(c, (r, l), Load(acc, (r, l)))),
    )


def _masked_edges(acc: Buffer, c: Buffer, rows: Expr, cols: Expr, whole: _Whole) -> tuple[Body, Body]:
    """Return how the part of the tile that is there is read from and written to `c`, with masks."""

    def part(make: Callable[[Expr, Expr], Stmt]) -> Body:
        mr, nr = acc.shape

        def column(l: Expr) -> Body:
            inner = loop("r", mr, lambda r: (If(compare("lt", r, rows), (make(r, l),)),), "unrolled")
            return (If(compare("lt", l, cols), inner),)

        return loop("l", nr, column, "vectorized")

    return (
        part(lambda r, l: Store(acc, (r, l), Load(c, (r, l)))),
        part(lambda r, l: Store(c, (r, l), Load(acc, (r, l)))),
    )


def _tile_edges(acc: Buffer, c: Buffer, rows: Expr, cols: Expr, whole: _Whole) -> tuple[Body, Body]:
    """Return the same without masks in registers: a partial tile goes through a copy in memory."""
    mr, nr = acc.shape
    tile = Buffer("tile", acc.dtype, acc.shape, "stack", 64)
    full = Binary("and", compare("eq", rows, mr), compare("eq", cols, nr))

    def part(make: Callable[[Expr, Expr], Stmt]) -> Body:
        return loop("r", rows, lambda r: loop("l", cols, lambda l: (make(r, l),), "vectorized"))

    start: Body = (
        If(
            full,
            whole(lambda r, l: Store(acc, (r, l), Load(c, (r, l)))),
            (
                Alloc(tile),
                *whole(lambda r, l: Store(tile, (r, l), const(0, acc.dtype))),
                *part(lambda r, l: Store(tile, (r, l), Load(c, (r, l)))),
                *whole(lambda r, l: Store(acc, (r, l), Load(tile, (r, l)))),
            ),
        ),
    )
    out = Buffer("tile", acc.dtype, acc.shape, "stack", 64)
    end: Body = (
        If(
            full,
            whole(lambda r, l: Store(c, (r, l), Load(acc, (r, l)))),
            (
                Alloc(out),
                *whole(lambda r, l: Store(out, (r, l), Load(acc, (r, l)))),
                *part(lambda r, l: Store(c, (r, l), Load(out, (r, l)))),
            ),
        ),
    )
    return start, end
