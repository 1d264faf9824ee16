"""attention: values averaged by how well their keys fit a query; the row of weights is a softmax of scaled products."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jitflow.dtypes import as_dtype, bool_, float32, float64
from jitflow.errors import DTypeError, ShapeError
from jitflow.graph import Node, OpDef, Operand, Sample, as_node, define_op, make_constant
from jitflow.ops.axes import as_flag, as_number
from jitflow.ops.broadcast import reduce_sum_op, spread, unbroadcast
from jitflow.ops.cast import as_dtype_of, cast_array, promoted_floats
from jitflow.ops.compare import equal_op
from jitflow.ops.creation import dim_size
from jitflow.ops.elementwise import add_op, divide_op, multiply_op, subtract_op
from jitflow.ops.exponential import exp_op, sqrt_op
from jitflow.ops.matmul import matmul_op
from jitflow.ops.movement import matrix_transpose, reshape_to
from jitflow.ops.reduce import reduce_max_op
from jitflow.ops.selection import where_op
from jitflow.ops.testdata import FLOATS, Array, draw
from jitflow.ops.triangle import triangle_op
from jitflow.public import public
from jitflow.types import TensorType, broadcast_shapes, shape_text, unify


def _infer(
    q: TensorType, k: TensorType, v: TensorType, *mask: TensorType, causal: bool, scale: float | None
) -> TensorType:
    what = f"attention of q {shape_text(q.shape)}, k {shape_text(k.shape)} and v {shape_text(v.shape)}"
    if min(q.rank, k.rank, v.rank) < 2:
        raise ShapeError(f"{what}: each needs two axes at least, positions and features")
    if not q.dtype.is_float or k.dtype is not q.dtype or v.dtype is not q.dtype:
        raise DTypeError(f"{what}: floats of one dtype are needed, got {q.dtype}, {k.dtype} and {v.dtype}")
    unify(q.shape[-1], k.shape[-1], f"{what}: features of q and k")
    unify(k.shape[-2], v.shape[-2], f"{what}: positions of k and v")
    batch = broadcast_shapes([t.shape[:-2] for t in (q, k, v)], f"{what}: axes in front")
    scores = (*batch, q.shape[-2], k.shape[-2])
    for m in mask:
        if m.dtype is not bool_ and m.dtype is not q.dtype:
            raise DTypeError(f"attention: a mask is bool, or {q.dtype} as the queries, not {m.dtype}")
        if broadcast_shapes([scores, m.shape], f"{what}: mask") != scores:
            raise ShapeError(f"{what}: the mask {shape_text(m.shape)} does not broadcast to {shape_text(scores)}")
    return TensorType(q.dtype, (*batch, q.shape[-2], v.shape[-1]))


def _scaled(q: Node, scale: float | None) -> Node:
    """Return the queries times `scale`, by default one over the root of their number of features."""
    features = q.shape[-1]
    if scale is None and not isinstance(features, int):
        return divide_op(q, sqrt_op(dim_size(features, q.dtype)))
    factor = 1 / math.sqrt(max(features, 1)) if scale is None and isinstance(features, int) else scale
    return multiply_op(q, make_constant(factor, q.dtype))


def _masked(scores: Node, mask: Sequence[Node], causal: bool) -> Node:
    """Return `scores` with -inf where a key is hidden."""
    hidden = make_constant(-math.inf, scores.dtype)
    for m in mask:
        scores = where_op(m, scores, hidden) if m.dtype.is_bool else add_op(scores, m)
    return triangle_op(scores, k=0, upper=False, fill=-math.inf) if causal else scores


def _exponentials(scores: Node) -> tuple[Node, Node]:
    """Return ``exp(scores)`` over a common factor by row, and what each row adds up to.

    In a row where every key is hidden both are 0.
    """
    last = (len(scores.shape) - 1,)
    greatest = reduce_max_op(scores, axes=last, allow_empty=True)
    hidden = equal_op(greatest, make_constant(-math.inf, scores.dtype))
    shift = where_op(hidden, make_constant(0, scores.dtype), greatest)
    e = exp_op(subtract_op(scores, spread(shift, scores.shape, last)))
    return e, reduce_sum_op(e, axes=last, dtype=scores.dtype)


def _inverse(total: Node) -> Node:
    """Return ``1 / total``, and 0 for 0."""
    zero, one = make_constant(0, total.dtype), make_constant(1, total.dtype)
    is_zero = equal_op(total, zero)
    return where_op(is_zero, zero, divide_op(one, where_op(is_zero, one, total)))


def _expand(q: Node, k: Node, v: Node, *mask: Node, causal: bool, scale: float | None) -> Node:
    """The queries are scaled, not the products, and the results normalized, not the weights: both are fewer numbers."""
    scores = _masked(matmul_op(_scaled(q, scale), matrix_transpose(k)), mask, causal)
    e, total = _exponentials(scores)
    return multiply_op(matmul_op(e, v), reshape_to(_inverse(total), (*total.shape, 1)))


def _vjp(
    ct: Node, out: Node, q: Node, k: Node, v: Node, *mask: Node, causal: bool, scale: float | None
) -> tuple[Node | None, ...]:
    """With weights w and their cotangent g, that of the scores is ``w * (g - sum(g * w))``."""
    scaled, keys = _scaled(q, scale), matrix_transpose(k)
    products = matmul_op(scaled, keys)
    scores = _masked(products, mask, causal)
    e, total = _exponentials(scores)
    last = (len(scores.shape) - 1,)
    weights = multiply_op(e, spread(_inverse(total), scores.shape, last))
    assert matmul_op.vjp is not None
    g, dv = matmul_op.vjp(ct, out, weights, v)
    assert g is not None
    mean = spread(reduce_sum_op(multiply_op(g, weights), axes=last, dtype=g.dtype), scores.shape, last)
    ds = multiply_op(weights, subtract_op(g, mean))
    dscaled, dkeys = matmul_op.vjp(unbroadcast(ds, products.shape), products, scaled, keys)
    assert dscaled is not None
    assert dkeys is not None
    dmask = (None if m.dtype.is_bool else unbroadcast(ds, m.shape) for m in mask)
    return _scaled(dscaled, scale), matrix_transpose(dkeys), dv, *dmask


def _numpy(q: Array, k: Array, v: Array, *mask: Array, causal: bool, scale: float | None) -> Array:
    dtype = as_dtype(q.dtype)
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    factor = 1 / np.sqrt(max(q.shape[-1], 1)) if scale is None else scale
    with np.errstate(all="ignore"):
        scores = np.matmul(q, np.swapaxes(k, -1, -2)) * factor
        for m in mask:
            scores = np.where(m, scores, -np.inf) if m.dtype == np.bool_ else scores + m.astype(np.float64)
        if causal:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
        greatest = scores.max(axis=-1, keepdims=True, initial=-np.inf)
        weights = np.where(np.isneginf(greatest), 0, np.exp(scores - greatest))
        total = weights.sum(axis=-1, keepdims=True)
        return cast_array(np.matmul(weights / np.where(total == 0, 1, total), v), dtype)


def _samples(rng: np.random.Generator) -> Iterator[Sample]:
    plain: dict[str, Any] = {"causal": False, "scale": None}
    shapes: tuple[tuple[tuple[int, ...], ...], ...] = (
        ((3, 4), (5, 4), (5, 2)),
        ((2, 3, 4), (2, 3, 4), (2, 3, 4)),
        ((2, 1, 3, 4), (2, 5, 4), (5, 3)),
        ((1, 4), (1, 4), (1, 1)),
        ((3, 4), (0, 4), (0, 2)),
        ((0, 4), (3, 4), (3, 2)),
        ((3, 0), (2, 0), (2, 2)),
    )
    for sizes in shapes:
        inputs = tuple(draw(rng, float64, *s) for s in sizes)
        yield Sample(inputs, plain)
        yield Sample(inputs, {"causal": True, "scale": 0.3})
    q, k, v = (draw(rng, float64, *s) for s in ((2, 3, 4), (2, 5, 4), (2, 5, 3)))
    keep = draw(rng, bool_, 2, 3, 5)
    keep[0, 1] = False
    for mask in (keep, keep[0], draw(rng, float64, 3, 5), draw(rng, float64, 2, 1, 5)):
        yield Sample((q, k, v, mask), plain)
    yield Sample((q, k, v, np.where(keep, 0.0, -np.inf)), {"causal": True, "scale": None}, smooth=False)
    for dtype in FLOATS:
        own = tuple(draw(rng, dtype, *s) for s in ((2, 7, 16), (2, 9, 16), (2, 9, 5)))
        yield Sample(own, plain, smooth=False)
        yield Sample((*own, draw(rng, dtype, 7, 9)), {"causal": True, "scale": 2.0}, smooth=False)
    x = draw(rng, float32, 3, 4)
    yield Sample((x, x[:, :2], x), plain, ShapeError, "features of q and k: 4 and 2 differ")
    yield Sample((x, x, x[:2]), plain, ShapeError, "positions of k and v: 3 and 2 differ")
    yield Sample((x[0], x, x), plain, ShapeError, "each needs two axes at least")
    yield Sample((x, x, x.astype(np.float64)), plain, DTypeError, "floats of one dtype are needed")
    yield Sample((x.astype(np.int32),) * 3, plain, DTypeError, "floats of one dtype are needed")
    yield Sample((x, x, x, x[:, :2]), plain, ShapeError, "do not broadcast")
    yield Sample((x, x, x, np.ones((2, 3, 3), np.bool_)), plain, ShapeError, r"mask \(2, 3, 3\) does not broadcast")
    yield Sample((x, x, x, np.ones((3, 3), np.int32)), plain, DTypeError, "a mask is bool, or float32 as the queries")


attention_op: OpDef = define_op(
    "attention",
    infer=_infer,
    expand=_expand,
    numpy=_numpy,
    vjp=_vjp,
    samples=_samples,
    costly=True,
)


@public("nn")
def attention(
    q: Operand,
    k: Operand,
    v: Operand,
    /,
    *,
    mask: Operand | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Node:
    """Return ``softmax(q @ k.T * scale + mask) @ v``: for each query the mean of the values, weighted by their keys.

    A query from which every key is hidden gives zeros, never NaN.

    Parameters
    ----------
    q
        Queries, of shape (..., n, d).
    k
        Keys, of shape (..., m, d).
    v
        Values, of shape (..., m, e). The axes in front broadcast; sizes may be symbolic.
    mask
        A tensor that broadcasts to (..., n, m): of bool, which keys a query sees; of floats, what is added to the
        scores (-inf hides a key).
    causal
        Whether query i sees the keys up to position i only, both counted from the first.
    scale
        What the scores are multiplied by; by default ``1 / sqrt(d)``.

    Returns
    -------
    Node
        Of shape (..., n, e).

    Raises
    ------
    ShapeError
        If features or positions differ, axes in front do not broadcast, or the mask does not.
    DTypeError
        If the mask holds integers.

    Examples
    --------
    >>> import jitflow as jf
    >>> x = jf.constant([[1.0, 0.0], [0.0, 1.0]])
    >>> jf.interpret(jf.nn.attention(x, x, x, scale=1000.0), {})
    array([[1., 0.],
           [0., 1.]])
    """
    inputs = [*promoted_floats(q, k, v)]
    if mask is not None:
        node = as_node(mask)
        inputs.append(as_dtype_of(node, inputs[0].dtype) if node.dtype.is_float else node)
    factor = None if scale is None else as_number(scale, "attention: scale")
    return attention_op(*inputs, causal=as_flag(causal, "attention: causal"), scale=factor)
