"""The memory that compiled code and Python share: both sides use the same offsets."""

from __future__ import annotations

import ctypes
import re

import pytest

from jitflow.dtypes import float32
from jitflow.errors import CompilerBug
from lowering.native import emit_entry
from runtime.abi import (
    CONTEXT_WORDS,
    ArenaSlot,
    ArraySpec,
    EntryContext,
    OutputSpec,
    ProgramSignature,
    ProgramState,
    Slot,
    offset_of,
)
from tests.runtime.programs import load_object_of_reader, outer, take


@pytest.mark.parametrize("struct", [EntryContext, ArenaSlot, ProgramState])
def test_compiled_code_reads_each_field_where_ctypes_wrote_it(struct: type[ctypes.Structure]) -> None:
    fields = [name for name, _ in struct._fields_]  # type: ignore[misc]
    values = {name: 1000 + 7 * k for k, name in enumerate(fields)}
    memory = struct(**values)
    for name in fields:
        code, read = load_object_of_reader(offset_of(struct, name))
        assert read(ctypes.addressof(memory)) == values[name], name
        code.close()


def test_the_context_is_a_table_of_words() -> None:
    assert [offset_of(EntryContext, w) for w in CONTEXT_WORDS] == [8 * k for k in range(len(CONTEXT_WORDS))]
    assert ctypes.sizeof(EntryContext) == 8 * len(CONTEXT_WORDS)


def test_an_entry_reads_the_context_only_at_fields() -> None:
    text = emit_entry(take()[1])
    offsets = {int(n) for n in re.findall(r"ptr %context, i64 (\d+)", text)}
    assert offsets <= {offset_of(EntryContext, w) for w in CONTEXT_WORDS}
    assert offset_of(EntryContext, "fallback") in offsets


def test_sizes_hold_the_arena_the_work_and_all_shapes() -> None:
    signature = outer()[1]
    assert signature.n_sizes == 6
    assert list(signature.output_shape_offsets()) == [2, 4]
    assert signature.bound_slots() == [0, 1]


def test_shapes_are_shown_as_declared() -> None:
    signature = outer()[1]
    assert signature.show_shape((Slot(0), 64)) == "(batch, 64)"
    assert signature.show_shape((Slot(1),)) == "(m,)"
    assert signature.show_shape(()) == "()"
    assert ProgramSignature("m", "r", (), (), n_slots=2).show_shape((Slot(1), 3)) == "(d1, 3)"


def test_signatures_that_do_not_fit_the_abi_are_refused() -> None:
    x = ArraySpec("x", float32, (Slot(1),))
    with pytest.raises(CompilerBug, match=r"bind the slots \[1\], not the first 1"):
        ProgramSignature("m", "r", (x,), (), n_slots=2)
    with pytest.raises(CompilerBug, match="has 0 slots"):
        ProgramSignature("m", "r", (ArraySpec("x", float32, (Slot(0),)),), ())
    with pytest.raises(CompilerBug, match="1 status slots and 0 messages"):
        ProgramSignature("m", "r", (), (OutputSpec("y", float32, 0),), n_status=1)
