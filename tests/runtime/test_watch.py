"""F50: a run that is asked to stop, and what looks for signals on its behalf."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jitflow.errors import ClosedError, CompileError
from lowering.native import emit_entry
from runtime import abi
from runtime.abi import STOPPED, Watch
from runtime.arenas import ArenaPool
from runtime.cpu import load_object
from runtime.entry import ARRAY, LoadedProgram, PortableEntry, make_entry
from tests.runtime.programs import add, compile_text, entry_of, load

F32 = np.float32
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

#: `add`, but asking its watch before each element: as often as no real program does.
ASKING = """
body:
  %unwatched = icmp eq ptr %watch, null
  br i1 %unwatched, label %go, label %ask
ask:
  %look = load ptr, ptr %watch
  %answer = call i32 %look(ptr %watch)
  %stop = icmp ne i32 %answer, 0
  br i1 %stop, label %stopped, label %go
stopped:
  ret i32 -1
go:
"""


def asking(work: int = 10**9, arena: int = 0) -> LoadedProgram:
    """Return the sum of two arrays as a program that estimates its work as `work`."""
    text, signature = add(work=work, arena=arena)
    text = text.replace("\nbody:\n", ASKING).replace("[ %next, %body ]", "[ %next, %go ]")
    return load((text, signature))


@pytest.fixture(params=[True, False], ids=["compiled", "portable"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def on_alarm() -> Any:
    """Set what SIGALRM does."""
    before = signal.getsignal(signal.SIGALRM)
    yield lambda handler: signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def alarms_during(call: Callable[[], Any]) -> Any:
    """Return what `call` gives, with a SIGALRM every 10 ms."""
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    try:
        return call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def once_inside(program: LoadedProgram, action: Callable[[], Any]) -> Callable[[int, object], None]:
    """Return a handler that takes `action` the first time it is called in the middle of a run of `program`."""

    def handler(number: int, frame: object) -> None:
        if program.state.handling:
            signal.setitimer(signal.ITIMER_REAL, 0)
            action()

    return handler


class Raised(Exception):
    pass


def fail() -> None:
    raise Raised


#: Long enough for several looks (at 20 ns for a question without an answer).
MANY = np.ones(8_000_000, F32)


def test_a_watch_stops_a_run() -> None:
    program, asked = asking(), []
    look = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)(lambda watch: asked.append(watch) or len(asked) == 3)
    watch = Watch(ctypes.cast(look, ctypes.c_void_p))
    a, out = np.ones(10, F32), np.zeros(10, F32)
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 7)(program.run)
    tables = [(ctypes.c_void_p * 2)(*addresses) for addresses in ([a.ctypes.data] * 2, [out.ctypes.data] * 2)]
    dims = (ctypes.c_int64 * 1)(10)
    assert run(*tables, None, None, dims, None, ctypes.byref(watch)) == STOPPED
    assert asked == [ctypes.addressof(watch)] * 3
    assert out.tolist() == [2.0] * 2 + [0.0] * 8
    assert run(*tables, None, None, dims, None, None) == 0
    assert out.tolist() == [2.0] * 10


def test_a_handler_that_raises_ends_the_run_and_nothing_is_held(native: bool, on_alarm: Any) -> None:
    pool, program = ArenaPool(), asking(arena=5000)
    on_alarm(once_inside(program, fail))
    f = entry_of(program, ARRAY, native=native, arena=pool)
    f(MANY[:3], MANY[:3])
    for _ in range(2):
        with pytest.raises(Raised) as caught:
            alarms_during(lambda: f(MANY, MANY))
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
    assert f(MANY[:3], MANY[:3]).tolist() == [2.0] * 3
    assert (program.state.native_running, program.state.handling) == (0, 0)
    assert (pool.slot.native_busy, pool.slot.python_busy) == (0, 0)
    program.close()
    pool.close()
    assert pool.nbytes == 0


def test_a_handler_may_run_and_close_the_program_it_interrupts(native: bool, on_alarm: Any) -> None:
    pool, program = ArenaPool(), asking(arena=5000)
    f = entry_of(program, ARRAY, native=native, arena=pool)
    inside: list[Any] = []

    def action() -> None:
        inside.append(program.state.handling)
        inside.append(f(MANY[:3], MANY[:3]).tolist())
        program.close()
        pool.close()

    on_alarm(once_inside(program, action))
    assert (alarms_during(lambda: f(MANY, MANY)) == 2).all()
    assert inside == [1, [2.0] * 3]
    assert program.state.handling == 0
    with pytest.raises(ClosedError):
        f(MANY[:3], MANY[:3])


def test_runs_of_other_threads_look_for_nothing(native: bool, on_alarm: Any) -> None:
    program, calls = asking(), []
    on_alarm(lambda number, frame: calls.append((threading.get_ident(), program.state.handling)))
    f = entry_of(program, ARRAY, native=native)
    results = []
    thread = threading.Thread(target=lambda: results.append((f(MANY, MANY) == 2).all()))
    thread.start()
    signal.raise_signal(signal.SIGALRM)
    thread.join()
    assert results == [True]
    assert calls == [(threading.get_ident(), 0)]


def test_a_run_that_keeps_the_gil_is_not_interrupted(on_alarm: Any) -> None:
    for work, expected in ((abi.GIL_RELEASE_WORK, 0), (abi.GIL_RELEASE_WORK + 1, 1)):
        program, handling = asking(work), []
        on_alarm(lambda number, frame, p=program, seen=handling: seen.append(p.state.handling))
        f = entry_of(program, ARRAY, native=True)
        alarms_during(lambda f=f: f(MANY, MANY))
        assert max(handling, default=0) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_forked_in_a_handler_may_finish_the_run(native: bool, on_alarm: Any) -> None:
    program, pool = asking(), ArenaPool()
    f = entry_of(program, ARRAY, native=native, arena=pool)
    children: list[int] = []
    on_alarm(once_inside(program, lambda: children.append(os.fork())))
    result = alarms_during(lambda: f(MANY, MANY))
    good = bool((result == 2).all()) and (program.state.native_running, program.state.handling) == (0, 0)
    if children[0] == 0:
        program.close()
        os._exit(0 if good else 1)
    assert os.waitpid(children[0], 0)[1] == 0
    assert good


def test_a_program_without_what_watches_it_runs_all_the_same() -> None:
    text, signature = add()
    program = LoadedProgram(signature, load_object(compile_text(text + emit_entry(signature))))
    f = make_entry(program, ARRAY, arena=ArenaPool())
    assert isinstance(f, PortableEntry)
    assert f(MANY[:3], MANY[:3]).tolist() == [2.0] * 3
    with pytest.raises(CompileError, match="compiled without one"):
        make_entry(program, ARRAY, arena=ArenaPool(), native=True)
