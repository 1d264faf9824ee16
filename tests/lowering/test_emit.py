"""The LLVM text itself: addresses, calling conventions, and what the emitter refuses."""

from __future__ import annotations

import pytest

from jitflow.errors import CompilerBug
from jitflow.expr import Var
from jitflow.simplify import evaluate_index
from lowering.emit_index import IndexEmitter
from lowering.llvm import emit_kernel, emit_module, kernel_abi, parallel_extent, scratch_bytes, symbol
from lowering.loop_ir import Kernel
from lowering.parser import parse_kernel
from lowering.target import from_name
from tests.support.check_lines import check_lines

V4 = from_name("x86-64-v4")


def emitted(text: str) -> str:
    return emit_kernel(parse_kernel(text), V4)


def test_literals_are_offsets_of_one_address_that_a_stepped_counter_moves() -> None:
    check_lines(
        emitted("""
kernel k(a: f32[n] read, o: f32[n] align 64, n: index):
  serial i in n // 32:
    o[ramp(i * 32, 1, 16)] = a[ramp(i * 32, 1, 16)]
    o[ramp(i * 32 + 16, 1, 16)] = a[ramp(i * 32 + 16, 1, 16)]
"""),
        "define void @k(ptr noalias readonly align 4 %a.0, ptr noalias align 64 %o.1, i64 %n.2)",
        "loop",
        "%i.loop2 = phi i64 [ 0, %entry ]",
        "= phi i64 [ 0, %entry ]",
        "getelementptr float, ptr %a.0, i64 %s",
        "load <16 x float>, ptr %x5, align 4",
        "getelementptr float, ptr %o.1, i64 %s",
        # 32 floats a step: the alignment of the buffer holds for every iteration.
        "store <16 x float> %t6, ptr %x7, align 64",
        "getelementptr float, ptr %x5, i64 16",
        "getelementptr float, ptr %x7, i64 16",
        ", align 64",
        "add i64 %s4, 32",
        absent=["mul", "inbounds"],
    )


def test_a_prefetch_says_how_near() -> None:
    text = emitted("""
kernel k(a: f32[n] read, o: f32[n], n: index):
  serial i in n:
    prefetch a[i + 16]
    prefetch far a[i + 1024]
    o[i] = a[i]
""")
    check_lines(
        text,
        ", i32 0, i32 3, i32 1)",
        ", i32 0, i32 2, i32 1)",
    )


def test_the_part_of_an_address_that_an_inner_loop_does_not_change_is_computed_outside() -> None:
    text = emitted("""
kernel k(a: f32[n, m] read, o: f32[n, m], n: index, m: index):
  serial i in n:
    serial j in m:
      o[i, j] = a[i, j]
""")
    outer, inner = text.index("%i.loop"), text.index("%j.loop")
    assert outer < text.index("mul i64") < inner
    assert text.count("mul i64") == 1


def test_a_division_of_what_may_be_negative_rounds_down_and_other_divisions_are_plain() -> None:
    check_lines(
        emitted("""
kernel k(o: i64[n], n: index):
  serial i in n:
    o[i] = i64(i // 3) + i64((5 - i) // 4) + i64((5 - i) // 3)
"""),
        "udiv i64 %i",
        "ashr i64",
        "sdiv i64",
    )


def test_scratch_is_one_parameter_and_its_size_a_sum_of_padded_buffers() -> None:
    kernel = parse_kernel("""
kernel k(o: f32[n], n: index):
  parallel i in n:
    alloc row: f32[n] scratch
    alloc other: f64[3] scratch
    o[i] = 1.0
""")
    abi = kernel_abi(kernel)
    assert (abi.has_scratch, abi.is_parallel) == (True, True)
    assert abi.parameters == ("ptr", "i64", "ptr", "i64", "i64")
    (n,) = kernel.dims
    assert [evaluate_index(scratch_bytes(kernel), {n: k}) for k in (0, 1, 16, 17)] == [64, 128, 128, 192]
    check_lines(emit_kernel(kernel, V4), "i64 %n.1, ptr noalias align 64 %scratch, i64 %begin, i64 %end)")


def test_the_parallel_extent_is_told_in_dims() -> None:
    kernel = parse_kernel("""
kernel k(o: f32[n], n: index):
  let half: index = n // 2
  parallel i in half + 1:
    o[i] = 1.0
""")
    (n,) = kernel.dims
    extent = parallel_extent(kernel)
    assert extent is not None
    assert evaluate_index(extent, {n: 9}) == 5
    assert parallel_extent(parse_kernel("kernel k(o: f32[4]):\n  o[0] = 1.0\n")) is None


def test_a_maths_function_is_defined_once_per_type() -> None:
    text = emitted("""
kernel k(a: f32[16] read, o: f32[16]):
  o[ramp(0, 1, 16)] = exp(exp(a[ramp(0, 1, 16)]))
  o[3] = exp(a[3])
""")
    assert text.count("define internal <16 x float> @maths.exp.f32x16") == 1
    assert text.count("define internal float @maths.exp.f32(") == 1
    assert text.count("alwaysinline") == 2


def test_notes_are_comments_above_the_function() -> None:
    check_lines(
        emitted("kernel k(o: f32[1]):\n  # y = add(a, b)  # model.py:3\n  o[0] = 1.0\n"),
        "; y = add(a, b)  # model.py:3",
        "define void @k(",
    )


def test_kernels_of_a_module_are_internal_and_extra_text_is_kept() -> None:
    text = emit_module([parse_kernel("kernel k(o: f32[1]):\n  o[0] = 1.0\n")], V4, extra="; the plan")
    check_lines(text, "define internal void @k(", "; the plan")


def test_a_name_with_other_characters_is_quoted() -> None:
    assert symbol("a.b_1") == "@a.b_1"
    assert symbol("a b") == '@"a b"'


def test_two_kernels_of_one_name_must_be_the_same() -> None:
    one, same = (parse_kernel("kernel k(o: f32[1]):\n  o[0] = 1.0\n") for _ in range(2))
    assert emit_module([one, same], V4).count("@k(") == 1
    with pytest.raises(CompilerBug, match="two kernels are called k"):
        emit_module([one, parse_kernel("kernel k(o: f32[1]):\n  o[0] = 2.0\n")], V4)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("vectorized i in n:\n    o[i] = 1.0", "a vectorized loop reached the emitter"),
        ("serial j in n:\n    parallel i in n:\n      o[i] = 1.0", "a parallel loop that is not the last, outermost"),
        ("barrier", "a barrier on a target without blocks"),
        ("block i in n:\n    o[i] = 1.0", "a block loop on a target without blocks"),
        ("alloc s: f32[n] stack\n  s[0] = 1.0", "the stack buffer s has no constant size; it belongs in scratch"),
        ("alloc s: f32[5000] stack\n  s[0] = 1.0", "k would need 20000 bytes of stack; use scratch"),
        ("serial j in n:\n    alloc s: f32[j] scratch\n    s[0] = 1.0", "a scratch buffer of k has a size that is no"),
        ("o[ramp(0, 0, 4)] = 1.0:f32x4", "all lanes of a store to o go to one element"),
    ],
)
def test_what_no_pass_should_have_left_is_refused(body: str, message: str) -> None:
    with pytest.raises(CompilerBug, match=message):
        emitted(f"kernel k(o: f32[n], n: index):\n  {body}\n")


def test_fma_is_refused_where_it_would_be_a_library_call() -> None:
    kernel = parse_kernel("kernel k(o: f32[1]):\n  o[0] = fma(o[0], 2.0, 1.0)\n")
    with pytest.raises(CompilerBug, match="this target has no fused multiply-add of f32: split_fma should have run"):
        emit_kernel(kernel, from_name("x86-64-v2"))


def test_a_variable_outside_its_scope_is_refused() -> None:
    kernel = parse_kernel("kernel k(o: f32[n], n: index):\n  serial i in n:\n    o[i] = 1.0\n")
    (loop,) = kernel.body
    with pytest.raises(CompilerBug, match="variable i is used outside its scope"):
        emit_kernel(Kernel("k", kernel.params, kernel.dims, loop.body), V4)  # type: ignore[attr-defined]


def test_index_expressions_of_dims_can_be_emitted_alone() -> None:
    w = IndexEmitter()
    n, m = Var("n", floor=0), Var("m", floor=0)
    w.bind(n, "%n")
    w.bind(m, "%m")
    assert w.index(3) == "3"
    assert w.index(n) == "%n"
    total = w.index((n * m + 15) // 16 * 16)
    assert w.index((m * n + 15) // 16 * 16) == total
    check_lines(w.text(), "mul i64", "add i64", "lshr i64", "mul i64", absent=["div"])
