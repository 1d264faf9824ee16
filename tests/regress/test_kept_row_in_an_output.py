"""A row kept where an output will be is not read again once the output has been written there."""

from __future__ import annotations

import numpy as np

import jitflow as jf


def test_statistics_of_a_softmax_that_is_fetched_too() -> None:
    x = jf.placeholder("x", jf.float64, ("n", 37))
    s = jf.softmax(x)
    fetches = [s, jf.var(s, axis=-1), jf.sum(s * s, axis=-1)]
    data = np.random.default_rng(0).standard_normal((5, 37))
    with jf.Session(fetches) as session:
        fused = session.run(fetches, {x: data})
    with jf.config.override(fuse=False), jf.Session(fetches) as session:
        plain = session.run(fetches, {x: data})
    for a, b in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(fused[1], fused[0].var(axis=-1), rtol=1e-10)


def test_a_row_is_not_kept_where_an_earlier_pass_writes() -> None:
    """Of two outputs of a row, the exponentials may lie where the later one will be, not the earlier."""
    x = jf.placeholder("x", jf.float64, ("n", 37))
    e = jf.exp(x)
    share = e / jf.sum(e, axis=-1, keepdims=True)
    rest = e - jf.max(share, axis=-1, keepdims=True)
    data = np.random.default_rng(0).standard_normal((5, 37))
    with jf.Session([share, rest]) as session:
        got = session.run([share, rest], {x: data})
    want = np.exp(data) / np.exp(data).sum(-1, keepdims=True)
    np.testing.assert_allclose(got[0], want, rtol=1e-12)
    np.testing.assert_allclose(got[1], np.exp(data) - want.max(-1, keepdims=True), rtol=1e-12)
