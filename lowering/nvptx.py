"""Kernels of ``block`` and ``thread`` loops in, PTX text out: the NVIDIA half of the LLVM emitter.

:class:`NvptxOps` spells what a GPU spells differently: the entry point, thread and block numbers, barriers, shuffles,
address spaces. Everything else is `lowering.llvm`. Nothing here needs a GPU, a driver or a CUDA toolkit.

LLVM ends the process on what it cannot select (``llvm.exp``, ``frem``), so instructions and intrinsics are held against
an explicit list before it sees them (:func:`legalize`), and the PTX is searched for calls afterwards.

Floating point is IEEE: LLVM writes ``add.rn``, ``mul.rn``, which the assembler never contracts, ``div.rn`` and
``sqrt.rn``, and nothing flushes subnormals; only an `Fma` becomes ``fma.rn``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import llvmlite.binding as llvm

from jitflow.errors import CompilerBug, DeviceError
from jitflow.expr import Buffer, Type, const_index
from lowering.cpu import parse
from lowering.emit_arith import type_text
from lowering.emit_expr import ExprEmitter
from lowering.launch import launch_geometry, shared_layout
from lowering.llvm import KernelAbi, KernelEmitter, TargetOps, emit_module, local, symbol
from lowering.loop_ir import For, Kernel, statements
from lowering.target import Target, from_name, machine

#: One declaration for all kernels: each lays its shared buffers out from its start, as large as the launch asks.
_SHARED = "@shared_memory = external addrspace(3) global [0 x i8], align 128\n"
_SPACES = {"global": 1, "shared": 3, "stack": 0, "register": 0}
_AXES = "xyz"
#: Per shuffle: PTX's mode, and its last operand (where the segment of lanes ends; for ``up`` where it begins).
_SHUFFLES = {"shfl_down": ("down", 31), "shfl_up": ("up", 0), "shfl_xor": ("bfly", 31), "shfl_idx": ("idx", 31)}


class NvptxOps(TargetOps):
    """The operations of an NVIDIA GPU."""

    def define(self, kernel: Kernel, abi: KernelAbi, linkage: str, attributes: str) -> str:
        if abi.has_scratch or abi.is_parallel or not kernel.params:
            raise CompilerBug(f"{kernel.name} is no GPU kernel: it has scratch, a parallel loop, or no arguments")
        parameters = [
            f"ptr addrspace(1) noalias{' readonly' if b in kernel.reads else ''} align {b.align} {local(k, b.name)}"
            for k, b in enumerate(abi.buffers)
        ]
        parameters += [f"i64 {local(k + len(abi.buffers), d.name)}" for k, d in enumerate(abi.dims)]
        block = ",".join(str(n) for n in launch_geometry(kernel).block)
        head = f"define {linkage}ptx_kernel void {symbol(kernel.name)}({', '.join(parameters)})"
        # One block per multiprocessor is enough: told nothing, ptxas makes room for several and spills for it.
        return f'{head} {attributes}"nvvm.reqntid"="{block}" "nvvm.minctasm"="1" #0 {{'

    def pointer_type(self, buffer: Buffer) -> str:
        space = _SPACES.get(buffer.space)
        if space is None:
            raise CompilerBug(f"{buffer.name}: a GPU kernel has no {buffer.space} memory")
        return f"ptr addrspace({space})" if space else "ptr"

    def spread(self, w: KernelEmitter, loop: For) -> tuple[str, str | None]:
        geometry = launch_geometry(w.kernel)
        if loop.kind == "thread":
            size = geometry.block[loop.axis]
            number = _special(w, "tid", loop.axis, f"range(i32 0, {size}) ")
            return number, None if loop.extent == const_index(size) else str(size)
        number = _special(w, "ctaid", loop.axis, "range(i32 0, 2147483647) ")
        # Alone on its axis, the loop is what the grid is made for.
        others = [s for s in statements(w.kernel.body) if isinstance(s, For) and s.kind == "block" and s is not loop]
        if all(s.axis != loop.axis or s.extent == loop.extent for s in others):
            return number, None
        return number, _special(w, "nctaid", loop.axis, "range(i32 1, 2147483647) ")

    def barrier(self, w: KernelEmitter) -> None:
        w.line("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")

    def shared(self, w: KernelEmitter, buffer: Buffer) -> str:
        offset = shared_layout(w.kernel)[0][buffer]
        return w.inst(f"getelementptr i8, ptr addrspace(3) @shared_memory, i64 {offset}")

    def call(self, w: ExprEmitter, name: str, args: tuple[str, ...], types: tuple[Type, ...], of: Type) -> str | None:
        if name not in _SHUFFLES:
            return None
        if of.lanes > 1:
            raise CompilerBug("a shuffle moves one element per thread, no vector")
        distance = w.inst(f"trunc i64 {args[1]} to i32")
        return _shuffle(w, name, args[0], of, distance)


NVPTX_OPS = NvptxOps()


def _special(w: KernelEmitter, register: str, axis: int, limits: str) -> str:
    """Emit the value of a special register as an index."""
    number = w.inst(f"call {limits}i32 @llvm.nvvm.read.ptx.sreg.{register}.{_AXES[axis]}()")
    return w.inst(f"zext nneg i32 {number} to i64")


def _shuffle(w: ExprEmitter, name: str, value: str, of: Type, distance: str) -> str:
    """Emit a shuffle of a value of any width; the machine moves 32 bits at a time."""
    mode, last = _SHUFFLES[name]

    def move(x: str) -> str:
        return w.inst(f"call i32 @llvm.nvvm.shfl.sync.{mode}.i32(i32 -1, i32 {x}, i32 {distance}, i32 {last})")

    ty, bits = type_text(of), of.dtype.bits
    if bits == 64:
        pair = w.inst(f"bitcast {ty} {value} to <2 x i32>")
        halves = [move(w.inst(f"extractelement <2 x i32> {pair}, i64 {k}")) for k in (0, 1)]
        low = w.inst(f"insertelement <2 x i32> poison, i32 {halves[0]}, i64 0")
        both = w.inst(f"insertelement <2 x i32> {low}, i32 {halves[1]}, i64 1")
        return w.inst(f"bitcast <2 x i32> {both} to {ty}")
    if bits == 32:
        word = w.inst(f"bitcast {ty} {value} to i32") if of.dtype.is_float else value
        moved = move(word)
        return w.inst(f"bitcast i32 {moved} to {ty}") if of.dtype.is_float else moved
    # bool is i1 in registers, whatever its width in the table.
    narrow = "i1" if of.dtype.is_bool else f"i{bits}"
    whole = w.inst(f"bitcast {ty} {value} to {narrow}") if of.dtype.is_float else value
    moved = w.inst(f"trunc i32 {move(w.inst(f'zext {narrow} {whole} to i32'))} to {narrow}")
    return w.inst(f"bitcast {narrow} {moved} to {ty}") if of.dtype.is_float else moved


# ---- what LLVM may see

_SCALAR = r"(?:v\d+)?"
_ALLOWED_INTRINSICS = re.compile(
    "|".join(
        [
            rf"llvm\.(?:fma|sqrt|fabs|floor|ceil|trunc|roundeven|copysign)\.{_SCALAR}f(?:32|64)",
            # LLVM itself narrows these where a result is rounded to float16; they are exact.
            r"llvm\.(?:fabs|floor|ceil|trunc|roundeven|is\.fpclass)\.f16",
            r"llvm\.is\.fpclass\.f(?:32|64)",
            rf"llvm\.(?:abs|smin|smax|umin|umax|fshl|fshr|ctpop|[us]add\.sat|[us]sub\.sat)\.{_SCALAR}i(?:8|16|32|64)",
            r"llvm\.[su]cmp\.i(?:8|16|32|64)\.i(?:8|16|32|64)",
            r"llvm\.fpto[su]i\.sat\.i(?:8|16|32|64)\.f(?:32|64)",
            # What the inliner says of register buffers; gone with them, but for the declaration.
            r"llvm\.lifetime\.(?:start|end)\.p0",
            r"llvm\.nvvm\.read\.ptx\.sreg\.(?:tid|ctaid|nctaid)\.[xyz]",
            r"llvm\.nvvm\.shfl\.sync\.(?:down|up|bfly|idx)\.i32",
            r"llvm\.nvvm\.barrier\.cta\.sync\.aligned\.all",
        ]
    )
    + r"\Z"
)
_OPCODES = """
    add sub mul udiv sdiv urem srem shl lshr ashr and or xor icmp fadd fsub fmul fdiv fneg fcmp select phi freeze
    zext sext trunc fptrunc fpext fptosi fptoui sitofp uitofp bitcast getelementptr load store alloca atomicrmw cmpxchg
    extractvalue extractelement insertelement shufflevector br switch ret call tail unreachable
"""
_ALLOWED_OPCODES = frozenset(_OPCODES.split())
_OPCODE = re.compile(r"^ +(?:%\S+ = )?([a-z]+)\b", re.MULTILINE)


def legalize(module: llvm.ModuleRef) -> None:
    """Raise CompilerBug if `module` holds what LLVM's NVPTX back end might end the process on."""
    for f in module.functions:
        if f.is_declaration and not _ALLOWED_INTRINSICS.match(f.name):
            raise CompilerBug(f"{f.name} has no NVPTX form: an earlier pass must expand it")
    for f in module.functions:
        if not f.is_declaration:
            _, _, body = str(f).partition("{")
            unknown = {m.group(1) for m in _OPCODE.finditer(body)} - _ALLOWED_OPCODES
            if unknown:
                raise CompilerBug(f"{f.name} uses {', '.join(sorted(unknown))}, which has no NVPTX form")


# ---- PTX

#: The chips whose PTX is tested. Another name would silently become LLVM's oldest chip.
CHIPS = ("sm_70", "sm_80", "sm_86", "sm_89", "sm_90")

_local = threading.local()


def gpu_target(target: str | Target) -> Target:
    """Return the GPU target called `target` (``nvptx:sm_90``). Raises DeviceError for other names."""
    found = from_name(target) if isinstance(target, str) else target
    if not found.is_gpu or found.cpu not in CHIPS:
        raise DeviceError(f"no GPU target is called {found.name!r}; known are {', '.join(f'nvptx:{c}' for c in CHIPS)}")
    return found


def emit_llvm(kernels: Sequence[Kernel], target: str | Target) -> str:
    """Return the LLVM module of `kernels`, which have been through the passes of `lowering.pipeline`."""
    return emit_module(kernels, gpu_target(target), ops=NVPTX_OPS, exported=True, extra=_SHARED)


def emit_ptx(kernels: Sequence[Kernel], target: str | Target = "nvptx:sm_90") -> str:
    """Return the PTX of `kernels`, which have been through the passes of `lowering.pipeline`.

    Each entry is preceded by the kernel's notes: the graph nodes it computes, and where the user wrote them.
    """
    ptx = assemble_ptx(emit_llvm(kernels, target), target)
    for k in kernels:
        lines = [line for note in k.notes for line in note.splitlines()]
        # ptxas reads ASCII only, in comments too.
        comment = "".join(f"// {line}\n" for line in lines).encode("ascii", "backslashreplace").decode()
        ptx = ptx.replace(f".visible .entry {k.name}(", f"{comment}.visible .entry {k.name}(")
    return ptx


def assemble_ptx(text: str, target: str | Target) -> str:
    """Return the PTX of LLVM module `text`."""
    gpu = gpu_target(target)
    module = parse(text, gpu)
    legalize(module)
    target_machine = _machine(gpu)
    _run_passes(module, target_machine)
    legalize(module)
    ptx = str(target_machine.emit_assembly(module))
    _check_ptx(ptx, gpu)
    return ptx


def _machine(target: Target) -> llvm.TargetMachine:
    machines: dict[Target, llvm.TargetMachine] | None = getattr(_local, "machines", None)
    if machines is None:
        machines = _local.machines = {}
    if target not in machines:
        machines[target] = machine(target, opt=3)
    return machines[target]


def _run_passes(module: llvm.ModuleRef, target_machine: llvm.TargetMachine) -> None:
    """Inline the maths, turn register buffers into values, tidy up; the back end's own passes share the addresses."""
    builder = llvm.create_pass_builder(target_machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.run(module, builder)


_FOREIGN = re.compile(r"^.*(?:\bcall\b|llvm\.|\.extern \.func|\.ftz\b|\.approx\b).*$", re.MULTILINE)


def _check_ptx(ptx: str, target: Target) -> None:
    """Raise CompilerBug if LLVM ignored what it was asked for, or left something to a library."""
    wanted = f"{target.features[-2]}.{target.features[-1]}"
    for line in (f".version {wanted}", f".target {target.cpu}"):
        if line not in ptx[:400]:
            raise CompilerBug(f"the PTX lacks the line {line!r}: LLVM does not know this target")
    found = _FOREIGN.search(ptx)
    if found is not None:
        raise CompilerBug(f"the PTX is not what was asked for: {found.group().strip()!r}")
