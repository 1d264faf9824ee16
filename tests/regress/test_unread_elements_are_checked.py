"""An index out of range is an error also where the element it selects is dropped again: as in the interpreter."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("fuse", [True, False])
def test_a_bad_index_whose_element_is_sliced_away_is_reported(fuse: bool) -> None:
    x, at = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("at", jf.int64, ("m",))
    y = jf.take(x, at, axis=0)[1:] + 1.0
    feeds = {x: np.zeros(2, np.float32), at: np.array([2, 0, 1])}
    with jf.config.override(fuse=fuse), jf.Session([y]) as session:
        with pytest.raises(IndexError, match="position 0"):
            session.run(y, feeds)
        np.testing.assert_array_equal(session.run(y, {**feeds, at: np.array([0, 0, 1])}), [1, 1])
    with pytest.raises(IndexError):
        jf.interpret(y, feeds)


def test_a_gather_that_an_update_covers_whole_is_checked() -> None:
    table, i = jf.placeholder("table", jf.float32, (3,)), jf.placeholder("i", jf.int64, (2,))
    y = jf.take(table, i).at[:].set(jf.constant(np.zeros(2, np.float32)))
    z = jf.scatter(table, i, 1.0).at[:].set(jf.constant(np.zeros(3, np.float32)))
    for fetched, size in ((y, 2), (z, 3)):
        with jf.Session(fetched) as session:
            for run in (session.run, jf.interpret):
                with pytest.raises(IndexError):
                    run(fetched, {table: np.ones(3, np.float32), i: np.array([0, 5])})
            good = session.run(fetched, {table: np.ones(3, np.float32), i: np.array([0, 2])})
            assert good.tolist() == [0.0] * size
