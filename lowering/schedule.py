"""A contraction group and a target into a :class:`Schedule`: form, register tile, blocks, packing, and the reasons.

Chosen from what is declared (dtypes, literal extents, strides) and the target's facts; the same declaration gives the
same code on any machine. The cost of a register tile of `mr` rows and `nv` vectors, in cycles per k, is a tenth of a
cycle per load (one of each row's element, one of each vector) and the largest of

- ``mr * nv / 2``: two fused multiply-adds per cycle;
- 0.7 per load: what a tile of one vector reaches that does nothing but load (24x16 of f32: 148 of 210 GFLOP/s);
- 4: the latency of a multiply-add, which the next one of the same element waits for;

and a tile of which only a part is there costs the same. That orders the measured tiles: 6x64 198, 8x48 194, 12x32 187,
4x64 171, 4x32 163 GFLOP/s. `mr * nv` accumulators, a row of vectors and one element must fit the registers.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from jitflow.dtypes import DType
from jitflow.expr import Const, Expr, const_index
from jitflow.graph import constant_op, variable_op
from jitflow.record import record
from lowering.analysis.contraction import Contraction, Factor, contraction_of
from lowering.fuse import FusionGroup
from lowering.microkernel import LeftForm
from lowering.target import Target
from lowering.text import show

#: ``packed``: register tiles on panels of the right factor; ``direct``: the same on the right factor as it lies;
#: ``vector``: few rows times a matrix read once, row by row; ``dots``: few rows times a matrix whose columns are
#: contiguous; ``taps``: few rows times windows; ``strips``: one chain per element (`lowering.build`), for all else.
Form: TypeAlias = Literal["packed", "direct", "vector", "dots", "taps", "strips"]

#: Bytes of k that one tile sums up before it writes its sums: 1024 steps of f32. More of them mean fewer readings of
#: partial sums, whose latency nothing hides (at 1024^3, 384 steps are 9% slower); a panel of 256 KB and a strip of the
#: left factor of 192 KB still fit the second cache.
DEPTH_BYTES = 4096
#: The same where one strip of rows is multiplied by a matrix in memory, and columns of one parallel block. The tiles of
#: a strip then walk across the matrix, along so many rows of it, rather than down, where each row is another page: if
#: rows are long.
ACROSS_BYTES, ACROSS_COLS, LONG_ROW = 256, 1024, 2048
#: Heights of register tiles.
HEIGHTS = (2, 3, 4, 6, 8, 12, 16)
#: Rows of a strip, a multiple of every height: their part of the left factor is used again for each panel.
STRIP_ROWS = 48
#: Rows of one parallel block, a multiple of every height. Packing the right factor anew for each block of rows
#: costs as much as multiplying some 40 of them.
BLOCK_ROWS = 1056
#: The same where the first tile packs as it multiplies. Then fewer cost little at first, and give work to `BLOCKS`
#: workers; but each block reads the right factor again: at 1024 square 144 are 17% slower than 1056, 528 3%.
FEWEST_BLOCK_ROWS, SYMBOLIC_BLOCK_ROWS, BLOCKS = 144, 528, 8
#: Columns of one parallel block: 128 are as fast as 1024 and share the work among more workers. Where the left factor
#: is copied for each block, they must be more, since copying it costs as much as multiplying some 20 columns.
BLOCK_COLS, BLOCK_COLS_COPIED = 128, 256
#: Bytes of a right factor that stays in the first cache, or near, whatever its layout: packing would only cost.
SMALL_BYTES = 64 << 10
#: Bytes of a left factor whose rows, if columns are contiguous, are read in place: a page for each step of k, and no
#: more of them than the first level of address translation holds. Copying it is as much as multiplying 20 columns.
SMALL_LEFT_BYTES = 256 << 10
#: Rows up to which a matrix is read once and not packed.
FEW_ROWS = 4
#: Accumulators of a tile: more than enough to hide latency, and they leave registers for the operands.
ACCUMULATORS = 24
#: How much cheaper a tile other than the best for large matrices must be, and one more for a last, narrower panel: each
#: is some 15 ms of compile time.
WORTH_A_TILE, WORTH_A_LAST_TILE = 1.1, 1.06
#: Stands for an extent that is not known when comparing tiles: so many that edges do not count.
UNKNOWN = 1 << 16


@record
class Schedule:
    """How a contraction is computed.

    `mr` x `nr` is the register tile, `rest` the height of a second one for what is left of the rows (0: none), `last`
    height and width of the tile of a last panel that is narrower than `nr` (None: the same tile); `kc` is the depth of
    a panel, `mc` the rows that share it, `block_m` x `block_n` the part of the result that one iteration of
    the parallel loop computes. `pack_a`: the left factor is copied to a block whose rows (or columns: `left`) are
    contiguous; `pack_b`: the right factor is copied to panels of `nr` columns. `masks`: edges by masked vectors.
    `across`: tiles walk along rows of a right factor in memory; `low` are the depth of a panel and the columns of a
    block to do so if a run finds that the rows are no more than `mr`.
    """

    form: Form
    mr: int = 1
    nr: int = 1
    rest: int = 0
    kc: int = 0
    mc: int = 0
    block_m: int = 0
    block_n: int = 0
    pack_a: bool = False
    pack_b: bool = False
    left: LeftForm = "rows"
    masks: bool = True
    across: bool = False
    low: tuple[int, int] | None = None
    last: tuple[int, int] | None = None
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for dumps."""
        sizes = f" {self.mr}x{self.nr}" + (f"+{self.rest}" if self.rest else "")
        sizes += f" last {self.last[0]}x{self.last[1]}" if self.last else ""
        sizes += f" kc {self.kc} mc {self.mc}"
        sizes += f" block {self.block_m}x{self.block_n}"
        words = [self.form + (sizes if self.form in ("packed", "direct") else ""), *self.reasons]
        return "; ".join(words)


def choose_contraction(group: FusionGroup, target: Target) -> Schedule:
    """Return the schedule of the contraction of `group` for `target`."""
    c = contraction_of(group)
    if c is None:
        return _strips("its factors depend on rows and columns alike")
    dtype = c.node.dtype
    if not dtype.is_float or dtype.itemsize < 4:
        return _strips(f"no register tiles of {dtype}")
    if any(d.node.dtype is not dtype for f in (c.left, c.right) for d in f.demands):
        return _strips("factors of another dtype")
    m, n, k = (_literal(a.extent) for a in (c.m, c.n, c.k))
    if m == 0 or n == 0:
        return _strips("no elements")
    if m is not None and m <= FEW_ROWS:
        return _few_rows(c, m, target.lanes(dtype))
    lanes = target.lanes(dtype)
    # Masks that take vector registers are too many beside a tile: of 16, sums then go to the stack in its loop.
    masks = target.can_mask(dtype) and target.vector_registers > 16
    mr, nv, rest, last = _tile(m, n, lanes, target)
    nr = nv * lanes
    direct = _is_small(c.right, n, k, nr, dtype)
    pack_a, left, why = _left(c.left, m, k, dtype)
    has_long_rows = not direct and _has_long_rows(c.right, n, dtype)
    across = has_long_rows and m is not None and m <= STRIP_ROWS
    low = (ACROSS_BYTES // dtype.itemsize, _block(n, ACROSS_COLS, nr)) if has_long_rows and m is None else None
    reasons = (
        f"{mr} rows of {nv} vectors in {target.vector_registers} registers",
        why,
        f"right factor of {k} x {n} read in place"
        if direct
        else "right factor packed" + " along its rows: one strip uses it" * across,
    )
    depth, cols = (ACROSS_BYTES, ACROSS_COLS) if across else (DEPTH_BYTES, BLOCK_COLS_COPIED if pack_a else BLOCK_COLS)
    block_n = _block(n, cols, nr)
    block_m = _block(m, _block_rows(m, n, block_n) if _is_in_rows(c.right) else BLOCK_ROWS, mr)
    return Schedule(
        "direct" if direct else "packed",
        mr,
        nr,
        rest,
        _block(k, depth // dtype.itemsize, 1),
        min(STRIP_ROWS, block_m),
        block_m,
        block_n,
        pack_a,
        not direct,
        left,
        masks,
        across,
        low,
        last,
        reasons,
    )


def _strips(why: str) -> Schedule:
    return Schedule("strips", reasons=(why,))


def _literal(e: Expr) -> int | None:
    return int(e.value) if isinstance(e, Const) else None


def _few_rows(c: Contraction, m: int, lanes: int) -> Schedule:
    rows = "one row" if m == 1 else f"{m} rows"
    if c.right.run is not None:
        why = f"{rows} times columns that are read in runs of {show(c.right.run)}"
        return Schedule("taps", mr=m, nr=lanes, reasons=(why,))
    place = c.right.place
    if c.right.unit == "along" and not (place is not None and place.across == const_index(1)):
        return Schedule("dots", mr=m, reasons=(f"{rows}, and a matrix whose columns are contiguous",))
    return Schedule("vector", mr=m, reasons=(f"{rows}: the matrix is read once",))


#: Rows and vectors of a register tile, the height of the tile for what is left of the rows, and `Schedule.last`.
_Tile: TypeAlias = tuple[int, int, int, tuple[int, int] | None]


def _tile(m: int | None, n: int | None, lanes: int, target: Target) -> _Tile:
    """Return the cheapest register tile and those for what it leaves."""
    # Without FMA each product needs a register of its own.
    free = target.vector_registers - 1 - (not target.has_fma)
    heights = {nv: _height(nv, free) for nv in (4, 3, 2, 1)}
    heights = {nv: mr for nv, mr in heights.items() if mr * nv >= 8}
    tiles = [(mr, nv, _rest(m, mr, nv)) for nv, mr in heights.items()]
    first = min(tiles, key=lambda t: _cycles(UNKNOWN, UNKNOWN, lanes, *t))
    found: list[tuple[float, _Tile]] = []
    for mr, nv, rest in tiles:
        worth = 1 if (mr, nv, rest) == first else WORTH_A_TILE
        found.append((worth * _cycles(m or UNKNOWN, n or UNKNOWN, lanes, mr, nv, rest), (mr, nv, rest, None)))
        left = -(-((n or 0) % (nv * lanes)) // lanes)
        if 0 < left < nv and left in heights and m:
            height = min(heights[left], -(-m // 2) * 2)
            whole = _cycles(m, (n or 0) // (nv * lanes) * nv * lanes, lanes, mr, nv, rest)
            cost = whole + _cycles(m, left * lanes, lanes, height, left, 0)
            found.append((worth * WORTH_A_LAST_TILE * cost, (mr, nv, rest, (height, left * lanes))))
    return min(found, key=lambda f: f[0])[1]


def _height(nv: int, registers: int) -> int:
    """Return how many rows a tile of `nv` vectors can have."""
    most = min((registers - nv) // nv, ACCUMULATORS // nv)
    return max((h for h in HEIGHTS if h <= most), default=1)


def _rest(m: int | None, mr: int, nv: int) -> int:
    """Return the height of the tile for the rows that are left by tiles of `mr`, 0 if another of these will do."""
    least = -(-8 // nv)  # accumulators that keep two units with a latency of 4 busy
    left = least if m is None else m % mr
    height = -(-left // least) * least
    return height if height < mr and 2 * least <= mr else 0


def _cycles(m: int, n: int, lanes: int, mr: int, nv: int, rest: int) -> float:
    """Return the cycles per k of tiles on `m` rows and `n` columns."""

    def tile(rows: int) -> float:
        loads = rows + nv
        return max(rows * nv / 2, 0.7 * loads, 4) + loads / 10

    tall, left = divmod(m, mr)
    height = rest or mr
    return -(-n // (nv * lanes)) * (tall * tile(mr) + -(-left // height) * tile(height))


def _left(f: Factor, m: int | None, k: int | None, dtype: DType) -> tuple[bool, LeftForm, str]:
    """Return whether to copy the left factor to a block, along what its rows are, and why.

    Where its rows lie in even steps it is read in place, even if these are whole pages: the copy costs more.
    """
    form: LeftForm = "columns" if f.unit == "across" else "rows"
    if f.place is None or f.unit is None:
        return True, form, "left factor copied to a block"
    if form == "columns" and (m is None or k is None or m * k * dtype.itemsize > SMALL_LEFT_BYTES):
        return True, form, "left factor copied to a block: each step of k is another page of it"
    return False, form, "left factor read in place"


def _is_small(f: Factor, n: int | None, k: int | None, nr: int, dtype: DType) -> bool:
    """Tell whether the right factor is best read in place: small, and not a weight with a panel to fill up."""
    if not _is_in_rows(f) or n is None or k is None:
        return False
    return n * k * dtype.itemsize <= SMALL_BYTES and not (_is_weight(f) and n % nr)


def _is_in_rows(f: Factor) -> bool:
    """Tell whether a right factor is in memory and its rows are contiguous."""
    return f.place is not None and f.unit == "across"


def _has_long_rows(f: Factor, n: int | None, dtype: DType) -> bool:
    """Tell whether a right factor that is not packed ahead is in memory, in rows of about a page or more."""
    return _is_in_rows(f) and not _is_weight(f) and (n is None or n * dtype.itemsize >= LONG_ROW)


def _is_weight(f: Factor) -> bool:
    return f.place is not None and f.place.node.op in (constant_op, variable_op)


def _block_rows(m: int | None, n: int | None, block_n: int) -> int:
    """Return the most rows of a block whose first tile packs the right factor: as many as leave `BLOCKS` blocks."""
    if m is None:
        return SYMBOLIC_BLOCK_ROWS
    columns = -(-(n or UNKNOWN) // block_n)
    rows = -(-m // -(-BLOCKS // columns))
    return min(BLOCK_ROWS, max(FEWEST_BLOCK_ROWS, -(-rows // STRIP_ROWS) * STRIP_ROWS))


def _block(extent: int | None, most: int, step: int) -> int:
    """Return the size of equal blocks of an extent, a multiple of `step`."""
    most = max(step, most // step * step)
    if extent is None:
        return most
    count = max(1, -(-extent // most))
    return max(step, -(-extent // count // step) * step) if extent else step
