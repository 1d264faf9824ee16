"""A gather from an axis that turns out to be empty reports its first index, although nothing can be read there."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


def test_every_index_into_an_empty_axis_is_out_of_range() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.take(x, jf.constant(np.array([1, 0])), axis=0)
    with jf.Session([y]) as session:
        with pytest.raises(IndexError, match="position 0"):
            session.run(y, {x: np.zeros(0, np.float32)})
        np.testing.assert_array_equal(session.run(y, {x: np.array([5, 7], np.float32)}), [7, 5])


def test_no_index_into_an_empty_axis_is_fine() -> None:
    x, at = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("at", jf.int64, ("m",))
    y = jf.take(x, at, axis=0)
    with jf.Session([y]) as session:
        assert session.run(y, {x: np.zeros(0, np.float32), at: np.zeros(0, np.int64)}).shape == (0,)
