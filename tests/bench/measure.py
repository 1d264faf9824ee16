"""Calls in, fair times out: all take turns, many times, in one process; best and median of each.

The machine may drift, other programs may run: what is compared is measured in the same moments. After each turn on
several threads the next waits until no thread of the process is spinning (OpenMP's do, for milliseconds).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

#: Short calls are repeated within a turn until it takes this long.
_TURN = 1e-3
#: Calls longer than this are not run once more before each turn to have their data in the caches again.
COLD = 0.02

Turn = Callable[[], float]


class Times(NamedTuple):
    """Seconds per call, one sample per turn, and how many CPUs were busy meanwhile."""

    samples: tuple[float, ...]
    cpus: float

    @property
    def best(self) -> float:
        return min(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


def turn_of(call: Callable[[], Any]) -> Turn:
    """Return the turn that times `call`."""
    call()
    start = time.perf_counter()
    call()
    estimate = max(time.perf_counter() - start, 1e-8)
    repeats = max(1, min(20_000, int(_TURN / estimate)))

    def turn() -> float:
        if estimate < COLD:
            call()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats

    return turn


def interleave(
    turns: Mapping[str, Turn],
    *,
    seconds: float,
    rounds: int = 5,
    threads: int = 1,
    slow: float = 20.0,
    beside: Collection[str] = (),
) -> dict[str, Times]:
    """Return the times of all `turns`, taken for about `seconds` and at least so many `rounds`.

    Who goes first changes from round to round. What takes `slow` times as long as the fastest is out after three;
    those named in `beside` are no rivals, which nobody is compared with and which are never out.
    """
    samples: dict[str, list[float]] = {name: [] for name in turns}
    busy = dict.fromkeys(turns, 0.0)
    wall = dict.fromkeys(turns, 1e-9)
    names = list(turns)
    end = time.perf_counter() + seconds
    done = 0
    while done < rounds or time.perf_counter() < end:
        for name in names[done % len(names) :] + names[: done % len(names)]:
            if threads > 1:
                _settle()
            cpu, clock = time.process_time(), time.perf_counter()
            samples[name].append(turns[name]())
            busy[name] += time.process_time() - cpu
            wall[name] += time.perf_counter() - clock
        done += 1
        if done == 3:
            limit = slow * min((min(s) for name, s in samples.items() if name not in beside), default=0.0)
            names = [name for name in names if name in beside or min(samples[name]) <= limit]
    return {name: Times(tuple(s), busy[name] / wall[name]) for name, s in samples.items()}


def _settle(window: float = 5e-4, at_most: float = 0.05) -> None:
    """Wait until the threads of this process rest."""
    end = time.perf_counter() + at_most
    while time.perf_counter() < end:
        cpu, clock = time.process_time(), time.perf_counter()
        time.sleep(window)
        if time.process_time() - cpu < 0.2 * (time.perf_counter() - clock):
            return
