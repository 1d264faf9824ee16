"""Let loops that may run for long ask now and then whether the run is to be given up.

Before                         After
    parallel i in m:               parallel i in m poll max(1, 200000000 // (n // 64 * 2200 + 900)):
      serial c in n // 64:           serial c in n // 64 poll 90909:
        acc[...] = ...                 acc[...] = ...

Loops that take less than a fifth of a millisecond are left alone, and parallel ones that take less than is worth
sharing among workers. How often the others poll follows from the estimate of `lowering.analysis.cost`: so rarely that
nobody notices.
"""

from __future__ import annotations

from jitflow.expr import Const, Expr
from jitflow.simplify import simplify_index
from lowering.analysis.cost import Costs, iterations_within
from lowering.loop_ir import Body, For, If, Kernel, Stmt, While, map_body

#: The work, in nanoseconds by estimate, that may be done without a look at whether to go on. Where the system has to
#: clear fresh pages on the way, it takes a hundred times as long.
WORK_BETWEEN_POLLS = 200_000
#: The work that a parallel loop must have for others to help with it.
WORK_WORTH_SHARING = 10_000


def poll(kernel: Kernel) -> Kernel:
    """Return `kernel` with polls in its long serial loops; itself if it has none."""
    costs = Costs(kernel)

    def inside(body: Body) -> Body:
        return body if is_short(costs.body(body)) else map_body(statement, body)

    def statement(s: Stmt) -> Stmt:
        match s:
            case For(var, extent, body, "serial" | "parallel" as kind, axis, None):
                work = costs.iteration(s)
                limit = WORK_WORTH_SHARING if kind == "parallel" else WORK_BETWEEN_POLLS
                if is_short(simplify_index(costs.extent(s) * work), limit):
                    return s
                if kind == "parallel" and kernel.dims:
                    work = Costs(kernel, many=True).iteration(s)
                return For(var, extent, inside(body), kind, axis, iterations_within(WORK_BETWEEN_POLLS, work))
            case For(var, extent, body, kind, axis, often):
                inner = inside(body)
                return s if inner is body else For(var, extent, inner, kind, axis, often)
            case While(cond, body):
                inner = inside(body)
                return s if inner is body else While(cond, inner)
            case If(cond, then, otherwise):
                yes, no = inside(then), inside(otherwise)
                return s if yes is then and no is otherwise else If(cond, yes, no)
            case _:
                return s

    return kernel.with_body(map_body(statement, kernel.body))


def is_short(work: Expr, limit: int = WORK_BETWEEN_POLLS) -> bool:
    """Tell whether `work` is known to be no more than `limit` nanoseconds, by default those between two polls."""
    return isinstance(work, Const) and int(work.value) <= 1000 * limit
