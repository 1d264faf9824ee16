"""Collect short rows of large results in scratch, and write them in one run.

Before                                      After
    parallel i in 8:                            parallel i in 8:
      serial j in 512:                            alloc rows: f32[4096] scratch
        vectorized k in 64:                       serial c in 8:
          stream o[i, j, k] = x[j, i, k]            serial j in 64:
                                                      vectorized k in 64:
                                                        rows[j * 64 + k] = x[(c * 64 + j) * 512 + i * 64 + k]
                                                    vectorized n in 4096:
                                                      stream o[i * 32768 + c * 4096 + n] = rows[n]

A row of some lines that begins anywhere is, to a good part, halves of lines at its ends, which cannot be stored past
the caches; next to stores that can they are slower than all the rest (256 bytes a row: 1.4 ms against 1.0 for 13 MB).
The copy from scratch, which stays in the first level, costs a twentieth of what is saved.

Works on a kernel whose body is one perfect nest that stores its results in row-major order. Gives up where rows are
long, where a run of them would not be, where arrays are not known to be large, and where a result is a small part of
them.
"""

from __future__ import annotations

from jitflow.expr import INDEX, Buffer, Const, Expr, Load, Var, const_index, minimum, substitute
from jitflow.simplify import free_vars, simplify_index
from lowering.loop_ir import Alloc, Body, For, Kernel, Let, Store, binders
from lowering.passes.collapse import flattened
from lowering.passes.transpose import is_map, nest_of
from lowering.passes.vectorize import LONG_STREAM
from lowering.renew import renew
from lowering.stream import array_bytes, is_large
from lowering.target import Target

#: Bytes of rows in scratch: a third of the first level.
RUN = 16 << 10
#: Such a part of what is large stays in the second level.
SMALL = 8


def join_rows(kernel: Kernel, *, target: Target) -> Kernel:
    """Return `kernel` with short rows that it stores past the caches of `target` written many at once."""
    loops, body = nest_of(kernel)
    count = _rows_of_run(kernel, loops, body, target)
    if count is None:
        return kernel
    kernel = flattened(kernel)
    loops, body = nest_of(kernel)
    return kernel.with_body(_joined(loops, body, count))


def _rows_of_run(kernel: Kernel, loops: list[For], body: Body, target: Target) -> int | None:
    """Return how many rows are written at once; None if it is better to write each on its own."""
    stores = [s for s in body if isinstance(s, Store)]
    if len(loops) < 2 or loops[-1].kind != "vectorized" or not all(s.stream for s in stores):
        return None
    if not is_map(loops, body, kernel) or is_large(array_bytes(kernel), target) is not True:
        return None
    if any(_is_small(s, target) for s in stores):
        return None
    width, height = (simplify_index(loop.extent) for loop in (loops[-1], loops[-2]))
    sizes = [s.buffer.dtype.itemsize for s in stores]
    if not isinstance(width, Const) or not all(target.can_mask(s.buffer.dtype) for s in stores):
        return None
    least = LONG_STREAM * target.vector_bits // 8
    row = int(width.value)
    if row * min(sizes) >= least or row == 0:
        return None
    count = max(1, RUN // (row * max(sizes)))
    rows = min(count, int(height.value)) if isinstance(height, Const) else count
    return count if rows * row * min(sizes) >= least else None


def _is_small(store: Store, target: Target) -> bool:
    """Tell whether the array that `store` fills is known to stay in the caches, however large others are."""
    size: Expr = const_index(store.buffer.dtype.itemsize)
    for n in store.buffer.shape:
        size = size * n
    size = simplify_index(size)
    return isinstance(size, Const) and int(size.value) * SMALL < target.stream_bytes


def _joined(loops: list[For], body: Body, count: int) -> Body:
    """Return the nest with its rows in runs of `count`."""
    *outer, over_rows, row = loops
    width, extent = row.extent, simplify_index(over_rows.extent)
    c, i = Var("c", INDEX, 0), Var(over_rows.var.name, INDEX, 0)
    first = c * count
    even = isinstance(extent, Const) and extent.value % count == 0
    height = const_index(count) if even else minimum(const_index(count), extent - first)
    common, varying = _parted(body, row.var)
    rows: Body = ()
    copies: Body = ()
    allocs: Body = ()
    for s in varying:
        if isinstance(s, Store):
            buffer = Buffer("rows", s.buffer.dtype, (simplify_index(width * count),), "scratch", 64)
            rows += (Store(buffer, (i * width + row.var,), s.value),)
            copies += (_copy(s, buffer, {over_rows.var: first, row.var: const_index(0)}, height * width),)
            allocs += (Alloc(buffer),)
        else:
            rows += (s,)
    one = renew((*common, For(row.var, width, rows, "vectorized")), {over_rows.var: first + i})
    nest: Body = (For(c, simplify_index((extent + (count - 1)) // count), (For(i, height, one), *copies)),)
    for loop in reversed(outer):
        nest = (For(loop.var, loop.extent, nest, loop.kind),)
    (top,) = nest
    assert isinstance(top, For)
    return (For(top.var, top.extent, (*allocs, *top.body), loops[0].kind),)


def _parted(body: Body, var: Var) -> tuple[Body, Body]:
    """Return the Lets of `body` that have nothing to do with `var`, and the rest.

    There is no row without elements: what their loads read exists.
    """
    common: Body = ()
    varying: Body = ()
    inside = {var}
    for s in body:
        if isinstance(s, Let) and not free_vars(s.value) & inside:
            common += (s,)
        else:
            varying += (s,)
            inside.update(binders(s))
    return common, varying


def _copy(store: Store, buffer: Buffer, at: dict[Var, Expr], length: Expr) -> For:
    """Return the loop that writes `length` elements of `buffer` to where `store` begins `at` the first of them."""
    n = Var("n", INDEX, 0)
    (place,) = store.index
    start = simplify_index(substitute(place, at))
    copy = Store(store.buffer, (simplify_index(start + n),), Load(buffer, (n,)), None, stream=True)
    return For(n, simplify_index(length), (copy,), "vectorized")
