"""Moving invariant values out of loops."""

from __future__ import annotations

from lowering.passes.hoist import hoist
from tests.support.check_pass import check_pass


def test_an_invariant_load_and_its_arithmetic_move_in_front_of_the_loop() -> None:
    check_pass(
        hoist,
        before="""
kernel k(a: f32[n, m] read, s: f32[n] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      o[i, j] = a[i, j] * (s[i] * 2.0)
""",
        after="""
kernel k(a: f32[n, m] read, s: f32[n] read, o: f32[n, m], n: index, m: index):
  parallel i in n:
    let t: f32 = s[i] * 2.0
    vectorized j in m:
      o[i, j] = a[i, j] * t
""",
    )


def test_a_let_moves_through_several_loops() -> None:
    check_pass(
        hoist,
        before="""
kernel k(s: f32[3] read, o: f32[n, m], n: index, m: index):
  serial i in n:
    serial j in m:
      let x: f32 = s[2] + 1.0
      o[i, j] = x
""",
        after="""
kernel k(s: f32[3] read, o: f32[n, m], n: index, m: index):
  let x: f32 = s[2] + 1.0
  serial i in n:
    serial j in m:
      o[i, j] = x
""",
    )


def test_a_load_that_may_lie_outside_if_the_loop_does_not_run_stays() -> None:
    check_pass(
        hoist,
        before="""
kernel k(s: f32[n] read, o: f32[n], n: index):
  serial i in n:
    o[i] = s[0]
""",
    )


def test_a_load_of_what_the_loop_writes_stays() -> None:
    check_pass(
        hoist,
        before="""
kernel k(o: f32[8], n: index):
  serial i in 7:
    o[i + 1] = o[0] * 2.0
""",
    )


def test_loads_in_arms_stay_where_they_are_guarded() -> None:
    check_pass(
        hoist,
        before="""
kernel k(s: f32[4] read, o: f32[n], n: index, m: index):
  serial i in n:
    if m < 4:
      o[i] = s[m]
    else:
      o[i] = select(m < 2, s[m], 1.0)
""",
    )


def test_subscripts_alone_are_left_to_the_emitter() -> None:
    check_pass(
        hoist,
        before="""
kernel k(a: f32[n, m] read, o: f32[m], n: index, m: index):
  serial i in n:
    serial j in m:
      o[(i + 1) * j * 0 + j] = a[i, j]
""",
    )
