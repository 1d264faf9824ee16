"""One process, one number of threads: the names of workloads in, a line of JSON for each on standard output.

Every form of every system is checked against float64 numpy before it is timed. Of several right forms of a peer the
fastest in a short trial takes part. What the machine can do at most takes its turns with the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tests.bench import calls, peers
from tests.bench.ceilings import Ceilings, table
from tests.bench.environment import second_level_cache
from tests.bench.measure import Times, Turn, interleave, turn_of
from tests.bench.peers.form import Array, Data, Form, Unsupported
from tests.bench.peers.numpy_peer import reference
from tests.bench.selection import select
from tests.bench.workloads import Workload

Say = Callable[[str], None]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--peers", required=True)
    parser.add_argument("--skip", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    names = [name for name in args.peers.split(",") if name]
    with contextlib.suppress(KeyboardInterrupt):
        for row in rows(names, args.threads, args.seconds, args.only, args.skip, lambda what: _print({"doing": what})):
            _print(row)


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


def rows(
    names: list[str], threads: int, seconds: float, only: list[str], skip: int, say: Say
) -> Iterator[dict[str, Any]]:
    """Yield what was found: versions and the machine's ceilings first, then a row for each workload and call."""
    say("ceilings")
    ceilings = Ceilings(threads)
    systems, absent = _load(["jitflow", *names], threads, say)
    versions = {name: str(s.version) for name, s in systems.items()}
    yield {
        "start": {
            "threads": threads,
            "versions": versions,
            "absent": absent,
            "ceilings": table(ceilings, quick=seconds < 0.5),
        }
    }
    bench = Bench(systems, ceilings, threads, seconds, say)
    chosen = select(only)
    for w in chosen.workloads[skip:]:
        yield {"row": bench.workload(w)}
    if threads == 1:
        for row in calls.rows(chosen.calls, say):
            yield {"call": row}


def _load(names: list[str], threads: int, say: Say) -> tuple[dict[str, Any], dict[str, str]]:
    systems, absent = {}, {}
    for name in names:
        say(f"import {name}")
        try:
            systems[name] = peers.load(name, threads)
        except ImportError as error:
            absent[name] = str(error)
    return systems, absent


class Contestant(NamedTuple):
    """A form that gave the right result, its error as a part of the largest value, and the time of its first call."""

    form: Form
    error: float
    first: float


class Bench:
    """What is the same for all workloads of a run."""

    def __init__(self, systems: dict[str, Any], ceilings: Ceilings, threads: int, seconds: float, say: Say) -> None:
        self._systems = systems
        self._ceilings = ceilings
        self._threads = threads
        self._seconds = seconds
        self._say = say

    def workload(self, w: Workload) -> dict[str, Any]:
        """Return the row of one workload: raw times of all, and what they rest on."""
        self._say(f"{w.name}: reference")
        inputs, constants = w.inputs(), w.constants()
        data = Data(inputs, constants, reference(w, inputs, constants))
        found: dict[str, dict[str, Any]] = {}
        turns: dict[str, Turn] = {}
        for name, system in self._systems.items():
            self._say(f"{w.name}: {name}")
            found[name], contestants = self._prepare(w, data, system)
            if name == "jitflow":
                for c in contestants:
                    turns["jitflow" if c.form.label == "out=" else "jitflow, fresh result"] = turn_of(c.form.call)
            elif contestants:
                best = self._fastest(contestants)
                found[name] |= {"form": best.form.label, "error": best.error}
                turns[name] = turn_of(best.form.call)
        moved = self._moved(w, data)
        beside = self._limits(w, data, moved)
        if self._threads > 1:
            beside |= self._scaling(w, data)
        self._say(f"{w.name}: timing")
        times = interleave(turns | beside, seconds=self._seconds, threads=self._threads, beside=beside)
        del turns, beside
        gc.collect()
        for name, t in times.items():
            found.setdefault(name, {}).update(_raw(t))
        return {
            "name": w.name, "family": w.family, "section": w.section, "odd": w.odd, "bar": w.bar,
            "threads": self._threads, "flops": w.flops, "read": moved[0], "written": moved[1],
            "resident": sum(moved) <= second_level_cache(), "systems": found,
        }  # fmt: skip

    def _prepare(self, w: Workload, data: Data, system: Any) -> tuple[dict[str, Any], list[Contestant]]:
        """Return the notes on a system, and its forms that are right."""
        notes: dict[str, Any] = {}
        contestants: list[Contestant] = []
        start = time.perf_counter()
        try:
            for form in system.forms(w, data):
                result = form.result(form.call())
                first = time.perf_counter() - start
                error = self.error(result, data.expected)
                notes.setdefault("first", first)
                if error <= w.tolerance:
                    contestants.append(Contestant(form, error, first))
                else:
                    notes["wrong"] = f"{form.label} error {error:.2g} > {w.tolerance:.2g}".strip()
                start = time.perf_counter()
        except Unsupported as error:
            notes["left out"] = str(error)
        except Exception as error:
            # Whatever a peer cannot do must not end the run.
            notes["failed"] = f"{type(error).__name__}: {error}".split("\n")[0][:300]
        if contestants:
            notes["error"] = contestants[0].error
        return notes, contestants

    @staticmethod
    def error(result: Array, expected: Array) -> float:
        """Return the largest difference as a part of the largest value; infinite if the form differs."""
        if result.shape != expected.shape:
            return float("inf")
        if expected.size == 0:
            return 0.0
        scale = float(np.abs(expected).max()) if expected.dtype.kind == "f" else 1.0
        difference = np.abs(result.astype(np.float64) - expected).max()
        return float(difference) / (scale or 1.0) if np.isfinite(difference) else float("inf")

    def _fastest(self, contestants: list[Contestant]) -> Contestant:
        if len(contestants) == 1:
            return contestants[0]
        turns = {str(k): turn_of(c.form.call) for k, c in enumerate(contestants)}
        times = interleave(turns, seconds=0.1, rounds=3, threads=self._threads)
        return contestants[int(min(times, key=lambda k: times[k].best))]

    def _moved(self, w: Workload, data: Data) -> tuple[int, int]:
        """Return the bytes that the workload must read and write."""
        arrays = (*data.inputs, *data.constants)
        width = 8 if data.expected.dtype.kind != "f" else max(a.dtype.itemsize for a in arrays if a.dtype.kind == "f")
        read = sum(a.nbytes for a in arrays) if w.read is None else w.read
        written = data.expected.size * width if w.written is None else w.written
        return read, written

    def _limits(self, w: Workload, data: Data, moved: tuple[int, int]) -> dict[str, Turn]:
        sources = (*data.inputs, *data.constants)

        def memory(past_cache: bool) -> Turn:
            return self._ceilings.memory(*moved, past_cache=past_cache, sources=sources)

        turns = {"ceiling: memory": memory(False)}
        if moved[1] >= 1 << 20:
            turns["ceiling: memory past the caches"] = memory(True)
        if w.flops:
            dtype = next(a.dtype.name for a in data.inputs if a.dtype.kind == "f")
            turns["ceiling: FMA"] = self._ceilings.compute(w.flops, dtype)
        return turns

    def _scaling(self, w: Workload, data: Data) -> dict[str, Turn]:
        """Return the turns that tell what several threads gain here, and what they can gain at this moment."""
        alone = next(iter(peers.load("jitflow", 1).forms(w, data)))
        return {
            "jitflow, one thread": turn_of(alone.call),
            "calibration, one thread": self._ceilings.compute(1e6, "float32", threads=1),
            "calibration": self._ceilings.compute(1e6, "float32"),
        }


def _raw(t: Times) -> dict[str, Any]:
    return {
        "best": t.best,
        "median": t.median,
        "cpus": round(t.cpus, 2),
        "samples": [float(f"{s:.4g}") for s in t.samples],
    }


if __name__ == "__main__":
    sys.exit(main())
