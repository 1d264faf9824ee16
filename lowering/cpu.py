"""The text of an LLVM module in, an object file (or assembly, or optimized text) for a CPU out.

Always parsed and verified first, since this LLVM ends the process on input it does not understand. The passes are few:
kernels come in with explicit vectors, shared addresses and hoisted invariants, so what is left to do is to inline the
maths functions, turn register buffers into values and merge blocks. On 100 mixed kernels that takes 20 ms; with
instruction combining it takes 105, the code gets 6 % longer and no faster (it undoes ``vmaxps``, for one).
"""

from __future__ import annotations

import mmap
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import llvmlite.binding as llvm

from jitflow.errors import CompileError, CompilerBug
from lowering.target import Target, machine, start_llvm
from runtime.cpu import LLVM_LOCK

#: What an object may leave to the linker. memcpy and its like are what LLVM makes of large copies and fills.
ALLOWED_EXTERNS = frozenset({"memcpy", "memset", "memmove"})

_local = threading.local()


def _machine(target: Target) -> llvm.TargetMachine:
    """Return this thread's target machine: making one takes as long as compiling a small kernel."""
    machines: dict[Target, llvm.TargetMachine] | None = getattr(_local, "machines", None)
    if machines is None:
        machines = _local.machines = {}
    if target not in machines:
        machines[target] = machine(target)
    return machines[target]


#: Bytes that LLVM takes for one byte of text, its calls of maths functions inlined (5 to 46 on the kernels measured),
#: and for itself.
_BYTES_PER_CHARACTER, _BYTES_AT_LEAST = 50, 8 << 20
_INLINED = re.compile(r"^define internal [^@\n]*(@maths\.[^(]*\().*?^}", re.MULTILINE | re.DOTALL)


def require_memory(text: str) -> None:
    """Raise CompileError if this process may not have the memory that compiling `text` is going to take.

    LLVM ends the process when it gets none. A limit of the process is noticed here; that other processes, or other
    threads of this one, take the memory in the meantime cannot be.
    """
    inlined = sum((text.count(f[1]) - 1) * len(f[0]) for f in _INLINED.finditer(text))
    needed = _BYTES_AT_LEAST + _BYTES_PER_CHARACTER * (len(text) + inlined)
    try:
        mmap.mmap(-1, needed).close()
    except (OSError, MemoryError, OverflowError):
        raise CompileError(f"compiling this graph takes up to {needed} bytes of memory, which there are not") from None


#: Is told the name of a step and the seconds it took.
Clock = Callable[[str, float], None]


@contextmanager
def _timed(step: str, clock: Clock) -> Iterator[None]:
    start = time.perf_counter()
    yield
    clock(step, time.perf_counter() - start)


def parse(
    text: str, target: Target, *, allowed: frozenset[str] = ALLOWED_EXTERNS, clock: Clock = lambda *_: None
) -> llvm.ModuleRef:
    """Return the verified module of `text`. Raises CompilerBug if it is not valid or calls what is not allowed."""
    start_llvm()
    # A context of its own: types and constants of a compiled module are freed with it.
    try:
        with _timed("parse", clock):
            module = llvm.parse_assembly(text, llvm.create_context())
        with _timed("verify", clock):
            module.verify()
    except RuntimeError as error:
        raise CompilerBug(f"LLVM rejects the module: {_excerpt(text, str(error))}") from None
    foreign = sorted(
        f.name
        for f in module.functions
        if f.is_declaration and not f.name.startswith("llvm.") and f.name not in allowed
    )
    if foreign:
        raise CompilerBug(f"the module calls {', '.join(foreign)}, which nothing defines")
    return module


def _excerpt(text: str, message: str) -> str:
    """Return LLVM's message with the line of `text` that it points at."""
    found = re.search(r":(\d+):\d+: error", message)
    if found is None:
        return message
    lines = text.splitlines()
    k = int(found.group(1))
    return message + "\n" + "\n".join(lines[max(0, k - 3) : k + 2])


def _run_passes(module: llvm.ModuleRef, target_machine: llvm.TargetMachine) -> None:
    builder = llvm.create_pass_builder(target_machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


def _optimize(
    text: str, target: Target, allowed: frozenset[str], clock: Clock = lambda *_: None
) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    require_memory(text)
    module = parse(text, target, allowed=allowed, clock=clock)
    target_machine = _machine(target)
    with _timed("optimize", clock):
        _run_passes(module, target_machine)
    return module, target_machine


@contextmanager
def _generating() -> Iterator[None]:
    """Leave loop strength reduction out of code generation in the block.

    Addresses are one base and constant offsets already, and a counter is one register: on two dozen workloads the code
    is as fast without it (within 1 %, some 5 % faster), and made in three quarters of the time. The option is one of
    the process, so llvmlite's lock is held as long as it is set: no other user of llvmlite compiles meanwhile.
    """
    with LLVM_LOCK:
        llvm.set_option("", "-disable-lsr=true")
        try:
            yield
        finally:
            llvm.set_option("", "-disable-lsr=false")


def compile_object(
    text: str, target: Target, *, allowed: frozenset[str] = ALLOWED_EXTERNS, clock: Clock = lambda *_: None
) -> bytes:
    """Return the object file of LLVM module `text`. `allowed` names the functions it may leave undefined."""
    module, target_machine = _optimize(text, target, allowed, clock)
    with _timed("codegen", clock), _generating():
        data: bytes = target_machine.emit_object(module)
    foreign = sorted(undefined_symbols(data) - allowed)
    if foreign:
        raise CompilerBug(f"the object would need {', '.join(foreign)} from a library")
    return data


def assembly(text: str, target: Target, *, allowed: frozenset[str] = ALLOWED_EXTERNS) -> str:
    """Return the assembly of LLVM module `text`."""
    module, target_machine = _optimize(text, target, allowed)
    with _generating():
        return str(target_machine.emit_assembly(module))


def optimized(text: str, target: Target, *, allowed: frozenset[str] = ALLOWED_EXTERNS) -> str:
    """Return LLVM module `text` after the passes."""
    return str(_optimize(text, target, allowed)[0])


def undefined_symbols(data: bytes) -> frozenset[str]:
    """Return the symbols that an ELF object leaves undefined."""
    return frozenset(_elf_undefined(data)) if data[:4] == b"\x7fELF" else frozenset()


def _elf_undefined(data: bytes) -> set[str]:
    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[offset : offset + size], "little")

    found: set[str] = set()
    table, size, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    headers = [table + k * size for k in range(count)]
    for header in headers:
        if number(header + 4, 4) != 2:  # SHT_SYMTAB
            continue
        start, length, link = number(header + 24, 8), number(header + 32, 8), number(header + 40, 4)
        strings = number(headers[link] + 24, 8)
        for entry in range(start + 24, start + length, 24):  # entry 0 is the null symbol
            if number(entry + 6, 2) == 0:  # SHN_UNDEF
                name = strings + number(entry, 4)
                found.add(data[name : data.index(b"\0", name)].decode())
    return found - {"", "_GLOBAL_OFFSET_TABLE_"}
