"""The worker pool of the process: what native code and Python share of it, and its life up to fork and exit.

`lowering.pool` emits the code that runs in the workers and gives them work; here it gets what it must know about
this process. Workers are threads without Python: they never hold the GIL and run nothing but compiled kernels. They
are started by the first run that is long enough to pay for them, each on a processor of its own as long as there are
enough of those that this process may use, and sleep when they have nothing to do.

They never end. At exit the process ends with them, spinning, asleep or at work; so what they look at, the pool and
its code, is never freed. A forked child has none and starts its own: before the fork workers finish the iterations
they are at, so that a run which goes on in the child (one forked by a signal handler) finds all of its work either done
or not begun.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from jitflow.fork import after_fork_in_child
from runtime.cpu import LoadedCode, load_object

#: What the mailbox of a worker holds if not the address of a job; addresses of jobs are larger, and even.
IDLE, PARKED, UNBORN = 0, 1, 2
#: Bytes between workers and between the parts of a job: two threads that write to one line hinder each other.
APART = 128
#: Segments of a job: with more workers, several begin in the same one.
SEGMENTS = 16
#: More workers than this are refused: a machine that has so many processors has no use for them in one loop.
MAX_WORKERS = 1024


class Pool(ctypes.Structure):
    """Everything of this process that the pool's code uses.

    `workers` is a table of the addresses of `count` workers. While `halted` is not 0, nobody begins anything. `spare`
    is a processor on which there is no worker, or -1. `alone_until` says when a run last ended without help that
    others could have given if awake, and `credit` how much work such runs had, in nanoseconds.
    """

    _fields_ = (
        ("workers", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("halted", ctypes.c_int64),
        ("spare", ctypes.c_int64),
        ("alone_until", ctypes.c_int64),
        ("credit", ctypes.c_int64),
        # functions, 0 where the system has none (the first three are CPython's)
        ("start_thread", ctypes.c_void_p),
        ("acquire_lock", ctypes.c_void_p),
        ("release_lock", ctypes.c_void_p),
        ("clock_gettime", ctypes.c_void_p),
        ("clock", ctypes.c_int64),
        ("yield_processor", ctypes.c_void_p),
        ("current_processor", ctypes.c_void_p),
        ("thread_id", ctypes.c_void_p),
        ("set_affinity", ctypes.c_void_p),
        ("mask_signals", ctypes.c_void_p),
        ("block", ctypes.c_int64),
        ("signals", ctypes.c_void_p),
    )


class Worker(ctypes.Structure):
    """One thread of the pool: `number` 1, 2, ...

    `lock` is held but when it is to wake up; `thread` is 0 until it runs; `processor` is -1 where it may run anywhere.
    """

    _fields_ = (
        ("mailbox", ctypes.c_int64),
        ("lock", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("thread", ctypes.c_int64),
        ("processor", ctypes.c_int64),
        ("number", ctypes.c_int64),
        ("_unused", ctypes.c_char * (APART - 48)),
    )


class Team(ctypes.Structure):
    """What a program is given to share its loops: `run`, called as `lowering.pool` says, and how many may help."""

    _fields_ = (("run", ctypes.c_void_p), ("pool", ctypes.c_void_p), ("helpers", ctypes.c_int64))


class Segment(ctypes.Structure):
    """Some of the iterations of a job: those from `next` on, below `end`, are still to be done."""

    _fields_ = (("next", ctypes.c_int64), ("end", ctypes.c_int64), ("_unused", ctypes.c_char * (APART - 16)))


class Job(ctypes.Structure):
    """One run of a parallel loop, on the stack of its caller.

    ``task(frame, scratch, watch, begin, end)`` does some iterations; whoever works on the job takes `chunk` of them at
    a time, from the first `count` segments: the caller begins with the first one, each worker with that of its number,
    so that in the next loop over the same arrays it finds the same parts of them in its cache. The k-th worker that has
    `joined` uses the scratch memory at ``scratch + k * stride``, the caller that at `scratch`. If `stop` is not 0 the
    rest is left undone.
    """

    _fields_ = (
        ("task", ctypes.c_void_p),
        ("frame", ctypes.c_void_p),
        ("chunk", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("scratch", ctypes.c_void_p),
        ("stride", ctypes.c_int64),
        ("joined", ctypes.c_int64),
        ("stop", ctypes.c_int64),
        ("_unused", ctypes.c_char * (APART - 64)),
        ("segments", Segment * SEGMENTS),
    )


def processors() -> list[int]:
    """Return the numbers of the processors that this thread may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def place(count: int, available: Sequence[int], here: int) -> tuple[list[int], int]:
    """Return a processor for each of `count` workers, and a spare one or -1: `here`, the caller's, as long as possible.

    Examples
    --------
    >>> place(2, [0, 1, 2, 3], here=1)
    ([2, 3], 1)
    >>> place(3, [0, 1], here=0)
    ([1, 0, 1], -1)
    """
    start = available.index(here) if here in available else 0
    order = [*available[start + 1 :], *available[: start + 1]]
    return [order[k % len(order)] for k in range(count)], order[-1] if count < len(order) else -1


class _Process:
    """The pool of this process. Made once, never freed."""

    def __init__(self, code: LoadedCode) -> None:
        self._code = code
        self.run = code.address("pool.run")
        self._quiesce = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(code.address("pool.quiesce"))
        self._table = (ctypes.c_void_p * MAX_WORKERS)()
        self._workers: list[Worker] = []
        self._memory: list[object] = []
        self._teams: dict[int, Team] = {}
        self._available: list[int] = []
        self._signals = _blocked_signals()
        self.pool = Pool(workers=ctypes.addressof(self._table), spare=-1, **_functions())
        self.pool.signals = ctypes.addressof(self._signals)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork)
            after_fork_in_child(self._renew)

    def team(self, helpers: int) -> Team:
        """Return the team that shares work among its caller and `helpers` workers."""
        self._grow(helpers)
        self._spread()
        found = self._teams.get(helpers)
        if found is None:
            found = self._teams[helpers] = Team(self.run, ctypes.addressof(self.pool), helpers)
        return found

    def _grow(self, count: int) -> None:
        for k in range(len(self._workers), count):
            memory = ctypes.create_string_buffer(2 * APART)
            worker = Worker.from_buffer(memory, -ctypes.addressof(memory) % APART)
            worker.mailbox, worker.lock, worker.pool = UNBORN, _held_lock(), ctypes.addressof(self.pool)
            worker.processor, worker.number = -1, k + 1
            self._memory.append(memory)
            self._workers.append(worker)
            self._table[k] = ctypes.addressof(worker)
        self.pool.count = len(self._workers)

    def _spread(self) -> None:
        """Give each worker a processor, anew if these are others than before or there are more workers."""
        if not self.pool.set_affinity:
            return
        available = processors()
        if available == self._available and all(w.processor >= 0 for w in self._workers):
            return
        self._available = available
        here = ctypes.CFUNCTYPE(ctypes.c_int)(self.pool.current_processor)() if self.pool.current_processor else -1
        places, self.pool.spare = place(len(self._workers), available, here)
        for worker, processor in zip(self._workers, places, strict=True):
            worker.processor = processor
            if worker.thread:
                # It may be gone, or the system may forbid it.
                try:
                    os.sched_setaffinity(worker.thread, {processor})
                except OSError:
                    continue

    def _before_fork(self) -> None:
        self._quiesce(ctypes.addressof(self.pool))

    def _after_fork(self) -> None:
        self.pool.halted -= 1

    def _renew(self) -> None:
        """In a forked child: there are no workers, and whoever they worked for is gone or goes on alone."""
        self.pool.halted = 0
        for worker in self._workers:
            worker.mailbox, worker.lock, worker.thread = UNBORN, _held_lock(), 0


def _held_lock() -> int:
    """Return a new lock of CPython's that is held, as locks of workers are unless they are to wake up."""
    api = ctypes.pythonapi
    api.PyThread_allocate_lock.restype = ctypes.c_void_p
    lock = api.PyThread_allocate_lock()
    if not lock:
        raise MemoryError("no memory for a lock")
    api.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return int(lock)


def _functions() -> dict[str, int]:
    """Return the functions of CPython and of the system that the pool's code calls."""
    api, system = ctypes.pythonapi, ctypes.CDLL(None)

    def address(library: Any, name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 if hasattr(library, name) else 0

    words = {
        "start_thread": address(api, "PyThread_start_new_thread"),
        "acquire_lock": address(api, "PyThread_acquire_lock"),
        "release_lock": address(api, "PyThread_release_lock"),
        "yield_processor": address(system, "sched_yield"),
    }
    if hasattr(time, "CLOCK_MONOTONIC"):
        words |= {"clock_gettime": address(system, "clock_gettime"), "clock": time.CLOCK_MONOTONIC}
    if hasattr(signal, "pthread_sigmask"):
        words |= {"mask_signals": address(system, "pthread_sigmask"), "block": signal.SIG_BLOCK}
    if hasattr(os, "sched_setaffinity"):
        words["set_affinity"] = address(system, "sched_setaffinity")
        words["current_processor"] = address(system, "sched_getcpu")
        words["thread_id"] = address(api, "PyThread_get_thread_native_id")
    return words


#: What a thread does to itself, and must not be blocked; Python's handlers may run for all others, in Python's threads.
_FAULTS = frozenset({"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGABRT", "SIGSYS"})


def _blocked_signals() -> ctypes.Array[ctypes.c_uint64]:
    """Return the set of signals that workers leave to other threads, as the C library keeps it."""
    words = (ctypes.c_uint64 * 16)()
    numbers = signal.valid_signals() if hasattr(signal, "pthread_sigmask") else set()
    for number in numbers:
        if not (isinstance(number, signal.Signals) and number.name in _FAULTS):
            words[(number - 1) // 64] |= 1 << ((number - 1) % 64)
    return words


_LOCK = threading.Lock()


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.Lock()


after_fork_in_child(_renew_lock)


#: The pool of this process, once somebody has needed it.
_pool: _Process | None = None


def team(workers: int, code: Callable[[], bytes]) -> Team | None:
    """Return what shares loops among `workers` threads, the caller among them; None for one, or where there are none.

    `code` gives the object code of `lowering.pool`, the first time that it is needed in this process.
    """
    if workers < 2 or not hasattr(ctypes, "pythonapi"):
        return None
    global _pool
    with _LOCK:
        if _pool is None:
            _pool = _Process(load_object(code()))
        return _pool.team(workers - 1)
