"""A last panel with tiles of its own height computes the rows of blocks that are no multiple of this height."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize(("rows", "inner", "columns"), [(200, 7, 100), (208, 5, 72), (104, 3, 100), (1064, 4, 101)])
@pytest.mark.parametrize("is_constant", [True, False])
def test_every_row_of_the_last_columns_is_computed(rows: int, inner: int, columns: int, is_constant: bool) -> None:
    a = np.random.default_rng(0).integers(-9, 10, (rows, inner)).astype(np.float32)
    b = np.random.default_rng(1).integers(-9, 10, (inner, columns)).astype(np.float32)
    x = jf.placeholder("x", jf.float32, a.shape)
    w = jf.constant(b) if is_constant else jf.placeholder("w", jf.float32, b.shape)
    with jf.Session(x @ w) as session:
        got = session.run(x @ w, {x: a} if is_constant else {x: a, w: b})
    np.testing.assert_array_equal(got, a @ b)
