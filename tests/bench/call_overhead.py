"""Time of one call on 16 float32 elements: both entries and numpy, interleaved in one process.

Run it from the repository root: ``python -m tests.bench.call_overhead``. Each line is the best of many rounds, in
nanoseconds, the time of an empty lambda taken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from runtime.entry import ARRAY, LIST
from tests.runtime.programs import add, entry_of, outer, take

ROUNDS = 40


def measure(calls: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Return the best time of each call in ns; all take turns, so that a slow moment of the machine hits all."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for name, (call, count) in calls.items():
            start = time.perf_counter_ns()
            for _ in range(count):
                call()
            best[name] = min(best[name], (time.perf_counter_ns() - start) / count)
    return best


def main() -> None:
    a = np.arange(16, dtype=np.float32)
    b, out = a + 1, np.empty_like(a)
    fast, slow = entry_of(add(), ARRAY, native=True), entry_of(add(), ARRAY, native=False)
    arena = entry_of(add(arena=256), ARRAY, native=True)
    unlocked = entry_of(add(work=20_000), ARRAY, native=True)
    fallible, index = entry_of(take(), ARRAY, native=True), np.arange(16)
    pair, x, y = entry_of(outer(), LIST, native=True), np.ones((4, 4)), np.ones(4)
    results = [np.empty((4, 4)), np.empty((4, 4))]
    best = measure(
        {
            "an empty call": (lambda: None, 20_000),
            "compiled, out=": (lambda: fast(a, b, out=out), 20_000),
            "compiled, fresh result": (lambda: fast(a, b), 20_000),
            "compiled, out=, with an arena": (lambda: arena(a, b, out=out), 20_000),
            "compiled, out=, GIL released": (lambda: unlocked(a, b, out=out), 20_000),
            "compiled, out=, fallible": (lambda: fallible(a, index, out=out), 20_000),
            "compiled, list of two, out=": (lambda: pair(x, y, out=results), 20_000),
            "compiled, list of two, fresh": (lambda: pair(x, y), 20_000),
            "portable, out=": (lambda: slow(a, b, out=out), 500),
            "portable, fresh result": (lambda: slow(a, b), 500),
            "np.add, out=": (lambda: np.add(a, b, out=out), 20_000),
            "np.add, fresh result": (lambda: np.add(a, b), 20_000),
        }
    )
    empty = best.pop("an empty call")
    for name, ns in best.items():
        print(f"{name:32}{ns - empty:9.0f} ns")


if __name__ == "__main__":
    main()
