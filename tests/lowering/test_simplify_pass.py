"""Simplification of loop programs."""

from __future__ import annotations

from lowering.passes.simplify import simplify
from tests.support.check_pass import check_pass


def test_subscripts_become_canonical() -> None:
    check_pass(
        simplify,
        before="""
serial i in n:
  out[i + i + 2 - 1] = a[(i * 4) // 4]
""",
        after="""
serial i in n:
  out[i * 2 + 1] = a[i]
""",
    )


def test_a_condition_that_the_extents_decide_goes_away() -> None:
    check_pass(
        simplify,
        before="""
serial i in 8:
  if i < 8:
    out[i] = select(i >= 0, a[i], 1.0)
  else:
    out[i] = 2.0
""",
        after="""
serial i in 8:
  out[i] = a[i]
""",
    )


def test_a_condition_that_is_open_stays() -> None:
    check_pass(
        simplify,
        before="""
serial i in 8:
  if i < 7:
    out[i] = select(i < n, a[i], 1.0)
""",
    )


def test_loops_of_one_and_no_iteration_go_away() -> None:
    check_pass(
        simplify,
        before="""
serial i in 1:
  out[i + 3] = a[i]
vectorized j in 0:
  out[j] = 1.0
serial k in n - n:
  out[k] = 1.0
""",
        after="""
out[3] = a[0]
""",
    )


def test_constants_and_copies_bound_by_let_are_put_in() -> None:
    check_pass(
        simplify,
        before="""
let k: index = 2 + 3
let x: f32 = a[k]
let y: f32 = x
out[k] = y * 1.0
""",
        after="""
let x: f32 = a[5]
out[5] = x
""",
    )


def test_float_sums_with_zero_stay_because_of_the_negative_zero() -> None:
    check_pass(simplify, before="out[0] = a[0] + 0.0")


def test_conditions_of_conditions_fold() -> None:
    check_pass(
        simplify,
        before="""
serial i in 4:
  out[i] = select((i < 4) & (a[i] < 1.0), select(~(i < 9), 3.0, a[i]), 2.0)
""",
        after="""
serial i in 4:
  out[i] = select(a[i] < 1.0, a[i], 2.0)
""",
    )


def test_subscripts_inside_loaded_subscripts_are_simplified() -> None:
    check_pass(
        simplify,
        before="""
kernel k(at: i64[n] read, a: f32[9] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = a[index(at[i + 0 * n])]
""",
        after="""
kernel k(at: i64[n] read, a: f32[9] read, o: f32[n], n: index):
  vectorized i in n:
    o[i] = a[index(at[i])]
""",
    )
