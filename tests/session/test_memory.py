"""What `Session.report` says of memory is what a run takes: of its arena, and of the process."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import jitflow as jf

ROOT = Path(__file__).resolve().parents[2]


def peak_of(report: str, **dims: int) -> int:
    """Return the bytes that a report states for these sizes."""
    found = re.search(r"^peak memory of a run besides inputs and outputs: (.*) bytes$", report, re.MULTILINE)
    assert found is not None, report
    return int(eval(found[1], {"max": max, "min": min}, dims))


@contextmanager
def leases(session: jf.Session) -> Iterator[list[int]]:
    """Collect the bytes that the runs of `session` lease."""
    taken: list[int] = []
    pool = session._arenas
    lease = pool.lease

    def noted(nbytes: int):  # type: ignore[no-untyped-def]
        taken.append(nbytes)
        return lease(nbytes)

    pool.lease = noted  # type: ignore[method-assign]
    yield taken
    pool.lease = lease  # type: ignore[method-assign]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_report_states_the_bytes_that_a_run_leases(threads: int) -> None:
    x = jf.placeholder("x", jf.float32, ("n", "m"))
    w = jf.constant(np.ones((64, 8), np.float32))
    rows = jf.sort(x, axis=-1)
    y = jf.cumulative_sum(jf.sort(rows * 2.0, axis=0), axis=0) + rows
    fixed = jf.softmax(jf.placeholder("z", jf.float32, (300, 64)) @ w)
    for fetch, feed in ((y, "x"), (fixed, "z"), (jf.exp(x), "x")):
        with jf.Session(fetch, threads=threads) as session, leases(session) as taken:
            function = session.function([feed], fetch, native=False)
            for n, m in ((300, 64),) if feed == "z" else ((300, 64), (7, 1), (0, 5)):
                function(np.ones((n, m), np.float32))
                assert taken[-1] == peak_of(session.report(), n=n, m=m)


CHILD = """
import os, re, sys
import numpy as np
import jitflow as jf

def rss(line):
    with open("/proc/self/status") as f:
        return int(next(x for x in f if x.startswith(line)).split()[1]) * 1024

x = jf.placeholder("x", jf.float32, ("n", 256))
rows = jf.sort(x, axis=-1)
y = jf.cumulative_sum(jf.sort(rows * 2.0, axis=-1), axis=0) + rows
with jf.Session(y, threads=1) as session:
    run = session.function([x], y)
    given = np.ones((1 << 17, 256), np.float32)
    out = np.zeros_like(given)
    run(given[:9], out=out[:9])
    before = rss("VmRSS")
    run(given, out=out)
    print(rss("VmHWM") - before)
    held = rss("VmRSS")
    freed = session.trim()
    print(held - rss("VmRSS"), freed)
    print(session.report())
"""


def test_the_process_grows_by_what_the_report_states_and_trim_gives_it_back() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    grown, given_back, report = done.stdout.split("\n", 2)
    peak = peak_of(report, n=1 << 17)
    assert peak >= 1 << 28
    # Arenas are rounded up to one of four sizes between powers of two, and a large one to whole pages of 2 MiB.
    assert 0.95 * peak <= int(grown) <= 1.25 * peak + (8 << 20)
    shrunk, freed = map(int, given_back.split())
    assert shrunk >= 0.9 * peak
    assert freed >= peak
