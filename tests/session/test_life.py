"""The life of a session: what creating it refuses, closing, context managers, threads, memory."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jitflow as jf
from lowering.program import Program
from runtime.arenas import ArenaPool
from runtime.entry import LoadedProgram
from tests.support.bits import same_bits


def graph() -> tuple[jf.Tensor, jf.Tensor]:
    x = jf.placeholder("x", jf.float32, ("n",))
    return x, jf.exp(x) * jf.variable("w", np.full(1, 2.0, np.float32))


ONES = np.ones(3, np.float32)


def test_a_closed_session_refuses_everything(tmp_path: Path) -> None:
    x, y = graph()
    session = jf.Session([y])
    f = session.function([x], y)
    g = session.function([x], {"y": y})
    h = session.function([x], [y, [y]])
    assert f(ONES).shape == (3,)
    session.close()
    for use in (
        lambda: session.run(y, {x: ONES}),
        lambda: session.run([]),
        lambda: session.function([x], y),
        lambda: session.dump("loops"),
        lambda: session.dump_all(tmp_path / "dumps"),
        lambda: session.report(),
        lambda: f(ONES),
        lambda: f(ONES, out=np.empty(3, np.float32)),
        lambda: g(ONES),
        lambda: h(ONES),
        lambda: session.__enter__(),
    ):
        with pytest.raises(jf.ClosedError, match="closed"):
            use()
    assert not (tmp_path / "dumps").exists()
    assert issubclass(jf.ClosedError, RuntimeError)
    assert "closed" in repr(session)


def test_closing_twice_is_fine() -> None:
    _, y = graph()
    session = jf.Session([y])
    session.close()
    session.close()


def test_a_session_is_a_context_manager() -> None:
    x, y = graph()
    with jf.Session([y]) as session:
        assert isinstance(session, jf.Session)
        session.run(y, {x: ONES})
    with pytest.raises(jf.ClosedError):
        session.run(y, {x: ONES})
    with pytest.raises(ZeroDivisionError), jf.Session([y]) as session:
        raise ZeroDivisionError
    with pytest.raises(jf.ClosedError):
        session.run(y, {x: ONES})


def test_results_stay_after_closing() -> None:
    x, y = graph()
    with jf.Session([y]) as session:
        got = session.run(y, {x: ONES})
        want = got.copy()
    gc.collect()
    assert same_bits(got, want)


def test_an_error_leaves_the_session_usable() -> None:
    x, y = graph()
    with jf.Session([y]) as session:
        want = session.run(y, {x: ONES})
        for feeds in ({}, {x: None}, {x: np.ones(3)}, {"nope": 1}, {x: np.ones((3, 1), np.float32)}):
            with pytest.raises((jf.FeedError, TypeError)):
                session.run(y, feeds)
            assert same_bits(session.run(y, {x: ONES}), want)


@pytest.mark.parametrize("device", ["gpu", "", None, 3, "CPU", "cuda", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "rocm:0"])
def test_f54_unknown_devices_are_refused(device: Any) -> None:
    _, y = graph()
    with pytest.raises(jf.DeviceError, match="devices are 'cpu' and 'cuda:N'"):
        jf.Session([y], device=device)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", True, []])
def test_bad_numbers_of_threads_are_refused(threads: Any) -> None:
    _, y = graph()
    with pytest.raises(jf.LimitError, match="threads"):
        jf.Session([y], threads=threads)


def test_results_do_not_depend_on_threads() -> None:
    x = jf.placeholder("x", jf.float32, (1000, 7))
    fetches = [jf.sum(x), jf.softmax(x), jf.sum(x, axis=0)]
    feed = np.random.default_rng(0).standard_normal((1000, 7)).astype(np.float32)
    results = []
    for threads in (None, 1, 2, 64):
        with jf.Session(fetches, threads=threads) as session:
            results.append(session.run(fetches, {x: feed}))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


@pytest.mark.parametrize("fetches", [None, 3, "y", b"y", object(), np.zeros(3), [None], {"a": 3}, ("y",), [[jf]]])
def test_what_is_no_tensor_makes_no_session(fetches: Any) -> None:
    with pytest.raises(jf.GraphError, match="only tensors can be fetched"):
        jf.Session(fetches)


def test_a_structure_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(jf.GraphError, match="nested deeper"):
        jf.Session(endless)
    with pytest.raises(jf.GraphError, match="nested deeper"):
        jf.interpret(endless)


def test_options_are_keywords() -> None:
    _, y = graph()
    with pytest.raises(TypeError):
        jf.Session([y], "cpu")  # type: ignore[misc]
    with pytest.raises(TypeError):
        jf.Session([y], nope=1)  # type: ignore[call-arg]


def test_a_session_without_a_name_is_freed_at_once_with_its_arrays() -> None:
    x, y = graph()
    session = jf.Session([y])
    session.run(y, {x: ONES})
    gone = weakref.ref(session)
    gc.disable()
    try:
        del session
        assert gone() is None
    finally:
        gc.enable()


def test_feeds_are_not_kept() -> None:
    class Sub(np.ndarray[Any, Any]):
        pass

    x, y = graph()
    with jf.Session([y]) as session:
        f = session.function([x], y)
        for run in (lambda a: session.run(y, {x: a}), f):
            feed = ONES.copy().view(Sub)
            gone = weakref.ref(feed)
            run(feed)
            del feed
            assert gone() is None


def test_closed_sessions_leave_nothing_behind() -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(o, (jf.Session, Program, LoadedProgram, ArenaPool)) for o in gc.get_objects())

    x, y = graph()
    before = alive()
    for _ in range(10):
        with jf.Session([y]) as session:
            session.function([x], y)(ONES)
            session.run([x, y], {x: ONES})
    del session
    assert alive() == before


def test_trim_gives_scratch_memory_back() -> None:
    x = jf.placeholder("x", jf.float32, ("n", "n"))
    y = jf.sum(x @ x @ x)
    with jf.Session([y]) as session:
        want = session.run(y, {x: np.ones((64, 64), np.float32)})
        assert session.trim() > 0
        assert session.trim() == 0
        assert same_bits(session.run(y, {x: np.ones((64, 64), np.float32)}), want)


def test_f52_runs_of_many_threads_do_not_disturb_each_other() -> None:
    x = jf.placeholder("x", jf.float32, ("n", 8))
    h = (x @ x.T).named("h")
    y = jf.softmax(h)
    session = jf.Session([y])
    f = session.function([x], y)
    rng = np.random.default_rng(0)
    feeds = [rng.standard_normal((n, 8)).astype(np.float32) for n in (1, 3, 17, 40)]
    want = [session.run(y, {x: a}) for a in feeds]
    failures: list[str] = []

    def work(k: int) -> None:
        for i in range(60):
            n = (i + k) % len(feeds)
            if i % 3 == 0:
                got = session.run(y, {x: feeds[n]})
            elif i % 3 == 1:
                got = f(feeds[n])
            else:
                got = session.run([h, y], {"x": feeds[n]})[1]
            if not same_bits(got, want[n]):
                failures.append(f"thread {k}, run {i}")

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    session.close()
    assert not failures


def test_f52_closing_while_others_run_waits_or_refuses() -> None:
    x, y = graph()
    session = jf.Session([y])
    f = session.function([x], y)
    feed = np.ones(20_000, np.float32)
    want = session.run(y, {x: feed})
    wrong: list[str] = []
    started = threading.Barrier(3)

    def work() -> None:
        started.wait()
        try:
            while True:
                if not (same_bits(f(feed), want) and same_bits(session.run(y, {x: feed}), want)):
                    wrong.append("a result")
        except jf.ClosedError:
            pass
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for t in threads:
        t.start()
    started.wait()
    for _ in range(20):
        f(feed)
    session.close()
    for t in threads:
        t.join(30)
        assert not t.is_alive()
    assert not wrong


def test_threads_may_compile_the_same_new_fetch_set_at_once() -> None:
    x, y = graph()
    z = jf.sum(y).named("z")
    with jf.Session([z]) as session:
        before = session.compilations
        results: list[Any] = []
        threads = [threading.Thread(target=lambda: results.append(session.run([y, z], {x: ONES}))) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(results) == 4
        assert session.compilations == before + 1


def test_code_for_another_machine_is_never_loaded() -> None:
    _, y = graph()
    with jf.config.override(target_cpu="aarch64"):
        with pytest.raises(jf.DeviceError, match=r"cannot run code for aarch64. Create the session with load=False"):
            jf.Session([y])
        assert "fmov" in jf.Session([y], load=False).dump("asm")


def test_all_that_follows_from_constants_is_one_init_program(monkeypatch: pytest.MonkeyPatch) -> None:
    x = jf.placeholder("x", jf.float32, (3,))
    c = jf.constant(np.array([1, 2, 3], np.float32))
    y = x * jf.exp(c) + jf.sum(jf.log(c)) - jf.flip(jf.sin(c))
    ran = []
    once = jf.Session._run_once
    monkeypatch.setattr(jf.Session, "_run_once", lambda self, *args: ran.append(1) or once(self, *args))
    with jf.Session(y) as session:
        got = session.run(y, {x: [0, 0, 0]})
    assert len(ran) == 1
    np.testing.assert_allclose(got, np.log(6) - np.sin([3, 2, 1]), rtol=1e-6)
