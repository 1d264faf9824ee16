"""``abs(-x)`` of integers without a sign is not ``abs(x)``: ``-x`` wraps around, and abs leaves it."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_abs_of_negative_unsigned_wraps() -> None:
    for dtype in (jf.uint8, jf.uint64, jf.int8, jf.float32):
        x = jf.placeholder("x", dtype, (4,))
        y = abs(-x)
        a = np.array([0, 1, 4, 127], dtype.np)
        np.testing.assert_array_equal(jf.Session(y).run(y, {x: a}), np.abs(-a))
