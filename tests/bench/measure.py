"""Two callables in, a fair ratio out: run in turn many times in one process, best times compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def interleaved(calls: dict[str, Callable[[], Any]], *, seconds: float = 1.0, rounds: int = 7) -> dict[str, float]:
    """Return the best time of each call, in seconds; they take turns, so that drift of the machine hits all alike.

    Short calls are repeated within a turn until it takes half a millisecond.
    """
    repeats = {name: _repeats(call) for name, call in calls.items()}
    best = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name, call in calls.items():
            n = repeats[name]
            start = time.perf_counter()
            for _ in range(n):
                call()
            best[name] = min(best[name], (time.perf_counter() - start) / n)
        done += 1
    return best


def _repeats(call: Callable[[], Any]) -> int:
    call()
    start = time.perf_counter()
    call()
    return max(1, min(10_000, int(0.0005 / max(time.perf_counter() - start, 1e-8))))
