"""A product of halves that follows a product keeps its sums in rows as long as all of its panels."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_two_products_of_halves_in_a_row() -> None:
    x = jf.placeholder("x", jf.float16, ("m", 67))
    y = x @ jf.constant(np.ones((67, 3), np.float16)) @ jf.constant(np.ones((3, 67), np.float16))
    with jf.Session(y) as session:
        for m in (1, 7, 32, 97):
            np.testing.assert_array_equal(session.run(y, {x: np.ones((m, 67), np.float16)}), np.full((m, 67), 201))
