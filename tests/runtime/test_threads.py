"""The worker pool: who does which iterations, how workers wake and sleep, where they run, what shares them."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from lowering.cpu import compile_object
from lowering.plan_llvm import DEFAULT_MXCSR
from lowering.pool import emit_pool, pool_object
from lowering.target import from_name, host
from runtime import threads
from runtime.cpu import LoadedCode, load_object, read_symbols
from runtime.threads import IDLE, MAX_WORKERS, PARKED, UNBORN, Team, place, processors, team

#: Tasks for x86, where each thread has a control word that says whether subnormal numbers are kept.
X86_TASKS = f"""
define i1 @environment(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %end) {{
  ; waits until as many threads are here as word 0 says; word 1 counts them, the rest are their control words
  %word = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %control = load i32, ptr %word
  %wide = zext i32 %control to i64
  %here = getelementptr i64, ptr %frame, i64 1
  %number = atomicrmw add ptr %here, i64 1 seq_cst
  %k = add i64 %number, 2
  %mine = getelementptr i64, ptr %frame, i64 %k
  store i64 %wide, ptr %mine
  %all = load i64, ptr %frame
  br label %wait
wait:
  %now = load atomic i64, ptr %here seq_cst, align 8
  %met = icmp sge i64 %now, %all
  br i1 %met, label %done, label %wait
done:
  ret i1 false
}}
define void @share_flushing(ptr %team, ptr %frame, i64 %end) {{
  %word = alloca i32
  store i32 {DEFAULT_MXCSR | 0x8040}, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  %run = load ptr, ptr %team
  %stopped = call i1 %run(ptr %team, ptr @environment, ptr %frame, i64 %end, i64 1, ptr null, i64 0, ptr null)
  store i32 {DEFAULT_MXCSR}, ptr %word
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}}
"""

#: Iterations that take as long as a run goes without a look: each of them is much work, to be shared at once.
LONG = 1

#: Tasks in LLVM text. A frame is a table of words; what it holds, each task says.
TASKS = """
define i1 @mark(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %end) {
  ; adds 1 to byte i of the memory at word 0 for each iteration i, and counts the calls in word 1
  %bytes = load ptr, ptr %frame
  %calls = getelementptr i64, ptr %frame, i64 1
  %before = atomicrmw add ptr %calls, i64 1 monotonic
  br label %next
next:
  %i = phi i64 [ %begin, %0 ], [ %after, %next ]
  %byte = getelementptr i8, ptr %bytes, i64 %i
  %old = load i8, ptr %byte
  %new = add i8 %old, 1
  store i8 %new, ptr %byte
  %after = add i64 %i, 1
  %more = icmp slt i64 %after, %end
  br i1 %more, label %next, label %done
done:
  ret i1 false
}
define i1 @meet(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %end) {
  ; waits until as many threads are here as word 0 says; word 1 counts them, the rest are where their scratch was
  %here = getelementptr i64, ptr %frame, i64 1
  %number = atomicrmw add ptr %here, i64 1 seq_cst
  %k = add i64 %number, 2
  %mine = getelementptr i64, ptr %frame, i64 %k
  %address = ptrtoint ptr %scratch to i64
  store i64 %address, ptr %mine
  %all = load i64, ptr %frame
  br label %wait
wait:
  %now = load atomic i64, ptr %here seq_cst, align 8
  %met = icmp sge i64 %now, %all
  br i1 %met, label %done, label %wait
done:
  ret i1 false
}
define i1 @stop(ptr %frame, ptr %scratch, ptr %watch, i64 %begin, i64 %end) {
  ; counts its calls in word 0, and gives up in the call whose number word 1 holds; else it asks its watch at length
  %number = atomicrmw add ptr %frame, i64 1 seq_cst
  %limit.at = getelementptr i64, ptr %frame, i64 1
  %limit = load i64, ptr %limit.at
  %last = icmp eq i64 %number, %limit
  br i1 %last, label %give.up, label %look
give.up:
  ret i1 true
look:
  %k = phi i64 [ 0, %0 ], [ %k.next, %go.on ]
  %unwatched = icmp eq ptr %watch, null
  br i1 %unwatched, label %go.on, label %ask
ask:
  %question = load ptr, ptr %watch
  %answer = call i32 %question(ptr %watch)
  %bad = icmp ne i32 %answer, 0
  br i1 %bad, label %give.up, label %go.on
go.on:
  %k.next = add i64 %k, 1
  %more = icmp slt i64 %k.next, 2000
  br i1 %more, label %look, label %done
done:
  ret i1 false
}
"""


@functools.cache
def tasks() -> LoadedCode:
    return load_object(compile_object(TASKS, host()))


def share(
    helpers: Team, task: str, frame: Any, end: int, *, limit: int = LONG, scratch: int = 0, stride: int = 0
) -> bool:
    """Run a task as programs do, without the GIL; return whether it was stopped."""
    run, address = RUN(helpers.run), tasks().address(task)
    return bool(run(ctypes.addressof(helpers), address, frame.ctypes.data, end, limit, scratch, stride, None))


#: The type of ``pool.run``.
RUN = ctypes.CFUNCTYPE(
    ctypes.c_bool, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
)


def team_of(workers: int) -> Team:
    found = team(workers, pool_object)
    assert found is not None
    return found


def marks(helpers: Team, end: int, limit: int = LONG) -> tuple[np.ndarray[Any, Any], int]:
    """Return how often each iteration was done, and in how many calls."""
    done = np.zeros(end, np.uint8)
    frame = np.array([done.ctypes.data, 0])
    assert not share(helpers, "mark", frame, end, limit=limit)
    return done, int(frame[1])


def asleep() -> None:
    """Wait until every worker that there is sleeps."""
    pool = threads._pool
    assert pool is not None
    limit = time.monotonic() + 20
    while not {w.mailbox for w in pool._workers} <= {PARKED, UNBORN}:
        assert time.monotonic() < limit
        time.sleep(0.001)


# ---- who does what


@pytest.mark.parametrize("workers", [2, 3, 20])
def test_every_iteration_is_done_once(workers: int) -> None:
    helpers = team_of(workers)
    for end in (1, 2, 33, 1000):
        for limit in (1, 7):
            done, calls = marks(helpers, end, limit)
            assert (done == 1).all()
            # In pieces that are no longer than what a run may do without a look.
            assert -(-end // limit) <= calls <= end


def test_all_workers_of_the_team_come_each_with_scratch_of_its_own() -> None:
    for workers in (2, 5):
        frame = np.zeros(2 + workers, np.int64)
        frame[0] = workers
        share(team_of(workers), "meet", frame, workers, scratch=1 << 20, stride=4096)
        assert sorted(frame[2:]) == [(1 << 20) + 4096 * k for k in range(workers)]


def test_no_more_workers_come_than_the_team_has() -> None:
    team_of(5)
    frame = np.zeros(2 + 40, np.int64)
    frame[0] = 1  # nobody waits
    share(team_of(2), "meet", frame, 40, scratch=1 << 20, stride=4096)
    assert set(frame[2:]) <= {1 << 20, (1 << 20) + 4096}


def test_work_that_does_not_pay_is_done_alone() -> None:
    helpers = team_of(2)
    asleep()
    # 20 iterations of a nanosecond each.
    done, calls = marks(helpers, 20, limit=200_000)
    assert (done == 1).all()
    assert calls == 1


def test_short_jobs_in_a_row_wake_a_worker_and_far_apart_they_do_not() -> None:
    helpers, done = team_of(2), np.zeros(20, np.uint8)
    marks(helpers, 8)  # from now on there is a worker
    frame = np.array([done.ctypes.data, 0])
    # 20 iterations of a microsecond each: too little for a wake-up.
    job = (ctypes.addressof(helpers), tasks().address("mark"), frame.ctypes.data, 20, 200, None, 0, None)
    run, pool = RUN(helpers.run), threads._pool
    assert pool is not None
    worker = pool._workers[0]

    def wakes(pause: float) -> bool:
        asleep()
        for _ in range(10):
            run(*job)
            if worker.mailbox != PARKED:
                return True
            if pause:
                time.sleep(pause)
        return False

    assert not wakes(0.001)
    # They follow each other within microseconds, unless other processes come between.
    assert any(wakes(0) for _ in range(50))


@pytest.mark.parametrize("last", [0, 5])
def test_one_who_gives_up_stops_the_others(last: int) -> None:
    frame = np.array([0, last])
    assert share(team_of(3), "stop", frame, 100_000)
    assert frame[0] < 1000


@pytest.mark.skipif(not host().triple.startswith("x86_64"), reason="x86 only")
def test_workers_keep_subnormal_numbers_whatever_the_thread_that_starts_them_does() -> None:
    code = load_object(compile_object(X86_TASKS, host()))
    flushing = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(code.address("share_flushing"))
    # Some of these workers have never been needed before.
    workers = 24
    frame = np.zeros(2 + workers, np.int64)
    frame[0] = workers
    flushing(ctypes.addressof(team_of(workers)), frame.ctypes.data, workers)
    words = sorted(word & ~0x3F for word in frame[2:])  # without what has happened
    assert words == [DEFAULT_MXCSR] * (workers - 1) + [DEFAULT_MXCSR | 0x8040]


# ---- sharing the pool


def test_several_callers_share_the_workers_and_never_wait_for_each_other() -> None:
    teams = [team_of(n) for n in (2, 3, 7)]
    failed: list[str] = []

    def work(number: int) -> None:
        for k in range(60):
            done, _ = marks(teams[(number + k) % 3], 200 + number)
            if not (done == 1).all():
                failed.append(f"{number}, {k}")

    callers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(60)
        assert not t.is_alive()
    assert failed == []


def test_a_task_may_share_work_itself() -> None:
    """A signal handler may run a program in the middle of another one."""
    helpers, inner = team_of(3), []

    def look(watch: int) -> int:
        if len(inner) < 20:
            inner.append((marks(helpers, 50)[0] == 1).all())
        return 0

    callback = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(look)
    watch = (ctypes.c_void_p * 4)(ctypes.cast(callback, ctypes.c_void_p))
    run = RUN(helpers.run)
    frame = np.array([3, 0, 0, 0, 0])
    assert not run(ctypes.addressof(helpers), tasks().address("meet"), frame.ctypes.data, 3, 1, None, 0, watch)
    assert inner
    assert all(inner)


def test_workers_that_are_idle_go_to_sleep_and_wake_up_again() -> None:
    helpers, pool = team_of(4), threads._pool
    assert pool is not None
    for _ in range(5):
        assert (marks(helpers, 64)[0] == 1).all()
        assert {w.mailbox for w in pool._workers[:3]} <= {PARKED, IDLE, UNBORN}
        asleep()


# ---- places


def test_workers_are_spread_over_the_processors_beginning_after_the_callers() -> None:
    assert place(1, [0, 1], 0) == ([1], 0)
    assert place(1, [0, 1], 1) == ([0], 1)
    assert place(3, [0, 2, 4, 6], 4) == ([6, 0, 2], 4)
    assert place(2, [0, 2, 4, 6], 4) == ([6, 0], 4)
    assert place(4, [0, 1], 1) == ([0, 1, 0, 1], -1)
    assert place(1, [3], 3) == ([3], -1)
    assert place(2, [5, 6, 7], -1) == ([6, 7], 5)
    assert place(0, [0, 1], 0) == ([], 0)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads cannot be bound to processors here")
def test_workers_are_bound_to_processors_that_the_process_may_use() -> None:
    helpers, pool = team_of(3), threads._pool
    assert pool is not None
    frame = np.zeros(5, np.int64)
    frame[0] = 3
    before = os.sched_getaffinity(0)
    share(helpers, "meet", frame, 3)
    assert os.sched_getaffinity(0) == before  # the caller's own is its own
    for worker in pool._workers[:2]:
        assert worker.thread
        assert os.sched_getaffinity(worker.thread) == {worker.processor} <= before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be bound to processors here")
def test_workers_follow_when_the_process_may_use_other_processors() -> None:
    before = os.sched_getaffinity(0)
    pool = threads._pool
    frame = np.array([3, 0, 0, 0, 0])
    share(team_of(3), "meet", frame, 3)
    assert pool is not None
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors() == [min(before)]
        marks(team_of(3), 10)
        assert {w.processor for w in pool._workers} == {min(before)}
        assert all(os.sched_getaffinity(w.thread) == {min(before)} for w in pool._workers if w.thread)
    finally:
        os.sched_setaffinity(0, before)
    team_of(3)
    assert {w.processor for w in pool._workers[: len(before)]} <= before


# ---- sessions


@pytest.mark.parametrize("bad", [0, -1, 1.5, "x", True, MAX_WORKERS + 1])
def test_a_number_of_threads_that_is_none_is_refused(bad: Any) -> None:
    with pytest.raises(jf.LimitError, match=r"threads must be .*, got "):
        jf.Session(jf.placeholder("x", jf.float32, ("n",)) * 2.0, threads=bad)


def test_the_number_of_threads_comes_from_the_session_the_environment_or_the_machine() -> None:
    y = jf.placeholder("x", jf.float32, ("n",)) * 2.0
    with jf.config.override(threads=5):
        assert jf.Session(y, load=False).threads == 5
        assert jf.Session(y, threads=3, load=False).threads == 3
    with jf.config.override(threads=None):
        assert jf.Session(y, load=False).threads == len(processors())
    with jf.config.override(threads=MAX_WORKERS + 1), pytest.raises(jf.LimitError):
        jf.Session(y)


def test_one_thread_has_no_team_and_neither_have_programs_that_are_always_short() -> None:
    n, fixed = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("x", jf.float32, (64,))
    for y, workers, helpers in ((n, 1, None), (fixed, 3, None), (n, 3, 2)):
        session = jf.Session(jf.exp(y), threads=workers)
        given = session._loaded[0].team
        assert (None if given is None else given.helpers) == helpers
        session.close()


@pytest.fixture(scope="module")
def kinds() -> Iterator[tuple[dict[str, Any], dict[str, Any], list[jf.Session]]]:
    """A fetch of every kind of kernel, feeds that are worth sharing, in odd sizes, and sessions with 1 to 7 threads."""
    rng = np.random.default_rng(0)
    x, m = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("m", jf.float32, ("r", "c"))
    w, i = jf.variable("w", rng.random((203, 131), np.float32)), jf.placeholder("i", jf.int64, ("k",))
    p, v = jf.placeholder("p", jf.float32, (3, 300)), jf.variable("v", rng.random((300, 1501), np.float32))
    kinds = {
        "elementwise": jf.gelu(x),
        "integers": jf.astype(x * 100.0, jf.int64) // 7,
        "sum of a line": jf.sum(x),
        "rows": jf.softmax(m, axis=-1),
        "columns": jf.sum(m, axis=0),
        "argmax": jf.argmax(m, axis=1),
        "layer norm and product": jf.layer_norm(m) @ w,
        "product": jf.matmul(m, m.T),
        "product of few rows": jf.maximum(p @ v, 1.0) + 1.0,
        "transpose": jf.permute_dims(m, (1, 0)) + 1.0,
        "sort": jf.sort(m, axis=-1),
        "scan": jf.cumulative_sum(m, axis=1),
        "gather": jf.take(x, i),
        "pad and concat": jf.concat([jf.pad(m, ((1, 2), (3, 0))), jf.pad(m * 2.0, ((1, 2), (0, 3)))], axis=1),
    }
    feeds = {
        "x": rng.standard_normal(100_003).astype(np.float32),
        "m": rng.standard_normal((517, 203)).astype(np.float32),
        "i": rng.integers(0, 100_003, 50_001),
        "p": rng.random((3, 300), np.float32),
    }
    sessions = [jf.Session(kinds, threads=n) for n in (1, 2, 3, 7)]
    yield kinds, feeds, sessions
    for session in sessions:
        session.close()


def test_f45_the_bits_do_not_depend_on_the_number_of_threads(kinds: Any) -> None:
    fetches, feeds, sessions = kinds
    found = [session.run(fetches, feeds) for session in [*sessions, *sessions[1:]]]
    for name in fetches:
        assert len({r[name].tobytes() for r in found}) == 1, name


def test_what_is_cut_by_the_number_of_workers_is_one_code_for_all() -> None:
    row, v = jf.placeholder("row", jf.float32, (1, 300)), jf.variable("v", np.ones((300, 1501), np.float32))
    texts = {jf.Session(row @ v, threads=n, load=False).dump("llvm") for n in (1, 2, 5)}
    assert len(texts) == 1
    small = jf.variable("small", np.ones((10, 1501), np.float32))
    assert "workers" in jf.Session(row @ v, load=False).dump("plan")
    assert "workers" not in jf.Session(row[:, :10] @ small, load=False).dump("plan")


def test_many_threads_share_sessions_and_the_pool(kinds: Any) -> None:
    fetches, feeds, sessions = kinds
    want = {name: r.tobytes() for name, r in sessions[0].run(fetches, feeds).items()}
    failed: list[str] = []

    def work(number: int) -> None:
        for k in range(2):
            got = sessions[(number + k) % 4].run(fetches, feeds)
            failed.extend(name for name, r in got.items() if r.tobytes() != want[name])

    callers = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for t in callers:
        t.start()
    for t in callers:
        t.join(60)
    assert failed == []


#: The type of ``measure``.
MEASURE = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


def test_scratch_memory_is_there_for_each_worker() -> None:
    x = jf.placeholder("x", jf.float32, ("r", 700))
    y, feed = jf.sort(x, axis=-1), np.random.default_rng(0).random((500, 700), np.float32)
    needed = []
    for workers in (1, 2, 4):
        with jf.Session(y, threads=workers) as session:
            program = session._loaded[0]
            sizes, dims = (ctypes.c_int64 * program.signature.n_sizes)(), (ctypes.c_int64 * 1)(500)
            assert MEASURE(program.measure)(dims, sizes, program.workers) == 0
            needed.append(sizes[0])
            assert (session.run(y, {x: feed}) == np.sort(feed, axis=-1)).all()
    assert needed == [needed[0], 2 * needed[0], 4 * needed[0]]
    assert needed[0] >= 2 * 700 * 4


def test_scratch_for_too_many_workers_is_an_error_before_anything_runs() -> None:
    x = jf.placeholder("x", jf.float32, ("r", "c"))
    with jf.Session(jf.sort(x, axis=-1), threads=1) as session:
        program = session._loaded[0]
        measure = MEASURE(program.measure)
        sizes, dims = (ctypes.c_int64 * 4)(), (ctypes.c_int64 * 2)(1, 1 << 50)
        assert measure(dims, sizes, 1) == 0
        assert measure(dims, sizes, MAX_WORKERS) == len(program.signature.guards) + 1


def test_an_index_out_of_range_is_found_by_any_worker() -> None:
    x, i = jf.placeholder("x", jf.float32, ("n",)), jf.placeholder("i", jf.int64, ("k",))
    index = np.zeros(100_000, np.int64)
    index[[60_000, 99_999]] = 1 << 40
    with jf.Session(jf.take(x, i), threads=3) as session:
        for _ in range(5):
            with pytest.raises(IndexError, match="position 60000"):
                session.run(jf.take(x, i), {x: np.ones(3, np.float32), i: index})


# ---- the text


def test_the_pool_is_valid_code_for_every_target_and_holds_no_address() -> None:
    for name in ("x86-64-v2", "x86-64-v4", "aarch64"):
        text = emit_pool(from_name(name))
        assert read_symbols(compile_object(text, from_name(name))) == ({"pool.run", "pool.quiesce"}, set())
        assert text == emit_pool(from_name(name))
    assert str(DEFAULT_MXCSR) in emit_pool(from_name("x86-64-v3"))


# ---- fork and exit


def in_a_process(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


def test_nothing_is_started_before_there_is_something_to_share() -> None:
    assert (
        in_a_process("""
            import numpy as np, jitflow as jf
            from runtime import threads
            def count():
                return sum(w.mailbox != threads.UNBORN for w in threads._pool._workers)
            x = jf.placeholder("x", jf.float32, ("n",))
            session = jf.Session(jf.exp(x), threads=1)
            session.run(jf.exp(x), {x: np.zeros(1_000_000, np.float32)})
            print(threads._pool)
            session = jf.Session(jf.exp(x), threads=4)
            print(count())
            session.run(jf.exp(x), {x: np.zeros(10, np.float32)})
            print(count())
            session.run(jf.exp(x), {x: np.zeros(1_000_000, np.float32)})
            print(1 <= count() <= 3)
        """)
        == "None\n0\n0\nTrue\n"
    )


def test_f51_children_of_a_process_with_workers_start_their_own() -> None:
    assert (
        in_a_process("""
            import os, threading, signal
            import numpy as np, jitflow as jf
            from runtime import threads
            x = jf.placeholder("x", jf.float32, ("n",))
            y = jf.gelu(x)
            feed = np.random.default_rng(0).random(300_000, np.float32)
            session = jf.Session(y, threads=3)
            want = session.run(y, {x: feed}).tobytes()
            def busy():
                while True:
                    session.run(y, {x: feed})
            for _ in range(2):
                threading.Thread(target=busy, daemon=True).start()
            for _ in range(5):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)
                    unborn = all(w.mailbox == threads.UNBORN for w in threads._pool._workers)
                    good = all(session.run(y, {x: feed}).tobytes() == want for _ in range(3))
                    grown = jf.Session(y, threads=5).run(y, {x: feed}).tobytes() == want
                    os._exit(0 if unborn and good and grown else 1)
                assert os.waitpid(child, 0)[1] == 0
            assert session.run(y, {x: feed}).tobytes() == want
            print("done", flush=True)
            os._exit(0)
        """)
        == "done\n"
    )


EXITS = {
    "spinning": "session.run(y, {x: feed})",
    "at work": "threading.Thread(target=busy, daemon=True).start(); time.sleep(0.05)",
    "asleep, and used at exit": "import atexit; time.sleep(0.01); atexit.register(lambda: session.run(y, {x: feed}))",
}


@pytest.mark.parametrize("how", EXITS)
def test_f53_a_process_ends_whatever_its_workers_do(how: str) -> None:
    assert (
        in_a_process(f"""
            import threading, time
            import numpy as np, jitflow as jf
            x = jf.placeholder("x", jf.float32, ("n",))
            y = jf.gelu(x)
            feed = np.random.default_rng(0).random(1_000_000, np.float32)
            session = jf.Session(y, threads=3)
            def busy():
                while True:
                    session.run(y, {{x: feed}})
            {EXITS[how]}
            print("done")
        """)
        == "done\n"
    )
