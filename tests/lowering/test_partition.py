"""Splitting loops where their conditions change."""

from __future__ import annotations

from jitflow.expr import Select, const_index
from jitflow.record import walk
from lowering.loop_ir import For, If, Kernel, statements
from lowering.parser import parse_kernel
from lowering.passes.partition import partition
from tests.support.check_pass import check_pass, check_same_meaning


def test_a_concatenation_becomes_two_loops() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, b: f32[m] read, o: f32[n + m], n: index, m: index):
  vectorized j in n + m:
    o[j] = select(j < n, a[j], b[j - n])
""",
        after="""
kernel k(a: f32[n] read, b: f32[m] read, o: f32[n + m], n: index, m: index):
  vectorized j in n:
    o[j] = a[j]
  vectorized j in m:
    o[j + n] = b[j]
""",
    )


def test_a_chain_of_three_becomes_three_loops() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[300] read, b: f32[300] read, c: f32[300] read, o: f32[900]):
  vectorized j in 900:
    o[j] = select(j < 300, a[j], select(j < 600, b[j - 300], c[j - 600]))
""",
        after="""
kernel k(a: f32[300] read, b: f32[300] read, c: f32[300] read, o: f32[900]):
  vectorized j in 300:
    o[j] = a[j]
  vectorized j in 300:
    o[j + 300] = b[j]
  vectorized j in 300:
    o[j + 600] = c[j]
""",
    )


def test_padding_has_a_part_before_within_and_after() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, o: f32[n + 5], n: index):
  vectorized j in n + 5:
    o[j] = select((j - 2 >= 0) & (j - 2 < n), a[j - 2], 7.0)
""",
        after="""
kernel k(a: f32[n] read, o: f32[n + 5], n: index):
  vectorized j in 2:
    o[j] = 7.0
  vectorized j in n:
    o[j + 2] = a[j]
  vectorized j in 3:
    o[j + n + 2] = 7.0
""",
    )


def test_a_parallel_loop_gets_branches() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n, 8] read, b: f32[m, 8] read, o: f32[n + m, 8], n: index, m: index):
  parallel i in n + m:
    vectorized j in 8:
      o[i, j] = select(i < n, a[i, j], b[i - n, j])
""",
        after="""
kernel k(a: f32[n, 8] read, b: f32[m, 8] read, o: f32[n + m, 8], n: index, m: index):
  parallel i in n + m:
    if i < n:
      vectorized j in 8:
        o[i, j] = a[i, j]
    else:
      vectorized j in 8:
        o[i, j] = b[i - n, j]
""",
    )


def test_strips_are_guarded_only_at_the_end() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  parallel s in (n + 63) // 64:
    vectorized l in 64:
      if s * 64 + l < n:
        o[s * 64 + l] = a[s * 64 + l]
""",
        after="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  parallel s in (n + 63) // 64:
    if s < n // 64:
      vectorized l in 64:
        o[l + s * 64] = a[l + s * 64]
    else:
      vectorized l in 64:
        if s * 64 + l < n:
          o[s * 64 + l] = a[s * 64 + l]
""",
        dims=[{"n": n} for n in (0, 1, 63, 64, 65, 130)],
    )


def test_conditions_on_data_and_cheap_selects_do_not_split() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  vectorized j in n:
    o[j] = select(a[j] < 1.0, a[j], 2.0) + select(j < 5, 1.0, 2.0)
""",
    )


def test_what_is_not_linear_does_not_split() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  vectorized j in n:
    o[j] = select(j // 3 < 2, a[j], 0.0)
""",
    )


def test_short_vectorized_loops_keep_their_masks() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[9] read, o: f32[16]):
  vectorized j in 16:
    o[j] = select(j < 9, a[j], 0.0)
""",
    )


def test_every_direction_of_a_comparison_keeps_the_meaning() -> None:
    for cond in (
        "j < 5",
        "j <= 5",
        "j > 5",
        "j >= 5",
        "n - j < 3",
        "2 * j <= n",
        "7 - 2 * j >= 0",
        "0 - 3 * j < 0 - n",
    ):
        kernel = parse_kernel(
            "kernel k(a: f32[n + 9] read, o: f32[n], n: index):\n  serial j in n:\n"
            f"    o[j] = select({cond}, a[j + 1], a[j + 2])\n"
        )
        result = partition(kernel)
        assert sum(isinstance(s, For) for s in statements(result.body)) == 2, cond
        check_same_meaning(kernel, result, dims=[{"n": n} for n in (0, 1, 4, 5, 6, 7, 8, 20)])


def test_no_more_code_is_written_than_allowed() -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n] read, b: f32[m] read, o: f32[n + m], n: index, m: index):
  serial j in n + m:
    o[j] = sqrt(b[0]) + sqrt(b[1]) + select(j < n, a[j], b[j - n])
""")

    def tight(k: Kernel) -> Kernel:
        return partition(k, max_nodes=3)

    assert tight(kernel) is kernel
    assert partition(kernel) is not kernel


def test_parts_that_split_what_was_chosen_between_cost_little() -> None:
    """So a concatenation may have any number of parts."""
    arrays = ", ".join(f"a{k}: f32[150] read" for k in range(20))
    chosen = "a19[j - 2850]"
    for k in reversed(range(19)):
        chosen = f"select(j < {150 * (k + 1)}, a{k}[j - {150 * k}], {chosen})"
    kernel = parse_kernel(f"kernel k({arrays}, o: f32[3000]):\n  vectorized j in 3000:\n    o[j] = {chosen}\n")
    result = partition(kernel, max_nodes=0)
    assert sum(isinstance(s, For) for s in statements(result.body)) == 20
    check_same_meaning(kernel, result)


def test_breakpoints_near_the_ends_leave_one_part_between_them() -> None:
    shifted = " + ".join(f"select((j - {k} >= 0) & (j - {k} < max(0, n - 3)), a[j - {k}], 0.0)" for k in (0, 1, 2, 3))
    kernel = parse_kernel(
        f"kernel k(a: f32[max(0, n - 3)] read, o: f32[n], n: index):\n  vectorized j in n:\n    o[j] = {shifted}\n"
    )
    result = partition(kernel)
    loops = [s for s in statements(result.body) if isinstance(s, For)]
    assert [s.kind for s in loops] == ["serial", "vectorized", "serial"]
    assert not any(isinstance(x, Select) for x in walk(loops[1]))
    check_same_meaning(kernel, result, dims=[{"n": n} for n in (0, 1, 2, 3, 4, 5, 6, 7, 20)])
    rows = parse_kernel(
        f"kernel k(a: f32[max(0, n - 3)] read, o: f32[n, 9], n: index):\n  parallel j in n:\n    serial i in 9:\n"
        f"      o[j, i] = {shifted}\n"
    )
    result = partition(rows)
    (branch,) = (s for s in statements(result.body) if isinstance(s, If))
    assert not any(isinstance(x, Select) for s in branch.then for x in walk(s))
    assert any(isinstance(x, Select) for s in branch.otherwise for x in walk(s))
    check_same_meaning(rows, result, dims=[{"n": n} for n in (0, 1, 2, 3, 4, 5, 6, 7, 20)])


def test_two_breakpoints_near_the_ends_have_parts_of_their_own() -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n] read, o: f32[n + 2], n: index):
  serial j in n + 2:
    o[j] = select((j >= 1) & (j < n + 1), a[j - 1], 0.0)
""")
    result = partition(kernel)
    assert not any(isinstance(x, Select) for s in result.body for x in walk(s))
    check_same_meaning(kernel, result, dims=[{"n": n} for n in (0, 1, 4)])


def test_tiles_of_a_concatenation_hold_a_loop_for_each_part() -> None:
    kernel = parse_kernel("""
kernel k(a: f32[n] read, b: f32[m] read, o: f32[n + m], n: index, m: index):
  parallel t in (n + m + 3) // 4:
    vectorized i in min(4, n + m - t * 4):
      o[t * 4 + i] = select(t * 4 + i < n, a[t * 4 + i], b[t * 4 + i - n])
""")
    result = partition(kernel)
    assert sum(isinstance(s, For) for s in statements(result.body)) == 3
    check_same_meaning(kernel, result, dims=[{"n": n, "m": m} for n in (0, 1, 4, 6, 9) for m in (0, 3, 8)])


def test_an_unrolled_loop_stays_whole() -> None:
    check_pass(
        partition,
        before="""
kernel k(a: f32[n] read, o: f32[n], n: index):
  unrolled r in 4:
    if r < n:
      o[r] = a[r]
""",
        after=None,
    )


WINDOW_ROWS = """
kernel k(a: f32[{h}, {w}] read, o: f32[3, {h}, {w}]{dims}):
  serial k in 3:
    serial r in {h}:
      vectorized j in {w}:
        o[k, r, j] = select((k + r - 1 >= 0) & (k + r - 1 < {h}), a[k + r - 1, j], 0.0)
"""


def test_a_window_over_rows_of_any_number_is_split_at_the_rows_alone() -> None:
    kernel = parse_kernel(WINDOW_ROWS.format(h="h", w="w", dims=", h: index, w: index"))
    after = partition(kernel)
    assert [s.extent for s in after.body if isinstance(s, For)] == [const_index(3)]
    assert sum(isinstance(s, For) and s.kind == "vectorized" for s in statements(after.body)) == 3
    check_same_meaning(kernel, after, dims=[{"h": h, "w": 5} for h in (0, 1, 2, 3, 7)])


def test_a_window_over_rows_of_known_number_is_split_too() -> None:
    kernel = parse_kernel(WINDOW_ROWS.format(h=8, w=300, dims=""))
    after = partition(kernel)
    assert [s.extent for s in after.body if isinstance(s, For)] == [const_index(1)] * 3
    check_same_meaning(kernel, after)
