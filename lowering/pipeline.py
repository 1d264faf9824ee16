"""THE list of loop passes of each target, in order, and the driver that runs it: kernel in, kernel out.

The list is read from the top; nothing else orders passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from jitflow.errors import CompilerBug
from lowering.loop_ir import Kernel
from lowering.passes.vectorize import vectorize
from lowering.target import Target
from lowering.text import show

Pass: TypeAlias = Callable[[Kernel, Target], Kernel]

#: Loop kernels for a CPU.
CPU: tuple[tuple[str, Pass], ...] = (("vectorize", lambda k, target: vectorize(k, target=target)),)

GPU: tuple[tuple[str, Pass], ...] = ()


class Observer(Protocol):
    """Is told about every pass that ran: its name, the kernel before and after it, and the seconds it took."""

    def __call__(self, name: str, before: Kernel, after: Kernel, seconds: float) -> None: ...


def passes(target: Target) -> tuple[tuple[str, Pass], ...]:
    """Return the passes of `target`, in order."""
    return GPU if target.is_gpu else CPU


def run_pipeline(kernel: Kernel, target: Target, *, observer: Observer | None = None, check: bool = False) -> Kernel:
    """Return `kernel`, and the microkernels it calls, after all passes of `target`.

    `check` verifies before the first and after each pass.

    Raises CompilerBug with the kernel as it was before the pass that failed.
    """
    callees = tuple(run_pipeline(k, target, observer=observer, check=check) for k in kernel.callees)
    if any(new is not old for new, old in zip(callees, kernel.callees, strict=True)):
        kernel = Kernel(kernel.name, kernel.params, kernel.dims, kernel.body, kernel.reads, kernel.notes, callees)
    for name, run in passes(target):
        start = time.perf_counter()
        try:
            after = run(kernel, target)
        except (CompilerBug, AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
            raise CompilerBug(f"{name} failed on this kernel: {error}\n{show(kernel)}") from error
        if observer is not None:
            observer(name, kernel, after, time.perf_counter() - start)
        kernel = after
    return kernel
