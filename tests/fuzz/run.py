"""``python -m tests.fuzz --count N``: check N random graphs in worker processes; print and shrink what fails.

A case that crashes its process or runs over the limit is reported as such, and the rest go on.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import sys
import time
import warnings
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.fuzz.check import check_case
from tests.fuzz.generate import Case, random_case
from tests.fuzz.shrink import shrink
from tests.fuzz.threads import check_threads


def failure_of(case: Case, guard: bool = False, threads: int = 0) -> str | None:
    """Return what is wrong with `case`, or None: by so many `threads`, if any, against one, else against the oracle."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if threads:
                check_threads(case, threads)
            else:
                check_case(case, guard=guard)
    except Exception as error:  # every kind of failure is a finding
        return f"{type(error).__name__}: {error}"
    return None


def _worker(pipe: Connection, guard: bool, threads: int) -> None:
    while True:
        seed = pipe.recv()
        if seed is None:
            return
        pipe.send(failure_of(random_case(seed), guard, threads))


class _Worker:
    """A process that checks one seed at a time."""

    def __init__(self, guard: bool, threads: int) -> None:
        self.pipe, other = mp.Pipe()
        self.process = mp.get_context("spawn").Process(target=_worker, args=(other, guard, threads), daemon=True)
        self.process.start()
        other.close()
        self.seed: int | None = None
        self.since = 0.0

    def give(self, seed: int) -> None:
        self.seed, self.since = seed, time.monotonic()
        self.pipe.send(seed)


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one case")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    parser.add_argument("--guard", action="store_true", help="put every buffer next to an inaccessible page")
    parser.add_argument("--threads", type=int, default=0, help="compare so many threads with one, bit by bit")
    parser.add_argument("--only", type=int, help="check and shrink this seed alone, in this process")
    args = parser.parse_args()
    if args.only is not None:
        return _explain(args.only, args.guard, args.threads)
    start = time.monotonic()
    seeds = iter(range(args.seed, args.seed + args.count))
    workers: list[_Worker] = []
    failures: list[tuple[int, str]] = []
    done = 0

    def feed(w: _Worker) -> None:
        seed = None if args.fail_fast and failures else next(seeds, None)
        if seed is None:
            w.seed = None
            w.pipe.send(None)
            workers.remove(w)
        else:
            w.give(seed)

    for _ in range(args.jobs):
        workers.append(_Worker(args.guard, args.threads))
        feed(workers[-1])
    while workers:
        ready = wait([w.pipe for w in workers], timeout=1.0)
        for w in list(workers):
            verdict: Any = None
            if w.pipe in ready:
                try:
                    verdict = w.pipe.recv()
                except (EOFError, ConnectionResetError):
                    w.process.join()
                    verdict = f"CRASHED with exit code {w.process.exitcode}"
            elif time.monotonic() - w.since > args.limit:
                w.process.kill()
                verdict = f"HUNG for {args.limit} s"
            else:
                continue
            done += 1
            if verdict is not None:
                failures.append((w.seed or 0, verdict))
                print(f"\nseed {w.seed}: {verdict}", flush=True)
            if verdict is not None and verdict.startswith(("CRASHED", "HUNG")):
                workers.remove(w)
                workers.append(w := _Worker(args.guard, args.threads))
            feed(w)
        if sys.stderr.isatty():
            print(f"\r{done}/{args.count}, {len(failures)} failed", end="", file=sys.stderr, flush=True)
    seconds = time.monotonic() - start
    crashed = sum(v.startswith("CRASHED") for _, v in failures)
    hung = sum(v.startswith("HUNG") for _, v in failures)
    wrong = len(failures) - crashed - hung
    print(f"{done} graphs from seed {args.seed} in {seconds:.0f} s: {wrong} wrong, {crashed} crashed, {hung} hung")
    if failures:
        print(f"shrink one with: python -m tests.fuzz --only {failures[0][0]}")
    return 1 if failures else 0


def _explain(seed: int, guard: bool, threads: int) -> int:
    case = random_case(seed)
    found = failure_of(case, guard, threads)
    if found is None:
        print(f"seed {seed} passes")
        return 0
    small = shrink(case, lambda c: failure_of(c, guard, threads) is not None)
    print(f"{small.text()}\n{failure_of(small, guard, threads)}")
    return 1
