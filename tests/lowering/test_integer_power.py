"""Powers of integers: the definition of ``pow`` for each width, compiled, against Python's."""

from __future__ import annotations

import numpy as np

import jitflow as jf
from jitflow.dtypes import ALL, DType
from jitflow.expr import wrap

INTEGERS = [d for d in ALL if d.is_integer]


def power(x: int, y: int, dtype: DType) -> int:
    if y < 0:
        return {1: 1, -1: -1 if y % 2 else 1}.get(x, 0)
    return wrap(pow(x, y, 1 << dtype.bits), dtype)


def test_integer_powers_wrap_and_negative_exponents_give_truncated_fractions() -> None:
    fetches, feeds, expected = [], {}, []
    for dtype in INTEGERS:
        bases = [0, 1, 2, 3, 7, 10, dtype.min, dtype.max, *([-1, -3] if dtype.is_signed else [dtype.max - 2])]
        exponents = [0, 1, 2, 3, dtype.bits - 1, 100, dtype.max - 1, dtype.max]
        exponents += [-1, -2, dtype.min] if dtype.is_signed else [dtype.max // 2, dtype.max // 2 + 1]
        x, y = jf.placeholder(f"x_{dtype}", dtype, (None,)), jf.placeholder(f"y_{dtype}", dtype, (None,))
        pairs = [(a, b) for a in bases for b in exponents]
        feeds |= {x: np.array([a for a, _ in pairs], dtype.np), y: np.array([b for _, b in pairs], dtype.np)}
        fetches.append(x**y)
        expected.append(np.array([power(a, b, dtype) for a, b in pairs], dtype.np))
    for got, oracle, want in zip(
        jf.Session(fetches).run(fetches, feeds), jf.interpret(fetches, feeds), expected, strict=True
    ):
        np.testing.assert_array_equal(got, want, err_msg=str(want.dtype), strict=True)
        np.testing.assert_array_equal(oracle, want, err_msg=str(want.dtype), strict=True)
