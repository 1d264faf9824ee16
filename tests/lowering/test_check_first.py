"""Kernels that check their indices before they write."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from lowering.check_first import split_checks
from lowering.difference import difference
from lowering.interp import interpret
from lowering.parser import parse_kernel

ROWS = """
kernel k(a: f32[9, m] read, x: i64[n] read, o: f32[n, m], status: i64[1], n: index, m: index):
  parallel i in n:
    vectorized j in m:
      let x_1: i64 = x[i]
      let raw: index = index(x_1)
      check_index status[0] (raw >= 0) & (raw < 9), i
      let safe: index = max(min(raw, 8), 0)
      o[i, j] = a[safe, j]
"""
GREATEST = np.iinfo(np.int64).max


def test_rows_are_checked_once_each_by_a_kernel_of_their_own() -> None:
    parts = split_checks(parse_kernel(ROWS))
    assert parts is not None
    first, rest = parts
    expected = """
kernel k_check(x: i64[n] read, status: i64[1], n: index, m: index):
  serial j in min(m, 1):
    vectorized i in n:
      let x_1: i64 = x[i]
      let raw: index = index(x_1)
      check_index status[0] (raw >= 0) & (raw < 9), i
"""
    assert difference(first, parse_kernel(expected)) is None
    without = "\n".join(line for line in ROWS.splitlines() if "check_index" not in line)
    assert difference(rest, parse_kernel(without.replace(", status: i64[1]", ""))) is None
    for m, found in ((2, 1), (0, GREATEST)):  # rows without elements have no index that is looked at
        status = np.full(1, GREATEST)
        interpret(first, {"x": np.array([3, 9, 0, -1]), "status": status}, {"n": 4, "m": m})
        assert status[0] == found


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("index(x_1)", "index(x_1) + j"),  # every element has an index of its own
        ("      check_index status[0] (raw >= 0) & (raw < 9), i\n", ""),  # nothing is checked
        ("vectorized j in m", "vectorized j in min(m, i)"),  # loops depend on each other
        ("      o[i, j] = a[safe, j]", "      if j < 3:\n        o[i, j] = a[safe, j]"),
    ],
)
def test_other_kernels_stay_whole(old: str, new: str) -> None:
    assert old in ROWS
    assert split_checks(parse_kernel(ROWS.replace(old, new))) is None


def test_rows_go_straight_to_the_given_array_and_leave_it_alone_if_an_index_is_bad() -> None:
    table, indices = jf.placeholder("t", jf.float32, ("r", 5)), jf.placeholder("i", jf.int64, ("n",))
    rows = jf.take(table, indices, axis=0) + 1
    sess = jf.Session([rows])
    assert "_check(" in sess.dump("plan")
    fn = sess.function([table, indices], rows)
    values = np.arange(30, dtype=np.float32).reshape(6, 5)
    out = np.zeros((3, 5), np.float32)
    fn(values, np.array([5, 0, -1]), out=out)
    np.testing.assert_array_equal(out, values[[5, 0, -1]] + 1)
    with pytest.raises(jf.errors.IndexRangeError, match="out of range at position 1"):
        fn(values, np.array([0, 6, 7]), out=out)
    np.testing.assert_array_equal(out, values[[5, 0, -1]] + 1)
    np.testing.assert_array_equal(fn(values, np.array([2])), values[[2]] + 1)


def test_the_first_check_that_fails_is_the_one_that_is_named() -> None:
    x, i = jf.placeholder("x", jf.float32, (4,)), jf.placeholder("i", jf.int64, (3,))
    y, k = jf.placeholder("y", jf.float32, (3, 2)), jf.placeholder("k", jf.int64, (2,))
    single, rows = jf.take(x, i, axis=0), jf.take(y, k, axis=0)
    sess = jf.Session([single, rows])
    feeds = {x: np.zeros(4, np.float32), y: np.zeros((3, 2), np.float32)}
    for bad_i, bad_k, named in ((9, 9, "take_0"), (0, 9, "take_1"), (9, 0, "take_0")):
        with pytest.raises(jf.errors.IndexRangeError, match=named):
            sess.run([single, rows], {**feeds, i: np.array([0, bad_i, 0]), k: np.array([0, bad_k])})
