"""What a contraction group multiplies: a group in; its axes, its two factors and where they lie in memory out.

``out[batch, m, n] = sum over k of left[batch, m, k] * right[batch, k, n]``. The axes of the group's rows are dealt out
by what the factors depend on: from the end, `n` is the last axis, `m` are the axes before it that `right` does not see
(several are walked as one: the rows of a batch that share a weight are rows of one matrix), the rest is `batch`. A
column (n of extent 1) is turned around: its rows become `n`, and `m` is a single row.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from jitflow.expr import INDEX, Binary, Const, Expr, Reduce, Var, const_index
from jitflow.graph import Node
from jitflow.record import walk
from jitflow.simplify import Extents, divides, free_vars, simplify_index, split_linear
from lowering.fuse import Axis, FusionGroup
from lowering.trace import Demand, Subscripts, flat_index, literal_of, substitute_all, trace, unflatten_index


@dataclass(frozen=True, eq=False)
class InPlace:
    """A factor that is element `flat` of array `node`, which moves by `across` per m or n and by `along` per k."""

    node: Node
    flat: Expr
    across: Expr
    along: Expr


@dataclass(frozen=True, eq=False)
class Factor:
    """`expr` over the values of `demands`; `place` if it is read from memory as it is, with constant strides.

    `unit` says along which axis neighbours in memory follow each other: ``across`` (m or n), ``along`` (k), or None.
    `run`: it is read at m (or n) divided by `run`, and at the remainder, as where axes were merged into one; so in runs
    of as many points its subscripts are linear. None if they are everywhere, or nowhere. `steps`: the same of k, each
    number a multiple of the next: the elements of one k axis that a step of the axes before it takes.
    """

    expr: Expr
    demands: tuple[Demand, ...]
    place: InPlace | None
    unit: str | None
    run: Expr | None = None
    steps: tuple[int, ...] = ()

    def depends_on(self, axis: Axis) -> bool:
        """Tell whether it differs along `axis`."""
        return _depends(self.expr, self.demands, axis)


@dataclass(frozen=True, eq=False)
class Contraction:
    """See the module docstring. `m` and `n` walk `m_axes` and `n_axes` in row-major order."""

    node: Node
    batch: tuple[Axis, ...]
    m_axes: tuple[Axis, ...]
    n_axes: tuple[Axis, ...]
    m: Axis
    n: Axis
    k: Axis
    left: Factor
    right: Factor


def contraction_of(group: FusionGroup) -> Contraction | None:
    """Return what `group` multiplies, or None if its element is no product of two such factors."""
    node, rows = group.contract, group.rows
    if node is None or not rows:
        return None
    traced = trace(node, tuple(a.var for a in rows))
    reduce = traced.expr
    if not isinstance(reduce, Reduce) or not reduce.contract or len(reduce.vars) != 1:
        return None
    product, var = reduce.body, reduce.vars[0]
    if not (isinstance(product, Binary) and product.op == "mul" and isinstance(var, Var)):
        return None
    k = Axis(var, simplify_index(reduce.extents[0]))
    left, right = (_demanded(e, traced.demands) for e in (product.a, product.b))
    last = rows[-1]
    if _depends(*left, last):
        left, right = right, left
    if _depends(*left, last):
        return None
    cut = len(rows) - 1
    while cut and not _depends(*right, rows[cut - 1]):
        cut -= 1
    batch, m_axes, n_axes = rows[:cut], rows[cut:-1], rows[-1:]
    if last.extent == const_index(1) and any(a.extent != const_index(1) for a in m_axes):
        left, right, m_axes, n_axes = right, left, n_axes, m_axes
    m, n = _merged("m", m_axes), _merged("n", n_axes)
    extents = {a.var: a.extent for a in (*batch, m, n, k)}
    return Contraction(
        node,
        batch,
        m_axes,
        n_axes,
        m,
        n,
        k,
        _factor(group, left, m_axes, m, k, extents),
        _factor(group, right, n_axes, n, k, extents),
    )


def _merged(name: str, axes: Sequence[Axis]) -> Axis:
    """Return one axis that walks all of `axes`; of a single one, itself."""
    if len(axes) == 1:
        return axes[0]
    extent: Expr = const_index(1)
    for a in axes:
        extent = extent * a.extent
    return Axis(Var(name, INDEX, 0), simplify_index(extent))


def _demanded(e: Expr, demands: Iterable[Demand]) -> tuple[Expr, tuple[Demand, ...]]:
    used = free_vars(e)
    return e, tuple(d for d in demands if d.var in used)


def _depends(e: Expr, demands: Sequence[Demand], axis: Axis) -> bool:
    read = [i for d in demands for i in (*d.at, *(() if d.cond is None else (d.cond,)))]
    return axis.extent != const_index(1) and any(axis.var in free_vars(x) for x in (e, *read))


def _factor(
    group: FusionGroup,
    part: tuple[Expr, tuple[Demand, ...]],
    axes: Sequence[Axis],
    merged: Axis,
    k: Axis,
    extents: Extents,
) -> Factor:
    expr, demands = part
    parts = unflatten_index(merged.var, [a.extent for a in axes], extents)
    renamed = dict(zip((a.var for a in axes), parts, strict=True))
    leaves = set(group.leaves)
    walks = []
    reads = [(n, tuple(substitute_all(i, renamed) for i in at)) for n, at in _reads(demands, leaves)]
    subscripts = [simplify_index(i, extents) for _, at in reads for i in at]
    for node, index in reads:
        flat = flat_index(index, node.shape, extents)
        walks.append((node, flat, _step(flat, merged, extents), _step(flat, k, extents)))
    place = None
    if len(walks) == 1 and _is_element(expr, demands, leaves):
        ((node, flat, across, along),) = walks
        # An axis of one element has no step; one as long as the other axis keeps accesses inside the matrix.
        across = k.extent if merged.extent == const_index(1) else across
        along = merged.extent if k.extent == const_index(1) else along
        # A step of 0 is one element for many: a matrix only once it is copied.
        if across is not None and along is not None and const_index(0) not in (across, along):
            place = InPlace(node, flat, across, along)
            walks = [(node, flat, across, along)]
    unit = _unit([w[2] for w in walks], [w[3] for w in walks])
    if place is not None:
        return Factor(expr, demands, place, unit)
    divisors = _divisors(subscripts, merged.var)
    # The axis consists of whole runs, or what is found out of their number would not hold of a last one that is not.
    run = next((d for d in divisors if all(divides(d, e) for e in (*divisors, merged.extent))), None)
    if run is not None and const_index(1) in [_step_in_run(at, node, merged, run, extents) for node, at in reads]:
        unit = "across"
    return Factor(expr, demands, place, unit, run, _steps(_divisors(subscripts, k.var)))


def _step_in_run(at: Subscripts, node: Node, axis: Axis, run: Expr, extents: Extents) -> Expr | None:
    """Return by how much the element of `node` at `at` moves from one point of a run along `axis` to the next."""
    number, place = Var("run", INDEX, 0), Var("place", INDEX, 0)
    inside = {**extents, place: run, number: simplify_index(axis.extent // run)}
    index = tuple(simplify_index(substitute_all(i, {axis.var: number * run + place}), inside) for i in at)
    return _step(flat_index(index, node.shape, inside), Axis(place, run), inside)


def _step(flat: Expr, axis: Axis, extents: Extents) -> Expr | None:
    """Return by how much `flat` grows from one point of `axis` to the next, or None if that differs."""
    split = split_linear(flat, axis.var, extents)
    return None if split is None or free_vars(split[0]) & set(extents) else split[0]


def _divisors(subscripts: Iterable[Expr], var: Var) -> list[Expr]:
    """Return what `subscripts` divide `var` by; nothing if they hold quotients of sums with it, too."""
    found: dict[Expr, None] = {}
    for subscript in subscripts:
        for e in walk(subscript):
            if not (isinstance(e, Binary) and e.op in ("floordiv", "mod") and var in free_vars(e.a)):
                continue
            if e.a is var:
                found[simplify_index(e.b)] = None
            elif not (isinstance(e.a, Binary) and e.a.op == "floordiv" and e.a.a is var):
                return []
            elif isinstance(e.b, Const) and isinstance(e.a.b, Const):
                found[simplify_index(e.a.b * e.b)] = None
    return list(found)


def _steps(divisors: Iterable[Expr]) -> tuple[int, ...]:
    """Return literal divisors in falling order if each is a multiple of the next, else none."""
    steps = sorted((int(d.value) for d in divisors if isinstance(d, Const)), reverse=True)
    return tuple(steps) if all(a % b == 0 for a, b in itertools.pairwise(steps)) else ()


def _unit(across: Sequence[Expr | None], along: Sequence[Expr | None]) -> str | None:
    one = const_index(1)
    return "along" if one in along else "across" if one in across else None


def _reads(demands: Iterable[Demand], leaves: Collection[Node]) -> list[tuple[Node, Subscripts]]:
    """Return the elements of leaves that `demands` come down to."""
    found: list[tuple[Node, Subscripts]] = []
    stack = [(d.node, d.at) for d in demands]
    seen = set(stack)
    while stack:
        node, at = stack.pop()
        if node in leaves:
            found.append((node, at))
            continue
        if literal_of(node) is not None:
            continue
        for d in trace(node, at).demands:
            if (d.node, d.at) not in seen:
                seen.add((d.node, d.at))
                stack.append((d.node, d.at))
    return found


def _is_element(expr: Expr, demands: Sequence[Demand], leaves: Collection[Node]) -> bool:
    """Tell whether `expr` is an element of a leaf, moved perhaps, but neither computed nor chosen by a condition."""
    while len(demands) == 1 and expr is demands[0].var and demands[0].cond is None:
        (d,) = demands
        if d.node in leaves:
            return True
        expr, demands = trace(d.node, d.at)
    return False
