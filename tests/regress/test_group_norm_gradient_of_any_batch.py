"""A row that is reshaped and back is known to be the same row at each place of its lanes, with a symbolic batch too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("shape", [("n", 4, 8, 8), ("n", 4, 5, 7), ("n", 4, "h", "w"), ("n", 4, "h")])
def test_gradient_of_a_group_norm(shape: tuple[Any, ...]) -> None:
    x = jf.placeholder("x", jf.float64, shape)
    weights = jf.placeholder("weights", jf.float64, shape)
    y = jf.sum(jf.nn.group_norm(x, 2) ** 2 * weights)
    (dx,) = jf.gradients(y, [x])
    rng = np.random.default_rng(0)
    sizes = tuple({"n": 3, "h": 6, "w": 9}.get(d, d) for d in shape)
    data, factors, direction = (rng.standard_normal(sizes) for _ in range(3))

    def value(at: np.ndarray[Any, Any]) -> float:
        groups = at.reshape(sizes[0], 2, -1)
        centred = groups - groups.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return float((normal.reshape(sizes) ** 2 * factors).sum())

    slope = (value(data + 1e-6 * direction) - value(data - 1e-6 * direction)) / 2e-6
    found = jf.Session(dx).run(dx, {x: data, weights: factors})
    np.testing.assert_allclose((found * direction).sum(), slope, rtol=1e-6)
