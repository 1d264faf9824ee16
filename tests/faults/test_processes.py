"""Faults of resources and processes: bad calls in processes of their own, fork, exit, memory, devices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import pytest

import jitflow as jf
from jitflow import config
from lowering.program import Program
from runtime import cpu

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import os, sys, threading, time
import numpy as np
import jitflow as jf
x = jf.placeholder("x", jf.float32, ("n",))
w = jf.variable("w", np.arange(4, dtype=np.float32))
y = jf.exp(x) * jf.sum(w)
feed = np.zeros(5, np.float32)
"""


def run(program: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `program` in a fresh process; it must neither hang nor end by a signal."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        check=False,
        env={**os.environ, "JITFLOW_THREADS": "3"},  # there are workers, on a machine of one processor as well
    )
    assert done.returncode >= 0, f"ended by signal {-done.returncode}: {done.stderr}"
    return done


@pytest.mark.parametrize("part", ["building", "calling", "running", "legal", "more"])
def test_every_bad_call_ends_in_the_error_promised_and_breaks_nothing(part: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.faults.attacks", part],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    assert re.fullmatch(r"[1-9][0-9]+ attacks, 0 failed\n", done.stdout)


FORKS = """
session = jf.Session([y])
f = session.function([x], y)
want = session.run(y, {x: feed}).tolist()
stop = threading.Event()
def busy():
    k = 0
    while not stop.is_set():
        k += 1
        with jf.Session(jf.sin(x) * float(k)) as other:
            other.run(jf.sin(x) * float(k), {x: feed})
        f(feed)
threads = [threading.Thread(target=busy) for _ in range(2)]
for t in threads: t.start()
failed = 0
for round in range(5):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        import signal
        signal.alarm(20)
        try:
            assert f(feed).tolist() == want
            assert session.run([y, x], {x: feed})[0].tolist() == want
            z = jf.cos(x) * float(round)
            with jf.Session(z) as mine:
                assert mine.run(z, {x: feed}).tolist() == [float(round)] * 5
            session.close()
        except jf.ForkError:
            pass
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for t in threads: t.join()
assert f(feed).tolist() == want
sys.exit(failed != 0)
"""


def test_f51_a_forked_child_works_while_the_parent_compiles_and_runs() -> None:
    done = run(FORKS)
    assert done.returncode == 0, done.stdout + done.stderr


LOCKS = """
import signal
from jitflow import graph, tensor, types
from lowering import program, target
session = jf.Session([y])
f = session.function([x], y)
held, leave = threading.Barrier(2), threading.Event()
def hold():
    locks = [graph._LOCK, tensor._LOCK, types._LOCK, program._LOCK, target._START, session._lock]
    for lock in locks: lock.acquire()
    held.wait()
    leave.wait()
    for lock in reversed(locks): lock.release()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    new = jf.cos(jf.placeholder("new", jf.float32, ("another_dim",))) + 3.0
    with jf.Session(new) as mine:
        assert mine.run(new, {"new": [0.0]}).tolist() == [4.0]
    assert session.run([y, x], {x: feed})[0].tolist() == [6.0] * 5
    assert f(feed).tolist() == [6.0] * 5
    session.close()
    os._exit(0)
status = os.waitpid(child, 0)[1]
leave.set()
thread.join()
sys.exit(status != 0)
"""


def test_f51_locks_that_another_thread_holds_at_the_fork_do_not_stop_the_child() -> None:
    done = run(LOCKS)
    assert done.returncode == 0, done.stdout + done.stderr


EXIT_WHILE_RUNNING = """
big = np.zeros(200_000, np.float32)
session = jf.Session([y])
f = session.function([x], y)
def busy():
    while True:
        f(big); session.run(y, {x: big})
for _ in range(2): threading.Thread(target=busy, daemon=True).start()
time.sleep(0.1)
print("done")
"""

LONG = """
z = jf.placeholder("z", jf.int64, ("n",))
long = z
for _ in range(16):
    long = (long * 5 + 7) // (long + 3)
session = jf.Session(long)
f = session.function([z], long)
big = np.arange(1 << 22)
"""

EXIT_IN_A_RUN = (
    LONG
    + """
g = session.function([z], long, native=False)
for h in (f, g):
    threading.Thread(target=h, args=(big,), daemon=True).start()
time.sleep(0.05)
del session, f, g, h
print("done")
"""
)

EXIT_AFTER_A_RUN = (
    LONG
    + """
threading.Thread(target=lambda: print("done" if f(big)[0] == 3 else "wrong", flush=True)).start()
time.sleep(0.05)
"""
)

EXIT_FROM_A_RUN = (
    LONG
    + """
import signal
signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(0 if print("done") is None else 1))
signal.setitimer(signal.ITIMER_REAL, 0.05)
f(np.tile(big, 4))
"""
)

EXIT_WITH_REFERENCES = """
import atexit, weakref
session = jf.Session([y])
f = session.function([x], y)
f(feed)
class Late:
    def __del__(self, f=f, feed=feed):
        f(feed)
late = Late()
cycle = [late, session]; cycle.append(cycle)
atexit.register(lambda: print(f(feed)[0] == 6.0 and "done"))
sys.f = f
"""


@pytest.mark.parametrize(
    "program",
    [EXIT_WHILE_RUNNING, EXIT_IN_A_RUN, EXIT_AFTER_A_RUN, EXIT_FROM_A_RUN, EXIT_WITH_REFERENCES],
    ids=["running", "daemons in a run", "a thread in a run", "a handler in a run", "references"],
)
def test_f53_the_interpreter_exits_cleanly(program: str) -> None:
    done = run(program)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "done"
    assert "Error" not in done.stderr


def test_f54_a_gpu_that_is_not_there_is_a_device_error_and_the_cpu_goes_on() -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.exp(x)
    with pytest.raises(jf.DeviceError, match="cuda") as caught:
        jf.Session(y, device="cuda:99")
    assert isinstance(caught.value, RuntimeError)
    with jf.Session(y) as session:
        assert session.run(y, {x: [0]}) == [1]


@pytest.mark.parametrize("name", ["z80", "x86-64-v9", "", "nvptx:sm_90", "nvptx", "X86-64-V3", "cpu; rm"])
def test_f54_unknown_targets_are_refused(name: str) -> None:
    x = jf.placeholder("x", jf.float32, ("n",))
    with config.override(target_cpu=name):
        if name == "":
            jf.Session(jf.exp(x)).close()
        else:
            with pytest.raises(jf.DeviceError, match=r"target is called|is no CPU"):
                jf.Session(jf.exp(x))


def test_f55_executable_memory_that_is_forbidden_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden() -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(llvm, "check_jit_execution", forbidden)
    cpu._check_executable_memory.cache_clear()
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.tanh(x) * 7.0
    with pytest.raises(jf.CompileError, match="may not make memory executable"):
        jf.Session(y)
    monkeypatch.undo()
    with jf.Session(y) as session:
        assert session.run(y, {x: [0]}) == [0]


def test_f49_kernels_are_cut_so_that_compiling_grows_with_the_graph_and_no_faster() -> None:
    """The budget is the size of a kernel: what would go over it becomes two. (A graph over its limit: F8.)"""
    x = jf.placeholder("x", jf.float32, (64,))
    sizes = []
    for length in (300, 900):
        y = x
        for k in range(length):
            y = jf.tanh(y) * float(k + 2)
        program = jf.Session(y, load=False)._default.made_by.lowered.program
        assert isinstance(program, Program)
        sizes.append((max(len(g.members) for g in program.groups), len(program.llvm)))
    (largest, text), (largest_of_more, longer) = sizes
    assert largest == largest_of_more < 300
    assert 2.5 < longer / text < 3.5
