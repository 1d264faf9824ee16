"""THE list of loop passes of each target, in order, and the driver that runs it: kernel in, kernel out.

The list is read from the top; nothing else orders passes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias

from jitflow.errors import CompilerBug
from lowering.loop_ir import Kernel
from lowering.passes.collapse import collapse
from lowering.passes.distribute import distribute
from lowering.passes.hoist import hoist
from lowering.passes.join_rows import join_rows
from lowering.passes.parallelize import parallelize
from lowering.passes.partition import partition
from lowering.passes.poll import poll
from lowering.passes.simplify import simplify
from lowering.passes.split_fma import split_fma
from lowering.passes.transpose import transpose
from lowering.passes.unroll import unroll
from lowering.passes.vectorize import vectorize
from lowering.target import Target
from lowering.text import show
from lowering.verify import verify

Pass: TypeAlias = Callable[[Kernel, Target], Kernel]

#: Loop kernels for a CPU.
CPU: tuple[tuple[str, Pass], ...] = (
    ("simplify", lambda k, _: simplify(k)),
    ("collapse", lambda k, _: collapse(k)),
    ("transpose", lambda k, target: transpose(k, target=target)),
    ("join_rows", lambda k, target: join_rows(k, target=target)),
    ("parallelize", lambda k, _: parallelize(k)),
    ("partition", lambda k, _: partition(k)),
    ("hoist", lambda k, _: hoist(k)),
    ("distribute", lambda k, _: distribute(k)),
    ("vectorize", lambda k, target: vectorize(k, target=target)),
    ("unroll", lambda k, _: unroll(k)),
    ("split_fma", lambda k, target: k if target.has_fma else split_fma(k)),
    ("poll", lambda k, _: poll(k)),
)

#: Microkernels, which kernels call: the caller has spread the work, and polls.
MICROKERNEL = tuple(p for p in CPU if p[0] not in ("parallelize", "poll"))

GPU: tuple[tuple[str, Pass], ...] = (
    ("simplify", lambda k, _: simplify(k)),
    ("unroll", lambda k, _: unroll(k)),
)


class Observer(Protocol):
    """Is told about every pass that ran: its name, the kernel before and after it, and the seconds it took."""

    def __call__(self, name: str, before: Kernel, after: Kernel, seconds: float) -> None: ...


def passes(target: Target) -> tuple[tuple[str, Pass], ...]:
    """Return the passes of `target`, in order."""
    return GPU if target.is_gpu else CPU


def run_pipeline(kernel: Kernel, target: Target, *, observer: Observer | None = None, check: bool = False) -> Kernel:
    """Return `kernel`, and the microkernels it calls, after all passes of `target`.

    `check` verifies before the first and after each pass. Raises CompilerBug with the kernel as it was before the pass
    that failed.
    """
    callees = tuple(_run_microkernel(k, target, observer, check) for k in kernel.callees)
    if any(new is not old for new, old in zip(callees, kernel.callees, strict=True)):
        k = kernel
        kernel = Kernel(k.name, k.params, k.dims, k.body, k.reads, k.notes, callees, k.aliased)
    return _run(kernel, target, passes(target), observer, check)


_MICROKERNELS: dict[tuple[int, Target, bool], tuple[Kernel, Kernel]] = {}


def _run_microkernel(kernel: Kernel, target: Target, observer: Observer | None, check: bool) -> Kernel:
    """Return microkernel `kernel` after its passes: the same object each time, so that a module defines it once."""
    key = (id(kernel), target, check)
    found = _MICROKERNELS.get(key)
    if found is None:
        final = _run(kernel, target, GPU if target.is_gpu else MICROKERNEL, observer, check)
        # Keeping the kernel keeps its identity from being given to another one.
        found = _MICROKERNELS.setdefault(key, (kernel, final))
    return found[1]


def _run(
    kernel: Kernel,
    target: Target,
    some: tuple[tuple[str, Pass], ...],
    observer: Observer | None,
    check: bool,
) -> Kernel:
    if check:
        verify(kernel)
    for name, run in some:
        start = time.perf_counter()
        try:
            after = run(kernel, target)
            if check and after is not kernel:
                verify(after, stage="after_unroll" if name == some[-1][0] else "any")
        except Exception as error:
            raise _failure(name, kernel, target, error) from error
        if observer is not None:
            observer(name, kernel, after, time.perf_counter() - start)
        kernel = after
    return kernel


def _failure(name: str, kernel: Kernel, target: Target, error: Exception) -> CompilerBug:
    """Return the error of a pass that failed, after writing down the kernel it was given."""
    text = show(kernel)
    with tempfile.NamedTemporaryFile("w", prefix=f"before-{name}-", suffix=".loop", delete=False) as file:
        file.write(text)
    replay = f"python -m lowering.opt --passes {name} --target {target.name} {file.name}"
    return CompilerBug(f"{name} failed: {error}\nto replay it: {replay}\n{text}")
