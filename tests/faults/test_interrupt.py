"""F50: Ctrl-C during a long run is a KeyboardInterrupt within 100 ms, and breaks nothing else.

The programs run in processes of their own, whose signals are nobody else's. A machine that runs other tests meanwhile
is slow, so the tests allow more time; none of the runs would end in that time by itself.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

#: What is promised, in seconds, and how much of it a loaded machine may take.
PROMISED, ALLOWED = 0.1, 0.4

HEAD = """
import json, os, signal, sys, threading, time
import numpy as np
import jitflow as jf
F32 = np.float32

def interrupted(call, after=0.05):
    # How long after the signal KeyboardInterrupt came, in seconds; None if the call ended by itself.
    sent = []
    def send():
        time.sleep(after)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)
    sender = threading.Thread(target=send)
    sender.start()
    try:
        try:
            call()
            came = None
            sender.join()
            time.sleep(0.2)
        except KeyboardInterrupt:
            came = time.perf_counter() - sent[0]
    except KeyboardInterrupt:  # too late
        came = None
    sender.join()
    return came

def chain(y, n):
    for _ in range(n):
        y = jf.sin(y)
    return y
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HEAD + textwrap.dedent(program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def run(program: str, *, timeout: float = 90) -> str:
    """Run `program` in a fresh process; return what it prints."""
    with start(program) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, f"{process.returncode}: {err}"
    return out


KINDS = """
x, p = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("p", jf.int64, ("n",))
m, q = jf.placeholder("m", jf.float32, ("r", "k")), jf.placeholder("q", jf.float32, ("k", "c"))
w = jf.variable("w", np.arange(4, dtype=F32))
walk = p
for _ in range(200):
    walk = jf.take(p, walk)
line, wide = np.linspace(0, 1, 1 << 20, dtype=F32), np.ones((1, 6_000_000), F32)
square, grid = np.ones((4096, 4096), F32), np.ones((3000, 1000), F32)
cycle = np.roll(np.arange(1 << 20), 77_777)
kinds = {
    "elementwise": (chain(x, 120) + jf.sum(w), [x], [line]),
    "reduction of a line": (jf.sum(chain(x, 120)), [x], [line]),
    "rows": (jf.max(chain(m, 60), axis=1), [m], [grid]),
    "columns": (jf.sum(chain(m, 60), axis=0), [m], [grid]),
    "one row": (jf.sum(chain(m, 30), axis=1), [m], [wide]),
    "softmax": (jf.softmax(chain(m, 30), axis=-1), [m], [wide]),
    "matmul": (m @ q, [m, q], [square, square]),
    "gather": (walk, [p], [cycle]),
}
came = {}
for name, (y, ins, arrays) in kinds.items():
    with jf.Session(y) as session:
        before = [a.copy() for a in arrays]
        small = [np.ascontiguousarray(a[:3, :3] if a.ndim == 2 else np.zeros_like(a[:3])) for a in arrays]
        want = jf.interpret(y, dict(zip(ins, small)))
        for native in NATIVE:
            f = session.function(ins, y, native=native)
            came[f"{name}, {'compiled' if native else 'portable'}"] = interrupted(lambda: f(*arrays))
            # It works as before, and neither inputs nor variables have changed.
            assert all((a == b).all() for a, b in zip(arrays, before))
            np.testing.assert_allclose(f(*small), want, rtol=1e-5)
        state, slot = session._loaded[0].state, session._arenas.slot
        assert (state.native_running, state.handling, slot.native_busy, slot.python_busy) == (0, 0, 0, 0)
    # session closed without waiting for anything
print(json.dumps(came))
"""


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
def test_f50_every_kind_of_long_kernel_is_interrupted(native: bool) -> None:
    came = json.loads(run(KINDS.replace("NATIVE", repr([native]))))
    assert len(came) == 8
    late = {name: seconds for name, seconds in came.items() if seconds is None or seconds > ALLOWED}
    assert not late
    # One of them may have met a busy moment of the machine, but not most.
    assert sorted(came.values())[len(came) // 2] < PROMISED


FROM_OUTSIDE = """
x = jf.placeholder("x", jf.float32, ("n",))
y = chain(x, 120)
big = np.zeros(1 << 21, F32)
with jf.Session(y) as session:
    try:
        sys.stdin.read(1)
        print("running", flush=True)
        while True:
            session.run(y, {x: big})
    except KeyboardInterrupt:
        print(json.dumps(session.run(y, {"x": [0.0]}).tolist()))
"""


def test_f50_ctrl_c_of_a_terminal_ends_a_run() -> None:
    with start(FROM_OUTSIDE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out == "[0.0]\n", err
    assert process.returncode == 0


HANDLERS = """
x = jf.placeholder("x", jf.float32, ("n",))
y = chain(x, 60) + jf.sum(x)
big = np.linspace(0, 1, 1 << 20, dtype=F32)
session = jf.Session(y)
for native in (True, False):
    f = session.function([x], y, native=native)
    want = f(big)
    # A handler that does not raise lets the run go on; it may even use the session.
    calls = []
    def handler(number, frame):
        calls.append(f(np.zeros(3, F32)).tolist())
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
    got = f(big)
    during = len(calls)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert (got == want).all()
    assert during >= 2, during
    assert all(c == [0.0] * 3 for c in calls), calls
    # One that raises something else ends the run with that.
    class Enough(Exception): pass
    def handler(number, frame):
        raise Enough("of it")
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    out = np.empty_like(big)
    try:
        f(big, out=out)
        raise SystemExit("it did not raise")
    except Enough as error:
        assert str(error) == "of it" and error.__context__ is None
    assert (f(big, out=out) == want).all()
    # Nobody needs to handle signals that nobody sends.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

# A handler may close the session in the middle of a run, which then ends as it should.
for native in (True, False):
    session = jf.Session(y)
    f = session.function([x], y, native=native)
    signal.signal(signal.SIGALRM, lambda number, frame: session.close())
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    assert (f(big) == want).all()
    try:
        f(big)
        raise SystemExit("it is not closed")
    except jf.ClosedError:
        pass
print("done")
"""


def test_f50_other_handlers_run_during_a_run_and_may_use_the_session() -> None:
    assert run(HANDLERS) == "done\n"


THREADS = """
x = jf.placeholder("x", jf.float32, ("n",))
y = chain(x, 40) + jf.sum(x)
big = np.linspace(0, 1, 1 << 20, dtype=F32)
session = jf.Session(y)
f = session.function([x], y)
want = f(big)
for native in (True, False):
    f = session.function([x], y, native=native)
    results, ticks, running = [], [], [True]
    def work():
        for _ in range(2):
            results.append(bool((f(big) == want).all()))
    def tick():
        while running:
            ticks.append(time.perf_counter())
            time.sleep(0.001)
    threads = [threading.Thread(target=work) for _ in range(2)]
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    for t in threads: t.start()
    # The main thread runs too and is interrupted; the others never notice.
    def forever():
        while True:
            f(big)
    came = interrupted(forever)
    assert came is not None and came < ALLOWED, came
    for t in threads: t.join()
    assert results == [True] * 4, results
    # While the main thread only waits, the interrupt is its as well.
    thread = threading.Thread(target=work)
    thread.start()
    came = interrupted(lambda: time.sleep(5), after=0.02)
    assert came is not None and came < ALLOWED, came
    thread.join()
    assert results == [True] * 6, results
    running.clear()
    ticker.join()
    assert len(ticks) > 20  # the GIL is free during runs
assert session._loaded[0].state.native_running == 0
print("done")
"""


def test_f50_runs_in_other_threads_are_not_disturbed() -> None:
    assert run(THREADS.replace("ALLOWED", str(ALLOWED))) == "done\n"


OUT = """
x, i = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("i", jf.int64, ("k",))
y = jf.take(chain(x, 120), i)
big, where = np.zeros(1 << 20, F32), np.zeros(5, np.int64)
with jf.Session(y) as session:
    for native in (True, False):
        f = session.function([x, i], y, native=native)
        out = np.full(5, 7, F32)
        assert interrupted(lambda: f(big, where, out=out)) is not None
        assert (out == 7).all()
print("done")
"""


def test_f50_out_of_a_program_that_can_fail_is_not_written_when_it_is_interrupted() -> None:
    assert run(OUT) == "done\n"


FORK = """
x = jf.placeholder("x", jf.float32, ("n",))
y = chain(x, 120) + jf.sum(x)
big = np.zeros(1 << 20, F32)
session = jf.Session(y)
f = session.function([x], y)
def in_thread():
    # The only thread of the child is its main thread, which handles its signals.
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        came = interrupted(lambda: f(big))
        session.close()
        os._exit(0 if came is not None else 1)
    results.append(os.waitpid(child, 0)[1])
results = []
import warnings
warnings.simplefilter("ignore")
thread = threading.Thread(target=in_thread)
thread.start()
thread.join()
# A child forked by a handler goes on with the run it was forked in, or ends.
children = []
def handler(number, frame):
    children.append(os.fork())
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.05)
want = f(np.zeros(2, F32))[0]
good = bool((f(big) == want).all())
session.close()
assert len(children) == 1
if children[0] == 0:
    os._exit(0 if good else 1)
results.append(os.waitpid(children[0], 0)[1])
assert good and results == [0, 0], results
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process with threads")
def test_f50_f51_a_forked_child_is_interrupted_as_its_parent_is() -> None:
    assert run(FORK) == "done\n"
