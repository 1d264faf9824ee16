"""Random graphs as GPU kernels, thread by thread: node by node against the oracle, and fused = unfused bit for bit.

``--fuzz-count`` and ``--fuzz-seed`` apply; the interpreter is slow, so a twelfth of the count is run here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import jitflow as jf
from jitflow.graph import Node, toposort
from jitflow.interp import evaluate
from jitflow.tensor import as_tensor
from tests.fuzz import check
from tests.fuzz.check import Mismatch
from tests.fuzz.generate import random_case
from tests.support.bits import same_bits
from tests.support.gpu_run import run_gpu

Array = np.ndarray[Any, Any]
#: Reductions whose order on a GPU is not that of the oracle.
REORDERED = {"reduce_sum", "reduce_prod"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    first = metafunc.config.getoption("--fuzz-seed")
    count = max(1, metafunc.config.getoption("--fuzz-count") // 12)
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(first, first + count))


def test_random_graphs_as_gpu_kernels(seed: int) -> None:
    _, fetched, feeds = random_case(seed).build()
    roots = [t.node for t in fetched]
    needed = set(toposort(roots))
    feeds = {t: v for t, v in feeds.items() if t.node in needed}
    try:
        jf.interpret(fetched, feeds)
    except (jf.FeedError, IndexError):
        return
    named = {t.node.name: v for t, v in feeds.items()}
    nodes = [n for n in toposort(roots) if n.op.name != "placeholder"]
    values = dict(zip(nodes, run_gpu([as_tensor(n) for n in nodes], named, fused=False), strict=True))
    known: dict[Node, Array] = {**values, **{t.node: v for t, v in feeds.items()}}
    for node in nodes:
        operands = [known[x] for x in node.inputs]
        want = node.attr("value").array if node.op.source else evaluate(node, operands, check._dims(feeds))
        if node.op.name in REORDERED and want.dtype.kind == "f":
            _check_reordered(node, values[node], want, operands[0])
        else:
            check._check_node(node, values[node], want, operands)
    together = run_gpu(fetched, named, reverse=seed % 2 == 1, final=seed % 2 == 1)
    for tensor, got in zip(fetched, together, strict=True):
        assert same_bits(got, known[tensor.node]), f"fused and unfused differ at {tensor!r}"


def _check_reordered(node: Node, got: Array, want: Array, x: Array) -> None:
    """Another order of folding may change a finite result by its roundings, and no other result."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    axes = node.attr("axes")
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        size = np.abs(wide).sum(axis=axes) if node.op.name == "reduce_sum" else np.abs(wide.prod(axis=axes))
        info = np.finfo(want.dtype)
        # Where intermediate results may overflow or vanish, orders differ by more than roundings.
        regular = np.isfinite(size) & (size < float(info.max) / 4) & ((size > float(info.tiny) * 4) | (size == 0))
        if node.op.name == "reduce_prod":
            magnitudes = np.where(np.isfinite(wide) & (wide != 0), np.abs(wide), 1)
            spread = np.abs(np.log2(magnitudes)).sum(axis=axes)
            regular &= spread < -info.minexp
        gap = np.abs(got.astype(np.longdouble) - want.astype(np.longdouble))
        ok = ~regular | (gap <= size * float(info.eps) * (8 + 2 * x.size))
    if not np.all(ok):
        raise Mismatch(f"{node!r}: got {got!r}, expected {want!r}")
