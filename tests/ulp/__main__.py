"""Measure errors in ULP of the operators named, or of all: ``python -m tests.ulp [names] [--write]``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from jitflow.dtypes import DType, float32, float64
from tests.ulp.functions import Subject, subjects
from tests.ulp.measure import cost, is_measured, sample, scan
from tests.ulp.table import PATH, Row, read_table, show_table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.ulp", description=__doc__)
    parser.add_argument("names", nargs="*", help="operators (default: all)")
    parser.add_argument("--every", type=int, default=1, help="try every n-th float32 (default: all)")
    parser.add_argument("--points", type=int, default=100_000, help="float64 numbers and pairs to try")
    parser.add_argument("--seed", type=int, default=0, help="of these numbers")
    parser.add_argument("--dtype", choices=("float32", "float64"), help="only this one")
    parser.add_argument("--jobs", type=int, default=1, help="processes that scan")
    parser.add_argument("--target", choices=("x86-64-v2",), help="compile without fma (default: for this machine)")
    parser.add_argument("--cost", action="store_true", help="measure the time beside numpy's; errors stay as written")
    parser.add_argument("--write", action="store_true", help=f"put the results into {PATH.name}")
    args = parser.parse_args(argv)
    known = subjects()
    chosen = [s for s in known.values() if not args.names or s.op.name in args.names or s.label in args.names]
    missing = [n for n in args.names if not any(n in (s.op.name, s.label) for s in chosen)]
    if missing:
        parser.error(f"no elementwise operator of floats is called {', '.join(missing)}")
    for subject in chosen:
        for dtype in (float32, float64):
            if args.dtype not in (None, dtype.name) or not is_measured(subject, dtype):
                continue
            if args.target and subject.op.exact:
                continue  # the same instructions with fma as without
            row = _measured(subject, dtype, args)
            _progress("")
            if row is None:
                continue
            print(row.text().strip(), flush=True)
            if args.write:
                # Read again each time: another process may have written its rows.
                PATH.write_text(show_table(read_table() | {row.key: row}))
    return 0


def _measured(subject: Subject, dtype: DType, args: argparse.Namespace) -> Row | None:
    """Return the row of `subject`, with what `args` ask for measured and the rest as it is in the table."""
    code = "no fma" if args.target else "fma"
    old = read_table().get((subject.label, dtype.name, code))
    if args.cost:
        return replace(old, cost=cost(subject, dtype)) if old and not args.target else None
    if subject.arity == 1 and dtype is float32:
        worst = scan(subject, args.target, args.every, args.jobs, _progress)
    else:
        worst = sample(subject, dtype, args.target, args.points, args.seed, _progress)
    return Row(subject.label, dtype.name, code, worst, old.cost if old else None)


def _progress(text: str) -> None:
    """Show `text` in the last line of a terminal; nothing anywhere else."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
