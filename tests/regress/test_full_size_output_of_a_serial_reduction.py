"""A full-size output written inside a serial reduction brings along what only it needs."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_a_comparison_that_is_fetched_and_summed_over_the_first_axis() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 1))
    below = x < jf.constant(np.array([[2.0]]))
    count = jf.sum(jf.logical_or(below, jf.log_softmax(x, axis=0) > 0), axis=0)
    data = np.array([[1.0], [3.0], [0.5], [2.0], [-1.0]])
    with jf.Session([count, below]) as session:
        got, flags = session.run([count, below], {x: data})
    np.testing.assert_array_equal(flags, data < 2.0)
    np.testing.assert_array_equal(got, (data < 2.0).sum(axis=0))
