"""A graph that needs an input only for its size: the input is no part of it, but may, and must, be fed."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


def test_a_gradient_that_does_not_depend_on_the_values_of_its_input() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 3))
    data = np.ones((2, 3), np.float32)
    g = jf.gradients(jf.sum(x), x)
    with jf.Session(g) as session:
        with pytest.raises(jf.GraphError, match="run it once"):
            session.dump("loops")
        np.testing.assert_array_equal(session.run(g, {x: data}), data)
        assert session.run(g, {x: np.zeros((5, 3), np.float32)}).shape == (5, 3)
        assert "kernel " in session.dump("loops")
        with pytest.raises((jf.GraphError, jf.FeedError), match="dim n"):
            session.run(g)
        np.testing.assert_array_equal(session.function([x], g)(data), data)


def test_zeros_like_alone() -> None:
    x = jf.placeholder("x", jf.int32, ("n",))
    other = jf.placeholder("other", jf.int32, ("m",))
    z = jf.zeros_like(x)
    with jf.Session([z]) as session:
        np.testing.assert_array_equal(session.run(z, {x: np.arange(4, dtype=np.int32)}), np.zeros(4, np.int32))
        with pytest.raises(jf.FeedError, match="no part of this session"):
            session.run(z, {x: np.arange(4, dtype=np.int32), other: np.arange(4, dtype=np.int32)})
    assert jf.compare(z, {x: np.arange(3, dtype=np.int32)}).ok
