"""A fallible kernel that moves rows into two: one that looks at the indices, and one that relies on them.

Before                                              After
    parallel i in n:                                    vectorized i in n:
      vectorized j in m:                                  let raw: index = index(x[i])
        let raw: index = index(x[i])                      check_index status[0] raw < 9, i
        check_index status[0] raw < 9, i
        let safe: index = min(raw, 8)                   parallel i in n:
        o[i, j] = a[safe, j]                              vectorized j in m:
                                                            let raw: index = index(x[i])
                                                            let safe: index = min(raw, 8)
                                                            o[i, j] = a[safe, j]

The first takes next to no time, and where it has been run the second cannot fail: it may write straight into arrays
that must not change if an index is bad.
"""

from __future__ import annotations

from jitflow.expr import INDEX, Buffer, Const, Expr, Load, Var, minimum
from jitflow.record import children, walk
from jitflow.simplify import depends_on, simplify_index
from lowering.loop_ir import Body, CheckIndex, For, Kernel, Let, LoopKind, Stmt, Store
from lowering.renew import renew


def split_checks(kernel: Kernel) -> tuple[Kernel, Kernel] | None:
    """Return the kernel of the checks of `kernel` and the kernel of the rest.

    None for what is no perfect nest of loops, and where every single element has an index of its own: to read all of
    them twice would cost as much as it saves.
    """
    loops: list[For] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    if not loops or not all(isinstance(s, (Let, Store, CheckIndex)) for s in body):
        return None
    if any(depends_on(loop.extent, x.var) for loop in loops for x in loops):
        return None
    checks = _needed(body)
    used = _variables(checks)
    if not checks or not used or loops[-1].var in used:
        return None
    (status,) = {s.status for s in checks if isinstance(s, CheckIndex)}
    rest = tuple(s for s in body if not isinstance(s, CheckIndex))
    for loop in reversed(loops):
        rest = (For(loop.var, loop.extent, rest, loop.kind, loop.axis),)
    first = _checks(
        [loop for loop in loops if loop.var in used], [loop for loop in loops if loop.var not in used], checks
    )
    read = _read(checks)
    params = tuple(b for b in kernel.params if b in read or b is status)
    return (
        Kernel(f"{kernel.name}_check", params, kernel.dims, first, kernel.reads & read, kernel.notes),
        Kernel(
            kernel.name,
            tuple(b for b in kernel.params if b is not status),
            kernel.dims,
            rest,
            kernel.reads,
            kernel.notes,
            kernel.callees,
            kernel.aliased,
        ),
    )


def _needed(body: Body) -> Body:
    """Return the checks in `body` and the values that they use."""
    out: list[Stmt] = []
    wanted: set[Var] = set()
    for s in reversed(body):
        if isinstance(s, CheckIndex) or (isinstance(s, Let) and s.var in wanted):
            out.append(s)
            wanted |= _variables((s,))
    return tuple(reversed(out))


def _variables(body: Body) -> set[Var]:
    return {x for s in body for c in children(s) for x in walk(c) if isinstance(x, Var)}


def _read(body: Body) -> set[Buffer]:
    return {x.buffer for s in body for x in walk(s) if isinstance(x, Load)}


def _checks(used: list[For], unused: list[For], body: Body) -> Body:
    """Return loops over `used` around `body`, entered only where the loops in `unused` would be."""
    inner = renew(body, {})
    for loop in reversed(used):
        kind: LoopKind = "vectorized" if loop is used[-1] else "serial"
        var = Var(loop.var.name, INDEX, 0)
        inner = (For(var, loop.extent, renew(inner, {loop.var: var}), kind),)
    for loop in unused:
        once: Expr = simplify_index(minimum(loop.extent, 1))
        if not isinstance(once, Const) or once.value != 1:
            inner = (For(Var(loop.var.name, INDEX, 0), once, inner),)
    return inner
