"""The gradient of a slice that reverses a whole axis is reversed too, although both have the same shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("shape", [(4, 3), ("n", "m"), ("n", 3)])
@pytest.mark.parametrize(
    "key", [np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1], np.s_[::1, :], np.s_[::-1, 2:0:-1], np.s_[-1::-1]]
)
def test_weights_come_back_to_the_elements_they_multiplied(shape: tuple[Any, ...], key: Any) -> None:
    x = jf.placeholder("x", jf.float64, shape)
    weights = np.arange(12.0).reshape(4, 3)[key]
    (dx,) = jf.gradients(jf.sum(jf.square(x)[key] * weights), [x])
    data = np.arange(1.0, 13.0).reshape(4, 3)
    expected = np.zeros((4, 3))
    expected[key] = weights
    expected *= 2 * data
    np.testing.assert_array_equal(jf.interpret(dx, {x: data}), expected)
    np.testing.assert_array_equal(jf.Session(dx).run(dx, {x: data}), expected)
