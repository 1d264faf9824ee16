"""Cutting a long loop into tiles for workers."""

from __future__ import annotations

from lowering.loop_ir import Kernel
from lowering.passes.parallelize import parallelize
from lowering.text import show
from tests.support.check_pass import check_pass, parse_program


def small(kernel: Kernel) -> Kernel:
    return parallelize(kernel, tile=4)


def test_a_symbolic_extent_is_cut_and_the_last_tile_may_be_short() -> None:
    check_pass(
        small,
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = a[i]
""",
        after="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  parallel i_t in (n + 3) // 4:
    vectorized i in min(4, n - i_t * 4):
      o[i_t * 4 + i] = a[i_t * 4 + i]
""",
    )


def test_a_constant_extent_of_whole_tiles_has_constant_tiles() -> None:
    check_pass(
        small,
        before="""
let x: f32 = a[1]
vectorized i in 16:
  out[i] = x
""",
        after="""
let x: f32 = a[1]
parallel i_t in 4:
  vectorized i in 4:
    out[i_t * 4 + i] = x
""",
    )


def test_short_loops_and_parallel_ones_are_left_alone() -> None:
    check_pass(small, before="vectorized i in 8:\n  out[i] = a[i]")
    check_pass(small, before="parallel j in n:\n  vectorized i in 80:\n    out[j * 80 + i] = a[i]")
    check_pass(small, before="serial i in n:\n  out[i] = a[i]")


def test_a_choice_between_many_parts_stays_one_loop() -> None:
    parts = " + ".join(f"select(i < {k * 5}, a[i], 0.0)" for k in range(1, 18))
    before = f"""
kernel k(a: f32[n] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = {parts}
"""
    check_pass(parallelize, before=before)
    fewer = parallelize(parse_program(before.replace("select(i < 5, a[i], 0.0) + ", "")))
    assert "parallel i_t" in show(fewer)
