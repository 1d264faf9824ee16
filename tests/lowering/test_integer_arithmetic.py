"""Integers of every width, compiled for each level of x86-64: arithmetic that wraps, floors, shifts and compares.

Expected values are Python's, on unbounded integers, wrapped into the type.
"""

from __future__ import annotations

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import ALL, DType
from jitflow.expr import wrap

INTEGERS = [d for d in ALL if d.is_integer]


def operands(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of bytes, or pairs of numbers of all sizes, those at the ends of the range among them."""
    if dtype.bits == 8:
        every = np.arange(dtype.min, dtype.max + 1).astype(dtype.np)
        return np.repeat(every, 256), np.tile(every, 256)
    rng = np.random.default_rng(1)
    ends = [0, 1, 2, 3, 7, dtype.bits - 1, dtype.bits, dtype.max // 2, dtype.max // 2 + 1, dtype.max - 1, dtype.max]
    ends += [-1, -2, -3, -7, dtype.min, dtype.min + 1, dtype.min // 2] if dtype.is_signed else [dtype.max // 3]
    sizes = [int(rng.integers(0, 1 << 62)) * 5 >> int(rng.integers(0, 62)) for _ in range(300)]
    numbers = np.array([*ends, *(wrap(n, dtype) for n in sizes)], dtype.np)
    near = np.array(
        [wrap(int(n) * int(m) - k, dtype) for n in numbers[:24] for m in numbers[20:44] for k in (0, 1)], dtype.np
    )
    x = np.concatenate([np.repeat(numbers, len(ends)), near])
    y = np.concatenate([np.tile(numbers[: len(ends)], len(numbers)), np.repeat(numbers[:24], 48)])
    return x, y


def shifted(x: int, n: int, dtype: DType) -> int:
    return x << n if 0 <= n < dtype.bits else 0


RULES = {
    "add": (jf.add, lambda x, y, d: x + y),
    "subtract": (jf.subtract, lambda x, y, d: x - y),
    "multiply": (jf.multiply, lambda x, y, d: x * y),
    "floor_divide": (jf.floor_divide, lambda x, y, d: x // y if y else 0),
    "remainder": (jf.remainder, lambda x, y, d: x % y if y else 0),
    "left shift": (jf.bitwise_left_shift, shifted),
    "right shift": (jf.bitwise_right_shift, lambda x, y, d: x >> y if 0 <= y < d.bits else x >> d.bits),
    "maximum": (jf.maximum, lambda x, y, d: max(x, y)),
    "minimum": (jf.minimum, lambda x, y, d: min(x, y)),
    "less": (jf.less, lambda x, y, d: x < y),
    "xor": (jf.bitwise_xor, lambda x, y, d: x ^ y),
    "negative": (lambda x, y: jf.negative(x), lambda x, y, d: -x),
    "abs": (lambda x, y: jf.abs(x), lambda x, y, d: abs(x)),
    "sign": (lambda x, y: jf.sign(x), lambda x, y, d: (x > 0) - (x < 0)),
    "invert": (lambda x, y: jf.bitwise_invert(x), lambda x, y, d: ~x),
}


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_integers_are_pythons_wrapped(target: str) -> None:
    feeds, fetches, expected, labels = {}, [], [], []
    for dtype in INTEGERS:
        a, b = operands(dtype)
        x, y = jf.placeholder(f"x_{dtype}", dtype, (None,)), jf.placeholder(f"y_{dtype}", dtype, (None,))
        feeds |= {x: a, y: b}
        pairs = list(zip(a.tolist(), b.tolist(), strict=True))
        for label, (function, rule) in RULES.items():
            values = [rule(p, q, dtype) for p, q in pairs]
            result = bool if label == "less" else dtype.np
            expected.append(np.array(values if label == "less" else [wrap(v, dtype) for v in values], result))
            fetches.append(function(x, y))
            labels.append(f"{label} of {dtype}")
    with jf.config.override(target_cpu=target):
        compiled = jf.Session(fetches).run(fetches, feeds)
    oracle = jf.interpret(fetches, feeds) if target == "x86-64-v2" else compiled
    for label, got, by_numpy, want in zip(labels, compiled, oracle, expected, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=label, strict=True)
        np.testing.assert_array_equal(by_numpy, want, err_msg=f"{label} by the oracle", strict=True)


def test_literal_divisors_and_distances_are_no_different() -> None:
    fetches, expected, feeds = [], [], {}
    for dtype in INTEGERS:
        a = operands(dtype)[0][::7]
        x = jf.placeholder(f"x_{dtype}", dtype, (None,))
        feeds[x] = a
        for n in {0, 1, 3, 8, 10, dtype.max, *([-1, -3, -8, dtype.min] if dtype.is_signed else [dtype.max // 2 + 1])}:
            fetches += [x // n, x % n]
            expected += [np.array([wrap(v // n if n else 0, dtype) for v in a.tolist()], dtype.np)]
            expected += [np.array([v % n if n else 0 for v in a.tolist()], dtype.np)]
        for n in (0, 1, dtype.bits - 1, dtype.bits):
            fetches += [x << n, x >> n]
            expected += [np.array([wrap(shifted(v, n, dtype), dtype) for v in a.tolist()], dtype.np)]
            expected += [np.array([v >> n for v in a.tolist()], dtype.np)]
    for node, got, want in zip(fetches, jf.Session(fetches).run(fetches, feeds), expected, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=repr(node.node), strict=True)
