"""A result takes the place of what it is computed from where that is safe, and only there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.tensor import Tensor
from lowering.text import parse_kernel, show
from tests.support.bits import same_bits

X = np.random.default_rng(3).standard_normal((7, 64)).astype(np.float32)


def sorted_rows(x: Tensor) -> Tensor:
    """A kernel of its own, whose result lies in the arena."""
    return jf.sort(x, axis=-1)


def in_place(session: jf.Session) -> int:
    """Return how many launches write to an array that they read."""
    count = 0
    for arguments in re.findall(r"launch \w+\(([^)]*)\)", session.dump("plan")):
        cells = re.findall(r"arena\[\d+\]", arguments)
        count += len(cells) != len(set(cells))
    return count


SAFE: list[Callable[[Tensor], Tensor]] = [
    lambda x: jf.exp(sorted_rows(x)) * 2.0,
    lambda x: jf.reshape(sorted_rows(x), (-1,)) + 1.0,
    lambda x: sorted_rows(x) + x[:, :1],
    lambda x: jf.where(sorted_rows(x) > 0, 1.0, x),
    lambda x: jf.astype(sorted_rows(x), jf.int32) ^ 3,
]


@pytest.mark.parametrize("make", SAFE)
def test_elementwise_work_needs_no_new_memory(make: Callable[[Tensor], Tensor]) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 64))
    y = jf.flip(jf.sort(make(x), axis=-1))
    with jf.Session(y) as session, jf.config.override(fuse=False), jf.Session(y) as unfused:
        assert in_place(session) == 1
        assert same_bits(session.run(y, {x: X}), unfused.run(y, {x: X}))
        assert jf.compare(y, {x: X}).ok
        assert session.run(y, {x: X[:0]}).size == 0


def _read_again(x: Tensor) -> Any:
    s = sorted_rows(x)
    return jf.sort(jf.exp(s), axis=-1) + jf.cumulative_sum(s, axis=-1)


UNSAFE: dict[str, Callable[[Tensor], Any]] = {
    "read at another place, too": lambda x: jf.sort(sorted_rows(x) + jf.flip(sorted_rows(x)), axis=-1),
    "read turned": lambda x: jf.sort(jf.permute_dims(sorted_rows(x), (1, 0)) + 1.0, axis=-1),
    "broadcast": lambda x: jf.sort(jf.sort(jf.sum(x, axis=-1, keepdims=True), axis=0) + x, axis=-1),
    "of another size": lambda x: jf.sort(jf.astype(sorted_rows(x), jf.float64), axis=-1),
    "read later": _read_again,
    "gathered": lambda x: jf.sort(jf.take(sorted_rows(x), jf.argmax(x, axis=-1), axis=-1), axis=-1),
    "an input": lambda x: jf.sort(jf.exp(x), axis=-1),
}


@pytest.mark.parametrize("why", UNSAFE)
def test_what_is_needed_is_not_written_over(why: str) -> None:
    x = jf.placeholder("x", jf.float32, ("n", 64))
    y = UNSAFE[why](x)
    given = X.copy()
    with jf.Session(y) as session:
        assert in_place(session) == 0
        assert jf.compare(y, {x: given}).ok
        session.run(y, {x: given})
    np.testing.assert_array_equal(given, X)


def test_the_text_says_which_arrays_may_be_one() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 64))
    with jf.Session(jf.sort(jf.exp(sorted_rows(x)), axis=-1)) as session:
        text = session.dump("loops", kernel="k1_exp")
    assert "sort_0: f32[n, 64] read aliased, exp_0: f32[n, 64] aliased" in text
    assert show(parse_kernel(text)) == text
