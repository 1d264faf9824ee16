"""A right factor that is a slice of a flattened matrix: its columns are no whole number of the matrix's rows."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("count", [5, 6, 7])
def test_product_with_a_slice_of_a_flattened_matrix(count: int) -> None:
    x = jf.placeholder("x", jf.int64, (2, 3, 3))
    y = jf.placeholder("y", jf.float64, (3, 7))
    row = jf.astype(jf.reshape(y, (21,))[:count] >= jf.astype(jf.reshape(x, (18,))[:count], jf.float64), jf.float64)
    w = np.arange(36.0).reshape(12, 3)
    z = jf.constant(w) @ jf.broadcast_to(row, (2, 3, count))
    rng = np.random.default_rng(0)
    feeds = {x: rng.integers(-2, 3, (2, 3, 3)), y: rng.normal(size=(3, 7))}
    expected = (feeds[y].ravel()[:count] >= feeds[x].ravel()[:count]).astype(float)
    np.testing.assert_array_equal(
        jf.Session(z).run(z, feeds), np.broadcast_to(w.sum(1)[:, None] * expected, (2, 12, count))
    )


def test_products_without_elements() -> None:
    x = jf.placeholder("x", jf.float64, (0, 1))
    y = jf.nn.attention(x, x, x, causal=True).T
    assert jf.Session(y).run(y, {x: np.zeros((0, 1))}).shape == (1, 0)
