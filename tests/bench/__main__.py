"""``jitflow bench``: workloads against numpy, one thread, in one process; every result is checked first."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

# Before numpy is imported: its BLAS reads this once.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import jitflow as jf
from tests.bench.measure import interleaved
from tests.bench.workloads import Workload, workloads


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="jitflow bench")
    parser.add_argument("--only", help="workloads whose name contains this")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to measure each workload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    args = parser.parse_args()
    head = f"{'workload':<28} {'numpy':>12} {'jitflow':>12} {'ratio':>7} {'bar':>5}"
    print(f"{head} {'GFLOP/s':>8} {'GB/s':>6} {'compile':>9}")
    rows: list[dict[str, Any]] = []
    for w in workloads():
        if args.only is None or args.only in w.name:
            rows.append(_measure(w, args.seconds))
            _show(rows[-1])
    for row in (_call_overhead(), _mlp_compile()):
        if args.only is None or args.only in row["name"]:
            rows.append(row)
            print(f"{row['name']:<28} {row['text']}")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))
    missed = [r["name"] for r in rows if not r["met"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} bars met" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return 0


def _measure(w: Workload, seconds: float) -> dict[str, Any]:
    inputs, output = w.build()
    start = time.perf_counter()
    session = jf.Session([output])
    compiled = time.perf_counter() - start
    run = session.function(inputs, output)
    got = run(*w.arrays)
    want = w.numpy(*(a.astype(np.float64) for a in w.arrays))
    if not np.allclose(got, want, rtol=1e-3, atol=1e-3 * float(np.abs(want).max())):
        raise SystemExit(f"{w.name}: wrong result")
    out = np.empty_like(got)
    best = interleaved(
        {"numpy": lambda: w.numpy(*w.arrays), "jitflow": lambda: run(*w.arrays, out=out)}, seconds=seconds
    )
    session.close()
    ratio = best["numpy"] / best["jitflow"]
    return {
        "name": w.name, "numpy": best["numpy"], "jitflow": best["jitflow"], "ratio": ratio, "bar": w.bar,
        "gflops": w.flops / best["jitflow"] / 1e9, "gbytes": w.nbytes / best["jitflow"] / 1e9, "compile": compiled,
        "met": ratio >= w.bar,
    }  # fmt: skip


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['name']:<28} {row['numpy'] * 1e6:>9.1f} us {row['jitflow'] * 1e6:>9.1f} us {row['ratio']:>7.2f} "
        f"{row['bar']:>5.1f} {row['gflops']:>8.1f} {row['gbytes']:>6.1f} {row['compile'] * 1e3:>6.1f} ms",
        flush=True,
    )


def _call_overhead() -> dict[str, Any]:
    a, b = (jf.placeholder(name, jf.float32, (16,)) for name in "ab")
    with jf.Session([a + b]) as session:
        run = session.function([a, b], a + b)
        x, y, out = (np.ones(16, np.float32) for _ in range(3))
        best = interleaved(
            {
                "bound, out=": lambda: run(x, y, out=out),
                "bound, fresh": lambda: run(x, y),
                "numpy, out=": lambda: np.add(x, y, out=out),
                "session.run": lambda: session.run(a + b, {a: x, b: y}),
                "nothing": lambda: None,
            }
        )
    net = {name: (t - best["nothing"]) * 1e9 for name, t in best.items() if name != "nothing"}
    text = ", ".join(f"{name} {ns:.0f} ns" for name, ns in net.items())
    return {"name": "call of 16 elements", "text": text, "met": net["bound, out="] <= 300, **net}


def _mlp_compile() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = (256, 512, 256, 10)
    weights = [rng.standard_normal(s).astype(np.float32) for s in itertools.pairwise(sizes)]

    def build() -> Any:
        x = jf.placeholder("x", jf.float32, ("batch", sizes[0]))
        h: Any = jf.layer_norm(x)
        for k, w in enumerate(weights):
            h = h @ jf.constant(w) + jf.constant(np.full(w.shape[1], k, np.float32))
            h = jf.gelu(h) if k < len(weights) - 1 else jf.softmax(h)
        return h

    times = []
    for k in range(5):
        # Another width each time, so that no object code is found again.
        weights[0] = rng.standard_normal((sizes[0], sizes[1] + k)).astype(np.float32)
        weights[1] = rng.standard_normal((sizes[1] + k, sizes[2])).astype(np.float32)
        start = time.perf_counter()
        jf.Session([build()]).close()
        times.append(time.perf_counter() - start)
    best = min(times)
    return {
        "name": "compile a 3-layer MLP", "text": f"{best * 1e3:.0f} ms (best of 5)", "met": best <= 0.2, "seconds": best
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
