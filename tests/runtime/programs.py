"""Hand-written programs in LLVM text, for tests of the runtime: each implements the ABI of `runtime.abi`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from jitflow.dtypes import DType, float32
from lowering.native import emit_entry
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.buffers import ArenaPool
from runtime.cpu import load_object
from runtime.entry import LIST, LoadedProgram, Structure, make_entry


@functools.cache
def compile_text(text: str) -> bytes:
    """Return the object code of `text` for this machine."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(text)
    module.verify()
    target = llvm.Target.from_default_triple()
    machine = target.create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=2,
        reloc="pic",
        codemodel="jitdefault",
    )
    return bytes(machine.emit_object(module))


def load(text: str, signature: ProgramSignature, consts: Sequence[np.ndarray[Any, Any]] = ()) -> LoadedProgram:
    return LoadedProgram(signature, load_object(compile_text(text + emit_entry(signature))), consts)


def entry_of(program: LoadedProgram, structure: Structure = LIST, *, native: bool, **options: Any) -> Any:
    return make_entry(program, structure, arena=options.pop("arena", None) or ArenaPool(), native=native, **options)


def spec(name: str, dtype: DType, *shape: int | str, slots: Sequence[str] = ()) -> ArraySpec:
    """Return the spec of an input whose named sizes are the slots of these names."""
    dims = tuple(Slot(slots.index(d)) if isinstance(d, str) else d for d in shape)
    return ArraySpec(name, dtype, dims, site="model.py:7")


def add_1d(dtype: DType = float32, work: int = 0, arena: int = 0, n: int | None = None) -> tuple[str, ProgramSignature]:
    """out = a + b over n elements. With an arena, the sum goes through its first bytes, element by element."""
    t, op = dtype.llvm, "fadd" if dtype.is_float else "add"
    size = "n" if n is None else n
    signature = ProgramSignature(
        "measure",
        "run",
        (spec("a", dtype, size, slots=["n"]), spec("b", dtype, size, slots=["n"])),
        (OutputSpec("out", dtype, 1),),
        n_slots=1,
        slot_names=("n",),
    )
    direct = f"%r = select i1 true, {t} %s, {t} %s"
    through = f"store {t} %s, ptr %arena\n  %r = load {t}, ptr %arena" if arena else direct
    length = "load i64, ptr %dims" if n is None else f"add i64 0, {n}"
    text = f"""
define i32 @measure(ptr %dims, ptr %sizes) {{
  %n = {length}
  store i64 {arena}, ptr %sizes
  %work = getelementptr i64, ptr %sizes, i64 1
  store i64 {work}, ptr %work
  %shape = getelementptr i64, ptr %sizes, i64 2
  store i64 %n, ptr %shape
  ret i32 0
}}
define i32 @run(ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status) {{
entry:
  %n = {length}
  %a = load ptr, ptr %inputs
  %bp = getelementptr ptr, ptr %inputs, i64 1
  %b = load ptr, ptr %bp
  %o = load ptr, ptr %outputs
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %body, label %done
body:
  %ai = getelementptr {t}, ptr %a, i64 %i
  %bi = getelementptr {t}, ptr %b, i64 %i
  %oi = getelementptr {t}, ptr %o, i64 %i
  %x = load {t}, ptr %ai
  %y = load {t}, ptr %bi
  %s = {op} {t} %x, %y
  {through}
  store {t} %r, ptr %oi
  %next = add i64 %i, 1
  br label %head
done:
  ret i32 0
}}
"""
    return text, signature
