"""Vectors of evenly spaced indices divided by a literal: no vector division is emitted, and the elements are right."""

from __future__ import annotations

import re

import numpy as np

import jitflow as jf


def test_repeated_and_reshaped_axes_are_read_without_vector_divisions() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 48))
    sizes = [*range(2, 20), 31, 32, 33, 47, 63, 64, 65, 100, 255, 257, 1000]
    repeated = {r: jf.repeat(x, r, axis=1) for r in sizes}
    tiled = {r: jf.tile(x[:, : min(r, 48)], (1, 7)) for r in sizes}
    a = np.arange(3 * 48, dtype=np.float32).reshape(3, 48)
    with jf.Session({"repeated": repeated, "tiled": tiled}) as session:
        got = session.run({"repeated": repeated, "tiled": tiled}, {x: a})
        assert not re.search(r"[us](div|rem) <", session.dump("llvm"))
    for r in sizes:
        np.testing.assert_array_equal(got["repeated"][r], np.repeat(a, r, axis=1), err_msg=f"repeat {r}")
        np.testing.assert_array_equal(got["tiled"][r], np.tile(a[:, : min(r, 48)], (1, 7)), err_msg=f"tile {r}")


def test_strides_between_lanes_are_part_of_the_division() -> None:
    x = jf.placeholder("x", jf.float64, (400,))
    pairs = [(step, r) for step in (2, 3, 5, 7, 40) for r in (3, 5, 6, 11, 37, 90)]
    y = [jf.repeat(x, r)[::step] for step, r in pairs]
    a = np.random.default_rng(0).normal(size=400)
    for (step, r), got in zip(pairs, jf.Session(y).run(y, {x: a}), strict=True):
        np.testing.assert_array_equal(got, np.repeat(a, r)[::step], err_msg=f"{r} of which every {step}th")
