"""The Python entry as LLVM text: valid for any signature, without addresses, within its limits."""

from __future__ import annotations

import itertools
import re

import pytest

from jitflow.dtypes import ALL, DType, bool_, float32, int64
from lowering.cpu import compile_object, parse
from lowering.native import MAX_ARRAYS, can_emit, emit_entry, emit_watched
from lowering.target import from_name, host
from runtime.abi import ArraySpec, OutputSpec, ProgramSignature, Slot
from runtime.cpu import read_symbols


def signature_of(
    n_inputs: int, n_outputs: int, rank: int = 1, n_status: int = 0, dtype: DType = float32
) -> ProgramSignature:
    shape: tuple[int | Slot, ...] = (Slot(0), 3, 3, 3)[:rank]
    inputs = tuple(ArraySpec(f"x{k}", dtype, shape) for k in range(n_inputs))
    outputs = tuple(OutputSpec(f"y{k}", dtype, rank) for k in range(n_outputs))
    n_slots = 1 if n_inputs and rank else 0
    return ProgramSignature("measure", "run", inputs, outputs, n_slots, n_status, checks=("bad",) * n_status)


@pytest.mark.parametrize(("n_inputs", "n_outputs"), [*itertools.product((0, 1, 2, 20), (0, 1, 2, 9))])
def test_entries_are_valid_for_any_number_of_arrays(n_inputs: int, n_outputs: int) -> None:
    for rank, n_status in ((0, 0), (1, 1), (4, 0)):
        text = emit_entry(signature_of(n_inputs, n_outputs, rank, n_status))
        parse(text, host())


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v4", "aarch64"])
def test_an_entry_defines_one_symbol_and_needs_none(target: str) -> None:
    data = compile_object(emit_entry(signature_of(3, 2, n_status=1)), from_name(target))
    assert read_symbols(data) == ({"run.entry"}, set())


def test_an_entry_holds_no_address_and_is_the_same_each_time() -> None:
    text = emit_entry(signature_of(2, 1))
    assert text == emit_entry(signature_of(2, 1))
    assert max(int(n) for n in re.findall(r"(?<![\w.])\d+", text)) <= 0x80000501  # the largest set of array flags
    assert "inttoptr" not in text


def test_an_entry_can_be_appended_to_the_module_of_its_program() -> None:
    module = parse("define void @run() {\n  ret void\n}\n" + emit_entry(signature_of(1, 1)), host())
    assert {f.name for f in module.functions} == {"run", "run.entry"}


def test_the_stack_frame_is_bounded() -> None:
    assert can_emit(signature_of(MAX_ARRAYS - 1, 1))
    assert not can_emit(signature_of(MAX_ARRAYS, 1))
    assert not can_emit(signature_of(1, 1, n_status=2000))
    parse(emit_entry(signature_of(MAX_ARRAYS - 1, 1)), host())


def test_every_dtype_of_numpy_is_taken_and_others_are_not() -> None:
    for dtype in ALL:
        assert can_emit(signature_of(1, 1, dtype=dtype)) == (dtype.np is not None)
    assert can_emit(signature_of(1, 0, dtype=bool_))
    assert can_emit(signature_of(0, 1, dtype=int64))


def test_overlaps_of_very_many_pairs_are_left_to_the_portable_entry() -> None:
    few, many = emit_entry(signature_of(5, 5)), emit_entry(signature_of(40, 40))
    assert "br i1 false" not in few
    assert "br i1 false" in many


# F50
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v4", "aarch64"])
def test_what_watches_a_run_defines_one_symbol_and_needs_none(target: str) -> None:
    text = emit_watched(signature_of(3, 2), x86=target.startswith("x86"))
    assert read_symbols(compile_object(text, from_name(target))) == ({"run.watched"}, set())
    assert "inttoptr" not in text


def test_only_x86_code_sets_the_floating_point_environment_of_x86() -> None:
    assert "x86.sse.ldmxcsr" in emit_watched(signature_of(1, 1), x86=True)
    assert "x86.sse" not in emit_watched(signature_of(1, 1), x86=False)
