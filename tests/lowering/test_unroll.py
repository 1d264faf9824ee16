"""Unrolling: one copy of the body per iteration, nothing else."""

from __future__ import annotations

from lowering.passes.unroll import unroll
from lowering.text import parse_kernel
from lowering.verify import verify
from tests.support.check_pass import check_pass


def test_unroll_substitutes_the_loop_variable() -> None:
    check_pass(
        unroll,
        before="""
        serial j in 8:
          unrolled i in 2:
            out[j * 2 + i] = a[i] * 2.0
        """,
        after="""
        serial j in 8:
          out[j * 2] = a[0] * 2.0
          out[j * 2 + 1] = a[1] * 2.0
        """,
    )


def test_inner_loops_are_unrolled_first_and_stores_keep_their_order() -> None:
    check_pass(
        unroll,
        before="""
        unrolled i in 2:
          unrolled j in 2:
            out[0] = out[0] * 2.0 + a[i * 2 + j]
        """,
        after="""
        out[0] = out[0] * 2.0 + a[0]
        out[0] = out[0] * 2.0 + a[1]
        out[0] = out[0] * 2.0 + a[2]
        out[0] = out[0] * 2.0 + a[3]
        """,
    )


def test_every_copy_binds_its_own_variables_and_buffers() -> None:
    check_pass(
        unroll,
        before="""
        unrolled i in 2:
          let x: f32 = a[i]
          alloc t: f32[1] register
          t[0] = x
          serial j in 3:
            out[i * 3 + j] = t[0] + x
        """,
        after="""
        let x: f32 = a[0]
        alloc t: f32[1] register
        t[0] = x
        serial j in 3:
          out[j] = t[0] + x
        let x_1: f32 = a[1]
        alloc t_1: f32[1] register
        t_1[0] = x_1
        serial j_1 in 3:
          out[3 + j_1] = t_1[0] + x_1
        """,
    )


def test_loops_inside_branches_are_unrolled_and_empty_ones_vanish() -> None:
    check_pass(
        unroll,
        before="""
        if n > 2:
          unrolled i in 2:
            out[i] = 1.0
        else:
          unrolled k in 0:
            out[k] = 2.0
        """,
        after="""
        if n > 2:
          out[0] = 1.0
          out[1] = 1.0
        """,
    )


def test_other_loops_and_unknown_extents_are_left_alone() -> None:
    check_pass(
        unroll,
        before="""
        serial i in 2:
          unrolled j in n:
            out[j] = a[i]
        """,
    )


def test_register_subscripts_are_constants_afterwards() -> None:
    kernel = parse_kernel(
        "kernel k(a: f32[64] read, out: f32[64]):\n"
        "  thread.x t in 16:\n"
        "    alloc r: f32[2, 2] register\n"
        "    unrolled i in 2:\n"
        "      unrolled j in 2:\n"
        "        r[i, j] = a[t*4 + i*2 + j]\n"
        "    unrolled i in 2:\n"
        "      unrolled j in 2:\n"
        "        out[t*4 + i*2 + j] = r[j, i]\n"
    )
    verify(unroll(kernel), stage="after_unroll")
