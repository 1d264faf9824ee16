"""Random graphs by several threads: every loop shared, one iteration at a time."""

from __future__ import annotations

import jitflow as jf
from runtime import threads
from tests.fuzz.generate import random_case
from tests.fuzz.threads import check_threads, everything_shared


def test_f45_random_graphs_give_the_same_bits_by_three_threads() -> None:
    for seed in range(7000, 7012):
        check_threads(random_case(seed), 3)


def test_small_loops_are_shared_here_and_only_here() -> None:
    x = jf.placeholder("x", jf.float32, (100, 7))
    y = jf.softmax(x, axis=-1)
    with everything_shared(), jf.Session(y, threads=2) as session:
        assert " in chunks of at most 1\n" in session.dump("plan")
        assert session.run(y, {x: [[0.0] * 7] * 100}).shape == (100, 7)
    assert threads._pool is not None
    assert threads._pool._workers[0].mailbox != threads.UNBORN
    assert " in chunks of " not in jf.Session(y, load=False).dump("plan")
