"""Run a kernel as machine code: for tests that compare it with the interpreter or numpy."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from jitflow.expr import INDEX, Var
from jitflow.simplify import evaluate_index
from lowering.cpu import compile_object
from lowering.llvm import emit_kernel, kernel_abi, parallel_extent, scratch_bytes
from lowering.loop_ir import WORKERS, Kernel
from lowering.target import Target, from_name, host, machine

#: Every x86 level that can be compiled for; those this machine can also run come from `runnable`.
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")


@cache
def runnable() -> tuple[Target, ...]:
    """Return the targets whose code runs here: the levels up to the host's, and the host itself."""
    if not host().triple.startswith("x86_64"):
        return (host(),)
    return (*(t for t in map(from_name, LEVELS) if t.vector_bits <= host().vector_bits), host())


class Compiled:
    """One kernel, compiled for `target` and loaded."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        self.kernel, self.abi = kernel, kernel_abi(kernel)
        data = compile_object(emit_kernel(kernel, target), target)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine(target, jit=True))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(data))
        self._engine.finalize_object()
        pointers, sizes = len(kernel.params), len(kernel.dims) + 2 * self.abi.is_parallel
        kinds = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * len(kernel.dims)
        kinds += [ctypes.c_void_p] * (self.abi.has_scratch + self.abi.polls)
        kinds += [ctypes.c_int64] * (sizes - len(kernel.dims))
        result = ctypes.c_bool if self.abi.polls else None
        self._call = ctypes.CFUNCTYPE(result, *kinds)(self._engine.get_function_address(kernel.name))

    def __call__(
        self,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        dims: Mapping[str, int] | None = None,
        chunk: int | None = None,
        watch: int | None = None,
    ) -> bool:
        """Run on `arrays` by parameter name; a parallel loop in pieces of `chunk` iterations.

        Return whether `watch`, the address of a `runtime.abi.Watch`, stopped it.
        """
        values = sizes_of(self.kernel, arrays, dims or {})
        args: list[int | None] = [arrays[b.name].ctypes.data for b in self.kernel.params]
        args += [values[d] for d in self.kernel.dims]
        if self.abi.has_scratch:
            size = evaluate_index(scratch_bytes(self.kernel), values)
            raw = np.full(size + 64, 0xA5, np.uint8)
            args.append(-(-raw.ctypes.data // 64) * 64)
        args += [watch] * self.abi.polls
        extent = parallel_extent(self.kernel)
        if extent is None:
            return bool(self._call(*args))
        n = evaluate_index(extent, values)
        size = chunk or max(n, 1)
        return any(self._call(*args, begin, min(n, begin + size)) for begin in range(0, n, size))


def sizes_of(kernel: Kernel, arrays: Mapping[str, np.ndarray[Any, Any]], dims: Mapping[str, int]) -> dict[Var, int]:
    """Return the dims of `kernel`: as given, else from the shapes of `arrays`; one worker if nobody says."""
    values = {WORKERS: 1, **{d: dims[d.name] for d in kernel.dims if d.name in dims}}
    for b in kernel.params:
        for n, size in zip(b.shape, arrays[b.name].shape, strict=True):
            if isinstance(n, Var) and n.type is INDEX:
                values.setdefault(n, size)
    return values


def before_guard(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy of `a` whose last byte is followed by memory that may not be touched."""
    page = mmap.PAGESIZE
    size = -(-max(a.nbytes, 1) // page) * page
    area = mmap.mmap(-1, size + page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address + size), ctypes.c_size_t(page), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    out = np.frombuffer(area, a.dtype, a.size, size - a.nbytes).reshape(a.shape)
    out[...] = a
    return out


def unaligned(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy of `a` that is aligned to its elements and to nothing more."""
    raw = np.empty(a.nbytes + 128, np.uint8)
    start = (-raw.ctypes.data) % 64 + a.itemsize
    out = raw[start : start + a.nbytes].view(a.dtype).reshape(a.shape)
    out[...] = a
    return out
