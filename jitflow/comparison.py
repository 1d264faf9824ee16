"""Compiled against interpreted: a fetch set and feeds in, a report of every node's error out.

The fused program runs first, since that is what sessions run. Then every node is fetched from an unfused program, so
that a divergence can be pinned to the node, or, where only the fused program diverges, to its fusion group.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jitflow.config import override
from jitflow.dtypes import DType, as_dtype
from jitflow.errors import FeedError
from jitflow.graph import Node, toposort
from jitflow.interp import interpret
from jitflow.session import Session
from jitflow.structure import flatten
from jitflow.tensor import as_tensor

#: Allowed relative error by dtype when the caller names none: some hundred roundings deep, far from any real fault.
RTOL = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-4, "float64": 1e-10}


class CompareRow(NamedTuple):
    """One node: its greatest errors against the interpreter, over all elements, and whether they are allowed.

    An element that is NaN or infinite on one side only counts as an infinite error; on both sides as none.
    """

    name: str
    op: str
    dtype: DType
    shape: tuple[int, ...]
    max_abs: float
    max_rel: float
    max_ulp: float
    ok: bool


@dataclass(frozen=True)
class CompareReport:
    """What :func:`compare` found.

    `rows` has every node in topological order, `first_divergent` the name of the first one that is not ok, or of the
    fusion group (``group 2: k2_exp``) where only the fused program diverges. `times` are seconds: ``compile``,
    ``compiled`` (best of several runs), ``interpreted``. ``str()`` of it is a table.
    """

    ok: bool
    rows: tuple[CompareRow, ...]
    first_divergent: str | None
    times: Mapping[str, float]

    def __str__(self) -> str:
        head = ("node", "op", "type", "max abs", "max rel", "max ulp", "")
        lines = [head]
        for r in self.rows:
            kind = f"{r.dtype.short}[{', '.join(map(str, r.shape))}]"
            errors = (f"{r.max_abs:.3g}", f"{r.max_rel:.3g}", f"{r.max_ulp:.4g}")
            lines.append((r.name, r.op, kind, *errors, "ok" if r.ok else "DIVERGES"))
        widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
        text = [
            "  ".join(c.ljust(w) if k < 3 else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True)))
            for line in lines
        ]
        text.insert(1, "-" * len(text[0]))
        verdict = "all nodes agree" if self.ok else f"first divergence: {self.first_divergent}"
        timing = ", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in self.times.items())
        return "\n".join([*(line.rstrip() for line in text), verdict, timing])


def compare(
    fetches: Any, feeds: Mapping[Any, Any] | None = None, *, rtol: float | None = None, atol: float | None = None
) -> CompareReport:
    """Run `fetches` compiled and interpreted and report where they differ.

    Parameters
    ----------
    fetches : Tensor, or list, tuple or dict of Tensors
    feeds : dict
        As for ``Session.run``.
    rtol, atol : float, optional
        What is allowed: ``|a - b| <= atol + rtol * |b|`` for every element. By default `rtol` follows from the dtype
        and `atol` is `rtol` times the greatest magnitude of the node. Integers and bools must be equal.

    Returns
    -------
    CompareReport

    Examples
    --------
    >>> import numpy as np, jitflow as jf
    >>> x = jf.placeholder("x", jf.float32, ("n",))
    >>> jf.compare(jf.exp(x), {x: np.ones(5, np.float32)}).ok
    True
    """
    if not isinstance(feeds or {}, Mapping):
        raise FeedError(f"feeds must be a dict from tensors or names to values, got {type(feeds).__name__}")
    for limit, what in ((rtol, "rtol"), (atol, "atol")):
        if limit is not None and not (isinstance(limit, (int, float)) and limit >= 0):
            raise FeedError(f"compare: {what} must be a number of at least 0, got {limit!r}")
    feeds = dict(feeds or {})
    roots = list(dict.fromkeys(flatten(fetches)))
    start = time.perf_counter()
    with Session([as_tensor(n) for n in roots]) as fused:
        compile_time = time.perf_counter() - start
        order, feeds = _shown(fused, roots, feeds)
        tensors = [as_tensor(n) for n in order]
        start = time.perf_counter()
        oracle = interpret(tensors, feeds)
        interpreted = time.perf_counter() - start
        wanted = dict(zip(order, oracle, strict=True))
        results = fused.run([as_tensor(n) for n in roots], feeds)
        times = {"compile": compile_time, "compiled": _best(fused, roots, feeds), "interpreted": interpreted}
        names = {n: fused.name_of(n) for n in order}
        final = [_row(n, names[n], r, wanted[n], rtol, atol) for n, r in zip(roots, results, strict=True)]
        with override(fuse=False), Session(tensors) as plain:
            values = plain.run(tensors, feeds)
        rows = tuple(_row(n, names[n], v, wanted[n], rtol, atol) for n, v in zip(order, values, strict=True))
        first = next((r.name for r in rows if not r.ok), None)
        if first is None:
            bad = next((n for n, r in zip(roots, final, strict=True) if not r.ok), None)
            first = None if bad is None else fused.group_of(bad)
    if first is not None:
        # Where the fused program differs, its rows are what the user got.
        shown = {r.name: r for r in final if not r.ok}
        rows = tuple(shown.get(r.name, r) for r in rows)
    return CompareReport(first is None, rows, first, MappingProxyType(times))


def _shown(session: Session, roots: Sequence[Node], feeds: Mapping[Any, Any]) -> tuple[list[Node], dict[Any, Any]]:
    """Return the nodes that are computed or fed, and the feeds keyed by tensors."""
    given = session.feed_nodes(feeds)
    return toposort(roots, set(given)), {as_tensor(n): v for n, v in given.items()}


def _best(session: Session, roots: Sequence[Node], feeds: Mapping[Any, Any]) -> float:
    tensors = [as_tensor(n) for n in roots]
    best = float("inf")
    end = time.perf_counter() + 0.05
    while True:
        start = time.perf_counter()
        session.run(tensors, feeds)
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def _row(node: Node, name: str, got: Any, want: Any, rtol: float | None, atol: float | None) -> CompareRow:
    max_abs, max_rel, max_ulp, ok = errors_between(got, want, rtol, atol)
    return CompareRow(name, node.op.name, node.dtype, got.shape, max_abs, max_rel, max_ulp, ok)


def errors_between(
    got: np.ndarray[Any, Any], want: np.ndarray[Any, Any], rtol: float | None = None, atol: float | None = None
) -> tuple[float, float, float, bool]:
    """Return the greatest absolute, relative and ULP error of `got` against `want`, and whether they are allowed."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return float("inf"), float("inf"), float("inf"), False
    if got.size == 0:
        return 0.0, 0.0, 0.0, True
    if not as_dtype(got.dtype).is_float:
        a, b = got.astype(np.float64), want.astype(np.float64)
        gap = np.abs(a - b)
        with np.errstate(all="ignore"):
            rel = np.where(gap == 0, 0.0, gap / np.abs(b))
        return float(gap.max()), float(rel.max()), float(gap.max()), bool(np.array_equal(got, want))
    with np.errstate(all="ignore"):
        a, b = got.astype(np.float64), want.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        gap = np.where(same, 0.0, np.abs(a - b))
        gap = np.where(np.isnan(gap), np.inf, gap)
        rel = np.where(gap == 0, 0.0, gap / np.abs(b))
        rel = np.where(np.isnan(rel), np.inf, rel)
        ulp = np.where(gap == 0, 0.0, gap / np.spacing(np.abs(want)).astype(np.float64))
        ulp = np.where(np.isnan(ulp), np.inf, ulp)
        finite = np.abs(b[np.isfinite(b)])
        r = RTOL[got.dtype.name] if rtol is None else rtol
        t = r * float(finite.max(initial=0.0)) if atol is None else atol
        ok = bool(np.all(gap <= t + r * np.where(np.isfinite(b), np.abs(b), 0.0)))
    return float(gap.max()), float(rel.max()), float(ulp.max()), ok
