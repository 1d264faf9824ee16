"""Bad calls, each in a process of its own: none may end by a signal, or in an error that is not ours to raise.

Run as a program: every attack is a fork of this process, which has imported jitflow and compiled one session already.
After the attack that session must still give the right answer. Prints one line for each attack that failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jitflow as jf

Attack = Callable[[], Any]
ATTACKS: list[Attack] = []
#: What an attack may raise. CompilerBug is in none of these families but its own.
ALLOWED = (jf.JitflowError, TypeError, ValueError, IndexError, MemoryError, AttributeError, OverflowError, KeyError)

F32 = np.float32


def attack(function: Attack) -> Attack:
    ATTACKS.append(function)
    return function


def each(values: list[Any]) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Make an attack of a function with every one of `values`."""

    def register(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        for k, value in enumerate(values):

            def one(value: Any = value) -> Any:
                return function(value)

            one.__name__ = f"{function.__name__}[{k}]"
            ATTACKS.append(one)
        return function

    return register


def inputs() -> tuple[jf.Tensor, jf.Tensor]:
    return jf.placeholder("x", jf.float32, ("n", 4)), jf.placeholder("i", jf.int64, ("m",))


def session() -> tuple[jf.Session, jf.Tensor, jf.Tensor, jf.Tensor]:
    x, i = inputs()
    y = jf.take(jf.softmax(x) * 2.0, i, axis=0).named("y")
    return jf.Session([y]), x, i, y


X = np.ones((3, 4), F32)
I = np.array([0, 1, 2])


class Liar:
    """An object whose ``__array_interface__`` points nowhere."""

    __array_interface__ = {"shape": (3, 4), "typestr": "<f4", "data": (8, False), "version": 3}  # noqa: RUF012


class StructLiar:
    """The same by ``__array_struct__``."""

    __array_struct__ = 12345


class Shrinking:
    """Its ``__array__`` frees what it gave before."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        a = np.ones((3, 4), F32)
        b = a[:]
        del a
        gc.collect()
        return b


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self.error


class BadShape(np.ndarray):
    @property
    def shape(self) -> Any:  # type: ignore[override]
        return (10**6, 4)


class BadFlags(np.ndarray):
    @property
    def flags(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no flags here")


def endless_list() -> list[Any]:
    a: list[Any] = []
    a.append(a)
    return a


def deep_list() -> list[Any]:
    a: Any = 1.0
    for _ in range(100_000):
        a = [a]
    return a  # type: ignore[no-any-return]


FEEDS: list[Any] = [
    None,
    "x" * 1000,
    b"\0" * 48,
    Liar(),
    StructLiar(),
    Shrinking(),
    Raises(ValueError("theirs")),
    Raises(MemoryError("theirs")),
    np.ones((3, 4), F32).view(BadShape),
    np.ones((3, 4), F32).view(BadFlags),
    endless_list(),
    deep_list(),
    np.lib.stride_tricks.as_strided(np.ones(4, F32), (1 << 40, 4), (0, 4)),
    np.lib.stride_tricks.as_strided(np.ones(4, F32), (3, 4), (-4, 4))[:0],
    np.ones((3, 4), F32).astype(object),
    np.ones((3, 4), ">f4"),
    np.ones((3, 4), np.float16),
    np.ones((4, 3), F32).T[:, :, None],
    np.zeros((3, 4), "V4"),
    np.zeros((3, 4), "f4,i4"),
    np.array("text"),
    memoryview(b"1234"),
    range(12),
    (x for x in range(3)),
    {0: X},
    float("nan"),
    10**400,
    -(10**400),
    [[10**400] * 4] * 3,
    [[float("inf")] * 4] * 3,
    [[1e300] * 4] * 3,
    [[]],
    [[[[]]]],
    ctypes.c_float(1.0),
    (ctypes.c_float * 12)(),
    np.ma.masked,
    np.ma.ones((3, 4), dtype=F32),
    np.datetime64("now"),
    jf.float32,
    jf,
    ...,
    slice(3),
]


@each(FEEDS)
def feed_by_run(value: Any) -> Any:
    s, x, i, y = session()
    return s.run(y, {x: value, i: I})


@each(FEEDS)
def feed_by_function(value: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], y)(value, I)


INDICES: list[Any] = [
    np.array([3]),
    np.array([-4]),
    np.array([2**63 - 1, -(2**63)]),
    np.full(100_000, 10**15),
    np.array([0, 1, 2**40]),
    [2**63],
    [-(2**63) - 1],
    np.array([1], np.uint64),
    np.array([True]),
    [0.5],
    np.array([], np.float64),
]


@each(INDICES)
def bad_index(value: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], y)(X, value)


@attack
def index_into_nothing() -> Any:
    s, x, i, y = session()
    return s.run(y, {x: X[:0], i: I})


OUTS: list[Any] = [
    X[0],
    np.zeros((3, 4)),
    np.zeros((3, 4), ">f4"),
    np.broadcast_to(np.zeros(4, F32), (3, 4)),
    np.lib.stride_tricks.as_strided(np.zeros(4, F32), (3, 4), (0, 4)),
    np.frombuffer(b"\0" * 48, F32).reshape(3, 4),
    np.frombuffer(bytearray(49), F32, 12, 1).reshape(3, 4),
    np.zeros((3, 4), F32).view(BadShape),
    np.zeros((3, 4), F32).view(BadFlags),
    np.ma.zeros((3, 4), dtype=F32),
    Liar(),
    Shrinking(),
    [np.zeros((3, 4), F32)],
    {"y": np.zeros((3, 4), F32)},
    endless_list(),
    "out",
    0,
    jf.constant(1.0),
]


@each(OUTS)
def bad_out(value: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], y)(X, I, out=value)


@each(OUTS)
def bad_out_in_a_list(value: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], [y, [y]])(X, I, out=[value, [value]])


@attack
def everything_is_one_array() -> Any:
    a, b = jf.placeholder("a", jf.float32, ("n",)), jf.placeholder("b", jf.float32, ("n",))
    y, z = a + b, jf.flip(a) * b
    memory = np.ones(64, F32)
    f = jf.Session([y, z]).function([a, b], [y, z])
    f(memory[:40], memory[8:48], out=[memory[4:44], np.zeros(40, F32)])
    return f(memory, memory, out=[memory, memory])


ARITIES: list[Any] = [(), (X,), (X, I, X), (X, I) * 50]


@each(ARITIES)
def wrong_arity(arguments: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], y)(*arguments)


KEYWORDS: list[Any] = [{"x": X}, {"out": None, "x": 1}, {"": 1}, {"Out": X}, {"out" * 1000: X}]


@each(KEYWORDS)
def wrong_keywords(keywords: Any) -> Any:
    s, x, i, y = session()
    return s.function([x, i], y)(X, I, **keywords)


SHAPES: list[Any] = [
    (-1,),
    (2**63,),
    (2**59, 2**59),
    "a b",
    "",
    ("n" * 10_000,),
    (1,) * 10_000,
    ((1, 2),),
    (1.0,),
    (np.int64(3), np.uint8(2)),
    (True,),
    None,
    [None] * 70,
    {1: 2},
    "lambda",
    ("__class__",),
]


@each(SHAPES)
def strange_shape(shape: Any) -> Any:
    x = jf.placeholder("x", jf.float32, shape)
    return jf.Session(jf.exp(x)).dump("llvm")


NAMES: list[Any] = [
    "",
    "\n",
    "\0",
    'a"b\\',
    "%0",
    "x" * 100_000,
    "define void @f() {",
    "é" * 50,
    " ",
    "out",
    "ret i32 0 }",
]


@each(NAMES)
def strange_name(name: Any) -> Any:
    x = jf.placeholder(name, jf.float32, (3,))
    y = (jf.exp(x) + jf.sum(x)).named(name + "y")
    s = jf.Session(y)
    for stage in ("graph", "fused", "loops", "plan", "llvm", "llvm-opt", "asm"):
        s.dump(stage)
    assert s.function([x], y)([0, 0, 0]).tolist() == [1, 1, 1]
    return jf.parse_graph(s.dump("graph"))


OPTIONS: list[dict[str, Any]] = [
    {"device": "cuda:0"},
    {"device": "cuda:99999999999999999999"},
    {"device": "cuda:0", "load": False},
    {"threads": 10**30},
    {"threads": -1},
    {"threads": "4"},
    {"specialize": {"n": 3}},
    {"fast_math": "yes"},
    {"load": False},
    {"device": object()},
]


@each(OPTIONS)
def strange_options(options: dict[str, Any]) -> Any:
    x, _ = inputs()
    y = jf.softmax(x)
    return jf.Session([y], **options).run(y, {x: X})


@attack
def close_in_the_middle() -> Any:
    s, x, i, y = session()
    f = s.function([x, i], y)

    class Closes:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            s.close()
            return X

    return f(Closes(), I)


@attack
def run_inside_a_run() -> Any:
    s, x, i, y = session()
    f = s.function([x, i], y)

    class Runs:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            f(X, I)
            s.run(y, {x: X, i: I})
            return X

    return f(Runs(), I)


@attack
def close_in_a_finaliser() -> Any:
    s, x, i, y = session()
    f = s.function([x, i], y)

    class Closes(np.ndarray):
        def __del__(self) -> None:
            s.close()

    f(X.copy().view(Closes), I)
    return f(X, I)


@attack
def the_function_goes_while_it_runs() -> Any:
    holder: dict[str, Any] = {}
    s, x, i, y = session()
    holder["f"] = s.function([x, i], y)
    del s

    class Drops:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            holder.clear()
            gc.collect()
            return X

    return holder["f"](Drops(), I)


@attack
def lists_that_change_while_they_are_read() -> Any:
    s, x, i, y = session()
    outs = [np.zeros((3, 4), F32), np.zeros((3, 4), F32)]
    f = s.function([x, i], [y])

    class Clears:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            outs.clear()
            gc.collect()
            return X

    return f(Clears(), I, out=outs)


@attack
def arrays_that_are_resized_by_another_thread() -> Any:
    x = jf.placeholder("x", jf.float32, ("n",))
    y = jf.exp(x) + jf.sum(x)
    f = jf.Session(y).function([x], y)
    feed = np.ones(200_000, F32)
    stop = threading.Event()

    def resize() -> None:
        while not stop.is_set():
            for size in (10, 200_000):
                with contextlib.suppress(ValueError):
                    feed.resize(size, refcheck=True)

    thread = threading.Thread(target=resize)
    thread.start()
    try:
        for _ in range(50):
            f(feed)
    finally:
        stop.set()
        thread.join()
    return None


@attack
def sessions_in_many_threads() -> Any:
    x, _ = inputs()
    failures: list[BaseException] = []

    def work(k: int) -> None:
        try:
            y = jf.softmax(x * float(k))
            with jf.Session(y) as s:
                for _ in range(5):
                    s.run(y, {x: X})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


DIVISIONS = [(np.int32, -(2**31)), (np.int64, -(2**63))]


@each(DIVISIONS)
def divisions_that_trap(case: Any) -> Any:
    dtype, low = case
    a = jf.placeholder("a", dtype, ("n",))
    b = jf.placeholder("b", dtype, ("n",))
    y = [a // b, a % b, a // 0, a % 0, a // -1, a % -1, a**b, 0 // b, low // b]
    feeds = {a: np.array([low, 0, 1, low], dtype), b: np.array([-1, 0, 0, 0], dtype)}
    return jf.Session(y).run(y, feeds)


KERNELS: list[Any] = ["nope", "", None, 3, "k0", "../../etc/passwd"]


@each(KERNELS)
def strange_dumps(kernel: Any) -> Any:
    s, *_ = session()
    for stage in ("loops", "asm", "fused", "plan"):
        s.dump(stage, kernel=kernel)


@attack
def a_row_of_scratch_as_large_as_memory() -> Any:
    x = jf.placeholder("x", jf.bool, ("n",))
    y = jf.sum(jf.softmax(jf.where(x, 1.0, 2.0)))
    s = jf.Session(y)
    return s.run(y, {x: np.broadcast_to(np.True_, (1 << 20,))})


@attack
def a_file_descriptor_limit_of_none() -> Any:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    s, x, i, y = session()
    return s.run(y, {x: X, i: I})


@attack
def no_memory_left() -> Any:
    x = jf.placeholder("x", jf.float32, ("n", "n"))
    y = jf.sum(jf.softmax(x @ x) @ x)
    s = jf.Session(y)
    f = s.function([x], y)
    f(np.ones((8, 8), F32))
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    feed = np.ones((3000, 3000), F32)
    resource.setrlimit(resource.RLIMIT_AS, (pages + (64 << 20), resource.RLIM_INFINITY))
    noticed = None
    try:
        f(feed)
    except jf.OutOfMemoryError as error:
        noticed = error
    assert noticed is not None, "it did not notice that there is no memory"
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return f(np.ones((8, 8), F32))


def main() -> int:
    """Run every attack whose name contains one of the arguments; return the number of failures."""
    sane, x, i, y = session()
    f = sane.function([x, i], y)
    want = f(X, I).tolist()
    failed = 0
    chosen = [a for a in ATTACKS if not sys.argv[1:] or any(word in a.__name__ for word in sys.argv[1:])]
    for a in chosen:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 0
            signal.alarm(60)
            try:
                try:
                    a()
                except jf.CompilerBug:
                    raise
                except ALLOWED:
                    pass
                assert f(X, I).tolist() == want, "the session beside it broke"
            except BaseException:
                print(f"{a.__name__}: {traceback.format_exc(limit=-3)}")
                status = 1
            sys.stdout.flush()
            os._exit(status)
        _, result = os.waitpid(child, 0)
        if os.WIFSIGNALED(result):
            print(f"{a.__name__}: ended by {signal.Signals(os.WTERMSIG(result)).name}")
        failed += result != 0
    print(f"{len(chosen)} attacks, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
