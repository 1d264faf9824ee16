"""Patterns of the command line in, the workloads and calls they mean out."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from tests.bench.workloads import FAMILIES, Workload

#: The measurements of `tests.bench.calls`.
CALLS = ("call", "compile MLP", "compile 100 kernels", "50 batch sizes", "import", "cache reload")


class Selection(NamedTuple):
    """What to measure, in the order of the benchmark."""

    workloads: list[Workload]
    calls: list[str]


def matches(patterns: list[str], *names: str) -> bool:
    """Tell whether one of `names` starts with one of `patterns`, in which ``*`` and ``?`` are wild.

    A pattern that starts with ``=`` must match a whole name. No pattern means everything.
    """
    wild = [p[1:] if p.startswith("=") else p + "*" for p in patterns]
    return not patterns or any(fnmatchcase(name, p) for p in wild for name in names)


def select(patterns: list[str]) -> Selection:
    """Return the workloads whose name, family or section `patterns` mean, and the calls."""
    everything = (w for f in FAMILIES for w in f.workloads())
    workloads = [w for w in everything if matches(patterns, w.name, w.family, w.section, "odd" * w.odd)]
    return Selection(workloads, [name for name in CALLS if matches(patterns, name, "calls")])
