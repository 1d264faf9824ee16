"""A lowered program into a table for people: its kernels with their work and traffic, its buffers, its peak memory.

The numbers are estimates from the graph, formulas where dims are symbolic. *Operations* count one for each element
that a node computes and each that a reduction folds, two for each step of a matrix product; movement is free. *Bytes*
are what a kernel must read and write once: its leaves and its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from jitflow.expr import INDEX, Const, Expr, Reduce, Var, as_index, const_index
from jitflow.graph import Node
from jitflow.simplify import simplify_index
from jitflow.types import dim_of, dim_text, element_count
from lowering.fuse import FusionGroup
from lowering.plan import Place, nbytes_of
from lowering.trace import trace


def operations(node: Node) -> Expr:
    """Return how many arithmetic operations `node` takes."""
    if node.op.source or node.op.movement:
        return const_index(0)
    count = as_index(element_count(node.shape))
    if node.op.kernel is not None:
        return count
    expr = trace(node, tuple(Var("i", INDEX, floor=0) for _ in node.shape)).expr
    if not isinstance(expr, Reduce):
        return count
    folded = as_index(element_count([dim_of(simplify_index(e)) for e in expr.extents]))
    return simplify_index(count * folded * (2 if expr.contract else 1))


def show_report(
    groups: Sequence[FusionGroup],
    kernel_of: Callable[[FusionGroup], str],
    places: Mapping[Node, Place],
    cells: Sequence[Expr],
    scratch: Expr,
    names: Mapping[Node, str],
    constants: Collection[Node],
    workers: int,
    shared: Mapping[str, str],
) -> str:
    """Return the report of a program of `groups`, whose results lie at `places`, run by so many `workers`.

    `shared` says of kernels by name what workers share of them.
    """
    runs: dict[str, list[FusionGroup]] = {}
    for group in groups:
        runs.setdefault(kernel_of(group), []).append(group)
    rows = [("kernel", "runs", "nodes", "operations", "bytes")]
    total_work: Expr = const_index(0)
    total_bytes: Expr = const_index(0)
    for kernel, same in runs.items():
        group = same[0]
        work = _sum(operations(n) for n in group.members)
        traffic = _sum(nbytes_of(n) for n in (*group.leaves, *(n for n, _ in group.outputs)))
        rows.append((kernel, str(len(same)), str(len(group.members)), _text(work), _text(traffic)))
        total_work = total_work + work * len(same)
        total_bytes = total_bytes + traffic * len(same)
    nodes = sum(len(g.members) for g in groups)
    rows.append(("all", str(len(groups)), str(nodes), _text(total_work), _text(total_bytes)))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells_ = (row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)))
        lines.append("  " + "  ".join(cells_))
    if workers > 1:
        lines.append(f"shared by at most {workers} threads:")
        lines += [f"  {kernel} over {what}" for kernel, what in shared.items()]
    lines.append("buffers:")
    kept: dict[int, list[str]] = {}
    for node, place in places.items():
        if place.space == "arena":
            kept.setdefault(place.number, []).append(names.get(node, node.op.name))
    for k, size in enumerate(cells):
        lines.append(f"  arena[{k}] {dim_text(dim_of(size))} bytes: {_some(kept.get(k, []))}")
    if scratch != const_index(0):
        of = "working rows of one worker" if workers == 1 else f"working rows of each of {workers} workers"
        lines.append(f"  scratch {_text(scratch)} bytes: {of}")
    lines += [f"  constant {_text(nbytes_of(n))} bytes: {names.get(n, n.op.name)}" for n in constants]
    # Not simplified as one sum: the maxima in it would take long to compare.
    literal = sum(int(e.value) for e in (*cells, *[scratch] * workers) if isinstance(e, Const))
    terms = [dim_text(dim_of(e)) for e in cells if not isinstance(e, Const)]
    if not isinstance(scratch, Const):
        terms.append(dim_text(dim_of(scratch)) if workers == 1 else f"{workers}*({dim_text(dim_of(scratch))})")
    peak = " + ".join([*terms, str(literal)] if literal or not terms else terms)
    lines.append(f"peak memory of a run besides inputs and outputs: {peak} bytes")
    return "\n".join(lines)


def _sum(terms: Iterable[Expr]) -> Expr:
    total: Expr = const_index(0)
    for t in terms:
        total = total + t
    return simplify_index(total)


def _text(e: Expr) -> str:
    return dim_text(dim_of(simplify_index(e)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} and {len(names) - 3} more"
