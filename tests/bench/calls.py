"""What is not a kernel: calls, compile times, changing sizes, the import, the cache. Each with its bar."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import jitflow as jf
from tests.bench.measure import interleave, turn_of


def rows(names: list[str], say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield a row for each measurement of `names`: its text, its bar in words, and whether it is met."""
    measurements = {
        "call": _call, "compile MLP": _compile_mlp, "compile 100 kernels": _compile_100,
        "50 batch sizes": _batch_sizes, "import": _import, "cache reload": _cache,
    }  # fmt: skip
    for name in names:
        say(name)
        yield from measurements[name]()


def _row(name: str, seconds: float, bar: float, note: str = "") -> dict[str, Any]:
    return {"name": name, "seconds": seconds, "bar": bar, "met": seconds <= bar, "note": note}


def _call() -> Iterator[dict[str, Any]]:
    a, b = (jf.placeholder(name, jf.float32, (16,)) for name in "ab")
    with jf.Session([a + b]) as session:
        run = session.function([a, b], a + b)
        x, y, out = (np.ones(16, np.float32) for _ in range(3))
        feeds = {a: x, b: y}
        total = a + b
        times = interleave(
            {
                "function(out=)": turn_of(lambda: run(x, y, out=out)),
                "function()": turn_of(lambda: run(x, y)),
                "session.run()": turn_of(lambda: session.run(total, feeds)),
                "numpy.add(out=)": turn_of(lambda: np.add(x, y, out=out)),
                "an empty lambda": turn_of(lambda: None),
            },
            seconds=1.0,
        )
    empty = times["an empty lambda"].best
    note = f"of 16 numbers, less {empty * 1e9:.0f} ns of the loop; numpy.add(out=): " + _ns(
        times["numpy.add(out=)"].best - empty
    )
    bars = {"function(out=)": 100e-9, "function()": 250e-9, "session.run()": 3e-6}
    for name, bar in bars.items():
        yield _row(f"call of {name}", times[name].best - empty, bar, note)


def _ns(seconds: float) -> str:
    return f"{seconds * 1e9:.0f} ns"


def _mlp(width: int) -> Any:
    """Return the network of the workload MLP; another `width` shares no code with it."""
    rng = np.random.default_rng(width)
    x = jf.placeholder("x", jf.float32, ("batch", 256))
    hidden: Any = jf.layer_norm(x)
    sizes = (256, width, 128)
    for k, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((rows, columns), np.float32)
        hidden = hidden @ jf.constant(weight) + jf.constant(rng.standard_normal(columns, np.float32))
        hidden = jf.gelu(hidden) if k == 0 else jf.softmax(hidden)
    return hidden


def _compile_mlp() -> Iterator[dict[str, Any]]:
    times = []
    with jf.config.override(cache_dir=None):
        for width in range(512, 517):
            graph = _mlp(width)
            start = time.perf_counter()
            jf.Session([graph]).close()
            times.append(time.perf_counter() - start)
    yield _row("compile MLP", min(times[1:]), 0.1, "best of 4 after a first one, nothing cached")


def _compile_100() -> Iterator[dict[str, Any]]:
    times = []
    with jf.config.override(cache_dir=None):
        for n in range(3):
            outputs = [_fused(k, n) for k in range(100)]
            start = time.perf_counter()
            jf.Session(outputs).close()
            times.append(time.perf_counter() - start)
    yield _row("compile 100 kernels", min(times), 0.9, "chains and row sums, nothing cached")


def _fused(k: int, n: int) -> Any:
    """Return one of 100 different small computations, each a kernel: chains, two of four with exp or tanh, row sums."""
    x = jf.placeholder(f"x{n}_{k}", jf.float32, ("rows", 64 + k))
    y: Any = x * float(k + 2 + 1000 * n) + 1.0
    match k % 4:
        case 0:
            return jf.relu(y - float(k)) * y / (y * y + float(k))
        case 1:
            return jf.exp(-y) * float(k) + y
        case 2:
            return jf.where(y > float(k), jf.tanh(y), jf.sqrt(jf.abs(y)))
        case _:
            return jf.sum(y * y - float(k), axis=1)


def _batch_sizes() -> Iterator[dict[str, Any]]:
    graph = _mlp(512)
    x = next(n for n in _placeholders(graph))
    with jf.Session([graph]) as session:
        run = session.function([x], graph)
        before = session.compilations
        worst = 0.0
        for batch in range(1, 51):
            images = np.ones((batch, 256), np.float32)
            start = time.perf_counter()
            run(images)
            worst = max(worst, time.perf_counter() - start)
        compiled = session.compilations - before
    row = _row("50 batch sizes of MLP", worst, 0.005, f"the slowest first call; compiled again: {compiled} times")
    yield row | {"met": row["met"] and compiled == 0}


def _placeholders(graph: Any) -> list[Any]:
    names = [line.partition(":")[0].strip() for line in jf.Session([graph], load=False).dump("graph").splitlines()]
    return [name for name in names if name == "x"]


def _python(code: str, *arguments: str, **environment: str) -> float:
    """Return the number that `code` prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    )
    return float(done.stdout)


_IMPORT = """
import time
import numpy, llvmlite.binding
start = time.perf_counter()
import jitflow
jitflow.Session
print(time.perf_counter() - start)
"""


def _import() -> Iterator[dict[str, Any]]:
    yield _row(
        "import jitflow", min(_python(_IMPORT) for _ in range(5)), 0.1, "with Session, beyond numpy and llvmlite"
    )


# Nothing of `tests` is imported here: that package turns the cache off.
_RELOAD = """
import sys, time
import jitflow as jf
jf.Session([jf.placeholder("x", jf.float32, ("n",)) + 1.0]).close()
graph = jf.load(sys.argv[1])
start = time.perf_counter()
jf.Session(graph).close()
print(time.perf_counter() - start)
"""


def _cache() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file, cache = os.path.join(folder, "mlp.jitflow"), os.path.join(folder, "cache")
        jf.save(file, [_mlp(512)])
        cold = _python(_RELOAD, file, JITFLOW_CACHE_DIR=cache)
        warm = min(_python(_RELOAD, file, JITFLOW_CACHE_DIR=cache) for _ in range(3))
    yield _row(
        "MLP from the cache on disk", warm, 0.005, f"in a new process; the first compiled in {cold * 1e3:.0f} ms"
    )
