"""One case in, a verdict out: compiled against the oracle node by node, and fused against unfused bit by bit.

Errors do not accumulate: every node of the unfused program is compared with the oracle's rule applied to the *compiled*
values of its inputs. So tolerances are those of a single operator, and comparisons and roundings must be exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import jitflow as jf
from jitflow.graph import Node, toposort
from jitflow.interp import evaluate
from jitflow.tensor import as_tensor
from tests.fuzz.generate import Case

Array = np.ndarray[Any, Any]

#: ULPs between two good implementations of one elementary function: numpy's are within 4, ours within 2.
ULPS = {"exp": 8, "log": 8, "tanh": 8, "sin": 8, "cos": 8, "erf": 8, "pow": 8, "gelu": 8, "divide": 0, "sqrt": 0}
#: What the oracle adds up in float64: the bound is relative to the sum of magnitudes. (Not `reduce_sum` and
#: `reduce_prod`: their order is part of their meaning, and the oracle follows it.)
SUMS = {"mean", "var", "softmax", "log_softmax", "layer_norm", "matmul"}


class Mismatch(Exception):
    """A case that fails, with what was found."""


def same_bits(a: Array, b: Array) -> bool:
    """Tell whether two arrays are equal to the last bit, any NaN being equal to any NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    word = np.int32 if a.dtype.itemsize == 4 else np.int64
    return (
        bool(np.all((a.view(word) == b.view(word)) | (np.isnan(a) & np.isnan(b))))
        if a.ndim
        else same_bits(a.reshape(1), b.reshape(1))
    )


def check_case(case: Case) -> None:
    """Raise Mismatch if compiled and interpreted results of `case` differ in value or in whether they fail."""
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
            fused = session.run(fetched, feeds)
    except (jf.FeedError, IndexError) as error:
        if wanted_error is None:
            raise Mismatch(f"compiled code fails where the interpreter does not: {error}") from error
        return
    if wanted_error is not None:
        raise Mismatch(f"the interpreter fails where compiled code does not: {wanted_error}")
    below = set(toposort(nodes))
    with jf.config.override(fuse=False), jf.Session(tensors) as session:
        some = {t: v for t, v in feeds.items() if t.node in below}
        values: dict[Node, Array] = dict(zip(nodes, session.run(tensors, some), strict=True))
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
    if got.size == 0 or same_bits(got, want):
        return
    name = node.op.name
    if got.dtype.kind != "f" or (name not in ULPS and name not in SUMS):
        raise Mismatch(_difference(node, got, want, inputs, ~((got == want) | (np.isnan(got) & np.isnan(want)))))
    with np.errstate(all="ignore"):
        ok = (got == want) | (np.isnan(got) & np.isnan(want))
        # In float64: the difference of two float32 near the top of their range may overflow in float32.
        gap = np.abs(got.astype(np.longdouble) - want.astype(np.longdouble))
        if name in SUMS:
            bound = _sum_bound(node, inputs, want)
            ok |= (gap <= bound) | ~np.isfinite(bound)
        else:
            # For negative arguments gelu is a small difference: x/2 * (1 + erf) is as exact as x is large.
            size = np.fmax(np.abs(want), np.abs(inputs[0])) if name == "gelu" else np.abs(want)
            spacing = np.spacing(np.minimum(size, np.finfo(want.dtype).max / 2)).astype(np.longdouble)
            ok |= gap <= ULPS[name] * spacing
            # Rounding may go to infinity on one side and to the greatest number on the other.
            ok |= np.isinf(got) & (np.abs(want) > 0.999 * np.finfo(want.dtype).max)
            ok |= np.isinf(want) & (np.abs(got) > 0.999 * np.finfo(want.dtype).max)
    if not np.all(ok):
        raise Mismatch(_difference(node, got, want, inputs, ~ok))


def _sum_bound(node: Node, inputs: list[Array], want: Array) -> Any:
    """Return what rounding in another order may change, infinite where that may overflow."""
    eps = float(np.finfo(want.dtype).eps)
    tiny = float(np.finfo(want.dtype).tiny)
    largest = np.longdouble(np.finfo(want.dtype).max)
    sizes = [np.abs(x.astype(np.longdouble)) for x in inputs]
    count = max((x.size for x in inputs), default=1)
    finite = [np.where(np.isfinite(s), s, 0) for s in sizes]
    top = max((float(s.max(initial=0.0)) for s in finite), default=0.0)
    match node.op.name:
        case "matmul":
            scale: Any = np.matmul(finite[0], finite[1])
        case "mean":
            scale = np.longdouble(sum(float(s.sum()) for s in finite))
        case "var":
            scale = np.longdouble(top) ** 2 * 4
        case _:
            # Normalised by sums: a cancelled variance may be off by a lot, so the bound grows with the inputs' spread.
            scale = np.longdouble(max(1.0, top) ** 2 * 8)
            if top > 1e6:
                return np.full(want.shape, np.inf, np.longdouble)
    bound = scale * eps * (8 + 2 * min(count, 4096)) + tiny * count
    return np.where(np.asarray(scale) * 2 > largest, np.inf, bound)


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
