"""An operator with a kernel rule, evaluated by the loop interpreter (no machine code)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jitflow.errors import IndexRangeError
from jitflow.expr import Var
from jitflow.graph import Node, name_nodes, toposort
from jitflow.simplify import evaluate_index
from lowering.build import build
from lowering.fuse import fuse
from lowering.interp import interpret

Array = np.ndarray[Any, Any]


def run_kernel(node: Node, arrays: Sequence[Array], dims: Mapping[Var, int]) -> Array:
    """Return what the kernel of `node`, whose inputs are placeholders, computes from `arrays`.

    Run forwards and backwards, which must agree; IndexRangeError if it finds a bad index.
    """
    (group,) = fuse([node])
    kernel = build(group, "rule", name_nodes(toposort([node])))
    given = dict(zip(node.inputs, arrays, strict=True))
    outs = []
    for reverse in (False, True):
        out = np.zeros(tuple(evaluate_index(d, dims) for d in node.shape), node.dtype.np)
        status = np.full(1, np.iinfo(np.int64).max)
        buffers = [given[n] for n in group.leaves] + [out] + [status] * node.op.fallible
        sizes = {d.name: dims[d] for d in kernel.dims}
        interpret(kernel, buffers, sizes, reverse=reverse)
        if status[0] != np.iinfo(np.int64).max:
            raise IndexRangeError(f"bad index at {status[0]}")
        outs.append(out)
    assert outs[0].tobytes() == outs[1].tobytes(), f"{node!r}: iterations depend on each other"
    return outs[0]
