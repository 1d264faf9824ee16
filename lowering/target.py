"""What code is compiled for: the frozen ``Target`` of a name such as ``host``, ``x86-64-v3`` or ``nvptx:sm_90``.

A target states facts (vector width, registers, which instructions exist); passes choose by these facts alone, so that
the same kernel and target give the same code on any machine.
"""

from __future__ import annotations

import functools
import platform
import threading

import llvmlite.binding as llvm

from jitflow.dtypes import DType
from jitflow.errors import DeviceError
from jitflow.fork import after_fork_in_child
from jitflow.record import record

_START = threading.Lock()

#: `Target.stream_bytes`; those of Zen, whose third level moves twice as much as memory.
_STREAM, _STREAM_ZEN = 8 << 20, 32 << 20


def _renew_lock() -> None:
    global _START
    _START = threading.Lock()


after_fork_in_child(_renew_lock)


@record
class Target:
    """A processor to compile for.

    `vector_bits` and `vector_registers` describe its vector unit; `has_f16` says whether it converts between float16
    and float32; `mask_bytes` lists the element sizes whose vector loads and stores it can mask in one instruction;
    `layout` is LLVM's data layout; `stream_bytes` are what the arrays of a kernel must take for stores past the caches:
    several times the second level where the third is hardly faster than memory (meshes of Xeons: a copy of 2 * 10 MB
    takes 7% longer if all of it is there, and 35% less if others use it too), else more than one user's share of it.
    """

    name: str
    triple: str
    cpu: str
    features: str
    layout: str
    vector_bits: int
    vector_registers: int
    has_fma: bool
    has_f16: bool
    mask_bytes: tuple[int, ...] = ()
    is_gpu: bool = False
    stream_bytes: int = _STREAM

    def lanes(self, dtype: DType) -> int:
        """Return how many elements of `dtype` fill one vector register."""
        return max(1, self.vector_bits // (8 * dtype.itemsize))

    def can_mask(self, dtype: DType) -> bool:
        """Tell whether vectors of `dtype` in memory can be masked without falling back to single elements."""
        return dtype.itemsize in self.mask_bytes

    @property
    def fingerprint(self) -> str:
        """What decides which instructions may be used: part of the key of cached code."""
        return f"{self.triple}/{self.cpu}/{self.features}/{self.vector_bits}"

    def runs_here(self) -> bool:
        """Tell whether this process can execute what is compiled for it."""
        here = host()
        return (
            not self.is_gpu
            and self.triple.partition("-")[0] == here.triple.partition("-")[0]
            and self.vector_bits <= here.vector_bits
            and self.has_fma <= here.has_fma
            and self.has_f16 <= here.has_f16
        )


def start_llvm() -> None:
    """Make LLVM's targets known, once per process."""
    _start_llvm()


@functools.cache
def _start_llvm() -> None:
    with _START:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()


def machine(target: Target, *, opt: int = 2, jit: bool = False) -> llvm.TargetMachine:
    """Return a new LLVM target machine for `target`."""
    start_llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=opt, reloc="pic", codemodel="default", jit=jit
    )


def _layout(triple: str, cpu: str, features: str) -> str:
    start_llvm()
    made = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features)
    return str(made.target_data)


_LINUX = "x86_64-unknown-linux-gnu"
_X86_LEVELS = {
    # name: vector bits, vector registers, FMA and F16C, element sizes that can be masked
    "x86-64-v2": (128, 16, False, ()),
    "x86-64-v3": (256, 16, True, (4, 8)),
    "x86-64-v4": (512, 32, True, (1, 2, 4, 8)),
}


def _x86_level(name: str, triple: str, cpu: str, features: str) -> Target:
    bits, registers, fma, mask_bytes = _X86_LEVELS[name]
    return Target(
        name if cpu == name else cpu,
        triple,
        cpu,
        features,
        _layout(triple, cpu, features),
        bits,
        registers,
        fma,
        fma,
        mask_bytes,
        stream_bytes=_STREAM_ZEN if cpu.startswith("znver") else _STREAM,
    )


@functools.cache
def host() -> Target:
    """Return the processor this process runs on, with exactly the features that it reports."""
    start_llvm()
    triple, cpu = llvm.get_process_triple(), llvm.get_host_cpu_name()
    has = llvm.get_host_cpu_features()
    features = has.flatten()
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return Target(cpu, triple, cpu, features, _layout(triple, cpu, features), 128, 32, True, True)
    if all(has.get(f) for f in ("avx512f", "avx512bw", "avx512dq", "avx512vl", "fma", "f16c")):
        return _x86_level("x86-64-v4", triple, cpu, features)
    if all(has.get(f) for f in ("avx2", "fma", "f16c")):
        return _x86_level("x86-64-v3", triple, cpu, features)
    return _x86_level("x86-64-v2", triple, cpu, features)


@functools.cache
def from_name(name: str) -> Target:
    """Return the target called `name`: ``host``, ``x86-64-v2`` .. ``v4``, ``aarch64`` or ``nvptx:sm_90``.

    Raises DeviceError for any other name.
    """
    if name in ("", "host", "cpu", "native"):
        return host()
    if name in _X86_LEVELS:
        return _x86_level(name, _LINUX, name, "")
    if name == "aarch64":
        triple = "aarch64-unknown-linux-gnu"
        return Target(name, triple, "generic", "", _layout(triple, "generic", ""), 128, 32, True, True)
    kind, _, chip = name.partition(":")
    if kind == "nvptx" and chip.startswith("sm_") and chip[3:].rstrip("af").isdigit():
        triple, features = "nvptx64-nvidia-cuda", "+ptx83"
        return Target(name, triple, chip, features, _layout(triple, chip, features), 128, 255, True, True, is_gpu=True)
    known = ", ".join(["host", *_X86_LEVELS, "aarch64", "nvptx:sm_90"])
    raise DeviceError(f"no target is called {name!r}; known are {known}")
