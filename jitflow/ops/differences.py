"""Differences of neighbours along an axis."""

from __future__ import annotations

from jitflow.errors import ShapeError
from jitflow.graph import Node, Operand, as_node, located
from jitflow.ops.axes import as_int, normalize_axis
from jitflow.ops.broadcast import broadcast_to
from jitflow.ops.compare import not_equal_op
from jitflow.ops.creation import full
from jitflow.ops.elementwise import subtract_op
from jitflow.ops.indexing import getitem
from jitflow.ops.joining import concat
from jitflow.public import public
from jitflow.types import shape_text


@public()
def diff(
    x: Operand, /, *, axis: int = -1, n: int = 1, prepend: Operand | None = None, append: Operand | None = None
) -> Node:
    """Return the `n`-th differences of neighbours along `axis`: ``x[i + 1] - x[i]``, again and again.

    Parameters
    ----------
    x
        A tensor of at least one axis. Of bool, whether neighbours differ.
    axis
        The axis, which becomes shorter by `n`.
    n
        How often, at least 0.
    prepend, append
        Tensors that agree in the other axes, joined to `x` before and after; numbers stand for one such slice.

    Raises
    ------
    ShapeError
        For a negative `n`, or tensors to join that do not fit.
    StaticIndexError
        For an axis that is not there.
    DTypeError
        If `n` is no int.

    Examples
    --------
    >>> import jitflow as jf
    >>> jf.interpret(jf.diff(jf.constant([1, 4, 9, 16]), n=2), {})
    array([2, 2])
    """
    node = as_node(x)
    if not node.shape:
        raise located(ShapeError(f"diff: an axis is needed, got shape {shape_text(node.shape)}"))
    k = normalize_axis(axis, len(node.shape), "diff")
    times = as_int(n, "diff: n")
    if times < 0:
        raise located(ShapeError(f"diff: n must not be negative, got {times}"))
    if times == 0:
        return node
    parts = [_slice_like(node, x, k) for x in (prepend, node, append) if x is not None]
    out = concat(parts, axis=k) if len(parts) > 1 else node
    before = (slice(None),) * k
    for _ in range(times):
        subtract = not_equal_op if out.dtype.is_bool else subtract_op
        out = subtract(getitem(out, (*before, slice(1, None))), getitem(out, (*before, slice(None, -1))))
    return out


def _slice_like(like: Node, x: Operand, axis: int) -> Operand:
    """Return what is joined to `like`: a tensor as it is, a number as a slice of one element."""
    if isinstance(x, (bool, int, float)) or not as_node(x).shape:
        shape = tuple(1 if k == axis else n for k, n in enumerate(like.shape))
        return full(shape, x, dtype=like.dtype) if isinstance(x, (bool, int, float)) else broadcast_to(x, shape)
    return x
