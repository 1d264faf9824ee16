"""Faults of memory: arrays and code that do not fit, arrays that go away, pages that may not be executed.

The programs whose process is under a limit run in one of their own.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

import jitflow as jf

ROOT = Path(__file__).resolve().parents[2]
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, prctl and limits that hold")


def run(program: str, *, timeout: float = 90) -> str:
    """Run `program` in a fresh process; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", HEAD + program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return done.stdout


HEAD = """
import ctypes, resource, sys
from pathlib import Path
import numpy as np
import jitflow as jf
F32, MB = np.float32, 1 << 20

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

def allow(more):
    limit = resource.RLIM_INFINITY if more is None else used() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
"""

ARRAYS = """
x = jf.placeholder("x", jf.float32, ("n",))
m = jf.placeholder("m", jf.float32, ("r", "c"))
outer = x[:, None] * x
cases = {
    "a result": (outer, [x], [np.ones(3000, F32)], [np.ones(3, F32)], 36_000_000),
    "intermediate results": (jf.sum(jf.softmax(outer) @ outer), [x], [np.ones(2500, F32)], [np.ones(3, F32)], None),
    "a copy of an input": (jf.sum(m), [m], [np.ones((3000, 3000), F32).T], [np.ones((2, 3), F32)], 36_000_000),
}
for name, (y, ins, big, small, nbytes) in cases.items():
    with jf.Session(y) as session:
        for native in (True, False):
            f = session.function(ins, y, native=native)
            want, free = f(*small), session._arenas.nbytes
            allow(16 * MB)
            before = used()
            for call in (lambda: f(*big), lambda: session.run(y, dict(zip(ins, big)))):
                try:
                    call()
                    raise SystemExit(f"{name}: it found memory where there is none")
                except MemoryError as error:
                    assert isinstance(error, jf.JitflowError), repr(error)
                    assert (f"{nbytes} bytes" if nbytes else " bytes of intermediate results") in str(error), error
                # What was taken is given back, and the session works with what there is.
                assert used() - before < 4 * MB, (name, used() - before)
                assert session._arenas.nbytes <= free
                assert (f(*small) == want).all()
            allow(None)
            # With the limit lifted, everything works.
            assert np.isfinite(f(*big)).all()
            session.trim()
print("done")
"""


@needs_linux
def test_f47_arrays_that_do_not_fit_are_memory_errors_and_what_was_taken_is_freed() -> None:
    assert run(ARRAYS) == "done\n"


CODE = """
x = jf.placeholder("x", jf.float32, ("n",))
jf.Session(x + 1.0).close()
y = x
for k in range(50):
    y = jf.sin(y) + float(k)
refused = 0
for more in (0.25, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48):
    allow(int(more * MB))
    try:
        jf.Session(y).close()
        break
    except (jf.CompileError, MemoryError) as error:
        assert isinstance(error, jf.JitflowError), repr(error)
        assert "memory" in str(error), error
        refused += 1
allow(None)
assert refused >= 3, refused
with jf.Session(y) as session:
    print(session.run(y, {x: [0.0]}).shape)
"""


@needs_linux
def test_f48_compiling_that_does_not_fit_is_an_error_and_does_not_end_the_process() -> None:
    assert run(CODE) == "(1,)\n"


FORBIDDEN = """
x = jf.placeholder("x", jf.float32, ("n",))
y = jf.exp(x)
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, *map(ctypes.c_ulong, (REFUSE_EXEC_GAIN, 0, 0, 0))) != 0:
    sys.exit("this system cannot forbid it")
for _ in range(2):
    try:
        jf.Session(y)
    except jf.CompileError as error:
        print(error)
# What needs no code of ours works on.
assert jf.interpret(y, {x: [0.0]}).tolist() == [1.0]
assert jf.Session(y, load=False).dump("asm")
"""


@needs_linux
def test_f55_a_process_that_may_not_make_memory_executable_gets_a_clear_error() -> None:
    try:
        lines = run(FORBIDDEN).splitlines()
    except AssertionError as error:
        if "this system cannot forbid it" in str(error):
            pytest.skip("the kernel is older than 6.3")
        raise
    assert len(lines) == 2
    assert all(line.startswith("this process may not make memory executable (") for line in lines)


def pages() -> set[str]:
    """Return the address ranges of this process that are writable and executable at once."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    assert any(line[1].startswith("r-x") for line in lines)
    return {line[0] for line in lines if "w" in line[1] and "x" in line[1]}


@needs_linux
def test_no_page_of_ours_is_writable_and_executable() -> None:
    """W^X, rule 10 of the fault model."""
    llvm.get_default_triple()  # llvmlite has callbacks, for which ctypes has such a page; we have none
    before = pages()
    x = jf.placeholder("x", jf.float32, ("n",))
    with jf.Session([jf.tanh(x), jf.sum(x)]) as session:
        f = session.function([x], jf.tanh(x))
        f(np.ones(100, np.float32))
        assert pages() <= before


def slow(x: jf.Tensor) -> jf.Tensor:
    """Return something that takes about 100 ns for each number: integer divisions are slow."""
    for _ in range(16):
        x = (x * 5 + 7) // (x + 3)
    return x


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "portable"])
def test_f33_an_array_is_held_as_long_as_a_run_reads_or_writes_it(native: bool) -> None:
    x = jf.placeholder("x", jf.int64, ("n",))
    y = slow(x)
    with jf.Session(y) as session:
        f = session.function([x], y, native=native)
        feed, out = np.arange(1 << 20), np.empty(1 << 20, np.int64)
        want = f(feed)
        arrays = [feed, out]
        running = threading.Event()
        results = []

        def call(arrays: list[np.ndarray]) -> None:  # type: ignore[type-arg]
            feed, out = arrays.pop(0), arrays.pop(0)
            running.set()
            results.append(f(feed, out=out))

        thread = threading.Thread(target=call, args=(arrays,))
        thread.start()
        running.wait()
        time.sleep(0.005)
        # numpy does not move the memory of an array that somebody else holds.
        for array in (feed, out):
            with pytest.raises(ValueError, match="resize"):
                array.resize(1 << 22)
        del feed, out, array
        fill = [np.full(1 << 20, k) for k in range(4)]  # what would lie there if it had been freed
        thread.join()
        assert (results[0] == want).all()
        del fill


def test_f34_a_mapped_file_is_an_array_as_any_other(tmp_path: Path) -> None:
    """That another process shortens it during a run ends the process (SIGBUS); the READMEs say so."""
    path = tmp_path / "numbers"
    np.arange(1000, dtype=np.float32).tofile(path)
    x = jf.placeholder("x", jf.float32, ("n",))
    with jf.Session(x + 1.0) as session:
        f = session.function([x], x + 1.0)
        for mode in ("r", "r+", "c"):
            mapped = np.memmap(path, np.float32, mode)
            assert (f(mapped) == np.arange(1, 1001)).all()
        writable = np.memmap(tmp_path / "out", np.float32, "w+", shape=(1000,))
        assert f(mapped, out=writable) is writable
        writable.flush()
    assert (np.fromfile(tmp_path / "out", np.float32) == np.arange(1, 1001)).all()
    for name in ("README.md", "runtime/README.md"):
        assert "SIGBUS" in (ROOT / name).read_text()
