"""F45: the same inputs give the same bits, for any number of threads, in any run and beside any other."""

from __future__ import annotations

import threading

import numpy as np

import jitflow as jf
from jitflow import config
from tests.support.bits import same_bits

F32 = np.float32


def model() -> tuple[jf.Tensor, list[jf.Tensor]]:
    """Return results whose bits depend on the order of their sums."""
    x = jf.placeholder("x", jf.float32, ("n", 130))
    w = jf.constant(np.random.default_rng(1).standard_normal((130, 70)).astype(F32))
    h = x @ w
    return x, [h, jf.sum(x), jf.sum(x, axis=0), jf.var(h, axis=1), jf.softmax(h), jf.cumulative_sum(h[:, 0])]


def test_f45_bits_do_not_depend_on_the_number_of_threads() -> None:
    x, fetches = model()
    feed = np.random.default_rng(0).standard_normal((301, 130)).astype(F32) * 1e3
    with jf.Session(fetches) as session:
        want = session.run(fetches, {x: feed})
    for threads in (1, 2, 7, 64):
        with jf.Session(fetches, threads=threads) as session:
            assert all(map(same_bits, session.run(fetches, {x: feed}), want)), threads
    with config.override(threads=3), jf.Session(fetches) as session:
        assert all(map(same_bits, session.run(fetches, {x: feed}), want))


def test_f45_bits_do_not_depend_on_what_runs_beside() -> None:
    x, fetches = model()
    feed = np.random.default_rng(0).standard_normal((301, 130)).astype(F32) * 1e3
    with jf.Session(fetches) as session:
        want = session.run(fetches, {x: feed})
        same: list[bool] = []

        def work() -> None:
            same.extend(all(map(same_bits, session.run(fetches, {x: feed}), want)) for _ in range(5))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    assert same == [True] * 20
