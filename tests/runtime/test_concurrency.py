"""Threads, forks and closing while runs are under way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jitflow.errors import ClosedError
from runtime.arenas import ArenaPool
from runtime.entry import ARRAY
from tests.runtime.programs import add, entry_of, load

F32 = np.float32


def run_in_threads(work: Callable[[int], None], count: int) -> None:
    """Run `work(k)` in `count` threads and raise the first error of any."""
    errors: list[BaseException] = []

    def guarded(k: int) -> None:
        try:
            work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    if errors:
        raise errors[0]


# Work of 20 µs: the GIL is free during the run, so that runs really overlap.
# F52
@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
@pytest.mark.parametrize("work", [0, 20_000], ids=["short", "long"])
@pytest.mark.parametrize("arena", [0, 5000], ids=["no arena", "arena"])
def test_threads_may_hammer_one_entry(native: bool, work: int, arena: int) -> None:
    pool = ArenaPool()
    f = entry_of(add(work=work, arena=arena), ARRAY, native=native, arena=pool)
    calls = 400 if native else 60

    def hammer(k: int) -> None:
        a = np.full(5000 + k, k, F32)
        out = np.empty_like(a)
        for i in range(calls):
            b = np.full(a.shape, i, F32)
            result = f(a, b, out=out) if i % 2 else f(a, b)
            assert (result == k + i).all()

    run_in_threads(hammer, 4)
    assert pool.slot.native_busy == pool.slot.python_busy == 0
    # As many arenas as there were runs at once, and no more.
    assert pool.nbytes <= 4 * 8192


def test_compiled_and_portable_entries_share_one_pool() -> None:
    pool, program = ArenaPool(), load(add(work=20_000, arena=5000))
    entries = [entry_of(program, ARRAY, native=k % 2 == 0, arena=pool) for k in range(4)]

    def hammer(k: int) -> None:
        a = np.full(4000, k, F32)
        for _ in range(60):
            assert (entries[k](a, a) == 2 * k).all()

    run_in_threads(hammer, 4)
    assert program.state.native_running == 0


def test_a_long_run_leaves_the_gil_to_others() -> None:
    f = entry_of(add(work=10**9), ARRAY, native=True)
    a = np.zeros(8_000_000, F32)
    f(a, a)
    running, ticks = True, 0

    def tick() -> None:
        nonlocal ticks
        while running:
            ticks += 1
            time.sleep(0)

    other = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)  # nobody is made to give the GIL up
    try:
        other.start()
        before = ticks
        f(a, a, out=a.copy())
        assert ticks > before
    finally:
        running = False
        sys.setswitchinterval(interval)
        other.join()


# F52
@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
def test_closing_waits_for_runs_and_then_refuses_them(native: bool) -> None:
    for _ in range(5):
        program, pool = load(add(work=20_000, arena=5000)), ArenaPool()
        f = entry_of(program, ARRAY, native=native, arena=pool)
        started = threading.Barrier(4)

        def hammer(k: int, f: Any = f, started: threading.Barrier = started) -> None:
            a = np.full(20_000, k, F32)
            started.wait()
            with contextlib.suppress(ClosedError):
                while True:
                    assert (f(a, a) == 2 * k).all()

        def close(started: threading.Barrier = started, program: Any = program, pool: ArenaPool = pool) -> None:
            started.wait()
            time.sleep(0.002)
            program.close()
            assert program.state.native_running == 0
            pool.close()

        run_in_threads(lambda k, hammer=hammer, close=close: hammer(k) if k else close(), 4)
        assert pool.nbytes == 0


def test_closing_inside_a_run_does_not_wait_for_itself() -> None:
    program = load(add())
    with program.running():
        program.close()
    with pytest.raises(ClosedError), program.running():
        raise AssertionError("a closed program runs")


# F51
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_in_the_middle_of_runs_can_run_and_close() -> None:
    script = textwrap.dedent("""
        import os, sys, threading, time, warnings
        warnings.simplefilter("ignore")  # forking with threads is the point
        import numpy as np
        from runtime.arenas import ArenaPool
        from runtime.entry import ARRAY
        from tests.runtime.programs import add, entry_of, load
        pool, program = ArenaPool(), load(add(work=20_000, arena=5000))
        entries = [entry_of(program, ARRAY, native=n, arena=pool) for n in (True, False)]
        a = np.ones(5000, np.float32)
        def work(f):
            while True:
                f(a, a)
        for f in entries:
            threading.Thread(target=work, args=(f,), daemon=True).start()
        for _ in range(10):
            child = os.fork()
            if child == 0:
                good = all((f(a, a) == 2).all() for f in entries)
                program.close()
                pool.close()
                os._exit(0 if good and pool.nbytes == 0 else 3)
            limit = time.monotonic() + 10
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    assert status == 0, status
                    break
                if time.monotonic() > limit:
                    os.kill(child, 9)
                    sys.exit("the child hangs")
                time.sleep(0.002)
        os._exit(0)
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
