"""What the machine can do at most: kernels that only move memory, or only multiply and add, compiled by LLVM.

``stream`` reads R bytes and writes W bytes in one run each, every block written after its share of what is read: a
copy if R = W, a read if W = 0, a fill if R = 0. It writes through the caches or past them (non-temporal stores); the
faster of the two is the ceiling of a workload that moves as much. ``fma`` is ten independent chains of fused
multiply-adds, as many as any of the CPUs need to keep their units busy.

A ceiling is measured with the threads of the workload: each has its part of the memory, or of the work.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from lowering.cpu import compile_object
from lowering.target import Target, host
from runtime.cpu import LoadedCode, load_object
from tests.bench.measure import COLD

Array = np.ndarray[Any, Any]

#: Bytes of which a small piece of work is repeated to move as many in one turn.
_LARGE = 20_000_000
#: Vectors per block; a block is read, then written.
_BLOCK = 8
_CHAINS = 10

_STREAM = """
define void @stream{suffix}(ptr %dst, i64 %written, ptr %src, i64 %read, i64 %step, i64 %repeats) {{
start:
  br label %again
again:
  %r = phi i64 [ 0, %start ], [ %r.next, %rest.end ]
  br label %blocks
blocks:
  %w = phi i64 [ 0, %again ], [ %w.next, %write.end ]
  %at = phi i64 [ 0, %again ], [ %at.write, %write.end ]
  %goal = phi i64 [ %step, %again ], [ %goal.next, %write.end ]
  %v = phi {v} [ zeroinitializer, %again ], [ %v.write, %write.end ]
  %left = icmp ult i64 %w, %written
  br i1 %left, label %share, label %rest
share:
  %at.s = phi i64 [ %at, %blocks ], [ %at.s.next, %share.read ]
  %v.s = phi {v} [ %v, %blocks ], [ %v.s.next, %share.read ]
  %more = icmp ult i64 %at.s, %goal
  br i1 %more, label %share.read, label %write
share.read:
{share_read}
  %at.s.next = add i64 %at.s, {bytes}
  br label %share
write:
{write}
  br label %write.end
write.end:
  %v.write = phi {v} [ %v.s, %write ]
  %at.write = phi i64 [ %at.s, %write ]
  %w.next = add i64 %w, {bytes}
  %goal.next = add i64 %goal, %step
  br label %blocks
rest:
  %at.r = phi i64 [ %at, %blocks ], [ %at.r.next, %rest.read ]
  %v.r = phi {v} [ %v, %blocks ], [ %v.r.next, %rest.read ]
  %remains = icmp ult i64 %at.r, %read
  br i1 %remains, label %rest.read, label %rest.end
rest.read:
{rest_read}
  %at.r.next = add i64 %at.r, {bytes}
  br label %rest
rest.end:
  %sink = getelementptr i8, ptr %dst, i64 %written
  store {v} %v.r, ptr %sink, align {align}
  %r.next = add i64 %r, 1
  %done = icmp eq i64 %r.next, %repeats
  br i1 %done, label %end, label %again
end:
  {fence}
  ret void
}}
"""

_FMA = """
define void @fma_{name}(ptr %sink, i64 %steps) {{
start:
  br label %loop
loop:
  %i = phi i64 [ 0, %start ], [ %i.next, %loop ]
{phis}
{steps}
  %i.next = add i64 %i, 1
  %done = icmp eq i64 %i.next, %steps
  br i1 %done, label %end, label %loop
end:
{stores}
  ret void
}}
declare {v} @llvm.fma.{mangled}({v}, {v}, {v})
"""


def _stream(target: Target, suffix: str) -> str:
    size = target.vector_bits // 8
    v = f"<{size // 8} x i64>"
    store = ", !nontemporal !0" if suffix else ""

    def read(at: str, before: str, after: str, tag: str) -> str:
        lines, last = [], before
        for k in range(_BLOCK):
            this = after if k == _BLOCK - 1 else f"%{tag}or{k}"
            lines += [
                f"  %{tag}o{k} = add i64 {at}, {k * size}",
                f"  %{tag}p{k} = getelementptr i8, ptr %src, i64 %{tag}o{k}",
                f"  %{tag}l{k} = load {v}, ptr %{tag}p{k}, align {size}",
                f"  {this} = or {v} {last}, %{tag}l{k}",
            ]
            last = this
        return "\n".join(lines)

    write = "\n".join(
        f"  %wo{k} = add i64 %w, {k * size}\n  %wp{k} = getelementptr i8, ptr %dst, i64 %wo{k}\n"
        f"  store {v} %v.s, ptr %wp{k}, align {size}{store}"
        for k in range(_BLOCK)
    )
    return _STREAM.format(
        suffix=suffix, v=v, bytes=_BLOCK * size, align=size, write=write, fence="fence seq_cst" if suffix else "",
        share_read=read("%at.s", "%v.s", "%v.s.next", "s"), rest_read=read("%at.r", "%v.r", "%v.r.next", "r"),
    )  # fmt: skip


def _fma(target: Target, name: str) -> str:
    llvm_name, bits = {"float32": ("float", 32), "float64": ("double", 64)}[name]
    lanes = target.vector_bits // bits
    v, mangled = f"<{lanes} x {llvm_name}>", f"v{lanes}f{bits}"
    half = f"splat ({llvm_name} 0.5)"
    chains = range(_CHAINS)
    return _FMA.format(
        name=name, v=v, mangled=mangled,
        phis="\n".join(f"  %a{k} = phi {v} [ zeroinitializer, %start ], [ %b{k}, %loop ]" for k in chains),
        steps="\n".join(f"  %b{k} = call {v} @llvm.fma.{mangled}({v} %a{k}, {v} {half}, {v} {half})" for k in chains),
        stores="\n".join(
            f"  %s{k} = getelementptr {v}, ptr %sink, i64 {k}\n  store {v} %b{k}, ptr %s{k}" for k in chains
        ),
    )  # fmt: skip


class Ceilings:
    """The kernels, and the threads that run them side by side.

    Each method returns a turn: a callable that measures once and returns the seconds that the work would take.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)
        target = host()
        self._block = _BLOCK * target.vector_bits // 8
        self._lanes = {name: target.vector_bits // np.dtype(name).itemsize // 8 for name in ("float32", "float64")}
        text = _stream(target, "") + _stream(target, "_nt") + _fma(target, "float32") + _fma(target, "float64")
        self._code: LoadedCode = load_object(compile_object(text + "\n!0 = !{i32 1}\n", target))

    def memory(
        self, read: int, written: int, *, past_cache: bool, sources: Sequence[Array] = ()
    ) -> Callable[[], float]:
        """Return the turn that reads and writes so many bytes.

        More than `_LARGE` bytes are read from `sources`, if those are all that is read: what others read in their turns
        is in the cache rather than what only this one reads.
        """
        n = self._threads
        stream = self._function("stream_nt" if past_cache and written else "stream", 6)
        large = read + written > _LARGE
        there = sum(a.nbytes for a in sources)
        # Slices may read a little less.
        shared = large and 0.98 * there <= read <= there and all(a.flags.c_contiguous for a in sources)
        parts = list(sources) if shared else [_aligned(self._round(read))]
        # What is in a cache is moved often enough that starting threads, which takes 50 microseconds, does not count.
        inside = 1 if shared else max(1, n * _LARGE // max(1, read + written))
        around = n if shared else 1
        pieces: list[list[tuple[Any, ...]]] = [[] for _ in range(n)]
        kept = []
        for a in parts:
            share = written * a.nbytes // sum(b.nbytes for b in parts) if read else written
            for k in range(n):
                first, end = (a.ctypes.data + a.nbytes * j // n for j in (k, k + 1))
                start = -(-first // 64) * 64
                size, out = max(0, end - start) // self._block * self._block, self._round(share // n)
                kept.append(_aligned(out + self._block))
                step = size * self._block // out if out else 0
                pieces[k].append((kept[-1].ctypes.data, out, start, size, step, inside))

        def run(k: int) -> None:
            for _ in range(around):
                for piece in pieces[k]:
                    stream(*piece)

        run_all = self._together(run)
        repeats = inside * around
        cold = run_all() > repeats * COLD

        def turn(_: Any = (parts, kept)) -> float:
            if not cold:
                run_all()
            return run_all() / repeats

        return turn

    def compute(self, flops: float, dtype: str, *, threads: int | None = None) -> Callable[[], float]:
        """Return the turn that does so many multiplications and additions."""
        n = self._threads if threads is None else threads
        steps = 200_000 if self._threads == 1 else 2_000_000
        done = 2 * _CHAINS * self._lanes[dtype] * steps * n
        sinks = [_aligned(4096) for _ in range(n)]
        fma = self._function(f"fma_{dtype}", 2)
        run_all = self._together(lambda k: fma(sinks[k].ctypes.data, steps), n)
        return lambda: run_all() * flops / done

    def _function(self, name: str, arguments: int) -> Any:
        function: Any = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(self._code.address(name))
        function.code = self._code  # which stays as long as someone may call it
        return function

    def _round(self, n: int) -> int:
        return -(-n // self._block) * self._block

    def _together(self, run: Callable[[int], None], threads: int | None = None) -> Callable[[], float]:
        """Return a callable that runs `run` for each thread at once, and returns the seconds until all are done."""
        n = self._threads if threads is None else threads
        if self._threads == 1:
            return functools.partial(_timed, run)
        barrier = threading.Barrier(n)

        cpus = sorted(os.sched_getaffinity(0))

        def part(k: int) -> tuple[float, float]:
            # Otherwise threads that wake each other often share one CPU.
            os.sched_setaffinity(0, {cpus[k % len(cpus)]})
            barrier.wait()
            start = time.perf_counter()
            run(k)
            return start, time.perf_counter()

        def run_all() -> float:
            times = list(self._pool.map(part, range(n)))
            return max(end for _, end in times) - min(start for start, _ in times)

        return run_all


def _timed(run: Callable[[int], None]) -> float:
    start = time.perf_counter()
    run(0)
    return time.perf_counter() - start


def _aligned(size: int) -> Array:
    """Return `size` bytes at a multiple of 64, written once: pages never written would all be the one of zeros."""
    buffer = np.full(size + 64, 1, np.uint8)
    offset = -buffer.ctypes.data % 64
    return buffer[offset : offset + size]


#: Working sets of the table that heads a run.
_LEVELS = {"32 KiB": 1 << 15, "1 MiB": 1 << 20, "8 MiB": 1 << 23, "256 MiB": 1 << 28}


def table(ceilings: Ceilings, *, quick: bool = False) -> dict[str, float]:
    """Return what the machine does: GB/s of reading and copying per working set, GFLOP/s of fused multiply-adds.

    A `quick` one leaves out the largest working set.
    """
    found = {}
    for label, size in list(_LEVELS.items())[: -1 if quick else None]:
        half = size // 2
        found[f"read {label}"] = size / _best(ceilings.memory(size, 0, past_cache=False)) / 1e9
        found[f"copy {label}"] = 2 * half / _best(ceilings.memory(half, half, past_cache=False)) / 1e9
        found[f"copy past the caches {label}"] = 2 * half / _best(ceilings.memory(half, half, past_cache=True)) / 1e9
    for dtype in ("float32", "float64"):
        found[f"FMA {dtype}"] = 1e-9 / _best(ceilings.compute(1.0, dtype))
    return found


def _best(turn: Callable[[], float], turns: int = 7) -> float:
    return min(turn() for _ in range(turns))
