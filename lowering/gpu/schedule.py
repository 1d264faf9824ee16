"""The sizes that shape GPU kernels, as data: a :class:`GpuSchedule` is chosen before building, never by the emitter.

The defaults are meant for sm_80 to sm_90. Tests build with smaller ones, so that a few elements fill several blocks.
"""

from __future__ import annotations

from jitflow.record import record

#: Threads that shuffle among each other.
WARP = 32


@record
class GpuSchedule:
    """Sizes of blocks and tiles; all powers of two.

    - `threads`, `items`: threads of a block of an elementwise kernel, and elements per thread; reductions of unknown
      length have as many loads under way.
    - `row_threads`, `row_items`: at most so many threads fold one row, and at most so many elements per thread stay in
      registers between the passes over it (of constant length; others are read again).
    - `column_rows`: threads among which the elements of one column are dealt.
    - `split_from`, `splits`: a reduction over at least so many elements with few results is cut into so many blocks;
      of an unknown number of elements, if at least `unknown_splits` blocks can share each result.
    - `tile_m`, `tile_n`, `tile_k`: the tile of a matrix product that a block holds in shared memory.
    - `item_m`, `item_n`: the part of it that a thread holds in registers.
    """

    threads: int = 256
    items: int = 4
    row_threads: int = 512
    row_items: int = 16
    column_rows: int = 8
    split_from: int = 1 << 15
    splits: int = 256
    unknown_splits: int = 32
    tile_m: int = 64
    tile_n: int = 64
    tile_k: int = 16
    item_m: int = 4
    item_n: int = 4

    def with_tile(self, tile_m: int, tile_n: int) -> GpuSchedule:
        """Return this schedule with another tile of a matrix product."""
        fields = {f: getattr(self, f) for f in type(self).__record_fields__}  # type: ignore[attr-defined]
        return GpuSchedule(**{**fields, "tile_m": tile_m, "tile_n": tile_n})


def power_of_two(n: int) -> int:
    """Return the least power of two that is at least `n`."""
    return 1 << max(0, n - 1).bit_length()
