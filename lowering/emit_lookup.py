"""A lookup in a small table of constants into LLVM instructions: permutations of registers, where the target has them.

A register of AVX-512 holds 16 f32, of which one instruction picks any 16. What has no such instruction loads each
lane from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jitflow.dtypes import float32
from jitflow.expr import Type
from lowering.emit_arith import Writer, type_text
from lowering.printer import ENTRIES
from lowering.target import Target


def lookup(w: Writer, target: Target, table: Sequence[str], index: str, of: Type, place: Callable[[str], str]) -> str:
    """Return ``table[index % 16]`` for each lane of `index` (i32). `place` gives the name of a constant in memory."""
    if not target.is_gpu and "x86_64" in target.triple and of.dtype is float32:
        wide = target.vector_bits == 512
        if wide and of.lanes == 16:
            given = f"<16 x float> {_vector(table)}, <16 x i32> {index}"
            return w.inst(f"call <16 x float> @llvm.x86.avx512.permvar.sf.512({given})")
        if target.vector_bits >= 256 and of.lanes in (4, 8):
            pick = _pick_of_two if wide else _pick_and_blend
            return pick(w, table, index) if of.lanes == 8 else _four_of_eight(w, index, lambda i: pick(w, table, i))
    return _load(w, target, table, index, of, place)


def _vector(entries: Sequence[str]) -> str:
    return f"<{', '.join(f'float {e}' for e in entries)}>"


def _pick_of_two(w: Writer, table: Sequence[str], index: str) -> str:
    """AVX-512 picks eight elements from two registers of eight."""
    low, high = _vector(table[:8]), _vector(table[8:])
    given = f"<8 x float> {low}, <8 x i32> {index}, <8 x float> {high}"
    return w.inst(f"call <8 x float> @llvm.x86.avx512.vpermi2var.ps.256({given})")


def _pick_and_blend(w: Writer, table: Sequence[str], index: str) -> str:
    """AVX2 picks eight elements from one register; bit 3 of the index, as a sign, says of which of the two."""
    low, high = (
        w.inst(f"call <8 x float> @llvm.x86.avx2.permps(<8 x float> {_vector(half)}, <8 x i32> {index})")
        for half in (table[:8], table[8:])
    )
    moved = w.inst(f"shl <8 x i32> {index}, splat (i32 28)")
    upper = w.inst(f"icmp slt <8 x i32> {moved}, zeroinitializer")
    return w.inst(f"select <8 x i1> {upper}, <8 x float> {high}, <8 x float> {low}")


def _four_of_eight(w: Writer, index: str, pick: Callable[[str], str]) -> str:
    """Return the first four lanes of what `pick` makes of eight."""
    order = ", ".join(f"i32 {k % 4}" for k in range(8))
    twice = w.inst(f"shufflevector <4 x i32> {index}, <4 x i32> poison, <8 x i32> <{order}>")
    first = "<4 x i32> <i32 0, i32 1, i32 2, i32 3>"
    return w.inst(f"shufflevector <8 x float> {pick(twice)}, <8 x float> poison, {first}")


def _load(w: Writer, target: Target, table: Sequence[str], index: str, of: Type, place: Callable[[str], str]) -> str:
    """Load each lane from memory."""
    element, lanes = type_text(of.with_lanes(1)), of.lanes
    space = "addrspace(4) " if target.is_gpu else ""
    entries = ", ".join(f"{element} {e}" for e in table)
    name = place(f"private unnamed_addr {space}constant [{len(table)} x {element}] [{entries}]")
    result = "poison"
    for k in range(lanes):
        one = index if lanes == 1 else w.inst(f"extractelement <{lanes} x i32> {index}, i64 {k}")
        inside = w.inst(f"zext i32 {w.inst(f'and i32 {one}, {ENTRIES - 1}')} to i64")
        at = w.inst(f"getelementptr {element}, ptr {space}{name}, i64 {inside}")
        found = w.inst(f"load {element}, ptr {space}{at}")
        if lanes == 1:
            return found
        result = w.inst(f"insertelement {type_text(of)} {result}, {element} {found}, i64 {k}")
    return result
