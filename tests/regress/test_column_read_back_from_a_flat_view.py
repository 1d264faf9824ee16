"""A column's result read at its place in a flat view is that result, also in the lanes that pad a strip."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_first_row_of_a_softmax_of_columns_by_way_of_a_flat_view() -> None:
    for n, m in ((4, 3), (2, 40), (3, 5)):
        x = jf.placeholder("x", jf.float32, (n, m))
        y = jf.reshape(jf.reshape(jf.softmax(x, axis=0), (n * m,))[:m], (1, m)).astype(jf.float64)
        data = np.random.default_rng(0).standard_normal((n, m)).astype(np.float32)
        with jf.Session(y) as session:
            got = session.run(y, {x: data})
        e = np.exp(data.astype(np.float64))
        np.testing.assert_allclose(got, (e / e.sum(0))[:1], rtol=1e-5)
