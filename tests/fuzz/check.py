"""One case in, a verdict out: compiled against the oracle node by node, and fused against unfused bit by bit.

Errors do not accumulate: every node of the unfused program is compared with the oracle's rule applied to the *compiled*
values of its inputs. So tolerances are those of a single operator, and comparisons and roundings must be exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

import jitflow as jf
from jitflow.graph import Node, toposort
from jitflow.interp import evaluate
from jitflow.tensor import as_tensor
from lowering import stage
from tests.fuzz.generate import Case
from tests.fuzz.guard import run_guarded
from tests.support.bits import same_bits
from tests.support.tolerance import deviations

Array = np.ndarray[Any, Any]


class Mismatch(Exception):
    """A case that fails, with what was found."""


def check_case(case: Case, *, guard: bool = False) -> None:
    """Raise Mismatch if compiled and interpreted results of `case` differ in value or in whether they fail.

    With `guard`, every buffer is next to an inaccessible page (`tests.fuzz.guard`). In every other case groups become
    stages of one kernel however small the arrays between them are, so that small graphs have such kernels, too.
    """
    kept = 0 if case.seed % 2 else stage.KEPT_BYTES
    with jf.config.override(debug_guard=guard, cache_dir=None), mock.patch.object(stage, "KEPT_BYTES", kept):
        _check(case, run_guarded if guard else lambda session, fetched, feeds: session.run(fetched, feeds))


def _check(case: Case, run: Callable[[jf.Session, list[Any], dict[Any, Array]], list[Array]]) -> None:
    _, fetched, feeds = case.build()
    if not fetched:
        return
    nodes = [n for n in toposort([t.node for t in fetched]) if n.op.name != "placeholder"]
    needed = set(toposort([t.node for t in fetched]))
    feeds = {t: v for t, v in feeds.items() if t.node in needed}
    tensors = [as_tensor(n) for n in nodes]
    wanted_error: Exception | None = None
    try:
        jf.interpret(fetched, feeds)
    except (jf.FeedError, IndexError) as error:
        wanted_error = error
    try:
        # What follows from constants alone is computed, and may fail, when the session is made.
        with jf.Session(fetched) as session:
            fused = run(session, fetched, feeds)
    except (jf.FeedError, IndexError) as error:
        if wanted_error is None:
            raise Mismatch(f"compiled code fails where the interpreter does not: {error}") from error
        return
    if wanted_error is not None:
        raise Mismatch(f"the interpreter fails where compiled code does not: {wanted_error}")
    below = set(toposort(nodes))
    with jf.config.override(fuse=False), jf.Session(tensors) as session:
        some = {t: v for t, v in feeds.items() if t.node in below}
        values: dict[Node, Array] = dict(zip(nodes, run(session, tensors, some), strict=True))
    dims = _dims(feeds)
    known = {**values, **{t.node: v for t, v in feeds.items()}}
    for node in nodes:
        operands = [known[x] for x in node.inputs]
        want = node.attr("value").array if node.op.source else evaluate(node, operands, dims)
        _check_node(node, values[node], want, operands)
    for tensor, got in zip(fetched, fused, strict=True):
        plain = known[tensor.node]
        if not same_bits(got, plain):
            raise Mismatch(f"fused and unfused differ at {tensor!r}:\n{got!r}\n{plain!r}")


def _dims(feeds: dict[Any, Array]) -> dict[Any, int]:
    return {
        d: size
        for t, v in feeds.items()
        for d, size in zip(t.node.shape, v.shape, strict=True)
        if not isinstance(d, int)
    }


def _check_node(node: Node, got: Array, want: Array, inputs: list[Array]) -> None:
    if got.dtype != want.dtype or got.shape != want.shape:
        raise Mismatch(f"{node!r}: got {got.dtype}{got.shape}, expected {want.dtype}{want.shape}")
    wrong = deviations(node, got, want, inputs)
    if np.any(wrong):
        raise Mismatch(_difference(node, got, want, inputs, wrong))


def _difference(node: Node, got: Array, want: Array, inputs: list[Array], where: Any) -> str:
    at = tuple(int(k) for k in np.argwhere(np.atleast_1d(where))[0])
    g, w = np.atleast_1d(got)[at], np.atleast_1d(want)[at]
    shown = "\n".join(f"  input {k}: {x.dtype}{x.shape} {_near(x, at)}" for k, x in enumerate(inputs))
    return f"{node!r} {dict(node.attrs)}: at {at} got {g!r}, expected {w!r}\n{shown}"


def _near(x: Array, at: tuple[int, ...]) -> str:
    if x.size <= 12:
        return repr(x.tolist())
    try:
        return f"{np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(k + 1 for k in at)))[at]!r} there"
    except (ValueError, IndexError):
        return ""
