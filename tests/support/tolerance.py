"""How far a compiled result may be from the numpy rule: an operator's own statement, in units in the last place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jitflow.graph import Node
from tests.support.bits import equal_bits, is_float

Array = np.ndarray[Any, Any]


def deviations(node: Node, got: Array, want: Array, inputs: Sequence[Array]) -> Any:
    """Return where `got` is further from `want` than `node.op` allows, as an array of bool.

    Without a tolerance every bit counts. Otherwise infinities and NaN must agree, except that near the top of the range
    one of the two may have rounded to infinity.
    """
    same = equal_bits(got, want)
    if node.op.ulp == 0 and (node.op.expand is None or node.op.exact):
        return ~same
    if not is_float(got):
        return ~same
    with np.errstate(all="ignore"):
        g, w = got.astype(np.longdouble), want.astype(np.longdouble)
        info = _limits(node)
        eps, tiny, largest = (np.longdouble(x) for x in info)
        scale = _scale(node, want, inputs)
        ulp = node.op.ulp or 2.0
        bound = ulp * eps * scale + 2 * tiny * eps
        ok = same | (got == want) | (np.abs(g - w) <= bound)
        if node.op.scale is not None or not node.op.ulp:
            ok |= scale * 2 > largest  # a partial sum may have overflowed
        if node.op.name == "einsum" and len(inputs) > 2:
            # Of three factors the order decides whether infinity meets 0 or a sum of them: not whether it comes in.
            ok |= ~np.isfinite(g) & ~np.isfinite(w)
        near_top = 0.999 * largest
        ok |= np.isinf(g) & (np.abs(w) > near_top) | np.isinf(w) & (np.abs(g) > near_top)
    return ~ok


def _limits(node: Node) -> tuple[float, float, float]:
    """Return the relative spacing, the least normal number and the greatest number of the dtype of `node`."""
    digits, least, greatest = {
        "float16": (10, -14, 65504.0),
        "bfloat16": (7, -126, 3.3895313892515355e38),
        "float32": (23, -126, 3.4028234663852886e38),
        "float64": (52, -1022, 1.7976931348623157e308),
    }[node.dtype.name]
    return 2.0**-digits, 2.0**least, greatest


def _scale(node: Node, want: Array, inputs: Sequence[Array]) -> Any:
    """Return the magnitudes that errors are relative to; infinite where nothing can be said."""
    wide = [x.astype(np.longdouble) if is_float(x) else x for x in inputs]
    if node.op.scale is not None:
        finite = [
            np.where(np.isfinite(x), np.abs(x), 0) if is_float(i) else x for x, i in zip(wide, inputs, strict=True)
        ]
        own = np.asarray(node.op.scale(*finite, **dict(node.attrs)), np.longdouble)
        # Whatever errors are relative to, the result is rounded to its own places at the end.
        return np.maximum(own, np.where(np.isfinite(want), np.abs(want.astype(np.longdouble)), 0))
    if node.op.ulp:
        return np.abs(want.astype(np.longdouble))
    # A composition with sums in it: differences may cancel, so errors are relative to what went in, squared as in var.
    top = max((float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in map(np.atleast_1d, wide)), default=0.0)
    count = max((x.size for x in inputs), default=1)
    return np.longdouble(np.inf if top > 1e6 else max(1.0, top) ** 2 * 8 * (4 + min(count, 4096)))
