"""A constant factor whose depth equals a symbolic dim only by a guard cannot be packed ahead, but is multiplied."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


def test_a_constant_factor_may_meet_a_symbolic_depth() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    w = np.arange(16 * 256, dtype=np.float32).reshape(16, 256)
    y = x @ jf.constant(w)
    data = np.ones((130, 16), np.float32)
    with jf.Session([y]) as session:
        np.testing.assert_array_equal(session.run(y, {x: data}), data @ w)
        with pytest.raises(jf.FeedError, match="m must equal 16"):
            session.run(y, {x: np.ones((3, 15), np.float32)})
