"""A factor that is read through a reshape is addressed by position, in every form of a matrix product."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 4, 1), (5, 7, 1), (6, 2, 3), (20, 30, 200)])
def test_a_product_with_a_reshaped_factor(m: int, k: int, n: int) -> None:
    x, w = jf.placeholder("x", jf.float32, ("m", "k")), jf.placeholder("w", jf.float32, (1, n))
    y = jf.reshape(jf.reshape(x, (-1, 1)) @ w, (-1,)) + 1.0
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((1, n)).astype(np.float32)
    with jf.Session([y]) as session:
        want = (a.reshape(-1, 1) @ b).reshape(-1) + np.float32(1)
        np.testing.assert_allclose(session.run(y, {x: a, w: b}), want, rtol=1e-6, atol=1e-6)
