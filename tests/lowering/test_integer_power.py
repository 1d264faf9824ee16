"""Powers of integers: the definition of ``pow`` on i32 and i64, compiled, against the oracle."""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf


@pytest.mark.parametrize("dtype", [jf.int32, jf.int64], ids=str)
def test_integer_powers_wrap_and_negative_exponents_give_truncated_fractions(dtype) -> None:
    info = np.iinfo(dtype.np)
    bases = np.array([0, 1, -1, 2, -3, 7, 10, info.min, info.max], dtype.np)
    exponents = np.array([0, 1, 2, 3, 31, 62, 63, 1000, -1, -2, info.min, info.max], dtype.np)
    x, y = jf.placeholder("x", dtype, ("n",)), jf.placeholder("y", dtype, ("n",))
    feeds = {x: np.repeat(bases, len(exponents)), y: np.tile(exponents, len(bases))}
    z = x**y
    np.testing.assert_array_equal(jf.Session([z]).run(z, feeds), jf.interpret(z, feeds))
