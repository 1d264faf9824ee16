"""Merging of nested loops."""

from __future__ import annotations

from lowering.passes.collapse import collapse
from tests.support.check_pass import check_pass


def test_loops_over_whole_rows_become_one() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[n, m] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      let x: f32 = a[i, j]
      o[i, j] = x * x
""",
        after="""
kernel k(a: f32[m * n] read, o: f32[m * n], n: index, m: index):
  vectorized j in m * n:
    let x: f32 = a[j]
    o[j] = x * x
""",
    )


def test_a_scalar_operand_does_not_keep_loops_apart() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[4, 6] read, s: f32[] read, o: f32[4, 6]):
  parallel i in 4:
    vectorized j in 6:
      o[i, j] = a[i, j] * s[]
""",
        after="""
kernel k(a: f32[24] read, s: f32[1] read, o: f32[24]):
  vectorized j in 24:
    o[j] = a[j] * s[0]
""",
    )


def test_a_row_that_is_broadcast_keeps_its_loop_but_outer_loops_merge() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[b, n, m] read, row: f32[m] read, o: f32[b, n, m], b: index, n: index, m: index):
  parallel k in b:
    serial i in n:
      vectorized j in m:
        o[k, i, j] = a[k, i, j] + row[j]
""",
        after="""
kernel k(a: f32[b * m * n] read, row: f32[m] read, o: f32[b * m * n], b: index, n: index, m: index):
  parallel i in b * n:
    vectorized j in m:
      o[i * m + j] = a[i * m + j] + row[j]
""",
    )


def test_a_broadcast_along_one_loop_is_left_alone() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[n, m] read, row: f32[m] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = a[i, j] + row[j]
""",
    )


def test_a_transpose_is_left_alone() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[m, n] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = a[j, i]
""",
    )


def test_a_loop_variable_that_is_data_keeps_its_loop() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[n, m] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = a[i, j] + f32(j)
""",
    )


def test_a_guard_on_a_loop_variable_keeps_its_loop() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[n, m] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = select(j < 3, a[i, j], 0.0)
""",
    )


def test_a_slice_of_rows_still_merges_and_a_slice_of_columns_does_not() -> None:
    check_pass(
        collapse,
        before="""
kernel k(a: f32[10, 6] read, o: f32[8, 6]):
  parallel i in 8:
    vectorized j in 6:
      o[i, j] = a[i + 2, j]
""",
        after="""
kernel k(a: f32[60] read, o: f32[48]):
  vectorized j in 48:
    o[j] = a[j + 12]
""",
    )
    check_pass(
        collapse,
        before="""
kernel k(a: f32[8, 7] read, o: f32[8, 6]):
  parallel i in 8:
    vectorized j in 6:
      o[i, j] = a[i, j + 1]
""",
    )
