"""A stack of matrices, read in runs, times one column: the product's one axis of columns walks two of the result's."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_rows_of_a_stack_times_one_column_and_what_is_computed_of_them() -> None:
    x = jf.placeholder("x", jf.int64, (2, "n", 1))
    y = jf.softmax(x @ jf.constant(np.array([2.0])), axis=-1)
    for n in (1, 7, 40):
        a = np.random.default_rng(n).integers(-3, 4, (2, n, 1))
        e = np.exp(2.0 * a[..., 0])
        np.testing.assert_allclose(jf.Session(y).run(y, {x: a}), e / e.sum(-1, keepdims=True), rtol=1e-12)
