"""An integer converted by way of a float saturates where it would wrap at once."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_integers_saturate_by_way_of_a_float() -> None:
    x = jf.placeholder("x", jf.int32, (4,))
    y = [x.astype(jf.float64).astype(d) for d in (jf.int8, jf.uint8, jf.int16, jf.int32, jf.int64)]
    values = np.array([-(2**31), -129, 127, 300], np.int32)
    with jf.Session(y) as session:
        got = session.run(y, {x: values})
    for a, b in zip(got, jf.interpret(y, {x: values}), strict=True):
        np.testing.assert_array_equal(a, b)
    assert got[0].tolist() == [-128, -128, 127, 127]
    assert got[1].tolist() == [0, 0, 127, 255]
    assert got[3].tolist() == values.tolist()
