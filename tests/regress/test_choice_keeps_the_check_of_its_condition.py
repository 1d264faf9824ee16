"""``where(c, x, x)`` is `x`, but an index that `c` is made of is checked all the same."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("swap", [False, True])
def test_a_bad_index_in_what_a_choice_drops_is_an_error(swap: bool) -> None:
    table, i = jf.placeholder("table", jf.float32, (4,)), jf.placeholder("i", jf.uint8, (3,))
    picked = jf.take(table, i)
    y = jf.where(jf.constant([True] * 3), jf.constant([1.0] * 3), picked) if swap else jf.where(picked > 0, 1.0, 1.0)
    feeds = {table: np.ones(4, np.float32), i: np.array([0, 255, 1], np.uint8)}
    with jf.Session(y) as session:
        for run in (session.run, jf.interpret):
            with pytest.raises(IndexError, match="take"):
                run(y, feeds)
        assert session.run(y, {**feeds, i: np.array([0, 3, 1], np.uint8)}).tolist() == [1.0] * 3
