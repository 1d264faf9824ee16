"""Run loop IR slowly and exactly: the oracle of passes and, for GPU kernels, of barriers and shuffles.

`lowering.to_python` turns a kernel into a Python function, which is run here. Arithmetic is that of `jitflow.expr`
(`lowering.exact`); memory notices accesses out of bounds, reads of undefined contents and races
(`lowering.checked_memory`). Every fault is a CompilerBug that names the statement and the values of its variables.

A kernel with ``block`` or ``thread`` loops runs as on a GPU: every thread of every block runs the whole body, a
``thread`` loop running its body in the threads below its extent. Threads are generators, resumed in turn until the
next barrier or shuffle; `reverse` runs them, blocks and independent iterations backwards. Target operations:

- ``shfl_down(x, n)``, ``shfl_up``, ``shfl_xor``, ``shfl_idx``: the value `x` of another thread of the warp of 32 (of
  the thread itself, if the lane is outside the warp). All threads of the warp must be there.
- ``any(mask)``, ``all(mask)``: a vector of bools to one bool.

All other calls are functions of `lowering.vecmath`, interpreted as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.errors import CompilerBug
from jitflow.expr import Buffer, Var
from lowering.checked_memory import Clock, Level, Memory, allocate, given
from lowering.exact import Array, np_dtype
from lowering.loop_ir import WORKERS, Kernel
from lowering.to_python import Program, to_python, waiting_at

WARP = 32


def interpret(
    kernel: Kernel,
    buffers: Mapping[str, Array] | Sequence[Array],
    dims: Mapping[str, int] | None = None,
    *,
    reverse: bool = False,
    fma: bool = True,
) -> None:
    """Run `kernel` on arrays, by parameter name or in parameter order; its stores change them in place.

    An array has the elements of its parameter, in row-major order, and normally its shape. Dims that are not given are
    taken from the shapes. ``fma=False`` computes maths functions as targets without fused multiply-add do.
    """
    arrays = _arrays(kernel, buffers)
    sizes = _sizes(kernel, arrays, dims or {})
    program = to_python(kernel, fma)
    clock = Clock(reverse)
    memories = [given(b.name, a, clock, b in kernel.reads) for b, a in zip(kernel.params, arrays, strict=True)]
    try:
        with np.errstate(all="ignore"):
            if program.launch is None:
                if inspect.isgeneratorfunction(program.run):
                    raise CompilerBug("barriers and shuffles need thread loops")
                program.run(_Thread(clock, {}), *memories, *sizes)
            else:
                _run_grid(program, clock, memories, sizes)
    except Exception as e:
        raise CompilerBug(program.describe(e)) from e


def _arrays(kernel: Kernel, buffers: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
    names = [b.name for b in kernel.params]
    if isinstance(buffers, Mapping):
        if set(buffers) != set(names):
            raise CompilerBug(f"kernel {kernel.name} takes {names}, given {list(buffers)}")
        arrays = [buffers[name] for name in names]
    else:
        arrays = list(buffers)
    if len(arrays) != len(names):
        raise CompilerBug(f"kernel {kernel.name} takes {names}, given {len(arrays)} arrays")
    for b, a in zip(kernel.params, arrays, strict=True):
        if a.dtype != np_dtype(b.dtype):
            raise CompilerBug(f"{b.name} is {b.dtype.short}, given {a.dtype}")
    return arrays


def _sizes(kernel: Kernel, arrays: list[Array], dims: Mapping[str, int]) -> list[int]:
    known = {WORKERS.name: 1, **dims}
    for b, a in zip(kernel.params, arrays, strict=True):
        if len(b.shape) == a.ndim:
            known = {n.name: size for n, size in zip(b.shape, a.shape, strict=True) if isinstance(n, Var)} | known
    missing = [v.name for v in kernel.dims if v.name not in known]
    if missing:
        raise CompilerBug(f"kernel {kernel.name} needs the dims {', '.join(missing)}")
    return [known[v.name] for v in kernel.dims]


# GPU grids


class _Thread:
    """What a running thread knows: its place in the grid and the shared memory of its block.

    `found` holds the block's shared buffers by the statement that makes them and how often it ran before.
    """

    __slots__ = ("block", "clock", "found", "levels", "linear", "runs", "thread")

    def __init__(
        self,
        clock: Clock,
        found: dict[tuple[str, int], Memory],
        block: tuple[int, ...] = (0, 0, 0),
        thread: tuple[int, ...] = (0, 0, 0),
        linear: int = 0,
    ) -> None:
        self.clock, self.found, self.block, self.thread, self.linear = clock, found, block, thread, linear
        self.levels = clock.levels
        self.runs: dict[str, int] = {}

    def allocate(self, site: str, buffer: Buffer, shape: tuple[int, ...]) -> Memory:
        if buffer.space != "shared":
            return allocate(buffer.name, buffer.dtype, shape, self.clock, len(self.clock.levels))
        run = self.runs[site] = self.runs.get(site, -1) + 1
        if (site, run) not in self.found:
            # Made by the block (level 0), so that accesses of its threads (level 1) are compared.
            self.found[site, run] = allocate(buffer.name, buffer.dtype, shape, self.clock, 1)
        return self.found[site, run]


def _run_grid(program: Program, clock: Clock, memories: list[Memory], sizes: list[int]) -> None:
    assert program.launch is not None
    grid, block = program.launch(*sizes)
    for flat in clock.iterations(grid[0] * grid[1] * grid[2]):
        _run_block(program, clock, memories, sizes, _place(flat, grid), block)


def _place(flat: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    x, y, _ = extents
    return flat % x, flat // x % y, flat // (x * y)


def _run_block(
    program: Program,
    clock: Clock,
    memories: list[Memory],
    sizes: list[int],
    block: tuple[int, ...],
    extents: tuple[int, ...],
) -> None:
    count = extents[0] * extents[1] * extents[2]
    outer = clock.levels
    found: dict[tuple[str, int], Memory] = {}
    base = clock.tick(count)
    threads = [_Thread(clock, found, block, _place(i, extents), i) for i in range(count)]
    for t in threads:
        t.levels = [*outer, Level(base, base + t.linear)]
    running = {t.linear: program.start(t, *memories, *sizes) for t in threads}
    waiting: dict[int, tuple[Any, ...]] = {}
    answers: dict[int, Any] = {}
    order = range(count)[::-1] if clock.reverse else range(count)
    while running:
        for i in order:
            if i in running and i not in waiting:
                clock.levels = threads[i].levels
                try:
                    waiting[i] = running[i].send(answers.pop(i, None))
                except StopIteration:
                    del running[i]
        clock.levels = outer
        if not running:
            return
        if _exchange(waiting, running, count, answers):
            continue
        _check_barrier(waiting, running, count)
        waiting.clear()
        base = clock.tick(count)
        for t in threads:
            t.levels[len(outer)] = Level(base, base + t.linear)


def _exchange(
    waiting: dict[int, tuple[Any, ...]],
    running: dict[int, Generator[Any, Any, None]],
    count: int,
    answers: dict[int, Any],
) -> bool:
    """Answer the shuffles of each warp; return whether there were any."""
    found = False
    for start in range(0, count, WARP):
        warp = range(start, min(start + WARP, count))
        asked = {i: waiting[i] for i in warp if i in waiting and waiting[i][0] != "barrier"}
        if not asked:
            continue
        found = True
        sites = {request[:2] for request in asked.values()}
        if len(asked) < len(warp) or len(sites) > 1:
            absent = [i for i in warp if i not in asked]
            what = f"threads {_some(absent)} are elsewhere" if absent else "the threads are at different shuffles"
            where = waiting_at(running[min(asked)])
            raise CompilerBug(f"divergent shuffle in the warp of thread {start}: {what}: {where}")
        for i, (name, _, value, by) in asked.items():
            lane = i - start
            source = {"shfl_down": lane + by, "shfl_up": lane - by, "shfl_xor": lane ^ by, "shfl_idx": by}[name]
            other = asked.get(start + source) if 0 <= source < WARP else asked[i]
            answers[i] = _nonsense(value) if other is None else other[2]
        for i in warp:
            del waiting[i]
    return found


def _nonsense(value: Any) -> Any:
    """Return what comes from a lane that the block has no thread for: anything, so something conspicuous."""
    return value * np.float32("nan") if isinstance(value, np.floating) else value


def _check_barrier(waiting: dict[int, tuple[Any, ...]], running: dict[int, Any], count: int) -> None:
    ended = [i for i in range(count) if i not in running]
    if ended:
        raise CompilerBug(f"divergent barrier: threads {_some(ended)} have ended, threads {_some(running)} wait")
    sites = {request[1] for request in waiting.values()}
    if len(sites) > 1:
        raise CompilerBug("divergent barrier: the threads of the block wait at different barriers")


def _some(threads: Any) -> str:
    found = sorted(threads)
    return ", ".join(map(str, found[:4])) + (", ..." if len(found) > 4 else "")
