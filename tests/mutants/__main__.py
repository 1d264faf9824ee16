"""``python -m tests.mutants``: seed each bug of the table into a copy of the project, and see whether anything notices.

For each mutant its own tests run first, then random graphs, then the whole suite, up to the first failure; a mutant is
killed by whatever fails. The same is run without a bug before, since what fails anyway notices nothing. Prints a line
for each and the share that was killed; the exit status is 1 below 95 %.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("jitflow", "lowering", "runtime", "tests", "examples", "pyproject.toml", "README.md")
#: The share of mutants that must be killed.
WANTED = 0.95


def main() -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--graphs", type=int, default=300, help="random graphs to try on a mutant")
    parser.add_argument("--only", help="mutants whose name contains this")
    parser.add_argument("--quick", action="store_true", help="leave the whole suite out")
    parser.add_argument("--skip-base", action="store_true", help="do not run everything without a bug first")
    args = parser.parse_args()
    chosen = [m for m in MUTANTS if not args.only or args.only in m.name]
    if not args.skip_base:
        by, _ = killed_by(Mutant("no bug", "", "", ""), args.graphs, quick=False)
        if by is not None:
            print(f"without a bug, {by} fail already")
            return 2
    with ThreadPoolExecutor(args.jobs) as pool:
        verdicts = pool.map(lambda m: killed_by(m, args.graphs, quick=args.quick), chosen)
        killed = 0
        for mutant, (by, seconds) in zip(chosen, verdicts, strict=True):
            killed += by is not None
            print(f"{'killed by ' + by if by else 'SURVIVED':<28} {seconds:5.0f} s  {mutant.name}", flush=True)
    print(f"{killed} of {len(chosen)} mutants killed")
    return 0 if killed >= WANTED * len(chosen) else 1


def killed_by(mutant: Mutant, graphs: int, *, quick: bool) -> tuple[str | None, float]:
    """Return what notices `mutant` (None: nothing), and the seconds it took."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        root = Path(folder)
        for name in PACKAGES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        if mutant.file:
            seed(mutant, root)
        steps: list[tuple[str, Sequence[str]]] = []
        if mutant.tests:
            steps.append(("its tests", ("pytest", "-x", *mutant.tests)))
        steps.append(("random graphs", ("tests.fuzz", "--jobs", "1", "--fail-fast", "--count", str(graphs))))
        if not quick:
            # Not the test of the table: in a mutant it finds the code changed.
            steps.append(("the suite", ("pytest", "-x", "--ignore=tests/mutants")))
        for name, command in steps:
            if not passes(command, root):
                return name, time.monotonic() - start
    return None, time.monotonic() - start


def seed(mutant: Mutant, root: Path) -> None:
    """Change the file of `mutant` below `root`."""
    path = root / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1:
        raise ValueError(f"{mutant.name}: {mutant.before!r} occurs {text.count(mutant.before)} times in {mutant.file}")
    path.write_text(text.replace(mutant.before, mutant.after))


def passes(command: Sequence[str], root: Path) -> bool:
    """Run a module in `root`; tell whether it succeeds."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, timeout=3600)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
