"""Hand-written programs in LLVM text, for tests of the runtime: each implements the ABI of `runtime.abi`."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import DType, float32, float64, int64
from lowering.cpu import compile_object
from lowering.native import emit_entry, emit_watched
from lowering.target import host
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.arenas import ArenaPool
from runtime.cpu import LoadedCode, load_object
from runtime.entry import LIST, LoadedProgram, Structure, make_entry

Source = tuple[str, ProgramSignature]


@functools.cache
def compile_text(text: str) -> bytes:
    """Return the object code of `text` for this machine."""
    return compile_object(text, host())


def load(source: Source, consts: Sequence[np.ndarray[Any, Any]] = ()) -> LoadedProgram:
    text, signature = source
    return LoadedProgram(
        signature, load_object(compile_text(text + emit_watched(signature, x86=False) + emit_entry(signature))), consts
    )


def entry_of(
    program: LoadedProgram | Source, structure: Structure = LIST, *, native: bool, arena: ArenaPool | None = None
) -> Any:
    if not isinstance(program, LoadedProgram):
        program = load(program)
    return make_entry(program, structure, arena=arena or ArenaPool(), native=native, name="predict")


def spec(name: str, dtype: DType, *shape: int | str, slots: Sequence[str] = ()) -> ArraySpec:
    """Return the spec of an input whose named sizes are the slots of these names."""
    dims = tuple(Slot(slots.index(d)) if isinstance(d, str) else d for d in shape)
    return ArraySpec(name, dtype, dims, site="model.py:7")


def _measure(shape: Sequence[str], arena: int = 0, work: int = 0, before: str = "") -> str:
    """Return a `measure` that writes the LLVM values in `shape`."""
    stores = "".join(
        f"  %at{k} = getelementptr i64, ptr %sizes, i64 {2 + k}\n  store i64 {d}, ptr %at{k}\n"
        for k, d in enumerate(shape)
    )
    return f"""
define i32 @measure(ptr %dims, ptr %sizes) {{
  %n = load i64, ptr %dims
  %m.at = getelementptr i64, ptr %dims, i64 1
{before}
  store i64 {arena}, ptr %sizes
  %work = getelementptr i64, ptr %sizes, i64 1
  store i64 {work}, ptr %work
{stores}  ret i32 0
}}
"""


_RUN = "define i32 @run(ptr %inputs, ptr %outputs, ptr %consts, ptr %arena, ptr %dims, ptr %status, ptr %watch)"


def _pointer(name: str, table: str, k: int) -> str:
    return f"  %{name}.at = getelementptr ptr, ptr %{table}, i64 {k}\n  %{name} = load ptr, ptr %{name}.at\n"


def add(dtype: DType = float32, work: int = 0, arena: int = 0) -> Source:
    """out[n] = a[n] + b[n]. With an arena, every sum goes through its first bytes, so that sharing it would show."""
    t, op = dtype.llvm, "fadd" if dtype.is_float else "add"
    signature = ProgramSignature(
        "measure",
        "run",
        (spec("a", dtype, "n", slots=["n"]), spec("b", dtype, "n", slots=["n"])),
        (OutputSpec("out", dtype, 1),),
        n_slots=1,
        slot_names=("n",),
    )
    if arena:
        through = f"store volatile {t} %s, ptr %arena\n  %r = load volatile {t}, ptr %arena"
    else:
        through = f"%r = select i1 true, {t} %s, {t} %s"
    text = f"""{_measure(["%n"], arena, work)}
{_RUN} {{
entry:
  %n = load i64, ptr %dims
{_pointer("a", "inputs", 0)}{_pointer("b", "inputs", 1)}{_pointer("o", "outputs", 0)}
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


def copy(dtype: DType, *shape: int) -> Source:
    """out = x, of a constant shape, by one memcpy from the C library."""
    size = dtype.itemsize
    for d in shape:
        size *= d
    text = f"""{_measure([str(d) for d in shape])}
{_RUN} {{
{_pointer("x", "inputs", 0)}{_pointer("o", "outputs", 0)}
  call void @llvm.memcpy.p0.p0.i64(ptr %o, ptr %x, i64 {size}, i1 false)
  ret i32 0
}}
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
"""
    return text, ProgramSignature(
        "measure", "run", (spec("x", dtype, *shape),), (OutputSpec("out", dtype, len(shape)),)
    )


def outer() -> Source:
    """Two outputs of a symbolic 2-D input: up[n, m] = x[n, m] + y[m], flat[m, n] = x[n, m].T; guard: m is even."""
    slots = ["batch", "m"]
    signature = ProgramSignature(
        "measure",
        "run",
        (spec("x", float64, "batch", "m", slots=slots), spec("y", float64, "m", slots=slots)),
        (OutputSpec("up", float64, 2), OutputSpec("flat", float64, 2)),
        n_slots=2,
        guards=("m must be even\n  at model.py:9",),
        slot_names=("batch", "m"),
    )
    guard = """  %m = load i64, ptr %m.at
  %odd = trunc i64 %m to i1
  br i1 %odd, label %bad, label %good
bad:
  ret i32 1
good:
"""
    text = f"""{_measure(["%n", "%m", "%m", "%n"], before=guard)}
{_RUN} {{
entry:
  %n = load i64, ptr %dims
  %m.at = getelementptr i64, ptr %dims, i64 1
  %m = load i64, ptr %m.at
  %count = mul i64 %n, %m
{_pointer("x", "inputs", 0)}{_pointer("y", "inputs", 1)}{_pointer("up", "outputs", 0)}{_pointer("flat", "outputs", 1)}
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %body, label %done
body:
  %i = sdiv i64 %k, %m
  %j = srem i64 %k, %m
  %xk = getelementptr double, ptr %x, i64 %k
  %v = load double, ptr %xk
  %yj = getelementptr double, ptr %y, i64 %j
  %w = load double, ptr %yj
  %s = fadd double %v, %w
  %uk = getelementptr double, ptr %up, i64 %k
  store double %s, ptr %uk
  %row = mul i64 %j, %n
  %at = add i64 %row, %i
  %fk = getelementptr double, ptr %flat, i64 %at
  store double %v, ptr %fk
  %next = add i64 %k, 1
  br label %head
done:
  ret i32 0
}}
"""
    return text, signature


def take() -> Source:
    """out[k] = x[index[k]]; indices out of range are clamped to 0 and the first bad position reported."""
    slots = ["n", "k"]
    signature = ProgramSignature(
        "measure",
        "run",
        (spec("x", float32, "n", slots=slots), spec("index", int64, "k", slots=slots)),
        (OutputSpec("out", float32, 1),),
        n_slots=2,
        n_status=1,
        checks=("take: the index at position {position} is out of range\n  at model.py:12",),
        slot_names=("n", "k"),
    )
    text = f"""{_measure(["%k"], before="  %k = load i64, ptr %m.at")}
{_RUN} {{
entry:
  %n = load i64, ptr %dims
  %k.at = getelementptr i64, ptr %dims, i64 1
  %k = load i64, ptr %k.at
{_pointer("x", "inputs", 0)}{_pointer("index", "inputs", 1)}{_pointer("o", "outputs", 0)}
  store i64 9223372036854775807, ptr %status
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %body ]
  %more = icmp slt i64 %i, %k
  br i1 %more, label %body, label %done
body:
  %ii = getelementptr i64, ptr %index, i64 %i
  %j = load i64, ptr %ii
  %fits = icmp ult i64 %j, %n
  %safe = select i1 %fits, i64 %j, i64 0
  %old = load i64, ptr %status
  %first = icmp slt i64 %i, %old
  %least = select i1 %first, i64 %i, i64 %old
  %new = select i1 %fits, i64 %old, i64 %least
  store i64 %new, ptr %status
  %xj = getelementptr float, ptr %x, i64 %safe
  %v = load float, ptr %xj
  %oi = getelementptr float, ptr %o, i64 %i
  store float %v, ptr %oi
  %next = add i64 %i, 1
  br label %head
done:
  %bad = load i64, ptr %status
  %fine = icmp eq i64 %bad, 9223372036854775807
  %rc = select i1 %fine, i32 0, i32 1
  ret i32 %rc
}}
"""
    return text, signature


def plus_const() -> Source:
    """out = x + c[0] without axes, c being the constant of the program."""
    text = f"""{_measure([])}
{_RUN} {{
{_pointer("x", "inputs", 0)}{_pointer("c", "consts", 0)}{_pointer("o", "outputs", 0)}
  %v = load double, ptr %x
  %w = load double, ptr %c
  %s = fadd double %v, %w
  store double %s, ptr %o
  ret i32 0
}}
"""
    return text, ProgramSignature("measure", "run", (spec("x", float64),), (OutputSpec("out", float64, 0),))


def nothing_in(n_outputs: int) -> Source:
    """No input; each output is the 0-d int64 of its number."""
    stores = "".join(_pointer(f"o{k}", "outputs", k) + f"  store i64 {k}, ptr %o{k}\n" for k in range(n_outputs))
    outputs = tuple(OutputSpec(f"y{k}", int64, 0) for k in range(n_outputs))
    text = f"""
define i32 @measure(ptr %dims, ptr %sizes) {{
  store i64 0, ptr %sizes
  %work = getelementptr i64, ptr %sizes, i64 1
  store i64 0, ptr %work
  ret i32 0
}}
{_RUN} {{
{stores}  ret i32 0
}}
"""
    return text, ProgramSignature("measure", "run", (), outputs)


def huge(arena: int, *shape: int) -> Source:
    """A program that wants so much memory that it can never run."""
    text = f"""{_measure([str(d) for d in shape], arena=arena)}
{_RUN} {{
  call void @llvm.trap()
  unreachable
}}
declare void @llvm.trap()
"""
    signature = ProgramSignature(
        "measure",
        "run",
        (spec("x", float32, "n", slots=["n"]),),
        (OutputSpec("out", float32, len(shape)),),
        n_slots=1,
        slot_names=("n",),
    )
    return text, signature


def load_object_of_reader(offset: int) -> tuple[LoadedCode, Callable[[int], int]]:
    """Return code that reads the word `offset` bytes from an address."""
    code = load_object(
        compile_text(f"""
define i64 @read(ptr %base) {{
  %at = getelementptr i8, ptr %base, i64 {offset}
  %value = load i64, ptr %at
  ret i64 %value
}}
""")
    )
    return code, ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(code.address("read"))
