"""Loops into vectors."""

from __future__ import annotations

import numpy as np
import pytest

from lowering.loop_ir import For, Kernel, statements
from lowering.parser import parse_kernel
from lowering.passes.vectorize import default_lanes, vectorize
from lowering.target import from_name
from lowering.text import show
from tests.support.check_pass import check_pass, check_same_meaning, parse_program

V4, V2 = from_name("x86-64-v4"), from_name("x86-64-v2")
SIZES = [{"n": n} for n in (0, 1, 3, 4, 5, 8, 9, 31)]


def by_four(kernel: Kernel) -> Kernel:
    return vectorize(kernel, target=V4, lanes=4, unroll=1)


def without_masks(kernel: Kernel) -> Kernel:
    return vectorize(kernel, target=V2, lanes=4, unroll=1)


def two_at_once(kernel: Kernel) -> Kernel:
    return vectorize(kernel, target=V4, lanes=4, unroll=2)


def test_a_symbolic_extent_has_whole_vectors_and_a_masked_tail() -> None:
    check_pass(
        by_four,
        before="""
vectorized i in n:
  out[i] = a[i] * 2.0
""",
        after="""
let i_whole: index = n // 4
serial i_o in i_whole:
  out[ramp(i_o * 4, 1, 4)] = a[ramp(i_o * 4, 1, 4)] * 2.0:f32x4
let i_done: index = i_whole * 4
if i_done < n:
  let mask: boolx4 = ramp(i_done, 1, 4) < splat(n, 4)
  out[ramp(i_done, 1, 4) if mask] = a[ramp(i_done, 1, 4) if mask] * 2.0:f32x4
""",
        dims=SIZES,
    )


def test_without_masks_the_tail_is_a_scalar_loop() -> None:
    check_pass(
        without_masks,
        before="""
vectorized i in n:
  out[i] = a[i] * 2.0
""",
        after="""
let i_whole: index = n // 4
serial i_o in i_whole:
  out[ramp(i_o * 4, 1, 4)] = a[ramp(i_o * 4, 1, 4)] * 2.0:f32x4
let i_done: index = i_whole * 4
serial i in n - i_done:
  out[i_done + i] = a[i_done + i] * 2.0
""",
        dims=SIZES,
    )


def test_several_vectors_at_once_have_a_loop_of_masked_ones_behind() -> None:
    check_pass(
        two_at_once,
        before="""
vectorized i in n:
  let x: f32 = a[i]
  out[i] = x * x
""",
        after="""
let i_whole: index = n // 8
serial i_o in i_whole:
  let x: f32x4 = a[ramp(i_o * 8, 1, 4)]
  let x_1: f32x4 = a[ramp(i_o * 8 + 4, 1, 4)]
  out[ramp(i_o * 8, 1, 4)] = x * x
  out[ramp(i_o * 8 + 4, 1, 4)] = x_1 * x_1
let i_done: index = i_whole * 8
serial i_t in (n - i_done + 3) // 4:
  let mask: boolx4 = ramp(i_done + i_t * 4, 1, 4) < splat(n, 4)
  let x_2: f32x4 = a[ramp(i_done + i_t * 4, 1, 4) if mask]
  out[ramp(i_done + i_t * 4, 1, 4) if mask] = x_2 * x_2
""",
        dims=SIZES,
    )


def test_a_constant_extent_ends_in_one_narrower_or_masked_vector() -> None:
    check_pass(
        by_four,
        before="vectorized i in 6:\n  out[i] = a[i]",
        after="""
out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]
out[ramp(4, 1, 2)] = a[ramp(4, 1, 2)]
""",
    )
    check_pass(
        by_four,
        before="vectorized i in 7:\n  out[i] = a[i]",
        after="""
out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]
out[ramp(4, 1, 4) if ramp(0, 1, 4) < 3:indexx4] = a[ramp(4, 1, 4) if ramp(0, 1, 4) < 3:indexx4]
""",
    )
    check_pass(
        without_masks,
        before="vectorized i in 7:\n  out[i] = a[i]",
        after="""
out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]
out[ramp(4, 1, 2)] = a[ramp(4, 1, 2)]
out[6] = a[6]
""",
    )


def test_a_loop_shorter_than_a_vector_uses_fewer_lanes() -> None:
    check_pass(
        lambda k: vectorize(k, target=V4),
        before="vectorized i in 4:\n  out[i] = a[i]",
        after="out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]",
    )


def test_many_constant_vectors_become_a_loop() -> None:
    check_pass(
        two_at_once,
        before="vectorized i in 76:\n  out[i] = a[i]",
        after="""
serial i_o in 9:
  out[ramp(i_o * 8, 1, 4)] = a[ramp(i_o * 8, 1, 4)]
  out[ramp(i_o * 8 + 4, 1, 4)] = a[ramp(i_o * 8 + 4, 1, 4)]
out[ramp(72, 1, 4)] = a[ramp(72, 1, 4)]
""",
    )


def test_what_does_not_vary_stays_scalar_until_it_meets_a_vector() -> None:
    check_pass(
        by_four,
        before="""
vectorized i in 4:
  let s: f32 = a[7] * 3.0
  out[i] = a[i] * s + 1.0
""",
        after="""
let s: f32 = a[7] * 3.0
out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)] * splat(s, 4) + 1.0:f32x4
""",
    )


def test_strides_and_linear_lets_become_ramps_and_the_rest_vectors_of_indices() -> None:
    check_pass(
        by_four,
        before="""
kernel k(a: f32[64, m] read, o: f32[8, 4], m: index):
  vectorized i in 4:
    let twice: index = i * 2 + 1
    o[0, i] = a[0, twice]
    o[1, i] = a[0, 9 - i]
    o[2, i] = a[i, 3]
    let wave: index = i * i % 3
    o[3, i] = a[wave, i]
""",
        after="""
kernel k(a: f32[64, m] read, o: f32[8, 4], m: index):
  o[0, ramp(0, 1, 4)] = a[0, ramp(1, 2, 4)]
  o[1, ramp(0, 1, 4)] = a[0, ramp(9, -1, 4)]
  o[2, ramp(0, 1, 4)] = a[ramp(0, 1, 4), 3]
  let wave: indexx4 = ramp(0, 1, 4) * ramp(0, 1, 4) % 3:indexx4
  o[3, ramp(0, 1, 4)] = a[wave, ramp(0, 1, 4)]
""",
        dims=[{"m": 30}],
    )


def test_an_inner_loop_is_kept_around_all_vectors_and_its_accumulator_gets_lanes() -> None:
    check_pass(
        two_at_once,
        before="""
kernel k(a: f32[m, 8] read, o: f32[8], m: index):
  vectorized j in 8:
    alloc acc: f32[1] register
    acc[0] = 0.0
    serial i in m:
      acc[0] = acc[0] + a[i, j]
    o[j] = acc[0]
""",
        after="""
kernel k(a: f32[m, 8] read, o: f32[8], m: index):
  alloc acc: f32[1, 4] register align 64
  alloc acc_1: f32[1, 4] register align 64
  acc[0, ramp(0, 1, 4)] = 0.0:f32x4
  acc_1[0, ramp(0, 1, 4)] = 0.0:f32x4
  serial i in m:
    acc[0, ramp(0, 1, 4)] = acc[0, ramp(0, 1, 4)] + a[i, ramp(0, 1, 4)]
    acc_1[0, ramp(0, 1, 4)] = acc_1[0, ramp(0, 1, 4)] + a[i, ramp(4, 1, 4)]
  o[ramp(0, 1, 4)] = acc[0, ramp(0, 1, 4)]
  o[ramp(4, 1, 4)] = acc_1[0, ramp(0, 1, 4)]
""",
    )


def test_a_varying_condition_becomes_masks_and_registers_are_blended() -> None:
    check_pass(
        by_four,
        before="""
kernel k(a: f32[4] read, o: f32[4], n: index):
  alloc acc: f32[4] register
  vectorized l in 4:
    acc[l] = 0.0
  vectorized l in 4:
    if l < n:
      acc[l] = acc[l] + a[l]
    else:
      o[l] = 1.0
  vectorized l in 4:
    o[l] = acc[l]
""",
        after="""
kernel k(a: f32[4] read, o: f32[4], n: index):
  alloc acc: f32[4] register
  acc[ramp(0, 1, 4)] = 0.0:f32x4
  let on: boolx4 = ramp(0, 1, 4) < splat(n, 4)
  acc[ramp(0, 1, 4)] = select(on, acc[ramp(0, 1, 4)] + a[ramp(0, 1, 4) if on], acc[ramp(0, 1, 4)])
  let on_1: boolx4 = ~on
  o[ramp(0, 1, 4) if on_1] = 1.0:f32x4
  o[ramp(0, 1, 4)] = acc[ramp(0, 1, 4)]
""",
        dims=[{"n": n} for n in range(6)],
    )


def test_a_condition_that_does_not_vary_stays_a_branch() -> None:
    check_pass(
        by_four,
        before="""
vectorized i in 4:
  if n < 3:
    out[i] = a[i]
""",
        after="""
if n < 3:
  out[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]
""",
    )


def test_a_scalar_load_under_a_mask_is_masked_too() -> None:
    # s has no element when no lane is on.
    kernel = parse_kernel("""
kernel k(s: f32[n] read, o: f32[4], n: index):
  vectorized i in 4:
    if i < n:
      o[i] = s[0]
""")
    check_same_meaning(kernel, by_four(kernel), dims=[{"n": n} for n in (0, 1, 3, 9)])


def test_nested_vectorized_loops_are_vectorized_inside() -> None:
    check_pass(
        by_four,
        before="""
kernel k(a: f32[2, 4] read, o: f32[2, 4]):
  vectorized i in 2:
    vectorized j in 4:
      o[i, j] = a[i, j]
""",
        after="""
kernel k(a: f32[2, 4] read, o: f32[2, 4]):
  serial i in 2:
    o[i, ramp(0, 1, 4)] = a[i, ramp(0, 1, 4)]
""",
    )


@pytest.mark.parametrize(
    "body",
    [
        "serial j in i:\n      o[i] = a[j]",
        "atomic add o[0], a[i]",
        "alloc row: f32[1024] stack\n    row[5] = a[i]\n    o[i] = row[5]",
        "if i < 5:\n      let k: index = 0\n      while a[i] < 0.0:\n        o[i] = a[i]",
    ],
)
def test_what_has_no_vector_form_becomes_a_serial_loop(body: str) -> None:
    kernel = parse_kernel(f"kernel k(a: f32[n] read, o: f32[n], n: index):\n  vectorized i in n:\n    {body}\n")
    result = by_four(kernel)
    assert next(s.kind for s in statements(result.body) if isinstance(s, For)) == "serial"
    assert len(result.body) == 1


def test_lanes_follow_the_widest_dtype_that_is_computed() -> None:
    def lanes(text: str) -> int:
        return default_lanes(parse_program(text).body, V4)

    head = "kernel k(a: f32[n] read, b: f64[n] read, c: bool[n] read, o: f32[n], p: f64[n], q: bool[n], n: index):\n  "
    assert lanes(head + "vectorized i in n:\n    o[i] = a[i]") == 16
    assert lanes(head + "vectorized i in n:\n    p[i] = b[i]") == 8
    assert lanes(head + "vectorized i in n:\n    o[i] = f32(b[i])") == 8
    assert lanes(head + "vectorized i in n:\n    q[i] = a[i] < 1.0") == 16
    assert lanes(head + "vectorized i in n:\n    q[i] = ~c[i]") == 64
    head = "kernel k(a: u8[n] read, b: f16[n] read, c: f64[n] read, o: f32[n], p: i8[n], q: bf16[n], n: index):\n  "
    assert lanes(head + "vectorized i in n:\n    o[i] = f32(a[i])") == 16
    assert lanes(head + "vectorized i in n:\n    p[i] = i8(a[i]) + i8(1)") == 64
    assert lanes(head + "vectorized i in n:\n    p[i] = i8(c[i])") == 8
    assert lanes(head + "vectorized i in n:\n    q[i] = bf16(f32(b[i]) * f32(b[i]))") == 16


@pytest.mark.parametrize("seed", range(12))
def test_every_lane_count_and_unroll_keeps_the_meaning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    extent = ["n", str(int(rng.integers(1, 90)))][seed % 2]
    kernel = parse_kernel(f"""
kernel k(a: f32[200] read, at: i64[200] read, o: f32[200], p: bool[200], n: index):
  vectorized i in {extent}:
    let x: f32 = a[i * 2] + a[199 - i]
    let k: index = index(at[i])
    p[i] = (x < 0.5) & (i % 3 == 1)
    if x < a[3]:
      o[i] = select(i < 7, a[k], a[k + 1]) * f32(i)
""")
    for target in (V4, V2):
        result = vectorize(kernel, target=target, lanes=2 ** int(rng.integers(1, 5)), unroll=int(rng.integers(1, 4)))
        assert all(s.kind == "serial" for s in statements(result.body) if isinstance(s, For))
        check_same_meaning(kernel, result, dims=[{"n": int(n)} for n in (0, 1, *rng.integers(2, 90, 3))], seed=seed)


def test_vectors_of_a_register_buffer_end_where_it_ends() -> None:
    # 6 lanes of 4: a masked second vector would reach past the buffer, and it could not become values.
    check_pass(
        by_four,
        before="""
kernel k(a: f32[6] read, o: f32[6]):
  alloc t: f32[6] register
  vectorized l in 6:
    t[l] = a[l]
  serial i in 6:
    o[i] = t[i]
""",
        after="""
kernel k(a: f32[6] read, o: f32[6]):
  alloc t: f32[6] register
  t[ramp(0, 1, 4)] = a[ramp(0, 1, 4)]
  t[ramp(4, 1, 2)] = a[ramp(4, 1, 2)]
  serial i in 6:
    o[i] = t[i]
""",
    )


def test_the_condition_of_an_index_check_counts_besides_the_mask_of_the_tail() -> None:
    kernel = parse_program("""
kernel f(a: f32[n] read, out: f32[n], st: i64[1], n: index):
  vectorized i in n:
    check_index st[0] i < 5, i if i < 9
    out[i] = a[i]
""")
    text = show(by_four(kernel))
    tail = text[text.index("if i_done < n") :]
    assert "check_index st[0]" in tail
    where = tail[tail.index("check_index") :].split("\n")[0].split(" if ")[1]
    assert "mask" in where
    assert "9" in where


def test_positions_are_ramps_of_their_own_dtype() -> None:
    check_pass(
        by_four,
        before="""
vectorized i in 4:
  out[i] = f32(i32(i * 3 + 5))
""",
        after="""
out[ramp(0, 1, 4)] = f32(ramp(i32(5), 3, 4))
""",
    )
