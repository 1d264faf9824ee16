"""From LLVM text to objects: what is checked, and what the machine code looks like."""

from __future__ import annotations

import re

import pytest

from jitflow.errors import CompilerBug
from lowering.cpu import assembly, compile_object, optimized, undefined_symbols
from lowering.llvm import emit_kernel
from lowering.parser import parse_kernel
from lowering.pipeline import run_pipeline
from lowering.target import Target, from_name, host

V2, V3, V4 = (from_name(f"x86-64-v{k}") for k in (2, 3, 4))
RELU = """
kernel relu(a: f32[n] read, b: f32[n] read, c: f32[n] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = max(a[i] * b[i] + c[i], 0.0)
"""


def code(text: str, target: Target) -> str:
    return assembly(emit_kernel(run_pipeline(parse_kernel(text), target), target), target)


def main_loop(text: str) -> list[str]:
    """Return the longest block that jumps to itself."""
    blocks = re.split(r"\n(?=\.LBB)", text)
    loops = [b for b in blocks if re.search(rf"\tj\w+\t{re.escape(b.split(':')[0])}\n", b + "\n")]
    return max(loops, key=len).splitlines()


@pytest.mark.parametrize(("target", "register"), [(V2, "xmm"), (V3, "ymm"), (V4, "zmm"), (host(), None)])
def test_a_fused_loop_is_four_vectors_of_five_instructions_and_no_contraction(
    target: Target, register: str | None
) -> None:
    if register is None and target.vector_bits != 512:
        pytest.skip("the host has no 512-bit vectors")
    loop = main_loop(code(RELU, target))
    assert sum("maxps" in line and (register or "zmm") in line for line in loop) == 4
    assert not any("fma" in line for line in loop)
    # Addresses are one counter and constants: nothing but the counters is added.
    assert len(loop) <= (4 * 8 if target is V2 else 4 * 5) + 5


def test_the_tail_is_masked_where_the_target_can() -> None:
    assert "{%k1}" in code(RELU, V4)
    assert "vmaskmovps" in code(RELU, V3)
    assert "movss" in code(RELU, V2)


@pytest.mark.parametrize("target", [V2, V3, V4])
def test_nothing_that_is_rounded_calls_a_library(target: Target) -> None:
    for f in ("floor", "ceil", "trunc", "round", "sqrt", "abs"):
        for short in ("f32", "f64"):
            text = (
                f"kernel k(a: {short}[n] read, o: {short}[n], n: index):\n  vectorized i in n:\n    o[i] = {f}(a[i])\n"
            )
            data = compile_object(emit_kernel(run_pipeline(parse_kernel(text), target), target), target)
            assert not undefined_symbols(data)


def test_register_buffers_become_registers() -> None:
    text = optimized(
        emit_kernel(
            run_pipeline(
                parse_kernel("""
kernel k(a: f32[n] read, o: f32[16], n: index):
  alloc acc: f32[32] register
  vectorized l in 32:
    acc[l] = 0.0
  serial c in n // 32:
    vectorized l in 32:
      acc[l] = acc[l] + a[c * 32 + l]
  vectorized l in 32:
    if l < n % 32:
      acc[l] = acc[l] + a[n // 32 * 32 + l]
  vectorized l in 16:
    acc[l] = acc[l] + acc[l + 16]
  vectorized l in 16:
    o[l] = acc[l]
"""),
                V4,
            ),
            V4,
        ),
        V4,
    )
    assert "alloca" not in text
    assert "phi <16 x float>" in text


def test_the_same_text_gives_the_same_object() -> None:
    text = emit_kernel(run_pipeline(parse_kernel(RELU), V3), V3)
    assert compile_object(text, V3) == compile_object(text, V3)


def test_invalid_text_is_a_bug_of_ours_with_the_line_it_is_on() -> None:
    with pytest.raises(CompilerBug, match=r"LLVM rejects the module: (.|\n)*ret i32 %nowhere"):
        compile_object("define i32 @f() {\n  ret i32 %nowhere\n}\n", V3)


def test_text_that_does_not_verify_is_refused() -> None:
    text = (
        "define void @f(i1 %c) {\nentry:\n  br i1 %c, label %a, label %b\na:\n  %x = add i32 1, 2\n  br label %b\nb:\n"
    )
    with pytest.raises(CompilerBug, match="does not dominate"):
        compile_object(text + "  %y = add i32 %x, 1\n  ret void\n}\n", V3)


def test_a_declared_function_that_is_not_allowed_is_refused() -> None:
    text = "declare float @expf(float)\ndefine float @f(float %x) {\n  %y = call float @expf(float %x)\n"
    text += "  ret float %y\n}\n"
    with pytest.raises(CompilerBug, match="the module calls expf, which nothing defines"):
        compile_object(text, V3)
    assert undefined_symbols(compile_object(text, V3, allowed=frozenset({"expf"}))) == {"expf"}


def test_a_library_call_that_code_generation_makes_up_is_refused() -> None:
    text = "define double @f(double %x, double %y) {\n  %z = frem double %x, %y\n  ret double %z\n}\n"
    with pytest.raises(CompilerBug, match="the object would need fmod from a library"):
        compile_object(text, V3)


def test_aarch64_objects_come_from_the_same_kernels() -> None:
    target = from_name("aarch64")
    data = compile_object(emit_kernel(run_pipeline(parse_kernel(RELU), target), target), target)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == 183
