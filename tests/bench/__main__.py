"""``jitflow bench``: workloads against numpy, numexpr, numba, JAX, PyTorch and ONNX Runtime, side by side.

Each number of threads runs in a process of its own (`worker.py`), as most libraries read it once, when imported. Every
result is checked against float64 numpy before it is timed. All systems get their inputs as native tensors and their
constants at compile time, run in inference mode with the number of threads said, write into given arrays where they
can, and take turns; the best of many times counts. A bar is met if the fastest peer takes `bar` times as long as
jitflow, or if jitflow comes within 10 % of what the machine can do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench import report
from tests.bench.environment import environment, machine
from tests.bench.peers import PEERS
from tests.bench.selection import select


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    args = _parser().parse_args(argv)
    if args.results:
        return _show([json.loads(path.read_text()) for path in args.results], args)
    chosen = select(args.only)
    if args.list:
        print("\n".join([w.name for w in chosen.workloads] + chosen.calls))
        return 0
    runs: list[dict[str, Any]] = []
    status = 0
    try:
        for threads in args.threads:
            runs.append({"start": None, "rows": [], "calls": []})
            _run(threads, args, runs[-1])
    except KeyboardInterrupt:
        status = 130  # what was measured until then is worth keeping
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine(), "runs": [run for run in runs if run["start"]]}))
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="jitflow bench", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="PATTERN",
        help="workloads whose name, family or section starts so; * and ? are wild; =NAME is a whole one; odd: all odd",
    )  # fmt: skip
    parser.add_argument("--peers", type=_peers, default=list(PEERS), metavar="A,B", help=f"of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=_numbers, default=[1], metavar="N,M", help="one run for each (default: 1)")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long to time each workload")
    parser.add_argument("--quick", action="store_true", help="0.3 seconds for each workload")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--list", action="store_true", help="print the names of what would be measured")
    parser.add_argument("--families", action="store_true", help="a line per family of workloads instead of each")
    parser.add_argument("--sort", action="store_true", help="those that miss their bar by most first")
    parser.add_argument("--results", nargs="+", type=Path, metavar="FILE", help="show files of --json; measure nothing")
    return parser


def _peers(text: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in PEERS:
            raise argparse.ArgumentTypeError(f"no peer is called {name!r}; there are {', '.join(PEERS)}")
    return names


def _numbers(text: str) -> list[int]:
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("threads are 1 or more")
    return numbers


def _run(threads: int, args: argparse.Namespace, run: dict[str, Any]) -> None:
    """Measure with `threads` threads, print the table as it grows, and put what is found into `run`."""
    progress = _Progress(len(select(args.only).workloads))
    for message in _measure(threads, args, run):
        if "doing" in message:
            progress.show(len(run["rows"]), message["doing"])
            continue
        progress.clear()
        if "start" in message and run["start"] is None:
            run["start"] = message["start"]
            print("\n".join(report.preface(run["start"], machine())), flush=True)
            if not args.families:
                print(report.head(threads), flush=True)
        elif "row" in message:
            run["rows"].append(message["row"])
            if not args.families:
                print(report.line(message["row"]), flush=True)
        elif "call" in message:
            run["calls"].append(message["call"])
            print(report.call_line(message["call"]), flush=True)
    progress.clear()
    if args.families:
        print("\n".join(report.families(run["rows"])))
    print("\n".join(report.summary(run["rows"], run["calls"])))


def _measure(threads: int, args: argparse.Namespace, run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages of a worker; a workload on which it dies is passed over by another one."""
    skipped = 0
    while True:
        command = _worker(threads, args, len(run["rows"]) + skipped)
        doing = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(threads)) as worker:
            assert worker.stdout is not None
            for text in worker.stdout:
                if not text.startswith("{"):
                    continue  # a library talks
                message = json.loads(text)
                doing = message.get("doing", doing)
                yield message
        if worker.returncode == 0:
            return
        if run["start"] is None or len(run["rows"]) + skipped >= len(select(args.only).workloads):
            raise SystemExit(f"the worker ended with status {worker.returncode} at: {doing}")
        skipped += 1
        print(f"the worker ended with status {worker.returncode} at: {doing}", file=sys.stderr)


def _worker(threads: int, args: argparse.Namespace, skip: int) -> list[str]:
    """Return the command that measures what is left after `skip` workloads."""
    seconds = 0.3 if args.quick else args.seconds
    return [
        sys.executable, "-m", "tests.bench.worker", "--threads", str(threads), "--seconds", str(seconds),
        "--peers", ",".join(args.peers), "--skip", str(skip), "--only", *args.only,
    ]  # fmt: skip


def _environment(threads: int) -> dict[str, str]:
    folder = str(Path(__file__).resolve().parents[2])
    variables = environment(threads)
    return variables | {"PYTHONPATH": os.pathsep.join(filter(None, (folder, variables.get("PYTHONPATH"))))}


def _show(files: list[dict[str, Any]], args: argparse.Namespace) -> int:
    """Print the tables of runs that were saved, those with the same number of threads as one."""
    runs = [run for file in files for run in file["runs"]]
    for threads in sorted({run["start"]["threads"] for run in runs}):
        same = [run for run in runs if run["start"]["threads"] == threads]
        rows = [row for run in same for row in run["rows"]]
        calls = [row for run in same for row in run["calls"]]
        if args.sort:
            rows.sort(key=report.shortfall, reverse=True)
        print("\n".join(report.preface(same[0]["start"], files[0]["machine"])))
        table = report.families(rows) if args.families else [report.head(threads), *map(report.line, rows)]
        print("\n".join([*table, *map(report.call_line, calls)]))
        print("\n".join(report.summary(rows, calls)))
    return 0


class _Progress:
    """A line that says what is going on, on a terminal only."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._on = sys.stderr.isatty()

    def show(self, done: int, doing: str) -> None:
        if self._on:
            print(f"\r\x1b[K[{done + 1}/{self._total}] {doing}"[:120], end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._on:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
