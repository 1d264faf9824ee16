"""Reductions with few results and long axes: cut into blocks by a rule of their types, and equal to numpy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.dtypes import float32, float64, int8
from jitflow.ops.blocks import in_blocks
from jitflow.ops.fold import fold_block
from jitflow.types import named_dim


def test_long_axes_with_few_results_have_blocks() -> None:
    n = named_dim("n")
    assert fold_block(float32, (1 << 20,), (0,)) == 1 << 15
    assert fold_block(float64, (1 << 20,), (0,)) == 1 << 14
    assert fold_block(float32, (15, 1 << 20), (1,)) == 1 << 15
    assert fold_block(float32, (1 << 20, 8), (0,)) == 1 << 12
    assert fold_block(float32, (4096, 1024), (0,)) == 64
    assert fold_block(float32, (n,), (0,)) == 1 << 15
    assert fold_block(int8, (n, 2), (0,)) == 1 << 16


def test_short_axes_and_many_results_have_none() -> None:
    n, m = named_dim("n"), named_dim("m")
    assert fold_block(float32, (1 << 15,), (0,)) == 0
    assert fold_block(float32, (16, 1 << 20), (1,)) == 0
    assert fold_block(float32, (8, 1 << 20), (0,)) == 0
    assert fold_block(float32, (64, 128, 512), (1,)) == 0
    assert fold_block(float32, (m, n), (1,)) == 0
    assert fold_block(float32, (0, 1 << 20), (1,)) == 0
    assert in_blocks(jf.sum(jf.placeholder("x", jf.float32, (100,))).node) is None
    assert in_blocks(jf.exp(jf.placeholder("x", jf.float32, (1 << 20,))).node) is None


@pytest.mark.parametrize("shape", [("n",), ("n", "m")])
def test_the_number_of_blocks_of_a_symbolic_axis_is_not_cut_again(shape: tuple[Any, ...]) -> None:
    x = jf.placeholder("x", jf.float32, shape)
    cut = in_blocks(jf.sum(x).node)
    assert cut is not None
    assert cut.inputs[0].op.name == "fold_blocks"
    assert in_blocks(cut) is None


def test_a_symbolic_axis_of_several_parts_is_cut_once() -> None:
    x, y = (jf.placeholder(name, jf.float32, (name,)) for name in "xy")
    z = jf.concat([x, y, x, y[1:]])
    results = [jf.argmax(z), jf.max(z), jf.sum(z)]
    a, b = np.arange(40_000, dtype=np.float32), np.zeros(5, np.float32)
    with jf.Session(results) as sess:
        at, best, total = sess.run(results, {x: a, y: b})
    assert (at, best) == (39_999, 39_999)
    np.testing.assert_allclose(total, 2 * a.sum(), rtol=1e-5)


def test_a_sum_is_that_of_the_sums_of_its_blocks() -> None:
    x = np.random.default_rng(0).normal(size=100_003).astype(np.float32)
    p = jf.placeholder("x", jf.float32, x.shape)

    def folded(part: np.ndarray) -> np.float32:
        lanes = np.zeros(64, np.float32)
        whole = np.concatenate([part, np.zeros(-len(part) % 64, np.float32)])
        for row in whole.reshape(-1, 64):
            lanes = lanes + row
        while len(lanes) > 1:
            lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
        return np.float32(lanes[0])

    expected = folded(np.array([folded(x[b : b + 32768]) for b in range(0, len(x), 32768)]))
    y = jf.sum(p)
    with jf.Session([y]) as sess:
        assert sess.run(y, {p: x}) == expected
    assert jf.interpret(y, {p: x}) == expected


@pytest.mark.parametrize("n", [0, 1, 32768, 70_001])
def test_symbolic_axes_of_any_length_are_numpys(n: int) -> None:
    x = np.random.default_rng(n).integers(-9, 10, n).astype(np.float64)
    p = jf.placeholder("x", jf.float64, ("n",))
    results = [jf.sum(p), jf.any(p), jf.all(p), *([jf.max(p), jf.argmax(p), jf.argmin(p)] if n else [])]
    expected = [x.sum(), x.any(), x.all(), *([x.max(), x.argmax(), x.argmin()] if n else [])]
    with jf.Session(results) as sess:
        for got, value in zip(sess.run(results, {p: x}), expected, strict=True):
            np.testing.assert_array_equal(got, value)


def test_nothing_has_no_greatest_element() -> None:
    p = jf.placeholder("x", jf.float32, ("n",))
    y = jf.argmax(p)
    with jf.Session([y]) as sess, pytest.raises(jf.FeedError, match="argmax of no elements"):
        sess.run(y, {p: np.zeros(0, np.float32)})


def test_the_first_of_equal_positions_and_of_nans_is_found_in_any_block() -> None:
    p = jf.placeholder("x", jf.float32, (3, 70_000))
    x = np.zeros(p.shape, np.float32)
    x[0, [40_000, 69_000]] = 5
    x[1, [33_000, 66_000]] = np.nan
    x[1, 5] = np.inf
    x[2] = -np.inf
    results = [jf.argmax(p, axis=1), jf.max(p, axis=1)]
    with jf.Session(results) as sess:
        at, best = sess.run(results, {p: x})
    np.testing.assert_array_equal(at, [40_000, 33_000, 0])
    np.testing.assert_array_equal(best, np.array([5, np.nan, -np.inf], np.float32))


@pytest.mark.parametrize("shape", [(3, 5), (3, 64), (2, 3, 70), (4, 1, 64), (70, 2, 3)])
def test_neighbouring_axes_are_folded_as_one_whatever_is_known_of_them(shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(0).normal(size=shape) * 10.0 ** np.arange(shape[-1])[::-1] % 7).astype(np.float32)
    flat = jf.placeholder("flat", jf.float32, (x.size,))
    (expected,) = jf.interpret([jf.sum(flat)], {flat: x.ravel()})
    for dims in (shape, tuple("abc"[: len(shape)]), ("a", *shape[1:])):
        p = jf.placeholder("x", jf.float32, dims)
        with jf.Session([jf.sum(p)]) as sess:
            assert sess.run(jf.sum(p), {p: x}) == expected


def test_axes_that_are_no_neighbours_have_no_blocks() -> None:
    x = np.random.default_rng(0).integers(-9, 10, (40, 3, 2000)).astype(np.int32)
    p = jf.placeholder("x", jf.int32, x.shape)
    y = jf.sum(p, axis=(0, 2))
    with jf.Session([y]) as sess:
        np.testing.assert_array_equal(sess.run(y, {p: x}), x.sum((0, 2)))


def test_columns_are_cut_into_blocks_of_rows() -> None:
    x = np.random.default_rng(0).integers(-9, 10, (1000, 900)).astype(np.float32)
    p = jf.placeholder("x", jf.float32, x.shape)
    results = [jf.sum(p, axis=0), jf.max(p, axis=0), jf.argmin(p, axis=0)]
    with jf.Session(results) as sess:
        for got, value in zip(sess.run(results, {p: x}), (x.sum(0), x.max(0), x.argmin(0)), strict=True):
            np.testing.assert_array_equal(got, value)
