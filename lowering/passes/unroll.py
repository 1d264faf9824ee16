"""Replace each loop of kind ``unrolled`` by one copy of its body per iteration.

Before                         After
    unrolled i in 2:               out[0] = a[0]
      out[i] = a[i]                out[1] = a[1]

Needs: a constant extent (others are left alone). Keeps: the order of stores. Every copy binds variables of its own.
"""

from __future__ import annotations

from typing import Any

from jitflow.expr import Const, Expr, const_index
from jitflow.record import map_children
from lowering.loop_ir import Body, For, Kernel, Stmt, map_body
from lowering.renew import renew


def unroll(kernel: Kernel) -> Kernel:
    """Return `kernel` without unrolled loops of constant extent; itself if it has none."""
    return kernel.with_body(map_body(_statement, kernel.body))


def _statement(s: Stmt) -> Stmt | Body:
    """Return `s` with its bodies unrolled, inner loops first."""

    def child(x: Any) -> Any:
        return x if isinstance(x, Expr) else _statement(x)

    new: Stmt = map_children(child, s)
    if not (isinstance(new, For) and new.kind == "unrolled" and isinstance(new.extent, Const)):
        return new
    copies: list[Stmt] = []
    for i in range(int(new.extent.value)):
        copies += renew(new.body, {new.var: const_index(i)})
    return tuple(copies)
